"""P9: a context switch of the emulated processor, all data moved and all checks on, against this CPU's own pair of
instructions on the same rows.

The rows lie one behind the other (two lines' room between them), few enough for L1 and L2; row i is saved into and row
i of the others restored from. XSAVEOPT saves where the state came from, so that nothing counts as modified. Before
anything is timed the images of both sides are compared byte for byte.
"""

from time import perf_counter_ns

import numpy as np
import pytest
from goals import at_least, at_most
from ratio import TimedSide

import xsave

ROWS = 32
REPEAT = 32
CASES = {
    "in use": ("XSAVEC", 1),
    "init": ("XSAVEC", 0),
    "XSAVEOPT, nothing modified": ("XSAVEOPT", 1),
    "XSAVEOPT, all moved": ("XSAVEOPT", 1),
}


def rows_of(layout: "xsave.Layout", in_use: int, seed: int) -> np.ndarray:
    """ROWS + 1 standard areas with distinct contents, on 64-byte boundaries."""
    stride = (layout.size + 191) // 64 * 64
    block = np.zeros((ROWS + 1) * stride + 64, np.uint8)
    start = -block.ctypes.data % 64
    rows = block[start : start + (ROWS + 1) * stride].reshape(ROWS + 1, stride)
    rng = np.random.default_rng(seed)
    rows[:, 32:416] = rng.integers(0, 256, (ROWS + 1, 384), np.uint8)
    rows[:, 576 : layout.size] = rng.integers(0, 256, (ROWS + 1, layout.size - 576), np.uint8)
    rows[:, 42:160].reshape(ROWS + 1, -1)[:, [at for at in range(118) if at % 16 < 6]] = 0
    rows[:, 0:32] = 0
    rows[:, 0:2] = (0x7F, 3)
    rows[:, 4] = 255
    rows[:, 24:28] = (0x80, 0x1F, 0, 0)
    if 17 in layout.offsets:
        at, _ = layout.offsets[17]
        rows[:, at : at + 64] = 0
        rows[:, at] = 1
        for tile in range(8):
            rows[:, at + 16 + 2 * tile] = 64
            rows[:, at + 48 + tile] = 16
    rows[:, 512:520] = np.frombuffer((in_use).to_bytes(8, "little"), np.uint8)
    rows[:, 520:576] = 0
    return rows


def aligned(rows: np.ndarray) -> np.ndarray:
    """A copy on a 64-byte boundary."""
    block = np.zeros(rows.size + 64, np.uint8)
    start = -block.ctypes.data % 64
    copy = block[start : start + rows.size].reshape(rows.shape)
    copy[:] = rows
    return copy


def check(native, cpu, insn: str, rows: np.ndarray, mask: int) -> None:
    """Both sides' images of the same switches."""
    ours, theirs = aligned(rows), aligned(rows)
    for each in (ours, theirs):
        each[:, 576:] = 0xA5
    source = rows
    cpu.xrstor(source[-1], mask)
    native.hardware_switches(theirs[:1], source[-1:], mask, insn == "XSAVEOPT", 1)
    native.hardware_switches(theirs, source, mask, insn == "XSAVEOPT", 1)
    cpu.switch_many(ours, source, mask, insn)
    assert np.array_equal(ours[1:], theirs[1:]), "the emulated image is not the hardware's"


@pytest.mark.parametrize("case", CASES)
def test_p9(judge, case):
    """Switches in a batch."""
    native = judge.native
    host = xsave.CpuModel.host()
    xcr0 = int(xsave.Host.xcr0)
    if xcr0 & 0xE7 != 0xE7:
        judge.untold("P9", case, at_most(0.30), "XSAVEC+XRSTOR", judge.needs_avx512 or "no AVX-512 in XCR0")
        return
    insn, busy = CASES[case]
    for mask, bound in ((0xE7, 0.30), (0x600E7, 0.40)):
        if xcr0 & mask != mask:
            continue
        if mask >> 18:
            xsave.Host.request_amx()
        layout = xsave.Layout(host, mask, xsave.STANDARD)
        rows = rows_of(layout, mask if busy else 0, 9)
        cpu = xsave.Processor(host, xcr0=xcr0)
        check(native, cpu, insn, rows, mask)
        if case == "XSAVEOPT, nothing modified":
            saves, restores = rows[:-1], rows[1:]  # saved where it came from: row i was restored one switch before
        else:
            saves, restores = aligned(rows)[:-1], rows[:-1]
        def ours(cpu=cpu, saves=saves, restores=restores, mask=mask):
            begin = perf_counter_ns()
            for _ in range(REPEAT):
                cpu.switch_many(saves, restores, mask, insn)
            return (perf_counter_ns() - begin) / (REPEAT * ROWS)

        def hardware(saves=saves, restores=restores, mask=mask):
            return native.hardware_switches(saves, restores, mask, insn == "XSAVEOPT", REPEAT)

        times = judge.compare(lambda _: [TimedSide("xsave", ours), TimedSide("hardware", hardware)], draws=2, rounds=64)
        goals = {"in use": bound, "init": 0.40, "XSAVEOPT, nothing modified": 0.35}
        goal = goals.get(case)
        name = f"{mask:#x} {case}"
        note = "" if goal else "printed, not judged"
        judge.line("P9", name, times.cost("xsave", "hardware"), goal and at_most(goal), f"{insn}+XRSTOR", note=note)


def test_p9_single_calls(judge):
    """One Python call a switch, and XRSTOR alone."""
    native = judge.native
    host = xsave.CpuModel.host()
    xcr0 = int(xsave.Host.xcr0)
    if xcr0 & 0xE7 != 0xE7:
        judge.untold("P9", "one call", at_most(0.6, intel=0.5), "XSAVEC+XRSTOR", "no AVX-512 in XCR0")
        return
    rows = rows_of(xsave.Layout(host, 0xE7, xsave.STANDARD), 0xE7, 10)
    cpu = xsave.Processor(host, xcr0=xcr0)
    saves = aligned(rows)
    pairs = [(memoryview(save), memoryview(restore)) for save, restore in zip(saves[:-1], rows[:-1], strict=True)]
    def calls():
        switch = cpu.switch
        begin = perf_counter_ns()
        for _ in range(REPEAT):
            for save, restore in pairs:
                switch(save, restore, 0xE7)
        return (perf_counter_ns() - begin) / (REPEAT * ROWS)

    def restores():
        begin = perf_counter_ns()
        for _ in range(REPEAT):
            cpu.execute_many("XRSTOR", rows, 0xE7)
        return (perf_counter_ns() - begin) / (REPEAT * (ROWS + 1))

    def hardware():
        return native.hardware_switches(saves[:-1], rows[:-1], 0xE7, False, REPEAT)

    sides = [TimedSide("calls", calls), TimedSide("XRSTOR", restores), TimedSide("hardware", hardware)]
    times = judge.compare(lambda _: sides, draws=2, rounds=64)
    judge.line("P9", "one call", times.cost("calls", "hardware"), at_most(0.6, intel=0.5), "XSAVEC+XRSTOR")
    ratio = times.cost("XRSTOR", "hardware")
    rate = ratio._replace(figure=1e3 / ratio.ours_ns, low=1e3 / ratio.ours_ns, high=1e3 / ratio.ours_ns)
    judge.line("P9", "XRSTOR, millions a second", rate, at_least(5), "none")
