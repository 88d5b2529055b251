"""AMX tile state: configurations, tiles as matrices, and tile state in and out of areas.

A TILECFG image is 64 bytes that LDTILECFG loads and XSAVE stores as component 17; TILEDATA, component 18, is eight
tiles of 16 rows of 64 bytes whatever the configuration says. Rules and their numbers stand in `tiles.pxd`, their words
in `TILE_RULES`. Manual: SDM1 19, SDM2 LDTILECFG.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from types import MappingProxyType

from xsave.components import Component

__all__ = ["TILE_RULES"]

cdef uint64_t XCR0_AMX = 3 << 17
cdef uint64_t XCR0_ACE = 1 << 20

# The rules of a TILECFG image by number: (code, what the image does wrong, where that is forbidden).
TILE_RULES = MappingProxyType({
    TILE_PALETTE: ("T-PALETTE", "palette_id is above the highest palette of the CPU", "SDM2 LDTILECFG"),
    TILE_XCR0: ("T-XCR0", "XCR0 does not support the palette", "SDM2 LDTILECFG"),
    TILE_RESERVED: ("T-RESERVED", "bytes 2-15 are reserved", "SDM2 LDTILECFG"),
    TILE_COLSB: ("T-COLSB", "colsb is above the palette's bytes per row", "SDM2 LDTILECFG"),
    TILE_COLSB_REST: ("T-COLSB-REST", "bytes from the last colsb to 47 are reserved", "SDM2 LDTILECFG"),
    TILE_ROW_COUNT: ("T-ROWS", "rows is above the palette's rows", "SDM2 LDTILECFG"),
    TILE_ROWS_REST: ("T-ROWS-REST", "bytes from the last rows to 63 are reserved", "SDM2 LDTILECFG"),
    TILE_HALF: ("T-HALF", "rows and colsb of a tile are both 0 or neither", "SDM2 LDTILECFG"),
    TILE_ACE_REST: ("T-ACE-REST", "palette 2 has no shapes: bytes 1-63 are reserved", "ACE 1.16"),
})


# --- numbers only -------------------------------------------------------------------------------------------

cdef bint palette_supported(uint32_t palette, uint64_t xcr0) noexcept nogil:
    if palette == 0:
        return True
    if palette > PALETTE_ACE or xcr0 & XCR0_AMX != XCR0_AMX:
        return False
    return palette == 1 or xcr0 & XCR0_ACE != 0


cdef int first_set(const uint8_t *image, int begin, int end) noexcept nogil:
    # The first byte of a range that is not 0, or -1.
    cdef int i
    for i in range(begin, end):
        if image[i]:
            return i
    return -1


cdef int config_breaks(int rule, const uint8_t *image, const Palettes *palettes, uint64_t xcr0,
                       uint32_t *culprit) noexcept nogil:
    cdef uint32_t palette = image[0]
    cdef uint32_t kind = palette if palette <= PALETTE_ACE else 0
    cdef int names = palettes.names[kind]
    cdef int t
    cdef int at = -1
    if rule == TILE_PALETTE:
        if palette > palettes.highest:
            at = 0
    elif rule == TILE_XCR0:
        if not palette_supported(palette, xcr0):
            at = 0
    elif palette == 1:
        if rule == TILE_RESERVED:
            at = first_set(image, RESERVED_AT, COLSB_AT)
        elif rule == TILE_COLSB_REST:
            at = first_set(image, COLSB_AT + 2 * names, ROWS_AT)
        elif rule == TILE_ROWS_REST:
            at = first_set(image, ROWS_AT + names, TILECFG_SIZE)
        else:
            for t in range(names):
                if rule == TILE_COLSB and config_colsb(image, t) > palettes.row_bytes[1]:
                    at = COLSB_AT + 2 * t
                elif rule == TILE_ROW_COUNT and config_rows(image, t) > palettes.rows[1]:
                    at = ROWS_AT + t
                elif rule == TILE_HALF and (config_rows(image, t) == 0) != (config_colsb(image, t) == 0):
                    at = ROWS_AT + t if config_rows(image, t) == 0 else COLSB_AT + 2 * t    # the one that is 0
                if at >= 0:
                    break
    elif palette == PALETTE_ACE:
        if rule == TILE_ACE_REST:
            at = first_set(image, START_ROW_AT, TILECFG_SIZE)
    if at < 0:
        return TILE_OK
    if culprit != NULL:
        culprit[0] = at
    return rule


cdef int config_fault(const uint8_t *image, const Palettes *palettes, uint64_t xcr0, uint32_t *culprit) noexcept nogil:
    cdef int rule
    for rule in range(TILE_PALETTE, TILE_ACE_REST + 1):
        if config_breaks(rule, image, palettes, xcr0, culprit) != TILE_OK:
            return rule
    return TILE_OK


cdef bint config_legal_for_restore(const uint8_t *image, const Palettes *palettes, uint64_t xcr0) noexcept nogil:
    return image[0] != 0 and config_fault(image, palettes, xcr0, NULL) == TILE_OK


cdef void put_row(uint8_t *tile, uint32_t row, const uint8_t *source, uint32_t colsb) noexcept nogil:
    cdef uint8_t *at = tile + row * TILE_ROW_BYTES
    memcpy(at, source, colsb)
    memset(at + colsb, 0, TILE_ROW_BYTES - colsb)


# --- what a CPU enumerates ----------------------------------------------------------------------------------

cdef int load_palettes(model, Palettes *out) except -1:
    # CPUID.1DH.0:EAX is the highest palette; 1DH.n: EBX bytes per row and names, ECX rows. A record without them, as a
    # core file's layout note is, stands for a CPU as the architecture has it.
    cdef int palette
    cdef uint32_t names, rows, row_bytes
    memset(out, 0, sizeof(Palettes))
    for palette in range(1, PALETTE_ACE + 1):
        out.names[palette] = TILE_NAMES
        out.rows[palette] = TILE_ROWS
        out.row_bytes[palette] = TILE_ROW_BYTES
    if model is None:
        out.highest = PALETTE_ACE
        return 0
    if Component.TILECFG not in model.components or Component.TILEDATA not in model.components:
        return 0
    record = model.cpuid
    out.highest = record.get((0x1D, 0), (0, 0, 0, 0))[0]
    if out.highest == 0:
        out.highest = PALETTE_ACE if Component.SCALEDATA in model.components else 1
    for palette in range(1, PALETTE_ACE + 1):
        leaf = record.get((0x1D, palette), (0, 0, 0, 0))
        row_bytes, names, rows = leaf[1] & 0xFFFF, leaf[1] >> 16, leaf[2] & 0xFFFF
        # No more than the state components have room for.
        if 0 < names <= TILE_NAMES and 0 < rows <= TILE_ROWS and 0 < row_bytes <= TILE_ROW_BYTES:
            out.names[palette] = names
            out.rows[palette] = rows
            out.row_bytes[palette] = row_bytes
    return 0
