"""Baselines too short for Python: empty calls, copies of rows, a bare pread loop. Built by the benchmarks for
themselves; no part of the package."""

from cpython.buffer cimport (PyBUF_C_CONTIGUOUS, PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, Py_buffer,
                             PyObject_GetBuffer)
from cpython.bytes cimport PyBytes_GET_SIZE
from cpython.dict cimport PyDict_Next
from cpython.object cimport PyObject
from libc.stdint cimport int64_t, uint8_t, uint64_t

cdef extern from "copies.h" nogil:
    enum:
        COPY_KINDS
    int copy_supported(int kind)
    void c_copy_rows "copy_rows"(int kind, uint8_t *to, size_t to_stride, const uint8_t *source, size_t from_stride, size_t size,
                                 size_t count)
    long c_read_chunks "read_chunks"(const char *path, int64_t offset, int64_t length, uint8_t *buffer, int64_t chunk)
    uint64_t read_xcr0()
    int has_osxsave()
    uint64_t read_tsc()
    double c_hardware_switches "hardware_switches"(int kind, uint8_t *saves, const uint8_t *restores, size_t stride,
                                                   size_t count, uint64_t mask, long repeat)

MEMCPY, MOVSB, VECTOR, STREAM, STREAM_T0 = range(5)


def empty2(a, b):
    """An empty Cython call of two arguments."""
    return None


def supported(int kind):
    """Whether this CPU can run that copy."""
    return bool(copy_supported(kind))


def copy_rows(source, int kind, Py_ssize_t size, out):
    """`size` bytes of every row of `source` (N, stride) to the rows of `out` (N, stride)."""
    cdef Py_buffer view, into
    PyObject_GetBuffer(source, &view, PyBUF_C_CONTIGUOUS)
    PyObject_GetBuffer(out, &into, PyBUF_C_CONTIGUOUS | PyBUF_WRITABLE)
    if size >= 0:  # the GIL is kept: giving it up and taking it back costs more than one area
        if view.ndim != 2 or into.ndim != 2 or view.shape[0] != into.shape[0] or size > min(view.shape[1], into.shape[1]):
            PyBuffer_Release(&into)
            PyBuffer_Release(&view)
            raise ValueError("rows that do not fit")
        c_copy_rows(kind, <uint8_t *>into.buf, into.shape[1], <const uint8_t *>view.buf, view.shape[1], size, view.shape[0])
    PyBuffer_Release(&into)
    PyBuffer_Release(&view)
    return out


def empty_rows(source, kind, size, out):
    """What `copy_rows` and `transcode_many` do before and after their work: take two buffers and give them back."""
    cdef Py_buffer view, into
    PyObject_GetBuffer(source, &view, PyBUF_C_CONTIGUOUS)
    PyObject_GetBuffer(out, &into, PyBUF_C_CONTIGUOUS | PyBUF_WRITABLE)
    PyBuffer_Release(&into)
    PyBuffer_Release(&view)
    return out


def consume(dict values):
    """Touches every value of a decoded area; a value that is not yet an int or bytes is an error."""
    cdef Py_ssize_t at = 0, total = 0
    cdef PyObject *key
    cdef PyObject *value
    while PyDict_Next(values, &at, &key, &value):
        if type(<object>value) is bytes:
            total += PyBytes_GET_SIZE(<object>value)
        elif type(<object>value) is int:
            total += 1
        else:
            raise TypeError(f"{<object>key} is {type(<object>value).__name__}, not a value")
    return total


def read_chunks(bytes path, int64_t offset, int64_t length, buffer, int64_t chunk):
    """Bare pread of a part of a file, `chunk` bytes at a time into one buffer of at least that size."""
    cdef Py_buffer view
    cdef long total
    cdef const char *name = path
    PyObject_GetBuffer(buffer, &view, PyBUF_SIMPLE | PyBUF_WRITABLE)
    try:
        if view.len < chunk:
            raise ValueError("a buffer smaller than a chunk")
        with nogil:
            total = c_read_chunks(name, offset, length, <uint8_t *>view.buf, chunk)
        return total
    finally:
        PyBuffer_Release(&view)


def xcr0():
    """This CPU's XCR0, 0 where there is none."""
    return read_xcr0() if has_osxsave() else 0


def tsc_step():
    """The smallest difference of the time-stamp counter between two reads that differ, in ticks."""
    cdef uint64_t last = read_tsc(), now, least = 0
    cdef int i
    for i in range(10000):
        now = read_tsc()
        if now != last and (least == 0 or now - last < least):
            least = now - last
        last = now
    return least


def tsc():
    """The time-stamp counter."""
    return read_tsc()


def hardware_switches(saves, restores, uint64_t mask, bint optimised, long repeat):
    """ns a pair of the real XSAVEC64 (`optimised`: XSAVEOPT64) and XRSTOR64, row by row, `repeat` times over."""
    cdef Py_buffer into, view
    cdef double ns
    PyObject_GetBuffer(saves, &into, PyBUF_C_CONTIGUOUS | PyBUF_WRITABLE)
    PyObject_GetBuffer(restores, &view, PyBUF_C_CONTIGUOUS)
    ns = c_hardware_switches(optimised, <uint8_t *>into.buf, <const uint8_t *>view.buf, into.shape[1], into.shape[0], mask,
                             repeat)
    ns /= <double>(repeat * into.shape[0])
    PyBuffer_Release(&view)
    PyBuffer_Release(&into)
    return ns
