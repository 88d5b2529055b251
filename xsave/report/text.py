"""Human output: tables, masks with names, and registers as rows of lanes. Produces lines, prints nothing.

One line a register, whatever its size: a row that must fit a width is cut at a lane and says how many lanes
follow; tiles, which are matrices, are one line a tile row where they are asked for in full.
"""

from xsave.components import Component, ComponentMask
from xsave.registers import REGISTERS
from xsave.report.values import lane_size, lane_text, lanes, x87_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

__all__ = ["in_use", "mask_text", "printable", "register_lines", "row_text", "table", "tile_shape", "wrapped"]

# The manual speaks of AVX-512 state and AMX state where all of their components are meant (SDM1 13.1).
_GROUPS = (
    ("AVX-512", 7 << 5, Component.OPMASK),
    ("AMX", 3 << 17, Component.TILECFG),
    ("MPX", 3 << 3, Component.BNDREGS),
)


def in_use(mask: int) -> str:
    """Names of a mask's components for a narrow column: whole features under one name."""
    names: "list[str]" = []
    rest = int(mask)
    for bit in range(64):
        if not rest >> bit & 1:
            continue
        group = next((each for each in _GROUPS if each[2] == bit and mask & each[1] == each[1]), None)
        if group is not None:
            names.append(group[0])
            rest &= ~group[1]
        else:
            names.extend(ComponentMask(1 << bit).names)
    return " ".join(names) or "none"


def mask_text(mask: int) -> str:
    """A mask in hex with its names beside: `0xe7 (x87 SSE AVX AVX-512)`."""
    return f"{int(mask):#x} ({in_use(mask)})"


def printable(text: str) -> str:
    """`text` from a file, with everything that could move a terminal's cursor escaped."""
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def wrapped(label: str, text: str, width: int) -> "Iterator[str]":
    """`label` and prose, broken between words where it does not fit, continuation lines under the text."""
    words = text.split(" ")
    line = label + words[0]
    for word in words[1:]:
        if len(line) + 1 + len(word) > width:
            yield line
            line = " " * len(label) + word
        else:
            line += f" {word}"
    yield line


def table(
    header: "Sequence[str]",
    rows: "Sequence[Sequence[str]]",
    right: "frozenset[int] | set[int]" = frozenset(),
    indent: str = "",
) -> "Iterator[str]":
    """Lines of a table with columns as wide as their content, two blanks apart; `right` aligns columns right."""
    widths = [len(cell) for cell in header]
    for row in rows:
        widths = [max(width, len(cell)) for width, cell in zip(widths, row, strict=True)]
    for row in [header, *rows] if any(header) else rows:
        cells = [
            cell.rjust(w) if i in right else cell.ljust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        ]
        yield (indent + "  ".join(cells)).rstrip()


def row_text(data: "bytes | memoryview", lane: str, width: "int | None" = None, runs: bool = True) -> str:
    """One register as lanes of one type, lane 0 first; runs of three and more equal lanes stand once with a count
    unless `runs` is false. With `width`, cut at a lane with the number of lanes left out."""
    values = lanes(data, lane)
    if not runs:
        return " ".join(lane_text(value, lane) for value in values)
    raw, step = bytes(data), lane_size(lane)
    groups: "list[tuple[str, int]]" = []
    at = 0
    while at < len(values):
        end = at + 1
        while end < len(values) and raw[end * step : (end + 1) * step] == raw[at * step : (at + 1) * step]:
            end += 1
        text = _short_zero(values[at], lane)
        if end - at >= 3:
            groups.append((f"{text}×{end - at}", end - at))
        else:
            groups += [(text, 1)] * (end - at)
        at = end
    whole = " ".join(text for text, _ in groups)
    if width is None or len(whole) <= width:
        return whole
    room = width - len(f" … +{len(values)}")
    kept: "list[str]" = []
    used = count = 0
    for text, lane_count in groups:
        used += len(text) + (1 if kept else 0)
        if used > room and kept:
            break
        kept.append(text)
        count += lane_count
    return " ".join(kept) + f" … +{len(values) - count}"


def _short_zero(value: "int | float", lane: str) -> str:
    return "0" if lane[0] == "u" and not value else lane_text(value, lane)


def tile_shape(tilecfg: "bytes | None", index: int) -> "tuple[int, int] | None":
    """(rows, bytes a row) of a tile as the 64-byte TILECFG image says, or None where no tile is configured."""
    if not tilecfg or tilecfg[0] == 0:
        return None
    return tilecfg[48 + index], tilecfg[16 + 2 * index] | tilecfg[17 + 2 * index] << 8


def register_lines(
    values: "Mapping[str, int | bytes]", lane: str, width: "int | None" = None, tilecfg: "bytes | None" = None
) -> "Iterator[str]":
    """The registers `values` (as `decode` names them) as lines: scalars several a line, vectors one a line, a run of
    zero registers of a family in one line.

    `width` cuts long rows; None shows every lane, and tiles row by row. `tilecfg` is the area's TILECFG image, for
    the shape of tiles (default: the one among `values`).
    """
    if tilecfg is None:
        config = values.get("tilecfg")
        tilecfg = config if isinstance(config, bytes) else None
    names = list(values)
    margin = max((len(_short(name)) for name in names), default=0)
    margin = min(max(margin, 5), 12)
    at = 0
    while at < len(names):
        name = names[at]
        value = values[name]
        if isinstance(value, int):
            end = at
            while end < len(names) and isinstance(values[names[end]], int) and _packed_with(name, names[end]):
                end += 1
            yield from _scalars([(each, values[each]) for each in names[at:end]], width or 80)  # type: ignore[misc]
            at = end
            continue
        end = at
        while end < len(names) and _family(names[end]) == _family(name) and not any(_bytes(values[names[end]])):
            end += 1
        if end - at >= 2:
            yield f"{name + '–' + str(REGISTERS[names[end - 1]].index):<{margin}} 0"
            at = end
            continue
        yield from _wide(name, _bytes(value), lane, margin, width, tilecfg, values)
        at += 1


def _wide(
    name: str,
    data: bytes,
    lane: str,
    margin: int,
    width: "int | None",
    tilecfg: "bytes | None",
    values: "Mapping[str, int | bytes]",
) -> "Iterator[str]":
    room = None if width is None else width - margin - 1
    row = REGISTERS[name]
    if row.family == "st":
        tag = "  (empty)" if _empty(values, row.index or 0) else ""
        yield f"{name:<{margin}} {x87_text(data):<26} 0x{data[::-1].hex()}{tag}"
    elif name == "tilecfg":
        yield f"{name:<{margin}} {_tilecfg_text(data)}"
    elif row.family == "tmm":
        yield from _tile(name, data, lane, margin, room, tile_shape(tilecfg, row.index or 0))
    elif row.family == "bnd":
        low, high = lanes(data, "u64")
        yield f"{name:<{margin}} lower {low:#x} upper {int(high) ^ 0xFFFFFFFFFFFFFFFF:#x}"
    else:
        yield f"{name:<{margin}} {row_text(data, lane, room)}"


def _tile(
    name: str, data: bytes, lane: str, margin: int, room: "int | None", shape: "tuple[int, int] | None"
) -> "Iterator[str]":
    rows, row_bytes = shape if shape is not None and shape[0] and shape[1] else (16, 64)
    rows, row_bytes = min(rows, 16), min(row_bytes, 64)
    note = f"{rows} rows of {row_bytes} bytes" if shape is not None else "no shape configured"
    if not any(data):
        yield f"{name:<{margin}} {note}: 0"
    elif room is not None:
        yield f"{name:<{margin}} {rows}×{row_bytes}: {row_text(data[:row_bytes], lane, room - 8)}"
    else:
        yield f"{name:<{margin}} {note}"
        for at in range(rows):
            yield f"{f'[{at}]':>{margin}} {row_text(data[64 * at : 64 * at + row_bytes], lane)}"


def _tilecfg_text(data: bytes) -> str:
    if not any(data):
        return "palette 0: no tile configured"
    shapes = [f"{data[48 + i]}×{data[16 + 2 * i] | data[17 + 2 * i] << 8}" if data[48 + i] else "–" for i in range(8)]
    start = f", start_row {data[1]}" if data[1] else ""
    return f"palette {data[0]}{start}: {f'all {shapes[0]}' if len(set(shapes)) == 1 else ' '.join(shapes)}"


def _scalars(pairs: "list[tuple[str, int]]", width: int) -> "Iterator[str]":
    line = ""
    for name, value in pairs:
        cell = f"{name} {value:#x}"
        if name == "fsw":
            cell += f" (top {value >> 11 & 7})"
        if line and len(line) + 2 + len(cell) > width:
            yield line
            line = ""
        line += ("  " if line else "") + cell
    if line:
        yield line


def _empty(values: "Mapping[str, int | bytes]", index: int) -> bool:
    ftw, fsw = values.get("ftw"), values.get("fsw")
    if not isinstance(ftw, int) or not isinstance(fsw, int):
        return False
    return not ftw >> ((fsw >> 11 & 7) + index & 7) & 1


def _bytes(value: "int | bytes") -> bytes:
    return value if isinstance(value, bytes) else b"\x01"


def _family(name: str) -> str:
    return REGISTERS[name].family


def _short(name: str) -> str:
    return name if REGISTERS[name].scalar is False else ""


def _packed_with(first: str, other: str) -> bool:
    # Scalars share lines with others of their component only.
    return REGISTERS[first].component == REGISTERS[other].component
