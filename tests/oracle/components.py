"""The state components: sizes, initial configurations, registers (SDM1 13.1, 13.4-13.6)."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

Value: TypeAlias = int | bytes
Values: TypeAlias = dict[str, Value]
Slots: TypeAlias = dict[int, tuple[int, int]]  # component -> (offset in the area, size)
Fault: TypeAlias = tuple[str, str, int]  # (exception, rule, byte offset)

STANDARD = "standard"
COMPACTED = "compacted"

LEGACY_SIZE = 512
AREA_MIN = 576  # legacy region and header (SDM1 13.4)
XSTATE_BV, XCOMP_BV = 512, 520  # offsets in the area (SDM1 13.4.2)
ALL = (1 << 64) - 1
BIT63 = 1 << 63
MXCSR_INIT = 0x1F80

X87, SSE, AVX, BNDREGS, BNDCSR, OPMASK, ZMM_HI256, HI16_ZMM, PT, PKRU = range(10)
PASID, CET_U, CET_S, HDC, UINTR, LBR, HWP, TILECFG, TILEDATA, APX, SCALEDATA = range(10, 21)
LWP = 62


def has(mask: int, component: int) -> bool:
    return bool(mask >> component & 1)


def bits(mask: int) -> list[int]:
    """The components of a bitmap, ascending. Bit 63 is never a component."""
    return [i for i in range(63) if has(mask, i)]


def u64(area: bytes | bytearray, offset: int) -> int:
    return int.from_bytes(area[offset : offset + 8], "little")


class Component(NamedTuple):
    name: str
    size: int  # bytes that belong to it; of x87 and SSE, in the legacy region
    supervisor: bool
    align64: bool
    xfd: bool
    initial: bytes  # x87 and SSE: as an image of the whole legacy region


def _zeros(name: str, size: int, kind: str = "user", *, align64: bool = False) -> Component:
    return Component(name, size, kind == "supervisor", align64, name == "TILEDATA", bytes(size))


X87_INITIAL = (0x037F).to_bytes(2, "little") + bytes(LEGACY_SIZE - 2)  # FCW; all else 0, tags empty

COMPONENTS: dict[int, Component] = {
    X87: Component("x87", 24 + 128, False, False, False, X87_INITIAL),
    # MXCSR has rules of its own and is no part of SSE's initial configuration.
    SSE: Component("SSE", 8 + 256, False, False, False, bytes(LEGACY_SIZE)),
    AVX: _zeros("AVX", 256),
    BNDREGS: _zeros("BNDREGS", 64),
    BNDCSR: _zeros("BNDCSR", 64),
    OPMASK: _zeros("opmask", 64),
    ZMM_HI256: _zeros("ZMM_Hi256", 512),
    HI16_ZMM: _zeros("Hi16_ZMM", 1024),
    PT: _zeros("PT", 128, "supervisor"),
    PKRU: _zeros("PKRU", 8),
    PASID: _zeros("PASID", 8, "supervisor"),
    CET_U: _zeros("CET_U", 16, "supervisor"),
    CET_S: _zeros("CET_S", 24, "supervisor"),
    HDC: Component("HDC", 8, True, False, False, (1).to_bytes(8, "little")),  # IA32_PM_CTL1 = 1
    UINTR: _zeros("UINTR", 48, "supervisor"),
    # IA32_LBR_DEPTH is no part of LBR's initial configuration.
    LBR: _zeros("LBR", 808, "supervisor"),
    HWP: Component("HWP", 8, True, False, False, (0x8000FF01).to_bytes(8, "little")),
    TILECFG: _zeros("TILECFG", 64, align64=True),
    TILEDATA: _zeros("TILEDATA", 8192, align64=True),
    APX: _zeros("APX", 128),
    SCALEDATA: Component("SCALEDATA", 128, False, False, False, b"\x7f" * 128),
    LWP: _zeros("LWP", 128),
}

# Where the registers of a component lie in it: (name, offset, width, is it an integer). x87 offsets
# are those of the legacy region. SSE, AVX, ZMM_Hi256 and Hi16_ZMM are not here: see vector().
Field: TypeAlias = tuple[str, int, int, bool]


def _u64s(*names: str) -> list[Field]:
    return [(name, 8 * i, 8, True) for i, name in enumerate(names)]


FIELDS: dict[int, list[Field]] = {
    X87: [  # SDM1 13.5.1; ftw is the abridged tag byte
        ("fcw", 0, 2, True),
        ("fsw", 2, 2, True),
        ("ftw", 4, 1, True),
        ("fop", 6, 2, True),
        ("fip", 8, 8, True),
        ("fdp", 16, 8, True),
        *[(f"st{j}", 32 + 16 * j, 10, False) for j in range(8)],
    ],
    OPMASK: _u64s(*[f"k{i}" for i in range(8)]),  # 13.5.5
    PKRU: [("pkru", 0, 4, True)],  # 13.5.7; bytes 4-7 are unused
    BNDREGS: [(f"bnd{i}", 16 * i, 16, False) for i in range(4)],  # 13.5.4
    BNDCSR: _u64s("bndcfgu", "bndstatus"),
    TILECFG: [("tilecfg", 0, 64, False)],  # 13.5.14
    TILEDATA: [(f"tmm{i}", 1024 * i, 1024, False) for i in range(8)],
    APX: _u64s(*[f"r{i}" for i in range(16, 32)]),
    PASID: _u64s("IA32_PASID"),  # 13.5.8
    CET_U: _u64s("IA32_U_CET", "IA32_PL3_SSP"),  # 13.5.9
    CET_S: _u64s("IA32_PL0_SSP", "IA32_PL1_SSP", "IA32_PL2_SSP"),
    HDC: _u64s("IA32_PM_CTL1"),  # 13.5.10
    UINTR: _u64s(  # 13.5.11; bit 63 of MISC is UIF, a register of its own
        "IA32_UINTR_HANDLER",
        "IA32_UINTR_STACKADJUST",
        "IA32_UINTR_MISC",
        "IA32_UINTR_PD",
        "IA32_UINTR_RR",
        "IA32_UINTR_TT",
    ),
    PT: _u64s(  # 13.5.6; bytes 72-127 are reserved
        "IA32_RTIT_CTL",
        "IA32_RTIT_OUTPUT_BASE",
        "IA32_RTIT_OUTPUT_MASK_PTRS",
        "IA32_RTIT_STATUS",
        "IA32_RTIT_CR3_MATCH",
        "IA32_RTIT_ADDR0_A",
        "IA32_RTIT_ADDR0_B",
        "IA32_RTIT_ADDR1_A",
        "IA32_RTIT_ADDR1_B",
    ),
    LBR: _u64s(  # 13.5.12
        "IA32_LBR_CTL",
        "IA32_LBR_DEPTH",
        "IA32_LER_FROM_IP",
        "IA32_LER_TO_IP",
        "IA32_LER_INFO",
        *[f"IA32_LBR_{i}_{part}" for i in range(32) for part in ("FROM_IP", "TO_IP", "INFO")],
    ),
    HWP: _u64s("IA32_HWP_REQUEST"),  # 13.5.13
    SCALEDATA: [("bsr0", 0, 128, False)],
    LWP: [("lwp", 0, 128, False)],
}

COMPONENT_OF = {name: c for c, fields in FIELDS.items() for name, *_ in fields} | {"uif": UINTR}
