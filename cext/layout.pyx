"""`Layout`: offset and size of every component of an area, standard and compacted.

This is the only place that adds offsets up. A layout is arithmetic over what a CPU model enumerates: no
legality of masks is checked here (a signal frame may have a mask that is no legal XCR0). Sources: SDM1
13.4.2 (standard), 13.4.3 (compacted).
"""

from enum import IntEnum
from types import MappingProxyType

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, Py_buffer, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memset

from xsave.components import COMPONENTS, Component, ComponentMask
from xsave.errors import FormatError, LayoutError, TruncatedError

cdef extern from "bytes.h" nogil:
    uint64_t load_le64(const void *p)

__all__ = ["COMPACTED", "HEADER", "MXCSR", "STANDARD", "Format", "Layout"]


class Format(IntEnum):
    """The two formats of an XSAVE area (SDM1 13.4)."""

    STANDARD = 0
    COMPACTED = 1

    def __str__(self):
        return self.name.lower()


STANDARD = Format.STANDARD
COMPACTED = Format.COMPACTED
# Bytes of the XSAVE header, and of MXCSR with MXCSR_MASK, [begin, end), in either format (SDM1 13.4.1, 13.4.2).
HEADER = (HEADER_OFFSET, HEADER_END)
MXCSR = (MXCSR_OFFSET, X87_HIGH)

# No CPU enumerates more; a component's size or offset beyond it comes from a broken record.
cdef enum:
    SIZE_LIMIT = 1 << 24


# --- numbers only -------------------------------------------------------------------------------------------

cdef inline uint32_t aligned_up(uint32_t position) noexcept nogil:
    return (position + ALIGNMENT - 1) & ~<uint32_t>(ALIGNMENT - 1)


cdef void place_compacted(Shape *shape, uint64_t align64) noexcept nogil:
    # SDM1 13.4.3: ascending, each right after the one before, on a 64-byte boundary where CPUID says so. The end
    # is not rounded.
    cdef uint32_t position = EXTENDED_OFFSET
    cdef int i
    for i in range(2, COMPONENT_LIMIT):
        if shape.mask >> i & 1:
            if align64 >> i & 1:
                position = aligned_up(position)
            shape.offset[i] = position
            position += shape.width[i]
    shape.size = position


cdef uint32_t end_of(const Shape *shape, uint64_t components, uint64_t hollow) noexcept nogil:
    # Where the last byte of these components ends, 576 at least; those of `hollow` count as if they had none. A
    # maximum, not the end of the highest number: APX (19) and LWP (62) lie out of order.
    cdef uint32_t end = EXTENDED_OFFSET
    cdef uint32_t each
    cdef int i
    for i in range(2, COMPONENT_LIMIT):
        if components >> i & 1:
            each = shape.offset[i] + (0 if hollow >> i & 1 else shape.width[i])
            if each > end:
                end = each
    return end


cdef void place_standard(Shape *shape) noexcept nogil:
    shape.size = end_of(shape, shape.mask, 0)


cdef int find_overlap(const Shape *shape, int *other) noexcept nogil:
    # Two components of a standard layout that share a byte, or -1.
    cdef int i, j
    for i in range(2, COMPONENT_LIMIT):
        if shape.mask >> i & 1:
            for j in range(i + 1, COMPONENT_LIMIT):
                if (shape.mask >> j & 1 and shape.offset[i] < shape.offset[j] + shape.width[j]
                        and shape.offset[j] < shape.offset[i] + shape.width[i]):
                    other[0] = j
                    return i
    return -1


cdef int lay_out(const Ruler *ruler, uint64_t mask, int format, Shape *shape) noexcept nogil:
    # The shape of `mask`, bits 0 and 1 included, for components that the CPU has. 0, or the first component that
    # has no place.
    cdef int i
    memset(shape, 0, sizeof(Shape))
    shape.mask = mask
    shape.format = format
    shape.mxcsr_mask = ruler.mxcsr_mask
    for i in range(2, COMPONENT_LIMIT):
        if mask >> i & 1:
            if not (ruler.known if format == FORMAT_COMPACTED else ruler.placed) >> i & 1:
                return i
            shape.width[i] = ruler.width[i]
            shape.offset[i] = ruler.place[i]
    if format == FORMAT_COMPACTED:
        place_compacted(shape, ruler.align64)
    else:
        place_standard(shape)
    return 0


cdef uint32_t size_of(row, int i) except 0:
    # A component's size as a CPU enumerates it.
    if not 0 < row.size < SIZE_LIMIT:
        raise LayoutError(f"size {row.size} of component {i} is impossible")
    return row.size


cdef uint32_t place_of(row, int i) except 0:
    # Its standard offset.
    if not EXTENDED_OFFSET <= row.offset < SIZE_LIMIT:
        raise LayoutError(f"standard offset {row.offset} of component {i} is outside the extended region")
    return row.offset


cdef int make_ruler(object model, Ruler *ruler) except -1:
    cdef int i
    memset(ruler, 0, sizeof(Ruler))
    ruler.mxcsr_mask = model.knobs["mxcsr_mask"]
    for component, row in model.components.items():
        i = component
        if i < 2:
            continue
        ruler.width[i] = size_of(row, i)
        ruler.known |= <uint64_t>1 << i
        if row.supervisor:
            ruler.supervisor |= <uint64_t>1 << i
        elif row.offset is not None:
            ruler.place[i] = place_of(row, i)
            ruler.placed |= <uint64_t>1 << i
        if row.align64:
            ruler.align64 |= <uint64_t>1 << i
        if row.xfd:
            ruler.xfd |= <uint64_t>1 << i
    return 0


cdef Layout register_file(object model):
    # Room for everything that a CPU has: user components at their standard offsets, so that a standard area is a
    # copy of it, what has none behind them on 64-byte boundaries. Formally a compacted area, whose mask may hold
    # supervisor components; no instruction knows this layout.
    cdef Ruler ruler
    cdef Shape *shape
    cdef Layout layout
    cdef Shape placed
    cdef uint32_t end
    cdef int i
    cdef int other = 0
    make_ruler(model, &ruler)
    layout = Layout(model, ruler.known | 3, COMPACTED)
    lay_out(&ruler, ruler.placed | 3, FORMAT_STANDARD, &placed)
    i = find_overlap(&placed, &other)
    while i >= 0:
        placed.mask &= ~(<uint64_t>1 << other)
        i = find_overlap(&placed, &other)
    place_standard(&placed)
    shape = &layout.shape
    end = placed.size
    for i in range(2, COMPONENT_LIMIT):
        if placed.mask >> i & 1:
            shape.offset[i] = placed.offset[i]
        elif ruler.known >> i & 1:
            end = aligned_up(end)
            shape.offset[i] = end
            end += shape.width[i]
    shape.size = end
    return layout


# --- the Python face ----------------------------------------------------------------------------------------

@cython.final
cdef class Layout:
    """Where every component of an area lies.

    `model` is the `CpuModel` whose sizes and offsets count, `mask` the components that the area has room for
    (a number, `ComponentMask` or text such as `"x87|SSE|AVX"`), `format` `STANDARD` or `COMPACTED`. For the
    compacted format `mask` is XCOMP_BV without bit 63.

    Attributes: `size` in bytes (not rounded up); `offsets`, a read-only mapping from every component >= 2 of the
    mask to `(offset, size)` in bytes; `mxcsr_mask`, the CPU's.

    Raises: `LayoutError` for a component that the model lacks, a supervisor component in the standard format, a
    standard offset that CPUID did not give, or components that overlap; `ValueError` for a mask outside 63 bits
    or an unknown format. Manual: SDM1 13.4.2, 13.4.3.
    """

    def __cinit__(self, model, mask, format):
        cdef uint64_t align64 = 0
        cdef bint compacted
        cdef int i
        cdef int other = 0
        cdef uint64_t bits
        if format != FORMAT_STANDARD and format != FORMAT_COMPACTED:
            raise ValueError(f"format {format!r} is neither STANDARD nor COMPACTED")
        if isinstance(mask, str):
            mask = ComponentMask.parse(mask)
        if not 0 <= mask < 1 << 63:
            raise ValueError(f"mask {mask:#x} outside bits 0-62")
        bits = mask
        compacted = format == FORMAT_COMPACTED
        memset(&self.shape, 0, sizeof(Shape))
        self.model = model
        self.shape.mask = bits
        self.shape.format = format
        self.shape.mxcsr_mask = model.knobs["mxcsr_mask"]
        self.plans = []
        self._hash = -1
        rows = model.components
        for i in range(2, COMPONENT_LIMIT):
            if not bits >> i & 1:
                continue
            row = rows.get(i)
            if row is None:
                name = ComponentMask(<uint64_t>1 << i).names[0]
                raise LayoutError(f"{model.name} does not have {name} (component {i})")
            if not compacted:
                if row.supervisor:
                    raise LayoutError(f"{COMPONENTS[row.component].name} (component {i}) is a supervisor component: "
                                      "the standard format has no place for it [SDM1 13.4.2]")
                if row.offset is None:
                    raise LayoutError(f"{model.name} gives no standard offset of {COMPONENTS[row.component].name}: "
                                      f"CPUID leaf 0DH sub-leaf {i} is missing")
                self.shape.offset[i] = place_of(row, i)
            self.shape.width[i] = size_of(row, i)
            if row.align64:
                align64 |= <uint64_t>1 << i
        if compacted:
            place_compacted(&self.shape, align64)
        else:
            place_standard(&self.shape)
            i = find_overlap(&self.shape, &other)
            if i >= 0:
                both = ComponentMask((<uint64_t>1 << i) | (<uint64_t>1 << other)).names
                raise LayoutError(f"{' and '.join(both)} overlap in the standard format of {model.name}, at "
                                  f"bytes {self.shape.offset[i]} and {self.shape.offset[other]}")

    @staticmethod
    def of(buffer, model, mask=None):
        """The layout of the area that `buffer` begins with, as its header tells.

        XCOMP_BV[63] set: compacted, with the mask that XCOMP_BV holds. Clear: standard, with `mask`, or else
        the model's whole XCR0 if `buffer` has room for it, or else the widest prefix of it that fits.

        Raises: `TruncatedError` for fewer than 576 bytes or fewer than the layout needs; `FormatError` for a
        non-zero XCOMP_BV without bit 63, or one that differs from `mask`; `LayoutError` as the constructor.
        Manual: SDM1 13.4.2.
        """
        cdef Py_buffer view
        cdef uint64_t xcomp_bv
        cdef Py_ssize_t length
        PyObject_GetBuffer(buffer, &view, PyBUF_SIMPLE)
        length = view.len
        xcomp_bv = load_le64(<const uint8_t *>view.buf + XCOMP_OFFSET) if length >= HEADER_END else 0
        PyBuffer_Release(&view)
        if isinstance(mask, str):
            mask = ComponentMask.parse(mask)
        if length < HEADER_END:
            raise TruncatedError(f"an area needs {HEADER_END} bytes at least, here are {length} [SDM1 13.4]",
                                 offset=length)
        if xcomp_bv >> 63:
            own = xcomp_bv & ~(<uint64_t>1 << 63)
            if mask is not None and mask != own:
                raise FormatError(f"XCOMP_BV {ComponentMask(xcomp_bv)} at byte {XCOMP_OFFSET} is not the mask "
                                  f"{ComponentMask(mask)} with bit 63", offset=XCOMP_OFFSET, rule="H-XCOMP")
            layout = Layout(model, own, COMPACTED)
        elif xcomp_bv:
            raise FormatError(f"XCOMP_BV {ComponentMask(xcomp_bv)} at byte {XCOMP_OFFSET} is neither 0 (standard) nor "
                              "has bit 63 (compacted) [SDM1 13.4.2]", offset=XCOMP_OFFSET, rule="H-XCOMP")
        elif mask is not None:
            layout = Layout(model, mask, STANDARD)
        else:
            layout = widest_prefix(model, length)
        if layout.size > length:
            raise TruncatedError(f"the {layout.format} area of {layout.mask} needs {layout.size} bytes, "
                                 f"here are {length}", offset=length)
        return layout

    @property
    def mask(self):
        """The components that have a place, a `ComponentMask` without bit 63."""
        return ComponentMask(self.shape.mask)

    @property
    def format(self):
        """`STANDARD` or `COMPACTED`."""
        return COMPACTED if self.shape.format == FORMAT_COMPACTED else STANDARD

    @property
    def size(self):
        """Bytes from the start of the area to the end of its last component, 576 at least."""
        return self.shape.size

    @property
    def mxcsr_mask(self):
        """The MXCSR_MASK of the model's CPUs."""
        return self.shape.mxcsr_mask

    @property
    def offsets(self):
        """`{Component: (offset, size)}` in bytes for the components >= 2 of the mask, ascending by number."""
        cdef int i
        if self._offsets is None:
            self._offsets = MappingProxyType({
                Component(i): (self.shape.offset[i], self.shape.width[i])
                for i in range(2, COMPONENT_LIMIT) if self.shape.mask >> i & 1
            })
        return self._offsets

    def end_of(self, components, hollow=0):
        """Where the last byte of these components ends, counted from the operand, in bytes: 576, the header's end, at
        least. The components of the mask `hollow` count as if they had no bytes: only the place where they begin.

        Components that the layout lacks have no place in it. Raises: `ValueError` for a mask beyond 64 bits.
        """
        return end_of(&self.shape, self.shape.mask & <uint64_t>ComponentMask.parse(components),
                      <uint64_t>ComponentMask.parse(hollow))

    def extents(self, component):
        """The bytes of any component as `[(offset, size), ...]`, ascending.

        x87 and SSE are two extents each of the legacy region (SDM1 13.5.1, 13.5.2): MXCSR and MXCSR_MASK
        (bytes 24-31) count as SSE. Raises: `LayoutError` for a component outside the mask, `ValueError` for an
        unknown name.
        """
        cdef int i
        if isinstance(component, str):
            bits = ComponentMask.parse(component)
            if bits.bit_count() != 1:
                raise ValueError(f"{component!r} names {bits.bit_count()} components, not one")
            component = bits.bit_length() - 1
        if not 0 <= component < COMPONENT_LIMIT:
            raise ValueError(f"component {component} outside 0-62")
        i = component
        if not self.shape.mask >> i & 1:
            name = ComponentMask(<uint64_t>1 << i).names[0]
            raise LayoutError(f"{name} (component {i}) has no place in the mask {self.mask}")
        if i == 0:
            return [(0, X87_LOW_END), (X87_HIGH, X87_HIGH_END - X87_HIGH)]
        if i == 1:
            return [(MXCSR_OFFSET, X87_HIGH - MXCSR_OFFSET), (XMM_OFFSET, XMM_END - XMM_OFFSET)]
        return [(self.shape.offset[i], self.shape.width[i])]

    def __eq__(self, other):
        cdef Layout that
        cdef int i
        if not isinstance(other, Layout):
            return NotImplemented
        that = other
        if self is that:
            return True
        if (self.shape.mask != that.shape.mask or self.shape.format != that.shape.format
                or self.shape.mxcsr_mask != that.shape.mxcsr_mask):
            return False
        for i in range(2, COMPONENT_LIMIT):
            if self.shape.offset[i] != that.shape.offset[i] or self.shape.width[i] != that.shape.width[i]:
                return False
        return True

    def __ne__(self, other):
        return not self == other

    def __hash__(self):
        if self._hash == -1:
            self._hash = hash((self.shape.mask, self.shape.format, self.shape.size))
        return self._hash

    def __reduce__(self):
        return Layout, (self.model, int(self.shape.mask), int(self.shape.format))

    def __copy__(self):
        return self

    def __deepcopy__(self, memo):
        return self

    def __repr__(self):
        return f"<Layout {self.model.name} {self.format} {self.mask}: {self.shape.size} bytes>"


cdef Layout widest_prefix(model, Py_ssize_t length):
    # The longest run of the model's user components, by number, whose standard area fits into `length` bytes.
    cdef int top
    whole = int(model.xcr0_mask)
    known = whole & (3 | sum(1 << int(c) for c in model.components))
    for top in range(COMPONENT_LIMIT, 1, -1):
        if top < COMPONENT_LIMIT and not known >> top & 1:
            continue
        prefix = known & ((<uint64_t>1 << top) - 1) if top < COMPONENT_LIMIT else known
        try:
            layout = Layout(model, prefix, STANDARD)
        except LayoutError:
            continue
        if layout.shape.size <= length:
            return layout
    raise FormatError(f"no prefix of XCR0 {ComponentMask(whole)} of {model.name} fits {length} bytes")
