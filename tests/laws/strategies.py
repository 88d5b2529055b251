"""Strategies for models, masks, formats, states and areas, and what the independent model says about them.

No strategy leaves the choice of vendor to chance: tests run once per name of MODELS (`each_model`), which has Intel,
AMD and APX CPUs, because on an AMD host standard and compacted layouts can coincide, and because APX lies out of order.
What is expected comes from `reference` alone; only `Case.model` and `Case.layout` are the package's.
"""

from dataclasses import dataclass
from functools import cache
from random import Random

import pytest
import reference
from hypothesis import strategies as st

from xsave import COMPACTED, STANDARD, Area, CpuModel, Layout

INTEL = ("SapphireRapids", "AlderLake", "Skylake-Client")  # AMX; no AVX-512 but PKRU; MPX
AMD = ("EPYC-Genoa", "EPYC-Rome", "Bulldozer")  # AVX-512; PKRU of 64 bytes; LWP
APX = ("DiamondRapids",)
MODELS = INTEL + AMD + APX
FORMATS = (STANDARD, COMPACTED)
NAMES = {STANDARD: reference.STANDARD, COMPACTED: reference.COMPACTED}
NARROW = (0x1, 0x2, 0x4, 0x80, 0x60000, 0x200E7)

each_model = pytest.mark.parametrize("name", MODELS)
each_format = pytest.mark.parametrize("fmt", FORMATS, ids=str)
seeds = st.integers(0, 2**64 - 1)
formats = st.sampled_from(FORMATS)
models = st.sampled_from(MODELS)


@cache
def model(name: str) -> CpuModel:
    return CpuModel.named(name)


def known(name: str, fmt: int) -> int:
    """All the bits that a layout of this format may have on that CPU."""
    table = reference.CPUS[name]
    return table["xcr0"] | (table["xss"] if fmt == COMPACTED else 0)


def masks(name: str, fmt: int) -> st.SearchStrategy[int]:
    """Any subset of the components, legal as an XCR0 or not; the whole and narrow ones often."""
    whole = known(name, fmt)
    subsets = st.sets(st.sampled_from(reference.bits(whole))).map(lambda bits: sum(1 << bit for bit in bits))
    often = sorted({whole, reference.CPUS[name]["xcr0"], *(mask & whole for mask in NARROW)})
    return st.one_of(subsets, st.sampled_from(often))


def submasks(mask: int) -> st.SearchStrategy[int]:
    """Any subset of `mask`, all of it and nothing often."""
    if not mask:
        return st.just(0)
    subsets = st.sets(st.sampled_from(reference.bits(mask))).map(lambda bits: sum(1 << bit for bit in bits))
    return st.one_of(st.just(mask), st.just(0), subsets)


@dataclass
class Case:
    """One area with what it holds. `area` has stale bytes wherever nothing counts."""

    name: str
    mask: int
    fmt: int
    xstate_bv: int
    layout: Layout
    area: bytes

    @property
    def model(self) -> CpuModel:
        return self.layout.model

    def view(self) -> Area:
        return Area(self.area, self.layout)

    def expected(self) -> reference.Values:
        """What the independent model reads out of the area."""
        return reference.decode(self.area, self.name, self.mask, NAMES[self.fmt])

    def counting(self) -> list[tuple[int, int]]:
        """The bytes of the area that count, as (offset, size)."""
        return counting(self.name, self.mask, self.fmt, self.xstate_bv)

    def stale(self, rng: Random, reserved: bool = False) -> bytes:
        """The same area with other bytes wherever none counts; the header's reserved bytes stay 0 unless said."""
        return restaled(self.area, self.counting() + ([] if reserved else [(528, 48)]), rng)


def counting(name: str, mask: int, fmt: int, xstate_bv: int) -> list[tuple[int, int]]:
    """The bytes of registers in use, and those of the header, by the tables of the independent model."""
    found = [(512, 64 if fmt == COMPACTED else 24)]
    slots, _ = reference.layout(name, mask, NAMES[fmt])
    if mask & 6 if fmt == STANDARD else xstate_bv & 2:
        found.append((24, 8))
    for i in reference.bits(xstate_bv):
        start, _ = slots[i]
        if i in reference.VECTOR_PIECES:
            numbers, low, high, position = reference.VECTOR_PIECES[i]
            found.append((start + position, len(numbers) * (high - low)))
        else:
            found += [(start + offset, width) for _, offset, width, _ in reference.FIELDS[i]]
    return found


def only(area: bytes, ranges: list[tuple[int, int]]) -> bytes:
    """The bytes of `ranges`, one after the other."""
    return b"".join(area[offset : offset + size] for offset, size in ranges)


def restaled(area: bytes, ranges: list[tuple[int, int]], rng: Random) -> bytes:
    """`area` with random bytes outside `ranges`."""
    out = bytearray(rng.randbytes(len(area)))
    for offset, size in ranges:
        out[offset : offset + size] = area[offset : offset + size]
    return bytes(out)


def make_case(name: str, fmt: int, mask: int, xstate_bv: int, seed: int, sparse: float = 0.0) -> Case:
    """A random state in an area of stale bytes."""
    rng = Random(seed)
    layout = Layout(model(name), mask, fmt)
    values = reference.random_state(rng, mask, NAMES[fmt], sparse)
    _, size = reference.layout(name, mask, NAMES[fmt])
    base = rng.randbytes(size)
    area = reference.encode(values, name, mask, NAMES[fmt], xstate_bv, base)
    return Case(name, mask, fmt, xstate_bv, layout, area)


@st.composite
def cases(draw: st.DrawFn, name: str, fmt: int | None = None, mask: int | None = None) -> Case:
    """Areas of one CPU: any format, mask and XSTATE_BV, a random state, stale bytes."""
    if fmt is None:
        fmt = draw(formats)
    if mask is None:
        mask = draw(masks(name, fmt))
    xstate_bv = draw(submasks(mask))
    return make_case(name, fmt, mask, xstate_bv, draw(seeds), draw(st.sampled_from((0.0, 0.5))))


@st.composite
def layouts(draw: st.DrawFn, name: str) -> Layout:
    """Layouts of one CPU."""
    fmt = draw(formats)
    return Layout(model(name), draw(masks(name, fmt)), fmt)
