"""This CPU's own instructions and this kernel's own calls, for `xsave.host` and `xsave.models`. x86-64 only.

Upper half: declarations and one function without the interpreter, which takes N register states through the CPU.
Lower half: CPUID and XGETBV; `capture`, `roundtrip`, `xrstor_reads` (the XSAVE family on this thread); `run_steps`
(single instructions); `time_instruction` (batches of one, by the time-stamp counter); the system calls behind
`xsave.host`. The module knows instructions, masks and sizes; what a component or a register is called is its callers'
business.
"""

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from libc.errno cimport errno
from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t, uintptr_t
from libc.stdlib cimport free
from libc.string cimport memcpy, memset, strerror

from xsave.errors import HostError, UnsupportedError


cdef extern from "<stdlib.h>" nogil:
    void *aligned_alloc(size_t alignment, size_t size)

cdef extern from "<unistd.h>" nogil:
    long syscall(long number, ...)

cdef extern from "<sys/uio.h>" nogil:
    cdef struct iovec:
        void *iov_base
        size_t iov_len

cdef extern from "insn.h" nogil:
    enum: INSN_KMOVQ, INSN_PKRU, INSN_TILES, INSN_APX
    enum: INSN_AT_PRIME, INSN_AT_RESTORE, INSN_AT_SAVE, INSN_AT_READ, INSN_STAGES
    enum: INSN_XSAVE64, INSN_XSAVEC64, INSN_XSAVEOPT64, INSN_FXSAVE64, INSN_XSAVES64
    enum: INSN_XSAVE, INSN_XSAVEC, INSN_XSAVEOPT, INSN_FXSAVE, INSN_XSAVES
    enum: INSN_XRSTOR64, INSN_FXRSTOR64, INSN_XRSTORS64, INSN_XRSTOR, INSN_FXRSTOR, INSN_XRSTORS
    enum: INSN_POST_SPINS
    cdef struct insn_registers:
        uint8_t fx[512]
        uint8_t apx[16][8]
        uint8_t k[8][8]
        uint8_t tilecfg[64]
        uint8_t other[64]
        uint8_t zmm[32][64]
        uint8_t tmm[8][1024]
    cdef struct insn_run:
        uint64_t caller
        uint64_t prime
        uint64_t image
        uint64_t restore_mask
        uint64_t out
        uint64_t save_mask
        uint64_t registers
        uint64_t tileconf
        uint64_t xinuse
        uint32_t restore
        uint32_t save
        uint32_t caps
        insn_trap traps[4]
    void insn_cpuid(uint32_t leaf, uint32_t subleaf, uint32_t *out)
    int insn_has_xsave()
    uint64_t insn_xgetbv(uint32_t index)
    const insn_machine *insn_this_cpu()
    void insn_save(uint32_t save, uint64_t mask, void *area)
    void insn_transit(insn_run *run)
    int insn_guard_enter(insn_guard *guard)
    void insn_guard_leave(insn_guard *guard)

cdef extern from "program.h" nogil:
    void insn_program_ "insn_program"(insn_program *program)
    int insn_arena_make(insn_arena *arena, size_t pages, size_t hole, int read_only)
    void insn_arena_free(insn_arena *arena)

cdef extern from "timing.h" nogil:
    enum: TIME_NOTHING, TIME_XSAVE, TIME_XSAVEOPT, TIME_XSAVEC, TIME_XRSTOR, TIME_FXSAVE, TIME_FXRSTOR
    enum: TIME_XSAVEC_XRSTOR, TIME_XRSTOR_XSAVEOPT, TIME_MEMCPY
    cdef struct insn_timing:
        uint64_t caller
        uint64_t prime
        uint64_t first
        uint64_t second
        uint64_t mask
        uint64_t samples
        uint64_t batches
        uint64_t visits
        uint64_t count
        uint64_t flush
        uint64_t size
        uint32_t op
        uint32_t caps
        uint32_t reload
    void insn_time(const insn_timing *timing)
    void insn_time_copy(const insn_timing *timing)
    int insn_has_rdtscp()
    uint64_t insn_tsc()

cdef extern from "child.h" nogil:
    enum: CHILD_MAX_THREADS
    cdef struct child_state:
        uint32_t ready
        uint32_t order
        int32_t failed
        uint32_t failed_at
        int32_t permission
        uint32_t tiles
        int32_t tids[4096]
    long child_start_ "child_start"(child_state *state, const void *registers, uint32_t threads, uint32_t flags,
                                    const char *directory, const char *filter, uint32_t lifetime)
    void child_order(child_state *state, uint32_t order)


# N passes of the same kind: rows of `image_stride` bytes in, of `out_stride` bytes out.
cdef struct Batch:
    const uint8_t *images
    uint8_t *outs
    const uint8_t *prime
    uint8_t *registers
    uint8_t *xinuse
    insn_trap *traps
    size_t image_stride
    size_t out_stride
    size_t prime_size
    size_t count
    size_t failed
    bint in_place


cdef size_t _least(size_t a, size_t b) noexcept nogil:
    return a if a < b else b


cdef int _pass(Batch *batch, insn_run *run) noexcept nogil:
    """Runs the batch under one guard; an errno. Each row's traps (INSN_STAGES of them) stand in `traps`."""
    cdef const insn_machine *cpu = insn_this_cpu()
    # at least an FXSAVE image and a header, whatever the CPU says
    cdef size_t area = cpu.area_size if cpu.area_size > 1024 else 1024
    cdef size_t size = 5 * area + sizeof(insn_registers)
    cdef uint8_t *block = <uint8_t *>aligned_alloc(64, (size + 63) // 64 * 64)
    cdef uint8_t *image = block + area
    cdef uint8_t *out = block + 2 * area
    cdef uint8_t *prime = block + 3 * area
    cdef uint8_t *tileconf = block + 4 * area
    cdef uint8_t *registers = block + 5 * area
    cdef insn_guard guard
    cdef uint8_t whole[64]
    cdef uint64_t tilecfg_bit = 1 << 17
    cdef int error, t
    cdef size_t i
    if block == NULL:
        return 12  # ENOMEM
    memset(block, 0, size)
    run.caller = <uintptr_t>block
    if batch.prime != NULL:
        memcpy(prime, batch.prime, _least(batch.prime_size, area))
        run.prime = <uintptr_t>prime
    if run.caps & INSN_TILES:
        memset(whole, 0, 64)
        whole[0] = 1
        for t in range(8):
            whole[16 + 2 * t] = 64
            whole[48 + t] = 16
        memcpy(tileconf + cpu.tilecfg_offset, whole, 64)
        memcpy(tileconf + 512, &tilecfg_bit, 8)
        run.tileconf = <uintptr_t>tileconf
    error = insn_guard_enter(&guard)
    if error:
        free(block)
        return error
    for i in range(batch.count):
        memset(run.traps, 0, sizeof(run.traps))
        if batch.in_place:
            run.image = <uintptr_t>(batch.images + i * batch.image_stride)
            run.out = <uintptr_t>(batch.outs + i * batch.out_stride)
        else:
            if batch.images != NULL:
                memcpy(image, batch.images + i * batch.image_stride, _least(batch.image_stride, area))
                run.image = <uintptr_t>image
            if batch.outs != NULL:
                memcpy(out, batch.outs + i * batch.out_stride, _least(batch.out_stride, area))
                run.out = <uintptr_t>out
        if batch.registers != NULL:
            memset(registers, 0, sizeof(insn_registers))
            run.registers = <uintptr_t>registers
        insn_transit(run)
        if batch.outs != NULL and not batch.in_place:
            memcpy(batch.outs + i * batch.out_stride, out, _least(batch.out_stride, area))
        if batch.registers != NULL:
            memcpy(batch.registers + i * sizeof(insn_registers), registers, sizeof(insn_registers))
        if batch.xinuse != NULL:
            memcpy(batch.xinuse + 8 * i, &run.xinuse, 8)
        for t in range(INSN_STAGES):
            if run.traps[t].vector:
                batch.failed += 1
                break
        memcpy(batch.traps + i * INSN_STAGES, run.traps, sizeof(run.traps))
    insn_guard_leave(&guard)
    free(block)
    return 0


cdef const insn_machine *this_cpu() noexcept nogil:
    return insn_this_cpu()


cdef void run_program(insn_program *program) noexcept nogil:
    insn_program_(program)


cdef int enter_guard(insn_guard *guard) noexcept nogil:
    return insn_guard_enter(guard)


cdef void leave_guard(insn_guard *guard) noexcept nogil:
    insn_guard_leave(guard)


cdef int make_arena(insn_arena *arena, size_t pages, size_t hole, bint read_only) noexcept nogil:
    return insn_arena_make(arena, pages, hole, read_only)


cdef void free_arena(insn_arena *arena) noexcept nogil:
    insn_arena_free(arena)


# --- the face ---------------------------------------------------------------------------------------------------

cdef uint64_t ALL = 0xFFFFFFFFFFFFFFFF

# manual name: (REX.W form, other form, bit of CPUID.0DH.1:EAX or -1)
cdef dict _SAVES = {
    "XSAVE": (INSN_XSAVE64, INSN_XSAVE, -1),
    "XSAVEOPT": (INSN_XSAVEOPT64, INSN_XSAVEOPT, 0),
    "XSAVEC": (INSN_XSAVEC64, INSN_XSAVEC, 1),
    "XSAVES": (INSN_XSAVES64, INSN_XSAVES, 3),
    "FXSAVE": (INSN_FXSAVE64, INSN_FXSAVE, -1),
}
cdef dict _RESTORES = {
    "XRSTOR": (INSN_XRSTOR64, INSN_XRSTOR, -1),
    "XRSTORS": (INSN_XRSTORS64, INSN_XRSTORS, 3),
    "FXRSTOR": (INSN_FXRSTOR64, INSN_FXRSTOR, -1),
}
cdef tuple _STAGES = ("prime", "restore", "save", "read")
cdef dict _VECTORS = {6: "#UD", 7: "#NM", 12: "#SS", 13: "#GP", 14: "#PF", 16: "#MF", 17: "#AC", 19: "#XM"}

MAX_THREADS = CHILD_MAX_THREADS
CHILD_STATE_SIZE = sizeof(child_state)
REGISTER_FILE_SIZE = sizeof(insn_registers)
# family: (offset, bytes of one register, count) in a register file, which `roundtrip` fills and `child_start` takes
REGISTER_FILE = {
    "fx": (0, 512, 1),
    "r": (<size_t>&(<insn_registers *>NULL).apx, 8, 16),
    "k": (<size_t>&(<insn_registers *>NULL).k, 8, 8),
    "tilecfg": (<size_t>&(<insn_registers *>NULL).tilecfg, 64, 1),
    "mxcsr": (<size_t>&(<insn_registers *>NULL).other, 4, 1),
    "pkru": (<size_t>&(<insn_registers *>NULL).other + 4, 4, 1),
    "zmm": (<size_t>&(<insn_registers *>NULL).zmm, 64, 32),
    "tmm": (<size_t>&(<insn_registers *>NULL).tmm, 1024, 8),
}


@cython.final
cdef class Trap:
    """One fault of an instruction under the guard: which row and stage, the vector, and what the kernel said of it."""

    cdef readonly size_t index
    cdef readonly str stage
    cdef readonly str vector
    cdef readonly int signal
    cdef readonly int code
    cdef readonly object error_code
    cdef readonly object address

    def __repr__(self):
        where = f" at address {self.address:#x}" if self.address is not None else ""
        return f"<{self.vector} in row {self.index}, {self.stage}{where}>"


cdef Trap _trap(size_t index, int stage, const insn_trap *found):
    cdef Trap trap = Trap.__new__(Trap)
    trap.index = index
    trap.stage = _STAGES[stage]
    trap.vector = _VECTORS.get(found.vector, f"trap {found.vector}")
    trap.signal = found.signal
    trap.code = found.code
    trap.error_code = None if found.vector in (6, 7) else found.error_code
    trap.address = found.address if found.vector == 14 else None
    return trap


def cpuid(uint32_t leaf, uint32_t subleaf=0):
    """EAX, EBX, ECX, EDX of one CPUID leaf and sub-leaf. In a virtual machine each call is a VM exit."""
    cdef uint32_t[4] out
    insn_cpuid(leaf, subleaf, out)
    return out[0], out[1], out[2], out[3]


def xgetbv(uint32_t index=0):
    """XCR0 (index 0), or XCR0 & XINUSE (index 1) [SDM1 13.3, 13.6].

    Raises: `UnsupportedError` where the operating system has not enabled XSAVE (CPUID.1:ECX[27] = 0),
    `HostError` for an index that this CPU does not have (the instruction would fault).
    """
    cdef uint32_t[4] out
    if not insn_has_xsave():
        raise UnsupportedError("XGETBV needs XSAVE enabled by the system, but CPUID.1:ECX[27] is 0 [SDM1 13.2]")
    if index == 1:
        insn_cpuid(0xD, 1, out)
        if not out[0] >> 2 & 1:
            raise HostError("XGETBV with ECX 1 faults on this CPU: CPUID.0DH.1:EAX[2] is 0 [SDM1 13.2]")
    elif index:
        raise HostError(f"XGETBV with ECX {index} faults: only 0 and 1 are defined [SDM2 XGETBV]")
    return insn_xgetbv(index)


cdef int _need_xsave() except -1:
    if not insn_this_cpu().xcr0:
        raise UnsupportedError("the XSAVE family needs CPUID.1:ECX[27] (OSXSAVE), which is 0 here [SDM1 13.2]")
    return 0


def area_size():
    """Bytes that no instruction of the XSAVE family exceeds on this CPU with the XCR0 in force (0 without XSAVE)."""
    return insn_this_cpu().area_size


def abilities():
    """What the plain moves of this module reach, as flags: avx, avx512, kmovq, pkru, tilecfg, apx, xgetbv1."""
    cdef uint32_t caps = insn_this_cpu().caps
    return {"avx": bool(caps & INSN_AVX), "avx512": bool(caps & INSN_AVX512), "kmovq": bool(caps & INSN_KMOVQ),
            "pkru": bool(caps & INSN_PKRU), "tilecfg": bool(caps & INSN_TILECFG), "apx": bool(caps & INSN_APX),
            "xgetbv1": bool(caps & INSN_XGETBV1)}


cdef uint32_t _number(dict table, str name, bint rexw, str what) except? 0xFFFFFFFF:
    if name is None:
        return 0
    row = table.get(name)
    if row is None:
        raise ValueError(f"no {what} instruction {name!r}: one of {', '.join(table)}")
    return row[0] if rexw else row[1]


def capture(str instruction, mask, buffer):
    """Saves this thread's own extended state with XSAVE64, XSAVEC64 or XSAVEOPT64 into `buffer`.

    The instruction works on a 64-byte aligned copy of the buffer, of which the first len(buffer) bytes come back:
    the buffer holds what the instruction left, old bytes included. `mask` is EDX:EAX. The buffer's length is
    the caller's to choose by its layout.

    Raises: `UnsupportedError` for an instruction that this CPU lacks, `ValueError` for another name or a buffer
    shorter than the legacy region and header [SDM1 13.7-13.10].
    """
    cdef Py_buffer view
    cdef const insn_machine *cpu = insn_this_cpu()
    cdef uint8_t *area
    cdef uint64_t wanted = <uint64_t>(int(mask) & ALL)
    cdef size_t size
    _need_xsave()
    if instruction not in ("XSAVE", "XSAVEC", "XSAVEOPT"):
        raise ValueError(f"cannot capture with {instruction!r}: XSAVE, XSAVEC or XSAVEOPT")
    row = _SAVES[instruction]
    if row[2] >= 0 and not cpu.features >> <int>row[2] & 1:
        raise UnsupportedError(f"this CPU has no {instruction}: CPUID.0DH.1:EAX[{row[2]}] is 0 [SDM1 13.2]")
    PyObject_GetBuffer(buffer, &view, PyBUF_WRITABLE)
    try:
        if view.len < 576:
            raise ValueError(f"a buffer of {view.len} bytes: legacy region and header take 576 [SDM1 13.4]")
        area = <uint8_t *>aligned_alloc(64, cpu.area_size)
        if area == NULL:
            raise MemoryError
        size = _least(view.len, cpu.area_size)
        memset(area, 0, cpu.area_size)
        memcpy(area, view.buf, size)
        insn_save(row[0], wanted, area)
        memcpy(view.buf, area, size)
        free(area)
    finally:
        PyBuffer_Release(&view)


def roundtrip_many(images, outs, size_t count, *, restore="XRSTOR", restore_mask=-1, save="XSAVE", save_mask=-1,
                   bint rexw=True, prime=None, registers=None, xinuse=None, bint in_place=False):
    """Loads `count` images one after the other and saves each state at once; returns the list of `Trap`s, in order.

    Per row, in one piece of assembly: the caller's whole state is saved, `prime` (one standard image, its whole
    XCR0) loaded, `restore` executed on the row of `images`, XGETBV(1) read, `save` executed on the row of `outs`,
    the registers read by plain moves, the caller's state put back. `restore` None loads nothing, `save` None saves
    nothing. A row whose restore faults is saved all the same: the state that the fault left, with bits 0 and 1
    of XSTATE_BV as the kernel's signal return makes them.

    `images` and `outs` are C-contiguous, `count` rows each, rows of any length: the instructions work on 64-byte
    aligned copies (what `outs` holds before is there when the instruction runs, as much as a row holds comes back).
    With `in_place` they work on the rows themselves, misaligned or unmapped as these may be; then a row must have
    `area_size()` bytes. `registers` takes `count` register files of REGISTER_FILE_SIZE bytes, `xinuse` `count`
    values of 8 bytes. `rexw` False: the instructions without REX.W. The GIL is released.

    Raises: `UnsupportedError` without XSAVE, `ValueError` for unknown names and wrong sizes, `HostError` where the
    guard cannot be set up. Instructions that the CPU lacks come back as #UD.
    """
    cdef Batch batch
    cdef insn_run run
    cdef Py_buffer views[5]
    cdef object given = (images, outs, prime, registers, xinuse)
    cdef int held = 0
    cdef int error
    cdef int stage
    cdef size_t i
    _need_xsave()
    memset(&batch, 0, sizeof(batch))
    memset(&run, 0, sizeof(run))
    memset(views, 0, sizeof(views))
    run.restore = _number(_RESTORES, restore, rexw, "restore")
    run.save = _number(_SAVES, save, rexw, "save")
    run.restore_mask = <uint64_t>(int(restore_mask) & ALL)
    run.save_mask = <uint64_t>(int(save_mask) & ALL)
    run.caps = insn_this_cpu().caps
    if run.caps & INSN_TILECFG and registers is not None and arch_prctl(0x1022) >> 18 & 1:
        run.caps |= INSN_TILES
    if not 0 < count <= 1 << 24:
        raise ValueError(f"{count} rows: 1 to 2^24")
    if restore is not None and images is None:
        raise ValueError(f"{restore} needs images")
    if save is not None and outs is None:
        raise ValueError(f"{save} needs room for its output")
    batch.count = count
    batch.in_place = in_place
    try:
        for i in range(5):
            if given[i] is not None:
                PyObject_GetBuffer(given[i], &views[i], PyBUF_SIMPLE if i in (0, 2) else PyBUF_WRITABLE)
            held += 1
        if views[0].len % <Py_ssize_t>count or views[1].len % <Py_ssize_t>count:
            raise ValueError(f"{views[0].len} and {views[1].len} bytes do not make {count} rows of one length")
        batch.image_stride = views[0].len // count
        batch.out_stride = views[1].len // count
        if in_place and (images is not None and batch.image_stride < insn_this_cpu().area_size
                         or outs is not None and batch.out_stride < insn_this_cpu().area_size):
            raise ValueError(f"in place, rows of {batch.image_stride} and {batch.out_stride} bytes: an instruction "
                             f"may reach {insn_this_cpu().area_size}")
        if registers is not None and views[3].len != <Py_ssize_t>(count * sizeof(insn_registers)):
            raise ValueError(f"registers of {views[3].len} bytes: {count} files take {count * sizeof(insn_registers)}")
        if xinuse is not None and views[4].len != <Py_ssize_t>(8 * count):
            raise ValueError(f"xinuse of {views[4].len} bytes: {count} values take {8 * count}")
        batch.images = <const uint8_t *>views[0].buf
        batch.outs = <uint8_t *>views[1].buf
        batch.prime = <const uint8_t *>views[2].buf
        batch.prime_size = views[2].len
        batch.registers = <uint8_t *>views[3].buf
        batch.xinuse = <uint8_t *>views[4].buf
        batch.traps = <insn_trap *>aligned_alloc(64, (count * INSN_STAGES * sizeof(insn_trap) + 63) // 64 * 64)
        if batch.traps == NULL:
            raise MemoryError
        with nogil:
            error = _pass(&batch, &run)
        if error:
            raise HostError(error, f"the fault guard: {strerror(error).decode()}")
        traps = []
        if batch.failed:
            for i in range(count):
                for stage in range(INSN_STAGES):
                    if batch.traps[i * INSN_STAGES + stage].vector:
                        traps.append(_trap(i, stage, &batch.traps[i * INSN_STAGES + stage]))
        return traps
    finally:
        free(batch.traps)
        while held:
            held -= 1
            PyBuffer_Release(&views[held])  # does nothing where no buffer was given


def roundtrip(image, out, **options):
    """`roundtrip_many` of one image: its first `Trap`, or None."""
    traps = roundtrip_many(image, out, 1, **options)
    return traps[0] if traps else None


def xrstor_reads(image, mask=-1):
    """Loads `image` (standard or compacted) with XRSTOR64 and reads the registers by plain moves: a register file.

    Returns REGISTER_FILE_SIZE bytes, laid out as REGISTER_FILE says; zero where this CPU has no such register, or the
    kernel has not permitted tiles to this process. Everything outside `mask` is in its initial configuration.

    Raises: `HostError` naming the fault if the CPU refuses the image.
    """
    cdef bytearray blank = bytearray(max(insn_this_cpu().area_size, 1024))
    blank[24:26] = b"\x80\x1f"
    file = bytearray(sizeof(insn_registers))
    traps = roundtrip_many(image, None, 1, save=None, restore_mask=mask, prime=blank, registers=file)
    if traps:
        raise HostError(f"{traps[0].stage} of the image: {traps[0].vector}")
    return bytes(file)


def arch_prctl(int code, value=None):
    """arch_prctl(2): with `value` the request's number, without it a query whose 64-bit answer is returned.

    Raises: `HostError` with the kernel's errno.
    """
    cdef uint64_t answer = 0
    cdef unsigned long number
    cdef long result
    if value is None:
        result = syscall(158, code, &answer)
    else:
        number = <unsigned long>(int(value) & ALL)
        result = syscall(158, code, number)
    if result:
        raise HostError(errno, f"arch_prctl({code:#x}): {strerror(errno).decode()}")
    return answer


def ptrace(long request, int tid, unsigned long address=0, unsigned long data=0):
    """ptrace(2), the requests that move no memory. Raises: `OSError`."""
    if syscall(101, request, <long>tid, address, data):
        raise OSError(errno, strerror(errno).decode())


def ptrace_regset(int tid, unsigned long note, size_t size):
    """PTRACE_GETREGSET of a stopped thread: the bytes that the kernel has for `note`, at most `size`.

    Raises: `OSError` (EINVAL or ENODEV: the thread has no such regset).
    """
    cdef iovec vector
    cdef bytearray room = bytearray(size)
    cdef uint8_t *start = room
    vector.iov_base = start
    vector.iov_len = size
    if syscall(101, <long>0x4204, <long>tid, note, &vector):
        raise OSError(errno, strerror(errno).decode())
    return bytes(room[:vector.iov_len])


cdef child_state *_state(Py_buffer *view) except NULL:
    if view.len < <Py_ssize_t>sizeof(child_state) or <uintptr_t>view.buf % 64:
        raise ValueError(f"the child's state takes {sizeof(child_state)} aligned bytes of shared memory")
    return <child_state *>view.buf


def child_start(state, registers, *, bint spin=False, bytes directory, bytes coredump_filter, uint32_t lifetime):
    """Forks a child whose threads load the register files in `registers` and hold them; its process id.

    `state` is zeroed shared memory (an anonymous `mmap`) of CHILD_STATE_SIZE bytes, `registers` one register file of
    REGISTER_FILE_SIZE bytes per thread, in page-aligned memory (another `mmap`). The child never returns to Python.

    Raises: `HostError` where fork fails, `ValueError` for wrong sizes.
    """
    cdef Py_buffer shared
    cdef Py_buffer files
    cdef long pid
    cdef uint32_t threads
    _need_xsave()
    PyObject_GetBuffer(state, &shared, PyBUF_WRITABLE)
    try:
        PyObject_GetBuffer(registers, &files, PyBUF_SIMPLE)
        try:
            threads = files.len // sizeof(insn_registers)
            if not 0 < threads <= CHILD_MAX_THREADS or <uintptr_t>files.buf % 64:
                raise ValueError(f"{threads} threads: 1 to {CHILD_MAX_THREADS}, register files 64-byte aligned")
            pid = child_start_(_state(&shared), files.buf, threads, INSN_POST_SPINS if spin else 0, directory,
                               coredump_filter, lifetime)
        finally:
            PyBuffer_Release(&files)
    finally:
        PyBuffer_Release(&shared)
    if pid < 0:
        raise HostError(-pid, f"fork: {strerror(-pid).decode()}")
    return pid


def child_status(state):
    """(threads ready, errno of a failed start or 0, where, permission, tiles loaded, thread ids so far)."""
    cdef Py_buffer shared
    cdef child_state *found
    cdef int i
    PyObject_GetBuffer(state, &shared, PyBUF_WRITABLE)
    try:
        found = _state(&shared)
        tids = []
        for i in range(CHILD_MAX_THREADS):
            if not found.tids[i]:
                break
            tids.append(found.tids[i])
        return found.ready, found.failed, found.failed_at, found.permission, bool(found.tiles), tids
    finally:
        PyBuffer_Release(&shared)


def child_crash(state):
    """Makes the child's first thread execute UD2."""
    cdef Py_buffer shared
    PyObject_GetBuffer(state, &shared, PyBUF_WRITABLE)
    try:
        child_order(_state(&shared), 1)
    finally:
        PyBuffer_Release(&shared)


include "native/program.pxi"
include "native/timing.pxi"
