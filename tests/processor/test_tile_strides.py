"""Where the rows of a tile lie: strides of every sign, plain buffers, addresses of single rows (SDM2; measured)."""

import pytest

from tests.processor.operands import BASE, holed
from tests.processor.tile_state import SOURCE, filled, row_bytes
from xsave import Fault
from xsave.memory import Memory


@pytest.mark.parametrize("stride", [0, 1, 4, 63, 64, 65, 128, 1000, -1, -64, -100])
@pytest.mark.parametrize("shape", [(16, 64), (5, 20), (1, 4)])
def test_strides(stride, shape):
    rows, colsb = shape
    buffer = bytearray((7 * i + i // 256) & 0xFF for i in range(32768))
    base = BASE + 16384
    want = b"".join(
        bytes(buffer[16384 + stride * row : 16384 + stride * row + colsb]).ljust(64, b"\0") for row in range(rows)
    )
    cpu = filled([shape])
    cpu.tileloadd(0, holed(buffer), stride, base)
    assert cpu.registers()["tmm0"] == want.ljust(1024, b"\0")

    cpu = filled([shape])
    cpu.load({"tmm0": SOURCE})
    expected = bytearray(buffer)
    for row in range(rows):     # in order: of overlapping rows the last one stays
        expected[16384 + stride * row : 16384 + stride * row + colsb] = row_bytes(row, colsb)
    cpu.tilestored(0, holed(buffer), stride, base)
    assert buffer == expected


def test_a_plain_buffer_begins_at_the_operand():
    """Rows before it are the caller's mistake, and nothing has changed."""
    for stride in (-64, -1, -(1 << 62)):
        cpu = filled([(2, 64)])
        before = cpu.registers(), cpu.xinuse
        out = bytearray(4096)
        with pytest.raises(ValueError, match="TILELOADD"):
            cpu.tileloadd(0, bytes(4096), stride)
        with pytest.raises(ValueError, match="TILESTORED"):
            cpu.tilestored(0, out, stride)
        assert (cpu.registers(), cpu.xinuse) == before
        assert not any(out)
    cpu = filled([(1, 64)])     # one row: no stride is taken
    cpu.tileloadd(0, SOURCE, -64)
    assert cpu.registers()["tmm0"] == SOURCE[:64] + bytes(960)


@pytest.mark.parametrize(("rows", "colsb", "stride", "needed"), [
    (16, 64, 64, 1024), (16, 64, 0, 64), (16, 4, 64, 964), (3, 64, 100, 264), (1, 4, 5000, 4), (2, 8, 1, 9),
])
def test_a_plain_buffer_holds_what_the_rows_reach(rows, colsb, stride, needed):
    cpu = filled([(rows, colsb)])
    cpu.tilestored(0, bytearray(needed), stride)
    cpu.tileloadd(0, bytes(needed), stride)
    before = cpu.registers()
    for size in (needed - 1, 0):
        out = bytearray(size)
        with pytest.raises(ValueError, match="beyond the buffer"):
            cpu.tilestored(0, out, stride)
        with pytest.raises(ValueError, match="beyond the buffer"):
            cpu.tileloadd(0, out, stride)
        assert not any(out)
    with pytest.raises(ValueError, match="read-only"):
        cpu.tilestored(0, bytes(needed), stride)
    assert cpu.registers() == before


def test_a_restart_row_reads_no_row_before_it():
    cpu = filled([(4, 64)], start_row=3)
    with pytest.raises(ValueError, match="beyond the buffer"):
        cpu.tileloadd(0, bytes(255), 64)
    cpu.tileloadd(0, SOURCE[:256], 64)
    assert cpu.registers()["tmm0"][192:256] == SOURCE[192:256]


def test_no_alignment():
    cpu = filled([(16, 64)])
    buffer = bytearray(1 + 1024)
    cpu.tilestored(0, holed(buffer), 64, BASE + 1)
    assert buffer == b"\0" + b"\x01" * 1024
    cpu = filled([(16, 64)])
    cpu.load({"tmm0": bytes(1024)})
    cpu.tileloadd(0, holed(buffer), 64, BASE + 1)
    assert cpu.registers()["tmm0"] == b"\x01" * 1024


@pytest.mark.parametrize(("segment", "vector"), [("ds", "#GP"), ("ss", "#SS")])
def test_a_row_that_no_address_reaches(segment, vector):
    """Restartable like a page fault: rows before it are done, the rest is zero."""
    end = 1 << 47
    memory = Memory()
    memory.map(end - 256, bytearray(SOURCE[:256]))
    cpu = filled([(16, 64)])
    got = cpu.try_tileloadd(0, memory, 64, end - 256, segment)
    assert isinstance(got, Fault) and (got.vector, got.rule, got.error_code) == (vector, "CANONICAL", 0)
    assert cpu.registers()["tmm0"] == SOURCE[:256] + bytes(768)
    assert cpu.registers()["tilecfg"][1] == 4
    with pytest.raises(ValueError, match="segment"):
        cpu.tileloadd(0, SOURCE, 64, segment="es")


@pytest.mark.parametrize("insn", ["tileloadd", "tilestored"])
def test_only_the_bytes_of_the_columns_are_touched(insn):
    buffer = bytearray(1024)
    gaps = [(64 * row + 20, 64 * row + 64) for row in range(16)]
    cpu = filled([(16, 20)])
    assert getattr(cpu, "try_" + insn)(0, holed(buffer, *gaps), 64, BASE) is None
    got = getattr(cpu, "try_" + insn)(0, holed(buffer, 19), 64, BASE)
    assert isinstance(got, Fault) and (got.vector, got.offset) == ("#PF", 19)
