"""Writes bytes as text in the forms that people paste: hexdump, xxd, od, gdb; no other program is asked."""

import struct
from collections.abc import Callable, Iterator


def _rows(data: bytes, step: int) -> Iterator[tuple[int, bytes, bool]]:
    # (offset, bytes, is this one more of the same), as hexdump and od fold repetitions
    before = None
    for at in range(0, len(data), step):
        row = data[at : at + step]
        yield at, row, row == before and len(row) == step
        before = row


def _folded(data: bytes, step: int, line: Callable[[int, bytes], str], end: Callable[[int], str]) -> str:
    out, starred = [], False
    for at, row, same in _rows(data, step):
        if same:
            if not starred:
                out.append("*")
            starred = True
            continue
        starred = False
        out.append(line(at, row))
    return "\n".join([*out, end(len(data))]) + "\n"


def _ascii(row: bytes) -> str:
    return "".join(chr(byte) if 32 <= byte < 127 else "." for byte in row)


def xxd(data: bytes, step: int = 16, group: int = 2, base: int = 0) -> str:
    lines = []
    for at, row, _ in _rows(data, step):
        text = " ".join(row[i : i + group].hex() for i in range(0, len(row), group))
        width = step * 2 + (step + group - 1) // group - 1
        lines.append(f"{base + at:08x}: {text:<{width}}  {_ascii(row)}")
    return "\n".join(lines) + "\n"


def xxd_plain(data: bytes) -> str:
    return "\n".join(data[at : at + 30].hex() for at in range(0, len(data), 30)) + "\n"


def hexdump_canonical(data: bytes) -> str:
    def line(at: int, row: bytes) -> str:
        halves = (" ".join(f"{byte:02x}" for byte in half) for half in (row[:8], row[8:]))
        return f"{at:08x}  {'  '.join(halves):<48}  |{_ascii(row)}|"

    return _folded(data, 16, line, lambda size: f"{size:08x}")


def hexdump_words(data: bytes) -> str:
    def line(at: int, row: bytes) -> str:
        row += b"\0" * (len(row) % 2)
        return f"{at:07x} " + " ".join(f"{word:04x}" for word, in struct.iter_unpack("<H", row))

    return _folded(data, 16, line, lambda size: f"{size:07x}")


def od(data: bytes, kind: str = "o2", base: str = "o", ascii_column: bool = False) -> str:
    unit = int(kind[1:])
    digits = {"o": {1: 3, 2: 6, 4: 11, 8: 22}, "x": {1: 2, 2: 4, 4: 8, 8: 16}}[kind[0]][unit]
    address = {"o": "{:07o}", "x": "{:06x}", "d": "{:07d}", "n": ""}[base]

    def line(at: int, row: bytes) -> str:
        padded = row + b"\0" * (-len(row) % unit)
        words = (int.from_bytes(padded[i : i + unit], "little") for i in range(0, len(padded), unit))
        tail = f"  >{_ascii(row)}<" if ascii_column else ""
        return address.format(at) + " " + " ".join(f"{word:0{digits}{kind[0]}}" for word in words) + tail

    return _folded(data, 16, line, lambda size: address.format(size))


def gdb(data: bytes, unit: int = 1, symbol: bool = False, base: int = 0x7FFFFFFFE000) -> str:
    step = {1: 8, 2: 16, 4: 16, 8: 16}[unit]
    lines = []
    for at, row, _ in _rows(data, step):
        words = (int.from_bytes(row[i : i + unit], "little") for i in range(0, len(row), unit))
        place = f"{base + at:#x}" + (f" <state+{at}>" if symbol else "")
        lines.append(f"{place}:\t" + "\t".join(f"0x{word:0{2 * unit}x}" for word in words))
    return "\n".join(lines) + "\n"


def lldb(data: bytes, base: int = 0x7FFFFFFFE000) -> str:
    lines = [f"{base + at:#x}: {row.hex(' '):<47}  {_ascii(row)}" for at, row, _ in _rows(data, 16)]
    return "\n".join(lines) + "\n"


def c_array(data: bytes) -> str:
    return "{ " + ", ".join(f"0x{byte:02x}" for byte in data) + " }\n"


def escapes(data: bytes) -> str:
    return '"' + "".join(f"\\x{byte:02x}" for byte in data) + '"\n'


FORMS: dict[str, Callable[[bytes], str]] = {
    "xxd": xxd,
    "xxd -g1": lambda data: xxd(data, group=1),
    "xxd -c32 -g4": lambda data: xxd(data, 32, 4),
    "xxd -u": lambda data: xxd(data).upper() if not any(_ascii(data).strip(".")) else xxd(data),
    "xxd -p": xxd_plain,
    "hexdump -C": hexdump_canonical,
    "hexdump": hexdump_words,
    "od": od,
    "od -x": lambda data: od(data, "x2"),
    "od -b": lambda data: od(data, "o1"),
    "od -t x1": lambda data: od(data, "x1"),
    "od -A x -t x1z": lambda data: od(data, "x1", "x", True),
    "od -A d -t x4": lambda data: od(data, "x4", "d"),
    "od -A x -t x8": lambda data: od(data, "x8", "x"),
    "od -t o4": lambda data: od(data, "o4"),
    "gdb x/xb": gdb,
    "gdb x/xh": lambda data: gdb(data, 2),
    "gdb x/xw": lambda data: gdb(data, 4),
    "gdb x/xg": lambda data: gdb(data, 8, True),
    "lldb": lldb,
    "bare": lambda data: data.hex(),
    "bare bytes": lambda data: data.hex(" "),
    "C array": c_array,
    "escapes": escapes,
}
