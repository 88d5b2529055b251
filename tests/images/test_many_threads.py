"""A core of a thousand threads: what is held, and that columns and threads agree."""

import sys
import tracemalloc

import pytest

import xsave
from tests.images.areas import area_of, entries_of, layout_of, legacy_of
from tests.writers import elf
from tests.writers.elf import Thread


@pytest.fixture(scope="module", params=["plain", "some tiles", "odd ones"])
def core(request, tmp_path_factory):
    layout = layout_of("SapphireRapids", 0x600E7)
    plain = [area_of(layout, seed, 0xE7) for seed in range(8)]
    tiles = [area_of(layout, seed) for seed in range(8)]
    threads = []
    for i in range(1000):
        area = (tiles if request.param != "plain" and i % 7 in (1, 2) else plain)[i % 8]
        legacy = legacy_of(area)
        if request.param == "odd ones" and i % 10 == 3:
            # One of: MXCSR left out, no state, registers of another size.
            area = (area_of(layout, 1, 1), None, area[:400])[i // 10 % 3]
            legacy = legacy if area else None
        threads.append(Thread(tid=5000 + i, gpr={"rip": i}, xstate=area, fpregs=legacy))
    path = tmp_path_factory.mktemp("many") / "core"
    path.write_bytes(elf.core(elf.linux_notes(threads, layout=entries_of(layout))))
    return path


def test_columns_are_the_threads(core):
    image = xsave.open(core)
    columns = image.columns()
    narrow = image.columns(["zmm3", "tmm2", "mxcsr"])
    assert list(narrow) == ["tid", "zmm3", "tmm2", "mxcsr"]
    for row, thread in enumerate(image.threads):
        assert columns["tid"][row] == thread.tid
        if thread.area is None:
            assert columns["fcw"][row] == 0x37F and not columns["zmm3"][row].any()
            continue
        values = xsave.decode(thread.area)
        for name, value in values.items():
            if name.startswith("xmm"):
                assert columns["zmm" + name[3:]][row].tobytes() == value.ljust(64, b"\0")
            elif isinstance(value, bytes):
                assert columns[name][row].tobytes() == value, (row, name)
            else:
                assert columns[name][row] == value, (row, name)
    for name in ("zmm3", "tmm2", "mxcsr"):
        assert (narrow[name] == columns[name]).all()


def test_thread_by_thread_holds_little(core):
    for thread in xsave.open(core).threads:
        _ = thread.area
    tracemalloc.start()
    try:
        image = xsave.open(core)
        count = sum(1 for thread in image.threads if thread.area is not None and thread.pc is not None)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert count > 900
    assert peak < 1 << 20


def test_threads_load_no_numpy(core):
    import subprocess

    heavy = {"numpy", "json", "dataclasses", "typing", "inspect", "re", "lzma", "gzip"}
    program = (
        "import sys; before = set(sys.modules)\nimport xsave\n"
        f"for t in xsave.open({str(core)!r}).threads: t.area, t.pc\n"
        f"assert not {heavy!r} & (set(sys.modules) - before)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
