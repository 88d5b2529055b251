# The Python face.

cdef list DIFFERENCES = ["", "instruction that faulted", "vector", "error code", "CR2", "XINUSE at the start",
                         "XINUSE before the last instruction", "XINUSE afterwards", "result of XGETBV", "memory",
                         "registers"]
# The steps, by insn_step.op.
cdef list FAMILY = ["XSAVE64", "XSAVEOPT64", "XSAVEC64", "XSAVES64", "XRSTOR64", "XRSTORS64", "FXSAVE64", "FXRSTOR64",
                    "XSAVE", "XSAVEOPT", "XSAVEC", "XSAVES", "XRSTOR", "XRSTORS", "FXSAVE", "FXRSTOR"]
cdef list NAMES = [*FAMILY, *FAMILY, "LDTILECFG", "STTILECFG", "TILERELEASE", "LDMXCSR", "STMXCSR", "VZEROUPPER",
                   "VZEROALL", "FNINIT", "FNOP", "EMMS", "FNSTCW", "FLDCW", "XGETBV", "MOVUPS xmm", "VMOVUPS xmm",
                   "VMOVUPS ymm", "VMOVDQU64 zmm", "VMOVDQU64 xmm", "VMOVDQU64 ymm", "KMOVW k", "MOVUPS [mem], xmm",
                   "FLD", "TILELOADD tmm", "TILELOADDT1 tmm", "TILESTORED tmm", "TILEZERO tmm"]


@cython.final
cdef class Trials:
    """Cases on both sides, by number. `model`: a `Processor` of this very CPU, with XCR0 and IA32_XFD as they are here.

    Raises: `UnsupportedError` without XSAVE; `HostError` where memory or the guard cannot be had.
    """

    cdef Processor model
    cdef uint64_t seed
    cdef uint64_t xcr0
    cdef uint64_t never         # components that the prime image may not have (XFD disables them)
    cdef uint64_t tilecfg
    cdef uint64_t keys          # the component of PKRU
    cdef uint32_t mxcsr_mask
    cdef uint32_t caps
    cdef bint compaction, optimised, avx, avx512, xgetbv1, tiles
    cdef size_t room
    cdef Shape whole
    cdef uint32_t compared[64]
    cdef uint8_t *block
    cdef uint8_t *prime
    cdef uint8_t *emulated
    cdef uint8_t *real
    cdef uint8_t *caller
    cdef uint8_t *noise
    cdef uint8_t *pool
    cdef uint8_t *words
    cdef uint8_t *sink
    cdef uint8_t *configs
    cdef uint8_t *before
    cdef uint8_t *mirror[3]
    cdef insn_arena arena[3]
    cdef Region regions[3][2]
    cdef size_t region_count[3]
    cdef uint64_t retried
    cdef uint64_t counts[64][48]    # by instruction and rule
    cdef uint64_t agreed[64]

    def __cinit__(self, Processor model not None, uint64_t seed=0):
        cdef const insn_machine *cpu = this_cpu()
        cdef Draw d
        cdef size_t total
        cdef int i, error
        cdef uint8_t *at
        if not cpu.xcr0:
            raise UnsupportedError("conformance trials need XSAVE, which the system has not enabled [SDM1 13.2]")
        if cpu.xcr0 != model.cpu.xcr0:
            raise ValueError(f"the model's XCR0 {model.cpu.xcr0:#x} is not this CPU's {cpu.xcr0:#x}")
        self.model = model
        self.seed = seed
        self.xcr0 = cpu.xcr0
        self.never = model.cpu.xfd
        self.caps = cpu.caps
        self.mxcsr_mask = model.cpu.ruler.mxcsr_mask
        self.optimised = cpu.features & 1
        self.compaction = cpu.features >> 1 & 1
        self.xgetbv1 = cpu.features >> 2 & 1
        self.avx = cpu.xcr0 >> 2 & 1
        self.avx512 = cpu.caps & INSN_AVX512 != 0
        self.tilecfg = model.cpu.tilecfg & cpu.xcr0 if cpu.caps & INSN_TILECFG else 0
        self.keys = <uint64_t>1 << <int>REGISTERS["pkru"].component
        self.tiles = self.tilecfg != 0 and not model.cpu.xfd
        if lay_out(&model.cpu.ruler, cpu.xcr0, 0, &self.whole):
            raise UnsupportedError("CPUID gives no standard offset of a component of XCR0")
        for i in range(2, 63):
            self.compared[i] = model.cpu.stored[i]
        self.room = (max(cpu.area_size, self.whole.size) + 127) // 64 * 64
        total = (4 + POOL) * self.room + 64 * WORDS + 4096 + 2 * self.room + 8192 + 16 * 64
        total += (ARENAS + 1) * ARENA_PAGES * PAGE
        self.block = <uint8_t *>aligned_alloc(64, (total + 63) // 64 * 64)
        if self.block == NULL:
            raise MemoryError
        memset(self.block, 0, total)
        at = self.block
        self.prime = at
        self.emulated = at + self.room
        self.real = at + 2 * self.room
        self.caller = at + 3 * self.room
        self.pool = at + 4 * self.room
        at += (4 + POOL) * self.room
        self.words = at
        self.sink = at + 64 * WORDS
        self.configs = self.sink + 4096
        self.noise = self.configs + 16 * 64
        at = self.noise + 2 * self.room + 8192
        self.before = at
        for i in range(ARENAS):
            self.mirror[i] = at + (i + 1) * ARENA_PAGES * PAGE
            error = make_arena(&self.arena[i], ARENA_PAGES, HOLE_PAGE if i == HOLED else ARENA_PAGES,
                               i == READ_ONLY_ARENA)
            if error:
                raise HostError(error, f"memory for the trials: {strerror(error).decode()}")
            self.add_region(i, 0, HOLE_PAGE if i == HOLED else ARENA_PAGES)
            if i == HOLED:
                self.add_region(i, HOLE_PAGE + 1, ARENA_PAGES)
        d.state = seed
        draw_bytes(&d, self.noise, 2 * self.room + 8192)
        draw_words(self, &d)
        for i in range(POOL):
            draw_image(self, &d, self.pool + i * self.room)
        for i in range(16):
            draw_tilecfg(&d, self.configs + 64 * i)

    cdef void add_region(self, int which, size_t first, size_t end):
        cdef Region *region = &self.regions[which][self.region_count[which]]
        region.begin = <uint64_t><size_t>self.arena[which].view + first * PAGE
        region.last = <uint64_t><size_t>self.arena[which].view + end * PAGE - 1
        region.data = self.mirror[which] + first * PAGE
        region.writable = which != READ_ONLY_ARENA
        self.region_count[which] += 1

    def __dealloc__(self):
        cdef int i
        for i in range(ARENAS):
            free_arena(&self.arena[i])
        free(self.block)

    def run(self, uint64_t first, uint64_t count):
        """Cases `first` to `first + count - 1`, until one disagrees, without the GIL.

        Returns (cases done, number of the one that disagrees or None, what differs or None): ("memory", byte of the
        arena, the emulated processor's value, this CPU's). The one that disagrees is counted as done.
        """
        cdef insn_guard guard
        cdef Case case
        cdef Side want
        cdef Side got
        cdef Verdict v
        cdef uint64_t i = 0
        cdef int error
        cdef bint bad = False
        with nogil:
            error = enter_guard(&guard)
            if not error:
                warm_up(self)
                while i < count and not bad:
                    draw_case(self, first + i, &case)
                    bad = judge(self, &case, 0xFFFFFFFF, &want, &got, &v) != SAME
                    self.note(&case, &want)
                    i += 1
                leave_guard(&guard)
        if error:
            raise HostError(error, f"the fault guard: {strerror(error).decode()}")
        if not bad:
            return i, None, None
        return i, first + i - 1, (DIFFERENCES[v.difference], v.at, v.wanted, v.found)

    cdef void note(self, const Case *case, const Side *want) noexcept nogil:
        cdef int last = want.stopped if want.stopped < case.count else case.count - 1
        cdef const Step *s = &case.step[last]
        if want.vector:
            self.counts[s.op][want.rule] += 1
        else:
            self.agreed[s.op] += 1

    def replay(self, uint64_t number, uint32_t kept=0xFFFFFFFF, uint64_t narrow=0xFFFFFFFFFFFFFFFF):
        """Case `number` again: None where both sides agree, else what differs, as `run` gives it.

        `kept`: only steps whose bits it has; `narrow`: every EDX:EAX of the case is cut down to it.
        """
        cdef insn_guard guard
        cdef Case case
        cdef Side want
        cdef Side got
        cdef Verdict v
        cdef int error = enter_guard(&guard)
        if error:
            raise HostError(error, f"the fault guard: {strerror(error).decode()}")
        warm_up(self)
        self.redraw(number, narrow, &case)
        judge(self, &case, kept, &want, &got, &v)
        leave_guard(&guard)
        if v.difference == SAME:
            return None
        return DIFFERENCES[v.difference], v.at, v.wanted, v.found

    cdef void redraw(self, uint64_t number, uint64_t narrow, Case *case) noexcept nogil:
        cdef int i
        draw_case(self, number, case)
        for i in range(case.count):
            if case.step[i].what == DO_EXECUTE:
                case.step[i].mask &= narrow

    def describe(self, uint64_t number, uint32_t kept=0xFFFFFFFF, uint64_t narrow=0xFFFFFFFFFFFFFFFF):
        """Case `number` in words: one line for the state it starts from, one a step."""
        cdef Case case
        cdef int i
        self.redraw(number, narrow, &case)
        start = f"registers with XSTATE_BV {case.prime:#x}"
        if case.align_check:
            start += ", EFLAGS.AC"
        if case.arena != PLAIN:
            start += ", a page missing" if case.arena == HOLED else ", read-only memory"
        return [start] + [self.step_words(&case, &case.step[i]) for i in range(case.count) if kept >> i & 1]

    cdef str step_words(self, const Case *case, const Step *s):
        cdef const uint8_t *area = self.mirror[case.arena] + s.offset
        name = NAMES[s.op]
        if s.what == DO_EXECUTE:
            text = f"{name} [{s.offset:#x}]" + (" through SS" if s.stack else "") + (" non-canonical" if s.wild else "")
            if s.insn != FXSAVE and s.insn != FXRSTOR:
                text += f", EDX:EAX {s.mask:#x}"
            if s.insn == XRSTOR and s.offset + HEADER_END <= ARENA_PAGES * PAGE:
                text += (f", XSTATE_BV {load_le64(area + HEADER_OFFSET):#x}, "
                         f"XCOMP_BV {load_le64(area + XCOMP_OFFSET):#x}")
            return text
        if s.what == DO_VECTOR or s.what == DO_OPMASK:
            word = self.words + s.offset
            return f"{name}{s.reg}, {word[:s.width if s.width else 2].hex()}"
        if s.what == DO_XGETBV:
            return f"XGETBV, ECX {s.mask:#x}"
        if s.what == DO_TILE:
            where = f"configuration {s.reg}" if s.offset == -1 else f"[{s.offset:#x}], stride {<int64_t>s.mask}"
            return f"{name}{'' if s.offset == -1 else s.reg} {where}"
        return name

    def statistics(self):
        """({(instruction, rule): cases}, cases that took a fault, cases retried); rule "" where there was no fault."""
        cdef int op, rule
        cdef uint64_t faults = 0
        found = {}
        for op in range(64):
            if self.agreed[op]:
                found[NAMES[op], ""] = found.get((NAMES[op], ""), 0) + self.agreed[op]
            for rule in range(48):
                if self.counts[op][rule]:
                    key = NAMES[op], rule_code(rule)
                    found[key] = found.get(key, 0) + self.counts[op][rule]
                    faults += self.counts[op][rule]
        return found, faults, self.retried
