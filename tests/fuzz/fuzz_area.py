"""Fuzz target: the header check and the codec on any area of any CPU.

The first byte chooses the CPU the area comes from, the second the CPU and the format it is converted to, the third
how long its destination is; the rest is the area. What the header check lets pass must decode, encode back to the same
state, and convert; a destination that is too short must be refused untouched.
"""

import functools
import struct
from collections.abc import Iterator

import xsave
from xsave.area import header_findings

MODELS = [xsave.CpuModel.named(name) for name in ("SapphireRapids", "DiamondRapids", "EPYC-Genoa", "Bulldozer")]
FORMATS = (xsave.STANDARD, xsave.COMPACTED)
HEAD = 3


# What a layout carries along (move lists, decoders) is made once for each: a fuzzer lives by its speed.
layout_of = functools.lru_cache(256)(xsave.Layout)


def one_input(data: bytes) -> None:
    if len(data) < HEAD:
        return
    model, target_model = MODELS[data[0] & 3], MODELS[data[1] & 3]
    buffer = data[HEAD:]
    try:
        found = xsave.Layout.of(buffer, model)
        source = layout_of(model, found.mask, found.format)
        unchecked = xsave.Area(buffer, source, check=False)
    except xsave.XSaveError:
        return
    header_findings(buffer, model.xcr0_mask | model.xss_mask)
    repr(unchecked)
    try:
        checked = xsave.Area(buffer, source)
    except xsave.XSaveError:
        return
    values = xsave.decode(checked)
    for name in ("st0", "mxcsr", "zmm0", "k1", "tmm7", "r31"):
        if name in values:
            assert (checked[name] if isinstance(values[name], int) else bytes(checked[name])) == values[name], name
    again = xsave.encode(values, source, checked.xstate_bv)
    assert xsave.same_state(checked, xsave.Area(again, source)), "encode(decode(area)) is another state"
    xsave.decode_many(memoryview(buffer)[: source.size].cast("B", (1, source.size)), source)
    try:
        target = layout_of(target_model, source.mask & target_model.xcr0_mask, FORMATS[data[1] >> 2 & 1])
        out = bytearray(target.size)
    except xsave.XSaveError:
        return
    convert(buffer, source, target, out, whole=True)
    short = bytearray(data[2] * target.size // 256)
    convert(buffer, source, target, short, whole=False)


def convert(buffer: bytes, source: xsave.Layout, target: xsave.Layout, out: bytearray, whole: bool) -> None:
    before = bytes(out)
    try:
        xsave.transcode(buffer, source, target, out=out, lost="drop")
    except (xsave.XSaveError, ValueError):
        assert not whole, "refused a destination of the right size"
        assert out == before, "refused, and written all the same"
        return
    assert whole or len(out) >= target.size
    xsave.decode(xsave.Area(out, target))


def seeds() -> Iterator[bytes]:
    """An area in each format of each CPU: nothing in use, everything in use."""
    for number, model in enumerate(MODELS):
        for form in FORMATS:
            made = xsave.Layout(model, model.xcr0_mask, form)
            for in_use in (0, model.xcr0_mask):
                body = bytearray(xsave.encode({}, made, in_use))
                if in_use:
                    struct.pack_into("<H", body, 0, 0x37F)
                yield bytes([number, (number + 1) & 3 | form << 2, 128]) + body
