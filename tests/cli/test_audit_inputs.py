"""`xsave audit INPUT` and `--lint`: findings, `--fail-on`, a policy's answer to a snapshot, migration and its area."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import reference

from tests.cli.areas import area, values
from tests.cli.test_decode import valid
from xsave import COMPACTED, STANDARD, Area, CpuModel, Layout
from xsave.host import LiveThread
from xsave.images.core_writer import write_core

Cli = Callable[..., Any]
AMX, AVX512 = 0x602E7, 0x2E7


@pytest.fixture
def sapphire(tmp_path: Path) -> Path:
    """An area without PKRU's bit in it, as KVM_GET_XSAVE gives it, of an Intel host."""
    path = tmp_path / "vcpu.kvm_xsave"
    path.write_bytes(bytes(area("SapphireRapids", 0xE7)).ljust(4096, b"\0"))
    return path


@pytest.fixture
def zeros(tmp_path: Path) -> Path:
    """Tiles in use and all zero: a note."""
    path = tmp_path / "zeros.bin"
    held: "dict[str, int | bytes]" = {"mxcsr": 0x1F80, "pkru": 0x55555554, "tilecfg": values(AMX)["tilecfg"]}
    path.write_bytes(reference.encode(held, "SapphireRapids", AMX, reference.STANDARD, 0x60207))
    return path


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """Reserved bytes of the header that are not 0."""
    path = tmp_path / "hostile.bin"
    made = bytearray(area("EPYC-Genoa", AVX512))
    made[530] = 7
    path.write_bytes(made)
    return path


def process(tmp_path: Path, mask: int, count: int = 1) -> Path:
    """A core of a process on an Intel CPU, its threads 100 and on."""
    threads = []
    for index in range(count):
        state = bytes(area("SapphireRapids", mask, seed=index))
        threads.append(LiveThread(100 + index, "worker", bytes(216), state[:512], state, b"", None))
    path = tmp_path / "process.core"
    write_core(path, threads, model=CpuModel.named("SapphireRapids"))
    return path


def test_no_finding(cli: Cli, sapphire: Path) -> None:
    result = cli("audit", sapphire)
    assert result.code == 0
    assert result.out == f"{sapphire}: KVM_GET_XSAVE: no finding\n"


@pytest.mark.parametrize(
    ("level", "code"), [(None, 0), ("error", 0), ("warning", 0), ("note", 1), ("never", 0)], ids=str
)
def test_fail_on(cli: Cli, zeros: Path, level: "str | None", code: int) -> None:
    result = cli("audit", zeros, "--cpu", "SapphireRapids", *(["--fail-on", level] if level else []))
    assert result.code == code
    assert "1 note" in result.out and "note L-TILE-ZEROS" in result.out
    assert all(len(line) <= 80 for line in result.out.splitlines()[1:])


def test_an_error_fails(cli: Cli, hostile: Path) -> None:
    result = cli("audit", hostile, "--cpu", "EPYC-Genoa")
    assert result.code == 1 and "error L-HEADER-RESERVED" in result.out and "byte 530 (0x212)" in result.out
    assert cli("audit", hostile, "--cpu", "EPYC-Genoa", "--fail-on", "never").code == 0
    document = valid(json.loads(cli("audit", hostile, "--cpu", "EPYC-Genoa", "--json").out), "audit-image")
    (found,) = document["inputs"][0]["findings"]
    assert (found["id"], found["severity"], found["offset"]) == ("L-HEADER-RESERVED", "error", 530)


def test_registers_of_the_snapshot(cli: Cli, tmp_path: Path) -> None:
    """Facts that the input does not have: an area with CET_U of a snapshot without IA32_XSS; XCR0 narrower than it."""
    path = tmp_path / "xsaves.bin"
    path.write_bytes(bytes(area("SapphireRapids", 0x2E7 | 1 << 11, COMPACTED)))
    words = ("audit", path, "--cpu", "SapphireRapids")
    assert cli(*words).code == 0
    assert "error L-SNAPSHOT-XSS" in cli(*words, "--xcr0", AVX512).out
    assert "L-XCOMP-XCR0" not in cli(*words, "--xcr0", AVX512, "--xss", "CET_U").out
    assert "error L-XCOMP-XCR0" in cli(*words, "--xcr0", 7, "--xss", "CET_U").out


def test_a_policy_and_a_snapshot(cli: Cli, sapphire: Path) -> None:
    policy = ("audit", sapphire, "--policy", "vmx-exit", "--host")
    result = cli(*policy, "SandyBridge")
    assert result.code == 1
    assert "policy vmx-exit on SandyBridge" in result.out and "XCR0 0xe7" in result.out
    assert "#GP into the guest" in result.out and "[A-NOALLOW]" in result.out
    assert cli(*policy, "SapphireRapids").code == 0
    document = valid(json.loads(cli(*policy, "EPYC-Genoa", "--json").out), "audit-image")
    (state,) = document["inputs"][0]["states"]
    assert state["xcr0"]["mask"] == "0xe7" and state["xcr0_assumed"]
    assert state["policy"]["passes"] and state["policy"]["worst"]["instruction"] == "XSAVES"
    assert state["policy"]["worst"]["required"] == reference.compacted_offsets("EPYC-Genoa", 0xE7)[1]


def test_a_save_that_does_not_fit(cli: Cli, sapphire: Path) -> None:
    words = ("audit", sapphire, "--host", "SapphireRapids", "--policy", "no-exit-unaudited", "--xcr0", AMX)
    facts = ("--fact", "allowed_xcr0=0x2e7", "--instruction", "XSAVE")
    result = cli(*words, *facts)
    over = 8256  # TILECFG and TILEDATA, whole
    assert result.code == 1 and f"{over:,} bytes past the end of 2,696 can be written" in result.out
    document = valid(json.loads(cli(*words, *facts, "--json").out), "audit-image")
    assert document["inputs"][0]["states"][0]["policy"]["worst"]["over"] == 11008 - 2696
    assert cli(*words, *facts, "--save", "rfbm-buffer").code == 0
    assert cli(*words, *facts, "--size", 11008).code == 0


def test_migration_says_what_converts(cli: Cli, sapphire: Path, tmp_path: Path) -> None:
    result = cli("audit", sapphire, "--migrate-to", "EPYC-Genoa")
    assert result.code == 1
    assert "KVM_SET_XCRS: takes it whole" in result.out and "opmask at 1088, there at" in result.out
    assert "converted (standard, 4,096 bytes): passes" in result.out
    assert all(len(line) <= 80 for line in result.out.splitlines()[1:])
    made = tmp_path / "converted"
    result = cli("audit", sapphire, "--migrate-to", "EPYC-Genoa", "-o", made)
    assert result.code == 0 and "passes" in result.out
    data = made.read_bytes()
    assert len(data) == 4096
    found = Area(data[:2440], Layout(CpuModel.named("EPYC-Genoa"), AVX512, STANDARD))
    assert found.same_state(area("SapphireRapids", 0xE7))
    both = cli("audit", sapphire, "--migrate-to", "EPYC-Genoa", "-o", tmp_path / "again", "--json")
    assert both.code == 0 and (tmp_path / "again").read_bytes() == data
    assert valid(json.loads(both.out), "audit-image")["inputs"][0]["states"][0]["migration"]["conversion"]["passes"]
    assert cli("audit", made, "--cpu", "EPYC-Genoa", "--migrate-to", "EPYC-Genoa", "--by", "kvm,xrstor").code == 0


def test_migration_that_loses(cli: Cli, tmp_path: Path) -> None:
    path, made = tmp_path / "amx.bin", tmp_path / "made"
    path.write_bytes(bytes(area("SapphireRapids", AMX)))
    words = ("audit", path, "--migrate-to", "EPYC-Genoa", "--by", "xrstor")
    result = cli(*words, "-o", made)
    assert result.code == 1 and "--lost drop" in result.err and not made.exists()
    result = cli(*words, "--lost", "drop", "-o", made)
    assert result.code == 1 and made.exists() and "lost: 0x60000 (TILECFG TILEDATA)" in result.out
    document = valid(json.loads(cli(*words, "--json").out), "audit-image")
    migration = document["inputs"][0]["states"][0]["migration"]
    assert not migration["passes"] and migration["conversion"]["lost"]["mask"] == "0x60000"
    assert migration["doors"][0]["objections"][0]["mask"]["names"] == ["TILECFG", "TILEDATA"]


def test_a_process_and_its_linkers_buffer(cli: Cli, tmp_path: Path) -> None:
    """XCR0 7 to E7: 1,600 bytes of stack overrun at the next lazily bound call (glibc, XSAVEC)."""
    words = ("audit", process(tmp_path, 7), "--cpu", "SapphireRapids", "--xcr0", 7, "--migrate-to", "SapphireRapids")
    result = cli(*words, "--to-xcr0", "0xe7")
    assert result.code == 1 and "(XSAVEC, 896 bytes reserved" in result.out
    assert "xsave size mismatch (832/2688)" in result.out
    document = valid(json.loads(cli(*words, "--to-xcr0", "0xe7", "--json").out), "audit-image")
    linker = document["inputs"][0]["states"][0]["migration"]["linker"]
    assert linker == {"instruction": "XSAVEC", "reserved": 896, "required": 2496, "over": 1600, "fits": False}
    assert "holds the 896 bytes" in cli(*words, "--to-xcr0", "7").out.replace("\n    ", " ")


def test_threads_with_one_answer_share_it(cli: Cli, tmp_path: Path) -> None:
    words = ("audit", process(tmp_path, AVX512, 8), "--cpu", "SapphireRapids", "--migrate-to")
    result = cli(*words, "EPYC-Rome", "--by", "xrstor")
    assert result.code == 1 and result.out.count("XRSTOR: #GP") == 1
    assert "threads 100, 101, 102, 103, 104 and 3 more" in result.out
    one = cli(*words, "EPYC-Genoa", "--by", "xrstor", "--thread", 103, "-o", tmp_path / "one")
    assert one.code == 0 and (tmp_path / "one").stat().st_size == 2440
    several = cli(*words, "EPYC-Genoa", "-o", tmp_path / "two")
    assert several.code == 2 and "-o writes one area, 8 were asked for" in several.err


def test_threads_with_one_finding_share_it(cli: Cli, tmp_path: Path) -> None:
    words = ("audit", process(tmp_path, AVX512, 8), "--cpu", "SapphireRapids", "--xcr0", 7)
    result = cli(*words)
    assert result.code == 1 and "8 errors" in result.out and result.out.count("L-XSTATE-XCR0") == 1
    assert "threads 100, 101, 102, 103, 104 and 3 more, byte 512 (0x200)" in result.out
    document = valid(json.loads(cli(*words, "--json").out), "audit-image")
    assert [each["tid"] for each in document["inputs"][0]["findings"]] == [*range(100, 108)]


def test_lint_of_a_cpuid_set(cli: Cli) -> None:
    result = cli("audit", "--lint", "cpuid", "--cpu", "EPYC-Rome")
    assert result.code == 0 and "warning L-CPUID-FEATURE" in result.out and "1 warning" in result.out
    assert cli("audit", "--lint", "cpuid", "--cpu", "EPYC-Rome", "--fail-on", "warning").code == 1
    wrong = cli("audit", "--lint", "cpuid", "--cpu", "SapphireRapids", "--xcr0", "x87|SSE|AVX|TILECFG", "--json")
    document = valid(json.loads(wrong.out), "audit-lint")
    assert wrong.code == 1 and "L-AMX-HALF" in {each["id"] for each in document["findings"]}


def test_lint_of_a_configuration(cli: Cli) -> None:
    words = ("audit", "--lint", "config", "--cpu", "SapphireRapids", "--xcr0", AMX)
    result = cli(*words, "--size", 2696, "--instruction", "xsave")
    assert result.code == 1 and "error L-BUFFER-SMALL" in result.out and "byte 2752" in result.out
    assert cli(*words, "--size", 11008, "--instruction", "xsave").code == 0
    document = valid(json.loads(cli(*words, "--instruction", "xsavec", "--fact", "restore=kvm_set_xsave",
                                    "--fact", "restore-mask=0x2e7", "--json").out), "audit-lint")  # fmt: skip
    assert {each["id"] for each in document["findings"]} == {"L-FORMAT", "L-RESTORE-NARROW"}


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("--by", "kvm"), "--by needs --migrate-to"),
        (("--host", "EPYC-Genoa"), "--host needs --policy"),
        (("--lost", "drop"), "--lost needs --migrate-to"),
        (("--to-xcr0", "7"), "--to-xcr0 needs --migrate-to"),
        (("--migrate-to", "Penrin"), "unknown CPU 'Penrin'"),
        (("--migrate-to", "EPYC-Genoa", "--by", "kvm,vmotion"), "--by vmotion: one of kvm, criu, xrstor, ptrace"),
        (("--migrate-to", "EPYC-Genoa", "--to-xcr0", "0x602e7"), "XCR0 0x602e7 is no value that EPYC-Genoa takes"),
        (("--policy", "vmx-exitt", "--host", "EPYC-Genoa"), "vmx-exit"),
        (("--policy", "vmx-exit", "--write", "XCR0=7"), "--write is not for INPUT"),
        (("--size", "1024"), "need --policy"),
        (("--policy", "vmx-exit", "--size", "0", "--host", "EPYC-Genoa"), "a buffer of 0 bytes"),
        (("--policy", "vmx-exit", "--size", str(2**64 - 1), "--host", "EPYC-Genoa"), "no address space holds one"),
        (("--lint", "config"), "INPUT is not for --lint"),
        (("--demo",), "INPUT is not for --demo"),
        (("--fail-on", "panic"), "invalid choice"),
    ],
)
def test_bad_words(cli: Cli, sapphire: Path, words: tuple[str, ...], text: str) -> None:
    result = cli("audit", sapphire, *words)
    assert result.code == 2 and text in result.err + result.out and result.out == ""


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("--lint", "cpuid", "--size", "100"), "--size is not for --lint cpuid"),
        (("--lint", "cpuid", "--fact", "restore=XRSTOR"), "--fact is not for --lint cpuid"),
        (("--lint", "config", "--fact", "restor=XRSTOR"), "did you mean restore"),
        (("--lint", "config", "--fact", "restore=XRSTORX"), "'XRSTORX' is none of"),
        (("--lint", "config", "--size", "0"), "0"),
        (("--lint", "area"), "invalid choice"),
        (("--fail-on", "error"), "--fail-on is not for --size"),
        (("--migrate-to", "EPYC-Genoa"), "--migrate-to is not for --size"),
    ],
)
def test_bad_words_without_an_input(cli: Cli, words: tuple[str, ...], text: str) -> None:
    result = cli("audit", "--cpu", "SapphireRapids", *words)
    assert result.code == 2 and text in result.err and result.out == ""


def test_inputs_that_are_none(cli: Cli, tmp_path: Path, sapphire: Path) -> None:
    empty = tmp_path / "empty"
    empty.write_bytes(b"")
    assert cli("audit", empty).code == 3
    assert cli("audit", tmp_path / "gone").code == 3
    result = cli("audit", sapphire, empty)
    assert result.code == 4 and "no finding" in result.out and str(empty) in result.err
    assert cli("audit", sapphire, "--thread", 5).code == 1


def test_several_inputs_and_standard_input(cli: Cli, sapphire: Path, zeros: Path) -> None:
    result = cli("audit", sapphire, zeros, "--cpu", "SapphireRapids", "--json")
    document = valid(json.loads(result.out), "audit-image")
    assert [len(each["findings"]) for each in document["inputs"]] == [0, 1]
    piped = cli("audit", "-", "--cpu", "SapphireRapids", stdin=sapphire.read_bytes())
    assert piped.code == 0 and piped.out.startswith("standard input: ")
