"""Values as text and numbers, tables, rows that fit."""

import math
import struct
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.cli.areas import area
from xsave.codec import decode
from xsave.report.html import area_table
from xsave.report.text import in_use, mask_text, printable, register_lines, row_text, table, wrapped
from xsave.report.values import lane_size, lane_text, lanes, x87_float, x87_kind, x87_text

LANES = "u8 u16 u32 u64 i8 i16 i32 i64 f16 bf16 f32 f64".split()


@given(st.binary(min_size=64, max_size=64), st.sampled_from(["f16", "bf16", "f32", "f64"]))
def test_float_text_gives_the_same_lane_back(data: bytes, lane: str) -> None:
    for value in lanes(data, lane):
        text = lane_text(value, lane)
        if value != value:
            assert text == "nan"
        elif lane == "bf16":
            wide = struct.unpack("<I", struct.pack("<f", float(text)))[0] if math.isfinite(value) else None
            if wide is not None:
                rounded = wide + 0x7FFF + (wide >> 16 & 1) & 0xFFFF0000
                assert struct.unpack("<f", struct.pack("<I", rounded))[0] == value
        else:
            code = {"f16": "e", "f32": "f", "f64": "d"}[lane]
            assert struct.unpack(code, struct.pack(code, float(text)))[0] == value


@given(st.binary(min_size=64, max_size=64), st.sampled_from(LANES))
def test_lanes_are_memory_order(data: bytes, lane: str) -> None:
    found = lanes(data, lane)
    assert len(found) * lane_size(lane) == 64
    if lane[0] in "ui":
        again = b"".join(int(v).to_bytes(lane_size(lane), "little", signed=lane[0] == "i") for v in found)
        assert again == data


def test_bf16_values() -> None:
    assert lanes(bytes.fromhex("803f00400000c0ff"), "bf16")[:3] == [1.0, 2.0, 0.0]
    assert [lane_text(v, "bf16") for v in lanes(bytes.fromhex("4940807f80ff"), "bf16")] == ["3.14", "inf", "-inf"]


X87 = [
    ("35c26821a2da0fc90040", "3.14159265358979323851", "normal"),
    ("000000000000008000c0", "-2", "normal"),
    ("0000000000000080ff3f", "1", "normal"),
    ("cdcccccccccccccc0340", "25.6000000000000000003", "normal"),
    ("00000000000000000000", "0", "zero"),
    ("00000000000000000080", "-0", "zero"),
    ("0000000000000080ff7f", "inf", "infinity"),
    ("0000000000000080ffff", "-inf", "infinity"),
    ("00000000000000c0ffff", "nan (indefinite)", "indefinite"),
    ("01000000000000c0ff7f", "nan(0x1)", "nan"),
    ("01000000000000000000", "3.64519953188247460253e-4951", "denormal"),
    ("fffffffffffffffffe7f", "1.18973149535723176502e+4932", "normal"),
    ("00000000000000400040", "unsupported encoding", "unsupported"),
]


@pytest.mark.parametrize(("raw", "text", "kind"), X87)
def test_x87_text(raw: str, text: str, kind: str) -> None:
    assert x87_text(bytes.fromhex(raw)) == text
    assert x87_kind(bytes.fromhex(raw)) == kind


@given(st.integers(1 << 63, (1 << 64) - 1), st.integers(1, 0x7FFE), st.booleans())
def test_x87_text_tells_values_apart(mantissa: int, exponent: int, negative: bool) -> None:
    raw = struct.pack("<QH", mantissa, exponent | negative << 15)
    exact = Fraction(mantissa) * Fraction(2) ** (exponent - 16383 - 63)
    text = x87_text(raw).removeprefix("-")
    digits, _, power = text.partition("e")
    error = abs(Fraction(digits) * Fraction(10) ** int(power or 0) - exact)
    assert error < exact * Fraction(1, 1 << 65)
    if exact.numerator.bit_length() < 53 and -1000 < exponent - 16383 < 1000:
        assert Fraction(x87_float(raw)) == (-exact if negative else exact)


def test_masks() -> None:
    assert mask_text(0x602E7) == "0x602e7 (x87 SSE AVX AVX-512 PKRU AMX)"
    assert in_use(0x20 | 1 << 17 | 1 << 40) == "opmask TILECFG bit 40"
    assert in_use(0) == "none"


def test_rows_are_cut_at_a_lane() -> None:
    data = bytes(range(1, 65))
    whole = row_text(data, "u64")
    assert whole.split()[0] == "0807060504030201" and len(whole.split()) == 8
    cut = row_text(data, "u64", 74)
    assert len(cut) <= 74 and cut == " ".join(whole.split()[:4]) + " … +4"
    assert row_text(bytes(64), "u32") == "0×16"
    assert row_text(struct.pack("<4f", 1.5, 1.5, 1.5, -2), "f32") == "1.5×3 -2"
    assert row_text(struct.pack("<4f", 1.5, 1.5, 1.5, -2), "f32", runs=False) == "1.5 1.5 1.5 -2"


@pytest.mark.parametrize("lane", LANES)
def test_register_lines_fit_80_columns(lane: str) -> None:
    for line in register_lines(decode(area("SapphireRapids", 0x602E7)), lane, 80):
        assert len(line) <= 80, line


def test_one_line_a_register() -> None:
    values = decode(area("EPYC-Genoa", 0x2E7))
    lines = list(register_lines(values, "u8", None))
    for name in ("zmm0", "zmm31", "st7"):
        assert sum(line.split()[0] == name for line in lines) == 1
    assert len(next(line for line in lines if line.startswith("zmm0 ")).split()) == 65


def test_zero_registers_share_a_line() -> None:
    values = {f"zmm{i}": bytes(64) for i in range(32)} | {"zmm5": b"\x01" + bytes(63)}
    assert [line.split()[0] for line in register_lines(values, "u64", 80)] == ["zmm0–4", "zmm5", "zmm6–31"]


def test_empty_x87_slots_are_marked() -> None:
    values = {"ftw": 0x80, "fsw": 7 << 11, **{f"st{i}": bytes(10) for i in (0,)}, "st1": b"\x01" + bytes(9)}
    lines = list(register_lines(values, "u64"))
    assert not any("empty" in line for line in lines if line.startswith("st0"))
    assert any("(empty)" in line for line in lines if line.startswith("st1"))


def test_table_and_printable() -> None:
    assert list(table(["A", "B"], [["1", "x"], ["22", "yy"]], {0})) == [" A  B", " 1  x", "22  yy"]
    assert printable("a\x1b[31mb\n") == "a\\x1b[31mb\\n"


def test_prose_is_wrapped_between_words() -> None:
    assert list(wrapped("cpu: ", "aaa bbb ccc", 12)) == ["cpu: aaa bbb", "     ccc"]
    assert list(wrapped("cpu: ", "one", 4)) == ["cpu: one"]


def test_tiles_of_different_shapes_fit() -> None:
    config = bytearray(64)
    config[:2] = b"\x01\x0f"
    for index in range(8):
        config[16 + 2 * index], config[48 + index] = 64 - 4 * index, 16 - index % 2
    (line,) = register_lines({"tilecfg": bytes(config)}, "u64", 80)
    assert line == "tilecfg palette 1, start_row 15: 16×64 15×60 16×56 15×52 16×48 15×44 16×40 15×36"
    assert len(line) == 80


def test_html_is_a_memory_map() -> None:
    text = area_table(area("EPYC-Genoa", 0x2E7))
    assert text.startswith("<table>") and text.count("<tr") == 1 + 10 and "<script" not in text
    assert text.index("x87") < text.index("header") < text.index("Hi16_ZMM") < text.index("PKRU")
