"""`xsave layout`: tables, two CPUs, C and JSON, against what `Layout` says."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests import skips
from tests.cli.test_decode import valid
from tests.run_tool import run_tool
from xsave import COMPACTED, STANDARD, CpuModel, Layout

Cli = Callable[..., Any]


def test_one_cpu(cli: Cli) -> None:
    lines = cli("layout", "SapphireRapids").out.splitlines()
    assert lines[1].split()[:2] == ["standard", "11,008"] and lines[2].split()[:2] == ["compacted", "10,752"]
    assert next(line.split() for line in lines if "opmask" in line) == ["5", "opmask", "64", "1088", "832"]
    assert next(line.split() for line in lines if "TILEDATA" in line)[-2:] == ["align64", "XFD"]


def test_side_by_side(cli: Cli) -> None:
    out = cli("layout", "EPYC-Genoa", "--vs", "SapphireRapids", "--format", "standard").out
    row = next(line.split() for line in out.splitlines() if "PKRU" in line)
    assert row == ["9", "PKRU", "2432", "8", "2688", "8", "≠"]
    assert max(map(len, out.splitlines())) <= 80


def test_list(cli: Cli) -> None:
    out = cli("layout", "--list").out
    assert max(map(len, out.splitlines())) <= 80
    assert [line.split()[0] for line in out.splitlines()[1:]] == list(CpuModel.names())
    valid(json.loads(cli("layout", "--list", "--json").out), "cpus")


@pytest.mark.parametrize("name", ["EPYC-Genoa", "SapphireRapids", "DiamondRapids", "Bulldozer"])
def test_json_equals_the_layout(cli: Cli, name: str) -> None:
    document = valid(json.loads(cli("layout", name, "--json").out), "layout")
    assert document == json.loads(cli("layout", name, "--emit", "json").out)
    model = CpuModel.named(name)
    for record, form in zip(document["layouts"], (STANDARD, COMPACTED), strict=True):
        layout = Layout(model, model.xcr0_mask, form)
        assert record["size"] == layout.size
        for each in record["components"]:
            assert [(e["offset"], e["size"]) for e in each["extents"]] == layout.extents(each["number"])
            if each["number"] >= 2:
                assert (each["offset"], each["size"]) == (each["extents"][0]["offset"], each["extents"][0]["size"])


def test_supervisor_components(cli: Cli) -> None:
    out = cli("layout", "SapphireRapids", "--supervisor").out
    assert next(line.split() for line in out.splitlines() if line.startswith(" 11 "))[3] == "-"
    result = cli("layout", "SapphireRapids", "--mask", "0x807", "--format", "standard")
    assert result.code == 2 and "CET_U" in result.err


def test_what_the_cpu_lacks(cli: Cli) -> None:
    result = cli("layout", "Haswell", "--mask", "avx512")
    assert result.code == 2 and "opmask" in result.err and "hint: Haswell has 0x7 (x87 SSE AVX)" in result.err
    result = cli("layout", "Haswel")
    assert result.code == 2 and "did you mean Haswell?" in result.err
    assert cli("layout", "Haswell", "--mask", "0xzz").code == 2


def test_cpuid_text(cli: Cli, tmp_path: Path) -> None:
    from tests.writers import cpuid_text

    model = CpuModel.named("EPYC-Genoa")
    path = tmp_path / "cpuid.txt"
    path.write_text(cpuid_text.raw(dict(model.cpuid)))
    rows = cli("layout", path).out.splitlines()[1:]
    assert rows == cli("layout", "EPYC-Genoa").out.splitlines()[1:]
    path.write_text("no CPUID here")
    result = cli("layout", path)
    assert result.code == 3 and result.err.startswith(f"xsave: {path}: ")


@skips.needs_tool("gcc")
def test_the_c_header_compiles(cli: Cli, tmp_path: Path) -> None:
    cli("layout", "EPYC-Genoa", "--vs", "SapphireRapids", "--emit", "c", "-o", tmp_path / "layout.h")
    source = tmp_path / "check.c"
    source.write_text(
        '#include "layout.h"\n'
        '_Static_assert(XSAVE_EPYC_GENOA_STANDARD_PKRU_OFFSET == 2432, "Genoa");\n'
        '_Static_assert(XSAVE_SAPPHIRERAPIDS_STANDARD_PKRU_OFFSET == 2688, "SPR");\n'
        '_Static_assert(XSAVE_SAPPHIRERAPIDS_COMPACTED_SIZE == 10752, "SPR compacted");\n'
    )
    run_tool(["gcc", "-Wall", "-Werror", "-c", str(source), "-o", str(tmp_path / "check.o")])
