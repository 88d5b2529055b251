"""What tests of tile instructions share: configurations, processors with filled tiles, rows that differ."""

from tests.processor.operands import INTEL
from xsave import CpuModel, Processor


def config(shapes: list[tuple[int, int]], start_row: int = 0, palette: int = 1) -> bytearray:
    """An image from (rows, colsb) of tile 0, 1, ..."""
    image = bytearray(64)
    image[0:2] = palette, start_row
    for t, (rows, colsb) in enumerate(shapes):
        image[48 + t] = rows
        image[16 + 2 * t : 18 + 2 * t] = colsb.to_bytes(2, "little")
    return image


def fresh(**controls: object) -> Processor:
    return Processor(CpuModel.named(INTEL), **controls)


def filled(shapes: list[tuple[int, int]] | None = None, start_row: int = 0) -> Processor:
    """Configured, every tile's bytes its number plus one."""
    cpu = fresh()
    cpu.load({"tilecfg": bytes(config(shapes or [(16, 64)] * 8, start_row))})
    cpu.load({f"tmm{t}": bytes([t + 1]) * 1024 for t in range(8)})
    return cpu


def row_bytes(row: int, count: int = 64) -> bytes:
    return bytes((17 * row + i + 1) & 0xFF for i in range(count))


SOURCE = b"".join(row_bytes(row) for row in range(16))
