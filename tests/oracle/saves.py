"""XSAVE, XSAVEOPT, XSAVEC, XSAVES and FXSAVE (SDM1 13.7, 13.9-13.11, SDM2)."""

from __future__ import annotations

from .components import (
    ALL,
    AREA_MIN,
    AVX,
    BIT63,
    BNDCSR,
    COMPACTED,
    COMPONENTS,
    HI16_ZMM,
    LBR,
    LEGACY_SIZE,
    MXCSR_INIT,
    PKRU,
    PT,
    SSE,
    STANDARD,
    TILEDATA,
    UINTR,
    X87,
    XCOMP_BV,
    XSTATE_BV,
    ZMM_HI256,
    Slots,
    bits,
    has,
)
from .layouts import layout
from .machine import Raised, instruction
from .memory import Buffer, Operand
from .registers import VECTOR_PIECES, component_bytes
from .usage import Usage

Pieces = list[tuple[int, bytes]]  # (offset in the area, bytes), in the order of storing


class Saves(Usage):
    # --- the bytes of a component (SDM1 13.5) -------------------------------------------------------------------------

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
        if component in (SSE, AVX, ZMM_HI256, HI16_ZMM):
            return self._vector_extent(component)
        if component == PKRU:
            return [(0, 4)]
        if component == BNDCSR:
            return [(0, 16)]
        if component == LBR:
            return [(0, 40 + 24 * self._int("IA32_LBR_DEPTH"))]
        return [(0, COMPONENTS[component].size)]

    def _vector_extent(self, component: int) -> list[tuple[int, int]]:
        """Registers 8-15 only in 64-bit mode, ZMM16-31 too."""
        _, start, end, position = VECTOR_PIECES[component]
        if component == HI16_ZMM:
            return [(0, 1024)] if self.mode64 else []
        return [(position, (16 if self.mode64 else 8) * (end - start))]

    def _pieces(self, slots: Slots, components: int, rexw: bool, mxcsr: bool) -> Pieces:
        pieces: Pieces = []
        for i in bits(components):
            image = self._image(i, rexw)
            for offset, length in self._written(i):
                pieces.append((slots[i][0] + offset, image[offset : offset + length]))
        if mxcsr:
            value = self._int("mxcsr").to_bytes(4, "little") + self.table["mxcsr_mask"].to_bytes(4, "little")
            pieces.append((24, value))
        return _legacy_first(pieces)

    # --- the area -----------------------------------------------------------------------------------------------------

    def _save_extent(self, slots: Slots, size: int, may_skip_disabled: bool) -> int:
        """How far the save may touch. With XFD armed an Intel XSAVEOPT or XSAVEC needs no byte of
        TILEDATA (measured)."""
        if not may_skip_disabled or not self.intel or not has(self._xfd_active(), TILEDATA):
            return size
        ends = [o if i == TILEDATA else o + n for i, (o, n) in slots.items()]
        return max([AREA_MIN, *ends])

    def _probe_save(self, operand: Operand, extent: int, legacy: list[int]) -> None:
        """Intel: the last byte, the legacy region if a part of it is asked for, the header. Zen 5: everything, the
        first byte named before the last and the last before the rest (measured)."""
        operand.need(0, extent)
        probes = [extent - 1, *legacy, XSTATE_BV] if self.intel else [0, extent - 1]
        for offset in probes:
            self._probe(operand, offset, True)
        if not self.intel:
            self._probe(operand, 0, True, extent)

    def _store(self, operand: Operand, pieces: Pieces, header: Pieces) -> None:
        """Up to a page that is missing inside, if there is one; the header last (measured)."""
        for done, (offset, data) in enumerate(pieces):
            bad = operand.first_bad(offset, len(data), True)
            if bad is not None:
                if not self.atomic_faults:
                    for position, earlier in pieces[:done]:
                        operand.write(position, earlier)
                    operand.write(offset, data[: bad - offset])
                raise self._page_fault(operand, bad, True)
        for offset, data in [*pieces, *header]:
            operand.write(offset, data)

    # --- the instructions ---------------------------------------------------------------------------------------------

    @instruction
    def xsave(self, area: Buffer, mask: int = ALL, *, rexw: bool = True, address: int = 0, segment: str = "ds") -> None:
        """SDM1 13.7."""
        self._enabled()
        self._save_standard(self._operand(area, address, segment, 64), mask, rexw, optimised=False)

    @instruction
    def xsaveopt(
        self, area: Buffer, mask: int = ALL, *, rexw: bool = True, address: int = 0, segment: str = "ds"
    ) -> None:
        """SDM1 13.9."""
        self._enabled(0)
        self._save_standard(self._operand(area, address, segment, 64), mask, rexw, optimised=True)

    def _save_standard(self, operand: Operand, mask: int, rexw: bool, *, optimised: bool) -> None:
        rfbm = self.xcr0 & mask
        slots, size = layout(self.table, rfbm, STANDARD)
        self._probe_save(operand, self._save_extent(slots, size, optimised), self._legacy_probe(rfbm, True))
        xinuse = self.xinuse & ~self._xfd_active()
        old = operand.read64(XSTATE_BV)
        to_be_saved = rfbm  # plain XSAVE: initial values too
        if optimised:
            to_be_saved = sum(1 << i for i in bits(rfbm & xinuse) if not self._skips(operand.address, 0, i))
        mxcsr = has(rfbm, SSE) or has(rfbm, AVX)  # no optimisation for MXCSR
        new = old & ~rfbm | xinuse & rfbm
        self._store(operand, self._pieces(slots, to_be_saved, rexw, mxcsr), [(XSTATE_BV, _u64(new))])

    @instruction
    def xsavec(
        self, area: Buffer, mask: int = ALL, *, rexw: bool = True, address: int = 0, segment: str = "ds"
    ) -> None:
        """SDM1 13.10."""
        self._enabled(1)
        operand = self._operand(area, address, segment, 64)
        self._save_compacted(operand, self.xcr0 & mask, rexw, may_skip_disabled=True, modified_opt=False)

    @instruction
    def xsaves(
        self, area: Buffer, mask: int = ALL, *, rexw: bool = True, address: int = 0, segment: str = "ds"
    ) -> None:
        """SDM1 13.11."""
        self._enabled(3, supervisor=True)
        operand = self._operand(area, address, segment, 64)
        rfbm = (self.xcr0 | self.xss) & mask
        self._save_compacted(operand, rfbm, rexw, may_skip_disabled=False, modified_opt=True)
        if has(rfbm, PT):  # 13.5.6: TraceEn is cleared once CTL is saved
            self.registers["IA32_RTIT_CTL"] = self._int("IA32_RTIT_CTL") & ~1
        if has(rfbm, UINTR):  # 13.5.11: UINV is cleared after saving
            self.registers["IA32_UINTR_MISC"] = self._int("IA32_UINTR_MISC") & ~(0xFF << 32)

    def _save_compacted(
        self, operand: Operand, rfbm: int, rexw: bool, *, may_skip_disabled: bool, modified_opt: bool
    ) -> None:
        slots, size = layout(self.table, rfbm, COMPACTED)
        self._probe_save(operand, self._save_extent(slots, size, may_skip_disabled), self._legacy_probe(rfbm, False))
        xstate_bv = rfbm & self.xinuse & ~self._xfd_active()
        to_be_saved = xstate_bv
        if modified_opt:
            xcomp_bv = rfbm | BIT63
            to_be_saved = sum(1 << i for i in bits(xstate_bv) if not self._skips(operand.address, xcomp_bv, i))
        if has(rfbm, SSE) and self._int("mxcsr") != MXCSR_INIT:  # defeats both optimisations
            xstate_bv |= 1 << SSE
            to_be_saved |= 1 << SSE
        pieces = self._pieces(slots, to_be_saved, rexw, has(to_be_saved, SSE))
        # Header bytes 16-63 keep what they were.
        self._store(operand, pieces, [(XSTATE_BV, _u64(xstate_bv)), (XCOMP_BV, _u64(rfbm | BIT63))])

    @instruction
    def fxsave(self, area: Buffer, *, rexw: bool = True, address: int = 0, segment: str = "ds") -> None:
        """SDM2, FXSAVE. Without CR4.OSFXSR it is about x87 alone."""
        self._fx_enabled()
        operand = self._operand(area, address, segment, 16)
        self._probe_fx(operand, True)
        sse = self.cr4_osfxsr
        slots = {X87: (0, LEGACY_SIZE), SSE: (0, LEGACY_SIZE)}
        self._store(operand, self._pieces(slots, 1 << X87 | sse << SSE, rexw, sse), [])

    def _fx_enabled(self) -> None:
        if self.cr0_ts or self.cr0_em:
            raise Raised("#NM", "cr0-ts" if self.cr0_ts else "cr0-em")

    def _probe_fx(self, operand: Operand, write: bool) -> None:
        """All 512 bytes, the last one first (measured on both)."""
        operand.need(0, LEGACY_SIZE)
        for offset in (LEGACY_SIZE - 1, 0):
            self._probe(operand, offset, write)
        self._probe(operand, 0, write, LEGACY_SIZE)


def _legacy_first(pieces: Pieces) -> Pieces:
    """The legacy region by address, then the components in their order, which need not be that of their offsets."""
    legacy = sorted(piece for piece in pieces if piece[0] < LEGACY_SIZE)
    return legacy + [piece for piece in pieces if piece[0] >= LEGACY_SIZE]


def _u64(value: int) -> bytes:
    return value.to_bytes(8, "little")
