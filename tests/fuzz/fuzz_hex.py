"""Fuzz target: text that shows bytes, as xxd, hexdump, od and gdb print them, and the area that comes out of it."""

import inspect
from collections.abc import Iterator

import xsave
import xsave.area
import xsave.codec
import xsave.images.hexdump
from tests.writers import hexdumps

CPU = xsave.CpuModel.named("EPYC-Genoa")


def one_input(data: bytes) -> None:
    try:
        image = xsave.open(data, cpu=CPU)
    except xsave.XSaveError:
        return
    for thread in image.threads:
        if thread.area is not None:
            xsave.decode(thread.area)


def seeds() -> Iterator[bytes]:
    """One area in every form that the tests can write."""
    layout = xsave.Layout(CPU, 7, xsave.STANDARD)
    data = xsave.encode({"ymm0": bytes(range(32)), "ymm1": bytes(range(32, 64))}, layout)
    for name, write in vars(hexdumps).items():
        if inspect.isfunction(write) and "data" in inspect.signature(write).parameters and not name.startswith("_"):
            yield write(data).encode()
