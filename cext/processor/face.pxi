# The Python face.

@cython.final
cdef class Vmx:
    """VMX non-root operation: the controls that matter here (SDM3C 25.6.2, 25.6.20).

    `xsaves`: "enable XSAVES/XRSTORS"; `xss_exiting`: the XSS-exiting bitmap; `xfam`: a mask of XCR0 | IA32_XSS within
    which the guest sets XCR0 and IA32_XSS without an exit (hypothetical hardware), or None.
    """

    cdef readonly bint xsaves
    cdef readonly object xss_exiting
    cdef readonly object xfam

    def __init__(self, xsaves=True, xss_exiting=0, xfam=None):
        self.xsaves = xsaves
        self.xss_exiting = _mask(xss_exiting, "xss_exiting")
        self.xfam = None if xfam is None else _mask(xfam, "xfam")

    def __repr__(self):
        xfam = "" if self.xfam is None else f", xfam={self.xfam:#x}"
        return f"Vmx(xsaves={self.xsaves}, xss_exiting={self.xss_exiting:#x}{xfam})"

    def __reduce__(self):
        return Vmx, (self.xsaves, self.xss_exiting, self.xfam)


@cython.final
cdef class Processor:
    """A logical processor of `model`: its extended registers, and the instructions that move them.

    `xcr0`: XCR0, default all that the model has; `ia32_xss`, `ia32_xfd`: the MSRs. `cpl`: 0-3; `mode`: 64, or 32 for
    compatibility mode; `ac`: CR0.AM and EFLAGS.AC are both set; `la57`: linear addresses have 57 bits instead of 48;
    the `cr...` bits as named (CR4.CET and CR4.UINTR change none of these instructions). `modified_opt`: XSAVEOPT and
    XSAVES leave out what has not changed since XRSTOR. `atomic_faults`: a faulting instruction has changed nothing;
    None: as the CPUs of the model's profile do. `vmx`: a
    `Vmx` for non-root operation.

    Instructions take a buffer that begins at their operand, or a `Memory`; `address` is the operand's linear address,
    `mask` EDX:EAX, `rexw` the form with REX.W, `segment` "ss" for an operand addressed through the stack segment. They
    raise `Fault` or `Exit`; the forms `try_...` return it, or None.

    Raises: `ValueError` for values of control registers that the processor could not have; `UnsupportedError` for
    components that this package has no row for. Manual: SDM1 chapter 13.
    """

    def __cinit__(self, model, xcr0=None, ia32_xss=0, ia32_xfd=0, cpl=3, mode=64, cr0_ts=False, cr0_em=False,
                  cr4_osxsave=True, cr4_osfxsr=True, cr4_pke=True, cr4_cet=True, cr4_uintr=True, ac=False, la57=False,
                  modified_opt=True, atomic_faults=None, vmx=None):
        cdef Cpu *cpu = &self.cpu
        cdef Outcome out
        cdef uint8_t *at
        memset(cpu, 0, sizeof(Cpu))
        self.model = model
        self.layout = register_file(model)
        make_ruler(model, &cpu.ruler)
        cpu.file = self.layout.shape
        cpu.user = int(model.xcr0_mask)
        cpu.supervisor = int(model.xss_mask)
        fill_tables(cpu)
        fill_knobs(cpu, model)
        load_palettes(model, &cpu.palettes)
        xcr0 = cpu.user if xcr0 is None else _mask(xcr0, "XCR0")
        unknown = (xcr0 | _mask(ia32_xss, "IA32_XSS")) & ~(cpu.ruler.known | 3)
        if unknown & (cpu.user | cpu.supervisor):
            raise UnsupportedError(f"components {ComponentMask(unknown)} of {model.name} have no row in the table")
        cpu.cpl = 0
        cpu.osxsave = True
        if check_xcr0(cpu, xcr0, &out) != DONE:
            raise ValueError(f"XCR0 {ComponentMask(xcr0)}: {self.fault(&out, 'XSETBV').message}")
        cpu.xcr0 = xcr0
        cpu.xss = _mask(ia32_xss, "IA32_XSS")
        if cpu.xss & ~cpu.supervisor:
            raise ValueError(f"IA32_XSS {ComponentMask(cpu.xss)} has bits that {model.name} lacks: it has "
                             f"{model.xss_mask}")
        cpu.xfd = _mask(ia32_xfd, "IA32_XFD")
        if cpu.xfd & ~self.xfd_bits():
            raise ValueError(f"IA32_XFD {ComponentMask(cpu.xfd)} has bits that {model.name} cannot disable")
        if cpl not in (0, 1, 2, 3):
            raise ValueError(f"CPL {cpl!r} is not 0, 1, 2 or 3")
        cpu.cpl = cpl
        self.mode = mode
        cpu.ts = cr0_ts
        cpu.em = cr0_em
        cpu.osxsave = cr4_osxsave
        cpu.osfxsr = cr4_osfxsr
        cpu.pke = cr4_pke
        cpu.align = ac
        cpu.la57 = la57
        cpu.modified_opt = modified_opt and bool(model.knobs["modified_opt"])
        cpu.atomic = bool(model.knobs["atomic_faults"] if atomic_faults is None else atomic_faults)
        self.vmx = vmx
        if vmx is not None:
            if not isinstance(vmx, Vmx):
                raise TypeError(f"vmx is a Vmx or None, not {type(vmx).__name__}")
            cpu.nonroot = True
            cpu.vmx_xsaves = vmx.xsaves
            cpu.xss_exiting = vmx.xss_exiting
            cpu.has_xfam = vmx.xfam is not None
            cpu.xfam = vmx.xfam or 0
        # Room: the register file on a cache line; two areas, as large as any that an instruction can reach.
        self.storage = bytearray(cpu.file.size + ALIGNMENT)
        at = self.storage
        self.view = memoryview(self.storage)[-<uint64_t>at % ALIGNMENT:][:cpu.file.size]
        cpu.area = at + (-<uint64_t>at % ALIGNMENT)
        cpu.room = max(current_size(cpu, cpu.ruler.known | 3, FORMAT_COMPACTED),
                       current_size(cpu, cpu.ruler.placed | 3, FORMAT_STANDARD))
        cpu.room = (cpu.room + ALIGNMENT) // ALIGNMENT * ALIGNMENT
        self.spare = bytearray(2 * cpu.room)
        at = self.spare
        cpu.scratch = at
        forget_paths(cpu)
        self.reset()

    cdef uint64_t xfd_bits(self):
        return self.cpu.ruler.xfd & self.cpu.user if self.cpu.features & 16 else 0

    cdef int reset(self) except -1:
        cdef Cpu *cpu = &self.cpu
        cdef int i
        store_le64(cpu.area + HEADER_OFFSET, cpu.file.mask)
        store_le64(cpu.area + XCOMP_OFFSET, cpu.file.mask | FORMAT_BIT)
        store_le16(cpu.area, FCW_INIT)
        store_le32(cpu.area + MXCSR_OFFSET, MXCSR_INIT)
        store_le32(cpu.area + MXCSR_MASK_OFFSET, cpu.ruler.mxcsr_mask)
        for i in range(2, COMPONENT_LIMIT):
            if cpu.ruler.known >> i & 1:
                write_initial_bytes(i, component_at(cpu, i), 0, cpu.ruler.width[i])
                if cpu.branches >> i & 1:
                    store_le64(component_at(cpu, i) + 8, 32)
        cpu.initial = cpu.file.mask
        cpu.modified_low = ALL
        cpu.modified_high = BIT_SSE | HALVED
        return 0

    cdef int enter(self) except -1:
        # The batches give up the GIL while they work on this very register file.
        if self.busy:
            raise RuntimeError("this Processor runs a batch in another thread: one thread at a time")
        return 0

    # --- outcomes -----------------------------------------------------------------------------------------

    cdef object fault(self, Outcome *out, str name):
        code, words, section = RULES[out.rule]
        message = words(out.detail, self)
        if out.rule == R_TILE_CONFIG:
            code, message, section = TILE_RULES[out.detail]
        elif out.rule == R_XCR0_NEEDS or out.rule == R_XCR0_EXCLUDES:
            code = COMPONENTS[lowest(out.detail)].requirements[0].code
        offset = None if out.offset == NOWHERE else out.offset
        where = "" if offset is None else f" (byte {offset} of the operand)"
        return Fault(VECTORS[out.vector], f"{name}: {message}{where}", rule=code, section=section, offset=offset,
                     error_code=out.error_code)

    cdef object outcome(self, Outcome *out, str name):
        # The Fault or Exit, or None; misuse is raised.
        if out.kind == DONE:
            return None
        if out.kind == FAULT:
            return self.fault(out, name)
        if out.kind == EXIT:
            return Exit(EXITS[out.detail], out.detail)
        if out.kind == READ_ONLY:
            raise ValueError(f"{name} writes, and the buffer is read-only")
        if out.kind == UNPLACED:
            raise LayoutError(f"{name}: {self.model.name} gives no standard offset of a component of "
                              f"{ComponentMask(out.detail)}")
        raise ValueError(f"{name} reaches byte {out.detail - 1 & 0xFFFFFFFFFFFFFFFF} of its operand, beyond the "
                         "buffer; in a Memory it is a page fault")

    cdef object run(self, int insn, memory, mask, address, rexw, segment):
        # One instruction of the XSAVE family.
        cdef Outcome out
        cdef Operand op
        cdef Py_buffer view
        cdef Window window
        cdef uint64_t bits = word64(mask)
        self.enter()
        if isinstance(memory, Memory):
            window = open_window(memory)
            window.op.address = word64(address)
            window.op.stack = is_stack(segment)
            execute(&self.cpu, &window.op, insn, bits, rexw, &out)
        else:
            op.address = word64(address)
            op.stack = False if segment is DS else is_stack(segment)
            PyObject_GetBuffer(memory, &view, PyBUF_SIMPLE)
            op.bytes = <uint8_t *>view.buf
            op.length = view.len
            op.writable = not view.readonly
            op.regions = NULL
            op.count = 0
            execute(&self.cpu, &op, insn, bits, rexw, &out)
            PyBuffer_Release(&view)
        return None if out.kind == DONE else self.outcome(&out, INSTRUCTIONS[insn])

    cdef object run_tile(self, int insn, number_of_tile, memory, stride, address, segment):
        cdef int tile
        cdef Outcome out
        cdef Operand op
        cdef Py_buffer view
        cdef Window window
        cdef int64_t step = <int64_t>word64(stride)
        if not 0 <= number_of_tile < 8:
            raise ValueError(f"tile {number_of_tile}: 0 to 7")
        tile = number_of_tile
        self.enter()
        if isinstance(memory, Memory):
            window = open_window(memory)
            window.op.address = word64(address)
            window.op.stack = is_stack(segment)
            execute_tile(&self.cpu, &window.op, insn, tile, step, &out)
        elif memory is None and insn in (TILEZERO, TILERELEASE):
            execute_tile(&self.cpu, NULL, insn, tile, step, &out)
        else:
            op.address = word64(address)
            op.stack = is_stack(segment)
            PyObject_GetBuffer(memory, &view, PyBUF_SIMPLE)
            op.bytes = <uint8_t *>view.buf
            op.length = view.len
            op.writable = not view.readonly
            op.regions = NULL
            op.count = 0
            execute_tile(&self.cpu, &op, insn, tile, step, &out)
            PyBuffer_Release(&view)
        return self.outcome(&out, INSTRUCTIONS[insn])

    # --- the instructions ---------------------------------------------------------------------------------

    def xsave(self, memory, mask, address=0, rexw=True, segment="ds"):
        """XSAVE: XCR0 & `mask` in the standard format, initial components too [SDM1 13.7].

        Raises: `Fault`, `Exit`; `ValueError` for a plain buffer that ends before the instruction does.
        """
        result = self.run(XSAVE, memory, mask, address, rexw, segment)
        if result is not None:
            raise result

    def try_xsave(self, memory, mask, address=0, rexw=True, segment="ds"):
        """XSAVE; returns the `Fault` or `Exit`, or None."""
        return self.run(XSAVE, memory, mask, address, rexw, segment)

    def xsaveopt(self, memory, mask, address=0, rexw=True, segment="ds"):
        """XSAVEOPT: the standard format, leaving out what is initial or unmodified [SDM1 13.9].

        Raises: `Fault`, `Exit`; `ValueError` for a plain buffer that ends before the instruction does.
        """
        result = self.run(XSAVEOPT, memory, mask, address, rexw, segment)
        if result is not None:
            raise result

    def try_xsaveopt(self, memory, mask, address=0, rexw=True, segment="ds"):
        """XSAVEOPT; returns the `Fault` or `Exit`, or None."""
        return self.run(XSAVEOPT, memory, mask, address, rexw, segment)

    def xsavec(self, memory, mask, address=0, rexw=True, segment="ds"):
        """XSAVEC: the compacted format, leaving out what is initial [SDM1 13.10].

        Raises: `Fault`, `Exit`; `ValueError` for a plain buffer that ends before the instruction does.
        """
        result = self.run(XSAVEC, memory, mask, address, rexw, segment)
        if result is not None:
            raise result

    def try_xsavec(self, memory, mask, address=0, rexw=True, segment="ds"):
        """XSAVEC; returns the `Fault` or `Exit`, or None."""
        return self.run(XSAVEC, memory, mask, address, rexw, segment)

    def xsaves(self, memory, mask, address=0, rexw=True, segment="ds"):
        """XSAVES: as XSAVEC with supervisor components and the modified optimisation, at CPL 0 [SDM1 13.11].

        Raises: `Fault`, `Exit`; `ValueError` for a plain buffer that ends before the instruction does.
        """
        result = self.run(XSAVES, memory, mask, address, rexw, segment)
        if result is not None:
            raise result

    def try_xsaves(self, memory, mask, address=0, rexw=True, segment="ds"):
        """XSAVES; returns the `Fault` or `Exit`, or None."""
        return self.run(XSAVES, memory, mask, address, rexw, segment)

    def xrstor(self, memory, mask, address=0, rexw=True, segment="ds"):
        """XRSTOR: loads or initialises XCR0 & `mask` from either format [SDM1 13.8].

        Raises: `Fault`, `Exit`; `ValueError` for a plain buffer that ends before the instruction does.
        """
        result = self.run(XRSTOR, memory, mask, address, rexw, segment)
        if result is not None:
            raise result

    def try_xrstor(self, memory, mask, address=0, rexw=True, segment="ds"):
        """XRSTOR; returns the `Fault` or `Exit`, or None."""
        return self.run(XRSTOR, memory, mask, address, rexw, segment)

    def xrstors(self, memory, mask, address=0, rexw=True, segment="ds"):
        """XRSTORS: as XRSTOR with supervisor components, the compacted format alone, at CPL 0 [SDM1 13.12].

        Raises: `Fault`, `Exit`; `ValueError` for a plain buffer that ends before the instruction does.
        """
        result = self.run(XRSTORS, memory, mask, address, rexw, segment)
        if result is not None:
            raise result

    def try_xrstors(self, memory, mask, address=0, rexw=True, segment="ds"):
        """XRSTORS; returns the `Fault` or `Exit`, or None."""
        return self.run(XRSTORS, memory, mask, address, rexw, segment)

    def fxsave(self, memory, address=0, rexw=True, segment="ds"):
        """FXSAVE: x87, MXCSR and XMM registers into 512 bytes on a 16-byte boundary [SDM2 FXSAVE].

        Raises: `Fault`; `ValueError` for a plain buffer of fewer than 512 bytes.
        """
        result = self.run(FXSAVE, memory, 0, address, rexw, segment)
        if result is not None:
            raise result

    def try_fxsave(self, memory, address=0, rexw=True, segment="ds"):
        """FXSAVE; returns the `Fault`, or None."""
        return self.run(FXSAVE, memory, 0, address, rexw, segment)

    def fxrstor(self, memory, address=0, rexw=True, segment="ds"):
        """FXRSTOR: the way back [SDM2 FXRSTOR].

        Raises: `Fault`; `ValueError` for a plain buffer of fewer than 512 bytes.
        """
        result = self.run(FXRSTOR, memory, 0, address, rexw, segment)
        if result is not None:
            raise result

    def try_fxrstor(self, memory, address=0, rexw=True, segment="ds"):
        """FXRSTOR; returns the `Fault`, or None."""
        return self.run(FXRSTOR, memory, 0, address, rexw, segment)

    def ldtilecfg(self, memory, address=0, segment="ds"):
        """LDTILECFG: 64 bytes become the tile configuration, all tiles zero [SDM2 LDTILECFG].

        Raises: `Fault`; `ValueError` for a short buffer.
        """
        result = self.run_tile(LDTILECFG, 0, memory, 0, address, segment)
        if result is not None:
            raise result

    def try_ldtilecfg(self, memory, address=0, segment="ds"):
        """LDTILECFG; returns the `Fault`, or None."""
        return self.run_tile(LDTILECFG, 0, memory, 0, address, segment)

    def sttilecfg(self, memory, address=0, segment="ds"):
        """STTILECFG: the tile configuration into 64 bytes [SDM2 STTILECFG].

        Raises: `Fault`; `ValueError` for a short buffer.
        """
        result = self.run_tile(STTILECFG, 0, memory, 0, address, segment)
        if result is not None:
            raise result

    def try_sttilecfg(self, memory, address=0, segment="ds"):
        """STTILECFG; returns the `Fault`, or None."""
        return self.run_tile(STTILECFG, 0, memory, 0, address, segment)

    def tileloadd(self, tile, memory, stride, address=0, segment="ds"):
        """TILELOADD: the rows of tile `tile` (0-7), `stride` bytes apart [SDM2 TILELOADD].

        Raises: `Fault`, with start_row at the row that faulted; `ValueError` for rows outside a plain buffer.
        """
        result = self.run_tile(TILELOADD, tile, memory, stride, address, segment)
        if result is not None:
            raise result

    def try_tileloadd(self, tile, memory, stride, address=0, segment="ds"):
        """TILELOADD; returns the `Fault`, or None."""
        return self.run_tile(TILELOADD, tile, memory, stride, address, segment)

    def tileloaddt1(self, tile, memory, stride, address=0, segment="ds"):
        """TILELOADDT1: TILELOADD with a hint to the caches.

        Raises: `Fault`, with start_row at the row that faulted; `ValueError` for rows outside a plain buffer.
        """
        result = self.run_tile(TILELOADD, tile, memory, stride, address, segment)
        if result is not None:
            raise result

    def try_tileloaddt1(self, tile, memory, stride, address=0, segment="ds"):
        """TILELOADDT1; returns the `Fault`, or None."""
        return self.run_tile(TILELOADD, tile, memory, stride, address, segment)

    def tilestored(self, tile, memory, stride, address=0, segment="ds"):
        """TILESTORED: the rows of tile `tile` (0-7) into memory, `stride` bytes apart [SDM2 TILESTORED].

        Raises: `Fault`, with start_row at the row that faulted; `ValueError` for rows outside a plain buffer.
        """
        result = self.run_tile(TILESTORED, tile, memory, stride, address, segment)
        if result is not None:
            raise result

    def try_tilestored(self, tile, memory, stride, address=0, segment="ds"):
        """TILESTORED; returns the `Fault`, or None."""
        return self.run_tile(TILESTORED, tile, memory, stride, address, segment)

    def tilezero(self, tile):
        """TILEZERO: all of tile `tile` (0-7) becomes zero [SDM2 TILEZERO]. Raises: `Fault`."""
        result = self.run_tile(TILEZERO, tile, None, 0, 0, "ds")
        if result is not None:
            raise result

    def try_tilezero(self, tile):
        """TILEZERO; returns the `Fault`, or None."""
        return self.run_tile(TILEZERO, tile, None, 0, 0, "ds")

    def tilerelease(self):
        """TILERELEASE: TILECFG and TILEDATA become initial [SDM2 TILERELEASE]. Raises: `Fault`."""
        result = self.run_tile(TILERELEASE, 0, None, 0, 0, "ds")
        if result is not None:
            raise result

    def try_tilerelease(self):
        """TILERELEASE; returns the `Fault`, or None."""
        return self.run_tile(TILERELEASE, 0, None, 0, 0, "ds")

    # --- XCR0, MSRs, CPUID --------------------------------------------------------------------------------

    def xgetbv(self, index):
        """XGETBV: XCR0 (index 0), or XCR0 & XINUSE with MXCSR's rule (index 1) [SDM1 13.3, 13.6].

        `index` is RCX, of which the instruction reads the lower half. Raises: `Fault`.
        """
        result = self.try_xgetbv(index)
        if isinstance(result, Fault):
            raise result
        return result

    def try_xgetbv(self, index):
        """XGETBV; returns the value, or the `Fault`."""
        cdef Outcome out
        if get_xcr(&self.cpu, <uint32_t>word64(index), &out) == DONE:
            return out.detail
        return self.outcome(&out, "XGETBV")

    def xsetbv(self, index, value):
        """XSETBV: sets XCR0 [SDM1 13.3]. Registers of components that it disables keep their contents.

        Raises: `Fault` naming the rule that the value breaks; `Exit` in VMX non-root operation.
        """
        result = self.try_xsetbv(index, value)
        if result is not None:
            raise result

    def try_xsetbv(self, index, value):
        """XSETBV; returns the `Fault` or `Exit`, or None."""
        cdef Outcome out
        cdef uint64_t before = self.cpu.xcr0
        self.enter()
        set_xcr0(&self.cpu, <uint32_t>word64(index), word64(value), &out)
        if out.kind == DONE and self.cpu.xcr0 & ~(self.cpu.ruler.known | 3):
            self.cpu.xcr0 = before
            raise UnsupportedError(f"components of XCR0 {ComponentMask(out.detail)} have no row in the table")
        return self.outcome(&out, "XSETBV")

    def rdmsr(self, number):
        """RDMSR of IA32_XSS, IA32_XFD, IA32_XFD_ERR or an MSR behind a supervisor component [SDM4].

        Raises: `Fault`; `UnsupportedError` for an MSR that is not of extended state.
        """
        cdef Outcome out
        cdef Cpu *cpu = &self.cpu
        if cpu.cpl:
            fault(&out, GP, R_CPL, NOWHERE, cpu.cpl)
            raise self.fault(&out, "RDMSR")
        if number in (IA32_XFD, IA32_XFD_ERR, IA32_XSS):
            if not cpu.features & (HAS_XSAVES if number == IA32_XSS else 16):
                fault(&out, GP, R_MSR_MISSING, NOWHERE, number)
                raise self.fault(&out, "RDMSR")
            return cpu.xss if number == IA32_XSS else cpu.xfd if number == IA32_XFD else cpu.xfd_err
        return read_scalar(&self.msr_field(number, "RDMSR").op, cpu.area)

    def wrmsr(self, number, value):
        """WRMSR: as `rdmsr`; the value is checked as the CPU would [SDM1 13.3, 13.12, 13.14].

        Raises: `Fault`; `Exit` for IA32_XSS beyond an XFAM; `UnsupportedError`.
        """
        result = self.try_wrmsr(number, value)
        if result is not None:
            raise result

    def try_wrmsr(self, number, value):
        """WRMSR; returns the `Fault` or `Exit`, or None."""
        cdef Outcome out
        cdef Cpu *cpu = &self.cpu
        cdef uint64_t bits = word64(value)
        cdef uint64_t allowed
        cdef const Check *check
        self.enter()
        if cpu.cpl:
            fault(&out, GP, R_CPL, NOWHERE, cpu.cpl)
            return self.fault(&out, "WRMSR")
        if number in (IA32_XFD, IA32_XFD_ERR, IA32_XSS):
            if not cpu.features & (HAS_XSAVES if number == IA32_XSS else 16):
                fault(&out, GP, R_MSR_MISSING, NOWHERE, number)
                return self.fault(&out, "WRMSR")
            allowed = cpu.supervisor if number == IA32_XSS else self.xfd_bits()
            if bits & ~allowed:
                fault(&out, GP, R_MSR_MASK, NOWHERE, bits & ~allowed)
                return self.fault(&out, "WRMSR")
            if number == IA32_XSS and cpu.has_xfam and bits & ~cpu.xfam:
                return Exit("WRMSR", EXIT_WRMSR)
            if number == IA32_XSS:
                if bits & ~cpu.ruler.known:
                    raise UnsupportedError(f"components of IA32_XSS {ComponentMask(bits)} have no row in the table")
                cpu.xss = bits
            elif number == IA32_XFD:
                cpu.xfd = bits
            else:
                cpu.xfd_err = bits
            return None
        try:
            field = self.msr_field(number, "WRMSR")
        except Fault as refused:
            return refused
        check = find_check(cpu, number)
        if check != NULL and value_fault(cpu, check, bits, False, 0, &out) != DONE:
            return self.fault(&out, "WRMSR")
        self.put_msr(field, bits)
        return None

    cdef Field msr_field(self, number, str name):
        cdef Outcome out
        row = MSRS.get(number)
        if row is None:
            raise UnsupportedError(f"MSR {number:#x} is not of extended state")
        if not self.cpu.supervisor >> <int>REGISTERS[row.register].component & 1:
            fault(&out, GP, R_MSR_MISSING, NOWHERE, number)
            raise self.fault(&out, name)
        return find_field(self.layout, row.register)

    cdef int put_msr(self, Field field, uint64_t value) except -1:
        cdef int i = lowest(bits_of(&field.op))
        write_value(&field.op, field.name, value, self.cpu.area)
        if self.cpu.branches >> i & 1 and field.name == "IA32_LBR_DEPTH":      # the records become 0 (SDM3B 19.1)
            memset(component_at(&self.cpu, i) + 40, 0, self.cpu.stored[i] - 40)
        touch(&self.cpu, bits_of(&field.op))
        return 0

    def cpuid(self, leaf, subleaf=0):
        """CPUID: (EAX, EBX, ECX, EDX). Leaf 0DH follows XCR0 and IA32_XSS, leaf 1 CR4.OSXSAVE, all else is the model's.

        Raises: `Exit` in VMX non-root operation. A leaf that the record lacks is all zero [SDM2 CPUID].
        """
        cdef Cpu *cpu = &self.cpu
        if cpu.nonroot:
            raise Exit("CPUID", EXIT_CPUID)
        values = self.model.cpuid.get((leaf, subleaf))
        if values is None and leaf not in SUBLEAVES:
            values = self.model.cpuid.get((leaf, 0))
        eax, ebx, ecx, edx = values or (0, 0, 0, 0)
        if leaf == 1:
            ecx = ecx & ~(1 << 27) | (1 << 27 if cpu.osxsave else 0)
        elif leaf == 0xD and subleaf == 0:
            ebx = current_size(cpu, cpu.xcr0, FORMAT_STANDARD)
        elif leaf == 0xD and subleaf == 1 and cpu.features & HAS_XSAVEC:
            ebx = current_size(cpu, cpu.xcr0 | (cpu.xss if cpu.features & HAS_XSAVES else 0), FORMAT_COMPACTED)
        return eax, ebx, ecx, edx

    # --- registers ----------------------------------------------------------------------------------------

    def load(self, values, xinuse=None):
        """Sets registers, by `decode`'s names; those not named keep their values, whatever mode, XCR0 and XFD are.

        A vector register under a narrow name is zero above it. `xinuse` None: a component is in use exactly if its
        values are not the initial ones; a mask: XINUSE is exactly that (components that XCR0 does not enable go by
        their values all the same). Everything counts as modified afterwards.

        Raises: `KeyError` for a register that the model lacks; `ValueError` for a value that does not fit, a TILECFG
        that no LDTILECFG leaves behind, or a mask that leaves out a component of XCR0 whose values are not initial.
        """
        cdef Cpu *cpu = &self.cpu
        cdef Field field
        cdef uint64_t found
        cdef bytearray saved = bytearray(self.view)
        cdef uint64_t mask = 0
        self.enter()
        if xinuse is not None:
            mask = _mask(xinuse, "xinuse")
        try:
            for name, value in values.items():
                row = find_register(name)
                name = row.name
                if name == "mxcsr_mask":
                    continue
                if name == "tilecfg" or row.family == "tmm":
                    value = whole_value(b"" if isinstance(value, int) else value, row.width)
                if name == "tilecfg":
                    self.check_config(value)
                if row.family in ("xmm", "ymm", "zmm"):
                    self.put_vector(row.index, value, row.width)
                else:
                    field = self.field(name)
                    write_value(&field.op, name, value, cpu.area)
            found = by_contents(cpu, cpu.file.mask)
            mask |= found & ~cpu.xcr0       # what XGETBV(1) does not show goes by its contents
            if xinuse is not None and found & ~mask:
                raise ValueError(f"xinuse {ComponentMask(mask)} leaves out {_names(found & ~mask)}, which is not "
                                 "initial")
        except Exception:
            self.view[:] = saved
            raise
        cpu.initial = cpu.file.mask & ~found
        cpu.unknown = 0
        cpu.tagged = 0
        cpu.fcs = 0
        cpu.fds = 0
        if xinuse is not None:
            cpu.low = mask & cpu.file.mask
            if cpu.by_value:
                tag_mask(cpu, mask)
            cpu.high = 0 if cpu.by_value else mask & (BIT_SSE | HALVED) & cpu.file.mask
        else:
            self.mark_by_contents(found)
        cpu.modified_low = ALL
        cpu.modified_high = BIT_SSE | HALVED
        cpu.info_valid = False
        return None

    cdef int check_config(self, bytes image) except -1:
        # What no LDTILECFG could have left there, and tile moves do not check again.
        cdef uint32_t culprit = 0
        cdef int rule = config_fault(image, &self.cpu.palettes, ALL, &culprit)
        if rule:
            raise ValueError(f"no CPU holds this TILECFG: {TILE_RULES[rule][1]} (byte {culprit})")
        if image[0] == 0 and any(image):
            raise ValueError("no CPU holds this TILECFG: palette 0 with other bytes set")
        return 0

    cdef int mark_by_contents(self, uint64_t found) except -1:
        cdef Cpu *cpu = &self.cpu
        cdef uint64_t upper = 0
        cdef uint64_t lower = 0
        cdef uint64_t rest = HALVED & found
        cdef int i = 0
        cpu.low = found
        cpu.high = 0
        if cpu.by_value:
            return 0
        if found & BIT_SSE:
            if not has_initial_bytes(1, cpu.area, XMM_OFFSET, XMM_HALF):
                lower |= BIT_SSE
            if not has_initial_bytes(1, cpu.area, XMM_HALF, XMM_END):
                upper |= BIT_SSE
        while rest:
            if rest & 1:
                if not has_initial_bytes(i, component_at(cpu, i), 0, cpu.narrow[i]):
                    lower |= <uint64_t>1 << i
                if not has_initial_bytes(i, component_at(cpu, i), cpu.narrow[i], cpu.stored[i]):
                    upper |= <uint64_t>1 << i
            rest >>= 1
            i += 1
        cpu.low = (found & ~(BIT_SSE | HALVED)) | lower
        cpu.high = upper
        return 0

    cdef Field field(self, name):
        try:
            return find_field(self.layout, name)
        except LayoutError:
            raise KeyError(f"{self.model.name} has no register {name}") from None

    cdef int put_vector(self, int n, value, Py_ssize_t width) except -1:
        # All of a vector register: `width` bytes of value, zero above.
        cdef bytes wide
        cdef Field field
        widest = "ymm" if self.cpu.ruler.known & BIT_AVX else "xmm"
        if n >= 16 or HALVED & self.cpu.ruler.known & ~<uint64_t>BIT_AVX:
            widest = "zmm"
        data = whole_value(value, width)
        field = self.field(f"{widest}{n}")
        room = field.op.width
        if any(data[room:]):
            raise ValueError(f"{self.model.name} has no vector register of {width} bytes")
        wide = data[:room] + bytes(max(0, room - width))
        write_value(&field.op, field.name, wide, self.cpu.area)
        return 0

    def registers(self):
        """The whole register file, a dict in `decode`'s names, whatever mode, XCR0 and XFD are."""
        return decode(Area(self.view, self.layout))

    # --- what other instructions do to the registers ------------------------------------------------------

    cdef object enabled(self, uint64_t needed, str name, uint64_t disabling):
        # The fault of an instruction that needs these components of XCR0, or None.
        cdef Outcome out
        cdef Cpu *cpu = &self.cpu
        self.enter()
        if needed and not cpu.osxsave:
            fault(&out, UD, R_OSXSAVE, NOWHERE, 0)
        elif needed & ~cpu.xcr0:
            fault(&out, UD, R_XCR0_OFF, NOWHERE, needed & ~cpu.xcr0)
        elif cpu.ts and name[0] != "T":
            fault(&out, NM, R_TS, NOWHERE, 0)
        elif disabling & cpu.xcr0 & cpu.xfd:
            cpu.xfd_err = disabling & cpu.xcr0 & cpu.xfd
            fault(&out, NM, R_XFD, NOWHERE, cpu.xfd_err)
        else:
            return None
        return self.fault(&out, name)

    def write(self, name, value, vex=False):
        """Writes one register as an instruction that loads it does, with its effect on XINUSE and XMODIFIED.

        A value of zero is written as an instruction does that always gives zero (XORPS, VPXORD, KXORQ).

        xmmN as legacy SSE does (what lies above stays; `vex=True`: becomes zero), ymmN and zmmN as VEX and EVEX do,
        stN, kN, tmmN, bndN and r16-r31 as the load of that register; fcw as FLDCW, mxcsr as LDMXCSR, pkru as WRPKRU,
        tilecfg as LDTILECFG, MSRs as WRMSR. Values as `load` takes them.

        Raises: `Fault` as that instruction would; `ValueError` for a register that no instruction writes alone;
        `KeyError` for one that the model lacks.
        """
        cdef Field field
        cdef bytes data
        cdef Outcome out
        cdef Cpu *cpu = &self.cpu
        row = find_register(name)
        name = row.name
        family = row.family
        if family in ("xmm", "ymm", "zmm"):
            self.write_vector(row, value, vex)
            return
        if name == "mxcsr":
            self.ldmxcsr(value)
            return
        if name == "tilecfg":
            self.ldtilecfg(whole_value(b"" if isinstance(value, int) else value, 64))
            return
        if name.startswith("IA32_"):
            for number, msr in MSRS.items():
                if msr.register == row.name:
                    self.wrmsr(number, value)
            return
        if name in ("fsw", "ftw", "fop", "fip", "fdp", "mxcsr_mask", "bndstatus", "bndcfgu", "bsr0", "lwp", "uif"):
            raise ValueError(f"no instruction writes {name} alone; load sets it")
        field = self.field(name)
        bits = bits_of(&field.op)
        refused = self.enabled(bits & ~<uint64_t>LEGACY_BITS, name, bits & cpu.ruler.xfd)
        if name == "pkru" and not cpu.pke:
            fault(&out, UD, R_PKE, NOWHERE, 0)
            refused = self.fault(&out, "WRPKRU")
        if refused is not None:
            raise refused
        if family == "k":
            data = whole_value(value, 8)
            write_opmask(cpu, row.index, load_le64(<const uint8_t *>data), not any(data))
            return
        write_value(&field.op, field.name, value, cpu.area)
        if family == "st":
            cpu.area[FTW_OFFSET] |= 1 << (((load_le16(cpu.area + 2) >> 11) + <int>row.index) & 7)
        elif family == "fcw":
            store_le16(cpu.area, (load_le16(cpu.area) & FCW_KEPT) | FCW_SET)
        elif family == "tmm":
            cpu.tiles_loaded = True
        touch(cpu, bits)

    cdef int write_vector(self, row, value, bint vex) except -1:
        cdef Cpu *cpu = &self.cpu
        cdef uint8_t wide[64]
        cdef bytes data
        cdef int n = row.index
        cdef int width = row.width
        if width > 16 or n >= 16:
            vex = True
        needed = BIT_SSE | BIT_AVX if vex else 0
        if width == 64 or n >= 16:
            needed |= HALVED | UPPER
        refused = self.enabled(needed, f"{row.name}", 0)
        if refused is not None:
            raise refused
        if n >= 8 and not cpu.long_mode:
            raise ValueError(f"{row.name} does not exist outside 64-bit mode")
        data = whole_value(value, width)
        memcpy(wide, <const uint8_t *>data, width)
        write_vector(cpu, n, width, vex, wide, not any(data))
        return 0

    cdef int zero_vectors(self, bint whole) except -1:
        # VZEROUPPER, VZEROALL.
        refused = self.enabled(BIT_SSE | BIT_AVX, "VZEROALL" if whole else "VZEROUPPER", 0)
        if refused is not None:
            raise refused
        zero_vectors(&self.cpu, whole)
        return 0

    def vzeroupper(self):
        """VZEROUPPER: bits 128 and up of vector registers 0-15 become zero [SDM2 VZEROUPPER]. Raises: `Fault`."""
        self.zero_vectors(False)

    def vzeroall(self):
        """VZEROALL: vector registers 0-15 become zero [SDM2 VZEROALL]. Raises: `Fault`."""
        self.zero_vectors(True)

    def fninit(self):
        """FNINIT: FCW 37FH, all tags empty, TOP 0; the registers keep their contents [SDM2 FNINIT]. Raises: `Fault`."""
        refused = self.enabled(0, "FNINIT", 0)
        if refused is not None:
            raise refused
        initialise_x87(&self.cpu)

    def ldmxcsr(self, value):
        """LDMXCSR [SDM2 LDMXCSR]. Raises: `Fault` for reserved bits."""
        cdef Outcome out
        cdef Cpu *cpu = &self.cpu
        cdef uint32_t bits
        if not 0 <= value < 1 << 32:
            raise ValueError(f"MXCSR {value:#x} does not fit 32 bits")
        refused = self.enabled(0, "LDMXCSR", 0)
        if refused is not None:
            raise refused
        bits = value
        if load_mxcsr(cpu, bits, &out) != DONE:
            raise self.fault(&out, "LDMXCSR")

    # --- batches ------------------------------------------------------------------------------------------

    def execute_many(self, instruction, areas, mask, address=0, rexw=True):
        """One instruction over every row of `areas`, in order, without the GIL.

        `areas`: a C-contiguous buffer of (N, stride) bytes; row i is a plain buffer of `stride` bytes whose operand has
        linear address `address + i * stride`. `instruction`: "XSAVE", "XSAVEOPT", "XSAVEC", "XSAVES", "XRSTOR",
        "XRSTORS", "FXSAVE" or "FXRSTOR". Returns the list of (row, `Fault` or `Exit`), empty if all went through.

        Raises: `ValueError` for an unknown instruction, a buffer of other than two dimensions, or rows that end before
        the instruction does; rows before that one are done.
        """
        cdef Outcome out
        cdef Operand op
        cdef Py_buffer view
        cdef int insn
        cdef Py_ssize_t i = 0
        cdef Py_ssize_t count, stride
        cdef uint64_t bits = word64(mask)
        cdef uint64_t base = word64(address)
        cdef bint wide = rexw
        if instruction not in INSTRUCTIONS[:LDTILECFG]:
            raise ValueError(f"no instruction {instruction!r}: one of {', '.join(INSTRUCTIONS[:LDTILECFG])}")
        insn = INSTRUCTIONS.index(instruction)
        found = []
        self.enter()
        PyObject_GetBuffer(areas, &view, PyBUF_C_CONTIGUOUS | PyBUF_ND)
        try:
            if view.ndim != 2 or view.itemsize != 1:
                raise ValueError("areas are a two-dimensional buffer of bytes")
            count = view.shape[0]
            stride = view.shape[1]
            op.regions = NULL
            op.count = 0
            op.length = stride
            op.writable = not view.readonly
            op.stack = False
            while i < count:
                self.busy = True
                with nogil:
                    while i < count:
                        op.bytes = <uint8_t *>view.buf + i * stride
                        op.address = base + <uint64_t>(i * stride)
                        if execute(&self.cpu, &op, insn, bits, wide, &out) != DONE:
                            break
                        i += 1
                self.busy = False
                if i < count:
                    found.append((i, self.outcome(&out, instruction)))
                    i += 1
        finally:
            PyBuffer_Release(&view)
        return found

    def switch(self, save, restore, mask, save_address=0, restore_address=0, instruction="XSAVEC"):
        """One context switch: `instruction` into `save`, then XRSTOR from `restore`, both with `mask` and REX.W.

        `save` and `restore` are plain buffers. Raises: `Fault`; `ValueError` as the instructions do.
        """
        cdef Outcome out
        cdef Operand op
        cdef Py_buffer into
        cdef Py_buffer from_
        cdef int insn = XSAVEC
        cdef uint64_t bits = word64(mask)
        if instruction is not XSAVEC_NAME:
            if instruction not in INSTRUCTIONS[:XRSTOR]:
                raise ValueError(f"{instruction!r} is no save instruction")
            insn = INSTRUCTIONS.index(instruction)
        self.enter()
        PyObject_GetBuffer(save, &into, PyBUF_WRITABLE)
        try:
            PyObject_GetBuffer(restore, &from_, PyBUF_SIMPLE)
        except BaseException:
            PyBuffer_Release(&into)
            raise
        op.regions = NULL
        op.count = 0
        op.stack = False
        op.bytes = <uint8_t *>into.buf
        op.length = into.len
        op.writable = True
        op.address = word64(save_address)
        if execute(&self.cpu, &op, insn, bits, True, &out) == DONE:
            insn = XRSTOR
            op.bytes = <uint8_t *>from_.buf
            op.length = from_.len
            op.address = word64(restore_address)
            execute(&self.cpu, &op, insn, bits, True, &out)
        PyBuffer_Release(&into)
        PyBuffer_Release(&from_)
        if out.kind != DONE:
            raise self.outcome(&out, INSTRUCTIONS[insn])

    def switch_many(self, saves, restores, mask, instruction="XSAVEC"):
        """N context switches, without the GIL: `instruction` into row i of `saves`, XRSTOR from row i of `restores`.

        Both are C-contiguous buffers of (N, stride) bytes; linear addresses are the rows' own, so that saving where the
        state came from finds it unmodified. Raises: `Fault` of the first switch that takes one, the ones before it
        are done; `ValueError`.
        """
        cdef Outcome out
        cdef Operand op
        cdef Py_buffer into
        cdef Py_buffer from_
        cdef int insn, now
        cdef Py_ssize_t i, count
        cdef uint64_t bits = word64(mask)
        if instruction not in INSTRUCTIONS[:XRSTOR]:
            raise ValueError(f"{instruction!r} is no save instruction")
        insn = INSTRUCTIONS.index(instruction)
        self.enter()
        PyObject_GetBuffer(saves, &into, PyBUF_WRITABLE | PyBUF_C_CONTIGUOUS | PyBUF_ND)
        try:
            PyObject_GetBuffer(restores, &from_, PyBUF_C_CONTIGUOUS | PyBUF_ND)
        except BaseException:
            PyBuffer_Release(&into)
            raise
        try:
            if into.ndim != 2 or from_.ndim != 2 or into.itemsize != 1 or from_.itemsize != 1:
                raise ValueError("saves and restores are two-dimensional buffers of bytes")
            count = into.shape[0]
            if from_.shape[0] != count:
                raise ValueError(f"{count} rows to save into, {from_.shape[0]} to restore from")
            op.regions = NULL
            op.count = 0
            op.stack = False
            now = insn
            leave(&out, DONE, 0)
            self.busy = True
            with nogil:
                for i in range(count):
                    op.bytes = <uint8_t *>into.buf + i * into.shape[1]
                    op.length = into.shape[1]
                    op.writable = True
                    op.address = <uint64_t><size_t>op.bytes
                    now = insn
                    if execute(&self.cpu, &op, insn, bits, True, &out) != DONE:
                        break
                    op.bytes = <uint8_t *>from_.buf + i * from_.shape[1]
                    op.length = from_.shape[1]
                    op.address = <uint64_t><size_t>op.bytes
                    now = XRSTOR
                    if execute(&self.cpu, &op, XRSTOR, bits, True, &out) != DONE:
                        break
            self.busy = False
        finally:
            PyBuffer_Release(&into)
            PyBuffer_Release(&from_)
        if out.kind != DONE:
            raise self.outcome(&out, INSTRUCTIONS[now])

    # --- to read ------------------------------------------------------------------------------------------

    @property
    def xinuse(self):
        """XINUSE as instructions of the present mode see it, XFD apart: a `ComponentMask` [SDM1 13.6]."""
        return ComponentMask(xinuse(&self.cpu))

    @property
    def xmodified(self):
        """XMODIFIED: components not known to be what the last XRSTOR loaded [SDM1 13.6]."""
        return ComponentMask(xmodified(&self.cpu) & self.cpu.file.mask)

    @property
    def xrstor_info(self):
        """(CPL, VMX non-root, linear address, XCOMP_BV) of the last XRSTOR or XRSTORS, or None [SDM1 13.6]."""
        cdef Cpu *cpu = &self.cpu
        return (cpu.info_cpl, bool(cpu.info_nonroot), cpu.info_address, cpu.info_xcomp) if cpu.info_valid else None

    @property
    def xcr0(self):
        """XCR0, a `ComponentMask`."""
        return ComponentMask(self.cpu.xcr0)

    @property
    def ia32_xss(self):
        """IA32_XSS, a `ComponentMask`."""
        return ComponentMask(self.cpu.xss)

    @property
    def ia32_xfd(self):
        """IA32_XFD, a `ComponentMask`."""
        return ComponentMask(self.cpu.xfd)

    @property
    def ia32_xfd_err(self):
        """IA32_XFD_ERR, a `ComponentMask`."""
        return ComponentMask(self.cpu.xfd_err)

    @property
    def mode(self):
        """64, or 32 for compatibility mode; can be set."""
        return 64 if self.cpu.long_mode else 32

    @mode.setter
    def mode(self, value):
        if value not in (64, 32):
            raise ValueError(f"mode {value!r} is neither 64 nor 32")
        self.cpu.long_mode = value == 64

    @property
    def cpl(self):
        """The current privilege level, 0-3; can be set."""
        return self.cpu.cpl

    @cpl.setter
    def cpl(self, value):
        if value not in (0, 1, 2, 3):
            raise ValueError(f"CPL {value!r} is not 0, 1, 2 or 3")
        self.cpu.cpl = value

    @property
    def cr0_ts(self):
        """CR0.TS; can be set."""
        return bool(self.cpu.ts)

    @cr0_ts.setter
    def cr0_ts(self, value):
        self.cpu.ts = bool(value)

    def __repr__(self):
        return (f"<Processor {self.model.name}: XCR0 {self.xcr0}, XINUSE {self.xinuse}, CPL {self.cpl}, "
                f"{self.mode}-bit mode>")
