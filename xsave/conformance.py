"""Conformance: the emulated processor and this CPU, case by case, for anybody's machine.

`run` draws random cases (register states, masks, header garbage, misalignment, page edges, MXCSR values, sequences for
the optimisations), executes each on `xsave.Processor` with this CPU's profile and on the CPU itself, and reports counts
per rule and every disagreement, cut down to a one-line reproducer. Two phases where the CPU has AMX: without the
kernel's permission (IA32_XFD is armed), and with it, in a child, for it cannot be given back.

A case whose difference one disturbance of the machine's own explains (an interrupt or VM exit that touches SSE state or
ends the modified optimisation) is run up to eight times more, and counts as `retried`; it agrees if one run is
identical.
"""

from xsave.components import Component
from xsave.errors import HostError, UnsupportedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from xsave._trials import Difference, Trials

__all__ = ["Disagreement", "Report", "describe", "processor", "replay", "run"]

_BLOCK = 100_000  # cases between two calls of `progress`
_WORST = 20  # disagreements that are cut down and shown


class Disagreement:
    """One case on which the sides differ.

    `seed` and `case` name it, `kept` and `narrow` cut it down (steps, as bits; components of EDX:EAX), `tiles` says in
    which phase. `what` differs; `at` where (byte of the arena or image), `emulated` and `real` the values there;
    `steps` is the case in words.
    """

    __slots__ = ("at", "case", "emulated", "kept", "narrow", "real", "seed", "steps", "tiles", "what")

    def __init__(
        self, seed: int, case: int, kept: int, narrow: int, tiles: bool, difference: "Difference", steps: "list[str]"
    ) -> None:
        self.seed = seed
        self.case = case
        self.kept = kept
        self.narrow = narrow
        self.tiles = tiles
        self.what, self.at, self.emulated, self.real = difference
        self.steps = steps

    @property
    def reproducer(self) -> str:
        """The command that shows it, on one line."""
        tiles = " --tiles" if self.tiles else ""
        cut = f"--steps {self.kept:#x} --narrow {self.narrow:#x}"
        return f"xsave conformance --seed {self.seed} --case {self.case} {cut}{tiles}"

    def record(self) -> "dict[str, Any]":
        """The disagreement as JSON has it."""
        record = {name: getattr(self, name) for name in self.__slots__}
        record |= {name: f"{record[name]:#x}" for name in ("kept", "narrow", "emulated", "real")}
        return record | {"reproducer": self.reproducer}


class Report:
    """What a run found.

    `cases` done, of which `faulting` took a fault and `retried` were run again; `skipped`: cases that this CPU could
    have run and did not, with `reasons`; `disagreements` in all, the first of them in `shown`; `rules`: {(instruction,
    rule): cases}, rule "" without a fault; `seconds` of each phase by its name.
    """

    __slots__ = (
        "cases", "disagreements", "faulting", "reasons", "retried", "rules", "seconds", "seed", "shown", "skipped",
    )

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.cases = 0
        self.faulting = 0
        self.retried = 0
        self.skipped = 0
        self.disagreements = 0
        self.reasons: "list[str]" = []
        self.shown: "list[Disagreement]" = []
        self.rules: "dict[tuple[str, str], int]" = {}
        self.seconds: "dict[str, float]" = {}

    @property
    def agreed(self) -> bool:
        """Whether every case agreed and none was left out."""
        return not self.disagreements and not self.skipped

    def take(self, name: str, found: "dict[str, Any]") -> None:
        """Adds what a phase found."""
        self.cases += found["cases"]
        self.faulting += found["faulting"]
        self.retried += found["retried"]
        self.disagreements += found["disagreements"]
        self.seconds[name] = found["seconds"]
        self.shown += [Disagreement(*each) for each in found["shown"]][: _WORST - len(self.shown)]
        for instruction, rule, count in found["rules"]:
            self.rules[instruction, rule] = self.rules.get((instruction, rule), 0) + count


def processor(tiles: bool = False) -> "Any":
    """A `Processor` of this CPU as this process runs on it: CPL 3, the kernel's XCR0 and IA32_XFD.

    `tiles`: this thread has used AMX tiles, so that IA32_XFD is clear. Raises: `UnsupportedError` without XSAVE.
    """
    from xsave.host import Host
    from xsave.models import CpuModel
    from xsave.processor import Processor

    xcr0 = Host.xcr0
    armed = 1 << Component.TILEDATA if Component.TILEDATA in xcr0 and not tiles else 0
    return Processor(CpuModel.host(), xcr0=int(xcr0), ia32_xfd=armed, cpl=3)


def _trials(seed: int, tiles: bool) -> "Trials":
    try:
        from xsave._trials import Trials
    except ImportError:
        raise UnsupportedError(
            "this build has no code for this CPU's own instructions: conformance needs x86-64, and a build without "
            "XSAVE_PORTABLE"
        ) from None
    return Trials(processor(tiles), seed)


def run(cases: int, seed: int = 0, progress: "Callable[[int, int], None] | None" = None) -> Report:
    """Runs `cases` cases, numbers 0 and up of `seed`, on both sides.

    `progress(done, cases)` is called now and then. Raises: `UnsupportedError` where this CPU's own instructions cannot
    be reached; `HostError` where the kernel refuses memory, signal handlers or a process; `ValueError` for a negative
    number of cases.
    """
    from xsave.host import Host

    if cases < 0:
        raise ValueError(f"{cases} cases")
    report = Report(seed)
    if Component.TILEDATA not in Host.xcr0:
        report.take("no tiles", _phase(seed, 0, cases, False, progress))
        return report
    permitted = Host.amx_permission()
    armed = 0 if permitted else cases // 2
    if armed:
        report.take("tiles disabled by IA32_XFD", _phase(seed, 0, armed, False, progress))
    found = _in_child(seed, armed, cases - armed)
    if isinstance(found, str):
        report.skipped += cases - armed
        report.reasons.append(found)
    else:
        report.take("tiles in use", found)
        if progress:
            progress(cases, cases)
    return report


def replay(
    seed: int, case: int, kept: int = 0xFFFFFFFF, narrow: int = 2**64 - 1, tiles: bool = False
) -> "Disagreement | None":
    """One case again, cut down: what differs, or None. Raises: as `run`."""
    if tiles:
        from xsave.host import Host

        Host.request_amx()
    trials = _trials(seed, tiles)
    difference = trials.replay(case, kept, narrow)
    steps = trials.describe(case, kept, narrow)
    return None if difference is None else Disagreement(seed, case, kept, narrow, tiles, difference, steps)


def describe(seed: int, case: int, kept: int = 0xFFFFFFFF, narrow: int = 2**64 - 1) -> "list[str]":
    """A case in words. Raises: as `run`."""
    return _trials(seed, False).describe(case, kept, narrow)


def _phase(
    seed: int, first: int, count: int, tiles: bool, progress: "Callable[[int, int], None] | None"
) -> "dict[str, Any]":
    from time import perf_counter

    trials = _trials(seed, tiles)
    started = perf_counter()
    done = wrong = 0
    shown: "list[Any]" = []
    while done < count:
        some, case, difference = trials.run(first + done, min(_BLOCK, count - done))
        done += some
        if case is not None and difference is not None:
            wrong += 1
            if len(shown) < _WORST:
                shown.append(_cut_down(trials, seed, case, tiles, difference))
        if progress:
            progress(done, count)
    rules, faulting, retried = trials.statistics()
    return {
        "cases": done,
        "faulting": faulting,
        "retried": retried,
        "disagreements": wrong,
        "seconds": perf_counter() - started,
        "shown": shown,
        "rules": [(instruction, rule, number) for (instruction, rule), number in rules.items()],
    }


def _cut_down(
    trials: "Trials", seed: int, case: int, tiles: bool, difference: "Difference"
) -> "tuple[int, int, int, int, bool, Difference, list[str]]":
    # Fewer steps, then fewer components, as long as the sides still differ.
    kept, narrow = 0x3F, 2**64 - 1
    if trials.replay(case) is not None:
        for step in range(6):
            fewer = trials.replay(case, kept & ~(1 << step), narrow) if kept & ~(1 << step) else None
            if fewer is not None:
                kept, difference = kept & ~(1 << step), fewer
        for bit in range(64):
            fewer = trials.replay(case, kept, narrow & ~(1 << bit))
            if fewer is not None:
                narrow, difference = narrow & ~(1 << bit), fewer
    return seed, case, kept, narrow, tiles, difference, trials.describe(case, kept, narrow)


def _in_child(seed: int, first: int, count: int) -> "dict[str, Any] | str":
    # The phase with tiles, in a process that has the kernel's permission; a reason where there is none.
    from xsave.host import Host, in_child

    def work() -> "dict[str, Any] | str":
        try:
            Host.request_amx()
            return _phase(seed, first, count, True, None)
        except (HostError, UnsupportedError) as refused:
            return str(refused)

    found: "dict[str, Any] | str" = in_child(work)
    return found
