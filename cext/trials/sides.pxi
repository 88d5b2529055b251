# The two sides of a case: the emulated processor and this CPU.

# A stretch of the arena that a case uses: filled before, compared after.
cdef void stretch(Trials t, const Case *case, int which, int64_t *begin, int64_t *end) noexcept nogil:
    cdef int64_t size = ARENA_PAGES * PAGE
    begin[0] = case.at[which] - SLACK
    end[0] = case.at[which] + t.room + SLACK
    if begin[0] < 0:
        begin[0] = 0
    if end[0] > size:
        end[0] = size
    if begin[0] > end[0]:
        begin[0] = end[0]


cdef void fill_operand(Trials t, Draw *d, Case *case, int which) noexcept nogil:
    # The same bytes on both sides. What lies in the hole or beyond the end is not there.
    cdef int64_t begin = 0
    cdef int64_t end = 0
    cdef int64_t at = case.at[which]
    cdef uint8_t *mirror = t.mirror[case.arena]
    cdef int64_t size
    stretch(t, case, which, &begin, &end)
    memcpy(mirror + begin, t.noise + 64 * below(d, 64), <size_t>(end - begin))
    size = end - at
    if size > <int64_t>t.room:
        size = <int64_t>t.room
    if size > 0:
        draw_area(t, d, mirror + at, <size_t>size)
    memcpy(t.arena[case.arena].alias + begin, mirror + begin, <size_t>(end - begin))


cdef void refill(Trials t, const Case *case) noexcept nogil:
    # The stretches as the case found them, on both sides, for another run.
    cdef int64_t begin = 0
    cdef int64_t end = 0
    cdef int which
    for which in range(2):
        stretch(t, case, which, &begin, &end)
        memcpy(t.mirror[case.arena] + begin, t.before + begin, <size_t>(end - begin))
        memcpy(t.arena[case.arena].alias + begin, t.before + begin, <size_t>(end - begin))


cdef void keep(Trials t, const Case *case) noexcept nogil:
    cdef int64_t begin = 0
    cdef int64_t end = 0
    cdef int which
    for which in range(2):
        stretch(t, case, which, &begin, &end)
        memcpy(t.before + begin, t.mirror[case.arena] + begin, <size_t>(end - begin))


# What a side says of a case.
cdef struct Side:
    int stopped             # index of the step that faulted, or the count
    int vector
    uint32_t error_code
    uint64_t address        # CR2 of a #PF
    uint64_t xinuse_prime
    uint64_t xinuse_last
    uint64_t xinuse_after
    uint64_t result[6]      # XGETBV
    int rule
    int64_t offset


cdef inline uint64_t address_of(Trials t, const Case *case, const Step *s) noexcept nogil:
    cdef uint64_t at = <uint64_t><size_t>t.arena[case.arena].view + <uint64_t>s.offset
    if s.what == DO_TILE and s.offset == -1:
        return <uint64_t><size_t>t.configs + 64 * s.reg
    if s.what in (DO_VECTOR, DO_LDMXCSR, DO_OPMASK):
        return <uint64_t><size_t>t.words + <uint64_t>s.offset
    if s.what in (DO_READ, DO_FNSTCW):
        return <uint64_t><size_t>t.sink
    return at ^ NON_CANONICAL if s.wild else at


# A disturbance that is the machine's own, bits of it: legacy SSE registers are loaded with what they held (XINUSE[1] is
# raised, and what a merge raises); XRSTOR_INFO is lost; the whole state is saved and restored, which only matters where
# contents decide (a context switch; one case in a million on a busy machine).
cdef enum:
    NOISE_NONE = 0
    NOISE_SSE = 1
    NOISE_FORGET = 2
    NOISE_SETTLE = 4
    NOISE_KINDS = 8


cdef void disturb(Cpu *cpu, int noise) noexcept nogil:
    cdef uint8_t held[16]
    cdef int n
    if noise & NOISE_SETTLE:
        settle_all(cpu)
    if noise & NOISE_SSE:
        if cpu.by_value:
            for n in range(16):
                memcpy(held, cpu.area + XMM_OFFSET + 16 * n, 16)
                write_vector(cpu, n, 16, False, held, False)
        else:
            cpu.low |= BIT_SSE
            cpu.modified_low |= BIT_SSE
            cpu.initial &= ~<uint64_t>BIT_SSE
    if noise & (NOISE_FORGET | NOISE_SETTLE):
        cpu.info_valid = False


cdef void emulate(Trials t, const Case *case, uint32_t kept, int noise, int before, Side *side) noexcept nogil:
    # `kept`: the steps that are executed, one bit each. `before`: where a disturbance comes: -1 after the image is
    # loaded, 2i before step i (and the XGETBV before the last one), 2i + 1 right at it.
    cdef Cpu *cpu = &t.model.cpu
    cdef Operand op
    cdef Outcome out
    cdef const Step *s
    cdef uint64_t at
    cdef int i, last
    memset(side, 0, sizeof(Side))
    cpu.align = False
    op.regions = NULL
    op.count = 0
    op.stack = False
    op.address = <uint64_t><size_t>t.prime
    op.bytes = t.prime
    op.length = t.room
    op.writable = True
    execute(cpu, &op, XRSTOR, ALL, True, &out)
    if before == -1:
        disturb(cpu, noise)
    side.xinuse_prime = read_xgetbv1(cpu)
    cpu.align = case.align_check
    side.stopped = case.count
    last = case.count - 1
    while last > 0 and not kept >> last & 1:
        last -= 1
    for i in range(case.count):
        if before == 2 * i:
            disturb(cpu, noise)
        if i == last:
            side.xinuse_last = read_xgetbv1(cpu)
        if before == 2 * i + 1:
            disturb(cpu, noise)
        if not kept >> i & 1:
            continue
        s = &case.step[i]
        out.kind = DONE
        at = address_of(t, case, s)
        if s.what == DO_EXECUTE or s.what == DO_TILE:
            op.address = at
            op.stack = s.stack
            op.regions = t.regions[case.arena]
            op.count = t.region_count[case.arena]
            if s.what == DO_EXECUTE:
                execute(cpu, &op, s.insn, s.mask, s.rexw, &out)
            else:
                if s.offset == -1:
                    op.regions = NULL
                    op.count = 0
                    op.bytes = t.configs + 64 * s.reg
                    op.length = 64
                execute_tile(cpu, &op, s.insn, s.reg, <int64_t>s.mask, &out)
        elif s.what == DO_XGETBV:
            if get_xcr(cpu, <uint32_t>s.mask, &out) == DONE:
                side.result[i] = out.detail
        elif s.what == DO_VECTOR:
            write_vector(cpu, s.reg, s.width, s.vex, t.words + s.offset, False)
        elif s.what == DO_OPMASK:
            write_opmask(cpu, s.reg, load_le16(t.words + s.offset), False)
        elif s.what == DO_ZERO:
            zero_vectors(cpu, s.vex)
        elif s.what == DO_FNINIT:
            initialise_x87(cpu)
        elif s.what == DO_FNSTCW:
            note_x87_read(cpu)
        elif s.what == DO_LDMXCSR:
            load_mxcsr(cpu, load_le32(t.words + s.offset), &out)
        if out.kind != DONE:
            side.stopped = i
            side.vector = out.vector if out.kind == FAULT else 0x100 + out.kind
            side.error_code = out.error_code
            side.rule = out.rule
            side.offset = out.offset
            if out.vector == 14:
                side.address = at + <uint64_t>out.offset
            settle_all(cpu)     # the signal frame does
            break
    if before == 2 * case.count:
        disturb(cpu, noise)
    cpu.align = False
    side.xinuse_after = read_xgetbv1(cpu)
    # the whole state, as the other side saves it
    op.address = <uint64_t><size_t>t.emulated
    op.bytes = t.emulated
    op.length = t.room
    op.stack = False
    op.regions = NULL
    op.count = 0
    execute(cpu, &op, XSAVE, ALL, True, &out)


cdef void perform(Trials t, const Case *case, uint32_t kept, Side *side) noexcept nogil:
    cdef insn_step steps[8]
    cdef insn_program program
    cdef int index[8]
    cdef int i
    cdef int n = 0
    memset(side, 0, sizeof(Side))
    memset(&program, 0, sizeof(program))
    for i in range(case.count):
        if kept >> i & 1:
            steps[n].op = case.step[i].op
            steps[n].reg = case.step[i].reg
            steps[n].mask = case.step[i].mask
            steps[n].at = address_of(t, case, &case.step[i])
            steps[n].result = 0
            index[n] = i
            n += 1
    index[n] = case.count
    program.caller = <uint64_t><size_t>t.caller
    program.prime = <uint64_t><size_t>t.prime
    program.step = <uint64_t><size_t>&steps[0]
    program.last = <uint64_t><size_t>&steps[n - 1] if n else 0
    program.after = <uint64_t><size_t>t.real
    program.caps = t.caps
    program.align_check = case.align_check
    run_program(&program)
    if n:
        i = <int>((program.step - <uint64_t><size_t>&steps[0]) // sizeof(insn_step))
        side.stopped = index[i]
    else:
        side.stopped = case.count
    side.vector = program.trap.vector
    side.error_code = program.trap.error_code if program.trap.vector not in (6, 7) else 0
    side.address = program.trap.address
    side.xinuse_prime = program.xinuse_prime
    side.xinuse_last = program.xinuse_last
    side.xinuse_after = program.xinuse_after
    for i in range(n):
        side.result[index[i]] = steps[i].result


cdef void warm_up(Trials t) noexcept nogil:
    # The first use of tiles by a thread that may use them goes through the kernel: it is behind us afterwards.
    cdef Case case
    cdef Side side
    if t.tiles:
        memset(&case, 0, sizeof(case))
        memcpy(t.prime, t.pool, t.room)
        store_le64(t.prime + HEADER_OFFSET, t.xcr0)
        store_le16(t.prime, 0x37F)
        store_le32(t.prime + MXCSR_OFFSET, MXCSR_INIT)
        perform(t, &case, 0, &side)
