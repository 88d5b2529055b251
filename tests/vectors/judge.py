"""Plays the cases of one file on a processor under test and sorts them: agreed, out of scope, deviation by rule.

A processor under test is a function from a case to its outcome (`on_processor`, `on_reference`).
"""

from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

from .cases import MXCSR_INIT, SSE, X87, Case, Outcome, cases
from .deviations import expect
from .states import Registers

Machine = Callable[[Case], Outcome]
OUT_OF_SCOPE = "out of scope: encoding"
AGREED = "agreed"


class Verdicts(NamedTuple):
    counts: Counter[str]  # AGREED, OUT_OF_SCOPE, and the rules of deviations.py
    disagreements: list[str]  # one line each

    def __str__(self) -> str:
        counts = ", ".join(f"{name}: {n}" for name, n in sorted(self.counts.items()))
        first = "".join(f"\n  {line}" for line in self.disagreements[:5])
        return f"{counts or 'nothing'}; {len(self.disagreements)} disagree{first}"


def judge(kind: str, name: str, machine: Machine) -> Verdicts:
    verdicts = Verdicts(Counter(), [])
    for case in cases(kind, name):
        if case.form is None:
            verdicts.counts[OUT_OF_SCOPE] += 1
            continue
        rule, difference = compare(case, machine(case))
        if difference is not None:
            verdicts.disagreements.append(f"{case}: {difference}" + (f" [{rule}]" if rule else ""))
        else:
            verdicts.counts[rule or AGREED] += 1
    return verdicts


def compare(case: Case, got: Outcome) -> tuple[str | None, str | None]:
    """The rule of a deviation that the case falls under, if any, and the first difference in words, if any."""
    expected = expect(case, case.expected(), got)
    want = expected.outcome
    if not expected.judged("vector"):
        return expected.rule, None
    if got.vector != want.vector:
        return expected.rule, f"{got.vector or 'no fault'}, expected {want.vector or 'no fault'}"
    if got.error_code != want.error_code and expected.judged("error_code"):
        return expected.rule, f"error code {got.error_code}, expected {want.error_code}"
    if want.vector == "#PF" and expected.judged("cr2") and got.cr2 != want.cr2:
        return expected.rule, f"CR2 at operand + {got.cr2}, expected + {want.cr2}"
    for what, difference in (
        ("registers", _registers(got.registers, want.registers, expected.unjudged)),
        ("memory", _memory(got.memory, want.memory, case.line["off"])),
        ("xinuse", _xinuse(case, got, want)),
        ("results", _results(got.results, want.results)),
    ):
        if difference is not None and expected.judged(what):
            return expected.rule, difference
    return expected.rule, None


def _registers(got: Registers, want: Registers, unjudged: frozenset[str]) -> str | None:
    for name, value in want.items():
        if name not in got:
            return f"no register {name}"
        if got[name] != value and name not in unjudged:
            return f"{name} is {_text(got[name])}, expected {_text(value)}"
    return None


def _text(value: int | bytes) -> str:
    return hex(value) if isinstance(value, int) else value.hex()[:160]


def _memory(got: bytes, want: bytes, operand: int) -> str | None:
    if got == want:
        return None
    wrong = [i for i, (a, b) in enumerate(zip(got, want, strict=True)) if a != b]
    at = wrong[0]
    return (
        f"byte {at - operand} of the operand is {got[at : at + 8].hex()}…, expected {want[at : at + 8].hex()}… "
        f"({len(wrong)} bytes differ, the last at {wrong[-1] - operand})"
    )


def _xinuse(case: Case, got: Outcome, want: Outcome) -> str | None:
    seen = want.results.get("xcr0", case.xcr0)
    if want.vector and case.kind != "bochs":
        seen &= ~(1 << X87 | 1 << SSE)  # the kernel had set both by then
    if (got.xinuse ^ want.xinuse) & seen:
        return f"XINUSE is {got.xinuse & seen:#x}, expected {want.xinuse & seen:#x}"
    return None


def _results(got: dict[str, int], want: dict[str, int]) -> str | None:
    for name, value in want.items():
        if got.get(name, 0) != value:
            return f"{name} is {got.get(name, 0):#x}, expected {value:#x}"
    return None


def visible_xinuse(xinuse: int, mxcsr: object, xcr0: int, xfd: int) -> int:
    """What XGETBV(1) answers in 64-bit mode."""
    return xcr0 & (xinuse & ~xfd | (mxcsr != MXCSR_INIT) << SSE)
