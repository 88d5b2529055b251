"""`audit.migrate` against the slow model's XRSTOR on the other CPU: what passes arrives whole."""

import re
from random import Random

import pytest
import reference

from tests import skips
from tests.laws.strategies import MODELS, make_case, model
from tests.paths import DATA
from tests.scale import repeats
from xsave import COMPACTED, STANDARD, Area, CpuModel, Layout, audit

FORMATS = (STANDARD, COMPACTED)


def at_random(random: Random, name: str) -> tuple[Area, dict[str, object]]:
    """An area of that CPU with stale bytes, and its state."""
    table = reference.CPUS[name]
    form = random.choice(FORMATS)
    known = table["xcr0"] | (table["xss"] if form == COMPACTED and random.random() < 0.3 else 0)
    mask = random.choice([known, table["xcr0"], table["xcr0"], known & random.getrandbits(64)])
    mask = mask | 3 if form == STANDARD else mask
    case = make_case(name, form, mask, mask & random.choice([mask, random.getrandbits(64)]), random.getrandbits(64))
    return case.view(), dict(case.expected())


def arrives(data: bytes, target: str, xcr0: int, xss: int, name: str) -> "tuple[str | None, dict[str, object]]":
    """(vector or None, registers) after XRSTOR or XRSTORS of `data` on the target, whose registers were others."""
    random = Random(7)
    table = reference.CPUS[target]
    before = reference.random_state(random, table["xcr0"] | table["xss"])
    slow = reference.Cpu(target, before, xcr0=xcr0, xss=xss)
    memory = bytearray(data) + bytes(16384)
    fault = slow.xrstors(memory) if name == "XRSTORS" else slow.xrstor(memory)
    return (None if fault is None else fault[0]), slow.registers


def differing(one: dict[str, object], other: dict[str, object], mask: int) -> list[int]:
    """The components of `mask` whose values are not the same in both states, whatever the registers are called. AMD
    CPUs load FOP, FIP and FDP only with an exception pending: they are not compared."""
    one, other = ({**each, "fop": 0, "fip": 0, "fdp": 0} for each in (one, other))
    return [i for i in reference.bits(mask) if reference.component_bytes(one, i) != reference.component_bytes(other, i)]


@pytest.mark.parametrize("target", MODELS)
@pytest.mark.parametrize("source", MODELS)
def test_xrstor_says_the_same(source: str, target: str) -> None:
    random = Random(f"{source} {target}")
    table = reference.CPUS[target]
    seen = set()
    for _ in range(max(repeats(30), 10)):
        area, values = at_random(random, source)
        xss = table["xss"] if random.random() < 0.5 else 0
        made = audit.migrate(area, model(target), xss=xss, by=["xrstor"])
        (door,) = made.doors
        vector, registers = arrives(bytes(area), target, table["xcr0"], xss, door.name)
        assert (vector or "") == door.error, door.objections
        if vector is None:
            both = int(area.xstate_bv) & (table["xcr0"] | table["xss"])
            assert (differing(registers, values, both) == []) == door.passes, door.objections
        seen.add(door.error if door.error else door.passes)
        if made.conversion.data is None:
            assert made.conversion.lost or made.conversion.why
            continue
        assert not made.conversion.lost
        (after,) = made.conversion.doors
        assert after.passes, after.objections
        vector, registers = arrives(made.conversion.data, target, table["xcr0"], xss, after.name)
        assert vector is None
        kept = int(area.xstate_bv) & int(made.conversion.layout.mask)
        assert differing(registers, values, kept) == []
        beyond = int(area.xstate_bv) & ~int(made.conversion.layout.mask)
        assert beyond & ~int(made.conversion.cleared) == 0
    assert source != target or True in seen


@pytest.mark.parametrize("source", MODELS)
def test_to_itself(source: str) -> None:
    """A standard area of all components passes every door of the CPU that wrote it; CRIU keeps what it can."""
    table = reference.CPUS[source]
    case = make_case(source, STANDARD, table["xcr0"], table["xcr0"], 5)
    made = audit.migrate(case.view(), model(source), by=["xrstor"])
    assert made.passes and made.conversion.passes
    kvm = audit.migrate(case.view(), model(source), by=["kvm"])
    refused = {(each.code, int(each.mask)) for door in kvm.doors for each in door.objections} - {("K-SIZE", 0)}
    unknown = table["xcr0"] & 1 << 62  # LWP
    assert refused == ({("A-NOALLOW", unknown), ("U-XSTATE", unknown)} if unknown else set())
    (criu,) = audit.migrate(case.view(), model(source), by=["criu"]).doors
    lost = table["xcr0"] & ~0x2FF
    assert [each.code for each in criu.objections] == (["C-LOST"] if lost else [])
    assert [int(each.mask) for each in criu.objections] == ([lost] if lost else [])
    assert criu.error == ""


@pytest.mark.parametrize("way", ["kvm", "criu", "xrstor", "ptrace"])
def test_an_area_of_another_cpu(way: str) -> None:
    """Opmask at 1088 is opmask at 832 elsewhere: no door has an error for it, and none lets it pass."""
    case = make_case("SapphireRapids", STANDARD, 0x2E7, 0x2E7, 3)
    made = audit.migrate(case.view(), model("EPYC-Genoa"), by=[way])
    found = [each for door in made.doors for each in door.objections]
    if way == "criu":  # it keeps fields, and compares CPUID
        assert [each.code for each in found] == ["C-SIZE"]
        assert not made.conversion.passes
        return
    assert {int(each.mask) for each in found if each.code == "A-OFFSET"} == {0x2E0}
    assert [each.offset for each in found if each.code == "A-OFFSET"] == [1088]
    assert any("opmask at 1088, there at 832" in each.message for each in found)
    assert not made.passes and made.conversion.passes
    assert "passes converted" in repr(made)


def test_what_is_lost() -> None:
    case = make_case("SapphireRapids", STANDARD, 0x602E7, 0x60206, 4)
    made = audit.migrate(case.view(), model("EPYC-Genoa"), by=["xrstor"])
    assert int(made.conversion.lost) == 0x60000 and made.conversion.data is None
    assert "TILECFG TILEDATA" in made.conversion.why
    made = audit.migrate(case.view(), model("EPYC-Genoa"), by=["xrstor"], lost="drop")
    assert made.conversion.data is not None and int(made.conversion.lost) == 0x60000 and not made.conversion.passes
    layout = Layout(model("EPYC-Genoa"), 0x2E7, STANDARD)
    assert int(Area(made.conversion.data, layout).xstate_bv) == 0x206


def test_in_use_and_initial_is_not_lost() -> None:
    area = bytearray(reference.encode({}, "SapphireRapids", 0x602E7, reference.STANDARD, 0x60202))
    area[24:28] = (0x1F80).to_bytes(4, "little")
    made = audit.migrate(Area(area, Layout(model("SapphireRapids"), 0x602E7, STANDARD)), model("EPYC-Milan"),
                         by=["xrstor"])  # fmt: skip
    (door,) = made.doors
    assert door.error == "#GP" and "converting clears the bit" in door.objections[0].hint
    assert int(made.conversion.cleared) == 0x60000 and made.conversion.passes


def test_a_hostile_area_is_reported() -> None:
    """Any bytes behind a layout: no exception, and what is converted passes."""
    random = Random(11)
    layout = Layout(model("SapphireRapids"), 0x602E7, STANDARD)
    converted = 0
    for _ in range(repeats(300)):
        area = bytearray(random.randbytes(layout.size))
        if random.random() < 0.8:
            area[520:576] = bytes(56)
        if random.random() < 0.5:
            area[512:520] = (random.getrandbits(20) & 0x602E7).to_bytes(8, "little")
        view = Area(area, layout, check=False)
        for target in (model("SapphireRapids"), model("EPYC-Genoa"), CpuModel.named("DiamondRapids")):
            made = audit.migrate(view, target, lost=random.choice(["raise", "drop"]), by=["kvm", "xrstor", "ptrace"])
            if made.conversion.data is not None:
                converted += 1
                assert all(door.passes for door in made.conversion.doors if door.name != "KVM_SET_XCRS")
    assert converted > repeats(300)


@pytest.mark.parametrize(
    ("facts", "text"),
    [
        ({"by": ["kvm", "vmware"]}, "by='vmware': one of 'kvm', 'criu', 'xrstor', 'ptrace'"),
        ({"lost": "keep"}, "lost='keep': one of 'raise', 'drop'"),
        ({"xcr0": 0x602E7}, "XCR0 0x602e7 is no value that EPYC-Genoa takes"),
        ({"xcr0": 6}, "XCR0 0x6"),
        ({"xss": 0x100}, "IA32_XSS 0x100"),
        ({"guest_xcr0": 1 << 64}, "does not fit 64 bits"),
    ],
)
def test_bad_facts(facts: dict[str, object], text: str) -> None:
    case = make_case("EPYC-Genoa", STANDARD, 0x2E7, 7, 1)
    with pytest.raises(ValueError, match=text):
        audit.migrate(case.view(), model("EPYC-Genoa"), **facts)  # type: ignore[arg-type]


ANSWERS = DATA / "images" / "local" / "kvm" / "intel-kvm-answers.txt"
SET_XCRS = re.compile(r"KVM_SET_XCRS xcr0=(0x[0-9a-f]+) -> (\w+)")
SET_XSAVE = re.compile(r"KVM_SET_XSAVE bv=(0x[0-9a-f]+)(?: with (.*?))? -> (\w+)")


def changed(area: bytearray, what: "str | None") -> bytearray:
    """The area with what a line of the answers puts into it."""
    number = {"1<<63|e7": 1 << 63 | 0xE7, "e7": 0xE7, "1<<63": 1 << 63}
    if what is None:
        return area
    name, _, value = what.partition("=")
    at, size, put = {
        "XCOMP_BV": (520, 8, lambda: number[value]),
        "header reserved byte 528": (528, 1, lambda: 1),
        "header reserved byte 575": (575, 1, lambda: 1),
        "legacy reserved byte 416": (416, 1, lambda: 1),
        "MXCSR": (24, 4, lambda: int(value, 16)),
        "FCW": (0, 2, lambda: int(value, 16)),
        "byte 464 ": (464, 8, lambda: 2**64 - 1),
    }[name]
    area[at : at + size] = put().to_bytes(size, "little")
    return area


@skips.needs_data()
@pytest.mark.parametrize("vcpu", [1, 2])
def test_what_kvm_answered_on_an_intel_machine(vcpu: int) -> None:
    """Every KVM_SET_XCRS and KVM_SET_XSAVE of the record, in which the guest may have XCR0 E7H."""
    section = ANSWERS.read_text().split(f"== vcpu {vcpu}: ")[1].partition("\n==")[0]
    layout = Layout(model("SapphireRapids"), 0xE7, STANDARD)
    plain = bytearray(reference.encode({}, "SapphireRapids", 0xE7, reference.STANDARD, 0xE7)).ljust(4096, b"\0")
    plain[24:28] = (0x1F80).to_bytes(4, "little")
    compared = 0
    for line in section.splitlines():
        area, guest = bytearray(plain), 1
        if match := SET_XCRS.match(line):
            guest, answer, which = int(match[1], 16), match[2], 0
        elif match := SET_XSAVE.match(line):
            area[512:520] = int(match[1], 16).to_bytes(8, "little")
            area, answer, which = changed(area, match[2]), match[3], -1
        else:
            continue
        made = audit.migrate(Area(area, layout, check=False), model("SapphireRapids"), xcr0=0xE7, guest_xcr0=guest,
                             by=["kvm"], kept=4096)  # fmt: skip
        assert (made.doors[which].error or "ok") == answer, (line, made.doors[which].objections)
        compared += 1
    assert compared > 50
