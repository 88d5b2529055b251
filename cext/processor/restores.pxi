# XRSTOR, XRSTORS (SDM1 13.8, 13.12) and FXRSTOR.

cdef enum Stage:
    STAGE_END, STAGE_PF_HEADER, STAGE_GP_XCOMP, STAGE_PF_PROBES, STAGE_GP_HEADER, STAGE_NM_XFD, STAGE_GP_MXCSR
    STAGE_PF_INTERIOR

cdef enum:
    PROBE_END = -1
    PROBE_LAST = -2
    PROBE_LEGACY = -3


# What one restore is about to do.
cdef struct Restore:
    bint compacted
    bint supervisor
    bint rexw
    bint mxcsr              # MXCSR is loaded
    uint64_t allowed
    uint64_t rfbm
    uint64_t xstate_bv
    uint64_t xcomp_bv
    uint64_t slots
    uint64_t load
    uint64_t init
    uint32_t size           # bytes that may be touched
    Path *path


cdef inline uint64_t sign_extended(uint64_t value, int bits) noexcept nogil:
    return value if bits >= 64 else <uint64_t>(<int64_t>(value << (64 - bits)) >> (64 - bits))


# --- the header ---------------------------------------------------------------------------------------------

cdef int header_fault(const uint8_t *area, const Restore *r, Outcome *out) noexcept nogil:
    # SDM1 13.8.1, 13.8.2, 13.12; the mask of the instruction plays no part.
    cdef uint64_t odd
    cdef int i, end
    if r.compacted:
        if not r.xcomp_bv >> 63:
            return fault(out, GP, R_FORMAT, XCOMP_OFFSET + 7, r.xcomp_bv)
        odd = r.slots & ~r.allowed
        if odd:
            return fault(out, GP, R_XCOMP, XCOMP_OFFSET + lowest(odd) // 8, odd)
        odd = r.xstate_bv & ~r.slots    # bit 63 too (measured)
        end = HEADER_END
    else:
        odd = r.xstate_bv & ~r.allowed
        if odd:
            return fault(out, GP, R_XSTATE, HEADER_OFFSET + lowest(odd) // 8, odd)
        if r.xcomp_bv:
            return fault(out, GP, R_COMPACT, XCOMP_OFFSET + lowest(r.xcomp_bv) // 8, r.xcomp_bv)
        end = RESERVED_OFFSET + RESERVED_CHECKED
    if odd:
        return fault(out, GP, R_XSTATE, HEADER_OFFSET + lowest(odd) // 8, odd)
    for i in range(RESERVED_OFFSET, end):
        if area[i]:
            return fault(out, GP, R_RESERVED, i, area[i])
    return DONE


cdef inline bint header_is_clean(const uint8_t *area, const Restore *r) noexcept nogil:
    cdef uint64_t sum = load_le64(area + RESERVED_OFFSET)
    if not r.compacted:
        return (sum | r.xcomp_bv | (r.xstate_bv & ~r.allowed)) == 0
    sum |= (load_le64(area + RESERVED_OFFSET + 8) | load_le64(area + RESERVED_OFFSET + 16)
            | load_le64(area + RESERVED_OFFSET + 24) | load_le64(area + RESERVED_OFFSET + 32)
            | load_le64(area + RESERVED_OFFSET + 40))
    return (sum | (r.slots & ~r.allowed) | (r.xstate_bv & ~r.slots)) == 0 and r.xcomp_bv >> 63


cdef void read_header(Cpu *cpu, const uint8_t *area, Restore *r) noexcept nogil:
    r.xstate_bv = load_le64(area + HEADER_OFFSET)
    r.xcomp_bv = load_le64(area + XCOMP_OFFSET)
    r.compacted = r.supervisor or (r.xcomp_bv >> 63 and cpu.features & HAS_XSAVEC)
    r.slots = r.xcomp_bv & ~FORMAT_BIT


cdef int plan_restore(Cpu *cpu, Restore *r, Outcome *out) noexcept nogil:
    # What the header and the mask ask for; bits that the header should not have are left out.
    cdef uint64_t touched
    r.load = r.rfbm & r.xstate_bv
    r.init = r.rfbm & ~r.xstate_bv
    if r.compacted:
        r.load &= r.slots
        r.path = find_path(cpu, r.slots & r.allowed, True)
        r.mxcsr = r.load & BIT_SSE != 0
    else:
        r.path = find_path(cpu, r.rfbm, False)
        r.mxcsr = r.rfbm & (BIT_SSE | BIT_AVX) != 0
    if r.path == NULL:
        return leave(out, UNPLACED, r.rfbm)
    touched = r.path.shape.mask
    if r.compacted:
        touched &= r.rfbm & r.slots if cpu.extent_xcomp else r.load
    r.size = r.path.shape.size if touched == r.path.shape.mask else end_of(&r.path.shape, touched, 0)
    return DONE


# --- values that may not be loaded --------------------------------------------------------------------------

cdef int value_fault(Cpu *cpu, const Check *check, uint64_t value, bint loading, int64_t offset,
                     Outcome *out) noexcept nogil:
    # What WRMSR of this value would answer (SDM1 13.12).
    if loading:
        value &= ~check.ignored
    if value & check.reserved:
        return fault(out, GP, R_MSR_RESERVED, offset + lowest(value & check.reserved) // 8 if loading else NOWHERE,
                     check.number)
    if check.exclusive and value & check.exclusive == check.exclusive:
        return fault(out, GP, R_MSR_EXCLUSIVE, offset + 1 if loading else NOWHERE, check.number)
    if check.canonical and sign_extended(value, cpu.linear_bits) != value:
        return fault(out, GP, R_MSR_CANONICAL, offset + cpu.linear_bits // 8 if loading else NOWHERE, check.number)
    if check.depth and (value == 0 or value > 32 or value % 8):
        return fault(out, GP, R_MSR_DEPTH, offset if loading else NOWHERE, check.number)
    return DONE


cdef int values_fault(Cpu *cpu, const uint8_t *area, const Restore *r, Outcome *out) noexcept nogil:
    # Supervisor components: of PT and UINTR what is in the registers counts too.
    cdef const Check *check
    cdef uint64_t at
    cdef int i, number
    if r.rfbm & cpu.trace and load_le64(trace_control(cpu)) & TRACE_ENABLED:
        return fault(out, GP, R_TRACE, HEADER_OFFSET, cpu.trace)
    if r.load & cpu.trace:
        number = lowest(cpu.trace)
        at = r.path.shape.offset[number]
        for i in range(<int>cpu.unit[number], <int>cpu.stored[number]):
            if area[at + i]:
                return fault(out, GP, R_TRACE_RESERVED, at + i, area[at + i])
    if r.load & cpu.interrupts and load_le64(notification(cpu)) & NOTIFICATION_VECTOR:
        return fault(out, GP, R_UINV, r.path.shape.offset[lowest(cpu.interrupts)] + cpu.notification + 4, 0)
    for i in range(cpu.check_count):
        check = &cpu.checks[i]
        if r.load >> check.component & 1:
            at = r.path.shape.offset[check.component] + check.at
            if value_fault(cpu, check, load_le64(area + at), True, at, out) != DONE:
                return out.kind
    return DONE


# --- doing it -----------------------------------------------------------------------------------------------

cdef void fix_x87(Cpu *cpu, bint rexw, const uint8_t *before) noexcept nogil:
    # The register file holds an image's x87 bytes: what the registers make of them. `before`: FOP, FIP, FDP that were.
    cdef uint8_t *area = cpu.area
    cdef uint16_t fcw = (load_le16(area) & FCW_KEPT) | FCW_SET
    cdef uint16_t fsw = load_le16(area + 2) & <uint16_t>~FSW_ES_B
    cdef int i
    if fsw & ~fcw & FSW_FLAGS:
        fsw |= FSW_ES_B
    store_le16(area, fcw)
    store_le16(area + 2, fsw)
    area[5] = 0
    store_le16(area + FOP_OFFSET, load_le16(area + FOP_OFFSET) & FOP_KEPT)
    for i in range(8):
        store_le16(area + X87_HIGH + ST_STEP * i + 10, 0)
        store_le32(area + X87_HIGH + ST_STEP * i + 12, 0)
    if cpu.pointers != POINTERS_ALWAYS and not fsw & 0x80:
        if cpu.pointers == POINTERS_SKIP:
            memcpy(area + FOP_OFFSET, before, X87_LOW_END - FOP_OFFSET)
        else:
            memset(area + FOP_OFFSET, 0, X87_LOW_END - FOP_OFFSET)
            cpu.fcs = 0
            cpu.fds = 0
    elif rexw and cpu.long_mode:
        store_le64(area + FIP_OFFSET, sign_extended(load_le64(area + FIP_OFFSET), cpu.fip_bits))
        store_le64(area + FDP_OFFSET, sign_extended(load_le64(area + FDP_OFFSET), cpu.fdp_bits))
        cpu.fcs = 0
        cpu.fds = 0
    else:
        cpu.fcs = load_le16(area + FCS_OFFSET) if cpu.selectors else 0
        cpu.fds = load_le16(area + FDS_OFFSET) if cpu.selectors else 0
        store_le32(area + FCS_OFFSET, 0)
        store_le32(area + FDS_OFFSET, 0)


cdef void load_x87(Cpu *cpu, const uint8_t *from_, bint rexw) noexcept nogil:
    cdef uint8_t before[24]
    memcpy(before, cpu.area + FOP_OFFSET, X87_LOW_END - FOP_OFFSET)
    move_bytes(from_, cpu.area, 0, X87_LOW_END)
    move_bytes(from_, cpu.area, X87_HIGH, X87_HIGH_END)
    fix_x87(cpu, rexw, before)


cdef void init_component(Cpu *cpu, int i) noexcept nogil:
    if i == 0:
        memset(cpu.area, 0, X87_LOW_END)
        store_le16(cpu.area, FCW_INIT)
        memset(cpu.area + X87_HIGH, 0, X87_HIGH_END - X87_HIGH)
        cpu.fcs = 0
        cpu.fds = 0
    elif i == 1:
        memset(cpu.area + XMM_OFFSET, 0, xmm_end(cpu) - XMM_OFFSET)
    elif cpu.branches >> i & 1:     # LBR_DEPTH stays
        write_initial_bytes(i, component_at(cpu, i), 0, cpu.depth)
        write_initial_bytes(i, component_at(cpu, i), cpu.depth + 8, cpu.stored[i])
    else:
        write_initial_bytes(i, component_at(cpu, i), 0, cpu.load_width[i] if cpu.long_mode else cpu.load_narrow[i])


cdef void init_components(Cpu *cpu, uint64_t bits) noexcept nogil:
    # Initial over initial writes nothing.
    cdef uint64_t rest = bits & ~cpu.initial
    cdef int i = 0
    if bits & BIT_X87 and cpu.pointers != POINTERS_ALWAYS:      # which alone are no use of x87
        memset(cpu.area + FOP_OFFSET, 0, X87_LOW_END - FOP_OFFSET)
        cpu.fcs = 0
        cpu.fds = 0
    while rest:
        if rest & 1:
            init_component(cpu, i)
        rest >>= 1
        i += 1


cdef void load_branches(Cpu *cpu, int i, const uint8_t *image, uint64_t *kept) noexcept nogil:
    # SDM1 13.5.12: an equal DEPTH restores the records below it; another one only CTL and LER, and all records are 0.
    cdef uint8_t *at = component_at(cpu, i)
    move_bytes(image, at, 0, cpu.depth)
    move_bytes(image, at, cpu.depth + 8, cpu.records)
    if load_le64(image + cpu.depth) == load_le64(at + cpu.depth):
        move_bytes(image, at, cpu.records, min(cpu.stored[i], records_end(cpu, i)))
    else:
        write_initial_bytes(i, at, cpu.records, cpu.stored[i])
        kept[0] |= <uint64_t>1 << i


cdef void load_tilecfg(Cpu *cpu, int i, const uint8_t *image) noexcept nogil:
    # An image that LDTILECFG would refuse is no fault: the configuration becomes initial (SDM1 13.5.14).
    if config_legal_for_restore(image, &cpu.palettes, cpu.xcr0):
        move_bytes(image, component_at(cpu, i), 0, cpu.stored[i])
    else:
        write_initial_bytes(i, component_at(cpu, i), 0, cpu.stored[i])


cdef void restore_state(Cpu *cpu, const uint8_t *area, Restore *r) noexcept nogil:
    # Everything is there and legal.
    cdef uint64_t special = cpu.tilecfg | cpu.branches
    cdef uint64_t live = r.load & ~special
    cdef uint64_t kept = 0
    cdef uint64_t rest
    cdef Path *path = r.path
    cdef int i
    if r.init & (~cpu.initial | BIT_X87):
        init_components(cpu, r.init)
    if r.load & LEGACY_BITS == LEGACY_BITS and cpu.long_mode and cpu.pointers != POINTERS_SKIP:
        if path.load_runs.live != live:
            list_runs(&path.loads, live, &path.load_runs)
        move_runs(&path.load_runs, area, cpu.area)
        fix_x87(cpu, r.rexw, NULL)
        store_le32(cpu.area + MXCSR_MASK_OFFSET, cpu.ruler.mxcsr_mask)
    else:
        if r.mxcsr:
            move_bytes(area, cpu.area, MXCSR_OFFSET, MXCSR_MASK_OFFSET)
        if r.load & BIT_X87:
            load_x87(cpu, area, r.rexw)
        if r.load & BIT_SSE:
            move_bytes(area, cpu.area, XMM_OFFSET, xmm_end(cpu))
        live &= ~<uint64_t>LEGACY_BITS
        if path.load_runs.live != live:
            list_runs(&path.loads, live, &path.load_runs)
        move_runs(&path.load_runs, area, cpu.area)
    if r.compacted and r.init & BIT_SSE:
        store_le32(cpu.area + MXCSR_OFFSET, MXCSR_INIT)
    rest = r.load & special
    if rest:
        for i in range(2, COMPONENT_LIMIT):
            if rest >> i & 1:
                if cpu.tilecfg >> i & 1:
                    load_tilecfg(cpu, i, area + path.shape.offset[i])
                else:
                    load_branches(cpu, i, area + path.shape.offset[i], &kept)
    if r.load & cpu.tiledata:
        cpu.tiles_loaded = False
    track_restore(cpu, r.load & ~kept, r.init)


cdef bint load_piece(Operand *op, const uint8_t *area, uint32_t offset, uint8_t *at, uint32_t width, uint32_t unit,
                     int64_t *missed, bint *present) noexcept nogil:
    # The registers of one component, until one of them is not all there; False then.
    cdef uint32_t whole = width
    missed[0] = missing(op, offset, width, False, present) if width else NOWHERE
    if missed[0] != NOWHERE:
        whole = (<uint32_t>missed[0] - offset) // unit * unit
    move_bytes(area + offset, at, 0, whole)
    return missed[0] == NOWHERE


cdef bint restore_pieces(Cpu *cpu, Operand *op, const uint8_t *area, Restore *r, bint dry, int64_t *missed,
                         bint *present) noexcept nogil:
    # As `restore_state`, where a page in the middle is missing: all initialisations, then one component after the
    # other up to the one that meets the page. `dry`: only whether one does.
    cdef uint64_t rest = r.load
    cdef uint64_t done = 0
    cdef uint64_t kept = 0
    cdef uint32_t width, offset
    cdef int i
    cdef bint met = False
    if not dry:
        init_components(cpu, r.init)
        if r.compacted and r.init & BIT_SSE:
            store_le32(cpu.area + MXCSR_OFFSET, MXCSR_INIT)
        if r.mxcsr:
            move_bytes(area, cpu.area, MXCSR_OFFSET, MXCSR_MASK_OFFSET)
    for i in range(COMPONENT_LIMIT):
        if not rest >> i & 1:
            continue
        done |= <uint64_t>1 << i
        if i < 2:
            offset = 0 if i == 0 else XMM_OFFSET
            width = X87_HIGH_END if i == 0 else xmm_end(cpu) - XMM_OFFSET
        else:
            offset = r.path.shape.offset[i]
            width = cpu.load_width[i] if cpu.long_mode else cpu.load_narrow[i]
            if cpu.tilecfg >> i & 1:
                width = cpu.stored[i]
        missed[0] = missing(op, offset, width, False, present) if width else NOWHERE
        met = missed[0] != NOWHERE
        if dry:
            if met:
                return False
            continue
        if i == 0:
            if not met:
                load_x87(cpu, area, r.rexw)
        elif i == 1:
            load_piece(op, area, offset, cpu.area + XMM_OFFSET, width, 16, missed, present)
        elif cpu.tilecfg >> i & 1:
            if not met:
                load_tilecfg(cpu, i, area + offset)
        elif cpu.branches >> i & 1:
            if not met:
                load_branches(cpu, i, area + offset, &kept)
        elif cpu.tiledata >> i & 1 and met:
            write_initial_bytes(i, component_at(cpu, i), 0, cpu.stored[i])
        else:
            load_piece(op, area, offset, component_at(cpu, i), width, cpu.unit[i], missed, present)
        if met:
            break
    if dry:
        return True
    if met:
        spill_tiles(cpu, r)
        if done & cpu.interrupts:   # SDM1 13.12: a fault after it was loaded
            clear_vector(cpu)
    if done & cpu.tiledata:
        cpu.tiles_loaded = False
    track_restore(cpu, done & ~kept, r.init)
    return not met


cdef void spill_tiles(Cpu *cpu, const Restore *r) noexcept nogil:
    # A fault after TILECFG was initialised with TILEDATA still to come: tiles that an instruction of their own had
    # filled are lost, those of an XRSTOR are not (measured).
    if r.init & cpu.tilecfg and r.load & cpu.tiledata and cpu.tiles_loaded:
        write_initial_bytes(lowest(cpu.tiledata), component_at(cpu, lowest(cpu.tiledata)), 0,
                            cpu.stored[lowest(cpu.tiledata)])


# --- the instructions ---------------------------------------------------------------------------------------

cdef int probe_restore(Cpu *cpu, Operand *op, const Restore *r, bint header, Outcome *out) noexcept nogil:
    # The probes that come before the last byte's (`header`), or that one and those behind it.
    cdef uint64_t wanted = r.rfbm & r.slots if r.compacted else r.rfbm
    cdef bint behind = False
    cdef int32_t each
    cdef int i
    cdef int status
    for i in range(4):
        each = cpu.restore_probes[i]
        if each == PROBE_END:
            break
        if each == PROBE_LAST:
            behind = True
        if behind == header:
            continue
        status = DONE
        if each == PROBE_LAST:
            status = probe(cpu, op, r.size - 1, 1, False, out)
        elif each != PROBE_LEGACY:
            status = probe(cpu, op, each, 1, False, out)
        elif cpu.legacy_always or wanted & BIT_X87:
            status = probe(cpu, op, 0, 1, False, out)
        elif wanted & BIT_SSE or (wanted & BIT_AVX and not r.compacted):
            status = probe(cpu, op, MXCSR_OFFSET, 1, False, out)
        if status != DONE:
            return status
    return probe(cpu, op, HEADER_OFFSET, HEADER_END - HEADER_OFFSET, False, out) if header else DONE


cdef int refuse_mxcsr(Cpu *cpu, const uint8_t *area, Restore *r, Outcome *out) noexcept nogil:
    # #GP; in the compacted format some CPUs have by then done all that stands before it (measured).
    cdef uint32_t odd = load_le32(area + MXCSR_OFFSET) & ~cpu.ruler.mxcsr_mask
    if r.compacted and not cpu.atomic:
        init_components(cpu, r.init)
        if r.load & BIT_X87:
            load_x87(cpu, area, r.rexw)
        move_bytes(area, cpu.area, XMM_OFFSET, xmm_end(cpu))
        spill_tiles(cpu, r)
        track_restore(cpu, r.load & LEGACY_BITS, r.init)
    return fault(out, GP, R_MXCSR, MXCSR_OFFSET + lowest(odd) // 8, odd)


cdef int restore_slowly(Cpu *cpu, Operand *op, Restore *r, Outcome *out) noexcept nogil:
    # Something is wrong or out of reach: stage by stage in this CPU's order.
    cdef uint64_t disabled = cpu.xcr0 & cpu.xfd
    cdef uint8_t *area = op.bytes
    cdef bint gathered = op.regions != NULL
    cdef bint planned = False
    cdef bint present = False
    cdef int64_t missed = NOWHERE
    cdef uint64_t odd
    cdef int i, stage
    if check_buffer(op, HEADER_END, False, out) != DONE:
        return out.kind
    if gathered:
        area = cpu.scratch
        gather(op, HEADER_END, area)
    read_header(cpu, area, r)
    for i in range(12):
        stage = cpu.stages[i]
        if stage == STAGE_END:
            break
        if stage == STAGE_PF_HEADER:
            if probe_restore(cpu, op, r, True, out) != DONE:
                return out.kind
            continue
        if stage == STAGE_GP_XCOMP:
            odd = r.slots & ~r.allowed
            if r.compacted and r.xcomp_bv >> 63 and odd:
                return fault(out, GP, R_XCOMP, XCOMP_OFFSET + lowest(odd) // 8, odd)
            continue
        if stage == STAGE_GP_HEADER:
            if header_fault(area, r, out) != DONE:
                return out.kind
            continue
        if not planned:
            planned = True
            if plan_restore(cpu, r, out) != DONE:
                return out.kind
            if gathered:
                gather(op, r.size, area)
        if stage == STAGE_PF_PROBES:
            if probe_restore(cpu, op, r, False, out) != DONE:
                return out.kind
        elif stage == STAGE_NM_XFD:
            if r.load & disabled:
                cpu.xfd_err = r.load & disabled
                return fault(out, NM, R_XFD, HEADER_OFFSET + lowest(r.load & disabled) // 8, r.load & disabled)
            if check_buffer(op, r.size, False, out) != DONE:
                return out.kind
        elif stage == STAGE_GP_MXCSR:
            if r.supervisor and values_fault(cpu, area, r, out) != DONE:
                return out.kind
            if r.mxcsr and load_le32(area + MXCSR_OFFSET) & ~cpu.ruler.mxcsr_mask:
                return refuse_mxcsr(cpu, area, r, out)
    if cpu.atomic and not restore_pieces(cpu, op, area, r, True, &missed, &present):
        return page_fault(cpu, out, missed, False, present)
    if restore_pieces(cpu, op, area, r, True, &missed, &present):
        restore_state(cpu, area, r)
        return DONE
    restore_pieces(cpu, op, area, r, False, &missed, &present)
    return page_fault(cpu, out, missed, False, present)


cdef int restore(Cpu *cpu, Operand *op, int insn, uint64_t mask, bint rexw, Outcome *out) noexcept nogil:
    cdef Restore r
    if prologue(cpu, op, insn, mask, out) != DONE:
        return out.kind
    r.supervisor = insn == XRSTORS
    r.rexw = rexw
    r.allowed = cpu.xcr0 | cpu.xss if r.supervisor else cpu.xcr0
    r.rfbm = r.allowed & mask
    if reach(cpu, op, HEADER_END, False):
        read_header(cpu, op.bytes, &r)
        if header_is_clean(op.bytes, &r):
            if plan_restore(cpu, &r, out) != DONE:
                return out.kind
            if (reach(cpu, op, r.size, False) and not r.load & cpu.xcr0 & cpu.xfd
                    and not (r.mxcsr and load_le32(op.bytes + MXCSR_OFFSET) & ~cpu.ruler.mxcsr_mask)
                    and not (r.supervisor and values_fault(cpu, op.bytes, &r, out) != DONE)):
                restore_state(cpu, op.bytes, &r)
                remember(cpu, op.address, r.xcomp_bv, r.rfbm)
                return leave(out, DONE, r.load)
    if restore_slowly(cpu, op, &r, out) != DONE:
        return out.kind
    remember(cpu, op.address, r.xcomp_bv, r.rfbm)
    return leave(out, DONE, r.load)


cdef int fxrstor(Cpu *cpu, Operand *op, bint rexw, Outcome *out) noexcept nogil:
    cdef uint8_t *area
    cdef uint32_t odd
    if fx_prologue(cpu, op, False, out) != DONE:
        return out.kind
    if not reach(cpu, op, LEGACY_SIZE, False):
        area = cpu.scratch
        gather(op, LEGACY_SIZE, area)
    else:
        area = op.bytes
    odd = load_le32(area + MXCSR_OFFSET) & ~cpu.ruler.mxcsr_mask
    if cpu.osfxsr and odd:
        return fault(out, GP, R_MXCSR, MXCSR_OFFSET + lowest(odd) // 8, odd)
    load_x87(cpu, area, rexw)
    if cpu.osfxsr:
        move_bytes(area, cpu.area, MXCSR_OFFSET, MXCSR_MASK_OFFSET)
        move_bytes(area, cpu.area, XMM_OFFSET, xmm_end(cpu))
    if cpu.fxrstor_forgets:
        cpu.info_valid = False
    touch(cpu, BIT_X87)
    if not cpu.osfxsr:
        return leave(out, DONE, 0)
    touch(cpu, BIT_SSE)
    if cpu.by_value:
        settle_halves(cpu)
    elif cpu.long_mode:
        cpu.high |= BIT_SSE
        cpu.modified_high |= BIT_SSE
    return leave(out, DONE, 0)
