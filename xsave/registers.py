"""The table of registers: name, component, place inside it, width, lanes. No code that decodes.

Offsets of x87 and SSE registers count from the start of the area (they live in the legacy region), all
others from the start of their component (SDM1 13.4.1, 13.5). Vector registers that are scattered over
several components are rows with several parts.
"""

from xsave.components import Component

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

__all__ = ["LANES", "REGISTERS", "Part", "RegisterRow", "find_register", "register_names"]

_C = Component


class Part:
    """A run of bytes of a register: `width` bytes at `offset` in `component`, at `at` in the register."""

    __slots__ = ("at", "component", "offset", "width")

    def __init__(self, component: Component, offset: int, width: int, at: int = 0) -> None:
        self.component = component
        self.offset = offset
        self.width = width
        self.at = at


# Masks of whole registers by width in bytes, one number for all that share it.
_ALL_ONES = {width: (1 << 8 * width) - 1 for width in (1, 2, 4, 8, 10, 16, 32, 64, 128, 1024)}


class RegisterRow:
    """One row: a register's name, width in bytes and parts.

    `scalar` registers are Python ints, the others bytes in memory order. `mask` and `shift` cut a bit field
    out of a scalar's bytes; `init` is the value in the initial configuration; `family` and `index` say that
    `zmm17` is number 17 of `zmm`.
    """

    __slots__ = ("family", "index", "init", "mask", "name", "parts", "scalar", "shift", "width")

    def __init__(
        self,
        name: str,
        width: int,
        parts: "tuple[Part, ...]",
        *,
        scalar: bool = False,
        init: int = 0,
        mask: "int | None" = None,
        shift: int = 0,
        family: str = "",
        index: "int | None" = None,
    ) -> None:
        self.name = name
        self.width = width
        self.parts = parts
        self.scalar = scalar
        self.init = init
        self.mask = _ALL_ONES[width] if mask is None else mask
        self.shift = shift
        self.family = family or name
        self.index = index

    def __repr__(self) -> str:
        return f"<register {self.name}: {self.width} bytes in {', '.join(p.component.name for p in self.parts)}>"

    @property
    def narrow(self) -> bool:
        """Whether the row is the lower part of a wider register in one component, as XMM17 is of ZMM17."""
        return self.family in ("xmm", "ymm") and self.parts[-1].component == _C.HI16_ZMM

    @property
    def component(self) -> Component:
        """The component that decides whether a layout holds the register: the one of its highest part."""
        return self.parts[-1].component



def _scalar(name: str, component: Component, offset: int, width: int, *, init: int = 0, mask: "int | None" = None,
            shift: int = 0) -> RegisterRow:
    return RegisterRow(name, width, (Part(component, offset, width),), scalar=True, init=init, mask=mask, shift=shift)


def _family(name: str, count: int, component: Component, offset: int, step: int, width: int, *, scalar: bool = False,
            first: int = 0) -> "list[RegisterRow]":
    return [
        RegisterRow(f"{name}{first + i}", width, (Part(component, offset + step * i, width),), scalar=scalar,
                    family=name, index=first + i)
        for i in range(count)
    ]


def _vectors() -> "list[RegisterRow]":
    rows = _family("xmm", 16, _C.SSE, 160, 16, 16)
    for i in range(16):
        low, mid = Part(_C.SSE, 160 + 16 * i, 16), Part(_C.AVX, 16 * i, 16, 16)
        rows.append(RegisterRow(f"ymm{i}", 32, (low, mid), family="ymm", index=i))
    for i in range(16):
        low, mid = Part(_C.SSE, 160 + 16 * i, 16), Part(_C.AVX, 16 * i, 16, 16)
        rows.append(RegisterRow(f"zmm{i}", 64, (low, mid, Part(_C.ZMM_HI256, 32 * i, 32, 32)), family="zmm", index=i))
    for name, width in (("xmm", 16), ("ymm", 32)):
        rows += _family(name, 16, _C.HI16_ZMM, 0, 64, width, first=16)
    return rows + _family("zmm", 16, _C.HI16_ZMM, 0, 64, 64, first=16)


def _msrs(component: Component, *names: str, first: int = 0) -> "list[RegisterRow]":
    return [_scalar(name, component, first + 8 * i, 8) for i, name in enumerate(names)]


def _lbr() -> "list[RegisterRow]":
    rows = _msrs(_C.LBR, "IA32_LBR_CTL", "IA32_LBR_DEPTH", "IA32_LER_FROM_IP", "IA32_LER_TO_IP", "IA32_LER_INFO")
    for i in range(32):
        names = (f"IA32_LBR_{i}_FROM_IP", f"IA32_LBR_{i}_TO_IP", f"IA32_LBR_{i}_INFO")
        rows += _msrs(_C.LBR, *names, first=40 + 24 * i)
    return rows


_UIF = 1 << 63

_ROWS = (
    _scalar("fcw", _C.X87, 0, 2, init=0x37F),
    _scalar("fsw", _C.X87, 2, 2),
    _scalar("ftw", _C.X87, 4, 1),
    _scalar("fop", _C.X87, 6, 2),
    _scalar("fip", _C.X87, 8, 8),
    _scalar("fdp", _C.X87, 16, 8),
    _scalar("mxcsr", _C.SSE, 24, 4, init=0x1F80),
    _scalar("mxcsr_mask", _C.SSE, 28, 4),
    *_family("st", 8, _C.X87, 32, 16, 10),
    *_vectors(),
    *_family("k", 8, _C.OPMASK, 0, 8, 8, scalar=True),
    _scalar("pkru", _C.PKRU, 0, 4),
    *_family("bnd", 4, _C.BNDREGS, 0, 16, 16),
    _scalar("bndcfgu", _C.BNDCSR, 0, 8),
    _scalar("bndstatus", _C.BNDCSR, 8, 8),
    RegisterRow("tilecfg", 64, (Part(_C.TILECFG, 0, 64),)),
    *_family("tmm", 8, _C.TILEDATA, 0, 1024, 1024),
    *_family("r", 16, _C.APX, 0, 8, 8, scalar=True, first=16),
    RegisterRow("bsr0", 128, (Part(_C.SCALEDATA, 0, 128),)),
    RegisterRow("lwp", 128, (Part(_C.LWP, 0, 128),)),
    *_msrs(_C.PT, "IA32_RTIT_CTL", "IA32_RTIT_OUTPUT_BASE", "IA32_RTIT_OUTPUT_MASK_PTRS", "IA32_RTIT_STATUS",
           "IA32_RTIT_CR3_MATCH", "IA32_RTIT_ADDR0_A", "IA32_RTIT_ADDR0_B", "IA32_RTIT_ADDR1_A", "IA32_RTIT_ADDR1_B"),
    *_msrs(_C.PASID, "IA32_PASID"),
    *_msrs(_C.CET_U, "IA32_U_CET", "IA32_PL3_SSP"),
    *_msrs(_C.CET_S, "IA32_PL0_SSP", "IA32_PL1_SSP", "IA32_PL2_SSP"),
    _scalar("IA32_PM_CTL1", _C.HDC, 0, 8, init=1),
    _scalar("uif", _C.UINTR, 16, 8, mask=_UIF, shift=63),
    *_msrs(_C.UINTR, "IA32_UINTR_HANDLER", "IA32_UINTR_STACKADJUST"),
    _scalar("IA32_UINTR_MISC", _C.UINTR, 16, 8, mask=_UIF - 1),
    *_msrs(_C.UINTR, "IA32_UINTR_PD", "IA32_UINTR_RR", "IA32_UINTR_TT", first=24),
    *_lbr(),
    _scalar("IA32_HWP_REQUEST", _C.HWP, 0, 8, init=0x8000FF01),
)

REGISTERS: "Final[dict[str, RegisterRow]]" = {row.name: row for row in _ROWS}

# Lane types of vector registers: bits as the manual counts them (`u8` is one byte), the codes of `struct`, and the
# float spellings of numpy. bfloat16 has no code: it is the upper half of a float32.
LANES: "Final[dict[str, str]]" = {
    "u8": "B", "u16": "H", "u32": "I", "u64": "Q",
    "i8": "b", "i16": "h", "i32": "i", "i64": "q",
    "f16": "e", "f32": "f", "f64": "d", "f2": "e", "f4": "f", "f8": "d",
    "bf16": "bf16",
}

# The vector families from narrow to wide: a layout shows each register once, under the widest name it holds.
_WIDENING = (("xmm", _C.SSE), ("ymm", _C.AVX), ("zmm", _C.ZMM_HI256))


def register_names(mask: int, compacted: bool = False) -> "list[str]":
    """Names of the registers that a layout of `mask` holds, in the table's order.

    Vector registers 0-15 stand once, under the widest name whose component is in the mask (a narrower part
    that the mask lacks reads as zero); 16-31 where Hi16_ZMM is. MXCSR and MXCSR_MASK come with SSE, and in
    the standard format also with AVX (SDM1 13.4.2: XSAVE writes them for either).
    """
    widest = ""
    for family, component in _WIDENING:
        if mask >> component & 1:
            widest = family
    names = []
    for row in _ROWS:
        if row.narrow:
            held = False
        elif row.family in ("xmm", "ymm", "zmm") and row.component != _C.HI16_ZMM:
            held = row.family == widest
        elif row.name in ("mxcsr", "mxcsr_mask"):
            held = bool(mask >> _C.SSE & 1) or (not compacted and bool(mask >> _C.AVX & 1))
        else:
            held = bool(mask >> row.component & 1)
        if held:
            names.append(row.name)
    return names


def find_register(name: str) -> RegisterRow:
    """The row called `name`, in any case. Raises: `KeyError` with a suggestion, `TypeError` for what is no name."""
    if not isinstance(name, str):
        raise TypeError(f"registers have names, {name!r} is no str")
    row = REGISTERS.get(name) or _folded().get(name.lower())
    if row is None:
        from difflib import get_close_matches

        close = get_close_matches(name.lower(), _folded(), n=1)
        hint = f"; did you mean {_folded()[close[0]].name!r}?" if close else ""
        raise KeyError(f"no register {name!r}{hint}")
    return row


_FOLDED: "dict[str, RegisterRow]" = {}


def _folded() -> "dict[str, RegisterRow]":
    if not _FOLDED:
        _FOLDED.update((name.lower(), row) for name, row in REGISTERS.items())
    return _FOLDED
