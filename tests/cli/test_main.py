"""Dispatch, exit codes, help, errors, the closed pipe."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import xsave
from tests.cli.areas import area
from xsave.cli import main as entry

Cli = Callable[..., Any]
VERBS = tuple(entry.VERBS)


def command(*words: object, **more: Any) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([sys.executable, "-m", "xsave", *map(str, words)], capture_output=True, timeout=60, **more)


def test_version(cli: Cli) -> None:
    assert cli("--version") == (0, f"xsave {xsave.__version__}\n", "")


def test_version_loads_little() -> None:
    code = "import sys, xsave.cli.main as m; m.main(['--version']); print(*sorted(sys.modules))"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout.split()
    assert not {"json", "typing", "dataclasses", "inspect", "numpy", "shutil", "xsave.models"} & set(modules)


@pytest.mark.parametrize("verb", VERBS)
def test_help_fits_a_screen_and_shows_three_examples(cli: Cli, verb: str) -> None:
    result = cli(verb, "-h")
    lines = result.out.splitlines()
    assert result.code == 0 and result.err == ""
    assert len(lines) <= 24 and max(map(len, lines)) <= 79
    assert sum(line.startswith("  ") and "xsave " in line for line in lines[lines.index("examples:") :]) == 3


def test_help_of_the_program(cli: Cli) -> None:
    result = cli("-h")
    assert result.code == 0 and all(verb in result.out for verb in VERBS) and len(result.out.splitlines()) <= 24
    assert cli("help", "decode").out == cli("decode", "--help").out
    assert cli().code == 2


def test_mistyped_verb(cli: Cli) -> None:
    assert cli("decod") == (2, "", "xsave: 'decod' is neither a verb nor a file\nhint: did you mean xsave decode?\n")


def test_mistyped_option_and_register(cli: Cli, tmp_path: Path) -> None:
    result = cli("decode", "--componant", "AVX")
    assert result.code == 2 and "did you mean --component?" in result.err
    result = cli("decode", "--reg", "zmn3", "x")
    assert result.code == 2 and "no register 'zmn3'" in result.err and "hint: did you mean zmm3?" in result.err
    result = cli("decode", "--component", "avx51", "x")
    assert result.code == 2 and "avx512" in result.err


def test_missing_file(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "core.1234").write_bytes(b"x")
    result = cli(tmp_path / "core.1243")
    assert result.code == 3 and result.out == ""
    assert result.err == f"xsave: {tmp_path}/core.1243: no such file\nhint: did you mean {tmp_path}/core.1234?\n"


def test_file_beats_nothing_but_verbs(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("area").write_bytes(bytes(area("Haswell", 7)))
    assert "raw area" in cli("area", "--cpu", "Haswell").out
    Path("layout").write_bytes(b"")
    assert cli("layout", "--list").code == 0


def test_garbage_is_no_input(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "garbage"
    path.write_bytes(b"\x00\x01\x02garbage")
    result = cli(path)
    assert result.code == 3 and result.out == "" and result.err.startswith(f"xsave: {path}: ")
    assert "Traceback" not in result.err and str(path) not in result.err.partition(f"{path}: ")[2]


def test_internal_error(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xsave.cli.layout.cpu", lambda text: 1 / 0)
    result = cli("layout", "Haswell")
    assert result.code == 70 and "internal error: ZeroDivisionError" in result.err and "Traceback" not in result.err
    assert "Traceback" in cli("layout", "Haswell", "--debug").err


def test_interrupt(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(text: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("xsave.cli.layout.cpu", interrupted)
    assert cli("layout", "Haswell") == (130, "", "")


def test_closed_pipe_is_silent(tmp_path: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    try:
        result = subprocess.run(
            [sys.executable, "-m", "xsave", "layout", "--list"], stdout=write, stderr=subprocess.PIPE, timeout=60
        )
    finally:
        os.close(write)
    assert (result.returncode, result.stderr) == (0, b"")


def test_pipe_closed_midway(tmp_path: Path) -> None:
    path = tmp_path / "area"
    path.write_bytes(bytes(area("SapphireRapids", 0x602E7)))
    words = [sys.executable, "-m", "xsave", "decode", *[str(path)] * 50, "--all"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.read(10)
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(60) == 0


def test_color(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("layout", "Haswell")
    assert "\x1b[" not in cli(*words).out
    assert "\x1b[" in cli(*words, "--color", "always").out
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert "\x1b[" in cli(*words).out
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[" not in cli(*words).out
    assert "\x1b[" in cli(*words, "--color=always").out
    assert "\x1b[" not in cli(*words, "--color=never").out


def test_output_file_is_complete_or_absent(cli: Cli, tmp_path: Path) -> None:
    out = tmp_path / "out.txt"
    assert cli("layout", "Haswell", "-o", out).out == ""
    assert "Haswell" in out.read_text()
    out.write_text("before")
    assert cli("layout", "Haswell", "--mask", "amx", "-o", out).code == 2
    assert out.read_text() == "before" and os.listdir(tmp_path) == ["out.txt"]
    result = cli("layout", "Haswell", "-o", tmp_path / "none" / "out.txt")
    assert result.code == 3 and "none/out.txt" in result.err


def test_output_to_a_device(cli: Cli) -> None:
    assert cli("layout", "Haswell", "-o", "/dev/null").code == 0


def test_ascii(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "area"
    path.write_bytes(bytes(area("SapphireRapids", 0x602E7)))
    assert cli(path, "--ascii").out.isascii()
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    result = command(path, env=environment)
    assert result.returncode == 0 and result.stdout.isascii()


def test_provenance_alone_names_time_and_host(cli: Cli) -> None:
    assert cli("layout", "Haswell", "--json").out == cli("layout", "Haswell", "--json").out
    assert 'provenance": {' not in cli("layout", "Haswell", "--json").out
    assert 'provenance": {' in cli("layout", "Haswell", "--json", "--provenance").out


def test_output_file_stays_where_no_input_was_usable(cli: Cli, tmp_path: Path) -> None:
    path, kept = tmp_path / "empty", tmp_path / "kept"
    path.write_bytes(b"")
    kept.write_text("old")
    for form in ((), ("--json",), ("--csv",)):
        assert cli("decode", path, *form, "-o", kept).code == 3
        assert kept.read_text() == "old" and sorted(tmp_path.iterdir()) == [path, kept]
    assert cli("decode", path, "-o", tmp_path / "new").code == 3
    assert not (tmp_path / "new").exists()


def test_output_file_keeps_its_mode(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "private"
    path.write_text("old")
    path.chmod(0o600)
    assert cli("layout", "EPYC-Genoa", "-o", path).code == 0
    assert path.read_text() != "old" and path.stat().st_mode & 0o777 == 0o600


def test_terminal_escapes_never_reach_stderr(cli: Cli, tmp_path: Path) -> None:
    bad, good = tmp_path / "\x1b[31mbad", tmp_path / "\x1b[31mgood\n"
    bad.write_bytes(b"\x7fELF")
    good.write_bytes(bytes(576))
    for result in (cli("decode", bad), cli("decode", good), cli("decode", "-", stdin=b"00 \x1b[31m\n")):
        assert "\x1b" not in result.err and result.err.count("xsave: ") == len(result.err.splitlines()) > 0


@pytest.mark.parametrize("word", ["²", "#²", "9" * 5000])
def test_digits_that_are_no_number(cli: Cli, tmp_path: Path, word: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "area"
    path.write_bytes(bytes(576))
    assert cli("decode", path, "--thread", word).code == 2
    assert cli("decode", path, "--reg", f"zmm0-{word}").code == 2
    assert cli("live", word).code == 2
    monkeypatch.setenv("COLUMNS", word)
    assert cli("layout", "EPYC-Genoa").code == 0


def test_no_name_in_reg(cli: Cli, tmp_path: Path) -> None:
    result = cli("decode", tmp_path / "x", "--reg", " ,")
    assert result.code == 2 and "--reg" in result.err


@pytest.mark.parametrize(("closed", "code"), [("<&-", 3), (">&-", 0), ("2>&-", 0), ("<&- >&- 2>&-", 0)])
def test_closed_standard_streams(tmp_path: Path, closed: str, code: int) -> None:
    path = tmp_path / "area"
    path.write_bytes(bytes(576))
    word = "-" if closed == "<&-" else str(path)
    line = f'exec "$0" -m xsave decode -q "$1" -o "$2" {closed}'
    out = tmp_path / "out"
    done = subprocess.run(["sh", "-c", line, sys.executable, word, str(out)], capture_output=True, timeout=60)
    assert done.returncode == code and b"Traceback" not in done.stderr and b"internal" not in done.stderr
    assert out.exists() == (code == 0)
    line = f'exec "$0" -m xsave layout EPYC-Genoa {closed}'
    done = subprocess.run(["sh", "-c", line, sys.executable], capture_output=True, timeout=60)
    assert done.returncode == 0 and done.stderr == b""
