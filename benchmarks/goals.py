"""The goals: what each is called, in words, and how a line of it is judged."""

from typing import NamedTuple

GOALS = {
    "P1": "64 areas in L2, one batch call, every check on: standard→compacted ≥ 1.15×, back ≥ 1.05× memcpy, packed "
    "rows too; random XSTATE_BV ≥ 1.0× / 0.95×; 16 AMX areas: all in use ≥ 0.95×, tiles in init ≥ 3.5×",
    "P2": "preallocated: 50k areas ≥ 1.3× np.copyto; 100k ≥ 1.3× memcpy and ≥ 0.9× the fastest copy, packed rows "
    "≥ 0.8×; 1k ≥ 1.0× memcpy",
    "P3": "sparse areas (0x207 in use): ≥ 2× memcpy of the full area at 1k and 100k, ≥ 1.5× at 1; at 100k ≥ 1.5× the "
    "fastest copy",
    "P4": "one area to Python values: ≥ 3.8× struct, ≥ 8.5× numpy and ctypes, ≥ 55× construct; AMX area ≥ 3.0× struct",
    "P5": "against an empty Cython call of two arguments: Area(buffer, layout) ≤ 2.5× from bytes, ≤ 3.6× from numpy; "
    'a scalar ≤ 1.3×; area["zmm17"], area.zmm[17] ≤ 2.5×',
    "P6": "1,000-thread core: columns ≤ 1.4× a bare pread of the notes and ≥ 1,000× gdb (Intel 900×); 11,008-byte "
    "notes with tiles in init ≤ 1.0× a bare pread, ≥ 400× gdb; dicts ≥ 120× gdb (11,008-byte notes 100×)",
    "P7": "whole command: ≥ 25× gdb's Python API at 1,000 threads; at 1 thread ≤ 2.8× `python -c pass`",
    "P8": "areas to columns, all fields: 50k ≥ 1.3× np.copyto, 100k ≥ 1.0× (Intel 0.95×), ≥ 4× numpy strided",
    "P9": "emulated full-data switch, all checks on, against the hardware pair: 0xE7 in use ≤ 0.30×, 0x600E7 ≤ 0.40×; "
    "XSAVEOPT with nothing modified ≤ 0.35×; init ≤ 0.40×; one Python call a switch ≤ 0.6× (Intel 0.5×); emulated "
    "XRSTOR ≥ 5 million a second",
    "P10": "cost model of this CPU, at held-out masks and in-use sets, hot and cold, five user instructions: median "
    "error ≤ 10 %, and ≤ 0.5× that of the best constant and of a line over bytes",
}


class Bound(NamedTuple):
    """A figure must be at least, or at most, `value`; `intel` where Intel's differs."""

    word: str
    value: float
    intel: "float | None" = None

    def on(self, vendor: str) -> float:
        """The value for this vendor; an unknown one is judged by the looser."""
        if self.intel is None:
            return self.value
        if vendor == "AuthenticAMD":
            return self.value
        if vendor == "GenuineIntel":
            return self.intel
        return min(self.value, self.intel) if self.word == "≥" else max(self.value, self.intel)

    def holds(self, figure: float, vendor: str) -> bool:
        """Whether the figure reaches the goal."""
        return figure >= self.on(vendor) if self.word == "≥" else figure <= self.on(vendor)

    def margin(self, figure: float, vendor: str) -> float:
        """How far beyond the goal the figure is, as a factor: below 1 is missed."""
        return figure / self.on(vendor) if self.word == "≥" else self.on(vendor) / figure

    def text(self, vendor: str) -> str:
        """The bound in words, the other vendor's beside it."""
        if self.intel is None:
            return f"{self.word} {self.value:g}"
        return f"{self.word} {self.on(vendor):g} (AMD {self.value:g}, Intel {self.intel:g})"


def at_least(value: float, intel: "float | None" = None) -> Bound:
    """For figures that should be large."""
    return Bound("≥", value, intel)


def at_most(value: float, intel: "float | None" = None) -> Bound:
    """For figures that should be small."""
    return Bound("≤", value, intel)
