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


def settles(measure, low, high):
    """Whether the figure falls between the bounds, in the best of three goes: a neighbour may spoil one."""
    return any(low < measure() < high for _ in range(3))


def test_equal_sides_are_equal(native):
    def measure():
        return compare(lambda _: copies(native, [8000, 8000]), draws=2, rounds=64).speed("0", "1").figure

    assert settles(measure, 0.8, 1.25)


def test_twice_the_work_is_twice_the_time(native):
    def make(_draw):
        names = {"copy": native.copy_rows, "empty": native.empty_rows, "out": np.zeros((1, 1 << 15), np.uint8)}
        names["source"] = np.ones_like(names["out"])
        once, empty = "copy(source, 0, 8000, out)", "empty(source, 0, 8000, out)"
        return [
            Side("once", once, names, empty=empty),
            Side("twice", f"{once}; {once}", names, empty=f"{empty}; {empty}"),
        ]

    def measure():
        return compare(make, draws=2, rounds=64).cost("twice", "once").figure

    assert settles(measure, 1.6, 2.4)
    assert compare(make, draws=3, rounds=1).cost("twice", "once").rounds >= 31


def test_nothing_is_not_a_time(native):
    """A side that does no more than its empty twin has no time, and a ratio with it would be nonsense."""
    side = Side("nothing", "empty(1, 2)", {"empty": native.empty2}, empty="empty(1, 2)")
    with pytest.raises(RuntimeError, match="lost in the loop"):
        for _ in range(20):  # noise may hide it once
            compare(lambda _: [side], draws=1)
