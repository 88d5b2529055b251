"""The table of the MSRs behind supervisor components: number, register, and which values WRMSR refuses.

XRSTORS refuses what WRMSR would (SDM1 13.12), so one table serves both. Numbers: SDM4; refusals: SDM3 and SDM1 13.5.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

__all__ = ["IA32_XFD", "IA32_XFD_ERR", "IA32_XSS", "MSRS", "MsrRow"]

IA32_XFD = 0x1C4
IA32_XFD_ERR = 0x1C5
IA32_XSS = 0xDA0


class MsrRow:
    """One MSR. `register`: its name in the register table. `reserved`: bits that must be 0; `exclusive`: bits that must
    not all be 1; `canonical`: the value must be a canonical address; `values`: the only ones allowed, or empty.
    """

    __slots__ = ("canonical", "exclusive", "number", "register", "reserved", "values")

    def __init__(
        self,
        number: int,
        register: str,
        *,
        reserved: int = 0,
        exclusive: int = 0,
        canonical: bool = False,
        values: "tuple[int, ...]" = (),
    ) -> None:
        self.number = number
        self.register = register
        self.reserved = reserved
        self.exclusive = exclusive
        self.canonical = canonical
        self.values = values


def _rows() -> "list[MsrRow]":
    rows = [
        MsrRow(0x560, "IA32_RTIT_OUTPUT_BASE"),
        MsrRow(0x561, "IA32_RTIT_OUTPUT_MASK_PTRS"),
        MsrRow(0x570, "IA32_RTIT_CTL"),
        MsrRow(0x571, "IA32_RTIT_STATUS"),
        MsrRow(0x572, "IA32_RTIT_CR3_MATCH"),
        MsrRow(0x580, "IA32_RTIT_ADDR0_A"),
        MsrRow(0x581, "IA32_RTIT_ADDR0_B"),
        MsrRow(0x582, "IA32_RTIT_ADDR1_A"),
        MsrRow(0x583, "IA32_RTIT_ADDR1_B"),
        MsrRow(0xD93, "IA32_PASID"),
        MsrRow(0x6A0, "IA32_U_CET", reserved=0x3C0, exclusive=0xC00, canonical=True),
        MsrRow(0x6A4, "IA32_PL0_SSP", reserved=3, canonical=True),
        MsrRow(0x6A5, "IA32_PL1_SSP", reserved=3, canonical=True),
        MsrRow(0x6A6, "IA32_PL2_SSP", reserved=3, canonical=True),
        MsrRow(0x6A7, "IA32_PL3_SSP", reserved=3, canonical=True),
        MsrRow(0xDB1, "IA32_PM_CTL1"),
        MsrRow(0x985, "IA32_UINTR_RR"),
        MsrRow(0x986, "IA32_UINTR_HANDLER", canonical=True),
        MsrRow(0x987, "IA32_UINTR_STACKADJUST", canonical=True),
        MsrRow(0x988, "IA32_UINTR_MISC", reserved=0xFFFFFF << 40),
        MsrRow(0x989, "IA32_UINTR_PD", reserved=0x3F, canonical=True),
        MsrRow(0x98A, "IA32_UINTR_TT", reserved=0xE, canonical=True),
        MsrRow(0x14CE, "IA32_LBR_CTL"),
        MsrRow(0x14CF, "IA32_LBR_DEPTH", values=(8, 16, 24, 32)),
        MsrRow(0x1DD, "IA32_LER_FROM_IP"),
        MsrRow(0x1DE, "IA32_LER_TO_IP"),
        MsrRow(0x1E0, "IA32_LER_INFO"),
        MsrRow(0x774, "IA32_HWP_REQUEST"),
    ]
    for first, kind in ((0x1200, "INFO"), (0x1500, "FROM_IP"), (0x1600, "TO_IP")):
        rows += [MsrRow(first + i, f"IA32_LBR_{i}_{kind}") for i in range(32)]
    return rows


MSRS: "Final[dict[int, MsrRow]]" = {row.number: row for row in _rows()}
