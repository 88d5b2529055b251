"""Before memory is touched: features, CR0.TS, privilege, addresses, alignment; and buffers that end too early."""

import pytest
from reference import COMPACTED, STANDARD

from tests.processor.operands import ALL, AMD, BASE, INTEL, SIZE, TILES, end_of, full_state, image, processor
from xsave import Fault, Processor
from xsave.memory import Memory

FAMILY = ["xsave", "xsaveopt", "xsavec", "xsaves", "xrstor", "xrstors"]
PRIVILEGED = ["xsaves", "xrstors"]
LOW_END, HIGH_BEGIN = 1 << 47, 2**64 - (1 << 47)        # 48 bits: canonical below and from here on
LOW_END_57, HIGH_BEGIN_57 = 1 << 56, 2**64 - (1 << 56)


def attempt(
    cpu: Processor, insn: str, memory: object, address: int = BASE, segment: str = "ds"
) -> tuple[str, str] | None:
    """(vector, rule) of the fault that one instruction takes, or None."""
    more = () if insn.startswith("fx") else (ALL,)
    got = getattr(cpu, "try_" + insn)(memory, *more, address=address, segment=segment)
    if got is None:
        return None
    assert isinstance(got, Fault)
    assert got.vector == "#PF" or got.error_code == 0
    return got.vector, got.rule


@pytest.mark.parametrize("segment", ["ds", "ss"])
@pytest.mark.parametrize("la57", [False, True])
@pytest.mark.parametrize("insn", [*FAMILY, "fxsave", "fxrstor"])
@pytest.mark.parametrize("name", [INTEL, AMD])
def test_addresses_are_canonical(name, insn, la57, segment):
    cpu = processor(name, cpl=0, la57=la57)
    odd = ("#SS" if segment == "ss" else "#GP", "CANONICAL")
    absent = ("#PF", "PAGE")
    everything = Memory()
    for address, want48, want57 in (
        (0, absent, absent),
        (LOW_END - 1024 * 16, absent, absent),
        (LOW_END, odd, absent),
        (HIGH_BEGIN - 64, odd, absent),
        (HIGH_BEGIN, absent, absent),
        (LOW_END_57 - 1024 * 16, odd, absent),
        (LOW_END_57, odd, odd),
        (HIGH_BEGIN_57 - 64, odd, odd),
        (HIGH_BEGIN_57, odd, absent),
        (1 << 63, odd, odd),
    ):
        want = want57 if la57 else want48
        assert attempt(cpu, insn, everything, address, segment) == want, hex(address)


@pytest.mark.parametrize("segment", ["ds", "ss"])
@pytest.mark.parametrize("insn", [*FAMILY, "fxsave", "fxrstor"])
@pytest.mark.parametrize("name", [INTEL, AMD])
def test_bytes_beyond_canonical_addresses_do_not_help(name, insn, segment):
    """An area whose header lies below the end and whose state lies across it, in memory that has all its bytes."""
    address = LOW_END - (256 if insn.startswith("fx") else 640)
    area = image(name, int(processor(name).xcr0), COMPACTED if insn == "xrstors" else STANDARD, 7)
    for mapped in (False, True):
        memory: bytearray | Memory = bytearray(area)
        if mapped:
            memory = Memory()
            memory.map(address, bytearray(area))
        cpu = processor(name, cpl=0)
        cpu.load(full_state(name, int(cpu.xcr0), 3))
        before = cpu.registers()
        odd = ("#SS" if segment == "ss" else "#GP", "CANONICAL")
        assert attempt(cpu, insn, memory, address, segment) == odd
        assert cpu.registers() == before
        assert attempt(processor(name, cpl=0, la57=True), insn, memory, address, segment) is None


@pytest.mark.parametrize("name", [INTEL, AMD])
def test_an_operand_that_crosses_the_end_of_canonical_addresses(name):
    cpu = processor(name)
    memory = Memory()
    memory.map(LOW_END - 1024, bytearray(1024))
    assert attempt(cpu, "xsave", memory, LOW_END - 1024) == ("#GP", "CANONICAL")
    assert attempt(cpu, "xsave", memory, LOW_END - 1024, "ss") == ("#SS", "CANONICAL")
    cpu = processor(name, la57=True)
    assert attempt(cpu, "xsave", memory, LOW_END - 1024) == ("#PF", "PAGE")


def test_not_canonical_beats_misaligned_on_intel():
    cpu = processor(INTEL, ac=True)
    for offset in (1, 4, 63):
        assert attempt(cpu, "xsave", Memory(), LOW_END + offset, "ss") == ("#SS", "CANONICAL")
        assert attempt(cpu, "fxsave", Memory(), LOW_END + offset, "ss") == ("#SS", "CANONICAL")


def test_outside_64_bit_mode_addresses_have_32_bits():
    cpu = processor(INTEL, mode=32)
    buffer = bytearray(SIZE)
    memory = Memory()
    memory.map(BASE, buffer)
    cpu.load({"xmm1": b"\x09" * 16})
    assert attempt(cpu, "xsave", memory, LOW_END | BASE) is None    # no address is non-canonical there
    assert buffer[176:192] == b"\x09" * 16


@pytest.mark.parametrize("segment", ["cs", "", "SS", None])
def test_segments_have_two_kinds(segment):
    with pytest.raises(ValueError, match="segment"):
        processor(INTEL).try_xsave(bytearray(SIZE), 1, segment=segment)
    with pytest.raises(ValueError, match="segment"):
        processor(INTEL).try_fxsave(bytearray(SIZE), segment=segment)


# --- alignment ------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("memory", [bytearray(SIZE), Memory()])
@pytest.mark.parametrize("insn", FAMILY)
@pytest.mark.parametrize("name", [INTEL, AMD])
def test_operands_lie_on_64_bytes(name, insn, memory):
    """#GP, and #AC on Intel where alignment is checked and the address is not 4-byte aligned; both beat #PF."""
    user, checked = processor(name), processor(name, ac=True)
    kernel, both = processor(name, cpl=0), processor(name, cpl=0, ac=True)
    for offset in range(1, 64):
        assert attempt(kernel, insn, memory, BASE + offset) == ("#GP", "ALIGN")
        assert attempt(both, insn, memory, BASE + offset) == ("#GP", "ALIGN")
        if insn not in PRIVILEGED:
            assert attempt(user, insn, memory, BASE + offset) == ("#GP", "ALIGN")
            vector = "#AC" if name == INTEL and offset % 4 else "#GP"
            assert attempt(checked, insn, memory, BASE + offset) == (vector, "ALIGN"), offset


@pytest.mark.parametrize("insn", ["fxsave", "fxrstor"])
@pytest.mark.parametrize("name", [INTEL, AMD])
def test_fxsave_lies_on_16_bytes(name, insn):
    for offset in range(64):
        plain = attempt(processor(name), insn, bytearray(SIZE), BASE + offset)
        checked = attempt(processor(name, ac=True), insn, bytearray(SIZE), BASE + offset)
        kernel = attempt(processor(name, ac=True, cpl=0), insn, bytearray(SIZE), BASE + offset)
        if offset % 16 == 0:
            assert plain is checked is kernel is None
        else:
            assert plain == kernel == ("#GP", "ALIGN")
            assert checked == ("#AC" if offset % 4 else "#GP", "ALIGN")


# --- what comes before ----------------------------------------------------------------------------------------

@pytest.mark.parametrize("insn", FAMILY)
def test_order_of_the_first_checks(insn):
    bad = {"memory": Memory(), "address": LOW_END + 1}
    assert attempt(processor(INTEL, cr4_osxsave=False, cr0_ts=True), insn, **bad) == ("#UD", "OSXSAVE")
    assert attempt(processor(INTEL, cr0_ts=True, cr0_em=True), insn, **bad) == ("#NM", "TS")
    late = ("#GP", "CPL") if insn in PRIVILEGED else ("#GP", "CANONICAL")
    for cpl in (1, 2, 3):
        assert attempt(processor(INTEL, cpl=cpl, cr0_em=True), insn, **bad) == late   # CR0.EM is not consulted
    assert attempt(processor(INTEL, cpl=0), insn, **bad) == ("#GP", "CANONICAL")


@pytest.mark.parametrize(("name", "has"), [
    ("Penryn", {"xsave", "xrstor"}), ("SandyBridge", {"xsave", "xrstor", "xsaveopt"}), ("Skylake-Server", set(FAMILY)),
    ("Bulldozer", {"xsave", "xrstor"}), ("EPYC", set(FAMILY)),
])
def test_instructions_are_features(name, has):
    for insn in FAMILY:
        got = attempt(processor(name, cpl=0), insn, image("Penryn", 3, COMPACTED if insn == "xrstors" else STANDARD, 0))
        assert got == (None if insn in has else ("#UD", "CPUID")), insn
        missing = attempt(processor(name, cpl=0, cr4_osxsave=False, cr0_ts=True), insn, bytearray(SIZE))
        assert missing is not None and missing[0] == "#UD"


def test_ts_stops_fxsave_and_em_too():
    for insn in ("fxsave", "fxrstor"):
        assert attempt(processor(INTEL, cr0_ts=True), insn, bytearray(SIZE), BASE + 1) == ("#NM", "TS")
        assert attempt(processor(INTEL, cr0_em=True), insn, bytearray(SIZE), BASE + 1) == ("#NM", "EM")
        assert attempt(processor(INTEL, cr4_osxsave=False), insn, bytearray(SIZE)) is None


# --- plain buffers --------------------------------------------------------------------------------------------

@pytest.mark.parametrize("name", [INTEL, AMD])
@pytest.mark.parametrize(("insn", "fmt"), [
    ("xsave", STANDARD), ("xsaveopt", STANDARD), ("xsavec", COMPACTED), ("xsaves", COMPACTED), ("xrstor", STANDARD),
    ("xrstor", COMPACTED), ("xrstors", COMPACTED),
])
def test_a_plain_buffer_that_ends_too_early(name, insn, fmt):
    mask = int(processor(name).xcr0)
    for rfbm in (mask, 0xE7, 7, 3, 0):
        size = end_of(name, rfbm, fmt)
        for length in (size, size - 1, size - 9, 576 if rfbm & ~3 else 575, 540, 512, 100, 1, 0):
            cpu = processor(name, cpl=0)
            cpu.load(full_state(name, mask, 7))
            before = cpu.registers(), cpu.xinuse, cpu.xrstor_info, cpu.xmodified
            buffer = image(name, rfbm, fmt, rfbm)[:length] if insn.startswith("xr") else bytearray(b"\x5a" * length)
            kept = bytes(buffer)
            if length == size:
                assert getattr(cpu, "try_" + insn)(buffer, rfbm) is None
                continue
            with pytest.raises(ValueError, match=f"{insn.upper()} .*beyond the buffer"):
                getattr(cpu, "try_" + insn)(buffer, rfbm)
            assert buffer == kept
            assert (cpu.registers(), cpu.xinuse, cpu.xrstor_info, cpu.xmodified) == before
    with pytest.raises(ValueError, match="FXSAVE"):
        processor(name).fxsave(bytearray(511))
    with pytest.raises(ValueError, match="FXRSTOR"):
        processor(name).fxrstor(bytes(511))


@pytest.mark.parametrize("insn", ["xsave", "xsaveopt", "xsavec", "xsaves", "fxsave"])
def test_a_read_only_plain_buffer(insn):
    cpu = processor(INTEL, cpl=0)
    buffer = bytes(SIZE)
    arguments = () if insn == "fxsave" else (ALL,)
    with pytest.raises(ValueError, match=f"{insn.upper()} writes, and the buffer is read-only"):
        getattr(cpu, insn)(buffer, *arguments)
    with pytest.raises(ValueError, match="read-only"):
        getattr(cpu, insn)(memoryview(bytearray(SIZE)).toreadonly(), *arguments)
    assert not any(buffer)


def test_restores_take_read_only_buffers():
    cpu = processor(INTEL)
    cpu.xrstor(bytes(image(INTEL, TILES, STANDARD, TILES)), ALL)
    cpu.fxrstor(bytes(image(INTEL, TILES, STANDARD, TILES))[:512])
    assert int(cpu.xinuse) & 0x40000


@pytest.mark.parametrize("memory", ["text", 5, None, [1, 2], memoryview(bytearray(2 * SIZE))[::2]])
def test_what_is_no_buffer(memory):
    for insn in ("xsave", "xrstor"):
        with pytest.raises((TypeError, BufferError)):
            getattr(processor(INTEL), insn)(memory, 1)
