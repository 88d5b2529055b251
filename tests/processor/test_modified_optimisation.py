"""When XSAVEOPT and XSAVES leave out what has not changed since the last restore (SDM1 13.6, 13.9, 13.11; measured)."""

from collections.abc import Callable

import pytest
import reference
from reference import COMPACTED, STANDARD

from tests.processor.operands import ALL, AMD, INTEL, TILES, image, processor
from xsave import Processor

HERE, THERE = 0x4000, 0x8000
CET = 0x1800
MASKS = {INTEL: TILES, AMD: 0x2E7}
# Intel never leaves out TILECFG (measured); AMD has none.
ALWAYS = {INTEL: 1 << 17, AMD: 0}


def restored(name: str, fmt: str = STANDARD, rfbm: int = ALL, **controls: object) -> Processor:
    """Everything in use, restored from HERE."""
    cpu = processor(name, **controls)
    area = image(name, MASKS[name], fmt, MASKS[name], seed="first")
    area[24:28] = b"\x80\x1f\0\0"
    cpu.xrstor(area, ALL, THERE)
    cpu.xrstor(area, rfbm, HERE)
    return cpu


def stored(cpu: Processor, insn: str, mask: int = ALL, address: int = HERE, **more: object) -> int:
    """The components that a save writes."""
    name = cpu.model.name
    area = bytearray(b"\xcc" * 16384)
    getattr(cpu, insn)(area, mask, address, **more)
    if insn == "xsaveopt":
        slots = reference.standard_offsets(name, MASKS[name])
    else:
        slots, _ = reference.compacted_offsets(name, int.from_bytes(area[520:528], "little") & ~(1 << 63))
    found = sum(1 << i for i, (at, size) in slots.items() if area[at : at + size] != b"\xcc" * size)
    found |= 1 if area[:24] != b"\xcc" * 24 else 0
    return found | (2 if area[160:416] != b"\xcc" * 256 else 0)


def same(cpu: Processor) -> None:
    """Nothing happens in between."""


def set_cpl(cpu: Processor) -> None:
    cpu.cpl = 2


def other_xrstor(cpu: Processor) -> None:
    cpu.xrstor(image(cpu.model.name, 7, STANDARD, 0), 0, THERE)


def empty_xrstor(cpu: Processor) -> None:
    cpu.xrstor(image(cpu.model.name, 7, STANDARD, 0), 0, HERE)


def save_elsewhere(cpu: Processor) -> None:
    for insn in ("xsave", "xsaveopt", "xsavec"):
        getattr(cpu, insn)(bytearray(16384), ALL, THERE)
    cpu.xgetbv(0)
    cpu.xgetbv(1)
    cpu.xsave(bytearray(16384), ALL, HERE)


def failing_xrstor(cpu: Processor) -> None:
    assert cpu.try_xrstor(bytearray(b"\xff" * 16384), ALL, HERE) is not None


def load_nothing(cpu: Processor) -> None:
    cpu.load({})


@pytest.mark.parametrize("name", [INTEL, AMD])
@pytest.mark.parametrize(("between", "all_written"), [
    (same, False), (save_elsewhere, False), (failing_xrstor, False), (set_cpl, True), (other_xrstor, True),
    (empty_xrstor, True), (load_nothing, True),
])
def test_conditions_of_xsaveopt(name, between: Callable[[Processor], None], all_written):
    cpu = restored(name)
    between(cpu)
    assert stored(cpu, "xsaveopt") == (MASKS[name] if all_written else ALWAYS[name])


@pytest.mark.parametrize("name", [INTEL, AMD])
def test_address_format_and_the_form_of_the_instruction(name):
    assert stored(restored(name), "xsaveopt", address=THERE) == MASKS[name]
    assert stored(restored(name), "xsaveopt", rexw=False) == ALWAYS[name]
    assert stored(restored(name, COMPACTED), "xsaveopt") == MASKS[name]
    for segment in ("ds", "ss"):
        assert stored(restored(name), "xsaveopt", segment=segment) == ALWAYS[name]
    assert stored(restored(name, modified_opt=False), "xsaveopt") == MASKS[name]
    assert stored(restored(name), "xsavec") == MASKS[name]      # XSAVEC has no such thing


@pytest.mark.parametrize("name", [INTEL, AMD])
def test_masks(name):
    assert stored(restored(name), "xsaveopt", 0xE3) == 0                    # narrower: still nothing
    assert stored(restored(name, rfbm=7), "xsaveopt", 0xE7) == 0xE0         # what XRSTOR did not load
    assert stored(restored(name, rfbm=0xE0), "xsaveopt", 7) == 7


@pytest.mark.parametrize("name", [INTEL, AMD])
@pytest.mark.parametrize(("register", "component"), [("xmm3", 2), ("k1", 0x20), ("pkru", 0x200), ("zmm20", 0x80)])
def test_a_changed_register_is_written_with_its_component_alone(name, register, component):
    cpu = restored(name)
    value = cpu.registers()["zmm3"][:16] if register == "xmm3" else cpu.registers()[register]
    cpu.write(register, value)      # the same value, but a write
    assert stored(cpu, "xsaveopt") == component | ALWAYS[name]


def test_tilecfg_is_written_only_while_in_use():
    cpu = restored(INTEL)
    area = image(INTEL, TILES, STANDARD, TILES & ~(1 << 17))
    cpu.xrstor(area, ALL, HERE)
    assert stored(cpu, "xsaveopt") == 0


def test_ldmxcsr_and_vzeroupper_differ():
    """Intel: LDMXCSR marks SSE, VZEROUPPER does not; Zen 5 the other way round."""
    for name, by_mxcsr, by_vzeroupper in ((INTEL, 2, 0), (AMD, 0, 2)):
        cpu = restored(name)
        cpu.ldmxcsr(0x1F80)
        assert stored(cpu, "xsaveopt") == by_mxcsr | ALWAYS[name]
        cpu = restored(name)
        cpu.vzeroupper()
        assert stored(cpu, "xsaveopt") & 2 == by_vzeroupper


@pytest.mark.parametrize("name", [INTEL, AMD])
def test_mxcsr_and_xstate_bv_are_written_all_the_same(name):
    cpu = restored(name)
    area = bytearray(b"\xcc" * 512 + bytes(8) + b"\xcc" * 16384)
    cpu.xsaveopt(area, ALL, HERE)
    assert area[24:28] == b"\x80\x1f\0\0"
    assert int.from_bytes(area[512:520], "little") == MASKS[name]       # stale data, by design
    assert area[:24] + area[32:512] == b"\xcc" * 504
    assert area[520:2752] == b"\xcc" * (2752 - 520)


def test_a_restore_in_compatibility_mode_did_not_reach_the_upper_registers():
    cpu = processor(INTEL)
    area = image(INTEL, TILES, STANDARD, TILES)
    cpu.xrstor(area, ALL, THERE)
    cpu.mode = 32
    cpu.xrstor(area, ALL, HERE)
    assert stored(cpu, "xsaveopt") == 1 << 17       # the mode is no condition, and lo alone is looked at there
    cpu.mode = 64
    assert stored(cpu, "xsaveopt") == 0xC6 | 1 << 17


def test_changes_to_the_upper_registers_are_out_of_sight_in_compatibility_mode():
    cpu = restored(INTEL)
    cpu.write("zmm9", b"\x01" * 64)
    cpu.mode = 32
    assert stored(cpu, "xsaveopt") == 1 << 17
    cpu.mode = 64
    assert stored(cpu, "xsaveopt") == 0x46 | 1 << 17


# --- XSAVES -----------------------------------------------------------------------------------------------------

def kernel(name: str, xcomp: int, rfbm: int = ALL, **controls: object) -> Processor:
    """Everything in use, then XRSTORS of an area of `xcomp` from HERE."""
    cpu = processor(name, cpl=0, ia32_xss=CET, **controls)
    whole = image(name, MASKS[name] | CET, COMPACTED, MASKS[name])
    whole[24:28] = b"\x80\x1f\0\0"
    cpu.xrstors(whole, ALL, THERE)
    area = image(name, xcomp, COMPACTED, xcomp & MASKS[name])
    area[24:28] = b"\x80\x1f\0\0"
    cpu.xrstors(area, rfbm, HERE)
    return cpu


@pytest.mark.parametrize("name", [INTEL, AMD])
def test_conditions_of_xsaves(name):
    """The area must have exactly the components that are saved now."""
    mask = MASKS[name] | CET
    assert stored(kernel(name, mask), "xsaves") == ALWAYS[name]
    assert stored(kernel(name, mask), "xsaves", address=THERE) == MASKS[name]
    assert stored(kernel(name, mask), "xsaves", mask & ~1) == MASKS[name] & ~1
    assert stored(kernel(name, mask, modified_opt=False), "xsaves") == MASKS[name]
    assert stored(kernel(name, 0xE7), "xsaves", 0xE7) == 0
    assert stored(kernel(name, 0xE7, rfbm=7), "xsaves", 0xE7) == 0xE0
    assert stored(kernel(name, mask), "xsaveopt") == MASKS[name]        # another format
    cpu = kernel(name, mask)
    cpu.xrstor(image(name, MASKS[name], STANDARD, MASKS[name]), ALL, HERE)
    assert stored(cpu, "xsaves") == MASKS[name]


@pytest.mark.parametrize("name", [INTEL, AMD])
def test_mxcsr_defeats_the_optimisation_of_xsaves(name):
    cpu = processor(name, cpl=0)
    area = image(name, MASKS[name], COMPACTED, 7)
    area[24:28] = b"\xa0\x1f\0\0"
    cpu.xrstors(area, ALL, HERE)
    assert stored(cpu, "xsaves") & 7 == 2
    out = bytearray(16384)
    cpu.xsaves(out, ALL, HERE)
    assert (out[512], out[24:28]) == (7, b"\xa0\x1f\0\0")


def test_what_the_processor_remembers():
    cpu = processor(INTEL, cpl=0)
    assert cpu.xrstor_info is None
    cpu.xrstor(image(INTEL, 7, STANDARD, 7), 7, HERE)
    assert cpu.xrstor_info == (0, False, HERE, 0)
    cpu.cpl = 3
    cpu.xrstor(image(INTEL, 7, COMPACTED, 3), 2, THERE)
    assert cpu.xrstor_info == (3, False, THERE, 7 | 1 << 63)
    cpu.load({"k1": 1})
    assert cpu.xrstor_info is None
