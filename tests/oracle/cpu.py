"""`Cpu`: every instruction of the model, with XCR0, the MSRs behind components, and CPUID leaf 0DH."""

from __future__ import annotations

from .components import COMPONENT_OF, COMPONENTS, Fault, has
from .layouts import compacted_offsets, standard_size
from .machine import Raised, instruction
from .registers import as_int
from .tiles import Tiles
from .values import IA32_XFD, IA32_XFD_ERR, IA32_XSS, MSRS, supervisor_value_fault, xcr0_fault, xfd_mask


class Cpu(Tiles):
    """One logical processor. An instruction returns None or its fault: (vector, rule, byte offset in the operand; of
    #PF the byte that CR2 names). A fault has changed nothing unless `atomic_faults` is off and the comment at the
    place says so. Memory is a plain buffer that begins at the operand, or a `Memory`.

    Not modelled: VMX, segment limits, and the fate of filled tiles when a non-atomic XRSTOR fault initialises TILECFG.
    """

    def xgetbv(self, index: int) -> int | Fault:
        """SDM2, XGETBV. The index is ECX: 32 bits."""
        index &= 0xFFFFFFFF
        if not self.cr4_osxsave:
            return ("#UD", "cr4-osxsave", 0)
        if index == 0:
            return self.xcr0
        if index != 1 or not has(self.table["d1eax"], 2):
            return ("#GP", "xgetbv-index", 0)
        return self.xgetbv1()

    @instruction
    def xsetbv(self, index: int, value: int) -> None:
        """SDM1 13.3. The registers of a component whose bit is cleared keep their values."""
        if not self.cr4_osxsave:
            raise Raised("#UD", "cr4-osxsave")
        if self.cpl != 0:
            raise Raised("#GP", "cpl")
        if index & 0xFFFFFFFF != 0:
            raise Raised("#GP", "xsetbv-index")
        rule = xcr0_fault(self.table, value)
        if rule is not None:
            raise Raised("#GP", rule)
        self.xcr0 = value

    @instruction
    def wrmsr(self, number: int, value: int) -> None:
        """IA32_XSS (13.3), IA32_XFD and IA32_XFD_ERR (13.14), and the MSRs of CET and UINTR."""
        if self.cpl != 0:
            raise Raised("#GP", "cpl")
        if number == IA32_XSS:
            if not has(self.table["d1eax"], 3) or value & ~self.table["xss"]:
                raise Raised("#GP", "xss-reserved")
            self.xss = value
        elif number in (IA32_XFD, IA32_XFD_ERR):
            allowed = xfd_mask(self.table)
            if not has(self.table["d1eax"], 4) or value & ~allowed:
                raise Raised("#GP", "xfd-reserved")
            if number == IA32_XFD:
                self.xfd = value
            else:
                self.xfd_err = value
        else:
            self._write_component_msr(number, value)

    def _write_component_msr(self, number: int, value: int) -> None:
        name = MSRS.get(number)
        if name is None or name not in self.registers:
            raise Raised("#GP", "no-such-msr")
        rule = supervisor_value_fault(name, value, self.linear_bits)
        if rule is not None:
            raise Raised("#GP", rule)
        self._tracked()
        self.registers[name] = value
        self._wrote(COMPONENT_OF[name])

    def rdmsr(self, number: int) -> int | Fault:
        if self.cpl != 0:
            return ("#GP", "cpl", 0)
        if number == IA32_XSS and has(self.table["d1eax"], 3):
            return self.xss
        if number in (IA32_XFD, IA32_XFD_ERR) and has(self.table["d1eax"], 4):
            return self.xfd if number == IA32_XFD else self.xfd_err
        name = MSRS.get(number)
        if name is None or name not in self.registers:
            return ("#GP", "no-such-msr", 0)
        return as_int(self.registers[name])

    def cpuid_d(self, subleaf: int) -> tuple[int, int, int, int]:
        """CPUID leaf 0DH under the XCR0 and the IA32_XSS of the moment (SDM1 13.2)."""
        table = self.table
        if subleaf == 0:
            live, all_of_it = standard_size(table, self.xcr0), standard_size(table, table["xcr0"])
            return table["xcr0"] & 0xFFFFFFFF, live, all_of_it, table["xcr0"] >> 32
        if subleaf == 1:
            size = 0
            if has(table["d1eax"], 1):
                live = self.xcr0 | (self.xss if has(table["d1eax"], 3) else 0)
                _, size = compacted_offsets(table, live)
            return table["d1eax"], size, table["xss"] & 0xFFFFFFFF, table["xss"] >> 32
        if subleaf not in table["components"]:
            return 0, 0, 0, 0
        size, offset, align64 = table["components"][subleaf]
        xfd = has(table["d1eax"], 4) and COMPONENTS[subleaf].xfd
        return size, offset or 0, (offset is None) | align64 << 1 | xfd << 2, 0
