"""XSAVE, XSAVEOPT, XSAVEC, XSAVES, XRSTOR and XRSTORS on an explicit register file (SDM1 13.7-13.12).

The second half of reference.py, under the same rules: plain, slow, independent. Every method does
what the manual's pseudo-code says, in its order, and returns None or a fault; a fault has changed
nothing, except where `atomic_faults` is off. Where CPUs differ, the table's profile decides.

Not modelled: the modified optimisation (off is always legal), page faults, segmentation, and the
fate of filled tiles when a non-atomic XRSTOR fault initialises TILECFG alone.
"""

from __future__ import annotations

from collections.abc import Mapping

from reference import (
    ALL,
    AREA_MIN,
    AVX,
    BIT63,
    BNDCSR,
    CET_S,
    CET_U,
    COMPACTED,
    COMPONENTS,
    FIELDS,
    HI16_ZMM,
    LBR,
    MXCSR_INIT,
    PKRU,
    PT,
    SSE,
    STANDARD,
    TILECFG,
    TILEDATA,
    UINTR,
    VECTOR_PIECES,
    VECTOR_SIZES,
    X87,
    XCOMP_BV,
    XSTATE_BV,
    ZMM_HI256,
    CpuTable,
    Fault,
    Slots,
    Value,
    Values,
    as_int,
    bits,
    component_bytes,
    component_values,
    cpu_table,
    has,
    header_faults,
    initial_values,
    layout,
    non_initial,
    registers,
    restored_fcw,
    restored_fsw,
    sign_extended,
    supervisor_value_fault,
    tilecfg_is_legal,
    u64,
    vector,
    vector_number,
)

LOW_HIGH = 1 << SSE | 1 << AVX | 1 << ZMM_HI256  # components of registers 0-7 and 8-15


class Cpu:
    """One logical processor: its registers, and the six instructions.

    registers   the whole register file, in decode's names, whatever mode, XCR0 and XFD are
    xinuse      XINUSE as the instructions see it now. Assign None: follows from the values.
                Assign a mask: exactly these, and from then on as the profile tracks it
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
        self.linear_bits = linear_bits
        self.intel = self.table["profile"] == "intel"
        self.atomic_faults = not self.intel if atomic_faults is None else atomic_faults
        self.fcs = 0  # with REX.W = 0 the pointers have selectors
        self.fds = 0
        names = registers(self.table["xcr0"] | self.table["xss"], COMPACTED)
        names = [name for name in names if name != "mxcsr_mask"]
        self.registers: Values = initial_values(names)
        if "IA32_LBR_DEPTH" in self.registers:
            self.registers["IA32_LBR_DEPTH"] = 32
        self.load(values or {})
        self._low: int | None = None  # marks of registers 0-7 and of all other components
        self._high = 0  # marks of vector registers 8-15 (Intel keeps them apart)
        self.xinuse = xinuse

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

    # --- XINUSE (SDM1 13.6) -------------------------------------------------------------------

    def _in_use_by_value(self) -> int:
        values = dict(self.registers)
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
    def xinuse(self) -> int:
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
        # XINUSE[i] = 0 says that component i is known to be initial.
        if mask is not None and self._in_use_by_value() & ~mask:
            raise ValueError("a component that is not in its initial configuration is in use")

    def _track_restore(self, loaded: int, initialised: int) -> None:
        if self._low is None:
            return
        by_value = self._in_use_by_value()
        if not self.intel:  # Zen 5: by value; one of SSE, AVX, ZMM_Hi256 settles all three
            exact = loaded | initialised
            if exact & LOW_HIGH:
                exact |= LOW_HIGH
            now = self._low & ~exact | by_value & exact
            if not self.mode64:  # a wide upper register goes on counting for its lower parts
                if has(by_value, ZMM_HI256):
                    now |= self._low & (1 << SSE | 1 << AVX)
                if has(by_value, AVX):
                    now |= self._low & 1 << SSE
            self._low = now
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

    def xgetbv(self, index: int) -> int | Fault:
        if index == 0:
            return self.xcr0
        if index != 1 or not has(self.table["d1eax"], 2):
            return ("#GP", "xgetbv-index", 0)
        in_use = self.xinuse & ~self._xfd_active()
        if self._int("mxcsr") != MXCSR_INIT:
            in_use |= 1 << SSE
        return self.xcr0 & in_use

    def _xfd_active(self) -> int:
        """The components that XFD disables (SDM1 13.14)."""
        return self.xcr0 & self.xfd

    # --- storing (SDM1 13.5) ------------------------------------------------------------------

    def _image(self, component: int, rexw: bool) -> bytes:
        if has(self._xfd_active(), component):  # saves act as if it were not in use
            return COMPONENTS[component].initial
        image = bytearray(component_bytes(self.registers, component))
        if component == X87:
            pending = has(self._int("fsw"), 7)
            if not (rexw and self.mode64):  # FIP 8-11, FCS 12-13, FDP 16-19, FDS 20-21
                image[12:16] = self.fcs.to_bytes(2, "little") + bytes(2)
                image[20:24] = self.fds.to_bytes(2, "little") + bytes(2)
            if not self.intel and not pending:
                image[6:24] = bytes(18)
        return bytes(image)

    def _written(self, component: int) -> list[tuple[int, int]]:
        """The bytes of a component that a save stores, as (offset, length)."""
        if component == X87:
            pending = has(self._int("fsw"), 7)
            if self.table["profile"] == "amd-legacy" and not pending:
                return [(0, 6), (32, 128)]  # the pointers are left alone
            return [(0, 24), (32, 128)]
        if component in (SSE, AVX, ZMM_HI256):  # registers 8-15: only in 64-bit mode
            _, start, end, position = VECTOR_PIECES[component]
            return [(position, (16 if self.mode64 else 8) * (end - start))]
        if component == HI16_ZMM:
            return [(0, 1024)] if self.mode64 else []
        if component == PKRU:
            return [(0, 4)]
        if component == BNDCSR:
            return [(0, 16)]
        if component == LBR:
            return [(0, 40 + 24 * self._int("IA32_LBR_DEPTH"))]
        return [(0, COMPONENTS[component].size)]

    def _store(self, area: bytearray, slot: int, component: int, rexw: bool) -> None:
        image = self._image(component, rexw)
        for offset, length in self._written(component):
            area[slot + offset : slot + offset + length] = image[offset : offset + length]

    def _store_mxcsr(self, area: bytearray) -> None:
        area[24:28] = self._int("mxcsr").to_bytes(4, "little")
        area[28:32] = self.table["mxcsr_mask"].to_bytes(4, "little")

    def _unsupported(self, bit: int | None) -> Fault | None:
        if bit is not None and not has(self.table["d1eax"], bit):
            return ("#UD", "cpuid", 0)
        return None

    def _save_extent(self, slots: Slots, size: int, may_skip_disabled: bool) -> int:
        """How far the save may touch. With XFD armed an Intel XSAVEOPT or XSAVEC needs no byte of
        TILEDATA (measured)."""
        if not may_skip_disabled or not self.intel or not has(self._xfd_active(), TILEDATA):
            return size
        ends = [o if i == TILEDATA else o + n for i, (o, n) in slots.items()]
        return max([AREA_MIN, *ends])

    # --- the saves ----------------------------------------------------------------------------

    def xsave(self, area: bytearray, mask: int = ALL, *, rexw: bool = True) -> Fault | None:
        """SDM1 13.7."""
        return self._save_standard(area, mask, rexw, optimised=False)

    def xsaveopt(self, area: bytearray, mask: int = ALL, *, rexw: bool = True) -> Fault | None:
        """SDM1 13.9, with the init optimisation alone."""
        return self._unsupported(0) or self._save_standard(area, mask, rexw, optimised=True)

    def _save_standard(
        self, area: bytearray, mask: int, rexw: bool, *, optimised: bool
    ) -> Fault | None:
        rfbm = self.xcr0 & mask
        slots, size = layout(self.table, rfbm, STANDARD)
        _need(area, self._save_extent(slots, size, optimised))
        xinuse = self.xinuse & ~self._xfd_active()
        old = u64(area, XSTATE_BV)
        to_be_saved = rfbm & xinuse if optimised else rfbm
        for i in bits(to_be_saved):  # plain XSAVE: initial values too
            self._store(area, slots[i][0], i, rexw)
        if has(rfbm, SSE) or has(rfbm, AVX):  # no optimisation for MXCSR
            self._store_mxcsr(area)
        _put64(area, XSTATE_BV, old & ~rfbm | xinuse & rfbm)
        return None

    def xsavec(self, area: bytearray, mask: int = ALL, *, rexw: bool = True) -> Fault | None:
        """SDM1 13.10."""
        fault = self._unsupported(1)
        if fault is None:
            self._save_compacted(area, self.xcr0 & mask, rexw, may_skip_disabled=True)
        return fault

    def xsaves(self, area: bytearray, mask: int = ALL, *, rexw: bool = True) -> Fault | None:
        """SDM1 13.11."""
        fault = self._unsupported(3)
        if fault is None and self.cpl != 0:
            fault = ("#GP", "cpl", 0)
        if fault is None:
            rfbm = (self.xcr0 | self.xss) & mask
            self._save_compacted(area, rfbm, rexw, may_skip_disabled=False)
            if has(rfbm, PT):  # 13.5.6: TraceEn is cleared once CTL is saved
                self.registers["IA32_RTIT_CTL"] = self._int("IA32_RTIT_CTL") & ~1
            if has(rfbm, UINTR):  # 13.5.11: UINV is cleared after saving
                self.registers["IA32_UINTR_MISC"] = self._int("IA32_UINTR_MISC") & ~(0xFF << 32)
        return fault

    def _save_compacted(
        self, area: bytearray, rfbm: int, rexw: bool, *, may_skip_disabled: bool
    ) -> None:
        slots, size = layout(self.table, rfbm, COMPACTED)
        _need(area, self._save_extent(slots, size, may_skip_disabled))
        to_be_saved = rfbm & self.xinuse & ~self._xfd_active()
        if has(rfbm, SSE) and self._int("mxcsr") != MXCSR_INIT:
            to_be_saved |= 1 << SSE
        for i in bits(to_be_saved):
            self._store(area, slots[i][0], i, rexw)
        if has(to_be_saved, SSE):
            self._store_mxcsr(area)
        _put64(area, XSTATE_BV, to_be_saved)
        _put64(area, XCOMP_BV, rfbm | BIT63)  # header bytes 16-63 keep what they were

    # --- the restores -------------------------------------------------------------------------

    def xrstor(
        self, area: bytes | bytearray, mask: int = ALL, *, rexw: bool = True
    ) -> Fault | None:
        """SDM1 13.8."""
        _need(area, AREA_MIN)
        compaction = has(self.table["d1eax"], 1)
        compacted = compaction and has(u64(area, XCOMP_BV), 63)
        fmt = COMPACTED if compacted else STANDARD
        return self._restore(area, fmt, self.xcr0, mask, rexw)

    def xrstors(
        self, area: bytes | bytearray, mask: int = ALL, *, rexw: bool = True
    ) -> Fault | None:
        """SDM1 13.12: the compacted format alone, supervisor components too."""
        fault = self._unsupported(3)
        if fault is None and self.cpl != 0:
            fault = ("#GP", "cpl", 0)
        if fault is not None:
            return fault
        return self._restore(area, COMPACTED, self.xcr0 | self.xss, mask, rexw)

    def _restore(
        self, area: bytes | bytearray, fmt: str, allowed: int, mask: int, rexw: bool
    ) -> Fault | None:
        # 1. The header; RFBM plays no part.
        _need(area, AREA_MIN)
        faults = header_faults(area, self.table, fmt, allowed)
        if faults:
            rule, offset = faults[0]
            return ("#GP", rule, offset)

        # 2. What is to be done.
        rfbm = allowed & mask
        xstate_bv, xcomp_bv = u64(area, XSTATE_BV), u64(area, XCOMP_BV) & ~BIT63
        to_load = rfbm & xstate_bv
        to_init = rfbm & ~xstate_bv  # compacted: also what XCOMP_BV lacks
        if fmt == STANDARD:
            slots, size = layout(self.table, rfbm, STANDARD)
        else:
            slots, _ = layout(self.table, xcomp_bv, COMPACTED)
            # Intel reads up to the last slot that RFBM wants, AMD up to the last that it loads.
            touched = rfbm & xcomp_bv if self.intel else to_load
            size = max([AREA_MIN] + [sum(slots[i]) for i in bits(touched)])
        _need(area, size)

        # 3. XFD: loading a disabled component is #NM, initialising it is not (13.14).
        disabled = to_load & self._xfd_active()
        if disabled:
            self.xfd_err = disabled
            return ("#NM", "xfd", XSTATE_BV)

        # 4. Values that may not be loaded.
        if fmt == STANDARD:
            load_mxcsr = has(rfbm, SSE) or has(rfbm, AVX)  # whatever XSTATE_BV says
        else:
            load_mxcsr = has(to_load, SSE)
        mxcsr = int.from_bytes(area[24:28], "little")
        images = {i: bytes(area[slots[i][0] : sum(slots[i])]) for i in bits(to_load)}
        fault = self._supervisor_fault(images, slots, to_load | to_init)
        if fault is None and load_mxcsr and mxcsr & ~self.table["mxcsr_mask"]:
            fault = ("#GP", "mxcsr-reserved", 24)
            if fmt == COMPACTED and not self.atomic_faults:
                # Intel, compacted: everything up to MXCSR has happened by now (measured).
                self._restore_components(images, to_init, rexw, only=(X87, SSE))
                self._track_restore(to_load & (1 << X87 | 1 << SSE), to_init)
        if fault is not None:
            return fault

        # 5. Do it.
        self._restore_components(images, to_init, rexw)
        if load_mxcsr:
            self.registers["mxcsr"] = mxcsr
        elif fmt == COMPACTED and has(to_init, SSE):
            self.registers["mxcsr"] = MXCSR_INIT
        if has(to_load, LBR) and self._lbr_depth_differs(images[LBR]):
            to_load &= ~(1 << LBR)  # XINUSE[15] stays what it was
        self._track_restore(to_load, to_init)
        return None

    def _supervisor_fault(
        self, images: dict[int, bytes], slots: Slots, touched: int
    ) -> Fault | None:
        """What XRSTORS refuses because WRMSR would (13.12)."""
        if (
            has(touched, PT)
            and "IA32_RTIT_CTL" in self.registers
            and self._int("IA32_RTIT_CTL") & 1
        ):
            return ("#GP", "pt-trace-enabled", XSTATE_BV)
        if PT in images:
            for offset in range(72, 128):
                if images[PT][offset] != 0:
                    return ("#GP", "pt-reserved", slots[PT][0] + offset)
        if UINTR in images and self._int("IA32_UINTR_MISC") >> 32 & 0xFF:
            return ("#GP", "uintr-uinv", slots[UINTR][0] + 16)
        for component in (CET_U, CET_S, UINTR, LBR):
            if component in images:
                values = component_values(images[component], component)
                for name, offset, *_ in FIELDS[component]:
                    rule = supervisor_value_fault(name, as_int(values[name]), self.linear_bits)
                    if rule is not None:
                        return ("#GP", rule, slots[component][0] + offset)
        return None

    def _restore_components(
        self,
        images: dict[int, bytes],
        to_init: int,
        rexw: bool,
        only: tuple[int, ...] | None = None,
    ) -> None:
        for i in bits(to_init):
            self._initialise(i)
        for i, image in images.items():
            if only is None or i in only:
                self._load(i, image, rexw)

    def _initialise(self, component: int) -> None:
        depth = self.registers.get("IA32_LBR_DEPTH", 0)
        initial = COMPONENTS[component].initial
        if component in VECTOR_PIECES:
            self._load_vectors(component, initial)
        else:
            self.registers.update(component_values(initial, component))
        if component == X87:
            self.fcs = self.fds = 0
        if component == LBR:
            self.registers["IA32_LBR_DEPTH"] = depth

    def _load(self, component: int, image: bytes, rexw: bool) -> None:
        if component in VECTOR_PIECES:
            self._load_vectors(component, image)
        elif component == X87:
            self._load_x87(image, rexw and self.mode64)
        elif component == LBR:
            self._load_lbr(image)
        elif component == TILECFG and not tilecfg_is_legal(image):
            self.registers["tilecfg"] = bytes(64)  # no fault: it becomes initial (13.5.14)
        else:
            self.registers.update(component_values(image, component))

    def _load_vectors(self, component: int, image: bytes) -> None:
        numbers, start, end, position = VECTOR_PIECES[component]
        for n in numbers:
            if n < 8 or self.mode64:  # else neither loaded nor initialised
                wide = bytearray(vector(self.registers, n))
                wide[start:end] = image[position : position + end - start]
                self._set_vector(n, bytes(wide))
            position += end - start

    def _load_x87(self, image: bytes, rexw: bool) -> None:
        values = component_values(image, X87)
        fcw = restored_fcw(as_int(values["fcw"]))
        fsw = restored_fsw(as_int(values["fsw"]), fcw)
        fop = as_int(values["fop"]) & 0x7FF
        fip, fdp = as_int(values["fip"]), as_int(values["fdp"])
        fcs = fds = 0
        if rexw:  # never a fault: the widths are what the CPU keeps (measured)
            fip = sign_extended(fip, 57)
            fdp = fdp if self.intel else sign_extended(fdp, 57)
        else:
            if not self.intel:  # Intel: FCS and FDS are deprecated, ignored
                fcs, fds = fip >> 32 & 0xFFFF, fdp >> 32 & 0xFFFF
            fip, fdp = fip & 0xFFFFFFFF, fdp & 0xFFFFFFFF
        if not self.intel and not has(fsw, 7):
            # No pending exception: Zen loses the pointers, older AMD CPUs do not load them.
            fop = fip = fdp = fcs = fds = 0
            if self.table["profile"] == "amd-legacy":
                fop, fip, fdp = self._int("fop"), self._int("fip"), self._int("fdp")
                fcs, fds = self.fcs, self.fds
        values.update({"fcw": fcw, "fsw": fsw, "fop": fop, "fip": fip, "fdp": fdp})
        self.registers.update(values)
        self.fcs, self.fds = fcs, fds

    def _lbr_depth_differs(self, image: bytes) -> bool:
        return u64(image, 8) != self._int("IA32_LBR_DEPTH")

    def _load_lbr(self, image: bytes) -> None:
        """Equal DEPTH: the triples below it; else CTL and LER alone, all triples zero (13.5.12)."""
        depth = self._int("IA32_LBR_DEPTH")
        differs = self._lbr_depth_differs(image)
        values = component_values(image, LBR)
        del values["IA32_LBR_DEPTH"]
        for i in range(32):
            for part in ("FROM_IP", "TO_IP", "INFO"):
                if differs:
                    values[f"IA32_LBR_{i}_{part}"] = 0
                elif i >= depth:
                    del values[f"IA32_LBR_{i}_{part}"]
        self.registers.update(values)


def _need(area: bytes | bytearray, size: int) -> None:
    if len(area) < size:
        raise ValueError(f"the instruction needs {size} bytes, the buffer has {len(area)}")


def _put64(area: bytearray, offset: int, value: int) -> None:
    area[offset : offset + 8] = value.to_bytes(8, "little")
