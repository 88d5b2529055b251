"""`xsave bench`: measuring, and two measurements compared. Nothing here asserts a time."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests import skips
from xsave.report.json import schema
from xsave.switching.calibration import Calibration, Point
from xsave.switching.measure import nested

Cli = Callable[..., Any]
MACHINE = {
    "cpu": "a CPU", "vendor": "a maker", "xcr0": "0x7", "kernel": "Linux", "cpus": 2, "hypervisor": True,
    "pinned": True, "load_before": 0.0, "load_after": 0.5, "tsc_step": 2, "tsc_hz": 1e9,
}  # fmt: skip


def write(path: Path, ticks: "dict[str, list[int]]", **machine: Any) -> Path:
    """A measurement of XSAVE and memcpy, hot and cold alike, with these samples."""
    points = [
        Point((name, 7, 7, cold), size=576, visits=1, count=1, loop=0.0, samples=samples, hz=1e9)
        for name, samples in ticks.items()
        for cold in (False, True)
    ]
    path.write_text(Calibration(MACHINE | machine, points, seed=0, seconds=1.0, rounds=1).to_json())
    return path


def valid(name: str, text: str) -> Any:
    document = json.loads(text)
    if skips.has_module("jsonschema"):
        import jsonschema

        jsonschema.Draft202012Validator(schema(name)).validate(document)
    return document


TICKS = {"XSAVE": [100, 101, 102, 103], "memcpy": [20, 20, 21, 22]}


@pytest.fixture
def short_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    """The nested masks alone, which is what the table shows."""

    def few(xcr0: int, tiles: bool = True) -> "list[tuple[int, int]]":
        return [(mask, in_use) for mask in nested(xcr0) for in_use in (mask & 0xE7, 0)]

    monkeypatch.setattr("xsave.switching.measure.states", few)


@skips.needs_native()
def test_a_measurement_as_a_table(cli: Cli) -> None:
    result = cli("bench", "insn", "--seconds", "0.05")
    lines = result.out.splitlines()
    assert result.code == 0 and max(map(len, lines)) <= 80
    (head,) = [at for at, line in enumerate(lines) if line.startswith("INSTRUCTION")]
    assert {"XSAVE", "XRSTOR", "FXSAVE", "memcpy"} <= {line.split()[0] for line in lines[head + 1 :] if line}
    assert "model, cold, each point from the others: median error" in result.out


@skips.needs_native()
def test_a_measurement_as_a_document(cli: Cli, tmp_path: Path, short_plan: None) -> None:
    path = tmp_path / "here.json"
    result = cli("bench", "insn", "--seconds", "0.05", "--seed", "5", "--json", "-o", path)
    assert (result.code, result.out) == (0, "")
    document = valid("bench-insn", path.read_text())
    assert document["schema"] == "xsave.bench-insn/1" and document["seed"] == 5 and "provenance" not in document
    assert Calibration.from_json(path.read_text()).points
    result = cli("bench", "compare", path, path)
    assert result.code == 0 and "nothing beyond noise" in result.out and "differs" not in result.out


def test_identical_files_are_noise(cli: Cli, tmp_path: Path) -> None:
    path = write(tmp_path / "a", TICKS)
    result = cli("bench", "compare", path, path)
    assert result.code == 0 and result.err == ""
    assert result.out.count("noise") == 4 + 1 and result.out.count(" 1.000 ") == 4
    document = valid("bench-compare", cli("bench", "compare", path, path, "--json").out)
    assert document["differ"] == 0 and all(point["noise"] for point in document["points"])


def test_a_doctored_file_differs(cli: Cli, tmp_path: Path) -> None:
    one = write(tmp_path / "a", TICKS)
    other = write(tmp_path / "b", TICKS | {"XSAVE": [110, 111, 112, 113]})
    result = cli("bench", "compare", one, other)
    assert result.code == 1 and result.out.count("differs") == 2 and result.out.count("  noise\n") == 2
    assert "1.099" in result.out and "4 points: 2 beyond noise" in result.out
    document = valid("bench-compare", cli("bench", "compare", one, other, "--json").out)
    assert document["differ"] == 2 and {point["ratio"] for point in document["points"]} == {1.0, 1.0985}
    assert cli("bench", "compare", one, other, "--within", "20").code == 0
    assert cli("bench", "compare", one, other, "--within", "5").code == 1


def test_a_step_of_the_counter_is_noise(cli: Cli, tmp_path: Path) -> None:
    one, other = (write(tmp_path / str(ticks), {"XSAVE": [ticks] * 4}) for ticks in (100, 104))
    assert cli("bench", "compare", one, other).code == 0
    assert cli("bench", "compare", one, write(tmp_path / "a", {"XSAVE": [105] * 4})).code == 1


def test_overlapping_quartiles_are_noise(cli: Cli, tmp_path: Path) -> None:
    one = write(tmp_path / "a", {"XSAVE": [90, 100, 110, 120]})
    other = write(tmp_path / "b", {"XSAVE": [100, 110, 120, 130]})
    assert cli("bench", "compare", one, other).code == 0


def test_a_point_of_one_file_alone_differs(cli: Cli, tmp_path: Path) -> None:
    one = write(tmp_path / "a", TICKS)
    other = write(tmp_path / "b", {"XSAVE": TICKS["XSAVE"]})
    result = cli("bench", "compare", one, other)
    assert result.code == 1 and "only in file 1: memcpy 0x7, in use 0x7, cold" in result.out
    document = valid("bench-compare", cli("bench", "compare", other, one, "--json").out)
    assert document["differ"] == 2 and {each["in"] for each in document["only"]} == {2}


def test_different_machines_are_refused(cli: Cli, tmp_path: Path) -> None:
    one = write(tmp_path / "a", TICKS)
    other = write(tmp_path / "b", TICKS, cpu="another", kernel="Linux 9")
    result = cli("bench", "compare", one, other)
    assert result.code == 2 and result.out == "" and "different machines: a CPU (XCR0 0x7, virtual) and" in result.err
    assert "hint: --any-machine" in result.err
    assert cli("bench", "compare", one, other, "--any-machine").code == 0
    document = valid("bench-compare", cli("bench", "compare", one, other, "--any-machine", "--json").out)
    assert document["same_machine"] is False
    assert cli("bench", "compare", one, write(tmp_path / "c", TICKS, kernel="Linux 9")).code == 0


def test_a_damaged_file_is_named(cli: Cli, tmp_path: Path) -> None:
    one = write(tmp_path / "a", TICKS)
    broken = tmp_path / "b"
    broken.write_text(one.read_text().replace('"visits": 1', '"visits": 0', 1))
    result = cli("bench", "compare", one, broken)
    assert result.code == 3 and result.err.startswith(f"xsave: {broken}: points[0]: ") and result.out == ""
    assert cli("bench", "compare", one, tmp_path / "none").code == 3
    assert cli("bench", "compare", one, "-", stdin=one.read_bytes()).code == 0


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("ins",),
        ("insn", "file"),
        ("insn", "--seconds", "0"),
        ("insn", "--seconds", "61"),
        ("insn", "--seconds", "nan"),
        ("insn", "--seconds", "soon"),
        ("insn", "--seed", "-1"),
        ("insn", "--seed", "x"),
        ("insn", "--any-machine"),
        ("insn", "--within", "3"),
        ("compare",),
        ("compare", "a"),
        ("compare", "a", "b", "c"),
        ("compare", "a", "b", "--seconds", "3"),
        ("compare", "a", "b", "--within", "x"),
        ("insn", "--csv"),
    ],
)
def test_mistakes(cli: Cli, words: "tuple[str, ...]") -> None:
    result = cli("bench", *words)
    assert result.code == 2 and result.out == "" and result.err.startswith("xsave: ")
