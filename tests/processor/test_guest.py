"""VMX non-root operation: which instructions exit, and when they do not exist (SDM3C 27)."""

import pytest
from reference import COMPACTED

from tests.processor.operands import ALL, INTEL, image
from xsave import CpuModel, Exit, Fault, Processor, Vmx
from xsave.memory import Memory

PRIVILEGED = {"xsaves": ("XSAVES", 63), "xrstors": ("XRSTORS", 64)}


def guest(vmx: Vmx | None, **controls: object) -> Processor:
    return Processor(CpuModel.named(INTEL), **{"ia32_xss": 0xDD00, "cpl": 0, "vmx": vmx, **controls})


@pytest.mark.parametrize("insn", PRIVILEGED)
@pytest.mark.parametrize(("xss", "mask", "bitmap", "exits"), [
    (0xDD00, ALL, 0, False), (0xDD00, ALL, 0x800, True), (0xD500, ALL, 0x800, False), (0xDD00, 0xD500, 0x800, False),
    (0xDD00, 0x8800, 0x9000, True), (0xDD00, 7, ALL, False), (0, ALL, ALL, False), (0xDD00, 0x100, ALL, True),
])
def test_the_xss_exiting_bitmap(insn, xss, mask, bitmap, exits):
    """An exit where EDX:EAX, IA32_XSS and the bitmap have a bit in common."""
    cpu = guest(Vmx(xss_exiting=bitmap), ia32_xss=xss)
    cpu.load({"IA32_PASID": 5, "IA32_U_CET": 4})
    area = image(INTEL, 0x7, COMPACTED, 0)
    before = bytes(area), cpu.registers()
    got = getattr(cpu, "try_" + insn)(area, mask)
    if not exits:
        assert got is None
        return
    assert isinstance(got, Exit)
    assert (got.reason, got.number, got.qualification) == (*PRIVILEGED[insn], 0)
    assert (bytes(area), cpu.registers()) == before
    with pytest.raises(Exit, match=str(got.number)):
        getattr(cpu, insn)(area, mask)


@pytest.mark.parametrize("insn", PRIVILEGED)
def test_what_comes_before_the_exit_and_after(insn):
    vmx = Vmx(xss_exiting=ALL)

    def outcome(cpu: Processor) -> object:
        got = getattr(cpu, "try_" + insn)(Memory(), ALL, 0x8000_0000_0000_0001)     # not canonical, not aligned
        return (got.vector, got.rule) if isinstance(got, Fault) else got.reason

    assert outcome(guest(vmx, cr4_osxsave=False)) == ("#UD", "OSXSAVE")
    assert outcome(guest(Vmx(xsaves=False, xss_exiting=ALL), cr0_ts=True, cpl=3)) == ("#UD", "VMX-XSAVES")
    assert outcome(guest(vmx, cr0_ts=True, cpl=3)) == ("#NM", "TS")
    assert outcome(guest(vmx, cpl=3)) == ("#GP", "CPL")
    assert outcome(guest(vmx)) == PRIVILEGED[insn][0]
    assert outcome(guest(Vmx())) == ("#GP", "CANONICAL")
    assert outcome(guest(None)) == ("#GP", "CANONICAL")


def test_the_others_know_no_bitmap_and_no_control():
    cpu = guest(Vmx(xsaves=False, xss_exiting=ALL))
    area = bytearray(16384)
    for insn in ("xsave", "xsaveopt", "xsavec", "xrstor"):
        assert getattr(cpu, "try_" + insn)(area, ALL) is None


def test_cpuid_exits_in_a_guest():
    for leaf, subleaf in ((0, 0), (0xD, 1), (0x12345, 7)):
        with pytest.raises(Exit) as caught:
            guest(Vmx()).cpuid(leaf, subleaf)
        assert (caught.value.reason, caught.value.number) == ("CPUID", 10)


def test_what_an_xrstor_of_the_guest_leaves_the_host_cannot_use():
    """XRSTOR_INFO holds whether it was VMX non-root operation."""
    cpu = guest(Vmx())
    area = image(INTEL, 7, COMPACTED, 7)
    cpu.xrstor(area, 7, 0x4000)
    assert cpu.xrstor_info == (0, True, 0x4000, 7 | 1 << 63)
    host = guest(None)
    host.xrstor(area, 7, 0x4000)
    assert host.xrstor_info == (0, False, 0x4000, 7 | 1 << 63)


@pytest.mark.parametrize("wrong", [{"xss_exiting": 1 << 64}, {"xss_exiting": -1}, {"xfam": 1 << 64}, {"xfam": -2}])
def test_masks_of_the_controls_have_64_bits(wrong):
    with pytest.raises(ValueError, match="64 bits"):
        Vmx(**wrong)


def test_controls_take_names_and_are_read_only():
    vmx = Vmx(xss_exiting="CET_U|PT", xfam="x87|SSE")
    assert (vmx.xsaves, vmx.xss_exiting, vmx.xfam) == (True, 0x900, 3)
    for name in ("xsaves", "xss_exiting", "xfam"):
        with pytest.raises(AttributeError):
            setattr(vmx, name, 0)
    with pytest.raises(TypeError, match="Vmx"):
        guest("vmx")
