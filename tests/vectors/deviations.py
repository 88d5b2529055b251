"""What of a vector is not golden: documented deviations of the emulator and of the machines, each with its argument.

A rule says what is expected instead, or what is left out; all else of the case is still compared. The arguments name
sections of the architecture's rules as silicon showed them: where an Intel CPU with AMX ran the very case and said
what came out otherwise (`intel` in the line), that is the argument.
"""

from collections.abc import Callable
from typing import NamedTuple

import reference

from .cases import AVX, BASE, SSE, ZMM_HI256, Case, Outcome, cpuid

EVERYTHING = frozenset({"vector", "error_code", "cr2", "registers", "memory", "xinuse", "results"})
TILES = frozenset(f"tmm{i}" for i in range(8))
TILEDATA = 18
MXCSR, XSTATE_BV, XCOMP_BV = 24, 512, 520


class Expected(NamedTuple):
    outcome: Outcome
    rule: str | None = None
    unjudged: frozenset[str] = frozenset()  # parts of an outcome, and names of registers

    def judged(self, what: str) -> bool:
        return what not in self.unjudged

    def but(self, rule: str, *unjudged: str, **instead: object) -> "Expected":
        """This, under one more rule: with parts left out, or other values expected."""
        name = rule if self.rule is None else f"{self.rule} + {rule}"
        return Expected(self.outcome._replace(**instead), name, self.unjudged | set(unjudged))


Rule = Callable[[Case, Expected, Outcome], Expected | None]


def expect(case: Case, want: Outcome, got: Outcome) -> Expected:
    """What is expected of a case, given what its line says and (for the rules that bound it) what came out here."""
    expected = Expected(want)
    for rule in RULES[case.kind]:
        expected = rule(case, expected, got) or expected
    return expected


def _no_change(case: Case) -> dict[str, object]:
    return {"registers": case.before(), "memory": bytes(case.region()), "xinuse": _xinuse_before(case)}


def _xinuse_before(case: Case) -> int:
    return int(case.line["res"]["xinuse"][0], 16)


# --- bochs ------------------------------------------------------------------------------------------------------------


def _bv63(case: Case, expected: Expected, got: Outcome) -> Expected | None:
    """bv63: XSTATE_BV[63] = 1 in a compacted header is #GP on both makes (section 2), the emulator takes it."""
    if "bv63" not in case.suspect:
        return None
    return expected.but("bv63", vector="#GP", error_code=0, **_no_change(case))


def _compact_touch(case: Case, expected: Expected, got: Outcome) -> Expected | None:
    """compact_touch: the emulator reads the last byte of the area that RFBM implies, Intel that of RFBM & XCOMP_BV
    (6.1). So there may be no #PF, and then what the instruction does is not in the line; a #PF changes nothing."""
    if "compact_touch" not in case.suspect or case.intel == "same":
        return None
    refuted = got.vector is None if case.intel is None else "vec:none" in case.intel
    if refuted:
        return expected.but("compact_touch", *EVERYTHING - {"vector", "error_code"}, vector=None, error_code=0)
    return expected.but("compact_touch", **_no_change(case))


def _fault_partial(case: Case, expected: Expected, got: Outcome) -> Expected | None:
    """fault_partial: what a fault leaves changed is the CPU's own business, and Intel's is another than the
    emulator's. A page fault at the end of the area changes nothing there, nor does a bad MXCSR in the standard format
    (6.1); a bad MXCSR in the compacted format comes after all initialisations and the loads of x87 and XMM, which no
    line has. (Intel could show XINUSE[1:0] after no fault.)"""
    if _bad_mxcsr_compacted(case, expected.outcome):
        if case.intel != "same" and any(got.registers.get(n) != v for n, v in expected.outcome.registers.items()):
            return expected.but("fault_partial", "registers", "xinuse")
        return expected.but("fault_partial", "xinuse") if got.xinuse != expected.outcome.xinuse else None
    if case.intel == "same" or "compact_touch" in case.suspect or "fault_partial" not in case.suspect:
        return None
    return expected.but("fault_partial", **_no_change(case))


def _bad_mxcsr_compacted(case: Case, want: Outcome) -> bool:
    if want.vector != "#GP" or not case.op.startswith("XRSTOR") or "NONCANON" in case.flags:
        return False
    area = case.region()[case.address - BASE :]
    return bool(area[XCOMP_BV + 7] & 0x80 and int.from_bytes(area[MXCSR : MXCSR + 4], "little") >> 16)


def _cr2(case: Case, expected: Expected, got: Outcome) -> Expected | None:
    """cr2: the emulator names the first byte that it could not reach, Intel the one that it probes first (6.1)."""
    if expected.outcome.vector != "#PF" or case.intel == "same" or got.cr2 == expected.outcome.cr2:
        return None
    return expected.but("cr2", "cr2") if "cr2" in case.suspect or case.intel is None else None


def _error_code(case: Case, expected: Expected, got: Outcome) -> Expected | None:
    """error_code: the emulator's XSAVE and XSAVEOPT probe the area for reading before they write."""
    if case.op not in ("XSAVE", "XSAVEOPT") or expected.outcome.vector != "#PF":
        return None
    if expected.outcome.error_code & 2 or got.error_code != expected.outcome.error_code | 2:
        return None
    return expected.but("error_code", error_code=expected.outcome.error_code | 2)


def _sse_xinuse(case: Case, expected: Expected, got: Outcome) -> Expected | None:
    """sse_xinuse_mxcsr: XSAVE and XSAVEOPT count MXCSR != 1F80H as SSE in use; in the manual, and in silicon, that is
    XINUSE[1] alone, which is about the XMM registers (5.3)."""
    if "sse_xinuse_mxcsr" not in case.suspect:
        return None
    memory = bytearray(expected.outcome.memory)
    at = case.address - BASE
    memory[at + XSTATE_BV] &= ~(1 << SSE)
    if case.op == "XSAVEOPT":
        memory[at + 160 : at + 416] = case.region()[at + 160 : at + 416]
    return expected.but("sse_xinuse_mxcsr", memory=bytes(memory))


def _tiles_stay(case: Case, expected: Expected, got: Outcome) -> Expected | None:
    """tilecfg_clears_tiles: restoring TILECFG without TILEDATA leaves the tiles alone (6.6)."""
    if "tilecfg_clears_tiles" not in case.suspect or expected.outcome.vector is not None:
        return None
    before = case.before()
    registers = {**expected.outcome.registers, **{name: before[name] for name in TILES}}
    xinuse = expected.outcome.xinuse & ~(1 << TILEDATA) | _xinuse_before(case) & 1 << TILEDATA
    return expected.but("tilecfg_clears_tiles", registers=registers, xinuse=xinuse)


def _fip(case: Case, expected: Expected, got: Outcome) -> Expected | None:
    """fip_canonical: a 64-bit restore sign-extends FIP from bit 56, the emulator keeps it as it is (10.2)."""
    if "fip_canonical" not in case.suspect or expected.outcome.vector is not None:
        return None
    fip = expected.outcome.registers["fip"]
    assert isinstance(fip, int)
    fip = fip & (1 << 57) - 1 | (fip >> 56 & 1) * (2**64 - (1 << 57))
    return expected.but("fip_canonical", registers={**expected.outcome.registers, "fip": fip})


def _cpuid_size(case: Case, expected: Expected, got: Outcome) -> Expected | None:
    """cpuid_d1_align: the size of the compacted area includes the alignment of its slots (section 4)."""
    if "cpuid_d1_align" not in case.suspect:
        return None
    _, size = reference.compacted_offsets(reference.cpu_from_cpuid(cpuid(case.kind)), case.xcr0 | case.xss)
    return expected.but("cpuid_d1_align", results={**expected.outcome.results, "rbx": size})


def _in_use_by_value(case: Case, expected: Expected, got: Outcome) -> Expected | None:
    """xinuse_by_value: a component loaded with its initial values is in use on Intel, which keeps history, and not in
    the emulator, which compares values (5.2). Nothing else may differ: the component is initial, and was restored."""
    if not case.op.startswith("XRSTOR") or not expected.judged("xinuse"):
        return None
    more = got.xinuse & ~expected.outcome.xinuse
    if expected.outcome.vector is not None or not more:
        return None
    initial = ~reference.non_initial(expected.outcome.registers)
    at = case.address - BASE
    loaded = case.value & int.from_bytes(case.region()[at + XSTATE_BV : at + XSTATE_BV + 8], "little")
    kept = _xinuse_before(case) & ~case.value
    if case.mode == 32:
        # Registers 8-15 and 16-31 cannot be reached there, and marks of theirs stay (5.2).
        kept |= _xinuse_before(case) & (1 << SSE | 1 << AVX | 1 << ZMM_HI256)
    if more & ~initial or more & ~(loaded | kept):
        return None
    return expected.but("xinuse_by_value", xinuse=expected.outcome.xinuse | more)


def _tilezero(case: Case, expected: Expected, got: Outcome) -> Expected | None:
    """tilezero: in the emulator TILEZERO may take TILEDATA out of use, in silicon it puts it in use (9.3)."""
    if case.op != "TILEZERO" or expected.outcome.vector is not None or expected.outcome.xinuse >> TILEDATA & 1:
        return None
    return expected.but("tilezero", xinuse=expected.outcome.xinuse | 1 << TILEDATA)


# --- zen5 and intel ---------------------------------------------------------------------------------------------------


def _signal_frame(case: Case, expected: Expected, got: Outcome) -> Expected | None:
    """signal_frame: an AVX that is in use only because ZMM_Hi256 was loaded over it (5.2) goes out of use when the
    kernel restores the registers of the signal frame, through which the state after a fault was read."""
    if expected.outcome.vector is None or not (got.xinuse & ~expected.outcome.xinuse) >> AVX & 1:
        return None
    if got.xinuse != _xinuse_before(case) or reference.non_initial(expected.outcome.registers) >> AVX & 1:
        return None
    return expected.but("signal_frame", xinuse=expected.outcome.xinuse | 1 << AVX)


def _tile_partial(case: Case, expected: Expected, got: Outcome) -> Expected | None:
    """tile_partial: a fault with TILECFG initialised and TILEDATA to be loaded leaves the tiles zero if TILELOADD had
    filled them, unchanged if XRSTOR had (6.1): whoever fills them otherwise has no answer."""
    return expected.but("tile_partial", *TILES) if "tile_partial" in case.suspect else None


RULES: dict[str, tuple[Rule, ...]] = {
    "bochs": (
        _bv63,
        _compact_touch,
        _fault_partial,
        _cr2,
        _error_code,
        _sse_xinuse,
        _tiles_stay,
        _fip,
        _cpuid_size,
        _in_use_by_value,
        _tilezero,
    ),
    "zen5": (_signal_frame,),
    "intel": (_tile_partial,),
}
