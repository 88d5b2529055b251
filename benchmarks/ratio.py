"""The paired timer: the only place in the benchmarks that times calls and divides one time by another.

Sides are interleaved in shuffled order within a round, so that whatever else the machine does hits all of them
alike; a ratio is taken within each round, and what is reported is the median and the quartiles of those ratios.
Each side is a statement in a compiled loop of its own; the time of an empty statement of the same call shape is
measured in the same rounds and subtracted from both. A draw is one placement of the buffers: rounds are spread over
several draws, so that no figure hangs on one lucky (destination - source) mod 4096.
"""

import gc
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import cycle, islice
from statistics import median, quantiles
from time import perf_counter_ns
from typing import NamedTuple

MIN_ROUNDS = 31
SAMPLE_NS = 400_000  # a sample of a side lasts about this long, or one call
FLOOR_NS = 0.5  # a net time below this is noise around nothing


class Ratio(NamedTuple):
    """The median of per-round ratios, their quartiles, and the medians of the two sides in ns a call."""

    figure: float
    low: float
    high: float
    ours_ns: float
    base_ns: float
    rounds: int


class Side:
    """A statement timed in a loop. `names` are its variables; `items`, if given, is cycled through as `item`."""

    def __init__(
        self,
        name: str,
        statement: str,
        names: "Mapping[str, object]",
        *,
        empty: str = "pass",
        items: "Sequence[object] | None" = None,
    ) -> None:
        self.name = name
        self.items = items
        self._names = dict(names)
        self._empty = empty
        self._loop = _loop(statement, self._names)
        self.count = 1

    def empty(self) -> "Side":
        """The side whose time is loop and call alone."""
        return Side(f"empty {self._empty}", self._empty, self._names, items=self.items)

    @property
    def shape(self) -> "tuple[str, int]":
        """Sides of one shape share one empty side."""
        return self._empty, id(self.items)

    def sample(self) -> float:
        """ns a call of one sample."""
        items = islice(cycle(self.items), self.count) if self.items is not None else range(self.count)
        return self._loop(items) / self.count

    def calibrate(self) -> None:
        """Warms the side, then chooses how many calls a sample has."""
        self.sample()
        while True:
            spent = self.sample() * self.count
            if spent >= SAMPLE_NS / 4 or self.count >= 1 << 22:
                break
            self.count *= 4
        self.count = max(1, round(self.count * SAMPLE_NS / max(spent, 1)))
        if self.items is not None and self.count > len(self.items):
            self.count -= self.count % len(self.items)


class TimedSide:
    """A side that times itself: `call()` does the work once and returns its ns. Nothing is subtracted."""

    def __init__(self, name: str, call: "Callable[[], float]") -> None:
        self.name = name
        self.sample = call
        self.shape = None
        self.count = 1

    def calibrate(self) -> None:
        """One call to warm up."""
        self.sample()


class Times:
    """Net ns a call of every side, round by round."""

    def __init__(self) -> None:
        self.net: "dict[str, list[float]]" = {}

    def __getitem__(self, name: str) -> float:
        return median(self.net[name])

    def speed(self, ours: str, base: str) -> Ratio:
        """How many times as fast `ours` is as `base`."""
        return self._ratio(ours, base, [b / a for a, b in zip(self.net[ours], self.net[base], strict=True)])

    def cost(self, ours: str, base: str) -> Ratio:
        """How many times as long `ours` takes as `base`."""
        return self._ratio(ours, base, [a / b for a, b in zip(self.net[ours], self.net[base], strict=True)])

    def fastest(self, names: "Iterable[str]") -> str:
        """The side with the shortest median."""
        return min(names, key=self.__getitem__)

    def _ratio(self, ours: str, base: str, ratios: "list[float]") -> Ratio:
        low, middle, high = quantiles(ratios, n=4)
        return Ratio(middle, low, high, self[ours], self[base], len(ratios))


def compare(
    make: "Callable[[int], Sequence[Side | TimedSide]]", *, draws: int = 8, rounds: int = 64, seed: int = 1
) -> Times:
    """Times the sides that `make(draw)` gives, at least MIN_ROUNDS rounds in all, spread over `draws` draws."""
    times = Times()
    shuffle = random.Random(seed).shuffle
    each = -(-max(rounds, MIN_ROUNDS) // draws)
    for draw in range(draws):
        sides = make(draw)
        empties: "dict[object, Side]" = {}
        for side in sides:
            if isinstance(side, Side):
                empties.setdefault(side.shape, side.empty())
        order = [*sides, *empties.values()]
        for side in order:
            side.calibrate()
        gross: "dict[int, list[float]]" = {id(side): [] for side in order}
        collecting = gc.isenabled()
        gc.disable()
        try:
            for _ in range(each):
                shuffle(order)
                for side in order:
                    gross[id(side)].append(side.sample())
        finally:
            if collecting:
                gc.enable()
        for side in sides:
            overhead = median(gross[id(empties[side.shape])]) if side.shape in empties else 0.0
            net = [max(value - overhead, FLOOR_NS) for value in gross[id(side)]]
            times.net.setdefault(side.name, []).extend(net)
    for name in times.net:
        if times[name] <= FLOOR_NS:
            raise RuntimeError(f"{name}: its time is lost in the loop's and the call's")
    return times


def _loop(statement: str, names: "Mapping[str, object]") -> "Callable[[Iterable[object]], int]":
    # As timeit does it: the variables are locals of a function made for this statement.
    parameters = "".join(f", {name}={name}" for name in names)
    source = (
        f"def loop(items, _clock=_clock{parameters}):\n"
        "    start = _clock()\n"
        "    for item in items:\n"
        f"        {statement}\n"
        "    return _clock() - start\n"
    )
    space: "dict[str, object]" = {"_clock": perf_counter_ns, **names}
    exec(source, space)  # the statements are this folder's own
    return space["loop"]  # type: ignore[return-value]
