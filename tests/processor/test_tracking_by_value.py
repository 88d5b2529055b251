"""XINUSE of the Zen 5 profile: contents decide, not history (SDM1 13.6; measured)."""

import pytest
from reference import COMPACTED, STANDARD

from tests.processor.operands import ALL, AMD, BASE, full_state, image, processor

MASK = 0x2E7


@pytest.mark.parametrize(("name", "size", "component"), [("xmm3", 16, 2), ("k2", 0, 0x20), ("pkru", 0, 0x200),
                                                          ("zmm20", 64, 0x80)])
def test_a_register_that_is_zero_again_is_not_in_use(name, size, component):
    cpu = processor(AMD)
    for value, want in ((b"\x01" * size or 1, component), (bytes(size) if size else 0, 0)):
        cpu.write(name, value)
        assert int(cpu.xinuse) == want
        area = bytearray(16384)
        cpu.xsaveopt(area, ALL)
        assert int.from_bytes(area[512:520], "little") == want


@pytest.mark.parametrize("fmt", [STANDARD, COMPACTED])
def test_explicit_initial_data_is_not_in_use(fmt):
    cpu = processor(AMD)
    cpu.load(full_state(AMD, MASK))
    area = bytearray(16384)
    area[0:2], area[24:28] = b"\x7f\x03", b"\x80\x1f\0\0"
    area[512:520] = MASK.to_bytes(8, "little")
    if fmt == COMPACTED:
        area[520:528] = (MASK | 1 << 63).to_bytes(8, "little")
    cpu.xrstor(area, ALL)
    assert int(cpu.xinuse) == 0


@pytest.mark.parametrize(("values", "want"), [
    ({"fcw": 0x27F}, 1), ({"fsw": 0x0800}, 1), ({"ftw": 1}, 1), ({"st7": b"\x01" + bytes(9)}, 1),
    ({"zmm0": bytes(16) + b"\x01" * 16 + bytes(32)}, 4), ({"zmm15": bytes(32) + b"\x01" * 32}, 0x40),
    ({"zmm31": bytes(63) + b"\x01"}, 0x80), ({"mxcsr": 0x1FA0}, 0), ({}, 0),
])
def test_values_that_count(values, want):
    cpu = processor(AMD)
    cpu.load(values)
    assert int(cpu.xinuse) == want


def test_what_does_not_count():
    cpu = processor(AMD)
    cpu.ldmxcsr(0x1FA0)
    assert int(cpu.xinuse) == 0
    cpu.fninit()
    assert int(cpu.xinuse) == 0
    cpu.load({"st0": b"\x01" * 10, "ftw": 0x80})
    cpu.fninit()
    assert int(cpu.xinuse) == 1     # the contents of an empty register stay


def test_compatibility_mode_counts_every_register():
    """Though it saves none of the upper ones: XSTATE_BV[7] is set and no byte of Hi16_ZMM written."""
    cpu = processor(AMD)
    cpu.load({"zmm20": b"\x01" * 64})
    cpu.mode = 32
    assert int(cpu.xinuse) == 0x80
    area = bytearray(b"\xcc" * 16384)
    area[512:520] = bytes(8)
    cpu.xsave(area, 0x80)
    assert area[512] == 0x80
    assert area[1408:2432] == b"\xcc" * 1024


def test_zeroing_instructions():
    cpu = processor(AMD)
    cpu.xrstor(image(AMD, MASK, STANDARD, MASK), ALL, BASE)
    cpu.vzeroupper()
    assert int(cpu.xinuse) == MASK & ~0x44
    cpu.vzeroall()
    assert int(cpu.xinuse) == MASK & ~0x46      # neither touches Hi16_ZMM
    assert cpu.xgetbv(1) == MASK & ~0x46 | 2    # but for MXCSR, which is not 1F80H


def test_pointers_alone_do_not_count():
    """They read as zero unless an unmasked exception is pending."""
    area = image(AMD, MASK, STANDARD, 0)
    area[0:2] = b"\x7f\x03"
    area[6:24] = b"\x11" * 18
    area[512] = 1
    cpu = processor(AMD)
    cpu.xrstor(area, ALL)
    assert int(cpu.xinuse) == 0
    assert (cpu.registers()["fip"], cpu.registers()["fdp"], cpu.registers()["fop"]) == (0, 0, 0)
    area[0:4] = b"\x7e\x03\x01\x00"     # invalid operation unmasked and pending
    cpu.xrstor(area, ALL)
    assert int(cpu.xinuse) == 1
    assert cpu.registers()["fsw"] == 0x8081
    assert cpu.registers()["fip"] == 0xFF11111111111111     # 57 bits, extended from bit 56
