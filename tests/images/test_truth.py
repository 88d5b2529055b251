"""Every ELF file of the data folder against what other tools and the hardware say of it."""

from pathlib import Path

import pytest

import xsave
from tests import skips
from tests.images import truth
from xsave.images import Image, Thread

pytestmark = skips.needs_data()

# Values that the README of the images explains, by (file, truth, tid); the registers, or all of them.
_TILES = frozenset({"tilecfg", *(f"tmm{i}" for i in range(8))})
_VECTORS = frozenset({*(f"zmm{i}" for i in range(32)), *(f"k{i}" for i in range(8))})
EXPLAINED = {
    # gdb 13 on an AMD host: bytes of one layout at offsets of another; nothing gives the true registers.
    ("amd-HAZARD-gdb13-gcore.core", "gdb16", 8160): _VECTORS,
    ("amd-HAZARD-gdb13-gcore.core", "live-gdb16", 8160): frozenset(
        {"k0", "k1", "k2", "zmm0", "zmm1", "zmm2", "zmm3", "zmm4", "zmm5"}
    ),
    # The note holds the later abort(); the live registers are the signal frame in memory.
    ("amd-gawk-sigframe.core", "live-gdb16", 24997): _VECTORS | {"mxcsr"},
    # Not the thread that got the signal: it ran on before the kernel dumped it.
    ("amd-numpy-longdouble-x87.core", "live-gdb16", 24423): frozenset(
        {*(f"st{i}" for i in range(8)), "fsw", "ftw", "zmm7", "zmm9", "fop", "mxcsr"}
    ),
    # gdb's gcore does not write tiles.
    **{("intel-amx-threads-fault-b.gdb13.gcore", "live", tid): _TILES for tid in (17703, 17704, 17706, 17723)},
    **{("intel-amx-threads-fault-c.gdb16.gcore", "live", tid): _TILES for tid in (17760, 17761, 17763, 17783)},
    # CRIU destroyed the tiles before the kernel wrote the core.
    ("intel-criu-amx-tiles.core", "live", 28068): _TILES,
}
# Threads that ran on between the look of the live debugger and the dump, and frames: other general registers.
_MOVED = {
    ("amd-gawk-sigframe.core", 24997), ("amd-numpy-longdouble-x87.core", 24423), ("amd-xz-2threads.core", 24638),
    ("intel-criu-amx-tiles.core", 28068),
}
FILES = truth.elf_files() if truth.IMAGES.is_dir() else []


def thread_of(image: Image, tid: int | None, number: int) -> Thread:
    """The thread of a truth document; a kernel's dump has no tids that gdb would show."""
    found = [thread for thread in image.threads if thread.tid == tid]
    return found[0] if found else image.threads[number]


@pytest.mark.parametrize("path", FILES, ids=[truth.stem(path) for path in FILES])
def test_registers(path: Path) -> None:
    image = xsave.open(path)
    wrong = []
    for suffix, document in truth.documents(path):
        for tid, number, expected in truth.threads(document):
            thread = thread_of(image, tid, number)
            values = xsave.decode(thread.area) if thread.area is not None else {}
            explained = EXPLAINED.get((truth.stem(path), suffix, tid), frozenset())
            for name, what in truth.differences(values, expected).items():
                if name not in explained:
                    wrong.append(f"{suffix} thread {tid} {name}: {what}")
    assert not wrong, "\n".join(wrong[:20])


@pytest.mark.parametrize("path", FILES, ids=[truth.stem(path) for path in FILES])
def test_general_registers(path: Path) -> None:
    image = xsave.open(path)
    for suffix, document in truth.documents(path):
        for tid, number, _ in truth.threads(document):
            if "ptid" in document["threads"][number] and (truth.stem(path), tid) not in _MOVED:
                expected = truth.gdb_gpr(document["threads"][number]["regs"])
                # gdb numbers the CPUs of a vmcore in its own way.
                named = [thread for thread in image.threads if thread.tid == tid] or list(image.threads)
                assert any({name: each.gpr.get(name) for name in expected} == expected for each in named), suffix


def test_enough_was_compared() -> None:
    """35,000 values of 100 documents stand behind the tests above; a reader of truth files that skips fails here."""
    found = [truth.threads(document) for path in FILES for _, document in truth.documents(path)]
    assert len(FILES) >= 80
    assert sum(len(expected) for threads in found for _, _, expected in threads) >= 35_000


def test_every_explanation_is_needed() -> None:
    for (name, suffix, tid), registers in EXPLAINED.items():
        path = next(path for path in FILES if truth.stem(path) == name)
        expected = next(regs for each, _, regs in truth.threads(dict(truth.documents(path))[suffix]) if each == tid)
        thread = thread_of(xsave.open(path), tid, 0)
        assert truth.differences(xsave.decode(thread.area), expected).keys() & registers, (name, suffix, tid)


WARNED = [path for path in FILES if "HAZARD" in path.name or ("gcore" in path.name and path.name.startswith("intel-"))]


@pytest.mark.parametrize("path", WARNED, ids=[truth.stem(path) for path in WARNED])
def test_lossy_files_warn(path: Path) -> None:
    assert any("lost" in warning for warning in xsave.open(path).warnings)


def test_kernel_cores_do_not_warn() -> None:
    """A warning must mean something: kernels' cores, and gdb's of hosts that it understands, have none."""
    quiet = [path for path in FILES if path not in WARNED and path.parent.name == "elf"]
    loud = {truth.stem(path): image.warnings for path in quiet if (image := xsave.open(path)).warnings}
    # The first is a vmcore, the second is damaged: bytes of its notes are missing.
    assert loud.keys() <= {"elfutils_testfile62.vmcore", "amd-i386-openssl-chacha20.gcore"}


AMX = [path for path in FILES if path.name.startswith("intel-amx") and ".core" in path.name]


@pytest.mark.parametrize("path", AMX, ids=[truth.stem(path) for path in AMX])
def test_tiles_of_every_thread(path: Path) -> None:
    """The AMX cores' tilecfg and tmm0-7 equal the hardware's, in every thread."""
    document = dict(truth.documents(path))["hw-xrstor"]
    image = xsave.open(path)
    checked = 0
    for tid, number, expected in truth.threads(document):
        values = xsave.decode(thread_of(image, tid, number).area)
        for name in _TILES:
            assert values[name] == expected[name], name
            checked += 1
    assert checked == 9 * len(image.threads)


FRAMES = sorted(truth.TRUTH.glob("*.sigframe-hw-xrstor.json")) if truth.TRUTH.is_dir() else []


@pytest.mark.parametrize("path", FRAMES, ids=[path.name for path in FRAMES])
def test_signal_frames(path: Path) -> None:
    name = path.name.removesuffix(".sigframe-hw-xrstor.json")
    image = xsave.open(truth.IMAGES / "local" / "elf" / f"{name}.xz")
    frames = {state.file_offset: state for state in image.extra_states}
    document = truth.load(f"{name}.sigframe-hw-xrstor")
    assert sorted(frames) == sorted(frame["file_offset"] for frame in document["frames"])
    for frame in document["frames"]:
        state = frames[frame["file_offset"]]
        assert state.address == int(frame["address"], 16)
        assert state.tid == image.threads[0].tid
        assert state.area.layout.mask == int(frame["xfeatures"], 16)
        assert state.area.layout.size == frame["xstate_size"]
        assert not truth.differences(xsave.decode(state.area), truth.hw_registers(frame["hw"], None))
    assert len(image.threads[0].extra_states) == len(frames)


def test_frame_of_a_caught_signal() -> None:
    """The handler of gawk aborts: the frame in memory has what the debugger saw at the fault."""
    image = xsave.open(truth.IMAGES / "local" / "elf" / "amd-gawk-sigframe.core.xz")
    (state,) = image.threads[0].extra_states
    assert state.file_offset == 0x13A80
    (_, _, expected), = truth.threads(truth.load("amd-gawk-sigframe.live-gdb16"))
    assert not truth.differences(xsave.decode(state.area), expected)


BLOBS = sorted((truth.IMAGES / "local" / "kvm").glob("*.kvm_xsave*.bin")) if truth.IMAGES.is_dir() else []


@pytest.mark.parametrize("path", BLOBS, ids=[path.name for path in BLOBS])
@pytest.mark.parametrize("cpu", ["SapphireRapids", None])
def test_kvm_blobs(path: Path, cpu: str | None) -> None:
    image = xsave.open(path, cpu=cpu)
    assert image.kind == ("KVM_GET_XSAVE" if path.stat().st_size == 4096 else "raw area")
    thread = image.threads[0]
    assert thread.evidence.confidence == ("exact" if cpu else "known" if path.stat().st_size > 4096 else "assumed")
    hardware = truth.load(f"{path.name}.hw-xrstor")["threads"][0]["hw"]
    assert not truth.differences(xsave.decode(thread.area), truth.hw_registers(hardware, None))


@pytest.mark.parametrize("path", FILES, ids=[truth.stem(path) for path in FILES])
def test_columns(path: Path) -> None:
    image = xsave.open(path)
    states = [thread.area for thread in image.threads]
    if not any(states):
        with pytest.raises(xsave.ImageError, match="no thread has extended state"):
            image.columns()
        return
    columns = image.columns()
    assert columns["tid"].tolist() == [thread.tid for thread in image.threads]
    for row, area in enumerate(states):
        for name, value in (xsave.decode(area) if area is not None else {}).items():
            have = columns[name][row]
            assert (have.tobytes() if isinstance(value, bytes) else int(have)) == value, (row, name)
