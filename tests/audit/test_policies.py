"""The policies against independent evaluations of what they stand for, and against their own tables."""

from random import Random

import pytest
import reference

from tests.audit.masks import with_undefined
from tests.laws.strategies import each_model, model
from tests.scale import THIN
from xsave import CpuModel, audit
from xsave.audit.policies import POLICIES
from xsave.audit.policies.rules import KVM, first_refusal
from xsave.audit.policies.tdx_xfam import FIXED0, FIXED1

NAMED = [name for name in CpuModel.names() if name in reference.CPUS]
# What the oracle calls a refusal, and the code that the policy gives it.
KVM_CODES = {
    "index": "INDEX", "x87": "R-X87", "avx": "R-AVX", "unsupported": "A-NOALLOW", "mpx": "R-MPX", "apx": "R-APX",
    "avx512 without avx": "R-AVX512", "avx512 split": "R-AVX512", "avx512": "R-AVX512", "amx": "R-AMX",
    "outside xfam": "A-NOALLOW", "missing": "MSR-MISSING",
}  # fmt: skip


def verdict(refused: str | None, by: str | None) -> tuple[str, str | None, str]:
    return ("allowed", by, "") if refused is None else ("gp", by, KVM_CODES[refused])


@pytest.mark.parametrize("name", NAMED)
def test_vmx_exit_is_kvm(name):
    """All values over the defined bits of every model, with KVM's conditions in KVM's order."""
    table = reference.CPUS[name]
    guest = audit.policy("vmx-exit", model(name))
    for value in with_undefined(table["xcr0"] | 0x60000 | 0x18):
        refused = reference.kvm_xcr0(value, 0, table["xcr0"], table["xcr0"])
        assert guest.write("XCR0", value).key == verdict(refused, "vmm"), hex(value)
    assert guest.write("XCR0", 7, index=1).key == ("gp", "vmm", "INDEX")
    for value in with_undefined(table["xss"] | 0x1800):
        refused = reference.kvm_xss(value, table["xss"], bool(table["d1eax"] & 8))
        assert guest.write("XSS", value).key == verdict(refused, "vmm"), hex(value)


def test_what_the_vmm_offers_and_has_itself():
    spr = model("SapphireRapids")
    for facts in ({"allowed_xcr0": 0x2E7}, {"host_xcr0": 0x2E7}, {"allowed_xcr0": "AVX512|SSE|AVX|x87|PKRU"}):
        guest = audit.policy("vmx-exit", spr, **facts)
        assert guest.write("XCR0", 0x2E7).outcome == "allowed"
        assert guest.write("XCR0", 0x602E7).key == ("gp", "vmm", "A-NOALLOW")
        assert guest.write("XFD", 0x40000).key == ("gp", "vmm", "A-NOALLOW")
    assert audit.policy("vmx-exit", spr).write("XFD", 0x40000).key == ("allowed", "vmm", "")
    assert audit.policy("vmx-exit", model("EPYC-Genoa")).write("XFD", 0).key == ("gp", "vmm", "MSR-MISSING")
    one = audit.policy("vmx-exit", spr, allowed_xss="CET_U")
    assert one.write("XSS", 1 << 11).outcome == "gp"  # half of CET is none


@each_model
def test_vmx_exit_is_xen(name):
    table = reference.CPUS[name]
    guest = audit.policy("vmx-exit", model(name), rules="xen")
    for value in with_undefined(table["xcr0"]):
        assert guest.write("XCR0", value).key == verdict(reference.xen_xcr0(value, 0, table["xcr0"]), "vmm"), hex(value)
    assert guest.write("XSS", 1 << 11).outcome == "gp"
    assert guest.write("XCR0", 7, index=2).key == ("gp", "vmm", "INDEX")


@pytest.mark.parametrize("policy", ["host-swap", "no-exit-audited", "no-exit-unaudited", "sev-es"])
@each_model
def test_without_an_exit_the_processor_decides(policy, name):
    table = reference.CPUS[name]
    guest = audit.policy(policy, model(name))
    for value in with_undefined(table["xcr0"]):
        answer = guest.write("XCR0", value)
        assert (answer.outcome == "allowed") == (reference.xcr0_fault(table, value) is None), hex(value)
        assert answer.exits_to is None
    for value in with_undefined(table["xss"]):
        refused = not table["d1eax"] & 8 or bool(value & ~table["xss"])
        assert guest.write("XSS", value).key[:2] == ("gp" if refused else "allowed", None)


def test_tdx_fixed_bits():
    assert (FIXED0, FIXED1) == (reference.TDX_FIXED0, reference.TDX_FIXED1)


@pytest.mark.parametrize("chunk", range(8))
def test_every_xfam(chunk):
    """All 2^19 values of XFAM (thinned: those with FIXED1): a TD is created exactly with what check_xfam takes."""
    spr = model("SapphireRapids")
    supported = reference.CPUS["SapphireRapids"]["xcr0"] | reference.CPUS["SapphireRapids"]["xss"]
    taken = 0
    for xfam in range(chunk << 16, (chunk + 1) << 16):
        if THIN > 1 and FIXED1 & ~xfam:
            continue
        refused = reference.tdx_xfam(xfam, supported)
        try:
            made = audit.policy("tdx-xfam", spr, xfam=xfam)
        except ValueError:
            assert refused is not None, hex(xfam)
        else:
            assert refused is None, hex(xfam)
            assert made.xfam == xfam
            taken += 1
    assert (taken > 0) == (chunk in (0, 6))


@pytest.mark.parametrize("xfam", [0x3, 0x7, 0xE7, 0x602E7, 0x61AE7, 0x6DBE7])
def test_a_trust_domain(xfam):
    spr = model("SapphireRapids")
    table = reference.CPUS["SapphireRapids"]
    supported = table["xcr0"] | table["xss"]
    guest = audit.policy("tdx-xfam", spr, xfam=xfam & (supported | ~0x100))
    for value in with_undefined(table["xcr0"]):
        refused = reference.tdx_xcr0(value, 0, xfam, table["xcr0"])
        assert guest.write("XCR0", value).key == verdict(refused, "module"), hex(value)
    for value in with_undefined(table["xss"]):
        assert (guest.write("XSS", value).outcome == "gp") == bool(value & ~(xfam & table["xss"]))
    assert guest.write("XFD", 0x40000).outcome == ("allowed" if xfam & 0x40000 else "gp")
    after = guest.after_exit(audit.Live(3, 0, 0))
    assert after == (xfam & reference.TDX_USER, xfam & reference.TDX_SUPERVISOR, 0)


@pytest.mark.parametrize("name", ["SapphireRapids", "DiamondRapids", "Skylake-Client"])
def test_every_xfrm(name):
    """An enclave is created with the legal values of XCR0 that have x87 and SSE, and its frame fits."""
    table = reference.CPUS[name]
    offered = model(name).cpuid.get((0x12, 1), (0, 0, 0, 0))
    limit = offered[2] | offered[3] << 32 or table["xcr0"]
    for xfrm in with_undefined(table["xcr0"]):
        legal = reference.xcr0_fault(table, xfrm) is None and xfrm & 3 == 3 and not xfrm & ~limit
        try:
            guest = audit.policy("sgx-xfrm", model(name), xfrm=xfrm)
        except ValueError:
            assert not legal, hex(xfrm)
            continue
        assert legal, hex(xfrm)
        pages = -(-(reference.standard_size(name, xfrm) + 184 + 16) // 4096)
        assert guest.ssa_frame_size == pages == (3 if xfrm & 0x60000 else 1)
        with pytest.raises(ValueError, match="ssa_frame_size"):
            audit.policy("sgx-xfrm", model(name), xfrm=xfrm, ssa_frame_size=pages - 1)
        assert guest.write("XCR0", xfrm).key == ("gp", None, "CPL")
        assert guest.at_save(audit.Live(1, 0, 0)) == (xfrm, 0, 0)
        assert guest.entry(audit.Live(1, 0, 0)).outcome == "allowed"
        narrow = audit.policy("sgx-xfrm", model(name), xfrm=xfrm, host_xcr0=3)
        assert (narrow.entry(audit.Live(3, 0, 0)).outcome == "gp") == bool(xfrm & ~3)


def test_vmcs_xfam():
    spr = model("SapphireRapids")
    guest = audit.policy("vmcs-xfam", spr, xfam=0x2E7)
    assert guest.write("XCR0", 0x2E7).key == ("allowed", None, "")
    assert guest.write("XCR0", 0x602E7).key == ("allowed", "vmm", "")
    assert guest.write("XCR0", 0x2E5).key == ("gp", None, "R-AVX")  # illegal: the processor's, no exit
    assert guest.write("XSS", 1 << 8).key == ("gp", "vmm", "A-NOALLOW")
    strict = audit.policy("vmcs-xfam", spr, xfam=0x2E7, outside="gp")
    assert strict.write("XCR0", 0x602E7).key == ("gp", None, "A-NOALLOW")
    assert strict.entry(audit.Live(0x602E7, 0, 0)).key == ("killed", None, "A-NOALLOW")
    assert strict.entry(audit.Live(0x2E7, 0x1800, 0)).outcome == "killed"
    assert strict.entry(audit.Live(0x2E7, 0, 0)).outcome == "allowed"
    assert strict.nested(0x60207) == 0x207
    assert strict.after_exit(audit.Live(7, 0, 0)) == (7, 0, 0)
    swapped = audit.policy("vmcs-xfam", spr, swap="vmcs")
    assert swapped.after_exit(audit.Live(7, 0, 0)) == (0x602E7, 0, 0)


def test_whose_masks_rule_the_save():
    spr = model("SapphireRapids")
    guest = audit.Live(0x602E7, 0x100, 0x40000)
    facts = {"host_xcr0": 0x2E7, "host_xss": 0x1800}
    for name, own, expected in (
        ("vmx-exit", {}, guest),
        ("vmx-exit", {"live": "host"}, (0x2E7, 0x1800, 0x40000)),
        ("host-swap", {}, (0x2E7, 0x1800, 0x40000)),
        ("host-swap", {"swap": "after"}, guest),
        ("no-exit-unaudited", {}, guest),
        ("no-exit-audited", {"live": "host"}, (0x2E7, 0x1800, 0x40000)),
        ("sev-es", {}, (0x2E7, 0x1800, 0x40000)),
        ("sev-es", {"host_save_area": "stale"}, (1, 0, 0x40000)),
    ):
        assert audit.policy(name, spr, **facts, **own).at_save(guest) == expected, (name, own)


def test_the_audits():
    spr = model("SapphireRapids")
    guest = audit.Live(0x602E7, 0, 0)
    by_mask = audit.policy("no-exit-audited", spr)
    by_size = audit.policy("no-exit-audited", spr, audit="size")
    for instruction in ("XSAVE", "XSAVEC", "XSAVES"):
        assert by_mask.audit(guest, 10696, instruction).outcome == "allowed"  # the sum of the sizes, without alignment
        assert by_size.audit(guest, 10696, instruction).key == ("killed", "vmm", "A-OVERRUN")
    assert by_size.audit(guest, 10752, "XSAVEC").outcome == "allowed"
    assert by_size.audit(audit.Live(0x602E7, 0xDD00, 0), 10752, "XSAVES").outcome == "killed"
    narrow = audit.policy("no-exit-audited", spr, allowed_xcr0=0x2E7)
    assert narrow.audit(guest, 1 << 20, "XSAVE").key == ("killed", "vmm", "A-NOALLOW")


@pytest.mark.parametrize("policy", POLICIES)
@each_model
def test_class_and_table_agree(policy, name):
    """Over every class of writes, and over random values with bits that no model has."""
    guest = audit.policy(policy, model(name))
    table = guest.table()
    random = Random(f"{policy} {name}")
    masks = {"XCR0": int(model(name).xcr0_mask), "XSS": int(model(name).xss_mask), "XFD": 0x40000}
    for register, mask in masks.items():
        drawn = [random.getrandbits(64) & random.choice((mask, 2**64 - 1)) for _ in range(200)]
        for value in with_undefined(mask) + drawn:
            for cpl, index in ((0, 0), (3, 0)) + (((0, 1), (2, 7)) if register == "XCR0" else ()):
                assert table.lookup(register, value, cpl, index).key == guest.write(register, value, cpl, index).key
    assert len({answer.key for answer in table.answers}) == len(table.answers) < 16


@pytest.mark.parametrize("policy", POLICIES)
def test_every_answer_says_why(policy):
    guest = audit.policy(policy, model("DiamondRapids"))
    for answer in guest.table().answers:
        assert answer.rule and answer.source
        assert (answer.code == "") == (answer.outcome == "allowed")
    assert guest.write("XCR0", 0xE02E7, cpl=1).key == ("gp", None, "CPL")


def test_what_contradicts_itself_is_named():
    spr, genoa = model("SapphireRapids"), model("EPYC-Genoa")
    for text, facts in (
        (r"no policy 'vmx-exti'; did you mean vmx-exit\?", {"name": "vmx-exti"}),
        (r"vmx-exit has no fact 'rule'; did you mean rules\?", {"rule": "xen"}),
        (r"rules='bsd': one of 'kvm', 'xen'", {"rules": "bsd"}),
        (r"live='both': one of 'guest', 'host'", {"live": "both"}),
        (r"allowed_xcr0 0x80007 has 0x80000 \(APX\), which SapphireRapids", {"allowed_xcr0": 0x80007}),
        (r"host_xss 0x1 has", {"host_xss": 1}),
        (r"host_xcr0 0x27 is no value of XCR0: bits 7:5", {"host_xcr0": 0x27}),
        (r"XFAM 0x1: bits 0x3 \(x87 SSE\) are fixed to 1", {"name": "tdx-xfam", "xfam": 1}),
        (r"XFAM 0xc0007: .*fixed to 0", {"name": "tdx-xfam", "xfam": 0xC0007}),
        (r"XFAM 0x807: bits 11 and 12 \(CET\)", {"name": "tdx-xfam", "xfam": 0x807}),
        (r"xfam 0x80003 has .*APX", {"name": "vmcs-xfam", "xfam": 0x80003}),
        (r"allowed_xcr0 .* does not fit 64 bits", {"allowed_xcr0": 1 << 64}),
    ):
        with pytest.raises(ValueError, match=text):
            audit.policy(str(facts.pop("name", "vmx-exit")), spr, **facts)
    guest = audit.policy("vmx-exit", genoa)
    for arguments in (("XCR1", 1), ("XCR0", -1), ("XCR0", 1 << 64), ("XCR0", 1, 4), ("XCR0", 1, 0, -1)):
        with pytest.raises(ValueError, match=r"register|64 bits|CPL"):
            guest.write(*arguments)


def test_mpx_with_apx():
    """No CPU has both, for they lie at one place; the conditions of KVM hold for any mask that it may be given."""
    everything = 0xE02FF
    for value in with_undefined(everything):
        refused = reference.kvm_xcr0(value, 0, everything, everything)
        assert first_refusal(KVM, value, everything) == (refused and KVM_CODES[refused]), hex(value)
