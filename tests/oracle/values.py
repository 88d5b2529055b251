"""Rules for values: what restores, WRMSR, XSETBV and LDTILECFG accept, and what they make of it."""

from __future__ import annotations

from .components import ALL, has
from .cpus import CpuTable, cpu_table


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


def xcr0_fault(cpu: str | CpuTable, value: int) -> str | None:
    """The rule on which XSETBV of XCR0 would #GP for this value; None if it is legal (SDM1 13.3)."""
    avx512 = value >> 5 & 7
    if value & ~cpu_table(cpu)["xcr0"]:
        return "R-RSV"  # not enumerated: supervisor bits and bit 63 among them
    if not has(value, 0):
        return "R-X87"
    if has(value, 2) and not has(value, 1):
        return "R-AVX"
    if has(value, 3) != has(value, 4):
        return "R-MPX"
    if avx512 and not (avx512 == 7 and has(value, 1) and has(value, 2)):
        return "R-AVX512"
    if has(value, 17) != has(value, 18):
        return "R-AMX"
    if has(value, 20) and not (has(value, 17) and has(value, 18)):
        return "R-ACE"
    if has(value, 19) and (has(value, 3) or has(value, 4)):
        return "R-APX"  # both lie at the same place in the standard format
    return None


def xfd_mask(cpu: str | CpuTable) -> int:
    """The components that IA32_XFD can disable: TILEDATA, where there is XFD (SDM1 13.14)."""
    table = cpu_table(cpu)
    return 1 << 18 if has(table["d1eax"], 4) and 18 in table["components"] else 0


# WRMSR number -> the register of decode's names (SDM4). IA32_UINTR_MISC is the MSR without UIF.
MSRS = {
    0x6A0: "IA32_U_CET",
    0x6A4: "IA32_PL0_SSP",
    0x6A5: "IA32_PL1_SSP",
    0x6A6: "IA32_PL2_SSP",
    0x6A7: "IA32_PL3_SSP",
    0x985: "IA32_UINTR_RR",
    0x986: "IA32_UINTR_HANDLER",
    0x987: "IA32_UINTR_STACKADJUST",
    0x988: "IA32_UINTR_MISC",
    0x989: "IA32_UINTR_PD",
    0x98A: "IA32_UINTR_TT",
}
IA32_XFD, IA32_XFD_ERR, IA32_XSS = 0x1C4, 0x1C5, 0xDA0
