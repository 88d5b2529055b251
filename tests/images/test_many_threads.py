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


def described(thread):
    area = thread.area
    return thread.tid, area and bytes(area), area and area.layout.mask, thread.evidence, thread.warnings, thread.pc


def test_order_does_not_matter(core):
    """Threads in file order are read ahead together; backwards each is read alone, with every check of its own."""
    forward = [described(thread) for thread in xsave.open(core).threads]
    backward = xsave.open(core).threads
    assert forward == [described(backward[i]) for i in reversed(range(len(backward)))][::-1]
    jumping = xsave.open(core).threads
    for i in (3, 4, 5, 500, 501, 499, 0, 1, 999):
        assert described(jumping[i]) == forward[i]
        assert described(jumping[i]) == forward[i]


@pytest.mark.parametrize(
    "oddity", ["xmm7", "xmm0 out of use", "stale", "XCOMP_BV", "reserved", "outside", "XCR0", "MXCSR"]
)
def test_one_odd_thread_among_many(oddity, tmp_path):
    """What is wrong with one thread is said of it, whatever stands around it."""
    layout = layout_of("EPYC-Genoa", 0x2E7)
    threads = []
    for i in range(60):
        area = bytearray(area_of(layout, i))
        legacy = bytearray(legacy_of(area))
        if i == 33 and oddity == "xmm7":
            legacy[160 + 16 * 7 + 5] ^= 1
        elif i == 33 and oddity == "xmm0 out of use":
            area[512] &= ~2
            legacy[160:416] = bytes(256)
            legacy[160] = 1
        elif i == 33 and oddity == "stale":     # what is out of use there stands beside it as if it were in use
            area[512] &= ~2
        elif i == 33 and oddity == "XCOMP_BV":
            area[520] = 7
        elif i == 33 and oddity == "reserved":
            area[528] = 1
        elif i == 33 and oddity == "outside":
            area[513] |= 1
        elif i == 33 and oddity == "XCR0":
            area[464] ^= 0xE0
        elif i == 33:
            area[512] = 1
            legacy[160:416] = bytes(256)
            legacy[24:28] = b"\xa0\x1f\0\0"
        threads.append(Thread(tid=1 + i, gpr={"rip": i}, xstate=bytes(area), fpregs=bytes(legacy)))
    path = tmp_path / "core"
    path.write_bytes(elf.core(elf.linux_notes(threads, layout=entries_of(layout))))
    image = xsave.open(path)
    found = [described(thread) for thread in image.threads]
    alone = xsave.open(path).threads
    assert found == [described(alone[i]) for i in reversed(range(60))][::-1]
    odd = [i for i in range(60) if found[i][3:5] != found[0][3:5]]
    assert odd == [33]
    words = {"xmm7": "xmm7", "xmm0 out of use": "xmm0", "stale": "xmm0", "XCOMP_BV": "XCOMP_BV", "reserved": "reserved"}
    assert words.get(oddity, "") in " ".join(found[33][4])
    if oddity == "MXCSR":
        assert "MXCSR" in found[33][3].rule and xsave.decode(image.threads[33].area)["mxcsr"] == 0x1FA0


@pytest.mark.parametrize("wide_first", [True, False])
def test_columns_are_those_of_the_widest_layout(wide_first, tmp_path):
    threads = []
    for tid, mask in enumerate((0x2E7, 0x7) if wide_first else (0x7, 0x2E7), 1):
        area = area_of(layout_of("EPYC-Genoa", mask), tid)
        threads.append(Thread(tid=tid, gpr={"rip": tid}, xstate=area, fpregs=legacy_of(area)))
    path = tmp_path / "core"
    path.write_bytes(elf.core(elf.linux_notes(threads)))
    image = xsave.open(path)
    columns = image.columns()
    for row, thread in enumerate(image.threads):
        values = xsave.decode(thread.area)
        wide = values.get("zmm3", values.get("ymm3"))
        assert columns["zmm3"][row].tobytes() == wide.ljust(64, b"\0")
        assert columns["k1"][row] == values.get("k1", 0)


def test_columns_go_back_to_areas(core):
    image = xsave.open(core)
    layout = layout_of("SapphireRapids", 0x600E7)
    areas = xsave.encode_many(image.columns(), layout)
    for row in (0, 1, 2, 999):
        assert xsave.same_state(xsave.Area(areas[row], layout), image.threads[row].area)
