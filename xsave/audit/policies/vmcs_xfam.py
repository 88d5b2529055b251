"""`vmcs-xfam`: a mask in the VMCS, XFAM, within which the guest sets XCR0 and IA32_XSS without an exit."""

from xsave.audit.policies.base import ALLOWED, GP, KILLED, Answer, Live, one_of
from xsave.audit.policies.vmx_exit import VmxExit
from xsave.audit.verdict import known_mask

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["VmcsXfam"]

_SOURCE = "an XFAM field of the VMCS (proposed)"


class VmcsXfam(VmxExit):
    """What TDX does, for every VM: the processor itself holds the guest to a mask.

    A value that XSETBV or WRMSR IA32_XSS refuses natively is #GP as ever. `xfam` (default: all that is offered): within
    it no exit; outside it an exit, and the VMM decides as under `vmx-exit` (`outside="gp"`: #GP by the processor, no
    exit). VM entry fails if XCR0 | IA32_XSS has bits outside XFAM. A VM exit does not change XCR0: a VMM that swaps
    (`swap="vmm"`) reads it at each exit; with `swap="vmcs"` the VMCS saves and loads both. `by`: "hardware", or
    "microcode-patch" for existing hardware, which costs patch space and another price.
    """

    name = "vmcs-xfam"
    FACTS: "tuple[tuple[str, object], ...]" = (("xfam", None), ("outside", "exit"), ("swap", "vmm"), ("by", "hardware"))
    by: str
    outside: str
    swap: str
    xfam: int

    def _take(self, facts: "dict[str, Any]") -> None:
        self.rules = "kvm"
        offered = self.allowed_xcr0 | self.allowed_xss
        limit = int(self.model.xcr0_mask | self.model.xss_mask)
        self.xfam = known_mask(self.model, offered if facts["xfam"] is None else facts["xfam"], limit, "xfam")
        self.outside = one_of(facts["outside"], "outside", ("exit", "gp"))
        self.swap = one_of(facts["swap"], "swap", ("vmm", "vmcs"))
        self.by = one_of(facts["by"], "by", ("hardware", "microcode-patch"))
        self.live = "host"

    def nested(self, xfam: int) -> int:
        """The XFAM of a guest's guest, for which the guest asks for `xfam`: what both levels allow."""
        return self.xfam & xfam

    def write_xcr0(self, value: int, index: int) -> Answer:
        """#GP where it is illegal, no exit within XFAM, else as `outside` says."""
        native = self.native("XCR0", value, index)
        return native if native.outcome == GP else self._within_xfam(value, super().write_xcr0(value, index))

    def write_xss(self, value: int) -> Answer:
        """The same for IA32_XSS."""
        native = self.native("XSS", value)
        return native if native.outcome == GP else self._within_xfam(value, super().write_xss(value))

    def write_xfd(self, value: int) -> Answer:
        """IA32_XFD belongs to the guest: it chooses among components that XFAM lets it have."""
        return self.native("XFD", value)

    def _within_xfam(self, value: int, verdict: Answer) -> Answer:
        if not value & ~self.xfam:
            return Answer(ALLOWED, None, "", "within XFAM", _SOURCE)
        if self.outside == "gp":
            return Answer(GP, None, "A-NOALLOW", "a bit outside XFAM", _SOURCE)
        return verdict

    def entry(self, guest: Live) -> Answer:
        """VM entry checks XCR0 | IA32_XSS against XFAM."""
        if (guest.xcr0 | guest.xss) & ~self.xfam:
            return Answer(KILLED, None, "A-NOALLOW", "VM entry fails: XCR0 | IA32_XSS has bits outside XFAM", _SOURCE)
        return Answer(ALLOWED, None, "", "within XFAM", _SOURCE)

    def after_exit(self, guest: Live) -> Live:
        """The guest's values, or the VMM's where the VMCS loads them."""
        return guest if self.swap == "vmm" else Live(self.host_xcr0, self.host_xss, guest.xfd)
