"""Fuzz target: the header check and the codec on any area of any CPU.

The first byte chooses the CPU the area comes from, the second the CPU and the format it is converted to, the third
how many bytes more than 128 too few its destination has. The rest is the area as it is, or, with bit 2 of the first
byte, a short form of one: 24 bytes of header, the length, and bytes that are repeated up to it: mutations of 100 bytes
hit what those of 11,000 do not. What the header check lets pass must decode, encode back to the same state, and
convert to the same state; a destination that is too short must be refused untouched.
"""

import functools
from collections.abc import Iterator

import xsave
from xsave.area import header_findings

MODELS = [xsave.CpuModel.named(name) for name in ("SapphireRapids", "DiamondRapids", "EPYC-Genoa", "Bulldozer")]
FORMATS = (xsave.STANDARD, xsave.COMPACTED)
HEAD = 3
SHORT = 4           # the flag of the short form
LONGEST = 1 << 14

# What a layout carries along (move lists, decoders) is made once for each: a fuzzer lives by its speed.
layout_of = functools.lru_cache(256)(xsave.Layout)


def area_bytes(data: bytes) -> bytes:
    """The area that an input stands for."""
    if not data[0] & SHORT:
        return data[HEAD:]
    header, length, body = data[HEAD : HEAD + 24], data[HEAD + 24 : HEAD + 26], data[HEAD + 26 :] or b"\0"
    out = bytearray(-(-LONGEST // len(body)) * body)[: int.from_bytes(length, "little") % LONGEST]
    out[512 : 512 + 64] = header.ljust(64, b"\0")[: max(len(out) - 512, 0)]
    return bytes(out)


def one_input(data: bytes) -> None:
    if len(data) < HEAD:
        return
    model, target_model = MODELS[data[0] & 3], MODELS[data[1] & 3]
    buffer = area_bytes(data)
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
    try:
        kept = xsave.transcode(buffer, source, target)
    except xsave.LayoutError:
        kept = None
    assert kept is None or xsave.same_state(checked, xsave.Area(kept, target)), "transcode(area) is another state"
    near = bytearray(target.size - 128 + data[2])
    convert(buffer, source, target, near, whole=len(near) >= target.size)


def convert(buffer: bytes, source: xsave.Layout, target: xsave.Layout, out: bytearray, whole: bool) -> None:
    before = bytes(out)
    try:
        xsave.transcode(buffer, source, target, out=out, lost="drop")
    except (xsave.XSaveError, ValueError):
        assert not whole, "refused a destination that is long enough"
        assert out == before, "refused, and written all the same"
        return
    assert whole, "took a destination that is too short"
    xsave.decode(xsave.Area(out, target))


def seeds() -> Iterator[bytes]:
    """An area in each format of each CPU: nothing in use, everything in use; the same in the short form."""
    for number, model in enumerate(MODELS):
        for form in FORMATS:
            made = layout_of(model, model.xcr0_mask, form)
            for in_use in (0, model.xcr0_mask):
                target = (number + 1) & 3 | form << 2
                body = xsave.encode({}, made, in_use)
                yield bytes([number, target, 0]) + body
                short = bytes([number | SHORT, target, 0]) + body[512 : 512 + 24] + made.size.to_bytes(2, "little")
                yield short + bytes(range(64))
