"""Any bytes at all: an image or one of this package's errors, in bounded time and memory."""

import random
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import xsave
from tests.images.areas import area_of, entries_of, layout_of, legacy_of
from tests.writers import elf, frames
from tests.writers.elf import Thread
from xsave._records import CHUNK_MIN, NUMBERED, STARTS_GROUP, NoteTable

LAYOUT = layout_of("EPYC-Genoa", 0xE7)
AREA = area_of(LAYOUT)
THREADS = [Thread(tid=i + 1, signal=6, gpr={"rsp": 0x7000}, xstate=AREA, fpregs=legacy_of(AREA)) for i in range(3)]
CORES = [
    elf.core(elf.linux_notes(THREADS, layout=entries_of(LAYOUT)), [(0x7000, frames.frame(AREA, 0xE7)[0])]),
    elf.core(elf.gcore_notes(THREADS, aux={51: 3376}), [(0x7000, bytes(4096))], notes_last=True),
    elf.core(elf.freebsd_notes(THREADS)),
    elf.core(elf.netbsd_notes(THREADS)),
    elf.core(elf.linux_notes([Thread(xstate=AREA, fpregs=bytes(108))], abi="i386"), elf_class=1, machine=elf.EM_386),
    AREA,
]
INTERESTING = st.sampled_from(
    [0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, (1 << 63) - 1, 1 << 63, (1 << 64) - 1]
)


def use(data, cpu=None):
    """Opens bytes and looks at everything; only this package's own errors about input may come out."""
    try:
        image = xsave.open(data, cpu=cpu)
        for thread in list(image.threads)[:50]:
            _ = thread.name, thread.signal, thread.pc, thread.crashed, thread.gpr, thread.ssp
            _ = thread.evidence, thread.warnings
            if thread.area is not None:
                xsave.decode(thread.area)
        for state in image.extra_states:
            xsave.decode(state.area)
        image.columns()
    except xsave.XSaveError as error:
        assert str(error)


@given(st.binary(max_size=4096), st.sampled_from([None, "SapphireRapids"]))
@settings(max_examples=200)
def test_any_bytes(data, cpu):
    use(data, cpu)
    use(b"\x7fELF\2\1\1" + bytes(9) + b"\4\0\x3e\0" + data)


@given(st.data())
@settings(max_examples=300)
def test_damaged_images(data):
    """Fields of a good image set to what breaks arithmetic."""
    core = bytearray(data.draw(st.sampled_from(CORES)))
    for _ in range(data.draw(st.integers(1, 6))):
        width = data.draw(st.sampled_from([1, 2, 4, 8]))
        at = data.draw(st.integers(0, len(core) - width) | st.integers(0, 1200))
        value = data.draw(INTERESTING | st.integers(0, (1 << 64) - 1)) & (1 << 8 * width) - 1
        core[at : at + width] = value.to_bytes(width, "little")
    length = data.draw(st.integers(0, len(core)) | st.just(len(core)))
    use(bytes(core[:length]), data.draw(st.sampled_from([None, "EPYC-Genoa"])))


@pytest.mark.parametrize("number", range(len(CORES)))
def test_every_header_field(number):
    """Every aligned 32-bit word of the headers and the first notes, set to each of a few values."""
    core = CORES[number]
    for at in range(0, min(len(core), 640), 4):
        for value in (0, 0x7FFFFFFF, 0xFFFFFFFF, 0x80000000):
            damaged = bytearray(core)
            struct.pack_into("<I", damaged, at, value)
            use(bytes(damaged))


RULES = [(b"CORE", 1, 1, STARTS_GROUP, 32), (b"LINUX", 2, 2, 0, -1), (b"N@", 3, 3, NUMBERED, -1)]


def walk(data, chunk, start=0, end=None, limit=None):
    """The table of a buffer of notes, fed `chunk` bytes at a time."""
    table = NoteTable(RULES)
    table.begin(start, len(data) if end is None else end, len(data) if limit is None else limit)
    rounds = 0
    while True:
        at = table.position
        rounds += 1
        assert rounds <= 3 + 2 * len(data) // 12, "no progress"
        if not table.feed(data[at : at + chunk], at):
            return table


def rows(table):
    return [
        (i, table.number(i), [table.find(i, ident) for ident in (1, 2, 3)]) for i in range(table.groups)
    ], table.notes, table.bad_offset, table.cut_offset, table.resynced


NAMES = st.sampled_from([b"CORE", b"LINUX", b"N@1", b"N@2", b"N@x", b"OTHER", b"x" * 100])


@given(st.lists(st.tuples(NAMES, st.integers(0, 4), st.integers(0, 9000)), max_size=30), st.integers(0, 200))
def test_notes_in_any_chunks(notes, cut):
    rng = random.Random(1)
    data = b"".join(elf.note(name, kind, rng.randbytes(size)) for name, kind, size in notes)
    whole = rows(walk(data, 1 << 24))
    assert whole[1] == len(notes)
    for chunk in (CHUNK_MIN, 5000, 1 << 16):
        assert rows(walk(data, chunk)) == whole
    short = rows(walk(data[: max(len(data) - cut, 0)], CHUNK_MIN, end=len(data)))
    assert short[1] <= whole[1] and short[2] == -1


@given(st.binary(max_size=3000), st.integers(0, 1 << 61))
def test_any_notes(data, end):
    for chunk in (CHUNK_MIN, 1 << 16):
        table = walk(data, chunk)
        walk(data, chunk, end=end, limit=len(data))
        for i in range(table.groups):
            for ident in (1, 2, 3):
                found = table.find(i, ident)
                assert found is None or found[0] + found[1] <= len(data)


def test_table_faces():
    table = NoteTable(RULES)
    with pytest.raises(IndexError):
        table.number(0)
    with pytest.raises(ValueError, match="out of range"):
        table.begin(0, 1 << 63, 5)
    with pytest.raises(ValueError, match="out of range"):
        table.begin(5, 4, 5)
    table.begin(0, 100, 100)
    with pytest.raises(ValueError, match="beyond the position"):
        table.feed(b"x", 8)
    with pytest.raises(ValueError, match="bad note rule"):
        NoteTable([(b"x" * 30, 1, 1, 0, -1)])
    with pytest.raises(ValueError, match="at most"):
        NoteTable(RULES * 20)


def test_a_million_empty_notes_are_cheap():
    notes = elf.linux_notes(THREADS[:1]) + elf.note(b"CORE", 1, b"") * 400_000 + elf.note(b"X", 1, b"") * 400_000
    image = xsave.open(elf.core(notes))
    assert len(image.threads) == 400_001
    assert bytes(image.threads[0].area) == AREA and image.threads[-1].area is None
