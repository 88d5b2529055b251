# The memory operand: which of its bytes can be reached, and what a byte that cannot be reached means.

cdef bint canonical(Cpu *cpu, uint64_t address) noexcept nogil:
    # Outside 64-bit mode every address is.
    cdef int bits = 57 if cpu.la57 else 48
    return not cpu.long_mode or <int64_t>(address << (64 - bits)) >> (64 - bits) == <int64_t>address


cdef int check_buffer(const Operand *op, size_t size, bint write, Outcome *out) noexcept nogil:
    # A plain buffer has no pages: one that ends too early or cannot be written is misuse, not a fault.
    if op.regions == NULL:
        if op.length < size:
            return leave(out, SHORT, size)
        if write and not op.writable:
            return leave(out, READ_ONLY, size)
    return DONE


cdef bint reach(Cpu *cpu, Operand *op, size_t size, bint write) noexcept nogil:
    # Whether the operand's first `size` bytes lie in one piece, all of them usable; `op.bytes` is then byte 0.
    cdef size_t i
    cdef const Region *region
    if not canonical(cpu, op.address + size - 1):
        return False
    if op.regions == NULL:
        return op.length >= size and (op.writable or not write)
    for i in range(op.count):
        region = &op.regions[i]
        if region.begin <= op.address and op.address + size - 1 <= region.last and op.address + size > op.address:
            if write and not region.writable:
                return False
            op.bytes = region.data + (op.address - region.begin)
            return True
    return False


cdef int64_t missing(Operand *op, uint64_t offset, size_t size, bint write, bint *present) noexcept nogil:
    # The first of `size` bytes from `offset` on that cannot be reached, or NOWHERE; `present`: it is there, but not
    # to be written. A plain buffer has no pages.
    cdef uint64_t at = op.address + offset
    cdef uint64_t left = size
    cdef const Region *region
    cdef size_t i
    present[0] = False
    if op.regions == NULL:
        return NOWHERE
    while left:
        for i in range(op.count):
            region = &op.regions[i]
            if region.begin <= at <= region.last:
                break
        else:
            return at - op.address
        if write and not region.writable:
            present[0] = True
            return at - op.address
        if region.last - at >= left - 1:
            return NOWHERE
        left -= region.last - at + 1
        at = region.last + 1
    return NOWHERE


cdef int page_fault(Cpu *cpu, Outcome *out, int64_t offset, bint write, bint present) noexcept nogil:
    fault(out, PF, R_WRITE if present else R_PAGE, offset, 0)
    out.error_code = (1 if present else 0) | (2 if write else 0) | (4 if cpu.cpl == 3 else 0)
    return FAULT


cdef int probe(Cpu *cpu, Operand *op, uint64_t offset, size_t size, bint write, Outcome *out) noexcept nogil:
    # #GP or #SS for bytes that no address reaches, #PF for the first that is not there.
    cdef bint present
    cdef int64_t at
    if not (canonical(cpu, op.address + offset) and canonical(cpu, op.address + offset + size - 1)):
        return fault(out, SS if op.stack else GP, R_CANONICAL, offset, op.address + offset)
    at = missing(op, offset, size, write, &present)
    if at != NOWHERE:
        return page_fault(cpu, out, at, write, present)
    return DONE


cdef void gather(Operand *op, size_t size, uint8_t *to) noexcept nogil:
    # What is present of the operand's first bytes, in one piece; zero elsewhere.
    cdef size_t done = 0
    cdef size_t some
    cdef const Region *region
    cdef size_t i
    cdef uint64_t at
    if op.regions == NULL:
        memcpy(to, op.bytes, size)
        return
    memset(to, 0, size)
    while done < size:
        at = op.address + done
        some = 1
        for i in range(op.count):
            region = &op.regions[i]
            if region.begin <= at <= region.last:
                some = min(size - done, region.last - at + 1)
                memcpy(to + done, region.data + (at - region.begin), some)
                break
        done += some


cdef void scatter(Operand *op, size_t size, const uint8_t *from_) noexcept nogil:
    # The way back, into what can be written.
    cdef size_t done = 0
    cdef size_t some
    cdef const Region *region
    cdef size_t i
    cdef uint64_t at
    if op.regions == NULL:
        memcpy(op.bytes, from_, size)
        return
    while done < size:
        at = op.address + done
        some = 1
        for i in range(op.count):
            region = &op.regions[i]
            if region.begin <= at <= region.last:
                some = min(size - done, region.last - at + 1)
                if region.writable:
                    memcpy(region.data + (at - region.begin), from_ + done, some)
                break
        done += some


cdef int check_alignment(Cpu *cpu, Operand *op, uint64_t alignment, bint align_check, Outcome *out) noexcept nogil:
    if op.address & (alignment - 1) == 0:
        return DONE
    if cpu.align and cpu.cpl == 3 and align_check and op.address & 3:
        return fault(out, AC, R_ALIGN, 0, alignment)
    return fault(out, GP, R_ALIGN, 0, alignment)


cdef int check_address(Cpu *cpu, Operand *op, uint64_t alignment, bint align_check, bint align_first,
                       Outcome *out) noexcept nogil:
    # A non-canonical and a misaligned address both beat #PF; which of them beats the other differs (measured).
    if not cpu.long_mode:
        op.address = <uint32_t>op.address
    if align_first and check_alignment(cpu, op, alignment, align_check, out) != DONE:
        return out.kind
    if not canonical(cpu, op.address):
        return fault(out, SS if op.stack else GP, R_CANONICAL, 0, op.address)
    return check_alignment(cpu, op, alignment, align_check, out)


cdef enum:
    # basic exit reasons (SDM3D appendix C)
    EXIT_CPUID = 10
    EXIT_WRMSR = 32
    EXIT_XSETBV = 55
    EXIT_XSAVES = 63
    EXIT_XRSTORS = 64


cdef int prologue(Cpu *cpu, Operand *op, int insn, uint64_t mask, Outcome *out) noexcept nogil:
    # What all instructions of the XSAVE family check before they look at memory (SDM1 13.7-13.12).
    cdef uint32_t needed = 0
    cdef bint privileged = insn == XSAVES or insn == XRSTORS
    if insn == XSAVEOPT:
        needed = HAS_XSAVEOPT
    elif insn == XSAVEC:
        needed = HAS_XSAVEC
    elif privileged:
        needed = HAS_XSAVES
    if cpu.features & needed != needed:
        return fault(out, UD, R_CPUID, NOWHERE, needed)
    if not cpu.osxsave:
        return fault(out, UD, R_OSXSAVE, NOWHERE, 0)
    if privileged and cpu.nonroot and not cpu.vmx_xsaves:
        return fault(out, UD, R_DISABLED, NOWHERE, 0)
    if cpu.ts:
        return fault(out, NM, R_TS, NOWHERE, 0)
    if privileged:
        if cpu.cpl:
            return fault(out, GP, R_CPL, NOWHERE, cpu.cpl)
        if cpu.nonroot and mask & cpu.xss & cpu.xss_exiting:
            return leave(out, EXIT, EXIT_XSAVES if insn == XSAVES else EXIT_XRSTORS)
    return check_address(cpu, op, ALIGNMENT, cpu.align_xsave, cpu.align_first, out)
