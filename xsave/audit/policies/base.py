"""What every policy is: facts that are checked once, and pure answers to what a guest does.

A policy says who decides about a guest's write to XCR0, IA32_XSS or IA32_XFD, and what; and what is in those registers
when the VMM's own code runs again. Legality by the processor is the emulated processor's (`xsave.Processor`); a policy
adds only what stands between the guest and it.
"""

from xsave.audit.policies.rules import WORDS
from xsave.audit.verdict import ALL, can_disable, known_mask
from xsave.errors import Fault

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NamedTuple

    from xsave.audit.policies.table import Table
    from xsave.models import CpuModel
    from xsave.processor import Processor

    class Live(NamedTuple):
        """What XCR0, IA32_XSS and IA32_XFD hold at one moment."""

        xcr0: int
        xss: int
        xfd: int

else:
    from collections import namedtuple

    Live = namedtuple("Live", "xcr0 xss xfd")
    Live.__doc__ = "What XCR0, IA32_XSS and IA32_XFD hold at one moment."

__all__ = ["ALLOWED", "GP", "KILLED", "MODULE", "REGISTERS", "VMM", "Answer", "Live", "Policy", "one_of"]

ALLOWED, GP, KILLED = "allowed", "gp", "killed"
VMM, MODULE = "vmm", "module"
REGISTERS = ("XCR0", "XSS", "XFD")
_XSS, _XFD = 0xDA0, 0x1C4


class Answer:
    """What becomes of one step, and who decided.

    `outcome`: "allowed"; "gp", #GP(0) into the guest (of a step of the VMM: taken by it); "killed", the guest does not
    run on. `exits_to`: who decided: None, the processor, with no exit; "vmm", the VMM after an exit; "module", the TDX
    module. `code`: a short stable name of the rule, "" for allowed; `rule`: the rule in words; `source`: where it
    stands.
    """

    __slots__ = ("code", "exits_to", "outcome", "rule", "source")

    def __init__(self, outcome: str, exits_to: "str | None", code: str, rule: str, source: str) -> None:
        self.outcome = outcome
        self.exits_to = exits_to
        self.code = code
        self.rule = rule
        self.source = source

    @property
    def key(self) -> "tuple[str, str | None, str]":
        """(outcome, exits_to, code): what a table keeps."""
        return self.outcome, self.exits_to, self.code

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Answer) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)

    def __repr__(self) -> str:
        by = {None: "the processor", VMM: "the VMM", MODULE: "the TDX module"}[self.exits_to]
        return f"<Answer: {self.outcome} by {by}{f' [{self.code}]' if self.code else ''}>"


def one_of(value: object, fact: str, choices: "tuple[object, ...]") -> "Any":
    """`value` if it is one of `choices`. Raises: `ValueError`."""
    if value not in choices:
        raise ValueError(f"{fact}={value!r}: one of {', '.join(repr(each) for each in choices)}")
    return value


class Policy:
    """One policy on one CPU model. Pure: nothing that is asked changes it.

    `model`; `allowed_xcr0`, `allowed_xss`: what the VMM offers in CPUID; `host_xcr0`, `host_xss`: the VMM's own. Facts
    of its own stand in the class of each policy. Masks are ints.
    """

    name = ""
    # Who keeps the guest's registers at an exit: "vmm"; "hardware", in the buffer, with the masks of `at_save`;
    # "stowed", the hardware where nobody reaches.
    KEEPER = "vmm"
    # The instruction as which that save behaves, where the policy fixes it.
    INSTRUCTION: "str | None" = None
    # What XCR0 holds when the guest begins: its value after RESET.
    first_xcr0 = 1
    # Facts beside the common ones, with their defaults; None: it follows from the others.
    FACTS: "tuple[tuple[str, object], ...]" = ()

    def __init__(self, model: "CpuModel", **facts: "Any") -> None:
        self.model = model
        user, supervisor = int(model.xcr0_mask), int(model.xss_mask)
        self.allowed_xcr0 = known_mask(model, facts.get("allowed_xcr0", user), user, "allowed_xcr0")
        self.allowed_xss = known_mask(model, facts.get("allowed_xss", supervisor), supervisor, "allowed_xss")
        self.host_xcr0 = known_mask(model, facts.get("host_xcr0", self.allowed_xcr0), user, "host_xcr0")
        self.host_xss = known_mask(model, facts.get("host_xss", 0), supervisor, "host_xss")
        self._processor: "Processor | None" = None
        if "host_xcr0" in facts:
            refused = self.native("XCR0", self.host_xcr0)
            if refused.outcome == GP:
                where = f"{refused.rule} [{refused.source}]"
                raise ValueError(f"host_xcr0 {self.host_xcr0:#x} is no value of XCR0: {where}")
        self.live: str = one_of(facts["live"], "live", ("guest", "host")) if "live" in facts else "guest"
        self._take({name: facts.get(name, default) for name, default in self.FACTS if name != "live"})

    def _take(self, facts: "dict[str, Any]") -> None:
        """Keeps and checks the facts of its own. Raises: `ValueError` with the rule by which the platform refuses."""

    # --- the guest writes

    def write(self, register: str, value: int, cpl: int = 0, index: int = 0) -> Answer:
        """The guest writes `value` to "XCR0" (XSETBV with ECX = `index`), "XSS" or "XFD" (WRMSR) at `cpl`.

        Raises: `ValueError` for another register, a value beyond 64 bits, a CPL beyond 0-3.
        """
        if register not in REGISTERS:
            raise ValueError(f"register {register!r}: one of {', '.join(REGISTERS)}")
        if not 0 <= value <= ALL:
            raise ValueError(f"{register} {value:#x} does not fit 64 bits")
        if not 0 <= cpl <= 3 or not 0 <= index < 1 << 32:
            raise ValueError(f"CPL {cpl}, index {index}: a CPL is 0 to 3, ECX has 32 bits")
        if cpl:
            # Before any exit (SDM3C 27.1.1).
            return Answer(GP, None, "CPL", WORDS["CPL"], "SDM2 XSETBV" if register == "XCR0" else "SDM2 WRMSR")
        if register == "XCR0":
            return self.write_xcr0(value, index)
        return self.write_xss(value) if register == "XSS" else self.write_xfd(value)

    def write_xcr0(self, value: int, index: int) -> Answer:
        """XSETBV at CPL 0."""
        return self.native("XCR0", value, index)

    def write_xss(self, value: int) -> Answer:
        """WRMSR IA32_XSS at CPL 0."""
        return self.native("XSS", value)

    def write_xfd(self, value: int) -> Answer:
        """WRMSR IA32_XFD at CPL 0."""
        return self.native("XFD", value)

    def native(self, register: str, value: int, index: int = 0) -> Answer:
        """What the processor itself says, with nobody in between [SDM1 13.3, 13.14]."""
        if self._processor is None:
            from xsave.processor import Processor

            self._processor = Processor(self.model, xcr0=1, cpl=0)
        cpu = self._processor
        if register == "XCR0":
            fault = cpu.try_xsetbv(index, value)
        else:
            fault = cpu.try_wrmsr(_XSS if register == "XSS" else _XFD, value)
        if not isinstance(fault, Fault):
            return Answer(ALLOWED, None, "", "the processor takes every legal value", "SDM1 13.3")
        return Answer(GP, None, fault.rule, WORDS.get(fault.rule, fault.message), fault.section)

    def table(self) -> "Table":
        """The answers to every write, as a finite table."""
        from xsave.audit.policies.table import compiled

        return compiled(self)

    # --- what stands in the registers around the VMM's own code

    def entry(self, guest: Live) -> Answer:
        """VM entry with these values of the guest's."""
        return Answer(ALLOWED, None, "", "the processor does not look at XCR0 and IA32_XSS", "SDM3C 28.3")

    def after_exit(self, guest: Live) -> Live:
        """What the VMM finds in XCR0, IA32_XSS and IA32_XFD after an exit, before it writes any of them."""
        return guest

    def at_save(self, guest: Live) -> Live:
        """What they hold when the VMM saves the guest's registers."""
        after = self.after_exit(guest)
        return after if self.live == "guest" else Live(self.host_xcr0, self.host_xss, after.xfd)

    def at_restore(self, guest: Live) -> Live:
        """What they hold when the VMM restores the guest's registers: whose masks ruled the save."""
        return guest if self.live == "guest" else Live(self.host_xcr0, self.host_xss, guest.xfd)

    def at_own(self, guest: Live) -> Live:
        """What they hold when the VMM restores its own registers: its own values, which it has loaded by then."""
        return Live(self.host_xcr0, self.host_xss, 0)

    def audit(self, guest: Live, size: int, instruction: str) -> Answer:
        """The VMM's look at the guest's XCR0 and IA32_XSS before it saves into `size` bytes with `instruction`."""
        return Answer(ALLOWED, VMM, "", "the VMM does not look", "")

    # --- all of it

    @property
    def disables(self) -> int:
        """The bits of IA32_XFD that the model has."""
        return can_disable(self.model)

    def __repr__(self) -> str:
        own = [f"{name}={_shown(self.fact(name))}" for name, _ in self.FACTS]
        return f"<policy {', '.join([f'{self.name} on {self.model.name}', *own])}>"

    def fact(self, name: str) -> object:
        """The value of a fact, given or default."""
        return getattr(self, name)


def _shown(value: object) -> str:
    return f"{value:#x}" if isinstance(value, int) and not isinstance(value, bool) else repr(value)
