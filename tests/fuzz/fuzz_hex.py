"""Fuzz target: text that shows bytes, as xxd, hexdump, od and gdb print them, and the area that comes out of it."""

import struct
from collections.abc import Iterator

import xsave
import xsave.images.hexdump

CPU = xsave.CpuModel.named("EPYC-Genoa")


def one_input(data: bytes) -> None:
    try:
        image = xsave.open(data, cpu=CPU)
    except xsave.XSaveError:
        return
    for thread in image.threads:
        if thread.area is not None:
            xsave.decode(thread.area)


def rows(data: bytes) -> Iterator[tuple[int, bytes]]:
    for at in range(0, len(data), 16):
        yield at, data[at : at + 16]


def seeds() -> Iterator[bytes]:
    """One area in every form."""
    layout = xsave.Layout(CPU, 7, xsave.STANDARD)
    data = xsave.encode({"xmm0": bytes(range(16)), "ymm1": bytes(range(32))}, layout)
    pairs = [" ".join(row[i : i + 2].hex() for i in range(0, 16, 2)) for _, row in rows(data)]
    yield "".join(f"{16 * i:08x}: {text}  ................\n" for i, text in enumerate(pairs)).encode()
    yield "".join(f"{at:08x}  {row[:8].hex(' ')}  {row[8:].hex(' ')}  |................|\n" for at, row in rows(data)).encode()
    yield "".join(f"{at:07o} {' '.join(f'{byte:03o}' for byte in row)}\n" for at, row in rows(data)).encode()
    words = [struct.unpack("<2Q", row) for _, row in rows(data)]
    yield "".join(f"0x7ffe{16 * i:08x}:\t0x{a:016x}\t0x{b:016x}\n" for i, (a, b) in enumerate(words)).encode()
    yield data.hex().encode()
    yield data.hex(" ").encode()
