"""Inputs of the benchmarks: random areas, where they lie in memory, and the oracle that checks every result once.

Every area of a batch is different. All bytes of the components are random, whatever XSTATE_BV says; only what
XRSTOR would refuse (reserved bits of MXCSR, the header, a tile configuration) is made legal.
"""

import random

import numpy as np
import reference

import xsave
from xsave.layout import Layout

LINE = 64
PAGE = 4096
POISON = 0xA5
CPU = "SapphireRapids"
MODEL = xsave.CpuModel.named(CPU)
AVX512 = 0x2E7  # x87 SSE AVX opmask ZMM_Hi256 Hi16_ZMM PKRU
SPARSE = 0x207  # x87 SSE AVX PKRU in use
AMX = 0x602E7
RANDOM = "random"


def layouts(mask: int = AVX512) -> "tuple[Layout, Layout]":
    """The standard and the compacted layout of the benchmarks' CPU, whose offsets differ."""
    return Layout(MODEL, mask, xsave.STANDARD), Layout(MODEL, mask, xsave.COMPACTED)


def stride_of(size: int, packed: bool) -> int:
    """Packed rows follow each other without a gap; the others begin at 64-byte lines."""
    return size if packed else -(-size // LINE) * LINE


def draw_offset(rng: random.Random, packed: bool) -> int:
    """An offset in a page: any that malloc gives, or any line."""
    return rng.randrange(0, PAGE, 16 if packed else LINE)


class Memory:
    """Memory that benchmarks of one module share, so that no side pays for fresh pages: `place` gives rows in it."""

    def __init__(self) -> None:
        self._raw: "dict[object, np.ndarray]" = {}

    def place(self, key: object, count: int, stride: int, offset: int = 0) -> np.ndarray:
        """A (count, stride) array of the memory called `key`, at `offset` in a page."""
        need = count * stride + 3 * PAGE
        raw = self._raw.get(key)
        if raw is None or raw.size < need:
            raw = self._raw[key] = np.full(need, POISON, np.uint8)
        start = -raw.ctypes.data % PAGE + offset
        return raw[start : start + count * stride].reshape(count, stride)

    def clear(self) -> None:
        """Gives all of it back."""
        self._raw.clear()


def fill(rows: np.ndarray, layout: Layout, in_use: "int | str", seed: int = 1) -> np.ndarray:
    """Random areas of `layout` into `rows`; `in_use` is their XSTATE_BV, or RANDOM: every bit of the mask drawn."""
    rng = np.random.default_rng(seed)
    count = len(rows)
    step = 4096
    for start in range(0, count, step):
        part = rows[start : start + step]
        part[:] = np.frombuffer(rng.bytes(part.size), np.uint8).reshape(part.shape)
    rows[:, layout.size :] = POISON
    rows[:, 416:576] = 0
    rows[:, 26:32] = np.frombuffer(bytes((0, 0, 0xFF, 0xFF, 0, 0)), np.uint8)  # MXCSR ≤ 0xFFFF, MXCSR_MASK of the model
    if in_use == RANDOM:
        marks = rng.integers(0, 1 << 62, count, dtype=np.uint64) & np.uint64(layout.mask)
    else:
        marks = np.full(count, in_use, np.uint64)
    rows[:, 512:520] = marks[:, None].view(np.uint8)
    if layout.format == xsave.COMPACTED:
        rows[:, 520:528] = np.frombuffer((int(layout.mask) | 1 << 63).to_bytes(8, "little"), np.uint8)
    if int(layout.mask) >> 17 & 1:
        at, size = layout.offsets[xsave.Component.TILECFG]
        shapes = np.zeros((count, size), np.uint8)
        shapes[:, 0] = 1
        shapes[:, 16:32:2] = 4 * rng.integers(1, 17, (count, 8))
        shapes[:, 48:56] = rng.integers(1, 17, (count, 8))
        rows[:, at : at + size] = shapes
    return rows


def moved(rows: np.ndarray, layout: Layout) -> int:
    """Bytes of an area that really move, on average: legacy region, header, and the components in use."""
    marks = rows[:, 512:520].copy().view(np.uint64)[:, 0]
    total = 576.0
    for number, (_offset, size) in layout.offsets.items():
        total += size * float(np.mean(marks >> np.uint64(number) & np.uint64(1)))
    return round(total)


def _words(layout: Layout) -> "tuple[int, str]":
    return int(layout.mask), reference.COMPACTED if layout.format == xsave.COMPACTED else reference.STANDARD


def sampled(count: int, most: int = 64) -> "list[int]":
    """All rows of a small batch; of a large one the first, the last and random ones."""
    if count <= most:
        return list(range(count))
    return sorted({0, count - 1, *random.Random(count).sample(range(count), most - 2)})


def check_conversion(source: np.ndarray, a: Layout, target: np.ndarray, b: Layout) -> None:
    """Fails unless `target`, poisoned before, holds the state of `source` as the reference model reads both."""
    for row in sampled(len(source)):
        before, after = source[row].tobytes(), target[row].tobytes()
        mask, form = _words(b)
        faults = reference.header_faults(after[: b.size], CPU, form, mask)
        assert not faults, f"row {row}: {faults}"
        wanted = reference.decode(before[: a.size], CPU, *_words(a))
        found = reference.decode(after[: b.size], CPU, mask, form)
        assert found == wanted, f"row {row}: {[name for name in wanted if found.get(name) != wanted[name]]}"
        assert set(after[b.size :]) <= {POISON}, f"row {row}: bytes beyond the area were written"


def check_values(area: bytes, layout: Layout, values: "dict[str, int | bytes]") -> None:
    """Fails unless `values` are the registers of `area` as the reference model reads them."""
    wanted = reference.decode(area, CPU, *_words(layout))
    assert values == wanted, [name for name in wanted if values.get(name) != wanted[name]]
