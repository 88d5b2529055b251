"""Each lint fires on the facts of the bug behind it, and not on the same without the bug."""

import re

import pytest
import reference

from tests.audit.lint_cases import AMX, AVX512, CASES, Case, image, lint, put
from tests.laws.strategies import model
from tests.paths import ROOT
from xsave import COMPACTED, STANDARD, Area, CpuModel, Layout, UnsupportedError, audit
from xsave.audit.lints.catalogue import SEVERITIES, markdown


@pytest.mark.parametrize("case", CASES, ids=[f"{case.id} {case.source}" for case in CASES])
def test_positive_and_negative(case: Case) -> None:
    bad, good = case.run()
    assert case.id in {each.id for each in bad}
    assert {each.id for each in bad} - case.also == {case.id}, bad
    assert good == []


def test_every_lint_has_both_cases() -> None:
    assert {case.id for case in CASES} == set(audit.LINTS)


@pytest.mark.parametrize("id", audit.LINTS)
def test_rows(id: str) -> None:
    row = audit.LINTS[id]
    assert row.id == id and re.fullmatch(r"L-[A-Z0-9]+(-[A-Z0-9]+)*", id)
    assert row.severity in SEVERITIES
    assert re.match(r"SDM(1 1[03]\.\d|2 [A-Z]+|3A \d)", row.section)
    assert row.title and row.bug and "\n" not in row.bug and not row.bug.endswith(".")
    assert repr(row) == f"<lint {id} ({row.severity}): {row.title}>"


def test_the_document_has_the_catalogue() -> None:
    page = (ROOT / "docs" / "audit.md").read_text()
    assert page.startswith("# The audit\n") and "\n## Lints\n" in page
    assert markdown() in page
    assert set(re.findall(r"^\| `(L-[A-Z0-9-]+)` \|", page, re.M)) == set(audit.LINTS)


def test_the_documents_examples(capsys: pytest.CaptureFixture[str]) -> None:
    sources = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "audit.md").read_text(), re.S)
    assert len(sources) == 3
    for source in sources:
        exec(compile(source, "docs/audit.md", "exec"), {})
        expected = [line.partition("# ")[2].strip() for line in source.splitlines() if "print(" in line]
        assert capsys.readouterr().out.splitlines() == expected and expected


def test_messages_name_culprit_place_and_rule() -> None:
    (found,) = lint(put(image("SandyBridge", 7), 520, 1 << 5), "SandyBridge", 7)
    assert (found.id, found.offset, found.where, found.tid) == ("L-XCOMP-FORMAT", 520, "area", None)
    assert (found.severity, found.section) == ("error", "SDM1 13.4.2")
    assert "XCOMP_BV 0x20 (opmask) in a standard area of 0x7 (x87 SSE AVX)" in found.message
    assert repr(found) == f"<error L-XCOMP-FORMAT: area: {found.message}>"
    assert not hasattr(found, "__dict__")


# (bytes of the area to change, facts, id, the byte to blame)
OFFSETS = [
    ({512: 0xE7 | 1 << 19}, {"xcr0": 0xE7}, "L-XSTATE-XCR0", 514),
    ({528: 1 << 16}, {}, "L-HEADER-RESERVED", 530),
    ({568: 1 << 40}, {}, "L-HEADER-TAIL", 573),
    ({24: 1 << 20}, {}, "L-MXCSR-RESERVED", 24),
    ({24: 0}, {}, "L-MXCSR-ZERO", 24),
    ({512: 0, 168: 7}, {}, "L-STALE-INIT", 168),
    ({512: 0xE7, 1088: 0}, {"xfd": 0x80}, "L-XSTATE-XFD", 512),
    ({512: 1 << 43}, {}, "L-XSTATE-MASK", 517),
]


@pytest.mark.parametrize(("changes", "facts", "id", "offset"), OFFSETS, ids=[row[2] for row in OFFSETS])
def test_offsets(changes: dict[int, int], facts: dict[str, int], id: str, offset: int) -> None:
    area = image("SapphireRapids", AVX512)
    for place, value in changes.items():
        put(area, place, value, 4 if place == 24 else 8)
    found = {each.id: each for each in lint(area, "SapphireRapids", AVX512, **facts)}
    assert found[id].offset == offset


def test_what_is_unknown_is_not_judged() -> None:
    """Without XCR0 no bit is accused; without IA32_XSS no supervisor bit is."""
    area = image("EPYC-Turin", 0xAE7, COMPACTED)
    assert lint(area, "EPYC-Turin", 0xAE7, COMPACTED) == []
    assert lint(area, "EPYC-Turin", 0xAE7, COMPACTED, xcr0=0x2E7) == []
    assert {each.id for each in lint(area, "EPYC-Turin", 0xAE7, COMPACTED, xcr0=7)} == {"L-XCOMP-XCR0"}
    record = model("SapphireRapids").cpuid
    assert audit.lint_model(dict(record)) == audit.lint_model(model("SapphireRapids"), xcr0=0x602E7) == []


@pytest.mark.parametrize("name", CpuModel.names())
def test_models_by_the_independent_sizes(name: str) -> None:
    """Leaves 0DH with the sizes of the slow model fit for every XCR0 that grows by a component; 8 bytes more or fewer
    are found. Of the real CPUs two have a component without its feature bit."""
    cpu = model(name)
    known = {"Piledriver": {"L-CPUID-FEATURE"}, "EPYC-Rome": {"L-CPUID-FEATURE"}}
    assert {each.id for each in audit.lint_model(cpu)} == known.get(name, set())
    if name not in reference.CPUS:
        return
    table, record = reference.CPUS[name], dict(cpu.cpuid)
    for count in range(1, len(reference.bits(table["xcr0"])) + 1):
        xcr0 = sum(1 << bit for bit in reference.bits(table["xcr0"])[:count])
        for wrong in (-8, 0, 8):
            record[0xD, 0] = (*record[0xD, 0][:1], reference.standard_size(name, xcr0) + wrong, *record[0xD, 0][2:])
            expected = {"L-CPUID-EBX"} if wrong else set()
            if "xsaves" in cpu.instructions:
                size = reference.compacted_offsets(name, xcr0 | table["xss"])[1]
                record[0xD, 1] = (*record[0xD, 1][:1], size + wrong, *record[0xD, 1][2:])
                expected |= {"L-CPUID-EBX1"} if wrong else set()
            found = {each.id for each in audit.lint_model(record, xcr0=xcr0, xss=table["xss"])}
            assert found - known.get(name, set()) - {"L-AMX-HALF"} == expected, (hex(xcr0), wrong)


def test_masks_by_name_and_outside_the_cpu() -> None:
    found = audit.lint_model(model("EPYC-Genoa"), xcr0="avx512|AVX|SSE|x87|amx", xss="PT")
    assert [each.id for each in found] == ["L-MASK-UNSUPPORTED", "L-MASK-UNSUPPORTED"]
    assert "XCR0 0x600e7" in found[0].message and "EPYC-Genoa does not offer" in found[0].message
    found = audit.lint_config(model("SapphireRapids"), xcr0=AMX, xfd=0x4, allowed_xcr0=AVX512)
    assert [each.message.split()[0] for each in found] == ["XCR0", "IA32_XFD"]
    assert "the VMM does not offer" in found[0].message


def test_a_buffer_of_xfd_alone() -> None:
    """Plain XSAVE writes zeros for what IA32_XFD disables, XSAVEC nothing (SDM1 13.14)."""
    facts = {"xcr0": AMX, "xfd": 1 << 18}
    sizes = [Layout(model("SapphireRapids"), AMX & ~(1 << 18), fmt).size for fmt in (STANDARD, COMPACTED)]
    (found,) = audit.lint_config(model("SapphireRapids"), save="XSAVE", size=sizes[0], **facts)
    assert (found.id, found.offset) == ("L-BUFFER-SMALL", sizes[0]) and "8,192 bytes past its end" in found.message
    assert audit.lint_config(model("SapphireRapids"), save="XSAVEC", size=sizes[1], **facts) == []


def test_one_tile_component_alone_is_not_lost_tiles() -> None:
    """TILECFG without TILEDATA is a thread that configured and loaded nothing: cut off, it is an area cut short."""
    area = put(image("SapphireRapids", AVX512), 512, 0x200E7)
    assert {each.id for each in lint(area, "SapphireRapids", AVX512)} == {"L-AREA-CUT"}
    zeros = image("SapphireRapids", AMX, xstate_bv=AVX512 | 1 << 18)
    assert {each.id for each in lint(zeros, "SapphireRapids", AMX)} == {"L-TILE-SHAPE"}


def test_the_save_mask_bounds_the_buffer() -> None:
    size = reference.standard_size("SapphireRapids", 0x2E7)
    found = audit.lint_config(model("SapphireRapids"), xcr0=0x602E7, save_mask=0x2E7, size=size)
    assert [each.id for each in found] == ["L-SAVE-NARROW"]


def test_areas_of_a_configuration() -> None:
    layout = Layout(model("SandyBridge"), 7, STANDARD)
    areas = [Area(bytes(put(image("SandyBridge", 7), 24, mxcsr, 4)), layout) for mxcsr in (0x1F80, 0)]
    (found,) = audit.lint_config(model("SandyBridge"), xcr0=7, areas=areas, where="vm")
    assert (found.id, found.where) == ("L-MXCSR-ZERO", "vm, area 1")


def test_misuse_is_named() -> None:
    with pytest.raises(ValueError, match="restore 'XRSTOR64' is none of XRSTOR, XRSTORS"):
        audit.lint_config(model("SapphireRapids"), xcr0=7, restore="XRSTOR64")
    with pytest.raises(ValueError, match="buffer of 0 bytes"):
        audit.lint_config(model("SapphireRapids"), xcr0=7, size=0)
    with pytest.raises(ValueError, match="'AVX3'"):
        audit.lint_config(model("SapphireRapids"), xcr0="AVX3")
    with pytest.raises(UnsupportedError, match="no XSAVES"):
        audit.lint_config(model("Penryn"), xcr0=3, save="XSAVES")
