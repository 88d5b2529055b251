# Offsets and sizes of components. The architectural constants stand here once; everything else comes from a model.
from libc.stdint cimport uint32_t, uint64_t

cdef enum:
    # SDM1 13.4.1, 13.4.2: the legacy region, the header, and where the extended region begins.
    LEGACY_SIZE = 512
    HEADER_OFFSET = 512
    XCOMP_OFFSET = 520
    RESERVED_OFFSET = 528
    RESERVED_CHECKED = 8        # standard format: only bytes 528-535 fault (isa: silicon)
    HEADER_END = 576
    EXTENDED_OFFSET = 576
    MXCSR_OFFSET = 24
    MXCSR_MASK_OFFSET = 28
    X87_LOW_END = 24            # x87 is bytes 0-23 and 32-159
    X87_HIGH = 32
    X87_HIGH_END = 160
    XMM_OFFSET = 160            # SSE is bytes 24-31 and 160-415
    XMM_END = 416
    MXCSR_INIT = 0x1F80
    ALIGNMENT = 64
    COMPONENT_LIMIT = 63        # bits 0-62; bit 63 of XCOMP_BV is the format

cdef enum:
    FORMAT_STANDARD = 0
    FORMAT_COMPACTED = 1

# What kernels see of a layout: numbers, no names. `offset` and `width` are 0 where the mask has no component;
# those of x87 and SSE are never used (their bytes are the constants above).
cdef struct Shape:
    uint64_t mask
    uint32_t size
    int format
    uint32_t mxcsr_mask
    uint32_t offset[64]
    uint32_t width[64]

# What a CPU says of every component, as numbers: enough to place any mask without the interpreter.
cdef struct Ruler:
    uint64_t known              # components >= 2 that the CPU has
    uint64_t supervisor
    uint64_t placed             # those with a standard offset
    uint64_t align64
    uint64_t xfd                # those that IA32_XFD can disable
    uint32_t mxcsr_mask
    uint32_t width[64]
    uint32_t place[64]          # standard offsets

cdef int make_ruler(object model, Ruler *ruler) except -1
cdef uint32_t end_of(const Shape *shape, uint64_t components, uint64_t hollow) noexcept nogil
cdef int lay_out(const Ruler *ruler, uint64_t mask, int format, Shape *shape) noexcept nogil
cdef Layout register_file(object model)

cdef class Layout:
    cdef Shape shape
    cdef readonly object model
    cdef object _offsets
    cdef Py_hash_t _hash
    # Caches that belong to xsave.codec and xsave.area and live as long as the layout does.
    cdef list plans
    cdef object decoder
    cdef dict fields
    cdef list families
    cdef void *quick[16]        # fields of the properties of Area, which `fields` owns; NULL until asked for
