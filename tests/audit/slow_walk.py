"""The walk without any abstraction: every component's registers and place at once, in plain Python.

A judge of `xsave.audit.proof` on models of few components. It asks the policy what it answers, and the slow model where
components lie; what registers, buffer and VMM do with that it spells out here.
"""

from collections import deque
from typing import NamedTuple

import reference

from tests.processor.operands import submasks
from xsave import audit

ALL = 2**64 - 1
INITIAL, GUEST, HOST = "initial", "guest", "host"
HARDWARE = ("tdx-xfam", "sgx-xfrm")


class State(NamedTuple):
    phase: str
    xcr0: int
    xss: int
    xfd: int
    known: int          # IA32_XFD as the VMM last knew it
    registers: tuple    # what each component's hold
    xstate: int         # the buffer's XSTATE_BV and XCOMP_BV
    xcomp: int
    slots: tuple        # whose data lies in each place
    counts: int         # components on whose data the guest counts


class World(NamedTuple):
    """One question."""

    table: dict         # of the CPU, in the slow model's form
    components: tuple   # that are tracked
    policy: audit.Policy
    instruction: str
    size: int
    save_mask: int
    load_mask: int
    xfd_bits: int


def walk(world: World) -> tuple[int, dict[str, int]]:
    """(states, {property: steps of the shortest way to it})."""
    policy = world.policy
    allowed = {
        register: [v for v in submasks(mask | 1 << 62) if policy.write(register, v).outcome == "allowed"]
        for register, mask in (("XCR0", world.table["xcr0"]), ("XSS", world.table["xss"]), ("XFD", world.xfd_bits))
    }
    first_xcr0 = policy.xfrm if policy.name == "sgx-xfrm" else 1
    nothing = (INITIAL,) * len(world.components)
    first = State("guest", first_xcr0, 0, 0, 0, nothing, 0, 0, nothing, 0)
    seen, queue, shortest = {first}, deque([(first, 1)]), {}
    while queue:
        state, steps = queue.popleft()
        found: set[str] = set()
        for after in successors(world, allowed, state, found):
            if after not in seen:
                seen.add(after)
                queue.append((after, steps + 1))
        for each in found:
            shortest.setdefault(each, steps)
    return len(seen), shortest


def successors(world: World, allowed: dict, s: State, found: set[str]) -> list[State]:
    if s.phase == "guest":
        return guest(world, allowed, s, found)
    if s.phase == "exited":
        return [*entered(world, s, found), saved(world, s, found)]
    if s.phase == "saved":
        return own(world, s, found)
    if s.phase == "host":
        return restored(world, s, found)
    return entered(world, s, found)


def guest(world: World, allowed: dict, s: State, found: set[str]) -> list[State]:
    reread = getattr(world.policy, "reread", True)
    after = [s._replace(xcr0=value) for value in allowed["XCR0"]]
    after += [s._replace(xss=value) for value in allowed["XSS"]]
    for value in allowed["XFD"]:
        known = value if not reread and s.known == 0 and value != 0 else s.known
        after.append(s._replace(xfd=value, known=known, counts=s.counts & ~value))
    for place, component in enumerate(world.components):
        reachable = (s.xcr0 | s.xss | 3) >> component & 1 and not s.xfd >> component & 1
        if reachable:
            for holder, counts in ((GUEST, s.counts | 1 << component), (INITIAL, s.counts & ~(1 << component))):
                registers = (*s.registers[:place], holder, *s.registers[place + 1 :])
                after.append(s._replace(registers=registers, counts=counts))
    left = s._replace(phase="exited", known=s.xfd if reread else s.known)
    if world.policy.name in HARDWARE:
        kept = saved(world, left, found)
        live = world.policy.at_save(audit.Live(s.xcr0, s.xss, s.xfd))
        mask = live.xcr0 | (live.xss if world.instruction == "XSAVES" else 0)
        cleared = tuple(
            INITIAL if mask >> component & 1 else holder
            for component, holder in zip(world.components, kept.registers, strict=True)
        )
        return [*after, kept._replace(registers=cleared)]
    if world.policy.name == "sev-es":
        left = left._replace(registers=(INITIAL,) * len(world.components))
    live = audit.Live(s.xcr0, s.xss, s.xfd)
    if world.policy.audit(live, world.size, world.instruction).outcome == "allowed":
        after.append(left)
    return after


def saved(world: World, s: State, found: set[str]) -> State:
    live = world.policy.at_save(audit.Live(s.xcr0, s.xss, s.xfd))
    mask = (live.xcr0 | (live.xss if world.instruction == "XSAVES" else 0)) & world.save_mask
    compacted = world.instruction in ("XSAVEC", "XSAVES")
    if compacted:
        places = reference.compacted_offsets(world.table, mask)[0]
    else:
        places = reference.standard_offsets(world.table, mask)
    xstate, slots = (0 if compacted else s.xstate & ~mask), list(s.slots)
    for place, component in enumerate(world.components):
        if not mask >> component & 1:
            continue
        used = s.registers[place] != INITIAL and not live.xfd >> component & 1
        begin, width = places.get(component, (0, 576))
        if (used or world.instruction == "XSAVE") and max(576, begin + width) > world.size:
            found.add("overrun")
        if used:
            xstate |= 1 << component
            slots[place] = s.registers[place]
    xcomp = mask if compacted else 0
    # What XSTATE_BV does not have says nothing about its place: the same state.
    slots = [slot if xstate >> c & 1 else INITIAL for slot, c in zip(slots, world.components, strict=True)]
    return s._replace(phase="saved", xstate=xstate, xcomp=xcomp, slots=tuple(slots))


def own(world: World, s: State, found: set[str]) -> list[State]:
    policy = world.policy
    masks = policy.at_own(audit.Live(s.xcr0, s.xss, s.xfd))
    registers = list(s.registers)
    for place, component in enumerate(world.components):
        if (policy.host_xcr0 | policy.host_xss) >> component & 1:
            if not (masks.xcr0 | masks.xss) >> component & 1:
                found |= {"gp", "lost-host"}
                return []
            registers[place] = HOST
        elif registers[place] == GUEST:
            found.add("leak-to-host")
    return [s._replace(phase="host", registers=tuple(registers))]


def restored(world: World, s: State, found: set[str]) -> list[State]:
    policy = world.policy
    if policy.name in HARDWARE:
        registers = tuple(
            slot if s.xstate >> c & 1 else INITIAL for slot, c in zip(s.slots, world.components, strict=True)
        )
        return [s._replace(phase="ready", registers=registers)]
    if policy.name == "sev-es":
        return [s._replace(phase="ready")]
    if policy.live == "guest":
        live = s.xcr0 | (s.xss if world.instruction == "XSAVES" else 0)
    else:
        live = policy.host_xcr0 | (policy.host_xss if world.instruction == "XSAVES" else 0)
    tracked = sum(1 << component for component in world.components)
    if (s.xstate | s.xcomp) & ~live & tracked:
        found.add("gp")
        return []
    mask = live & world.load_mask
    if s.xstate & mask & s.known:
        found.add("nm")
        return []
    registers = list(s.registers)
    for place, component in enumerate(world.components):
        if mask >> component & 1:
            registers[place] = s.slots[place] if s.xstate >> component & 1 else INITIAL
    return [s._replace(phase="ready", registers=tuple(registers))]


def entered(world: World, s: State, found: set[str]) -> list[State]:
    if world.policy.entry(audit.Live(s.xcr0, s.xss, s.xfd)).outcome != "allowed":
        return []
    registers, counts = list(s.registers), s.counts
    for place, component in enumerate(world.components):
        if world.policy.name == "sev-es":
            registers[place] = GUEST if counts >> component & 1 else INITIAL
        if counts >> component & 1 and registers[place] != GUEST:
            found.add("lost-guest")
            counts &= ~(1 << component)
        if registers[place] == HOST:
            found.add("leak-to-guest")
    xfd = s.xfd if getattr(world.policy, "reread", True) else s.known
    return [s._replace(phase="guest", xfd=xfd, registers=tuple(registers), counts=counts)]
