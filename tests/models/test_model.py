"""CpuModel: what a record enumerates, what no CPU can enumerate, and the object's manners."""

import copy
import pickle

import pytest

from xsave import COMPONENTS, Component, CpuModel, FormatError, UnsupportedError
from xsave.models import PROFILES

XSAVE = 1 << 26
VENDORS = {
    "GenuineIntel": (0x756E6547, 0x6C65746E, 0x49656E69),
    "AuthenticAMD": (0x68747541, 0x444D4163, 0x69746E65),
    "HygonGenuine": (0x6F677948, 0x656E6975, 0x6E65476E),
    "CentaurHauls": (0x746E6543, 0x736C7561, 0x48727561),
}


def record(**changes):
    """A CPU with x87, SSE, AVX, AVX-512, PKRU and CET on Intel's offsets; keywords d0 ... d62, leaf1 replace rows."""
    leaves = {
        (0, 0): (0x20, *VENDORS["GenuineIntel"]),
        (1, 0): (0x000806F8, 0, XSAVE, 0),
        (0xD, 0): (0x2E7, 576, 2696, 0),
        (0xD, 1): (0xF, 0, 0x1800, 0),
        (0xD, 2): (256, 576, 0, 0),
        (0xD, 5): (64, 1088, 0, 0),
        (0xD, 6): (512, 1152, 0, 0),
        (0xD, 7): (1024, 1664, 0, 0),
        (0xD, 9): (8, 2688, 0, 0),
        (0xD, 11): (16, 0, 1, 0),
        (0xD, 12): (24, 0, 1, 0),
    }
    for key, row in changes.items():
        leaves[(0xD, int(key[1:])) if key[0] == "d" else (int(key[4:]), 0)] = row
    return leaves


def test_what_a_record_enumerates():
    model = CpuModel.from_cpuid(record())
    assert (model.xcr0_mask, model.xss_mask) == (0x2E7, 0x1800)
    assert list(model.components) == [0, 1, 2, 5, 6, 7, 9, 11, 12]
    assert all(type(key) is Component for key in model.components)
    row = model.components[Component.HI16_ZMM]
    assert (row.component, row.size, row.offset) == (7, 1024, 1664)
    assert (row.align64, row.supervisor, row.xfd) == (False, False, False)
    assert model.components[12].offset is None and model.components[12].supervisor
    assert model.instructions == {"xsave", "xsaveopt", "xsavec", "xgetbv1", "xsaves"}
    assert (model.vendor, model.profile, model.brand) == ("GenuineIntel", "intel", "")
    assert model.feature(0xD, 1, "eax", 3) and not model.feature(0xD, 1, "eax", 4) and not model.feature(9, 9, "edx", 0)


@pytest.mark.parametrize("key", [7, Component.HI16_ZMM, "Hi16_ZMM", "HI16_ZMM", "avx512_zmm_hi16", "hi_zmm"])
def test_rows_by_any_name(key):
    assert CpuModel.from_cpuid(record()).components[key].size == 1024
    assert key in CpuModel.from_cpuid(record()).components


@pytest.mark.parametrize("key", [3, 62, 99, -1, "MPX", "avx512", "TILEDATA", "nonsense", ""])
def test_rows_that_are_not_there(key):
    components = CpuModel.from_cpuid(record()).components
    assert key not in components
    with pytest.raises(KeyError):
        components[key]


def test_flags_come_from_the_sub_leaf():
    tiles = {"d0": (0x602E7, 0, 0, 0), "d17": (64, 2752, 2, 0), "d18": (8192, 2816, 6, 0)}
    rows = CpuModel.from_cpuid(record(**tiles, d9=(8, 2688, 2, 0))).components
    assert rows["tilecfg"].align64 and not rows["tilecfg"].xfd
    assert rows["tiledata"].align64 and rows["tiledata"].xfd
    assert rows["pkru"].align64


def test_user_and_supervisor_come_from_the_masks():
    """Sub-leaf flags do not decide, bits of IA32_XSS count only with XSAVES, other sub-leaves are ignored."""
    model = CpuModel.from_cpuid(record(d9=(8, 2688, 1, 0), d11=(16, 0, 0, 0), d8=(1, 1, 1, 1), d3=(0, 7, 0, 0)))
    assert not model.components[9].supervisor and model.components[9].offset == 2688
    assert model.components[11].supervisor and model.components[11].offset is None
    assert 8 not in model.components and 3 not in model.components
    without = CpuModel.from_cpuid(record(d1=(7, 0, 0x1800, 0)))
    assert without.xss_mask == 0 and 11 not in without.components


@pytest.mark.parametrize("bit", [2, 9, 18])
def test_a_missing_sub_leaf_has_the_architectural_size(bit):
    full = record(d0=(0x602E7, 0, 0, 0), d17=(64, 2752, 2, 0), d18=(8192, 2816, 6, 0))
    for leaves in ({key: row for key, row in full.items() if key != (0xD, bit)}, {**full, (0xD, bit): (0, 0, 0, 0)}):
        row = CpuModel.from_cpuid(leaves).components[bit]
        info = COMPONENTS[Component(bit)]
        assert (row.size, row.offset, row.align64, row.xfd) == (info.size, None, bit == 18, bit == 18)


def test_bits_without_a_row_stay_in_the_mask():
    model = CpuModel.from_cpuid(record(d0=(0x2E7 | 1 << 21, 0, 0, 1 << 8), d21=(64, 4096, 0, 0)))
    assert model.xcr0_mask == 0x2E7 | 1 << 21 | 1 << 40
    assert list(model.components) == [0, 1, 2, 5, 6, 7, 9, 11, 12]
    assert "bit 21" in repr(model)


@pytest.mark.parametrize(
    "leaves",
    [
        {},
        {(1, 0): (0, 0, XSAVE, 0)},
        record(leaf1=(0, 0, 0, 0)),
        record(d0=(0, 0, 0, 0)),
        record(leaf0=(0xB, *VENDORS["GenuineIntel"])),
    ],
)
def test_a_record_without_xsave(leaves):
    with pytest.raises(UnsupportedError, match="XSAVE"):
        CpuModel.from_cpuid(leaves)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"d2": (0, 576, 0, 0)}, ["sub-leaf 2 (AVX) EAX", "0x0", "0x100"]),
        ({"d2": (255, 576, 0, 0)}, ["sub-leaf 2 (AVX) EAX", "0xff"]),
        ({"d7": (65537, 1664, 0, 0)}, ["sub-leaf 7 (Hi16_ZMM) EAX", "0x10001", "0x10000"]),
        ({"d7": (0xFFFFFFFF, 1664, 0, 0)}, ["0xffffffff"]),
        ({"d12": (0, 0, 1, 0)}, ["sub-leaf 12 (CET_S) EAX"]),
        ({"d2": (256, 575, 0, 0)}, ["sub-leaf 2 (AVX) EBX", "0x23f", "0x240"]),
        ({"d2": (256, 0, 0, 0)}, ["sub-leaf 2 (AVX) EBX", "0x0"]),
        ({"d9": (8, (1 << 20) + 1, 0, 0)}, ["sub-leaf 9 (PKRU) EBX", "0x100001", "0x100000"]),
        ({"d6": (512, 1151, 0, 0)}, ["sub-leaf 6 (ZMM_Hi256) EBX", "0x47f", "opmask", "overlap"]),
        ({"d9": (8, 700, 0, 0)}, ["sub-leaf 9 (PKRU) EBX", "AVX"]),
        ({"d0": (0x802FF, 0, 0, 0)}, ["sub-leaf 0 EAX", "APX", "BNDREGS BNDCSR"]),
        ({"d0": (0x2E6, 0, 0, 0)}, ["sub-leaf 0 EAX", "x87"]),
        ({"d0": (0x2E7, 0, 0, 1 << 31)}, ["sub-leaf 0 EDX", "63"]),
        ({"d1": (0xF, 0, 0, 1 << 31)}, ["sub-leaf 1 EDX", "63"]),
        ({"d1": (0xF, 0, 0x1804, 0)}, ["sub-leaf 1 ECX", "AVX"]),
        ({"d2": (1 << 32, 576, 0, 0)}, ["0xd", "32-bit"]),
        ({"d2": (-1, 576, 0, 0)}, ["32-bit"]),
        ({"d2": (256, 576, 0)}, ["four"]),
    ],
)
def test_impossible_values(changes, words):
    with pytest.raises(FormatError) as caught:
        CpuModel.from_cpuid(record(**changes))
    for word in (*words, "expected"):
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("vendor", "ebx", "profile"),
    [
        ("GenuineIntel", 4, "intel"),
        ("CentaurHauls", 4, "intel"),
        ("AuthenticAMD", 4, "amd-zen5"),
        ("AuthenticAMD", 0xFFFFFFFB, "amd-legacy"),
        ("HygonGenuine", 4, "amd-zen5"),
        ("HygonGenuine", 0, "amd-legacy"),
    ],
)
@pytest.mark.parametrize("signature", [0x000A0671, 0x00B00F21])
def test_vendor_and_features_choose_the_profile(vendor, ebx, profile, signature):
    leaves = {
        **record(leaf0=(0x20, *VENDORS[vendor]), leaf1=(signature, 0, XSAVE, 0)),
        (0x80000000, 0): (0x80000008, 0, 0, 0),
        (0x80000008, 0): (0, ebx, 0, 0),
    }
    assert CpuModel.from_cpuid(leaves).profile == profile
    assert CpuModel.from_cpuid(leaves).knobs["mxcsr_mask"] == (0xFFFF if profile == "intel" else 0x2FFFF)
    assert CpuModel.from_cpuid(leaves, profile="amd-legacy").profile == "amd-legacy"


def test_unknown_profile():
    with pytest.raises(ValueError, match=r"amd-zen4.*intel, amd-zen5, amd-legacy"):
        CpuModel.from_cpuid(record(), profile="amd-zen4")


def test_profiles_have_the_same_knobs_with_plain_values():
    assert set(PROFILES) == {"intel", "amd-zen5", "amd-legacy"}
    assert len({frozenset(knobs) for knobs in PROFILES.values()}) == 1
    for knobs in PROFILES.values():
        assert all(isinstance(value, (bool, int, str, tuple)) for value in knobs.values())
        with pytest.raises(TypeError):
            knobs["xinuse"] = "history"
    legacy = {key for key, value in PROFILES["amd-legacy"].items() if value != PROFILES["amd-zen5"][key]}
    assert legacy == {"x87_ptrs"}


def test_leaf_7_decides_the_x87_pointers_where_it_is_known():
    unknown = CpuModel.from_cpuid(record()).knobs
    assert (unknown["fcs_fds"], unknown["fdp_excptn_only"]) == ("zero", True)
    old = CpuModel.from_cpuid({**record(), (7, 0): (0, 0, 0, 0)}).knobs
    assert (old["fcs_fds"], old["fdp_excptn_only"]) == ("kept", False)
    new = CpuModel.from_cpuid({**record(), (7, 0): (0, 1 << 13 | 1 << 6, 0, 0)}).knobs
    assert (new["fcs_fds"], new["fdp_excptn_only"]) == ("zero", True)


def test_equality_hash_pickle_copy():
    one, two = CpuModel.from_cpuid(record()), CpuModel.from_cpuid(record(), name="other", provenance="elsewhere")
    assert one == two and hash(one) == hash(two) and one != "model"
    assert one != CpuModel.from_cpuid(record(), profile="amd-zen5")
    assert one != CpuModel.from_cpuid(record(d9=(8, 2752, 0, 0)))
    assert one != CpuModel.from_cpuid({**record(), (6, 0): (1, 2, 3, 4)})
    for model in (two, CpuModel.named("DiamondRapids"), CpuModel.from_layout_note([(2, 256, 576, 0)])):
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
            back = pickle.loads(pickle.dumps(model, protocol))
            assert back == model and repr(back) == repr(model)
            assert all(getattr(back, name) == getattr(model, name) for name in CpuModel.__slots__)
        assert copy.copy(model) == model == copy.deepcopy(model)


def test_read_only():
    leaves = record()
    model = CpuModel.from_cpuid(leaves)
    leaves[0xD, 2] = (0, 0, 0, 0)
    assert model.cpuid[0xD, 2] == (256, 576, 0, 0)
    with pytest.raises(AttributeError):
        model.name = "x"
    with pytest.raises(AttributeError):
        model.components[2].size = 1
    with pytest.raises(TypeError):
        model.components[2] = model.components[5]
    with pytest.raises(TypeError):
        model.cpuid[0, 0] = (1, 2, 3, 4)
    with pytest.raises(TypeError, match="from_cpuid"):
        CpuModel()


def test_repr():
    assert repr(CpuModel.named("EPYC-Genoa")) == (
        "<CpuModel EPYC-Genoa: amd-zen5, XCR0 0x2e7 (x87 SSE AVX opmask ZMM_Hi256 Hi16_ZMM PKRU), "
        "XSS 0x1800 (CET_U CET_S)>"
    )
    assert repr(CpuModel.named("SapphireRapids").components[18]) == "<TILEDATA: 8192 bytes at 2816, align64, xfd>"


NOTE = [(2, 256, 576, 0), (5, 64, 1088, 0), (6, 512, 1152, 0), (7, 1024, 1664, 0), (9, 8, 2688, 0), (17, 64, 2752, 0)]
NOTE += [(18, 8192, 2816, 0)]


def test_layout_note():
    model, named = CpuModel.from_layout_note(NOTE, vendor="GenuineIntel"), CpuModel.named("SapphireRapids")
    assert model.xcr0_mask == named.xcr0_mask and model.xss_mask == 0
    assert all(model.components[key] == named.components[key] for key in model.components)
    assert (model.profile, dict(model.cpuid), model.instructions) == ("intel", {}, {"xsave"})
    assert CpuModel.from_layout_note([]).xcr0_mask == 3
    assert CpuModel.from_layout_note(NOTE[:1], vendor="AuthenticAMD").profile == "amd-zen5"
    assert CpuModel.from_layout_note([*NOTE, (21, 64, 65536, 0)]).xcr0_mask == 0x6_02E7 | 1 << 21


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ([(1, 256, 576, 0)], "entry 0.*component 1"),
        ([(63, 256, 576, 0)], "entry 0.*component 63"),
        ([(2, 256, 576, 0), (2, 256, 832, 0)], "entry 1.*component 2"),
        ([(2, 256, 576, 0), (5, 0, 832, 0)], "entry 1 .opmask. size.*0x0"),
        ([(2, 256, 575, 0)], "entry 0 .AVX. offset.*0x23f"),
        ([(2, 256, 576, 0), (5, 64, 831, 0)], "opmask.*overlap"),
        ([(2, 256, 0xFFFFFFFF, 0)], "0xffffffff"),
    ],
)
def test_layout_notes_that_lie(entries, words):
    with pytest.raises(FormatError, match=words):
        CpuModel.from_layout_note(entries)
