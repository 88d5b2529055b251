"""`tdx-xfam`: a trust domain. XSETBV and WRMSR IA32_XSS exit to the TDX module, which holds the guest to its XFAM."""

from xsave.audit.policies.base import ALLOWED, GP, MODULE, Answer, Live, Policy
from xsave.audit.policies.rules import TDX_XCR0, TDX_XFAM, WORDS, first_refusal
from xsave.audit.verdict import mask_of
from xsave.components import USER, Component, ComponentMask

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["FIXED0", "FIXED1", "TdxXfam"]

_SOURCE = "TDX module src/common/helpers/helpers.c"
# Bits of XFAM that may be 1, and those that must be.
FIXED0 = int(ComponentMask.parse("x87 SSE AVX AVX512 PT PKRU CET_U CET_S UINTR LBR AMX"))
FIXED1 = int(ComponentMask.parse("x87 SSE"))
_TILES = 1 << Component.TILEDATA


class TdxXfam(Policy):
    """XFAM is chosen when the TD is created and checked then: bits that the module fixes, groups set together.

    `xfam` (default: what is offered, within the module's fixed bits). An XSETBV of the TD, or a WRMSR of IA32_XSS,
    goes to the TDX module, never to the VMM. After a TD exit XCR0 and IA32_XSS hold XFAM's user and supervisor bits,
    not the host's, and the host's own components of XFAM are in their initial configuration: the VMM must have saved
    its state before, and restores it after.
    """

    name = "tdx-xfam"
    KEEPER = "hardware"
    INSTRUCTION = "XSAVES"
    FACTS: "tuple[tuple[str, object], ...]" = (("xfam", None),)
    xfam: int

    def _take(self, facts: "dict[str, Any]") -> None:
        supported = int(self.model.xcr0_mask | self.model.xss_mask)
        default = (self.allowed_xcr0 | self.allowed_xss) & FIXED0
        self.xfam = xfam = default if facts["xfam"] is None else mask_of(facts["xfam"], "xfam")
        self.live = "host"
        refused = ""
        if xfam & ~(FIXED0 & supported):
            refused = f"bits {ComponentMask(xfam & ~(FIXED0 & supported))} are fixed to 0 [A-NOALLOW]"
        elif xfam & FIXED1 != FIXED1:
            refused = f"bits {ComponentMask(FIXED1)} are fixed to 1 [A-FIXED1]"
        elif (code := first_refusal(TDX_XFAM, xfam, xfam)) is not None:
            refused = f"{WORDS[code]} [{code}]"
        if refused:
            raise ValueError(f"XFAM {xfam:#x}: {refused} ({_SOURCE} check_xfam)")

    def write_xcr0(self, value: int, index: int) -> Answer:
        """The module's checks, in its order."""
        may = self.xfam & int(self.model.xcr0_mask)
        refused = "INDEX" if index else first_refusal(TDX_XCR0, value, may)
        if refused is not None:
            return Answer(GP, MODULE, refused, WORDS[refused], _SOURCE)
        return Answer(ALLOWED, MODULE, "", "within XFAM and legal", _SOURCE)

    def write_xss(self, value: int) -> Answer:
        """Within XFAM; the bits of CET may be split here."""
        if value & ~(self.xfam & int(self.model.xss_mask)):
            return Answer(GP, MODULE, "A-NOALLOW", "a bit outside XFAM", _SOURCE)
        return Answer(ALLOWED, MODULE, "", "within XFAM", _SOURCE)

    def write_xfd(self, value: int) -> Answer:
        """IA32_XFD is the TD's own where XFAM has AMX; else there is none."""
        if not self.xfam & _TILES:
            return Answer(GP, MODULE, "A-NOALLOW", "XFAM has no component that IA32_XFD can disable", _SOURCE)
        return self.native("XFD", value)

    def after_exit(self, guest: Live) -> Live:
        """XFAM's own bits; IA32_XFD is 0."""
        return Live(self.xfam & USER, self.xfam & ~USER, 0)

    def at_save(self, guest: Live) -> Live:
        """The module's save of the TD's registers, with XSAVES under XFAM into a buffer of its own."""
        return Live(self.xfam & USER, self.xfam & ~USER, guest.xfd)
