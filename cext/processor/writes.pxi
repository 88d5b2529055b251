# What instructions that load registers do to them and to the tracking (SDM1 13.6).

cdef void write_vector(Cpu *cpu, int n, int width, bint vex, const uint8_t *value, bint zeroed) noexcept nogil:
    # A write of `width` bytes to vector register n; with VEX and EVEX everything above becomes zero. `zeroed`: by an
    # instruction that gives zero whatever its operands hold.
    cdef uint64_t held = HALVED & cpu.ruler.known
    cdef uint64_t bits = BIT_SSE
    cdef uint64_t marked
    cdef uint8_t *at
    cdef int i, step
    cdef int done = 16
    if n >= 16:
        at = component_at(cpu, lowest(UPPER)) + 64 * (n - 16)
        memset(at, 0, 64)
        memcpy(at, value, width)
        cpu.initial &= ~UPPER
        if cpu.by_value:
            upper_by_value(cpu, n, zeroed)
        else:
            touch(cpu, UPPER)
        return
    if cpu.by_value:
        use_tags(cpu)       # of what is there before
    memcpy(cpu.area + XMM_OFFSET + 16 * n, value, 16)
    for i in range(2, COMPONENT_LIMIT):
        if not held >> i & 1:
            continue
        step = cpu.unit[i]
        at = component_at(cpu, i) + step * n
        if width > done:
            memcpy(at, value + done, step)
            bits |= <uint64_t>1 << i
        elif vex:
            memset(at, 0, step)
        done += step
    cpu.initial &= ~(bits | (held if vex else 0))
    if cpu.by_value:
        written_by_value(cpu, n, width, vex, zeroed)
        return
    marked = bits | ((cpu.low if n < 8 else cpu.high) & HALVED if vex else 0)
    if n < 8:
        cpu.low |= bits
        cpu.modified_low |= marked
    else:
        cpu.high |= bits
        cpu.modified_high |= marked


cdef void zero_vectors(Cpu *cpu, bint whole) noexcept nogil:
    # VZEROUPPER and VZEROALL.
    cdef uint64_t bits = HALVED & cpu.ruler.known
    cdef int i
    for i in range(2, COMPONENT_LIMIT):
        if bits >> i & 1:
            write_initial_bytes(i, component_at(cpu, i), 0, cpu.stored[i] if cpu.long_mode else cpu.narrow[i])
    if whole:
        bits |= BIT_SSE
        memset(cpu.area + XMM_OFFSET, 0, xmm_end(cpu) - XMM_OFFSET)
    if cpu.by_value:
        zeroed_by_value(cpu, whole)
    elif cpu.long_mode:
        cpu.low &= ~bits
        cpu.high &= ~bits
    else:
        cpu.low &= ~bits
        cpu.modified_low |= bits
    if cpu.long_mode:
        cpu.initial |= bits


cdef void initialise_x87(Cpu *cpu) noexcept nogil:
    # FNINIT: the physical registers keep their contents, TOP becomes 0.
    cdef uint8_t old[128]
    cdef int top = load_le16(cpu.area + 2) >> 11 & 7
    cdef int i
    memcpy(old, cpu.area + X87_HIGH, X87_HIGH_END - X87_HIGH)
    for i in range(8):      # ST(i) was physical register TOP + i
        memcpy(cpu.area + X87_HIGH + ST_STEP * i, old + ST_STEP * ((i - top) & 7), ST_STEP)
    memset(cpu.area, 0, X87_LOW_END)
    store_le16(cpu.area, FCW_INIT)
    cpu.fcs = 0
    cpu.fds = 0
    touch(cpu, BIT_X87)


cdef int load_mxcsr(Cpu *cpu, uint32_t value, Outcome *out) noexcept nogil:
    # LDMXCSR.
    if value & ~cpu.ruler.mxcsr_mask:
        return fault(out, GP, R_MXCSR, NOWHERE, value & ~cpu.ruler.mxcsr_mask)
    store_le32(cpu.area + MXCSR_OFFSET, value)
    if cpu.ldmxcsr_marks:
        cpu.low |= BIT_SSE
        cpu.modified_low |= BIT_SSE
        cpu.initial &= ~<uint64_t>BIT_SSE
        if cpu.long_mode:
            cpu.high |= BIT_SSE
            cpu.modified_high |= BIT_SSE
    return leave(out, DONE, 0)


cdef void write_opmask(Cpu *cpu, int n, uint64_t value, bint zeroed) noexcept nogil:
    store_le64(component_at(cpu, lowest(cpu.opmask)) + 8 * n, value)
    cpu.initial &= ~cpu.opmask
    if cpu.by_value:
        opmask_by_value(cpu, n, zeroed)
    else:
        touch(cpu, cpu.opmask)


cdef void note_x87_read(Cpu *cpu) noexcept nogil:
    # FNSTCW: where contents decide what is in use, it counts as a change of x87 (measured).
    if cpu.by_value:
        cpu.modified_low |= BIT_X87
