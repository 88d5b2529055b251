"""Recorded kernel traces, as text, to workloads.

`perf record -e 'sched:sched_switch,x86_fpu:*'` printed by `perf script -F comm,tid,cpu,time,event,trace`, and what
the kernel itself shows as `/sys/kernel/tracing/trace`; compressed or not. Which of the two it is, its content says.
Lines are read by the kernel `events`; here are chunks, memory, and what counts as too damaged.
"""

from xsave._events import REASONS, EventReader, recognise
from xsave.components import Component
from xsave.errors import FormatError
from xsave.images.source import open_source
from xsave.switching.workload import COLUMNS, Event, Workload

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray

    from xsave.images.source import Source

__all__ = ["read_trace"]

_CHUNK = 1 << 20
# Rows that there is always room for, and how memory grows: little, so that a workload's peak is not twice its size.
_ROWS = 1 << 14
_GROWTH = 1.2
# Of 49 bytes each: what one trace may make us hold.
EVENTS_LIMIT = 1 << 28
_LINES_LIMIT = (1 << 32) - 1
# No XSTATE_BV has bit 63, which in XCOMP_BV says that the format is compacted.
_NEVER = 1 << 63
_PERF = "a line of `perf script -F comm,tid,cpu,time,event,trace` (bash 1234 [000] 12.345678: system:event: fields)"
_FTRACE = "a line of ftrace (bash-1234 [000] d..2. 12.345678: event: fields)"


def read_trace(source: "Any") -> Workload:
    """Reads a recorded trace: what `perf script` prints, or ftrace's text.

    `source`: a path, `-` for standard input, a binary file object or anything with the buffer protocol; compressed
    with gzip, xz, zstd or lz4 or not. Lines that cannot be used are left out and counted by reason in `skipped`:
    "garbled line"; "unknown event"; "time going backwards", of an event that is older than the last one on its CPU;
    "impossible mask", of xfeatures with bit 63, or with TILEDATA where XCOMP_BV has it without TILECFG;
    "truncated line", of a last line without an end; "lost events", where ftrace says so.

    Raises: `FormatError` naming file, line, what was found and what was expected, for a file without events, one
    that cannot be read, or one of which more than half of the lines are garbled; `UnsupportedError` for a compression
    whose module is missing.
    """
    opened = open_source(source)
    try:
        return _read(opened)
    finally:
        if opened is not source:
            opened.close()


def _read(source: "Source") -> Workload:
    buffer = memoryview(bytearray(_CHUNK))
    held = source.read_into(0, buffer)
    position = held
    perf, ftrace = recognise(buffer[:held])
    tile = Component.TILEDATA.mask
    reader = EventReader(ftrace > perf, _NEVER, tile, Component.TILECFG.mask)
    columns, count = _columns(_ROWS), 0
    # For type checkers, who see no buffer in an array before Python 3.12.
    buffers: "Any"
    last = held < len(buffer)
    while True:
        taken = 0
        while True:
            _make_room(columns, count, source)
            buffers = list(columns.values())
            events, consumed = reader.feed(buffer[taken:held], buffers, count, last)
            count += events
            taken += consumed
            if len(columns["time"]) > count:
                break
        if reader.line > _LINES_LIMIT:
            raise FormatError(f"{source.name}: line {_LINES_LIMIT} is not the last, expected fewer lines")
        if last:
            break
        if not count:
            # Some other file: there is no point in reading the rest of it.
            _check(source, reader)
        rest = held - taken
        buffer[:rest] = buffer[taken:held]
        more = source.read_into(position, buffer[rest:])
        held = rest + more
        position += more
        last = held < len(buffer)
    _check(source, reader)
    skipped = {reason: number for reason, number in zip(REASONS, reader.skipped, strict=True) if number}
    if not count:
        raise FormatError(f"{source.name}: {_nothing(source, reader, skipped)}, expected {_PERF} or {_FTRACE}")
    for column in columns.values():
        column.resize(count, refcheck=False)
    return Workload(columns, _names(reader, columns), skipped, source.name, _assumptions(source, columns, skipped))


def _columns(rows: int) -> "dict[str, NDArray[Any]]":
    import numpy

    return {name: numpy.zeros(rows, form) for name, form in COLUMNS.items()}


def _make_room(columns: "dict[str, NDArray[Any]]", count: int, source: "Source") -> None:
    if count < len(columns["time"]):
        return
    if count >= EVENTS_LIMIT:
        raise FormatError(f"{source.name}: more than {EVENTS_LIMIT} events: split the trace")
    rows = min(count + max(_ROWS, int(count * (_GROWTH - 1))), EVENTS_LIMIT)
    for column in columns.values():
        # Nobody else has seen these arrays; large memory is moved by its pages, not copied.
        column.resize(rows, refcheck=False)


def _check(source: "Source", reader: EventReader) -> None:
    garbled = reader.skipped[REASONS.index("garbled line")]
    if 2 * garbled > reader.lines:
        found = reader.garbled_text.decode("utf-8", "backslashreplace")
        raise FormatError(f"{source.name}: line {reader.garbled} is {found[:80]!r}, expected {_PERF} or {_FTRACE}; "
                          f"{garbled:,} of {reader.lines:,} lines are garbled")


def _nothing(source: "Source", reader: EventReader, skipped: "dict[str, int]") -> str:
    if source.damaged:
        return source.warnings[-1]
    if not reader.lines:
        return f"line {reader.line} is the file's end, and no line before it says anything"
    return f"line {reader.line} is the file's end, without an event before it ({_listed(skipped)})"


def _listed(skipped: "dict[str, int]") -> str:
    return ", ".join(f"{reason}: {number:,}" for reason, number in skipped.items())


def _names(reader: EventReader, columns: "dict[str, NDArray[Any]]") -> "dict[int, str]":
    names = {tid: comm.decode("utf-8", "backslashreplace") for tid, comm in reader.names.items()}
    # The idle tasks of all CPUs share one number, and have a name each.
    if not columns["tid"].all() or not columns["other"].all():
        names[0] = "swapper"
    return names


def _assumptions(source: "Source", columns: "dict[str, NDArray[Any]]", skipped: "dict[str, int]") -> "list[str]":
    found = [f"the trace is whole although its {warning}" for warning in source.warnings]
    if skipped:
        found.append(f"lines that were left out do not matter ({_listed(skipped)})")
    if not (columns["event"] == Event.SCHED_SWITCH).any():
        found.append("no task was switched: the trace has no sched_switch")
    return found
