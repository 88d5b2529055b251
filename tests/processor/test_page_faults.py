"""#PF: how far an instruction reaches, where it looks first, and what it pushes (SDM1 13.13; the order is measured)."""

import pytest
import reference
from reference import COMPACTED, STANDARD

from tests.processor.operands import ALL, AMD, BASE, INTEL, SIZE, TILES, end_of, full_state, holed, image, processor
from xsave import Fault

FORMATS = {"xsave": STANDARD, "xsaveopt": STANDARD, "xsavec": COMPACTED, "xsaves": COMPACTED}
MASKS = [0, 1, 2, 4, 3, 7, 0xE7, 0x20, 0x200, 0x80, 0x2E7, ALL]


def page_fault(result: object) -> tuple[int | None, int]:
    """(offset of the byte in CR2, error code)."""
    assert isinstance(result, Fault), result
    assert result.vector == "#PF"
    assert result.rule == ("WRITE" if result.error_code & 1 else "PAGE")
    return result.offset, result.error_code


@pytest.mark.parametrize("in_use", [False, True])
@pytest.mark.parametrize("insn", FORMATS)
@pytest.mark.parametrize("name", [INTEL, AMD])
def test_saves_reach_to_the_end_of_what_was_asked(name, insn, in_use):
    """Whatever is in use: initial components count too."""
    for mask in MASKS:
        cpu = processor(name, cpl=0)
        if in_use:
            cpu.load(full_state(name, int(cpu.xcr0)))
        extent = max(576, end_of(name, mask & int(cpu.xcr0), FORMATS[insn]))
        buffer = bytearray(b"\x77" * extent)
        short = holed(buffer, extent - 1)
        assert page_fault(getattr(cpu, "try_" + insn)(short, mask, BASE)) == (extent - 1, 2), hex(mask)
        assert buffer == b"\x77" * extent
        assert getattr(cpu, "try_" + insn)(holed(buffer), mask, BASE) is None, hex(mask)


@pytest.mark.parametrize("name", [INTEL, AMD])
def test_standard_restores_reach_to_the_end_of_what_was_asked(name):
    for mask in MASKS:
        for xstate_bv in (0, ALL):
            cpu = processor(name)
            rfbm = mask & int(cpu.xcr0)
            extent = end_of(name, rfbm, STANDARD)
            area = image(name, int(cpu.xcr0), STANDARD, xstate_bv & int(cpu.xcr0), size=SIZE)[:extent]
            assert page_fault(cpu.try_xrstor(holed(area, extent - 1), mask, BASE)) == (extent - 1, 4), hex(mask)
            assert cpu.try_xrstor(holed(area), mask, BASE) is None, hex(mask)


@pytest.mark.parametrize("name", [INTEL, AMD])
def test_compacted_restores_reach_as_far_as_the_profile_does(name):
    """Intel: to the end of RFBM & XCOMP_BV; Zen 5: to the end of RFBM & XSTATE_BV."""
    for xcomp in (0, 3, 7, 0xE7, 0x2E7, 0x84, 0x200):
        for xstate_bv in (0, xcomp & 7, xcomp & 0x20, xcomp):
            for mask in (ALL, 0, 7, 0x80, 0x27):
                cpu = processor(name)
                last = mask & (xcomp if name == INTEL else xstate_bv)
                offsets, _ = reference.compacted_offsets(name, xcomp)
                extent = max([576] + [sum(slot) for i, slot in offsets.items() if i >= 2 and last >> i & 1])
                area = image(name, xcomp, COMPACTED, xstate_bv)[:extent]
                got = page_fault(cpu.try_xrstor(holed(area, extent - 1), mask, BASE))
                assert got == (extent - 1, 4), (hex(xcomp), hex(xstate_bv), hex(mask))
                assert cpu.try_xrstor(holed(area), mask, BASE) is None


@pytest.mark.parametrize(("mask", "standard", "compacted"), [
    (0, None, None), (1, 0, 0), (2, 24, 24), (3, 0, 0), (4, 24, None), (5, 0, 0), (6, 24, 24), (0x20, None, None),
    (0xE7, 0, 0),
])
def test_intel_looks_at_the_last_byte_then_the_legacy_region_then_the_header(mask, standard, compacted):
    for insn, fmt in FORMATS.items():
        legacy = standard if fmt == STANDARD else compacted
        last = max(576, end_of(INTEL, mask, fmt)) - 1
        order = [each for each in (last, legacy, 512) if each is not None]
        cpu = processor(INTEL, cpl=0)
        for i in range(len(order)):
            memory = holed(bytearray(SIZE), *order[i:])
            assert page_fault(getattr(cpu, "try_" + insn)(memory, mask, BASE)) == (order[i], 2), (insn, i)
        unused = [at for at in (0, 24) if legacy is None or at < legacy]
        assert getattr(cpu, "try_" + insn)(holed(bytearray(SIZE), *unused), mask, BASE) is None


@pytest.mark.parametrize("mask", [0, 1, 4, 0x20, 0xE7])
def test_zen_5_looks_at_the_first_byte_then_the_last(mask):
    for insn, fmt in FORMATS.items():
        last = max(576, end_of(AMD, mask, fmt)) - 1
        cpu = processor(AMD, cpl=0)
        run = getattr(cpu, "try_" + insn)
        assert page_fault(run(holed(bytearray(SIZE), 0, 512, last), mask, BASE)) == (0, 2)
        assert page_fault(run(holed(bytearray(SIZE), 512, last), mask, BASE)) == (last, 2)
        assert page_fault(run(holed(bytearray(SIZE), 512), mask, BASE)) == (512, 2)


@pytest.mark.parametrize("fmt", [STANDARD, COMPACTED])
@pytest.mark.parametrize(("mask", "standard", "compacted"), [
    (1, 0, 0), (2, 24, 24), (4, 24, None), (0x20, None, None), (0, None, None), (0xE7, 0, 0),
])
def test_xrstor_of_intel_looks_at_xcomp_bv_then_the_last_byte_then_the_legacy_region(fmt, mask, standard, compacted):
    cpu = processor(INTEL)
    area = image(INTEL, 0xE7, fmt, 0)
    legacy = standard if fmt == STANDARD else compacted
    if fmt == STANDARD:
        last = end_of(INTEL, mask, fmt) - 1
    else:
        slots = reference.compacted_offsets(INTEL, 0xE7)[0]
        last = max([576] + [sum(slot) for i, slot in slots.items() if i >= 2 and mask >> i & 1]) - 1
    order = [each for each in (520, last, legacy) if each is not None]
    for i in range(len(order)):
        assert page_fault(cpu.try_xrstor(holed(area, *order[i:]), mask, BASE)) == (order[i], 4), i


def test_the_legacy_region_counts_for_the_components_that_are_there():
    """Compacted, Intel: RFBM & XCOMP_BV decides, and MXCSR belongs to SSE alone."""
    area = image(INTEL, 0xE4, COMPACTED, 0)
    assert processor(INTEL).try_xrstor(holed(area, 0, 24), ALL, BASE) is None
    area = image(INTEL, 0xE6, COMPACTED, 0)
    assert page_fault(processor(INTEL).try_xrstor(holed(area, 0, 24), ALL, BASE)) == (24, 4)


@pytest.mark.parametrize("fmt", [STANDARD, COMPACTED])
@pytest.mark.parametrize("mask", [0, 4, 0xE7])
def test_xrstor_of_zen_5_looks_at_the_first_byte_the_header_and_the_last(fmt, mask):
    cpu = processor(AMD)
    area = image(AMD, 0xE7, fmt, 0xE7)
    if fmt == STANDARD:
        last = end_of(AMD, mask, fmt) - 1
    else:
        slots = reference.compacted_offsets(AMD, 0xE7)[0]
        last = max([576] + [sum(slot) for i, slot in slots.items() if i >= 2 and mask >> i & 1]) - 1
    order = [0, 512, last]
    for i in range(3):
        assert page_fault(cpu.try_xrstor(holed(area, *order[i:]), mask, BASE)) == (order[i], 4), i


@pytest.mark.parametrize(("cpl", "user"), [(0, 0), (1, 0), (2, 0), (3, 4)])
@pytest.mark.parametrize("name", [INTEL, AMD])
def test_error_codes(name, cpl, user):
    cpu = processor(name, cpl=cpl)
    buffer = image(name, 7, STANDARD, 7)
    before = bytes(buffer)
    assert page_fault(cpu.try_xsave(holed(buffer, 100, (0, 1)), 7, BASE)) == (0, 2 | user)
    assert page_fault(cpu.try_xrstor(holed(buffer, 0), 7, BASE)) == (0, user)
    assert page_fault(cpu.try_fxsave(holed(buffer, 0), BASE)) == (0, 2 | user)
    assert page_fault(cpu.try_fxrstor(holed(buffer, 0), BASE)) == (0, user)
    last = 831 if name == INTEL else 0
    for insn in ("xsave", "xsaveopt"):
        got = getattr(cpu, "try_" + insn)(holed(buffer, writable=False), 7, BASE)
        assert page_fault(got) == (last, 3 | user)
    assert page_fault(cpu.try_fxsave(holed(buffer, writable=False), BASE))[1] == 3 | user
    assert cpu.try_xrstor(holed(buffer, writable=False), 7, BASE) is None
    assert cpu.try_fxrstor(holed(buffer, writable=False), BASE) is None
    assert buffer == before


def test_a_read_only_range_inside_the_operand():
    cpu = processor(INTEL)
    cpu.load({"xmm3": b"\x01" * 16})
    buffer, fixed = bytearray(SIZE), bytes(16)
    memory = holed(buffer, (512, 528))
    memory.map(BASE + 512, fixed, writable=False)
    assert page_fault(cpu.try_xsave(memory, 2, BASE)) == (512, 7)
    assert not any(buffer)
    assert page_fault(cpu.try_xsavec(memory, 0, BASE)) == (512, 7)
    assert cpu.try_xrstor(memory, 2, BASE) is None


def test_privileged_instructions_fault_as_the_supervisor():
    cpu = processor(INTEL, cpl=0)
    assert page_fault(cpu.try_xsaves(holed(bytearray(SIZE), 520), 0, BASE)) == (520, 2)
    area = image(INTEL, 3, COMPACTED, 0)
    assert page_fault(cpu.try_xrstors(holed(area, 520), 0, BASE)) == (520, 0)


@pytest.mark.parametrize("missing", [0, 511, 100, 400])
def test_fxsave_needs_the_whole_legacy_region(missing):
    """Intel looks at byte 511 first, then at byte 0, also outside 64-bit mode."""
    for mode in (64, 32):
        cpu = processor(INTEL, mode=mode)
        buffer = bytearray(512)
        memory = holed(buffer, missing)
        if missing in (0, 511):
            assert page_fault(cpu.try_fxsave(memory, BASE)) == (missing, 6)
            assert page_fault(cpu.try_fxrstor(memory, BASE)) == (missing, 4)
            assert page_fault(cpu.try_fxsave(holed(buffer, 0, 511), BASE)) == (511, 6)
        else:   # no page ends there, but no byte goes untouched either
            assert page_fault(cpu.try_fxsave(memory, BASE)) == (missing, 6)
        assert not any(buffer)


def test_compatibility_mode_reaches_as_far():
    """Components that are not written there count all the same."""
    for name in (INTEL, AMD):
        cpu = processor(name, mode=32)
        for insn in ("xsave", "xsaveopt", "xsavec"):
            extent = end_of(name, 0xE7, FORMATS[insn])
            memory = holed(bytearray(extent), extent - 1)
            assert page_fault(getattr(cpu, "try_" + insn)(memory, 0xE7, BASE)) == (extent - 1, 6)


def test_a_disabled_component_ends_the_reach_of_xsaveopt_and_xsavec():
    """XFD armed for TILEDATA, Intel: the area ends where it begins, and XSAVE's does not (measured)."""
    whole = {insn: end_of(INTEL, TILES, FORMATS[insn]) for insn in FORMATS}
    for insn, extent in {"xsaveopt": 2816, "xsavec": whole["xsavec"] - 8192, "xsave": whole["xsave"]}.items():
        cpu = processor(INTEL, ia32_xfd=1 << 18)
        memory = holed(bytearray(extent), extent - 1)
        assert page_fault(getattr(cpu, "try_" + insn)(memory, ALL, BASE)) == (extent - 1, 6), insn
        assert getattr(cpu, "try_" + insn)(holed(bytearray(extent)), ALL, BASE) is None, insn
    cpu = processor(INTEL, ia32_xfd=1 << 18)
    area = image(INTEL, TILES, STANDARD, 7)[: whole["xsave"]]
    assert page_fault(cpu.try_xrstor(holed(area, whole["xsave"] - 1), ALL, BASE)) == (whole["xsave"] - 1, 4)
    narrow = holed(bytearray(2816), 2815)
    assert page_fault(cpu.try_xsaveopt(narrow, 1 << 18, BASE)) == (2815, 6)     # without 17 it ends there too
