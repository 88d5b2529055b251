"""The processor: every XSAVE instruction and the AMX tile state, on a register file that is itself an XSAVE image.

The register file is one private area with user components at their standard offsets, so that an instruction is a
copy and a few decisions. What is decided follows the manual (SDM1 13.5-13.14); where CPUs differ, the knobs of the
model's profile decide, and component rules come from the tables. Component bytes move through `xsave.codec`.

The parts: `cpu.pxi` the state and its tracking, `operand.pxi` memory and page faults, `saves.pxi`, `restores.pxi`,
`writes.pxi`, `tileops.pxi` the instructions, `machine.pxi` XCR0, MSRs and CPUID, `rules.pxi` and `tables.pxi` names
and numbers of the tables, `arguments.pxi` what Python hands over, `face.pxi` the Python class.
"""

cimport cython
from cpython.buffer cimport (PyBUF_C_CONTIGUOUS, PyBUF_ND, PyBUF_SIMPLE, PyBUF_WRITABLE, Py_buffer, PyBuffer_Release,
                             PyObject_GetBuffer)
from cpython.long cimport PyLong_AsLongLongAndOverflow, PyLong_AsUnsignedLongLong
from cpython.mem cimport PyMem_Calloc, PyMem_Free
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from xsave.codec cimport (Field, bits_of, find_field, has_initial_bytes, list_moves, list_runs, load_le16,
                          load_le32, load_le64, move_bytes, move_runs, read_scalar, write_initial_bytes, write_value)
from xsave.layout cimport (ALIGNMENT, COMPONENT_LIMIT, FORMAT_COMPACTED, FORMAT_STANDARD, HEADER_END, HEADER_OFFSET,
                           LEGACY_SIZE, MXCSR_INIT, MXCSR_MASK_OFFSET, MXCSR_OFFSET, RESERVED_CHECKED,
                           RESERVED_OFFSET, X87_HIGH, X87_HIGH_END, X87_LOW_END, XCOMP_OFFSET, XMM_END, XMM_OFFSET,
                           Shape, end_of, lay_out, make_ruler, register_file)
from xsave.tiles cimport (START_ROW_AT, TILE_BYTES, TILE_ROW_BYTES, TILECFG_SIZE, config_colsb, config_fault,
                          config_legal_for_restore, config_rows, config_valid, load_palettes)

from xsave.area import Area
from xsave.codec import decode
from xsave.components import COMPONENTS, ComponentMask
from xsave.errors import Exit, Fault, LayoutError, UnsupportedError
from xsave.memory import Memory
from xsave.data.msrs import IA32_XFD, IA32_XFD_ERR, IA32_XSS, MSRS
from xsave.registers import REGISTERS, find_register
from xsave.tiles import TILE_RULES

cdef extern from "bytes.h" nogil:
    void store_le16(void *p, uint16_t v)
    void store_le32(void *p, uint32_t v)
    void store_le64(void *p, uint64_t v)

__all__ = ["Processor", "Vmx"]

include "processor/cpu.pxi"
include "processor/operand.pxi"
include "processor/saves.pxi"
include "processor/restores.pxi"
include "processor/writes.pxi"
include "processor/tileops.pxi"
include "processor/machine.pxi"
include "processor/rules.pxi"
include "processor/tables.pxi"
include "processor/arguments.pxi"
include "processor/face.pxi"
