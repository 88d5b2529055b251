# What outcomes are called: instructions, vectors, exits, and the rules that faults break.

cdef list INSTRUCTIONS = ["XSAVE", "XSAVEOPT", "XSAVEC", "XSAVES", "XRSTOR", "XRSTORS", "FXSAVE", "FXRSTOR",
                          "LDTILECFG", "STTILECFG", "TILELOADD", "TILESTORED", "TILEZERO", "TILERELEASE"]
# Leaves of CPUID whose sub-leaves differ (SDM2 CPUID).
cdef frozenset SUBLEAVES = frozenset((4, 7, 0xB, 0xD, 0xF, 0x10, 0x12, 0x14, 0x17, 0x18, 0x1D, 0x1E, 0x1F))
cdef str DS = "ds"
cdef str XSAVEC_NAME = "XSAVEC"
cdef dict VECTORS = {UD: "#UD", NM: "#NM", SS: "#SS", GP: "#GP", PF: "#PF", AC: "#AC"}
cdef dict EXITS = {EXIT_CPUID: "CPUID", EXIT_WRMSR: "WRMSR", EXIT_XSETBV: "XSETBV", EXIT_XSAVES: "XSAVES",
                   EXIT_XRSTORS: "XRSTORS"}


def _names(bits):
    return " ".join(ComponentMask(bits).names) or "no component"


def _register_of(number):
    return MSRS[number].register if number in MSRS else f"MSR {number:#x}"


# rule: (code, message, section); the message is made of the detail and the processor.
cdef dict RULES = {
    R_CPUID: ("CPUID", lambda d, c: f"{c.model.name} does not enumerate the instruction", "SDM1 13.2"),
    R_OSXSAVE: ("OSXSAVE", lambda d, c: "CR4.OSXSAVE is 0", "SDM1 13.2"),
    R_MODE: ("MODE", lambda d, c: "the instruction exists in 64-bit mode alone", "SDM2 2.10"),
    R_TS: ("TS", lambda d, c: "CR0.TS is 1", "SDM1 13.7"),
    R_EM: ("EM", lambda d, c: "CR0.EM is 1", "SDM2 FXSAVE"),
    R_CPL: ("CPL", lambda d, c: f"CPL is {d}, the instruction needs 0", "SDM1 13.11"),
    R_CANONICAL: ("CANONICAL", lambda d, c: f"linear address {d:#x} is not canonical", "SDM1 3.3.7.1"),
    R_ALIGN: ("ALIGN", lambda d, c: f"the operand is not aligned to {d} bytes", "SDM1 13.4"),
    R_PAGE: ("PAGE", lambda d, c: "a byte of the operand is not present", "SDM1 13.13"),
    R_WRITE: ("WRITE", lambda d, c: "a byte of the operand cannot be written", "SDM1 13.13"),
    R_XCOMP: ("H-XCOMP", lambda d, c: f"XCOMP_BV has {_names(d)}, which is not enabled", "SDM1 13.8.2"),
    R_XSTATE: ("H-XSTATE", lambda d, c: f"XSTATE_BV has {_names(d)} beyond what the header or XCR0 allows",
               "SDM1 13.8"),
    R_FORMAT: ("H-FORMAT", lambda d, c: f"XCOMP_BV {d:#x} without bit 63: XRSTORS takes the compacted format only",
               "SDM1 13.12"),
    R_COMPACT: ("H-XCOMP", lambda d, c: f"XCOMP_BV {d:#x} is not 0 in the standard format", "SDM1 13.8.1"),
    R_RESERVED: ("H-RESERVED", lambda d, c: f"a reserved header byte is {d:#04x}, not 0", "SDM1 13.8"),
    R_MXCSR: ("H-MXCSR", lambda d, c: f"MXCSR has reserved bits {d:#x}", "SDM1 13.8"),
    R_XFD: ("XFD", lambda d, c: f"IA32_XFD disables {_names(d)}", "SDM1 13.14"),
    R_TRACE: ("PT-TRACE", lambda d, c: "PT is restored while IA32_RTIT_CTL.TraceEn is 1", "SDM1 13.5.6"),
    R_TRACE_RESERVED: ("PT-RESERVED", lambda d, c: f"a reserved byte of PT is {d:#04x}, not 0", "SDM1 13.5.6"),
    R_UINV: ("UINTR-UINV", lambda d, c: "UINTR is loaded while UINV is not 0", "SDM1 13.5.11"),
    R_MSR_RESERVED: ("MSR-RESERVED", lambda d, c: f"{_register_of(d)} has a reserved bit set", "SDM1 13.12"),
    R_MSR_EXCLUSIVE: ("MSR-EXCLUSIVE", lambda d, c: f"{_register_of(d)} has bits set that exclude each other",
                      "SDM1 13.12"),
    R_MSR_CANONICAL: ("MSR-CANONICAL", lambda d, c: f"{_register_of(d)} is not a canonical address", "SDM1 13.12"),
    R_MSR_DEPTH: ("LBR-DEPTH", lambda d, c: f"{_register_of(d)} is no depth of this CPU", "SDM1 13.5.12"),
    R_INDEX: ("INDEX", lambda d, c: f"there is no extended control register {d}", "SDM2 XGETBV"),
    R_XCR0_UNSUPPORTED: ("R-RSV", lambda d, c: f"XCR0 bits {d:#x} are not supported by {c.model.name}", "SDM1 13.3"),
    R_XCR0_X87: ("R-X87", lambda d, c: "XCR0[0] must be 1", "SDM1 13.3"),
    R_XCR0_NEEDS: ("", lambda d, c: f"{_names(d)} needs components that XCR0 lacks", "SDM1 13.3"),
    R_XCR0_EXCLUDES: ("", lambda d, c: f"{_names(d)} excludes components that XCR0 has", "SDM1 13.3"),
    R_MSR_MISSING: ("MSR-MISSING", lambda d, c: f"{c.model.name} has no {_register_of(d)}", "SDM4"),
    R_MSR_MASK: ("MSR-MASK", lambda d, c: f"the value has bits {d:#x}, which this CPU does not support", "SDM1 13.3"),
    R_TILE_CONFIG: ("", lambda d, c: "", ""),
    R_TILES_OFF: ("TILES-OFF", lambda d, c: f"XCR0 lacks {_names(d)}", "SDM2 2.10"),
    R_TILE_UNCONFIGURED: ("TILES-UNCONFIGURED", lambda d, c: "no tile is configured", "SDM2 2.10"),
    R_TILE_INVALID: ("TILE-INVALID", lambda d, c: f"tmm{d} has no shape in the configuration", "SDM2 2.10"),
    R_TILE_COLSB: ("TILE-COLSB", lambda d, c: f"rows of {d} bytes are not a multiple of 4", "SDM2 2.10"),
    R_TILE_START: ("TILE-START", lambda d, c: f"start_row {d} is beyond the tile's rows", "SDM2 2.10"),
    R_TILE_PALETTE: ("TILE-PALETTE", lambda d, c: f"palette {d} has no tile loads and stores", "SDM2 2.10"),
    R_PKE: ("PKE", lambda d, c: "CR4.PKE is 0", "SDM2 WRPKRU"),
    R_XCR0_OFF: ("XCR0-OFF", lambda d, c: f"XCR0 lacks {_names(d)}", "SDM1 13.3"),
    R_DISABLED: ("VMX-XSAVES", lambda d, c: 'the VM-execution control "enable XSAVES/XRSTORS" is 0', "SDM3C 27.3"),
}


cdef object rule_code(int rule):
    # The stable name of a rule; of those that stand for several, what they have in common.
    if rule == R_TILE_CONFIG:
        return "TILECFG"
    if rule == R_XCR0_NEEDS or rule == R_XCR0_EXCLUDES:
        return "R-DEPENDENCY"
    return RULES[rule][0]
