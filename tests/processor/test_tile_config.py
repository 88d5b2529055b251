"""LDTILECFG, STTILECFG, TILERELEASE: which images are refused, and what the others do (SDM2; measured)."""

import pytest

from tests.processor.operands import BASE, INTEL, holed
from tests.processor.tile_state import config, filled, fresh
from xsave import CpuModel, Fault, Processor
from xsave.memory import Memory

TILES_IN_USE = 0x60000


def ace_model() -> CpuModel:
    """INTEL with palette 2 and its scale registers, component 20, behind everything else."""
    leaves = dict(CpuModel.named(INTEL).cpuid)
    eax, ebx, ecx, edx = leaves[0xD, 0]
    leaves[0xD, 0] = (eax | 1 << 20, ebx, ecx + 128, edx)
    leaves[0xD, 20] = (128, 11008, 0, 0)
    leaves[0x1D, 0] = (2, 0, 0, 0)
    leaves[0x1D, 2] = (1, 0, 0, 0)
    return CpuModel.from_cpuid(leaves)


def refused(result: object, rule: str, offset: int | None) -> bool:
    if not isinstance(result, Fault):
        return False
    return (result.vector, result.error_code, result.rule, result.offset) == ("#GP", 0, rule, offset)


def refusals(image: bytes | bytearray) -> set[int]:
    """The bytes to blame by the rules of palette 1, straight from the manual."""
    if image[0] == 0:
        return set()
    if image[0] > 1:
        return {0}
    bad = {i for i in (*range(2, 16), *range(32, 48), *range(56, 64)) if image[i]}
    for t in range(8):
        rows, colsb = image[48 + t], int.from_bytes(image[16 + 2 * t : 18 + 2 * t], "little")
        if colsb > 64:
            bad |= {16 + 2 * t, 17 + 2 * t}
        if rows > 16:
            bad.add(48 + t)
        if (rows == 0) != (colsb == 0):
            bad |= {48 + t, 16 + 2 * t, 17 + 2 * t}
    return bad


@pytest.mark.parametrize("at", range(64))
def test_every_byte_of_an_image(at):
    """Every value of every byte, on a sound image and on an empty one."""
    for base in (config([(16, 64), (1, 4), (3, 12)]), config([])):
        cpu = filled()
        for value in range(256):
            image = bytearray(base)
            image[at] = value
            bad = refusals(image)
            before = cpu.registers()["tilecfg"]
            got = cpu.try_ldtilecfg(image)
            if bad:
                assert isinstance(got, Fault) and got.vector == "#GP" and got.rule.startswith("T-")
                assert got.offset in bad, (value, got)
                assert cpu.registers()["tilecfg"] == before
            else:
                assert got is None, value
                assert cpu.registers()["tilecfg"] == (bytes(image) if image[0] else bytes(64))


@pytest.mark.parametrize(("place", "value", "rule", "offset"), [
    (0, 2, "T-PALETTE", 0), (0, 255, "T-PALETTE", 0), (2, 1, "T-RESERVED", 2), (15, 128, "T-RESERVED", 15),
    (16, 65, "T-COLSB", 16), (17, 1, "T-COLSB", 17), (32, 1, "T-COLSB-REST", 32), (47, 1, "T-COLSB-REST", 47),
    (48, 17, "T-ROWS", 48), (56, 1, "T-ROWS-REST", 56), (63, 1, "T-ROWS-REST", 63),
])
def test_names_of_the_rules(place, value, rule, offset):
    image = config([(16, 64)])
    image[place] = value
    got = fresh().try_ldtilecfg(image)
    if rule == "T-COLSB":
        assert isinstance(got, Fault) and got.rule == rule and got.offset in (16, 17)
    else:
        assert refused(got, rule, offset)
    half = fresh().try_ldtilecfg(config([(16, 64), (0, 4)]))
    assert isinstance(half, Fault) and half.rule == "T-HALF"


def test_a_refused_image_changes_nothing():
    cpu = filled()
    before = cpu.registers(), cpu.xinuse
    bad = config([(17, 64)])
    assert cpu.try_ldtilecfg(bad) is not None
    got = cpu.try_ldtilecfg(holed(bad, 63), BASE)       # #PF beats #GP: all is read first
    assert isinstance(got, Fault) and (got.vector, got.offset, got.error_code) == ("#PF", 63, 4)
    with pytest.raises(ValueError, match="LDTILECFG"):
        cpu.ldtilecfg(bytes(63))
    assert (cpu.registers(), cpu.xinuse) == before


def test_loading_zeroes_every_tile():
    for image, in_use in ((config([(16, 64)] * 8), 1 << 17), (config([(1, 4)]), 1 << 17), (config([]), 1 << 17),
                          (bytes(64), 0), (b"\0" + b"\xff" * 63, 0)):
        cpu = filled()
        cpu.ldtilecfg(image)
        got = cpu.registers()
        assert all(got[f"tmm{t}"] == bytes(1024) for t in range(8))
        assert int(cpu.xinuse) & TILES_IN_USE == in_use
        assert got["tilecfg"] == (bytes(image) if in_use else bytes(64))
        back = bytearray(b"\xee" * 66)
        cpu.sttilecfg(back)
        assert back == got["tilecfg"] + b"\xee" * 2


@pytest.mark.parametrize("start_row", [0, 1, 15, 16, 255])
def test_start_row_and_odd_widths_are_not_checked_at_load(start_row):
    image = config([(16, 63), (1, 1)], start_row)
    cpu = fresh()
    cpu.ldtilecfg(image)
    back = bytearray(64)
    cpu.sttilecfg(back)
    assert back == image


def test_releasing():
    cpu = filled(start_row=3)
    cpu.tilerelease()
    got = cpu.registers()
    assert got["tilecfg"] == bytes(64)
    assert all(got[f"tmm{t}"] == bytes(1024) for t in range(8))
    assert not int(cpu.xinuse) & TILES_IN_USE
    cpu.tilerelease()


def test_storing_faults_whole():
    cpu = filled()
    buffer = bytearray(b"\xee" * 64)
    got = cpu.try_sttilecfg(holed(buffer, 40), BASE)
    assert isinstance(got, Fault) and (got.vector, got.offset, got.error_code) == ("#PF", 40, 6)
    got = cpu.try_sttilecfg(holed(buffer, writable=False), BASE)
    assert isinstance(got, Fault) and (got.vector, got.offset, got.error_code) == ("#PF", 0, 7)
    assert buffer == b"\xee" * 64
    for short in (bytearray(63), bytes(64)):
        with pytest.raises(ValueError, match="STTILECFG"):
            cpu.sttilecfg(short)


def test_no_alignment():
    cpu = fresh(ac=True)
    for offset in (1, 3, 7, 63):
        assert cpu.try_ldtilecfg(config([(16, 64)]), BASE + offset) is None
        assert cpu.try_sttilecfg(bytearray(64), BASE + offset) is None
    for run in (cpu.try_ldtilecfg, cpu.try_sttilecfg):
        got = run(Memory(), 1 << 47)
        assert isinstance(got, Fault) and (got.vector, got.rule) == ("#GP", "CANONICAL")
        got = run(Memory(), 1 << 47, "ss")
        assert isinstance(got, Fault) and (got.vector, got.rule) == ("#SS", "CANONICAL")


def test_palette_2():
    """No shapes: bytes 1-63 are zero; XCR0[20] supports it."""
    model = ace_model()
    cpu = Processor(model, xcr0=0x602E7)
    assert refused(cpu.try_ldtilecfg(config([], palette=2)), "T-XCR0", 0)
    cpu = Processor(model)
    for at in range(1, 64):
        image = config([], palette=2)
        image[at] = 1
        assert refused(cpu.try_ldtilecfg(image), "T-ACE-REST", at)
    cpu.load({"tmm3": b"\x01" * 1024})
    cpu.ldtilecfg(config([], palette=2))
    assert cpu.registers()["tmm3"] == bytes(1024)
    back = bytearray(64)
    cpu.sttilecfg(back)
    assert back == b"\x02" + bytes(63)
    for run in (cpu.try_tileloadd, cpu.try_tilestored):
        got = run(0, bytearray(1024), 64)
        assert isinstance(got, Fault) and got.vector == "#UD"
    assert cpu.try_tilezero(7) is None
    assert refused(cpu.try_ldtilecfg(config([], palette=3)), "T-PALETTE", 0)


@pytest.mark.parametrize(
    "image", [config([], palette=2), config([(16, 64)]), None], ids=["palette 2", "palette 1", "release"]
)
def test_configuring_and_releasing_initialise_the_scale_registers(image):
    """Every byte of their initial configuration is 7FH."""
    cpu = Processor(ace_model())
    assert cpu.registers()["bsr0"] == b"\x7f" * 128
    cpu.load({"bsr0": bytes(128)})
    assert int(cpu.xinuse) == 1 << 20
    if image is None:
        cpu.tilerelease()
    else:
        cpu.ldtilecfg(image)
    assert cpu.registers()["bsr0"] == b"\x7f" * 128
    assert not int(cpu.xinuse) >> 20


def test_scale_registers_need_tiles_in_xcr0():
    cpu = Processor(ace_model(), xcr0=1, cpl=0)
    got = cpu.try_xsetbv(0, 0x100001)
    assert isinstance(got, Fault) and got.rule == "R-ACE"
    assert cpu.try_xsetbv(0, 0x160001) is None


@pytest.mark.parametrize("lacking", [0x60000, 0x20000, 0x40000])
def test_palettes_alone_are_no_tiles(lacking):
    """CPUID with tile palettes, and without one or both of the components: as much AMX as none."""
    leaves = dict(CpuModel.named(INTEL).cpuid)
    eax, ebx, ecx, edx = leaves[0xD, 0]
    leaves[0xD, 0] = (eax & ~lacking, ebx, ecx, edx)
    cpu = Processor(CpuModel.from_cpuid(leaves), xcr0=7)
    for fault in (cpu.try_ldtilecfg(bytes(64)), cpu.try_sttilecfg(bytearray(64)), cpu.try_tilezero(0)):
        assert isinstance(fault, Fault)
        assert fault.vector == "#UD"
