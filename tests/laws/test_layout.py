"""Layouts against the independent model, against the manual's worked numbers, and their rules."""

import copy
import pickle
from itertools import combinations
from random import Random
from types import SimpleNamespace

import pytest
import reference
from hypothesis import given
from hypothesis import strategies as st

from tests.laws.strategies import AMD, APX, FORMATS, INTEL, NAMES, each_model, known, masks, model, models
from xsave import COMPACTED, STANDARD, Component, ComponentMask, FormatError, Layout, LayoutError, TruncatedError

LEGACY = {0: [(0, 24), (32, 128)], 1: [(24, 8), (160, 256)]}


def agree(name: str, mask: int, fmt: int) -> None:
    layout = Layout(model(name), mask, fmt)
    slots, size = reference.layout(name, mask, NAMES[fmt])
    expected = {i: slot for i, slot in slots.items() if i >= 2}
    assert (layout.offsets, layout.size, layout.mask, layout.format) == (expected, size, mask, fmt)
    assert list(layout.offsets) == sorted(expected)
    for i in reference.bits(mask):
        assert layout.extents(i) == LEGACY.get(i, [slots[i]]) == layout.extents(Component(i).name)


def test_every_family_of_layouts_is_here() -> None:
    """Intel, AMD and APX differ, so that confusing them cannot pass."""
    assert INTEL and AMD and APX
    offsets = {name: dict(Layout(model(name), "avx512", STANDARD).offsets) for name in ("SapphireRapids", "EPYC-Genoa")}
    assert offsets["SapphireRapids"] != offsets["EPYC-Genoa"]
    assert {model(name).vendor for name in (*INTEL, *APX)} == {"GenuineIntel"}
    assert {model(name).vendor for name in AMD} == {"AuthenticAMD"}


@each_model
def test_whatever_the_model_enumerates(name: str) -> None:
    table, found = reference.CPUS[name], model(name)
    assert (found.xcr0_mask, found.vendor, found.profile) == (table["xcr0"], table["vendor"], table["profile"])
    assert not table["xss"] & ~found.xss_mask
    for i, (size, offset, align64) in table["components"].items():
        row = found.components[i]
        assert (row.size, row.offset, row.align64, row.supervisor) == (size, offset, align64, offset is None)
    assert Layout(found, 3, STANDARD).mxcsr_mask == table["mxcsr_mask"]


@each_model
def test_every_mask_of_user_components(name: str) -> None:
    components = reference.bits(known(name, STANDARD))
    for count in range(len(components) + 1):
        for chosen in combinations(components, count):
            for fmt in FORMATS:
                agree(name, sum(1 << i for i in chosen), fmt)


@each_model
@given(data=st.data())
def test_any_mask_with_supervisor_components(name: str, data: st.DataObject) -> None:
    agree(name, data.draw(masks(name, COMPACTED)), COMPACTED)


@given(a=models, b=models, data=st.data())
def test_equality_hash_pickle_copy(a: str, b: str, data: st.DataObject) -> None:
    fmt, other = data.draw(st.sampled_from(FORMATS)), data.draw(st.sampled_from(FORMATS))
    left = Layout(model(a), data.draw(masks(a, fmt)), fmt)
    right = Layout(model(b), data.draw(masks(b, other)), other)
    same = (left.mask, left.format, dict(left.offsets), left.mxcsr_mask) == (
        right.mask, right.format, dict(right.offsets), right.mxcsr_mask)  # fmt: skip
    assert (left == right) is same
    assert (left != right) is not same
    if same:
        assert hash(left) == hash(right)
    for twin in (pickle.loads(pickle.dumps(left)), copy.copy(left), copy.deepcopy(left)):
        assert twin == left
        assert hash(twin) == hash(left)
        assert twin.model == left.model
        assert dict(twin.offsets) == dict(left.offsets)
    assert left != "layout"


def test_repr_names_model_format_mask_and_size() -> None:
    text = repr(Layout(model("EPYC-Genoa"), 0x207, COMPACTED))
    assert text == "<Layout EPYC-Genoa compacted 0x207 (x87 SSE AVX PKRU): 840 bytes>"


# --- the manual's worked numbers --------------------------------------------------------------------------------

SPR_ALL = 0x602E7 | 0xDD00


@pytest.mark.parametrize(
    ("name", "mask", "offsets", "end"),
    [
        ("SapphireRapids", 0x602E7, {2: 576, 5: 832, 6: 896, 7: 1408, 9: 2432, 17: 2496, 18: 2560}, 10752),
        ("SapphireRapids", SPR_ALL, {8: 2432, 9: 2560, 10: 2568, 11: 2576, 12: 2592, 14: 2616, 15: 2664, 17: 3520,
                                     18: 3584}, 11776),
        ("DiamondRapids", 0xE02E7, {18: 2560, 19: 10752}, 10880),
        ("EPYC-Genoa", 0x2E7 | 0x1800, {9: 2432, 11: 2440, 12: 2456}, 2480),
        ("SapphireRapids", 0x84, {2: 576, 7: 832}, 1856),
        ("SapphireRapids", 0xA0, {5: 576, 7: 640}, 1664),
        ("SapphireRapids", 0xE4, {7: 1408}, 2432),
        ("SapphireRapids", 0x24, {5: 832}, 896),
        ("SapphireRapids", 0x60000, {17: 576, 18: 640}, 8832),
        ("SapphireRapids", 0x40000, {18: 576}, 8768),
        ("SapphireRapids", 0x40080, {7: 576, 18: 1600}, 9792),
        ("SapphireRapids", 0x600E7, {17: 2432, 18: 2496}, 10688),
        ("SapphireRapids", 0x602E7 | 0x900, {}, 10880),
        ("EPYC-Genoa", 0xE7 | 0x800, {}, 2448),
        ("EPYC-Genoa", 0xE7 | 0x1800, {}, 2472),
        ("AlderLake", 7 | 0x900, {}, 976),
        ("Skylake-Server", 0x2FF | 0x100, {}, 2696),
        ("Skylake-Server", 0xFF | 0x100, {}, 2688),
        ("SapphireRapids", 0, {}, 576),
        ("SapphireRapids", 3, {}, 576),
    ],
)  # fmt: skip
def test_compacted_offsets(name: str, mask: int, offsets: dict[int, int], end: int) -> None:
    layout = Layout(model(name), mask, COMPACTED)
    assert {i: layout.offsets[i][0] for i in offsets} == offsets
    assert layout.size == end


# CPU: XCR0, IA32_XSS, standard size, compacted size of XCR0, compacted size of both.
SIZES = {
    "Penryn": (0x3, 0, 576, 576, 576),
    "Bulldozer": (1 << 62 | 0x7, 0, 960, 960, 960),
    "SandyBridge": (0x7, 0, 832, 832, 832),
    "Haswell": (0x7, 0, 832, 832, 832),
    "KnightsLanding": (0xE7, 0, 2688, 2432, 2432),
    "Skylake-Client": (0x1F, 0x100, 1088, 960, 1088),
    "Skylake-Server": (0x2FF, 0x100, 2696, 2568, 2696),
    "Icelake-Server": (0x2E7, 0x100, 2696, 2440, 2568),
    "AlderLake": (0x207, 0x19900, 2696, 840, 1824),
    "SapphireRapids": (0x602E7, 0xDD00, 11008, 10752, 11776),
    "GraniteRapids": (0x602E7, 0x1DD00, 11008, 10752, 11776),
    "DiamondRapids": (0xE02E7, 0x1DD00, 11008, 10880, 11904),
    "EPYC": (0x7, 0, 832, 832, 832),
    "EPYC-Rome": (0x207, 0, 896, 896, 896),
    "EPYC-Milan": (0x207, 0x1800, 2440, 840, 880),
    "EPYC-Genoa": (0x2E7, 0x1800, 2440, 2440, 2480),
    "EPYC-Turin": (0x2E7, 0x1800, 2440, 2440, 2480),
    "KX-7000": (0x207, 0x10000, 2696, 840, 848),
}


@pytest.mark.parametrize("name", SIZES)
def test_size_table(name: str) -> None:
    xcr0, xss, standard, compacted, both = SIZES[name]
    cpu = model(name)
    assert cpu.xcr0_mask == xcr0
    assert not xss & ~cpu.xss_mask
    assert Layout(cpu, xcr0, STANDARD).size == standard
    assert Layout(cpu, xcr0, COMPACTED).size == compacted
    assert Layout(cpu, xcr0 | xss, COMPACTED).size == both


@pytest.mark.parametrize(
    ("small", "large", "fmt", "over", "beyond"),
    [
        (0x2E7, 0x602E7, STANDARD, 8312, [(2752, 2816), (2816, 11008)]),
        (0x2E7, 0x602E7, COMPACTED, 8312, [(2496, 2560), (2560, 10752)]),
        (0xE7, 0x602E7, STANDARD, 8320, [(2688, 2696), (2752, 2816), (2816, 11008)]),
        (0x7, 0x602E7, STANDARD, 10176, None),
        (0x3, 0x602E7, STANDARD, 10432, None),
        (0x7, 0x80007, STANDARD, 256, [(960, 1088)]),
    ],
)
def test_overrun_arithmetic(
    small: int, large: int, fmt: int, over: int, beyond: list[tuple[int, int]] | None
) -> None:
    cpu = model("DiamondRapids" if large >> 19 & 1 else "SapphireRapids")
    room, wanted = Layout(cpu, small, fmt), Layout(cpu, large, fmt)
    assert wanted.size - room.size == over
    found = [(o, o + s) for i in wanted.mask for o, s in wanted.extents(i) if o >= room.size]
    assert beyond is None or found == beyond


def test_apx_lies_in_the_hole_and_bounds_nothing() -> None:
    cpu = model("DiamondRapids")
    assert Layout(cpu, 0x80007, STANDARD).size == 1088
    assert Layout(cpu, 0x802E7, STANDARD).size == 2696  # not the end of the highest number
    assert Layout(cpu, 0x80003, STANDARD).offsets == {Component.APX: (960, 128)}
    assert Layout(model("SapphireRapids"), 0x200E7, STANDARD).size == 2816  # a frame without tiles


def test_overrun_of_a_second_cpu() -> None:
    cpu = model("EPYC-Milan")
    assert Layout(cpu, 0x207, STANDARD).size - Layout(cpu, 7, STANDARD).size == 1608


# --- errors -----------------------------------------------------------------------------------------------------


@each_model
@given(data=st.data())
def test_what_a_model_lacks(name: str, data: st.DataObject) -> None:
    cpu = model(name)
    lacking = data.draw(st.sampled_from([i for i in range(2, 63) if not (cpu.xcr0_mask | cpu.xss_mask) >> i & 1]))
    for fmt in FORMATS:
        with pytest.raises(LayoutError, match=f"{cpu.name} .*\\(component {lacking}\\)"):
            Layout(cpu, data.draw(masks(name, fmt)) | 1 << lacking, fmt)


def test_supervisor_components_have_no_standard_place() -> None:
    with pytest.raises(LayoutError, match=r"CET_U \(component 11\) is a supervisor"):
        Layout(model("EPYC-Genoa"), 0x807, STANDARD)
    assert Layout(model("EPYC-Genoa"), 0x807, COMPACTED).offsets[Component.CET_U] == (832, 16)


def odd_model(**rows: tuple[int, int | None]) -> object:
    components = {
        int(number[1:]): SimpleNamespace(component=Component(int(number[1:])), size=size, offset=offset, align64=False,
                                         supervisor=False, xfd=False)
        for number, (size, offset) in rows.items()
    }  # fmt: skip
    mask = 3 | sum(1 << i for i in components)
    return SimpleNamespace(name="odd", components=components, xcr0_mask=mask, xss_mask=0, knobs={"mxcsr_mask": 0xFFFF})


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ({"c2": (256, 576), "c5": (64, 831)}, "AVX and opmask overlap in the .* of odd, at bytes 576 and 831"),
        ({"c5": (64, 575)}, "outside the extended region"),
        ({"c5": (64, 1 << 24)}, "outside the extended region"),
        ({"c5": (0, 832)}, "size 0 of component 5"),
        ({"c5": (1 << 24, 832)}, "of component 5 is impossible"),
        ({"c5": (64, None)}, "no standard offset of opmask: CPUID leaf 0DH sub-leaf 5 is missing"),
    ],
)
def test_impossible_models(rows: dict[str, tuple[int, int | None]], message: str) -> None:
    cpu = odd_model(**rows)
    with pytest.raises(LayoutError, match=message):
        Layout(cpu, cpu.xcr0_mask, STANDARD)


def test_components_may_touch_and_overlap_only_where_they_are() -> None:
    cpu = odd_model(c2=(256, 576), c5=(64, 832), c6=(64, 832))
    assert Layout(cpu, 0x27, STANDARD).size == 896
    with pytest.raises(LayoutError, match="overlap"):
        Layout(cpu, 0x67, STANDARD)
    assert Layout(cpu, 0x67, COMPACTED).size == 960


@pytest.mark.parametrize("mask", [-1, 1 << 63, 1 << 64, 1 << 200])
def test_masks_outside_63_bits(mask: int) -> None:
    with pytest.raises(ValueError, match="outside bits 0-62"):
        Layout(model("SapphireRapids"), mask, COMPACTED)


def test_misuse() -> None:
    cpu = model("SapphireRapids")
    with pytest.raises(ValueError, match="neither STANDARD nor COMPACTED"):
        Layout(cpu, 7, 2)
    with pytest.raises(ValueError, match="did you mean"):
        Layout(cpu, "avx513", STANDARD)
    layout = Layout(cpu, 7, STANDARD)
    with pytest.raises(LayoutError, match=r"opmask .* has no place"):
        layout.extents(5)
    with pytest.raises(ValueError, match="not one"):
        layout.extents("amx")
    with pytest.raises(ValueError, match="outside 0-62"):
        layout.extents(63)
    with pytest.raises(TypeError):
        layout.offsets[2] = (0, 0)


def test_masks_as_text_and_component_masks() -> None:
    cpu = model("SapphireRapids")
    assert Layout(cpu, "x87|SSE|AVX", STANDARD) == Layout(cpu, 7, STANDARD)
    assert Layout(cpu, ComponentMask(7), STANDARD) == Layout(cpu, 7, 0)


# --- Layout.of --------------------------------------------------------------------------------------------------


def header(xcomp_bv: int, size: int) -> bytes:
    return bytes(520) + xcomp_bv.to_bytes(8, "little") + bytes(size - 528)


@each_model
@given(data=st.data())
def test_of_a_compacted_area(name: str, data: st.DataObject) -> None:
    mask = data.draw(masks(name, COMPACTED))
    layout = Layout(model(name), mask, COMPACTED)
    area = header(mask | 1 << 63, layout.size + data.draw(st.integers(0, 100)))
    assert Layout.of(area, model(name)) == Layout.of(area, model(name), mask) == layout
    if layout.size > 576:
        with pytest.raises(TruncatedError, match=f"needs {layout.size} bytes, here are {layout.size - 1}"):
            Layout.of(area[: layout.size - 1], model(name))
    with pytest.raises(FormatError, match="at byte 520 is not the mask"):
        Layout.of(area, model(name), mask ^ 1)


@each_model
@given(data=st.data())
def test_of_a_standard_area(name: str, data: st.DataObject) -> None:
    cpu, table = model(name), reference.CPUS[name]
    whole = reference.standard_size(name, table["xcr0"])
    length = data.draw(st.integers(576, whole + 64))
    # the widest prefix by number whose area fits
    components = reference.bits(table["xcr0"])
    prefixes = [sum(1 << i for i in components[:count]) for count in range(2, len(components) + 1)]
    expected = max(mask for mask in prefixes if reference.standard_size(name, mask) <= length)
    assert Layout.of(bytes(length), cpu) == Layout(cpu, expected, STANDARD)
    if length >= whole:
        assert expected == table["xcr0"]
    mask = data.draw(masks(name, STANDARD))
    size = reference.standard_size(name, mask)
    assert Layout.of(bytes(size), cpu, mask) == Layout(cpu, mask, STANDARD)
    if size > 576:
        with pytest.raises(TruncatedError):
            Layout.of(bytes(size - 1), cpu, mask)


@pytest.mark.parametrize("length", [0, 1, 512, 528, 575])
def test_of_less_than_a_header(length: int) -> None:
    with pytest.raises(TruncatedError, match=f"576 bytes at least, here are {length}") as caught:
        Layout.of(bytes(length), model("SapphireRapids"))
    assert caught.value.offset == length


def test_of_a_broken_header() -> None:
    with pytest.raises(FormatError, match="at byte 520 is neither 0") as caught:
        Layout.of(header(7, 832), model("SapphireRapids"))
    assert (caught.value.offset, caught.value.rule) == (520, "H-XCOMP")
    with pytest.raises(LayoutError, match=r"BNDREGS \(component 3\)"):
        Layout.of(header((1 << 64) - 1, 832), model("EPYC-Genoa"))
    with pytest.raises(TypeError):
        Layout.of("x" * 600, model("EPYC-Genoa"))


@given(seed=st.integers(0, 2**32), name=models, length=st.integers(0, 1200))
def test_of_anything_at_all(seed: int, name: str, length: int) -> None:
    try:
        layout = Layout.of(Random(seed).randbytes(length), model(name))
    except (FormatError, LayoutError):
        return
    assert layout.size <= length
