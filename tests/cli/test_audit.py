"""`xsave audit`: verdicts on one buffer, the demonstration, and bad input."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.cli.test_decode import valid
from xsave.audit import attack

Cli = Callable[..., Any]
SPR = ("audit", "--cpu", "SapphireRapids")


def test_an_overrun_in_words(cli: Cli) -> None:
    result = cli(*SPR, "--size", 2696, "--instruction", "xsave")
    assert result.code == 1
    assert "11,008 bytes, 8,312 bytes past the end of 2,696" in result.out
    assert "written past the end: 8,256 bytes, 2752-11007" in result.out
    assert "first bad byte: 2752" in result.out and "#PF at byte 11007" in result.out


def test_one_that_fits(cli: Cli) -> None:
    result = cli(*SPR, "--size", "0x2b00", "--instruction", "XSAVE")
    assert result.code == 0
    assert result.out.splitlines()[0] == "XSAVE on SapphireRapids: 11,008 bytes, fits"
    assert cli(*SPR, "--size", 2696, "--rfbm", "0x2e7").code == 0


def test_every_instruction_of_the_cpu(cli: Cli) -> None:
    document = valid(json.loads(cli(*SPR, "--size", 4096, "--json").out), "audit")
    assert [each["instruction"] for each in document["verdicts"]] == ["XSAVE", "XSAVEOPT", "XSAVEC", "XSAVES"]
    assert [each["over"] for each in document["verdicts"]] == [6912, 6912, 6656, 6656]
    assert not document["fits"] and document["size"] == 4096
    narrow = cli("audit", "--cpu", "Penryn", "--size", 576, "--json")
    assert [each["instruction"] for each in json.loads(narrow.out)["verdicts"]] == ["XSAVE"]
    assert narrow.code == 0


def test_masks_by_name(cli: Cli) -> None:
    masks = ("--xcr0", "x87 SSE AVX AMX", "--xfd", "TILEDATA", "--in-use", "AVX")
    result = cli(*SPR, *masks, "--instruction", "XSAVEC", "--size", 600, "--json")
    document = valid(json.loads(result.out), "audit")
    verdict = document["verdicts"][0]
    assert verdict["written"]["names"] == ["AVX"] and verdict["rfbm"]["mask"] == "0x60007"
    assert verdict["ranges"] == [{"offset": 600, "size": 232}] and verdict["first_bad"] == 600
    assert verdict["fault_at"] == 895  # TILEDATA is not looked for, TILECFG is


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ((), "--size is the question"),
        (("--size", "0"), "a buffer of 0 bytes"),
        (("--size", str(2**64 - 1)), "a buffer of 18,446,744,073,709,551,615 bytes"),
        (("--size", "many"), "'many' is not a number"),
        (("--size", "832", "--xcr0", "APX"), "APX"),
        (("--size", "832", "--xcr0", "avx513"), "avx513"),
        (("--size", "832", "--xss", "x87"), "IA32_XSS 0x1"),
        (("--size", "832", "--xfd", "AVX"), "IA32_XFD 0x4"),
        (("--size", "832", "--instruction", "XRSTOR"), "'XRSTOR' is none of XSAVE, XSAVEOPT, XSAVEC, XSAVES"),
        (("--demo",), "--cpu is not for --demo"),
        (("--list",), "--cpu is not for --list"),
        (("--demo", "--list"), "not allowed with argument --demo"),
        (("--size", "832", "--fact", "rules=xen"), "--fact is not for --size"),
        (("--size", "832", "--buffer-mask", "7"), "--buffer-mask is not for --size"),
        (("--policy", "vmx-exit", "--write", "XCR0=7", "--xcr0", "7"), "--xcr0 is not for --policy"),
        (("--policy", "vmx-exit", "--save", "rfbm-all"), "--policy needs --write, --size or --prove"),
        (("--policy", "vmx-exit", "--write", "XCR0=7", "--save", "rfbm-all"), "--save needs --size"),
        (("--policy", "vmx-exit", "--size", "0"), "a buffer of 0 bytes"),
        (("--policy", "vmx-exit", "--write", "XCR0=7", "--buffer", "832"), "--buffer is not for --policy"),
        (("--prove", "--policy", "vmx-exit", "--buffer", "832", "--size", "832"), "--size is not for --prove"),
        (("--prove", "--policy", "vmx-exit", "--buffer", "832", "--write", "XCR0=7"), "--write is not for --prove"),
    ],
)
def test_bad_input(cli: Cli, words: tuple[str, ...], text: str) -> None:
    result = cli(*SPR, *words)
    assert result.code == 2 and text in result.err and result.out == ""


def test_a_cpu_without_the_instruction(cli: Cli) -> None:
    result = cli("audit", "--cpu", "SandyBridge", "--size", 832, "--instruction", "XSAVES")
    assert result.code == 2 and "SandyBridge has no XSAVES" in result.err


def test_the_demonstration(cli: Cli) -> None:
    result = cli("audit", "--demo")
    assert result.code == 0
    assert result.out.splitlines()[-1] == "every byte and every fault as predicted"
    assert "emulated" in result.out or "this CPU" not in result.out
    assert all(len(line) <= 80 for line in result.out.splitlines())
    document = valid(json.loads(cli("audit", "--demo", "--json").out), "audit-demo")
    assert document["agreed"] and len(document["acts"]) >= 4
    for act in document["acts"]:
        assert act["fault"] == act["fault_predicted"]
        assert act["bytes"] == sum(each["size"] for each in act["changed"])


def test_a_disagreement_is_said(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attack.Act, "agrees", False)
    result = cli("audit", "--demo")
    assert result.code == 1 and "NOT as predicted" in result.out


def test_a_policys_answer(cli: Cli) -> None:
    words = ("--policy", "vmx-exit", "--write", "XCR0=0x602e7", "--write", "XCR0=x87|AVX", "--write", "XFD=TILEDATA")
    result = cli(*SPR, *words)
    assert result.code == 1
    assert "XCR0 0x602e7 (x87 SSE AVX AVX-512 PKRU AMX): allowed" in result.out
    assert "bit 2 (AVX) needs bit 1 (SSE) [R-AVX]" in result.out and "#GP into the guest" in result.out
    document = valid(json.loads(cli(*SPR, *words, "--json").out), "audit-policy")
    assert [(each["outcome"], each["exits_to"]) for each in document["answers"]] == [
        ("allowed", "vmm"), ("gp", "vmm"), ("allowed", "vmm"),
    ]  # fmt: skip
    assert cli(*SPR, "--policy", "host-swap", "--write", "XCR0=7").code == 0


def test_the_worst_of_a_policys_guests(cli: Cli) -> None:
    words = (*SPR, "--policy", "no-exit-unaudited", "--instruction", "xsave", "--size")
    result = cli(*words, 2696)
    assert result.code == 1
    assert result.out.startswith("worst guest: XCR0 0x602e7 (x87 SSE AVX AVX-512 PKRU AMX), IA32_XSS 0x0")
    assert "11,008 bytes, 8,312 bytes past the end of 2,696" in result.out
    assert cli(*words, 11008).code == 0 and cli(*words, 2696, "--save", "rfbm-buffer", "--fact",
                                                "allowed-xcr0=0x2e7").code == 0  # fmt: skip
    document = valid(json.loads(cli(*words, 2696, "--write", "XCR0=7", "--json").out), "audit-policy")
    assert document["worst"]["over"] == 8312 and len(document["answers"]) == 1
    assert valid(json.loads(cli(*SPR, "--policy", "sev-es", "--write", "XCR0=7", "--json").out), "audit-policy")[
        "worst"] is None  # fmt: skip


def test_a_proof_in_words(cli: Cli, tmp_path: Any) -> None:
    script = tmp_path / "script.py"
    words = ("--prove", "--policy", "host-swap", "--fact", "swap=after", "--buffer", 4096)
    result = cli(*SPR, *words, "--script", script)
    assert result.code == 1 and result.out.startswith("OVERRUN of 4,096 bytes, of ")
    assert "  1. guest: XSETBV" in result.out and all(len(line) <= 80 for line in result.out.splitlines())
    exec(compile(script.read_text(), str(script), "exec"), {"print": lambda *_: None})
    document = valid(json.loads(cli(*SPR, *words, "--json").out), "audit-proof")
    assert not document["safe"] and document["script"] == script.read_text()
    assert {each["property"] for each in document["found"]} >= {"overrun", "leak-to-host"}
    safe = cli(*SPR, "--prove", "--policy", "host-swap", "--fact", "host-xcr0=0x2e7", "--buffer", 4096)
    assert safe.code == 0 and safe.out.startswith("SAFE: ")
    assert "the guest's state can stay in the registers while the VMM runs:" in safe.out


def test_the_list(cli: Cli) -> None:
    result = cli("audit", "--list")
    assert result.code == 0 and "vmcs-xfam" in result.out and "L-BUFFER-COMPACT (error)" in result.out
    assert all(len(line) <= 80 for line in result.out.splitlines())
    document = valid(json.loads(cli("audit", "--list", "--json").out), "audit-list")
    assert len(document["policies"]) == 9 and len(document["lints"]) == 35


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("--policy", "vmx-exti", "--write", "XCR0=7"), "did you mean vmx-exit?"),
        (("--policy", "vmx-exit"), "--policy needs --write, --size or --prove"),
        (("--policy", "vmx-exit", "--write", "XCR1=7"), "one of XCR0, XSS, XFD"),
        (("--policy", "vmx-exit", "--fact", "rules", "--write", "XCR0=7"), "--fact rules: NAME=VALUE"),
        (("--policy", "vmx-exit", "--fact", "rule=xen", "--write", "XCR0=7"), "did you mean rules?"),
        (("--policy", "tdx-xfam", "--fact", "xfam=1", "--write", "XCR0=7"), "XFAM 0x1"),
        (("--policy", "vmx-exit", "--fact", "allowed_xcr0=APX", "--write", "XCR0=7"), "allowed_xcr0 0x80000"),
        (("--prove", "--policy", "vmx-exit"), "--prove needs --buffer"),
        (("--prove", "--buffer", "4096"), "--prove needs --policy"),
        (("--prove", "--policy", "vmx-exit", "--buffer", "0"), "a buffer of 0 bytes"),
        (("--prove", "--policy", "vmx-exit", "--buffer", "12288", "--script", "no"), "there is no counterexample"),
    ],
)
def test_bad_policies(cli: Cli, words: tuple[str, ...], text: str) -> None:
    result = cli(*SPR, *words)
    assert result.code == 2 and text in result.err and result.out == ""
