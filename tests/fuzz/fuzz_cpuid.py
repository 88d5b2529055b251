"""Fuzz target: CPUID as text, in every form that is read, and the layouts of the CPUs that come out of it."""

from collections.abc import Iterator

import xsave
import xsave.cpuid
import xsave.layout
import xsave.models
from tests.writers import cpuid_text

# No area is longer than what its components take, each at most as far out as CPUID's 32 bits say.
LONGEST = 1 << 33


def one_input(data: bytes) -> None:
    try:
        model = xsave.CpuModel.from_text(data)
    except xsave.XSaveError:
        return
    for form in (xsave.STANDARD, xsave.COMPACTED):
        known = sum(component.mask for component in model.components)
        try:
            made = xsave.Layout(model, known & model.xcr0_mask, form)
        except xsave.XSaveError:
            continue
        assert 512 + 64 <= made.size < LONGEST
        for component, (offset, size) in made.offsets.items():
            assert offset + size <= made.size, component


def seeds() -> Iterator[bytes]:
    """Two CPUs in every form that the tests can write."""
    for name in ("Haswell", "SapphireRapids"):
        leaves = dict(xsave.CpuModel.named(name).cpuid)
        for write in (cpuid_text.raw, cpuid_text.dump, cpuid_text.kvm_json, cpuid_text.rows_json, cpuid_text.map_json):
            yield write(leaves).encode()
