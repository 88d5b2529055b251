"""RDMSR and WRMSR of extended state: what is refused, by WRMSR and, with the culprit byte, by XRSTORS (SDM1 13.12)."""

from random import Random

import pytest
import reference
from reference import COMPACTED

from xsave import CpuModel, Exit, Fault, Processor, UnsupportedError, Vmx
from xsave.data.msrs import MSRS

XFD, XFD_ERR, XSS = 0x1C4, 0x1C5, 0xDA0
ALL = 2**64 - 1
# 48 and 57 bits of linear addresses, and together every supervisor component that a named model has.
MODELS = ["TigerLake", "SapphireRapids", "GraniteRapids", "LunarLake", "EPYC-Genoa"]
NUMBERS = {
    "IA32_U_CET": 0x6A0, "IA32_PL0_SSP": 0x6A4, "IA32_PL1_SSP": 0x6A5, "IA32_PL2_SSP": 0x6A6, "IA32_PL3_SSP": 0x6A7,
    "IA32_UINTR_RR": 0x985, "IA32_UINTR_HANDLER": 0x986, "IA32_UINTR_STACKADJUST": 0x987, "IA32_UINTR_MISC": 0x988,
    "IA32_UINTR_PD": 0x989, "IA32_UINTR_TT": 0x98A,
}
RESERVED = {
    "IA32_U_CET": 0x3C0, "IA32_UINTR_PD": 0x3F, "IA32_UINTR_TT": 0xE, "IA32_UINTR_MISC": 0xFFFFFF << 40,
    **{f"IA32_PL{i}_SSP": 3 for i in range(4)},
}


def linear_bits(model: CpuModel) -> int:
    return model.cpuid[0x80000008, 0][0] >> 8 & 0xFF


def component_of(number: int) -> int:
    return reference.COMPONENT_OF[MSRS[number].register]


def values() -> list[int]:
    """Every bit alone, pairs of neighbours, canonical addresses and their neighbours, depths."""
    rng = Random(4)
    found = [0, ALL, 0xC00, 0x400, 0x800, 24, 16, 8 | 1 << 32, 40]
    found += [1 << i for i in range(64)] + [3 << i for i in range(63)]
    found += [ALL << i & ALL for i in range(40, 64)] + [(1 << i) - 64 for i in range(40, 64)]
    return found + [rng.getrandbits(64) for _ in range(40)]


def test_numbers():
    assert {name: number for number, row in MSRS.items() for name in [row.register] if name in NUMBERS} == NUMBERS
    assert {row.register for row in MSRS.values()} == {
        name for i in (8, 10, 11, 12, 13, 14, 15, 16) for name, *_ in reference.FIELDS[i]
    }


@pytest.mark.parametrize("name", MODELS)
def test_wrmsr_of_every_msr(name):
    model = CpuModel.named(name)
    cpu = Processor(model, cpl=0)
    refused = taken = 0
    for number, row in MSRS.items():
        if not int(model.xss_mask) >> component_of(number) & 1:
            for run in (lambda n=number: cpu.wrmsr(n, 0), lambda n=number: cpu.rdmsr(n)):
                with pytest.raises(Fault, match="#GP") as caught:
                    run()
                assert caught.value.rule == "MSR-MISSING"
            continue
        for value in values():
            before = cpu.rdmsr(number)
            got = cpu.try_wrmsr(number, value)
            if reference.supervisor_value_fault(row.register, value, linear_bits(model)) is None:
                assert got is None, (row.register, hex(value))
                assert cpu.rdmsr(number) == value == cpu.registers()[row.register]
                taken += 1
            else:
                assert isinstance(got, Fault) and (got.vector, got.error_code) == ("#GP", 0), (row.register, hex(value))
                assert cpu.rdmsr(number) == before
                refused += 1
    assert refused > 100 and taken > 100


def test_models_differ_in_linear_address_bits():
    """57 bits where CPUID has LA57, whatever CR4.LA57 says."""
    assert linear_bits(CpuModel.named("TigerLake")) == 48 and linear_bits(CpuModel.named("SapphireRapids")) == 57
    for la57 in (False, True):
        wide = Processor(CpuModel.named("SapphireRapids"), cpl=0, la57=la57)
        assert wide.try_wrmsr(0x6A7, 1 << 55) is None
        assert wide.try_wrmsr(0x6A7, 1 << 56) is not None
        narrow = Processor(CpuModel.named("TigerLake"), cpl=0, la57=la57)
        assert narrow.try_wrmsr(0x6A7, 1 << 46) is None
        assert narrow.try_wrmsr(0x6A7, 1 << 47) is not None


def culprits(register: str, value: int, bits: int) -> set[int]:
    """Bytes of the register that hold a bit which makes the value illegal."""
    reserved = RESERVED.get(register, 0)
    odd = value & reserved
    if not odd and register == "IA32_U_CET" and value & 0xC00 == 0xC00:
        odd = 0xC00
    if not odd and register == "IA32_LBR_DEPTH":
        return set(range(8))
    if not odd:
        odd = ALL << (bits - 1) & ALL
    return {i for i in range(8) if odd >> 8 * i & 0xFF}


@pytest.mark.parametrize("name", MODELS)
def test_xrstors_refuses_what_wrmsr_refuses(name):
    model = CpuModel.named(name)
    bits = linear_bits(model)
    mask = int(model.xcr0_mask) | int(model.xss_mask)
    slots, size = reference.compacted_offsets(name, mask)
    cpu = Processor(model, cpl=0, ia32_xss=int(model.xss_mask))
    refused = 0
    for number, row in MSRS.items():
        component = component_of(number)
        if not mask >> component & 1 or component not in (10, 11, 12, 13, 14, 15, 16):
            continue
        if component == 15 and row.register not in ("IA32_LBR_DEPTH", "IA32_LBR_CTL", "IA32_LBR_7_INFO"):
            continue
        fields = {field: offset for field, offset, *_ in reference.FIELDS[component]}
        base = {"IA32_LBR_DEPTH": 32} if component == 15 else {}
        for value in values():
            held = base | {row.register: value}
            area = bytearray(reference.encode({}, name, mask, COMPACTED, 0) + bytes(64))
            at = slots[component][0]
            for field, bytes_ in held.items():
                area[at + fields[field] : at + fields[field] + 8] = bytes_.to_bytes(8, "little")
            area[512:520] = (1 << component).to_bytes(8, "little")
            cpu.load({"IA32_UINTR_MISC": 0} if mask >> 14 & 1 else {})
            got = cpu.try_xrstors(area[: size + 64], ALL)
            checked = value & ~(1 << 63) if row.register == "IA32_UINTR_MISC" else value    # bit 63 is UIF
            if reference.supervisor_value_fault(row.register, checked, bits) is None:
                assert got is None, (row.register, hex(value))
                assert cpu.rdmsr(number) == (32 if row.register == "IA32_LBR_DEPTH" else checked)
                continue
            refused += 1
            assert isinstance(got, Fault) and got.vector == "#GP", (row.register, hex(value))
            want = culprits(row.register, checked, bits)
            assert got.offset is not None and got.offset - at - fields[row.register] in want, (row.register, hex(value))
            assert row.register in got.message
            # Without the component in the mask nothing is looked at.
            assert cpu.try_xrstors(area, ALL & ~(1 << component)) is None
            area[512:520] = bytes(8)
            assert cpu.try_xrstors(area, ALL) is None
    assert refused > 100


def test_initial_values():
    cpu = Processor(CpuModel.named("TigerLake"), cpl=0)
    assert cpu.rdmsr(0xDB1) == 1
    cpu = Processor(CpuModel.named("GraniteRapids"), cpl=0)
    assert cpu.rdmsr(0x774) == 0x8000FF01
    assert cpu.rdmsr(XSS) == cpu.rdmsr(XFD) == cpu.rdmsr(XFD_ERR) == 0
    assert int(cpu.xinuse) == 0


# --- IA32_XSS, IA32_XFD, IA32_XFD_ERR ---------------------------------------------------------------------------

@pytest.mark.parametrize("name", CpuModel.names())
def test_every_bit_of_xss_xfd_and_xfd_err(name):
    model = CpuModel.named(name)
    cpu = Processor(model, cpl=0)
    d1 = model.cpuid.get((0xD, 1), (0, 0, 0, 0))
    xfd = sum(1 << i for i in range(2, 63) if d1[0] & 16 and model.cpuid.get((0xD, i), (0, 0, 0, 0))[2] & 4)
    rows = {
        XSS: (d1[2] | d1[3] << 32, d1[0] & 8),
        XFD: (xfd, d1[0] & 16),
        XFD_ERR: (xfd, d1[0] & 16),
    }
    for number, (mask, exists) in rows.items():
        if not exists:
            with pytest.raises(Fault) as refused:
                cpu.rdmsr(number)
            for result in (cpu.try_wrmsr(number, 0), refused.value):
                assert isinstance(result, Fault) and (result.vector, result.rule) == ("#GP", "MSR-MISSING")
            continue
        for i in range(64):
            before = cpu.rdmsr(number)
            for value in (1 << i, mask | 1 << i):
                got = cpu.try_wrmsr(number, value)
                if mask >> i & 1:
                    assert got is None
                    assert cpu.rdmsr(number) == value
                    before = value
                else:
                    assert isinstance(got, Fault) and (got.vector, got.rule) == ("#GP", "MSR-MASK"), (hex(number), i)
                    assert cpu.rdmsr(number) == before
    assert name != "SapphireRapids" or xfd == 0x40000


def test_bits_of_xss_do_not_depend_on_each_other():
    cpu = Processor(CpuModel.named("SapphireRapids"), cpl=0, xcr0=1)
    for value in (0x800, 0x1000, 0x8000, 0xDD00, 0x100, 0):
        cpu.wrmsr(XSS, value)
        assert int(cpu.ia32_xss) == cpu.rdmsr(XSS) == value


@pytest.mark.parametrize("cpl", [1, 2, 3])
def test_only_cpl_0(cpl):
    cpu = Processor(CpuModel.named("SapphireRapids"), cpl=cpl)
    for number in (XSS, XFD, XFD_ERR, 0x6A0, 0x10):
        got = cpu.try_wrmsr(number, 0)
        assert isinstance(got, Fault) and (got.vector, got.rule) == ("#GP", "CPL")
        with pytest.raises(Fault, match="RDMSR"):
            cpu.rdmsr(number)


def test_msrs_of_something_else():
    cpu = Processor(CpuModel.named("SapphireRapids"), cpl=0)
    for number in (0x10, 0, 0xC0000080, 0x6A2):     # IA32_S_CET is managed by no component
        with pytest.raises(UnsupportedError, match=f"{number:#x}"):
            cpu.rdmsr(number)
        with pytest.raises(UnsupportedError, match=f"{number:#x}"):
            cpu.wrmsr(number, 0)


def test_an_xfam_lets_a_guest_set_xss_inside():
    cpu = Processor(CpuModel.named("SapphireRapids"), cpl=0, vmx=Vmx(xfam=0x1803))
    cpu.wrmsr(XSS, 0x800)
    got = cpu.try_wrmsr(XSS, 0x900)
    assert isinstance(got, Exit) and (got.reason, got.number) == ("WRMSR", 32)
    assert cpu.rdmsr(XSS) == 0x800
    refused = cpu.try_wrmsr(XSS, 0x902)
    assert isinstance(refused, Fault) and refused.rule == "MSR-MASK"
