"""LDTILECFG, STTILECFG, TILERELEASE, TILEZERO, TILELOADD, TILELOADDT1, TILESTORED (SDM1 19, SDM2), palette 1."""

from __future__ import annotations

from .components import TILECFG, TILEDATA, has
from .machine import Raised, instruction
from .memory import Buffer, Operand
from .registers import as_bytes
from .restores import Restores
from .values import tilecfg_is_legal

PALETTES = 1  # the highest
ROWS, ROW_BYTES = 16, 64


class Tiles(Restores):
    @instruction
    def ldtilecfg(self, memory: Buffer, *, address: int = 0, segment: str = "ds") -> None:
        """The 64 bytes are read before they are judged; a fault changes nothing."""
        self._amx()
        self._canonical(address, segment)
        operand = Operand(memory, address)
        operand.need(0, 64)
        self._probe(operand, 0, False, 64)
        image = operand.read(0, 64)
        palette = image[0]
        if palette > PALETTES:
            raise Raised("#GP", "tilecfg-palette", 0)
        if palette == 1 and not tilecfg_is_legal(image):
            raise Raised("#GP", "tilecfg", _culprit(image))
        self.registers["tilecfg"] = image if palette == 1 else bytes(64)
        self._zero_tiles()
        self._tiles_initialised()

    @instruction
    def sttilecfg(self, memory: Buffer, *, address: int = 0, segment: str = "ds") -> None:
        self._amx()
        self._canonical(address, segment)
        operand = Operand(memory, address)
        operand.need(0, 64)
        self._probe(operand, 0, True, 64)
        operand.write(0, self._config())

    @instruction
    def tilerelease(self) -> None:
        self._amx()
        self.registers["tilecfg"] = bytes(64)
        self._zero_tiles()
        self._tiles_initialised()

    @instruction
    def tilezero(self, tile: int) -> None:
        """Neither the row length nor start_row is checked (measured)."""
        self._amx()
        self._shape(tile)
        self._not_disabled()
        self.registers[f"tmm{tile}"] = bytes(ROWS * ROW_BYTES)
        self._set_start_row(0)
        self._wrote(TILEDATA)

    @instruction
    def tileloadd(self, tile: int, memory: Buffer, stride: int, *, address: int = 0, segment: str = "ds") -> None:
        """Rows from start_row on are zeroed first; a fault leaves start_row at the row to resume with."""
        rows, row_bytes, start = self._memory_shape(tile)
        operand = Operand(memory, address)
        for r in range(start, rows):
            operand.need(r * stride, r * stride + row_bytes)
        data = bytearray(as_bytes(self.registers[f"tmm{tile}"], ROWS * ROW_BYTES))
        data[start * ROW_BYTES :] = bytes((ROWS - start) * ROW_BYTES)
        self._wrote(TILEDATA)
        try:
            for r in range(start, rows):
                self._set_start_row(r)
                offset = self._row(operand, r * stride, row_bytes, segment, False)
                data[r * ROW_BYTES : r * ROW_BYTES + row_bytes] = operand.read(offset, row_bytes)
            self._set_start_row(0)
        finally:
            self.registers[f"tmm{tile}"] = bytes(data)

    def tileloaddt1(self, tile: int, memory: Buffer, stride: int, *, address: int = 0, segment: str = "ds") -> object:
        """The same result; T1 is a hint."""
        return self.tileloadd(tile, memory, stride, address=address, segment=segment)

    @instruction
    def tilestored(self, tile: int, memory: Buffer, stride: int, *, address: int = 0, segment: str = "ds") -> None:
        rows, row_bytes, start = self._memory_shape(tile)
        operand = Operand(memory, address)
        for r in range(start, rows):
            operand.need(r * stride, r * stride + row_bytes)
        data = as_bytes(self.registers[f"tmm{tile}"], ROWS * ROW_BYTES)
        for r in range(start, rows):
            self._set_start_row(r)
            offset = self._row(operand, r * stride, row_bytes, segment, True)
            operand.write(offset, data[r * ROW_BYTES : r * ROW_BYTES + row_bytes])
        self._set_start_row(0)

    # --- checks, in the order measured --------------------------------------------------------------------------------

    def _amx(self) -> None:
        """64-bit mode, CR4.OSXSAVE, XCR0[18:17] = 11. CR0.TS plays no part."""
        if not (TILECFG in self.table["components"] and self.mode64):
            raise Raised("#UD", "cpuid" if self.mode64 else "mode")
        if not self.cr4_osxsave:
            raise Raised("#UD", "cr4-osxsave")
        if not (has(self.xcr0, TILECFG) and has(self.xcr0, TILEDATA)):
            raise Raised("#UD", "xcr0-amx")

    def _shape(self, tile: int) -> tuple[int, int]:
        """Rows and bytes a row of a tile that is configured."""
        config = self._config()
        rows, row_bytes = config[48 + tile], int.from_bytes(config[16 + 2 * tile : 18 + 2 * tile], "little")
        if config[0] == 0 or rows == 0 or row_bytes == 0:
            raise Raised("#UD", "tile-not-configured")
        return rows, row_bytes

    def _memory_shape(self, tile: int) -> tuple[int, int, int]:
        self._amx()
        rows, row_bytes = self._shape(tile)
        if row_bytes % 4 != 0:
            raise Raised("#UD", "tile-colsb")
        self._not_disabled()
        start = self._config()[1]
        if start >= rows:
            raise Raised("#UD", "tile-start-row")
        return rows, row_bytes, start

    def _not_disabled(self) -> None:
        if has(self._xfd_active(), TILEDATA):
            self.xfd_err = 1 << TILEDATA
            raise Raised("#NM", "xfd")

    def _row(self, operand: Operand, offset: int, length: int, segment: str, write: bool) -> int:
        """The offset at which the row lies, in an address space that wraps."""
        position = (operand.address + offset) % 2**64
        self._canonical(position, segment, offset)
        self._canonical(position + length - 1, segment, offset)
        self._probe(operand, position - operand.address, write, length)
        return position - operand.address

    # --- state --------------------------------------------------------------------------------------------------------

    def _config(self) -> bytes:
        return as_bytes(self.registers["tilecfg"], 64)

    def _set_start_row(self, row: int) -> None:
        config = self._config()
        self.registers["tilecfg"] = config[:1] + bytes([row]) + config[2:]

    def _zero_tiles(self) -> None:
        self.registers.update({f"tmm{t}": bytes(ROWS * ROW_BYTES) for t in range(8)})


def _culprit(image: bytes) -> int:
    """The first byte that breaks a rule of palette 1."""
    for offset in range(2, 16):
        if image[offset]:
            return offset
    for t in range(8):
        colsb = int.from_bytes(image[16 + 2 * t : 18 + 2 * t], "little")
        if colsb > 64 or (colsb == 0) != (image[48 + t] == 0):
            return 16 + 2 * t
    for offset in [*range(32, 48), *range(48, 64)]:
        if (offset < 48 or offset >= 56) and image[offset]:
            return offset
        if 48 <= offset < 56 and image[offset] > 16:
            return offset
    raise AssertionError("a legal configuration")
