"""The first screen: what an image is, which layout rules it and how that is known, one line a thread."""

from xsave.report.states import state_of
from xsave.report.text import in_use, mask_text, printable, table, wrapped

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

    from xsave.images import Image, Thread

__all__ = [
    "THREAD_LIMIT",
    "area_format",
    "extra_lines",
    "heading",
    "layout_lines",
    "ordered",
    "signal_name",
    "thread_lines",
]

THREAD_LIMIT = 40

# Numbers of x86 Linux, FreeBSD and NetBSD that end a process with a core (signal.h); others are printed as numbers.
_SIGNALS = {3: "QUIT", 4: "ILL", 5: "TRAP", 6: "ABRT", 8: "FPE", 11: "SEGV"}
_LINUX = {7: "BUS", 9: "KILL", 13: "PIPE", 15: "TERM", 16: "STKFLT", 19: "STOP", 24: "XCPU", 25: "XFSZ", 31: "SYS"}
_BSD = {7: "EMT", 9: "KILL", 10: "BUS", 12: "SYS", 13: "PIPE", 15: "TERM", 17: "STOP", 24: "XCPU", 25: "XFSZ"}


def signal_name(number: "int | None", system: str = "Linux") -> str:
    """`SIGSEGV` for 11; the number where it has no name in the table; `-` for none."""
    if not number:
        return "-"
    names = {**_SIGNALS, **(_LINUX if system in ("", "Linux") or not system else _BSD)}
    return f"SIG{names[number]}" if number in names else f"signal {number}"


def ordered(threads: "Sequence[Thread]") -> "Iterator[tuple[int, Thread]]":
    """(index in the file, thread), the crashed one first, the rest in file order."""
    first = next((index for index, thread in enumerate(threads) if thread.crashed), None)
    if first is not None:
        yield first, threads[first]
    for index, thread in enumerate(threads):
        if index != first:
            yield index, thread


def area_format(area: "Any") -> str:
    """`standard` or `compacted`."""
    from xsave.layout import COMPACTED

    return "compacted" if area.format == COMPACTED else "standard"


def heading(image: "Image", threads: "Sequence[Thread]") -> "Iterator[str]":
    """What the image is."""
    kind = image.kind
    for word in (image.os, image.abi):
        if word and word not in kind:
            kind += f" {word}"
    count = len(threads)
    crashed = next((thread for thread in threads if thread.crashed), None)
    text = f"{printable(str(image.source))}: {kind}, {count:,} thread{'' if count == 1 else 's'}"
    if crashed is not None and crashed.signal:
        text += f", {signal_name(crashed.signal, image.os)} in {crashed.tid}"
    yield text


def layout_lines(thread: "Thread", width: int) -> "Iterator[str]":
    """Which CPU's layout rules the thread's area, and how that is known."""
    area, rule, confidence, _ = state_of(thread)
    if area is None:
        yield from wrapped("layout: ", f"none: {printable(rule)}", width)
        return
    layout = area.layout
    model = printable(layout.model.name or "unnamed CPU")
    yield from wrapped("layout: ", f"{area_format(area)}, {layout.size:,} bytes, {mask_text(layout.mask)}", width)
    yield from wrapped("cpu:    ", f"{model}, known by {printable(rule)} ({confidence})", width)


def thread_lines(
    image: "Image", threads: "Sequence[Thread]", width: int, limit: "int | None" = THREAD_LIMIT
) -> "Iterator[str]":
    """One line a thread, the crashed one first and marked, at most `limit` and a count of the rest; then what the masks
    mean where names did not fit."""
    rows: "list[list[str]]" = []
    masks: "dict[int, None]" = {}
    extras: "list[tuple[int, Any]]" = []
    for count, (_, thread) in enumerate(ordered(threads)):
        if limit is not None and count == limit:
            break
        area, _, confidence, _ = state_of(thread)
        use = "-" if area is None else f"{int(area.xstate_bv):#x}"
        if area is not None:
            masks[int(area.xstate_bv)] = None
        rows.append(
            [
                "*" if thread.crashed else " ",
                str(thread.tid),
                printable(thread.name or "-"),
                signal_name(thread.signal, image.os),
                "-" if thread.pc is None else f"{thread.pc:#x}",
                "-" if area is None else area_format(area),
                confidence,
                use,
            ]
        )
        extras += [(thread.tid, extra) for extra in thread.extra_states]
    header = ["", "TID", "NAME", "SIGNAL", "PC", "FORMAT", "EVIDENCE", "IN USE"]
    named = [[*row[:-1], row[-1] if row[-1] == "-" else f"{row[-1]} {in_use(int(row[-1], 16))}"] for row in rows]
    lines = list(table(header, named, {1, 4}))
    legend = max((len(line) for line in lines), default=0) > width
    yield from table(header, rows, {1, 4}) if legend else lines
    if limit is not None and len(threads) > limit:
        yield f"  and {len(threads) - limit:,} more threads (--all shows them)"
    if legend:
        yield from (f"  in use {mask_text(mask)}" for mask in masks)
    for tid, extra in extras[: limit or len(extras)]:
        yield from extra_lines(tid, extra, width)


def extra_lines(tid: int, extra: "Any", width: int) -> "Iterator[str]":
    """An extra state of a thread: a signal frame on its stack."""
    area = extra.area
    what = "unreadable" if area is None else f"{area.layout.size:,} bytes, in use {mask_text(area.xstate_bv)}"
    place = "" if extra.address is None else f" at {extra.address:#x}"
    yield from wrapped(f"  {tid}: ", f"{extra.kind}{place}: {what}", width)
