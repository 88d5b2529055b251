# Pointer-level functions over (pointer, length, shape): what the layers above may cimport. They return a status,
# allocate nothing and touch no Python object.
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from xsave.layout cimport Layout, Shape

cdef enum Status:
    OK = 0
    BAD_XCOMP = 1       # XCOMP_BV is not what the format and mask ask for
    BAD_XSTATE = 2      # XSTATE_BV has a bit outside the mask
    BAD_RESERVED = 3    # a reserved header byte is not zero
    LOST = 4            # a component in use has no place in the target

cdef int check_header(const uint8_t *area, const Shape *shape) noexcept nogil
cdef bint shape_has_mxcsr(const Shape *shape) noexcept nogil
cdef object raise_header(int status, const uint8_t *area, const Shape *shape, Py_ssize_t row)
