"""`xsave validate --ptrace` and `--ioctl KVM_SET_XSAVE` against the running kernel: the same error, or none."""

from collections.abc import Iterator
from random import Random

import pytest
import reference

from tests import skips
from tests.laws.strategies import make_case

pytestmark = [skips.needs_native(), skips.needs_linux()]
if skips.has_native():
    from tests.silicon.kernel_doors import Tracee, VirtualCpu, door
    from xsave import COMPACTED, STANDARD, CpuModel, Layout, audit
    from xsave.audit import uabi
    from xsave.audit.verdict import can_disable

CASES = 400


class Both:
    """A door of the kernel and the predicate of it."""

    def __init__(self, name: str, opened: "Tracee | VirtualCpu") -> None:
        self.name = name
        self.opened = opened
        self.model = CpuModel.host()
        self.xcr0 = int(uabi.enabled(self.model, getattr(opened, "xcr0", None)))
        self.base = opened.get()
        # A child has used no tile; a virtual CPU was given room for all that it has.
        self.absent = can_disable(self.model) if name == "ptrace" else 0

    def ask(self, data: bytes) -> "tuple[str | None, str | None, list[str]]":
        """(the kernel's error, the predicted one, the rules that the prediction names)."""
        entry = uabi.PTRACE if self.name == "ptrace" else uabi.KVM
        found, error = uabi.findings(data, self.model, entry, self.xcr0, self.absent)
        return self.opened.set(data), error, [rule for rule, _, _, fatal in found if fatal]

    def changed(self, *puts: tuple[int, int]) -> bytes:
        data = bytearray(self.base)
        for at, value in puts:
            data[at] = value
        return bytes(data)


@pytest.fixture(scope="module", params=["ptrace", "kvm"])
def both(request: pytest.FixtureRequest) -> Iterator[Both]:
    with door(request.param) as opened:
        yield Both(request.param, opened)


def test_what_the_kernel_gave_it_takes(both: Both) -> None:
    assert both.ask(both.base) == (None, None, [])


@pytest.mark.parametrize("bit", range(64))
def test_every_bit_of_xstate_bv(both: Both, bit: int) -> None:
    at = 512 + bit // 8
    real, predicted, rules = both.ask(both.changed((at, both.base[at] | 1 << bit % 8)))
    assert real == predicted
    assert rules == ([] if real is None else ["U-XSTATE" if not both.xcr0 >> bit & 1 else "U-XFD"])


@pytest.mark.parametrize("at", range(520, 576))
def test_every_other_byte_of_the_header(both: Both, at: int) -> None:
    for value in (1, 0x80):
        expected = ["U-XCOMP" if at < 528 else "U-RESERVED"]
        assert both.ask(both.changed((at, value))) == ("EINVAL", "EINVAL", expected)


@pytest.mark.parametrize("xstate", [0, 1, 2, 3, 4, 7])
@pytest.mark.parametrize("bit", range(32))
def test_every_bit_of_mxcsr(both: Both, bit: int, xstate: int) -> None:
    data = both.changed((512, xstate), (513, 0), (514, 0), (24 + bit // 8, both.base[24 + bit // 8] | 1 << bit % 8))
    real, predicted, rules = both.ask(data)
    assert real == predicted and rules == ([] if real is None else ["U-MXCSR"])
    assert real is None or xstate


def test_sizes(both: Both) -> None:
    if both.name == "kvm":  # it reads as much as it needs, whatever the caller has
        entry = uabi.findings(both.base[:1000], both.model, uabi.KVM, both.xcr0, 0)
        assert [(rule, fatal) for rule, _, _, fatal in entry[0]] == [("K-SIZE", False)] and entry[1] is None
        return
    whole = len(both.base)
    for size in (0, 8, 512, 576, whole - 8, whole - 4, whole - 1):
        real, predicted, rules = both.ask(both.base[:size])
        assert real == predicted == ("EINVAL" if size % 8 else "EFAULT") and "P-SIZE" in rules
    for more in (8, 64):
        assert both.ask(both.base + bytes(more)) == (None, None, [])
    assert both.ask(both.base + bytes(4)) == ("EINVAL", "EINVAL", ["P-SIZE"])
    real, predicted, _ = both.ask(both.changed((520, 1))[:-8])
    assert real == predicted == "EFAULT"


def test_random_headers(both: Both) -> None:
    """Headers in which several rules are broken at once, or none."""
    rng = Random(5)
    refused = 0
    for _ in range(CASES):
        puts = [(512, rng.getrandbits(8)), (513, 0)]
        puts += [(rng.choice((24, 25, 26, 27)), rng.getrandbits(8))] if rng.random() < 0.5 else []
        puts += [(rng.randrange(512, 576), rng.getrandbits(8) & rng.getrandbits(8)) for _ in range(rng.randrange(2))]
        real, predicted, rules = both.ask(both.changed(*puts))
        assert real == predicted and bool(rules) == (real is not None)
        refused += real is not None
    assert CASES // 10 < refused < CASES


@pytest.mark.parametrize("name", ["SapphireRapids", "Skylake-Client", "EPYC-Genoa", "EPYC-Rome", "DiamondRapids"])
def test_what_migrate_makes_is_taken_whole(both: Both, name: str) -> None:
    """States of other CPUs, converted: the kernel takes them without an error, and gives the same state back."""
    random = Random(f"{both.name} {name}")
    table = reference.CPUS[name]
    layout = Layout(both.model, both.xcr0 | 3, STANDARD)
    carried = 0
    for _ in range(60):
        form = random.choice([STANDARD, COMPACTED]) if table["d1eax"] & 2 else STANDARD
        mask = table["xcr0"] if form == STANDARD else table["xcr0"] & random.getrandbits(64) | 3
        case = make_case(name, form, mask, mask & random.choice([mask, random.getrandbits(64)]), random.getrandbits(64))
        made = audit.migrate(case.view(), both.model, xcr0=both.xcr0, by=[both.name], lost="drop", guest_xcr0=1)
        assert made.conversion.data is not None, made.conversion.why
        assert all(door.passes for door in made.conversion.doors)
        kept = case.xstate_bv & both.xcr0 & ~both.absent
        if made.conversion.data[512:520] != kept.to_bytes(8, "little"):
            continue  # tiles of a thread that has used none
        assert both.opened.set(made.conversion.data) is None
        back = reference.decode(both.opened.get()[: layout.size], reference.cpu_from_cpuid(both.model.cpuid),
                                int(layout.mask), reference.STANDARD)  # fmt: skip
        for component in reference.bits(kept):
            sides = [reference.component_bytes(values, component) for values in (back, case.expected())]
            assert sides[0] == sides[1], component
        carried += bool(kept)
    assert carried > 30
