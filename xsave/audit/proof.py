"""The proof: every state of a guest and its VMM, until none is new.

A policy, a model and a save discipline become, for every value that the guest may give its three registers, the facts
of one state component at a time: the kernel `_explorer` walks them breadth first. That one component at a time is
enough, and which values of IA32_XSS fall together, docs/audit.md argues.
"""

from struct import pack

from xsave.audit.policies import Policy
from xsave.audit.policies import policy as named_policy
from xsave.audit.policies.base import ALLOWED, Live, one_of
from xsave.audit.policies.table import spread
from xsave.audit.program import program
from xsave.audit.verdict import ALL, INSTRUCTIONS, check_size, instruction_format, mask_of, reached
from xsave.components import Component, ComponentMask
from xsave.layout import COMPACTED, HEADER, Layout

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from xsave.audit.policies.table import Table
    from xsave.layout import Format
    from xsave.models import CpuModel

    Path = list[tuple[int, int, int, int]]

__all__ = ["Example", "Proof", "Walks", "prove", "rfbm_of"]

SAVES, RESTORES = ("rfbm-all", "rfbm-host", "rfbm-buffer"), ("buffer", "max")
_LEGACY = 1 << Component.X87 | 1 << Component.SSE


class Example:
    """A shortest way to one property: `steps` in words; `instruction`; `component`, whose data it is about; `script`, a
    program for the emulated processor that shows it ("" for properties other than the overrun)."""

    __slots__ = ("component", "instruction", "script", "steps")

    def __init__(self, instruction: str, component: Component, steps: "list[str]", script: str) -> None:
        self.instruction = instruction
        self.component = component
        self.steps = steps
        self.script = script

    def __repr__(self) -> str:
        return f"<example with {self.instruction}, {self.component.info.name}: {len(self.steps)} steps>"


class Proof:
    """The answer of `prove`.

    `safe`: in no state a save writes beyond the buffer; `states`: how many were walked; `counterexample`: the shortest
    way to an overrun in words, [] if there is none; `script`: it as a program for the emulated processor, or "".
    `lost`, `leaks`, `faults`: the shortest way, in words, to lost state, to leaked state, to a #GP or #NM taken by the
    VMM, or None. `found`: every property with its `Example`: "overrun", "lost-guest", "lost-host", "leak-to-host",
    "leak-to-guest", "gp", "nm"; what is missing there happens in no state.
    """

    __slots__ = ("found", "states")

    def __init__(self, states: int, found: "dict[str, Example]") -> None:
        self.states = states
        self.found = found

    @property
    def safe(self) -> bool:
        """Whether no state writes beyond the buffer."""
        return "overrun" not in self.found

    @property
    def counterexample(self) -> "list[str]":
        """The shortest way to an overrun, or []."""
        return [] if self.safe else self.found["overrun"].steps

    @property
    def script(self) -> str:
        """The counterexample as a program for the emulated processor, or ""."""
        return "" if self.safe else self.found["overrun"].script

    def _shortest(self, *properties: str) -> "list[str] | None":
        ways = [self.found[each].steps for each in properties if each in self.found]
        return min(ways, key=len) if ways else None

    @property
    def lost(self) -> "list[str] | None":
        """The shortest way to state of the guest or of the VMM that is lost, or None."""
        return self._shortest("lost-guest", "lost-host")

    @property
    def leaks(self) -> "list[str] | None":
        """The shortest way to state of one that the other finds in the registers, or None."""
        return self._shortest("leak-to-host", "leak-to-guest")

    @property
    def faults(self) -> "list[str] | None":
        """The shortest way to a #GP or #NM that the VMM takes, or None."""
        return self._shortest("gp", "nm")

    def __repr__(self) -> str:
        answer = "safe" if self.safe else f"overrun after {len(self.counterexample)} steps"
        return f"<Proof: {answer}, {self.states:,} states; {', '.join(self.found) or 'nothing found'}>"


def prove(
    model: "CpuModel",
    policy: "Policy | str",
    size: int,
    *,
    save: str = "rfbm-all",
    restore: str = "buffer",
    buffer_mask: "int | str | None" = None,
    instruction: "str | None" = None,
) -> Proof:
    """Walks every state that a guest under `policy` reaches, with a buffer of `size` bytes for its registers.

    `save`: EDX:EAX of the VMM's save: all ones, the VMM's own XCR0 | IA32_XSS, or the mask that sized the buffer;
    `restore`: the mask of its restore, that of the buffer, or all ones ("max"); `buffer_mask`: the mask that sized the
    buffer (default: the numerically largest value of XCR0 whose area, in the instruction's format, fits);
    `instruction`: of the save, default every one that the model has (a TD's is XSAVES, an enclave's exit saves as
    XSAVE).

    Raises: `ValueError` for a size that no buffer has or that holds no area, a mask, a discipline or an instruction
    that does not exist; `UnsupportedError` for one that the model lacks.
    """
    if isinstance(policy, str):
        policy = named_policy(policy, model)
    one_of(save, "save", SAVES)
    one_of(restore, "restore", RESTORES)
    if policy.model != model:
        raise ValueError(f"the policy is one of {policy.model.name}, the question of {model.name}")
    fixed = policy.INSTRUCTION
    if fixed is not None and instruction not in (None, fixed):
        raise ValueError(f"{policy.name} saves as {fixed} does, not with {instruction}")
    chosen = instruction or fixed
    names = [chosen] if chosen else [each for each in INSTRUCTIONS if each.lower() in model.instructions]
    states = 0
    found: "dict[str, Example]" = {}
    table = policy.table()
    for name in names:
        walks = Walks(policy, table, size, name, save, restore, buffer_mask)
        states += walks.run()
        for property_, example in walks.found.items():
            if property_ not in found or len(example.steps) < len(found[property_].steps):
                found[property_] = example
    return Proof(states, found)


def rfbm_of(policy: Policy, save: str, buffer_mask: int) -> int:
    """EDX:EAX of a VMM's save by discipline; hardware that saves takes everything. Raises: `ValueError`."""
    one_of(save, "save", SAVES)
    own = policy.host_xcr0 | policy.host_xss
    masks = {"rfbm-all": ALL, "rfbm-host": own, "rfbm-buffer": buffer_mask}
    return masks[save] if policy.KEEPER == "vmm" else ALL


class Walks:
    """One instruction: the walks of all components, over the writes that the policy's table admits.

    `rfbm` and `load_mask`: EDX:EAX of the save and of the restore; `found`: property -> its shortest `Example`.
    """

    def __init__(
        self, policy: Policy, table: "Table", size: int, instruction: str, save: str, restore: str,
        buffer_mask: "int | str | None",
    ) -> None:  # fmt: skip
        self.model = policy.model
        self.policy = policy
        self.size = size
        self.instruction = instruction
        self.format: Format = instruction_format(self.model, instruction)
        check_size(size)
        if buffer_mask is not None:
            self.buffer_mask = mask_of(buffer_mask, "buffer_mask")
        elif policy.KEEPER == "vmm" and "buffer" in (save.removeprefix("rfbm-"), restore):
            self.buffer_mask = self._largest()
        else:
            self.buffer_mask = ALL
        self.rfbm = rfbm_of(policy, save, self.buffer_mask)
        self.load_mask = ALL if restore == "max" or policy.KEEPER != "vmm" else self.buffer_mask
        first = policy.first_xcr0
        self.admitted = {register: table.admitted(register) for register in ("XSS", "XFD")}
        self.xcr0 = [first, *(value for value in table.admitted("XCR0") if value != first)]
        self.layouts: "dict[int, Layout]" = {}
        self.steps: "dict[Live, tuple[dict[str, bool], Live, int, int, int]]" = {}
        self.found: "dict[str, Example]" = {}

    def _largest(self) -> int:
        user = [bit for bit in range(63) if int(self.model.xcr0_mask) >> bit & 1]
        for number in range((1 << len(user)) - 1, 0, -1):
            value = spread(number, user)
            legal = self.policy.native("XCR0", value).outcome == ALLOWED
            if legal and Layout(self.model, value, self.format).size <= self.size:
                return value
        raise ValueError(f"no area fits a buffer of {self.size:,} bytes: legacy region and header take {HEADER[1]}")

    def _merged(self, register: str, witness: int) -> "list[int]":
        # The bits beside the witness's fall together: all of them, or none.
        admitted = self.admitted[register]
        may = sum(value for value in admitted if value.bit_count() == 1)
        return sorted({0, *(value for value in (may & ~witness, may & witness, may) if value in admitted)})

    def run(self, components: "Iterable[Component] | None" = None) -> int:
        """Walks every component, or those given; returns the number of states."""
        from xsave._explorer import PROPERTIES, walk

        states = 0
        for component in self.model.components if components is None else components:
            witness = 1 << component
            xss, xfd = self._merged("XSS", witness), self._merged("XFD", witness)
            lives = [Live(x, s, f) for x in self.xcr0 for s in xss for f in xfd]
            facts = [self._facts(component, live) for live in lives]
            table = pack(f"<{len(facts)}H", *facts)
            count, ways = walk(table, len(self.xcr0), len(xss), len(xfd), self._traits(component), (0, 0, 0))
            states += count
            for property_ in PROPERTIES:
                way = ways.get(property_)
                if way is not None and (
                    property_ not in self.found or len(way) < len(self.found[property_].steps)
                ):
                    self.found[property_] = self._example(component, property_, way, xss, xfd)
        return states

    def _traits(self, component: Component) -> int:
        from xsave._explorer import FACTS

        names = []
        if (self.policy.host_xcr0 | self.policy.host_xss) >> component & 1:
            names.append("t-host")
        if self.instruction == "XSAVE":
            names.append("t-always")
        if self.format is COMPACTED:
            names.append("t-compacted")
        if getattr(self.policy, "reread", True):
            names.append("t-reread")
        names += {"hardware": ["t-cleared"], "stowed": ["t-stowed"]}.get(self.policy.KEEPER, [])
        return sum(FACTS[name] for name in names)

    def _steps(self, live: Live) -> "tuple[dict[str, bool], Live, int, int, int]":
        # What holds for every component: audit and entry; what is loaded at the save; the components that the save, the
        # guest's restore (before its mask) and the VMM's own reach.
        found = self.steps.get(live)
        if found is None:
            policy = self.policy
            save, restore, own = policy.at_save(live), policy.at_restore(live), policy.at_own(live)
            held = {
                "audit": policy.audit(live, self.size, self.instruction).outcome == ALLOWED,
                "entry": policy.entry(live).outcome == ALLOWED,
            }
            saved = reached(self.instruction, save.xcr0, save.xss) & self.rfbm
            found = self.steps[live] = (
                held, save, saved, reached(self.instruction, restore.xcr0, restore.xss), own.xcr0 | own.xss
            )  # fmt: skip
        return found

    def _facts(self, component: Component, live: Live) -> int:
        from xsave._explorer import FACTS

        keeper, bit = self.policy.KEEPER, 1 << component
        common, save, saved, loadable, own = self._steps(live)
        vmm, disabled = keeper == "vmm", live.xfd & bit != 0
        held = {
            **common,
            "guest": bool((live.xcr0 | live.xss | _LEGACY) & bit),
            "armed": disabled,
            "save": bool(saved & bit),
            "save-xfd": bool(save.xfd & bit),
            "over": bool(saved & bit) and self._end(saved, component) > self.size,
            "load": not vmm or bool(loadable & bit),
            "load-mask": keeper == "hardware" or (vmm and bool(loadable & self.load_mask & bit)),
            "load-xfd": vmm and disabled,
            "own": bool(own & bit),
        }
        return sum(FACTS[name] for name, holds in held.items() if holds)

    def _end(self, saved: int, component: Component) -> int:
        # Bytes from the operand to behind the component, at least the header.
        layout = self.layouts.get(saved)
        if layout is None:
            layout = self.layouts[saved] = Layout(self.model, saved, self.format)
        return layout.end_of(1 << component)

    # --- a way in words and as a program

    def _example(
        self, component: Component, property_: str, way: "Path", xss: "list[int]", xfd: "list[int]"
    ) -> Example:
        from xsave._explorer import EVENTS

        events = [(EVENTS[event], Live(self.xcr0[x], xss[s], xfd[f])) for event, x, s, f in way]
        steps = [self._words(component, event, live) for event, live in events]
        steps[-1] += f": {self._why(component, property_, events[-1][1])}"
        script = ""
        if property_ == "overrun":
            script = program(self.policy, self.instruction, self.size, self.rfbm, component, events)
        return Example(self.instruction, component, steps, script)

    def _words(self, component: Component, event: str, live: Live) -> str:
        name, policy = component.info.name, self.policy
        if event in ("XCR0", "XSS", "XFD"):
            value = {"XCR0": live.xcr0, "XSS": live.xss, "XFD": live.xfd}[event]
            how = "XSETBV" if event == "XCR0" else f"WRMSR IA32_{event}"
            by = {None: "no exit", "vmm": "an exit, the VMM accepts", "module": "the TDX module accepts"}
            return f"guest: {how} {ComponentMask(value)}, {by[policy.write(event, value).exits_to]}"
        save = f"{self.instruction} with RFBM {self.rfbm:#x}"
        masks = policy.at_save(live)
        under = f"under XCR0 {masks.xcr0:#x}" + (f", IA32_XSS {masks.xss:#x}" if self.instruction == "XSAVES" else "")
        who = "TDX module" if policy.write("XCR0", 1).exits_to == "module" else "processor"
        return {
            "use": f"guest: uses {name}",
            "init": f"guest: makes {name} initial",
            "exit": f"exit: the {who} saves the guest, {under}" if policy.KEEPER == "hardware" else "exit",
            "again": "entry, with nothing saved",
            "save": f"VMM: saves the guest, {save}, {under}",
            "own": "VMM: restores its own state",
            "restore": f"VMM: restores the guest's, mask {self.load_mask:#x}",
            "entry": "entry",
        }[event]

    def _why(self, component: Component, property_: str, live: Live) -> str:
        name = component.info.name
        if property_ == "overrun":
            return f"{name} ends at byte {self._end(self._steps(live)[2], component):,} of a buffer of {self.size:,}"
        return {
            "lost-guest": f"the guest's {name} is lost",
            "lost-host": f"the VMM's {name} is lost",
            "leak-to-host": f"the guest's {name} stays in the registers",
            "leak-to-guest": f"the VMM's {name} stays in the registers",
            "gp": f"#GP, {name} is not enabled",
            "nm": f"#NM, IA32_XFD disables {name}",
        }[property_]
