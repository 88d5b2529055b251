# What Python hands over, as the kernels take it: masks, numbers, values of registers, memory.

def _mask(value, what):
    if isinstance(value, str):
        value = ComponentMask.parse(value)
    if not 0 <= value < 1 << 64:
        raise ValueError(f"{what} {value:#x} does not fit 64 bits")
    return int(value)


# The memory of one call: buffers held, and what the kernel sees of them.
cdef class Window:
    cdef Operand op
    cdef Py_buffer *views
    cdef Region *regions
    cdef Py_ssize_t held

    def __dealloc__(self):
        while self.held:
            self.held -= 1
            PyBuffer_Release(&self.views[self.held])
        PyMem_Free(self.views)
        PyMem_Free(self.regions)


cdef Window open_window(memory):
    cdef Window window = Window.__new__(Window)
    cdef Py_ssize_t i
    ranges = memory.ranges
    window.views = <Py_buffer *>PyMem_Calloc(len(ranges) + 1, sizeof(Py_buffer))
    window.regions = <Region *>PyMem_Calloc(len(ranges) + 1, sizeof(Region))
    if window.views == NULL or window.regions == NULL:
        raise MemoryError
    for i, (begin, end, view, writable) in enumerate(ranges):
        PyObject_GetBuffer(view, &window.views[i], PyBUF_SIMPLE)
        window.held += 1
        window.regions[i].begin = begin
        window.regions[i].last = end - 1
        window.regions[i].data = <uint8_t *>window.views[i].buf
        window.regions[i].writable = writable
    window.op.regions = window.regions
    window.op.count = len(ranges)
    return window


cdef inline uint64_t word64(value) except? 0xFFFFFFFFFFFFFFFF:
    # 64 bits: a negative number as its two's complement. What does not fit is a mistake, never cut.
    cdef int overflow = 0
    cdef int64_t small = PyLong_AsLongLongAndOverflow(value, &overflow)
    if overflow == 0:
        return <uint64_t>small
    try:
        return PyLong_AsUnsignedLongLong(value)
    except OverflowError:
        raise ValueError(f"{value:#x} does not fit 64 bits") from None


cdef bytes whole_value(value, Py_ssize_t width):
    # A register's value as its bytes.
    if isinstance(value, int):
        if value < 0 or value.bit_length() > 8 * width:
            raise ValueError(f"{value:#x} does not fit a register of {width} bytes")
        return value.to_bytes(width, "little")
    data = bytes(value)
    if len(data) != width:
        raise ValueError(f"a value of {len(data)} bytes for a register of {width}")
    return data


cdef bint is_stack(segment) except -1:
    if segment == "ds":
        return False
    if segment == "ss":
        return True
    raise ValueError(f'segment {segment!r} is neither "ds" nor "ss"')
