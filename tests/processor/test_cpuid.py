"""CPUID of the processor: what follows XCR0, IA32_XSS and CR4, and that the rest is the model's record (SDM1 13.2)."""

import pytest

from tests.processor.operands import submasks
from xsave import CpuModel, Fault, Processor

XSS = 0xDA0


def row(model: CpuModel, i: int) -> tuple[int, int, int, int]:
    return model.cpuid[0xD, i]


def standard_size(model: CpuModel, mask: int) -> int:
    return max([576] + [row(model, i)[0] + row(model, i)[1] for i in range(2, 63) if mask >> i & 1])


def compacted_size(model: CpuModel, mask: int) -> int:
    at = 576
    for i in range(2, 63):
        if mask >> i & 1:
            size, _, flags, _ = row(model, i)
            at = ((at + 63) // 64 * 64 if flags & 2 else at) + size
    return at


@pytest.mark.parametrize("name", CpuModel.names())
def test_sizes_follow_xcr0_and_xss(name):
    model = CpuModel.named(name)
    cpu = Processor(model, xcr0=1, cpl=0)
    features = model.cpuid.get((0xD, 1), (0, 0, 0, 0))[0]
    seen = set()
    values = submasks(int(model.xss_mask)) if features & 8 else [0]
    for xcr0 in submasks(int(model.xcr0_mask)):
        if cpu.try_xsetbv(0, xcr0) is not None:
            continue
        got = cpu.cpuid(0xD, 0)
        fixed = row(model, 0)
        assert got == (fixed[0], standard_size(model, xcr0), fixed[2], fixed[3]), hex(xcr0)
        for xss in values:
            if features & 8:
                cpu.wrmsr(XSS, xss)
            got = cpu.cpuid(0xD, 1)
            want = compacted_size(model, xcr0 | xss) if features & 0xA else 0
            record = model.cpuid.get((0xD, 1), (0, 0, 0, 0))
            assert got == (record[0], want, record[2], record[3]), (hex(xcr0), hex(xss))
            seen.add(got[1])
    assert len(seen) > 1 or not features & 0xA


@pytest.mark.parametrize(("name", "xcr0", "xss", "standard", "compacted"), [
    ("SapphireRapids", 0x602E7, 0x900, 11008, 10880), ("SapphireRapids", 0x602E7, 0xDD00, 11008, 11776),
    ("SapphireRapids", 0x60001, 0, 11008, 8832), ("SapphireRapids", 1, 0, 576, 576),
    ("AlderLake", 7, 0x900, 832, 976), ("AlderLake", 0x207, 0x19900, 2696, 1824),
    ("Skylake-Server", 0x2FF, 0, 2696, 2568), ("Skylake-Server", 0xFF, 0, 2688, 2560),
    ("DiamondRapids", 0xE02E7, 0, 11008, 10880), ("DiamondRapids", 0x80007, 0, 1088, 960),
    ("EPYC-Genoa", 0xE7, 0x800, 2432, 2448), ("EPYC-Rome", 0x207, 0, 896, 896),
    ("EPYC-Milan", 0x207, 0x1800, 2440, 880),
    ("Bulldozer", 1 << 62 | 7, 0, 960, 0), ("SandyBridge", 7, 0, 832, 0), ("Penryn", 3, 0, 576, 0),
])
def test_sizes_that_hardware_reports(name, xcr0, xss, standard, compacted):
    cpu = Processor(CpuModel.named(name), xcr0=xcr0, ia32_xss=xss)
    assert (cpu.cpuid(0xD, 0)[1], cpu.cpuid(0xD, 1)[1]) == (standard, compacted)


@pytest.mark.parametrize("name", CpuModel.names())
def test_everything_else_is_the_record(name):
    model = CpuModel.named(name)
    cpu = Processor(model)
    for (leaf, subleaf), values in model.cpuid.items():
        if leaf != 1 and (leaf, subleaf) not in ((0xD, 0), (0xD, 1)):
            assert cpu.cpuid(leaf, subleaf) == values
    for i in range(64):
        if i > 1 and (0xD, i) not in model.cpuid:
            assert cpu.cpuid(0xD, i) == (0, 0, 0, 0)
    assert cpu.cpuid(0x5555) == cpu.cpuid(0x5555, 3) == (0, 0, 0, 0)
    assert cpu.cpuid(0, 7) == cpu.cpuid(0)      # leaf 0 has no sub-leaves


@pytest.mark.parametrize("name", CpuModel.names())
def test_osxsave_is_cr4s(name):
    model = CpuModel.named(name)
    eax, ebx, ecx, edx = model.cpuid[1, 0]
    for osxsave in (False, True):
        got = Processor(model, cr4_osxsave=osxsave).cpuid(1)
        assert got == (eax, ebx, ecx & ~(1 << 27) | osxsave << 27, edx)
        assert got[2] >> 26 & 1


def test_cpuid_needs_no_privilege_and_no_osxsave():
    cpu = Processor(CpuModel.named("SapphireRapids"), xcr0=7, cpl=3, cr4_osxsave=False, cr0_ts=True)
    assert cpu.cpuid(0xD)[1] == 832
    assert isinstance(cpu.try_xgetbv(0), Fault)
