# The state of a logical processor and what it knows about it: XINUSE, XMODIFIED, XRSTOR_INFO (SDM1 13.6).

cdef enum:
    BIT_X87 = 1
    BIT_SSE = 2
    BIT_AVX = 4
    LEGACY_BITS = 3
    FCW_INIT = 0x37F
    FCW_KEPT = 0x1F3F
    FCW_SET = 0x40
    FSW_FLAGS = 0x3F
    FSW_ES_B = 0x8080
    FOP_KEPT = 0x7FF
    FTW_OFFSET = 4
    FOP_OFFSET = 6
    FIP_OFFSET = 8
    FCS_OFFSET = 12
    FDP_OFFSET = 16
    FDS_OFFSET = 20
    ST_STEP = 16
    XMM_HALF = XMM_OFFSET + 8 * 16      # where XMM8 begins
    PATHS = 8
    NOWHERE = -1
    TRACE_ENABLED = 1       # IA32_RTIT_CTL
    RECORDS_LIMIT = 32      # branch records that the architecture has room for
    # CPUID.0DH.1:EAX
    HAS_XSAVEOPT = 1
    HAS_XSAVEC = 2
    HAS_XGETBV1 = 4
    HAS_XSAVES = 8
    # x87_ptrs
    POINTERS_ALWAYS = 0
    POINTERS_ZERO = 1
    POINTERS_SKIP = 2

cdef uint64_t FORMAT_BIT = <uint64_t>1 << 63
cdef uint64_t ALL = 0xFFFFFFFFFFFFFFFF
cdef uint64_t NO_RUNS = <uint64_t>1 << 63      # no component: runs yet to be made
cdef uint64_t NOTIFICATION_VECTOR = <uint64_t>0xFF << 32     # UINV, of IA32_UINTR_MISC
# Components that hold parts of vector registers 0-15, and the one of 16-31.
cdef uint64_t HALVED = components_of(0, 16)
cdef uint64_t UPPER = components_of(16, 32)


cdef uint64_t components_of(int begin, int end) except? 0:
    # The components beyond SSE that the table gives to vector registers of these numbers.
    cdef uint64_t found = 0
    for row in REGISTERS.values():
        if row.family == "zmm" and begin <= row.index < end:
            for part in row.parts:
                if part.component >= 2:
                    found |= <uint64_t>1 << <int>part.component
    return found


cdef void forget_paths(Cpu *cpu) noexcept nogil:
    cdef int i
    for i in range(PATHS):
        cpu.paths[i].key = ALL
    cpu.next_path = 0


cdef Path *find_path(Cpu *cpu, uint64_t mask, bint compacted) noexcept nogil:
    # How components move between the register file and an area of this format and mask; NULL where a component has
    # no standard offset.
    cdef uint64_t key = mask | (FORMAT_BIT if compacted else 0)
    cdef bint narrow = not cpu.long_mode
    cdef Path *path
    cdef int i
    path = &cpu.paths[cpu.recent[compacted]]
    if path.key == key and path.narrow == narrow:
        return path
    for i in range(PATHS):
        path = &cpu.paths[i]
        if path.key == key and path.narrow == narrow:
            cpu.recent[compacted] = i
            return path
    cpu.recent[compacted] = cpu.next_path
    path = &cpu.paths[cpu.next_path]
    cpu.next_path = (cpu.next_path + 1) % PATHS
    path.key = ALL
    path.narrow = narrow
    if lay_out(&cpu.ruler, mask, FORMAT_COMPACTED if compacted else FORMAT_STANDARD, &path.shape):
        return NULL
    if list_moves(&cpu.file, &path.shape, mask, &cpu.narrow[0] if narrow else &cpu.stored[0], &path.stores):
        return NULL
    if list_moves(&path.shape, &cpu.file, mask, &cpu.load_narrow[0] if narrow else &cpu.load_width[0], &path.loads):
        return NULL
    path.store_runs.live = NO_RUNS
    path.load_runs.live = NO_RUNS
    path.key = key
    return path


cdef inline uint8_t *component_at(Cpu *cpu, int i) noexcept nogil:
    return cpu.area + cpu.file.offset[i]


cdef inline int lowest(uint64_t bits) noexcept nogil:
    cdef int i = 0
    while i < 64 and not bits >> i & 1:
        i += 1
    return i


# Places inside supervisor components that the instructions look at beyond moving them (SDM1 13.5).

cdef inline uint8_t *trace_control(Cpu *cpu) noexcept nogil:
    return component_at(cpu, lowest(cpu.trace)) + cpu.trace_control


cdef inline uint8_t *notification(Cpu *cpu) noexcept nogil:
    return component_at(cpu, lowest(cpu.interrupts)) + cpu.notification


cdef void clear_vector(Cpu *cpu) noexcept nogil:
    store_le64(notification(cpu), load_le64(notification(cpu)) & ~NOTIFICATION_VECTOR)


cdef inline uint32_t records_end(Cpu *cpu, int i) noexcept nogil:
    # The end of the branch records that LBR_DEPTH keeps.
    cdef uint64_t depth = load_le64(component_at(cpu, i) + cpu.depth)
    return cpu.records + cpu.record * <uint32_t>min(depth, <uint64_t>RECORDS_LIMIT)


cdef inline bint pending_exception(Cpu *cpu) noexcept nogil:
    return load_le16(cpu.area + 2) & 0x80 != 0


# --- by value -----------------------------------------------------------------------------------------------

cdef bint holds_initial(Cpu *cpu, int i) noexcept nogil:
    # Whether a component's registers are in their initial configuration.
    cdef uint8_t *area = cpu.area
    if i == 0:
        if load_le16(area) != FCW_INIT or load_le16(area + 2) or area[FTW_OFFSET]:
            return False
        if cpu.pointers == POINTERS_ALWAYS and (load_le64(area + FIP_OFFSET) or load_le64(area + FDP_OFFSET)
                                                or load_le16(area + FOP_OFFSET)):
            return False
        return has_initial_bytes(0, area, X87_HIGH, X87_HIGH_END)
    if i == 1:
        return has_initial_bytes(1, area, XMM_OFFSET, XMM_END)
    if cpu.tilecfg >> i & 1:
        return component_at(cpu, i)[0] == 0
    if cpu.branches >> i & 1:       # LBR_DEPTH is not part of it
        return (has_initial_bytes(i, component_at(cpu, i), 0, cpu.depth)
                and has_initial_bytes(i, component_at(cpu, i), cpu.depth + 8, cpu.stored[i]))
    return has_initial_bytes(i, component_at(cpu, i), 0, cpu.stored[i])


cdef inline bint begins_in_use(Cpu *cpu, int i) noexcept nogil:
    # Mostly the first bytes of a component tell already; of those that are zero at first.
    if i == 0:
        return load_le64(cpu.area + X87_HIGH) != 0
    if i == 1:
        return load_le64(cpu.area + XMM_OFFSET) != 0
    return cpu.zero_first >> i & 1 and load_le64(component_at(cpu, i)) != 0


cdef uint64_t by_contents(Cpu *cpu, uint64_t among) noexcept nogil:
    # Those of `among` that are not in their initial configuration.
    cdef uint64_t found = 0
    cdef uint64_t rest = among
    cdef int i = 0
    while rest:
        if rest & 1 and (begins_in_use(cpu, i) or not holds_initial(cpu, i)):
            found |= <uint64_t>1 << i
        rest >>= 1
        i += 1
    return found


cdef bint upper_is_zero(Cpu *cpu) noexcept nogil:
    # Vector registers 8-15 in all their bits.
    cdef uint64_t rest = HALVED & cpu.ruler.known
    cdef int i = 0
    if not has_initial_bytes(1, cpu.area, XMM_HALF, XMM_END):
        return False
    while rest:
        if rest & 1 and not has_initial_bytes(i, component_at(cpu, i), cpu.narrow[i], cpu.stored[i]):
            return False
        rest >>= 1
        i += 1
    return True


# --- marks --------------------------------------------------------------------------------------------------

cdef void settle(Cpu *cpu) noexcept nogil:
    cdef uint64_t found = by_contents(cpu, cpu.unknown)
    cpu.tagged &= ~cpu.unknown
    cpu.low = (cpu.low & ~cpu.unknown) | found
    cpu.initial |= cpu.unknown & ~found
    cpu.unknown = 0


cdef uint64_t xinuse(Cpu *cpu) noexcept nogil:
    # XINUSE as the instructions of this mode see it (XFD apart).
    if cpu.unknown:
        settle(cpu)
    if cpu.low_only and not cpu.long_mode:
        return cpu.low & ~UPPER
    return cpu.low | cpu.high


cdef uint64_t xmodified(Cpu *cpu) noexcept nogil:
    if cpu.low_only and not cpu.long_mode:
        return cpu.modified_low
    return cpu.modified_low | cpu.modified_high


cdef uint64_t read_xgetbv1(Cpu *cpu) noexcept nogil:
    # SDM1 13.6: XGETBV with ECX = 1.
    cdef uint64_t found = xinuse(cpu) & ~(cpu.xcr0 & cpu.xfd)
    if load_le32(cpu.area + MXCSR_OFFSET) != MXCSR_INIT:
        found |= BIT_SSE
    return cpu.xcr0 & found


cdef void touch(Cpu *cpu, uint64_t bits) noexcept nogil:
    # An instruction wrote these components, none of which has an upper half.
    cpu.modified_low |= bits
    cpu.initial &= ~bits
    if cpu.by_value:
        cpu.unknown |= bits
    else:
        cpu.low |= bits


# Where contents decide what is in use, they do so when a restore loads them; a register that is loaded otherwise
# counts with all the width that it then has, whatever the value. Tags say so register by register: bit 0 for XMM, 1 for
# the upper half of YMM, 2 for that of ZMM.

cdef enum:
    TAG_XMM = 1
    TAG_YMM = 2
    TAG_ZMM = 4
    TAG_ZEROED = 8      # written last by an instruction that always gives zero: counts for nothing, but is merged


cdef uint64_t halves_of(Cpu *cpu) noexcept nogil:
    return (BIT_SSE | HALVED) & cpu.file.mask


cdef void tag_halves(Cpu *cpu, int begin, int end) noexcept nogil:
    # Tags of vector registers below 16 by their contents.
    cdef uint64_t wide = HALVED & cpu.ruler.known
    cdef int n, i, tag
    cdef uint32_t step
    for n in range(begin, end):
        cpu.tags[n] = 0 if has_initial_bytes(1, cpu.area + XMM_OFFSET + 16 * n, 0, 16) else TAG_XMM
        tag = TAG_YMM
        for i in range(2, COMPONENT_LIMIT):
            if wide >> i & 1:
                step = cpu.unit[i]
                if not has_initial_bytes(i, component_at(cpu, i) + step * n, 0, step):
                    cpu.tags[n] |= <uint8_t>tag
                tag <<= 1


cdef void mark_by_tags(Cpu *cpu) noexcept nogil:
    # Marks of the components that share registers 0-15.
    cdef uint64_t wide = HALVED & cpu.ruler.known
    cdef uint64_t found = 0
    cdef int n, i, tag
    cdef int all_of = 0
    for n in range(16):
        if not cpu.tags[n] & TAG_ZEROED:
            all_of |= cpu.tags[n]
    if all_of & TAG_XMM:
        found = BIT_SSE
    tag = TAG_YMM
    for i in range(2, COMPONENT_LIMIT):
        if wide >> i & 1:
            if all_of & tag:
                found |= <uint64_t>1 << i
            tag <<= 1
    cpu.low = (cpu.low & ~halves_of(cpu)) | found
    cpu.unknown &= ~halves_of(cpu)
    cpu.tagged |= halves_of(cpu)


cdef void use_tags(Cpu *cpu) noexcept nogil:
    if cpu.tagged & BIT_SSE == 0:
        tag_halves(cpu, 0, 16)
        note_dirty(cpu)
        cpu.tagged |= halves_of(cpu)


cdef void note_dirty(Cpu *cpu) noexcept nogil:
    cdef int n
    cpu.upper_dirty = False
    for n in range(16):
        if cpu.tags[n] & (TAG_YMM | TAG_ZMM) and not cpu.tags[n] & TAG_ZEROED:
            cpu.upper_dirty = True


cdef void tag_mask(Cpu *cpu, uint64_t mask) noexcept nogil:
    # Tags that make exactly these components count, each register with all its width as far as the mask goes.
    cdef int n, tag
    cdef int allowed = TAG_XMM if mask & BIT_SSE else 0
    cdef int given = 0
    if mask & BIT_AVX:
        allowed |= TAG_YMM
    if mask & HALVED & ~<uint64_t>BIT_AVX:
        allowed |= TAG_ZMM
    tag_halves(cpu, 0, 16)
    for n in range(16):
        tag = cpu.tags[n]
        if tag & TAG_ZMM:
            tag = TAG_XMM | TAG_YMM | TAG_ZMM
        elif tag & TAG_YMM:
            tag = TAG_XMM | TAG_YMM
        cpu.tags[n] = <uint8_t>(tag & allowed)
        given |= tag & allowed
    cpu.tags[0] |= <uint8_t>(allowed & ~given)
    note_dirty(cpu)
    cpu.tagged |= halves_of(cpu)


cdef void written_by_value(Cpu *cpu, int n, int width, bint vex, bint zeroed) noexcept nogil:
    # A write to vector register n < 16; `zeroed`: by an instruction that is known to give zero.
    cdef int tag = TAG_XMM if width <= 16 else TAG_XMM | TAG_YMM if width <= 32 else TAG_XMM | TAG_YMM | TAG_ZMM
    cdef int i
    use_tags(cpu)
    if width > 16:
        cpu.upper_dirty = True
    if not vex:     # merged with what may lie above
        tag |= (cpu.tags[n] & ~TAG_ZEROED) | (TAG_YMM if cpu.upper_dirty else 0)
        for i in range(16):
            tag |= cpu.tags[i] & TAG_ZMM
    if zeroed:
        tag = cpu.tags[n] | TAG_ZEROED if vex else tag & ~TAG_XMM
    cpu.tags[n] = <uint8_t>tag
    mark_by_tags(cpu)
    cpu.modified_low |= halves_of(cpu) if vex else <uint64_t>BIT_SSE


cdef void upper_by_value(Cpu *cpu, int n, bint zeroed) noexcept nogil:
    # A write to one of vector registers 16-31.
    cdef int i
    cdef int found = 0
    cdef uint8_t *at = component_at(cpu, lowest(UPPER))
    if not cpu.tagged & UPPER:
        for i in range(16, 32):
            cpu.tags[i] = not has_initial_bytes(0, at + 64 * (i - 16), 0, 64)
    cpu.tags[n] = not zeroed
    for i in range(16, 32):
        found |= cpu.tags[i]
    cpu.low = (cpu.low & ~UPPER) | (UPPER if found else 0)
    cpu.unknown &= ~UPPER
    cpu.tagged |= UPPER
    cpu.modified_low |= UPPER


cdef void opmask_by_value(Cpu *cpu, int n, bint zeroed) noexcept nogil:
    cdef int i
    cdef int found = 0
    cdef uint8_t *at = component_at(cpu, lowest(cpu.opmask))
    if not cpu.tagged & cpu.opmask:
        for i in range(8):
            cpu.opmask_tags[i] = load_le64(at + 8 * i) != 0
    cpu.opmask_tags[n] = not zeroed
    for i in range(8):
        found |= cpu.opmask_tags[i]
    cpu.low = (cpu.low & ~cpu.opmask) | (cpu.opmask if found else 0)
    cpu.unknown &= ~cpu.opmask
    cpu.tagged |= cpu.opmask
    cpu.modified_low |= cpu.opmask


cdef void zeroed_by_value(Cpu *cpu, bint whole) noexcept nogil:
    # VZEROUPPER and VZEROALL.
    cdef int n
    use_tags(cpu)
    for n in range(16 if cpu.long_mode else 8):
        cpu.tags[n] &= 0 if whole else TAG_XMM | TAG_ZEROED
    note_dirty(cpu)
    mark_by_tags(cpu)
    cpu.modified_low |= BIT_SSE


cdef void settle_halves(Cpu *cpu) noexcept nogil:
    # Components that share registers 0-15 are settled together.
    cdef uint64_t halves = halves_of(cpu)
    cpu.tagged &= ~halves
    cpu.unknown |= halves & ~cpu.initial
    cpu.unknown &= ~(halves & cpu.initial)
    cpu.low &= ~(halves & cpu.initial)


cdef void settle_all(Cpu *cpu) noexcept nogil:
    # As a save and restore of everything does.
    if cpu.by_value:
        cpu.tagged = 0
        cpu.unknown = cpu.file.mask
        settle(cpu)


cdef void track_by_value(Cpu *cpu, uint64_t loaded, uint64_t initialised) noexcept nogil:
    # Loading or initialising settles a component by its contents, and one of those that share the registers settles
    # all of them; outside 64-bit mode the upper registers keep their tags.
    cdef uint64_t halves = halves_of(cpu)
    cpu.unknown |= loaded
    cpu.tagged &= ~((loaded | initialised) & ~halves)
    if cpu.long_mode:
        cpu.low &= ~initialised
        cpu.unknown &= ~initialised
        if (loaded | initialised) & halves:
            settle_halves(cpu)
        elif cpu.tagged & BIT_SSE:      # any XRSTOR looks at what is above XMM
            note_dirty(cpu)
        return
    cpu.low &= ~(initialised & ~(halves | UPPER))
    cpu.unknown &= ~(initialised & ~(halves | UPPER))
    cpu.unknown |= initialised & UPPER
    if (loaded | initialised) & halves:
        if cpu.tagged & BIT_SSE:
            tag_halves(cpu, 0, 8)
        else:
            tag_halves(cpu, 0, 16)
        note_dirty(cpu)
        mark_by_tags(cpu)


cdef void track_restore(Cpu *cpu, uint64_t loaded, uint64_t initialised) noexcept nogil:
    # What XINUSE becomes when a restore has loaded and initialised these.
    cdef uint64_t halves = BIT_SSE | HALVED
    cdef uint64_t partly = 0 if cpu.long_mode else halves | UPPER
    cpu.initial = (cpu.initial | initialised & ~partly) & ~loaded
    if cpu.by_value:
        track_by_value(cpu, loaded, initialised)
        return
    if not cpu.long_mode:       # 16-31 are neither loaded nor initialised
        loaded &= ~UPPER
        initialised &= ~UPPER
    cpu.low = (cpu.low | loaded) & ~initialised
    if loaded & cpu.tilecfg:
        cpu.low = (cpu.low & ~cpu.tilecfg) | by_contents(cpu, cpu.tilecfg)
    if cpu.long_mode:
        cpu.high = (cpu.high | loaded & halves) & ~initialised
        if loaded & HALVED and cpu.high and upper_is_zero(cpu):
            cpu.high = 0


cdef void remember(Cpu *cpu, uint64_t address, uint64_t xcomp_bv, uint64_t rfbm) noexcept nogil:
    # XRSTOR_INFO and XMODIFIED after a restore.
    cdef uint64_t partly = BIT_SSE | HALVED
    cpu.info_valid = True
    cpu.info_nonroot = cpu.nonroot
    cpu.info_cpl = cpu.cpl
    cpu.info_address = address
    cpu.info_xcomp = xcomp_bv
    cpu.modified_low = ~rfbm
    cpu.modified_high = ~rfbm & partly
    if not cpu.long_mode and cpu.low_only:      # it did not reach the upper registers
        cpu.modified_low |= UPPER
        cpu.modified_high = partly


cdef bint remembered(Cpu *cpu, uint64_t address, uint64_t xcomp_bv) noexcept nogil:
    return (cpu.modified_opt and cpu.info_valid and cpu.info_address == address and cpu.info_xcomp == xcomp_bv
            and cpu.info_cpl == cpu.cpl and cpu.info_nonroot == cpu.nonroot)


# --- faults -------------------------------------------------------------------------------------------------

cdef enum Rule:
    R_NONE, R_CPUID, R_OSXSAVE, R_MODE, R_TS, R_EM, R_CPL, R_CANONICAL, R_ALIGN, R_PAGE, R_WRITE, R_XCOMP, R_XSTATE
    R_FORMAT, R_COMPACT, R_RESERVED, R_MXCSR, R_XFD, R_TRACE, R_TRACE_RESERVED, R_UINV, R_MSR_RESERVED
    R_MSR_EXCLUSIVE, R_MSR_CANONICAL, R_MSR_DEPTH, R_INDEX, R_XCR0_UNSUPPORTED, R_XCR0_X87, R_XCR0_NEEDS
    R_XCR0_EXCLUDES, R_MSR_MISSING, R_MSR_MASK, R_TILE_CONFIG, R_TILES_OFF, R_TILE_UNCONFIGURED, R_TILE_INVALID
    R_TILE_COLSB, R_TILE_START, R_TILE_PALETTE, R_DISABLED, R_XCR0_OFF, R_PKE


cdef int fault(Outcome *out, int vector, int rule, int64_t offset, uint64_t detail) noexcept nogil:
    out.kind = FAULT
    out.vector = vector
    out.error_code = 0
    out.rule = rule
    out.offset = offset
    out.detail = detail
    return FAULT


cdef int leave(Outcome *out, int kind, uint64_t detail) noexcept nogil:
    out.kind = kind
    out.vector = 0
    out.error_code = 0
    out.rule = R_NONE
    out.offset = NOWHERE
    out.detail = detail
    return kind
