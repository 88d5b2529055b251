"""What every benchmark shares: the paired timer's results, judged against the goals, printed and written.

A missed goal is a result and fails nothing unless `--strict-goals` is given; a wrong result of what is timed fails.
The lines go to the terminal and to `--goals FILE` as JSON, and each comparison to pytest-benchmark's `extra_info`.
"""

import json
import os
import sys
from collections.abc import Callable, Generator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "benchmarks"), str(ROOT / "benchmarks" / "native")]
sys.path.append(str(ROOT / "tests"))

import build_native  # noqa: E402
import machine  # noqa: E402
from areas import Memory  # noqa: E402
from goals import GOALS, Bound  # noqa: E402
from ratio import Ratio, Times, compare  # noqa: E402

Line = dict[str, Any]


class Results:
    """Every line that was judged."""

    def __init__(self, native: ModuleType, file: "Path | None") -> None:
        self.machine = machine.describe(native)
        self.vendor = str(self.machine["vendor"])
        self.file = file
        self.lines: "dict[str, dict[str, Line]]" = {goal: {} for goal in GOALS}
        self.broken: "list[str]" = []

    def missed(self) -> "list[str]":
        """Goals that were not reached."""
        return [goal for goal in GOALS if self.goal(goal)["reached"] is False]

    def goal(self, goal: str) -> Line:
        """One goal: its lines, and the line that is furthest from (or least beyond) what is asked."""
        lines = self.lines[goal]
        judged = {name: line for name, line in lines.items() if line["reached"] is not None}
        summary: Line = {
            "goal": GOALS[goal],
            "figures": {name: line["figure"] for name, line in lines.items() if line["figure"] is not None},
            "baseline": None,
            "quartiles": None,
            "reached": None,
            "reason": None,
            "line": None,
            "lines": lines,
        }
        reasons = sorted({str(line["reason"]) for line in lines.values() if line["reason"]})
        if reasons:
            summary["reason"] = "; ".join(reasons)
        if judged:
            name = min(judged, key=lambda each: float(judged[each]["margin"]))
            summary["line"] = name
            summary["baseline"] = judged[name]["baseline"]
            summary["quartiles"] = judged[name]["quartiles"]
            summary["reached"] = all(line["reached"] for line in judged.values())
        elif not reasons:
            summary["reason"] = "not run"
        return summary

    def document(self) -> Line:
        """What build/bench.json holds."""
        return {"machine": self.machine, "goals": {goal: self.goal(goal) for goal in GOALS}}


class Judge:
    """One test's hand on the results: `compare` times, `line` judges."""

    def __init__(self, results: Results, benchmark: Any, native: ModuleType) -> None:
        self._results = results
        self._benchmark = benchmark
        self._used = False
        self.vendor = results.vendor
        self.native = native
        self.available = int(results.machine["memory_available"])

    def compare(self, make: "Callable[[int], Any]", **how: int) -> Times:
        """`ratio.compare`, as the one round of pytest-benchmark's fixture."""
        if self._used:
            return compare(make, **how)
        self._used = True
        times: Times = self._benchmark.pedantic(compare, args=(make,), kwargs=how, rounds=1, iterations=1)
        return times

    def line(
        self,
        goal: str,
        name: str,
        ratio: Ratio,
        bound: "Bound | None",
        baseline: str,
        *,
        untold: str = "",
        note: str = "",
    ) -> None:
        """Records a ratio. Without a bound, or with a reason why this machine cannot tell, it is not judged."""
        judged = bound is not None and not untold
        self._keep(
            goal,
            name,
            {
                "figure": round(ratio.figure, 4),
                "quartiles": [round(ratio.low, 4), round(ratio.high, 4)],
                "ns": [round(ratio.ours_ns, 1), round(ratio.base_ns, 1)],
                "rounds": ratio.rounds,
                "baseline": baseline,
                "goal": bound.text(self.vendor) if bound else None,
                "reached": bound.holds(ratio.figure, self.vendor) if bound and judged else None,
                "margin": round(bound.margin(ratio.figure, self.vendor), 4) if bound else None,
                "reason": untold or None,
                "note": note or None,
            },
        )

    def untold(self, goal: str, name: str, bound: Bound, baseline: str, reason: str) -> None:
        """Records that this machine, or this build, cannot tell."""
        line: Line = dict.fromkeys(("figure", "quartiles", "ns", "rounds", "reached", "margin", "note"))
        self._keep(goal, name, line | {"baseline": baseline, "goal": bound.text(self.vendor), "reason": reason})

    def _keep(self, goal: str, name: str, line: Line) -> None:
        assert name not in self._results.lines[goal], f"{goal}: two lines are called {name}"
        self._results.lines[goal][name] = line
        self._benchmark.extra_info[f"{goal} {name}"] = line
        if not self._used:
            self._used = True
            self._benchmark.pedantic(lambda: None, rounds=1, iterations=1)

    @property
    def needs_avx512(self) -> str:
        """Why P1 and P2 are not judged here, or nothing."""
        return "" if self.native.supported(self.native.VECTOR) else "no AVX-512 on this CPU"

    @property
    def needs_amx(self) -> str:
        """Why AMX lines are not judged here, or nothing."""
        return self.needs_avx512 or ("" if self.native.xcr0() >> 17 & 3 == 3 else "XCR0 of this CPU has no AMX")


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("xsave goals")
    group.addoption("--goals", type=Path, help="write the judged goals to this file as JSON")
    group.addoption("--strict-goals", action="store_true", help="exit with status 1 if a goal was missed")


def pytest_configure(config: pytest.Config) -> None:
    native = build_native.load()
    config.stash[NATIVE] = native
    config.stash[RESULTS] = Results(native, config.getoption("--goals"))
    _refuse_checkout()


NATIVE = pytest.StashKey[ModuleType]()
RESULTS = pytest.StashKey[Results]()


def _refuse_checkout() -> None:
    # An editable install, or the checkout's own folder, doubles the bare start-up and flatters every ratio of P7.
    import xsave

    if Path(xsave.__file__).is_relative_to(ROOT / "xsave") and not os.environ.get("XSAVE_BENCH_CHECKOUT"):
        raise pytest.UsageError(f"benchmarks run on an installed package, not on {xsave.__file__}: make bench")


@pytest.fixture
def judge(request: pytest.FixtureRequest, benchmark: Any) -> Judge:
    """Times and judges."""
    return Judge(request.config.stash[RESULTS], benchmark, request.config.stash[NATIVE])


@pytest.fixture(scope="session")
def native(request: pytest.FixtureRequest) -> ModuleType:
    """The compiled baselines."""
    return request.config.stash[NATIVE]


@pytest.fixture(scope="module")
def memory() -> "Generator[Memory]":
    """Memory shared by the tests of a module."""
    shared = Memory()
    yield shared
    shared.clear()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> "Generator[None, Any]":
    outcome = yield
    report = outcome.get_result()
    if report.failed:
        item.config.stash[RESULTS].broken.append(report.nodeid)


def _verdict(line: Line) -> str:
    return {True: "reached", False: "MISSED", None: "cannot tell" if line["goal"] else "shown"}[line["reached"]]


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}"


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    results = config.stash[RESULTS]
    if not any(results.lines.values()):
        return
    write = terminalreporter.write_line
    write("")
    write(machine.summary(results.machine))
    for goal in GOALS:
        for name, line in results.lines[goal].items():
            if line["figure"] is None:
                write(f"  {goal} {name}: cannot tell ({line['reason']}); goal {line['goal']} × {line['baseline']}")
                continue
            low, high = line["quartiles"]
            ours, base = line["ns"]
            asked = f", goal {line['goal']}" if line["goal"] else ""
            note = f"; {line['note']}" if line["note"] else ""
            reason = f" ({line['reason']})" if line["reason"] else ""
            write(
                f"  {goal} {name}: {_figure(line['figure'])} [{_figure(low)}, {_figure(high)}] × {line['baseline']}"
                f"{asked}: {_verdict(line)}{reason}; {ours:,.0f} against {base:,.0f} ns{note}"
            )
    write("")
    for goal in GOALS:
        summary = results.goal(goal)
        word = {True: "reached", False: "MISSED", None: "cannot tell"}[summary["reached"]]
        if summary["line"] is None:
            write(f"{goal} {word}: {summary['reason']}")
            continue
        line = summary["lines"][summary["line"]]
        low, high = line["quartiles"]
        judged = [each["reached"] for each in summary["lines"].values() if each["reached"] is not None]
        write(
            f"{goal} {word} ({sum(judged)} of {len(judged)} lines): {summary['line']} {_figure(line['figure'])} "
            f"[{_figure(low)}, {_figure(high)}] × {line['baseline']}, goal {line['goal']}"
        )
    if results.file is not None:
        results.file.parent.mkdir(parents=True, exist_ok=True)
        results.file.write_text(json.dumps(results.document(), indent=1, ensure_ascii=False) + "\n")
        write(f"written to {results.file}")


def pytest_sessionfinish(session: pytest.Session) -> None:
    results = session.config.stash[RESULTS]
    if session.config.getoption("--strict-goals") and results.missed() and session.exitstatus == 0:
        session.exitstatus = 1
