"""`Processor.write`: one register as the instruction that loads it does, and what it refuses."""

import pytest
import reference
from reference import STANDARD

from tests.processor.operands import AMD, BASE, INTEL, TILES, image, processor
from xsave import Fault, Processor


def unchanged(cpu: Processor) -> tuple[object, ...]:
    return cpu.registers(), cpu.xinuse, cpu.xmodified, cpu.xrstor_info


def test_writes_leave_or_clear_what_lies_above():
    cpu = processor(INTEL)
    full = bytes(range(64))
    for name, vex, kept in (("xmm1", False, 64), ("xmm1", True, 16), ("ymm1", False, 32), ("zmm1", False, 64)):
        cpu.load({"zmm1": full})
        width = reference.VECTOR_SIZES[name[:3]]
        cpu.write(name, b"\xaa" * width, vex=vex)
        assert cpu.registers()["zmm1"] == b"\xaa" * width + (full[width:] if kept == 64 else bytes(64 - width))
    cpu.write("xmm2", 0x1122)
    assert cpu.registers()["zmm2"] == b"\x22\x11" + bytes(62)


@pytest.mark.parametrize(("name", "value", "error"), [
    ("nothing", 1, KeyError), ("r16", 1, KeyError), ("bnd0", bytes(16), KeyError), ("zmm0", bytes(63), ValueError),
    ("xmm0", bytes(32), ValueError), ("st0", bytes(8), ValueError), ("pkru", -1, ValueError),
    ("mxcsr", 1 << 32, ValueError), ("fsw", 1, ValueError), ("ftw", 1, ValueError), ("fip", 1, ValueError),
    ("fdp", 1, ValueError), ("fop", 1, ValueError), ("mxcsr_mask", 1, ValueError), ("tilecfg", bytes(63), ValueError),
    ("uif", 1, ValueError), ("tmm0", bytes(1000), ValueError),
])
def test_write_refuses_and_changes_nothing(name, value, error):
    cpu = processor(INTEL)
    cpu.xrstor(image(INTEL, TILES, STANDARD, 7), 7, BASE)
    before = unchanged(cpu)
    with pytest.raises(error):
        cpu.write(name, value)
    assert unchanged(cpu) == before


@pytest.mark.parametrize(("controls", "name", "value", "fault"), [
    ({"xcr0": 3}, "ymm0", bytes(32), ("#UD", "XCR0-OFF")), ({"xcr0": 7}, "zmm0", bytes(64), ("#UD", "XCR0-OFF")),
    ({"xcr0": 7}, "k0", 1, ("#UD", "XCR0-OFF")), ({"xcr0": 7}, "pkru", 1, ("#UD", "XCR0-OFF")),
    ({"cr4_osxsave": False}, "ymm0", bytes(32), ("#UD", "OSXSAVE")),
    ({"cr0_ts": True}, "ymm0", bytes(32), ("#NM", "TS")),
    ({"cr0_ts": True}, "xmm0", bytes(16), ("#NM", "TS")), ({"cr0_ts": True}, "st0", bytes(10), ("#NM", "TS")),
    ({}, "mxcsr", 0x10000, ("#GP", "H-MXCSR")), ({}, "IA32_U_CET", 0, ("#GP", "CPL")),
    ({"cpl": 0}, "IA32_U_CET", 0x40, ("#GP", "MSR-RESERVED")), ({}, "tilecfg", b"\xff" * 64, ("#GP", "T-PALETTE")),
])
def test_write_faults_as_its_instruction(controls, name, value, fault):
    cpu = processor(INTEL, **controls)
    before = unchanged(cpu)
    with pytest.raises(Fault) as caught:
        cpu.write(name, value)
    assert (caught.value.vector, caught.value.rule) == fault
    assert unchanged(cpu) == before


def test_mxcsr_masks():
    processor(AMD).ldmxcsr(0x21F80)     # bit 17 is AMD's
    for name, value in ((INTEL, 0x20000), (AMD, 0x10000), (AMD, 0x40000)):
        with pytest.raises(Fault, match="#GP"):
            processor(name).ldmxcsr(value)
    with pytest.raises(ValueError, match="32 bits"):
        processor(AMD).ldmxcsr(1 << 32)


@pytest.mark.parametrize(("name", "value"), [
    ("mxcsr", 0x10000), ("tilecfg", b"\xff" * 64), ("IA32_U_CET", 0x40), ("IA32_PL0_SSP", 1), ("fsw", 1), ("ftw", 1),
])
def test_the_case_of_a_name_is_no_matter(name, value):
    """What the instruction refuses under one spelling it refuses under all."""
    for spelling in (name, name.upper(), name.lower()):
        cpu = processor(INTEL, cpl=0, ia32_xss=0x1800)
        before = unchanged(cpu)
        with pytest.raises((Fault, ValueError)):
            cpu.write(spelling, value)
        assert unchanged(cpu) == before


@pytest.mark.parametrize("spelling", ["mxcsr_mask", "MXCSR_MASK", "Mxcsr_Mask"])
def test_the_mask_of_mxcsr_is_the_models(spelling):
    cpu = processor(INTEL)
    cpu.load({spelling: 5})
    assert cpu.registers()["mxcsr_mask"] == 0xFFFF


@pytest.mark.parametrize("value", [-1, 1 << 600], ids=["negative", "large"])
@pytest.mark.parametrize("name", ["k0", "xmm0", "ymm3", "zmm20", "pkru", "mxcsr", "fcw"])
def test_numbers_that_do_not_fit_are_value_errors(name, value):
    for run in (lambda cpu: cpu.write(name, value), lambda cpu: cpu.load({name: value})):
        cpu = processor(INTEL)
        before = unchanged(cpu)
        with pytest.raises(ValueError):
            run(cpu)
        assert unchanged(cpu) == before


def test_tilecfg_is_64_bytes_and_no_number():
    cpu = processor(INTEL)
    cpu.ldtilecfg(b"\x01" + bytes(63))
    before = unchanged(cpu)
    for run in (lambda: cpu.write("tilecfg", 64), lambda: cpu.load({"tilecfg": 64})):
        with pytest.raises((TypeError, ValueError)):
            run()
        assert unchanged(cpu) == before
