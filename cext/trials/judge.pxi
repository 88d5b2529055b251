# Comparing the two sides.

cdef enum Difference:
    SAME
    AT_STEP
    AT_VECTOR
    AT_ERROR_CODE
    AT_ADDRESS
    AT_XINUSE_PRIME
    AT_XINUSE_LAST
    AT_XINUSE_AFTER
    AT_RESULT
    AT_MEMORY
    AT_REGISTERS

cdef struct Verdict:
    int difference
    int64_t at              # byte of the arena, or of the standard image
    uint64_t wanted         # the emulated processor's
    uint64_t found          # this CPU's


cdef int disagree(Verdict *v, int difference, int64_t at, uint64_t wanted, uint64_t found) noexcept nogil:
    v.difference = difference
    v.at = at
    v.wanted = wanted
    v.found = found
    return difference


cdef bint differs(const uint8_t *a, const uint8_t *b, int64_t begin, int64_t end, int64_t *at) noexcept nogil:
    if end <= begin or memcmp(a + begin, b + begin, <size_t>(end - begin)) == 0:
        return False
    at[0] = begin
    while a[at[0]] == b[at[0]]:
        at[0] += 1
    return True


cdef int compare(Trials t, const Case *case, const Side *want, const Side *got, Verdict *v) noexcept nogil:
    cdef int64_t begin = 0
    cdef int64_t end = 0
    cdef int64_t at = 0
    cdef uint64_t hidden = 0
    cdef int i, which
    if want.stopped != got.stopped:
        return disagree(v, AT_STEP, 0, want.stopped, got.stopped)
    if want.vector != got.vector:
        return disagree(v, AT_VECTOR, 0, want.vector, got.vector)
    if want.vector and want.error_code != got.error_code:
        return disagree(v, AT_ERROR_CODE, 0, want.error_code, got.error_code)
    if want.vector == 14 and want.address != got.address:
        return disagree(v, AT_ADDRESS, 0, want.address, got.address)
    if t.caps & INSN_XGETBV1:
        if want.xinuse_prime != got.xinuse_prime:
            return disagree(v, AT_XINUSE_PRIME, 0, want.xinuse_prime, got.xinuse_prime)
        if want.stopped == case.count and want.xinuse_last != got.xinuse_last:
            return disagree(v, AT_XINUSE_LAST, 0, want.xinuse_last, got.xinuse_last)
    for i in range(want.stopped):
        if want.result[i] != got.result[i]:
            return disagree(v, AT_RESULT, i, want.result[i], got.result[i])
    for which in range(2):
        stretch(t, case, which, &begin, &end)
        if differs(t.mirror[case.arena], t.arena[case.arena].alias, begin, end, &at):
            return disagree(v, AT_MEMORY, at, t.mirror[case.arena][at], t.arena[case.arena].alias[at])
    if differs(t.emulated, t.real, 0, XMM_END, &at):
        return disagree(v, AT_REGISTERS, at, t.emulated[at], t.real[at])
    for i in range(2, 63):
        if t.whole.mask >> i & 1:
            if differs(t.emulated, t.real, t.whole.offset[i], t.whole.offset[i] + t.compared[i], &at):
                return disagree(v, AT_REGISTERS, at, t.emulated[at], t.real[at])
    if t.caps & INSN_XGETBV1:
        if want.vector:     # the kernel has set both in the signal frame
            hidden = 3
        if (want.xinuse_after ^ got.xinuse_after) & ~hidden:
            return disagree(v, AT_XINUSE_AFTER, 0, want.xinuse_after, got.xinuse_after)
    v.difference = SAME
    return SAME


cdef int try_case(Trials t, const Case *case, uint32_t kept, Side *want, Side *got, Verdict *v) noexcept nogil:
    # One run of both sides, memory as the case has it. 0, or where they differ.
    emulate(t, case, kept, NOISE_NONE, -2, want)
    perform(t, case, kept, got)
    return compare(t, case, want, got, v)


cdef bint explained(Trials t, const Case *case, uint32_t kept, const Side *got) noexcept nogil:
    # Whether this CPU did what the model does after one disturbance of the machine's own.
    cdef Side want
    cdef Verdict v
    cdef int64_t begin = 0
    cdef int64_t end = 0
    cdef int noise, before, which
    for noise in range(1, NOISE_KINDS):
        if noise & NOISE_SETTLE and not t.model.cpu.by_value:
            continue
        for before in range(-1, 2 * case.count + 1):
            for which in range(2):
                stretch(t, case, which, &begin, &end)
                memcpy(t.mirror[case.arena] + begin, t.before + begin, <size_t>(end - begin))
            emulate(t, case, kept, noise, before, &want)
            if compare(t, case, &want, got, &v) == SAME:
                return True
    return False


cdef int judge(Trials t, const Case *case, uint32_t kept, Side *want, Side *got, Verdict *v) noexcept nogil:
    # Up to eight more runs where a disturbance explains the difference; one identical run is agreement.
    cdef Verdict first
    cdef int i
    keep(t, case)
    if try_case(t, case, kept, want, got, v) == SAME:
        return SAME
    first = v[0]
    if explained(t, case, kept, got):
        t.retried += 1
        for i in range(8):
            refill(t, case)
            if try_case(t, case, kept, want, got, v) == SAME:
                return SAME
            if not explained(t, case, kept, got):
                break
    v[0] = first
    return first.difference
