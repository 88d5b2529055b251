"""The table of named CPUs: complete, equal to the data's records, and regenerated to the same text."""

from pathlib import Path

import pytest

import xsave.data.models
from tests import skips
from tests.tools import make_models
from xsave import CpuModel
from xsave.data.models import ALIASES, MODELS

WANTED = (
    "Penryn SandyBridge IvyBridge Haswell Broadwell Skylake-Client Skylake-Server Cascadelake-Server Icelake-Server "
    "TigerLake KnightsLanding Goldmont AlderLake LunarLake ArrowLake SapphireRapids GraniteRapids DiamondRapids "
    "Bulldozer EPYC EPYC-Rome EPYC-Milan EPYC-Genoa EPYC-Turin YongFeng KX-7000"
)


@pytest.mark.parametrize("name", WANTED.split())
def test_wanted_names_in_any_case(name):
    assert CpuModel.named(name) is CpuModel.named(name.upper()) is CpuModel.named(name.lower().replace("-", "_"))


def test_names():
    assert set(CpuModel.names()) == set(MODELS)
    lower = [name.lower() for name in (*MODELS, *ALIASES)]
    assert len(set(lower)) == len(lower)
    assert all(alias == alias.lower() and target in MODELS for alias, target in ALIASES.items())


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("SapphireRapid", "'SapphireRapids'"),
        ("EPYC-Genova", "'EPYC-Genoa'"),
        ("kx-700", "'kx-7000'"),
        ("vax", "known: Penryn"),
    ],
)
def test_a_miss_suggests(name, hint):
    with pytest.raises(ValueError, match=f"unknown CPU model '{name}'.*{hint}"):
        CpuModel.named(name)


# XCR0, IA32_XSS, profile, and (component, size, offset) that tell the CPU from its neighbours.
FACTS = {
    "Penryn": (0x3, 0, "intel", []),
    "Bulldozer": (0x4000000000000007, 0, "amd-legacy", [(62, 128, 832)]),
    "Skylake-Client": (0x1F, 0x100, "intel", [(3, 64, 960), (4, 64, 1024)]),
    "KnightsLanding": (0xE7, 0, "intel", [(5, 64, 1088)]),
    "AlderLake": (0x207, 0x19900, "intel", [(9, 8, 2688), (15, 808, None)]),
    "SapphireRapids": (0x602E7, 0xDD00, "intel", [(17, 64, 2752), (18, 8192, 2816)]),
    "GraniteRapids": (0x602E7, 0x1DD00, "intel", [(18, 8192, 2816)]),
    "DiamondRapids": (0xE02E7, 0x1DD00, "intel", [(19, 128, 960), (18, 8192, 2816)]),
    "EPYC": (0x7, 0, "amd-zen5", []),
    "EPYC-Rome": (0x207, 0, "amd-zen5", [(9, 64, 832)]),
    "EPYC-Milan": (0x207, 0x1800, "amd-zen5", [(9, 8, 2432), (11, 16, None)]),
    "EPYC-Genoa": (0x2E7, 0x1800, "amd-zen5", [(5, 64, 832), (6, 512, 896), (7, 1024, 1408), (9, 8, 2432)]),
    "EPYC-Turin": (0x2E7, 0x1800, "amd-zen5", [(12, 24, None)]),
    "YongFeng": (0x207, 0x10000, "intel", [(9, 8, 2688), (16, 8, None)]),
}


@pytest.mark.parametrize("name", FACTS)
def test_facts(name):
    model, (xcr0, xss, profile, rows) = CpuModel.named(name), FACTS[name]
    assert (model.xcr0_mask, model.xss_mask, model.profile, model.name) == (xcr0, xss, profile, name)
    for component, size, offset in rows:
        assert (model.components[component].size, model.components[component].offset) == (size, offset)


@pytest.mark.parametrize("name", MODELS)
def test_every_model_is_complete(name):
    model = CpuModel.named(name)
    for component, row in model.components.items():
        assert component < 2 or (0xD, int(component)) in model.cpuid, component
        assert (row.offset is None) == row.supervisor
    assert model.provenance.startswith(("InstLatx64 ", "derived: "))


def test_apx_and_hybrid():
    diamond = CpuModel.named("DiamondRapids")
    assert diamond.feature(7, 1, "edx", 21) and diamond.cpuid[0, 0][0] >= 0x29
    assert CpuModel.named("AlderLake").feature(7, 0, "edx", 15)


@skips.needs_data()
@pytest.mark.parametrize("name", make_models.FROM_RECORDS)
def test_named_models_are_the_data_s_records(name):
    brand, rows = make_models.records()[make_models.FROM_RECORDS[name][0]]
    model = CpuModel.named(name)
    assert model == CpuModel.from_cpuid({row[:2]: row[2:] for row in rows})
    assert model.brand == brand


@skips.needs_data()
def test_the_table_is_what_its_generator_writes():
    assert Path(xsave.data.models.__file__).read_text() == make_models.text()
