"""Lints of real images: exactly those that the images' README explains; and of random bytes: never an exception."""

from pathlib import Path
from random import Random

import pytest
import reference

import xsave
from tests import skips
from tests.audit.lint_cases import image, lint
from tests.images import truth
from tests.laws.strategies import model
from xsave import COMPACTED, STANDARD, Area, Layout, audit
from xsave.images.core import XSTATE

# What fires: file -> {(lint, tid)}, with the words of the README that say why. All other files: nothing.
FIRES = {
    "intel-amx-threads-abort-a.core": (
        {("L-TILE-ZEROS", 16619)}, 'loaded, then TILEZERO on all 8 | 1, **1** | data all zero, still "in use"',
    ),
    "lldb_linux-x86_64.core": (
        {("L-STALE-LEAK", 32259)}, "the legacy region of the XSTATE note is leaked kernel heap (readable text)",
    ),
}  # fmt: skip
FILES = truth.elf_files() if truth.IMAGES.is_dir() else []


@skips.needs_data()
@pytest.mark.parametrize("path", FILES, ids=[truth.stem(path) for path in FILES])
def test_exactly_these_fire(path: Path) -> None:
    expected, _ = FIRES.get(truth.stem(path), (set(), ""))
    assert {(each.id, each.tid) for each in audit.lint_image(xsave.open(path))} == expected


@skips.needs_data()
def test_the_readme_explains_them() -> None:
    readme = (truth.IMAGES / "README.md").read_text()
    assert {name for name in FIRES if name not in {truth.stem(path) for path in FILES}} == set()
    assert [quote for _, quote in FIRES.values() if quote not in readme] == []


@skips.needs_data()
def test_errors_on_kernels_cores() -> None:
    """A kernel's core has an error in one file alone, whose note the kernel left uninitialised."""
    loud = {truth.stem(path) for path in FILES
            if any(each.severity == "error" for each in audit.lint_image(xsave.open(path)))}  # fmt: skip
    assert loud == {"lldb_linux-x86_64.core"}


@skips.needs_data()
def test_the_note_as_it_lies_in_the_file() -> None:
    """The reader takes MXCSR from NT_PRFPREG; the note's own would fault (README: "XRSTOR faults on the MXCSR")."""
    path = next(path for path in FILES if truth.stem(path) == "lldb_linux-x86_64.core")
    opened = xsave.open(path)
    (thread,) = opened.threads
    offset, size = opened._table.find(0, XSTATE)
    raw = opened._source.read(offset, size)
    found = audit.lint_area(Area(raw, thread.area.layout, check=False))
    assert {each.id for each in found} == {"L-MXCSR-RESERVED", "L-STALE-INIT"}


BLOBS = sorted((truth.IMAGES / "local" / "kvm").glob("*.kvm_xsave*.bin")) if truth.IMAGES.is_dir() else []


@skips.needs_data()
@pytest.mark.parametrize("path", BLOBS, ids=[path.name for path in BLOBS])
def test_kvm_blobs_have_nothing(path: Path) -> None:
    """KVM's own areas; PKRU is not enabled on that host, so under another CPU's name it is not in use."""
    found = audit.lint_image(xsave.open(path, cpu="SapphireRapids"))
    assert {each.id for each in found} <= {"L-PKRU-OPEN"}


def test_frames_are_looked_at() -> None:
    """Bytes under INIT are an error in a core's note, not in a frame: XSAVE writes that, and may leave them out."""
    stale = image("SandyBridge", 7, xmm3=b"\x11" * 16)
    stale[512:520] = bytes(8)

    class Frame:
        kind, address, tid = "signal frame", 0x7FFE0000, 17
        area = Area(bytes(stale), Layout(model("SandyBridge"), 7, STANDARD))

    class Core:
        kind, threads, extra_states = "ELF core", (), (Frame, type("Bare", (Frame,), {"area": None}))

    (found,) = audit.lint_image(Core())  # type: ignore[arg-type]
    assert (found.id, found.tid, found.where) == ("L-STALE-INIT", 17, "signal frame at 0x7ffe0000")


def test_an_area_that_cannot_be_read_is_a_finding() -> None:
    class Thread:
        tid = 5

        @property
        def area(self) -> Area:
            raise xsave.FormatError("600 bytes")

    class Core:
        kind, threads, extra_states = "ELF core", (Thread(),), ()

    (found,) = audit.lint_image(Core())  # type: ignore[arg-type]
    assert (found.id, found.tid) == ("L-AREA-CUT", 5) and "600 bytes" in found.message


# -- random bytes ------------------------------------------------------------------------------------------

MODELS = ("SapphireRapids", "DiamondRapids", "EPYC-Genoa")
# Lints that are XRSTOR's #GP for the header; MXCSR is another rule of the same instruction.
HEADER = {"L-XSTATE-XCR0", "L-XSTATE-XCOMP", "L-XCOMP-XCR0", "L-XCOMP-FORMAT", "L-HEADER-RESERVED"}


def random_area(random: Random, name: str, fmt: int) -> tuple[int, bytearray]:
    """A random area, or a sound one with a few random bytes, most of them in its header."""
    table = reference.CPUS[name]
    mask = random.getrandbits(64) & (table["xcr0"] | (table["xss"] if fmt == COMPACTED else 0))
    size = Layout(model(name), mask, fmt).size
    if random.random() < 0.3:
        return mask, bytearray(random.randbytes(size))
    data = image(name, mask, fmt, xstate_bv=random.getrandbits(64) & mask)
    for _ in range(random.randrange(4)):
        data[random.choice((random.randrange(512, 576), random.randrange(size)))] = random.getrandbits(8)
    return mask, data


@pytest.mark.parametrize("fmt", [STANDARD, COMPACTED], ids=str)
@pytest.mark.parametrize("name", MODELS)
def test_random_areas(name: str, fmt: int) -> None:
    """It never raises, offsets lie in the area, and the header's errors are those of the slow model."""
    random = Random(f"lints {name} {fmt}")
    faulted = 0
    for _ in range(1500):
        mask, data = random_area(random, name, fmt)
        xcr0, xss, xfd = random.choice((mask, random.getrandbits(64))), random.getrandbits(20), random.getrandbits(20)
        for facts in ({}, {"xcr0": xcr0, "xss": xss, "xfd": xfd}):
            found = lint(data, name, mask, fmt, **facts)
            assert all(each.offset is None or 0 <= each.offset <= len(data) for each in found)
            assert all(each.id in audit.LINTS and each.message for each in found)
        allowed = xcr0 | (xss if fmt == COMPACTED else 0)
        faults = header_faults(data, name, fmt, allowed, mask)
        assert bool({each.id for each in found} & HEADER) == bool(faults), (found, faults)
        faulted += bool(faults)
    assert 300 < faulted < 1450


def header_faults(data: bytearray, name: str, fmt: int, allowed: int, mask: int) -> bool:
    """By the slow model: XRSTOR faults on the header, or XCOMP_BV is not that of the layout."""
    form = reference.COMPACTED if fmt == COMPACTED else reference.STANDARD
    faults = [rule for rule, _ in reference.header_faults(data, name, form, allowed)]
    compacted = bool(data[527] & 0x80)
    if compacted != (fmt == COMPACTED):
        return True
    return bool(faults) or (fmt == COMPACTED and reference.u64(data, 520) != 1 << 63 | mask)
