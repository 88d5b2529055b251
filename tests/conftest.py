"""What every test run shares: the modules beside this file can be imported, skips are counted by reason.

`--summary FILE` writes the outcome of every test and the skips by reason as JSON. A test that skips for a reason
which `tests/skips.py` does not list fails, and so does an expected failure: neither would be noticed.
"""

import json
import os
import sys
from collections import Counter
from collections.abc import Generator
from pathlib import Path
from typing import TypeVar

import pytest
from hypothesis import settings

ROOT = Path(__file__).resolve().parent.parent
# At the end: the checkout's own xsave/, which has no compiled modules, must not hide the installed package.
sys.path += [str(ROOT), str(ROOT / "tests")]

from tests import skips  # noqa: E402
from tests.scale import EXAMPLES  # noqa: E402

Report = pytest.TestReport | pytest.CollectReport
R = TypeVar("R", pytest.TestReport, pytest.CollectReport)


class Recorder:
    """Outcomes by test and skips by reason of one run."""

    def __init__(self, file: Path | None) -> None:
        self.file = file
        self.outcomes: dict[str, str] = {}
        self.reasons: Counter[str] = Counter()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._record(report, report.when == "call")

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        self._record(report, False)

    def _record(self, report: Report, ran: bool) -> None:
        if report.failed:
            self.outcomes[report.nodeid] = "failed"
        elif report.skipped:
            self.outcomes[report.nodeid] = "skipped"
            self.reasons[_reason(report)] += 1
        elif ran:
            self.outcomes.setdefault(report.nodeid, "passed")

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self.reasons:
            terminalreporter.section("skips by reason")
        for reason, count in sorted(self.reasons.items()):
            terminalreporter.write_line(f"{count:6} {reason}")
        if self.file is not None:
            self.file.write_text(json.dumps({"outcomes": self.outcomes, "skips": self.reasons}, indent=1) + "\n")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--summary", metavar="FILE", type=Path, help="write outcomes and skips by reason as JSON")


def pytest_configure(config: pytest.Config) -> None:
    # No deadlines: machines that run this share their cores. A run of its own (CI) must be repeatable.
    settings.register_profile("xsave", deadline=None, max_examples=EXAMPLES, derandomize="CI" in os.environ)
    settings.load_profile("xsave")
    config.pluginmanager.register(Recorder(config.getoption("summary")))


def pytest_report_header() -> str:
    import xsave

    here = Path(xsave.__file__).resolve().parent
    if os.environ.get("XSAVE_INSTALLED") and here == ROOT / "xsave":
        raise pytest.UsageError(f"the installed package is to be tested, but {here} was imported")
    return f"xsave {xsave.__version__} ({'with x86 code' if skips.has_native() else 'portable'}) from {here}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    return _judged((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    return _judged((yield))


def _judged(report: R) -> R:
    complaint = None
    if hasattr(report, "wasxfail"):
        complaint = "an expected failure is no outcome here: mend the code, or test what it does"
        del report.wasxfail
    elif report.skipped and _reason(report) not in skips.REASONS:
        complaint = f"skipped for a reason that tests/skips.py does not list: {_reason(report)}"
    if complaint:
        report.outcome, report.longrepr = "failed", complaint
    return report


def _reason(report: Report) -> str:
    return report.longrepr[2].removeprefix("Skipped: ") if isinstance(report.longrepr, tuple) else str(report.longrepr)
