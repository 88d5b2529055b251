"""Peak memory of `decode` on a core of a thousand threads, by the kernel's own count, beyond that of `--version`."""

import os
import sys
from pathlib import Path

import pytest

from tests import skips
from tests.images.areas import area_of, entries_of, layout_of, legacy_of
from tests.writers import elf
from tests.writers.elf import Thread

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
from memory import extra_peak, notes_size

pytestmark = [skips.needs_peak_memory(), skips.needs_plain_build()]

# The goal is 2 MiB everywhere. It is not reached where the interpreter is one program without a libpython, which maps
# and counts the more of itself the more of it is used (2.56 MB seen): there the limit only keeps it from growing.
GOAL = 2 << 20
NOT_REACHED = 640 << 10


@pytest.fixture(scope="module")
def core(tmp_path_factory):
    layout = layout_of("EPYC-Genoa", 0xE7)
    areas = [area_of(layout, seed) for seed in range(16)]
    threads = [
        Thread(tid=7000 + i, gpr={"rip": i}, xstate=areas[i % 16], fpregs=legacy_of(areas[i % 16])) for i in range(1000)
    ]
    path = tmp_path_factory.mktemp("memory") / "core"
    path.write_bytes(elf.core(elf.linux_notes(threads, layout=entries_of(layout))))
    return path


def test_records_one_by_one(core, tmp_path):
    maps = Path("/proc/self/maps").read_text()
    limit = GOAL + (0 if "libpython" in maps else NOT_REACHED)
    assert extra_peak("--ndjson", core, tmp_path) < limit < notes_size(core)


def test_one_document(core, tmp_path):
    assert extra_peak("--json", core, tmp_path) < 3 * notes_size(core)


def test_memory_does_not_grow_with_threads(core, tmp_path):
    """What is allowed is not had by luck: eight times the threads need no more than the table of their notes."""
    layout = layout_of("EPYC-Genoa", 0xE7)
    area = area_of(layout)
    threads = [Thread(tid=1 + i, gpr={"rip": i}, xstate=area, fpregs=legacy_of(area)) for i in range(8000)]
    path = tmp_path / "many"
    path.write_bytes(elf.core(elf.linux_notes(threads, layout=entries_of(layout))))
    few, many = extra_peak("--ndjson", core, tmp_path), extra_peak("--ndjson", path, tmp_path)
    assert many - few < 7000 * 4 * 64
    os.unlink(path)
