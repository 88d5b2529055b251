"""This CPU as a model."""

import subprocess

import pytest

from tests import skips
from xsave import CpuModel, UnsupportedError
from xsave.enumeration import walk


def answering(leaves, asked):
    """A CPUID function that answers from `leaves`."""

    def cpuid(leaf, subleaf):
        asked.append((leaf, subleaf))
        return leaves.get((leaf, subleaf), (0, 0, 0, 0))

    return cpuid


@pytest.mark.parametrize("name", CpuModel.names())
def test_walking_a_cpu_finds_the_whole_model(name):
    """On every named CPU: nothing of the state leaves is missed, nothing beyond the maxima is asked, nothing twice."""
    model, asked = CpuModel.named(name), []
    found = walk(answering(model.cpuid, asked))
    assert len(asked) == len(set(asked)) < 64
    for leaf, _ in asked:
        assert leaf <= model.cpuid[leaf & 0x80000000, 0][0]
    again = CpuModel.from_cpuid(found)
    assert again.components == model.components and again.profile == model.profile
    assert (again.xcr0_mask, again.xss_mask, again.knobs) == (model.xcr0_mask, model.xss_mask, model.knobs)
    for bit in (0, 1, *model.components):
        assert found[0xD, bit] == model.cpuid.get((0xD, bit), (0, 0, 0, 0))


def test_a_cpu_that_lies_about_its_maxima():
    asked = []
    walk(answering(dict.fromkeys(((leaf, sub) for leaf in range(0x40) for sub in range(70)), (2**32 - 1,) * 4), asked))
    assert len(asked) < 120


@skips.needs_native()
def test_host():
    from xsave._native import cpuid, xgetbv

    model = CpuModel.host()
    assert CpuModel.host() is model
    assert model.name == model.brand or not model.brand
    assert xgetbv(0) & ~int(model.xcr0_mask) == 0
    for bit in model.components:
        if bit > 1:
            assert model.components[bit].size == cpuid(0xD, int(bit))[0]


@skips.needs_tool("cpuid")
@pytest.mark.parametrize("options", [["-1"], []])
def test_the_cpuid_tool_says_the_same(options):
    """What `cpuid -r` prints here is read; where this build can ask the CPU, it is the same."""
    text = subprocess.run(["cpuid", "-r", *options], check=True, capture_output=True).stdout
    model = CpuModel.from_text(text)
    assert model.provenance == "CPUID text (cpuid -r)"
    try:
        host = CpuModel.host()
    except UnsupportedError:
        return
    assert (host.components, host.xcr0_mask, host.xss_mask) == (model.components, model.xcr0_mask, model.xss_mask)
    for name in ("vendor", "brand", "profile", "knobs", "instructions"):
        assert getattr(host, name) == getattr(model, name)


def test_without_the_native_module(monkeypatch):
    import sys

    from xsave import models

    monkeypatch.setattr(models, "_host", None)
    monkeypatch.setitem(sys.modules, "xsave._native", None)
    with pytest.raises(UnsupportedError, match="native module"):
        CpuModel.host()
