"""`image.columns()`: registers of all threads at once, through the codec's batch form.

Notes are read in chunks into one buffer and decoded from where they lie in it. A thread that is not like the others
(another layout, a note to repair, no state at all) takes the slow way, one at a time.
"""

import math

from xsave._records import rows_using, unusual_rows
from xsave.codec import ColumnWriter, decode, decode_many, encode
from xsave.errors import ImageError
from xsave.layout import STANDARD, Layout
from xsave.registers import REGISTERS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

    from xsave.images.core import CoreImage
    from xsave.images.image import Image

__all__ = ["Bulk", "image_columns"]

_CHUNK = 1 << 20
# A component of this size is decoded only for the threads that use it.
_LARGE = 1 << 12
_WIDENING = ("xmm", "ymm", "zmm")


class Bulk:
    """Where the uniform rows of a core lie: notes of one size, one XCR0 and one layout.

    `numbers`, `offsets`, `sizes`: int64 per thread, as bytes: its tid, and where its note lies (-1 without one);
    `size`, `xcr0` of the uniform notes; `layout` for all of them.
    """

    __slots__ = ("layout", "numbers", "offsets", "size", "sizes", "xcr0")

    def __init__(self, layout: "Layout", numbers: bytes, places: "tuple[bytes, bytes]", size: int, xcr0: int) -> None:
        self.layout = layout
        self.numbers = numbers
        self.offsets, self.sizes = places
        self.size = size
        self.xcr0 = xcr0


def image_columns(image: "Image", registers: "Sequence[str] | None") -> "dict[str, Any]":
    """See `Image.columns`."""
    import numpy

    count = image._count()
    bulk = image._bulk()
    layout = bulk.layout if bulk is not None else _widest(image)
    blank = decode_many(memoryview(encode({}, layout)).cast("B", (1, layout.size)), layout, registers)
    if bulk is None:
        tids = numpy.fromiter((image._tid(i) for i in range(count)), numpy.int64, count)
        columns = {name: numpy.empty((count, *row.shape[1:]), row.dtype) for name, row in blank.items()}
        slow = list(range(count))
    else:
        tids = numpy.frombuffer(bulk.numbers, numpy.int64)
        # What the system gives out as zeros costs nothing until somebody writes: most threads use no tiles.
        rare = _rare(bulk.layout)
        columns = {}
        for name, row in blank.items():
            shape = (count, *row.shape[1:])
            columns[name] = _zeros(shape, row.dtype) if name in rare else numpy.empty(shape, row.dtype)
        slow = _fill(image, bulk, columns, rare, registers)  # type: ignore[arg-type]
    missing = []
    for index in slow:
        if not _fill_one(image, index, columns, blank):
            missing.append(int(tids[index]))
    if missing:
        shown = ", ".join(map(str, missing[:8])) + (", ..." if len(missing) > 8 else "")
        image._warn(f"{len(missing)} of {count} threads have no extended state, or not all of it; their columns have "
                    f"initial values: {shown}")
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


def _zeros(shape: "tuple[int, ...]", dtype: "Any") -> "Any":
    # Pages of zeros from the system itself: a C library may clear memory that it used before.
    import mmap

    import numpy

    pages = mmap.mmap(-1, max(math.prod(shape) * dtype.itemsize, 1))
    return numpy.frombuffer(pages, dtype)[: math.prod(shape)].reshape(shape)


def _large(layout: "Layout") -> int:
    # The large components of a layout whose initial values are zero.
    return sum(
        1 << c for c, (_, size) in layout.offsets.items() if size >= _LARGE and not any(data for _, data in c.info.init)
    )


def _rare(layout: "Layout") -> "frozenset[str]":
    large = _large(layout)
    return frozenset(name for name, row in REGISTERS.items() if large >> row.component & 1) if large else frozenset()


def _fill(
    image: "CoreImage", bulk: Bulk, columns: "dict[str, Any]", rare: "frozenset[str]", registers: "Sequence[str] | None"
) -> "list[int]":
    """Fills the rows of uniform notes and returns the numbers of the threads that are left."""
    import numpy

    layout, size = bulk.layout, bulk.size
    offsets, sizes = memoryview(bulk.offsets).cast("q"), memoryview(bulk.sizes).cast("q")
    count = len(offsets)
    steps, same = numpy.diff(offsets), numpy.equal(sizes, size)
    followed, stops = 0, numpy.empty(0, numpy.int64)
    large = _large(layout) if any(name in rare for name in columns) else 0
    narrow = Layout(layout.model, layout.mask & ~large, STANDARD) if large else layout
    usual = [name for name in columns if name not in rare]
    usual_writer = ColumnWriter(narrow, None if registers is None else usual, columns, count) if usual else None
    whole_writer = ColumnWriter(layout, registers, columns, count) if large else usual_writer
    buffer = memoryview(bytearray(min(max(_CHUNK, 2 * size), count * (size + _CHUNK // 64))))
    one = memoryview(bytearray(size))
    left: "list[int]" = []
    at = 0
    while at < count:
        if sizes[at] != size:
            left.append(at)
            at += 1
            continue
        # Neighbours at one distance: one read, decoded where it lies. Where a large component follows that most threads
        # do not use, what stands before it, thread by thread.
        stride = offsets[at + 1] - offsets[at] if at + 1 < count and sizes[at + 1] == size else 0
        if not size <= stride <= len(buffer) // 2:
            stride = size
        if stride != followed:
            followed, stops = stride, numpy.flatnonzero((steps != stride) | ~same[1:]) + 1
        place = int(stops.searchsorted(at, "right"))
        end = int(stops[place]) if place < len(stops) else count
        if large:
            stride = narrow.size
            stop = min(end, at + len(buffer) // stride)
            read = image._source.read_rows(offsets[at:stop], narrow.size, buffer, stride)
        else:
            stop = min(end, at + len(buffer) // stride)
            wanted = (stop - at - 1) * stride + size
            read = stop - at if image._source.read_into(offsets[at], buffer[:wanted]) == wanted else 0
        left += range(at + read, stop)
        odd = unusual_rows(buffer, 0, stride, read, bulk.xcr0, layout.mask)
        users = rows_using(buffer, 0, stride, read, large) if large else []
        for row in sorted({*users}.difference(odd)):
            if whole_writer is not None and image._source.read_into(offsets[at + row], one) == size:
                whole_writer.fill(one.cast("B", (1, size)), at + row)
            else:
                odd.append(row)
        left += [at + row for row in sorted(odd)]
        for first, last in _runs(read, sorted({*odd, *users})):
            if usual_writer is not None:
                usual_writer.fill(buffer[first * stride : last * stride].cast("B", (last - first, stride)), at + first)
        at = stop
    return left


def _runs(rows: int, apart: "list[int]") -> "Iterator[tuple[int, int]]":
    # (first, end) of rows that go together; those apart are left out.
    first = 0
    for end in [*apart, rows]:
        if first < end:
            yield first, end
        first = end + 1


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
    held = (f"{family}{name[3:]}" for family in reversed(_WIDENING))
    return next((values[other] for other in held if other in values), None)
