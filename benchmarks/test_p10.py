"""P10: the cost model that `xsave bench insn` fits, at masks and in-use sets that it was not fitted to.

Every other mask of each instruction is held out, and then every other in-use set: the model of the rest predicts
them. Beside it stand what a constant and a line over the bytes of the area would say, the best of each for the same
points. Figures are median errors in per cent, and the model's as a multiple of the better of the two.
"""

from collections.abc import Callable, Iterator
from statistics import median
from typing import Any

import numpy as np
import pytest

from benchmarks.goals import at_most
from benchmarks.ratio import Ratio
from xsave.errors import UnsupportedError
from xsave.switching.calibration import Calibration, CostModel, Point
from xsave.switching.measure import measure_instructions

# The user instructions of the family, and XRSTOR of both formats.
INSTRUCTIONS = ("XSAVE", "XSAVEOPT", "XSAVEC", "XRSTOR", "XRSTOR compacted")
SECONDS = 20


@pytest.fixture(scope="module")
def measured() -> Calibration:
    return measure_instructions(seconds=SECONDS, seed=10)


def folds(points: "list[Point]") -> "Iterator[tuple[list[Point], list[Point]]]":
    """(kept, held out): half of the masks, then half of the in-use sets, each half once."""
    for key in (lambda point: int(point.mask), lambda point: int(point.in_use)):
        values = sorted({key(point) for point in points})
        for half in (values[::2], values[1::2]):
            out = [point for point in points if key(point) in half]
            kept = [point for point in points if key(point) not in half]
            if out and kept:
                yield kept, out


def errors(points: "list[Point]") -> "tuple[list[float], list[float], list[float]]":
    """Errors of the model, of the best constant and of the best line over bytes, at the held-out points."""
    found: "tuple[list[float], list[float], list[float]]" = ([], [], [])
    for kept, out in folds(points):
        model = CostModel([(int(point.mask), int(point.in_use), point.ns[1]) for point in kept])
        constant = median(point.ns[1] for point in out)  # of the very points that it is judged by
        line: "Callable[[float], float]" = np.poly1d(np.polyfit([p.size for p in out], [p.ns[1] for p in out], 1))
        for point in out:
            try:
                predicted = model.predict(int(point.mask), int(point.in_use))
            except UnsupportedError:
                continue  # a component that no kept point has
            for errors_, value in zip(found, (predicted, constant, float(line(point.size))), strict=True):
                errors_.append(abs(value / point.ns[1] - 1))
    return found


def test_held_out_points(judge: Any, measured: Calibration) -> None:
    for instruction in INSTRUCTIONS:
        for cold in (False, True):
            points = [each for each in measured.points if (each.instruction, each.cold) == (instruction, cold)]
            where = f"{instruction}, {'cold' if cold else 'hot'}"
            if not points:
                judge.untold("P10", where, at_most(10), "what was measured", f"this CPU has no {instruction}")
                continue
            model, constant, line = errors(points)
            low, middle, high = (float(np.quantile(model, share)) * 100 for share in (0.25, 0.5, 0.75))
            judge.line("P10", f"{where}, error %", Ratio(middle, low, high, 0, 0, len(model)), at_most(10), "measured",
                       note=f"constant {100 * median(constant):.1f} %, bytes {100 * median(line):.1f} %, "
                            f"worst {100 * max(model):.0f} %")  # fmt: skip
            best = min(median(constant), median(line)) * 100
            judge.line("P10", f"{where}, × the better of both", Ratio(middle / best, low / best, high / best, 0, 0,
                       len(model)), at_most(0.5), "constant, bytes")  # fmt: skip


def test_a_cold_restore_comes_out(judge: Any, measured: Calibration) -> None:
    whole = max(int(each.mask) for each in measured.points)
    hot, cold = (measured.cost("XRSTOR", whole, whole, cold=where) for where in (False, True))
    judge.line("P10", "cold XRSTOR × hot", Ratio(cold / hot, cold / hot, cold / hot, cold, hot, 1), None, "hot XRSTOR")
