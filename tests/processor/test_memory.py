"""`Memory`: what can be mapped, and instructions whose operand lies in several ranges."""

import array

import pytest
import reference
from reference import COMPACTED, STANDARD

from tests.processor.operands import ALL, AMD, BASE, INTEL, SIZE, full_state, holed, image, processor
from xsave import Fault
from xsave.memory import Memory


def test_ranges_are_listed_by_address():
    memory = Memory()
    memory.map(0x2000, bytearray(16))
    memory.map(0x1000, bytes(8), writable=False)
    assert [(b, e, w) for b, e, _, w in memory.ranges] == [(0x1000, 0x1008, False), (0x2000, 0x2010, True)]
    assert repr(memory) == "<Memory: 0x1000-0x1008 read-only, 0x2000-0x2010>"
    memory.unmap(0x1000)
    assert [b for b, *_ in memory.ranges] == [0x2000]
    memory.unmap(0x2000)
    assert memory.ranges == ()
    assert "nothing" in repr(memory)


@pytest.mark.parametrize("address", [0x1010, 0xFFF, 0, 0x1001])
def test_unmap_takes_the_first_address_of_a_range(address):
    memory = Memory()
    memory.map(0x1000, bytearray(16))
    with pytest.raises(ValueError, match=f"{address:#x}"):
        memory.unmap(address)
    assert len(memory.ranges) == 1


@pytest.mark.parametrize("begin", [0xFF1, 0x1000, 0x1001, 0x101F])
def test_ranges_do_not_overlap(begin):
    memory = Memory()
    memory.map(0x1000, bytearray(32))
    with pytest.raises(ValueError, match="overlaps"):
        memory.map(begin, bytearray(16))
    with pytest.raises(ValueError, match="overlaps"):
        memory.map(0xF00, bytearray(0x1000))
    memory.map(0xFF0, bytearray(16))
    memory.map(0x1020, bytearray(16))
    assert [b for b, *_ in memory.ranges] == [0xFF0, 0x1000, 0x1020]


@pytest.mark.parametrize("address", [-1, 2**64 - 15, 2**64, -(2**64)])
def test_ranges_stay_in_64_bits(address):
    memory = Memory()
    with pytest.raises(ValueError, match="64 bits"):
        memory.map(address, bytearray(16))
    assert memory.ranges == ()
    memory.map(2**64 - 16, bytearray(16))
    memory.map(0, bytearray(16))


def test_buffers_that_cannot_be_mapped():
    memory = Memory()
    with pytest.raises(ValueError, match="at least one byte"):
        memory.map(0, b"", writable=False)
    with pytest.raises(ValueError, match="contiguous"):
        memory.map(0, memoryview(bytearray(32))[::2])
    with pytest.raises(ValueError, match="writable=False"):
        memory.map(0, bytes(16))
    with pytest.raises(TypeError):
        memory.map(0, "text", writable=False)
    assert memory.ranges == ()


def test_any_contiguous_buffer_can_be_mapped():
    cpu = processor(AMD)
    words = array.array("Q", bytes(SIZE))
    memory = Memory()
    memory.map(BASE, words)
    cpu.load({"xmm0": b"\x11" * 16})
    cpu.xsave(memory, 2, BASE)
    assert words.tobytes()[160:176] == b"\x11" * 16
    assert words[512 // 8] == 2


def test_instructions_write_to_the_mapped_buffer_and_nowhere_else():
    cpu = processor(AMD)
    cpu.load(full_state(AMD, 0x2E7))
    buffer = bytearray(b"\xa5" * (64 + 2440 + 64))
    memory = Memory()
    memory.map(BASE - 64, buffer)
    cpu.xsave(memory, 0x2E7, BASE)
    assert buffer[:64] == buffer[-64:] == b"\xa5" * 64
    assert buffer[64 + 512 : 64 + 520] == ((0xA5A5A5A5A5A5A5A5 & ~0x2E7) | 0x2E7).to_bytes(8, "little")


def test_an_instruction_holds_the_buffer_no_longer_than_it_runs():
    buffer = bytearray(SIZE)
    memory = Memory()
    memory.map(BASE, buffer)
    cpu = processor(AMD)
    cpu.xsave(memory, ALL, BASE)
    with pytest.raises(Fault):
        cpu.xsave(memory, ALL, BASE + SIZE - 64)
    memory.unmap(BASE)
    buffer.append(0)    # BufferError if anything held it


SPLITS = [1, 23, 24, 27, 100, 160, 415, 416, 512, 515, 520, 527, 528, 575, 576, 600, 831, 1300, 2432, 2435]


@pytest.mark.parametrize("name", [INTEL, AMD])
@pytest.mark.parametrize("insn", ["xsave", "xsaveopt", "xsavec", "xsaves"])
def test_saves_across_ranges(name, insn):
    state = full_state(name, 0x2E7)
    want = bytearray(b"\x5a" * SIZE)
    slow = reference.Cpu(name, state, cpl=0)
    assert getattr(slow, insn)(want, ALL) is None
    for split in SPLITS:
        cpu = processor(name, cpl=0)
        cpu.load(state)
        low, high = bytearray(b"\x5a" * split), bytearray(b"\x5a" * (SIZE - split))
        memory = Memory()
        memory.map(BASE + split, high)
        memory.map(BASE, low)
        getattr(cpu, insn)(memory, ALL, BASE)
        assert low + high == want, split


@pytest.mark.parametrize("name", [INTEL, AMD])
@pytest.mark.parametrize("fmt", [STANDARD, COMPACTED])
def test_restores_across_read_only_ranges(name, fmt):
    mask = int(processor(name).xcr0)
    area = image(name, mask, fmt, mask)
    want = reference.Cpu(name, {})
    assert want.xrstor(area, ALL) is None
    for split in SPLITS:
        cpu = processor(name)
        memory = Memory()
        memory.map(BASE, bytes(area[:split]), writable=False)
        memory.map(BASE + split, bytes(area[split : split + 7]), writable=False)
        memory.map(BASE + split + 7, bytes(area[split + 7 :]), writable=False)
        cpu.xrstor(memory, ALL, BASE)
        got = cpu.registers()
        assert {n: got[n] for n in want.registers if n != "mxcsr_mask"} == {
            n: v for n, v in want.registers.items() if n != "mxcsr_mask"
        }


def test_fxsave_and_fxrstor_across_ranges():
    state = full_state(INTEL, 3)
    for split in (1, 24, 26, 160, 300, 415, 416, 511):
        cpu = processor(INTEL)
        cpu.load(state)
        low, high = bytearray(split), bytearray(512 - split)
        memory = Memory()
        memory.map(BASE, low)
        memory.map(BASE + split, high)
        cpu.fxsave(memory, BASE)
        other = reference.Cpu(INTEL, state)
        want = bytearray(576)
        assert other.xsave(want, 3) is None     # FXSAVE writes the legacy region as XSAVE does
        assert low + high == want[:512]
        fresh = processor(INTEL)
        fresh.fxrstor(memory, BASE)
        assert fresh.registers() == cpu.registers()


def test_tile_memory_across_ranges():
    cpu = processor(INTEL)
    config = b"\x01" + bytes(15) + b"\x40" + bytes(31) + b"\x10" + bytes(15)
    rows = bytes(range(256)) * 4
    for split in (1, 63, 64, 100, 1000, 1023):
        memory = holed(bytearray(rows), (split, split))
        cpu.ldtilecfg(config)
        cpu.tileloadd(0, memory, 64, BASE)
        assert cpu.registers()["tmm0"] == rows
        low, high = bytearray(split), bytearray(1024 - split)
        memory = Memory()
        memory.map(BASE, low)
        memory.map(BASE + split, high)
        cpu.tilestored(0, memory, 64, BASE)
        assert low + high == rows
