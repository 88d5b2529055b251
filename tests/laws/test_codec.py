"""Areas to values, values to areas, areas to areas: against the independent model, and the laws of each call."""

import sys
import threading
import time
import tracemalloc
from random import Random

import numpy as np
import pytest
import reference
from hypothesis import given
from hypothesis import strategies as st

from tests.laws.strategies import (
    FORMATS,
    MODELS,
    NAMES,
    cases,
    counting,
    each_format,
    each_model,
    known,
    layouts,
    make_case,
    masks,
    model,
    models,
    only,
    seeds,
    submasks,
)
from tests.scale import repeats
from xsave import (
    COMPACTED,
    COMPONENTS,
    REGISTERS,
    STANDARD,
    Area,
    FormatError,
    Layout,
    LayoutError,
    TruncatedError,
    decode,
    decode_many,
    encode,
    encode_many,
    same_state,
    same_state_many,
    transcode,
    transcode_many,
)
from xsave.registers import register_names

FOUR = ("SapphireRapids", "DiamondRapids", "EPYC-Genoa", "Bulldozer")
STATES = repeats(1000)
# Bytes in and out of a batch beyond which non-temporal stores are tried.
STREAMED = 17 << 20


def agreed(case, values):
    """`encode` of these values gives the reference's bytes wherever they count, and initial values elsewhere."""
    theirs = reference.encode(values, case.name, case.mask, NAMES[case.fmt], case.xstate_bv)
    ours = encode(values, case.layout, case.xstate_bv)
    assert len(ours) == len(theirs) == case.layout.size
    assert only(ours, case.counting()) == only(theirs, case.counting())
    if case.fmt == STANDARD and case.mask & 3 == 3:  # every byte, as plain XSAVE would write them
        assert ours == theirs


# --- against the independent model ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FOUR)
@each_format
def test_a_thousand_random_states(name, fmt):
    """Bytes and values equal the reference's; single and batch forms give the same."""
    rng = Random(f"{name} {fmt}")
    mask = known(name, fmt)
    layout = Layout(model(name), mask, fmt)
    areas = np.zeros((STATES, layout.size), dtype=np.uint8)
    states = []
    for row in range(STATES):
        values = reference.random_state(rng, mask, NAMES[fmt], rng.choice((0.0, 0.5)))
        in_use = reference.non_initial(values) & mask
        if fmt == COMPACTED and values["mxcsr"] != reference.MXCSR_INIT:
            in_use |= 2
        area = reference.encode(values, name, mask, NAMES[fmt], in_use)
        # Slots out of use are zero in the reference's compacted areas and hold initial values in ours.
        ours = encode(values, layout, in_use)
        if fmt == STANDARD:
            assert ours == area
        else:
            counts = counting(name, mask, fmt, in_use)
            assert only(ours, counts) == only(area, counts)
        decoded = decode(Area(area, layout))
        assert decoded == reference.decode(area, name, mask, NAMES[fmt])
        assert list(decoded) == register_names(mask, fmt == COMPACTED)
        assert {n: decoded[n] for n in values} == values
        areas[row] = np.frombuffer(area, dtype=np.uint8)
        states.append(decoded)
    columns = decode_many(areas, layout)
    marks = areas[:, 512:520].copy().view(np.uint64)[:, 0]
    again = encode_many(columns, layout, marks)
    for row, values in enumerate(states):
        assert {n: c[row].tobytes() if c.ndim == 2 else int(c[row]) for n, c in columns.items()} == values
        assert again[row].tobytes() == encode(values, layout, int(marks[row]))


@each_model
@given(data=st.data())
def test_decode_equals_reference(name, data):
    case = data.draw(cases(name))
    assert decode(case.view()) == case.expected()


@each_model
@given(data=st.data())
def test_encode_equals_reference(name, data):
    case = data.draw(cases(name))
    agreed(case, case.expected())
    # a component is in use exactly if one of its registers is named
    values = case.expected()
    chosen = data.draw(st.sets(st.sampled_from(sorted(values)))) if values else set()
    named = {n: v for n, v in values.items() if n in chosen}
    expected = 0
    for register in named:
        expected |= sum(1 << i for i in reference.components_of(register) or [1])
    found = encode(named, case.layout)
    assert reference.u64(found, 512) == expected & case.mask
    decoded = decode(Area(found, case.layout))
    assert {n: decoded[n] for n in named} == named
    fresh = decode(Area(encode({}, case.layout), case.layout))
    assert {n: v for n, v in decoded.items() if n not in named} == {n: v for n, v in fresh.items() if n not in named}


@each_model
@given(data=st.data())
def test_encode_inverts_decode(name, data):
    """Every byte that counts comes back."""
    case = data.draw(cases(name))
    area = case.view()
    again = encode(decode(area), area.layout, area.xstate_bv)
    assert only(again, case.counting()) == only(case.area, case.counting())
    assert same_state(Area(again, case.layout), area)


@each_model
@given(data=st.data(), seed=seeds)
def test_stale_bytes_never_matter(name, data, seed):
    case = data.draw(cases(name))
    other = case.stale(Random(seed))
    area = Area(other, case.layout)
    assert decode(area) == decode(case.view())
    assert same_state(area, case.view())
    assert not same_state_many(rows(other), case.layout, rows(case.area), case.layout).sum() - 1
    target = data.draw(layouts(name))
    fits = case.xstate_bv & ~int(target.mask) == 0
    moved = transcode(other, case.layout, target, lost="drop")
    assert same_state(Area(moved, target), Area(transcode(case.area, case.layout, target, lost="drop"), target))
    for register, value in decode(case.view()).items():
        found = area[register]
        assert (found if isinstance(value, int) else bytes(found)) == value
    if fits and (target.mask & 2):
        assert same_state(Area(moved, target), area)


def rows(area):
    return np.frombuffer(area, dtype=np.uint8).reshape(1, -1)


def test_initial_values_of_every_component():
    """Encoded with nothing, in use or not, every register has the reference's initial value (HWP, HDC, x87 not 0)."""
    for name in MODELS:
        mask = known(name, COMPACTED)
        layout = Layout(model(name), mask, COMPACTED)
        for in_use in (0, mask):
            found = decode(Area(encode({}, layout, in_use), layout))
            expected = reference.initial_values(n for n in found if n != "mxcsr_mask")
            assert found == {**expected, "mxcsr_mask": reference.CPUS[name]["mxcsr_mask"]}
    assert decode(Area(encode({}, layout), layout))["IA32_HWP_REQUEST"] == 0x8000FF01


# --- around the world -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "common"), [(FOUR, 0x7), (FOUR[:3], 0x2E7), (FOUR[:2], 0x602E7)], ids=["four", "avx512", "amx"]
)
def test_a_thousand_states_around_all_of_them(names, common):
    """Through every CPU and format and back: the same bytes, whatever else those layouts have room for."""
    rng = Random(common)
    stops = [Layout(model(name), known(name, fmt), fmt) for name in names for fmt in FORMATS]
    first = stops[0]
    batch, states = np.zeros((STATES, first.size), dtype=np.uint8), []
    for row in range(STATES):
        values = reference.random_state(rng, common, "any", rng.choice((0.0, 0.5)))
        in_use = reference.non_initial(values) & common | (2 if values["mxcsr"] != reference.MXCSR_INIT else 0)
        states.append(values)
        area = reference.encode(values, names[0], known(names[0], STANDARD), "standard", in_use)
        batch[row] = np.frombuffer(area, dtype=np.uint8)
    here, at = batch, first
    for stop in [*stops[1:], *stops[::-1]]:
        before = here
        here = transcode_many(here, at, stop)
        for row in range(0, STATES, 97):
            assert here[row].tobytes() == transcode(before[row].tobytes(), at, stop)
        assert same_state_many(here, stop, batch, first).all()
        at = stop
    assert at == first
    assert (here == batch).all()
    columns = decode_many(here, first)
    for row, values in enumerate(states):
        found = {n: c[row].tobytes() if c.ndim == 2 else int(c[row]) for n, c in columns.items()}
        assert reference.same_state({n: v for n, v in found.items() if n != "mxcsr_mask"}, values)


# --- transcode --------------------------------------------------------------------------------------------------


def held(case, target):
    """What of the case's state has a place in the target, by the reference: values and components in use."""
    values = case.expected()
    live = case.xstate_bv
    target_mxcsr = target.mask & (2 if target.format == COMPACTED else 6)
    mxcsr = values.get("mxcsr", reference.MXCSR_INIT)
    lost = live & ~int(target.mask)
    if not target_mxcsr and mxcsr != reference.MXCSR_INIT:
        lost |= 2
    kept = live & int(target.mask)
    if target.format == COMPACTED and target.mask & 2 and mxcsr != reference.MXCSR_INIT:
        kept |= 2
    return values, mxcsr if target_mxcsr else reference.MXCSR_INIT, kept, lost


@each_model
@given(data=st.data(), seed=seeds, other=models)
def test_transcode_rules(name, data, seed, other):
    case = data.draw(cases(name))
    target = data.draw(layouts(other))
    values, mxcsr, kept, lost = held(case, target)
    if lost:
        out = bytearray(Random(seed).randbytes(target.size))
        before = bytes(out)
        for room in (None, out):
            with pytest.raises(LayoutError, match="in use, and the") as caught:
                transcode(case.area, case.layout, target, room)
            assert all(COMPONENTS[i].name in str(caught.value) for i in reference.bits(lost))
        assert out == before
    # new memory: initial values in every slot out of use
    fresh = transcode(case.area, case.layout, target, lost="drop")
    assert type(fresh) is bytes and len(fresh) == target.size
    assert reference.u64(fresh, 512) == kept
    assert reference.u64(fresh, 520) == (target.mask | 1 << 63 if target.format == COMPACTED else 0)
    assert fresh[416:512] == bytes(96) and fresh[528:576] == bytes(48)
    assert int.from_bytes(fresh[24:28], "little") == mxcsr
    found = reference.decode(fresh, other, int(target.mask), NAMES[target.format])
    pieces = [i for i in range(63) if kept >> i & 1]
    for i in pieces:
        ours, theirs = reference.component_bytes(found, i), reference.component_bytes(values, i)
        assert ours == theirs, COMPONENTS[i].name
    initial = {i: reference.COMPONENTS[i].initial for i in reference.bits(int(target.mask) & ~kept)}
    for i, image in initial.items():
        for offset, size in target.extents(i):
            start = 0 if i >= 2 else offset
            expected = image[start : start + size].ljust(size, b"\0")
            if offset == 24:
                continue
            assert fresh[offset : offset + size] == expected, COMPONENTS[i].name
    # memory given: legacy region and header whole, slots in use written, everything else as it was
    out = bytearray(Random(seed).randbytes(target.size + 64))
    before = bytes(out)
    assert transcode(case.area, case.layout, target, out, lost="drop") is out
    assert out[:576] == fresh[:576]
    written = set(range(576))
    for i in reference.bits(kept):
        if i >= 2:
            offset, size = target.offsets[i]
            size = min(size, case.layout.offsets[i][1])
            written.update(range(offset, offset + size))
            assert out[offset : offset + size] == fresh[offset : offset + size]
    assert all(out[at] == before[at] for at in range(len(out)) if at not in written)


@each_model
@given(data=st.data())
def test_transcode_there_and_back(name, data):
    """Standard and compacted of one mask hold the same states."""
    mask = data.draw(masks(name, STANDARD).filter(lambda mask: mask & 2))
    case = data.draw(cases(name, STANDARD, mask))
    compacted = Layout(case.model, mask, COMPACTED)
    there = transcode(case.area, case.layout, compacted)
    back = Area(transcode(there, compacted, case.layout), case.layout)
    assert same_state(back, case.view())
    assert decode(back) == decode(case.view())
    assert back.xstate_bv | 2 == case.xstate_bv | 2


MXCSR = 0x1FBF


def mxcsr_area(mask, fmt, xstate_bv, mxcsr=MXCSR):
    layout = Layout(model("SapphireRapids"), mask, fmt)
    area = bytearray(encode({}, layout, xstate_bv))
    area[24:28] = mxcsr.to_bytes(4, "little")
    return layout, area


@pytest.mark.parametrize("live", range(8))
def test_mxcsr_of_a_standard_area_is_memory_whatever_xstate_bv_says(live):
    source, area = mxcsr_area(7, STANDARD, live)
    assert decode(Area(area, source))["mxcsr"] == Area(area, source).mxcsr == MXCSR
    target = Layout(source.model, 7, COMPACTED)
    found = Area(transcode(area, source, target), target)
    assert found.mxcsr == MXCSR
    assert found.xstate_bv == live | 2  # as XSAVEC would
    found = Area(transcode(area, source, source), source)
    assert (found.mxcsr, found.xstate_bv) == (MXCSR, live)


@pytest.mark.parametrize("live", range(8))
def test_mxcsr_of_a_compacted_area_goes_with_sse(live):
    source, area = mxcsr_area(7, COMPACTED, live)
    expected = MXCSR if live & 2 else reference.MXCSR_INIT
    assert decode(Area(area, source))["mxcsr"] == Area(area, source).mxcsr == expected
    for fmt in FORMATS:
        target = Layout(source.model, 7, fmt)
        found = Area(transcode(area, source, target), target)
        assert (found.mxcsr, found.xstate_bv) == (expected, live)


def test_mxcsr_where_the_layout_has_avx_alone():
    source, area = mxcsr_area(4, STANDARD, 4)
    assert decode(Area(area, source))["mxcsr"] == MXCSR
    bare = Layout(source.model, 4, COMPACTED)
    assert "mxcsr" not in decode(Area(encode({}, bare), bare))
    with pytest.raises(LayoutError, match="mxcsr has no place"):
        _ = Area(encode({}, bare), bare).mxcsr
    with pytest.raises(LayoutError, match="SSE in use"):
        transcode(area, source, bare)
    dropped = transcode(area, source, bare, lost="drop")
    assert reference.u64(dropped, 512) == 4
    assert dropped[24:28] == (0x1F80).to_bytes(4, "little")
    wide = Layout(source.model, 6, COMPACTED)
    moved = Area(transcode(area, source, wide), wide)
    assert (moved.mxcsr, moved.xstate_bv) == (MXCSR, 6)


def bad_areas():
    layout = Layout(model("SapphireRapids"), 0x602E7, STANDARD)
    good = encode({"k1": 1, "zmm0": bytes(64)}, layout)
    broken = [(512, 8, 512), (519, 1, 519), (527, 128, 520), (520, 1, 520), (528, 1, 528), (535, 9, 535)]
    for at, value, offset in broken:
        area = bytearray(good)
        area[at] = value
        yield layout, bytes(area), offset
    compacted = Layout(layout.model, 0x602E7, COMPACTED)
    good = encode({"k1": 1}, compacted)
    broken = [(512, 8, 512), (527, 0, 520), (520, 0, 520), (519, 128, 519), (536, 1, 536), (575, 1, 575)]
    for at, value, offset in broken:
        area = bytearray(good)
        area[at] = value
        yield compacted, bytes(area), offset


@pytest.mark.parametrize(("layout", "area", "offset"), list(bad_areas()))
def test_a_call_that_raises_has_written_nothing(layout, area, offset):
    target = Layout(layout.model, layout.mask, STANDARD if layout.format else COMPACTED)
    out = bytearray(b"\xcc" * target.size)
    with pytest.raises(FormatError, match=f"byte {offset}") as caught:
        transcode(area, layout, target, out)
    assert caught.value.offset == offset
    good = encode({}, layout)
    batch = np.stack([np.frombuffer(x, dtype=np.uint8) for x in [good] * 5 + [area] + [good]])
    many = np.full((7, target.size + 3), 0xCC, dtype=np.uint8)
    with pytest.raises(FormatError, match="area 5") as caught:
        transcode_many(batch, layout, target, many)
    assert caught.value.offset == offset
    with pytest.raises(FormatError, match="area 5"):
        decode_many(batch, layout)
    assert (many == 0xCC).all()
    assert out == b"\xcc" * target.size


def test_lost_in_a_batch_names_the_row_and_writes_nothing():
    source = Layout(model("SapphireRapids"), 0x602E7, STANDARD)
    target = Layout(model("EPYC-Genoa"), 0x2E7, COMPACTED)
    area = np.frombuffer(encode({"k1": 1}, source), dtype=np.uint8)
    tiles = np.frombuffer(encode({"tmm0": b"t" * 1024, "k1": 1}, source), dtype=np.uint8)
    batch = np.stack([area, area, tiles, area])
    out = np.full((4, target.size), 0xCC, dtype=np.uint8)
    with pytest.raises(LayoutError, match="TILEDATA in use of area 2"):
        transcode_many(batch, source, target, out)
    assert (out == 0xCC).all()
    assert (decode_many(transcode_many(batch, source, target, lost="drop"), target)["k1"] == 1).all()
    with pytest.raises(ValueError, match="lost='maybe'"):
        transcode_many(batch, source, target, out, lost="maybe")


def test_misuse_of_transcode():
    layout = Layout(model("EPYC-Genoa"), 0x2E7, STANDARD)
    area = encode({"k1": 1}, layout)
    with pytest.raises(TruncatedError, match=f"{layout.size} bytes in a buffer of {layout.size - 1}"):
        transcode(area[:-1], layout, layout)
    with pytest.raises(ValueError, match="out has 2439 bytes"):
        transcode(area, layout, layout, bytearray(layout.size - 1))
    locked = np.zeros(layout.size, dtype=np.uint8)
    locked.flags.writeable = False
    for readonly in (bytes(layout.size), memoryview(bytes(layout.size)), locked):
        with pytest.raises(ValueError, match="out is read-only"):
            transcode(area, layout, layout, readonly)
    with pytest.raises(ValueError, match="out is read-only"):
        transcode_many(rows(area), layout, layout, locked.reshape(1, -1))
    twice = bytearray(area * 2)
    for start in (0, 1, layout.size - 1):
        with pytest.raises(ValueError, match="overlap"):
            transcode(memoryview(twice)[: layout.size], layout, layout, memoryview(twice)[start : start + layout.size])
    transcode(memoryview(twice)[: layout.size], layout, layout, memoryview(twice)[layout.size :])
    for wrong in (area, np.zeros(layout.size, np.uint8), np.zeros((1, layout.size), np.uint16)):
        with pytest.raises(ValueError, match=r"C-contiguous \(N, stride\) uint8 buffer"):
            transcode_many(wrong, layout, layout)
    with pytest.raises(TruncatedError, match=f"rows of 100 bytes, the layout needs {layout.size}"):
        transcode_many(np.zeros((3, 100), np.uint8), layout, layout)
    with pytest.raises(ValueError, match="out has 2 rows for 1 areas"):
        transcode_many(rows(area), layout, layout, np.zeros((2, layout.size), np.uint8))
    with pytest.raises((ValueError, BufferError)):
        transcode_many(np.zeros((4, 2 * layout.size), np.uint8)[:, ::2], layout, layout)
    with pytest.raises(TypeError):
        transcode(area, layout, None)
    with pytest.raises(TypeError):
        transcode("text", layout, layout)


def test_many_targets_of_one_source():
    """More targets than a layout remembers move lists for."""
    source = Layout(model("SapphireRapids"), 0x602E7, STANDARD)
    area = encode({"k1": 7, "xmm3": b"x" * 16}, source)
    targets = [Layout(source.model, 0x22 | mask << 2 & 0xC4, fmt) for mask in range(64) for fmt in FORMATS]
    for target in targets + targets:
        found = decode(Area(transcode(area, source, target), target))
        assert found["k1"] == 7


# --- batch forms ------------------------------------------------------------------------------------------------


@each_model
@pytest.mark.parametrize("count", [0, 1, 2, 65])
@pytest.mark.parametrize("slack", [0, 64, 37])
def test_many_equal_single_row_by_row(name, count, slack):
    rng = Random(f"{name} {count} {slack}")
    mask = known(name, STANDARD)
    for fmt in FORMATS:
        layout = Layout(model(name), mask, fmt)
        target = Layout(model(name), mask, STANDARD if fmt else COMPACTED)
        stride = layout.size + slack if slack != 64 else (layout.size + 63) // 64 * 64
        step = target.size + slack if slack != 64 else (target.size + 63) // 64 * 64
        batch = np.frombuffer(rng.randbytes(count * stride), dtype=np.uint8).reshape(count, stride).copy()
        single = []
        for row in range(count):
            in_use = mask & rng.choice((0, 1, 2, 3, mask, rng.getrandbits(63)))
            case = make_case(name, fmt, mask, in_use, rng.getrandbits(64), 0.5)
            batch[row, : layout.size] = np.frombuffer(case.area, dtype=np.uint8)
            single.append(case.area)
        filler = rng.randbytes(count * step)
        out = np.frombuffer(filler, dtype=np.uint8).reshape(count, step).copy()
        assert transcode_many(batch, layout, target, out) is out
        fresh = transcode_many(batch, layout, target)
        assert fresh.shape == (count, target.size) and fresh.dtype == np.uint8
        columns = decode_many(batch, layout)
        same = same_state_many(batch, layout, out, target)
        assert same.shape == (count,) and same.dtype == np.bool_ and same.all()
        for row, area in enumerate(single):
            expected = bytearray(filler[row * step : (row + 1) * step])
            transcode(area, layout, target, expected)
            assert out[row].tobytes() == expected
            assert fresh[row].tobytes() == transcode(area, layout, target)
            values = decode(Area(area, layout))
            assert list(values) == list(columns)
            assert {n: c[row].tobytes() if c.ndim == 2 else int(c[row]) for n, c in columns.items()} == values
        for column, width in ((n, REGISTERS[n].width) for n in columns):
            if REGISTERS[column].scalar:
                assert columns[column].shape == (count,) and columns[column].dtype.kind == "u"
            else:
                assert columns[column].shape == (count, width) and columns[column].dtype == np.uint8
        again = encode_many(columns, layout)
        assert again.shape == (count, layout.size)
        expected = [encode(decode(Area(area, layout)), layout) for area in single]
        assert [again[row].tobytes() for row in range(count)] == expected


@pytest.mark.parametrize("slack", [0, 13, 64])
def test_batches_large_enough_for_streaming_stores(slack):
    """Beyond the size where a batch tries non-temporal stores: still row by row what the single form gives."""
    rng = np.random.default_rng(slack)
    source = Layout(model("DiamondRapids"), 0xE02E7, STANDARD)
    target = Layout(model("DiamondRapids"), 0xE02E7, COMPACTED)
    count = STREAMED // (source.size + target.size) + 1
    batch = rng.integers(0, 256, (count, source.size + slack), dtype=np.uint8)
    batch[:, 512:576] = 0
    live = rng.integers(0, 2**63, count, dtype=np.uint64) & np.uint64(0xE02E7)
    live[rng.random(count) < 0.5] |= np.uint64(3)
    live[rng.random(count) < 0.3] = np.uint64(0xE02E7)
    batch[:, 512:520] = live.view(np.uint8).reshape(count, 8)
    for one, other in ((source, target), (target, source)):
        before = rng.integers(0, 256, (count, other.size + slack), dtype=np.uint8)
        for fresh in (False, True):
            out = None if fresh else before.copy()
            found = transcode_many(batch, one, other, out)
            for row in range(count):
                room = None if fresh else before[row].copy()
                expected = transcode(batch[row], one, other, room)
                assert found[row].tobytes() == bytes(expected)
        batch = found


def test_large_batches_without_extended_components():
    """No component to move, and as many rows as such a batch has."""
    one, other = (Layout(model("SapphireRapids"), 3, fmt) for fmt in (STANDARD, COMPACTED))
    area = encode({"xmm1": bytes(range(16)), "st0": bytes(range(10)), "mxcsr": 0x1FA0}, one)
    batch = np.tile(np.frombuffer(area, np.uint8), (STREAMED // (one.size + other.size) + 1, 1))
    moved = transcode_many(batch, one, other)
    assert (moved == np.frombuffer(transcode(area, one, other), np.uint8)).all()
    assert (transcode_many(moved, other, one) == batch).all()


def test_no_columns_of_a_large_batch():
    layout = Layout(model("SapphireRapids"), 0x602E7, STANDARD)
    assert decode_many(np.zeros((100, layout.size), np.uint8), layout, []) == {}


@pytest.mark.parametrize("slack", [0, 13])
def test_columns_of_large_batches(slack):
    """Also where whole lines stream: row by row what the single form reads."""
    rng = np.random.default_rng(slack)
    layout = Layout(model("SapphireRapids"), 0x602E7, COMPACTED)
    count = STREAMED // (2 * layout.size) + 100
    batch = rng.integers(0, 256, (count, layout.size + slack), dtype=np.uint8)
    batch[:, 512:576] = np.frombuffer(encode({}, layout), np.uint8)[512:576]
    live = rng.integers(0, 2**63, count, dtype=np.uint64) & np.uint64(0x602E7)
    batch[:, 512:520] = live.view(np.uint8).reshape(count, 8)
    columns = decode_many(batch, layout)
    given = {n: np.full_like(c, 0xA5) for n, c in columns.items()}
    assert decode_many(batch, layout, out=given) is given
    for n, c in columns.items():
        assert (given[n] == c).all()
    for row in range(count):
        area = Area(batch[row], layout)
        values = decode(area)
        assert {n: c[row].tobytes() if c.ndim == 2 else int(c[row]) for n, c in columns.items()} == values
    out = np.full((count, layout.size + slack), 0xA5, np.uint8)
    assert encode_many(columns, layout, live, out) is out
    assert (out[:, : layout.size] == encode_many(columns, layout, live)).all()
    assert (out[:, layout.size :] == 0xA5).all()
    assert same_state_many(out, layout, batch, layout).all()


def test_columns_into_given_memory():
    layout = Layout(model("SapphireRapids"), 0x602E7, STANDARD)
    batch = np.stack([np.frombuffer(encode({"k1": n, "zmm0": bytes([n]) * 64}, layout), np.uint8) for n in range(3)])
    room = {"k1": bytearray(24), "zmm0": memoryview(bytearray(192)), "extra": 5}
    assert decode_many(batch, layout, ["k1", "zmm0"], room) is room
    assert room["k1"] == b"".join(n.to_bytes(8, "little") for n in range(3))
    assert bytes(room["zmm0"]) == b"".join(bytes([n]) * 64 for n in range(3))
    room["k1"].append(0)  # let go of
    for out, message in (
        ({"zmm0": bytearray(192)}, "out has no column k1"),
        ({"k1": bytearray(25), "zmm0": bytearray(192)}, "column k1 of out has 25 bytes"),
        ({"k1": bytes(24), "zmm0": bytearray(192)}, "out is read-only"),
        ({"k1": batch[0, :24], "zmm0": bytearray(192)}, "overlaps"),
    ):
        with pytest.raises(ValueError, match=message):
            decode_many(batch, layout, ["k1", "zmm0"], out)
        assert not any(bytes(out["zmm0"]))
    assert decode_many(batch, layout, ["k1"])["k1"].tolist() == [0, 1, 2]
    spare = np.zeros((3, layout.size), np.uint8)
    for out, message in ((spare[:2], "out has 2 rows"), (spare[:, ::2], "in pieces"), (bytes(100), "out")):
        with pytest.raises(ValueError, match=message):
            encode_many({"k1": np.arange(3)}, layout, None, out)
    with pytest.raises(ValueError, match="overlaps"):
        encode_many({"k1": spare[0, :24].view(np.uint64)}, layout, None, spare)
    assert not spare.any()


@pytest.mark.parametrize("stride", [0, 5, 20000])
def test_no_rows_at_all(stride):
    layout = Layout(model("SapphireRapids"), 0x602E7, STANDARD)
    nothing = np.zeros((0, stride), np.uint8)
    assert decode_many(nothing, layout)["tmm0"].shape == (0, 1024)
    assert transcode_many(nothing, layout, layout).shape == (0, layout.size)
    assert transcode_many(nothing, layout, layout, nothing.copy()).shape == (0, stride)
    assert same_state_many(nothing, layout, nothing, layout).shape == (0,)
    assert encode_many({"k1": np.zeros(0, np.uint64)}, layout).shape == (0, layout.size)


@given(seed=seeds)
def test_register_subsets(seed):
    rng = Random(seed)
    name = rng.choice(MODELS)
    fmt = rng.choice(FORMATS)
    mask = known(name, fmt)
    case = make_case(name, fmt, mask, rng.getrandbits(63) & mask, seed)
    whole = decode(case.view())
    wanted = rng.sample(sorted(whole), rng.randint(0, min(12, len(whole))))
    found = decode(case.view(), wanted)
    assert found == {n: whole[n] for n in wanted}
    assert list(found) == wanted
    columns = decode_many(rows(case.area), case.layout, wanted)
    assert list(columns) == wanted
    assert decode(case.view(), iter([n.upper() for n in wanted])) == found


def test_narrow_names_read_the_low_bytes_of_wide_registers():
    case = make_case("DiamondRapids", COMPACTED, 0xE02E7, 0xE02E7, 5)
    whole = decode(case.view())
    for n in range(16):
        found = decode(case.view(), [f"xmm{n}", f"ymm{n}", f"zmm{n}"])
        wide = whole[f"zmm{n}"]
        assert found == {f"xmm{n}": wide[:16], f"ymm{n}": wide[:32], f"zmm{n}": wide}


@pytest.mark.parametrize("mask", [0x1, 0x2, 0x4, 0x6, 0x40, 0x80, 0x44, 0x60000, 0x200E7, 0x80000, 0])
@each_format
def test_narrow_masks(mask, fmt):
    for in_use in {0, mask, mask & 0x20004}:
        case = make_case("DiamondRapids", fmt, mask, in_use, mask)
        assert decode(case.view()) == case.expected()
        assert list(decode(case.view())) == reference.registers(mask, NAMES[fmt])
        agreed(case, case.expected())
        columns = decode_many(rows(case.area), case.layout)
        values = {n: c[0].tobytes() if c.ndim == 2 else int(c[0]) for n, c in columns.items()}
        assert values == case.expected()


def test_wide_names_where_the_layout_has_only_some_of_their_parts():
    case = make_case("SapphireRapids", STANDARD, 0x2, 0x2, 1)
    area = case.view()
    low = bytes(area["xmm3"])
    assert bytes(area["zmm3"]) == low.ljust(64, b"\0")
    assert decode(area, ["zmm3", "ymm3"]) == {"zmm3": low.ljust(64, b"\0"), "ymm3": low.ljust(32, b"\0")}
    assert encode({"zmm3": low.ljust(64, b"\0")}, case.layout) == encode({"xmm3": low}, case.layout)
    with pytest.raises(LayoutError, match="zmm20 has no place"):
        area["zmm20"]
    # bytes that have no place are not dropped in silence
    for register, width in (("ymm3", 32), ("zmm3", 64)):
        for at in range(16, width):
            value = bytearray(width)
            value[at] = 1
            with pytest.raises(LayoutError, match=f"{register}.*has no place"):
                encode({register: value}, case.layout)
    column = np.zeros((3, 64), dtype=np.uint8)
    column[2, 63] = 1
    with pytest.raises(LayoutError, match=r"zmm3, row 2.*has no place"):
        encode_many({"zmm3": column}, case.layout)
    assert encode_many({"zmm3": column[:2]}, case.layout).shape == (2, case.layout.size)


def test_one_register_under_two_names():
    layout = Layout(model("SapphireRapids"), 0x602E7, STANDARD)
    for pair in ({"xmm3": bytes(16), "zmm3": bytes(64)}, {"zmm3": bytes(64), "ymm3": bytes(32)}):
        with pytest.raises(ValueError, match="given twice"):
            encode(pair, layout)
        with pytest.raises(ValueError, match="given twice"):
            encode_many({n: np.frombuffer(v, np.uint8).reshape(1, -1) for n, v in pair.items()}, layout)
    with pytest.raises(ValueError, match="given twice"):
        encode({"k1": 1, "K1": 2}, layout)


# --- values that do not fit -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        ({"zmm0": bytes(63)}, ValueError, "zmm0 has 64 bytes, not 63"),
        ({"st0": bytes(16)}, ValueError, "st0 has 10 bytes, not 16"),
        ({"tmm0": bytes(1023)}, ValueError, "tmm0 has 1024 bytes"),
        ({"k1": 1 << 64}, ValueError, "k1 = 0x10000000000000000 does not fit 64 bits"),
        ({"pkru": 1 << 32}, ValueError, "does not fit 32 bits"),
        ({"ftw": 256}, ValueError, "does not fit 8 bits"),
        ({"fcw": 0x10000}, ValueError, "does not fit 16 bits"),
        ({"mxcsr": -1}, ValueError, "mxcsr = -0x1 does not fit"),
        ({"uif": 2}, ValueError, "uif = 0x2 does not fit 1 bits"),
        ({"IA32_UINTR_MISC": 1 << 63}, ValueError, "does not fit 63 bits"),
        ({"k1": b"x"}, TypeError, "k1 is a number, not bytes"),
        ({"k1": 1.0}, TypeError, "k1 is a number, not float"),
        ({"zmm0": 5}, TypeError, "bytes-like"),
        ({"zmm0": "x" * 64}, TypeError, "bytes-like"),
        ({"zmm32": bytes(64)}, KeyError, "no register 'zmm32'"),
        ({"zmn0": bytes(64)}, KeyError, "did you mean"),
        ({"bnd0": bytes(16)}, LayoutError, "bnd0 has no place"),
    ],
)
def test_values_that_do_not_fit(values, error, message):
    layout = Layout(model("SapphireRapids"), 0x602E7 | 0x4000, COMPACTED)
    with pytest.raises(error, match=message):
        encode(values, layout)


def test_misuse_of_decode_and_encode():
    layout = Layout(model("SapphireRapids"), 0x2E7, STANDARD)
    area = Area(encode({}, layout), layout)
    with pytest.raises(KeyError, match="did you mean 'zmm31'"):
        decode(area, ["zmm311"])
    with pytest.raises(LayoutError, match="tmm0 has no place"):
        decode(area, ["tmm0"])
    for wrong in ([5], [None], [b"zmm0"]):
        with pytest.raises((TypeError, KeyError)):
            decode(area, wrong)
    with pytest.raises(TypeError, match="an area with a layout is needed, not bytes"):
        decode(bytes(area))
    for bits in (8, 1 << 63, -1, 1 << 64):
        with pytest.raises(ValueError, match="is not a subset"):
            encode({}, layout, bits)
        with pytest.raises(ValueError, match="is not a subset"):
            encode_many({"k1": np.zeros(1, np.uint64)}, layout, bits)
    assert encode({"xmm0": memoryview(bytearray(16))}, layout) == encode({"xmm0": bytearray(16)}, layout)


@pytest.mark.parametrize(
    ("columns", "error", "message"),
    [
        ({}, ValueError, "no columns"),
        ({"zmm0": np.zeros((2, 63), np.uint8)}, ValueError, r"shape \(2, 63\), \(N, 64\) is needed"),
        ({"zmm0": np.zeros(64, np.uint8)}, ValueError, "is needed"),
        ({"zmm0": np.full((2, 64), 300)}, (TypeError, ValueError), "zmm0"),
        ({"zmm0": np.full((2, 64), 0.5)}, (TypeError, ValueError), "zmm0"),
        ({"k1": np.zeros(2, np.uint64), "k2": np.zeros(3, np.uint64)}, ValueError, "k2 has 3 rows, the ones before 2"),
        ({"k1": np.zeros((2, 2), np.uint64)}, ValueError, "one-dimensional"),
        ({"k1": np.zeros(2)}, ValueError, "integers"),
        ({"k1": np.array([1, -1])}, ValueError, "negative"),
        ({"pkru": np.array([0, 1 << 32], np.uint64)}, ValueError, "pkru, row 1: 0x100000000 does not fit 32 bits"),
        ({"bnd0": np.zeros((1, 16), np.uint8)}, LayoutError, "bnd0 has no place"),
    ],
)
def test_columns_that_do_not_fit(columns, error, message):
    with pytest.raises(error, match=message):
        encode_many(columns, Layout(model("SapphireRapids"), 0x2E7, STANDARD))


def test_a_mark_per_row():
    layout = Layout(model("SapphireRapids"), 0x2E7, COMPACTED)
    columns = {"k1": np.array([5, 6, 7], np.uint32), "zmm20": np.full((3, 64), 9, np.uint8)}
    marks = np.array([0x20, 0xA0, 0], np.uint64)
    found = encode_many(columns, layout, marks)
    assert [reference.u64(found[i].tobytes(), 512) for i in range(3)] == [0x20, 0xA0, 0]
    assert decode_many(found, layout)["k1"].tolist() == [5, 6, 0]
    with pytest.raises(ValueError):
        encode_many(columns, layout, marks[:2])


# --- same_state -------------------------------------------------------------------------------------------------


@given(a=models, b=models, data=st.data())
def test_same_state_is_what_the_reference_says(a, b, data):
    """Any two areas, also of the same state in two layouts; and it is symmetric."""
    left = data.draw(cases(a))
    right = data.draw(cases(b))
    if data.draw(st.booleans()):
        target = data.draw(layouts(b))
        area = transcode(left.area, left.layout, target, lost="drop")
        one, two = left.view(), Area(area, target)
        values = reference.decode(area, b, int(target.mask), NAMES[target.format])
    else:
        one, two, values = left.view(), right.view(), right.expected()
    expected = reference.same_state(left.expected(), values)
    assert same_state(one, two) is same_state(two, one) is one.same_state(two) is expected
    assert same_state(one, one) is True
    assert same_state_many(rows(bytes(one)), one.layout, rows(bytes(two)), two.layout).tolist() == [expected]


def flips(name, fmt, mask):
    """Every (offset, bit mask, counts) worth a flip: one bit of every byte of the area."""
    counts = set()
    for offset, size in counting(name, mask, fmt, mask):
        counts.update(range(offset, offset + size))
    counts -= set(range(28, 32))  # MXCSR_MASK is no state
    _, size = reference.layout(name, mask, NAMES[fmt])
    for at in range(size):
        if not 512 <= at < 576:
            yield at, at in counts


@each_model
@each_format
def test_same_state_sees_every_register_byte_and_no_other(name, fmt):
    mask = known(name, fmt)
    case = make_case(name, fmt, mask, mask, 7)
    original = case.view()
    area = bytearray(case.area)
    view = Area(area, case.layout)
    rng = Random(1)
    for at, counts in flips(name, fmt, mask):
        bit = 1 << rng.randrange(8)
        area[at] ^= bit
        assert same_state(original, view) is not counts, f"byte {at}"
        area[at] ^= bit
    assert same_state(original, view)


@each_model
def test_same_state_sees_every_single_bit_of_every_register(name):
    """Bit by bit, in the compacted format; tiles and the branch records by one bit of each byte above."""
    mask = known(name, COMPACTED) & ~(1 << 18 | 1 << 15)
    case = make_case(name, COMPACTED, mask, mask, 8)
    bits = [(o + i, b) for o, s in case.counting() for i in range(s) for b in range(8)
            if not 512 <= o + i < 576 and not 28 <= o + i < 32]
    many = np.tile(np.frombuffer(case.area, np.uint8), (len(bits), 1)) if len(bits) < 4000 else None
    if many is None:
        area = bytearray(case.area)
        view, original = Area(area, case.layout), case.view()
        for at, bit in bits:
            area[at] ^= 1 << bit
            assert not same_state(original, view), (at, bit)
            area[at] ^= 1 << bit
        return
    originals = many.copy()
    assert same_state_many(many, case.layout, originals, case.layout).all()
    for row, (at, bit) in enumerate(bits):
        many[row, at] ^= 1 << bit
    assert not same_state_many(many, case.layout, originals, case.layout).any()


@each_model
def test_same_state_of_initial_values_in_use(name):
    """In use with initial values equals out of use; one bit away from it does not."""
    mask = known(name, COMPACTED)
    layout = Layout(model(name), mask, COMPACTED)
    nothing = Area(encode({}, layout), layout)
    area = bytearray(encode({}, layout, mask))
    view = Area(area, layout)
    assert same_state(nothing, view) and same_state(view, nothing)
    for at, counts in flips(name, COMPACTED, mask):
        if at % 7 == 0 or at < 576:
            area[at] ^= 1
            assert same_state(nothing, view) is same_state(view, nothing) is not counts, f"byte {at}"
            area[at] ^= 1


def test_misuse_of_same_state():
    layout = Layout(model("EPYC-Genoa"), 0x2E7, STANDARD)
    area = encode({}, layout)
    with pytest.raises(TypeError, match="with a layout"):
        same_state(area, Area(area, layout))
    with pytest.raises(ValueError, match="1 rows in a, 2 in b"):
        same_state_many(rows(area), layout, np.zeros((2, layout.size), np.uint8), layout)
    with pytest.raises(TruncatedError, match="b: rows of 576"):
        same_state_many(rows(area), layout, np.zeros((1, 576), np.uint8), layout)


# --- the GIL, and memory ----------------------------------------------------------------------------------------

LARGE = 3000


def large_batch():
    layout = Layout(model("SapphireRapids"), 0x602E7, STANDARD)
    row = make_case("SapphireRapids", STANDARD, 0x602E7, 0x602E7, 3).area
    return layout, np.tile(np.frombuffer(row, np.uint8), (LARGE, 1))


@pytest.mark.parametrize("what", ["transcode", "decode", "encode", "same_state"])
def test_the_gil_is_released(what):
    """With a switch interval of minutes, another thread can only run if the call lets go."""
    layout, batch = large_batch()
    target = Layout(layout.model, layout.mask, COMPACTED)
    room = np.zeros((LARGE, target.size), np.uint8)
    columns = decode_many(batch, layout, ["zmm0", "tmm0"])
    call = {
        "transcode": lambda: transcode_many(batch, layout, target, room),
        "decode": lambda: decode_many(batch, layout, ["tmm0", "tmm1", "tmm2"]),
        "encode": lambda: encode_many(columns, layout),
        "same_state": lambda: same_state_many(batch, layout, batch, layout),
    }[what]
    ticks, stop = [], threading.Event()

    def tick():
        while not stop.is_set():
            ticks.append(time.perf_counter())
            time.sleep(0)

    call()
    old = sys.getswitchinterval()
    sys.setswitchinterval(600)
    thread = threading.Thread(target=tick)
    try:
        for _ in range(50):
            if not thread.ident:
                thread.start()
            before = time.perf_counter()
            call()
            after = time.perf_counter()
            # Not only while the headers are checked: in the midst of the copying, too.
            spent = after - before
            if any(before + 0.5 * spent < at < before + 0.9 * spent for at in ticks):
                break
            ticks.clear()
        else:
            pytest.fail("no other thread ran in the second half of any of 50 calls")
    finally:
        stop.set()
        sys.setswitchinterval(old)
        thread.join()


@pytest.mark.parametrize("what", ["transcode", "decode", "encode", "same_state"])
def test_batch_forms_allocate_nothing_per_area(what):
    """The peak above the output does not grow with the number of areas."""
    layout, batch = large_batch()
    target = Layout(layout.model, layout.mask, COMPACTED)
    columns = decode_many(batch, layout, ["zmm0", "k1", "tmm0"])
    call = {
        "transcode": lambda n: transcode_many(batch[:n], layout, target),
        "decode": lambda n: decode_many(batch[:n], layout, ["zmm0", "k1", "tmm0"]),
        "encode": lambda n: encode_many({m: c[:n] for m, c in columns.items()}, layout),
        "same_state": lambda n: same_state_many(batch[:n], layout, batch[:n], layout),
    }[what]

    def extra(count):
        call(count)
        tracemalloc.start()
        result = call(count)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        arrays = result.values() if isinstance(result, dict) else [result]
        return peak - sum(array.nbytes for array in arrays)

    few, many = extra(10), extra(LARGE)
    # encode_many holds a mark of 8 bytes per row, and has to widen columns
    assert many - few < 4096 + (16 * LARGE if what == "encode" else 0)


@given(data=st.data(), name=models)
def test_submasks_are_subsets(name, data):
    mask = data.draw(masks(name, STANDARD))
    assert not data.draw(submasks(mask)) & ~mask
