"""One logical processor's state, and what all instructions share: exceptions, addresses, page faults."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import ParamSpec

from .components import COMPACTED, SSE, Fault, Value, Values, has
from .cpus import CpuTable, cpu_table
from .memory import Buffer, Operand
from .registers import VECTOR_SIZES, as_int, initial_values, registers, vector, vector_number
from .values import sign_extended

P = ParamSpec("P")


class Raised(Exception):
    """The exception that ends the instruction."""

    def __init__(self, vector: str, rule: str, offset: int = 0, error_code: int = 0) -> None:
        super().__init__(vector, rule, offset)
        self.fault: Fault = (vector, rule, offset)
        self.error_code = error_code


def instruction(body: Callable[P, None]) -> Callable[P, Fault | None]:
    """An instruction returns None, or its fault; `error_code` of the machine then has the error code."""

    @functools.wraps(body)
    def run(*args: P.args, **kwargs: P.kwargs) -> Fault | None:
        machine = args[0]
        assert isinstance(machine, Machine)
        machine.error_code = 0
        try:
            body(*args, **kwargs)
        except Raised as raised:
            machine.error_code = raised.error_code
            return raised.fault
        return None

    return run


class Machine:
    """registers   the whole register file, in decode's names, whatever mode, XCR0 and XFD are
    mode64, cpl, cr0_ts … may be assigned between instructions
    error_code  of the last instruction's fault
    """

    def __init__(
        self,
        cpu: str | CpuTable,
        values: Mapping[str, Value] | None = None,
        *,
        xinuse: int | None = None,
        xcr0: int | None = None,
        xss: int = 0,
        mode64: bool = True,
        cpl: int = 0,
        xfd: int = 0,
        linear_bits: int = 48,
        atomic_faults: bool | None = None,
        modified_opt: bool = False,
        cr0_ts: bool = False,
        cr0_em: bool = False,
        cr4_osxsave: bool = True,
        cr4_osfxsr: bool = True,
        ac: bool = False,
        la57: bool = False,
    ) -> None:
        self.table = cpu_table(cpu)
        self.xcr0 = self.table["xcr0"] if xcr0 is None else xcr0
        self.xss = xss
        if self.xcr0 & ~self.table["xcr0"] or self.xss & ~self.table["xss"]:
            raise ValueError("XCR0 or IA32_XSS beyond what the CPU enumerates")
        self.mode64 = mode64
        self.cpl = cpl
        self.xfd = xfd
        self.xfd_err = 0
        self.linear_bits = linear_bits  # of the CPU: what its MSRs take as canonical
        self.intel = self.table["profile"] == "intel"
        self.atomic_faults = not self.intel if atomic_faults is None else atomic_faults
        self.modified_opt = modified_opt
        self.cr0_ts = cr0_ts
        self.cr0_em = cr0_em
        self.cr4_osxsave = cr4_osxsave
        self.cr4_osfxsr = cr4_osfxsr
        self.ac = ac  # CR0.AM and EFLAGS.AC
        self.la57 = la57
        self.error_code = 0
        self.fcs = 0  # with REX.W = 0 the pointers have selectors
        self.fds = 0
        # XRSTOR_INFO and XMODIFIED (13.6); of registers 0-7 and 8-15 apart, as Intel keeps them.
        self.xrstor_info: tuple[int, int, int] | None = None  # CPL, linear address, XCOMP_BV
        self._modified_low = -1
        self._modified_high = -1
        names = registers(self.table["xcr0"] | self.table["xss"], COMPACTED)
        names = [name for name in names if name != "mxcsr_mask"]
        self.registers: Values = initial_values(names)
        if "IA32_LBR_DEPTH" in self.registers:
            self.registers["IA32_LBR_DEPTH"] = 32
        self.load(values or {})
        self._low: int | None = None  # marks of registers 0-7 and of all other components
        self._high = 0  # marks of vector registers 8-15
        self._zen_tags = [0] * 16  # see usage.py
        self._zen_extra = 0
        self._zen_dirty = 0
        self._zen_widths = [0] * 16
        self.xinuse = xinuse

    xinuse: int | None  # a property in usage.py

    def load(self, values: Mapping[str, Value]) -> None:
        """Set these registers. A vector register may come under a narrower or a wider name."""
        for name, value in values.items():
            n = vector_number(name)
            if n is not None:
                self._set_vector(n, vector({name: value}, n))
            elif name in self.registers:
                self.registers[name] = value
            elif name != "mxcsr_mask":
                raise ValueError(f"this CPU has no {name}")

    def _set_vector(self, n: int, wide: bytes) -> None:
        for prefix, size in VECTOR_SIZES.items():
            if f"{prefix}{n}" in self.registers:
                if any(wide[size:]):
                    raise ValueError(f"this CPU has no {len(wide)}-byte vector register {n}")
                self.registers[f"{prefix}{n}"] = wide[:size]
                return
        if any(wide):
            raise ValueError(f"this CPU has no vector register {n}")

    def _int(self, name: str) -> int:
        return as_int(self.registers[name])

    def _xfd_active(self) -> int:
        """The components that XFD disables (SDM1 13.14)."""
        return self.xcr0 & self.xfd

    # --- what comes before an instruction's own business --------------------------------------------------------------

    def _enabled(self, feature: int | None = None, supervisor: bool = False) -> None:
        """#UD, then #NM, then the privilege level (SDM2, exceptions of the XSAVE family). CR0.EM is not consulted."""
        if feature is not None and not has(self.table["d1eax"], feature):
            raise Raised("#UD", "cpuid")
        if not self.cr4_osxsave:
            raise Raised("#UD", "cr4-osxsave")
        if self.cr0_ts:
            raise Raised("#NM", "cr0-ts")
        if supervisor and self.cpl != 0:
            raise Raised("#GP", "cpl")

    def _canonical(self, address: int, segment: str, offset: int = 0) -> None:
        if self.mode64 and address % 2**64 != sign_extended(address % 2**64, 57 if self.la57 else 48):
            raise Raised("#SS" if segment == "ss" else "#GP", "not-canonical", offset)

    def _operand(self, memory: Buffer, address: int, segment: str, alignment: int) -> Operand:
        """Canonical first, then aligned. With alignment checks on, Intel answers #AC for what is not even 4-aligned,
        Zen 5 does so for FXSAVE and FXRSTOR alone (measured)."""
        self._canonical(address, segment)
        if address % alignment != 0:
            checked = self.ac and self.cpl == 3 and (self.intel or alignment == 16)
            raise Raised("#AC" if checked and address % 4 != 0 else "#GP", "alignment")
        return Operand(memory, address)

    def _page_fault(self, operand: Operand, offset: int, write: bool) -> Raised:
        code = operand.is_present(offset) | write << 1 | (self.cpl == 3) << 2
        return Raised("#PF", "not-writable" if code & 1 else "not-present", offset, code)

    def _probe(self, operand: Operand, offset: int, write: bool, length: int = 1) -> None:
        bad = operand.first_bad(offset, length, write)
        if bad is not None:
            raise self._page_fault(operand, bad, write)

    def _legacy_probe(self, mask: int, mxcsr_with_avx: bool) -> list[int]:
        """Where Intel touches the legacy region, if anywhere (measured)."""
        if has(mask, 0):
            return [0]
        return [24] if has(mask, SSE) or (mxcsr_with_avx and has(mask, 2)) else []
