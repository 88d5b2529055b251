"""The ruler itself: equal sides are equal, twice the work is twice the time, and overhead is taken off."""

import numpy as np
import pytest
from ratio import Side, compare


def copies(native, sizes):
    """Sides that copy so many bytes, each to a place of its own."""
    source = np.ones((1, 1 << 16), np.uint8)
    sides = []
    for index, size in enumerate(sizes):
        names = {"copy": native.copy_rows, "empty": native.empty_rows, "source": source, "size": size}
        names["out"] = np.zeros_like(source)
        sides.append(Side(f"{index}", "copy(source, 0, size, out)", names, empty="empty(source, 0, size, out)"))
    return sides


def test_equal_sides_are_equal(native):
    times = compare(lambda _: copies(native, [20_000, 20_000]), draws=2, rounds=64)
    assert 0.8 < times.speed("0", "1").figure < 1.25


def test_twice_the_work_is_twice_the_time(native):
    def make(_draw):
        names = {"copy": native.copy_rows, "empty": native.empty_rows, "out": np.zeros((1, 1 << 15), np.uint8)}
        names["source"] = np.ones_like(names["out"])
        once, empty = "copy(source, 0, 20000, out)", "empty(source, 0, 20000, out)"
        return [
            Side("once", once, names, empty=empty),
            Side("twice", f"{once}; {once}", names, empty=f"{empty}; {empty}"),
        ]

    times = compare(make, draws=2, rounds=64)
    assert 1.6 < times.cost("twice", "once").figure < 2.4
    assert times.speed("once", "twice").rounds >= 31


def test_nothing_is_not_a_time(native):
    """A side that does no more than its empty twin has no time, and a ratio with it would be nonsense."""
    side = Side("nothing", "empty(1, 2)", {"empty": native.empty2}, empty="empty(1, 2)")
    with pytest.raises(RuntimeError, match="lost in the loop"):
        for _ in range(20):  # noise may hide it once
            compare(lambda _: [side], draws=1)
