"""`host-swap`: the guest sets what it likes, and the VMM loads its own XCR0 and IA32_XSS at every exit."""

from xsave.audit.policies.base import Policy, one_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["HostSwap"]


class HostSwap(Policy):
    """The "non-issue" of Christopherson: since the VMM switches XCR0 and IA32_XSS anyway, no audit is needed.

    True of memory where the VMM's values are loaded before it saves (`swap="before"`): what is saved is then bounded by
    the VMM's own masks. Components of the guest outside them stay live in the registers: clearing a bit of XCR0 does
    not initialise them. `swap="after"`: the guest's masks still rule the save. There is no exit at XSETBV.
    """

    name = "host-swap"
    FACTS: "tuple[tuple[str, object], ...]" = (("swap", "before"),)
    swap: str

    def _take(self, facts: "dict[str, Any]") -> None:
        self.swap = one_of(facts["swap"], "swap", ("before", "after"))
        self.live = "host" if self.swap == "before" else "guest"
