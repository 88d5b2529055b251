"""`xsave validate`: the byte of each header rule (SDM1 13.8), in both formats."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cli.areas import area
from tests.cli.test_decode import valid
from xsave import COMPACTED, STANDARD

Cli = Callable[..., Any]

# format, byte, XOR, extra options, rule, the byte that is named (None: no finding that faults)
RULES = [
    ("standard", 520, 0x01, (), "H-XCOMP", 520),
    ("standard", 525, 0x40, (), "H-XCOMP", 525),
    ("standard", 528, 0x01, (), "H-RESERVED", 528),
    ("standard", 535, 0x80, (), "H-RESERVED", 535),
    ("standard", 536, 0x01, (), "H-RESERVED", None),
    ("standard", 575, 0x01, (), "H-RESERVED", None),
    ("standard", 513, 0x01, (), "H-XSTATE", 513),
    ("standard", 519, 0x80, (), "H-XSTATE", 519),
    ("standard", 512, 0x00, ("--xcr0", "x87|SSE|AVX"), "H-XSTATE", 512),
    ("standard", 27, 0x01, (), "H-MXCSR", 24),
    ("compacted", 523, 0x01, (), "H-XCOMP", 523),
    ("compacted", 520, 0x00, ("--xcr0", "x87|SSE|AVX"), "H-XCOMP", 520),
    ("compacted", 520, 0x04, (), "H-XSTATE", 512),
    ("compacted", 519, 0x80, (), "H-XSTATE", 519),
    ("compacted", 528, 0x01, (), "H-RESERVED", 528),
    ("compacted", 575, 0x01, (), "H-RESERVED", 575),
    ("compacted", 27, 0x01, (), "H-MXCSR", 24),
    ("compacted", 527, 0x80, (), "H-XCOMP", 520),
]


def area_file(folder: Path, form: str, at: int = 0, flip: int = 0) -> Path:
    data = bytearray(area("SapphireRapids", 0xE7, COMPACTED if form == "compacted" else STANDARD))
    data[at] ^= flip
    path = folder / "area"
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("form", ["standard", "compacted"])
def test_valid(cli: Cli, tmp_path: Path, form: str) -> None:
    result = cli("validate", area_file(tmp_path, form), "--cpu", "SapphireRapids")
    assert result.code == 0 and f"{form}, " in result.out and ": valid for XRSTOR" in result.out


@pytest.mark.parametrize(("form", "at", "flip", "more", "rule", "named"), RULES)
def test_each_rule_names_its_byte(
    cli: Cli, tmp_path: Path, form: str, at: int, flip: int, more: tuple[str, ...], rule: str, named: int | None
) -> None:
    path = area_file(tmp_path, form, at, flip)
    words = ("validate", path, "--cpu", "SapphireRapids", *more)
    document = valid(json.loads(cli(*words, "--json").out), "validate")
    findings = document["areas"][0]["findings"]
    result = cli(*words)
    if named is None:
        assert result.code == 0 and document["valid"] and [(f["rule"], f["fatal"]) for f in findings] == [(rule, False)]
        assert f"byte {at} (0x{at:x}) {rule} (no fault)" in result.out
    else:
        assert result.code == 1 and not document["valid"]
        assert (rule, named) in [(f["rule"], f["offset"]) for f in findings if f["fatal"]]
        assert f"byte {named} (0x{named:x}) {rule}: " in result.out


def test_supervisor(cli: Cli, tmp_path: Path) -> None:
    path = area_file(tmp_path, "compacted")
    result = cli("validate", path, "--cpu", "SapphireRapids", "--xss", "cet")
    assert result.code == 0 and "valid for XRSTORS" in result.out
    path = area_file(tmp_path, "standard")
    result = cli("validate", path, "--cpu", "SapphireRapids", "--xss", "cet")
    assert result.code == 1 and "byte 527" in result.out
    data = bytearray(area("SapphireRapids", 0x1807 | 0xE0, COMPACTED))
    path.write_bytes(data)
    assert cli("validate", path, "--cpu", "SapphireRapids").code == 1
    assert cli("validate", path, "--cpu", "SapphireRapids", "--xss", "cet").code == 0


def test_short_areas(cli: Cli, tmp_path: Path) -> None:
    path = area_file(tmp_path, "standard")
    path.write_bytes(path.read_bytes()[:1000])
    result = cli("validate", path, "--cpu", "SapphireRapids")
    assert result.code == 1 and "byte 1000 (0x3e8) SIZE" in result.out
    path.write_bytes(path.read_bytes()[:100])
    assert cli("validate", path, "--cpu", "SapphireRapids").code == 1


def test_hex_and_stdin(cli: Cli, tmp_path: Path) -> None:
    path = area_file(tmp_path, "standard", 529, 1)
    text = path.read_bytes().hex().encode()
    for stdin in (text, path.read_bytes()):
        result = cli("validate", "-", "--cpu", "SapphireRapids", stdin=stdin)
        assert result.code == 1 and "byte 529" in result.out


def test_missing_and_core(cli: Cli, tmp_path: Path) -> None:
    assert cli("validate", tmp_path / "none").code == 3
