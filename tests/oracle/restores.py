"""XRSTOR, XRSTORS and FXRSTOR (SDM1 13.8, 13.12, SDM2)."""

from __future__ import annotations

from .components import (
    ALL,
    AREA_MIN,
    AVX,
    BIT63,
    CET_S,
    CET_U,
    COMPACTED,
    COMPONENTS,
    FIELDS,
    HI16_ZMM,
    LBR,
    LEGACY_SIZE,
    MXCSR_INIT,
    PT,
    SSE,
    STANDARD,
    TILECFG,
    TILEDATA,
    UINTR,
    X87,
    XCOMP_BV,
    XSTATE_BV,
    ZMM_HI256,
    Slots,
    Values,
    bits,
    has,
    u64,
)
from .layouts import header_faults, layout
from .machine import Raised, instruction
from .memory import Buffer, Operand
from .registers import VECTOR_PIECES, as_int, component_values, vector
from .saves import Saves
from .values import restored_fcw, restored_fsw, sign_extended, supervisor_value_fault, tilecfg_is_legal

EARLY = ("cmp-xcomp-bv",)  # Intel: before the page faults of the extended region
EVERY_BYTE = 1 << 64


class Restores(Saves):
    @instruction
    def xrstor(
        self, area: Buffer, mask: int = ALL, *, rexw: bool = True, address: int = 0, segment: str = "ds"
    ) -> None:
        """SDM1 13.8."""
        self._enabled()
        operand = self._operand(area, address, segment, 64)
        operand.need(0, AREA_MIN)
        self._probe_header(operand)
        compacted = has(self.table["d1eax"], 1) and has(operand.read64(XCOMP_BV), 63)
        self._restore(operand, COMPACTED if compacted else STANDARD, self.xcr0, mask, rexw)

    @instruction
    def xrstors(
        self, area: Buffer, mask: int = ALL, *, rexw: bool = True, address: int = 0, segment: str = "ds"
    ) -> None:
        """SDM1 13.12: the compacted format alone, supervisor components too."""
        self._enabled(3, supervisor=True)
        operand = self._operand(area, address, segment, 64)
        operand.need(0, AREA_MIN)
        self._probe_header(operand)
        self._restore(operand, COMPACTED, self.xcr0 | self.xss, mask, rexw)

    # --- checks, in their order ---------------------------------------------------------------------------------------

    def _probe_header(self, operand: Operand) -> None:
        """Intel looks at XCOMP_BV first, Zen 5 at the first byte of the area and of the header (measured)."""
        for offset in [XCOMP_BV] if self.intel else [0, XSTATE_BV]:
            self._probe(operand, offset, False)
        if not self.intel:
            self._probe(operand, 0, False, AREA_MIN)

    def _check_header(self, faults: list[tuple[str, int]], rules: tuple[str, ...] | None = None) -> None:
        for rule, offset in faults:
            if rules is None or rule in rules:
                raise Raised("#GP", rule, offset)

    def _restore(self, operand: Operand, fmt: str, allowed: int, mask: int, rexw: bool) -> None:
        rfbm = allowed & mask
        header = operand.read(0, AREA_MIN)
        faults = header_faults(header, self.table, fmt, allowed)
        xstate_bv, xcomp_bv = u64(header, XSTATE_BV), u64(header, XCOMP_BV) & ~BIT63

        # 1. Header and page faults. Zen 5: the header first. Intel: it reads XCOMP_BV, judges it, reads on (measured).
        self._check_header(faults, EARLY if self.intel else None)
        to_load = rfbm & xstate_bv
        to_init = rfbm & ~xstate_bv  # compacted: also what XCOMP_BV lacks
        if fmt == STANDARD:
            slots, extent = layout(self.table, rfbm, STANDARD)
            wanted = rfbm
        else:
            slots, _ = layout(self.table, xcomp_bv, COMPACTED)
            wanted = rfbm & xcomp_bv
            # Intel reads up to the last slot that RFBM wants, AMD up to the last that it loads.
            ends = [sum(slots[i]) for i in bits(wanted if self.intel else to_load)]
            extent = max([AREA_MIN, *ends])
        if not faults:
            operand.need(0, extent)
        probes = [extent - 1]
        if self.intel:
            probes += self._legacy_probe(wanted, fmt == STANDARD)
        for offset in probes:
            self._probe(operand, offset, False)
        if not self.intel:
            self._probe(operand, 0, False, extent)
        self._check_header(faults)

        # 2. XFD: loading a disabled component is #NM, initialising it is not (13.14).
        disabled = to_load & self._xfd_active()
        if disabled:
            self.xfd_err = disabled
            raise Raised("#NM", "xfd", XSTATE_BV)

        # 3. Values that may not be loaded.
        if fmt == STANDARD:
            load_mxcsr = has(rfbm, SSE) or has(rfbm, AVX)  # whatever XSTATE_BV says
        else:
            load_mxcsr = has(to_load, SSE)
        mxcsr = int.from_bytes(operand.read(24, 4), "little")
        images = {i: operand.read(*slots[i]) for i in bits(to_load)}
        self._check_supervisor(images, slots, to_load | to_init)
        if load_mxcsr and mxcsr & ~self.table["mxcsr_mask"]:
            if fmt == COMPACTED and not self.atomic_faults:
                # Intel, compacted: everything up to MXCSR has happened by now (measured).
                self._do(images, to_load & (1 << X87 | 1 << SSE), to_init, rexw)
            raise Raised("#GP", "mxcsr-reserved", 24)

        # 4. Do it, as far as the pages inside the area reach.
        missing = self._missing(operand, slots, to_load)
        if missing is not None and self.atomic_faults:
            raise self._page_fault(operand, missing[1], False)
        if load_mxcsr:
            self.registers["mxcsr"] = mxcsr
        elif fmt == COMPACTED and has(to_init, SSE):
            self.registers["mxcsr"] = MXCSR_INIT
        if missing is not None:
            component, offset = missing
            self._do(images, to_load & (2 << component) - 1, to_init, rexw, (component, offset - slots[component][0]))
            raise self._page_fault(operand, offset, False)
        self._do(images, to_load, to_init, rexw)
        self._restored(operand.address, rfbm, u64(header, XCOMP_BV))

    def _missing(self, operand: Operand, slots: Slots, to_load: int) -> tuple[int, int] | None:
        """The first component that meets a page which is not there, and the first such byte of it."""
        for i in bits(to_load):
            for offset, length in self._read_of(i, slots[i][1]):
                bad = operand.first_bad(slots[i][0] + offset, length, False)
                if bad is not None:
                    return i, bad
        return None

    def _read_of(self, component: int, size: int) -> list[tuple[int, int]]:
        """The bytes of a component that a load reads, as (offset, length)."""
        if component == X87:
            return [(0, 24), (32, 128)]
        if component in (SSE, AVX, ZMM_HI256, HI16_ZMM):
            return self._vector_extent(component)
        return [(0, size)]

    def _check_supervisor(self, images: dict[int, bytes], slots: Slots, touched: int) -> None:
        """What XRSTORS refuses because WRMSR would (13.12)."""
        if has(touched, PT) and "IA32_RTIT_CTL" in self.registers and self._int("IA32_RTIT_CTL") & 1:
            raise Raised("#GP", "pt-trace-enabled", XSTATE_BV)
        if PT in images:
            for offset in range(72, 128):
                if images[PT][offset] != 0:
                    raise Raised("#GP", "pt-reserved", slots[PT][0] + offset)
        if UINTR in images and self._int("IA32_UINTR_MISC") >> 32 & 0xFF:
            raise Raised("#GP", "uintr-uinv", slots[UINTR][0] + 16)
        for component in (CET_U, CET_S, UINTR, LBR):
            if component in images:
                values = component_values(images[component], component)
                for name, offset, *_ in FIELDS[component]:
                    rule = supervisor_value_fault(name, as_int(values[name]), self.linear_bits)
                    if rule is not None:
                        raise Raised("#GP", rule, slots[component][0] + offset)

    # --- effects ------------------------------------------------------------------------------------------------------

    def _do(
        self, images: dict[int, bytes], to_load: int, to_init: int, rexw: bool, cut: tuple[int, int] | None = None
    ) -> None:
        """All initialisations, then the loads in order. `cut`: of this component only the registers that lie wholly
        below this offset; none of TILECFG, and of TILEDATA every tile becomes 0 (measured)."""
        self._low_before_restore()
        for i in bits(to_init):
            self._initialise(i)
        marks = to_load
        for i in bits(to_load):
            if has(to_load, LBR) and i == LBR and self._lbr_depth_differs(images[LBR]):
                marks &= ~(1 << LBR)  # XINUSE[15] stays what it was
            if cut is None or i != cut[0]:
                self._load(i, images[i], rexw)
            else:
                self._load_below(i, images[i], cut[1])
        self._track_restore(marks, to_init)
        self._modified_low |= to_load | to_init
        self._modified_high |= to_load | to_init

    def _low_before_restore(self) -> None:
        """With the modified optimisation on, marks are kept from the first instruction on."""
        if self.modified_opt:
            self._tracked()

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

    def _load_below(self, component: int, image: bytes, end: int) -> None:
        if component == TILEDATA:
            self._initialise(TILEDATA)
        elif component in VECTOR_PIECES:
            self._load_vectors(component, image, end)
        elif component != TILECFG:
            values = component_values(image, component)
            kept = {name for name, offset, width, _ in FIELDS[component] if offset + width <= end}
            self.registers.update({name: value for name, value in values.items() if name in kept})

    def _load_vectors(self, component: int, image: bytes, limit: int = EVERY_BYTE) -> None:
        numbers, start, end, position = VECTOR_PIECES[component]
        for n in numbers:
            next_position = position + end - start
            if next_position <= limit and (n < 8 or self.mode64):  # else neither loaded nor initialised
                wide = bytearray(vector(self.registers, n))
                wide[start:end] = image[position:next_position]
                self._set_vector(n, bytes(wide))
            position = next_position

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
        values: Values = component_values(image, LBR)
        del values["IA32_LBR_DEPTH"]
        for i in range(32):
            for part in ("FROM_IP", "TO_IP", "INFO"):
                if differs:
                    values[f"IA32_LBR_{i}_{part}"] = 0
                elif i >= depth:
                    del values[f"IA32_LBR_{i}_{part}"]
        self.registers.update(values)

    # --- FXRSTOR ------------------------------------------------------------------------------------------------------

    @instruction
    def fxrstor(self, area: Buffer, *, rexw: bool = True, address: int = 0, segment: str = "ds") -> None:
        """SDM2, FXRSTOR. Nothing changes if MXCSR is bad (measured). Without CR4.OSFXSR it is about x87 alone."""
        self._fx_enabled()
        operand = self._operand(area, address, segment, 16)
        self._probe_fx(operand, False)
        image = operand.read(0, LEGACY_SIZE)
        mxcsr = int.from_bytes(image[24:28], "little")
        if self.cr4_osfxsr and mxcsr & ~self.table["mxcsr_mask"]:
            raise Raised("#GP", "mxcsr-reserved", 24)
        low = self._tracked()
        self._load(X87, image, rexw)
        if self.cr4_osfxsr:
            self._load(SSE, image, rexw)
            self.registers["mxcsr"] = mxcsr
        if self.intel:
            self._low = low | 1 << X87
            self._modified_low |= 1 << X87
            if self.cr4_osfxsr:
                self._wrote_mxcsr()
            return
        self._modified_low |= 1 << X87 | 1 << SSE
        self._track_restore(1 << X87 | 1 << SSE, 0)
