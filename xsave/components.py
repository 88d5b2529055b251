"""The table of state components: one row each, and masks of them.

A row says what the architecture fixes about a component: its number, its names, whether XCR0 or
IA32_XSS enables it, its architectural size, what it requires, which CPUID bit exposes it and its
initial configuration. What differs from CPU to CPU (standard offset, alignment, XFD support, an odd
size) belongs to `xsave.models`; where a register lies inside a component to `xsave.registers`.
"""

from enum import IntEnum

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Final

__all__ = ["COMPONENTS", "SUPERVISOR", "USER", "Component", "ComponentInfo", "ComponentMask", "Requirement"]


class Component(IntEnum):
    """State component numbers: bit positions in XCR0, IA32_XSS, XSTATE_BV and XCOMP_BV (SDM1 13.1)."""

    X87 = 0
    SSE = 1
    AVX = 2
    BNDREGS = 3
    BNDCSR = 4
    OPMASK = 5
    ZMM_HI256 = 6
    HI16_ZMM = 7
    PT = 8
    PKRU = 9
    PASID = 10
    CET_U = 11
    CET_S = 12
    HDC = 13
    UINTR = 14
    LBR = 15
    HWP = 16
    TILECFG = 17
    TILEDATA = 18
    APX = 19
    SCALEDATA = 20
    LWP = 62

    @property
    def mask(self) -> int:
        """The component's bit, `1 << number`."""
        return 1 << self

    @property
    def info(self) -> "ComponentInfo":
        """The component's row of the table."""
        return COMPONENTS[self]


class Requirement:
    """One legality rule of XCR0 that a component brings along (SDM1 13.3).

    `code` is the stable name of the rule, `needs` the bits that must be set with it and `excludes` the
    bits that must not.
    """

    __slots__ = ("code", "excludes", "needs")

    def __init__(self, code: str, needs: int = 0, excludes: int = 0) -> None:
        self.code = code
        self.needs = needs
        self.excludes = excludes

    def __repr__(self) -> str:
        return f"Requirement({self.code!r}, needs={self.needs:#x}, excludes={self.excludes:#x})"


class ComponentInfo:
    """One row: what the architecture fixes about a component.

    Attributes: `component`; `name` in the manual's spelling; `aliases`, other spellings accepted on input
    (Linux's, QEMU's, Xen's), lower case; `supervisor` (enabled in IA32_XSS, not XCR0); `size` in bytes;
    `align64` and `xfd`, whether its slot of the compacted format is aligned to 64 bytes and whether IA32_XFD
    can disable it (what a CPU enumerates rules; these stand in where nothing is enumerated);
    `requirements`, rules of XCR0; `features`, the CPUID bits of which any one exposes the component, as
    (leaf, subleaf, register, bit); `init`, the initial configuration as ((offset, bytes), ...) inside the
    component, zero elsewhere (SDM1 13.6); `rule`, a name for what the instructions do with this component beyond moving
    its bytes ("trace", "interrupts", "branches", "tile configuration", "tile data", "tile scale"; SDM1 13.5), or "".
    """

    __slots__ = (
        "aliases", "align64", "component", "features", "init", "name", "requirements", "rule", "size", "supervisor",
        "xfd",
    )

    def __init__(
        self,
        component: Component,
        name: str,
        aliases: str,
        size: int,
        *,
        supervisor: bool = False,
        align64: bool = False,
        xfd: bool = False,
        requirements: "tuple[Requirement, ...]" = (),
        features: "tuple[tuple[int, int, str, int], ...]" = (),
        init: "tuple[tuple[int, bytes], ...]" = (),
        rule: str = "",
    ) -> None:
        self.component = component
        self.name = name
        self.aliases = tuple(aliases.split())
        self.size = size
        self.supervisor = supervisor
        self.align64 = align64
        self.xfd = xfd
        self.requirements = requirements
        self.features = features
        self.init = init
        self.rule = rule

    def __repr__(self) -> str:
        kind = "supervisor" if self.supervisor else "user"
        return f"<component {int(self.component)} {self.name}: {self.size} bytes, {kind}>"

    def init_image(self) -> bytes:
        """The initial configuration as `size` bytes; for x87 and SSE the bytes of the legacy region's fields."""
        image = bytearray(self.size)
        for offset, data in self.init:
            image[offset : offset + len(data)] = data
        return bytes(image)


# Bits that rules of several rows name.
_SSE, _AVX, _MPX, _AVX512, _AMX, _APX = 1 << 1, 1 << 2, 3 << 3, 7 << 5, 3 << 17, 1 << 19

_R_AVX = (Requirement("R-AVX", needs=_SSE),)
_R_MPX = (Requirement("R-MPX", needs=_MPX),)
_R_AVX512 = (Requirement("R-AVX512", needs=_SSE | _AVX | _AVX512),)
_R_AMX = (Requirement("R-AMX", needs=_AMX),)
_F_AVX512 = ((7, 0, "ebx", 16),)
_F_MPX = ((7, 0, "ebx", 14),)
_F_CET = ((7, 0, "ecx", 7), (7, 0, "edx", 20))
_F_AMX = ((7, 0, "edx", 24),)
_C = Component

# Sizes: SDM1 13.5; x87 and SSE share the 512-byte legacy region and count their own bytes of it.
_ROWS = (
    ComponentInfo(_C.X87, "x87", "fp fpu mmx legacy_x87", 160, features=((1, 0, "edx", 24),),
                  init=((0, b"\x7f\x03"),)),
    ComponentInfo(_C.SSE, "SSE", "xmm", 256, features=((1, 0, "edx", 25),)),
    ComponentInfo(_C.AVX, "AVX", "ymm ymm_hi128 avx_state", 256, requirements=_R_AVX, features=((1, 0, "ecx", 28),)),
    ComponentInfo(_C.BNDREGS, "BNDREGS", "mpx_bndregs mpx_bound_registers", 64, requirements=_R_MPX, features=_F_MPX),
    ComponentInfo(_C.BNDCSR, "BNDCSR", "mpx_bndcsr mpx_csr", 64, requirements=_R_MPX, features=_F_MPX),
    ComponentInfo(_C.OPMASK, "opmask", "avx512_opmask k kregs", 64, requirements=_R_AVX512, features=_F_AVX512),
    ComponentInfo(_C.ZMM_HI256, "ZMM_Hi256", "zmmhi256 avx512_zmm_hi256 zmm_hi zmm", 512, requirements=_R_AVX512,
                  features=_F_AVX512),
    ComponentInfo(_C.HI16_ZMM, "Hi16_ZMM", "hi16zmm avx512_hi16_zmm avx512_zmm_hi16 hi_zmm", 1024,
                  requirements=_R_AVX512, features=_F_AVX512),
    ComponentInfo(_C.PT, "PT", "processor_trace pt_unimplemented rtit", 128, supervisor=True,
                  features=((7, 0, "ebx", 25),), rule="trace"),
    ComponentInfo(_C.PKRU, "PKRU", "pkey protection_keys pku", 8, features=((7, 0, "ecx", 3),)),
    ComponentInfo(_C.PASID, "PASID", "enqcmd", 8, supervisor=True, features=((7, 0, "ecx", 29),)),
    ComponentInfo(_C.CET_U, "CET_U", "cet_user control-flow_user", 16, supervisor=True, features=_F_CET),
    ComponentInfo(_C.CET_S, "CET_S", "cet_kernel cet_supervisor control-flow_kernel", 24, supervisor=True,
                  features=_F_CET),
    ComponentInfo(_C.HDC, "HDC", "hardware_duty_cycling", 8, supervisor=True, features=((6, 0, "eax", 13),),
                  init=((0, b"\x01"),)),
    ComponentInfo(_C.UINTR, "UINTR", "user_interrupts uli", 48, supervisor=True, features=((7, 0, "edx", 5),),
                  rule="interrupts"),
    ComponentInfo(_C.LBR, "LBR", "last_branch_records arch_lbr", 808, supervisor=True, features=((7, 0, "edx", 19),),
                  rule="branches"),
    ComponentInfo(_C.HWP, "HWP", "hardware_p-states", 8, supervisor=True, features=((6, 0, "eax", 7),),
                  init=((0, b"\x01\xff\x00\x80"),)),
    ComponentInfo(_C.TILECFG, "TILECFG", "xtilecfg xtile_cfg amx_tilecfg amx_config", 64, align64=True,
                  requirements=_R_AMX, features=_F_AMX, rule="tile configuration"),
    ComponentInfo(_C.TILEDATA, "TILEDATA", "xtiledata xtile_data amx_tiledata amx_data", 8192, align64=True, xfd=True,
                  requirements=_R_AMX, features=_F_AMX, rule="tile data"),
    ComponentInfo(_C.APX, "APX", "apx_egpr egpr apx_f", 128,
                  requirements=(Requirement("R-APX", excludes=_MPX),), features=((7, 1, "edx", 21),)),
    ComponentInfo(_C.SCALEDATA, "SCALEDATA", "ace bsr ace_scaledata", 128,
                  requirements=(Requirement("R-ACE", needs=_AMX),), features=((7, 1, "ecx", 11),),
                  init=((0, b"\x7f" * 128),), rule="tile scale"),
    ComponentInfo(_C.LWP, "LWP", "lightweight_profiling", 128, features=((0x80000001, 0, "ecx", 15),)),
)

COMPONENTS: "Final[Mapping[Component, ComponentInfo]]" = {row.component: row for row in _ROWS}
# Those that IA32_XSS enables, and those that XCR0 does.
SUPERVISOR = sum([row.component.mask for row in _ROWS if row.supervisor])
USER = sum([row.component.mask for row in _ROWS if not row.supervisor])

# Names of whole features that stand for several components on input.
_GROUPS = {
    "avx512": _AVX512,
    "avx-512": _AVX512,
    "mpx": _MPX,
    "amx": _AMX,
    "amx_tile": _AMX,
    "xtile": _AMX,
    "cet": 3 << 11,
    "none": 0,
}


def _names() -> "dict[str, int]":
    names = dict(_GROUPS)
    for row in _ROWS:
        for name in (row.name, row.component.name, *row.aliases):
            names[name.lower()] = row.component.mask
    return names


class ComponentMask(int):
    """A set of state components as the integer mask that XCR0, XSTATE_BV and their kin hold.

    It is an `int`; what it adds is parsing (`ComponentMask.parse`), iteration over `Component` and
    printing with names. Bits without a row of the table are kept and printed as `bit N`.
    """

    __slots__ = ()

    @classmethod
    def parse(cls, text: "str | int") -> "ComponentMask":
        """The mask that `text` names: `0xe7`, `231`, `1<<17`, `SSE|AVX`, `avx512`, `amx`.

        Terms are joined by `|`, `+`, `,` or blanks; names are those of the manual, Linux, QEMU and Xen,
        in any case. Raises: `ValueError` for an unknown name or a number outside 64 bits.
        """
        if isinstance(text, int):
            return cls._checked(text)
        value = 0
        terms = text.replace("|", " ").replace("+", " ").replace(",", " ").replace("<< ", "<<").replace(" <<", "<<")
        if not terms.split():
            raise ValueError("an empty mask: write 0 or none for no component")
        for term in terms.split():
            value |= cls._term(term)
        return cls._checked(value)

    @classmethod
    def _checked(cls, value: int) -> "ComponentMask":
        if not 0 <= value < 1 << 64:
            raise ValueError(f"mask {value:#x} does not fit 64 bits")
        return cls(value)

    @staticmethod
    def _term(term: str) -> int:
        known = _names().get(term.lower())
        if known is not None:
            return known
        base, _, shift = term.partition("<<")
        try:
            number = int(base, 0)
            bits = int(shift, 0) if shift else 0
        except ValueError:
            raise ValueError(f"unknown component or mask {term!r}{_suggestion(term)}") from None
        if not 0 <= bits < 64:
            raise ValueError(f"mask {term!r}: shift outside 0..63")
        return number << bits

    @property
    def components(self) -> "tuple[Component, ...]":
        """The set bits that the table knows, ascending."""
        return tuple([row.component for row in _ROWS if self >> row.component & 1])

    @property
    def names(self) -> "tuple[str, ...]":
        """A name for every set bit, ascending, in the manual's spelling; `bit N` where there is no row."""
        # Of a list: a tuple that grows is cut to size and then fills the interpreter's free lists, 200 KB of them.
        return tuple(
            [
                COMPONENTS[Component(bit)].name if bit in COMPONENTS else f"bit {bit}"
                for bit in range(64)
                if self >> bit & 1
            ]
        )

    def __iter__(self) -> "Iterator[Component]":
        return iter(self.components)

    def __contains__(self, component: object) -> bool:
        return isinstance(component, int) and 0 <= component < 64 and bool(self >> component & 1)

    def __str__(self) -> str:
        return f"{int(self):#x} ({' '.join(self.names) or 'none'})"

    def __repr__(self) -> str:
        return f"ComponentMask({int(self):#x})"

    def __format__(self, spec: str) -> str:
        return format(int(self), spec) if spec else str(self)


def _suggestion(term: str) -> str:
    from difflib import get_close_matches

    close = get_close_matches(term.lower(), _names(), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
