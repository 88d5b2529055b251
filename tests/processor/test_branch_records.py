"""Last branch records: XSAVES and XRSTORS move as many as IA32_LBR_DEPTH says (SDM1 13.5.12)."""

import pytest

from tests.processor.operands import INTEL
from xsave import CpuModel, Processor

LBR = 1 << 15


def kernel() -> Processor:
    return Processor(CpuModel.named(INTEL), ia32_xss=LBR, cpl=0)


def number(area: bytes | bytearray, at: int) -> int:
    return int.from_bytes(area[at : at + 8], "little")


def lbr_records(first: int, count: int) -> dict[str, int]:
    parts = ("FROM_IP", "TO_IP", "INFO")
    return {f"IA32_LBR_{i}_{p}": first + 3 * i + j for i in range(count) for j, p in enumerate(parts)}


@pytest.mark.parametrize("depth", [8, 16, 24, 32])
def test_xsaves_of_lbr_saves_as_many_records_as_the_depth(depth):
    cpu = kernel()
    cpu.load({"IA32_LBR_DEPTH": depth, "IA32_LBR_CTL": 1, **lbr_records(100, 32)})
    area = bytearray(b"\xee" * 16384)
    cpu.xsaves(area, LBR)
    assert (number(area, 576), number(area, 584)) == (1, depth)
    for i in range(32):
        want = [100 + 3 * i + j if i < depth else 0xEEEEEEEEEEEEEEEE for j in range(3)]
        assert [number(area, 616 + 24 * i + 8 * j) for j in range(3)] == want, i


def lbr_area(depth: int) -> bytearray:
    area = bytearray(16384)
    area[512:528] = LBR.to_bytes(8, "little") + (LBR | 1 << 63).to_bytes(8, "little")
    words = [5, depth, 6, 7, 8, *range(500, 596)]
    area[576:1384] = b"".join(word.to_bytes(8, "little") for word in words)
    return area


@pytest.mark.parametrize("depth", [8, 16, 24, 32])
def test_xrstors_of_lbr_at_the_same_depth(depth):
    cpu = kernel()
    cpu.load({"IA32_LBR_DEPTH": depth, **lbr_records(100, 32)})
    cpu.xrstors(lbr_area(depth), LBR)
    got = cpu.registers()
    assert [got[f"IA32_{n}"] for n in ("LBR_CTL", "LBR_DEPTH", "LER_FROM_IP", "LER_TO_IP", "LER_INFO")] == [
        5, depth, 6, 7, 8,
    ]
    loaded = lbr_records(500, depth)
    assert {n: got[n] for n in loaded} == loaded
    assert int(cpu.xinuse) & LBR


@pytest.mark.parametrize("used", [True, False])
def test_xrstors_of_lbr_at_another_depth_zeroes_the_records(used):
    cpu = kernel()
    cpu.load({"IA32_LBR_DEPTH": 16, **(lbr_records(100, 32) if used else {})})
    cpu.xrstors(lbr_area(32), LBR)
    got = cpu.registers()
    assert {got[n] for n in lbr_records(0, 32)} == {0}
    assert [got[f"IA32_{n}"] for n in ("LBR_CTL", "LER_FROM_IP", "LER_TO_IP", "LER_INFO")] == [5, 6, 7, 8]
    assert bool(int(cpu.xinuse) & LBR) == used      # XINUSE[15] stays


def test_initialising_lbr_leaves_the_depth():
    cpu = kernel()
    cpu.load({"IA32_LBR_DEPTH": 16, "IA32_LBR_CTL": 1, **lbr_records(100, 32)})
    area = lbr_area(32)
    area[512:520] = bytes(8)
    cpu.xrstors(area, LBR)
    got = cpu.registers()
    assert (got["IA32_LBR_DEPTH"], got["IA32_LBR_CTL"], {got[n] for n in lbr_records(0, 32)}) == (16, 0, {0})
    assert not int(cpu.xinuse) & LBR
    cpu.xsaves(area := bytearray(b"\xee" * 16384), LBR)
    assert area[576:1384] == b"\xee" * 808      # initial: nothing is accessed
