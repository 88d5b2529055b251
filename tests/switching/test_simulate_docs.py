"""docs/simulate.md says of columns, reasons, events and the file what the package does."""

import json
import re

import numpy as np

from tests.oracle import traces as oracle
from tests.paths import ROOT
from tests.switching.lines import SMALL
from tests.switching.test_workload import about
from xsave._events import REASONS, WIDTHS
from xsave.switching import Event, Workload, read_trace
from xsave.switching.workload import COLUMNS

TEXT = (ROOT / "docs" / "simulate.md").read_text()


def table(first):
    """Rows of the table whose first heading is `first`."""
    lines = TEXT[TEXT.index(f"| {first} |") :].partition("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in each.strip("|").split("|")] for each in lines]


def test_columns():
    assert [(name.strip("`"), form) for name, form, _ in table("column")] == [
        (name, np.dtype(form).name) for name, form in COLUMNS.items()
    ]
    assert [name for name, _, _ in table("column")] == re.findall(r"^    \| (`\w+`) \|", Workload.__doc__, re.M)
    assert f"{sum(WIDTHS.values())} bytes each" in TEXT


def test_reasons():
    assert [reason for reason, _ in table("reason")] == list(REASONS)
    for reason in REASONS:
        assert f'"{reason}"' in " ".join(read_trace.__doc__.split())


def test_events():
    rows = table("event")
    assert [(name, int(number)) for name, number, _ in rows] == [(event.name, event.value) for event in Event]
    assert {name.strip("`"): int(number) for _, number, name in rows[:-1]} == oracle.EVENTS


def test_about():
    assert [name.strip("`") for name, _ in table("member of `about`")] == list(json.loads(about().tobytes()))


def test_example(monkeypatch, tmp_path, capsys):
    (tmp_path / "trace.txt.xz").write_bytes(SMALL)
    monkeypatch.chdir(tmp_path)
    exec(re.search(r"```python\n(.*?)```", TEXT, re.S)[1], {})
    assert capsys.readouterr().out.splitlines()[1] == hex(0x600E7)
