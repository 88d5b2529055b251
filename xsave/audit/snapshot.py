"""A guest under a policy: one that a snapshot holds, and the worst of all that the policy lets be.

Would the policy let it have these registers, and does its save fit?
"""

from xsave.audit.policies.base import ALLOWED, Live
from xsave.audit.proof import rfbm_of
from xsave.audit.verdict import INSTRUCTIONS, buffer, check_size, instruction_format, reached
from xsave.components import ComponentMask
from xsave.layout import Layout

TYPE_CHECKING = False
if TYPE_CHECKING:
    from xsave.audit.policies.base import Answer, Policy
    from xsave.audit.verdict import Verdict

__all__ = ["Admission", "admit", "worst"]


class Admission:
    """The answer for one guest.

    `policy`; `guest`: its XCR0, IA32_XSS and IA32_XFD; `answers`: (register, value, `Answer`) for each that it must
    have written; `looked`: what the VMM's look before the save says, or None where a write was refused; `verdict`: the
    `Verdict` on the save of this guest, or None where nobody saves it into a buffer of the VMM's; `worst`: the same
    with every component in use.
    """

    __slots__ = ("answers", "guest", "looked", "policy", "verdict", "worst")

    def __init__(self, policy: "Policy", guest: "Live", answers: "list[tuple[str, int, Answer]]") -> None:
        self.policy = policy
        self.guest = guest
        self.answers = answers
        self.looked: "Answer | None" = None
        self.verdict: "Verdict | None" = None
        self.worst: "Verdict | None" = None

    @property
    def passes(self) -> bool:
        """Whether the policy lets the guest have these registers, and no byte past a buffer is written."""
        refused = any(answer.outcome != ALLOWED for _, _, answer in self.answers)
        looked = self.looked is None or self.looked.outcome == ALLOWED
        return not refused and looked and (self.worst is None or self.worst.fits)

    def __repr__(self) -> str:
        return f"<Admission by {self.policy.name}: {'passes' if self.passes else 'does not pass'}>"


def admit(
    policy: "Policy",
    guest: "Live",
    in_use: int,
    *,
    instruction: "str | None" = None,
    size: "int | None" = None,
    save: str = "rfbm-all",
) -> Admission:
    """What `policy` makes of a guest that has these registers, and a save of it does to a buffer.

    `in_use`: XINUSE, as XSTATE_BV of a saved area tells. `instruction`: of the save (default: the widest that the
    policy's model has, or the one that the policy fixes); `size`: bytes of the buffer (default: the area of what the
    policy's VMM offers); `save`: the RFBM, "rfbm-all", "rfbm-host" or "rfbm-buffer", as in `prove`.

    Raises: `ValueError` for a size that no buffer has, an unknown `save` or instruction; `UnsupportedError` for an
    instruction that the model lacks [SDM1 13.3, 13.7-13.11].
    """
    model = policy.model
    name = _instruction(policy, instruction)
    form = instruction_format(model, name)
    if size is not None:
        check_size(size)
    first = {"XCR0": policy.first_xcr0, "XSS": 0, "XFD": 0}
    asked = zip(first, guest, strict=True)
    made = Admission(policy, guest, [(register, value, policy.write(register, value)) for register, value in asked
                                     if value != first[register]])  # fmt: skip
    # What the model does not have no policy lets through: from here on these are values that its registers can hold.
    if any(answer.outcome != ALLOWED for _, _, answer in made.answers):
        return made
    rfbm, sized_for = _rfbm(policy, name, save)
    room = Layout(model, ComponentMask(sized_for), form).size if size is None else size
    made.looked = policy.audit(guest, room, name)
    if made.looked.outcome != ALLOWED or (policy.KEEPER != "vmm" and size is None):
        return made
    live: "dict[str, int]" = policy.at_save(guest)._asdict()
    known = in_use & (int(model.xcr0_mask) | int(model.xss_mask))
    made.verdict = buffer(model, instruction=name, rfbm=rfbm, size=room, in_use=known, **live)
    made.worst = buffer(model, instruction=name, rfbm=rfbm, size=room, **live)
    return made


def worst(
    policy: "Policy", *, size: int, instruction: "str | None" = None, save: str = "rfbm-all"
) -> "tuple[Live, Verdict]":
    """The guest that takes most of a buffer of `size` bytes, among all that `policy` lets be, and the `Verdict` on it.

    Every value of XCR0 and IA32_XSS that the policy admits, and that the VMM's look before a save lets through, with
    every component in use; the first of those that need the same. `instruction` and `save` as in `admit`, whose
    "rfbm-buffer" is what the VMM offers. Whether there is a way to such a save at all, `prove` says.

    Raises: as `admit`.
    """
    name = _instruction(policy, instruction)
    instruction_format(policy.model, name)
    rfbm, _ = _rfbm(policy, name, save)
    check_size(size)
    table = policy.table()
    supervisor = table.admitted("XSS") if name == "XSAVES" else [0]
    saved: "dict[int, Live]" = {}
    for xcr0 in sorted({policy.first_xcr0, *table.admitted("XCR0")}):
        for xss in supervisor:
            guest = Live(xcr0, xss, 0)
            if policy.audit(guest, size, name).outcome == ALLOWED:
                masks = policy.at_save(guest)
                saved.setdefault(reached(name, masks.xcr0, masks.xss) & rfbm, guest)
    if not saved:
        raise ValueError(f"{policy.name} lets no guest be saved into {size:,} bytes")
    widest: "list[int]" = []  # a component more never makes an area shorter
    for mask in sorted(saved, key=int.bit_count, reverse=True):
        if not any(mask & ~wider == 0 for wider in widest):
            widest.append(mask)
    guests = [saved[mask] for mask in widest]
    verdicts = [buffer(policy.model, instruction=name, rfbm=rfbm, size=size, **policy.at_save(each)._asdict())
                for each in guests]  # fmt: skip
    at = max(range(len(guests)), key=lambda number: verdicts[number].required)
    return guests[at], verdicts[at]


def _instruction(policy: "Policy", instruction: "str | None") -> str:
    # The policy's own, the one that was asked for, or the widest that the model has.
    names = [each for each in reversed(INSTRUCTIONS) if each.lower() in policy.model.instructions]
    return policy.INSTRUCTION or instruction or names[0]


def _rfbm(policy: "Policy", instruction: str, save: str) -> "tuple[int, int]":
    # EDX:EAX of the save, and the mask that the VMM's buffer is sized for.
    sized_for = reached(instruction, policy.allowed_xcr0, policy.allowed_xss)
    return rfbm_of(policy, save, sized_for), sized_for
