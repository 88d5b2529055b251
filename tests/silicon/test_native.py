"""This CPU's instructions through `xsave._native`: what they read, write and refuse, and what the guard leaves."""

import ctypes
import mmap
import struct
import subprocess
import sys
import threading
from pathlib import Path
from random import Random

import pytest

from tests import skips

pytestmark = skips.needs_native()
native = pytest.importorskip("xsave._native") if skips.has_native() else None
if native is not None:
    from tests.silicon import states

TILEDATA_BIT = 1 << 18


@pytest.fixture
def machine() -> "states.Machine":
    return states.Machine()


def image_of(machine: "states.Machine", seed: int = 1) -> bytearray:
    """A standard image with every component in use but tile data, which needs a permission."""
    image = bytearray(states.random_image(Random(seed), machine, -1))
    struct.pack_into("<Q", image, 512, machine.xcr0 & ~TILEDATA_BIT)
    return image


def test_cpuid_and_xgetbv_agree_with_cpuinfo() -> None:
    flags = skips.cpu_flags()
    features = native.cpuid(0xD, 1)[0]
    for bit, flag in enumerate(("xsaveopt", "xsavec", "xgetbv1", "xsaves")):
        assert bool(features >> bit & 1) == (flag in flags), flag
    vendor = struct.pack("<3I", *(native.cpuid(0)[i] for i in (1, 3, 2))).decode()
    assert f"vendor_id\t: {vendor}" in Path("/proc/cpuinfo").read_text()
    xcr0 = native.xgetbv(0)
    assert xcr0 & 3 == 3
    assert not xcr0 & ~(native.cpuid(0xD, 0)[0] | native.cpuid(0xD, 0)[3] << 32)
    assert bool(xcr0 >> 2 & 1) == ("avx" in flags)
    assert bool(xcr0 >> 5 & 1) == ("avx512f" in flags)
    assert not native.xgetbv(1) & ~xcr0
    assert native.area_size() >= native.cpuid(0xD, 0)[1]
    for index in (2, 0xFFFFFFFF):
        with pytest.raises(OSError, match=f"ECX {index} faults"):
            native.xgetbv(index)


@pytest.mark.parametrize("seed", range(4))
def test_saves_after_xrstor_give_the_state_back(seed: int) -> None:
    assert states.run(400, seed, ~TILEDATA_BIT) == []


@skips.needs_amx()
def test_saves_after_xrstor_give_tiles_back() -> None:
    command = [sys.executable, str(Path(states.__file__)), "400", "5"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr


@skips.needs_amx()
def test_tiles_without_permission_are_refused_as_nm(machine: "states.Machine") -> None:
    if native.arch_prctl(0x1022) & TILEDATA_BIT:
        pytest.skip(skips.NO_AMX_PERMISSION)
    image = image_of(machine)
    struct.pack_into("<Q", image, 512, machine.xcr0)
    assert native.roundtrip(image, bytearray(machine.size)).vector == "#NM"


def vector_of(image: bytes, machine: "states.Machine", i: int) -> bytes:
    """Vector register `i` of a standard image with everything in use, as wide as this CPU has it."""
    at = {c: offset for c, (offset, _) in machine.standard.items()}
    if i >= 16:
        return image[at[7] + 64 * (i - 16) :][:64]
    parts = [image[160 + 16 * i :][:16]]
    if 2 in at:
        parts.append(image[at[2] + 16 * i :][:16])
    if 6 in at:
        parts.append(image[at[6] + 32 * i :][:32])
    return b"".join(parts)


def squeezed(image: bytes, machine: "states.Machine", mask: int) -> bytes:
    """A standard image in the compacted format of `mask`."""
    packed = bytearray(machine.size)
    packed[:512] = image[:512]
    used = int.from_bytes(image[512:520], "little") & mask
    struct.pack_into("<QQ", packed, 512, used, mask | 1 << 63)
    for i, (offset, size) in machine.compacted(mask).items():
        source = machine.standard[i][0]
        packed[offset : offset + size] = image[source : source + size]
    return bytes(packed)


@pytest.mark.parametrize("compacted", [False, True], ids=["standard", "compacted"])
def test_plain_moves_read_what_xrstor_loaded(machine: "states.Machine", compacted: bool) -> None:
    if compacted:
        skips.needs_cpu("xsavec")
    layout = native.REGISTER_FILE
    able = native.abilities()
    for seed in range(50):
        image = bytes(image_of(machine, seed))
        file = native.xrstor_reads(squeezed(image, machine, machine.xcr0) if compacted else image)

        def piece(family: str, i: int = 0, *, file: bytes = file) -> bytes:
            offset, size, _ = layout[family]
            return file[offset + size * i :][:size]

        for i in range(32 if able["avx512"] else 16):
            wanted = vector_of(image, machine, i)
            assert piece("zmm", i)[: len(wanted)] == wanted, f"vector register {i}"
        if able["avx512"]:
            for i in range(8):
                width = 8 if able["kmovq"] else 2
                assert piece("k", i)[:width] == image[machine.standard[5][0] + 8 * i :][:width], f"k{i}"
        for i in range(8):
            assert file[32 + 16 * i : 42 + 16 * i] == image[32 + 16 * i : 42 + 16 * i], f"st{i}"
        assert piece("mxcsr") == image[24:28]
        if able["pkru"]:
            assert piece("pkru") == image[machine.standard[9][0] :][:4]
        if able["tilecfg"]:
            assert piece("tilecfg") == image[machine.standard[17][0] :][:64]


def test_plain_moves_read_initial_values_outside_the_mask(machine: "states.Machine") -> None:
    file = native.xrstor_reads(image_of(machine), 1)
    offset, size, count = native.REGISTER_FILE["zmm"]
    assert not any(file[offset : offset + size * count])
    assert struct.unpack_from("<I", file, 24)[0] == 0x1F80
    assert any(file[32:42])


@pytest.mark.parametrize("instruction", ["XSAVE", "XSAVEC", "XSAVEOPT"])
def test_capture_is_this_threads_own_state(machine: "states.Machine", instruction: str) -> None:
    skips.needs_cpu({"XSAVE": "xsave", "XSAVEC": "xsavec", "XSAVEOPT": "xsaveopt"}[instruction])
    for shift in (0, 1):  # aligned or not
        room = memoryview(bytearray(machine.size + 64))[shift : shift + machine.size]
        native.capture(instruction, machine.xcr0, room)
        written, xcomp = struct.unpack_from("<QQ", room, 512)
        assert written and not written & ~machine.xcr0
        assert xcomp == (machine.xcr0 | 1 << 63 if instruction == "XSAVEC" else 0)
        if instruction == "XSAVE":
            assert struct.unpack_from("<H", room)[0] == 0x37F
            assert struct.unpack_from("<I", room, 24)[0] & ~0x3F == 0x1F80


def test_capture_with_xsaveopt_is_complete(machine: "states.Machine") -> None:
    # XSAVEOPT leaves out what was not modified since an XRSTOR from the same address, as the passes before each make
    # one. A rounding mode keeps x87 in use without modifying it again.
    skips.needs_cpu("xsaveopt")
    libm = ctypes.CDLL("libm.so.6")
    image, out, room = image_of(machine), bytearray(machine.size), bytearray(machine.size)
    filler = b"\xa5" * 512 + bytes(64) + b"\xa5" * (machine.size - 576)
    missing = 0
    assert libm.fesetround(0x400) == 0
    try:
        for _ in range(200):
            room[:] = filler
            native.roundtrip(image, out)
            native.capture("XSAVEOPT", -1, room)
            missing += room[:2] != b"\x7f\x07"
    finally:
        libm.fesetround(0)
    assert missing == 0


def test_capture_refuses() -> None:
    with pytest.raises(ValueError, match="cannot capture with 'XSAVES'"):
        native.capture("XSAVES", -1, bytearray(16384))
    with pytest.raises(ValueError, match="buffer of 575 bytes"):
        native.capture("XSAVE", -1, bytearray(575))
    with pytest.raises((TypeError, BufferError)):
        native.capture("XSAVE", -1, bytes(16384))


# (name, what makes the image bad)
BAD = {
    "MXCSR bit 31": lambda image, xcr0: image.__setitem__(27, 0x80),
    "MXCSR bit 16": lambda image, xcr0: image.__setitem__(26, 0x01),
    "XCOMP_BV 1": lambda image, xcr0: image.__setitem__(520, 1),
    "byte 528": lambda image, xcr0: image.__setitem__(528, 1),
    "XSTATE_BV outside XCR0": lambda image, xcr0: struct.pack_into("<Q", image, 512, 1 << 61),
    "XSTATE_BV bit 63": lambda image, xcr0: struct.pack_into("<Q", image, 512, 1 << 63),
    "XCOMP_BV outside XCR0": lambda image, xcr0: struct.pack_into("<QQ", image, 512, 0, 1 << 63 | 1 << 61),
}


@pytest.mark.parametrize("bad", BAD)
def test_bad_images_are_gp_and_change_nothing(machine: "states.Machine", bad: str) -> None:
    before, image, out = image_of(machine, 3), image_of(machine, 4), bytearray(machine.size)
    BAD[bad](image, machine.xcr0)
    trap = native.roundtrip(image, out, prime=before)
    assert (trap.stage, trap.vector, trap.error_code, trap.signal) == ("restore", "#GP", 0, 11)
    assert bytes(out[160:416]) == bytes(before[160:416])
    for i, (offset, size) in machine.standard.items():
        if i not in (9, 18):
            assert out[offset : offset + size] == before[offset : offset + size], f"component {i}"
    native.roundtrip(image_of(machine, 5), out)  # and the next one works
    assert bytes(out[160:416]) == bytes(image_of(machine, 5)[160:416])


def test_bytes_that_xrstor_does_not_look_at(machine: "states.Machine") -> None:
    image = image_of(machine)
    image[536:576] = b"\xff" * 40
    assert native.roundtrip(image, bytearray(machine.size)) is None


@pytest.mark.parametrize("shift", [1, 4, 8, 16, 32, 63])
def test_misaligned_areas_are_gp(machine: "states.Machine", shift: int) -> None:
    image, out = mmap.mmap(-1, 32768), mmap.mmap(-1, 32768)
    image[: machine.size] = bytes(image_of(machine))
    good, bad = memoryview(image), memoryview(image)[shift:]
    for trap, stage in (
        (native.roundtrip(bad, out, in_place=True), "restore"),
        (native.roundtrip(good, memoryview(out)[shift:], in_place=True), "save"),
    ):
        assert (trap.stage, trap.vector) == (stage, "#GP")
    assert native.roundtrip(good, out, in_place=True) is None
    assert out[160:416] == image[160:416]


def test_unmapped_memory_is_pf_with_its_address(machine: "states.Machine") -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    image, out = mmap.mmap(-1, 32768), mmap.mmap(-1, 32768)
    image[: machine.size] = bytes(image_of(machine))
    start = ctypes.addressof(ctypes.c_char.from_buffer(out))
    assert libc.mprotect(ctypes.c_void_p(start), 4096, 1) == 0  # read-only
    trap = native.roundtrip(image, out, in_place=True)
    assert (trap.stage, trap.vector, trap.signal) == ("save", "#PF", 11)
    assert start <= trap.address < start + machine.size
    assert trap.error_code & 6 == 6  # a write, by user code
    assert libc.mprotect(ctypes.c_void_p(start), 4096, 3) == 0


def test_privileged_and_unknown_instructions(machine: "states.Machine") -> None:
    image = image_of(machine)
    if native.cpuid(0xD, 1)[0] & 8:
        assert native.roundtrip(image, bytearray(machine.size), save="XSAVES").vector == "#GP"
        assert native.roundtrip(image, bytearray(machine.size), restore="XRSTORS").vector == "#GP"
    for wrong in ({"save": "XSAVEX"}, {"restore": "XSAVE"}):
        with pytest.raises(ValueError, match="instruction"):
            native.roundtrip(image, bytearray(machine.size), **wrong)
    with pytest.raises(ValueError, match="do not make 3 rows"):
        native.roundtrip_many(bytes(3001), bytearray(3000), 3)
    with pytest.raises(ValueError, match="in place, rows of 100"):
        native.roundtrip(bytes(100), bytearray(machine.size), in_place=True)
    with pytest.raises(ValueError, match="needs images"):
        native.roundtrip(None, bytearray(machine.size))


def test_only_the_bad_rows_trap(machine: "states.Machine") -> None:
    rows = [image_of(machine, seed) for seed in range(20)]
    for row in (3, 11):
        rows[row][27] = 0x80
    outs = bytearray(20 * machine.size)
    traps = native.roundtrip_many(b"".join(rows), outs, 20)
    assert [(trap.index, trap.vector) for trap in traps] == [(3, "#GP"), (11, "#GP")]
    for row, image in enumerate(rows):
        if row not in (3, 11):
            assert outs[row * machine.size + 160 :][:256] == image[160:416]


def test_the_callers_state_survives(machine: "states.Machine") -> None:
    # rounding mode, precision and sticky flags of the image must not leak into the interpreter
    image = image_of(machine)
    struct.pack_into("<HH", image, 0, 0xC40, 0)
    struct.pack_into("<I", image, 24, 0xFF80)
    room = bytearray(machine.size)
    for bad in (False, True):
        image[520] = bad
        trap = native.roundtrip(image, bytearray(machine.size))
        assert (trap is not None) == bad
        native.capture("XSAVE", -1, room)
        assert struct.unpack_from("<H", room)[0] == 0x37F
        assert struct.unpack_from("<I", room, 24)[0] & ~0x3F == 0x1F80
    assert float.fromhex("0x1.5555555555555p-2") == 1.0 / 3.0


def test_handlers_are_put_back() -> None:
    # in a fresh process: here another test may have left the module's own handler in place
    program = """
import ctypes, faulthandler
faulthandler.enable()
from xsave import _native

def handlers():
    found = []
    for signal in (4, 7, 11):
        action = ctypes.create_string_buffer(256)
        assert ctypes.CDLL(None).sigaction(signal, None, action) == 0
        found.append(action.raw[:8])
    return found

before = handlers()
assert any(before[2])
image = bytearray(_native.area_size())
image[520] = 1
for _ in range(3):
    assert _native.roundtrip(image, bytearray(len(image))).vector == "#GP"
    assert handlers() == before
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr


def test_a_crash_elsewhere_still_reaches_faulthandler() -> None:
    program = (
        "import faulthandler, ctypes; faulthandler.enable(); from xsave import _native as n;"
        "image = bytearray(n.area_size()); image[520] = 1;"
        "assert n.roundtrip(image, bytearray(len(image))).vector == '#GP';"
        "ctypes.string_at(0)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode != 0
    assert "Segmentation fault" in done.stderr or "AddressSanitizer" in done.stderr


def test_threads_do_not_disturb_each_other(machine: "states.Machine") -> None:
    problems: list[str] = []

    def work(seed: int) -> None:
        good, bad = image_of(machine, seed), image_of(machine, seed)
        bad[27] = 0x80
        rows = b"".join([bytes(good), bytes(bad)] * 200)
        for _ in range(5):
            outs = bytearray(len(rows))
            traps = native.roundtrip_many(rows, outs, 400)
            if [trap.index for trap in traps] != list(range(1, 400, 2)):
                problems.append(f"thread {seed}: {len(traps)} traps")
            if any(outs[2 * i * machine.size + 160 :][:256] != good[160:416] for i in range(200)):
                problems.append(f"thread {seed}: another state")

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
