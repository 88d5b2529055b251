"""XINUSE and XMODIFIED (SDM1 13.6), and the instructions that only write registers.

Intel keeps history, in two sets of marks: of registers 0-7 (and of every component without such registers), and of
vector registers 8-15. Zen 5 compares values. Both as measured.
"""

from __future__ import annotations

from .components import AVX, HI16_ZMM, MXCSR_INIT, SSE, TILECFG, TILEDATA, X87, ZMM_HI256, Value, Values, has
from .machine import Machine, Raised, instruction
from .registers import as_bytes, as_int, components_of, non_initial, vector, vector_number

UPPER = 1 << AVX | 1 << ZMM_HI256
LOW_HIGH = 1 << SSE | UPPER  # components of registers 0-7 and 8-15


class Usage(Machine):
    # --- XINUSE -------------------------------------------------------------------------------------------------------

    def _in_use_by_value(self) -> int:
        values: Values = dict(self.registers)
        if not self.intel:
            # Without a pending exception AMD's pointers read as 0 and alone are no use of x87.
            values.update({"fop": 0, "fip": 0, "fdp": 0})
        elif not self.mode64:
            # SDM1 13.6: outside 64-bit mode only registers 0-7 count. Zen 5 counts all (measured).
            for name in list(values):
                n = vector_number(name)
                if n is not None and n >= 8:
                    del values[name]
        return non_initial(values)

    @property
    def xinuse(self) -> int:  # type: ignore[override]
        """XINUSE as the instructions see it now. Assign None: follows from the values. Assign a mask: exactly these,
        and from then on as the profile tracks it."""
        if self._low is None:
            return self._in_use_by_value()
        if not self.intel:
            return self._low
        if not self.mode64:
            return self._low & ~(1 << HI16_ZMM)
        return self._low | self._high

    @xinuse.setter
    def xinuse(self, mask: int | None) -> None:
        self._low = mask
        self._high = mask & LOW_HIGH if mask is not None and self.intel else 0
        if mask is None:
            return
        # XINUSE[i] = 0 says that component i is known to be initial.
        by_value = self._in_use_by_value()
        if by_value & ~mask:
            raise ValueError("a component that is not in its initial configuration is in use")
        self._zen_extra = 0
        self._zen_exact(range(16))
        if mask & LOW_HIGH != self._zen_vectors():
            self._zen_count_below()
        self._zen_extra = mask & LOW_HIGH & ~self._zen_vectors()

    def _tracked(self) -> int:
        """The marks of registers 0-7 and all else; from here on they are kept."""
        if self._low is None:
            self.xinuse = self._in_use_by_value()
        assert self._low is not None
        return self._low

    # Zen: which of SSE, AVX, ZMM_Hi256 a vector register counts for. A restore counts what is not zero. A VEX or EVEX
    # write counts the whole width that it wrote, unless it is an instruction that always gives zero. A legacy SSE write
    # counts for AVX too if anything above XMM was written in any register since VZEROUPPER, or found in use by a
    # restore, for ZMM_Hi256 if any register does, and for SSE unless it always gives zero (all measured).

    def _zen_exact(self, numbers: range) -> None:
        for n in numbers:
            wide = vector(self.registers, n)
            self._zen_tags[n] = any(wide[:16]) << SSE | any(wide[16:32]) << AVX | any(wide[32:]) << ZMM_HI256
            self._zen_widths[n] = self._zen_tags[n]
        self._zen_note_dirty()

    def _zen_note_dirty(self) -> None:
        """Any restore looks at what counts above XMM (measured)."""
        self._zen_dirty = 0
        for tags in self._zen_tags:
            self._zen_dirty |= _with_below(tags) & UPPER

    def _zen_count_below(self) -> None:
        """Every register for all the parts below its highest."""
        self._zen_tags = [_with_below(tags) for tags in self._zen_tags]
        self._zen_widths = list(self._zen_tags)

    def _zen_write(self, n: int, parts: int, zeroes_above: bool) -> None:
        value = vector(self.registers, n)
        if zeroes_above:
            self._zen_tags[n] = parts if any(value) else 0  # an instruction that always gives zero leaves the width
            self._zen_widths[n] = parts if any(value) else self._zen_widths[n]
            self._zen_dirty |= parts & UPPER
        else:
            merged = 1 << AVX if self._zen_dirty else 0
            for width in self._zen_widths:
                merged |= width & 1 << ZMM_HI256
            self._zen_tags[n] = self._zen_widths[n] & ~(1 << SSE) | merged | any(value[:16]) << SSE
            self._zen_widths[n] = self._zen_tags[n]

    def _zen_vectors(self) -> int:
        found = self._zen_extra
        for tags in self._zen_tags:
            found |= tags
        return found

    def _track_restore(self, loaded: int, initialised: int) -> None:
        if self._low is None:
            return
        by_value = self._in_use_by_value()
        if not self.intel:  # Zen 5: by value; one of SSE, AVX, ZMM_Hi256 settles all three
            exact = loaded | initialised
            if exact & LOW_HIGH:
                exact |= LOW_HIGH
                self._zen_extra = 0
                self._zen_exact(range(16 if self.mode64 else 8))
                by_value = by_value & ~LOW_HIGH | self._zen_vectors()
            elif self.mode64:
                self._zen_note_dirty()
            self._low = self._low & ~exact | by_value & exact
            return
        if not self.mode64:  # ZMM16-31 are neither loaded nor initialised
            loaded &= ~(1 << HI16_ZMM)
            initialised &= ~(1 << HI16_ZMM)
        # Intel: loading marks whatever was loaded (TILECFG by value), initialising unmarks.
        self._low = (self._low | loaded) & ~initialised
        if has(loaded, TILECFG):
            self._low = self._low & ~(1 << TILECFG) | by_value & 1 << TILECFG
        if self.mode64:
            self._high = (self._high | loaded & LOW_HIGH) & ~initialised
            wide_load = has(loaded, AVX) or has(loaded, ZMM_HI256)
            if wide_load and not any(any(vector(self.registers, n)) for n in range(8, 16)):
                self._high = 0

    # --- XMODIFIED ----------------------------------------------------------------------------------------------------

    @property
    def xmodified(self) -> int:
        """A compatibility-mode instruction of Intel's looks at registers 0-7 alone."""
        if self.intel and not self.mode64:
            return self._modified_low
        return self._modified_low | self._modified_high

    def _restored(self, address: int, rfbm: int, xcomp_bv: int) -> None:
        """XRSTOR and XRSTORS end with this. In compatibility mode Intel's did not reach registers 8-31."""
        self.xrstor_info = (self.cpl, address, xcomp_bv)
        self._modified_low = ~rfbm
        self._modified_high = ~rfbm & LOW_HIGH
        if self.intel and not self.mode64:
            self._modified_low |= 1 << HI16_ZMM
            self._modified_high = LOW_HIGH

    def _skips(self, address: int, xcomp_bv: int, component: int) -> bool:
        """Does the modified optimisation leave this component out? Intel writes TILECFG whenever it is in use."""
        if not self.modified_opt or self.xrstor_info != (self.cpl, address, xcomp_bv):
            return False
        return not has(self.xmodified, component) and not (self.intel and component == TILECFG)

    def _wrote(self, component: int) -> None:
        """A write to a register of a component that has none of the vector registers 0-15."""
        low = self._tracked()
        self._modified_low |= 1 << component
        by_value = self._in_use_by_value()
        keep = 1 << component if self.intel else by_value & 1 << component
        self._low = low & ~(1 << component) | keep

    def _wrote_vector(self, n: int, size: int, zeroes_above: bool) -> None:
        low = self._tracked()
        if n >= 16:
            self._wrote(HI16_ZMM)
            return
        parts = 1 << SSE | (size > 16) << AVX | (size > 32) << ZMM_HI256
        if not self.intel:
            self._zen_write(n, parts, zeroes_above)
            self._modified_low |= LOW_HIGH if zeroes_above else parts
            self._low = low & ~LOW_HIGH | self._zen_vectors()
            return
        if n < 8:
            self._modified_low |= parts | (low & UPPER if zeroes_above else 0)
            self._low = low | parts
        else:
            self._modified_high |= parts | (self._high & UPPER if zeroes_above else 0)
            self._high |= parts

    # --- instructions that only write registers -----------------------------------------------------------------------

    def write(self, name: str, value: Value, *, vex: bool = False) -> None:
        """One register, as an instruction of that width writes it. XMM0-15 as legacy SSE, which keeps the upper parts,
        unless `vex`; YMM and ZMM as VEX and EVEX, which zero them."""
        n = vector_number(name)
        if n is None:
            self._tracked()
            self.load({name: value})
            for component in components_of(name):
                self._wrote(component)
            return
        if n >= 8 and not self.mode64:
            raise ValueError(f"{name} cannot be reached outside 64-bit mode")
        size = {"xmm": 16, "ymm": 32, "zmm": 64}[name[:3]]
        low = as_bytes(value, size)
        zeroes_above = vex or size > 16 or n >= 16
        wide = bytes(64) if zeroes_above else vector(self.registers, n)
        self._tracked()
        self._set_vector(n, low + wide[size:])
        self._wrote_vector(n, size, zeroes_above)

    def vzeroupper(self) -> None:
        self._zero_vectors(16, UPPER)

    def vzeroall(self) -> None:
        self._zero_vectors(0, LOW_HIGH)

    def _zero_vectors(self, keep: int, parts: int) -> None:
        """Intel: no mark of being modified, but in compatibility mode. Zen: VZEROUPPER marks SSE (both measured)."""
        low = self._tracked()
        for n in range(16 if self.mode64 else 8):
            self._set_vector(n, vector(self.registers, n)[:keep].ljust(64, b"\0"))
        if not self.intel:
            for n in range(16 if self.mode64 else 8):
                self._zen_tags[n] &= ~parts
                self._zen_widths[n] &= ~parts
            self._zen_dirty = 0
            self._modified_low |= LOW_HIGH
            self._low = low & ~LOW_HIGH | self._zen_vectors()
            return
        self._low = low & ~parts
        if self.mode64:
            self._high &= ~parts
        else:
            self._modified_low |= parts

    def fninit(self) -> None:
        """The contents of the physical registers stay; TOP becomes 0, so that ST(j) is register j again."""
        self._tracked()
        top = as_int(self.registers["fsw"]) >> 11 & 7
        stack = [self.registers[f"st{j}"] for j in range(8)]
        self.registers.update({f"st{j}": stack[(j - top) % 8] for j in range(8)})
        self.registers.update({"fcw": 0x37F, "fsw": 0, "ftw": 0, "fop": 0, "fip": 0, "fdp": 0})
        self.fcs = self.fds = 0
        self._wrote(X87)

    @instruction
    def ldmxcsr(self, value: int) -> None:
        self._tracked()
        if value & ~self.table["mxcsr_mask"]:
            raise Raised("#GP", "mxcsr-reserved")
        self.registers["mxcsr"] = value
        self._wrote_mxcsr()

    def _wrote_mxcsr(self) -> None:
        """Intel counts it as use of SSE, Zen 5 does not (measured)."""
        low = self._tracked()
        if self.intel:
            self._low = low | 1 << SSE
            self._modified_low |= 1 << SSE
            if self.mode64:
                self._high |= 1 << SSE
                self._modified_high |= 1 << SSE

    def _tiles_initialised(self) -> None:
        """LDTILECFG and TILERELEASE: TILECFG is in use if a palette is loaded, TILEDATA is not."""
        low = self._tracked() & ~(1 << TILECFG | 1 << TILEDATA)
        self._modified_low |= 1 << TILECFG | 1 << TILEDATA
        self._low = low | any(as_bytes(self.registers["tilecfg"], 64)) << TILECFG

    def xgetbv1(self) -> int:
        in_use = self.xinuse & ~self._xfd_active()
        if as_int(self.registers["mxcsr"]) != MXCSR_INIT:
            in_use |= 1 << SSE
        return self.xcr0 & in_use


def _with_below(parts: int) -> int:
    """These of SSE, AVX, ZMM_Hi256, and those below the highest of them."""
    return LOW_HIGH & (1 << parts.bit_length()) - 1
