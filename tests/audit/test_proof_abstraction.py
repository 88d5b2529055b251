"""One component at a time, and bits of IA32_XSS that fall together, lose nothing: against the walk without either."""

from random import Random

import pytest
import reference

from tests.audit import slow_walk
from tests.laws.strategies import model
from tests.scale import repeats
from xsave import Component, CpuModel, audit
from xsave.audit.policies import POLICIES
from xsave.audit.proof import Walks


def small(xcr0: int, xss: int) -> CpuModel:
    """Sapphire Rapids with these components alone."""
    leaves = dict(model("SapphireRapids").cpuid)
    _, ebx, ecx, _ = leaves[0xD, 0]
    leaves[0xD, 0] = (xcr0, ebx, ecx, 0)
    eax, ebx, _, _ = leaves[0xD, 1]
    leaves[0xD, 1] = (eax, ebx, xss, 0)
    return CpuModel.from_cpuid(leaves)


# Three components beside x87: two of XCR0 with one of IA32_XSS, one with two, and tiles with their IA32_XFD.
SMALL = {
    "user": (small(0x7, 0x100), (1, 2, 8)),
    "supervisor": (small(0x203, 0x1800), (9, 11, 12)),
    "tiles": (small(0x60003, 0), (1, 17, 18)),
}
FACTS = {
    "vmx-exit": [{}, {"live": "host"}, {"rules": "xen"}],
    "host-swap": [{}, {"swap": "after"}, {"host_xcr0": 1}],
    "no-exit-audited": [{}, {"audit": "size"}, {"live": "host"}],
    "no-exit-unaudited": [{}, {"live": "host"}],
    "vmcs-xfam": [{}, {"xfam": 3}, {"outside": "gp", "xfam": 3}],
    "xfd-passthrough": [{}, {"reread": False, "live": "host"}],
    "tdx-xfam": [{}],
    "sgx-xfrm": [{}],
    "sev-es": [{}, {"host_save_area": "stale"}],
}


def questions() -> list[tuple]:
    """Three of every policy, facts and model (fewer in a thinned run); discipline, instruction and size drawn."""
    random = Random("abstraction")
    found = []
    for name, each in FACTS.items():
        for facts in each:
            for kind in [*SMALL] * repeats(3):
                instruction = {"tdx-xfam": "XSAVES", "sgx-xfrm": "XSAVE"}.get(
                    name, random.choice(("XSAVE", "XSAVEOPT", "XSAVEC", "XSAVES"))
                )
                save, restore = random.choice(("all", "host", "buffer")), random.choice(("buffer", "max"))
                size = random.choice((576, 600, 832, 960, 3000, 20000))
                found.append((name, facts, kind, instruction, save, restore, size))
    return found


def test_every_policy_is_asked():
    assert set(FACTS) == set(POLICIES)


@pytest.mark.parametrize(("name", "facts", "kind", "instruction", "save", "restore", "size"), questions())
def test_the_same_is_found(name, facts, kind, instruction, save, restore, size):
    cpu, components = SMALL[kind]
    guest = audit.policy(name, cpu, **facts)
    walks = Walks(guest, guest.table(), size, instruction, f"rfbm-{save}", restore, None)
    states = walks.run([Component(each) for each in components])
    table = reference.cpu_from_cpuid(cpu.cpuid)
    world = slow_walk.World(
        table, components, guest, instruction, size, walks.rfbm, walks.load_mask, reference.xfd_mask(table)
    )
    concrete, shortest = slow_walk.walk(world)
    assert {each: len(example.steps) for each, example in walks.found.items()} == shortest, (concrete, states)
