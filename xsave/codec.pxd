# Pointer-level functions over (pointer, length, shape): what the layers above may cimport. They return a status,
# allocate nothing and touch no Python object.
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from xsave.layout cimport Layout, Shape

cdef extern from "bytes.h" nogil:
    uint16_t load_le16(const void *p)
    uint32_t load_le32(const void *p)
    uint64_t load_le64(const void *p)

cdef extern from "copy.h" nogil:
    enum:
        XS_MOVES
    ctypedef struct xs_move:
        uint64_t bit
        uint32_t from_ "from"
        uint32_t to
        uint32_t length
    ctypedef struct xs_moves:
        int count
        uint64_t bits
        xs_move item[32]
    ctypedef struct xs_run:
        uint32_t from_ "from"
        uint32_t to
        uint32_t length
    ctypedef struct xs_runs:
        uint64_t live
        int count
        xs_run item[32]

# Components between two places: which bytes of which one, made once, and the runs of the components that move.
cdef int list_moves(const Shape *source, const Shape *target, uint64_t mask, const uint32_t *widths,
                    xs_moves *moves) noexcept nogil
cdef void list_runs(const xs_moves *moves, uint64_t live, xs_runs *runs) noexcept nogil
cdef void move_runs(const xs_runs *runs, const uint8_t *source, uint8_t *target) noexcept nogil
cdef void move_bytes(const uint8_t *source, uint8_t *target, uint32_t begin, uint32_t end) noexcept nogil
cdef void write_initial_bytes(int component, uint8_t *at, uint32_t begin, uint32_t end) noexcept nogil
cdef bint has_initial_bytes(int component, const uint8_t *at, uint32_t begin, uint32_t end) noexcept nogil

cdef enum Status:
    OK = 0
    BAD_XCOMP = 1       # XCOMP_BV is not what the format and mask ask for
    BAD_XSTATE = 2      # XSTATE_BV has a bit outside the mask
    BAD_RESERVED = 3    # a reserved header byte is not zero
    LOST = 4            # a component in use has no place in the target

cdef int check_header(const uint8_t *area, const Shape *shape) noexcept nogil
cdef bint shape_has_mxcsr(const Shape *shape) noexcept nogil
cdef object raise_header(int status, const uint8_t *area, const Shape *shape, Py_ssize_t row)

cdef struct Part:
    uint64_t bit
    uint32_t offset         # in the area
    uint32_t width
    uint32_t at             # in the register

# A register of one layout: what to read where.
cdef struct Op:
    uint64_t need           # any of these in use: the register is read; else it is initial. 0: always read
    uint64_t mask
    uint32_t width
    int shift
    int parts
    bint scalar
    Part part[3]

# Read again and again, so it stands where whoever cimports it can have it inline.
cdef inline uint64_t read_scalar(const Op *op, const uint8_t *area) noexcept nogil:
    cdef const uint8_t *p = area + op.part[0].offset
    cdef uint64_t value
    if op.width == 8:
        value = load_le64(p)
    elif op.width == 4:
        value = load_le32(p)
    elif op.width == 2:
        value = load_le16(p)
    else:
        value = p[0]
    return (value & op.mask) >> op.shift

cdef class Field:
    cdef Op op
    cdef readonly str name
    cdef readonly object initial

cdef void read_bytes(const Op *op, const uint8_t *area, uint64_t live, uint8_t *out) noexcept nogil
cdef int write_value(const Op *op, name, value, uint8_t *area) except -1
cdef uint64_t bits_of(const Op *op) noexcept nogil
cdef Field find_field(Layout layout, name)
