"""What no instruction could be given: refused, with nothing changed and nothing cut to size."""

import threading

import numpy as np
import pytest

from xsave import CpuModel, Fault, Processor

INTEL = CpuModel.named("SapphireRapids")


def config(**shape):
    image = bytearray(64)
    image[0] = 1
    for name, value in shape.items():
        at, size = {"colsb": (16, 2), "rows": (48, 1), "start": (1, 1), "reserved": (2, 1)}[name]
        image[at : at + size] = value.to_bytes(size, "little")
    return image


def test_an_operand_that_is_none():
    cpu = Processor(INTEL)
    cpu.ldtilecfg(config(colsb=64, rows=16))
    for call in (
        lambda: cpu.ldtilecfg(None),
        lambda: cpu.sttilecfg(None),
        lambda: cpu.tileloadd(0, None, 64),
        lambda: cpu.tilestored(0, None, 64),
        lambda: cpu.xsave(None, -1),
    ):
        with pytest.raises(TypeError):
            call()


@pytest.mark.parametrize(
    "image",
    [config(colsb=0xFFFC, rows=255), config(colsb=65, rows=1), config(colsb=64, rows=17), config(colsb=4),
     config(reserved=1), b"\0" + b"\1" * 63, b"\3" + bytes(63)],
)  # fmt: skip
def test_a_configuration_that_no_cpu_holds_is_not_loaded(image):
    cpu = Processor(INTEL)
    before = cpu.registers()
    with pytest.raises(ValueError, match="no CPU holds this TILECFG"):
        cpu.load({"tmm0": b"\7" * 1024, "tilecfg": bytes(image)})
    assert cpu.registers() == before


@pytest.mark.parametrize("start", [0, 15, 16, 255])
def test_every_start_row_is_held(start):
    cpu = Processor(INTEL)
    cpu.load({"tilecfg": bytes(config(colsb=64, rows=16, start=start))})
    answer = cpu.try_tilezero(0)
    assert answer is None


@pytest.mark.parametrize("value", [1 << 64, -(1 << 63) - 1, 1 << 200])
def test_numbers_beyond_64_bits_are_never_cut(value):
    cpu = Processor(INTEL, cpl=0)
    area = bytearray(16384)
    for call in (
        lambda: cpu.xsave(area, value),
        lambda: cpu.xsave(area, -1, value),
        lambda: cpu.xsetbv(0, value),
        lambda: cpu.wrmsr(0x1C4, value),
        lambda: cpu.execute_many("XSAVE", memoryview(area).cast("B", (1, 16384)), value),
        lambda: cpu.tilezero(value),
    ):
        with pytest.raises(ValueError):
            call()
    assert not any(area)
    cpu.xsave(area, -1)
    cpu.xrstor(area, 2**64 - 1)


def test_the_lower_half_of_rcx_is_the_index():
    cpu = Processor(INTEL)
    assert cpu.xgetbv(7 << 32) == cpu.xcr0
    with pytest.raises(Fault):
        cpu.xgetbv(7 << 32 | 5)


def test_wrpkru_needs_cr4_pke():
    with pytest.raises(Fault) as caught:
        Processor(INTEL, cr4_pke=False).write("pkru", 5)
    assert (caught.value.vector, caught.value.rule) == ("#UD", "PKE")
    cpu = Processor(INTEL)
    cpu.write("pkru", 5)
    assert cpu.registers()["pkru"] == 5


def test_one_thread_at_a_time():
    """While a batch runs without the GIL, another thread is refused and the batch is none the worse."""
    cpu = Processor(INTEL)
    areas = np.zeros((20_000, 11072), np.uint8)
    refused = []
    going = threading.Event()

    def batch():
        going.set()
        for _ in range(4):
            assert cpu.execute_many("XSAVE", areas, -1) == []

    thread = threading.Thread(target=batch)
    thread.start()
    going.wait()
    area = bytearray(16384)
    while thread.is_alive():
        try:
            cpu.xsavec(area, 7)
        except RuntimeError as error:
            refused.append(str(error))
    thread.join()
    assert refused and "one thread at a time" in refused[0]
    cpu.xsavec(area, 7)
