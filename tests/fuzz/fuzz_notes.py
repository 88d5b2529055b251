"""Fuzz target: core files as bytes, the note walker and the layouts that it finds, every thread decoded."""

import random
from collections.abc import Iterator

import xsave
import xsave.area
import xsave.codec
import xsave.images.core
from tests.writers import elf

CPUS = ("SapphireRapids", "DiamondRapids", "EPYC-Genoa", "Bulldozer")
# A note of one page holds a hundred records of a thread each at most.
MOST_THREADS = 1 << 16


def one_input(data: bytes) -> None:
    if not data.startswith(b"\x7fELF"):
        data = b"\x7fELF" + data[4:]
    try:
        image = xsave.open(data)
    except xsave.XSaveError:
        return
    assert len(image.threads) < MOST_THREADS
    for number, thread in enumerate(image.threads):
        if number == 4:
            break
        repr(thread)
        assert isinstance(thread.gpr, dict)
        area = thread.area
        if area is not None:
            xsave.decode(area)
        for extra in thread.extra_states:
            xsave.decode(extra.area)
    try:
        image.columns(["mxcsr"])
    except xsave.XSaveError:
        return  # no thread with extended state, or none with this register


def area_of(layout: xsave.Layout, seed: int) -> bytes:
    """A state with everything in use, as a kernel's note has it."""
    rng = random.Random(seed)
    blank = xsave.decode(xsave.Area(xsave.encode({}, layout), layout))
    values = {name: rng.randbytes(len(value)) for name, value in blank.items() if isinstance(value, bytes)}
    values.pop("tilecfg", None)
    body = bytearray(xsave.encode(values, layout, layout.mask))
    body[464:472] = int(layout.mask).to_bytes(8, "little")
    return bytes(body)


def seeds() -> Iterator[bytes]:
    """Cores of two threads from four CPUs, of three kernels, in gdb's order, and of 32-bit processes."""
    for cpu in CPUS:
        model = xsave.CpuModel.named(cpu)
        layout = xsave.Layout(model, model.xcr0_mask & ~(1 << 18), xsave.STANDARD)
        area = area_of(layout, 1)
        threads = [elf.Thread(tid=7 + i, signal=11 - i, xstate=area, fpregs=area[:416] + bytes(96)) for i in range(2)]
        entries = [(int(component), size, offset) for component, (offset, size) in layout.offsets.items()]
        yield elf.core(elf.linux_notes(threads, layout=entries))
        yield elf.core(elf.linux_notes(threads))
        yield elf.core(elf.gcore_notes(threads[:1]), [(0x7000, bytes(256))], notes_last=True)
        yield elf.core(elf.freebsd_notes(threads[:1]))
        yield elf.core(elf.netbsd_notes(threads[:1]))
        yield elf.core(elf.linux_notes(threads[:1], abi="i386"), elf_class=1, machine=elf.EM_386)
