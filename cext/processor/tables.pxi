# The tables and the model's knobs as the numbers that the kernels read.

cdef dict STAGES = {"pf-header": STAGE_PF_HEADER, "gp-xcomp-xcr0": STAGE_GP_XCOMP, "pf-probes": STAGE_PF_PROBES,
                    "gp-header": STAGE_GP_HEADER, "nm-xfd": STAGE_NM_XFD, "gp-mxcsr": STAGE_GP_MXCSR,
                    "pf-interior": STAGE_PF_INTERIOR}
cdef dict POINTERS = {"always": POINTERS_ALWAYS, "es_only_zero": POINTERS_ZERO, "es_only_skip": POINTERS_SKIP}


cdef uint32_t place_in(str name) except? 0:
    # Where a register lies in its component.
    return REGISTERS[name].parts[0].offset


cdef int fill_tables(Cpu *cpu) except -1:
    # What the tables say of every component and register, as numbers.
    cdef Check *check
    cdef int i
    cdef uint64_t bit
    for component, info in COMPONENTS.items():
        i = component
        bit = <uint64_t>1 << i
        for requirement in info.requirements:
            cpu.needs[i] |= <uint64_t>requirement.needs
            cpu.excludes[i] |= <uint64_t>requirement.excludes
        if info.rule == "trace":
            cpu.trace = bit
        elif info.rule == "interrupts":
            cpu.interrupts = bit
        elif info.rule == "branches":
            cpu.branches = bit
        elif info.rule == "tile configuration":
            cpu.tilecfg = bit
        elif info.rule == "tile data":
            cpu.tiledata = bit
        elif info.rule == "tile scale":
            cpu.scale = bit
    for row in REGISTERS.values():
        if row.narrow:
            continue
        part = row.parts[len(row.parts) - 1]
        i = part.component
        bit = <uint64_t>1 << i
        if i < 2 or not cpu.ruler.known >> i & 1:
            continue
        cpu.unit[i] = part.width
        if row.family == "k":
            cpu.opmask = bit
        cpu.stored[i] = max(cpu.stored[i], <uint32_t>(part.offset + part.width))
        if row.family in ("ymm", "zmm") and row.index < 16:
            if row.index < 8:
                cpu.narrow[i] = max(cpu.narrow[i], <uint32_t>(part.offset + part.width))
        elif row.family != "zmm":
            cpu.narrow[i] = cpu.stored[i]
    for i in range(2, COMPONENT_LIMIT):
        bit = <uint64_t>1 << i
        if not cpu.ruler.known & bit:
            continue
        if cpu.stored[i] == 0 or cpu.stored[i] > cpu.ruler.width[i]:
            cpu.stored[i] = cpu.ruler.width[i]
            cpu.narrow[i] = min(cpu.narrow[i], cpu.stored[i])
        if cpu.trace & bit:     # its registers end early, reserved bytes are stored as 0 and checked
            cpu.unit[i] = cpu.stored[i]
            cpu.stored[i] = cpu.ruler.width[i]
            cpu.narrow[i] = cpu.stored[i]
        if cpu.stored[i] >= 8 and not any(COMPONENTS[i].init_image()[:8]) and not cpu.tilecfg & bit:
            cpu.zero_first |= bit
        cpu.load_width[i] = cpu.stored[i]
        cpu.load_narrow[i] = cpu.narrow[i]
    cpu.tilecfg &= cpu.ruler.known
    cpu.tiledata &= cpu.ruler.known
    cpu.trace &= cpu.ruler.known
    cpu.interrupts &= cpu.ruler.known
    cpu.branches &= cpu.ruler.known
    cpu.scale &= cpu.ruler.known
    cpu.trace_control = place_in("IA32_RTIT_CTL")
    cpu.notification = place_in("IA32_UINTR_MISC")
    cpu.depth = place_in("IA32_LBR_DEPTH")
    cpu.records = place_in("IA32_LBR_0_FROM_IP")
    cpu.record = place_in("IA32_LBR_1_FROM_IP") - cpu.records
    for row in MSRS.values():
        if not (row.reserved or row.exclusive or row.canonical or row.values):
            continue
        register = REGISTERS[row.register]
        if not cpu.ruler.known >> <int>register.component & 1:
            continue
        if cpu.check_count == 32:
            raise SystemError("more MSRs with rules than there is room for")
        check = &cpu.checks[cpu.check_count]
        check.component = register.component
        check.at = register.parts[0].offset
        check.number = row.number
        check.ignored = ALL ^ <uint64_t>(register.mask & ALL)
        check.reserved = row.reserved
        check.exclusive = row.exclusive
        check.canonical = row.canonical
        check.depth = bool(row.values)
        cpu.check_count += 1
    return 0


cdef int fill_probes(int32_t *probes, names) except -1:
    cdef int i
    for i in range(4):
        probes[i] = PROBE_END
    for i, name in enumerate(names):
        probes[i] = PROBE_LAST if name == "last" else PROBE_LEGACY if name == "legacy" else name
    return 0


cdef int fill_knobs(Cpu *cpu, model) except -1:
    cdef int i
    knobs = model.knobs
    cpu.by_value = knobs["xinuse"] == "value"
    cpu.low_only = knobs["xinuse_compat_mode"] == "low"
    cpu.ldmxcsr_marks = knobs["ldmxcsr_marks_sse"]
    cpu.align_xsave = knobs["ac_on_xsave"]
    cpu.align_fxsave = knobs["ac_on_fxsave"]
    cpu.extent_xcomp = knobs["xrstor_compacted_extent"] == "xcomp_bv"
    cpu.legacy_always = knobs["legacy_region"] == "always"
    cpu.skips_tilecfg = knobs["modified_opt_skips_tilecfg"]
    cpu.before_disabled = knobs["xfd_extent"] == "before_disabled"
    cpu.align_first = knobs["alignment_first"]
    cpu.fxrstor_forgets = knobs["fxrstor_ends_modified_opt"]
    cpu.selectors = knobs["fcs_fds"] == "kept"
    cpu.pointers = POINTERS[knobs["x87_ptrs"]]
    cpu.fip_bits = knobs["fip_width"]
    cpu.fdp_bits = knobs["fdp_width"]
    fill_probes(cpu.save_probes, knobs["probe_order_save"])
    fill_probes(cpu.restore_probes, knobs["probe_order_restore"])
    for i, name in enumerate(knobs["xrstor_priorities"]):
        cpu.stages[i] = STAGES[name]
    features = model.instructions
    for name, bit in (("xsaveopt", HAS_XSAVEOPT), ("xsavec", HAS_XSAVEC), ("xgetbv1", HAS_XGETBV1),
                      ("xsaves", HAS_XSAVES), ("xfd", 16)):
        if name in features:
            cpu.features |= <uint32_t>bit
    sizes = model.cpuid.get((0x80000008, 0))
    cpu.linear_bits = (sizes[0] >> 8 & 0xFF if sizes else 0) or 48
    return 0
