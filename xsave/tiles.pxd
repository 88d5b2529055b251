# AMX tile state as numbers: the rules of a 64-byte TILECFG image and what it says. No function here touches a Python
# object but `load_palettes`.
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

cdef extern from "bytes.h" nogil:
    uint16_t load_le16(const void *p)

cdef enum:
    # SDM1 19.2 and the pages of LDTILECFG and CPUID leaf 1DH: where the image has what, and the architectural palettes.
    TILECFG_SIZE = 64
    START_ROW_AT = 1
    RESERVED_AT = 2
    COLSB_AT = 16               # two bytes a tile
    ROWS_AT = 48                # one byte a tile
    TILE_NAMES = 8
    TILE_ROWS = 16
    TILE_ROW_BYTES = 64
    TILE_BYTES = 1024           # of a tile in TILEDATA, whatever its configuration
    PALETTE_ACE = 2             # the highest one known

# What LDTILECFG checks, one number a rule, in the order of its operation; `xsave.tiles.TILE_RULES` has the words.
cdef enum TileRule:
    TILE_OK = 0
    TILE_PALETTE = 1            # palette_id above the highest that CPUID leaf 1DH enumerates
    TILE_XCR0 = 2               # palette that XCR0 does not support
    TILE_RESERVED = 3           # bytes 2-15
    TILE_COLSB = 4              # colsb above the palette's bytes per row
    TILE_COLSB_REST = 5         # bytes after the last colsb, to 47
    TILE_ROW_COUNT = 6          # rows above the palette's
    TILE_ROWS_REST = 7          # bytes after the last rows, to 63
    TILE_HALF = 8               # exactly one of rows and colsb is 0
    TILE_ACE_REST = 9           # palette 2: any of bytes 1-63 not 0

# What a CPU enumerates in CPUID leaf 1DH. `highest` is 0 without AMX.
cdef struct Palettes:
    uint32_t highest
    uint32_t names[3]
    uint32_t rows[3]
    uint32_t row_bytes[3]

# `image` is 64 bytes everywhere, at any alignment, with any contents.

cdef inline uint32_t config_palette(const uint8_t *image) noexcept nogil:
    return image[0]


cdef inline uint32_t config_start_row(const uint8_t *image) noexcept nogil:
    return image[START_ROW_AT] if image[0] == 1 else 0


# Rows and bytes per row of tile 0-7: 0 with palette 0, the whole tile with palette 2, which has no shapes.
cdef inline uint32_t config_rows(const uint8_t *image, uint32_t tile) noexcept nogil:
    if image[0] == PALETTE_ACE:
        return TILE_ROWS
    return image[ROWS_AT + tile] if image[0] == 1 else 0


cdef inline uint32_t config_colsb(const uint8_t *image, uint32_t tile) noexcept nogil:
    if image[0] == PALETTE_ACE:
        return TILE_ROW_BYTES
    return load_le16(image + COLSB_AT + 2 * tile) if image[0] == 1 else 0


# Whether instructions may name tile 0-7.
cdef inline bint config_valid(const uint8_t *image, uint32_t tile) noexcept nogil:
    return config_rows(image, tile) != 0 and config_colsb(image, tile) != 0


# Palette 0 always; 1 with XCR0[18:17] = 11; 2 with XCR0[20] too; others never.
cdef bint palette_supported(uint32_t palette, uint64_t xcr0) noexcept nogil

# The first rule that the image breaks (a TileRule) and the byte that does, or TILE_OK: LDTILECFG raises #GP exactly if
# it is not TILE_OK. `culprit` may be NULL; it is left alone where nothing is broken.
cdef int config_fault(const uint8_t *image, const Palettes *palettes, uint64_t xcr0, uint32_t *culprit) noexcept nogil

# One rule alone (palette_id is 1 for rules 3-8, 2 for rule 9): the number if it is broken. `config_fault` asks for one
# after the other.
cdef int config_breaks(int rule, const uint8_t *image, const Palettes *palettes, uint64_t xcr0,
                       uint32_t *culprit) noexcept nogil

# What XRSTOR does with the image: true if it becomes TILECFG, false if TILECFG becomes initial (palette 0 with any
# rest, and every image on which LDTILECFG would fault; SDM1 13.5.14).
cdef bint config_legal_for_restore(const uint8_t *image, const Palettes *palettes, uint64_t xcr0) noexcept nogil

# One row of a tile (1,024 bytes) as TILELOADD leaves it: `colsb` bytes (64 at most), then zeros.
cdef void put_row(uint8_t *tile, uint32_t row, const uint8_t *source, uint32_t colsb) noexcept nogil

# Reads the palettes of a CpuModel's record; None stands for a CPU that has all the architecture knows.
cdef int load_palettes(model, Palettes *out) except -1

cdef class TileConfig:
    cdef uint8_t image[64]
