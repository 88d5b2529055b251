"""The decoders that P4 compares with, each written as well as its tool allows: same names, same values, same order.

They know one layout each (Sapphire Rapids', standard format, mask 0x2E7 or 0x602E7): that is what people write. All
follow XSTATE_BV, as a decoder must. None checks the header.
"""

import ctypes
import struct
from collections.abc import Callable

import numpy as np

Values = dict[str, "int | bytes"]

SCALARS = ["fcw", "fsw", "ftw", "fop", "fip", "fdp", "mxcsr", "mxcsr_mask"]
NAMES = [*SCALARS, *(f"st{i}" for i in range(8)), *(f"zmm{i}" for i in range(32)), *(f"k{i}" for i in range(8)), "pkru"]
TILE_NAMES = ["tilecfg", *(f"tmm{i}" for i in range(8))]
X87, SSE, AVX, OPMASK, HI256, HI16, PKRU, TILECFG, TILEDATA = (1 << i for i in (0, 1, 2, 5, 6, 7, 9, 17, 18))
ALL = X87 | SSE | AVX | OPMASK | HI256 | HI16 | PKRU
TILES = TILECFG | TILEDATA
INITIAL_X87 = (0x37F, 0, 0, 0, 0, 0)

# --- struct -----------------------------------------------------------------------------------------------------

_FORMAT = "<HHBxHQQII" + "10s6x" * 8 + "16s" * 16 + "96xQ56x" + "16s" * 16 + "256x8Q" + "32s" * 16 + "64s" * 16 + "I"
_AREA = struct.Struct(_FORMAT)
_AREA_TILES = struct.Struct(_FORMAT + "60x64s" + "1024s" * 8)
_ZERO16, _ZERO32, _ZERO64, _ZERO10 = bytes(16), bytes(32), bytes(64), bytes(10)


def _compose(t: "tuple[int | bytes, ...]", names: "list[str]", full: int) -> Values:
    # Where the one unpack leaves what: 0 legacy scalars, 8 st, 16 xmm, 32 XSTATE_BV, 33 ymm, 49 k, 57 zmm upper halves,
    # 73 zmm16 and up, 89 pkru, 90 tilecfg, 91 tiles.
    live = t[32]
    if live & full == full:  # type: ignore[operator]
        low = map(b"".join, zip(t[16:32], t[33:49], t[57:73], strict=False))  # type: ignore[arg-type]
        return dict(zip(names, (*t[:16], *low, *t[73:89], *t[49:57], *t[89:]), strict=False))
    assert isinstance(live, int)
    x87 = t[:6] if live & X87 else INITIAL_X87
    st = t[8:16] if live & X87 else (_ZERO10,) * 8
    xmm = t[16:32] if live & SSE else (_ZERO16,) * 16
    ymm = t[33:49] if live & AVX else (_ZERO16,) * 16
    upper = t[57:73] if live & HI256 else (_ZERO32,) * 16
    low = map(b"".join, zip(xmm, ymm, upper, strict=False))  # type: ignore[arg-type]
    high = t[73:89] if live & HI16 else (_ZERO64,) * 16
    masks = t[49:57] if live & OPMASK else (0,) * 8
    tail = (t[89] if live & PKRU else 0, *(t[90:91] if live & TILECFG else (_ZERO64,)))
    tail += t[91:] if live & TILEDATA else (bytes(1024),) * 8
    return dict(zip(names, (*x87, *t[6:8], *st, *low, *high, *masks, *tail), strict=False))


def by_struct(area: bytes) -> Values:
    """One compiled Struct, one unpack, one zip."""
    return _compose(_AREA.unpack_from(area), NAMES, ALL)


def by_struct_tiles(area: bytes) -> Values:
    """The same with TILECFG and the eight tiles."""
    return _compose(_AREA_TILES.unpack_from(area), NAMES + TILE_NAMES, ALL | TILES)


# --- ctypes and numpy -------------------------------------------------------------------------------------------
# Twice each: field by field, as both are used, and the quickest way found: numpy's `item` of a whole record, and
# ctypes' register files as bytes that Python then cuts up.


class _Slot(ctypes.Structure):
    _pack_ = 1
    _layout_ = "ms"
    _fields_ = (("st", ctypes.c_uint8 * 10), ("reserved", ctypes.c_uint8 * 6))


class _Area(ctypes.LittleEndianStructure):
    _pack_ = 1
    _layout_ = "ms"
    _fields_ = (
        ("fcw", ctypes.c_uint16),
        ("fsw", ctypes.c_uint16),
        ("ftw", ctypes.c_uint8),
        ("_1", ctypes.c_uint8),
        ("fop", ctypes.c_uint16),
        ("fip", ctypes.c_uint64),
        ("fdp", ctypes.c_uint64),
        ("mxcsr", ctypes.c_uint32),
        ("mxcsr_mask", ctypes.c_uint32),
        ("st", _Slot * 8),
        ("xmm", (ctypes.c_uint8 * 16) * 16),
        ("_2", ctypes.c_uint8 * 96),
        ("xstate_bv", ctypes.c_uint64),
        ("_3", ctypes.c_uint8 * 56),
        ("ymm", (ctypes.c_uint8 * 16) * 16),
        ("_4", ctypes.c_uint8 * 256),
        ("k", ctypes.c_uint64 * 8),
        ("upper", (ctypes.c_uint8 * 32) * 16),
        ("zmm", (ctypes.c_uint8 * 64) * 16),
        ("pkru", ctypes.c_uint32),
    )


_AT10 = [slice(16 * i, 16 * i + 10) for i in range(8)]
_AT16 = [slice(16 * i, 16 * i + 16) for i in range(16)]
_AT32 = [slice(32 * i, 32 * i + 32) for i in range(16)]
_AT64 = [slice(64 * i, 64 * i + 64) for i in range(16)]
_LOW = list(zip(_AT16, _AT32, strict=True))


def _slices(
    scalars: "tuple[int, ...]", st: bytes, xmm: bytes, ymm: bytes, upper: bytes, zmm: bytes, tail: "list[int]"
) -> Values:
    # Register files as bytes, cut up: quicker than element by element for both tools.
    low = [xmm[a] + ymm[a] + upper[b] for a, b in _LOW]
    return dict(zip(NAMES, (*scalars, *[st[a] for a in _AT10], *low, *[zmm[a] for a in _AT64], *tail), strict=False))


def by_ctypes(area: bytes) -> Values:
    """A packed structure, register by register."""
    a = _Area.from_buffer_copy(area)
    if a.xstate_bv & ALL != ALL:
        return by_struct(area)
    scalars = (a.fcw, a.fsw, a.ftw, a.fop, a.fip, a.fdp, a.mxcsr, a.mxcsr_mask)
    low = map(b"".join, zip(map(bytes, a.xmm), map(bytes, a.ymm), map(bytes, a.upper), strict=True))
    return dict(
        zip(NAMES, (*scalars, *(bytes(slot.st) for slot in a.st), *low, *map(bytes, a.zmm), *a.k, a.pkru), strict=True)
    )


def by_ctypes_cut(area: bytes) -> Values:
    """The same structure, register files cut up."""
    a = _Area.from_buffer_copy(area)
    if a.xstate_bv & ALL != ALL:
        return by_struct(area)
    scalars = (a.fcw, a.fsw, a.ftw, a.fop, a.fip, a.fdp, a.mxcsr, a.mxcsr_mask)
    return _slices(scalars, bytes(a.st), bytes(a.xmm), bytes(a.ymm), bytes(a.upper), bytes(a.zmm), [*a.k, a.pkru])


def _dtype(shapes: str) -> "np.dtype[np.void]":
    return np.dtype(
        {
            "names": "fcw fsw ftw fop fip fdp mxcsr mxcsr_mask st xmm bv ymm k upper zmm pkru".split(),
            "formats": ("<u2 <u2 u1 <u2 <u8 <u8 <u4 <u4 " + shapes).split(),
            "offsets": [0, 2, 4, 6, 8, 16, 24, 28, 32, 160, 512, 576, 1088, 1152, 1664, 2688],
            "itemsize": 2696,
        }
    )


_REGISTERS = _dtype("(8,)V16 (16,)V16 <u8 (16,)V16 (8,)<u8 (16,)V32 (16,)V64 <u4")


def by_numpy(area: bytes) -> Values:
    """A structured dtype, field by field."""
    a = np.frombuffer(area, _REGISTERS, 1)[0]
    if int(a["bv"]) & ALL != ALL:
        return by_struct(area)
    scalars = [int(a[name]) for name in SCALARS]
    low = map(b"".join, zip(a["xmm"].tolist(), a["ymm"].tolist(), a["upper"].tolist(), strict=True))
    st = [x[:10] for x in a["st"].tolist()]
    return dict(zip(NAMES, (*scalars, *st, *low, *a["zmm"].tolist(), *a["k"].tolist(), int(a["pkru"])), strict=True))


def by_numpy_item(area: bytes) -> Values:
    """The same dtype, all fields by one `item`: the quickest way found."""
    *scalars, st, xmm, live, ymm, k, upper, zmm, pkru = np.frombuffer(area, _REGISTERS, 1).item()
    if live & ALL != ALL:
        return by_struct(area)
    low = map(b"".join, zip(xmm.tolist(), ymm.tolist(), upper.tolist(), strict=True))
    return dict(
        zip(NAMES, (*scalars, *[x[:10] for x in st.tolist()], *low, *zmm.tolist(), *k.tolist(), pkru), strict=True)
    )


# --- construct --------------------------------------------------------------------------------------------------


def construct_decoder(compiled: bool) -> "Callable[[bytes], Values] | None":
    """A decoder made by construct, as it is or compiled by its own compiler; None where it is not installed."""
    try:
        import construct as c
    except ImportError:
        return None
    fields = c.Struct(
        "fcw" / c.Int16ul,
        "fsw" / c.Int16ul,
        "ftw" / c.Int8ul,
        "_1" / c.Bytes(1),
        "fop" / c.Int16ul,
        "fip" / c.Int64ul,
        "fdp" / c.Int64ul,
        "mxcsr" / c.Int32ul,
        "mxcsr_mask" / c.Int32ul,
        "st" / c.Array(8, c.Bytes(16)),
        "xmm" / c.Array(16, c.Bytes(16)),
        "_2" / c.Bytes(96),
        "xstate_bv" / c.Int64ul,
        "_3" / c.Bytes(56),
        "ymm" / c.Array(16, c.Bytes(16)),
        "_4" / c.Bytes(256),
        "k" / c.Array(8, c.Int64ul),
        "upper" / c.Array(16, c.Bytes(32)),
        "zmm" / c.Array(16, c.Bytes(64)),
        "pkru" / c.Int32ul,
    )
    parse = (fields.compile() if compiled else fields).parse

    def by_construct(area: bytes) -> Values:
        a = parse(area)
        if a.xstate_bv & ALL != ALL:
            return by_struct(area)
        low = [x + y + z for x, y, z in zip(a.xmm, a.ymm, a.upper, strict=True)]
        scalars = (a.fcw, a.fsw, a.ftw, a.fop, a.fip, a.fdp, a.mxcsr, a.mxcsr_mask)
        return dict(zip(NAMES, (*scalars, *(x[:10] for x in a.st), *low, *a.zmm, *a.k, a.pkru), strict=True))

    return by_construct
