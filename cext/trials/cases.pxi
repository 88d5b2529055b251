# Drawing a case from its number.

cdef enum:
    STEPS = 6
    PAGE = 4096
    ARENA_PAGES = 12
    HOLE_PAGE = 6
    ARENAS = 3          # whole, with a hole, read-only
    PLAIN = 0
    HOLED = 1
    READ_ONLY_ARENA = 2
    POOL = 64           # register images that cases start from
    WORDS = 128         # operands of register writes
    SLACK = 64          # bytes beside an area that are compared too
    BIT_X87 = 1
    BIT_SSE = 2

cdef uint64_t FORMAT_BIT = <uint64_t>1 << 63
cdef uint64_t ALL = 0xFFFFFFFFFFFFFFFF
cdef uint64_t NON_CANONICAL = <uint64_t>1 << 62     # on any CPU

# What an instruction of a case is to the emulated side.
cdef enum What:
    DO_EXECUTE          # `insn` of the XSAVE family
    DO_XGETBV
    DO_VECTOR
    DO_OPMASK
    DO_ZERO
    DO_FNINIT
    DO_FNSTCW
    DO_LDMXCSR
    DO_READ
    DO_TILE

cdef struct Step:
    int what
    int insn
    int op              # insn_step.op
    int reg
    int width
    bint vex
    bint rexw
    bint stack
    uint64_t mask
    int64_t offset      # of the operand in the arena, or of the value among the words
    bint wild           # at an address that is not canonical

cdef struct Case:
    uint64_t number
    int count
    Step step[6]
    int arena
    bint align_check
    int areas
    int64_t at[2]       # operands in the arena
    uint64_t prime      # XSTATE_BV of the image both sides start from


cdef struct Draw:
    uint64_t state


cdef inline uint64_t draw(Draw *d) noexcept nogil:
    # SplitMix64: a case's numbers follow from where it begins alone.
    cdef uint64_t z
    d.state += <uint64_t>0x9E3779B97F4A7C15
    z = d.state
    z = (z ^ (z >> 30)) * <uint64_t>0xBF58476D1CE4E5B9
    z = (z ^ (z >> 27)) * <uint64_t>0x94D049BB133111EB
    return z ^ (z >> 31)


cdef inline uint32_t below(Draw *d, uint32_t n) noexcept nogil:
    return <uint32_t>((draw(d) >> 32) * n >> 32)


cdef uint64_t draw_mask(Draw *d, uint64_t whole) noexcept nogil:
    # EDX:EAX, or a set of components: everything, nothing, a few, any.
    cdef uint32_t kind = below(d, 16)
    if kind < 5:
        return whole
    if kind < 7:
        return ALL
    if kind == 7:
        return 0
    if kind < 10:
        return draw(d) & draw(d)
    if kind < 12:
        return whole & ~(<uint64_t>1 << below(d, 20))
    if kind == 12:
        return <uint64_t>1 << below(d, 20)
    return draw(d)


cdef void draw_bytes(Draw *d, uint8_t *to, size_t size) noexcept nogil:
    cdef uint64_t value
    cdef size_t i = 0
    while i + 8 <= size:
        value = draw(d)
        memcpy(to + i, &value, 8)
        i += 8
    value = draw(d)
    memcpy(to + i, &value, size - i)


cdef void draw_component(Draw *d, uint8_t *at, size_t size) noexcept nogil:
    # Random bytes, zeros, a few bytes, or one half of it.
    cdef uint32_t kind = below(d, 8)
    cdef uint32_t i
    if kind >= 4:
        draw_bytes(d, at, size)
        return
    memset(at, 0, size)
    if kind == 1:
        for i in range(1 + below(d, 3)):
            at[below(d, <uint32_t>size)] = <uint8_t>draw(d)
    elif kind == 2:
        draw_bytes(d, at, size // 2)
    elif kind == 3:
        draw_bytes(d, at + size // 2, size - size // 2)


cdef void draw_tilecfg(Draw *d, uint8_t *at) noexcept nogil:
    # A configuration that loads, or nearly.
    cdef int t
    cdef uint32_t kind = below(d, 12)
    memset(at, 0, 64)
    if kind == 0:
        return
    at[0] = 1
    at[1] = <uint8_t>(below(d, 4) if below(d, 4) else draw(d))
    for t in range(8):
        if below(d, 8):
            at[16 + 2 * t] = <uint8_t>(4 * (1 + below(d, 16)) if below(d, 10) else 1 + below(d, 64))
            at[48 + t] = <uint8_t>(1 + below(d, 16))
    if kind == 1:
        at[below(d, 64)] ^= <uint8_t>(1 << below(d, 8))
    elif kind == 2:
        draw_bytes(d, at + 1, 63)


cdef uint32_t draw_mxcsr(Draw *d, uint32_t legal) noexcept nogil:
    cdef uint32_t kind = below(d, 16)
    if kind < 6:
        return MXCSR_INIT
    if kind == 6:
        return <uint32_t>draw(d)
    return <uint32_t>draw(d) & legal


cdef class Trials

cdef void draw_image(Trials t, Draw *d, uint8_t *image) noexcept nogil:
    # A standard image of the whole XCR0 with every component in it.
    cdef int i
    cdef Shape *shape = &t.whole
    memset(image, 0, t.room)
    draw_component(d, image + X87_HIGH, X87_HIGH_END - X87_HIGH)
    draw_component(d, image + XMM_OFFSET, XMM_END - XMM_OFFSET)
    image[4] = <uint8_t>draw(d)
    draw_bytes(d, image + 6, 18)
    if below(d, 3):
        memset(image + 8, 0, 16)
    for i in range(2, 63):
        if shape.mask >> i & 1:
            if t.tilecfg >> i & 1:
                draw_tilecfg(d, image + shape.offset[i])
            else:
                draw_component(d, image + shape.offset[i], shape.width[i])
            if t.keys >> i & 1:     # no key may close the program's own memory
                store_le32(image + shape.offset[i], load_le32(image + shape.offset[i]) & ~<uint32_t>3)


cdef void draw_words(Trials t, Draw *d) noexcept nogil:
    # Operands of register writes: zero in some of their quarters; the last four bytes a legal MXCSR.
    cdef uint8_t *word
    cdef int i
    for i in range(WORDS):
        word = t.words + 64 * i
        draw_bytes(d, word, 64)
        if i % 8:
            if below(d, 2):
                memset(word, 0, 16)
            if below(d, 2):
                memset(word + 16, 0, 16)
            if below(d, 2):
                memset(word + 32, 0, 32)
        store_le32(word + 60, load_le32(word + 60) & t.mxcsr_mask)


cdef void draw_prime(Trials t, Draw *d, Case *case) noexcept nogil:
    cdef uint8_t *image = t.prime
    cdef uint32_t kind
    memcpy(image, t.pool + t.room * below(d, POOL), t.room)
    case.prime = draw_mask(d, t.xcr0) & t.xcr0 & ~t.never
    if not below(d, 4):
        case.prime = t.xcr0 & ~t.never
    kind = below(d, 8)
    store_le16(image, 0x37F if kind < 4 else <uint16_t>draw(d))
    store_le16(image + 2, 0 if kind < 5 else <uint16_t>draw(d))
    if kind < 2:
        image[4] = 0
    store_le32(image + MXCSR_OFFSET, draw_mxcsr(d, t.mxcsr_mask) & t.mxcsr_mask)
    store_le64(image + HEADER_OFFSET, case.prime)


cdef void draw_header(Trials t, Draw *d, uint8_t *area, size_t size) noexcept nogil:
    # What a restore is to find: either format, mostly legal.
    cdef uint64_t xstate_bv, xcomp_bv
    cdef Shape shape
    cdef int i
    cdef uint32_t at
    cdef bint compacted = t.compaction and below(d, 2)
    xcomp_bv = draw_mask(d, t.xcr0) & t.xcr0 if compacted else 0
    xstate_bv = draw_mask(d, t.xcr0) & (xcomp_bv if compacted else t.xcr0)
    store_le16(area, 0x37F if below(d, 3) else <uint16_t>draw(d))
    store_le16(area + 2, 0 if below(d, 2) else <uint16_t>draw(d))
    store_le32(area + MXCSR_OFFSET, draw_mxcsr(d, t.mxcsr_mask))
    store_le64(area + HEADER_OFFSET, xstate_bv)
    store_le64(area + XCOMP_OFFSET, xcomp_bv | FORMAT_BIT if compacted else 0)
    memset(area + XCOMP_OFFSET + 8, 0, HEADER_END - XCOMP_OFFSET - 8)
    if below(d, 3) == 0 or (t.tilecfg | t.keys) & t.xcr0:
        if not compacted:
            shape = t.whole
        elif lay_out(&t.model.cpu.ruler, xcomp_bv, FORMAT_COMPACTED, &shape):
            return
        for i in range(2, 63):
            if shape.mask >> i & 1 and shape.offset[i] + shape.width[i] <= size:
                if t.tilecfg >> i & 1:
                    draw_tilecfg(d, area + shape.offset[i])
                elif t.keys >> i & 1:
                    store_le32(area + shape.offset[i], <uint32_t>draw(d) & ~<uint32_t>3)
                elif not below(d, 3):
                    memset(area + shape.offset[i], 0, shape.width[i])
    if not below(d, 4):
        memset(area + X87_HIGH, 0, X87_HIGH_END - X87_HIGH)
        area[4] = 0
    if not below(d, 4):
        memset(area + XMM_OFFSET, 0, XMM_END - XMM_OFFSET)
    if not below(d, 7):     # something wrong
        at = below(d, 16)
        if at < 3:
            store_le64(area + HEADER_OFFSET, xstate_bv | <uint64_t>1 << below(d, 64))
        elif at < 6:
            store_le64(area + XCOMP_OFFSET, load_le64(area + XCOMP_OFFSET) ^ <uint64_t>1 << below(d, 64))
        elif at < 10:
            area[XCOMP_OFFSET + 8 + below(d, 48)] = <uint8_t>(1 + below(d, 255))
        elif at < 12:
            area[HEADER_OFFSET + below(d, 64)] ^= <uint8_t>(1 << below(d, 8))
        elif at < 13:
            draw_bytes(d, area + HEADER_OFFSET, 64)


cdef void draw_area(Trials t, Draw *d, uint8_t *area, size_t size) noexcept nogil:
    # Memory of an operand: old bytes of no meaning, and a header that a restore may like.
    memcpy(area, t.noise + 64 * below(d, 64), size)
    if size >= HEADER_END:
        draw_header(t, d, area, size)


cdef void draw_place(Trials t, Draw *d, Case *case, int which) noexcept nogil:
    # Where an operand lies in the arena.
    cdef int64_t half = ARENA_PAGES * PAGE // 2
    cdef int64_t at
    cdef uint32_t kind = below(d, 32)
    cdef uint32_t lines = t.room // 64 + 2
    at = SLACK + which * half + 64 * below(d, 40)
    if case.arena == HOLED and which == 0:
        at = HOLE_PAGE * PAGE
        if below(d, 4):
            at -= 64 * <int64_t>below(d, lines)
        else:
            at += PAGE - 64 * <int64_t>below(d, 64)
    elif kind == 0 and which == 1:
        at = ARENA_PAGES * PAGE - 64 * <int64_t>below(d, lines)
    elif kind == 1:
        at += 1 + below(d, 63)
    elif kind == 2:
        at += 4 * (1 + below(d, 15))
    elif kind == 3:
        at += 16 * (1 + below(d, 3))
    case.at[which] = at


cdef void step_area(Trials t, Draw *d, Case *case, Step *s, int insn, int which, uint64_t mask) noexcept nogil:
    cdef bint fx = insn == FXSAVE or insn == FXRSTOR
    s.what = DO_EXECUTE
    s.insn = insn
    s.rexw = below(d, 4) != 0
    s.stack = not below(d, 16)
    s.op = (STEP_XSAVE64 if s.rexw else STEP_XSAVE) + insn + (STEP_STACK if s.stack else 0)
    s.mask = 0 if fx else mask
    s.offset = case.at[which]
    s.wild = not below(d, 256)


cdef void step_write(Trials t, Draw *d, Step *s) noexcept nogil:
    # An instruction that writes registers.
    cdef uint32_t kind = below(d, 20)
    s.offset = 64 * below(d, WORDS)
    s.what = DO_VECTOR
    s.reg = below(d, 16)
    s.vex = True
    if kind < 4 or not t.avx:
        s.op = STEP_SSE
        s.width = 16
        s.vex = False
    elif kind < 6:
        s.op = STEP_VEX128
        s.width = 16
    elif kind < 9:
        s.op = STEP_VEX256
        s.width = 32
    elif kind == 9:
        s.what = DO_ZERO
        s.op = STEP_VZEROUPPER
        s.vex = False
    elif kind == 10:
        s.what = DO_ZERO
        s.op = STEP_VZEROALL
    elif kind == 11:
        s.what = DO_FNINIT
        s.op = STEP_FNINIT
    elif kind == 12:
        s.what = DO_FNSTCW
        s.op = STEP_FNSTCW
        s.offset = 0
    elif kind == 13:
        s.what = DO_LDMXCSR
        s.op = STEP_LDMXCSR
        s.offset = 64 * below(d, WORDS) + 60
    elif kind == 14:
        s.what = DO_READ
        s.op = STEP_READ_SSE
    elif not t.avx512:
        s.op = STEP_VEX256
        s.width = 32
    elif kind < 17:
        s.op = STEP_EVEX512
        s.width = 64
        s.reg = below(d, 32)
    elif kind == 17:
        s.op = STEP_EVEX128 if below(d, 2) else STEP_EVEX256
        s.width = 16 if s.op == STEP_EVEX128 else 32
        s.reg = below(d, 32)
    else:
        s.what = DO_OPMASK
        s.op = STEP_KMOV
        s.reg = below(d, 8)


cdef void step_tile(Trials t, Draw *d, Case *case, Step *s) noexcept nogil:
    cdef uint32_t kind = below(d, 12)
    s.what = DO_TILE
    s.offset = case.at[below(d, 2)] + (below(d, 64) if below(d, 2) else 0)
    s.reg = below(d, 8)
    s.mask = 64
    if below(d, 2):
        s.mask = <uint64_t>(<int64_t>below(d, 512) - 128)
    if kind < 3:
        s.insn = LDTILECFG
        s.op = STEP_LDTILECFG
        s.offset = -1       # among the configurations
        s.reg = below(d, 16)
    elif kind == 3:
        s.insn = STTILECFG
        s.op = STEP_STTILECFG
    elif kind == 4:
        s.insn = TILERELEASE
        s.op = STEP_TILERELEASE
    elif kind < 7:
        s.insn = TILELOADD
        s.op = STEP_TILELOADD + below(d, 2)
    elif kind < 10:
        s.insn = TILESTORED
        s.op = STEP_TILESTORED
    else:
        s.insn = TILEZERO
        s.op = STEP_TILEZERO


cdef int draw_insn(Trials t, Draw *d) noexcept nogil:
    cdef uint32_t kind = below(d, 16)
    if kind < 6:
        return XRSTOR
    if kind < 8:
        return XSAVE
    if kind < 10 and t.compaction:
        return XSAVEC
    if kind < 13 and t.optimised:
        return XSAVEOPT
    return FXSAVE if kind < 14 else FXRSTOR if kind < 15 else XSAVE


cdef void draw_case(Trials t, uint64_t number, Case *case) noexcept nogil:
    # Everything about case `number`; fills the prime image, the words and the operands' memory.
    cdef Draw d
    cdef uint32_t kind
    cdef uint64_t mask
    cdef int i, which, writes
    cdef Step *s
    d.state = t.seed ^ (number * <uint64_t>0xD1342543DE82EF95)
    draw(&d)
    memset(case, 0, sizeof(Case))
    case.number = number
    kind = below(&d, 32)
    case.arena = HOLED if kind == 0 else READ_ONLY_ARENA if kind == 1 else PLAIN
    case.align_check = below(&d, 24) == 0
    draw_prime(t, &d, case)
    draw_place(t, &d, case, 0)
    draw_place(t, &d, case, 1)
    kind = below(&d, 16)
    if kind < 7:                                    # one instruction
        case.count = 1
        step_area(t, &d, case, &case.step[0], draw_insn(t, &d), 0, draw_mask(&d, t.xcr0))
        if not below(&d, 12) and t.xgetbv1:
            case.step[0].what = DO_XGETBV
            case.step[0].op = STEP_XGETBV
            case.step[0].mask = 1 if below(&d, 4) else below(&d, 4) if below(&d, 2) else <uint32_t>draw(&d)
    elif kind < 10:                                 # registers, then one instruction
        writes = 1 + below(&d, 3)
        for i in range(writes):
            step_write(t, &d, &case.step[i])
        step_area(t, &d, case, &case.step[writes], draw_insn(t, &d), 0, draw_mask(&d, t.xcr0))
        case.count = writes + 1
    elif kind < 14:                                 # what XSAVEOPT leaves out
        mask = draw_mask(&d, t.xcr0)
        step_area(t, &d, case, &case.step[0], XRSTOR, 0, mask)
        writes = below(&d, 4)
        for i in range(1, 1 + writes):
            if below(&d, 6):
                step_write(t, &d, &case.step[i])
            else:
                step_area(t, &d, case, &case.step[i], draw_insn(t, &d), 1, draw_mask(&d, t.xcr0))
        s = &case.step[1 + writes]
        step_area(t, &d, case, s, XSAVEOPT if t.optimised else XSAVE, 0 if below(&d, 8) else 1,
                  mask if below(&d, 3) else draw_mask(&d, t.xcr0))
        case.count = 2 + writes
    else:                                           # anything
        case.count = 1 + below(&d, STEPS)
        for i in range(case.count):
            which = below(&d, 2)
            if below(&d, 3) == 0:
                step_write(t, &d, &case.step[i])
            else:
                step_area(t, &d, case, &case.step[i], draw_insn(t, &d), which, draw_mask(&d, t.xcr0))
    if t.tilecfg and below(&d, 4) == 0:
        for i in range(case.count):
            if below(&d, 2):
                step_tile(t, &d, case, &case.step[i])
        if t.tiles and below(&d, 2):
            case.step[0].what = DO_TILE
            step_tile(t, &d, case, &case.step[0])
            case.step[0].insn = LDTILECFG
            case.step[0].op = STEP_LDTILECFG
            case.step[0].offset = -1
            case.step[0].reg = below(&d, 16)
    case.areas = 2
    for which in range(2):
        fill_operand(t, &d, case, which)
