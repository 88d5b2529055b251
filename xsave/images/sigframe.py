"""Linux signal frames in dumped memory: what threads were doing when signals interrupted them.

A frame holds a standard area with words of the kernel's own at byte 464 and a magic number behind its end
(arch/x86/include/uapi/asm/sigcontext.h). Memory is read only when somebody asks, stacks first, and no more than a
budget; what is found belongs to the thread whose stack holds it.
"""

from xsave._records import find_frames
from xsave.errors import ImageError
from xsave.images.assemble import assemble, fxsave_x87
from xsave.images.image import ExtraState

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from xsave.images.core import CoreImage
    from xsave.images.elf import Segment

__all__ = ["find_extra_states"]

# Bytes of memory that a search reads at most, and of one stack above its stack pointer.
SEARCH_MAX = 64 << 20
_STACK_MAX = 8 << 20
_WINDOW = 1 << 20
# A frame with room before it for the FSAVE header of 32-bit processes.
_OVERLAP = 1 << 15
_FRAMES_MAX = 4096
_FSAVE_HEADER = 112
_MAGIC2 = 4


def find_extra_states(core: "CoreImage") -> "list[tuple[ExtraState, int | None]]":
    """Every signal frame in the memory of a Linux core, with the index of the thread whose stack holds it."""
    if core.os != "Linux":
        return []
    loads = sorted(core._elf.loads(), key=lambda load: load.offset)
    # Which memory is a stack matters if not all of it can be searched, and to whom a frame belongs.
    stacks: "dict[int, list[tuple[int, int]]] | None" = None
    ranges, skipped = [(load, load.offset, load.offset + load.size) for load in loads], 0
    if sum(load.size for load in loads) > SEARCH_MAX:
        stacks = _stacks(core, loads)
        ranges, skipped = _ranges(loads, stacks)
    if skipped:
        core._warn(f"{skipped >> 20:,} MiB of memory were not searched for signal frames: the {SEARCH_MAX >> 20} MiB "
                   "around the stacks were")
    found: "list[tuple[ExtraState, int | None]]" = []
    met: "set[int]" = set()
    try:
        for load, start, end in ranges:
            for position, data in _windows(core, start, end):
                address = load.address + position - load.offset
                for at, extended, features, size in find_frames(data, address, _FRAMES_MAX - len(found)):
                    if address + at not in met:
                        met.add(address + at)
                        if stacks is None:
                            stacks = _stacks(core, loads)
                        found.append(_state(core, load, stacks, data, position, at, extended, features, size))
                if len(found) >= _FRAMES_MAX:
                    core._warn(f"more than {_FRAMES_MAX:,} signal frames: the rest is not looked for")
                    return found
    except ImageError as problem:
        # Of a pipe what has passed is gone.
        core._warn(f"memory not searched for signal frames: {problem}")
    return sorted(found, key=lambda item: item[0].address)


def _windows(core: "CoreImage", start: int, end: int) -> "Iterator[tuple[int, bytes]]":
    # (file offset, bytes): each goes on with the end of the one before, so that a frame across the border is whole in
    # one of them, and a stream is not asked to go back.
    kept = b""
    while start < end:
        fresh = core._source.read(start, min(_WINDOW, end - start))
        if not fresh:
            return
        yield start - len(kept), kept + fresh
        kept = (kept + fresh)[-_OVERLAP:]
        start += len(fresh)


def _stacks(core: "CoreImage", loads: "list[Segment]") -> "dict[int, list[tuple[int, int]]]":
    # Segment offset -> (stack pointer, thread index) of the threads whose stack it is.
    by_address = sorted(loads, key=lambda load: load.address)
    starts = [load.address for load in by_address]
    from bisect import bisect_right

    stacks: "dict[int, list[tuple[int, int]]]" = {}
    for index in range(core._count()):
        gpr = core._header(index).gpr
        pointer = gpr.get("rsp", gpr.get("esp"))
        at = bisect_right(starts, pointer) - 1 if pointer is not None else -1
        if at >= 0 and pointer is not None and pointer < by_address[at].address + by_address[at].size:
            stacks.setdefault(by_address[at].offset, []).append((pointer, index))
    return stacks


def _ranges(
    loads: "list[Segment]", stacks: "dict[int, list[tuple[int, int]]]"
) -> "tuple[list[tuple[Segment, int, int]], int]":
    # What to read, in file order: of stacks what lies above the stack pointer, then everything else as far as it goes.
    budget, skipped = SEARCH_MAX, 0
    chosen: "list[tuple[Segment, int, int]]" = []
    rest: "list[tuple[Segment, int, int]]" = []
    for load in loads:
        start, end = load.offset, load.offset + load.size
        if load.offset in stacks:
            lowest = min(pointer for pointer, _ in stacks[load.offset]) - load.address + load.offset
            lowest = lowest // 64 * 64
            top = min(end, lowest + _STACK_MAX, lowest + max(budget, 0))
            chosen.append((load, lowest, top))
            budget -= top - lowest
            rest += [(load, start, lowest), (load, top, end)]
        else:
            rest.append((load, start, end))
    for load, start, end in rest:
        stop = min(end, start + max(budget, 0))
        if stop > start:
            chosen.append((load, start, stop))
            budget -= stop - start
        skipped += end - max(stop, start)
    merged: "list[tuple[Segment, int, int]]" = []
    for load, start, end in sorted(chosen, key=lambda item: item[1]):
        if merged and merged[-1][0] is load and merged[-1][2] == start:
            start = merged.pop()[1]
        if end > start:
            merged.append((load, start, end))
    return merged, skipped


def _state(
    core: "CoreImage", load: "Segment", stacks: "dict[int, list[tuple[int, int]]]", data: bytes, position: int, at: int,
    extended: int, features: int, size: int,
) -> "tuple[ExtraState, int | None]":
    raw = bytearray(data[at : at + size])
    address = load.address + position + at - load.offset
    warnings: "list[str]" = []
    if extended == size + _MAGIC2 + _FSAVE_HEADER and at >= _FSAVE_HEADER:
        # A 32-bit frame: the kernel restores x87 from the FSAVE image in front of the area.
        header = data[at - _FSAVE_HEADER : at]
        if header[110:112] == b"\0\0":
            x87 = fxsave_x87(header)
            raw[:24], raw[32:160] = x87[:24], x87[32:160]
    elif extended != size + _MAGIC2:
        warnings.append(f"extended_size {extended} is neither {size + _MAGIC2} (64-bit frame) nor "
                        f"{size + _MAGIC2 + _FSAVE_HEADER} (32-bit frame)")
    owner = _owner(core, stacks.get(load.offset, []), address, warnings)
    choice = core.frame_choice(bytes(raw), features, size)
    state = assemble(raw, choice, warnings=tuple(warnings))
    tid = core._tid(owner) if owner is not None else None
    return ExtraState("signal frame", tid, address, position + at, state), owner


def _owner(
    core: "CoreImage", stack: "list[tuple[int, int]]", address: int, warnings: "list[str]"
) -> "int | None":
    # The thread with the nearest stack pointer below the frame: the handler runs below it.
    below = [(pointer, index) for pointer, index in stack if pointer <= address]
    if below:
        return max(below)[1]
    if stack:
        warnings.append("lies below the stack pointer: its handler has returned, or runs on another stack")
        return min(stack)[1]
    if core._count() == 1:
        return 0
    return None
