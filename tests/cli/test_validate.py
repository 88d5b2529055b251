"""`xsave validate`: the byte of each header rule (SDM1 13.8), in both formats."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cli.areas import area
from tests.cli.test_decode import valid
from xsave import COMPACTED, STANDARD, Component, CpuModel, Layout

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


# --- exact: the emulated processor ----------------------------------------------------------------------------------

SPR = ("--cpu", "SapphireRapids")


def exact(cli: Cli, path: Path, *words: object) -> Any:
    """The one area of the document of `validate --instruction`, and its exit code checked."""
    result = cli("validate", path, *words, "--json")
    document = valid(json.loads(result.out), "validate")
    one = document["areas"][0]
    assert result.code == (0 if one["valid"] else 1) and document["valid"] == one["valid"]
    assert (one["exact"]["fault"] is None) == one["valid"]
    if not one["valid"]:
        fault = one["exact"]["fault"]
        first = one["findings"][0]
        assert (first["rule"], first["offset"], first["fatal"]) == (fault["rule"], fault["offset"], True)
    return one


@pytest.mark.parametrize(("form", "at", "flip", "more", "rule", "named"), RULES)
def test_the_processor_agrees_with_the_rules(
    cli: Cli, tmp_path: Path, form: str, at: int, flip: int, more: tuple[str, ...], rule: str, named: int | None
) -> None:
    """Rule by rule, whatever components are asked for: a header is judged as a whole."""
    data = bytearray(area_file(tmp_path, form, at, flip).read_bytes())
    (tmp_path / "area").write_bytes(data + bytes(8320))
    for mask in ((), ("--mask", "0"), ("--mask", "AVX")):
        one = exact(cli, tmp_path / "area", *SPR, "--instruction", "XRSTOR", *(more or ("--xcr0", "0xe7")), *mask)
        if rule == "H-MXCSR":  # MXCSR is only looked at where it would be loaded
            assert one["valid"] == (mask == ("--mask", "0") or (form == "compacted" and mask != ()))
        else:
            assert one["valid"] == (named is None), (mask, one)


def test_random_headers_two_ways(cli: Cli, tmp_path: Path) -> None:
    """The header's rules and the processor come to the same verdict."""
    from random import Random

    rng = Random(3)
    path = tmp_path / "area"
    seen = set()
    for _ in range(150):
        data = bytearray(area("SapphireRapids", 0xE7, rng.choice((STANDARD, COMPACTED)))) + bytes(8320)
        for _ in range(rng.randrange(3)):
            data[rng.choice((rng.randrange(512, 576), 512, 520, 527, 25, 26))] ^= 1 << rng.randrange(8)
        path.write_bytes(data)
        static = cli("validate", path, *SPR, "--json")
        one = exact(cli, path, *SPR, "--instruction", "XRSTOR")
        assert one["valid"] == json.loads(static.out)["valid"], (data[512:576].hex(), one, static.out)
        seen.add(one["valid"])
    assert seen == {True, False}


def test_supervisor_exactly(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "task"
    layout = Layout(CpuModel.named("SapphireRapids"), 0x1807 | 0xE0, COMPACTED)
    offset, _ = layout.offsets[Component.CET_U]
    data = bytearray(area("SapphireRapids", 0x1807 | 0xE0, COMPACTED))
    data[513] |= 0x08
    words = ("--instruction", "XRSTORS", *SPR, "--xss", "cet")
    path.write_bytes(data)
    assert exact(cli, path, *words)["exact"]["rfbm"]["mask"] == "0x61ae7"
    assert exact(cli, path, *words, "--cpl", "3")["exact"]["fault"]["rule"] == "CPL"
    assert exact(cli, path, *words[:-2])["exact"]["fault"]["rule"] == "H-XCOMP"
    assert exact(cli, path, "--instruction", "XRSTORS", "--cpu", "Haswell")["exact"]["fault"]["vector"] == "#UD"
    data[offset] = 0x40  # bits 9:6 of IA32_U_CET are reserved
    path.write_bytes(data)
    one = exact(cli, path, *words)
    assert one["exact"]["fault"]["rule"] == "MSR-RESERVED" and "IA32_U_CET" in one["findings"][0]["message"]
    assert offset <= one["exact"]["fault"]["offset"] < offset + 8
    assert exact(cli, path, *words, "--mask", "0xe7")["valid"]
    path.write_bytes(area("SapphireRapids", 0xE7))
    assert exact(cli, path, *words)["exact"]["fault"]["rule"] == "H-FORMAT"


def test_ends_before_the_instruction_does(cli: Cli, tmp_path: Path) -> None:
    path = area_file(tmp_path, "standard")
    one = exact(cli, path, *SPR, "--instruction", "XRSTOR")
    assert one["exact"]["fault"]["vector"] == "#PF" and one["exact"]["fault"]["error_code"] == 4
    assert [each["fatal"] for each in one["findings"]] == [True, False]
    assert one["findings"][1]["offset"] == 2688 and "does not fault" in one["findings"][1]["message"]
    assert exact(cli, path, *SPR, "--instruction", "XRSTOR", "--mask", "0xe7")["valid"]
    assert [
        each["rule"] for each in exact(cli, path, *SPR, "--instruction", "XRSTOR", "--address", "4")["findings"]
    ] == ["ALIGN"]
    data = bytearray(path.read_bytes())
    data[530] = 1
    path.write_bytes(data)
    one = exact(cli, path, *SPR, "--instruction", "XRSTOR")
    assert [each["rule"] for each in one["findings"]] == ["PAGE", "H-RESERVED"]
    path.write_bytes(data[:100])
    assert exact(cli, path, *SPR, "--instruction", "XRSTOR")["format"] == "too short"
    assert exact(cli, path, *SPR, "--instruction", "FXRSTOR")["exact"]["fault"]["vector"] == "#PF"


def test_other_instructions_and_settings(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "area"
    whole = bytearray(area("SapphireRapids", 0x602E7))
    path.write_bytes(whole)
    words = (*SPR, "--instruction", "xrstor")
    assert exact(cli, path, *words)["instruction"] == "XRSTOR"
    one = exact(cli, path, *words, "--xfd", "1<<18")
    assert one["exact"]["fault"]["vector"] == "#NM" and one["findings"][0]["offset"] == 514
    assert exact(cli, path, *words, "--xfd", "1<<18", "--mask", "0x202e7")["valid"]
    assert exact(cli, path, *words, "--address", "0x10020")["exact"]["fault"]["rule"] == "ALIGN"
    assert exact(cli, path, *words, "--mode", "32")["valid"]
    assert "valid for XRSTOR64" in cli("validate", path, *words).out
    assert "valid for XRSTOR\n" in cli("validate", path, *words, "--mode", "32").out
    # XRSTOR does not fault on a configuration that LDTILECFG refuses, but it does not load it either.
    whole[2752 + 3] = 1
    path.write_bytes(whole)
    one = exact(cli, path, *words)
    assert [(each["rule"], each["offset"], each["fatal"]) for each in one["findings"]] == [("T-RESERVED", 2755, False)]
    assert exact(cli, path, *words, "--mask", "0x2e7")["findings"] == []
    path.write_bytes(whole[2752:2816])
    one = exact(cli, path, *SPR, "--instruction", "LDTILECFG")
    assert one["format"] == "tile configuration" and one["findings"][0]["offset"] == 3
    assert exact(cli, path, "--cpu", "EPYC-Genoa", "--instruction", "LDTILECFG")["exact"]["fault"]["vector"] == "#UD"
    whole[26] = 1
    path.write_bytes(whole[:512])
    assert exact(cli, path, *SPR, "--instruction", "FXRSTOR")["exact"]["fault"]["rule"] == "H-MXCSR"
    assert exact(cli, path, "--cpu", "EPYC-Turin", "--instruction", "FXRSTOR")["exact"]["fault"]["rule"] == "H-MXCSR"


@pytest.mark.parametrize(
    "words",
    [
        ("--mask", "7"), ("--cpl", "0"), ("--xfd", "0"), ("--mode", "32"), ("--address", "64"),
        ("--ptrace", "--mask", "7"), ("--ptrace", "--xss", "cet"), ("--ioctl", "KVM_SET_XCRS"),
        ("--ioctl", "KVM_SET_XSAVE", "--ptrace"), ("--instruction", "XSAVE"), ("--instruction", "XRSTOR", "--ptrace"),
        ("--instruction", "XRSTOR", "--xcr0", "4"), ("--instruction", "XRSTOR", "--xcr0", "1|1<<50"),
        ("--instruction", "XRSTORS", "--xss", "1<<50"), ("--instruction", "XRSTOR", "--address", hex((1 << 64) - 64)),
    ],
)  # fmt: skip
def test_options_that_have_no_meaning(cli: Cli, tmp_path: Path, words: tuple[str, ...]) -> None:
    result = cli("validate", area_file(tmp_path, "standard"), *SPR, *words)
    assert result.code == 2 and result.out == "" and result.err.startswith("xsave: ")


# --- Linux ----------------------------------------------------------------------------------------------------------

KERNEL = [
    ("--ptrace", {}, (), None, None),
    ("--ptrace", {514: 4}, (), "U-XFD", 514),
    ("--ptrace", {514: 4}, ("--xfd", "0"), None, None),
    ("--ptrace", {512: 0x0F}, (), None, None),
    ("--ptrace", {513: 1}, (), "U-XSTATE", 513),
    ("--ptrace", {527: 0x80}, (), "U-XCOMP", 527),
    ("--ptrace", {575: 1}, (), "U-RESERVED", 575),
    ("--ptrace", {536: 1}, (), "U-RESERVED", 536),
    ("--ptrace", {26: 1}, (), "U-MXCSR", 26),
    ("--ptrace", {26: 1, 512: 0xE0}, (), None, None),
    ("--ioctl", {}, (), None, None),
    ("--ioctl", {512: 0xFF}, ("--xcr0", "0xe7"), "U-XSTATE", 512),
    ("--ioctl", {514: 4}, (), None, None),
    ("--ioctl", {527: 0x80}, (), "U-XCOMP", 527),
    ("--ioctl", {575: 1}, (), "U-RESERVED", 575),
    ("--ioctl", {26: 1, 512: 1}, (), "U-MXCSR", 26),
]


@pytest.mark.parametrize(("door", "puts", "more", "rule", "offset"), KERNEL)
def test_the_kernels_rules(
    cli: Cli, tmp_path: Path, door: str, puts: "dict[int, int]", more: tuple[str, ...], rule: str | None,
    offset: int | None,
) -> None:  # fmt: skip
    if puts.get(512) == 0x0F:
        more = ("--cpu", "Skylake-Client")  # which has MPX
    data = bytearray(bytes(area("SapphireRapids", 0xE7)).ljust(11008, b"\0"))
    for at, value in puts.items():
        data[at] = value
    path = tmp_path / "area"
    path.write_bytes(data)
    words = (door, "KVM_SET_XSAVE") if door == "--ioctl" else (door,)
    cpu = () if "--cpu" in more else SPR
    result = cli("validate", path, *cpu, *words, *more, "--json")
    document = valid(json.loads(result.out), "validate")
    one = document["areas"][0]
    assert one["instruction"] == ("KVM_SET_XSAVE" if door == "--ioctl" else "PTRACE_SETREGSET")
    fatal = [(each["rule"], each["offset"]) for each in one["findings"] if each["fatal"]]
    assert fatal == ([] if rule is None else [(rule, offset)])
    assert one["kernel"]["error"] == (None if rule is None else "EINVAL") and result.code == bool(fatal)
    text = cli("validate", path, *cpu, *words, *more).out
    assert ("EINVAL" in text) == bool(fatal) and (rule is None or f"byte {offset} (0x{offset:x}) {rule}: " in text)


def test_the_kernels_sizes(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "area"
    data = bytes(area("SapphireRapids", 0xE7)).ljust(11008, b"\0")
    for size, error in ((11008, None), (11000, "EFAULT"), (10999, "EINVAL"), (2688, "EFAULT"), (100, "EINVAL")):
        path.write_bytes(data[:size])
        result = cli("validate", path, *SPR, "--ptrace", "--json")
        assert valid(json.loads(result.out), "validate")["areas"][0]["kernel"]["error"] == error
        assert result.code == (error is not None)
    path.write_bytes(data + bytes(8))
    assert cli("validate", path, *SPR, "--ptrace").code == 0
    path.write_bytes(data[:2688])
    result = cli("validate", path, *SPR, "--ioctl", "KVM_SET_XSAVE")
    assert result.code == 0 and "reads 11008" in result.out
    path.write_bytes(data[:570])
    assert cli("validate", path, *SPR, "--ioctl", "KVM_SET_XSAVE").code == 1
