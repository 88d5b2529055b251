# A checked view on a buffer: `buffer.buf` has at least `_layout.shape.size` bytes as long as the Area lives.
from cpython.buffer cimport Py_buffer

from xsave.layout cimport Layout

cdef class Area:
    cdef Py_buffer buffer
    cdef Layout _layout
