"""What instructions were measured to take, and what follows from it: points, cost models, and the file that keeps them.

`Calibration` answers for a point that was measured with its median, for another with a model fitted to the points of
that instruction, and for what nothing measured says with an error. How points are measured is `measure`'s business.
"""

import json

from xsave.components import Component, ComponentMask
from xsave.errors import FormatError, UnsupportedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from typing import Any, Self

    _Key = tuple[str, int, int, bool]

__all__ = ["ASSUMED", "INSTRUCTIONS", "LEGACY", "Calibration", "CostModel", "Point", "partners", "quartiles"]

SCHEMA = "xsave.bench-insn/1"

# What is measured, by the name that points have: the instruction as `Host.time_instruction` knows it, what
# `CpuModel.instructions` must have for it, and what is special.
INSTRUCTIONS: "dict[str, tuple[str, str, str]]" = {
    "XSAVE": ("XSAVE", "xsave", ""),
    "XSAVEOPT": ("XSAVEOPT", "xsaveopt", ""),
    "XSAVEOPT unmodified": ("XSAVEOPT", "xsaveopt", "unmodified"),
    "XSAVEC": ("XSAVEC", "xsavec", ""),
    "XRSTOR": ("XRSTOR", "xsave", ""),
    "XRSTOR compacted": ("XRSTOR", "xsavec", "compacted"),
    "XSAVEC+XRSTOR": ("XSAVEC+XRSTOR", "xsavec", ""),
    "XRSTOR+XSAVEOPT": ("XRSTOR+XSAVEOPT", "xsaveopt", ""),
    "FXSAVE": ("FXSAVE", "xsave", "legacy"),
    "FXRSTOR": ("FXRSTOR", "xsave", "legacy"),
    "memcpy": ("memcpy", "xsave", "copy"),
    "memcpy compacted": ("memcpy", "xsavec", "copy"),
}

# What user mode cannot execute, and what stands in for it where a caller decides to assume so.
ASSUMED = {"XSAVES": "XSAVEC", "XRSTORS": "XRSTOR compacted"}

LEGACY = Component.X87.mask | Component.SSE.mask
_MACHINE: "dict[str, type]" = {
    "cpu": str, "vendor": str, "xcr0": str, "kernel": str, "cpus": int, "hypervisor": bool, "pinned": bool,
    "load_before": float, "load_after": float, "tsc_step": int, "tsc_hz": float,
}  # fmt: skip
_SAME_MACHINE = ("cpu", "vendor", "xcr0", "hypervisor")


class Point:
    """One measured point. `samples`: ticks of each batch, in the order measured; a batch is `visits` × `count`
    instructions; `loop`: ticks that a batch without the instruction takes; `size`: bytes of the area that the mask
    lays out (what memcpy moves). Figures are those of one instruction."""

    __slots__ = (
        "cold", "count", "hz", "in_use", "instruction", "loop", "mask", "quartiles", "samples", "size", "visits",
    )  # fmt: skip

    def __init__(
        self,
        key: "_Key",
        *,
        size: int,
        visits: int,
        count: int,
        loop: float,
        samples: "Iterable[int]",
        hz: float,
    ) -> None:
        self.instruction, mask, in_use, self.cold = key
        self.mask, self.in_use = ComponentMask(mask), ComponentMask(in_use)
        self.size, self.visits, self.count, self.loop, self.hz = size, visits, count, loop, hz
        self.samples = tuple(samples)
        each = [(quartile - loop) / (visits * count) for quartile in quartiles(self.samples)]
        self.quartiles = each[0], each[1], each[2]

    @property
    def key(self) -> "_Key":
        """(instruction, mask, in use, cold)."""
        return self.instruction, int(self.mask), int(self.in_use), self.cold

    @property
    def ticks(self) -> float:
        """The median, in ticks of the time-stamp counter."""
        return self.quartiles[1]

    @property
    def ns(self) -> "tuple[float, float, float]":
        """The quartiles in ns; the middle one is the median."""
        low, middle, high = (each / self.hz * 1e9 for each in self.quartiles)
        return low, middle, high

    @property
    def spread(self) -> float:
        """What lies between the outer quartiles, as a share of the median."""
        low, middle, high = self.quartiles
        return (high - low) / middle

    def record(self) -> "dict[str, Any]":
        """The point of the JSON document."""
        return {
            "instruction": self.instruction,
            "mask": f"{int(self.mask):#x}",
            "in_use": f"{int(self.in_use):#x}",
            "cold": self.cold,
            "size": self.size,
            "visits": self.visits,
            "count": self.count,
            "loop": self.loop,
            "ns": [round(each, 4) for each in self.ns],
            "samples": list(self.samples),
        }

    def __repr__(self) -> str:
        where = "cold" if self.cold else "hot"
        return f"<{self.instruction} {self.mask:#x}, in use {self.in_use:#x}, {where}: {self.ns[1]:.1f} ns>"


def quartiles(samples: "Sequence[float]") -> "tuple[float, float, float]":
    """The quartiles of samples, in any order, between neighbours where they fall there."""
    ordered = sorted(samples)
    last = len(ordered) - 1

    def at(share: float) -> float:
        low = int(share * last)
        high = min(low + 1, last)
        return ordered[low] + (ordered[high] - ordered[low]) * (share * last - low)

    return at(0.25), at(0.5), at(0.75)


class CostModel:
    """ns of one instruction as a base and a term for each component: whether `mask` names it and it is in use
    ("moved"), `mask` names it and it is not ("initial"), or it is in use outside `mask` ("outside"; "torn" on top where
    it is tile data whose configuration `mask` names). Two terms of no component: whether anything is moved at all
    ("some"), and whether the legacy region is touched ("legacy": x87 or SSE moved, or MXCSR, which goes with SSE and
    AVX in `mask` [SDM1 13.7]): what is touched at all costs more than its bytes, above all cold.

    Fitted by least squares of relative errors. `base`: ns; `terms`: {(kind, component number or -1): ns}; where the
    points cannot tell some terms apart these are one choice of many, and `predict` answers only what does not depend
    on it.
    """

    __slots__ = ("_columns", "_known", "_values", "rows")

    def __init__(self, rows: "Sequence[tuple[int, int, float]]") -> None:
        """`rows`: (mask, in use, ns), each ns positive. Raises: `ValueError` without rows."""
        import numpy as np

        if not rows:
            raise ValueError("a cost model without points")
        self.rows = tuple(rows)
        features = [_features(mask, in_use) for mask, in_use, _ in rows]
        columns: "list[tuple[str, int]]" = sorted({name for names in features for name in names})
        self._columns = {name: at + 1 for at, name in enumerate(columns)}
        matrix = np.array([self._row(names) for names in features]) / np.array([[ns] for _, _, ns in rows])
        left, sizes, right = np.linalg.svd(matrix, full_matrices=False)
        kept = sizes > 1e-9 * sizes[0]
        self._known = right[kept]
        self._values = self._known.T @ (left.T[kept] @ np.ones(len(rows)) / sizes[kept])

    def _row(self, names: "Iterable[tuple[str, int]]") -> "list[float]":
        row = [1.0] + [0.0] * len(self._columns)
        for name in names:
            row[self._columns[name]] = 1.0
        return row

    @property
    def base(self) -> float:
        """ns that every execution takes."""
        return float(self._values[0])

    @property
    def terms(self) -> "dict[tuple[str, int], float]":
        """ns that a component adds, by (kind, number)."""
        return {name: float(self._values[at]) for name, at in self._columns.items()}

    def predict(self, mask: int, in_use: int) -> float:
        """ns. Raises: `UnsupportedError` where no measured point says what a component adds, or the sum is none."""
        import numpy as np

        names = _features(mask, in_use)
        for kind, bit in names:
            if (kind, bit) not in self._columns:
                what = f"{_name(bit)} " if bit >= 0 else ""
                raise UnsupportedError(f"no measured point has {what}{_KINDS[kind]}")
        row = np.array(self._row(names))
        if np.linalg.norm(row - self._known.T @ (self._known @ row)) > 1e-6 * np.linalg.norm(row):
            raise UnsupportedError("the measured points do not tell apart what its components add")
        found = float(row @ self._values)
        if found <= 0:
            raise UnsupportedError(f"the model of what was measured gives {found:.1f} ns: too far from any point")
        return found

    @property
    def errors(self) -> "list[float]":
        """|predicted / measured − 1| at each of the rows that the model was fitted to."""
        return [abs(self._at(mask, in_use) / ns - 1) for mask, in_use, ns in self.rows]

    @property
    def held_out(self) -> "list[float]":
        """The same where each row is predicted by a model of all others; fewer, for some others cannot answer."""
        found = []
        for at, (mask, in_use, ns) in enumerate(self.rows):
            try:
                predicted = CostModel(self.rows[:at] + self.rows[at + 1 :]).predict(mask, in_use)
            except (UnsupportedError, ValueError):
                continue
            found.append(abs(predicted / ns - 1))
        return found

    def _at(self, mask: int, in_use: int) -> float:
        row = self._row(_features(mask, in_use))
        return float(sum(x * value for x, value in zip(row, self._values, strict=True)))


_KINDS = {"moved": "in the mask and in use", "initial": "in the mask and initial", "outside": "in use outside the mask",
          "torn": "in use outside the mask, its configuration in it", "some": "anything in the mask and in use",
          "legacy": "the legacy region touched"}  # fmt: skip
# SSE and AVX: the components whose bits in the mask also mean MXCSR.
_MXCSR = 1 << Component.SSE | 1 << Component.AVX


def _name(bit: int) -> str:
    return ComponentMask(1 << bit).names[0]


def _features(mask: int, in_use: int) -> "list[tuple[str, int]]":
    found = []
    if mask & in_use:
        found.append(("some", -1))
    if mask & in_use & LEGACY or mask & _MXCSR:
        found.append(("legacy", -1))
    for bit in range(64):
        if mask >> bit & 1:
            found.append(("moved" if in_use >> bit & 1 else "initial", bit))
        elif in_use >> bit & 1:
            found.append(("outside", bit))
            if mask & partners(bit):
                found.append(("torn", bit))
    return found


def partners(bit: int) -> int:
    """The components that the tile data with this number goes with; 0 for another component."""
    if bit not in Component.__members__.values() or Component(bit).info.rule != "tile data":
        return 0
    return sum(rule.needs for rule in Component(bit).info.requirements) & ~(1 << bit)


class Calibration:
    """What was measured on one machine. `machine`: its record; `points`: every `Point`; `seed`, `seconds` (asked for),
    `rounds`: how it was measured; `diagnostics`: what went otherwise than planned."""

    __slots__ = ("_keys", "_models", "diagnostics", "machine", "points", "rounds", "seconds", "seed")

    def __init__(
        self,
        machine: "Mapping[str, Any]",
        points: "Iterable[Point]",
        *,
        seed: int,
        seconds: float,
        rounds: int,
        diagnostics: "Iterable[str]" = (),
    ) -> None:
        self.machine = dict(machine)
        self.points = tuple(points)
        self.seed, self.seconds, self.rounds = seed, seconds, rounds
        self.diagnostics = tuple(diagnostics)
        self._keys = {point.key: point for point in self.points}
        self._models: "dict[tuple[str, bool], CostModel]" = {}

    def point(self, instruction: str, mask: int, in_use: int, cold: bool = False) -> "Point | None":
        """The point that was measured exactly so, or None."""
        return self._keys.get((instruction, int(mask), int(in_use), bool(cold)))

    def cost(self, instruction: str, mask: int, in_use: int, cold: bool = False) -> float:
        """ns of one execution: the median of that very point, else what the instruction's model predicts.

        Raises: `UnsupportedError` for an instruction that was not measured (`ASSUMED` names stand-ins for the
        privileged ones; to use them is the caller's decision) and for what the model cannot know.
        """
        found = self.point(instruction, mask, in_use, cold)
        if found is not None:
            return found.ns[1]
        try:
            return self.model(instruction, cold).predict(int(mask), int(in_use))
        except UnsupportedError as error:
            where = f"{instruction} of {mask:#x} with {in_use:#x} in use, {'cold' if cold else 'hot'}"
            raise UnsupportedError(f"{where}, was not measured: {error}") from None

    def model(self, instruction: str, cold: bool = False) -> CostModel:
        """The model fitted to all points of an instruction. Raises: `UnsupportedError` where there are none."""
        key = instruction, bool(cold)
        if key not in self._models:
            rows = [
                (int(point.mask), int(point.in_use), point.ns[1])
                for point in self.points
                if (point.instruction, point.cold) == key
            ]
            if not rows:
                stand_in = ASSUMED.get(instruction)
                more = f": user mode cannot execute it, {stand_in} could be assumed" if stand_in else ""
                raise UnsupportedError(f"no point of {instruction}{more}")
            self._models[key] = CostModel(rows)
        return self._models[key]

    def is_of_same_machine(self, other: "Calibration") -> bool:
        """Whether the other one was taken on a CPU of the same name, enabled components and kind (virtual or not)."""
        return all(self.machine[name] == other.machine[name] for name in _SAME_MACHINE)

    def record(self) -> "dict[str, Any]":
        """The JSON document as dicts and lists."""
        return {
            "schema": SCHEMA,
            "machine": self.machine,
            "seed": self.seed,
            "seconds": self.seconds,
            "rounds": self.rounds,
            "points": [point.record() for point in self.points],
            "diagnostics": [{"severity": "warning", "message": text} for text in self.diagnostics],
        }

    def to_json(self) -> str:
        """The document, a point a line."""
        record = self.record()
        points = ",\n    ".join(json.dumps(point, allow_nan=False) for point in record.pop("points"))
        rest = [f"  {json.dumps(name)}: {json.dumps(value, allow_nan=False)}" for name, value in record.items()]
        return "{\n" + ",\n".join(rest) + f',\n  "points": [\n    {points}\n  ]\n}}\n'

    @classmethod
    def from_json(cls, text: "str | bytes") -> "Self":
        """The calibration that `to_json` wrote, every value checked.

        Raises: `FormatError` naming the place: no JSON, another document, something missing or out of range, figures
        that are not those of their samples, a point that is there hot but not cold.
        """
        try:
            document = json.loads(text, parse_constant=lambda name: _no(name, "is no number"))
        except (ValueError, RecursionError) as error:
            if isinstance(error, FormatError):
                raise
            raise FormatError(f"no JSON: {error}") from None
        top = _Reader(document, "")
        if top.get("schema", str) != SCHEMA:
            raise FormatError(f"schema {document['schema']!r}: not {SCHEMA}")
        machine = top.inner("machine")
        facts = {name: machine.get(name, kind) for name, kind in _MACHINE.items()}
        _hex(facts["xcr0"], "machine.xcr0")
        if facts["tsc_hz"] <= 0 or facts["tsc_step"] <= 0:
            raise FormatError("machine.tsc_hz and machine.tsc_step must be positive")
        points = [_point(each, facts["tsc_hz"]) for each in top.each("points")]
        notes = [each.get("message", str) for each in top.each("diagnostics")]
        seed, seconds, rounds = top.get("seed", int), top.get("seconds", float), top.get("rounds", int)
        made = cls(facts, points, seed=seed, seconds=seconds, rounds=rounds, diagnostics=notes)
        _check_whole(made)
        return made

    def __repr__(self) -> str:
        return f"<Calibration of {self.machine['cpu']}: {len(self.points)} points, {self.rounds} rounds>"


def _no(place: str, why: str) -> "Any":
    raise FormatError(f"{place} {why}")


class _Reader:
    """An object of the document, and where it stands."""

    def __init__(self, value: "Any", place: str) -> None:
        if not isinstance(value, dict):
            raise FormatError(f"{place or 'the document'} is no object")
        self.value = value
        self.place = place

    def _of(self, name: str) -> str:
        return f"{self.place}.{name}" if self.place else name

    def get(self, name: str, kind: type) -> "Any":
        if name not in self.value:
            raise FormatError(f"{self._of(name)} is missing")
        value: "Any" = self.value[name]
        if kind is float and type(value) is int and abs(value) < 1 << 64:
            value = float(value)
        if type(value) is not kind or (isinstance(value, float) and not abs(value) < 1e300):
            raise FormatError(f"{self._of(name)} is {value!r:.40}, no {kind.__name__}")
        return value

    def inner(self, name: str) -> "_Reader":
        return _Reader(self.get(name, dict), self._of(name))

    def each(self, name: str) -> "Iterator[_Reader]":
        return (_Reader(value, f"{self._of(name)}[{at}]") for at, value in enumerate(self.get(name, list)))


def _hex(text: str, place: str) -> int:
    try:
        value = int(text, 16) if text.startswith("0x") else -1
    except ValueError:
        value = -1
    if not 0 <= value < 1 << 64:
        raise FormatError(f"{place} is {text!r:.40}, no mask")
    return value


def _point(each: _Reader, hz: float) -> Point:
    name = each.get("instruction", str)
    if name not in INSTRUCTIONS:
        raise FormatError(f"{each.place}.instruction is {name!r:.40}, none that is measured")
    masks = [_hex(each.get(field, str), f"{each.place}.{field}") for field in ("mask", "in_use")]
    size, visits, count = (each.get(field, int) for field in ("size", "visits", "count"))
    if not (0 < size < 1 << 20 and 0 < visits <= 1 << 20 and 0 < count <= 1 << 24):
        raise FormatError(f"{each.place}: size, visits or count out of range")
    samples, loop = each.get("samples", list), each.get("loop", float)
    if not samples:
        raise FormatError(f"{each.place}.samples is empty: a hole")
    for at, sample in enumerate(samples):
        if type(sample) is not int or not 0 < sample < 1 << 53:
            raise FormatError(f"{each.place}.samples[{at}] is {sample!r:.40}, no number of ticks")
    key = name, masks[0], masks[1], each.get("cold", bool)
    made = Point(key, size=size, visits=visits, count=count, loop=loop, samples=samples, hz=hz)
    if made.ticks <= 0:
        raise FormatError(f"{each.place}: its samples take no longer than the loop")
    given = each.get("ns", list)
    if len(given) != 3 or any(not _close(x, y) for x, y in zip(given, made.ns, strict=True)):
        raise FormatError(f"{each.place}.ns is not what its samples give")
    return made


def _close(given: "Any", exact: float) -> bool:
    return type(given) in (int, float) and abs(given - exact) <= 1e-3 + 1e-6 * abs(exact)


def _check_whole(found: Calibration) -> None:
    if not found.points:
        raise FormatError("points is empty: nothing was measured")
    seen: "set[_Key]" = set()
    for at, point in enumerate(found.points):
        if point.key in seen:
            raise FormatError(f"points[{at}] is there twice: {point!r}")
        seen.add(point.key)
    for name, mask, in_use, cold in seen:
        if (name, mask, in_use, not cold) not in seen:
            where = "hot but not cold" if not cold else "cold but not hot"
            raise FormatError(f"a hole: {name} of {mask:#x} with {in_use:#x} in use was measured {where}")
