"""Tiles as matrices: every code of every element type against a decoder that adds up bits, and rounding against search.

With ml_dtypes installed its own conversions are a second opinion, and bf16 and fp8 tiles have its dtypes.
"""

import sys
from bisect import bisect_left
from collections.abc import Iterator
from fractions import Fraction
from functools import cache
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests import skips
from tests.laws.strategies import each_format, model
from tests.scale import THIN
from xsave import Area, Layout, LayoutError, TileConfig, encode
from xsave.tiles import ELEMENTS, tile, tile_bytes

# name: (bytes, bits of exponent, bits of mantissa, no infinities); those without a dtype of numpy's.
FLOATS = {"fp32": (4, 8, 23, False), "fp16": (2, 5, 10, False), "bf16": (2, 8, 7, False)}
FLOATS |= {"fp8-e4m3": (1, 4, 3, True), "fp8-e5m2": (1, 5, 2, False)}
SMALL = ("bf16", "fp8-e4m3", "fp8-e5m2")
OWN = {"bf16": "bfloat16", "fp8-e4m3": "float8_e4m3fn", "fp8-e5m2": "float8_e5m2"}
INTEGERS = ("int8", "uint8", "int32")
WIDE = np.dtype(np.longdouble).itemsize > 8


@cache
def value_of(name: str, code: int) -> Fraction | str:
    """What a code means, bit by bit: a number, "inf", "-inf" or "nan"; -0 is 0."""
    _, exponent, mantissa, finite = FLOATS[name]
    sign = -1 if code >> (exponent + mantissa) else 1
    power = Fraction(1)
    field = 0
    for bit in range(exponent):
        field += (code >> (mantissa + bit) & 1) << bit
    significand = Fraction(1 if field else 0)
    for bit in range(mantissa):
        significand += Fraction(code >> (mantissa - 1 - bit) & 1, 2 << bit)
    if field == (1 << exponent) - 1:
        if finite and significand == 2 - Fraction(1, 1 << mantissa):
            return "nan"
        if not finite:
            return "nan" if significand != 1 else "inf" if sign == 1 else "-inf"
    power = Fraction(2) ** (max(field, 1) - (1 << (exponent - 1)) + 1)
    return sign * significand * power


@cache
def finite_values(name: str) -> tuple[list[Fraction], list[int]]:
    """The values from 0 up and their codes, ascending; the last two are stand-ins for what is too large."""
    _, exponent, mantissa, _ = FLOATS[name]
    found = [(value_of(name, code), code) for code in range(1 << (exponent + mantissa))]
    numbers = [(value, code) for value, code in found if isinstance(value, Fraction)]
    step = numbers[-1][0] - numbers[-2][0]
    numbers.append((numbers[-1][0] + step, numbers[-1][1] + 1))
    return [value for value, _ in numbers], [code for _, code in numbers]


def nearest(name: str, number: float) -> int:
    """The code nearest to a number, even where two are; from half a step beyond the largest on, the code after it."""
    _, exponent, mantissa, _ = FLOATS[name]
    sign = 1 << (exponent + mantissa) if np.signbit(number) else 0
    values, codes = finite_values(name)
    wanted = abs(Fraction(number))
    at = bisect_left(values, wanted)
    if at == len(values):
        return sign | codes[-1]
    if at and values[at] != wanted:
        down, up = wanted - values[at - 1], values[at] - wanted
        if down < up or (down == up and codes[at - 1] % 2 == 0):
            at -= 1
    return sign | codes[at]


def sized(name: str) -> int:
    return FLOATS[name][0] if name in FLOATS else 4 if name == "int32" else 1


@pytest.fixture(params=["numpy alone", "ml_dtypes"])
def numbers(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Tiles by numpy alone, as without ml_dtypes, and by the real dtypes."""
    if request.param == "ml_dtypes":
        skips.needs_module("ml_dtypes")
    else:
        monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    return str(request.param)


def all_codes(name: str) -> Iterator[list[int]]:
    """Every code of an 8- or 16-bit type, a tile at a time; of 16-bit types a share of the tiles in a thinned run."""
    size = sized(name)
    count = 1024 // size
    for first in range(0, 1 << 8 * size, count * (THIN if size > 1 else 1)):
        yield [(first + i) % (1 << 8 * size) for i in range(count)]


@pytest.mark.parametrize("name", ["fp16", *SMALL])
def test_every_code_decodes_exactly(name: str, numbers: str) -> None:
    size = sized(name)
    for codes in all_codes(name):
        data = b"".join(code.to_bytes(size, "little") for code in codes)
        matrix = tile(data, 0, name).astype(np.float32)
        for code, value in zip(codes, matrix.ravel().tolist(), strict=True):
            expected = value_of(name, code)
            if expected == "nan":
                assert value != value
            elif isinstance(expected, str):
                assert value == float(expected)
            else:
                assert Fraction(value) == expected
            assert bool(np.signbit(value)) == bool(code >> (8 * size - 1)) or expected == "nan", hex(code)


@pytest.mark.parametrize("name", ["fp16", *SMALL])
def test_every_code_comes_back(name: str, numbers: str) -> None:
    size = sized(name)
    for codes in all_codes(name):
        data = b"".join(code.to_bytes(size, "little") for code in codes)
        matrix = tile(data, 0, name)
        back = tile_bytes(matrix, name)
        if numbers == "ml_dtypes" or name == "fp16":
            assert back == data and tile_bytes(matrix) == data
            continue
        assert matrix.dtype == np.float32
        for i, code in enumerate(codes):
            again = int.from_bytes(back[i * size : (i + 1) * size], "little")
            if value_of(name, code) != "nan":
                assert again == code
            else:
                # One NaN for each sign: quiet, the rest 0, or all ones where there is no other.
                _, exponent, mantissa, finite = FLOATS[name]
                quiet = ((1 << exponent) - 1) << mantissa | ((1 << mantissa) - 1 if finite else 1 << (mantissa - 1))
                assert again == quiet | code & 1 << (exponent + mantissa)


@cache
def hard_numbers(name: str) -> list[float]:
    """Values, the middles between neighbours, and what lies just beside either; large, tiny and not finite ones."""
    values, _ = finite_values(name)
    rng = Random(5)
    some = range(len(values) - 1) if len(values) < 300 else [0, 1, 2, *rng.sample(range(len(values) - 1), 1500)]
    first_normal = 1 << FLOATS[name][2]
    some = [*some, *range(first_normal - 2, first_normal + 2), *range(len(values) - 4, len(values) - 1)]
    found: list[float] = []
    for i in some:
        for exact in (values[i], (values[i] + values[i + 1]) / 2):
            number = float(exact)
            assert Fraction(number) == exact
            found += [number, np.nextafter(number, np.inf), np.nextafter(number, -np.inf)]
    top = float(values[-1])
    found += [top, top * 1.5, 1e300, 5e-324, 1e-300, 0.0]
    return [sign * number for number in found for sign in (1.0, -1.0)]


def written(matrix: NDArray[np.floating], name: str) -> list[int]:
    size = sized(name)
    data = tile_bytes(matrix, name)
    rows = [data[64 * r : 64 * r + matrix.shape[1] * size] for r in range(matrix.shape[0])]
    return [int.from_bytes(row[i : i + size], "little") for row in rows for i in range(0, len(row), size)]


@pytest.mark.parametrize("name", ["fp16", *SMALL])
def test_rounding_is_to_nearest_even(name: str) -> None:
    numbers = hard_numbers(name)
    width = 64 // sized(name)
    numbers += [0.0] * (-len(numbers) % width)
    for first in range(0, len(numbers), width):
        row = numbers[first : first + width]
        assert written(np.array([row]), name) == [nearest(name, number) for number in row], row


@pytest.mark.parametrize("name", SMALL)
@given(st.lists(st.floats(width=64), min_size=1, max_size=32))
def test_rounding_of_any_double(name: str, numbers: list[float]) -> None:
    for number, code in zip(numbers, written(np.array([numbers]), name), strict=True):
        meaning = value_of(name, code)
        if number != number:
            assert meaning == "nan"
        elif abs(number) == float("inf"):
            assert meaning == ("nan" if name == "fp8-e4m3" else str(number))
        else:
            assert code == nearest(name, number)


@pytest.mark.parametrize("name", SMALL)
def test_sources_of_other_types(name: str) -> None:
    numbers = [0.5, -2.0, 3.0, 17.0, 240.0]
    expected = [nearest(name, number) for number in numbers]
    for dtype in ("f2", "f4", ">f4", "f8", ">f8"):
        assert written(np.array([numbers], dtype=dtype), name) == expected
    whole = np.array([[-2, 3, 17, 100]])
    for dtype in ("i1", "i2", "i4", "i8"):
        assert written(whole.astype(dtype), name) == [nearest(name, float(number)) for number in whole[0]]
    assert written(np.array([[1 << 53]]), name) == [nearest(name, 2.0**53)]
    # A double is rounded once: by way of a float, this one would become a tie and go up.
    once = 1.0 + 2.0**-4 + 2.0**-40 if name == "fp8-e4m3" else 1.0 + 2.0 ** -(FLOATS[name][2] + 1) + 2.0**-40
    assert written(np.array([[once]]), name) == [nearest(name, once)] == [nearest(name, 1.0) + 1]


@skips.needs_module("ml_dtypes")
@pytest.mark.parametrize("name", SMALL)
def test_ml_dtypes_agrees(name: str) -> None:
    import ml_dtypes

    own = np.dtype(getattr(ml_dtypes, OWN[name]))
    with np.errstate(all="ignore"):
        numbers = np.array([*hard_numbers(name), np.inf, -np.inf, np.nan]).astype(np.float32)
        theirs = numbers.astype(own)
    width = 64 // sized(name)
    for first in range(0, len(numbers), width):
        part = numbers[first : first + width]
        codes = np.array(written(part[None, :], name), dtype=f"u{sized(name)}")
        nan = np.isnan(part)
        assert np.array_equal(codes[~nan], theirs[first : first + width].view(codes.dtype)[~nan])
        assert np.isnan(codes[nan].view(own).astype(np.float32)).all()
    # Its dtypes go in as they are, and into each other's codes by value.
    matrix = np.array([[1.5, -0.25, np.nan]], dtype=own)
    assert tile_bytes(matrix)[: 3 * sized(name)] == matrix.tobytes()
    assert written(matrix[:, :2], "bf16") == [nearest("bf16", 1.5), nearest("bf16", -0.25)]
    assert tile(bytes(1024), 0, own).dtype == own and tile(bytes(1024), 0, name).dtype == own


# --- shapes, views, refusals --------------------------------------------------------------------------------


@each_format
@pytest.mark.parametrize("name", ELEMENTS)
def test_a_tile_has_its_configured_shape(name: str, fmt: int, numbers: str) -> None:
    size = sized(name)
    layout = Layout(model("SapphireRapids"), 0x600E7, fmt)
    data = Random(3).randbytes(1024)
    config = TileConfig({4: (5, 12), 6: (16, 64)})
    buffer = bytearray(encode({"tilecfg": config, "tmm4": data}, layout))
    area = Area(buffer, layout)
    matrix = tile(area, 4, name)
    assert matrix.shape == (5, 12 // size)
    assert matrix.tobytes() == tile(data, 4, name, config).tobytes() != bytes(matrix.nbytes)
    whole = tile(data, 4, name)
    assert whole.shape == (16, 64 // size)
    assert tile_bytes(whole[:5, : 12 // size].astype(matrix.dtype), name)[:12] == tile_bytes(matrix, name)[:12]
    # TILEDATA in use, all zero: tile 6.
    assert tile(area, 6, name).shape == (16, 64 // size) and not tile(area, 6, name).astype(np.float32).any()
    # A view wherever there is a dtype: written through.
    if matrix.dtype.itemsize == size:
        row = layout.offsets[18][0] + 4 * 1024 + 2 * 64  # type: ignore[index]
        matrix[2, 1] = 1
        raw = np.array([1]).astype(matrix.dtype).tobytes()
        assert bytes(buffer[row + size : row + 2 * size]) == raw
        frozen = tile(Area(bytes(buffer), layout), 4, name)
        assert not frozen.flags.writeable
    else:
        assert numbers == "numpy alone" and name in SMALL and matrix.dtype == np.float32


def test_a_tile_out_of_use_is_read_only_zeros() -> None:
    layout = Layout(model("SapphireRapids"), 0x600E7, 0)
    buffer = bytearray(encode({"tilecfg": TileConfig({1: (2, 8)})}, layout))
    at = layout.offsets[18][0]  # type: ignore[index]
    buffer[at : at + 8192] = b"\xaa" * 8192
    matrix = tile(Area(buffer, layout), 1, "int32")
    assert matrix.tolist() == [[0, 0], [0, 0]] and not matrix.flags.writeable


def test_spellings() -> None:
    data = Random(1).randbytes(1024)
    for spelling, name in [
        *(("i8", "int8"), ("float32", "fp32"), (np.float16, "fp16"), (np.dtype("int32"), "int32"), ("f32", "fp32")),
        *(("bfloat16", "bf16"), ("float8_e4m3fn", "fp8-e4m3"), ("e5m2", "fp8-e5m2")),
    ]:
        assert tile(data, 0, spelling).tobytes() == tile(data, 0, name).tobytes()
    for wrong in ("fp64", np.float64, "int16", 8, None):
        with pytest.raises(ValueError, match="no element type"):
            tile(data, 0, wrong)


@pytest.mark.parametrize("name", INTEGERS)
def test_integers(name: str) -> None:
    limits = np.iinfo(name)
    ends = np.array([[limits.min, limits.max, 0, 1]])
    data = tile_bytes(ends, name)
    assert tile(data, 0, name)[0, :4].tolist() == ends[0].tolist()
    assert tile_bytes(ends.astype(name)) == data
    for beyond in (limits.min - 1, limits.max + 1):
        with pytest.raises(ValueError, match="does not fit"):
            tile_bytes(np.array([[beyond]]), name)
    with pytest.raises(TypeError, match="round first"):
        tile_bytes(np.array([[1.0]]), name)


def test_fp32_keeps_every_bit_and_rounds_doubles() -> None:
    data = Random(2).randbytes(1020) + b"\x01\x00\x80\x7f"     # a signalling NaN last
    assert tile_bytes(tile(data, 0, "fp32")) == data
    assert tile_bytes(tile(data, 0, "fp32").astype(">f4")) == data
    assert tile(tile_bytes([[1 + 2.0**-24, 1e300]], "fp32"), 0, "fp32")[0, :2].tolist() == [1.0, float("inf")]
    assert tile(tile_bytes(np.array([[7]]), "fp16"), 0, "fp16")[0, 0] == 7


@pytest.mark.parametrize(
    ("matrix", "name", "error", "words"),
    [
        (np.zeros((17, 1)), "fp32", ValueError, "17, 1"),
        (np.zeros((1, 17)), "fp32", ValueError, "up to 16 rows of 16"),
        (np.zeros((1, 65), np.int8), "int8", ValueError, "up to 16 rows of 64"),
        (np.zeros(16), "fp32", ValueError, "shape"),
        (np.zeros((1, 1), complex), "bf16", TypeError, "complex"),
        (np.zeros((1, 1), bool), "int8", TypeError, "bool"),
        *([(np.zeros((1, 1), np.longdouble), "bf16", TypeError, "not numbers")] if WIDE else []),
        (np.array([["x"]]), "bf16", TypeError, "not numbers"),
        (np.array([[(1 << 53) + 1]]), "bf16", ValueError, "rounded twice"),
        (np.array([[-(1 << 53) - 1]]), "fp32", ValueError, "rounded twice"),
        (np.zeros((1, 1)), None, ValueError, "no element type"),
    ],
)
def test_what_no_tile_can_hold(matrix: NDArray[np.generic], name: str, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        tile_bytes(matrix, name)


def test_nothing_is_a_tile_of_zeros() -> None:
    assert tile_bytes(np.zeros((0, 0)), "bf16") == tile_bytes(np.zeros((16, 0)), "int32") == bytes(1024)
    assert tile_bytes([[1, 2], [3, 4]], "uint8") == b"\1\2" + bytes(62) + b"\3\4" + bytes(958)


def test_what_has_no_matrix() -> None:
    layout = Layout(model("SapphireRapids"), 0x600E7, 1)
    area = Area(encode({"tilecfg": TileConfig({0: (2, 6)}), "tmm0": bytes(1024)}, layout), layout)
    assert tile(area, 0, "int8").shape == (2, 6)
    with pytest.raises(ValueError, match="6 bytes of a row of tile 0 are no whole number of int32"):
        tile(area, 0, "int32")
    with pytest.raises(LayoutError, match="tile 1 is not configured"):
        tile(area, 1)
    with pytest.raises(ValueError, match="tile 8"):
        tile(area, 8)
    with pytest.raises(ValueError, match="1024 bytes, not 1023"):
        tile(bytes(1023), 0)
    illegal = bytearray(bytes(TileConfig({0: (2, 8)})))
    illegal[2] = 1
    area = Area(encode({"tilecfg": illegal, "tmm0": bytes(1024)}, layout), layout)
    with pytest.raises(LayoutError, match="not configured in <TileConfig palette 0>"):
        tile(area, 0)
    wide = bytearray(bytes(TileConfig({0: (2, 8)})))
    for at, value in ((16, 65), (48, 17)):
        image = bytes(wide[:at]) + bytes([value]) + bytes(wide[at + 1 :])
        with pytest.raises(LayoutError, match="larger than a tile"):
            tile(bytes(1024), 0, config=TileConfig.from_bytes(image))
    bare = Layout(model("EPYC-Genoa"), 0xE7, 0)
    with pytest.raises(LayoutError):
        tile(Area(encode({}, bare), bare), 0)
