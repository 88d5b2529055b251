"""CPUID records: text and binary forms, each read into `{(leaf, subleaf): (eax, ebx, ecx, edx)}`.

`read_text` recognises

* `cpuid -r`: `   0x0000000d 0x00: eax=0x00000003 ebx=0x00000240 ecx=0x00000240 edx=0x00000000`
* InstLatx64 and AIDA64 dumps: `CPUID 0000000D: 00000003-00000240-00000240-00000000 [SL 00]`, also without
  the colon (AIDA64's reports) and without sub-leaf numbers (those of older versions)
* JSON, at any nesting: objects `{"function", "index", "eax", "ebx", "ecx", "edx"}` (kvm_cpuid2 as VMMs write
  it, also inside a string that holds JSON again), rows `[leaf, subleaf, eax, ebx, ecx, edx]`, and objects
  `{"leaf.subleaf": [eax, ebx, ecx, edx]}`; numbers are integers or hex strings

and takes the first CPU of several. `read_kvm_cpuid2` reads the kernel's `struct kvm_cpuid2`. Any other
input ends in one `FormatError` with line or byte, what was found and what was expected.
"""

from xsave.errors import FormatError, TruncatedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    Registers = tuple[int, int, int, int]
    Leaves = dict[tuple[int, int], Registers]

__all__ = ["TEXT_LIMIT", "read_kvm_cpuid2", "read_text"]

TEXT_LIMIT = 1 << 20  # bytes of text, and characters
ENTRY_LIMIT = 4096  # entries of a kvm_cpuid2; the kernel makes 256 at most
_STRING_DEPTH = 4  # JSON inside strings inside JSON
_HEX = frozenset("0123456789abcdefABCDEF")
_REGISTERS = ("eax", "ebx", "ecx", "edx")
_STATE = 0xD
_FORMS = "`cpuid -r` lines, `CPUID XXXXXXXX: ...` lines, or JSON of leaves and registers"


def read_text(text: "str | bytes") -> "tuple[Leaves, str]":
    """The leaves of the first CPU in `text`, and the name of the form that was recognised.

    Raises: `FormatError` where nothing is recognised, a recognised line is broken, or the text is longer
    than `TEXT_LIMIT`.
    """
    if len(text) > TEXT_LIMIT:
        raise FormatError(f"CPUID text of {len(text):,} characters: expected at most {TEXT_LIMIT:,}")
    if isinstance(text, (bytes, bytearray)):
        text = _decoded(bytes(text))
    text = text.lstrip("\ufeff")
    if text.lstrip()[:1] in ("{", "["):
        return _read_json(text), "JSON"
    return _read_lines(text)


def read_kvm_cpuid2(data: "bytes | bytearray | memoryview") -> "Leaves":
    """The leaves of a `struct kvm_cpuid2`: u32 nent, u32 padding, then 40-byte entries.

    Raises: `TruncatedError` where the entries announced are not there, `FormatError` for a count of 0 or
    above 4,096.
    """
    from struct import iter_unpack, unpack_from

    view = memoryview(data).cast("B")
    if len(view) < 8:
        raise TruncatedError(f"kvm_cpuid2 of {len(view)} bytes: expected a header of 8", offset=len(view))
    count = unpack_from("<I", view)[0]
    if not 1 <= count <= ENTRY_LIMIT:
        raise FormatError(f"kvm_cpuid2 nent at byte 0: found {count}, expected 1 to {ENTRY_LIMIT:,}", offset=0)
    end = 8 + 40 * count
    if len(view) < end:
        raise TruncatedError(f"kvm_cpuid2 of {len(view)} bytes: expected {end} for nent {count}", offset=len(view))
    leaves: Leaves = {}
    for leaf, index, _flags, a, b, c, d, *_padding in iter_unpack("<10I", view[8:end]):
        leaves.setdefault((leaf, index), (a, b, c, d))
    return leaves


def _decoded(data: bytes) -> str:
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return data.decode("utf-16", "replace")
    return data.decode("utf-8", "replace")


def _shown(text: str) -> str:
    return repr(text) if len(text) <= 60 else repr(text[:57] + "...")


# Lines


def _read_lines(text: str) -> "tuple[Leaves, str]":
    block = _Block()
    form = ""
    first = ""
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.strip()
        first = first or line
        if line[:2] in ("0x", "0X"):
            kind, row = "cpuid -r", _raw_line(line, number)
        elif line[:6].upper() == "CPUID " and _is_leaf(line):
            kind, row = "InstLatx64", _dump_line(line, number)
        else:
            continue
        if form and kind != form:
            raise FormatError(f"line {number}: found {_shown(line)} among {form} lines, expected one form of text")
        form = kind
        if not block.add(*row):
            break
    if not form:
        found = _shown(first) if first else "nothing"
        raise FormatError(f"line 1: found {found}, expected {_FORMS}")
    return block.leaves(), form


class _Block:
    """The lines of one CPU; sub-leaves that the lines do not number are numbered when it is complete."""

    def __init__(self) -> None:
        self._labelled: Leaves = {}
        self._listed: dict[int, list[Registers]] = {}

    def add(self, leaf: int, subleaf: "int | None", registers: "Registers") -> bool:
        """Takes a line; False where it begins the next CPU: leaf 0 once more."""
        if leaf == 0 and ((0, 0) in self._labelled or 0 in self._listed) and not subleaf:
            return False
        if subleaf is None:
            self._listed.setdefault(leaf, []).append(registers)
        else:
            self._labelled.setdefault((leaf, subleaf), registers)
        return True

    def leaves(self) -> "Leaves":
        found = dict(self._labelled)
        for leaf, rows in self._listed.items():
            for subleaf, registers in zip(self._numbers(leaf, rows), rows, strict=True):
                found.setdefault((leaf, subleaf), registers)
        return found

    @staticmethod
    def _numbers(leaf: int, rows: "list[Registers]") -> "list[int]":
        """Sub-leaf numbers of unnumbered lines: consecutive, but in leaf 0DH, where tools leave empty sub-leaves
        out, the numbers of the enumerated components if there are exactly as many lines, none of them empty."""
        if leaf == _STATE and len(rows) > 2:
            masks = [rows[0][0] | rows[0][3] << 32, rows[1][2] | rows[1][3] << 32]
            enumerated = [bit for bit in range(2, 63) if (masks[0] | masks[1]) >> bit & 1]
            if len(enumerated) == len(rows) - 2 and all(any(row) for row in rows[2:]):
                return [0, 1, *enumerated]
        return list(range(len(rows)))


def _raw_line(line: str, number: int) -> "tuple[int, int | None, Registers]":
    """`0xLEAF 0xSUB: eax=0x... ebx=0x... ecx=0x... edx=0x...`; the sub-leaf may be absent."""
    head, colon, tail = line.partition(":")
    numbers, fields = head.split(None, 3), tail.split(None, 5)
    if not colon or not 1 <= len(numbers) <= 2 or len(fields) != 4:
        expected = "`0xLEAF 0xSUBLEAF: eax=... ebx=... ecx=... edx=...`"
        raise FormatError(f"line {number}: found {_shown(line)}, expected {expected}")
    values = []
    for name, field in zip(_REGISTERS, fields, strict=True):
        if field[:4].lower() != name + "=":
            raise FormatError(f"line {number}: found {_shown(field)}, expected `{name}=0x...`")
        values.append(_hex(field[4:], f"line {number}: {name}"))
    leaf = _hex(numbers[0], f"line {number}: leaf")
    subleaf = _hex(numbers[1], f"line {number}: sub-leaf") if len(numbers) == 2 else None
    return leaf, subleaf, (values[0], values[1], values[2], values[3])


def _is_leaf(line: str) -> bool:
    """Whether `CPUID ` is followed by a leaf number (reports have other lines that begin so)."""
    word = line[6:].lstrip()[:9]
    return word[8:] in (":", " ", "\t") and _HEX.issuperset(word[:8])


def _dump_line(line: str, number: int) -> "tuple[int, int | None, Registers]":
    """`CPUID XXXXXXXX: XXXXXXXX-XXXXXXXX-XXXXXXXX-XXXXXXXX`, then nothing, `[SL XX]` or other text.

    Reports in columns have blanks for the colon.
    """
    body = line[6:].lstrip()
    head, tail = body[:8], body[9:]
    words = tail.split(None, 3)
    fields = words[0].split("-", 4) if words else []
    if len(fields) != 4 or any(len(field) != 8 for field in fields):
        expected = "`CPUID LEAF: EAX-EBX-ECX-EDX`, 8 hex digits each"
        raise FormatError(f"line {number}: found {_shown(line)}, expected {expected}")
    values = [_hex(field, f"line {number}: {name}") for name, field in zip(_REGISTERS, fields, strict=True)]
    subleaf = None
    if len(words) > 2 and words[1].upper() == "[SL":
        subleaf = _hex(words[2].rstrip("]"), f"line {number}: sub-leaf")
    return _hex(head, f"line {number}: leaf"), subleaf, (values[0], values[1], values[2], values[3])


# JSON


def _read_json(text: str) -> "Leaves":
    document = _loads(text)
    stack: list[tuple[object, int]] = [(document, 0)]
    while stack:
        node, depth = stack.pop()
        children: list[object] = []
        if isinstance(node, dict):
            found = _named_map(node)
            children = list(node.values())
        elif isinstance(node, list):
            found = _entries(node) or _rows(node)
            children = node
        else:
            found = None
            if isinstance(node, str) and depth < _STRING_DEPTH and node[:1] in ("{", "[") and "function" in node:
                children, depth = [_loads(node)], depth + 1
        if found:
            return found
        stack.extend((child, depth) for child in reversed(children) if isinstance(child, (dict, list, str)))
    raise FormatError(f"line 1: found JSON without CPUID leaves, expected {_FORMS}")


def _loads(text: str) -> object:
    from json import loads

    try:
        return loads(text)
    except RecursionError:
        raise FormatError("line 1: found JSON nested too deeply, expected CPUID leaves") from None
    except ValueError as error:
        line = getattr(error, "lineno", 1)
        raise FormatError(f"line {line}: found broken JSON ({error}), expected {_FORMS}") from None


def _entries(node: "list[object]") -> "Leaves | None":
    """A list of kvm_cpuid2 entries."""
    if not (node and isinstance(node[0], dict) and "function" in node[0] and "eax" in node[0]):
        return None
    leaves: Leaves = {}
    for number, entry in enumerate(node):
        if not isinstance(entry, dict):
            found = type(entry).__name__
            raise FormatError(f"JSON entry {number}: found {found}, expected an object with function and registers")
        values = [_json_number(entry.get(key), f"JSON entry {number}: {key}") for key in ("function", *_REGISTERS)]
        index = _json_number(entry.get("index", 0), f"JSON entry {number}: index")
        leaves.setdefault((values[0], index), (values[1], values[2], values[3], values[4]))
    return leaves


def _rows(node: "list[object]") -> "Leaves | None":
    """A list of [leaf, subleaf, eax, ebx, ecx, edx]."""
    if not (node and isinstance(node[0], list) and len(node[0]) == 6 and not isinstance(node[0][0], (list, dict))):
        return None
    leaves: Leaves = {}
    for number, row in enumerate(node):
        if not isinstance(row, list) or len(row) != 6:
            raise FormatError(f"JSON row {number}: expected [leaf, subleaf, eax, ebx, ecx, edx]")
        leaf, subleaf, a, b, c, d = (_json_number(value, f"JSON row {number}") for value in row)
        leaves.setdefault((leaf, subleaf), (a, b, c, d))
    return leaves


def _named_map(node: "dict[str, object]") -> "Leaves | None":
    """An object of {"leaf.subleaf": [eax, ebx, ecx, edx]}."""
    key = next(iter(node), "")
    leaf, dot, subleaf = key.partition(".")
    if not (dot and leaf and subleaf and _HEX.issuperset(leaf) and _HEX.issuperset(subleaf)):
        return None
    leaves: Leaves = {}
    for key, registers in node.items():
        leaf, dot, subleaf = key.partition(".")
        if not dot or not isinstance(registers, list) or len(registers) != 4:
            raise FormatError(f'JSON key {_shown(key)}: expected "leaf.subleaf": [eax, ebx, ecx, edx]')
        a, b, c, d = (_json_number(value, f"JSON key {_shown(key)}") for value in registers)
        place = f"JSON key {_shown(key)}: leaf"
        leaves.setdefault((_hex(leaf, place), _hex(subleaf, place)), (a, b, c, d))
    return leaves


def _json_number(value: object, place: str) -> int:
    if isinstance(value, str):
        return _hex(value.strip(), place)
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 32:
        return value
    shown = value if isinstance(value, (int, float)) else type(value).__name__
    raise FormatError(f"{place}: found {str(shown)[:40]}, expected a 32-bit integer or its hex string")


def _hex(text: str, place: str) -> int:
    digits = text[2:] if text[:2] in ("0x", "0X") else text
    if not 1 <= len(digits) <= 8 or not _HEX.issuperset(digits):
        raise FormatError(f"{place}: found {_shown(text)}, expected 1 to 8 hex digits")
    return int(digits, 16)
