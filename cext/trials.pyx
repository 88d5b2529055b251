"""Conformance trials for `xsave.conformance`: random cases on the emulated processor and on this CPU, side by side.

A case is drawn from (seed, number) alone: a register state, memory, and one to five instructions. Both sides start from
the same standard image; afterwards the memory, every register, XINUSE at three moments, and the fault must agree.

The parts: `cases.pxi` draws, `sides.pxi` executes, `judge.pxi` compares, `face.pxi` is the Python class.
"""

cimport cython
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free
from libc.string cimport memcmp, memcpy, memset, strerror

from xsave._native cimport (INSN_AVX512, INSN_TILECFG, INSN_XGETBV1, STEP_EVEX128, STEP_EVEX256, STEP_EVEX512,
                            STEP_FNINIT, STEP_FNSTCW, STEP_KMOV, STEP_LDMXCSR, STEP_LDTILECFG, STEP_READ_SSE, STEP_SSE,
                            STEP_STACK, STEP_STTILECFG, STEP_TILELOADD, STEP_TILERELEASE, STEP_TILESTORED,
                            STEP_TILEZERO, STEP_VEX128, STEP_VEX256, STEP_VZEROALL, STEP_VZEROUPPER, STEP_XGETBV,
                            STEP_XSAVE, STEP_XSAVE64, enter_guard, free_arena, insn_arena, insn_guard, insn_machine,
                            insn_program, insn_step, leave_guard, make_arena, run_program, this_cpu)
from xsave.codec cimport load_le16, load_le32, load_le64
from xsave.layout cimport (FORMAT_COMPACTED, HEADER_END, HEADER_OFFSET, MXCSR_INIT, MXCSR_OFFSET, X87_HIGH,
                           X87_HIGH_END, XCOMP_OFFSET, XMM_END, XMM_OFFSET, Shape, lay_out)
from xsave.processor cimport (DONE, FAULT, FXRSTOR, FXSAVE, LDTILECFG, STTILECFG, TILELOADD, TILERELEASE, TILESTORED,
                              TILEZERO, XRSTOR, XSAVE, XSAVEC, XSAVEOPT, Cpu, Operand, Outcome,
                              Processor, Region, execute, execute_tile, get_xcr, initialise_x87, load_mxcsr,
                              note_x87_read, read_xgetbv1, rule_code, settle_all, write_opmask, write_vector,
                              zero_vectors)

from xsave.errors import HostError, UnsupportedError
from xsave.registers import REGISTERS

cdef extern from "<stdlib.h>" nogil:
    void *aligned_alloc(size_t alignment, size_t size)

cdef extern from "bytes.h" nogil:
    void store_le16(void *p, uint16_t v)
    void store_le32(void *p, uint32_t v)
    void store_le64(void *p, uint64_t v)

__all__ = ["Trials"]

include "trials/cases.pxi"
include "trials/sides.pxi"
include "trials/judge.pxi"
include "trials/face.pxi"
