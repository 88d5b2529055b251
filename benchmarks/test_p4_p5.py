"""P4, P5: one area to Python values, and single registers of one area.

64 different areas in turn. Every value of a decoded area is touched inside the timed region, by the same compiled
function for all sides, whose own time on ready values is subtracted from all.
"""

import decoders
import numpy as np
import pytest
from areas import AMX, AVX512, RANDOM, check_values, fill, layouts, stride_of
from goals import at_least, at_most
from ratio import Side

import xsave

COUNT = 64


def areas(in_use, mask=AVX512):
    """Random areas, as bytes and as checked views of them."""
    layout = layouts(mask)[0]
    rows = fill(np.empty((COUNT, stride_of(layout.size, True)), np.uint8), layout, in_use, seed=4)
    raw = [row.tobytes() for row in rows]
    return raw, [xsave.Area(each, layout) for each in raw], layout


def decode_sides(native, raw, views, layout, others):
    """Ours and the others, each checked against the reference model before it is timed."""
    for data, view in zip(raw, views, strict=True):
        check_values(data, layout, xsave.decode(view))
        for other in others.values():
            check_values(data, layout, other(data))
    items = [(data, view, xsave.decode(view)) for data, view in zip(raw, views, strict=True)]
    names = {"consume": native.consume, "decode": xsave.decode, "Area": xsave.Area, "layout": layout}
    empty = "consume(item[2])"
    sides = [Side("xsave", "consume(decode(item[1]))", names, empty=empty, items=items)]
    sides.append(Side("xsave from bytes", "consume(decode(Area(item[0], layout)))", names, empty=empty, items=items))
    for name, other in others.items():
        sides.append(Side(name, "consume(decode(item[0]))", names | {"decode": other}, empty=empty, items=items))
    return sides


def test_p4(judge, native):
    """58 values of an area with everything in use."""
    raw, views, layout = areas(AVX512)
    others = {"struct": decoders.by_struct, "numpy": decoders.by_numpy, "ctypes": decoders.by_ctypes}
    others |= {"numpy, quickest": decoders.by_numpy_item, "ctypes, quickest": decoders.by_ctypes_cut}
    construct = decoders.construct_decoder(compiled=False)
    if construct:
        others |= {"construct": construct, "construct, compiled": decoders.construct_decoder(compiled=True)}
    times = judge.compare(lambda _: decode_sides(native, raw, views, layout, others), draws=4, rounds=64)
    judge.line("P4", "decode against struct", times.speed("xsave", "struct"), at_least(3.8), "struct")
    for tool in ("numpy", "ctypes"):
        judge.line("P4", f"decode against {tool}", times.speed("xsave", tool), at_least(8.5), tool)
        quick = f"{tool}, quickest"
        judge.line("P4", f"decode against {quick}", times.speed("xsave", quick), None, quick)
    if construct:
        judge.line("P4", "decode against construct", times.speed("xsave", "construct"), at_least(55), "construct")
        judge.line(
            "P4",
            "decode against construct's compiler",
            times.speed("xsave", "construct, compiled"),
            None,
            "construct, compiled",
        )
    else:
        judge.untold("P4", "decode against construct", at_least(55), "construct", "construct is not installed")
    judge.line(
        "P4",
        "check and decode against struct, which checks nothing",
        times.speed("xsave from bytes", "struct"),
        None,
        "struct",
    )


def test_p4_random(judge, native):
    """Shown: every bit of XSTATE_BV drawn."""
    raw, views, layout = areas(RANDOM)
    times = judge.compare(
        lambda _: decode_sides(native, raw, views, layout, {"struct": decoders.by_struct}), draws=4, rounds=32
    )
    judge.line("P4", "random XSTATE_BV", times.speed("xsave", "struct"), None, "struct")


def test_p4_amx(judge, native):
    """An area with tile configuration and eight tiles in use."""
    raw, views, layout = areas(AMX, AMX)
    times = judge.compare(
        lambda _: decode_sides(native, raw, views, layout, {"struct": decoders.by_struct_tiles}), draws=4, rounds=64
    )
    judge.line("P4", "AMX area", times.speed("xsave", "struct"), at_least(3.0), "struct")


LINES = [
    ("Area(buffer, layout) from bytes", "Area(item, layout)", 2.5),
    ("Area(buffer, layout) from numpy", "Area(item, layout)", 3.6),
    ("area.mxcsr", "item.mxcsr", 1.3),
    ("area.pkru", "item.pkru", 1.3),
    ('area["pkru"]', 'item["pkru"]', 1.3),
    ('area["zmm17"]', 'item["zmm17"]', 2.5),
    ("area.zmm[17]", "item.zmm[17]", 2.5),
    ('area["zmm5"]', 'item["zmm5"]', 2.5),
]


def test_p5(judge, native):
    """Calls of some ten ns: loop subtracted, an empty Cython call of two arguments as the measure."""
    raw, views, layout = areas(AVX512)
    arrays = [np.frombuffer(data, np.uint8) for data in raw]
    for data, view in zip(raw, views, strict=True):
        values = xsave.decode(view)
        assert bytes(view["zmm17"]) == bytes(view.zmm[17]) == values["zmm17"]
        assert (view.mxcsr, view.pkru, view["pkru"]) == (values["mxcsr"], values["pkru"], values["pkru"])
        with pytest.raises(xsave.FormatError):  # the check that is timed
            xsave.Area(data[:520] + b"\1" + data[521:], layout)
    names = {"empty": native.empty2, "Area": xsave.Area, "layout": layout}

    def make(_draw):
        sides = [Side("empty call", "empty(item, layout)", names, items=raw)]
        for name, statement, _ in LINES:
            items = views if "Area" not in name else arrays if "numpy" in name else raw
            sides.append(Side(name, statement, names, items=items))
        return sides

    times = judge.compare(make, draws=4, rounds=96)
    for name, _, bound in LINES:
        judged = at_most(bound) if "zmm5" not in name else None  # in three parts, which have to be put together
        judge.line("P5", name, times.cost(name, "empty call"), judged, "an empty Cython call of two arguments")
