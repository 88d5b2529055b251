"""The table of docs/audit.md is what the walks give now; its paragraph names rows that say what it says."""

import pytest
import reference

from tests.paths import ROOT
from xsave import CpuModel, audit
from xsave.audit import tables

PAGE = ROOT / "docs" / "audit.md"


def test_the_table_is_current():
    text = PAGE.read_text()
    assert tables.written(text) == text


def test_who_is_right():
    rows = {tuple(cell.strip() for cell in line.split("|")[1:3]): line for line in tables.markdown().splitlines()}
    for name in ("host-swap swap=after", "no-exit-unaudited live=guest"):
        assert "**yes**" in rows[f"`{name}`", "rfbm-all"]
        assert "**yes**" not in rows[f"`{name}`", "rfbm-buffer"]
    for save in ("rfbm-all", "rfbm-host", "rfbm-buffer"):
        assert "**yes**" not in rows["`host-swap swap=before`", save]
        assert "guest's" in rows["`host-swap swap=before`", save]


def test_a_page_without_a_place():
    with pytest.raises(ValueError, match="no place"):
        tables.written("nothing")


@pytest.mark.parametrize(
    ("name", "instruction"),
    [("SapphireRapids", "XSAVEC"), ("DiamondRapids", "XSAVE"), ("Bulldozer", "XSAVE")],  # alignment, APX, EDX
)
@pytest.mark.parametrize(("policy", "facts"), [("no-exit-unaudited", {}), ("host-swap", {"swap": "after"})])
def test_the_overrun_begins_where_the_slow_model_says(policy, facts, name, instruction):
    whole = reference.CPUS[name]["xcr0"]
    sizes = {"XSAVE": reference.standard_size, "XSAVEC": lambda cpu, mask: reference.compacted_offsets(cpu, mask)[1]}
    needed = sizes[instruction](name, whole)
    guest = audit.policy(policy, CpuModel.named(name), **facts)
    for size, safe in ((needed, True), (needed - 1, False)):
        assert audit.prove(CpuModel.named(name), guest, size, instruction=instruction).safe is safe
