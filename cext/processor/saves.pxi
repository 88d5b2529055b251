# XSAVE, XSAVEOPT, XSAVEC, XSAVES (SDM1 13.7, 13.9-13.11) and FXSAVE.

cdef void store_pointers(Cpu *cpu, uint8_t *out, bint rexw) noexcept nogil:
    # FOP, FIP and FDP of an x87 image whose 24 bytes are those of the register file.
    if cpu.pointers != POINTERS_ALWAYS and not pending_exception(cpu):
        memset(out + FOP_OFFSET, 0, X87_LOW_END - FOP_OFFSET)
        return
    if rexw and cpu.long_mode:
        return
    store_le32(out + FCS_OFFSET, cpu.fcs)
    store_le32(out + FDS_OFFSET, cpu.fds)


cdef void store_x87(Cpu *cpu, uint8_t *out, bint rexw) noexcept nogil:
    if cpu.pointers == POINTERS_SKIP and not pending_exception(cpu):
        move_bytes(cpu.area, out, 0, FOP_OFFSET)
    else:
        move_bytes(cpu.area, out, 0, X87_LOW_END)
        store_pointers(cpu, out, rexw)
    move_bytes(cpu.area, out, X87_HIGH, X87_HIGH_END)


cdef inline uint32_t xmm_end(Cpu *cpu) noexcept nogil:
    return XMM_END if cpu.long_mode else XMM_HALF


cdef uint32_t store_width(Cpu *cpu, int i) noexcept nogil:
    # Bytes of component i >= 2 that a save writes in this mode.
    if cpu.branches >> i & 1:
        return min(cpu.stored[i], records_end(cpu, i))
    return cpu.stored[i] if cpu.long_mode else cpu.narrow[i]


cdef void store_state(Cpu *cpu, Path *path, uint8_t *out, uint64_t saved, uint64_t disabled, bint mxcsr,
                      bint rexw) noexcept nogil:
    # All of `saved`, whose bytes are all there. What XFD disables is saved as if it were initial.
    cdef uint64_t live = saved & ~disabled & ~cpu.branches
    cdef uint64_t rest
    cdef int i
    if saved & LEGACY_BITS == LEGACY_BITS and cpu.long_mode and cpu.pointers != POINTERS_SKIP:
        if path.store_runs.live != live:
            list_runs(&path.stores, live, &path.store_runs)
        move_runs(&path.store_runs, cpu.area, out)
        store_pointers(cpu, out, rexw)
    else:
        live &= ~<uint64_t>LEGACY_BITS
        if saved & BIT_X87:
            store_x87(cpu, out, rexw)
        if saved & BIT_SSE:
            move_bytes(cpu.area, out, XMM_OFFSET, xmm_end(cpu))
        if mxcsr:
            move_bytes(cpu.area, out, MXCSR_OFFSET, X87_HIGH)
        if path.store_runs.live != live:
            list_runs(&path.stores, live, &path.store_runs)
        move_runs(&path.store_runs, cpu.area, out)
    rest = saved & (disabled | cpu.branches)
    i = 0
    while rest:
        if rest & 1:
            if disabled >> i & 1:
                write_initial_bytes(i, out + path.shape.offset[i], 0, store_width(cpu, i))
            else:
                move_bytes(component_at(cpu, i), out + path.shape.offset[i], 0, store_width(cpu, i))
        rest >>= 1
        i += 1


cdef bint store_piece(Operand *op, const uint8_t *image, uint32_t begin, uint32_t end, uint8_t *out, bint dry,
                      int64_t *at, bint *present) noexcept nogil:
    # Bytes [begin, end) of the area, as far as they are there; True if all were.
    if end <= begin:
        return True
    at[0] = missing(op, begin, end - begin, True, present)
    if not dry:
        move_bytes(image, out, begin, end if at[0] == NOWHERE else <uint32_t>at[0])
    return at[0] == NOWHERE


cdef bint store_pieces(Cpu *cpu, Path *path, Operand *op, const uint8_t *image, uint64_t saved, bint mxcsr,
                       uint8_t *out, bint dry, int64_t *at, bint *present) noexcept nogil:
    # Of `image`, the area as it should become, what a save writes, in its order, until a byte is missing.
    cdef uint64_t rest = saved & ~<uint64_t>LEGACY_BITS
    cdef int i = 0
    cdef uint32_t offset
    cdef uint32_t low = X87_LOW_END
    if cpu.pointers == POINTERS_SKIP and not pending_exception(cpu):
        low = FOP_OFFSET
    if saved & BIT_X87 and not store_piece(op, image, 0, low, out, dry, at, present):
        return False
    if mxcsr and not store_piece(op, image, MXCSR_OFFSET, X87_HIGH, out, dry, at, present):
        return False
    if saved & BIT_X87 and not store_piece(op, image, X87_HIGH, X87_HIGH_END, out, dry, at, present):
        return False
    if saved & BIT_SSE and not store_piece(op, image, XMM_OFFSET, xmm_end(cpu), out, dry, at, present):
        return False
    while rest:
        if rest & 1:
            offset = path.shape.offset[i]
            if not store_piece(op, image, offset, offset + store_width(cpu, i), out, dry, at, present):
                return False
        rest >>= 1
        i += 1
    return True


cdef int probe_save(Cpu *cpu, Operand *op, uint64_t rfbm, bint compacted, uint32_t size, Outcome *out) noexcept nogil:
    # Where a save looks before it writes, in its order.
    cdef int i
    cdef int32_t each
    cdef int status
    for i in range(4):
        each = cpu.save_probes[i]
        if each == PROBE_END:
            break
        status = DONE
        if each == PROBE_LAST:
            status = probe(cpu, op, size - 1, 1, True, out)
        elif each != PROBE_LEGACY:
            status = probe(cpu, op, each, 1, True, out)
        elif cpu.legacy_always or rfbm & BIT_X87:
            status = probe(cpu, op, 0, 1, True, out)
        elif rfbm & BIT_SSE or (rfbm & BIT_AVX and not compacted):
            status = probe(cpu, op, MXCSR_OFFSET, 1, True, out)
        if status != DONE:
            return status
    # Wherever the header's pages begin.
    return probe(cpu, op, HEADER_OFFSET, 16 if compacted else 8, True, out)


cdef int save(Cpu *cpu, Operand *op, int insn, uint64_t mask, bint rexw, Outcome *out) noexcept nogil:
    cdef bint compacted = insn == XSAVEC or insn == XSAVES
    cdef uint64_t rfbm, disabled, used, saved, header
    cdef uint32_t size
    cdef bint mxcsr
    cdef bint present = False
    cdef int64_t at = NOWHERE
    cdef Path *path
    cdef uint8_t *image
    if prologue(cpu, op, insn, mask, out) != DONE:
        return out.kind
    rfbm = mask & (cpu.xcr0 | cpu.xss if insn == XSAVES else cpu.xcr0)
    path = find_path(cpu, rfbm, compacted)
    if path == NULL:
        return leave(out, UNPLACED, rfbm)
    disabled = cpu.xcr0 & cpu.xfd
    used = xinuse(cpu) & ~disabled
    header = rfbm & used
    saved = rfbm
    if insn != XSAVE:
        saved = header
        if insn == XSAVEOPT and remembered(cpu, op.address, 0):
            saved &= xmodified(cpu) | (0 if cpu.skips_tilecfg else cpu.tilecfg)
        elif insn == XSAVES and remembered(cpu, op.address, rfbm | FORMAT_BIT):
            saved &= xmodified(cpu) | (0 if cpu.skips_tilecfg else cpu.tilecfg)
    if compacted:
        if rfbm & BIT_SSE and load_le32(cpu.area + MXCSR_OFFSET) != MXCSR_INIT:
            header |= BIT_SSE
            saved |= BIT_SSE
        mxcsr = saved & BIT_SSE != 0
    else:
        mxcsr = rfbm & (BIT_SSE | BIT_AVX) != 0
    size = path.shape.size
    if cpu.before_disabled and disabled & rfbm and (insn == XSAVEOPT or insn == XSAVEC):
        size = end_of(&path.shape, rfbm, disabled)
    if reach(cpu, op, size, True):
        store_state(cpu, path, op.bytes, saved, disabled, mxcsr, rexw)
        store_header(op.bytes, rfbm, header, compacted)
    else:
        if check_buffer(op, size, True, out) != DONE or probe_save(cpu, op, rfbm, compacted, size, out) != DONE:
            return out.kind
        # Only a page between those that were probed can be missing now; it matters if something goes there.
        image = cpu.scratch + cpu.room
        gather(op, size, cpu.scratch)
        memcpy(image, cpu.scratch, size)
        store_state(cpu, path, image, saved, disabled, mxcsr, rexw)
        if cpu.atomic and not store_pieces(cpu, path, op, image, saved, mxcsr, cpu.scratch, True, &at, &present):
            return page_fault(cpu, out, at, True, present)
        if not store_pieces(cpu, path, op, image, saved, mxcsr, cpu.scratch, False, &at, &present):
            scatter(op, size, cpu.scratch)
            return page_fault(cpu, out, at, True, present)
        store_header(cpu.scratch, rfbm, header, compacted)
        scatter(op, size, cpu.scratch)
    if insn == XSAVES:
        if rfbm & cpu.trace:        # SDM1 13.5.6: TraceEn is cleared
            store_le64(trace_control(cpu), load_le64(trace_control(cpu)) & ~TRACE_ENABLED)
        if rfbm & cpu.interrupts:   # SDM1 13.5.11: UINV is cleared
            clear_vector(cpu)
    return leave(out, DONE, saved)


cdef void store_header(uint8_t *area, uint64_t rfbm, uint64_t header, bint compacted) noexcept nogil:
    if compacted:
        store_le64(area + HEADER_OFFSET, header)
        store_le64(area + XCOMP_OFFSET, rfbm | FORMAT_BIT)
    else:
        store_le64(area + HEADER_OFFSET, (load_le64(area + HEADER_OFFSET) & ~rfbm) | header)


# --- FXSAVE and FXRSTOR (SDM2) ------------------------------------------------------------------------------

cdef int fx_prologue(Cpu *cpu, Operand *op, bint write, Outcome *out) noexcept nogil:
    if cpu.ts or cpu.em:
        return fault(out, NM, R_TS if cpu.ts else R_EM, NOWHERE, 0)
    if check_address(cpu, op, 16, cpu.align_fxsave, False, out) != DONE:
        return out.kind
    if reach(cpu, op, LEGACY_SIZE, write):
        return DONE
    if check_buffer(op, LEGACY_SIZE, write, out) != DONE:
        return out.kind
    # No header here: the last byte, then the first (measured).
    if probe(cpu, op, LEGACY_SIZE - 1, 1, write, out) != DONE or probe(cpu, op, 0, 1, write, out) != DONE:
        return out.kind
    return probe(cpu, op, 0, LEGACY_SIZE, write, out)


cdef int fxsave(Cpu *cpu, Operand *op, bint rexw, Outcome *out) noexcept nogil:
    cdef uint8_t *area
    cdef bint whole
    if fx_prologue(cpu, op, True, out) != DONE:
        return out.kind
    whole = reach(cpu, op, LEGACY_SIZE, True)
    area = op.bytes
    if not whole:
        area = cpu.scratch
        gather(op, LEGACY_SIZE, area)
    store_x87(cpu, area, rexw)
    if cpu.osfxsr:
        move_bytes(cpu.area, area, MXCSR_OFFSET, X87_HIGH)
        move_bytes(cpu.area, area, XMM_OFFSET, xmm_end(cpu))
    if not whole:
        scatter(op, LEGACY_SIZE, area)
    return leave(out, DONE, 0)
