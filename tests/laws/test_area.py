"""`Area`: buffers in and out, registers and lanes, equality and copies, and which byte of a bad header is named."""

import copy
import gc
import json
import mmap
import pickle
import struct
import sys
from random import Random

import numpy as np
import pytest
import reference
from hypothesis import given
from hypothesis import strategies as st

from tests.laws.strategies import FORMATS, NAMES, cases, each_format, each_model, known, make_case, model, models
from xsave import (
    COMPACTED,
    REGISTERS,
    STANDARD,
    Area,
    Component,
    ComponentMask,
    FormatError,
    Layout,
    LayoutError,
    TruncatedError,
    decode,
    encode,
)
from xsave.area import RegisterView, extended_to_float, header_findings, hex_members


def everything(name="DiamondRapids", fmt=STANDARD, seed=1):
    mask = known(name, fmt)
    return make_case(name, fmt, mask, mask, seed)


# --- buffers ----------------------------------------------------------------------------------------------------


def as_mmap(data):
    found = mmap.mmap(-1, max(len(data), 1))
    found[: len(data)] = data
    return found


BUFFERS = {
    "bytes": (bytes, True),
    "bytearray": (bytearray, False),
    "memoryview": (lambda data: memoryview(bytearray(data)), False),
    "memoryview of bytes": (memoryview, True),
    "numpy": (lambda data: np.frombuffer(data, np.uint8).copy(), False),
    "numpy read-only": (lambda data: np.frombuffer(data, np.uint8), True),
    "mmap": (as_mmap, False),
    "area": (lambda data: Area(bytearray(data), everything().layout), False),
}


@pytest.mark.parametrize("kind", BUFFERS)
def test_buffers(kind):
    make, readonly = BUFFERS[kind]
    case = everything()
    buffer = make(case.area)
    area = Area(buffer, case.layout)
    assert bytes(area) == case.area and len(area) == case.layout.size
    assert area.readonly is readonly
    with memoryview(area) as view:
        assert view.readonly is readonly
        assert (view.format, view.ndim, view.nbytes) == ("B", 1, case.layout.size)
    assert decode(area) == case.expected()
    k1 = area.k[1]
    if readonly:
        with pytest.raises(TypeError):
            memoryview(area)[0] = 1
        with pytest.raises(TypeError):
            memoryview(area["tmm0"])[0] = 1
    else:  # a view, not a copy, in both directions
        at = case.layout.offsets[Component.OPMASK][0] + 8
        memoryview(buffer)[at] = (k1 ^ 1) & 0xFF
        assert area.k[1] == k1 ^ 1
        memoryview(area)[at] = k1 & 0xFF
        assert memoryview(buffer)[at] == k1 & 0xFF
        tile = memoryview(area["tmm7"])
        assert not tile.readonly
        tile[1023] ^= 0xFF
        assert bytes(area.tmm[7])[1023] == case.area[case.layout.offsets[Component.TILEDATA][0] + 8191] ^ 0xFF


def test_bytes_beyond_the_layout_are_not_the_areas():
    case = everything()
    area = Area(case.area + b"beyond", case.layout)
    assert len(area) == len(bytes(area)) == memoryview(area).nbytes == case.layout.size
    assert area == case.view()


@pytest.mark.parametrize("short", [0, 1, 575, 576, -1])
def test_short_buffers(short):
    layout = everything().layout
    length = short if short >= 0 else layout.size - 1
    for check in (True, False):
        with pytest.raises(TruncatedError, match=f"needs {layout.size} bytes, here are {length}") as caught:
            Area(bytes(length), layout, check)
        assert caught.value.offset == length
        assert isinstance(caught.value, ValueError)


def test_misuse():
    layout = everything().layout
    for wrong in (None, 5, "text", [1, 2]):
        with pytest.raises(TypeError):
            Area(wrong, layout)
    for wrong in (None, "layout", 7):
        with pytest.raises(TypeError):
            Area(bytes(layout.size), wrong)
    with pytest.raises((BufferError, ValueError)):
        Area(np.zeros((layout.size, 2), np.uint8)[:, 0], layout)
    released = memoryview(bytes(layout.size))
    released.release()
    with pytest.raises(ValueError):
        Area(released, layout)


def test_an_area_pins_its_buffer():
    """Nobody can resize or close the memory under a view."""
    case = everything()
    data = bytearray(case.area)
    area = Area(data, case.layout)
    register = area["tmm3"]
    with pytest.raises(BufferError):
        data.append(0)
    del area
    with pytest.raises(BufferError):
        data.clear()
    view = memoryview(register)
    del register
    with pytest.raises(BufferError):
        data.extend(b"x")
    del view
    data.append(0)
    room = as_mmap(case.area)
    area = Area(room, case.layout)
    with pytest.raises(BufferError):
        room.close()
    del area
    room.close()


def test_a_refused_area_lets_go_of_the_buffer():
    layout = everything().layout
    for data, error in ((bytearray(10), TruncatedError), (bytearray(b"\xff" * layout.size), FormatError)):
        with pytest.raises(error):
            Area(data, layout)
        gc.collect()
        data.append(0)
        assert sys.getrefcount(data) <= 3


def test_views_outlive_the_area():
    for fmt in FORMATS:
        case = everything(fmt=fmt)
        expected = decode(case.view())
        area = Area(bytearray(case.area), case.layout)
        views = {n: area[n] for n in expected}
        files = [area.zmm, area.tmm, area.st]
        lanes = views["tmm5"].view("u64")
        del area
        gc.collect()
        junk = [bytearray(len(case.area)) for _ in range(50)]
        for register, value in expected.items():
            assert (views[register] if isinstance(value, int) else bytes(views[register])) == value
        assert bytes(files[0][20]) == expected["zmm20"]
        del files, views, junk
        gc.collect()
        assert bytes(lanes) == expected["tmm5"]


SCALARS = "fcw fsw ftw fop fip fdp mxcsr mxcsr_mask pkru bndcfgu bndstatus uif tilecfg".split()


# --- registers --------------------------------------------------------------------------------------------------


@each_model
@given(data=st.data())
def test_every_register_is_what_decode_says(name, data):
    case = data.draw(cases(name))
    area, expected = case.view(), case.expected()
    for register, value in expected.items():
        for spelling in (register, register.upper(), register.lower()):
            found = area[spelling]
            if isinstance(value, int):
                assert found == value and type(found) is int
            else:
                assert isinstance(found, RegisterView) and found.name == register
                assert bytes(found) == value and len(found) == len(value) and found == value
        row = REGISTERS[register]
        if row.index is not None and row.family in ("xmm", "ymm", "zmm", "k", "st", "tmm", "bnd", "r"):
            assert getattr(area, row.family)[row.index] == area[register]
            assert getattr(area, row.family).family == row.family
        elif register in SCALARS:
            assert getattr(area, register) == area[register]
    lacking = [n for n, row in REGISTERS.items() if n not in expected and row.family not in ("xmm", "ymm", "zmm")]
    for register in data.draw(st.sets(st.sampled_from(lacking), max_size=3)) if lacking else ():
        with pytest.raises(LayoutError, match=f"{register} has no place"):
            area[register]
    assert (area.format, area.layout, area.xstate_bv) == (case.fmt, case.layout, case.xstate_bv)
    assert area.xcomp_bv == (case.mask | 1 << 63 if case.fmt else 0)
    assert isinstance(area.xstate_bv, ComponentMask)


def test_names_and_numbers_that_do_not_exist():
    area = everything().view()
    for name in ("zmm32", "xmm32", "k8", "r15", "tmm8", "st8", "", "rip", "zmm-1"):
        with pytest.raises(KeyError, match="no register"):
            area[name]
    with pytest.raises(KeyError, match="did you mean 'tilecfg'"):
        area["tilecfgg"]
    for name in (5, None, b"zmm0", ("zmm0",), ["zmm0"]):
        with pytest.raises(TypeError):
            area[name]
    for family, bad in (("zmm", 32), ("ymm", 32), ("xmm", 32), ("k", 8), ("r", 15), ("r", 32), ("st", 8), ("tmm", 8),
                        ("bnd", 4), ("zmm", -1), ("zmm", 10**6)):  # fmt: skip
        with pytest.raises(IndexError, match=f"no register {family}{bad}"):
            getattr(area, family)[bad]
    with pytest.raises(TypeError):
        area.zmm["0"]
    with pytest.raises(LayoutError, match="bnd0 has no place"):
        area.bnd[0]
    with pytest.raises(LayoutError, match="bndcfgu has no place"):
        _ = area.bndcfgu
    with pytest.raises(OverflowError):
        area.zmm[1 << 70]


def test_narrow_names_of_the_upper_registers():
    area = everything().view()
    for number in range(16, 32):
        wide = bytes(area[f"zmm{number}"])
        assert bytes(area[f"ymm{number}"]) == wide[:32] == bytes(area.ymm[number])
        assert bytes(area[f"xmm{number}"]) == wide[:16] == bytes(area.xmm[number])


def test_which_registers_are_views():
    case = everything()
    data = bytearray(case.area)
    area = Area(data, case.layout)
    held = {n: area[n] for n in ("st0", "xmm0", "zmm17", "tilecfg", "tmm0", "ymm0", "zmm0")}
    before = {n: bytes(v) for n, v in held.items()}
    for at in range(len(data)):
        if not 512 <= at < 576:
            data[at] ^= 0xFF
    for register in ("st0", "xmm0", "zmm17", "tilecfg", "tmm0"):
        assert bytes(held[register]) == bytes(b ^ 0xFF for b in before[register])
    for register in ("ymm0", "zmm0"):  # assembled
        assert bytes(held[register]) == before[register]
        assert memoryview(held[register]).readonly
    data[512:520] = bytes(8)
    for register in held:  # out of use: initial values, read-only
        assert not any(bytes(area[register])) and memoryview(area[register]).readonly


def test_register_views():
    area = everything().view()
    register = area["zmm17"]
    data = bytes(register)
    assert register == data and data == register and register == bytearray(data) and register == area.zmm[17]
    assert register == np.frombuffer(data, np.float32)
    assert register != area.zmm[18] and register != data[:-1] and register != 5 and register != "text"
    assert register.hex() == data.hex()
    assert int(register) == int.from_bytes(data, "little")
    assert repr(register) == f"<zmm17 {data.hex()}>"
    assert pickle.loads(pickle.dumps(register)) == data
    assert np.array_equal(np.asarray(register), np.frombuffer(data, np.uint8))
    with pytest.raises(TypeError):
        hash(register)
    with pytest.raises(TypeError, match="zmm17 is no x87 register"):
        float(register)


# --- lanes ------------------------------------------------------------------------------------------------------

DTYPES = {"u8": "u1", "u16": "u2", "u32": "u4", "u64": "u8", "i8": "i1", "i16": "i2", "i32": "i4", "i64": "i8",
          "f16": "f2", "f32": "f4", "f64": "f8", "f2": "f2", "f4": "f4", "f8": "f8"}  # fmt: skip


@given(name=models, seed=st.integers(0, 2**32), register=st.sampled_from("xmm3 ymm3 zmm3 zmm20 tmm2 tilecfg".split()))
def test_lanes_are_numpys(name, seed, register):
    area = everything(name, seed=seed).view()
    try:
        found = area[register]
    except LayoutError:
        return
    data = bytes(found)
    for lanes, dtype in DTYPES.items():
        expected = np.frombuffer(data, "<" + dtype)
        assert np.array_equal(np.array(found.lanes(lanes)), expected, equal_nan=lanes[0] == "f")
        assert len(found.lanes(lanes)) == len(expected)
        assert all(isinstance(lane, float if lanes[0] == "f" else int) for lane in found.lanes(lanes))
        if dtype == "f2" and sys.version_info < (3, 12):
            with pytest.raises(ValueError, match="cannot hold f"):
                found.view(lanes)
            continue
        view = found.view(lanes)
        assert view.itemsize == expected.itemsize and len(view) == len(expected)
        assert bytes(view) == data
        assert np.array_equal(np.asarray(view), expected, equal_nan=lanes[0] == "f")
    wide = np.frombuffer(data, np.uint16).astype(np.uint32) << 16
    assert np.array_equal(np.array(found.lanes("bf16")), wide.view(np.float32), equal_nan=True)


def test_views_are_of_the_areas_memory():
    case = everything()
    data = bytearray(case.area)
    area = Area(data, case.layout)
    area["zmm17"].view("u64")[7] = 0x0123456789ABCDEF
    assert int(area.zmm[17]) >> 448 == 0x0123456789ABCDEF
    area["tmm1"].view("f4")[255] = 1.5
    assert bytes(area.tmm[1])[-4:] == struct.pack("<f", 1.5)


@pytest.mark.parametrize("lanes", ["f80", "", "u128", "int", 5, None, "F32"])
def test_unknown_lanes(lanes):
    register = everything().view()["zmm17"]
    for method in (register.view, register.lanes):
        with pytest.raises(ValueError, match="unknown lane type"):
            method(lanes)


def test_lanes_that_do_not_divide_the_register():
    register = everything().view()["st0"]
    for lanes in ("u32", "u64", "f32", "f64", "i32"):
        for method in (register.view, register.lanes):
            with pytest.raises(ValueError, match="10 bytes of st0 are no whole number"):
                method(lanes)
    assert len(register.lanes("u16")) == len(register.lanes("bf16")) == len(register.lanes("f16")) == 5
    with pytest.raises(ValueError, match="lanes\\('bf16'\\)"):
        register.view("bf16")


# --- x87 --------------------------------------------------------------------------------------------------------


def extended(sign, exponent, significand):
    return significand.to_bytes(8, "little") + (sign << 15 | exponent).to_bytes(2, "little")


ONE = extended(0, 0x3FFF, 1 << 63)
INFINITY = extended(0, 0x7FFF, 1 << 63)
DENORMAL = extended(0, 0, 1)
PSEUDO_DENORMAL = extended(0, 0, 1 << 63)
UNNORMAL = extended(0, 0x3FFF, 1 << 62)
NAN = extended(0, 0x7FFF, 3 << 62)


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        (bytes(10), 0.0),
        (extended(1, 0, 0), -0.0),
        (ONE, 1.0),
        (extended(1, 0x4000, 3 << 62), -3.0),
        (extended(0, 0x4000, 0xC90FDAA22168C235), 3.141592653589793),
        (INFINITY, float("inf")),
        (extended(1, 0x7FFF, 1 << 63), float("-inf")),
        (extended(0, 0x7FFE, (1 << 64) - 1), float("inf")),  # beyond the range of a double
        (extended(0, 0x43FE, (1 << 64) - 1), float("inf")),  # rounds up to it
        (extended(0, 0x43FE, 0xFFFFFFFFFFFFF800), sys.float_info.max),
        (extended(0, 0x3C01, 1 << 63), sys.float_info.min),
        (extended(0, 0x3BCD, 1 << 63), 5e-324),
        (extended(0, 0x3BCC, 1 << 63), 0.0),  # half of it: to even
        (extended(0, 0x3BCC, 1 << 63 | 1), 5e-324),
        (DENORMAL, 0.0),
        (PSEUDO_DENORMAL, 0.0),
        (extended(1, 0, 1), -0.0),
        (UNNORMAL, 0.5),
        (extended(0, 0x3FFF, 0x8000000000000400), 1.0),  # a tie, to even
        (extended(0, 0x3FFF, 0x8000000000000C00), 1.0000000000000004),
    ],
)
def test_known_x87_values(raw, value):
    found = extended_to_float(raw)
    assert struct.pack("<d", found) == struct.pack("<d", value)
    layout = Layout(model("EPYC-Genoa"), 3, STANDARD)
    area = Area(encode({"st3": raw}, layout), layout)
    assert struct.pack("<d", float(area.st[3])) == struct.pack("<d", value)
    assert bytes(area.st[3]) == raw


@pytest.mark.parametrize("raw", [NAN, extended(1, 0x7FFF, 3 << 62), extended(0, 0x7FFF, 1 << 63 | 1)])
def test_nan(raw):
    assert extended_to_float(raw) != extended_to_float(raw)


@pytest.mark.parametrize("size", [0, 9, 11, 16])
def test_no_x87_register(size):
    with pytest.raises(ValueError, match=f"has 10 bytes, not {size}"):
        extended_to_float(bytes(size))


@given(sign=st.integers(0, 1), exponent=st.integers(0, 0x7FFF), significand=st.integers(0, 2**63 - 1))
def test_x87_values_are_numpys(sign, exponent, significand):
    """Where the host's long double is the x87 format: every normal, denormal, infinity and NaN."""
    if np.finfo(np.longdouble).nmant != 63:
        return
    raw = extended(sign, exponent, significand | (1 << 63 if exponent else 0))
    expected = np.frombuffer(raw.ljust(16, b"\0"), np.longdouble)[0]
    with np.errstate(all="ignore"):
        expected = float(expected)
    found = extended_to_float(raw)
    assert found != found if expected != expected else struct.pack("<d", found) == struct.pack("<d", expected)


def test_tag_word_of_the_silicon_example():
    values = [bytes(10), ONE, INFINITY, DENORMAL, UNNORMAL, bytes(10), bytes(10), bytes(10)]
    layout = Layout(model("EPYC-Genoa"), 3, STANDARD)
    image = {f"st{i}": value for i, value in enumerate(values)}
    assert Area(encode({**image, "ftw": 0xFF}, layout), layout).x87_tag_word == 0x56A1
    assert Area(encode({**image, "ftw": 0}, layout), layout).x87_tag_word == 0xFFFF
    assert Area(encode({}, layout), layout).x87_tag_word == 0xFFFF
    # FTW bit j is physical, ST slots count from TOP: with TOP = 7, R7 is ST(0)
    area = Area(encode({"st0": ONE, "ftw": 0x80, "fsw": 7 << 11}, layout), layout)
    assert area.x87_tag_word == 0x3FFF
    area = Area(encode({"st0": PSEUDO_DENORMAL, "st1": NAN, "ftw": 0x81, "fsw": 7 << 11}, layout), layout)
    assert area.x87_tag_word == 0xBFFE


def test_pointer_forms():
    layout = Layout(model("EPYC-Genoa"), 3, STANDARD)
    area = Area(encode({"fip": 0xAAAA123489ABCDEF, "fdp": 0xBBBB567811223344, "fop": 0x7FF}, layout), layout)
    assert area.x87_pointers() == {"fip": 0xAAAA123489ABCDEF, "fdp": 0xBBBB567811223344, "fop": 0x7FF}
    narrow = {"fip": 0x89ABCDEF, "fcs": 0x1234, "fdp": 0x11223344, "fds": 0x5678, "fop": 0x7FF}
    assert area.x87_pointers(rexw=False) == narrow


# --- equality, copies, text -------------------------------------------------------------------------------------


@each_model
@given(data=st.data())
def test_equality_and_copies(name, data):
    case = data.draw(cases(name))
    area = case.view()
    mutable = Area(bytearray(case.area), case.layout)
    for twin in (
        Area(bytearray(case.area), Layout(case.model, case.mask, case.fmt)),
        copy.copy(area),
        copy.deepcopy(area),
        pickle.loads(pickle.dumps(area)),
        pickle.loads(pickle.dumps(mutable, protocol=4)),
    ):
        assert twin == area
        assert (twin != area) is False
        assert twin.same_state(area)
        assert twin.layout == area.layout
    assert copy.deepcopy(area).readonly and not copy.deepcopy(mutable).readonly
    apart = copy.deepcopy(mutable)
    memoryview(apart)[100] ^= 1
    assert bytes(mutable) == case.area and apart != mutable
    assert area != case.area and area != None  # noqa: E711
    with pytest.raises(TypeError):
        hash(area)


def test_equal_bytes_of_two_layouts_are_not_equal():
    """Zen's standard area with XCR0 E7 has the compacted layout's offsets: the format tells them apart."""
    cpu = model("EPYC-Genoa")
    standard, compacted = Layout(cpu, 0xE7, STANDARD), Layout(cpu, 0xE7, COMPACTED)
    assert dict(standard.offsets) == dict(compacted.offsets)
    data = bytes(standard.size)
    assert Area(data, standard) != Area(data, compacted, check=False)
    other = Layout(model("SapphireRapids"), 3, STANDARD)
    assert Area(data, other) != Area(data, Layout(cpu, 3, STANDARD))  # MXCSR_MASK
    assert Area(data, other) == Area(data, Layout(model("AlderLake"), 3, STANDARD))


def test_unchecked_areas_stay_unchecked_through_copies():
    layout = everything().layout
    area = Area(b"\xff" * layout.size, layout, check=False)
    assert pickle.loads(pickle.dumps(area)) == copy.copy(area) == area
    assert area.xstate_bv == (1 << 64) - 1


def test_repr():
    layout = Layout(model("SapphireRapids"), 0x602E7, COMPACTED)
    area = Area(encode({"k1": 1, "tmm0": bytes(1024)}, layout), layout)
    assert repr(area) == f"<Area compacted, {layout.size} bytes, XSTATE_BV 0x40020 (opmask TILEDATA)>"
    assert "zmm registers of <Area" in repr(area.zmm)
    html = area._repr_html_()
    assert html.startswith("<table") and "TILEDATA" in html
    hostile = Area(b"\xff" * layout.size, layout, check=False)
    assert "bit 63" in repr(hostile) and "<table" in hostile._repr_html_()


# --- header rules -----------------------------------------------------------------------------------------------


def header(fmt, mask=0x602E7, name="SapphireRapids"):
    layout = Layout(model(name), mask, fmt)
    return layout, bytearray(encode({}, layout))


@pytest.mark.parametrize(
    ("fmt", "at", "value", "offset", "rule", "words"),
    [
        (STANDARD, 512, 8, 512, "H-XSTATE", ["XSTATE_BV 0x8 (BNDREGS)", "byte 512", "13.8"]),
        (STANDARD, 518, 1, 518, "H-XSTATE", ["bit 48", "byte 518"]),
        (STANDARD, 519, 128, 519, "H-XSTATE", ["bit 63", "byte 519"]),
        (STANDARD, 520, 1, 520, "H-XCOMP", ["XCOMP_BV 0x1 (x87)", "is not 0", "byte 520", "13.8.1"]),
        (STANDARD, 527, 128, 520, "H-XCOMP", ["byte 520"]),
        (STANDARD, 528, 1, 528, "H-RESERVED", ["byte 528 is 0x01"]),
        (STANDARD, 535, 255, 535, "H-RESERVED", ["byte 535 is 0xff"]),
        (COMPACTED, 512, 8, 512, "H-XSTATE", ["BNDREGS", "byte 512"]),
        (COMPACTED, 519, 128, 519, "H-XSTATE", ["bit 63", "byte 519"]),
        (COMPACTED, 520, 0xEF, 520, "H-XCOMP", ["BNDREGS", "byte 520"]),
        (COMPACTED, 520, 0xE6, 520, "H-XCOMP", ["is not 0x80000000000602e7", "byte 520", "13.4.3"]),
        (COMPACTED, 527, 0, 520, "H-XCOMP", ["byte 520"]),
        (COMPACTED, 528, 1, 528, "H-RESERVED", ["byte 528"]),
        (COMPACTED, 536, 1, 536, "H-RESERVED", ["byte 536"]),
        (COMPACTED, 575, 2, 575, "H-RESERVED", ["byte 575 is 0x02"]),
    ],
)
def test_every_header_rule_names_its_byte(fmt, at, value, offset, rule, words):
    layout, area = header(fmt)
    area[at] = value
    with pytest.raises(FormatError) as caught:
        Area(area, layout)
    assert (caught.value.offset, caught.value.rule) == (offset, rule)
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert Area(area, layout, check=False).format == fmt
    found = header_findings(area, 0x602E7)
    if rule != "H-XCOMP" or at == 520:
        assert [f[0] for f in found if f[3]][:1] == [rule if not (fmt and value == 0xE6) else "H-XSTATE"][: len(found)]


@pytest.mark.parametrize("at", range(536, 576))
def test_reserved_bytes_that_no_cpu_checks_in_a_standard_area(at):
    layout, area = header(STANDARD)
    area[at] = 1
    Area(area, layout)
    ((rule, offset, message, fatal),) = header_findings(area, 0x602E7)
    assert (rule, offset, fatal) == ("H-RESERVED", at, False)
    assert f"byte {at}" in message and "no fault" in message


RULES = {
    "std-xstate-bv": "H-XSTATE", "std-xcomp-bv": "H-XCOMP", "std-reserved": "H-RESERVED", "cmp-format-bit": "H-XCOMP",
    "cmp-xcomp-bv": "H-XCOMP", "cmp-xstate-bv": "H-XSTATE", "cmp-reserved": "H-RESERVED",
}  # fmt: skip


@given(
    name=models,
    xstate_bv=st.one_of(st.integers(0, 2**64 - 1), st.sampled_from([0, 3, 7, 0xE7, 1 << 63])),
    xcomp_bv=st.one_of(st.integers(0, 2**64 - 1), st.sampled_from([0, 1 << 63, 1 << 63 | 7, 1 << 63 | 0xE7, 7])),
    reserved=st.one_of(st.none(), st.integers(528, 575)),
    allowed=st.sampled_from([3, 7, 0xE7, 0x2E7, 0x602E7]),
    compaction=st.booleans(),
)
def test_findings_are_the_references(name, xstate_bv, xcomp_bv, reserved, allowed, compaction):
    area = bytearray(576)
    area[24:28] = (0x1F80).to_bytes(4, "little")
    area[512:528] = struct.pack("<QQ", xstate_bv, xcomp_bv)
    if reserved is not None:
        area[reserved] = 1
    compacted = bool(xcomp_bv >> 63) and compaction
    cpu = {**reference.CPUS[name], "d1eax": 0xF if compaction else 0}
    expected = reference.header_faults(area, cpu, NAMES[COMPACTED if compacted else STANDARD], allowed)
    found = header_findings(area, allowed, compaction=compaction)
    assert sorted(f[0] for f in found if f[3]) == sorted(RULES[rule] for rule, _ in expected)
    for rule, offset, message, _ in found:
        assert 512 <= offset < 576 and area[offset], message
        if rule == "H-RESERVED":
            assert offset == reserved


@pytest.mark.parametrize("live", range(8))
@pytest.mark.parametrize("rfbm", [0, 1, 2, 3, 4, 5, 6, 7, None])
@each_format
def test_reserved_bits_of_mxcsr_matter_exactly_where_it_is_loaded(fmt, rfbm, live):
    layout, area = header(fmt, 7)
    area[512] = live
    area[24:28] = (0x10000 | 0x1F80).to_bytes(4, "little")
    wanted = 7 if rfbm is None else rfbm
    loaded = wanted & 6 if fmt == STANDARD else wanted & live & 2
    found = header_findings(area, 7, rfbm=rfbm)
    assert [(f[0], f[1], f[3]) for f in found] == ([("H-MXCSR", 24, True)] if loaded else [])
    assert not header_findings(area, 7, rfbm=rfbm, mxcsr_mask=0x1FFFF)
    Area(area, layout)


def test_findings_of_xrstors():
    layout, area = header(COMPACTED, 0x602E7)
    assert header_findings(area, 0x602E7 | 0xDD00, supervisor=True) == []
    ((rule, offset, message, fatal),) = header_findings(bytes(576), 0x602E7, supervisor=True, rfbm=0)
    assert (rule, offset, fatal) == ("H-XCOMP", 527, True) and "13.12" in message
    assert layout.size > 576


@pytest.mark.parametrize("length", [0, 1, 575])
def test_findings_need_a_header(length):
    with pytest.raises(TruncatedError):
        header_findings(bytes(length), 7)


# --- hostile bytes ----------------------------------------------------------------------------------------------


@given(name=models, seed=st.integers(0, 2**32), fmt=st.sampled_from(FORMATS), data=st.data())
def test_any_bytes_at_all(name, seed, fmt, data):
    """Garbage ends in a FormatError, or reads as something; every register and all texts of an unchecked area work."""
    mask = known(name, fmt)
    layout = Layout(model(name), mask, fmt)
    garbage = bytearray(Random(seed).randbytes(layout.size))
    if data.draw(st.booleans()):
        garbage[512:576] = encode({}, layout)[512:576]
        garbage[512:520] = (data.draw(st.integers(0, 2**64 - 1)) & mask).to_bytes(8, "little")
        Area(garbage, layout)
    else:
        with pytest.raises(FormatError):
            Area(garbage, layout)
    area = Area(garbage, layout, check=False)
    values = decode(area)
    assert values == reference.decode(garbage, name, mask, NAMES[fmt])
    assert all((area[n] if isinstance(v, int) else bytes(area[n])) == v for n, v in values.items())
    assert 0 <= area.x87_tag_word < 1 << 16
    for i in range(8):
        float(area.st[i])
    assert repr(area) and area.same_state(area)
    header_findings(garbage, mask)


@given(
    st.dictionaries(
        st.from_regex(r"[A-Za-z_0-9]{1,20}", fullmatch=True),
        st.one_of(st.integers(0, (1 << 64) - 1), st.integers(0, 16), st.binary(max_size=70)),
    )
)
def test_registers_as_json(values):
    """Two ways to the same text: ours, and what Python writes."""
    strings = {name: f"{value:#x}" if isinstance(value, int) else value.hex() for name, value in values.items()}
    assert hex_members(values) == json.dumps(strings)


@pytest.mark.parametrize(
    ("values", "error"),
    [
        ({"k0": 1 << 64}, OverflowError),
        ({"k0": -1}, OverflowError),
        ({"k0": "1"}, TypeError),
        ({1: 1}, TypeError),
        ({'k"': 1}, ValueError),
        ({"k\n": 1}, ValueError),
        ({"k\\": b""}, ValueError),
        ({"k\u00e4": b""}, ValueError),
        ([], TypeError),
    ],
)
def test_what_is_no_register_is_refused(values, error):
    with pytest.raises(error):
        hex_members(values)
