"""`sev-es`: encrypted guest state. The guest sets XCR0 and IA32_XSS without an exit, today."""

from xsave.audit.policies.base import Live, Policy, one_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["SevEs"]


class SevEs(Policy):
    """KVM clears the intercept of XSETBV: guest state is encrypted, and nobody outside can change XCR0 for it.

    #VMEXIT loads the host's XCR0, IA32_XSS and PKRU from the host save area; VMRUN does not save them there, so the VMM
    must have filled it (`host_save_area="filled"`), or its own code runs on what somebody left in it ("stale"). The VMM
    saves no register of such a guest.
    """

    name = "sev-es"
    KEEPER = "stowed"
    FACTS: "tuple[tuple[str, object], ...]" = (("host_save_area", "filled"),)
    host_save_area: str

    def _take(self, facts: "dict[str, Any]") -> None:
        self.host_save_area = one_of(facts["host_save_area"], "host_save_area", ("filled", "stale"))
        self.live = "host"

    def after_exit(self, guest: Live) -> Live:
        """The host's values, from the host save area; XCR0 as after RESET where nobody filled it."""
        if self.host_save_area == "stale":
            return Live(1, 0, guest.xfd)
        return Live(self.host_xcr0, self.host_xss, guest.xfd)

    def at_save(self, guest: Live) -> Live:
        """The same: nothing else loads them."""
        return self.after_exit(guest)

    def at_own(self, guest: Live) -> Live:
        """And its own state is restored under them."""
        return self.after_exit(guest)
