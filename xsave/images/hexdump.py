"""Text that shows bytes: what people paste from xxd, hexdump, od, gdb and lldb, or bare hex digits.

The form is recognised from the lines themselves. Addresses are checked: a line that is missing or out of order ends
in an error, a `*` stands for repetitions of the line before it.
"""

import itertools
import re

from xsave.errors import ImageError, XSaveError
from xsave.images.image import Image
from xsave.images.source import BytesSource, open_source

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from xsave.images.source import Source
    from xsave.models import CpuModel

__all__ = ["area_bytes", "looks_like_text", "open_text", "parse_hex"]

_TEXT_MAX = 1 << 24
_BYTES_MAX = 1 << 22
_LINES_MAX = 1 << 19
_LINE_ENDS = "\n\r\v\f\x1c\x1d\x1e"
_PRINTABLE = frozenset(b"\t\n\r\f\x1b") | frozenset(range(0x20, 0x7F))

# `ADDRESS: ...` with a symbol in between for gdb, or none for xxd and lldb.
# Every pattern is linear in the line's length, whatever the line holds.
_COLON = re.compile(r"\s*(?:=>\s*)?(0x)?([0-9a-fA-F]+)\s*(?:<[^>]*>\s*)?:\s?(.*)")
_COLUMNS = re.compile(r"([0-9a-fA-F]{6,16})(?:\s+(.*))?$")
_GDB_WORD = re.compile(r"0x([0-9a-fA-F]+)$")
_BARE = re.compile(r"(?:0x|\\x)?([0-9a-fA-F]+)$")
_PROMPT = re.compile(r"\s*\(gdb\)|\s*\(lldb\)|\s*[$#] ")


def looks_like_text(head: bytes) -> bool:
    """Whether the first bytes of a source can be a hex dump: printable, and with a hex digit among them."""
    return bool(head) and all(byte in _PRINTABLE for byte in head.removeprefix(b"\xef\xbb\xbf")) and bool(
        re.search(rb"[0-9a-fA-F]{2}", head)
    )


def open_text(source: "Source", cpu: "CpuModel | None") -> Image:
    """The image of the bytes that a text shows. Raises: `ImageError` naming the line."""
    if not source.seekable:
        source.retain(0, _TEXT_MAX + 1)
    text = source.read(0, _TEXT_MAX + 1)
    if len(text) > _TEXT_MAX:
        raise source.fail("the text", f"longer than {_TEXT_MAX:,} bytes", _TEXT_MAX, "a hex dump of an area", "T-LIMIT")
    data, form = parse_hex(text, source.name)
    inner = BytesSource(f"{source.name} (hex dump)", data)
    if data.startswith(b"\x7fELF"):
        from xsave.images.core import open_core

        return open_core(inner, cpu)
    from xsave.images.raw import open_raw, plausible

    image = open_raw(inner, data[:64], cpu, kind=f"hex dump ({form})")
    if image is None:
        raise ImageError(f"{source.name}: the {len(data):,} bytes that it shows ({form}) are no XSAVE area: "
                         f"{plausible(data) or 'too long'}", rule="T-AREA")
    return image


def area_bytes(source: "Any", most: int) -> "bytes | None":
    """The bytes that a source holds or, as text, shows: at most `most` of them, whether or not they are an area.

    None for what cannot be read, and for text that is no hex dump.
    """
    try:
        opened = open_source(source)
        try:
            if not opened.seekable:
                opened.retain(0, most)
            data = opened.read(0, most)
            return parse_hex(data, opened.name)[0] if looks_like_text(data[:4096]) else data
        finally:
            opened.close()
    except XSaveError:
        return None


class _Rows:
    # Collects the bytes of addressed lines, checking that nothing is missing between them.
    def __init__(self, name: str) -> None:
        self.name = name
        self.data = bytearray()
        self.base: "int | None" = None
        self.last = b""
        self.starred = False

    def fail(self, number: int, found: str, expected: str) -> ImageError:
        return ImageError(f"{self.name}: line {number} of the hex dump is {found}, expected {expected}", rule="T-LINE")

    def add(self, number: int, address: int, row: bytes) -> None:
        if self.base is None:
            self.base = address
        expected = self.base + len(self.data)
        gap = address - expected
        if gap and self.starred and gap > 0 and self.last and gap % len(self.last) == 0:
            if len(self.data) + gap > _BYTES_MAX:
                raise self.fail(number, f"at address {address:#x}", f"a dump of at most {_BYTES_MAX:,} bytes")
            self.data += self.last * (gap // len(self.last))
        elif gap > 0 or gap < 0:
            wanted = f"address {expected:#x}: lines are missing or out of order"
            raise self.fail(number, f"at address {address:#x}", wanted)
        self.starred = False
        if row:
            self.last = row
            self.data += row
        if len(self.data) > _BYTES_MAX:
            raise self.fail(number, "one too many", f"a dump of at most {_BYTES_MAX:,} bytes")

    def whole(self) -> bytes:
        if self.starred:
            raise ImageError(f"{self.name}: the hex dump ends with a *, and no address behind it says how often the "
                             "line before it repeats", rule="T-LINE")
        return bytes(self.data)


def parse_hex(text: "str | bytes", name: str = "<text>") -> "tuple[bytes, str]":
    """The bytes that a hex dump shows, and the name of its form.

    Known: `xxd` (also `-p`, `-c`, `-g`, `-u`), `hexdump -C`, `hexdump` (16-bit words), `od` in octal, `-x`,
    `-t x1` to `x8`, `-t o1`, `o2`, with addresses in any base or none, gdb's `x/NNx` in b, h, w, g, lldb's
    `memory read`, bare digits. Raises: `ImageError` naming the line.
    """
    if isinstance(text, bytes):
        text = text.removeprefix(b"\xef\xbb\xbf").decode("ascii", "replace")
    if sum(map(text.count, _LINE_ENDS)) > _LINES_MAX:
        raise ImageError(f"{name}: more than {_LINES_MAX:,} lines, expected a hex dump of an area", rule="T-LIMIT")
    lines = [(number, line.rstrip()) for number, line in enumerate(text.splitlines(), 1)]
    lines = [(number, line) for number, line in lines if line.strip() and not _PROMPT.match(line)]
    if not lines:
        raise ImageError(f"{name}: no hex dump: no line with digits", rule="T-EMPTY")
    first = lines[0][1]
    colon = _COLON.match(first)
    if colon and colon.group(3):
        if _GDB_WORD.match(colon.group(3).split()[0]):
            return _gdb(lines, name)
        return _xxd(lines, name)
    # hexdump and od begin in column 0 with an address of six digits or more, and end with one alone.
    if len(lines) > 1 and (columns := _COLUMNS.match(first)) and columns.group(2) and _addressed(lines):
        return _words(lines, name)
    return _bare(lines, name)


def _gdb(lines: "list[tuple[int, str]]", name: str) -> "tuple[bytes, str]":
    rows = _Rows(name)
    for number, line in lines:
        match = _COLON.match(line)
        if match is None:
            raise rows.fail(number, f"{line[:40]!r}", "ADDRESS: 0x...")
        row = bytearray()
        for token in match.group(3).split():
            word = _GDB_WORD.match(token)
            if word is None or len(word.group(1)) not in (2, 4, 8, 16):
                raise rows.fail(number, f"{token[:40]!r}", "0x and 2, 4, 8 or 16 digits, as x/NNxb, h, w or g print")
            row += bytes.fromhex(word.group(1))[::-1]
        rows.add(number, int(match.group(2), 16), bytes(row))
    return rows.whole(), "gdb x/"


def _xxd(lines: "list[tuple[int, str]]", name: str) -> "tuple[bytes, str]":
    rows = _Rows(name)
    for number, line in lines:
        if line.strip() == "*":
            rows.starred = True
            continue
        match = _COLON.match(line)
        if match is None:
            raise rows.fail(number, f"{line[:40]!r}", "ADDRESS: bytes")
        # Two blanks end the bytes: what follows is the same in characters.
        digits = match.group(3).strip().split("  ")[0].replace(" ", "")
        rows.add(number, int(match.group(2), 16), _digits(rows, number, digits))
    return rows.whole(), "xxd"


def _digits(rows: _Rows, number: int, digits: str) -> bytes:
    try:
        return bytes.fromhex(digits)
    except ValueError:
        raise rows.fail(number, f"{digits[:40]!r}", "pairs of hex digits") from None


def _addressed(lines: "list[tuple[int, str]]") -> bool:
    return all(line == "*" or _COLUMNS.match(line) for _, line in lines[:64])


def _without_characters(rest: str) -> str:
    # `|...|` of hexdump -C and `>...<` of od -z show the bytes once more.
    ends = [rest.find("|")]
    if rest.rstrip().endswith("<"):
        ends.append(rest.find(" >"))
    return rest[: min((end for end in ends if end >= 0), default=None)]


def _fields(lines: "list[tuple[int, str]]") -> "Iterator[tuple[int, str, list[str] | None]]":
    for number, line in lines:
        if line.strip() == "*":
            yield number, "", None
            continue
        address, _, rest = line.strip().partition(" ")
        yield number, address, _without_characters(rest).split()


def _words(lines: "list[tuple[int, str]]", name: str) -> "tuple[bytes, str]":
    """hexdump and od: the base of the addresses is the one in which they fit the lines between them."""
    rows = _Rows(name)
    shown = [(number, address, tokens) for number, address, tokens in _fields(lines) if tokens]
    widths = {len(token) for _, _, tokens in shown for token in tokens}
    if not shown:
        raise ImageError(f"{name}: no hex dump: addresses, and no bytes behind them", rule="T-EMPTY")
    if len(widths) != 1:
        raise rows.fail(shown[0][0], f"of words of {sorted(widths)} digits", "words of one width")
    width = widths.pop()
    octal = width in (3, 6, 11, 22)
    if not octal and width not in (2, 4, 8, 16):
        raise rows.fail(shown[0][0], f"of words of {width} digits", "2, 4, 8 or 16 hex or 3, 6, 11 or 22 octal digits")
    unit = {3: 1, 6: 2, 11: 4, 22: 8}[width] if octal else width // 2
    base = _base(lines, unit, (8, 16, 10) if octal else (16, 8, 10))
    if base is None:
        raise rows.fail(shown[0][0], f"at address {shown[0][1]}", "addresses in base 8, 10 or 16")
    for number, address, tokens in _fields(lines):
        if tokens is None:
            rows.starred = True
            continue
        row = bytearray()
        for token in tokens:
            try:
                value = int(token, 8 if octal else 16)
                row += value.to_bytes(unit, "little")
            except (ValueError, OverflowError):
                raise rows.fail(number, f"{token[:40]!r}", f"a word of {unit} bytes") from None
        try:
            place = int(address, base)
        except ValueError:
            raise rows.fail(number, f"{address[:40]!r}", f"an address in base {base}") from None
        end = None if rows.base is None else rows.base + len(rows.data)
        if not row and end is not None and not rows.starred and place < end and end - place < unit:
            # The last word was padded; the address alone in the last line says where the bytes end.
            del rows.data[place - (rows.base or 0) :]
            continue
        rows.add(number, place, bytes(row))
    form = "od" if octal or base != 16 else "hexdump -C" if any(line.endswith("|") for _, line in lines) else "hexdump"
    return rows.whole(), form


def _base(lines: "list[tuple[int, str]]", unit: int, order: "tuple[int, ...]") -> "int | None":
    # The base in which most lines begin where the one before ends; the first of `order` where nothing tells.
    fields = [(address, tokens) for _, address, tokens in _fields(lines[:4096])]
    best, votes = None, -1
    for base in order:
        try:
            steps = [
                (int(after[0], base) - int(before[0], base), len(before[1]) * unit)
                for before, after in itertools.pairwise(fields)
                if before[1] and after[1] is not None
            ]
            for address, tokens in fields:
                if tokens is not None:
                    int(address, base)
        except ValueError:
            continue
        # In front of an address that stands alone the last word may have been padded.
        fits = sum(size - unit < step <= size for step, size in steps)
        if fits > votes:
            best, votes = base, fits
    return best


def _bare(lines: "list[tuple[int, str]]", name: str) -> "tuple[bytes, str]":
    # Bytes in order, however they are grouped: xxd -p, od -An -t x1, C arrays, escapes.
    out = bytearray()
    last, starred = b"", False
    for number, line in lines:
        if line.strip() == "*":
            starred = True
            continue
        if starred:
            raise ImageError(f"{name}: line {number} of the hex dump follows a *, but no line has an address: how "
                             "often the line before it repeats is not known", rule="T-LINE")
        tokens = re.split(r"[\s,;:_]+", line.strip().strip("{}[]\"'"))
        row = bytearray()
        for token in tokens:
            for part in re.sub(r"\\x", " ", token).split():
                match = _BARE.match(part)
                if match is None or len(match.group(1)) % 2:
                    raise ImageError(f"{name}: line {number} of the hex dump has {part[:40]!r}, expected pairs of hex "
                                     "digits", rule="T-LINE")
                row += bytes.fromhex(match.group(1))
        last = bytes(row)
        out += last
        if len(out) > _BYTES_MAX:
            raise ImageError(f"{name}: line {number}: more than {_BYTES_MAX:,} bytes in the hex dump", rule="T-LIMIT")
    if starred:
        raise ImageError(f"{name}: the hex dump ends with a *, and no line has an address", rule="T-LINE")
    return bytes(out), "bare hex"
