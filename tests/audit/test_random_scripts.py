"""Random guests under random policies, on the emulated processor with a guarded buffer: verdict, proof and outcome.

A run: the guest writes its registers and uses components; the policy answers, and the processor must agree where it is
the one that decides; then the save, with the masks that the policy says are loaded, into a buffer whose end is known.
"""

from random import Random

import pytest
import reference

from tests.audit.masks import area, instructions, legal
from tests.laws.strategies import model
from tests.scale import repeats
from xsave import Exit, Fault, Memory, Processor, audit
from xsave.audit.program import values_of

POISON = 0x55
BASE = 0x40000
ROOM = 16384
MSRS = {"XSS": 0xDA0, "XFD": 0x1C4}
MODELS = ("SapphireRapids", "DiamondRapids", "EPYC-Genoa", "Skylake-Client", "Bulldozer")
FACTS = (
    ("vmx-exit", {}), ("vmx-exit", {"live": "host"}), ("vmx-exit", {"rules": "xen"}), ("host-swap", {}),
    ("host-swap", {"swap": "after"}), ("no-exit-audited", {}), ("no-exit-audited", {"audit": "size"}),
    ("no-exit-unaudited", {}), ("no-exit-unaudited", {"live": "host"}), ("vmcs-xfam", {}),
    ("vmcs-xfam", {"outside": "gp"}), ("xfd-passthrough", {}), ("tdx-xfam", {}), ("sgx-xfrm", {}), ("sev-es", {}),
)  # fmt: skip
# A TD needs XSAVES; neither is there an enclave where XSAVES is not.
WITHOUT_XSAVES = tuple(each for each in FACTS if each[0] not in ("tdx-xfam", "sgx-xfrm"))


class Question:
    """A policy on a model with a save discipline and a buffer, and what the proof says of it."""

    def __init__(self, random: Random) -> None:
        self.name = random.choice(MODELS)
        policy, facts = random.choice(FACTS if reference.CPUS[self.name]["d1eax"] & 8 else WITHOUT_XSAVES)
        self.policy = audit.policy(policy, model(self.name), **facts)
        self.instruction = self.policy.INSTRUCTION or random.choice(instructions(self.name))
        self.size = random.choice((576, 832, 1088, 2440, 2696, 2816, 8192, 10696, 10752, 11008, 12288))
        save = random.choice(("rfbm-all", "rfbm-host", "rfbm-buffer"))
        self.proof = audit.prove(
            model(self.name), self.policy, self.size, save=save, instruction=self.instruction
        )
        own = self.policy.host_xcr0 | self.policy.host_xss
        everything = save == "rfbm-all" or policy in ("tdx-xfam", "sgx-xfrm")
        self.rfbm = 2**64 - 1 if everything else own if save == "rfbm-host" else largest(self)


def largest(question: Question) -> int:
    """The numerically largest value of XCR0 whose area fits, by the slow model."""
    return max(v for v in legal(question.name) if area(question.name, question.instruction, v) <= question.size)


def put(cpu: Processor, register: str, value: int) -> Fault | Exit | None:
    """XSETBV or WRMSR on the processor."""
    return cpu.try_xsetbv(0, value) if register == "XCR0" else cpu.try_wrmsr(MSRS[register], value)


def guest_writes(random: Random, question: Question, cpu: Processor) -> audit.Live:
    """Up to three writes; the guest's registers afterwards."""
    policy, table = question.policy, reference.CPUS[question.name]
    held = {"XCR0": int(cpu.xcr0), "XSS": 0, "XFD": 0}
    for _ in range(random.randrange(4)):
        register = random.choice(("XCR0", "XCR0", "XSS", "XFD"))
        if register == "XCR0":
            value = random.choice(legal(question.name)) if random.random() < 0.8 else random.getrandbits(64)
        else:
            mask = table["xss"] if register == "XSS" else reference.xfd_mask(table)
            value = random.getrandbits(64) & (mask if random.random() < 0.9 else 2**64 - 1)
        answer = policy.write(register, value)
        native = put(cpu, register, value)
        if answer.exits_to is None and policy.name not in ("sgx-xfrm", "vmcs-xfam"):
            assert (answer.outcome == "allowed") == (native is None), (question.policy, register, hex(value))
        if answer.outcome == "allowed":
            assert native is None, (question.policy, register, hex(value))
            held[register] = value
        elif native is None:  # the processor would have taken it; the policy did not let it
            put(cpu, register, held[register])
    return audit.Live(held["XCR0"], held["XSS"], held["XFD"])


def one_run(random: Random, question: Question) -> str:
    """One guest; what came of it: "refused", "overrun" or "fits"."""
    policy, table = question.policy, reference.CPUS[question.name]
    first = policy.xfrm if policy.name == "sgx-xfrm" else 1
    cpu = Processor(model(question.name), xcr0=first, cpl=0)
    guest = guest_writes(random, question, cpu)
    if policy.audit(guest, question.size, question.instruction).outcome != "allowed":
        return "refused"
    reachable = [c for c in reference.bits(guest.xcr0 | guest.xss | 3) if not guest.xfd >> c & 1]
    chosen = random.sample(reachable, random.randrange(len(reachable) + 1))
    cpu.load(values_of(sum(1 << component for component in chosen)))
    masks = policy.at_save(guest)
    for register, value in zip(("XCR0", "XSS", "XFD"), masks, strict=True):
        assert put(cpu, register, value) is None or value == 0
    used = int(cpu.xinuse) & (table["xcr0"] | table["xss"])
    verdict = audit.buffer(
        model(question.name), xcr0=masks.xcr0, xss=masks.xss, xfd=masks.xfd, instruction=question.instruction,
        rfbm=question.rfbm, size=question.size, in_use=used,
    )  # fmt: skip
    facts = {"xcr0": masks.xcr0, "xss": masks.xss, "instruction": question.instruction, "size": question.size}
    worst = audit.buffer(model(question.name), rfbm=question.rfbm, **facts)
    within = masks.xcr0 & question.rfbm, masks.xss & question.rfbm
    assert worst.required == area(question.name, question.instruction, *within)
    save = getattr(cpu, f"try_{question.instruction.lower()}")
    if random.random() < 0.25:
        guarded = Memory()
        guarded.map(BASE, bytearray(question.size))
        fault = save(guarded, question.rfbm, BASE)
        assert (None if fault is None else fault.offset) == verdict.fault_at, (policy, guest, verdict)
        return "fits" if fault is None else "fault"
    memory = bytearray([POISON]) * (question.size + ROOM)
    assert save(memory, question.rfbm) is None
    changed = set()
    if memory.count(POISON, question.size) != ROOM:
        changed = {at for at in range(question.size, len(memory)) if memory[at] != POISON}
    said = {at for begin, end in verdict.ranges for at in range(begin, end)}
    unused = {at for begin, end in verdict.unused for at in range(begin, end)}
    assert changed <= said and said - changed <= unused, (policy, guest, verdict)
    if changed and policy.KEEPER == "vmm":
        assert not question.proof.safe, (policy, guest, verdict)
    return "overrun" if changed else "fits"


def runs(seed: object, count: int) -> dict[str, int]:
    """`count` runs over eighty questions at least, of fifty runs at most."""
    random = Random(f"scripts {seed}")
    found: dict[str, int] = {}
    each = min(50, max(count // 80, 1))
    for number in range(count):
        if number % each == 0:
            question = Question(random)
        outcome = one_run(random, question)
        found[outcome] = found.get(outcome, 0) + 1
    return found


@pytest.mark.parametrize("seed", range(2))
def test_verdict_proof_and_outcome_agree(seed):
    found = runs(seed, repeats(3000))
    assert min(found.get(each, 0) for each in ("overrun", "fits", "fault")) > repeats(50), found


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10, 20))
def test_a_million_runs(seed):
    assert sum(runs(seed, 100_000).values()) == 100_000
