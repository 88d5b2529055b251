"""The table of docs/audit.md is what the walks give now; its paragraph names rows that say what it says."""

import pytest

from tests.paths import ROOT
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
