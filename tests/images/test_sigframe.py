"""Signal frames written into cores' memory, and things that only look like frames."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

import xsave
from tests.images.areas import area_of, entries_of, layout_of, legacy_of
from tests.images.test_elf import fsave
from tests.writers import elf, frames
from tests.writers.elf import Thread
from xsave._records import find_frames

SPR = layout_of("SapphireRapids", 0x600E7)
SMALL = layout_of("SapphireRapids", 0x200E7)
STACK = 0x7FFE00000000


def memory_with(*placed, size=1 << 16):
    data = bytearray(size)
    for offset, (body, at) in placed:
        data[offset - at : offset - at + len(body)] = body
    return bytes(data)


def core_with(memory, threads=None, **more):
    if threads is None:
        area = area_of(SPR)
        threads = [Thread(tid=1, signal=11, gpr={"rsp": STACK + 64}, xstate=area, fpregs=legacy_of(area))]
    return xsave.open(elf.core(elf.linux_notes(threads, layout=entries_of(SPR)), memory, **more))


def test_frames_of_two_sizes():
    """Before the first tile a thread's frames have no room for tile data; both are right beside the large note."""
    first, second = area_of(SMALL, 5), area_of(SPR, 6)
    memory = memory_with((0x4C0, frames.frame(second, 0x600E7)), (0x8000, frames.frame(first, 0x200E7)))
    image = core_with([(STACK, memory)])
    states = image.threads[0].extra_states
    assert [state.address for state in states] == [STACK + 0x4C0, STACK + 0x8000]
    assert [state.area.layout.mask for state in states] == [0x600E7, 0x200E7]
    assert [state.area.layout.size for state in states] == [SPR.size, SMALL.size]
    for state, want in zip(states, (second, first), strict=True):
        assert state.kind == "signal frame" and state.tid == 1 and state.warnings == []
        assert state.evidence == ("NT_X86_XSAVE_LAYOUT note", "exact")
        have = bytes(state.area)
        assert have[576:] == want[576:] and have[:416] == want[:416]


def test_a_frame_belongs_to_the_thread_below_it():
    area = area_of(SPR)
    threads = [
        Thread(tid=10 + i, gpr={"rsp": rsp}, xstate=area, fpregs=legacy_of(area))
        for i, rsp in enumerate((STACK + 0x100, STACK + 0x9000, 0x1000))
    ]
    frame = frames.frame(area_of(SMALL, 3), 0x200E7)
    stack, heap = memory_with((0x1000, frame), (0xA000, frame)), memory_with((0x40, frame))
    image = core_with([(STACK, stack), (0x500000, heap)], threads)
    assert {state.address: state.tid for state in image.extra_states} == {
        STACK + 0x1000: 10, STACK + 0xA000: 11, 0x500040: None
    }
    assert [len(thread.extra_states) for thread in image.threads] == [1, 1, 0]


def test_frame_below_the_stack_pointer_is_said():
    area = area_of(SPR)
    threads = [Thread(tid=1, gpr={"rsp": STACK + 0xF000}, xstate=area, fpregs=legacy_of(area))]
    image = core_with([(STACK, memory_with((0x1000, frames.frame(area_of(SMALL, 3), 0x200E7))))], threads)
    (state,) = image.threads[0].extra_states
    assert any("below the stack pointer" in warning for warning in state.warnings)


def test_32_bit_frame_takes_x87_from_the_fsave_header():
    layout = layout_of("Haswell", 7)
    header, values = fsave()
    body = frames.frame(area_of(layout, 4), 7, fsave=header)
    thread = Thread(tid=1, gpr={"esp": 0xFFFF0000}, xstate=area_of(layout), fpregs=bytes(108))
    notes = elf.linux_notes([thread], abi="i386")
    image = xsave.open(elf.core(notes, [(0xFFFF0000, memory_with((0x1000, body)))], elf_class=1, machine=elf.EM_386))
    (state,) = image.threads[0].extra_states
    have = xsave.decode(state.area)
    assert [have[f"st{i}"] for i in range(8)] == values
    assert have["ymm7"][:16] == area_of(layout, 4)[272:288]
    assert have["mxcsr"] == struct.unpack_from("<I", area_of(layout, 4), 24)[0]


def test_frame_across_a_window_s_border_and_far_away():
    frame = frames.frame(area_of(SPR, 3), 0x600E7)
    border = (1 << 20) - 4096
    image = core_with([(STACK, memory_with((border, frame), (3 << 20, frame), size=4 << 20))])
    assert [state.address - STACK for state in image.extra_states] == [border, 3 << 20]


def test_through_a_compressed_stream():
    import lzma

    area = area_of(SPR)
    thread = Thread(tid=1, gpr={"rsp": STACK}, xstate=area, fpregs=legacy_of(area))
    memory = memory_with((0x1000, frames.frame(area_of(SMALL, 3), 0x200E7)))
    for last in (False, True):
        data = elf.core(elf.linux_notes([thread]), [(STACK, memory)], notes_last=last)
        image = xsave.open(lzma.compress(data))
        assert [state.address for state in image.extra_states] == [STACK + 0x1000]


def test_budget(monkeypatch):
    from xsave.images import sigframe

    monkeypatch.setattr(sigframe, "SEARCH_MAX", 1 << 16)
    frame = frames.frame(area_of(SMALL, 3), 0x200E7)
    heap = memory_with((0x1000, frame), size=1 << 18)
    image = core_with([(0x500000, heap), (STACK, memory_with((0x1000, frame)))])
    assert [state.address for state in image.extra_states] == [STACK + 0x1000]
    assert any("not searched" in warning for warning in image.warnings)


WRONG = {
    "unaligned": lambda body: (8, body),
    "magic1": lambda body: (0, body[:464] + b"\0\0\0\0" + body[468:]),
    "magic2": lambda body: (0, body[:-4] + b"\0\0\0\0"),
    "size": lambda body: (0, body[:480] + struct.pack("<I", 100) + body[484:]),
    "beyond": lambda body: (0, body[:480] + struct.pack("<I", 0xFFFFFFFF) + body[484:]),
    "xfeatures": lambda body: (0, body[:472] + struct.pack("<Q", 4) + body[480:]),
    "legacy": lambda body: (0, body[:472] + struct.pack("<Q", 4) + body[480:512] + struct.pack("<Q", 4) + body[520:]),
    "xcomp": lambda body: (0, body[:520] + b"\1" + body[521:]),
    "xstate_bv": lambda body: (0, body[:512] + b"\xff\xff\xff" + body[515:]),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_frame(name):
    body, _ = frames.frame(area_of(SMALL, 3), 0x200E7)
    assert find_frames(bytes(64) + body) == [(64, 2820, 0x200E7, 2816)]
    shift, body = WRONG[name](body)
    assert find_frames(bytes(64 + shift) + body) == []


@given(st.binary(max_size=2000), st.integers(0, 1 << 64))
def test_any_memory(data, address):
    assert find_frames(data, address) == []


def test_every_cut_of_a_frame():
    body, _ = frames.frame(area_of(layout_of("Haswell", 7), 3), 7)
    for length in range(len(body)):
        assert find_frames(body[:length]) == []
        assert find_frames(memoryview(body)[:length]) == []     # the rest is there, behind the end
    assert len(find_frames(body)) == 1
    assert len(find_frames(body * 1, 64)) == 1 and find_frames(body, 32) == []


def test_at_most():
    body, _ = frames.frame(area_of(layout_of("Haswell", 7), 3), 7)
    assert len(find_frames(body.ljust(896, b"\0") * 200, most=150)) == 150
    assert len(find_frames(body.ljust(896, b"\0") * 200)) == 200
