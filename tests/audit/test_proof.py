"""The exhaustive walk: what it must find, what it must prove, and that its ways are ways."""

import pytest
import reference

from tests.audit.masks import area, instructions
from tests.laws.strategies import each_model, model
from tests.processor.operands import submasks
from xsave import STANDARD, Area, CpuModel, Layout, Processor, UnsupportedError, audit, encode
from xsave.audit.program import values_of
from xsave.audit.proof import rfbm_of

SPR = "SapphireRapids"
COMPACT = ("XSAVEC", "XSAVES")


def spr(policy: str, size: int, **more: object) -> audit.Proof:
    disciplines = {name: more.pop(name) for name in ("save", "restore", "buffer_mask", "instruction") if name in more}
    return audit.prove(model(SPR), audit.policy(policy, model(SPR), **more), size, **disciplines)


@pytest.mark.parametrize("facts", [{"policy": "no-exit-unaudited"}, {"policy": "host-swap", "swap": "after"}])
@pytest.mark.parametrize("size", [832, 2440, 2696])
def test_the_overrun_is_found(facts, size):
    facts = dict(facts)
    policy = facts.pop("policy")
    found = spr(policy, size, **facts)
    assert not found.safe and found.counterexample and found.states > 1000
    assert found.counterexample[-1].startswith("VMM: saves the guest")
    assert spr(policy, size, save="rfbm-buffer", **facts).safe


@pytest.mark.parametrize("name", ["SapphireRapids", "DiamondRapids", "Bulldozer"])
def test_the_overrun_ends_with_the_slow_models_size(name):
    for instruction in instructions(name):
        needed = area(name, instruction, reference.CPUS[name]["xcr0"], reference.CPUS[name]["xss"])
        guest = audit.policy("no-exit-unaudited", model(name))
        assert audit.prove(model(name), guest, needed, instruction=instruction).safe
        assert not audit.prove(model(name), guest, needed - 1, instruction=instruction).safe


def test_the_shortest_way():
    found = spr("no-exit-unaudited", 2696)
    assert len(found.counterexample) == 3  # XSETBV, an exit, a save: nothing shorter exists
    assert "XSETBV" in found.counterexample[0] and "no exit" in found.counterexample[0]


@pytest.mark.parametrize("size", [576, 832, 2696, 11008, 12288])
def test_a_swap_before_the_save_with_the_buffers_mask_is_safe(size):
    found = spr("host-swap", size, save="rfbm-buffer")
    assert found.safe and found.counterexample == [] and found.script == ""
    assert found.leaks is not None  # what the VMM does not save stays in the registers


@pytest.mark.parametrize("instruction", instructions(SPR))
@pytest.mark.parametrize(("host_xcr0", "host_xss"), [(0x2E7, 0), (0x602E7, 0), (0x7, 0), (0x2E7, 0x1800)])
def test_a_swap_before_the_save_is_as_safe_as_the_hosts_masks(host_xcr0, host_xss, instruction):
    """With all ones in EDX:EAX the VMM's own masks decide, to the byte."""
    needed = area(SPR, instruction, host_xcr0, host_xss)
    facts = {"host_xcr0": host_xcr0, "host_xss": host_xss, "instruction": instruction}
    assert spr("host-swap", needed, **facts).safe
    if needed > 576:
        assert not spr("host-swap", needed - 1, **facts).safe
    assert spr("host-swap", needed, **facts).leaks is not None or (host_xcr0, host_xss) == (0x602E7, 0)


def test_christophersons_example():
    assert spr("host-swap", 2696, host_xcr0=0x2E7).safe
    assert not spr("host-swap", 2696, host_xcr0=0x602E7).safe
    assert spr("host-swap", 2696, host_xcr0=0x2E7).leaks is not None


@pytest.mark.parametrize("policy", ["vmx-exit", "vmcs-xfam", "sev-es", "sgx-xfrm"])
@each_model
def test_safe_where_the_worst_fits(policy, name):
    """The buffer for the worst that the policy admits, per instruction; one byte less is found where the VMM saves."""
    guest = audit.policy(policy, model(name))
    table = reference.CPUS[name]
    admitted = [v for v in submasks(table["xcr0"]) if guest.write("XCR0", v).outcome == "allowed"] or [table["xcr0"]]
    supervisor = sum(1 << b for b in reference.bits(table["xss"]) if guest.write("XSS", 1 << b).outcome == "allowed")
    if policy == "sgx-xfrm":
        admitted, supervisor = [guest.xfrm], 0
    elif policy in ("vmcs-xfam", "sev-es"):
        admitted, supervisor = [guest.host_xcr0], guest.host_xss  # the VMM's masks are loaded when it saves
    for instruction in ["XSAVE"] if policy == "sgx-xfrm" else instructions(name):
        worst = max(area(name, instruction, value, supervisor) for value in admitted)
        assert audit.prove(model(name), guest, worst, instruction=instruction).safe
        if policy != "sev-es" and worst > 576 and not table["xcr0"] >> 62:
            assert not audit.prove(model(name), guest, worst - 1, instruction=instruction).safe, instruction


def test_a_trust_domain_in_the_modules_buffer():
    found = spr("tdx-xfam", 12288)
    assert found.safe and found.faults is None and found.leaks is None and found.lost is None
    assert not spr("tdx-xfam", 10751).safe
    assert spr("tdx-xfam", 2696, xfam=0x2E7).safe


def test_the_audit_by_mask_believes_the_sum_of_the_sizes():
    for instruction in COMPACT:
        assert not spr("no-exit-audited", 10696, instruction=instruction).safe
        assert not spr("no-exit-audited", 10696, instruction=instruction, save="rfbm-buffer", buffer_mask=0x602E7).safe
        assert spr("no-exit-audited", 10696, instruction=instruction, audit="size").safe
    assert spr("no-exit-audited", 10696, audit="size").safe


def test_what_todays_kvm_does():
    """XSETBV exits, and the VMM's masks are loaded when it saves all that it has: nothing is lost, leaked or faults."""
    facts = {"live": "host", "host_xss": 0x1800, "instruction": "XSAVES"}
    today = spr("vmx-exit", 11776, restore="max", **facts)
    assert today.safe and today.lost is None and today.leaks is None and today.faults is None
    # Under the guest's own masks a guest that shrinks XCR0 loses state, and the VMM takes #GP on what it left.
    naive = spr("vmx-exit", 11776, restore="max")
    assert naive.safe and naive.lost is not None and naive.faults is not None


def test_a_stale_host_save_area():
    assert spr("sev-es", 11776).found == {}
    stale = spr("sev-es", 11776, host_save_area="stale")
    assert stale.lost is not None and stale.faults is not None


def test_an_xfd_that_is_not_read_back():
    assert "nm" not in spr("xfd-passthrough", 11776, live="host").found
    assert "nm" in spr("xfd-passthrough", 11776, live="host", reread=False, buffer_mask=0x602E7).found


@each_model
@pytest.mark.parametrize("policy", ["no-exit-unaudited", "vmx-exit"])
def test_the_script_shows_it(policy, name):
    """The counterexample, executed on the emulated processor, writes past the buffer; the assertion is its own."""
    found = audit.prove(model(name), audit.policy(policy, model(name)), 600)
    if found.safe:
        assert name == "Bulldozer"  # KVM lets no guest have LWP, and AVX is all there is besides
    else:
        exec(compile(found.script, "<script>", "exec"), {"print": lambda *_: None})


def test_a_script_for_every_way(monkeypatch):
    for policy, facts in (("host-swap", {"host_xcr0": 0x602E7}), ("tdx-xfam", {}), ("sgx-xfrm", {})):
        found = spr(policy, 2000, **facts)
        exec(compile(found.script, "<script>", "exec"), {"print": lambda *_: None})
    unnamed = CpuModel.from_cpuid(dict(model("EPYC-Genoa").cpuid))
    found = audit.prove(unnamed, "no-exit-unaudited", 832)
    assert "from_cpuid" in found.script
    exec(compile(found.script, "<script>", "exec"), {"print": lambda *_: None})


@each_model
def test_values_that_put_components_in_use(name):
    """Exactly those that are asked for, one by one and together, and none is given twice."""
    table = reference.CPUS[name]
    whole = table["xcr0"] | table["xss"]
    for mask in [0, whole, *(1 << bit for bit in reference.bits(whole))]:
        cpu = Processor(model(name), cpl=0)
        cpu.load(values_of(mask))
        assert int(cpu.xinuse) & ~2 == mask & ~2 and ("mxcsr" in values_of(mask)) == bool(mask & 2)
    layout = Layout(model(name), table["xcr0"], STANDARD)
    area = encode(values_of(table["xcr0"]), layout)
    assert int(Area(area, layout).xstate_bv) == table["xcr0"]


def test_the_largest_mask_that_fits():
    """Numerically, not the largest area: 60207H before 600E7H, which fits too (10,696 bytes, compacted)."""
    found = spr("host-swap", 10696, save="rfbm-buffer", instruction="XSAVEC", host_xcr0=0x602E7)
    assert found.safe and "leak-to-guest" in found.found
    assert "mask 0x60207" in " ".join(found.found["leak-to-guest"].steps)
    standard = spr("host-swap", 10696, save="rfbm-buffer", instruction="XSAVE", host_xcr0=0x602E7)
    assert "mask 0x2e7" in " ".join(standard.found["leak-to-guest"].steps)


def test_bad_questions():
    for text, more in (
        ("save='all'", {"save": "all"}),
        ("restore='none'", {"restore": "none"}),
        ("no area fits a buffer of 575 bytes", {"size": 575}),
        ("a buffer of 0 bytes", {"size": 0}),
        ("a buffer of 18,446,744,073,709,551,615 bytes", {"size": 2**64 - 1}),
        ("instruction 'XRSTOR'", {"instruction": "XRSTOR"}),
        ("tdx-xfam saves as XSAVES does, not with XSAVE", {"policy": "tdx-xfam", "instruction": "XSAVE"}),
        ("no policy 'none'", {"policy": "none"}),
        ("does not fit 64 bits", {"buffer_mask": 1 << 64}),
    ):
        with pytest.raises(ValueError, match=text):
            spr(**{"policy": "no-exit-unaudited", "size": 2696, **more})
    with pytest.raises(ValueError, match="one of EPYC-Genoa, the question of SapphireRapids"):
        audit.prove(model(SPR), audit.policy("host-swap", model("EPYC-Genoa")), 2696)
    with pytest.raises(UnsupportedError, match="no XSAVES"):
        audit.prove(model("Bulldozer"), "no-exit-unaudited", 832, instruction="XSAVES")


@pytest.mark.parametrize("save", ["rfbm-all", "rfbm-host", "rfbm-buffer"])
def test_a_discipline_is_a_vmms(save):
    """What the hardware saves it saves whole, whatever a VMM would ask for."""
    masks = {"rfbm-all": 2**64 - 1, "rfbm-host": 0xE7, "rfbm-buffer": 7}
    vmm = audit.policy("vmx-exit", model("EPYC-Genoa"), host_xcr0=0xE7)
    assert rfbm_of(vmm, save, 7) == masks[save]
    assert rfbm_of(audit.policy("sev-es", model("EPYC-Genoa"), host_xcr0=0xE7), save, 7) == 2**64 - 1
