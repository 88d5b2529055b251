"""`audit.admit`: the policy's own answers, and a save on the emulated processor, for guests out of snapshots."""

from random import Random

import pytest
import reference

from tests.audit.masks import area, legal
from tests.audit.test_random_scripts import FACTS, POISON, ROOM, WITHOUT_XSAVES, put
from tests.laws.strategies import model
from tests.processor.operands import submasks
from tests.scale import repeats
from xsave import Processor, UnsupportedError, audit
from xsave.audit.program import values_of


@pytest.mark.parametrize("host", ["SapphireRapids", "EPYC-Genoa", "DiamondRapids", "Bulldozer"])
def test_answers_and_overruns(host: str) -> None:
    random = Random(host)
    table = reference.CPUS[host]
    outcomes: "dict[str, int]" = {}
    for _ in range(repeats(400)):
        name, facts = random.choice(FACTS if table["d1eax"] & 8 else WITHOUT_XSAVES)
        narrow = {} if name in ("tdx-xfam", "sgx-xfrm") else {"allowed_xcr0": random.choice(legal(host))}
        policy = audit.policy(name, model(host), **facts, **narrow)
        other = random.choice(["SapphireRapids", "EPYC-Genoa", host])
        xss = table["xss"] & random.getrandbits(64) * random.getrandbits(1)
        guest = audit.Live(random.choice(legal(other)), xss, 0)
        used = int(guest.xcr0 | guest.xss) & random.choice([random.getrandbits(64), 2**64 - 1])
        save = random.choice(["rfbm-all", "rfbm-host", "rfbm-buffer"])
        size = random.choice([None, 832, 2696, 12288])
        made = audit.admit(policy, guest, used, save=save, size=size)
        answers = {register: policy.write(register, value).outcome == "allowed"
                   for register, value in (("XCR0", guest.xcr0), ("XSS", guest.xss))
                   if value != (policy.first_xcr0 if register == "XCR0" else 0)}  # fmt: skip
        assert {register: each.outcome == "allowed" for register, _, each in made.answers} == answers
        if not all(answers.values()):
            assert made.verdict is None and not made.passes
            outcomes["refused"] = outcomes.get("refused", 0) + 1
            continue
        if made.verdict is None:
            assert made.worst is None
            assert made.passes == (made.looked is not None and made.looked.outcome == "allowed")
            continue
        own = policy.host_xcr0 | policy.host_xss
        rfbm = {"rfbm-all": 2**64 - 1, "rfbm-host": own, "rfbm-buffer": policy.allowed_xcr0 | policy.allowed_xss}[save]
        outcome = executed(made, host, used, rfbm)
        outcomes[outcome] = outcomes.get(outcome, 0) + 1
    assert min(outcomes.get(each, 0) for each in ("refused", "overrun", "fits")) > repeats(400) // 80, outcomes


def executed(made: audit.Admission, host: str, used: int, rfbm: int) -> str:
    """The save with everything in use, and with what is: both do to the buffer's end what was said."""
    table = reference.CPUS[host]
    masks = made.policy.at_save(made.guest)
    for verdict, in_use in ((made.worst, 2**64 - 1), (made.verdict, used)):
        assert verdict is not None
        cpu = Processor(model(host), xcr0=1, cpl=0)
        for register, value in zip(("XCR0", "XSS", "XFD"), masks, strict=True):
            assert put(cpu, register, value) is None or value == 0
        cpu.load(values_of(in_use & (table["xcr0"] | table["xss"])))
        memory = bytearray([POISON]) * (verdict.size + ROOM)
        assert getattr(cpu, f"try_{verdict.instruction.lower()}")(memory, rfbm) is None
        changed = sum(byte != POISON for byte in memory[verdict.size :])
        assert bool(changed) == bool(verdict.ranges), (made, verdict)
    assert made.worst is not None
    if made.looked is not None and made.looked.outcome == "allowed":
        assert made.passes == made.worst.fits
    return "overrun" if made.worst.ranges else "fits"


def test_the_buffer_is_that_of_what_is_offered() -> None:
    policy = audit.policy("vmx-exit", model("SapphireRapids"), allowed_xcr0=0x2E7)
    made = audit.admit(policy, audit.Live(7, 0, 0), 7)
    assert made.worst is not None and made.worst.instruction == "XSAVES"
    offered = 0x2E7 | reference.CPUS["SapphireRapids"]["xss"]
    assert made.worst.size == area("SapphireRapids", "XSAVES", 0x2E7, offered & ~0x2E7)
    standard = audit.admit(policy, audit.Live(7, 0, 0), 7, instruction="XSAVE")
    assert standard.worst is not None and standard.worst.size == 2696


@pytest.mark.parametrize("host", ["SapphireRapids", "EPYC-Genoa", "DiamondRapids"])
def test_the_worst_of_a_policy(host: str) -> None:
    """Against every value that XSETBV takes and the policy admits, by the slow model; the proof draws the same line."""
    table = reference.CPUS[host]
    for name, facts in FACTS if host != "DiamondRapids" else FACTS[:6]:
        offered = {} if name in ("tdx-xfam", "sgx-xfrm") else {"allowed_xcr0": 0x207}
        policy = audit.policy(name, model(host), **facts, **offered)
        for instruction in [policy.INSTRUCTION] if policy.INSTRUCTION else ["XSAVE", "XSAVEC", "XSAVES"]:
            guest, verdict = audit.worst(policy, size=16384, instruction=instruction)
            sizes = {}
            for xcr0 in {policy.first_xcr0, *(v for v in legal(host) if policy.write("XCR0", v).outcome == "allowed")}:
                for xss in submasks(table["xss"]) if instruction == "XSAVES" else [0]:
                    live = audit.Live(xcr0, xss, 0)
                    if xss and policy.write("XSS", xss).outcome != "allowed":
                        continue
                    if policy.audit(live, 16384, instruction).outcome == "allowed":
                        masks = policy.at_save(live)
                        sizes[live] = area(host, instruction, masks.xcr0, masks.xss)
            assert verdict.required == max(sizes.values()), (policy, instruction, guest)
            if policy.KEEPER == "vmm" and name != "no-exit-audited" and verdict.required > 576:
                assert audit.prove(model(host), policy, verdict.required, instruction=instruction).safe
                assert not audit.prove(model(host), policy, verdict.required - 1, instruction=instruction).safe


def test_bad_facts() -> None:
    policy = audit.policy("vmx-exit", model("EPYC-Genoa"))
    guest = audit.Live(7, 0, 0)
    with pytest.raises(ValueError, match="save='all': one of 'rfbm-all'"):
        audit.admit(policy, guest, 7, save="all")
    with pytest.raises(ValueError, match="a buffer of 0 bytes"):
        audit.admit(policy, guest, 7, size=0)
    with pytest.raises(ValueError, match="'XRSTOR' is none of"):
        audit.admit(policy, guest, 7, instruction="XRSTOR")
    with pytest.raises(UnsupportedError, match="has no XSAVES"):
        audit.admit(audit.policy("vmx-exit", model("Bulldozer")), guest, 7, instruction="XSAVES")


def test_what_the_host_does_not_have_is_refused() -> None:
    made = audit.admit(audit.policy("host-swap", model("SandyBridge")), audit.Live(0x602E7, 0, 0), 7)
    assert not made.passes and made.verdict is None


def test_the_look_before_the_save_knows_the_buffer() -> None:
    policy = audit.policy("no-exit-audited", model("SapphireRapids"), audit="size")
    guest = audit.Live(0x602E7, 0, 0)
    assert audit.admit(policy, guest, 7, instruction="XSAVE", size=11008).passes
    small = audit.admit(policy, guest, 7, instruction="XSAVE", size=4096)
    assert small.looked is not None and small.looked.outcome != "allowed" and not small.passes
    assert small.verdict is None and small.worst is None  # it is not saved


def test_the_worst_of_an_instruction_that_is_not_there() -> None:
    with pytest.raises(UnsupportedError, match="has no XSAVES"):
        audit.worst(audit.policy("no-exit-unaudited", model("Bulldozer")), size=4096, instruction="XSAVES")


def test_what_the_hardware_keeps_has_no_buffer_of_the_vmm() -> None:
    policy, guest = audit.policy("sev-es", model("EPYC-Genoa")), audit.Live(0xE7, 0, 0)
    kept = audit.admit(policy, guest, 0xE7)
    assert kept.passes and kept.verdict is None and kept.worst is None
    asked = audit.admit(policy, guest, 0xE7, instruction="XSAVE", size=832)
    # #VMEXIT has loaded the host's XCR0: what is saved then is all that the host has.
    assert asked.worst is not None and asked.worst.required == reference.standard_size("EPYC-Genoa", 0x2E7)
    assert not asked.passes
