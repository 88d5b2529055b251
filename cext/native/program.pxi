# Programs of single instructions for `xsave.host`, one at a time: memory with edges, and the run itself.

# manual name: number of the step; those of the XSAVE family with REX.W, and addressed through DS
cdef dict _STEPS = {
    "LDTILECFG": STEP_LDTILECFG, "STTILECFG": STEP_STTILECFG, "TILERELEASE": STEP_TILERELEASE,
    "LDMXCSR": STEP_LDMXCSR, "STMXCSR": STEP_STMXCSR, "VZEROUPPER": STEP_VZEROUPPER, "VZEROALL": STEP_VZEROALL,
    "FNINIT": STEP_FNINIT, "FNOP": STEP_FNOP, "EMMS": STEP_EMMS, "FNSTCW": STEP_FNSTCW, "FLDCW": STEP_FLDCW,
    "XGETBV": STEP_XGETBV, "MOVUPS": STEP_SSE, "VMOVUPS xmm": STEP_VEX128, "VMOVUPS ymm": STEP_VEX256,
    "VMOVDQU64 zmm": STEP_EVEX512, "VMOVDQU64 xmm": STEP_EVEX128, "VMOVDQU64 ymm": STEP_EVEX256, "KMOVW": STEP_KMOV,
    "MOVUPS store": STEP_READ_SSE, "FLD": STEP_FLD, "TILELOADD": STEP_TILELOADD, "TILELOADDT1": STEP_TILELOADDT1,
    "TILESTORED": STEP_TILESTORED, "TILEZERO": STEP_TILEZERO,
}
cdef tuple _FAMILY = ("XSAVE", "XSAVEOPT", "XSAVEC", "XSAVES", "XRSTOR", "XRSTORS", "FXSAVE", "FXRSTOR")
# How many registers a step chooses among.
cdef dict _CHOICE = {
    STEP_SSE: 16, STEP_VEX128: 16, STEP_VEX256: 16, STEP_EVEX512: 32, STEP_EVEX128: 32, STEP_EVEX256: 32, STEP_KMOV: 8,
    STEP_READ_SSE: 16, STEP_FLD: 1, STEP_TILELOADD: 8, STEP_TILELOADDT1: 8, STEP_TILESTORED: 8, STEP_TILEZERO: 8,
}
cdef uint64_t NO_XINUSE = <uint64_t>1 << 63     # bit 63 of XCR0 is never set


@cython.final
cdef class Arena:
    """`pages` pages of memory between two that are not there, all zero; freed with the object.

    `address`: where instructions see it; there the page `hole` is missing too, and with `read_only` nothing can be
    written. `write` and `read` reach all of it, by another mapping. Raises: `HostError`, `ValueError`.
    """

    cdef insn_arena arena
    cdef readonly size_t size
    cdef readonly size_t address

    def __cinit__(self, size_t pages, *, hole=None, bint read_only=False):
        cdef int error
        memset(&self.arena, 0, sizeof(insn_arena))
        if not 0 < pages <= 1024:
            raise ValueError(f"an arena of {pages} pages: 1 to 1024")
        if hole is not None and not 0 <= hole < pages:
            raise ValueError(f"page {hole} of {pages}")
        error = insn_arena_make(&self.arena, pages, pages if hole is None else <size_t>hole, read_only)
        if error:
            raise HostError(error, f"memory with edges: {strerror(error).decode()}")
        self.size = pages * 4096
        self.address = <size_t>self.arena.view

    def __dealloc__(self):
        insn_arena_free(&self.arena)

    def write(self, size_t offset, data):
        """Stores bytes, whatever instructions may do there."""
        cdef Py_buffer view
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        try:
            if offset > self.size or <size_t>view.len > self.size - offset:
                raise ValueError(f"{view.len} bytes at {offset} of {self.size}")
            memcpy(self.arena.alias + offset, view.buf, view.len)
        finally:
            PyBuffer_Release(&view)

    def read(self, size_t offset, size_t size):
        """The bytes there, also those of the missing page."""
        if offset > self.size or size > self.size - offset:
            raise ValueError(f"{size} bytes at {offset} of {self.size}")
        return (<const char *>self.arena.alias)[offset:offset + size]


cdef int _number_step(insn_step *step, tuple given, uint8_t *pool) except -1:
    # (name, reg, mask, operand, rexw, stack); the operand an address, or up to 64 bytes that are put into the pool.
    name, reg, mask, operand, rexw, stack = given
    cdef bytes data
    if name in _FAMILY:
        step.op = _FAMILY.index(name) + (0 if rexw else STEP_XSAVE) + (STEP_STACK if stack else 0)
    elif name in _STEPS:
        step.op = _STEPS[name]
    else:
        raise ValueError(f"no step {name!r}")
    if not 0 <= reg < _CHOICE.get(step.op, 1):
        raise ValueError(f"{name} has no register {reg}")
    step.reg = reg
    step.mask = <uint64_t>(int(mask) & ALL)
    if isinstance(operand, int):
        step.at = <uint64_t>(operand & ALL)
    else:
        data = bytes(operand)
        if len(data) > 64:
            raise ValueError(f"an operand of {len(data)} bytes")
        memcpy(pool, <const char *>data, len(data))
        step.at = <uint64_t><uintptr_t>pool
    return 0


def run_steps(list steps, prime, *, bint align_check=False):
    """Loads `prime` (a standard image, the whole XCR0), executes the steps, and saves what they left with XSAVE64.

    A step is (name, register, mask, operand, rexw, stack): the operand an address or up to 64 bytes. A fault ends the
    steps; `image` then holds the state that it left (XINUSE as the kernel's signal return made it). Returns
    (image, executed, Trap or None, xinuse after prime, before the last step, at the end, XGETBV results); each xinuse
    None where XGETBV(1) is missing or was not reached. The GIL is released.

    Raises: `UnsupportedError` without XSAVE, `ValueError` for steps that there are not, `HostError` where the guard
    cannot be set up or `prime` faults.
    """
    cdef const insn_machine *cpu = insn_this_cpu()
    cdef size_t area = (cpu.area_size + 63) // 64 * 64
    cdef size_t count = len(steps)
    cdef size_t i
    cdef uint8_t *block
    cdef insn_step *list_of
    cdef insn_program program
    cdef insn_guard guard
    cdef Py_buffer view
    cdef int error
    _need_xsave()
    if not 0 < count <= 4096:
        raise ValueError(f"{count} steps: 1 to 4096")
    memset(&program, 0, sizeof(program))
    # three areas, an operand of 64 bytes for each step, the steps
    block = <uint8_t *>aligned_alloc(64, (3 * area + count * (64 + sizeof(insn_step)) + 63) // 64 * 64)
    if block == NULL:
        raise MemoryError
    try:
        memset(block, 0, 3 * area + count * (64 + sizeof(insn_step)))
        PyObject_GetBuffer(prime, &view, PyBUF_SIMPLE)
        memcpy(block + area, view.buf, _least(view.len, area))
        PyBuffer_Release(&view)
        list_of = <insn_step *>(block + 3 * area + 64 * count)
        for i in range(count):
            _number_step(&list_of[i], steps[i], block + 3 * area + 64 * i)
        program.caller = <uintptr_t>block
        program.prime = <uintptr_t>(block + area)
        program.after = <uintptr_t>(block + 2 * area)
        program.step = <uintptr_t>list_of
        program.last = <uintptr_t>&list_of[count - 1]
        program.caps = cpu.caps
        program.align_check = align_check
        program.xinuse_prime = program.xinuse_last = program.xinuse_after = NO_XINUSE
        with nogil:
            error = insn_guard_enter(&guard)
            if error == 0:
                insn_program_(&program)
                insn_guard_leave(&guard)
        if error:
            raise HostError(error, f"the fault guard: {strerror(error).decode()}")
        i = (program.step - <uintptr_t>list_of) // sizeof(insn_step)
        trap = _trap(i, INSN_AT_SAVE, &program.trap) if program.trap.vector else None
        if trap is not None and i == 0 and cpu.caps & INSN_XGETBV1 and program.xinuse_prime == NO_XINUSE:
            raise HostError(f"XRSTOR of the state to start from: {trap.vector}")
        return ((<const char *>block)[2 * area:3 * area], i, trap, _seen(program.xinuse_prime),
                _seen(program.xinuse_last), _seen(program.xinuse_after), [list_of[j].result for j in range(count)])
    finally:
        free(block)


cdef object _seen(uint64_t xinuse):
    return None if xinuse == NO_XINUSE else xinuse
