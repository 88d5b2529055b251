"""Skips and failures are noticed: the table of reasons by the suite, what a machine does not excuse by CI."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from tests import conftest, skips
from tests.paths import ROOT


def report(outcome: str, reason: str | None = None, **more: object) -> SimpleNamespace:
    longrepr = None if reason is None else ("file", 1, f"Skipped: {reason}")
    return SimpleNamespace(outcome=outcome, skipped=outcome == "skipped", longrepr=longrepr, **more)


@pytest.mark.parametrize(
    ("given", "outcome"),
    [
        (report("passed"), "passed"),
        (report("skipped", skips.NO_DATA), "skipped"),
        (report("skipped", skips.TOOL["gdb"]), "skipped"),
        (report("skipped", "no time"), "failed"),
        (report("skipped", "could not import 'lz4'"), "failed"),
        (report("skipped", "known to fail", wasxfail="known to fail"), "failed"),
    ],
)
def test_only_listed_reasons_skip(given: SimpleNamespace, outcome: str) -> None:
    assert conftest._judged(given).outcome == outcome


@pytest.fixture
def judge() -> ModuleType:
    spec = importlib.util.spec_from_file_location("judge", ROOT / ".ci" / "judge.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def verdict(
    judge: ModuleType, folder: Path, capsys: pytest.CaptureFixture[str], stages: dict[str, int], **summaries: object
) -> tuple[int, str]:
    """Exit status and last line for stages with these exit statuses and summaries {test: reason or outcome}."""
    (folder / "stages").write_text("".join(f"{name}\t1.5\t60\t{status}\n" for name, status in stages.items()))
    for name, results in summaries.items():
        assert isinstance(results, dict)
        outcomes = {test: "skipped" if ":" in result else result for test, result in results.items()}
        reasons = {result: 1 for result in results.values() if ":" in result}
        (folder / f"{name}.json").write_text(json.dumps({"outcomes": outcomes, "skips": reasons}))
    status = judge.main(folder)
    return status, capsys.readouterr().out.splitlines()[-1]


@pytest.mark.parametrize(
    ("stages", "summaries", "expected"),
    [
        ({"suite": 0}, {"suite": {"a": "passed", "b": "passed"}}, (0, "2 passed, 0 failed, 0 skipped")),
        ({"suite": 1}, {"suite": {"a": "passed", "b": "failed"}}, (1, "1 passed, 1 failed, 0 skipped")),
        ({"lint": 2, "suite": 0}, {"suite": {"a": "passed"}}, (1, "1 passed, 1 failed, 0 skipped")),
        ({"suite": 0}, {"suite": {"a": "passed", "b": skips.NO_CORE}}, (0, "1 passed, 0 failed, 1 skipped")),
        ({"suite": 0}, {"suite": {"a": "passed", "b": skips.NO_DATA}}, (1, "1 passed, 1 failed, 1 skipped")),
        ({"suite": 0}, {"suite": {"a": "passed", "b": skips.TOOL["xxd"]}}, (1, "1 passed, 1 failed, 1 skipped")),
        ({"suite": 0}, {"suite": {"a": "passed", "b": skips.CPU["avx"]}}, (1, "1 passed, 1 failed, 1 skipped")),
        ({"suite": 0}, {"suite": {"a": "passed", "b": skips.CPU["amx_tile"]}}, (0, "1 passed, 0 failed, 1 skipped")),
        ({"suite": 0}, {"suite": {"a": "passed", "b": skips.PORTABLE}}, (1, "1 passed, 1 failed, 1 skipped")),
        (
            {"suite": 0, "portable": 0},
            {"suite": {"a": "passed", "b": "passed"}, "portable": {"a": "passed", "b": skips.PORTABLE}},
            (0, "2 passed, 0 failed, 0 skipped"),
        ),
        ({"suite": 0}, {"suite": {}}, (1, "0 passed, 0 failed, 0 skipped")),
    ],
)
def test_what_ci_excuses(
    judge: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    stages: dict[str, int],
    summaries: dict[str, object],
    expected: tuple[int, str],
) -> None:
    monkeypatch.setenv("XSAVE_DATA", str(tmp_path))
    monkeypatch.setattr(judge, "cpu_flags", lambda: {"avx", "sse"})
    assert verdict(judge, tmp_path, capsys, stages, **summaries) == expected
