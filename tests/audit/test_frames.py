"""Frames around an area: by the reference's sizes, by figures measured on silicon, by this machine's own kernel."""

import subprocess
import sys
from pathlib import Path

import pytest
import reference

from tests import skips
from tests.laws.strategies import model
from xsave import COMPACTED, STANDARD, CpuModel, Layout, LayoutError, UnsupportedError
from xsave.audit import frames
from xsave.host import Host

# With AMX, of AMD, with APX, with MPX, without XSAVEC.
MODELS = ("SapphireRapids", "EPYC-Genoa", "EPYC-Milan", "DiamondRapids", "Skylake-Client", "SandyBridge")
TILEDATA = 1 << reference.TILEDATA
AT_MINSIGSTKSZ = 51


def legal(name: str) -> list[int]:
    """Every XCR0 that XSETBV takes, by the reference."""
    user = reference.bits(reference.CPUS[name]["xcr0"])
    every = (sum(1 << bit for i, bit in enumerate(user) if n >> i & 1) for n in range(1 << len(user)))
    return [value for value in every if reference.xcr0_fault(name, value) is None]


def gapless(frame: frames.Frame) -> None:
    at = 0
    for _, offset, size in frame.parts:
        assert offset == at and size > 0
        at += size
    assert at == frame.total


@pytest.mark.parametrize("name", MODELS)
def test_linux_for_every_xcr0(name: str) -> None:
    tried = 0
    for xcr0 in legal(name):
        if xcr0 & 3 != 3:
            with pytest.raises(ValueError, match="Linux does not use XSAVE"):
                frames.linux(model(name), xcr0)
            continue
        tried += 1
        whole = reference.standard_size(name, xcr0)
        for used, mask in ((False, xcr0 & ~TILEDATA), (True, xcr0)):
            frame = frames.linux(model(name), xcr0, used=used)
            size = reference.standard_size(name, mask)
            assert (frame.mask, frame.format) == (mask, STANDARD)
            assert (frame.xstate_size, frame.extended_size) == (size, size + 4)
            assert frame.area == (456, size) and frame.total == 456 + size + 4
            assert frame.facts == {"xstate_size": size, "extended_size": size + 4}
            gapless(frame)
        stack = frames.linux_stack(model(name), xcr0)
        assert stack.minsigstksz == (736 + 15 + whole + 4 + 112 + 63 + 15) // 16 * 16
        plain = frames.linux_stack(model(name), xcr0, ia32=False)
        assert plain.minsigstksz == (440 + 15 + whole + 4 + 63 + 15) // 16 * 16
        assert (stack.sigaltstack is not None) == bool(xcr0 & TILEDATA)
        gapless(stack)
    assert tried > 1


# (model, XCR0, frame before and after the first use of tiles, AT_MINSIGSTKSZ, bound of sigaltstack), measured under
# Linux 6.18 on a CPU with AMX and on one of AMD.
MEASURED = [
    ("SapphireRapids", 0x600E7, 2816, 11008, 11952, 11837),
    ("EPYC-Genoa", 0xE7, 2432, 2432, 3376, None),
]


@pytest.mark.parametrize(("name", "xcr0", "before", "after", "least", "bound"), MEASURED)
def test_linux_as_measured(
    name: str, xcr0: int, before: int, after: int, least: int, bound: int | None
) -> None:
    assert frames.linux(model(name), xcr0).xstate_size == before
    assert frames.linux(model(name), xcr0, used=True).xstate_size == after
    stack = frames.linux_stack(model(name), xcr0)
    assert (stack.minsigstksz, stack.sigaltstack) == (least, bound)
    assert stack.facts == {"AT_MINSIGSTKSZ": least, **({} if bound is None else {"sigaltstack": bound})}


def test_a_mask_in_a_frame_need_not_be_a_legal_xcr0() -> None:
    frame = frames.linux(model("SapphireRapids"), 0x600E7)
    assert frame.mask == 0x200E7 and reference.xcr0_fault("SapphireRapids", 0x200E7) == "R-AMX"


def auxiliary(wanted: int) -> int | None:
    """An entry of this process's auxiliary vector."""
    words = memoryview(Path("/proc/self/auxv").read_bytes()).cast("Q")
    return dict(zip(words[::2], words[1::2], strict=True)).get(wanted)


@skips.needs_native()
@skips.needs_cpu("xsave")
def test_this_kernels_minsigstksz() -> None:
    skips.needs_linux()
    found = auxiliary(AT_MINSIGSTKSZ)
    if found is None:
        pytest.skip(skips.NO_MINSIGSTKSZ)
    made = [frames.linux_stack(CpuModel.host(), int(Host.xcr0), ia32=ia32).minsigstksz for ia32 in (True, False)]
    assert found in made


# A handler reads its own frame: the siginfo and ucontext it is given, and the area that uc_mcontext.fpstate points to.
HANDLER = """
import ctypes, os, signal
libc = ctypes.CDLL(None)
found = []
@ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
def handler(number, info, context):
    area = ctypes.c_uint64.from_address(context + 40 + 184).value
    words = (ctypes.c_uint32 * 5).from_address(area + 464)
    found.extend([area - context, info - context, words[1], words[2] | words[3] << 32, words[4]])
    found.append(ctypes.c_uint32.from_address(area + words[4]).value)
class Action(ctypes.Structure):
    _fields_ = [("handler", ctypes.c_void_p), ("mask", ctypes.c_uint8 * 128), ("flags", ctypes.c_int),
                ("restorer", ctypes.c_void_p)]
action = Action(handler=ctypes.cast(handler, ctypes.c_void_p).value, flags=4)
assert libc.sigaction(signal.SIGUSR1, ctypes.byref(action), None) == 0
os.kill(os.getpid(), signal.SIGUSR1)
print(*found)
"""


@skips.needs_native()
@skips.needs_cpu("xsave")
def test_this_kernels_frame() -> None:
    skips.needs_linux()
    done = subprocess.run([sys.executable, "-c", HANDLER], capture_output=True, text=True, check=True)
    area, info, extended, features, size, magic2 = map(int, done.stdout.split())
    frame = frames.linux(CpuModel.host(), int(Host.xcr0))
    place = {name: offset for name, offset, _ in frame.parts}
    assert (extended, features, size) == (frame.extended_size, frame.mask, frame.xstate_size)
    assert area == place[frames.AREA] - place["ucontext"] and info == place["siginfo"] - place["ucontext"]
    assert magic2 == 0x46505845


# (model, mask, context, ContextSize): of minidumps that dbghelp wrote.
CONTEXTS = [
    ("EPYC-Genoa", 4, "x64", 1647),
    ("EPYC-Genoa", 0x804, "x64", 1663),
    ("EPYC-Genoa", 0x800, "x64", 1407),
    ("EPYC-Genoa", 0x8E7, "x64", 3263),
    ("EPYC-Genoa", 0x807, "x86", 1147),
    ("EPYC-Genoa", 0x8E7, "x86", 2747),
    ("SapphireRapids", 0x4, "x64", 1647),
]


@pytest.mark.parametrize(("name", "mask", "context", "size"), CONTEXTS)
def test_windows_as_in_dumps(name: str, mask: int, context: str, size: int) -> None:
    frame = frames.windows(model(name), mask, context=context)
    assert frame.total == frame.facts["ContextSize"] == size
    assert frame.format is COMPACTED and frame.parts[-1][0] == "XSTATE chunk"
    gapless(frame)


@pytest.mark.parametrize("name", MODELS)
def test_windows_for_every_mask(name: str) -> None:
    for mask in legal(name):
        standard = frames.windows(model(name), mask, form=STANDARD)
        compact = frames.windows(model(name), mask, form=COMPACTED)
        chunks = reference.standard_size(name, mask) - 512, reference.compacted_offsets(name, mask)[1] - 512
        assert (standard.area[1], compact.area[1]) == chunks
        assert (standard.total, compact.total) == (1232 + 32 + 63 + chunks[0], 1232 + 32 + 63 + chunks[1])


def test_windows_compacts_where_the_cpu_has_xsavec() -> None:
    assert frames.windows(model("EPYC-Genoa"), 7).format is COMPACTED
    assert frames.windows(model("Haswell"), 7).format is STANDARD  # it has XSAVEOPT
    assert frames.windows(model("SapphireRapids"), 0xE7).facts["XState.Length"] == 1920


@pytest.mark.parametrize("name", MODELS)
def test_sgx_for_every_xfrm(name: str) -> None:
    for xfrm in legal(name):
        if xfrm & 3 != 3:
            with pytest.raises(ValueError, match=r"XFRM 0x\w+ lacks .*SSE"):
                frames.sgx(model(name), xfrm)
            continue
        size = reference.standard_size(name, xfrm)
        for exinfo in (True, False):
            frame = frames.sgx(model(name), xfrm, exinfo=exinfo)
            used = size + 184 + 16 * exinfo
            assert frame.pages == -(-used // 4096) and frame.total == 4096 * frame.pages
            assert frame.parts[0] == ("XSAVE area", 0, size)
            assert frame.parts[-1] == ("GPRSGX", frame.total - 184, 184)
            assert (("EXINFO", frame.total - 200, 16) in frame.parts) == exinfo
            gapless(frame)


@pytest.mark.parametrize(("name", "xfrm", "pages"), [
    ("SapphireRapids", 3, 1), ("SapphireRapids", 7, 1), ("SapphireRapids", 0xE7, 1), ("SapphireRapids", 0x2E7, 1),
    ("SapphireRapids", 0x602E7, 3), ("DiamondRapids", 0xE02E7, 3), ("DiamondRapids", 0x802E7, 1),
])  # fmt: skip
def test_sgx_pages(name: str, xfrm: int, pages: int) -> None:
    assert frames.sgx(model(name), xfrm).facts == {"SSAFRAMESIZE": pages}


def test_sgx_asks_the_cpu_that_says_what_enclaves_may_have() -> None:
    leaves = dict(model("SapphireRapids").cpuid)
    leaves[0x12, 1] = (0x36, 0, 0x2E7, 0)
    leaves[0, 0] = (max(0x12, leaves[0, 0][0]), *leaves[0, 0][1:])
    narrow = CpuModel.from_cpuid(leaves)
    assert frames.sgx(narrow, 0x2E7).pages == 1
    with pytest.raises(ValueError, match=r"XFRM 0x602e7 has .*TILEDATA.*leaf 12H"):
        frames.sgx(narrow, 0x602E7)


@pytest.mark.parametrize(("name", "xfam", "size"), [
    ("SapphireRapids", 0x602E7 | 0xDD00, 11776), ("SapphireRapids", 0x2E7 | 0x100, 2568),
    ("DiamondRapids", 0xE02E7 | 0x1DD00, 11904), ("EPYC-Genoa", 0x2E7 | 0x1800, 2480), ("SapphireRapids", 3, 576),
])  # fmt: skip
def test_tdx_buffer(name: str, xfam: int, size: int) -> None:
    frame = frames.tdx(model(name), xfam)
    assert frame.area == (0, size) == (0, reference.compacted_offsets(name, xfam)[1])
    assert (frame.total, frame.pages, frame.over, frame.fits) == (12288, 3, 0, True)
    assert frame.facts == {"pages": 3, "over": 0}
    gapless(frame)


def test_tdx_buffer_of_a_cpu_with_more_state() -> None:
    leaves = dict(model("SapphireRapids").cpuid)
    # LBR of 1,808 bytes ends at 4,472: TILECFG lies at 4,480, TILEDATA from 4,544 to 12,736.
    leaves[0xD, 15] = (1808, *leaves[0xD, 15][1:])
    frame = frames.tdx(CpuModel.from_cpuid(leaves), 0x602E7 | 0xDD00)
    assert (frame.over, frame.fits, frame.total) == (448, False, 12736)
    gapless(frame)


def test_sizes_are_the_layouts() -> None:
    for name in MODELS:
        made = frames.linux(model(name), int(model(name).xcr0_mask), used=True)
        assert made.area[1] == Layout(model(name), model(name).xcr0_mask, STANDARD).size


def test_masks_by_name() -> None:
    assert frames.linux(model("SapphireRapids"), "x87|SSE|AVX").mask == 7
    assert frames.windows(model("EPYC-Genoa"), "AVX|CET_U").mask == 0x804
    assert frames.tdx(model("SapphireRapids"), "x87|SSE|PT").mask == 0x103
    assert frames.sgx(model("SapphireRapids"), "x87|SSE").mask == 3


def test_what_contradicts_itself_is_refused_by_name() -> None:
    spr, milan = model("SapphireRapids"), model("EPYC-Milan")
    for make in (frames.linux, frames.linux_stack):
        with pytest.raises(ValueError, match=r"XCR0 0xe7 .*EPYC-Milan.*0xe0"):
            make(milan, 0xE7)
        with pytest.raises(ValueError, match=r"XCR0 0x200e7 .*TILECFG"):
            make(spr, 0x200E7)
        for odd in (-1, 1 << 64):
            with pytest.raises(ValueError, match="does not fit 64 bits"):
                make(spr, odd)
    with pytest.raises(ValueError, match=r"XFRM 0x1f .*0x18"):
        frames.sgx(spr, 0x1F)
    with pytest.raises(ValueError, match=r"XFAM 0x400000 has .*SapphireRapids"):
        frames.tdx(spr, 1 << 22)
    with pytest.raises(ValueError, match="XFAM -0x1 does not fit"):
        frames.tdx(spr, -1)
    with pytest.raises(UnsupportedError, match="Haswell has no XSAVES"):
        frames.tdx(model("Haswell"), 7)
    with pytest.raises(ValueError, match=r"context's mask 0x1000 has .*CET_S"):
        frames.windows(milan, 0x1000)
    with pytest.raises(LayoutError, match="CET_U"):
        frames.windows(milan, 0x804, form=STANDARD)
    with pytest.raises(ValueError, match="'arm64' is none of x64, x86"):
        frames.windows(milan, 7, context="arm64")


def test_repr() -> None:
    assert repr(frames.linux(model("Haswell"), 7)) == "<SignalFrame of 0x7 (x87 SSE AVX): 1,292 bytes>"
