"""docs/tiles.md: its example prints what its comments say, and its tables are the module's."""

import re

import pytest

from tests.paths import ROOT
from xsave.tiles import ELEMENTS, TILE_RULES, lint

PAGE = ROOT / "docs" / "tiles.md"


def test_the_example(capsys: pytest.CaptureFixture[str]) -> None:
    source = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.S)
    assert len(source) == 1
    exec(compile(source[0], str(PAGE), "exec"), {})
    expected = [line.partition("  # ")[2].strip() for line in source[0].splitlines() if "print(" in line]
    assert capsys.readouterr().out.splitlines() == expected and len(expected) == 5


def test_the_tables() -> None:
    rows = re.findall(r"^\| (.*) \|$", PAGE.read_text(), re.M)
    rules = [tuple(row.split(" | ")) for row in rows if row.startswith("T-")]
    assert rules == list(TILE_RULES.values())
    named = {name for row in rows if row.count(" | ") == 3 for name in row.split(" | ")[0].split(", ")}
    assert named - {"dtype"} == set(ELEMENTS)
    lints = {row.split(" | ")[0] for row in rows if row.startswith("TILE-")}
    assert lints == set(re.findall(r"`(TILE-[A-Z0-9-]+)`", lint.__doc__ or ""))
