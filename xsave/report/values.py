"""Bytes of a register as lanes and numbers, and numbers as text. No component, no layout: bytes in, values out.

Lane types: u8..u64, i8..i64, f16, bf16, f32, f64, little-endian, lane 0 first (memory order).
"""

from struct import pack, unpack

from xsave.area import extended_to_float as x87_float
from xsave.registers import LANES

__all__ = ["lane_bits", "lane_size", "lane_text", "lanes", "special", "x87_float", "x87_kind", "x87_text"]

# Bytes of a lane by its code in the table of lane types (bf16 has no struct code: it is the upper half of an f32).
_SIZES = {"B": 1, "b": 1, "H": 2, "h": 2, "e": 2, "bf16": 2, "I": 4, "i": 4, "f": 4, "Q": 8, "q": 8, "d": 8}

# Significant decimal digits that always suffice to tell two values apart, and those to try first.
_DIGITS = {"f16": (3, 5), "bf16": (2, 4), "f32": (6, 9)}


def lane_size(lane: str) -> int:
    """Bytes of one lane. Raises: `KeyError` for an unknown lane type."""
    return _SIZES[LANES[lane]]


def lanes(data: "bytes | memoryview", lane: str) -> "list[int] | list[float]":
    """The lanes of `data`, lane 0 first; bytes beyond the last whole lane are left out."""
    size = lane_size(lane)
    count = len(data) // size
    whole = bytes(data[: count * size])
    if lane == "bf16":
        return [unpack("<f", pack("<I", bits << 16))[0] for bits in unpack(f"<{count}H", whole)]
    return list(unpack(f"<{count}{LANES[lane]}", whole))


def lane_bits(data: "bytes | memoryview", lane: str) -> "list[int]":
    """The lanes of `data` as unsigned integers of the same width: what a NaN's payload is told by."""
    size = lane_size(lane)
    count = len(data) // size
    return list(unpack(f"<{count}{'BHxIxxxQ'[size - 1]}", bytes(data[: count * size])))


def special(value: float) -> str:
    """`NaN`, `Infinity` or `-Infinity` for a value that JSON cannot hold, else the empty string."""
    if value != value:
        return "NaN"
    if value in (float("inf"), float("-inf")):
        return "Infinity" if value > 0 else "-Infinity"
    return ""


def lane_text(value: "int | float", lane: str) -> str:
    """One lane as text: unsigned in hex of full width, signed in decimal, floats in the fewest digits that give
    the same lane back."""
    if lane[0] == "u":
        return f"{value:0{2 * lane_size(lane)}x}"
    if lane[0] == "i":
        return str(value)
    if value != value:
        return "nan"
    if lane == "f64":
        return _trim(repr(value))
    low, high = _DIGITS[lane]
    for digits in range(low, high):
        text = f"{value:.{digits}g}"
        if _rounded(float(text), lane) == value:
            return _trim(text)
    return _trim(f"{value:.{high}g}")


def _rounded(value: float, lane: str) -> float:
    try:
        if lane == "bf16":
            bits = int(unpack("<I", pack("<f", value))[0])
            bits += 0x7FFF + (bits >> 16 & 1)
            return float(unpack("<f", pack("<I", bits & 0xFFFF0000))[0])
        code = LANES[lane]
        return float(unpack("<" + code, pack("<" + code, value))[0])
    except OverflowError:
        return float("nan")


def _trim(text: str) -> str:
    return text[:-2] if text.endswith(".0") else text


def x87_kind(raw: "bytes | memoryview") -> str:
    """What an 80-bit pattern is (SDM1 8.2.2, table 8-3): `normal`, `zero`, `denormal`, `infinity`, `nan`,
    `indefinite`, or `unsupported` (pseudo-infinities, pseudo-NaNs, unnormals: #IA when used)."""
    mantissa, top = unpack("<QH", bytes(raw[:10]))
    exponent, integer = top & 0x7FFF, mantissa >> 63
    if exponent == 0:
        return "denormal" if mantissa else "zero"
    if not integer:
        return "unsupported"
    if exponent != 0x7FFF:
        return "normal"
    if mantissa == 1 << 63:
        return "infinity"
    return "indefinite" if mantissa == 3 << 62 and top >> 15 else "nan"


def x87_text(raw: "bytes | memoryview") -> str:
    """An 80-bit register in decimal, to 21 significant digits: enough to tell any two apart."""
    mantissa, top = unpack("<QH", bytes(raw[:10]))
    kind = x87_kind(raw)
    sign = "-" if top >> 15 else ""
    if kind == "zero":
        return sign + "0"
    if kind == "infinity":
        return sign + "inf"
    if kind in ("nan", "indefinite"):
        return f"{sign}nan(0x{mantissa & (1 << 62) - 1:x})" if kind == "nan" else "nan (indefinite)"
    if kind == "unsupported":
        return "unsupported encoding"
    shift = max(top & 0x7FFF, 1) - 16383 - 63
    return sign + _decimal(mantissa, shift, 21)


def _decimal(mantissa: int, shift: int, digits: int) -> str:
    # mantissa * 2**shift in scientific notation, rounded half up at `digits`.
    exponent = int((mantissa.bit_length() + shift - 1) * 0.30102999566398120)
    while True:
        scale = digits - 1 - exponent
        numerator = mantissa << max(shift, 0)
        denominator = 1 << max(-shift, 0)
        if scale >= 0:
            numerator *= 10**scale
        else:
            denominator *= 10**-scale
        text = str((2 * numerator + denominator) // (2 * denominator))
        if len(text) == digits:
            break
        exponent += 1 if len(text) > digits else -1
    plain = text.rstrip("0") or "0"
    if -5 <= exponent < digits:
        if exponent < 0:
            return "0." + "0" * (-exponent - 1) + plain
        padded = plain.ljust(exponent + 1, "0")
        return padded[: exponent + 1] + (f".{padded[exponent + 1 :]}" if padded[exponent + 1 :] else "")
    return f"{plain[0]}{'.' + plain[1:] if plain[1:] else ''}e{exponent:+03d}"
