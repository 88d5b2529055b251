"""The tables of components and registers against the manual's, and masks that print and parse."""

import pickle

import pytest
import reference
from hypothesis import given
from hypothesis import strategies as st

from tests.laws.strategies import MODELS, known, model
from xsave import COMPACTED, COMPONENTS, REGISTERS, STANDARD, Component, ComponentMask, Layout
from xsave.registers import find_register, register_names

MASKS = st.integers(0, 2**64 - 1)
KNOWN = st.sets(st.sampled_from(list(Component))).map(lambda found: ComponentMask(sum(1 << c for c in found)))

# SDM1 13.1, 13.5, 13.6 and CPUID leaf 0DH of many CPUs: number, name, size, supervisor, aligned, XFD.
TABLE = [
    (2, "AVX", 256, False, False, False),
    (3, "BNDREGS", 64, False, False, False),
    (4, "BNDCSR", 64, False, False, False),
    (5, "opmask", 64, False, False, False),
    (6, "ZMM_Hi256", 512, False, False, False),
    (7, "Hi16_ZMM", 1024, False, False, False),
    (8, "PT", 128, True, False, False),
    (9, "PKRU", 8, False, False, False),
    (10, "PASID", 8, True, False, False),
    (11, "CET_U", 16, True, False, False),
    (12, "CET_S", 24, True, False, False),
    (13, "HDC", 8, True, False, False),
    (14, "UINTR", 48, True, False, False),
    (15, "LBR", 808, True, False, False),
    (16, "HWP", 8, True, False, False),
    (17, "TILECFG", 64, False, True, False),
    (18, "TILEDATA", 8192, False, True, True),
    (19, "APX", 128, False, False, False),
    (20, "SCALEDATA", 128, False, False, False),
    (62, "LWP", 128, False, False, False),
]

# The CPUID bits of which any one exposes a component: (leaf, sub-leaf, register, bit).
FEATURES = {
    2: {(1, 0, "ecx", 28)},
    3: {(7, 0, "ebx", 14)},
    4: {(7, 0, "ebx", 14)},
    5: {(7, 0, "ebx", 16)},
    6: {(7, 0, "ebx", 16)},
    7: {(7, 0, "ebx", 16)},
    8: {(7, 0, "ebx", 25)},
    9: {(7, 0, "ecx", 3)},
    10: {(7, 0, "ecx", 29)},
    11: {(7, 0, "ecx", 7), (7, 0, "edx", 20)},
    12: {(7, 0, "ecx", 7), (7, 0, "edx", 20)},
    14: {(7, 0, "edx", 5)},
    15: {(7, 0, "edx", 19)},
    17: {(7, 0, "edx", 24)},
    18: {(7, 0, "edx", 24)},
    19: {(7, 1, "edx", 21)},
}

# What Linux, QEMU and Xen call them.
SPELLINGS = {
    "fp": 0x1, "x87": 0x1, "mmx": 0x1, "sse": 0x2, "SSE": 0x2, "xmm": 0x2, "ymm": 0x4, "YMM_Hi128": 0x4, "AVX": 0x4,
    "bndregs": 0x8, "bndcsr": 0x10, "mpx": 0x18, "opmask": 0x20, "k": 0x20, "zmm_hi256": 0x40, "Hi16_ZMM": 0x80,
    "hi_zmm": 0x80, "avx512": 0xE0, "AVX-512": 0xE0, "pt": 0x100, "pkru": 0x200, "PKU": 0x200, "pasid": 0x400,
    "cet_u": 0x800, "cet_user": 0x800, "cet_kernel": 0x1000, "CET": 0x1800, "hdc": 0x2000, "uintr": 0x4000,
    "lbr": 0x8000, "arch_lbr": 0x8000, "hwp": 0x10000, "xtilecfg": 0x20000, "xtile_cfg": 0x20000, "tiledata": 0x40000,
    "xtile_data": 0x40000, "amx": 0x60000, "xtile": 0x60000, "apx": 0x80000, "egpr": 0x80000, "scaledata": 0x100000,
    "lwp": 1 << 62, "none": 0, "0": 0,
}  # fmt: skip


# --- the table --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row[1])
def test_rows(row):
    number, _, size, supervisor, align64, xfd = row
    info = COMPONENTS[Component(number)]
    assert (int(info.component), info.name, info.size, info.supervisor, info.align64, info.xfd) == row
    assert info is Component(number).info
    assert Component(number).mask == 1 << number
    theirs = reference.COMPONENTS[number]
    assert info.init_image() == theirs.initial
    assert (theirs.size, theirs.supervisor, theirs.align64, theirs.xfd) == (size, supervisor, align64, xfd)
    if number in FEATURES:
        assert set(info.features) == FEATURES[number]


def test_nothing_else_is_in_the_table():
    assert [int(c) for c in COMPONENTS] == [0, 1, *(row[0] for row in TABLE)] == [int(c) for c in Component]
    assert set(COMPONENTS) == set(reference.COMPONENTS)
    assert [COMPONENTS[c].name for c in (0, 1)] == ["x87", "SSE"]
    assert COMPONENTS[0].init_image()[:2] == b"\x7f\x03"
    nonzero = [int(c) for c, row in COMPONENTS.items() if any(row.init_image())]
    assert nonzero == [0, 13, 16, 20]


def test_no_two_components_answer_to_one_name():
    seen = {}
    for component, row in COMPONENTS.items():
        for alias in {row.name.lower(), component.name.lower(), *row.aliases}:
            assert seen.setdefault(alias, component) is component, alias
            assert alias == alias.lower()
            assert ComponentMask.parse(alias) == ComponentMask.parse(alias.upper()) == component.mask


# --- masks ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", SPELLINGS)
def test_spellings(text):
    assert ComponentMask.parse(text) == SPELLINGS[text]


@given(MASKS)
def test_numbers_parse(value):
    for text in (hex(value), str(value), oct(value), bin(value), f"{value:#X}", f" {value:#x} "):
        assert ComponentMask.parse(text) == value
    assert ComponentMask.parse(value) == value


@given(KNOWN, st.sampled_from(["|", "+", ",", " ", " | ", ", "]))
def test_names_round_trip(mask, glue):
    assert ComponentMask.parse(glue.join(mask.names) or "none") == mask
    assert ComponentMask.parse(glue.join(f"1<<{int(c)}" for c in mask) or "0") == mask
    assert ComponentMask.parse(glue.join(c.name for c in mask) or "0x0") == mask


@given(MASKS)
def test_masks_are_numbers_with_names(value):
    mask = ComponentMask(value)
    assert mask == value and hash(mask) == hash(value) and int(mask) == value
    assert str(mask).startswith(f"{value:#x} (") and f"{mask}" == str(mask)
    assert f"{mask:#x}" == hex(value) and repr(mask) == f"ComponentMask({value:#x})"
    assert len(mask.names) == value.bit_count()
    assert pickle.loads(pickle.dumps(mask)) == mask
    assert list(mask) == list(mask.components) == [c for c in Component if value >> c & 1]
    assert all((bit in mask) == bool(value >> bit & 1) for bit in range(64))
    assert 64 not in mask and -1 not in mask and "x87" not in mask
    assert eval(repr(mask), {"ComponentMask": ComponentMask}) == mask


def test_printing():
    assert str(ComponentMask(0)) == "0x0 (none)"
    assert str(ComponentMask(0x602E7)) == "0x602e7 (x87 SSE AVX opmask ZMM_Hi256 Hi16_ZMM PKRU TILECFG TILEDATA)"
    assert str(ComponentMask(1 << 21 | 1 << 62 | 1 << 63)) == "0xc000000000200000 (bit 21 LWP bit 63)"


@pytest.mark.parametrize(
    "text",
    ["", " ", "|", "avx513", "1<<64", "1<<-1", "-1", "0x1ffffffffffffffff", "1<<2<<3", "2<<63", "x87 !", "1 << x"],
)
def test_what_is_no_mask(text):
    with pytest.raises(ValueError):
        ComponentMask.parse(text)


def test_a_mistyped_name_gets_a_suggestion():
    with pytest.raises(ValueError, match="'tiledta'; did you mean 'tiledata'"):
        ComponentMask.parse("avx|tiledta")
    for value in (-1, 1 << 64):
        with pytest.raises(ValueError, match="does not fit 64 bits"):
            ComponentMask.parse(value)
    assert ComponentMask.parse("1 << 17") == ComponentMask.parse("1<<17") == 0x20000


# --- registers --------------------------------------------------------------------------------------------------


def test_registers_cover_every_component_without_overlap():
    """Every bit of a component belongs to one register at most, and each component has some."""
    covered = {c: {} for c in Component}
    for row in REGISTERS.values():
        if row.family in ("xmm", "ymm"):
            continue  # parts of zmm, judged below
        for part in row.parts:
            for at in range(part.width):
                bits = row.mask >> 8 * at & 0xFF if row.scalar else 0xFF
                taken = covered[part.component].setdefault(part.offset + at, [])
                assert not any(bits & other for other, _ in taken), (row.name, part.offset + at, taken)
                taken.append((bits, row.name))
    for component, found in covered.items():
        assert found, component
        limit = 416 if component < 2 else COMPONENTS[component].size
        assert max(found) < limit
        if component not in (Component.X87, Component.SSE, Component.PKRU, Component.BNDCSR, Component.PT):
            assert set(found) == set(range(limit)), component
    assert set(covered[Component.SSE]) == set(range(24, 32)) | set(range(160, 416))
    assert set(covered[Component.PKRU]) == set(range(4))
    assert set(covered[Component.BNDCSR]) == set(range(16))
    assert set(covered[Component.PT]) == set(range(72))
    x87 = {*range(5), *range(6, 24), *(32 + 16 * j + i for j in range(8) for i in range(10))}
    assert set(covered[Component.X87]) == x87


def test_parts_of_a_register_tile_it():
    for row in REGISTERS.values():
        at = 0
        for part in row.parts:
            assert part.at == at
            at += part.width
        assert at == row.width, row.name


def test_narrow_names_are_the_first_parts_of_wide_ones():
    for n in range(16):
        wide = [(p.component, p.offset, p.width, p.at) for p in REGISTERS[f"zmm{n}"].parts]
        for family, count in (("ymm", 2), ("xmm", 1)):
            parts = REGISTERS[f"{family}{n}"].parts
            assert [(p.component, p.offset, p.width, p.at) for p in parts] == wide[:count]
    for n in range(16, 32):
        (wide,) = REGISTERS[f"zmm{n}"].parts
        for family, width in (("ymm", 32), ("xmm", 16)):
            (part,) = REGISTERS[f"{family}{n}"].parts
            assert (part.component, part.offset, part.width, part.at) == (wide.component, wide.offset, width, 0)
            assert REGISTERS[f"{family}{n}"].narrow


def test_registers_are_where_the_reference_has_them():
    fields = {name: (c, *place) for c, rows in reference.FIELDS.items() for name, *place in rows}
    for name, (component, offset, width, integer) in fields.items():
        row = REGISTERS[name]
        assert [(p.component, p.offset, p.width) for p in row.parts] == [(component, offset, width)]
        assert row.scalar is integer
    vectors = {f"{p}{n}" for p in ("xmm", "ymm", "zmm") for n in range(32)}
    assert set(REGISTERS) == set(fields) | vectors | {"mxcsr", "mxcsr_mask", "uif"}
    initial = reference.initial_values(n for n in REGISTERS if n not in vectors and n != "mxcsr_mask")
    assert {n: REGISTERS[n].init for n in initial if REGISTERS[n].scalar} == {
        n: v for n, v in initial.items() if isinstance(v, int)
    }


@given(st.sampled_from(MODELS), st.sets(st.integers(0, 62)), st.booleans())
def test_names_of_a_layout(name, bits, compacted):
    fmt = COMPACTED if compacted else STANDARD
    mask = sum(1 << bit for bit in bits) & known(name, fmt)
    names = register_names(mask, compacted)
    assert sorted(names) == sorted(reference.registers(mask, "compacted" if compacted else "standard"))
    assert Layout(model(name), mask, fmt).mask == mask


@pytest.mark.parametrize("name", sorted(REGISTERS))
def test_register_names_in_any_case(name):
    assert find_register(name) is find_register(name.upper()) is find_register(name.lower()) is REGISTERS[name]


def test_unknown_registers_get_a_suggestion():
    with pytest.raises(KeyError, match="did you mean 'IA32_PL3_SSP'"):
        find_register("ia32_pl3_sp")
    with pytest.raises(TypeError, match="no str"):
        find_register(5)
