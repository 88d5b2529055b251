"""Areas for the image tests: random states of named CPUs as the kernel would put them into notes."""

import random
import struct

from xsave import STANDARD, Area, CpuModel, Layout, decode, encode


def layout_of(cpu: str, mask: int) -> Layout:
    return Layout(CpuModel.named(cpu), mask, STANDARD)


def area_of(layout: Layout, seed: int = 1, xstate_bv: int | None = None, *, mxcsr_mask: int | None = None) -> bytes:
    """A random state of `layout`; byte 464 has its mask, bytes 28-31 the CPU's MXCSR_MASK, as in a kernel's note."""
    rng = random.Random(seed)
    blank = decode(Area(encode({}, layout), layout))
    values = {}
    for name, value in blank.items():
        if name in ("mxcsr_mask", "fcw", "ftw", "fsw", "fop", "fip", "fdp"):
            continue
        values[name] = rng.randbytes(len(value)) if isinstance(value, bytes) else rng.getrandbits(32) | 1
    if "mxcsr" in values:
        values["mxcsr"] = 0x1F80 | rng.getrandbits(6)
    if "tilecfg" in values:
        values["tilecfg"] = b"\1" + bytes(15) + struct.pack("<8H", *[64] * 8) + bytes(16) + b"\x10" * 8 + bytes(8)
    values.update(fcw=0x37F, ftw=0xFF, fsw=0, fop=0x123, fip=0x401000, fdp=0x7FFE00001000)
    if "mxcsr" in blank:
        values["mxcsr_mask"] = layout.mxcsr_mask if mxcsr_mask is None else mxcsr_mask
    out = bytearray(encode({name: value for name, value in values.items() if name in blank}, layout, layout.mask))
    struct.pack_into("<Q", out, 464, layout.mask)
    if xstate_bv is not None:
        # What is not in use the kernel writes as initial values.
        init = encode({}, layout)
        for component in layout.mask:
            if not xstate_bv >> component & 1:
                for offset, size in layout.extents(component):
                    out[offset : offset + size] = init[offset : offset + size]
        struct.pack_into("<Q", out, 512, xstate_bv)
        if xstate_bv & 6:
            struct.pack_into("<I", out, 28, layout.mxcsr_mask if mxcsr_mask is None else mxcsr_mask)
    return bytes(out)


def legacy_of(area: bytes) -> bytes:
    """The FXSAVE image that the kernel writes beside an area."""
    return area[:416] + bytes(96)


def entries_of(layout: Layout) -> list[tuple[int, int, int]]:
    return [(int(c), size, offset) for c, (offset, size) in layout.offsets.items()]
