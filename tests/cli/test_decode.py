"""`xsave decode`: the first screen, narrowing, and every machine-readable form against the values that were written."""

import csv
import io
import json
import lzma
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests import skips
from tests.cli.areas import area, values
from tests.paths import DATA
from xsave import decode
from xsave.report.json import schema

Cli = Callable[..., Any]
ELF = DATA / "images" / "local" / "elf"


def valid(document: Any, name: str) -> Any:
    skips.needs_module("jsonschema")
    import jsonschema

    jsonschema.Draft202012Validator(schema(name)).validate(document)
    return document


@pytest.fixture
def genoa(tmp_path: Path) -> Path:
    path = tmp_path / "genoa.area"
    path.write_bytes(bytes(area("EPYC-Genoa", 0x2E7)))
    return path


def test_first_screen(cli: Cli, genoa: Path) -> None:
    result = cli(genoa)
    lines = result.out.splitlines()
    assert (result.code == 0 and max(map(len, lines)) <= 80) or max(len(line) for line in lines[1:]) <= 80
    assert lines[0].startswith(f"{genoa}: raw area") and "1 thread" in lines[0]
    assert "0x2e7 (x87 SSE AVX AVX-512 PKRU)" in lines[1] and "standard" in lines[1]
    assert "known by" in lines[2]
    assert any(line.startswith("zmm0 ") for line in lines) and "pkru 0x55555554" in result.out
    assert "st0" in result.out and "3.14159265358979323851" in result.out


def test_wide_terminal_shows_whole_registers(cli: Cli, genoa: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    line = next(line for line in cli(genoa).out.splitlines() if line.startswith("zmm0 "))
    assert len(line.split()) == 9 and "…" not in line


def test_json_has_the_values(cli: Cli, genoa: Path) -> None:
    document = valid(json.loads(cli(genoa, "--json").out), "decode")
    assert document["schema"] == "xsave.decode/1" and document["kind"] == "raw area"
    (thread,) = document["threads"]
    written = values(0x2E7)
    shown = thread["registers"]
    for name, value in written.items():
        assert shown[name] == (f"{value:#x}" if isinstance(value, int) else value.hex()), name
    assert set(shown) == set(decode(area("EPYC-Genoa", 0x2E7)))
    assert thread["xstate_bv"] == {
        "mask": "0x2e7",
        "names": ["x87", "SSE", "AVX", "opmask", "ZMM_Hi256", "Hi16_ZMM", "PKRU"],
    }


def test_lanes_in_json(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "area"
    data = bytearray(area("Haswell", 7))
    data[160:176] = bytes.fromhex("0000803f 000080ff 0100c07f 00004040")
    data[32:42] = bytes.fromhex("0000000000000080ff7f")
    path.write_bytes(data)
    document = valid(json.loads(cli("decode", path, "--reg", "xmm0,st0", "-t", "f32", "--json").out), "decode")
    lanes = document["threads"][0]["lanes"]
    assert lanes["type"] == "f32"
    assert lanes["registers"]["xmm0"] == [
        1.0,
        {"special": "-Infinity", "bits": "0xff800000"},
        {"special": "NaN", "bits": "0x7fc00001"},
        3.0,
    ]
    assert lanes["registers"]["st0"][0]["special"] == "Infinity"


def test_ndjson(cli: Cli, genoa: Path) -> None:
    records = [valid(json.loads(line), "decode-record") for line in cli(genoa, "--ndjson").out.splitlines()]
    assert [record["record"] for record in records][:2] == ["image", "thread"]
    assert records[1]["registers"]["k1"] == f"{values(0x2E7)['k1']:#x}"


def test_csv(cli: Cli, genoa: Path) -> None:
    rows = list(csv.DictReader(io.StringIO(cli(genoa, "--csv", "--reg", "zmm1,mxcsr").out)))
    assert [(row["register"], row["value"]) for row in rows] == [
        ("zmm1", values(0x2E7)["zmm1"].hex()),
        ("mxcsr", "0x1fa0"),
    ]


def test_several_inputs(cli: Cli, genoa: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.area"
    other.write_bytes(bytes(area("SapphireRapids", 0xE7)))
    document = valid(json.loads(cli("decode", genoa, other, "--json").out), "decode-list")
    assert [Path(each["source"]).name for each in document["documents"]] == ["genoa.area", "other.area"]
    result = cli("decode", genoa, tmp_path / "missing", other)
    assert result.code == 4 and "missing: no such file" in result.err and result.out.count("raw area") == 2


def test_folder_and_glob(cli: Cli, genoa: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("not a hex dump at all!\n")
    assert cli("decode", tmp_path).code == 0
    assert cli("decode", tmp_path / "*.area").out.startswith(str(genoa))
    result = cli("decode", tmp_path / "*.nothing")
    assert result.code == 3 and "nothing matches" in result.err
    genoa.unlink()
    assert cli("decode", tmp_path).code == 3


def test_a_pipe_in_a_folder_is_not_waited_for(genoa: Path, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "area").write_bytes(genoa.read_bytes())
    os.mkfifo(folder / "pipe")
    (folder / "gone").symlink_to("nowhere")
    line = [sys.executable, "-m", "xsave", "decode", str(folder)]
    done = subprocess.run(line, capture_output=True, text=True, timeout=20)
    assert done.returncode == 0 and str(folder / "area") in done.stdout


def test_narrowing(cli: Cli, genoa: Path) -> None:
    out = cli("decode", genoa, "--reg", "zmm2-3", "-t", "u32").out
    rows = [line.split() for line in out.splitlines() if line.startswith("zmm")]
    assert [row[0] for row in rows] == ["zmm2", "zmm3"] and all(len(row) == 17 for row in rows)
    out = cli("decode", genoa, "--component", "AVX").out
    assert "ymm15" in out and "zmm" not in out and "st0" not in out
    out = cli("decode", genoa, "--component", "opmask|PKRU").out
    assert "k7" in out and "pkru" in out and "mxcsr" not in out
    assert "xmm3" in cli("decode", genoa, "--reg", "xmm3").out


def test_what_is_not_there(cli: Cli, genoa: Path) -> None:
    result = cli("decode", genoa, "--reg", "tmm0")
    assert result.code == 1 and "no thread's layout holds tmm0" in result.err
    result = cli("decode", genoa, "--thread", "77")
    assert result.code == 1 and "no thread 77" in result.err
    assert cli("decode", genoa, "--thread", "seven").code == 2


def test_tiles_row_by_row(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "area"
    path.write_bytes(bytes(area("SapphireRapids", 0x602E7)))
    lines = cli("decode", path, "--reg", "tmm3", "-t", "f32").out.splitlines()
    assert sum(line.lstrip().startswith("[") for line in lines) == 16


def test_cpu_the_user_names(cli: Cli, genoa: Path) -> None:
    assert "EPYC-Turin, known by user" in cli(genoa, "--cpu", "EPYC-Turin").out
    result = cli(genoa, "--cpu", "EPYC-Genoe")
    assert result.code == 2 and "did you mean EPYC-Genoa?" in result.err


def test_stdin(cli: Cli) -> None:
    data = bytes(area("EPYC-Genoa", 0x2E7))
    for words in (("-",), ("decode",), ("decode", "-")):
        result = cli(*words, stdin=data)
        assert result.code == 0 and "pkru 0x55555554" in result.out
    assert cli("-", stdin=b"garbage").err.startswith("xsave: standard input: ")


def test_terminal_escapes_from_a_file_name(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "a\x1b[31mb"
    path.write_bytes(bytes(area("Haswell", 7)))
    assert "\x1b" not in cli(path).out


# --- real cores -----------------------------------------------------------------------------------------------------


@skips.needs_data()
def test_amx_core(cli: Cli) -> None:
    core = ELF / "intel-amx-threads-fault-a.core.xz"
    result = cli(core)
    lines = result.out.splitlines()
    assert result.code == 0 and "7 threads, SIGSEGV in 16516" in lines[0]
    assert "0x600e7 (x87 SSE AVX AVX-512 AMX)" in lines[1] and "NT_X86_XSAVE_LAYOUT note (exact)" in lines[2]
    assert lines[5].startswith("*  16516  amxthreads  SIGSEGV  0x402c0d  standard  exact")
    assert any(line.startswith("tmm0 ") for line in lines)
    assert max(len(line) for line in lines[1:]) <= 80


@skips.needs_data()
def test_core_as_json(cli: Cli) -> None:
    core = ELF / "intel-amx-threads-fault-a.core.xz"
    document = valid(json.loads(cli(core, "--json").out), "decode")
    thread = document["threads"][0]
    assert thread["tid"] == 16516 and thread["crashed"] and thread["pc"] == "0x402c0d" == thread["gpr"]["rip"]
    with lzma.open(DATA / "images" / "truth" / "intel-amx-threads-fault-a.core.hw-xrstor.json.xz") as file:
        truth = {each["tid"]: each for each in json.load(file)["threads"]}
    for each in document["threads"]:
        for name, value in truth[each["tid"]]["hw"].items():
            if name.startswith(("zmm", "tmm", "tilecfg")):
                assert each["registers"][name] == value, (each["tid"], name)
            elif name.startswith("k"):
                assert int(each["registers"][name], 16) == int(value, 16), (each["tid"], name)
    records = [valid(json.loads(line), "decode-record") for line in cli(core, "--ndjson").out.splitlines()]
    assert sum(record["record"] == "thread" for record in records) == 7


@skips.needs_data()
def test_general_registers(cli: Cli) -> None:
    out = cli("decode", ELF / "intel-amx-threads-fault-a.core.xz", "--thread", "crashed", "--reg", "rip,zmm0").out
    assert "rip      0x0000000000402c0d" in out and "zmm0" in out and "16503" not in out.splitlines()[-3:]


@skips.needs_data()
def test_signal_frames_are_extra_states(cli: Cli) -> None:
    document = json.loads(cli(ELF / "intel-amx-sigframe.core.xz", "--json").out)
    valid(document, "decode")
    extra = [each for thread in document["threads"] for each in thread["extra_states"]]
    assert extra and all(each["kind"] == "signal frame" and each["registers"] for each in extra)
    assert "signal frame at 0x" in cli(ELF / "intel-amx-sigframe.core.xz").out


@skips.needs_data()
def test_a_cut_core_is_partial(cli: Cli, tmp_path: Path) -> None:
    with lzma.open(ELF / "intel-amx-threads-fault-a.core.xz") as file:
        whole = file.read()
    path = tmp_path / "cut.core"
    path.write_bytes(whole[:40_000])
    result = cli(path)
    assert result.code == 4 and "16516" in result.out and "the file ends within the note" in result.err
    document = valid(json.loads(cli(path, "--json").out), "decode")
    assert 1 <= len(document["threads"]) < 7
    assert any("the file ends within the note" in each["message"] for each in document["diagnostics"])
    assert cli(path, "-q").err == ""
