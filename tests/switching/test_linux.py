"""The rule by which Linux skips reloads, against what it did in recorded traces, and against an independent walk."""

import lzma
from collections.abc import Iterator
from pathlib import Path

import pytest
from oracle.switches import decisions

from tests import skips
from tests.paths import DATA
from xsave.switching.linux import Agreement, agreement
from xsave.switching.traces import read_trace

TRACES = sorted((DATA / "traces").glob("*.perf-script.txt.xz")) if DATA.is_dir() else []
# Reloads without a switch, of all that could be judged: a use of the FPU by the kernel that no event shows.
SILENT = 0.12
_each = pytest.mark.parametrize("path", TRACES, ids=[path.name.partition(".")[0] for path in TRACES])


@pytest.fixture(scope="module")
def walked() -> "dict[Path, Agreement]":
    return {}


def walk(path: Path, walked: "dict[Path, Agreement]") -> Agreement:
    if path not in walked:
        walked[path] = agreement(read_trace(path))
    return walked[path]


def lines(path: Path) -> Iterator[str]:
    with lzma.open(path, "rt") as text:
        yield from text


@skips.needs_data()
@_each
def test_it_explains_what_the_kernel_did(path: Path, walked: "dict[Path, Agreement]") -> None:
    found = walk(path, walked)
    assert found.decisions > 800
    assert found.agree >= 0.985 * found.decisions, found.disagreements[:5]
    assert found.silent <= SILENT * (found.decisions + found.silent)
    assert found.xfd_right == found.xfd_checked
    assert bool(found.xfd_checked) == path.name.startswith("amx")
    # All are reloads where the rule skips, never the other way: somebody else used the registers unseen.
    assert {each.was for each in found.disagreements} <= {"reload"}
    assert found.skips_predicted == found.skips
    assert len(found.disagreements) == found.decisions - found.agree


@skips.needs_data()
@_each
def test_the_independent_walk_counts_the_same(path: Path, walked: "dict[Path, Agreement]") -> None:
    found = walk(path, walked)
    expected = decisions(lines(path))
    assert {name: getattr(found, name) for name in expected} == expected


@skips.needs_data()
@pytest.mark.parametrize(
    ("name", "skipped", "always"), [("mix", 379, 0.938), ("amx-sleep", 3600, 0.395), ("pingpong", 28, 0.9995)]
)
def test_reloading_always_would_explain_less(
    name: str, skipped: int, always: float, walked: "dict[Path, Agreement]"
) -> None:
    """Alone the first figure would prove nothing: how often a kernel that never skips would have done the same."""
    found = walk(DATA / "traces" / f"{name}.perf-script.txt.xz", walked)
    assert found.skips >= skipped
    assert found.always_reload / found.decisions == pytest.approx(always, abs=0.001)


SWITCH = "    a {0} [000] {1}: sched:sched_switch: prev_comm=a prev_pid={0} prev_prio=120 prev_state=S ==> " \
         "next_comm=b next_pid={2} next_prio=120"  # fmt: skip
FPU = "    a {0} [{4:03}] {1}: x86_fpu:x86_fpu_regs_{2}: x86/fpu: 0xffff888100000{0:03} load: {3} xfeatures: e7 " \
      "xcomp_bv: 80000000000008e7"  # fmt: skip


def trace(*steps: str) -> bytes:
    return ("\n".join(steps) + "\n").encode()


def at(number: int) -> str:
    return f"1.{number:06}"


def test_a_skip_shows_at_the_next_save() -> None:
    """1 loads, goes, comes back with nobody in between, and is saved again without a reload."""
    found = agreement(read_trace(trace(
        SWITCH.format(9, at(1), 1), FPU.format(1, at(2), "activated", 1, 0),
        SWITCH.format(1, at(3), 9), FPU.format(1, at(4), "deactivated", 1, 0), SWITCH.format(9, at(5), 1),
        SWITCH.format(1, at(6), 9), FPU.format(1, at(7), "deactivated", 1, 0),
    )))  # fmt: skip
    assert (found.decisions, found.agree, found.skips, found.saves) == (1, 1, 1, 2)


def test_another_task_in_between_takes_the_registers() -> None:
    steps = [
        SWITCH.format(9, at(1), 1), FPU.format(1, at(2), "activated", 1, 0),
        SWITCH.format(1, at(3), 2), FPU.format(1, at(4), "deactivated", 1, 0),
        FPU.format(2, at(5), "activated", 1, 0),
        SWITCH.format(2, at(6), 1), FPU.format(2, at(7), "deactivated", 1, 0),
    ]  # fmt: skip
    reloaded = agreement(read_trace(trace(*steps, FPU.format(1, at(8), "activated", 1, 0))))
    assert (reloaded.decisions, reloaded.agree, reloaded.skips) == (1, 1, 0)
    kept = agreement(read_trace(trace(*steps, SWITCH.format(1, at(8), 9), FPU.format(1, at(9), "deactivated", 1, 0))))
    assert (kept.decisions, kept.agree, kept.skips, kept.skips_predicted) == (1, 0, 1, 0)
    (wrong,) = kept.disagreements
    assert (wrong.line, wrong.tid, wrong.cpu, wrong.was) == (9, 1, 0, "skip")


def test_a_switch_that_the_recording_lacks_is_a_gap() -> None:
    found = agreement(read_trace(trace(
        SWITCH.format(9, at(1), 1), FPU.format(1, at(2), "activated", 1, 0),
        SWITCH.format(1, at(3), 9), FPU.format(1, at(4), "deactivated", 1, 0),
        SWITCH.format(8, at(5), 1), FPU.format(1, at(6), "activated", 1, 0),
    )))  # fmt: skip
    assert (found.decisions, found.gaps, found.silent) == (0, 1, 0)


def test_a_reload_without_a_switch_is_silent() -> None:
    found = agreement(read_trace(trace(
        SWITCH.format(9, at(1), 1), FPU.format(1, at(2), "activated", 1, 0), FPU.format(1, at(3), "activated", 1, 0),
    )))  # fmt: skip
    assert (found.decisions, found.silent) == (0, 1)
    assert "silent" in repr(found)


@pytest.mark.parametrize(
    ("state", "cause"), [("S", "no event shows why"), ("Z", "a task that died in between left no event")]
)
def test_a_reload_that_the_rule_skips(state: str, cause: str) -> None:
    """1 is saved and comes back with no other's reload in between, and is reloaded all the same."""
    found = agreement(read_trace(trace(
        SWITCH.format(9, at(1), 1), FPU.format(1, at(2), "activated", 1, 0),
        SWITCH.format(1, at(3), 2), FPU.format(1, at(4), "deactivated", 1, 0),
        SWITCH.format(2, at(5), 1).replace("prev_state=S", f"prev_state={state}"),
        FPU.format(1, at(6), "activated", 1, 0),
    )))  # fmt: skip
    assert (found.decisions, found.agree, found.skips) == (1, 0, 0)
    assert [(each.was, each.cause) for each in found.disagreements] == [("reload", cause)]
