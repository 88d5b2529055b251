# A logical processor as numbers and one register file, for whoever emulates instructions without the interpreter:
# `execute` is the only way in. Everything else of this file is what it works on.
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t

from xsave.codec cimport Field, xs_moves, xs_runs
from xsave.layout cimport Layout, Ruler, Shape
from xsave.tiles cimport Palettes

cdef enum Insn:
    XSAVE = 0
    XSAVEOPT = 1
    XSAVEC = 2
    XSAVES = 3
    XRSTOR = 4
    XRSTORS = 5
    FXSAVE = 6
    FXRSTOR = 7
    LDTILECFG = 8
    STTILECFG = 9
    TILELOADD = 10
    TILESTORED = 11
    TILEZERO = 12
    TILERELEASE = 13

cdef enum Kind:
    DONE = 0
    FAULT = 1
    EXIT = 2
    SHORT = 3           # the caller's plain buffer ends before the instruction does: nothing has changed
    READ_ONLY = 4       # the caller's plain buffer cannot be written
    UNPLACED = 5        # the CPU's record gives no standard offset of a component

cdef enum Vector:
    UD = 6
    NM = 7
    SS = 12
    GP = 13
    PF = 14
    AC = 17

cdef struct Outcome:
    int kind
    int vector
    uint32_t error_code
    int rule
    int64_t offset      # culprit byte from the operand, NOWHERE where there is none
    uint64_t detail     # components at fault, bytes needed, a value: as the rule has it

# A stretch of linear addresses and the bytes behind it.
cdef struct Region:
    uint64_t begin
    uint64_t last       # its last address
    uint8_t *data
    bint writable

# A memory operand: a plain buffer that begins at it (`regions` NULL), or an address among regions in ascending order.
cdef struct Operand:
    uint64_t address
    uint8_t *bytes      # byte 0 of the operand, where it can be reached in one piece
    size_t length
    bint writable
    bint stack          # addressed through SS
    const Region *regions
    size_t count

# One area format and mask, and how components go there and back.
cdef struct Path:
    uint64_t key
    bint narrow
    Shape shape
    xs_moves stores
    xs_moves loads
    xs_runs store_runs
    xs_runs load_runs

# A value that WRMSR, hence XRSTORS, refuses.
cdef struct Check:
    int component
    uint32_t at         # in the component
    uint32_t number     # of the MSR
    uint64_t ignored    # bits that are another register's
    uint64_t reserved
    uint64_t exclusive
    bint canonical
    bint depth          # a number of branch records

cdef struct Cpu:
    Ruler ruler
    Shape file
    uint8_t *area
    uint8_t *scratch
    uint32_t room       # bytes of `scratch`
    Path paths[8]
    int next_path
    int recent[2]           # the path last used for either format
    # the tables, as numbers
    uint32_t stored[64]     # bytes of a component that a save writes
    uint32_t narrow[64]     # those of them outside 64-bit mode
    uint32_t load_width[64]
    uint32_t load_narrow[64]
    uint32_t unit[64]       # bytes of one register
    uint64_t needs[64]      # XCR0: bits that must be set with this one
    uint64_t excludes[64]
    uint64_t opmask
    uint64_t zero_first     # components whose initial configuration begins with eight zero bytes
    uint64_t trace, interrupts, branches, tilecfg, tiledata, scale
    uint32_t trace_control, notification, depth     # where those MSRs lie in their components
    uint32_t records, record                        # branch records: the first one's place, and the size of each
    Check checks[32]
    int check_count
    Palettes palettes
    # what the model enumerates and how it behaves
    uint64_t user, supervisor
    uint32_t features       # CPUID.0DH.1:EAX
    int linear_bits
    bint by_value, low_only, ldmxcsr_marks, align_xsave, align_fxsave, extent_xcomp, legacy_always, skips_tilecfg
    bint before_disabled, selectors, align_first, fxrstor_forgets
    int pointers, fip_bits, fdp_bits
    int32_t save_probes[4]
    int32_t restore_probes[4]
    int stages[12]
    # control registers and modes
    uint64_t xcr0, xss, xfd, xfd_err
    int cpl
    bint long_mode, ts, em, osxsave, osfxsr, pke, align, la57
    bint modified_opt, atomic
    bint nonroot, vmx_xsaves, has_xfam
    uint64_t xss_exiting, xfam
    # tracking: marks of registers 0-7 and of whatever has no upper half, marks of vector registers 8-15
    uint64_t low, high
    uint64_t modified_low, modified_high
    uint64_t unknown        # by value: components whose mark their bytes have yet to decide
    # by value, between restores: what counts as in use of each vector and opmask register (parts as bits 0-2)
    uint8_t tags[32]
    uint8_t opmask_tags[8]
    bint upper_dirty        # something was written above XMM since the last restore or VZEROUPPER
    uint64_t tagged         # components whose marks come from there
    uint64_t initial        # components whose bytes are surely initial
    bint info_valid, info_nonroot
    int info_cpl
    uint64_t info_address, info_xcomp
    uint32_t fcs, fds
    bint tiles_loaded       # by an instruction other than XRSTOR

cdef int execute(Cpu *cpu, Operand *op, int insn, uint64_t mask, bint rexw, Outcome *out) noexcept nogil
cdef int execute_tile(Cpu *cpu, Operand *op, int insn, int tile, int64_t stride, Outcome *out) noexcept nogil
cdef void write_vector(Cpu *cpu, int n, int width, bint vex, const uint8_t *value, bint zeroed) noexcept nogil
cdef void zero_vectors(Cpu *cpu, bint whole) noexcept nogil
cdef void initialise_x87(Cpu *cpu) noexcept nogil
cdef int get_xcr(Cpu *cpu, uint32_t index, Outcome *out) noexcept nogil
cdef int load_mxcsr(Cpu *cpu, uint32_t value, Outcome *out) noexcept nogil
cdef void write_opmask(Cpu *cpu, int n, uint64_t value, bint zeroed) noexcept nogil
cdef void note_x87_read(Cpu *cpu) noexcept nogil
cdef void settle(Cpu *cpu) noexcept nogil
cdef void settle_all(Cpu *cpu) noexcept nogil
cdef uint64_t xinuse(Cpu *cpu) noexcept nogil
cdef uint64_t read_xgetbv1(Cpu *cpu) noexcept nogil

cdef object rule_code(int rule)

cdef class Processor:
    cdef Cpu cpu
    cdef readonly object model
    cdef readonly object vmx
    cdef Layout layout
    cdef bytearray storage
    cdef bytearray spare
    cdef object view
    cdef bint busy
    cdef int enter(self) except -1
    cdef int check_config(self, bytes image) except -1
    cdef uint64_t xfd_bits(self)
    cdef int reset(self) except -1
    cdef object fault(self, Outcome *out, str name)
    cdef object outcome(self, Outcome *out, str name)
    cdef object run(self, int insn, memory, mask, address, rexw, segment)
    cdef object run_tile(self, int insn, number_of_tile, memory, stride, address, segment)
    cdef Field msr_field(self, number, str name)
    cdef int put_msr(self, Field field, uint64_t value) except -1
    cdef int mark_by_contents(self, uint64_t found) except -1
    cdef Field field(self, name)
    cdef int put_vector(self, int n, value, Py_ssize_t width) except -1
    cdef object enabled(self, uint64_t needed, str name, uint64_t disabling)
    cdef int write_vector(self, row, value, bint vex) except -1
    cdef int zero_vectors(self, bint whole) except -1
