"""The dynamic linker's trampolines: sizes by the reference and by this machine's linker, overruns by the processor."""

import subprocess
from pathlib import Path

import pytest
import reference

import xsave
from tests import skips
from tests.audit.test_frames import MODELS, legal
from tests.laws.strategies import model
from tests.processor.operands import full_state
from xsave import CpuModel, Processor, UnsupportedError
from xsave.audit import Moved, Trampoline, moved, selfsized, trampoline
from xsave.host import Host

LINKER = Path("/lib64/ld-linux-x86-64.so.2")
MASKS = {"plain": 0xEE, "apx": 0x800EE}


def reserve(size: int) -> int:
    return (size + 64 + 63) // 64 * 64


def test_the_masks() -> None:
    assert MASKS == selfsized.MASKS


@pytest.mark.parametrize("glibc", MASKS)
@pytest.mark.parametrize("name", MODELS)
def test_sizes_for_every_xcr0(name: str, glibc: str) -> None:
    compact = "xsavec" in model(name).instructions
    for xcr0 in legal(name):
        mask = MASKS[glibc] & xcr0
        sizes = reference.compacted_offsets(name, mask)[1], reference.standard_size(name, mask)
        full = reserve(reference.standard_size(name, xcr0))
        for xsavec in (True, False):
            made = trampoline(model(name), xcr0, glibc=glibc, xsavec=xsavec)
            chosen = compact and xsavec
            assert (made.instruction, made.mask) == ("XSAVEC" if chosen else "XSAVE", MASKS[glibc])
            assert (made.required, made.full) == (sizes[0 if chosen else 1], full)
            assert made.reserved == (reserve(sizes[0]) if chosen else full)
            assert made.room == made.reserved - made.offset >= made.required
            stays = moved(made, model(name), xcr0)
            assert stays.fits and stays.ranges == [] and stays.over == 0


# (model, XCR0, xsave_state_size, xsave_state_full_size) as `ld.so --list-diagnostics` printed them.
PRINTED = [("SapphireRapids", 0x600E7, 0x9C0, 0x2B40), ("EPYC-Genoa", 0xE7, 0x9C0, 0x9C0)]


@pytest.mark.parametrize(("name", "xcr0", "size", "full"), PRINTED)
def test_sizes_as_printed(name: str, xcr0: int, size: int, full: int) -> None:
    made = trampoline(model(name), xcr0)
    assert (made.reserved, made.full) == (size, full)


def diagnostics() -> dict[str, int]:
    """The linker's own sizes on this machine, by name."""
    try:
        done = subprocess.run([LINKER, "--list-diagnostics"], capture_output=True, text=True, check=False)
    except OSError:
        pytest.skip(skips.NO_DIAGNOSTICS)
    start = "x86.cpu_features.xsave_state_"
    pairs = [line.removeprefix(start).split("=") for line in done.stdout.splitlines() if line.startswith(start)]
    if done.returncode or not pairs:
        pytest.skip(skips.NO_DIAGNOSTICS)
    return {name: int(value, 0) for name, value in pairs}


@skips.needs_native()
@skips.needs_cpu("xsave")
def test_this_machines_linker() -> None:
    skips.needs_linux()
    printed = diagnostics()
    host = CpuModel.host()
    # Of the leaf what CPUID lists counts, not what the kernel has enabled of it.
    made = [trampoline(host, int(Host.xcr0), glibc=glibc, offered=int(host.xcr0_mask)) for glibc in MASKS]
    assert printed["size"] in {each.reserved for each in made}
    assert {printed["full_size"]} == {each.full for each in made}


# (start, XCR0, moved to, XCR0, reserved, bytes over, what is written of them from the buffer's beginning).
OVERRUNS = [
    ("EPYC", 7, "EPYC-Genoa", 0xE7, 896, 1600, [(896, 2496)]),
    ("SapphireRapids", 7, "SapphireRapids", 0xE7, 896, 1600, [(896, 2496)]),
    ("EPYC-Milan", 0x207, "SapphireRapids", 0x602E7, 896, 1600, [(896, 2496)]),
    ("SapphireRapids", 3, "SapphireRapids", 7, 640, 256, [(640, 896)]),
    ("Skylake-Client", 0x1F, "SapphireRapids", 0x602E7, 960, 1536, [(960, 2496)]),
    ("EPYC-Genoa", 0x2E7, "SapphireRapids", 0x602E7, 2496, 0, []),
    ("SapphireRapids", 0x602E7, "EPYC-Genoa", 0x2E7, 2496, 0, []),
    ("SapphireRapids", 0xE7, "SapphireRapids", 7, 2496, 0, []),
]


@pytest.mark.parametrize(("a", "xcr0", "b", "then", "reserved", "over", "ranges"), OVERRUNS)
def test_overruns(
    a: str, xcr0: int, b: str, then: int, reserved: int, over: int, ranges: list[tuple[int, int]]
) -> None:
    start = trampoline(model(a), xcr0)
    end = moved(start, model(b), then)
    assert (start.reserved, end.over, end.ranges, end.fits) == (reserved, over, ranges, not over)
    assert end.required - start.reserved == over or not over


def test_a_process_without_xsavec_is_overrun_where_components_lie_further_out() -> None:
    old = trampoline(model("Haswell"), 7)
    assert (old.instruction, old.reserved, old.full, old.required) == ("XSAVE", 896, 896, 832)
    assert moved(old, model("SapphireRapids"), 0xE7).over == 1856
    start = trampoline(model("EPYC-Genoa"), 0xE7, xsavec=False)
    assert (start.instruction, start.reserved) == ("XSAVE", 2496)
    end = moved(start, model("SapphireRapids"), 0xE7)
    assert (end.over, end.ranges) == (256, [(2496, 2752)])
    assert moved(trampoline(model("SapphireRapids"), 0xE7, xsavec=False), model("EPYC-Genoa"), 0xE7).fits


def test_apx() -> None:
    diamond = model("DiamondRapids")
    start = trampoline(diamond, 0x602E7, glibc="apx")
    assert (start.reserved, trampoline(diamond, 0xE02E7, glibc="apx").reserved) == (2496, 2624)
    assert moved(start, diamond, 0xE02E7).over == 128
    # A release that does not know APX does not save it, and is not overrun.
    assert moved(trampoline(diamond, 0x602E7), diamond, 0xE02E7).fits


def test_what_cpuid_lists_counts_for_xsavec() -> None:
    spr = model("SapphireRapids")
    start = trampoline(spr, 7, offered=0x602E7)
    assert (start.reserved, start.required, start.full) == (2496, 832, 896)
    assert moved(start, spr, 0xE7).fits
    plain = trampoline(spr, 7, offered=0x602E7, xsavec=False)
    assert (plain.reserved, plain.required) == (896, 832)


def test_what_is_not_in_use_is_not_written_by_xsavec() -> None:
    start = trampoline(model("EPYC"), 7)
    assert moved(start, model("EPYC-Genoa"), 0xE7, in_use=7).fits
    assert moved(start, model("EPYC-Genoa"), 0xE7, in_use=0x27).over == 64


@pytest.mark.parametrize("name", [name for name in MODELS if "xsavec" in model(name).instructions])
def test_the_emulated_processor_overruns_as_many_bytes(name: str) -> None:
    target = int(model(name).xcr0_mask)
    state = full_state(name, target, 1)
    state.pop("tilecfg", None)
    overrun = 0
    for xcr0 in legal(name):
        start = trampoline(model(name), xcr0, glibc="apx")
        changed = set()
        for poison in (0x55, 0xAA):
            stack = bytearray([poison]) * 8192
            cpu = Processor(model(name), xcr0=target, cpl=3)
            cpu.load(state)
            cpu.xsavec(memoryview(stack)[start.offset :], int(start.mask))
            changed |= {at for at in range(start.reserved, 8192) if stack[at] != poison}
        end = moved(start, model(name), target)
        assert changed == {at for begin, stop in end.ranges for at in range(begin, stop)}
        assert end.over == (max(changed) + 1 - start.reserved if changed else 0)
        overrun += bool(changed)
    assert overrun


def test_what_contradicts_itself_is_refused_by_name() -> None:
    spr, milan = model("SapphireRapids"), model("EPYC-Milan")
    with pytest.raises(ValueError, match=r"XCR0 0xe7 .*EPYC-Milan"):
        trampoline(milan, 0xE7)
    with pytest.raises(ValueError, match=r"XCR0 0xe7 .*EPYC-Milan"):
        moved(trampoline(spr, 7), milan, 0xE7)
    with pytest.raises(ValueError, match=r"'2\.99' is none of plain, apx"):
        trampoline(spr, 7, glibc="2.99")
    with pytest.raises(ValueError, match=r"XCR0 0xe7 has .*opmask.*CPUID does not list"):
        trampoline(spr, 0xE7, offered=7)
    with pytest.raises(ValueError, match=r"CPUID's XCR0 0xe7 .*EPYC-Milan"):
        trampoline(milan, 7, offered=0xE7)
    with pytest.raises(UnsupportedError, match="Haswell has no XSAVEC"):
        moved(trampoline(spr, 7), model("Haswell"), 7)


def test_reached_through_the_package() -> None:
    start = xsave.audit.trampoline(model("EPYC"), "x87|SSE|AVX")
    end = xsave.audit.moved(start, model("EPYC-Genoa"), 0xE7)
    assert (type(start), type(end)) == (Trampoline, Moved)
    assert repr(start).endswith("into 896 bytes>") and "XSAVEC" in repr(start)
    assert repr(end).endswith("into 896 bytes: 1,600 bytes of stack overrun>")
