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
from xsave.host import Host

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


FRAMES = ("linux", "windows", "sgx", "tdx")


@pytest.mark.parametrize("kind", FRAMES)
@pytest.mark.parametrize("name", ["EPYC-Genoa", "SapphireRapids", "DiamondRapids", "Bulldozer"])
def test_frames_as_json(cli: Cli, kind: str, name: str) -> None:
    result = cli("layout", name, "--frame", kind, "--json")
    if kind == "tdx" and name == "Bulldozer":
        assert result.code == 2 and "Bulldozer has no XSAVES" in result.err
        return
    document = valid(json.loads(result.out), "frame")
    assert document == json.loads(cli("layout", name, "--frame", kind, "--emit", "json").out)
    assert (document["cpu"], document["system"]) == (name, kind)
    model = CpuModel.named(name)
    for record in document["frames"]:
        form = COMPACTED if record["format"] == "compacted" else STANDARD
        size = Layout(model, int(record["layout"]["mask"], 16), form).size
        assert record["area"]["size"] == size - (512 if kind == "windows" else 0)
        assert record["area"] in [{"offset": part["offset"], "size": part["size"]} for part in record["parts"]]
        assert sum(part["size"] for part in record["parts"]) == record["size"]
        assert record["facts"]


def test_frames_of_linux(cli: Cli) -> None:
    document = json.loads(cli("layout", "SapphireRapids", "--frame", "linux", "--xcr0", "0x600e7", "--json").out)
    before, after, stack = document["frames"]
    assert (before["layout"]["mask"], before["facts"]) == ("0x200e7", {"xstate_size": 2816, "extended_size": 2820})
    assert (after["layout"]["mask"], after["facts"]) == ("0x600e7", {"xstate_size": 11008, "extended_size": 11012})
    assert stack["facts"] == {"AT_MINSIGSTKSZ": 11952, "sigaltstack": 11837}
    assert len({before["title"], after["title"], stack["title"]}) == 3
    # Linux enables what it knows: not LWP.
    assert json.loads(cli("layout", "Bulldozer", "--frame", "linux", "--json").out)["value"]["mask"] == "0x7"
    assert len(json.loads(cli("layout", "EPYC-Genoa", "--frame", "linux", "--json").out)["frames"]) == 2


def test_frames_as_text(cli: Cli) -> None:
    lines = cli("layout", "SapphireRapids", "--frame", "sgx", "--xcr0", "x87|SSE|AVX|AVX512|PKRU|AMX").out.splitlines()
    assert lines[0] == "SapphireRapids: XFRM 0x602e7 (x87 SSE AVX AVX-512 PKRU AMX)"
    assert "SSAFRAMESIZE 3" in lines
    assert [line.split() for line in lines if "GPRSGX" in line] == [["12104", "184", "GPRSGX"]]
    lines = cli("layout", "EPYC-Genoa", "--frame", "windows", "--xcr0", "AVX|CET_U").out.splitlines()
    assert "ContextSize 1,663, XState.Length 336" in lines
    lines = cli("layout", "EPYC-Genoa", "--frame", "windows", "--format", "standard", "--xcr0", "AVX").out.splitlines()
    assert "standard format, 0x4 (AVX)" in lines and "ContextSize 1,647, XState.Length 320" in lines
    lines = cli("layout", "SapphireRapids", "--frame", "tdx").out.splitlines()
    assert [line.split() for line in lines if "XSAVE area" in line] == [["0", "11776", "XSAVE", "area"]]
    for kind in FRAMES:
        for name in CpuModel.names():
            result = cli("layout", name, "--frame", kind)
            assert (result.code == 0) == (kind != "tdx" or "xsaves" in CpuModel.named(name).instructions), (name, kind)
            assert max(map(len, result.out.splitlines()), default=0) <= 80


@skips.needs_native()
@skips.needs_cpu("xsave")
def test_frame_of_this_cpu(cli: Cli) -> None:
    document = json.loads(cli("layout", "--frame", "linux", "--json").out)
    assert int(document["value"]["mask"], 16) == Host.xcr0


@pytest.mark.parametrize(("words", "said"), [
    (("--frame", "linux", "--xcr0", "0xe7"), "XCR0 0xe7 is no value that EPYC-Milan takes"),
    (("--frame", "linux", "--xcr0", "1"), "lacks 0x2 (SSE)"),
    (("--frame", "sgx", "--xcr0", "0x205"), "XFRM 0x205"),
    (("--frame", "tdx", "--xcr0", "AMX"), "XFAM 0x60000 has"),
    (("--frame", "windows", "--xcr0", "CET_S"), "a context's mask 0x1000 has"),
    (("--frame", "windows", "--xcr0", "CET_U", "--format", "standard"), "the standard format has no place"),
    (("--frame", "linux", "--mask", "7"), "--mask and --frame linux exclude each other"),
    (("--frame", "linux", "--supervisor"), "--supervisor and --frame linux exclude each other"),
    (("--frame", "sgx", "--format", "standard"), "--format and --frame sgx exclude each other"),
    (("--frame", "sgx", "--vs", "Haswell"), "--vs and --frame sgx exclude each other"),
    (("--frame", "sgx", "--list"), "--list and --frame sgx exclude each other"),
    (("--frame", "sgx", "--emit", "c"), "--emit c and --frame sgx exclude each other"),
    (("--frame", "sgx", "--xcr0", "avx51"), "did you mean"),
    (("--frame", "bsd"), "invalid choice: 'bsd'"),
    (("--xcr0", "7"), "--xcr0 belongs to --frame"),
])  # fmt: skip
def test_frames_that_contradict(cli: Cli, words: tuple[str, ...], said: str) -> None:
    result = cli("layout", "EPYC-Milan", *words)
    assert result.code == 2 and said in result.err and result.out == ""
