"""IA32_XFD armed for TILEDATA: what saves and restores do with a disabled component (SDM1 13.14)."""

import pytest
from reference import COMPACTED, STANDARD

from tests.processor.operands import ALL, AMD, BASE, INTEL, TILES, holed, image, processor
from xsave import Fault, Processor

TILEDATA = 1 << 18
XFD, XFD_ERR = 0x1C4, 0x1C5
CONFIG = b"\x01" + bytes(15) + b"\x40" + bytes(31) + b"\x10" + bytes(15)
FORMATS = {"xsave": STANDARD, "xsaveopt": STANDARD, "xsavec": COMPACTED, "xsaves": COMPACTED}
AT = {STANDARD: 2816, COMPACTED: 2560}     # where TILEDATA of everything in XCR0 begins


def armed(*, tiles: bool = True, **controls: object) -> Processor:
    """Tiles filled, then XFD armed."""
    cpu = processor(INTEL, **{"cpl": 0, **controls})
    if tiles:
        cpu.load({"tilecfg": CONFIG, "tmm0": b"\x31" * 1024, "tmm7": b"\x32" * 1024, "zmm20": b"\x07" * 64})
    cpu.wrmsr(XFD, TILEDATA)
    return cpu


def disabled(result: object) -> bool:
    if not isinstance(result, Fault):
        return False
    return (result.vector, result.rule, result.error_code) == ("#NM", "XFD", 0)


@pytest.mark.parametrize("insn", FORMATS)
def test_saves_take_a_disabled_component_for_initial(insn):
    cpu = armed()
    at = AT[FORMATS[insn]]
    area = bytearray(b"\xee" * 16384)
    getattr(cpu, insn)(area, ALL)
    xstate_bv = int.from_bytes(area[512:520], "little")
    old = 0 if FORMATS[insn] == COMPACTED else 0xEEEEEEEEEEEEEEEE & ~TILES
    assert xstate_bv == old | 1 << 17 | 0x80
    if insn == "xsave":
        assert area[at : at + 8192] == bytes(8192)      # no size guard: the zeros are written
    else:
        assert area[at : at + 8192] == b"\xee" * 8192
    if FORMATS[insn] == COMPACTED:
        assert int.from_bytes(area[520:528], "little") == TILES | 1 << 63     # the slot is there all the same
    assert area[at - 64 : at] == CONFIG
    assert int(cpu.ia32_xfd_err) == 0


def test_an_old_bit_in_memory_is_cleared():
    for insn in ("xsave", "xsaveopt"):
        area = image(INTEL, TILES, STANDARD, TILES)
        getattr(armed(), insn)(area, TILEDATA)
        assert int.from_bytes(area[512:520], "little") == TILES & ~TILEDATA


def test_xgetbv_1_does_not_show_it():
    cpu = armed()
    assert cpu.xgetbv(1) == 0x20080
    assert cpu.xgetbv(0) == TILES
    cpu.wrmsr(XFD, 0)
    assert cpu.xgetbv(1) & ~TILEDATA == 0x20080


@pytest.mark.parametrize("fmt", [STANDARD, COMPACTED])
@pytest.mark.parametrize("insn", ["xrstor", "xrstors"])
@pytest.mark.parametrize(("xstate_bv", "mask", "faults"), [
    (TILES, ALL, True), (TILEDATA, TILEDATA, True), (TILES, ALL & ~TILEDATA, False), (TILES, 0, False),
    (TILES & ~TILEDATA, ALL, False), (0, TILEDATA, False),
])
def test_restores_fault_only_if_they_would_load_it(fmt, insn, xstate_bv, mask, faults):
    if insn == "xrstors" and fmt == STANDARD:
        return
    cpu = armed()
    before = cpu.registers(), cpu.xinuse
    got = getattr(cpu, "try_" + insn)(image(INTEL, TILES, fmt, xstate_bv), mask)
    if not faults:
        assert got is None
        assert int(cpu.ia32_xfd_err) == 0
        return
    assert disabled(got)
    assert cpu.rdmsr(XFD_ERR) == int(cpu.ia32_xfd_err) == TILEDATA
    assert (cpu.registers(), cpu.xinuse) == before
    cpu.wrmsr(XFD, 0)
    assert getattr(cpu, "try_" + insn)(image(INTEL, TILES, fmt, xstate_bv), mask) is None     # restarted
    assert int(cpu.xinuse) & TILEDATA


def test_initialising_it_is_no_fault_and_initialises():
    cpu = armed()
    cpu.xrstor(image(INTEL, TILES, STANDARD, 7), TILEDATA)
    cpu.wrmsr(XFD, 0)
    assert cpu.registers()["tmm0"] == bytes(1024)
    assert not int(cpu.xinuse) & TILEDATA


def test_order_of_faults_of_a_restore():
    cpu = armed()
    bad_mxcsr = image(INTEL, TILES, STANDARD, TILES)
    bad_mxcsr[27] = 1
    assert disabled(cpu.try_xrstor(bad_mxcsr, ALL))
    bad_header = image(INTEL, TILES, COMPACTED, TILES)
    bad_header[528] = 1
    got = cpu.try_xrstor(bad_header, ALL)
    assert isinstance(got, Fault) and got.rule == "H-RESERVED"
    area = image(INTEL, TILES, STANDARD, TILES)
    assert disabled(cpu.try_xrstor(holed(area, (4096, 8192)), ALL, BASE))       # beats a page inside
    got = cpu.try_xrstor(holed(area, 11007), ALL, BASE)
    assert isinstance(got, Fault) and got.vector == "#PF"                       # but no probe


def test_ts_comes_first_and_leaves_xfd_err_alone():
    cpu = armed()
    cpu.cr0_ts = True
    got = cpu.try_xrstor(image(INTEL, TILES, STANDARD, TILES), ALL)
    assert isinstance(got, Fault) and (got.vector, got.rule) == ("#NM", "TS")
    assert int(cpu.ia32_xfd_err) == 0


def test_xfd_err_is_software_to_clear():
    cpu = armed()
    area = image(INTEL, TILES, STANDARD, TILES)
    assert disabled(cpu.try_xrstor(area, ALL))
    assert cpu.try_xrstor(area, 7) is None
    assert cpu.rdmsr(XFD_ERR) == TILEDATA
    cpu.wrmsr(XFD_ERR, 0)
    assert cpu.rdmsr(XFD_ERR) == 0
    assert disabled(cpu.try_xrstor(area, ALL))
    assert cpu.rdmsr(XFD_ERR) == TILEDATA


def test_xfd_needs_xcr0_to_be_active():
    cpu = processor(INTEL, xcr0=0x2E7, ia32_xfd=TILEDATA, cpl=0)
    assert cpu.try_xrstor(image(INTEL, 0x2E7, STANDARD, 0x2E7), ALL) is None
    got = cpu.try_tilezero(0)
    assert isinstance(got, Fault) and got.vector == "#UD"
    assert int(cpu.ia32_xfd_err) == 0


def test_only_tile_registers_are_disabled():
    cpu = armed(tiles=False)
    cpu.write("zmm0", b"\x01" * 64)
    cpu.write("k1", 1)
    cpu.write("pkru", 1)
    with pytest.raises(Fault, match="#NM") as caught:
        cpu.write("tmm0", b"\x01" * 1024)
    assert disabled(caught.value)
    assert int(cpu.xinuse) == 0x2E6 & ~0x80
    assert int(cpu.ia32_xfd_err) == TILEDATA


@pytest.mark.parametrize("value", [1 << 17, 1 << 5, 1 << 63, TILEDATA | 1])
def test_nothing_else_can_be_disabled(value):
    with pytest.raises(ValueError, match="IA32_XFD"):
        processor(INTEL, ia32_xfd=value)
    with pytest.raises(ValueError, match="IA32_XFD"):
        processor(AMD, ia32_xfd=TILEDATA)
