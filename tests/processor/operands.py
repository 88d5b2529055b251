"""What tests of memory operands share: models, memory with holes, areas made by the independent slow model."""

from random import Random

import reference

from xsave import CpuModel, Processor
from xsave.memory import Memory

INTEL = "SapphireRapids"
AMD = "EPYC-Genoa"
BASE = 0x10000
ALL = 2**64 - 1
SIZE = 16384
TILES = 0x602E7     # everything of XCR0 that INTEL has


def processor(name: str, **controls: object) -> Processor:
    return Processor(CpuModel.named(name), **controls)


def holed(buffer: bytearray, *holes: int | tuple[int, int], base: int = BASE, writable: bool = True) -> Memory:
    """Memory over `buffer` from `base` on, without the bytes (or [begin, end) ranges) of `holes`."""
    memory = Memory()
    view = memoryview(buffer)
    at = 0
    for begin, end in sorted((h, h + 1) if isinstance(h, int) else h for h in holes):
        if begin > at:
            memory.map(base + at, view[at:begin], writable)
        at = max(at, end)
    if at < len(buffer):
        memory.map(base + at, view[at:], writable)
    return memory


def full_state(name: str, mask: int, seed: object = 1) -> dict[str, int | bytes]:
    """Values that are initial in no component of `mask`."""
    return reference.random_state(Random(f"{name} {seed}"), mask)


def image(name: str, mask: int, fmt: str, xstate_bv: int, seed: object = 2, size: int = SIZE) -> bytearray:
    """An area of `mask` in which the components of `xstate_bv` hold random values, in `size` bytes."""
    state = full_state(name, mask, seed)
    state.pop("mxcsr", None)
    held = {n: v for n, v in state.items() if any(xstate_bv >> i & 1 for i in reference.components_of(n))}
    if xstate_bv & 2 or (fmt == reference.STANDARD and mask & 6):
        held["mxcsr"] = 0x1FA0
    area = bytearray(reference.encode(held, name, mask, fmt, xstate_bv))
    return area + bytearray(size - len(area))


def end_of(name: str, mask: int, fmt: str) -> int:
    """Bytes of an area of `mask`."""
    if fmt == reference.STANDARD:
        return reference.standard_size(name, mask)
    return reference.compacted_offsets(name, mask)[1]


def submasks(mask: int) -> list[int]:
    """All 2^n values over the bits of a mask."""
    found = [0]
    for i in range(64):
        if mask >> i & 1:
            found += [value | 1 << i for value in found]
    return found
