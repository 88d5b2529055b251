"""`xsave diff`: the same area in every form is the same; one changed bit is not; stale bytes do not count."""

import gzip
import json
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests import skips
from tests.cli.areas import area
from tests.cli.test_decode import ELF, valid
from tests.run_tool import run_tool

Cli = Callable[..., Any]
CPU = "SapphireRapids"


@pytest.fixture
def original(tmp_path: Path) -> Path:
    path = tmp_path / "area.bin"
    path.write_bytes(bytes(area(CPU, 0x2E7)))
    return path


def _xxd(path: Path) -> bytes:
    skips.needs_tool("xxd")
    return run_tool(["xxd", path]).stdout


def _hexdump(path: Path) -> bytes:
    skips.needs_tool("hexdump")
    return run_tool(["hexdump", "-C", path]).stdout


def _od(path: Path) -> bytes:
    skips.needs_tool("od")
    return run_tool(["od", "-A", "x", "-t", "x1z", "-v", path]).stdout


def _od_words(path: Path) -> bytes:
    skips.needs_tool("od")
    return run_tool(["od", path]).stdout


def _gdb(path: Path) -> bytes:
    data, lines = path.read_bytes(), []
    for at in range(0, len(data), 16):
        words = [int.from_bytes(data[i : i + 8], "little") for i in range(at, min(at + 16, len(data)), 8)]
        lines.append(f"0x{0x7FFE0000 + at:x} <buffer+{at}>:\t" + "\t".join(f"0x{word:016x}" for word in words))
    return "\n".join(lines).encode() + b"\n"


def _bare(path: Path) -> bytes:
    return path.read_bytes().hex().encode()


def _zstd(path: Path) -> bytes:
    skips.needs_tool("zstd")
    skips.needs_module("backports.zstd")
    return run_tool(["zstd", "-q", "-c", path]).stdout


def _lz4(path: Path) -> bytes:
    skips.needs_tool("lz4")
    skips.needs_module("lz4")
    return run_tool(["lz4", "-q", "-c", path]).stdout


FORMS: dict[str, Callable[[Path], bytes]] = {
    "xxd": _xxd,
    "hexdump": _hexdump,
    "od": _od,
    "od-words": _od_words,
    "gdb": _gdb,
    "bare": _bare,
    "gz": lambda path: gzip.compress(path.read_bytes()),
    "xz": lambda path: lzma.compress(path.read_bytes()),
    "zst": _zstd,
    "lz4": _lz4,
    "raw": Path.read_bytes,
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_the_same(cli: Cli, original: Path, tmp_path: Path, form: str) -> None:
    path = tmp_path / f"form.{form}"
    path.write_bytes(FORMS[form](original))
    assert cli("diff", original, path, "--cpu", CPU) == (0, "same state (1 thread compared)\n", "")
    assert cli("diff", original, "-", "--cpu", CPU, stdin=path.read_bytes()).code == 0
    changed = bytearray(original.read_bytes())
    changed[0x2F0] ^= 0x10
    original.write_bytes(changed)
    assert cli("diff", original, path, "--cpu", CPU).code == 1


def test_real_gdb_dump(cli: Cli, original: Path, tmp_path: Path) -> None:
    skips.needs_tool("gdb")
    skips.needs_tool("gcc")
    source = tmp_path / "buffer.c"
    numbers = ",".join(map(str, original.read_bytes()))
    source.write_text(
        f"unsigned char buffer[] __attribute__((aligned(64))) = {{{numbers}}};\nint main(void) {{ return 0; }}\n"
    )
    program = tmp_path / "buffer"
    run_tool(["gcc", "-g", "-o", program, source])
    count = len(original.read_bytes())
    for what, number in (("xb", count), ("xg", count // 8), ("xw", count // 4)):
        dump = run_tool(["gdb", "-nx", "-batch", "-ex", f"x/{number}{what} &buffer", program]).stdout
        assert cli("diff", original, "-", "--cpu", CPU, stdin=dump).code == 0, what


def test_there_and_back_through_convert(cli: Cli, original: Path, tmp_path: Path) -> None:
    steps = [
        ("SapphireRapids", "compacted"),
        ("EPYC-Genoa", "standard"),
        ("EPYC-Genoa", "compacted"),
        (CPU, "standard"),
    ]
    here, cpu = original, CPU
    for number, (target, form) in enumerate(steps):
        out = tmp_path / f"step{number}"
        assert cli("convert", here, "--cpu", cpu, "--to-cpu", target, "--to", form, "-o", out).code == 0
        assert cli("diff", original, out, "--cpu", CPU, "--vs-cpu", target).code == 0
        here, cpu = out, target
    changed = bytearray(here.read_bytes())
    changed[700] ^= 1
    here.write_bytes(changed)
    assert cli("diff", original, here, "--cpu", CPU).code == 1


def test_names_the_register_and_shows_both_values(cli: Cli, original: Path, tmp_path: Path) -> None:
    changed = bytearray(original.read_bytes())
    changed[160 + 16 * 3] ^= 0x01  # xmm3, byte 0
    other = tmp_path / "other"
    other.write_bytes(changed)
    result = cli("diff", original, other, "--cpu", CPU)
    lines = [line.split() for line in result.out.splitlines()]
    assert result.code == 1 and lines[1][:2] == ["zmm3", "A"] and lines[2][0] == "B"
    assert int(lines[1][2], 16) ^ int(lines[2][1], 16) == 1
    document = valid(json.loads(cli("diff", original, other, "--cpu", CPU, "--json").out), "diff")
    assert not document["same"] and [each["register"] for each in document["differences"]] == ["zmm3"]
    assert cli("diff", original, other, "--cpu", CPU, "--reg", "zmm4").code == 0
    assert cli("diff", original, other, "--cpu", CPU, "--component", "AVX").code == 1


def test_stale_bytes_do_not_count(cli: Cli, original: Path, tmp_path: Path) -> None:
    data = bytearray(original.read_bytes())
    data[512] &= ~0x4  # AVX in its initial configuration ...
    clean, stale = tmp_path / "clean", tmp_path / "stale"
    clean.write_bytes(data[:576] + bytes(256) + data[832:])
    stale.write_bytes(data)  # ... with the old bytes in its place
    assert cli("diff", clean, stale, "--cpu", CPU).code == 0


def test_usage(cli: Cli, original: Path) -> None:
    assert cli("diff", original).code == 2
    assert cli("diff", original, original, original).code == 2
    assert cli("diff", original, original.parent / "missing").code == 3


@skips.needs_data()
def test_two_threads_of_a_core(cli: Cli) -> None:
    core = ELF / "intel-amx-threads-fault-a.core.xz"
    result = cli("diff", core, "--thread", "16505", "--thread", "16507", "--component", "amx")
    assert result.code == 1 and "tmm0" in result.out
    assert cli("diff", core, core).code == 0
    assert cli("diff", core, "--thread", "16502,16503", "--reg", "rip").code == 1
