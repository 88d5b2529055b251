"""What the tests of audits share: values of masks, and sizes by the slow model."""

from functools import cache

import reference

from tests.laws.strategies import model
from tests.processor.operands import submasks
from xsave.audit.verdict import INSTRUCTIONS


def with_undefined(mask: int) -> list[int]:
    """Every value over the bits of `mask` and one that nobody has."""
    return submasks(mask | 1 << 40)


@cache
def legal(name: str) -> list[int]:
    """Every value of XCR0 that the processor takes, by the slow model."""
    table = reference.CPUS[name]
    return [value for value in submasks(table["xcr0"]) if reference.xcr0_fault(table, value) is None]


def instructions(name: str) -> list[str]:
    """The save instructions of a model."""
    return [each for each in INSTRUCTIONS if each.lower() in model(name).instructions]


@cache
def area(name: str, instruction: str, xcr0: int, xss: int = 0) -> int:
    """Bytes that a save of these components takes, by the slow model."""
    if instruction in ("XSAVE", "XSAVEOPT"):
        return reference.standard_size(name, xcr0)
    return reference.compacted_offsets(name, xcr0 | (xss if instruction == "XSAVES" else 0))[1]
