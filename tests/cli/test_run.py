"""`xsave run`: what each instruction does to areas and registers, every fault with rule and byte, and bad input."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests import skips
from tests.cli import screens
from tests.cli.areas import area, values
from tests.cli.test_decode import valid
from xsave import COMPACTED, STANDARD, Area, ComponentMask, CpuModel, Layout, Memory, Processor, decode, encode

Cli = Callable[..., Any]
SPR = ("--cpu", "SapphireRapids")
CONFIG = bytes((1,)) + bytes(15) + b"\x40\0" * 8 + bytes(16) + bytes((16,)) * 8 + bytes(8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """area.bin (2E7), amx.bin (602E7), packed.bin (E7, compacted), tile.bin (a configuration), state.json."""
    (tmp_path / "area.bin").write_bytes(bytes(area("SapphireRapids", 0x2E7)))
    (tmp_path / "amx.bin").write_bytes(bytes(area("SapphireRapids", 0x602E7)))
    (tmp_path / "packed.bin").write_bytes(bytes(area("SapphireRapids", 0xE7, COMPACTED)))
    (tmp_path / "tile.bin").write_bytes(CONFIG)
    (tmp_path / "state.json").write_text(json.dumps({"mxcsr": "0x1fa0", "k1": "0xff", "zmm17": "ab" * 64, "k2": 5}))
    return tmp_path


def run(cli: Cli, *words: object, code: int = 0, stdin: bytes = b"") -> Any:
    """The one run of the document, which has the schema's form and `code`."""
    result = cli("run", *words, "--json", stdin=stdin)
    assert result.code == code, result.err
    document = valid(json.loads(result.out), "run")
    assert (document["runs"][0]["fault"] is not None) == bool(code)
    return document["runs"][0]


def spans(written: "list[dict[str, Any]]") -> "list[tuple[int, int]]":
    """(first, last) of what was written, pieces that touch put together."""
    found: "list[list[int]]" = []
    for each in sorted(written, key=lambda one: one["offset"]):
        if found and found[-1][1] + 1 == each["offset"]:
            found[-1][1] += each["size"]
        else:
            found.append([each["offset"], each["offset"] + each["size"] - 1])
    return [(first, last) for first, last in found]


# instruction and options, what is written of an area when everything of 2E7 is in use (SDM1 13.4, 13.7-13.11)
WRITTEN = [
    (("XSAVE", "--mask", "0x2e7"), [(0, 415), (512, 513), (576, 831), (1088, 2691)]),
    (("XSAVE", "--mask", "x87"), [(0, 23), (32, 159), (512, 512)]),
    (("XSAVE", "--mask", "AVX"), [(24, 31), (512, 512), (576, 831)]),
    (("XSAVEOPT", "--mask", "SSE|opmask"), [(24, 31), (160, 415), (512, 512), (1088, 1151)]),
    (("XSAVEC", "--mask", "AVX|PKRU"), [(512, 527), (576, 835)]),
    (("XSAVES", "--mask", "x87|cet", "--xss", "cet"), [(0, 23), (32, 159), (512, 527)]),
    (("FXSAVE",), [(0, 415)]),
    (("XSAVE", "--mode", "32", "--mask", "SSE"), [(24, 31), (160, 287), (512, 512)]),
    (("XSAVEC", "--mask", "0"), [(512, 527)]),
    (("XSAVEC", "--mask", "1<<40"), [(512, 527)]),
]


@pytest.mark.parametrize(("words", "expected"), WRITTEN)
def test_what_saves_write(cli: Cli, folder: Path, words: tuple[str, ...], expected: list[tuple[int, int]]) -> None:
    one = run(cli, *words, *SPR, "--state", folder / "area.bin")
    assert spans(one["written"]) == expected
    data = bytes.fromhex(one["area"])
    state = bytes(area("SapphireRapids", 0x2E7))
    for first, last in expected:
        if last < 416:
            held = [at for at in range(first, last + 1) if not 28 <= at < 32]  # MXCSR_MASK
            assert all(data[at] == state[at] for at in held)


def test_what_was_there_before_is_no_matter(cli: Cli, folder: Path) -> None:
    """Bytes written with the value that they had already count as written."""
    saved = folder / "saved"
    words = ("XSAVE", folder / "area.bin", "--xcr0", "0x2e7", *SPR, "--state", folder / "area.bin")
    expected = [(0, 415), (512, 513), *WRITTEN[0][1][2:]]
    assert spans(run(cli, *words, "-o", saved)["written"]) == expected
    once = saved.read_bytes()
    assert spans(run(cli, *words[:1], saved, *words[2:], "-o", saved)["written"]) == expected
    assert saved.read_bytes() == once
    assert decode(area("SapphireRapids", 0x2E7)) == decode_of(once, 0x2E7)


def decode_of(data: bytes, mask: int) -> "dict[str, Any]":
    return decode(Area(data, Layout(CpuModel.named("SapphireRapids"), mask, STANDARD)))


def test_names_of_what_is_written(cli: Cli, folder: Path) -> None:
    one = run(cli, "XSAVEC", *SPR, "--state", folder / "amx.bin")
    assert [each["name"] for each in one["written"]] == [
        *("x87", "SSE", "x87", "SSE", "XSTATE_BV", "XCOMP_BV", "AVX", "opmask", "ZMM_Hi256", "Hi16_ZMM", "PKRU"),
        *("TILECFG", "TILEDATA"),
    ]
    text = cli("run", "XSAVEC", *SPR, "--state", folder / "amx.bin").out
    assert "    x87        0-23 32-159\n    SSE        24-31 160-415\n    XSTATE_BV  512-519\n" in text


@pytest.mark.parametrize("name", ["area.bin", "packed.bin", "amx.bin"])
def test_restore_gives_the_registers(cli: Cli, folder: Path, name: str) -> None:
    mask = {"area.bin": 0x2E7, "packed.bin": 0xE7, "amx.bin": 0x602E7}[name]
    one = run(cli, "XRSTOR", folder / name, *SPR, "--mask", hex(mask))
    expected = {key: f"{v:#x}" if isinstance(v, int) else v.hex() for key, v in values(mask).items()}
    assert {key: one["registers"][key] for key in expected} == expected
    assert int(one["xinuse_after"]["mask"], 16) == mask and one["xinuse_before"]["mask"] == "0x0"
    changed = {key: each["after"] for key, each in one["registers_changed"].items()}
    assert changed.items() <= one["registers"].items() and changed["mxcsr"] == "0x1fa0"
    assert bytes.fromhex(one["area"]) == (folder / name).read_bytes() and one["written"] == []


def test_state_in_every_form(cli: Cli, folder: Path) -> None:
    """JSON by hand, JSON of `decode`, an area: the same registers."""
    document = cli("decode", folder / "area.bin", "--json").out
    (folder / "decoded.json").write_text(document)
    one = run(cli, "XSAVE", *SPR, "--state", folder / "area.bin")
    two = run(cli, "XSAVE", *SPR, "--state", folder / "decoded.json")
    assert one["area"] == two["area"] and one["registers"] == two["registers"]
    by_hand = run(cli, "XSAVE", *SPR, "--state", folder / "state.json")
    assert by_hand["registers"]["k1"] == "0xff" and by_hand["registers"]["k2"] == "0x5"
    assert by_hand["registers"]["zmm17"] == "ab" * 64 and by_hand["xinuse_before"]["mask"] == "0xa0"
    inline = run(cli, "XSAVE", *SPR, "--state", (folder / "state.json").read_text())
    assert inline["area"] == by_hand["area"]
    genoa = folder / "genoa"
    genoa.write_bytes(bytes(area("EPYC-Genoa", 0x2E7)))
    assert run(cli, "XSAVE", *SPR, "--state", genoa)["registers"] == one["registers"]


def test_seeds(cli: Cli) -> None:
    words = ("run", "XSAVE", *SPR, "--json", "--seed")
    outputs = {cli(*words, seed).out for seed in (1, 2, 1)}
    assert len(outputs) == 2
    used = {json.loads(out)["runs"][0]["xinuse_before"]["mask"] for out in outputs}
    assert len(used) == 2


def test_area_from_hex_and_from_a_core(cli: Cli, folder: Path) -> None:
    data = (folder / "area.bin").read_bytes()
    whole = run(cli, "XRSTOR", folder / "area.bin", *SPR, "--xcr0", "0x2e7")
    for stdin in (data, data.hex().encode()):
        assert run(cli, "XRSTOR", "-", *SPR, "--xcr0", "0x2e7", stdin=stdin) == whole
    screens.make_samples(folder)
    words = ("XRSTOR", folder / "sample.core", *SPR, "--xcr0", "0x2e7")
    one = run(cli, *words, "--thread", "1235")
    shown = json.loads(cli("decode", folder / "sample.core", "--thread", "1235", "--json").out)["threads"][0]
    assert {name: one["registers"][name] for name in shown["registers"] if name != "mxcsr_mask"} == {
        name: value for name, value in shown["registers"].items() if name != "mxcsr_mask"
    }
    assert run(cli, *words) == run(cli, *words, "--thread", "crashed")


# words, bytes changed in area.bin (None: no area), vector, rule, byte, error code
FAULTS = [
    (("XRSTOR", "--xcr0", "0x2e7"), {529: 7}, "#GP", "H-RESERVED", 529, 0),
    (("XRSTOR", "--xcr0", "0x2e7", "--mask", "0"), {529: 7}, "#GP", "H-RESERVED", 529, 0),
    (("XRSTOR", "--xcr0", "0x2e7"), {26: 1}, "#GP", "H-MXCSR", 26, 0),
    (("XRSTOR", "--xcr0", "0x2e7"), {521: 1}, "#GP", "H-XCOMP", 521, 0),
    (("XRSTOR", "--xcr0", "7"), {}, "#GP", "H-XSTATE", 512, 0),
    (("XRSTOR",), {}, "#PF", "PAGE", 11007, 4),
    (("XRSTOR", "--ts"), {}, "#NM", "TS", None, 0),
    (("XRSTOR", "--address", "0x10001"), {}, "#GP", "ALIGN", 0, 0),
    (("XRSTOR", "--address", "0x10001", "--ac"), {}, "#AC", "ALIGN", 0, 0),
    (("XRSTOR", "--address", "0x800000000000"), {}, "#GP", "CANONICAL", 0, 0),
    (("XRSTORS", "--cpl", "3"), {}, "#GP", "CPL", None, 0),
    (("XRSTORS",), {}, "#GP", "H-FORMAT", 527, 0),
    (("XSAVES", "--cpl", "1"), None, "#GP", "CPL", None, 0),
    (("XSAVE",), {}, "#PF", "PAGE", 11007, 6),
    (("XSAVEC", "--cpu", "Haswell"), None, "#UD", "CPUID", None, 0),
    (("LDTILECFG", "--cpu", "EPYC-Genoa"), {}, "#UD", "CPUID", None, 0),
    (("LDTILECFG", "--xcr0", "7"), {}, "#UD", "TILES-OFF", None, 0),
    (("LDTILECFG",), {0: 1, 1: 0}, "#GP", "T-RESERVED", None, 0),
    (("TILELOADD",), None, "#UD", "TILES-UNCONFIGURED", None, 0),
    (("TILEZERO", "--mode", "32"), None, "#UD", "MODE", None, 0),
    (("XSETBV", "--value", "7"), None, "#GP", "CPL", None, 0),
    (("XSETBV", "--value", "x87|AVX", "--cpl", "0"), None, "#GP", "R-AVX", None, 0),
    (("XSETBV", "--value", "1|1<<40", "--cpl", "0"), None, "#GP", "R-RSV", None, 0),
    (("XSETBV", "--value", "7", "--cpl", "0", "--index", "1"), None, "#GP", "INDEX", None, 0),
    (("XGETBV", "--index", "2"), None, "#GP", "INDEX", None, 0),
    (("FXRSTOR",), {26: 1}, "#GP", "H-MXCSR", 26, 0),
]


@pytest.mark.parametrize(("words", "puts", "vector", "rule", "offset", "error_code"), FAULTS)
def test_every_fault(
    cli: Cli, folder: Path, words: tuple[str, ...], puts: "dict[int, int] | None", vector: str, rule: str,
    offset: int | None, error_code: int,
) -> None:  # fmt: skip
    given: "tuple[object, ...]" = ()
    if puts is not None:
        data = bytearray((folder / "area.bin").read_bytes())
        for at, value in puts.items():
            data[at] = value
        (folder / "bad").write_bytes(data)
        given = (folder / "bad",)
    options = words[1:] if "--cpu" in words else (*words[1:], *SPR)
    one = run(cli, words[0], *given, *options, code=1)
    fault = one["fault"]
    assert (fault["vector"], fault["rule"], fault["error_code"]) == (vector, rule, error_code)
    assert offset is None or fault["offset"] == offset
    assert fault["section"].startswith("SDM") and fault["message"]
    assert one["written"] == [] and one["registers_changed"] == {}
    text = cli("run", words[0], *given, *options).out
    assert f"{vector}{'' if vector in ('#UD', '#NM') else f'({hex(error_code) if error_code else 0})'}: " in text
    assert f"  rule    {rule}\n" in text and f"  manual  {fault['section']}\n" in text
    assert offset is None or f"  byte    {offset} (0x{offset:x})" in text
    assert "no register changed" in text


def test_partial_effects_are_told(cli: Cli, folder: Path) -> None:
    """A compacted area with a bad MXCSR: Intel has initialised and loaded what comes before (measured)."""
    data = bytearray((folder / "packed.bin").read_bytes())
    data[26] = 1
    (folder / "bad").write_bytes(data)
    words = ("run", "XRSTOR", folder / "bad", "--json", "--state", folder / "state.json")
    intel = json.loads(cli(*words, *SPR, "--xcr0", "0xe7").out)["runs"][0]
    assert intel["fault"]["rule"] == "H-MXCSR" and "st0" in intel["registers_changed"]
    assert "mxcsr" not in intel["registers_changed"]


def test_tiles(cli: Cli, folder: Path) -> None:
    configured = ("--state", json.dumps({"tilecfg": CONFIG.hex(), "tmm3": "07" * 1024}))
    one = run(cli, "LDTILECFG", folder / "tile.bin", *SPR)
    assert one["registers"]["tilecfg"] == CONFIG.hex() and one["xinuse_after"]["mask"] == "0x20000"
    assert bytes.fromhex(run(cli, "STTILECFG", *SPR, *configured)["area"]) == CONFIG
    one = run(cli, "TILESTORED", "--tile", "3", "--stride", "128", *SPR, *configured)
    assert len(one["area"]) // 2 == 15 * 128 + 64 and len(one["written"]) == 16
    assert [(each["offset"], each["size"]) for each in one["written"]] == [(128 * row, 64) for row in range(16)]
    assert bytes.fromhex(one["area"]).count(7) == 1024
    rows = folder / "rows"
    rows.write_bytes(bytes(range(64)) * 16)
    one = run(cli, "TILELOADD", rows, "--tile", "2", *SPR, *configured)
    assert one["registers"]["tmm2"] == (bytes(range(64)) * 16).hex()
    assert run(cli, "TILEZERO", "--tile", "3", *SPR, *configured)["registers"]["tmm3"] == "00" * 1024
    assert run(cli, "TILERELEASE", *SPR, *configured)["xinuse_after"]["mask"] == "0x0"
    armed = run(cli, "TILELOADD", rows, *SPR, *configured, "--xfd", "1<<18", code=1)
    assert armed["fault"]["vector"] == "#NM" and armed["fault"]["rule"] == "XFD"
    short = run(cli, "LDTILECFG", "-", *SPR, stdin=CONFIG[:40], code=1)
    assert short["fault"]["vector"] == "#PF" and short["fault"]["offset"] == 40


def test_place_of_a_byte(cli: Cli) -> None:
    """Byte 24 is MXCSR in an area, and the columns of a tile in a configuration."""
    wide = CONFIG[:24] + b"\x41" + CONFIG[25:]
    result = cli("run", "LDTILECFG", "-", *SPR, stdin=wide)
    assert result.code == 1 and "  byte    24 (0x18)\n" in result.out
    bad = bytes(24) + b"\0\0\1\0" + bytes(484)
    assert "  byte    26 (0x1a), MXCSR\n" in cli("run", "FXRSTOR", "-", *SPR, stdin=bad).out


def test_pieces_cover_what_they_are_given(cli: Cli) -> None:
    from xsave.cli.machine import Machine
    from xsave.cli.main import load
    from xsave.cli.outcome import pieces

    machine = Machine(load("run").parser().parse_args(["XSAVE", *SPR]), "XSAVE")
    found = pieces(machine, b"", [(400, 600), (1000, 1100)])
    assert found == [
        ("SSE", 400, 416), ("", 416, 512), ("XSTATE_BV", 512, 520), ("XCOMP_BV", 520, 528), ("reserved", 528, 576),
        ("AVX", 576, 600), ("", 1000, 1088), ("opmask", 1088, 1100),
    ]  # fmt: skip


def test_control_registers(cli: Cli) -> None:
    assert run(cli, "XGETBV", *SPR)["result"] == "0x602e7"
    state = ("--state", '{"mxcsr": 8096, "k3": 1}')
    assert run(cli, "XGETBV", "--index", "1", *SPR, *state)["result"] == "0x22"
    one = run(cli, "XSETBV", "--value", "x87|SSE", "--cpl", "0", *SPR)
    assert one["xcr0_after"]["mask"] == "0x3"
    assert "→ 0x3 (x87 SSE)" in cli("run", "XSETBV", "--value", "3", "--cpl", "0", *SPR).out


# words, what the message says, exit code
MISTAKES = [
    (("XSAVED",), "no instruction 'XSAVED'", 2),
    (("XSAVE", "--xcr0", "4", *SPR), "XCR0[0] must be 1", 2),
    (("XSAVE", "--xcr0", "1|1<<40", *SPR), "not supported", 2),
    (("XSAVES", "--xss", "1<<40", *SPR), "IA32_XSS", 2),
    (("XSAVE", "--xfd", "AVX", *SPR), "IA32_XFD", 2),
    (("XSAVE", "--mask", "1<<70", *SPR), "shift outside", 2),
    (("XSAVE", "--mask", "nonsense", *SPR), "unknown component", 2),
    (("XSAVE", "--cpl", "4", *SPR), "--cpl", 2),
    (("XSAVE", "--address", "-1", *SPR), "64 bits", 2),
    (("XSAVE", "--address", "1<<70", *SPR), "not a number", 2),
    (("XSAVE", "--address", hex((1 << 64) - 64), *SPR), "do not fit 64 bits", 2),
    (("XSAVE64", "--no-rexw", *SPR), "REX.W", 2),
    (("XSAVE", "--host", "--both", *SPR), "--both", 2),
    (("XSAVE", "--both", *SPR), "this CPU", 2),
    (("XSAVE", "--state", "x", "--seed", "1", *SPR), "exclude", 2),
    (("XGETBV", "area.bin", *SPR), "no memory operand", 2),
    (("XSETBV", *SPR), "needs --value", 2),
    (("XSAVE", "--value", "7", *SPR), "XSETBV", 2),
    (("XSAVE", "--index", "7", *SPR), "--index", 2),
    (("XGETBV", "--index", "1<<0", *SPR), "not a number", 2),
    (("XGETBV", "--index", str(1 << 32), *SPR), "ECX", 2),
    (("TILELOADD", "--stride", str(1 << 20), *SPR), "--stride", 2),
    (("XSAVE", "--cpu", "Sapphire"), "unknown CPU", 2),
    (("XRSTOR", "none.bin", *SPR), "no such file", 3),
    (("XRSTOR", "empty", *SPR), "no byte in it", 3),
    (("XSAVE", "--state", "none.json", *SPR), "no such file", 3),
    (("XSAVE", "--state", "empty", *SPR), "empty", 3),
    (("XSAVE", "--state", "{", *SPR), "no JSON", 3),
    (("XSAVE", "--state", "[" * 5000, *SPR), "", 3),
    (("XSAVE", "--state", '{"a":' * 5000, *SPR), "no JSON", 3),
    (("XSAVE", "--state", '{"zmm0": "00"}', *SPR), "zmm0 has 64 bytes", 3),
    (("XSAVE", "--state", '{"zmm0": "xy"}', *SPR), "is no value", 3),
    (("XSAVE", "--state", '{"k1": -1}', *SPR), "does not fit", 3),
    (("XSAVE", "--state", '{"k1": true}', *SPR), "is no value", 3),
    (("XSAVE", "--state", '{"k1": 1.5}', *SPR), "is no value", 3),
    (("XSAVE", "--state", '{"k9": 1}', *SPR), "no register 'k9'", 3),
    (("XSAVE", "--state", '{"registers": 3}', *SPR), "no object", 3),
    (("XSAVE", "--state", '{"threads": []}', *SPR), None, 0),
    (("XSAVE", "--state", '{"mxcsr": "0x10000"}', *SPR), "reserves", 3),
    (("XSAVE", "--state", '{"tmm0": "' + "00" * 1024 + '"}', "--cpu", "EPYC-Genoa"), "no register tmm0", 3),
]


@pytest.mark.parametrize(("words", "says", "code"), MISTAKES)
def test_mistakes(
    cli: Cli, folder: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], says: str | None, code: int
) -> None:
    monkeypatch.chdir(folder)
    (folder / "empty").write_bytes(b"")
    result = cli("run", *words)
    assert result.code == code, result
    if says is not None:
        assert result.out == "" and says in result.err and "internal" not in result.err


def test_output_file_is_the_area(cli: Cli, folder: Path) -> None:
    saved = folder / "saved"
    result = cli("run", "XSAVEC", *SPR, "--state", folder / "area.bin", "-o", saved)
    assert result.code == 0 and "done" in result.out
    layout = Layout.of(saved.read_bytes(), CpuModel.named("SapphireRapids"))
    assert layout.format == COMPACTED and layout.mask == 0x602E7
    expected = encode(values(0x2E7), Layout(CpuModel.named("SapphireRapids"), 0x602E7, COMPACTED), xstate_bv=0x2E7)
    assert saved.read_bytes() == bytes(expected)


def test_the_package_without_numpy(folder: Path) -> None:
    code = (
        "import sys, xsave.cli.main as m; c = m.main(sys.argv[1:]);"
        "sys.exit(9 if {'numpy', 'typing', 'dataclasses', 'inspect'} & set(sys.modules) else c)"
    )
    words = ("run", "XRSTOR", folder / "area.bin", *SPR, "--xcr0", "0x2e7")
    done = subprocess.run([sys.executable, "-c", code, *map(str, words)], capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr


# --- this CPU -------------------------------------------------------------------------------------------------------

HERE = "XSAVE XSAVEOPT XSAVEC XSAVES XRSTOR XRSTORS FXSAVE FXRSTOR LDTILECFG STTILECFG TILELOADD TILEZERO".split()


@pytest.mark.parametrize("insn", [*HERE, "TILERELEASE"])
def test_both_agree(cli: Cli, insn: str) -> None:
    skips.needs_cpu("xgetbv1")
    for more in ((), ("--seed", "1"), ("--seed", "2", "--no-rexw")):
        result = cli("run", insn, "--both", *more, "--json")
        document = valid(json.loads(result.out), "run")
        assert document["agree"] and document["differences"] == [] and result.code == 0
        assert [each["on"] for each in document["runs"]] == ["emulated", "host"]
        assert document["runs"][0]["area"] == document["runs"][1]["area"]
        assert document["runs"][0]["written"] == document["runs"][1]["written"]
    assert "identical: " in cli("run", insn, "--both", "--seed", "3").out


@pytest.mark.parametrize("at", [None, 512, 520, 527, 528, 540, 575, 26])
@pytest.mark.parametrize("form", ["standard", "compacted"])
def test_both_agree_on_bad_areas(cli: Cli, tmp_path: Path, at: int | None, form: str) -> None:
    skips.needs_cpu("xsavec")
    saved = tmp_path / "saved"
    assert cli("run", "XSAVE" if form == "standard" else "XSAVEC", "--seed", "5", "-o", saved).code == 0
    data = bytearray(saved.read_bytes())
    if at is not None:
        data[at] ^= 0x81
    saved.write_bytes(data)
    for more in ((), ("--address", "64"), ("--address", "0x10004"), ("--mask", "x87|AVX"), ("--ac",),
                 ("--address", "0x800000000000")):  # fmt: skip
        result = cli("run", "XRSTOR", saved, "--both", "--seed", "6", *more)
        assert result.code == 0 and "identical: " in result.out, result.out
    saved.write_bytes(data[:576])
    result = cli("run", "XRSTOR", saved, "--both")
    assert result.code == 0, result.out


def test_settings_reach_this_cpu(cli: Cli) -> None:
    """EFLAGS.AC, and the form without REX.W, whose x87 pointers are a selector and 32 bits."""
    skips.needs_native()
    for at in ("0x10002", "0x10004", "0x10008"):
        result = cli("run", "FXSAVE", "--both", "--ac", "--address", at, "--json")
        assert result.code == 0 and json.loads(result.out)["runs"][1]["fault"]["vector"] in ("#AC", "#GP")
    assert "#AC" in cli("run", "FXSAVE", "--both", "--ac", "--address", "0x10001").out
    state = json.dumps({"fcw": 0x37E, "fsw": 0x8081, "fip": 0x123456789ABC, "fdp": 0x1122334455, "fop": 0x123})
    images = []
    for form in ((), ("--no-rexw",)):
        result = cli("run", "XSAVE", "--both", "--state", state, *form, "--json")
        document = json.loads(result.out)
        assert result.code == 0 and document["rexw"] == (not form)
        images.append(document["runs"][1]["area"][: 2 * 24])
    assert images[0] != images[1]


def test_this_cpu_alone(cli: Cli, tmp_path: Path) -> None:
    skips.needs_cpu("xsavec")
    one = run(cli, "XSAVEC", "--host")
    assert one["on"] == "host" and spans(one["written"])[-1][0] >= 512
    path = tmp_path / "bad"
    data = bytearray(bytes.fromhex(one["area"]))
    data[530] = 1
    path.write_bytes(data)
    fault = run(cli, "XRSTOR", path, "--host", code=1)["fault"]
    assert fault["vector"] == "#GP" and fault["rule"] is None
    assert "#GP(0)" in cli("run", "XRSTOR", path, "--host").out
    both = cli("run", "XRSTOR", path, "--both")
    assert both.code == 0 and "rule    H-" in both.out and "identical: fault" in both.out


@pytest.mark.parametrize("bit", [0, 1, 2, 7])
def test_every_bit_of_xinuse_is_compared(bit: int) -> None:
    """But for those that a signal frame spoils after a fault."""
    from xsave.cli.machine import Machine
    from xsave.cli.main import load
    from xsave.cli.outcome import Outcome, differences
    from xsave.errors import Fault

    def outcome(place: str, xinuse: int, fault: Any) -> Outcome:
        made = Outcome(place)
        made.xinuse_after, made.fault = ComponentMask(xinuse), fault
        return made

    fault = Fault("#GP", "", rule="", section="")
    for name, seen in (("EPYC-Turin", bit > 1), ("SapphireRapids", False)):
        options = load("run").parser().parse_args(["XSAVE", "--cpu", name])
        machine = Machine(options, "XSAVE")
        assert len(differences(machine, outcome("emulated", 0, None), outcome("host", 1 << bit, None))) == 1
        found = differences(machine, outcome("emulated", 0, fault), outcome("host", 1 << bit, fault))
        assert bool(found) == seen


@pytest.mark.parametrize("spoiled", ["memory", "registers", "fault", "XINUSE", "result"])
def test_a_difference_is_seen(cli: Cli, monkeypatch: pytest.MonkeyPatch, spoiled: str) -> None:
    skips.needs_cpu("xgetbv1")
    from xsave.cli import silicon
    from xsave.errors import Fault

    honest = silicon.executed

    def lying(*given: Any) -> Any:
        made = honest(*given)
        if spoiled == "memory":
            made.memory = made.memory[:600] + bytes((made.memory[600] ^ 1,)) + made.memory[601:]
        elif spoiled == "registers":
            made.after["mxcsr"] ^= 1
        elif spoiled == "fault":
            made.fault = Fault("#GP", "", rule="", section="")
        elif spoiled == "XINUSE":
            made.xinuse_after = ComponentMask(int(made.xinuse_after) ^ 4)
        else:
            made.result = 0x55
        return made

    monkeypatch.setattr(silicon, "executed", lying)
    result = cli("run", "XSAVE", "--both", "--seed", "1", "--json")
    document = valid(json.loads(result.out), "run")
    assert result.code == 1 and document["agree"] is False and len(document["differences"]) == 1
    found = document["differences"][0]
    what = {"memory": "memory (AVX)", "registers": "mxcsr"}.get(spoiled, spoiled)
    assert found["what"] == what and found["emulated"] != found["host"]
    assert found["offset"] == (600 if spoiled == "memory" else None)
    text = cli("run", "XSAVE", "--both", "--seed", "1")
    assert text.code == 1 and "1 difference\n" in text.out and what in text.out and "identical" not in text.out


def test_what_a_process_cannot_have(cli: Cli) -> None:
    skips.needs_native()
    for how in ("--host", "--both"):
        for words in (("--cpl", "0"), ("--mode", "32"), ("--ts",), ("--xfd", "0")):
            result = cli("run", "XSAVE", how, *words)
            assert result.code == 2 and f"{words[0]} cannot be chosen" in result.err, result
        result = cli("run", "XSAVE", how, "--xcr0", "1")
        assert result.code == 2 and "no process can change it" in result.err
        assert cli("run", "XSETBV", "--value", "7", how).code == 2
        assert cli("run", "TILELOADD", "--stride", "-64", how).code == 2


class Elsewhere:
    """`Host` as it would be on an Intel CPU with AMX and without the permission for tiles; the CPU is emulated."""

    xcr0 = ComponentMask(0x600E7)

    @staticmethod
    def amx_permission() -> bool:
        return False

    @staticmethod
    def capture() -> Area:
        mask = int(Elsewhere.xcr0)
        layout = Layout(CpuModel.named("SapphireRapids"), mask, STANDARD)
        state = {name: value for name, value in values(0xE7).items() if not name.startswith("st")}
        return Area(bytearray(encode(state, layout)), layout)

    @staticmethod
    def execute(insn: str, area: "bytes | None", mask: int, **more: Any) -> Any:
        cpu = Processor(
            CpuModel.named("SapphireRapids"), xcr0=int(Elsewhere.xcr0), ia32_xfd=1 << 18, ac=more["align_check"]
        )
        cpu.xrstor(more["state"], -1)
        before = cpu.xgetbv(1)
        memory, data, at = Memory(), bytearray(area or b""), 0x20000 + more.get("offset", 0)
        if data:
            memory.map(at, data)
        name = f"try_{insn.lower()}"
        if insn in ("TILEZERO", "TILERELEASE"):
            fault = getattr(cpu, name)(*([more["tile"]] if insn == "TILEZERO" else []))
        elif insn.startswith("TILE"):
            fault = getattr(cpu, name)(more["tile"], memory, more["stride"], at)
        elif "TILECFG" in insn:
            fault = getattr(cpu, name)(memory, at)
        else:
            fault = getattr(cpu, name)(memory, mask, at, more["rexw"])
        held = {key: value for key, value in cpu.registers().items() if not key.startswith("IA32_")}
        return SimpleNamespace(
            fault=fault, memory=bytes(data), registers=held, value=None,
            xinuse_before=ComponentMask(before), xinuse_after=ComponentMask(cpu.xgetbv(1)),
        )  # fmt: skip


@pytest.mark.parametrize(
    "insn", "XSAVE XSAVEC XSAVEOPT XRSTOR LDTILECFG STTILECFG TILELOADD TILELOADDT1 TILEZERO".split()
)
def test_on_a_cpu_with_tiles(cli: Cli, folder: Path, monkeypatch: pytest.MonkeyPatch, insn: str) -> None:
    """The way through the command where the process may not use TILEDATA."""
    from xsave import host

    monkeypatch.setattr(CpuModel, "host", staticmethod(lambda: CpuModel.named("SapphireRapids")))
    monkeypatch.setattr(host, "Host", Elsewhere)
    for more in ((), *(("--seed", str(seed)) for seed in range(6))):
        result = cli("run", insn, "--both", *more, "--json")
        document = valid(json.loads(result.out), "run")
        assert result.code == 0 and document["agree"] and document["xfd"]["mask"] == "0x40000"
    state = json.dumps({"tilecfg": CONFIG.hex()})
    document = json.loads(cli("run", insn, "--both", "--state", state, "--json").out)
    fault = document["runs"][0]["fault"]
    assert (fault and fault["vector"]) == ("#NM" if insn in ("TILELOADD", "TILELOADDT1", "TILEZERO") else None)
    refused = cli("run", insn, "--both", "--state", json.dumps({"tmm0": "01" * 1024}))
    assert refused.code == 3 and "permission" in refused.err and "TILEDATA" in refused.err
    (folder / "whole").write_bytes(bytes(area("SapphireRapids", 0x60007)))
    if insn == "XRSTOR":
        document = json.loads(cli("run", insn, folder / "whole", "--both", "--json").out)
        assert document["agree"] and document["runs"][1]["fault"]["vector"] == "#NM"


def test_without_this_cpu(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    from xsave.errors import UnsupportedError

    def absent() -> None:
        raise UnsupportedError("this CPU is not x86-64")

    monkeypatch.setattr(CpuModel, "host", staticmethod(absent))
    result = cli("run", "XSAVE")
    assert result.code == 3 and "not x86-64" in result.err and "--cpu NAME" in result.err
