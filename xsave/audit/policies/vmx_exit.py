"""`vmx-exit`: today's VMX. Every XSETBV of the guest exits, the VMM validates, and accepts or injects #GP."""

from xsave.audit.policies.base import ALLOWED, GP, VMM, Answer, Policy, one_of
from xsave.audit.policies.rules import (
    KVM,
    KVM_SOURCE,
    KVM_SUPPORTED,
    KVM_XSS,
    WORDS,
    XEN,
    XEN_SOURCE,
    XEN_SUPPORTED,
    first_refusal,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["VmxExit"]

_MSRS = {"kvm": "Linux arch/x86/kvm/x86.c kvm_set_msr_common", "xen": "Xen xen/arch/x86/msr.c guest_wrmsr"}


class VmxExit(Policy):
    """XSETBV exits unconditionally (SDM3C 27.1.2), WRMSR IA32_XSS and IA32_XFD as the VMM's bitmap says: here always.

    `rules`: "kvm", the conditions of __kvm_set_xcr in their order, or "xen". `live`: whose XCR0 and IA32_XSS are loaded
    when the VMM saves.
    """

    name = "vmx-exit"
    FACTS: "tuple[tuple[str, object], ...]" = (("live", "guest"), ("rules", "kvm"))
    rules: str

    def _take(self, facts: "dict[str, Any]") -> None:
        self.rules = one_of(facts.get("rules", "kvm"), "rules", ("kvm", "xen"))

    @property
    def may_xcr0(self) -> int:
        """What the VMM lets the guest have of XCR0: what it offers, as far as it handles it and has it itself."""
        return self.allowed_xcr0 & self.host_xcr0 & (KVM_SUPPORTED if self.rules == "kvm" else XEN_SUPPORTED)

    @property
    def may_xss(self) -> int:
        """The same of IA32_XSS: CET in one piece or not at all; Xen offers none."""
        offered = self.allowed_xss & KVM_XSS
        return offered if self.rules == "kvm" and offered == KVM_XSS else 0

    def write_xcr0(self, value: int, index: int) -> Answer:
        """The VMM's verdict on ECX and the value, whatever the processor would have said."""
        rules, source = (KVM, KVM_SOURCE) if self.rules == "kvm" else (XEN, XEN_SOURCE)
        refused = "INDEX" if index else first_refusal(rules, value, self.may_xcr0)
        if refused is not None:
            return Answer(GP, VMM, refused, WORDS[refused], source)
        return Answer(ALLOWED, VMM, "", "no condition of the VMM refuses it", source)

    def write_xss(self, value: int) -> Answer:
        """WRMSR IA32_XSS: within what the VMM offers."""
        return self._msr("xsaves", value, self.may_xss, "IA32_XSS")

    def write_xfd(self, value: int) -> Answer:
        """WRMSR IA32_XFD: components that the guest may have and that IA32_XFD can disable."""
        return self._msr("xfd", value, self.may_xcr0 & self.disables, "IA32_XFD")

    def _msr(self, feature: str, value: int, may: int, name: str) -> Answer:
        source = _MSRS[self.rules]
        if feature not in self.model.instructions:
            return Answer(GP, VMM, "MSR-MISSING", f"the guest's CPUID has no {name}", source)
        if value & ~may:
            return Answer(GP, VMM, "A-NOALLOW", f"a bit that the VMM does not offer in {name}", source)
        return Answer(ALLOWED, VMM, "", f"within what the VMM offers in {name}", source)
