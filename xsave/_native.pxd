# This CPU for the conformance loop: programs of single instructions under the fault guard, and memory with edges.
from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t

cdef extern from "program.h" nogil:
    enum: INSN_TILECFG, INSN_AVX, INSN_AVX512, INSN_XGETBV1
    enum: STEP_XSAVE64, STEP_XSAVE, STEP_STACK, STEP_LDTILECFG, STEP_STTILECFG, STEP_TILERELEASE, STEP_LDMXCSR
    enum: STEP_STMXCSR, STEP_VZEROUPPER, STEP_VZEROALL, STEP_FNINIT, STEP_FNOP, STEP_EMMS, STEP_FNSTCW, STEP_FLDCW
    enum: STEP_XGETBV, STEP_SSE, STEP_VEX128, STEP_VEX256, STEP_EVEX512, STEP_EVEX128, STEP_EVEX256, STEP_KMOV
    enum: STEP_READ_SSE, STEP_FLD, STEP_TILELOADD, STEP_TILELOADDT1, STEP_TILESTORED, STEP_TILEZERO, STEP_COUNT
    cdef struct insn_trap:
        uint32_t vector
        uint32_t signal
        int32_t code
        uint32_t error_code
        uint64_t address
    cdef struct insn_step:
        uint32_t op
        uint32_t reg
        uint64_t mask
        uint64_t at
        uint64_t result
    cdef struct insn_program:
        uint64_t caller
        uint64_t prime
        uint64_t step
        uint64_t last
        uint64_t after
        uint64_t xinuse_prime
        uint64_t xinuse_last
        uint64_t xinuse_after
        uint32_t caps
        uint32_t align_check
        insn_trap trap
    cdef struct insn_arena:
        uint8_t *view
        uint8_t *alias
        size_t pages
    cdef struct insn_guard:
        pass
    cdef struct insn_machine:
        uint64_t xcr0
        uint32_t area_size
        uint32_t features
        uint32_t caps
        uint32_t tilecfg_offset

cdef const insn_machine *this_cpu() noexcept nogil
cdef void run_program(insn_program *program) noexcept nogil
cdef int enter_guard(insn_guard *guard) noexcept nogil
cdef void leave_guard(insn_guard *guard) noexcept nogil
cdef int make_arena(insn_arena *arena, size_t pages, size_t hole, bint read_only) noexcept nogil
cdef void free_arena(insn_arena *arena) noexcept nogil
