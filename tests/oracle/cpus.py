"""What CPUs enumerate in CPUID leaf 0DH, as published dumps show it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias, TypedDict

from .components import bits, has

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
