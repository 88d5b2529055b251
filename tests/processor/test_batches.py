"""`execute_many`, `switch`, `switch_many`: the same as the single instructions, row by row, and without the GIL."""

import ctypes
import sys
import threading
import time

import numpy as np
import pytest
from reference import COMPACTED, STANDARD

from tests.processor.operands import ALL, AMD, INTEL, TILES, full_state, image, processor
from xsave import Exit, Fault, Vmx

STRIDE = 11072      # a multiple of 64 that holds every area
SAVES = ["XSAVE", "XSAVEOPT", "XSAVEC", "XSAVES"]


def rows(count: int, stride: int = STRIDE, fill: bytes = b"\xa5", shift: int = 0) -> memoryview:
    """(count, stride) bytes whose first one lies on a multiple of 64, plus `shift`."""
    storage = bytearray(fill * (count * stride + 128))
    begin = -ctypes.addressof(ctypes.c_char.from_buffer(storage)) % 64 + shift
    return memoryview(storage)[begin : begin + count * stride].cast("B", (count, stride))


def flat(areas: memoryview) -> memoryview:
    return areas.cast("B")


def row(areas: memoryview, i: int) -> memoryview:
    stride = areas.shape[1]
    return flat(areas)[i * stride : (i + 1) * stride]


def images(name: str, count: int, fmt: str = STANDARD) -> memoryview:
    mask = int(processor(name).xcr0)
    areas = rows(count)
    for i in range(count):
        row(areas, i)[:] = image(name, mask, fmt, mask & (0xE7, 3, mask)[i % 3], seed=i)[:STRIDE]
    return areas


@pytest.mark.parametrize("name", [INTEL, AMD])
@pytest.mark.parametrize("instruction", [*SAVES, "FXSAVE"])
def test_saves_of_many_rows(name, instruction):
    one, many = processor(name, cpl=0), processor(name, cpl=0)
    state = full_state(name, int(one.xcr0))
    for cpu in (one, many):
        cpu.load(state)
    areas, want = rows(5), rows(5)
    for i in range(5):
        arguments = (0x4000 + i * STRIDE,) if instruction == "FXSAVE" else (0xE7, 0x4000 + i * STRIDE)
        getattr(one, instruction.lower())(row(want, i), *arguments, rexw=False)
    assert many.execute_many(instruction, areas, 0xE7, 0x4000, rexw=False) == []
    assert areas == want
    assert many.registers() == one.registers()


@pytest.mark.parametrize("instruction", ["XRSTOR", "XRSTORS", "FXRSTOR"])
def test_restores_of_many_rows_in_order(instruction):
    areas = images(INTEL, 7, COMPACTED if instruction == "XRSTORS" else STANDARD)
    for last in (1, 4, 7):
        one, many = processor(INTEL, cpl=0), processor(INTEL, cpl=0)
        some = flat(areas)[: last * STRIDE].cast("B", (last, STRIDE)).toreadonly()
        assert many.execute_many(instruction, some, ALL) == []
        arguments = () if instruction == "FXRSTOR" else (ALL,)
        for i in range(last):
            getattr(one, instruction.lower())(row(areas, i), *arguments, address=i * STRIDE)
        assert many.registers() == one.registers()
        assert (many.xinuse, many.xmodified, many.xrstor_info) == (one.xinuse, one.xmodified, one.xrstor_info)


def test_rows_that_fault_are_listed():
    areas = images(INTEL, 8)
    row(areas, 2)[521] = 1
    row(areas, 5)[27] = 0x80
    row(areas, 7)[518] = 1
    cpu = processor(INTEL)
    found = cpu.execute_many("XRSTOR", areas, ALL)
    assert [(i, fault.rule, fault.offset) for i, fault in found] == [
        (2, "H-XCOMP", 521), (5, "H-MXCSR", 27), (7, "H-XSTATE", 518),
    ]
    assert all(isinstance(fault, Fault) and fault.vector == "#GP" for _, fault in found)
    other = processor(INTEL)
    for i in (0, 1, 3, 4, 6):
        other.xrstor(row(areas, i), ALL)
    assert cpu.registers() == other.registers()
    assert cpu.execute_many("XRSTOR", np.zeros((0, STRIDE), np.uint8), ALL) == []


def test_addresses_of_rows():
    areas = rows(4, stride=16416)     # every other row is aligned
    found = processor(AMD).execute_many("XSAVE", areas, 7)
    assert [(i, fault.rule) for i, fault in found] == [(1, "ALIGN"), (3, "ALIGN")]
    found = processor(AMD).execute_many("XSAVE", areas, 7, address=32)
    assert [i for i, _ in found] == [0, 2]


def test_exits_are_listed():
    cpu = processor(INTEL, cpl=0, ia32_xss=0x800, vmx=Vmx(xss_exiting=0x800))
    areas = images(INTEL, 2, COMPACTED)
    for instruction, number in (("XSAVES", 63), ("XRSTORS", 64)):
        found = cpu.execute_many(instruction, areas, 0x800)
        assert [i for i, _ in found] == [0, 1]
        assert all(isinstance(each, Exit) and (each.reason, each.number) == (instruction, number) for _, each in found)


def test_misuse_of_execute_many():
    cpu = processor(INTEL)
    areas = rows(2)
    for instruction in ("xsave", "LDTILECFG", "TILELOADD", "", "XGETBV"):
        with pytest.raises(ValueError, match="instruction"):
            cpu.execute_many(instruction, areas, 1)
    for wrong in (bytearray(STRIDE), flat(areas), flat(areas).cast("Q"), flat(areas).cast("Q", (2, STRIDE // 8))):
        with pytest.raises(ValueError, match="two-dimensional"):
            cpu.execute_many("XSAVE", wrong, 1)
    with pytest.raises((BufferError, ValueError), match="contiguous"):
        cpu.execute_many("XSAVE", np.zeros((4, STRIDE), np.uint8)[::2], 1)
    with pytest.raises(ValueError, match="read-only"):
        cpu.execute_many("XSAVE", areas.toreadonly(), 1)
    with pytest.raises(ValueError, match="beyond the buffer"):
        cpu.execute_many("XSAVE", rows(2, stride=640), 7)
    with pytest.raises(TypeError):
        cpu.execute_many("XSAVE", "text", 1)


def test_the_gil_is_released():
    """With a switch interval that never ends, another thread runs only while this one has let go."""
    cpu = processor(INTEL)
    areas = rows(500)
    interval = sys.getswitchinterval()
    ticks = 0

    def work() -> None:
        for _ in range(100):
            cpu.execute_many("XSAVE", areas, ALL)

    thread = threading.Thread(target=work)
    try:
        sys.setswitchinterval(1000)
        thread.start()
        while thread.is_alive():
            ticks += 1
            time.sleep(0)
    finally:
        sys.setswitchinterval(interval)
        thread.join()
    assert ticks > 0


# --- context switches -------------------------------------------------------------------------------------------

@pytest.mark.parametrize("instruction", SAVES)
@pytest.mark.parametrize("name", [INTEL, AMD])
def test_a_switch_is_a_save_and_a_restore(name, instruction):
    one, two = processor(name, cpl=0), processor(name, cpl=0)
    for cpu in (one, two):
        cpu.load(full_state(name, int(cpu.xcr0)))
    restore = bytes(image(name, int(one.xcr0), STANDARD, 0x47))
    for mask in (ALL, 0xE7, 3, 0):
        got, want = bytearray(b"\xa5" * STRIDE), bytearray(b"\xa5" * STRIDE)
        one.switch(got, restore, mask, 0x4000, 0x8000, instruction)
        getattr(two, instruction.lower())(want, mask, 0x4000)
        two.xrstor(restore, mask, 0x8000)
        assert got == want
        assert one.registers() == two.registers()
        assert (one.xinuse, one.xmodified, one.xrstor_info) == (two.xinuse, two.xmodified, two.xrstor_info)


@pytest.mark.parametrize("instruction", SAVES)
@pytest.mark.parametrize("name", [INTEL, AMD])
def test_many_switches_are_switches(name, instruction):
    one, many = processor(name, cpl=0), processor(name, cpl=0)
    areas = images(name, 6)
    got, want = rows(6), rows(6)
    many.switch_many(got, areas, ALL, instruction)
    for i in range(6):
        one.switch(row(want, i), row(areas, i), ALL, 0x4000, 0x8000, instruction)
    assert got == want
    assert many.registers() == one.registers()
    assert many.xinuse == one.xinuse


def test_a_row_saved_where_it_came_from_is_unmodified():
    cpu = processor(INTEL)
    areas = images(INTEL, 2)
    first, second = (row(areas, i).cast("B", (1, STRIDE)) for i in range(2))
    cpu.switch_many(rows(1), first, ALL, "XSAVEOPT")
    kept = bytes(row(areas, 0)[576:832])
    row(areas, 0)[576:832] = b"\x99" * 256
    cpu.switch_many(first, second, ALL, "XSAVEOPT")
    assert row(areas, 0)[576:832] == b"\x99" * 256 != kept      # skipped: nothing had changed
    cpu.switch_many(second, first, ALL, "XSAVEOPT")
    cpu.write("ymm1", b"\x11" * 32)
    cpu.switch_many(first, second, ALL, "XSAVEOPT")
    assert row(areas, 0)[592:608] == b"\x11" * 16


def test_faults_of_switches():
    cpu = processor(INTEL)
    good, bad = bytes(image(INTEL, TILES, STANDARD, 3)), image(INTEL, TILES, STANDARD, 3)
    bad[513] |= 1
    for arguments, name in (((1, 0), "XSAVEC"), ((0, 1), "XRSTOR")):
        with pytest.raises(Fault, match=name) as caught:
            cpu.switch(bytearray(STRIDE), good, ALL, *arguments)
        assert caught.value.rule == "ALIGN"
    saved = bytearray(STRIDE)
    cpu.load({"k1": 3})
    with pytest.raises(Fault, match="XRSTOR"):
        cpu.switch(saved, bad, ALL)
    assert saved[512] == 0x20       # the save was done
    areas, into = images(INTEL, 4), rows(4)
    row(areas, 2)[528] = 1
    with pytest.raises(Fault) as caught:
        cpu.switch_many(into, areas, ALL)
    assert caught.value.offset == 528
    assert [bytes(row(into, i)[512:520]) != b"\xa5" * 8 for i in range(4)] == [True, True, True, False]


def test_misuse_of_switches():
    cpu = processor(INTEL)
    good = bytes(image(INTEL, TILES, STANDARD, 3))
    before = cpu.registers()
    for instruction in ("XRSTOR", "xsavec", "FXSAVE", ""):
        with pytest.raises(ValueError, match="save instruction"):
            cpu.switch(bytearray(STRIDE), good, ALL, instruction=instruction)
        with pytest.raises(ValueError, match="save instruction"):
            cpu.switch_many(rows(1), rows(1), ALL, instruction)
    with pytest.raises(BufferError):
        cpu.switch(bytes(STRIDE), good, ALL)
    with pytest.raises(ValueError, match="XSAVEC"):
        cpu.switch(bytearray(600), good, ALL)
    with pytest.raises(ValueError, match="XRSTOR"):
        cpu.switch(bytearray(STRIDE), good[:600], ALL)
    with pytest.raises(ValueError, match="2 rows to save into, 3 to restore from"):
        cpu.switch_many(rows(2), images(INTEL, 3), ALL)
    with pytest.raises(ValueError, match="two-dimensional"):
        cpu.switch_many(bytearray(STRIDE), images(INTEL, 1), ALL)
    with pytest.raises(BufferError):
        cpu.switch_many(rows(1).toreadonly(), images(INTEL, 1), ALL)
    assert cpu.registers() == before
