"""What a fault leaves behind: nothing, or on Intel what had been moved before it (SDM1 13.12; measured)."""

import pytest
import reference
from reference import COMPACTED, STANDARD

from tests.processor.operands import ALL, AMD, BASE, INTEL, SIZE, TILES, full_state, holed, image, processor
from xsave import Fault, Processor

HOLE = (4096, 8192)     # inside TILEDATA of the standard format, where nothing is probed
TILE_CONFIG = b"\x01" + bytes(15) + b"\x40" + bytes(31) + b"\x10" + bytes(15)


def registers(cpu: Processor) -> dict[str, int | bytes]:
    return {name: value for name, value in cpu.registers().items() if name != "mxcsr_mask"}


def slowly_saved(insn: str, state: dict[str, int | bytes], area: bytearray) -> bytearray:
    slow = reference.Cpu(INTEL, state, cpl=0)
    assert getattr(slow, insn)(area, ALL) is None
    return area


def restored(state: dict[str, int | bytes], area: bytearray, mask: int = ALL) -> dict[str, int | bytes]:
    """What the independent model's registers hold after XRSTOR."""
    slow = reference.Cpu(INTEL, state)
    assert slow.xrstor(area, mask) is None
    return {name: value for name, value in slow.registers.items() if name != "mxcsr_mask"}


@pytest.mark.parametrize(("insn", "hole"), [
    ("xsave", HOLE), ("xsaveopt", HOLE), ("xsavec", HOLE), ("xsaves", HOLE), ("xsave", (1664, 1700)),
    ("xsaveopt", (1200, 1201)), ("xsavec", (850, 900)), ("xsave", (1100, 1120)),
])
def test_a_save_has_stored_every_byte_below_the_page(insn, hole):
    state = full_state(INTEL, TILES)
    buffer = bytearray(b"\xa5" * SIZE)
    want = slowly_saved(insn, state, bytearray(buffer))
    cpu = processor(INTEL, cpl=0)
    cpu.load(state)
    before = cpu.registers()
    got = getattr(cpu, "try_" + insn)(holed(buffer, hole), ALL, BASE)
    assert isinstance(got, Fault) and (got.vector, got.error_code, got.offset) == ("#PF", 2, hole[0])
    assert buffer[:512] == want[:512]
    assert buffer[512:576] == b"\xa5" * 64      # the header comes last
    assert buffer[576 : hole[0]] == want[576 : hole[0]]
    assert buffer[hole[0] :] == b"\xa5" * (SIZE - hole[0])
    assert cpu.registers() == before


@pytest.mark.parametrize("insn", ["xsave", "xsaveopt", "xsavec", "xsaves"])
@pytest.mark.parametrize("name", [INTEL, AMD])
def test_an_atomic_save_has_stored_nothing(name, insn):
    mask = int(processor(name).xcr0)
    cpu = processor(name, cpl=0, atomic_faults=True if name == INTEL else None)
    cpu.load(full_state(name, mask))
    for hole in ((300, 400), (600, 700), (1300, 1301)):
        buffer = bytearray(b"\xa5" * SIZE)
        got = getattr(cpu, "try_" + insn)(holed(buffer, hole), ALL, BASE)
        assert isinstance(got, Fault) and (got.vector, got.offset) == ("#PF", hole[0])
        assert buffer == b"\xa5" * SIZE


def test_a_page_between_matters_only_if_something_moves_there():
    """XSAVEOPT, XSAVEC and XSAVES skip TILEDATA that is initial; XSAVE writes its zeros."""
    for insn in ("xsaveopt", "xsavec", "xsaves", "xsave"):
        cpu = processor(INTEL, cpl=0)
        cpu.load({"xmm0": b"\x01" * 16})
        buffer = bytearray(SIZE)
        got = getattr(cpu, "try_" + insn)(holed(buffer, HOLE), ALL, BASE)
        if insn == "xsave":
            assert isinstance(got, Fault) and got.offset == HOLE[0]
        else:
            assert got is None
            assert buffer[512] == 2


def test_a_gap_between_components_needs_no_page():
    """1000 lies between YMM and the mask registers, where this model has nothing."""
    cpu = processor(INTEL)
    cpu.load(full_state(INTEL, TILES))
    area = image(INTEL, TILES, STANDARD, TILES)
    for insn in ("xsave", "xsaveopt", "xrstor"):
        assert getattr(cpu, "try_" + insn)(holed(area, (832, 1088), (420, 511)), ALL, BASE) is None


def test_a_restore_needs_no_page_of_what_it_initialises():
    for fmt in (STANDARD, COMPACTED):
        area = image(INTEL, TILES, fmt, 0xE7)
        cpu = processor(INTEL)
        cpu.load(full_state(INTEL, TILES))
        assert cpu.try_xrstor(holed(area, HOLE), ALL, BASE) is None
        assert cpu.registers()["tmm5"] == bytes(1024)
        assert int(cpu.xinuse) == 0xE7
        cpu = processor(INTEL)
        area = image(INTEL, TILES, fmt, TILES)
        assert cpu.try_xrstor(holed(area, HOLE), TILES & ~(1 << 18), BASE) is None      # nor of what was not asked


@pytest.mark.parametrize("fmt", [STANDARD, COMPACTED])
def test_a_restore_that_meets_a_page_inside_tiledata(fmt):
    """All initialisations, then the components in order; TILEDATA: all tiles zero, and in use."""
    state = full_state(INTEL, TILES, 7)
    xstate_bv = TILES & ~0x220
    area = image(INTEL, TILES, fmt, xstate_bv)
    want = restored(state, area) | {f"tmm{t}": bytes(1024) for t in range(8)}
    cpu = processor(INTEL)
    cpu.load(state)
    got = cpu.try_xrstor(holed(area, HOLE), ALL, BASE)
    assert isinstance(got, Fault) and (got.vector, got.error_code, got.offset) == ("#PF", 4, HOLE[0])
    assert registers(cpu) == want
    assert int(cpu.xinuse) & ~(1 << 17) == xstate_bv & ~(1 << 17)
    assert want["pkru"] == 0 and want["k0"] == 0


@pytest.mark.parametrize(("begin", "whole"), [(1664, 0), (1664 + 63, 0), (1664 + 64, 1), (1664 + 100, 1), (2500, 13)])
def test_a_restore_loads_the_registers_wholly_below_the_page(begin, whole):
    state = full_state(INTEL, TILES, 7)
    area = image(INTEL, TILES, STANDARD, TILES & ~0x200)
    want = restored(state, area)
    cpu = processor(INTEL)
    cpu.load(state)
    got = cpu.try_xrstor(holed(area, (begin, begin + 10)), ALL, BASE)
    assert isinstance(got, Fault) and got.offset == begin
    after = registers(cpu)
    late = [f"zmm{16 + i}" for i in range(whole, 16)] + ["tilecfg"] + [f"tmm{t}" for t in range(8)]
    for name in late:
        assert after[name] == state[name], name     # not reached
        assert want[name] != state[name], name
    for name in set(want) - set(late):
        assert after[name] == want[name], name
    assert after["pkru"] == 0   # initialised, though it comes later in the area
    assert int(cpu.xinuse) & 0x80


@pytest.mark.parametrize("fmt", [STANDARD, COMPACTED])
@pytest.mark.parametrize("name", [INTEL, AMD])
def test_an_atomic_restore_has_changed_nothing(name, fmt):
    mask = int(processor(name).xcr0)
    state = full_state(name, mask, 7)
    cpu = processor(name, atomic_faults=True if name == INTEL else None)
    cpu.load(state)
    before, used = cpu.registers(), cpu.xinuse
    area = image(name, mask, fmt, mask & ~0x220)
    for hole in (700, 1300, 1500):
        got = cpu.try_xrstor(holed(area, hole), ALL, BASE)
        assert isinstance(got, Fault) and (got.vector, got.offset) == ("#PF", hole)
        assert cpu.registers() == before
        assert cpu.xinuse == used
    area[26] = 0xFF
    got = cpu.try_xrstor(area, ALL)
    assert isinstance(got, Fault) and (got.vector, got.rule) == ("#GP", "H-MXCSR")
    assert cpu.registers() == before
    assert cpu.xinuse == used


def test_bad_mxcsr_in_the_standard_format_changes_nothing():
    cpu = processor(INTEL)
    cpu.load(full_state(INTEL, TILES, 7))
    before, used = cpu.registers(), cpu.xinuse
    area = image(INTEL, TILES, STANDARD, 0x43)
    area[27] = 1
    got = cpu.try_xrstor(area, ALL)
    assert isinstance(got, Fault) and (got.vector, got.rule, got.offset) == ("#GP", "H-MXCSR", 27)
    assert (cpu.registers(), cpu.xinuse) == (before, used)


def test_bad_mxcsr_in_the_compacted_format_comes_after_initialisations_x87_and_xmm():
    state = full_state(INTEL, TILES, 7)
    xstate_bv = 0x43 | 1 << 17      # to be loaded: x87, SSE, ZMM_Hi256, TILECFG
    area = image(INTEL, TILES, COMPACTED, xstate_bv)
    # What is loaded from 2 on stays: as if only 0 and 1 were loaded and the rest initialised.
    want = restored(state, area, mask=TILES & ~(1 << 6 | 1 << 17))
    area[24:28] = (1 << 16).to_bytes(4, "little")
    cpu = processor(INTEL)
    cpu.load(state)
    got = cpu.try_xrstor(area, ALL)
    assert isinstance(got, Fault) and (got.vector, got.rule, got.offset) == ("#GP", "H-MXCSR", 26)
    after = registers(cpu)
    assert after["mxcsr"] == state["mxcsr"] != 0x1F80
    for name in set(want) - {"mxcsr"}:
        assert after[name] == want[name], name
    assert after["fcw"] != state["fcw"] or after["st0"] != state["st0"]
    assert after["tilecfg"] == state["tilecfg"] and after["tmm0"] == bytes(1024)


@pytest.mark.parametrize("by_load", [True, False])
def test_tiles_when_their_configuration_is_initialised_before_the_fault(by_load):
    """Tiles that TILELOADD had filled are zero afterwards, tiles from an XRSTOR unchanged (measured)."""
    cpu = processor(INTEL)
    if by_load:
        cpu.ldtilecfg(TILE_CONFIG)
        cpu.tileloadd(0, bytes(range(64)) * 16, 64)
    else:
        full = image(INTEL, TILES, STANDARD, TILES)
        full[2816:3840] = bytes(range(64)) * 16
        cpu.xrstor(full, TILES)
    assert cpu.registers()["tmm0"] == bytes(range(64)) * 16
    area = image(INTEL, TILES, COMPACTED, 2 | 1 << 18)
    area[24:28] = (1 << 16).to_bytes(4, "little")
    got = cpu.try_xrstor(area, ALL)
    assert isinstance(got, Fault) and got.rule == "H-MXCSR"
    assert cpu.registers()["tmm0"] == (bytes(1024) if by_load else bytes(range(64)) * 16)
    assert cpu.registers()["tilecfg"] == bytes(64)


@pytest.mark.parametrize(("insn", "name"), [("xrstor", INTEL), ("xrstor", AMD), ("xrstors", INTEL), ("xrstors", AMD)])
def test_a_bad_header_changes_nothing(insn, name):
    cpu = processor(name, cpl=0)
    mask = int(cpu.xcr0)
    cpu.load(full_state(name, mask, 7))
    before = cpu.registers(), cpu.xinuse, cpu.xrstor_info
    for at in (514, 521, 528, 550, 575):
        area = image(name, 0xE7, COMPACTED, 3)
        area[at] = 0x40
        got = getattr(cpu, "try_" + insn)(area, ALL)
        assert isinstance(got, Fault) and (got.vector, got.offset) == ("#GP", at)
        assert (cpu.registers(), cpu.xinuse, cpu.xrstor_info) == before
