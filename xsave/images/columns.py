"""`image.columns()`: registers of all threads at once, through the codec's batch form.

Notes are read in chunks into one buffer and decoded from where they lie in it. A thread that is not like the others
(another layout, a note to repair, no state at all) takes the slow way, one at a time.
"""

from itertools import pairwise

from xsave._records import rows_using, unusual_rows
from xsave.codec import decode, decode_many, encode
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
        columns = {
            name: (numpy.zeros if name in rare else numpy.empty)((count, *row.shape[1:]), row.dtype)
            for name, row in blank.items()
        }
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
    layout, size = bulk.layout, bulk.size
    offsets, sizes = memoryview(bulk.offsets).cast("q"), memoryview(bulk.sizes).cast("q")
    count = len(offsets)
    large = _large(layout) if any(name in rare for name in columns) else 0
    narrow = Layout(layout.model, layout.mask & ~large, STANDARD) if large else layout
    usual = [name for name in columns if name not in rare]
    some = None if registers is None else usual
    buffer = memoryview(bytearray(min(max(_CHUNK, 2 * size), count * (size + _CHUNK // 64))))
    left: "list[int]" = []
    at = 0
    while at < count:
        if sizes[at] != size:
            left.append(at)
            at += 1
            continue
        # Neighbours at one distance: one read, decoded where it lies.
        stride = offsets[at + 1] - offsets[at] if at + 1 < count and sizes[at + 1] == size else 0
        if not size <= stride <= len(buffer) // 2:
            stride = size
        stop = at + 1
        last = min(count, at + len(buffer) // stride)
        while stop < last and sizes[stop] == size and offsets[stop] - offsets[stop - 1] == stride:
            stop += 1
        rows = stop - at
        wanted = (rows - 1) * stride + size
        if image._source.read_into(offsets[at], buffer[:wanted]) < wanted:
            left += range(at, stop)
            at = stop
            continue
        odd = unusual_rows(buffer, 0, stride, rows, bulk.xcr0, layout.mask)
        users = set(rows_using(buffer, 0, stride, rows, large)).difference(odd) if large else set()
        left += [at + row for row in odd]
        for first, end, whole in _runs(rows, odd, users):
            names = list(columns) if whole else usual
            if names:
                area = buffer[first * stride : end * stride].cast("B", (end - first, stride))
                out = {name: columns[name][at + first : at + end] for name in names}
                decode_many(area, layout if whole else narrow, registers if whole else some, out)
        at = stop
    return left


def _runs(rows: int, odd: "list[int]", users: "set[int]") -> "Iterator[tuple[int, int, bool]]":
    # (first, end, whether they use a large component) of rows that go together; the odd ones are left out.
    first = 0
    for end in [*odd, rows]:
        changes = (i for i in range(first + 1, end) if (i in users) != (i - 1 in users)) if users else ()
        marks = [first, *changes, end]
        for a, b in pairwise(marks):
            if a < b:
                yield a, b, a in users
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
