"""`xsave convert`: formats and CPUs, what cannot be carried, the kernel's mask at byte 464."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cli.areas import area
from tests.cli.test_decode import valid
from xsave import COMPACTED, STANDARD, Area, CpuModel, Layout, same_state, transcode

Cli = Callable[..., Any]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "spr.area"
    path.write_bytes(bytes(area("SapphireRapids", 0x602E7)))
    return path


def test_compacted_and_back(cli: Cli, source: Path, tmp_path: Path) -> None:
    middle, back = tmp_path / "compacted", tmp_path / "back"
    result = cli("convert", source, "--cpu", "SapphireRapids", "--to", "compacted", "-o", middle)
    assert result.code == 0 and "to      SapphireRapids compacted, 10,752 bytes" in result.out
    wanted = Layout(CpuModel.named("SapphireRapids"), 0x602E7, COMPACTED)
    assert middle.read_bytes() == transcode(
        area("SapphireRapids", 0x602E7), area("SapphireRapids", 0x602E7).layout, wanted
    )
    assert cli("convert", middle, "--cpu", "SapphireRapids", "--to", "standard", "-o", back).code == 0
    assert same_state(Area(back.read_bytes(), area("SapphireRapids", 0x602E7).layout), area("SapphireRapids", 0x602E7))


def test_what_cannot_be_carried(cli: Cli, source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ("convert", source, "--to-cpu", "EPYC-Genoa", "-o", out)
    result = cli(*words)
    assert result.code == 1 and not out.exists()
    assert "TILECFG" in result.err and "TILEDATA" in result.err and "hint: --lost drop" in result.err
    result = cli(*words, "--lost", "drop")
    assert result.code == 0 and "lost    0x60000 (AMX)" in result.out
    layout = Layout(CpuModel.named("EPYC-Genoa"), 0x2E7, STANDARD)
    assert len(out.read_bytes()) == layout.size
    assert Area(out.read_bytes(), layout)["zmm17"] == area("SapphireRapids", 0x602E7)["zmm17"]


def test_the_kernels_mask_follows(cli: Cli, source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    cli("convert", source, "--to-cpu", "EPYC-Genoa", "--lost", "drop", "-o", out)
    assert int.from_bytes(out.read_bytes()[464:472], "little") == 0x2E7
    source.write_bytes(bytes(area("SapphireRapids", 0x602E7, software=False)))
    cli("convert", source, "--cpu", "SapphireRapids", "--to-cpu", "EPYC-Genoa", "--lost", "drop", "-o", out)
    assert out.read_bytes()[464:472] == bytes(8)


def test_mask(cli: Cli, source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert cli("convert", source, "--mask", "0xe7", "--lost", "drop", "-o", out).code == 0
    assert len(out.read_bytes()) == Layout(CpuModel.named("SapphireRapids"), 0xE7, STANDARD).size
    result = cli("convert", source, "--to-cpu", "Haswell", "--mask", "avx512", "-o", out)
    assert result.code == 2 and "Haswell" in result.err


def test_hex_to_stdout_and_back(cli: Cli, source: Path) -> None:
    result = cli("convert", source, "--to", "compacted", "--cpu", "SapphireRapids")
    assert result.code == 0 and result.out.startswith("00000000: 7f03 ") and "from    " in result.err
    assert cli("diff", source, "-", "--cpu", "SapphireRapids", stdin=result.out.encode()).code == 0


def test_json(cli: Cli, source: Path) -> None:
    document = valid(
        json.loads(cli("convert", source, "--to-cpu", "EPYC-Genoa", "--lost", "drop", "--json").out), "convert"
    )
    assert document["lost"]["names"] == ["TILECFG", "TILEDATA"] and len(document["data"]) == 2 * document["to"]["size"]


def test_raw_to_stdout(source: Path) -> None:
    words = [sys.executable, "-m", "xsave", "convert", str(source), "--raw", "-q"]
    result = subprocess.run(words, capture_output=True, timeout=60)
    assert (result.returncode, result.stdout, result.stderr) == (0, source.read_bytes(), b"")
