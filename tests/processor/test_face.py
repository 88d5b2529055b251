"""The processor's face: construction, `load`, `registers`, `write`, and their misuse."""

import pytest
import reference
from reference import STANDARD

from tests.processor.operands import ALL, AMD, BASE, INTEL, TILES, full_state, image, processor
from xsave import CpuModel, Processor


def unchanged(cpu: Processor) -> tuple[object, ...]:
    return cpu.registers(), cpu.xinuse, cpu.xmodified, cpu.xrstor_info


# --- construction -----------------------------------------------------------------------------------------------

@pytest.mark.parametrize("wrong", [
    {"xcr0": 2}, {"xcr0": 0}, {"xcr0": 5}, {"xcr0": 1 << 63 | 1}, {"xcr0": 1 << 64}, {"xcr0": -1}, {"ia32_xss": 1},
    {"ia32_xss": 1 << 13}, {"ia32_xss": 1 << 64}, {"ia32_xfd": 1 << 17}, {"ia32_xfd": 1 << 64}, {"cpl": 4}, {"cpl": -1},
    {"mode": 16}, {"mode": 0}, {"xcr0": "no such thing"},
])
def test_states_that_no_processor_has(wrong):
    with pytest.raises(ValueError):
        processor(INTEL, **wrong)


def test_what_can_be_set_later():
    cpu = processor(INTEL)
    assert (cpu.mode, cpu.cpl, cpu.cr0_ts) == (64, 3, False)
    cpu.mode, cpu.cpl, cpu.cr0_ts = 32, 1, True
    assert (cpu.mode, cpu.cpl, cpu.cr0_ts) == (32, 1, True)
    for name, value in (("mode", 16), ("cpl", 4)):
        with pytest.raises(ValueError, match=str(value)):
            setattr(cpu, name, value)
    for name in ("xcr0", "ia32_xss", "ia32_xfd", "ia32_xfd_err", "xinuse", "xmodified", "xrstor_info", "model", "vmx"):
        with pytest.raises(AttributeError):
            setattr(cpu, name, 0)
    assert (cpu.mode, cpu.cpl) == (32, 1)


def test_masks_by_name():
    cpu = processor(INTEL, xcr0="x87|SSE|AVX", ia32_xss="CET_U", ia32_xfd="TILEDATA")
    assert (int(cpu.xcr0), int(cpu.ia32_xss), int(cpu.ia32_xfd)) == (7, 0x800, 1 << 18)


def test_a_new_processor_is_initial():
    for name in (INTEL, AMD, "Bulldozer", "Penryn", "GraniteRapids", "TigerLake"):
        cpu = processor(name)
        got = {n: v for n, v in cpu.registers().items() if n not in ("mxcsr_mask", "IA32_LBR_DEPTH")}
        assert got == reference.initial_values(got)
        assert cpu.registers()["mxcsr_mask"] == reference.CPUS.get(name, {"mxcsr_mask": 0xFFFF})["mxcsr_mask"]
        assert int(cpu.xinuse) == 0


# --- load and registers -----------------------------------------------------------------------------------------

@pytest.mark.parametrize("name", [INTEL, AMD, "Bulldozer", "GraniteRapids", "Skylake-Client"])
def test_registers_are_what_was_loaded(name):
    model = CpuModel.named(name)
    mask = int(model.xcr0_mask) | int(model.xss_mask)
    state = full_state(name, mask)
    for controls in ({}, {"mode": 32}, {"xcr0": 1}, {"cpl": 0}):    # whatever mode and XCR0 are
        cpu = processor(name, **controls)
        cpu.load(state)
        got = cpu.registers()
        assert {n: got[n] for n in state} == state
        assert set(got) - {"mxcsr_mask"} >= set(state) - {"mxcsr_mask"}


def test_load_leaves_the_others():
    cpu = processor(INTEL)
    cpu.load({"k1": 5, "xmm3": b"\x01" * 16})
    cpu.load({"pkru": 7})
    cpu.load({})
    got = cpu.registers()
    assert (got["k1"], got["pkru"], got["zmm3"]) == (5, 7, b"\x01" * 16 + bytes(48))
    cpu.load({"zmm3": b"\x02" * 64})
    cpu.load({"ymm3": b"\x03" * 32})        # under a narrow name: zero above
    assert cpu.registers()["zmm3"] == b"\x03" * 32 + bytes(32)


@pytest.mark.parametrize(("values", "error"), [
    ({"nothing": 1}, KeyError), ({"r16": 1}, KeyError), ({"IA32_HWP_REQUEST": 1}, KeyError), ({"bnd0": b""}, KeyError),
    ({"zmm32": bytes(64)}, KeyError), ({"tmm8": bytes(1024)}, KeyError), ({"k8": 1}, KeyError), ({3: 1}, TypeError),
    ({"zmm0": bytes(63)}, ValueError), ({"zmm0": bytes(65)}, ValueError), ({"xmm0": bytes(32)}, ValueError),
    ({"st0": bytes(9)}, ValueError), ({"tmm0": bytes(1023)}, ValueError), ({"tilecfg": bytes(63)}, ValueError),
    ({"k0": 1 << 64}, ValueError), ({"pkru": 1 << 32}, ValueError), ({"mxcsr": -1}, ValueError),
    ({"fcw": 1 << 16}, ValueError),
])
def test_load_refuses_and_changes_nothing(values, error):
    cpu = processor(INTEL)
    cpu.load({"k1": 5, "zmm20": b"\x01" * 64})
    cpu.xrstor(image(INTEL, TILES, STANDARD, 7), 7, BASE)
    before = unchanged(cpu)
    with pytest.raises(error):
        cpu.load({"k2": 9, "xmm1": b"\x07" * 16, **values})
    assert unchanged(cpu) == before


def test_load_on_a_model_without_wide_registers():
    cpu = processor("SandyBridge")
    cpu.load({"zmm0": b"\x01" * 32 + bytes(32)})
    assert cpu.registers()["ymm0"] == b"\x01" * 32
    for name in ("zmm0", "zmm20"):
        with pytest.raises((KeyError, ValueError)):
            cpu.load({name: b"\x01" * 64})
    with pytest.raises(KeyError):
        cpu.load({"k0": 1})


@pytest.mark.parametrize(("values", "mask"), [
    ({"k0": 1}, 0), ({"k0": 1}, 0xDF), ({"zmm0": b"\x01" * 64}, 6), ({"fcw": 0x27F}, 0x2E6), ({"pkru": 1}, "SSE|AVX"),
    ({"xmm15": b"\x01" * 16}, 4), ({"tmm0": b"\x01" * 1024}, 0x20000),
])
def test_a_mask_of_xinuse_that_contradicts_the_values(values, mask):
    for name in (INTEL, AMD):
        if name == AMD and "tmm0" in values:
            continue
        cpu = processor(name)
        cpu.load({"zmm31": b"\x01" * 64} if mask == 0xDF else {})
        before = unchanged(cpu)
        with pytest.raises(ValueError, match="xinuse"):
            cpu.load(values, xinuse=mask)
        assert unchanged(cpu) == before


def test_a_mask_of_xinuse_sets_it():
    for mask in (0, 1, 7, 0xE7, 0x2E7, 0x40000):
        cpu = processor(INTEL)
        cpu.load({}, xinuse=mask)
        assert int(cpu.xinuse) == mask
        area = bytearray(16384)
        cpu.xsavec(area, ALL)
        assert int.from_bytes(area[512:520], "little") == mask
    cpu = processor(INTEL)
    cpu.load({"k1": 1}, xinuse="opmask|PKRU")
    assert int(cpu.xinuse) == 0x220
    cpu = processor(INTEL, mode=32)
    cpu.load({}, xinuse=0xC6)
    assert int(cpu.xinuse) == 0x46      # kept, and only hidden
    cpu.mode = 64
    assert int(cpu.xinuse) == 0xC6
    with pytest.raises(ValueError, match="64 bits"):
        cpu.load({}, xinuse=1 << 64)


def test_processors_share_nothing():
    one, two = processor(INTEL), processor(INTEL)
    one.load(full_state(INTEL, TILES))
    got = one.registers()
    got["k1"] = 12345
    assert one.registers()["k1"] != 12345
    assert int(two.xinuse) == 0
