"""`xfd-passthrough`: KVM today: the guest writes IA32_XFD without an exit, and the VMM reads it back after each."""

from xsave.audit.policies.base import Answer, one_of
from xsave.audit.policies.vmx_exit import VmxExit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["XfdPassthrough"]


class XfdPassthrough(VmxExit):
    """The precedent for a register of extended state that a guest changes behind the VMM's back.

    KVM drops the write intercept at the guest's first value that is not 0 and, from then on, reads IA32_XFD after each
    exit before interrupts are on (`reread=True`): until then a save by the host would see the guest's value. XCR0 and
    IA32_XSS are as under `vmx-exit`.
    """

    name = "xfd-passthrough"
    FACTS: "tuple[tuple[str, object], ...]" = (("live", "guest"), ("reread", True))
    reread: bool

    def _take(self, facts: "dict[str, Any]") -> None:
        self.rules = "kvm"
        self.reread = bool(one_of(facts["reread"], "reread", (True, False)))

    def write_xfd(self, value: int) -> Answer:
        """The processor takes every value that the CPU has; no exit."""
        return self.native("XFD", value)
