"""`image.columns()`: registers of all threads at once, through the codec's batch form.

Notes are read in chunks into one buffer and decoded from it; of large areas only what is in use is read. A
thread that is not like the others (another layout, a repaired note, no state at all) takes the slow way, one at a
time.
"""

from xsave.codec import decode, decode_many, encode
from xsave.errors import ImageError
from xsave.layout import STANDARD

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from xsave.images.core import CoreImage
    from xsave.images.image import Image
    from xsave.layout import Layout

__all__ = ["Bulk", "image_columns"]

_CHUNK = 1 << 18
# A component of this size is read only for the threads that use it.
_LARGE = 1 << 12
_WIDENING = ("xmm", "ymm", "zmm")


class Bulk:
    """Where the uniform rows of a core lie: notes of one size, one XCR0 and one layout.

    `offsets`, `sizes`: int64 per thread, as bytes, -1 where a thread has no note; `size`, `xcr0` of the uniform
    notes; `layout` for all of them.
    """

    __slots__ = ("layout", "offsets", "size", "sizes", "xcr0")

    def __init__(self, layout: "Layout", offsets: bytes, sizes: bytes, size: int, xcr0: int) -> None:
        self.layout = layout
        self.offsets = offsets
        self.sizes = sizes
        self.size = size
        self.xcr0 = xcr0


def image_columns(image: "Image", registers: "Sequence[str] | None") -> "dict[str, Any]":
    """See `Image.columns`."""
    import numpy

    count = image._count()
    tids = numpy.fromiter((image._tid(i) for i in range(count)), numpy.int64, count)
    bulk = image._bulk()
    layout = bulk.layout if bulk is not None else _widest(image)
    blank = encode({}, layout)
    start = decode_many(numpy.frombuffer(blank, numpy.uint8).reshape(1, -1), layout, registers)
    columns = {name: numpy.empty((count, *array.shape[1:]), array.dtype) for name, array in start.items()}
    slow = numpy.ones(count, bool)
    if bulk is not None:
        _fill(image, bulk, columns, registers, slow)  # type: ignore[arg-type]
    missing = []
    for index in numpy.flatnonzero(slow).tolist():
        if not _fill_one(image, index, columns, start):
            missing.append(int(tids[index]))
    if missing:
        shown = ", ".join(map(str, missing[:8])) + (", ..." if len(missing) > 8 else "")
        image._warn(f"{len(missing)} of {count} threads have no extended state, or not all of it; their columns have initial "
                    f"values: {shown}")
    return {"tid": tids, **columns}


def _widest(image: "Image") -> "Layout":
    found = None
    for thread in image.threads:
        area = thread.area
        if area is not None and (found is None or area.layout.mask.bit_count() > found.mask.bit_count()):
            found = area.layout
    if found is None:
        raise ImageError(f"{image.source}: no thread has extended state: nothing to make columns of", rule="I-NOSTATE")
    return found


def _fill(image: "CoreImage", bulk: Bulk, columns: "dict[str, Any]", registers: "Sequence[str] | None", slow: "Any") -> None:
    import numpy

    layout, width = bulk.layout, bulk.layout.size
    offsets = numpy.frombuffer(bulk.offsets, numpy.int64)
    sizes = numpy.frombuffer(bulk.sizes, numpy.int64)
    rows = numpy.flatnonzero(sizes == bulk.size)
    tail = [(offset, size) for offset, size in layout.offsets.values() if size >= _LARGE and offset + size == width]
    head = tail[0][0] if tail else width
    large = sum(1 << c for c, (offset, _) in layout.offsets.items() if offset >= head)
    room = max(_CHUNK, bulk.size * 2)
    buffer = numpy.empty(room, numpy.uint8)
    view = memoryview(buffer)
    source = image._source
    at = 0
    while at < len(rows):
        first = offsets[rows[at]]
        if tail or at + 1 == len(rows):
            # Row by row into a tight matrix; what lies behind `head` only where XSTATE_BV has it.
            stride = width
            batch = rows[at : at + max(room // width, 1)]
            for number, row in enumerate(batch.tolist()):
                place, to = int(offsets[row]), number * stride
                got = source.read_into(place, view[to : to + head])
                in_use = int.from_bytes(view[to + 512 : to + 520], "little")
                if got == head and in_use & large:
                    got += source.read_into(place + head, view[to + head : to + width])
        else:
            # Neighbours at one distance: one read, decoded where it lies.
            stride = int(offsets[rows[at + 1]] - first)
            ahead = rows[at : at + max(room // stride, 1)]
            steps = numpy.diff(offsets[ahead]) == stride
            batch = ahead[: len(ahead) if steps.all() else int(steps.argmin()) + 1]
            source.read_into(int(first), view[: (len(batch) - 1) * stride + bulk.size])
        matrix = buffer[: len(batch) * stride].reshape(len(batch), stride) if len(batch) * stride <= room else None
        if matrix is None:
            batch = batch[: room // stride]
            matrix = buffer[: len(batch) * stride].reshape(len(batch), stride)
        good = _usual(matrix, bulk, numpy)
        if good.all() and (numpy.diff(batch) == 1).all():
            part = decode_many(matrix, layout, registers)
            where: "Any" = slice(int(batch[0]), int(batch[-1]) + 1)
            slow[where] = False
        else:
            part = decode_many(numpy.ascontiguousarray(matrix[good]), layout, registers)
            where = batch[good]
            slow[where] = False
        for name, array in part.items():
            columns[name][where] = array
        at += len(batch)


def _usual(matrix: "Any", bulk: Bulk, numpy: "Any") -> "Any":
    # Rows that need no repair: the image's own XCR0, a standard header within the layout, MXCSR written by the kernel.
    words = numpy.ascontiguousarray(matrix[:, 464:576]).view("<u8")
    xcr0, in_use, rest = words[:, 0], words[:, 6], words[:, 7:]
    mask = numpy.uint64(int(bulk.layout.mask))
    return (xcr0 == bulk.xcr0) & (in_use & ~mask == 0) & (in_use & numpy.uint64(6) != 0) & ~rest.any(axis=1)


def _fill_one(image: "Image", index: int, columns: "dict[str, Any]", start: "dict[str, Any]") -> bool:
    import numpy

    area = image._state(index).area
    values = decode(area) if area is not None else {}
    whole = area is not None
    for name, column in columns.items():
        value = _value(values, name)
        if value is None:
            whole = False
            column[index] = start[name][0]
        elif isinstance(value, int):
            column[index] = value
        else:
            row = numpy.frombuffer(value, numpy.uint8)
            column[index, : len(row)] = row[: column.shape[1]]
            column[index, len(row) :] = 0
    return whole


def _value(values: "dict[str, Any]", name: str) -> "Any":
    if name in values or name[:3] not in _WIDENING:
        return values.get(name)
    return next((values[f"{family}{name[3:]}"] for family in reversed(_WIDENING) if f"{family}{name[3:]}" in values), None)


assert STANDARD == 0
