"""Supervisor components: XSAVES and XRSTORS with PT, UINTR, LBR (SDM1 13.5)."""

from random import Random

import pytest
import reference
from reference import COMPACTED, STANDARD

from tests.processor.operands import ALL, BASE, INTEL, holed, image
from xsave import CpuModel, Fault, Processor

EVERYTHING = 0x602E7 | 0xDD00
# Of the compacted format, everything that INTEL has: worked out by hand from the sizes.
OFFSETS = {8: 2432, 9: 2560, 10: 2568, 11: 2576, 12: 2592, 14: 2616, 15: 2664, 17: 3520, 18: 3584}
SIZE = 11776
PT, UINTR, LBR = 1 << 8, 1 << 14, 1 << 15


def kernel(name: str = INTEL, **controls: object) -> Processor:
    model = CpuModel.named(name)
    return Processor(model, **{"ia32_xss": int(model.xss_mask), "cpl": 0, **controls})


def number(area: bytes | bytearray, at: int) -> int:
    return int.from_bytes(area[at : at + 8], "little")


def test_offsets_and_header_of_xsaves():
    cpu = kernel()
    values = {"IA32_RTIT_STATUS": 0x11, "pkru": 0x22, "IA32_PASID": 0x33, "IA32_U_CET": 0x44, "IA32_PL0_SSP": 0x58,
              "IA32_UINTR_HANDLER": 0x66, "IA32_LER_INFO": 0x77, "tmm0": b"\x88" * 1024}
    cpu.load(values)
    area = bytearray(b"\xee" * (SIZE + 64))
    cpu.xsaves(area, ALL)
    assert (number(area, 512), number(area, 520)) == (0x4DF00 & ~(1 << 13), EVERYTHING | 1 << 63)
    assert number(area, OFFSETS[8] + 24) == 0x11
    assert area[OFFSETS[9] : OFFSETS[9] + 4] == b"\x22\0\0\0"
    assert [number(area, OFFSETS[i]) for i in (10, 11, 12, 14)] == [0x33, 0x44, 0x58, 0x66]
    assert number(area, OFFSETS[15] + 32) == 0x77
    assert number(area, OFFSETS[18]) == 0x8888888888888888
    assert area[SIZE:] == b"\xee" * 64
    assert area[OFFSETS[17] : OFFSETS[17] + 64] == b"\xee" * 64     # initial: its slot stays as it was
    assert area[OFFSETS[8] + 72 : OFFSETS[8] + 128] == bytes(56)    # reserved bytes of PT are written


@pytest.mark.parametrize("name", ["SapphireRapids", "GraniteRapids", "AlderLake", "TigerLake", "EPYC-Milan"])
def test_xrstors_of_what_xsaves_saved(name):
    model = CpuModel.named(name)
    mask = int(model.xcr0_mask) | int(model.xss_mask)
    for seed in range(20):
        rng = Random(f"{name} {seed}")
        state = reference.random_state(rng, mask, sparse=0.3, pending_pointers=True)
        state.pop("IA32_RTIT_CTL", None)
        if mask & UINTR:
            state["IA32_UINTR_MISC"] = int(state.get("IA32_UINTR_MISC", 0)) & 0xFFFFFFFF
        if mask & LBR:
            state["IA32_LBR_DEPTH"] = 32
        cpu = kernel(name)
        cpu.load(state)
        area = bytearray(16384)
        cpu.xsaves(area, ALL)
        other = kernel(name)
        other.xrstors(area, ALL)
        assert other.registers() == cpu.registers()


def test_only_components_of_xss_take_part():
    cpu = kernel(ia32_xss=0x1000)
    cpu.load({"IA32_PL0_SSP": 8, "IA32_PASID": 5})
    area = bytearray(16384)
    cpu.xsaves(area, 0xFD00)
    assert (number(area, 512), number(area, 520)) == (0x1000, 0x1000 | 1 << 63)
    assert number(area, 576) == 8
    area[520:528] = (0x1400 | 1 << 63).to_bytes(8, "little")
    got = cpu.try_xrstors(area, ALL)
    assert isinstance(got, Fault) and (got.vector, got.rule, got.offset) == ("#GP", "H-XCOMP", 521)
    for insn in ("xsave", "xsaveopt", "xsavec"):
        getattr(cpu, insn)(area, 0x1000)
        assert number(area, 512) & 0x1000 == (0x1000 if insn != "xsavec" else 0)     # old bit, or none
    assert number(area, 520) == 1 << 63


def test_which_formats_go_where():
    cpu = kernel()
    got = cpu.try_xrstors(image(INTEL, 0xE7, STANDARD, 3), ALL)
    assert isinstance(got, Fault) and (got.vector, got.rule) == ("#GP", "H-FORMAT")
    for xcomp, insn, faults in ((0x807, "xrstor", True), (0x807, "xrstors", False), (0x2007, "xrstors", True)):
        area = bytearray(16384)
        area[520:528] = (xcomp | 1 << 63).to_bytes(8, "little")
        got = getattr(cpu, "try_" + insn)(area, 0)
        assert isinstance(got, Fault) == faults, (hex(xcomp), insn)
        if faults:
            assert (got.vector, got.rule, got.offset) == ("#GP", "H-XCOMP", 521)


# --- PT ---------------------------------------------------------------------------------------------------------

def test_xsaves_of_pt_ends_tracing():
    for mask, after in ((ALL, 0x2), (ALL & ~PT, 0x3), (PT, 0x2)):
        cpu = kernel()
        cpu.load({"IA32_RTIT_CTL": 3, "IA32_RTIT_CR3_MATCH": 0x4000})
        area = bytearray(16384)
        cpu.xsaves(area, mask)
        assert cpu.registers()["IA32_RTIT_CTL"] == after
        at = OFFSETS[8] if mask == ALL else 576
        assert number(area, at) == (3 if mask & PT else 0)      # saved before it is cleared


def test_a_fault_of_xsaves_leaves_tracing_on():
    cpu = kernel()
    cpu.load({"IA32_RTIT_CTL": 3, "tmm7": b"\x01" * 1024})
    for hole in (SIZE - 1, 512, (4096, 8192)):
        got = cpu.try_xsaves(holed(bytearray(SIZE), hole), ALL, BASE)
        assert isinstance(got, Fault) and got.vector == "#PF"
        assert cpu.registers()["IA32_RTIT_CTL"] == 3


def test_pt_is_not_restored_while_tracing():
    area = image(INTEL, EVERYTHING, COMPACTED, 0)
    for bits in (0, PT):
        area[512:520] = bits.to_bytes(8, "little")
        cpu = kernel()
        cpu.load({"IA32_RTIT_CTL": 1})
        got = cpu.try_xrstors(area, ALL)
        assert isinstance(got, Fault) and (got.vector, got.rule) == ("#GP", "PT-TRACE")
        assert cpu.registers()["IA32_RTIT_CTL"] == 1
        assert cpu.try_xrstors(area, ALL & ~PT) is None
        cpu.wrmsr(0x570, 2)
        assert cpu.try_xrstors(area, ALL) is None
        assert cpu.rdmsr(0x570) == 0


def test_reserved_bytes_of_pt():
    for at in range(72, 128):
        area = image(INTEL, EVERYTHING, COMPACTED, 0)
        area[513] = 1
        area[OFFSETS[8] + at] = 1
        got = kernel().try_xrstors(area, ALL)
        assert isinstance(got, Fault) and (got.vector, got.rule, got.offset) == ("#GP", "PT-RESERVED", OFFSETS[8] + at)
        area[513] = 0
        assert kernel().try_xrstors(area, ALL) is None


# --- UINTR ------------------------------------------------------------------------------------------------------

def test_xsaves_of_uintr_clears_the_notification_vector():
    for mask, after in ((ALL, 0x123), (ALL & ~UINTR, 0xEC00000123), (UINTR, 0x123)):
        cpu = kernel()
        cpu.load({"IA32_UINTR_MISC": 0xEC00000123, "IA32_UINTR_PD": 0x40})
        area = bytearray(16384)
        cpu.xsaves(area, mask)
        assert cpu.registers()["IA32_UINTR_MISC"] == after
        if mask & UINTR:
            assert number(area, (OFFSETS[14] if mask == ALL else 576) + 16) == 0xEC00000123


def test_uintr_is_not_loaded_over_a_notification_vector():
    cpu = kernel()
    cpu.load({"IA32_UINTR_MISC": 0x0100000000})
    area = image(INTEL, EVERYTHING, COMPACTED, 0)
    area[512:520] = UINTR.to_bytes(8, "little")
    got = cpu.try_xrstors(area, ALL)
    assert isinstance(got, Fault) and (got.vector, got.rule) == ("#GP", "UINTR-UINV")
    area[512:520] = bytes(8)
    assert cpu.try_xrstors(area, ALL) is None       # initialising it is no fault
    assert cpu.rdmsr(0x988) == 0


def test_the_interrupt_flag_lies_in_bit_63():
    area = image(INTEL, EVERYTHING, COMPACTED, 0)
    area[512:520] = UINTR.to_bytes(8, "little")
    for misc, flag in ((1 << 63 | 7, 1), (7, 0)):
        area[OFFSETS[14] + 16 : OFFSETS[14] + 24] = misc.to_bytes(8, "little")
        cpu = kernel()
        cpu.xrstors(area, ALL)
        assert (cpu.registers()["uif"], cpu.rdmsr(0x988)) == (flag, 7)
        back = bytearray(16384)
        cpu.xsaves(back, ALL, BASE)     # elsewhere, or nothing were modified
        assert number(back, OFFSETS[14] + 16) == misc
        assert number(back, 512) == UINTR


def test_a_fault_after_uintr_was_loaded_clears_the_notification_vector():
    """A page inside TILEDATA is missing; TILEDATA comes after UINTR."""
    area = image(INTEL, EVERYTHING, COMPACTED, 0)
    area[512:520] = (UINTR | 1 << 18).to_bytes(8, "little")
    area[OFFSETS[14] + 16 : OFFSETS[14] + 24] = (0xEC << 32 | 9).to_bytes(8, "little")
    cpu = kernel()
    got = cpu.try_xrstors(holed(area, (4096, 8192)), ALL, BASE)
    assert isinstance(got, Fault) and got.vector == "#PF"
    assert cpu.rdmsr(0x988) >> 32 == 0
