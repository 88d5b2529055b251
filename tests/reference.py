"""A slow, independent model of XSAVE areas and of the instructions that move them.

This file is the judge of the compiled kernels, so it shares nothing with them: it imports only the
standard library, spells every rule out where it applies, and prefers the obvious to the quick.
Sections are those of the Intel SDM, volume 1 (SDM1). Where silicon settled what the manual leaves
open, the comment says "measured".

Words: `cpu` is a name in CPUS or a CpuTable; `mask` is a component bitmap; `fmt` is STANDARD or
COMPACTED; a register state is a dict name -> int | bytes. The instructions live next door, in
reference_insn.py; their class is also reachable as reference.Cpu.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from random import Random
from typing import TYPE_CHECKING, NamedTuple, TypeAlias, TypedDict

if TYPE_CHECKING:
    from reference_insn import Cpu as Cpu

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


# --- 1. The components (SDM1 13.1, 13.5, 13.6) ------------------------------------------------


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


# --- 2. The CPUs (CPUID leaf 0DH as published dumps show it) ------------------------------------


# From component 2 up: (size, standard offset, align64 in the compacted format).
Rows: TypeAlias = dict[int, tuple[int, int | None, bool]]


class CpuTable(TypedDict):
    components: Rows
    xcr0: int
    xss: int
    vendor: str
    mxcsr_mask: int
    d1eax: int  # CPUID.(0DH,1):EAX: [0] XSAVEOPT [1] XSAVEC [2] XGETBV(1) [3] XSAVES [4] XFD
    profile: str  # how it behaves where the manual leaves it open: intel, amd-zen5, amd-legacy


SUPERVISOR_ROWS: Rows = {  # no place in the standard format
    8: (128, None, False),
    10: (8, None, False),
    11: (16, None, False),
    12: (24, None, False),
    13: (8, None, False),
    14: (48, None, False),
    15: (808, None, False),
    16: (8, None, False),
}
INTEL_ROWS: Rows = {
    2: (256, 576, False),
    3: (64, 960, False),
    4: (64, 1024, False),
    5: (64, 1088, False),
    6: (512, 1152, False),
    7: (1024, 1664, False),
    9: (8, 2688, False),
    17: (64, 2752, True),
    18: (8192, 2816, True),
    19: (128, 960, False),  # out of bit order, in the hole that MPX left
    **SUPERVISOR_ROWS,
}
AMD_ROWS: Rows = {
    2: (256, 576, False),
    5: (64, 832, False),
    6: (512, 896, False),
    7: (1024, 1408, False),
    9: (8, 2432, False),
    **SUPERVISOR_ROWS,
}
# Zen 2 has a PKRU of 64 bytes where its ancestors had LWP.
ROME_ROWS: Rows = {2: (256, 576, False), 9: (64, 832, False)}
BULLDOZER_ROWS: Rows = {2: (256, 576, False), 62: (128, 832, False)}


def _cpu(vendor: str, rows: Rows, xcr0: int, xss: int, d1eax: int, profile: str) -> CpuTable:
    return {
        "components": {i: rows[i] for i in bits(xcr0 | xss) if i >= 2},
        "xcr0": xcr0,
        "xss": xss,
        "vendor": vendor,
        "mxcsr_mask": 0x2FFFF if vendor == "AuthenticAMD" else 0xFFFF,  # AMD: bit 17 is MM
        "d1eax": d1eax,
        "profile": profile,
    }


def _intel(xcr0: int, xss: int, d1eax: int) -> CpuTable:
    return _cpu("GenuineIntel", INTEL_ROWS, xcr0, xss, d1eax, "intel")


def _amd(rows: Rows, xcr0: int, xss: int, d1eax: int, profile: str = "amd-zen5") -> CpuTable:
    return _cpu("AuthenticAMD", rows, xcr0, xss, d1eax, profile)


CPUS: dict[str, CpuTable] = {
    "Penryn": _intel(0x3, 0, 0),
    "SandyBridge": _intel(0x7, 0, 0x1),
    "KnightsLanding": _intel(0xE7, 0, 0x1),
    "Goldmont": _intel(0x1B, 0x100, 0xF),
    "Skylake-Client": _intel(0x1F, 0x100, 0xF),
    "Skylake-Server": _intel(0x2FF, 0x100, 0xF),
    "Icelake-Server": _intel(0x2E7, 0x100, 0xF),
    "Icelake-Client": _intel(0x2E7, 0x2100, 0xF),
    "TigerLake": _intel(0x2E7, 0x3900, 0xF),
    "AlderLake": _intel(0x207, 0x19900, 0xF),
    "LunarLake": _intel(0x207, 0x1D900, 0xF),
    "SapphireRapids": _intel(0x602E7, 0xDD00, 0x1F),
    "GraniteRapids": _intel(0x602E7, 0x1DD00, 0x1F),
    "DiamondRapids": _intel(0xE02E7, 0x1DD00, 0x1F),
    "Intel-AMX-guest": _intel(0x600E7, 0, 0x1F),
    "KX-7000": _cpu("  Shanghai  ", INTEL_ROWS, 0x207, 0x10000, 0xF, "intel"),
    "Bulldozer": _amd(BULLDOZER_ROWS, 1 << 62 | 0x7, 0, 0, "amd-legacy"),
    "EPYC-Naples": _amd(AMD_ROWS, 0x7, 0, 0xF),
    "EPYC-Rome": _amd(ROME_ROWS, 0x207, 0, 0xF),
    "EPYC-Milan": _amd(AMD_ROWS, 0x207, 0x1800, 0xF),
    "EPYC-Genoa": _amd(AMD_ROWS, 0x2E7, 0x1800, 0xF),
    "EPYC-Turin": _amd(AMD_ROWS, 0x2E7, 0x1800, 0xF),
    "Zen5-guest": _amd(AMD_ROWS, 0xE7, 0x1800, 0xF),
}


def cpu_table(cpu: str | CpuTable) -> CpuTable:
    return CPUS[cpu] if isinstance(cpu, str) else cpu


def cpu_from_cpuid(leaves: Mapping[tuple[int, int], tuple[int, int, int, int]]) -> CpuTable:
    """A table from CPUID text (SDM1 13.2): {(leaf, sub-leaf): (EAX, EBX, ECX, EDX)}."""
    absent = (0, 0, 0, 0)
    d0, d1 = leaves[0xD, 0], leaves.get((0xD, 1), absent)
    xcr0, xss = d0[0] | d0[3] << 32, d1[2] | d1[3] << 32
    rows: Rows = {}
    for i in bits(xcr0 | xss):
        if i >= 2:
            size, offset, flags, _ = leaves[0xD, i]
            rows[i] = (size, None if has(flags, 0) else offset, has(flags, 1))
    vendor = b"".join(leaves[0, 0][r].to_bytes(4, "little") for r in (1, 3, 2)).decode("ascii")
    profile = "intel"
    if vendor in ("AuthenticAMD", "HygonGenuine"):  # XSaveErPtr tells the two apart
        profile = "amd-zen5" if has(leaves.get((0x80000008, 0), absent)[1], 2) else "amd-legacy"
    table = _cpu(vendor, rows, xcr0, xss, d1[0], profile)
    table["mxcsr_mask"] = 0xFFFF if profile == "intel" else 0x2FFFF
    return table


# --- 3. Layouts (SDM1 13.4) ---------------------------------------------------------------------


def _row(cpu: str | CpuTable, component: int) -> tuple[int, int | None, bool]:
    rows = cpu_table(cpu)["components"]
    if component not in rows:
        raise ValueError(f"this CPU has no component {component}")
    return rows[component]


def standard_offsets(cpu: str | CpuTable, mask: int) -> Slots:
    """Offset and size of every component of `mask` from 2 up, standard format (SDM1 13.4.3)."""
    slots: Slots = {}
    for i in bits(mask):
        if i >= 2:
            size, offset, _ = _row(cpu, i)
            if offset is None:
                raise ValueError(f"supervisor component {i} has no place in the standard format")
            slots[i] = (offset, size)
    return slots


def standard_size(cpu: str | CpuTable, mask: int) -> int:
    """The furthest end, not the end of the highest-numbered component: 19 and 62 lie low."""
    slots = standard_offsets(cpu, mask)
    return max([AREA_MIN] + [offset + size for offset, size in slots.values()])


def compacted_offsets(cpu: str | CpuTable, mask: int) -> tuple[Slots, int]:
    """The same for the compacted format with XCOMP_BV[62:0] = mask, and the total size."""
    slots: Slots = {}
    position = AREA_MIN
    for i in bits(mask):
        if i >= 2:
            size, _, align64 = _row(cpu, i)
            if align64:
                while position % 64 != 0:
                    position += 1
            slots[i] = (position, size)
            position += size
    return slots, position


def layout(cpu: str | CpuTable, mask: int, fmt: str) -> tuple[Slots, int]:
    """Slots and total size. x87 and SSE get the whole legacy region as their slot."""
    if fmt == STANDARD:
        slots, size = standard_offsets(cpu, mask), standard_size(cpu, mask)
    elif fmt == COMPACTED:
        slots, size = compacted_offsets(cpu, mask)
    else:
        raise ValueError(f"no such format: {fmt!r}")
    slots.update({i: (0, LEGACY_SIZE) for i in (X87, SSE) if has(mask, i)})
    return slots, size


# --- 4. The header (SDM1 13.4.2, 13.8) ----------------------------------------------------------


def _first_nonzero(area: bytes | bytearray, start: int, end: int) -> int | None:
    for offset in range(start, end):
        if area[offset] != 0:
            return offset
    return None


def header_faults(
    area: bytes | bytearray, cpu: str | CpuTable, fmt: str, allowed: int
) -> list[tuple[str, int]]:
    """Every rule that the header breaks, as (rule, byte offset), in the order of checking.

    `allowed` is XCR0 for XRSTOR, XCR0 | IA32_XSS for XRSTORS. RFBM plays no part: the rules hold
    even for EDX:EAX = 0 (measured). A CPU without compaction takes every header as a standard one.
    """
    if len(area) < AREA_MIN:
        raise ValueError(f"an area has at least {AREA_MIN} bytes, this one {len(area)}")
    xstate_bv, xcomp_bv = u64(area, XSTATE_BV), u64(area, XCOMP_BV)
    faults: list[tuple[str, int]] = []
    if fmt == STANDARD or not has(cpu_table(cpu)["d1eax"], 1):  # 13.8.1
        if xstate_bv & ~allowed:
            faults.append(("std-xstate-bv", XSTATE_BV))
        if xcomp_bv != 0:
            faults.append(("std-xcomp-bv", XCOMP_BV))
        # Header bytes 16-23. Bytes 24-63 are not checked in this format (measured).
        reserved = _first_nonzero(area, 528, 536)
        if reserved is not None:
            faults.append(("std-reserved", reserved))
        return faults
    if not xcomp_bv & BIT63:  # 13.8.2, 13.12
        faults.append(("cmp-format-bit", XCOMP_BV))
    if xcomp_bv & ~BIT63 & ~allowed:
        faults.append(("cmp-xcomp-bv", XCOMP_BV))
    # Bit 63 of XSTATE_BV faults though bit 63 of XCOMP_BV is set (measured on both makes).
    if xstate_bv & ~(xcomp_bv & ~BIT63):
        faults.append(("cmp-xstate-bv", XSTATE_BV))
    reserved = _first_nonzero(area, 528, 576)
    if reserved is not None:
        faults.append(("cmp-reserved", reserved))
    return faults


# --- 5. Registers and their names ---------------------------------------------------------------


def registers(mask: int, fmt: str) -> list[str]:
    """The registers that a layout of this mask and format holds, in the order of decode."""

    def of(component: int) -> list[str]:
        return [name for name, *_ in FIELDS[component]] if has(mask, component) else []

    names = of(X87)[:6]
    # MXCSR belongs to SSE; the standard format also keeps it for AVX (SDM1 13.5.2, 13.7).
    if has(mask, SSE) or (fmt == STANDARD and has(mask, AVX)):
        names += ["mxcsr", "mxcsr_mask"]
    names += of(X87)[6:]
    for component, prefix in ((ZMM_HI256, "zmm"), (AVX, "ymm"), (SSE, "xmm")):
        if has(mask, component):
            names += [f"{prefix}{n}" for n in range(16)]
            break
    if has(mask, HI16_ZMM):
        names += [f"zmm{n}" for n in range(16, 32)]
    names += of(OPMASK) + of(PKRU) + of(BNDREGS) + of(BNDCSR)
    names += of(TILECFG) + of(TILEDATA) + of(APX)
    names += of(PASID) + of(CET_U) + of(CET_S) + of(HDC)
    if has(mask, UINTR):
        names += ["uif", *of(UINTR)]
    names += of(PT) + of(LBR) + of(HWP) + of(SCALEDATA) + of(LWP)
    return names


VECTOR_SIZES = {"zmm": 64, "ymm": 32, "xmm": 16}


def vector_number(name: str) -> int | None:
    """17 for xmm17, ymm17 and zmm17; None if the name is not a vector register's."""
    if name[:3] in VECTOR_SIZES and name[3:] in [str(n) for n in range(32)]:
        return int(name[3:])
    return None


def vector(values: Mapping[str, Value], n: int) -> bytes:
    """Vector register n in all its 64 bytes, under whichever name it is there; missing parts are 0."""
    for prefix, size in VECTOR_SIZES.items():
        if f"{prefix}{n}" in values:
            return as_bytes(values[f"{prefix}{n}"], size).ljust(64, b"\0")
    return bytes(64)


# Which bytes of the 64 each vector component keeps, for which registers, and where its first one
# lies in the component (SSE: in the legacy region). SDM1 13.5.2, 13.5.3, 13.5.5.
VECTOR_PIECES: dict[int, tuple[range, int, int, int]] = {
    SSE: (range(16), 0, 16, 160),
    AVX: (range(16), 16, 32, 0),
    ZMM_HI256: (range(16), 32, 64, 0),
    HI16_ZMM: (range(16, 32), 0, 64, 0),
}


def components_of(name: str) -> list[int]:
    """The components that a register lies in; MXCSR lies in none (it follows its own rules)."""
    if name in ("mxcsr", "mxcsr_mask"):
        return []
    n = vector_number(name)
    if n is None:
        if name not in COMPONENT_OF:
            raise ValueError(f"no such register: {name}")
        return [COMPONENT_OF[name]]
    if n >= 16:
        return [HI16_ZMM]
    return {"xmm": [SSE], "ymm": [SSE, AVX], "zmm": [SSE, AVX, ZMM_HI256]}[name[:3]]


def as_bytes(value: Value, size: int) -> bytes:
    if not isinstance(value, bytes) or len(value) != size:
        raise ValueError(f"expected {size} bytes, have {value!r}")
    return value


def as_int(value: Value) -> int:
    if not isinstance(value, int):
        raise TypeError(f"expected an integer, have {value!r}")
    return value


def component_bytes(values: Mapping[str, Value], component: int) -> bytes:
    """The image of one component; registers that `values` lacks have their initial values."""
    image = bytearray(COMPONENTS[component].initial)
    if component in VECTOR_PIECES:
        numbers, start, end, position = VECTOR_PIECES[component]
        for n in numbers:
            image[position : position + end - start] = vector(values, n)[start:end]
            position += end - start
        return bytes(image)
    for name, offset, width, integer in FIELDS[component]:
        if name == "IA32_UINTR_MISC":
            misc, uif = as_int(values.get(name, 0)), as_int(values.get("uif", 0))
            if misc >> 63 or uif >> 1:
                raise ValueError("UIF is bit 63 of the field, a register of its own, and one bit")
            image[offset : offset + 8] = (misc | uif << 63).to_bytes(8, "little")
        elif name in values and integer:
            image[offset : offset + width] = as_int(values[name]).to_bytes(width, "little")
        elif name in values:
            image[offset : offset + width] = as_bytes(values[name], width)
    return bytes(image)


def component_values(image: bytes | bytearray, component: int) -> Values:
    """The inverse, for every component but those of the vector registers."""
    values: Values = {}
    for name, offset, width, integer in FIELDS[component]:
        raw = bytes(image[offset : offset + width])
        values[name] = int.from_bytes(raw, "little") if integer else raw
    if component == UINTR:
        misc = as_int(values["IA32_UINTR_MISC"])
        values["uif"] = misc >> 63
        values["IA32_UINTR_MISC"] = misc & ~BIT63
    return values


# --- 6. Area <-> register state -----------------------------------------------------------------


def decode(area: bytes | bytearray, cpu: str | CpuTable, mask: int, fmt: str) -> Values:
    """Every register of the layout. XCOMP_BV is not looked at: `mask` and `fmt` rule.

    A component whose XSTATE_BV bit is clear has its initial values, whatever lies in its slot.
    """
    slots, size = layout(cpu, mask, fmt)
    if len(area) < size:
        raise ValueError(f"expected at least {size} bytes, have {len(area)}")
    xstate_bv = u64(area, XSTATE_BV)
    images: dict[int, bytes] = {}
    for i, (offset, length) in slots.items():
        images[i] = COMPONENTS[i].initial
        if has(xstate_bv, i):
            images[i] = bytes(area[offset : offset + length])

    found: Values = {}
    for i, image in images.items():
        if i not in VECTOR_PIECES:
            found.update(component_values(image, i))

    # Vector registers are put together from the pieces that the layout holds; the others are 0.
    wide = {n: bytearray(64) for n in range(32)}
    for i, (numbers, start, end, position) in VECTOR_PIECES.items():
        if i in images:
            for n in numbers:
                wide[n][start:end] = images[i][position : position + end - start]
                position += end - start
    for n in range(32):
        for prefix, width in VECTOR_SIZES.items():
            found[f"{prefix}{n}"] = bytes(wide[n][:width])

    # The standard format takes MXCSR from memory whatever XSTATE_BV says (SDM1 13.8.1); the
    # compacted one treats it as a part of SSE (13.8.2).
    if fmt == STANDARD or has(xstate_bv, SSE):
        found["mxcsr"] = int.from_bytes(area[24:28], "little")
        found["mxcsr_mask"] = int.from_bytes(area[28:32], "little")
    else:
        found["mxcsr"] = MXCSR_INIT
        found["mxcsr_mask"] = cpu_table(cpu)["mxcsr_mask"]
    return {name: found[name] for name in registers(mask, fmt)}


def named_components(values: Mapping[str, Value], mask: int, fmt: str) -> int:
    """The components of the layout that have a register in `values`. ValueError for a register
    that the layout lacks, that is named twice (xmm0 and zmm0), or of which the layout would drop
    bytes other than 0. MXCSR counts for SSE in the compacted format unless it is 1F80H."""
    found = 0
    seen: set[int] = set()
    for name, value in values.items():
        homes = components_of(name)
        if name in ("mxcsr", "mxcsr_mask"):
            if name not in registers(mask, fmt):
                raise ValueError(f"the layout holds no {name}")
            if name == "mxcsr" and fmt == COMPACTED and value != MXCSR_INIT:
                found |= 1 << SSE
        elif not any(has(mask, i) for i in homes):
            raise ValueError(f"the layout holds no {name}")
        n = vector_number(name)
        if n is not None:
            if n in seen:
                raise ValueError(f"vector register {n} is given twice")
            seen.add(n)
            for i in homes:
                _, start, end, _ = VECTOR_PIECES[i]
                if not has(mask, i) and any(vector({name: value}, n)[start:end]):
                    raise ValueError(f"the layout holds no {COMPONENTS[i].name} part of {name}")
        for i in homes:
            found |= 1 << i & mask
    return found


LEGACY_EXTENTS = {X87: [(0, 24), (32, 128)], SSE: [(160, 256)]}  # without MXCSR and MXCSR_MASK


def encode(
    values: Mapping[str, Value],
    cpu: str | CpuTable,
    mask: int,
    fmt: str,
    xstate_bv: int | None = None,
    base: bytes | None = None,
) -> bytes:
    """An area of exactly the layout's size.

    XSTATE_BV has the components named in `values`, or is `xstate_bv`; values of other components
    then do not count. The slot of a component in use is written whole. Others hold initial values
    in the standard format, as plain XSAVE would write, and zeros in the compacted format; or, with
    `base` (an area's worth of old bytes), they and all gaps stay as in `base`: stale bytes.
    """
    slots, size = layout(cpu, mask, fmt)
    named = named_components(values, mask, fmt)
    in_use = named if xstate_bv is None else xstate_bv
    if in_use & ~mask:
        raise ValueError(f"XSTATE_BV {in_use:#x} is not a subset of {mask:#x}")
    if base is not None and len(base) != size:
        raise ValueError(f"expected a base of {size} bytes, have {len(base)}")
    area = bytearray(size) if base is None else bytearray(base)

    for i, (start, length) in slots.items():
        if has(in_use, i):
            image = component_bytes(values, i)
        elif fmt == STANDARD and base is None:
            image = COMPONENTS[i].initial
        else:
            continue
        image = image.ljust(length, b"\0")  # PKRU has 64 bytes on some CPUs
        for offset, count in LEGACY_EXTENTS.get(i, [(0, length)]):
            area[start + offset : start + offset + count] = image[offset : offset + count]

    if fmt == STANDARD:
        mxcsr_too = has(mask, SSE) or has(mask, AVX)
    else:
        mxcsr_too = has(in_use, SSE)
    if mxcsr_too:
        default = cpu_table(cpu)["mxcsr_mask"]
        area[24:28] = as_int(values.get("mxcsr", MXCSR_INIT)).to_bytes(4, "little")
        area[28:32] = as_int(values.get("mxcsr_mask", default)).to_bytes(4, "little")

    area[XSTATE_BV:AREA_MIN] = bytes(64)
    area[XSTATE_BV : XSTATE_BV + 8] = in_use.to_bytes(8, "little")
    if fmt == COMPACTED:
        area[XCOMP_BV : XCOMP_BV + 8] = (mask | BIT63).to_bytes(8, "little")
    return bytes(area)


def non_initial(values: Mapping[str, Value]) -> int:
    """The components whose registers differ from the initial configuration (SDM1 13.6).

    MXCSR is no part of that of SSE, IA32_LBR_DEPTH none of that of LBR.
    """
    found = 0
    for i, row in COMPONENTS.items():
        image = bytearray(component_bytes(values, i))
        if i == LBR:
            image[8:16] = bytes(8)
        if image != row.initial:
            found |= 1 << i
    return found


def same_state(values_a: Mapping[str, Value], values_b: Mapping[str, Value]) -> bool:
    """The same architectural state? A register that one side lacks has its initial value there,
    and a vector register is the same under its wide and its narrow name. MXCSR_MASK is no state."""
    for name in (*values_a, *values_b):
        components_of(name)  # ValueError for a name that is none
    if values_a.get("mxcsr", MXCSR_INIT) != values_b.get("mxcsr", MXCSR_INIT):
        return False
    return all(component_bytes(values_a, i) == component_bytes(values_b, i) for i in COMPONENTS)


# --- 7. Rules for values (SDM1 13.5; what a restore accepts and makes of them) -------------------


def restored_fcw(fcw: int) -> int:
    return fcw & 0x1F3F | 0x40  # measured


def restored_fsw(fsw: int, fcw: int) -> int:
    """ES (bit 7) and B (bit 15) follow from the flags and the masks (measured)."""
    pending = fsw & ~fcw & 0x3F
    return fsw & 0x7F7F | (0x8080 if pending else 0)


def sign_extended(value: int, width: int) -> int:
    """The low `width` bits, with the highest of them copied up to bit 63."""
    value &= (1 << width) - 1
    return value | (ALL & ~((1 << width) - 1) if has(value, width - 1) else 0)


def tilecfg_is_legal(image: bytes) -> bool:
    """Palette 1, and LDTILECFG takes it (SDM2, LDTILECFG). start_row may be anything."""
    reserved = image[2:16] + image[32:48] + image[56:64]
    if image[0] != 1 or any(reserved):
        return False
    for t in range(8):
        colsb = int.from_bytes(image[16 + 2 * t : 18 + 2 * t], "little")
        rows = image[48 + t]
        if colsb > 64 or rows > 16 or (rows == 0) != (colsb == 0):
            return False
    return True


def supervisor_value_fault(name: str, value: int, linear_bits: int) -> str | None:
    """The rule on which WRMSR of this value, hence XRSTORS, would #GP; None if there is none."""
    canonical = value == sign_extended(value, linear_bits)
    if name == "IA32_U_CET":
        if value & 0x3C0:
            return "u-cet-reserved"
        if value >> 10 & 3 == 3:
            return "u-cet-suppress-and-tracker"
    if name in ("IA32_PL0_SSP", "IA32_PL1_SSP", "IA32_PL2_SSP", "IA32_PL3_SSP") and value & 3:
        return "ssp-alignment"
    if name == "IA32_UINTR_MISC":
        return "uintr-misc-reserved" if value >> 40 else None
    if name == "IA32_UINTR_PD" and value & 0x3F:
        return "uintr-pd-alignment"
    if name == "IA32_UINTR_TT" and value & 0xE:
        return "uintr-tt-reserved"
    if name == "IA32_LBR_DEPTH":
        return None if value in (8, 16, 24, 32) else "lbr-depth"
    must_be_canonical = (
        "IA32_U_CET",
        "IA32_PL0_SSP",
        "IA32_PL1_SSP",
        "IA32_PL2_SSP",
        "IA32_PL3_SSP",
        "IA32_UINTR_HANDLER",
        "IA32_UINTR_STACKADJUST",
        "IA32_UINTR_PD",
        "IA32_UINTR_TT",
    )
    return "not-canonical" if name in must_be_canonical and not canonical else None


# --- 8. Random states ---------------------------------------------------------------------------


def _random_value(rng: Random, name: str) -> Value:
    """A value that a restore accepts and keeps (FSW apart: it depends on FCW)."""
    address = rng.getrandbits(47)  # canonical everywhere
    if name == "mxcsr":
        return rng.getrandbits(16)  # bit 17 is legal on AMD only
    if name == "fcw":
        return restored_fcw(rng.getrandbits(16))
    if name in ("fip", "fdp"):
        return address
    if name == "tilecfg":
        if rng.random() < 0.25:
            return bytes(64)
        shapes = [rng.choice([(0, 0), (rng.randint(1, 64), rng.randint(1, 16))]) for _ in range(8)]
        colsb = b"".join(c.to_bytes(2, "little") for c, _ in shapes)
        rows = bytes(r for _, r in shapes)
        return bytes([1, rng.randint(0, 255)]) + bytes(14) + colsb + bytes(16) + rows + bytes(8)
    if name[:2] == "st":
        return rng.randbytes(10)
    if name[:3] == "tmm":
        return rng.randbytes(1024)
    if name in ("bsr0", "lwp"):
        return rng.randbytes(128)
    if name[:3] in VECTOR_SIZES:
        return rng.randbytes(VECTOR_SIZES[name[:3]])
    if name in ("bnd0", "bnd1", "bnd2", "bnd3"):
        return rng.randbytes(16)
    narrow = {"fsw": 16, "ftw": 8, "fop": 11, "pkru": 32, "uif": 1, "IA32_PM_CTL1": 1}
    if name in narrow:
        return rng.getrandbits(narrow[name])
    if name == "bndcfgu":
        return address & ~0xFFC
    if name == "IA32_PASID":
        return rng.getrandbits(20) | 1 << 31
    if name == "IA32_U_CET":
        return address & ~0xBFF | rng.getrandbits(6)
    if name in ("IA32_PL0_SSP", "IA32_PL1_SSP", "IA32_PL2_SSP", "IA32_PL3_SSP"):
        return address & ~3
    if name == "IA32_UINTR_MISC":
        return rng.getrandbits(40)
    if name == "IA32_UINTR_PD":
        return address & ~0x3F
    if name == "IA32_UINTR_TT":
        return address & ~0xE
    if name == "IA32_RTIT_CTL":
        return rng.getrandbits(14) & ~1  # TraceEn = 0
    if name == "IA32_RTIT_OUTPUT_MASK_PTRS":
        return rng.getrandbits(32) << 32 | 0x7F
    if name == "IA32_LBR_CTL":
        return rng.getrandbits(7) << 16 | rng.getrandbits(4)
    if name == "IA32_LBR_DEPTH":
        return 32
    if name == "IA32_HWP_REQUEST":
        return rng.getrandbits(32)
    if name[:4] == "IA32" and name != "IA32_UINTR_RR":
        return address & ~0x7F
    return rng.getrandbits(64)  # k0-7, r16-31, bndstatus, IA32_UINTR_RR


def random_state(
    rng: Random, mask: int, fmt: str = "any", sparse: float = 0.0, *, pending_pointers: bool = False
) -> Values:
    """Every register of the layout but MXCSR_MASK, with values that XRSTOR(S) accepts and keeps.

    fmt "any": what both formats hold. With probability `sparse` a whole component stays initial,
    and so does a register of one that does not. `pending_pointers`: FOP, FIP and FDP are 0 unless
    an exception is pending, as an AMD CPU would have them.
    """
    names = registers(mask, COMPACTED if fmt == "any" else fmt)
    names = [name for name in names if name != "mxcsr_mask"]
    initial = initial_values(names)
    asleep = {i for i in COMPONENTS if rng.random() < sparse}
    values: Values = {}
    for name in names:
        value = _random_value(rng, name)
        homes = components_of(name)
        if rng.random() < sparse or (homes and all(i in asleep for i in homes)):
            value = initial[name]
        elif vector_number(name) is not None:
            parts = bytearray(as_bytes(value, VECTOR_SIZES[name[:3]]))
            for i in homes:
                _, start, end, _ = VECTOR_PIECES[i]
                if i in asleep or not has(mask, i):
                    parts[start:end] = bytes(end - start)
            value = bytes(parts)
        values[name] = value
    if "fsw" in values:
        values["fsw"] = restored_fsw(as_int(values["fsw"]), as_int(values["fcw"]))
        if pending_pointers and not has(as_int(values["fsw"]), 7):
            values.update({"fop": 0, "fip": 0, "fdp": 0})
    if "IA32_LBR_DEPTH" in values and not has(non_initial(values), LBR):
        values["IA32_LBR_DEPTH"] = 0
    elif "IA32_LBR_DEPTH" in values:
        values["IA32_LBR_DEPTH"] = 32
    return values


def initial_values(names: Iterable[str]) -> Values:
    """These registers in the initial configuration."""
    initial: Values = {"mxcsr": MXCSR_INIT}
    for i in FIELDS:
        initial.update(component_values(COMPONENTS[i].initial, i))
    for prefix, size in VECTOR_SIZES.items():
        initial.update({f"{prefix}{n}": bytes(size) for n in range(32)})
    return {name: initial[name] for name in names}


def __getattr__(name: str) -> object:
    if name == "Cpu":  # at first use: reference_insn imports this module
        from reference_insn import Cpu

        return Cpu
    raise AttributeError(name)
