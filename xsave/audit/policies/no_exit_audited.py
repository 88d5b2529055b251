"""`no-exit-audited`: the guest sets XCR0 and IA32_XSS without an exit; after an exit the VMM reads and audits them."""

from xsave.audit.policies.base import ALLOWED, KILLED, VMM, Answer, Live, Policy, one_of
from xsave.audit.verdict import buffer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["NoExitAudited"]


class NoExitAudited(Policy):
    """What Brown asks for: before XSAVE on a guest's registers somebody looks at what the guest has in XCR0.

    `audit="mask"`: the guest's bits are among those that the VMM offers; that the buffer was sized for them is then
    taken for granted. `audit="size"`: an area of the guest's mask, in the instruction's format, fits the buffer. A
    guest that fails is not saved and does not run on. `live`: whose masks are loaded when the VMM saves.
    """

    name = "no-exit-audited"
    FACTS: "tuple[tuple[str, object], ...]" = (("live", "guest"), ("audit", "mask"))
    kind: str

    def _take(self, facts: "dict[str, Any]") -> None:
        self.kind = one_of(facts["audit"], "audit", ("mask", "size"))

    def audit(self, guest: Live, size: int, instruction: str) -> Answer:
        """Allowed, or killed by the VMM."""
        source = "an audit before XSAVE"
        if self.kind == "mask":
            if (guest.xcr0 | guest.xss) & ~(self.allowed_xcr0 | self.allowed_xss):
                return Answer(KILLED, VMM, "A-NOALLOW", "a bit that the VMM does not offer", source)
        elif not buffer(self.model, xcr0=guest.xcr0, xss=guest.xss, instruction=instruction, size=size).fits:
            return Answer(KILLED, VMM, "A-OVERRUN", "an area of the guest's mask does not fit the buffer", source)
        return Answer(ALLOWED, VMM, "", "the guest's mask passes the audit", source)

    def fact(self, name: str) -> object:
        """`audit` is a step here; the fact is `kind`."""
        return self.kind if name == "audit" else super().fact(name)
