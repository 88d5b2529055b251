"""Sizes that CPUs report of themselves: every complete record of the data folder against `Layout`."""

import pytest

from tests import skips
from tests.paths import DATA
from tests.tools import make_models
from xsave import CpuModel, UnsupportedError

RECORDS = make_models.records() if DATA.is_dir() else {}
STATE = 0xD


def record(name):
    return {row[:2]: row[2:] for row in RECORDS[name][1]}


def enumerated(leaves):
    """The masks as the record has them, without the package: XCR0, IA32_XSS."""
    state, more = leaves.get((STATE, 0), (0, 0, 0, 0)), leaves.get((STATE, 1), (0, 0, 0, 0))
    return state[0] | state[3] << 32, more[2] | more[3] << 32 if more[0] & 8 else 0


def lacking(leaves):
    """Enumerated components without a sub-leaf."""
    xcr0, xss = enumerated(leaves)
    return [bit for bit in range(2, 63) if (xcr0 | xss) >> bit & 1 and not any(leaves.get((STATE, bit), ()))]


COMPLETE = [name for name in RECORDS if enumerated(record(name))[0] and not lacking(record(name))]
COMPACTED = [name for name in COMPLETE if record(name).get((STATE, 1), (0, 0))[1]]


def subsets(mask):
    """Every mask within `mask`."""
    subset = mask
    while True:
        yield subset
        if not subset:
            return
        subset = (subset - 1) & mask


@skips.needs_data()
@pytest.mark.parametrize("name", RECORDS)
def test_every_record_parses(name):
    leaves = record(name)
    if not enumerated(leaves)[0]:
        with pytest.raises(UnsupportedError, match="XSAVE"):
            CpuModel.from_cpuid(leaves)
        return
    model = CpuModel.from_cpuid(leaves)
    assert (model.xcr0_mask, model.xss_mask) == enumerated(leaves)
    assert [int(c) for c in model.components if c > 1 and not any(leaves.get((STATE, int(c)), ()))] == lacking(leaves)


@skips.needs_data()
def test_how_many_there_are():
    assert len(RECORDS) >= 249 and len(COMPLETE) >= 180 and len(COMPACTED) >= 140


@skips.needs_data()
@pytest.mark.parametrize("name", COMPLETE)
def test_standard_size_of_all_user_bits(name):
    from xsave import STANDARD, Layout

    model = CpuModel.from_cpuid(record(name))
    assert Layout(model, model.xcr0_mask, STANDARD).size == record(name)[STATE, 0][2]


@skips.needs_data()
@pytest.mark.parametrize("name", COMPACTED)
def test_current_sizes_have_masks_that_give_them(name):
    """Some XCR0 gives 0DH.0:EBX, and with some IA32_XSS (none without XSAVES) 0DH.1:EBX exactly."""
    from xsave import COMPACTED as COMPACT
    from xsave import STANDARD, Layout

    leaves = record(name)
    model = CpuModel.from_cpuid(leaves)
    current, compacted = leaves[STATE, 0][1], leaves[STATE, 1][1]
    legal = [mask | 1 for mask in subsets(int(model.xcr0_mask) & ~1)]
    fitting = [mask for mask in legal if Layout(model, mask, STANDARD).size == current]
    supervisor = list(subsets(int(model.xss_mask)))
    assert any(
        Layout(model, xcr0 | xss, COMPACT).size == compacted for xcr0 in fitting for xss in supervisor
    ), f"no XCR0 of {len(fitting)} with IA32_XSS gives {compacted} bytes"


@pytest.mark.parametrize("name", CpuModel.names())
def test_named_models_agree_with_themselves(name):
    from xsave import STANDARD, Layout

    model = CpuModel.named(name)
    assert Layout(model, model.xcr0_mask, STANDARD).size == model.cpuid[STATE, 0][2]
