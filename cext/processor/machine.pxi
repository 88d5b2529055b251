# XCR0, IA32_XSS, IA32_XFD, the MSRs behind supervisor components, CPUID (SDM1 13.2, 13.3, 13.14; SDM2).

cdef int check_xcr0(Cpu *cpu, uint64_t value, Outcome *out) noexcept nogil:
    # The first rule that a value of XCR0 breaks (SDM1 13.3).
    cdef uint64_t rest
    cdef int i
    if value & ~cpu.user:
        return fault(out, GP, R_XCR0_UNSUPPORTED, NOWHERE, value & ~cpu.user)
    if not value & BIT_X87:
        return fault(out, GP, R_XCR0_X87, NOWHERE, value)
    rest = value
    i = 0
    while rest:
        if rest & 1:
            if cpu.needs[i] & ~value:
                return fault(out, GP, R_XCR0_NEEDS, NOWHERE, <uint64_t>1 << i)
            if cpu.excludes[i] & value:
                return fault(out, GP, R_XCR0_EXCLUDES, NOWHERE, <uint64_t>1 << i)
        rest >>= 1
        i += 1
    return DONE


cdef int set_xcr0(Cpu *cpu, uint32_t index, uint64_t value, Outcome *out) noexcept nogil:
    # In VMX non-root operation XSETBV exits before it looks at ECX or the value; with the hypothetical XFAM only a
    # legal value outside it does.
    if not cpu.osxsave:
        return fault(out, UD, R_OSXSAVE, NOWHERE, 0)
    if cpu.cpl:
        return fault(out, GP, R_CPL, NOWHERE, cpu.cpl)
    if cpu.nonroot and not cpu.has_xfam:
        return leave(out, EXIT, EXIT_XSETBV)
    if index:
        return fault(out, GP, R_INDEX, NOWHERE, index)
    if check_xcr0(cpu, value, out) != DONE:
        return out.kind
    if cpu.nonroot and value & ~cpu.xfam:
        return leave(out, EXIT, EXIT_XSETBV)
    cpu.xcr0 = value
    return leave(out, DONE, value)


cdef int get_xcr(Cpu *cpu, uint32_t index, Outcome *out) noexcept nogil:
    if not cpu.osxsave:
        return fault(out, UD, R_OSXSAVE, NOWHERE, 0)
    if index == 0:
        return leave(out, DONE, cpu.xcr0)
    if index == 1 and cpu.features & HAS_XGETBV1:
        return leave(out, DONE, read_xgetbv1(cpu))
    return fault(out, GP, R_INDEX, NOWHERE, index)


cdef uint32_t current_size(Cpu *cpu, uint64_t mask, int format) noexcept nogil:
    cdef Shape shape
    if lay_out(&cpu.ruler, mask, format, &shape):
        return 0
    return shape.size


cdef const Check *find_check(Cpu *cpu, uint32_t number) noexcept nogil:
    cdef int i
    for i in range(cpu.check_count):
        if cpu.checks[i].number == number:
            return &cpu.checks[i]
    return NULL
