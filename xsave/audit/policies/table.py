"""A policy's answers to a guest's writes as a finite table, which a kernel can walk.

The classes of a write: the value's bits that the model has, each on its own; any other bit, as one; CPL 0 or not; for
XSETBV ECX 0 or not. An entry is the number of an answer.
"""

from xsave.audit.policies.base import ALLOWED, REGISTERS, Answer, Policy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Table", "compiled", "spread"]

_UNDEFINED = 63


class Table:
    """The table of one policy.

    `bits`: register -> the bits of a value that are told apart, ascending; the last stands for all that the model does
    not have. `answers`: the distinct answers, by number. `entries`: register -> bytes, one entry a class: the
    compressed value plus 2^n for a CPL that is not 0 and 2^(n+1) for an ECX that is not 0, n = len(bits).
    """

    __slots__ = ("answers", "bits", "entries")

    def __init__(
        self, bits: "dict[str, tuple[int, ...]]", answers: "list[Answer]", entries: "dict[str, bytes]"
    ) -> None:
        self.bits = bits
        self.answers = answers
        self.entries = entries

    def admitted(self, register: str) -> "list[int]":
        """The values that the guest gets into the register at CPL 0 (XSETBV with ECX 0), a value a class, ascending."""
        bits, entries = self.bits[register], self.entries[register]
        return sorted(
            spread(number, bits) for number in range(1 << len(bits)) if self.answers[entries[number]].outcome == ALLOWED
        )

    def lookup(self, register: str, value: int, cpl: int = 0, index: int = 0) -> Answer:
        """The answer to one write: equal to the policy's own."""
        bits = self.bits[register]
        at = sum(1 << place for place, bit in enumerate(bits[:-1]) if value >> bit & 1)
        if value & ~sum(1 << bit for bit in bits[:-1]):
            at |= 1 << len(bits) - 1
        at += (1 << len(bits)) * bool(cpl) + (2 << len(bits)) * bool(index)
        return self.answers[self.entries[register][at]]


def spread(number: int, bits: "Sequence[int]") -> int:
    """The `number`-th value over these bits: its lowest bit is the first of them."""
    return sum(1 << bit for place, bit in enumerate(bits) if number >> place & 1)


def compiled(policy: Policy) -> Table:
    """The table of `policy`: it is asked once for every class of writes."""
    model = policy.model
    masks = {"XCR0": int(model.xcr0_mask), "XSS": int(model.xss_mask), "XFD": policy.disables}
    bits: "dict[str, tuple[int, ...]]" = {}
    entries: "dict[str, bytes]" = {}
    answers: "dict[tuple[str, str | None, str], int]" = {}
    kept: "list[Answer]" = []
    for register in REGISTERS:
        told = bits[register] = (*(bit for bit in range(63) if masks[register] >> bit & 1), _UNDEFINED)
        numbers = bytearray()
        for index in (0, 1) if register == "XCR0" else (0,):
            for cpl in (0, 3):
                for compressed in range(1 << len(told)):
                    answer = policy.write(register, spread(compressed, told), cpl, index)
                    if answer.key not in answers:
                        answers[answer.key] = len(kept)
                        kept.append(answer)
                    numbers.append(answers[answer.key])
        entries[register] = bytes(numbers)
    return Table(bits, kept, entries)
