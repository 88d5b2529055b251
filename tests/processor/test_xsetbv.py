"""XSETBV: every XCR0 value over the defined bits, on every named model, against the slow model's verdict."""

from itertools import chain

import pytest
import reference

from xsave import CpuModel, Fault, Processor

DEFINED = (0, 1, 2, 3, 4, 5, 6, 7, 9, 17, 18, 19, 20, 62)  # user components on any CPU
SUPERVISOR_OR_NOTHING = [i for i in range(64) if i not in DEFINED]


def values() -> list[int]:
    """All subsets of the defined bits; and every other bit alone with x87, SSE and AVX."""
    subsets = (sum(1 << bit for n, bit in enumerate(DEFINED) if k >> n & 1) for k in range(1 << len(DEFINED)))
    return [*chain(subsets, (7 | 1 << bit for bit in SUPERVISOR_OR_NOTHING))]


@pytest.mark.parametrize("name", CpuModel.names())
def test_every_value(name):
    model = CpuModel.named(name)
    table = reference.cpu_from_cpuid(model.cpuid)
    cpu = Processor(model, xcr0=1, cpl=0)
    slow = reference.Cpu(table, xcr0=1)
    legal = 0
    for value in values():
        want = slow.xsetbv(0, value)
        got = cpu.try_xsetbv(0, value)
        assert (got is None) == (want is None), f"{value:#x}: {got}, expected {want}"
        assert got is None or (isinstance(got, Fault) and (got.vector, got.error_code) == ("#GP", 0))
        assert int(cpu.xcr0) == slow.xcr0
        if want is None:
            assert value == slow.xcr0
            assert cpu.try_xsetbv(0, 1) is None and slow.xsetbv(0, 1) is None
            legal += 1
    assert 1 <= legal <= 1 << bin(table["xcr0"]).count("1") - 1


@pytest.mark.parametrize(
    ("arguments", "index", "value", "vector"),
    [
        ({"cpl": 3}, 0, 1, "#GP"),
        ({"cpl": 3}, 1, 0, "#GP"),
        ({"cpl": 3, "cr4_osxsave": False}, 1, 0, "#UD"),
        ({"cpl": 0, "cr4_osxsave": False}, 0, 1, "#UD"),
        ({"cpl": 0}, 1, 1, "#GP"),
        ({"cpl": 0, "cr0_ts": True}, 0, 1, None),
    ],
)
def test_what_comes_before_the_value(arguments, index, value, vector):
    cpu = Processor(CpuModel.named("SapphireRapids"), xcr0=7, **arguments)
    slow = reference.Cpu("SapphireRapids", xcr0=7, **arguments)
    got, want = cpu.try_xsetbv(index, value), slow.xsetbv(index, value)
    assert (got and got.vector) == (want and want[0]) == vector
