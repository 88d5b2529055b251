"""AMX tile state: configurations, tiles as matrices, and tile state in and out of areas.

A TILECFG image is 64 bytes that LDTILECFG loads and XSAVE stores as component 17; TILEDATA, component 18, is eight
tiles of 16 rows of 64 bytes whatever the configuration says. Rules and their numbers stand in `tiles.pxd`, their words
in `TILE_RULES`. Manual: SDM1 19, SDM2 LDTILECFG.
"""

cimport cython
from cpython.buffer cimport (PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_FillInfo, PyBuffer_Release, Py_buffer,
                             PyObject_GetBuffer)
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset

from xsave.area cimport Area
from xsave.codec cimport Field, bits_of, find_field, load_le64, write_value
from xsave.layout cimport HEADER_OFFSET, Layout

from importlib import import_module
from types import MappingProxyType

from xsave.components import Component, ComponentMask
from xsave.errors import FormatError, LayoutError, TruncatedError

cdef extern from "bytes.h" nogil:
    void store_le16(void *p, uint32_t v)
    void store_le32(void *p, uint32_t v)
    void store_le64(void *p, uint64_t v)

__all__ = ["ELEMENTS", "TILE_RULES", "TileConfig", "lint", "restore", "save", "tile", "tile_bytes", "tile_load",
           "tile_store"]

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
    cdef int names = palettes.names[1]
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
                if at != -1:
                    break
    elif palette == PALETTE_ACE:
        if rule == TILE_ACE_REST:
            at = first_set(image, START_ROW_AT, TILECFG_SIZE)
    if at == -1:
        return TILE_OK
    if culprit != NULL:
        culprit[0] = at
    return rule


cdef inline bint shapes_are_sound(const uint8_t *image, const Palettes *palettes) noexcept nogil:
    # All rules of palette 1 with eight names in one sum, zero if all is well; what is wrong, `config_breaks` finds.
    cdef uint64_t odd = (load_le64(image) >> 16 | load_le64(image + 8) | load_le64(image + 32) | load_le64(image + 40)
                         | load_le64(image + 56))
    cdef uint32_t rows, colsb, wrapped = 0
    cdef int t
    for t in range(TILE_NAMES):
        rows = image[ROWS_AT + t]
        colsb = load_le16(image + COLSB_AT + 2 * t)
        # Bit 31: a number above its limit, or a 0 alone, has wrapped around.
        wrapped |= (palettes.rows[1] - rows) | (palettes.row_bytes[1] - colsb) | ((rows - 1) ^ (colsb - 1))
    return (odd | wrapped >> 31) == 0


cdef int config_fault(const uint8_t *image, const Palettes *palettes, uint64_t xcr0, uint32_t *culprit) noexcept nogil:
    cdef int rule
    cdef int last = TILE_ACE_REST
    if image[0] == 1 and palettes.names[1] == TILE_NAMES and shapes_are_sound(image, palettes):
        last = TILE_XCR0
    for rule in range(TILE_PALETTE, last + 1):
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


# --- configurations -----------------------------------------------------------------------------------------

@cython.final
cdef class TileConfig:
    """A TILECFG image: which tiles are configured, and their shapes.

    `shapes`: `{tile: (rows, colsb)}` with tiles 0-7, rows up to 16 and colsb, the bytes per row, up to 64. `palette`:
    None for 1 where shapes are given and for 0, the initial configuration, where they are not; 2 is ACE's, where
    every tile is whole and shapes cannot be chosen. `start_row`: 0-255, where an interrupted TILELOADD or TILESTORED
    resumes. `TileConfig.from_bytes` takes any 64 bytes.

    `bytes(config)` and `memoryview(config)` are the 64 bytes, as LDTILECFG takes them. Immutable; equal if the bytes
    are; hashes, pickles and copies.

    Raises: `ValueError` for what LDTILECFG would refuse. Manual: SDM2 LDTILECFG.
    """

    def __cinit__(self, shapes=None, *, palette=None, start_row=0):
        cdef Palettes known
        cdef uint32_t at = 0
        cdef int rule, number
        memset(self.image, 0, TILECFG_SIZE)
        if palette is None:
            palette = 0 if shapes is None else 1
        if not 0 <= palette <= PALETTE_ACE:
            raise ValueError(f"palette {palette!r} is none of 0, 1 and {PALETTE_ACE}")
        if palette != 1 and (shapes or start_row):
            raise ValueError(f"palette {palette} takes neither shapes nor start_row")
        if not 0 <= start_row <= 0xFF:
            raise ValueError(f"start_row {start_row!r} is not 0 to 255")
        self.image[0] = palette
        self.image[START_ROW_AT] = start_row
        for tile, (rows, colsb) in ({} if shapes is None else shapes).items():
            number = checked_tile(tile)
            if not 0 <= rows <= 0xFF or not 0 <= colsb <= 0xFFFF:
                raise ValueError(f"tile {tile}: {rows} rows of {colsb} bytes have no place in the image")
            self.image[ROWS_AT + number] = rows
            store_le16(self.image + COLSB_AT + 2 * number, <uint32_t>colsb)
        load_palettes(None, &known)
        rule = config_fault(self.image, &known, <uint64_t>-1, &at)
        if rule != TILE_OK:
            raise ValueError(words(rule, self.image, &known, <uint64_t>-1, at))

    @staticmethod
    def from_bytes(buffer):
        """The configuration that any 64 bytes stand for, legal or not.

        Raises: `TruncatedError` for fewer bytes, `FormatError` for more.
        """
        cdef Py_buffer view
        cdef TileConfig made
        PyObject_GetBuffer(buffer, &view, PyBUF_SIMPLE)
        try:
            if view.len < TILECFG_SIZE:
                raise TruncatedError(f"a TILECFG image has {TILECFG_SIZE} bytes, here are {view.len}", offset=view.len)
            if view.len > TILECFG_SIZE:
                raise FormatError(f"a TILECFG image has {TILECFG_SIZE} bytes, here are {view.len}",
                                  offset=TILECFG_SIZE)
            made = TileConfig.__new__(TileConfig)
            memcpy(made.image, view.buf, TILECFG_SIZE)
            return made
        finally:
            PyBuffer_Release(&view)

    @property
    def palette(self):
        """palette_id: 0 where tiles are not configured."""
        return config_palette(self.image)

    @property
    def start_row(self):
        """The row with which an interrupted TILELOADD or TILESTORED goes on; 0 in palettes that have none."""
        return config_start_row(self.image)

    @property
    def shapes(self):
        """`{tile: (rows, colsb)}` of the tiles that instructions may name, colsb in bytes; ascending."""
        cdef int t
        return {t: (config_rows(self.image, t), config_colsb(self.image, t)) for t in range(TILE_NAMES)
                if config_valid(self.image, t)}

    def check(self, model=None, xcr0=None):
        """Every rule of LDTILECFG that the image breaks, as a list of `(code, offset, message)`, none if it is legal.

        One entry a rule, in the order of the operation; `offset` is the first byte (0-63) at fault, and where one of
        rows and colsb is 0 alone, that one. `model`: the `CpuModel` that it is for, whose CPUID leaf 1DH counts; None:
        all palettes that are known. `xcr0`: XCR0 there (default: all that the model has). Manual: SDM2 LDTILECFG.
        """
        cdef Palettes palettes
        cdef uint64_t enabled = enabled_bits(model, xcr0)
        load_palettes(model, &palettes)
        return broken_rules(self.image, &palettes, enabled, 0)

    def require(self, model=None, xcr0=None):
        """Raises `FormatError`, with `.rule` and `.offset`, for the first rule that `check` would name."""
        for code, offset, message in self.check(model, xcr0):
            raise FormatError(message, offset=offset, rule=code)

    def __getbuffer__(self, Py_buffer *buffer, int flags):
        PyBuffer_FillInfo(buffer, self, self.image, TILECFG_SIZE, 1, flags)

    def __bytes__(self):
        return PyBytes_FromStringAndSize(<const char *>self.image, TILECFG_SIZE)

    def __len__(self):
        return TILECFG_SIZE

    def __eq__(self, other):
        if not isinstance(other, TileConfig):
            return NotImplemented
        return memcmp(self.image, (<TileConfig>other).image, TILECFG_SIZE) == 0

    def __ne__(self, other):
        return not self == other

    def __hash__(self):
        return hash(bytes(self))

    def __reduce__(self):
        return rebuild, (bytes(self),)

    def __copy__(self):
        return self

    def __deepcopy__(self, memo):
        return self

    def __repr__(self):
        parts = [f"palette {self.palette}"]
        if self.palette == 1:
            parts += [f"tmm{t} {rows}x{colsb}" for t, (rows, colsb) in self.shapes.items()]
        if self.start_row:
            parts.append(f"start_row {self.start_row}")
        return f"<TileConfig {', '.join(parts)}>"


def rebuild(image):
    """A pickled configuration: `TileConfig.from_bytes` by a name that pickle can find."""
    return TileConfig.from_bytes(image)


cdef int checked_tile(number) except -1:
    if not 0 <= number < TILE_NAMES:
        raise ValueError(f"tile {number!r} is none of tmm0 to tmm{TILE_NAMES - 1}")
    return number


cdef uint64_t enabled_bits(model, xcr0) except? 0xFFFFFFFFFFFFFFFF:
    if xcr0 is None:
        return <uint64_t>-1 if model is None else int(model.xcr0_mask)
    return xcr0


cdef list broken_rules(const uint8_t *image, const Palettes *palettes, uint64_t xcr0, uint32_t base):
    # (code, byte counted from `base` before the image, words) of every rule.
    cdef int rule
    cdef uint32_t at = 0
    found = []
    for rule in range(TILE_PALETTE, TILE_ACE_REST + 1):
        if config_breaks(rule, image, palettes, xcr0, &at) != TILE_OK:
            found.append((TILE_RULES[rule][0], base + at, words(rule, image, palettes, xcr0, at)))
    return found


cdef str words(int rule, const uint8_t *image, const Palettes *palettes, uint64_t xcr0, uint32_t at):
    # The sentence for a broken rule: culprit, place, rule.
    cdef uint32_t t
    _, text, section = TILE_RULES[rule]
    if rule == TILE_PALETTE:
        what = f"palette_id {image[0]} ({palettes.highest} at most)"
    elif rule == TILE_XCR0:
        what = f"palette_id {image[0]} under XCR0 {ComponentMask(xcr0)}"
    elif rule == TILE_COLSB:
        t = (at - COLSB_AT) // 2
        what = f"colsb {config_colsb(image, t)} ({palettes.row_bytes[1]} at most) of tile {t}"
    elif rule == TILE_ROW_COUNT:
        t = at - ROWS_AT
        what = f"rows {config_rows(image, t)} ({palettes.rows[1]} at most) of tile {t}"
    elif rule == TILE_HALF:
        t = at - ROWS_AT if at >= ROWS_AT else (at - COLSB_AT) // 2
        what = f"rows {config_rows(image, t)} and colsb {config_colsb(image, t)} of tile {t}"
    else:
        what = f"{image[at]:#04x}"
    return f"{what} at byte {at}: {text} [{section}]"


# --- element types ------------------------------------------------------------------------------------------

cdef uint32_t narrow(uint64_t bits, int exponent, int mantissa, bint finite) noexcept nogil:
    # A double (its bits) in a format of so many bits of exponent and mantissa, to nearest even. `finite`: a format
    # that has no infinities and one NaN, all ones, which also stands for what is too large.
    cdef uint32_t sign = <uint32_t>(bits >> 63) << (exponent + mantissa)
    cdef uint32_t ones = (<uint32_t>1 << (exponent + mantissa)) - 1
    cdef uint32_t largest = ones if finite else ones & ~((<uint32_t>1 << mantissa) - 1)
    cdef int power = bits >> 52 & 0x7FF
    cdef uint64_t fraction = bits & ((<uint64_t>1 << 52) - 1)
    cdef int shift = 52 - mantissa
    cdef uint64_t result, rest, half
    if power == 0x7FF:
        if fraction and not finite:
            return sign | largest | <uint32_t>1 << (mantissa - 1)
        return sign | largest
    if power == 0:              # below 2^-1022: far under half of anything
        return sign
    fraction |= <uint64_t>1 << 52
    power += (1 << (exponent - 1)) - 1024
    if power <= 0:
        shift += 1 - power
        power = 1
        if shift > 53:
            return sign
    result = fraction >> shift
    rest = fraction & ((<uint64_t>1 << shift) - 1)
    half = <uint64_t>1 << (shift - 1)
    if rest > half or (rest == half and result & 1):
        result += 1
    result += <uint64_t>(power - 1) << mantissa     # the leading one counts as 1 of the exponent
    return sign | (<uint32_t>result if result < largest else largest)


cdef uint32_t widen(uint32_t code, int exponent, int mantissa, bint finite) noexcept nogil:
    # Such a number as a float's bits, exactly.
    cdef uint32_t sign = (code >> (exponent + mantissa) & 1) << 31
    cdef int power = code >> mantissa & ((1 << exponent) - 1)
    cdef uint32_t fraction = code & ((<uint32_t>1 << mantissa) - 1)
    if exponent == 8:           # a float's own exponent
        return sign | <uint32_t>power << 23 | fraction << (23 - mantissa)
    if power == (1 << exponent) - 1:
        if not finite:
            return sign | <uint32_t>0xFF << 23 | fraction << (23 - mantissa)
        if fraction == (<uint32_t>1 << mantissa) - 1:
            return sign | <uint32_t>0x1FF << 22
    if power == 0:
        if fraction == 0:
            return sign
        power = 1
        while not fraction >> mantissa:
            fraction <<= 1
            power -= 1
        fraction &= (<uint32_t>1 << mantissa) - 1
    return sign | <uint32_t>(power + 128 - (1 << (exponent - 1))) << 23 | fraction << (23 - mantissa)


# Names of element types: bytes, numpy's code, or what it has none for: ml_dtypes' name, bits of exponent and of
# mantissa, and whether there are no infinities (SDM1 19.1; the fp8 formats are those of the OCP).
cdef dict NATIVE = {"int8": (1, "i1"), "uint8": (1, "u1"), "int32": (4, "<i4"), "fp32": (4, "<f4"), "fp16": (2, "<f2")}
cdef dict SMALL = {"bf16": (2, "bfloat16", 8, 7, False), "fp8-e4m3": (1, "float8_e4m3fn", 4, 3, True),
                   "fp8-e5m2": (1, "float8_e5m2", 5, 2, False)}
cdef dict SPELLINGS = {
    "i8": "int8", "u8": "uint8", "i32": "int32", "f32": "fp32", "float32": "fp32", "f16": "fp16", "float16": "fp16",
    "bfloat16": "bf16", "float8_e4m3fn": "fp8-e4m3", "e4m3": "fp8-e4m3", "float8_e5m2": "fp8-e5m2", "e5m2": "fp8-e5m2",
}
ELEMENTS = (*NATIVE, *SMALL)


cdef str find_element(dtype):
    name = dtype if isinstance(dtype, str) else getattr(dtype, "name", None) or getattr(dtype, "__name__", None)
    name = SPELLINGS.get(name, name)
    if name not in ELEMENTS:
        raise ValueError(f"{dtype!r} is no element type of tiles: one of {' '.join(ELEMENTS)}")
    return name


cdef object real_dtype(str name):
    # The dtype of an element type: numpy's, ml_dtypes' where it is installed, or None.
    import numpy

    if name in NATIVE:
        return numpy.dtype(NATIVE[name][1])
    try:
        ml_dtypes = import_module("ml_dtypes")
    except ImportError:
        return None
    return numpy.dtype(getattr(ml_dtypes, SMALL[name][1]))


cdef object widened(data, str name):
    # 1,024 bytes of a small type as an array of floats.
    import numpy

    cdef Py_buffer view, into
    cdef int size, exponent, mantissa, i
    cdef bint finite
    cdef const uint8_t *at
    size, _, exponent, mantissa, finite = SMALL[name]
    out = numpy.empty(TILE_BYTES // size, dtype=numpy.float32)
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    PyObject_GetBuffer(out, &into, PyBUF_WRITABLE)
    at = <const uint8_t *>view.buf
    for i in range(TILE_BYTES // size):
        store_le32(<uint8_t *>into.buf + 4 * i, widen(load_le16(at + 2 * i) if size == 2 else at[i], exponent, mantissa,
                                                      finite))
    PyBuffer_Release(&into)
    PyBuffer_Release(&view)
    return out


cdef object narrowed(values, str name):
    # An array of doubles as one of codes of a small type.
    import numpy

    cdef Py_buffer view, into
    cdef int size, exponent, mantissa
    cdef bint finite
    cdef Py_ssize_t i
    cdef uint32_t code
    size, _, exponent, mantissa, finite = SMALL[name]
    out = numpy.empty(values.shape, dtype=numpy.uint16 if size == 2 else numpy.uint8)
    PyObject_GetBuffer(values, &view, PyBUF_SIMPLE)
    PyObject_GetBuffer(out, &into, PyBUF_WRITABLE)
    for i in range(view.len // 8):
        code = narrow(load_le64(<const uint8_t *>view.buf + 8 * i), exponent, mantissa, finite)
        if size == 2:
            store_le16(<uint8_t *>into.buf + 2 * i, code)
        else:
            (<uint8_t *>into.buf)[i] = <uint8_t>code
    PyBuffer_Release(&into)
    PyBuffer_Release(&view)
    return out


# --- tiles as matrices --------------------------------------------------------------------------------------

def tile(source, number, dtype="uint8", config=None):
    """Tile `number` as a matrix of its configured shape: rows x colsb / bytes of an element.

    `source`: an `Area` of either format, or the 1,024 bytes of one tile. `dtype`: one of `ELEMENTS`, or numpy's or
    ml_dtypes' own spelling. `config`: the `TileConfig` that gives the shape; None: the area's, as XRSTOR would load
    it, and for bytes alone the whole tile (16 rows of 64 bytes).

    int8, uint8, int32, fp32 and fp16, and with ml_dtypes installed bf16 and both fp8 too, are views: zero copy, and
    writable where the source is (a tile out of use is a read-only matrix of zeros). Without ml_dtypes, bf16 and fp8
    are float32 copies of exactly the same values.

    Raises: `LayoutError` for an area without a place for the tile, or a tile that is not configured; `ValueError` for
    another tile or type, a row that is no whole number of elements, or bytes of another length.
    Manual: SDM1 19.1, 19.2.
    """
    import numpy

    cdef TileConfig shaped = config
    cdef uint32_t rows = TILE_ROWS, colsb = TILE_ROW_BYTES
    cdef int t = checked_tile(number)
    name = find_element(dtype)
    size = NATIVE[name][0] if name in NATIVE else SMALL[name][0]
    data = source
    if isinstance(source, Area):
        data = source[f"tmm{t}"]
        if shaped is None:
            shaped = loaded_config(source)
    if shaped is not None:
        if not config_valid(shaped.image, t):
            raise LayoutError(f"tile {t} is not configured in {shaped!r}")
        rows, colsb = config_rows(shaped.image, t), config_colsb(shaped.image, t)
        if rows > TILE_ROWS or colsb > TILE_ROW_BYTES:
            raise LayoutError(f"tile {t} of {rows} rows of {colsb} bytes is larger than a tile in {shaped!r}")
    if colsb % size:
        raise ValueError(f"{colsb} bytes of a row of tile {t} are no whole number of {name}")
    if memoryview(data).nbytes != TILE_BYTES:
        raise ValueError(f"a tile has {TILE_BYTES} bytes, not {memoryview(data).nbytes}")
    real = real_dtype(name)
    flat = widened(data, name) if real is None else numpy.frombuffer(data, dtype=real)
    return flat.reshape(TILE_ROWS, TILE_ROW_BYTES // size)[:rows, :colsb // size]


def tile_bytes(matrix, dtype=None):
    """The 1,024 bytes of a tile that holds `matrix` in its upper left corner, zeros elsewhere.

    `matrix`: two dimensions, up to 16 rows of up to 64 bytes. `dtype`: the element type, one of `ELEMENTS`; None: the
    matrix' own. Elements of that very type keep every bit. Other floats and integers become fp32, fp16, bf16 or fp8
    by one rounding to nearest even: too large is infinity, and NaN in fp8-e4m3, which has none; NaN becomes the quiet
    NaN of its sign (in bf16 and fp8).

    Raises: `ValueError` for a matrix that does not fit a tile, an integer that does not fit the type, or one beyond
    2^53 that is to become a float; `TypeError` for floats that are to become integers and elements that are no
    numbers. Manual: SDM1 19.1.
    """
    import numpy

    array = numpy.asarray(matrix)
    name = find_element(array.dtype if dtype is None else dtype)
    size = NATIVE[name][0] if name in NATIVE else SMALL[name][0]
    if array.ndim != 2 or array.shape[0] > TILE_ROWS or array.shape[1] * size > TILE_ROW_BYTES:
        raise ValueError(f"a matrix of shape {array.shape} is not one of up to {TILE_ROWS} rows of "
                         f"{TILE_ROW_BYTES // size} {name}")
    out = numpy.zeros((TILE_ROWS, TILE_ROW_BYTES), dtype=numpy.uint8)
    if array.size:
        cells = numpy.ascontiguousarray(elements(array, name)).view(numpy.uint8)
        out[:array.shape[0], :array.shape[1] * size] = cells.reshape(array.shape[0], -1)
    return out.tobytes()


cdef object elements(array, str name):
    # The array's values in that type, as an array of its bytes' size.
    import numpy

    kind = array.dtype.kind
    if SPELLINGS.get(array.dtype.name, array.dtype.name) == name:
        return array.astype(array.dtype.newbyteorder("<"), copy=False)
    if SPELLINGS.get(array.dtype.name) in SMALL:
        array = array.astype(numpy.float32)
        kind = "f"
    if kind not in "iuf" or array.dtype.itemsize > 8:
        raise TypeError(f"elements of {array.dtype} are not numbers that {name} could hold")
    if name in ("int8", "uint8", "int32"):
        if kind == "f":
            raise TypeError(f"{array.dtype} does not become {name}: round first")
        limits = numpy.iinfo(NATIVE[name][1])
        low, high = int(array.min()), int(array.max())
        if low < limits.min or high > limits.max:
            raise ValueError(f"{low if low < limits.min else high} does not fit {name}")
        return array.astype(NATIVE[name][1])
    if kind != "f" and max(abs(int(array.min())), abs(int(array.max()))) > 1 << 53:
        raise ValueError("an integer beyond 2^53 would be rounded twice")
    with numpy.errstate(all="ignore"):
        if name in NATIVE:
            return array.astype(NATIVE[name][1])
        return narrowed(numpy.ascontiguousarray(array, dtype="<f8"), name)


# --- tile state of an area ----------------------------------------------------------------------------------

cdef TileConfig loaded_config(Area area):
    # TILECFG as XRSTOR would load it: initial where it is out of use or LDTILECFG would refuse it.
    cdef Palettes palettes
    cdef TileConfig found = TileConfig.from_bytes(area["tilecfg"])
    model = area._layout.model
    load_palettes(model, &palettes)
    if not config_legal_for_restore(found.image, &palettes, enabled_bits(model, None)):
        memset(found.image, 0, TILECFG_SIZE)
    return found


def restore(Area area not None):
    """The tile state that XRSTOR would load from an area: `(TileConfig, (tmm0, ..., tmm7))`, 1,024 bytes a tile.

    The configuration is the initial one where TILECFG is out of use, where its palette is 0 and where LDTILECFG would
    refuse the image; `lint` tells the difference. Tiles out of use, or without a place in the layout, are zeros; the
    others are whole, whatever their shape.

    Raises: `LayoutError` for an area without a place for TILECFG. Manual: SDM1 13.5.14.
    """
    config = loaded_config(area)
    if Component.TILEDATA not in area._layout.mask:
        return config, (bytes(TILE_BYTES),) * TILE_NAMES
    return config, tuple(bytes(area[f"tmm{t}"]) for t in range(TILE_NAMES))


def save(TileConfig config, tiles, Area area not None):
    """Puts tile state into TILECFG and TILEDATA of a writable area, and sets their bits of XSTATE_BV.

    `config`: None for the initial configuration; TILECFG is in use exactly if its palette is not 0. `tiles`:
    `{number: bytes}` or a sequence of up to eight, 1,024 bytes each, missing ones and None as zeros; TILEDATA is then
    in use. None: TILEDATA is initial. Slots out of use keep their bytes, as XSAVEC leaves them; nothing else changes.

    Raises: `LayoutError` for a component in use without a place in the area; `FormatError` for a configuration that
    the area's CPU would refuse; `ValueError` for a tile of another number or length, or a read-only area. A call that
    raises has written nothing. Manual: SDM1 13.5.14, 13.6.
    """
    cdef uint8_t *base = <uint8_t *>area.buffer.buf
    cdef Layout layout = area._layout
    cdef uint64_t live, changed = 0, used = 0
    cdef Field field
    cdef list held = []
    if area.buffer.readonly:
        raise ValueError("the area is read-only")
    if config is not None and config.image[0]:
        config.require(layout.model)
        held.append((find_field(layout, "tilecfg"), bytes(config)))
    if tiles is not None:
        data = [bytes(TILE_BYTES)] * TILE_NAMES
        for number, content in tiles.items() if hasattr(tiles, "items") else enumerate(tiles):
            number = checked_tile(number)
            if content is not None:
                data[number] = bytes(memoryview(content).cast("B"))
                if len(data[number]) != TILE_BYTES:
                    raise ValueError(f"tile {number} has {TILE_BYTES} bytes, not {len(data[number])}")
        held += [(find_field(layout, f"tmm{number}"), content) for number, content in enumerate(data)]
    for name in ("tilecfg", "tmm0"):
        try:
            changed |= bits_of(&(<Field>find_field(layout, name)).op)
        except LayoutError:
            pass
    for field, content in held:
        write_value(&field.op, field.name, content, base)
        used |= bits_of(&field.op)
    live = load_le64(base + HEADER_OFFSET)
    store_le64(base + HEADER_OFFSET, (live & ~changed) | used)


# --- rows to and from memory --------------------------------------------------------------------------------

cdef int check_rows(TileConfig config, int t, Py_ssize_t start, Py_ssize_t length, offset, stride) except -1:
    # What TILELOADD and TILESTORED ask of the tile, and every row that they touch in the buffer.
    cdef uint32_t rows = config_rows(config.image, t)
    cdef uint32_t colsb = config_colsb(config.image, t)
    if config.image[0] > 1:
        raise ValueError(f"palette {config.image[0]} has no loads and stores of tiles: #UD [ACE 1.16]")
    if not config_valid(config.image, t):
        raise ValueError(f"tile {t} is not configured in {config!r}: #UD [SDM2 TILELOADD]")
    if rows > TILE_ROWS or colsb > TILE_ROW_BYTES:
        raise ValueError(f"tile {t} of {rows} rows of {colsb} bytes is larger than a tile")
    if colsb % 4:
        raise ValueError(f"colsb {colsb} of tile {t} is no multiple of 4: #UD [SDM2 TILELOADD]")
    if not 0 <= start < rows:
        raise ValueError(f"start_row {start} is not below the {rows} rows of tile {t}: #UD [SDM2 TILELOADD]")
    for row in (start, rows - 1):
        first = offset + row * stride
        if first < 0 or first + colsb > length:
            raise ValueError(f"row {row} of tile {t} is bytes {first} to {first + colsb} of a buffer of {length}")
    return 0


def tile_load(TileConfig config not None, tile, memory, stride, start_row=None, *, offset=0, into=None):
    """The 1,024 bytes of a tile after TILELOADD: row r comes from `memory` at byte `offset + r * stride`.

    Rows below `start_row` (default: the configuration's) are those of `into`, a writable buffer of 1,024 bytes that
    is filled and returned; without it they are zeros and new `bytes` are returned. Rows from the configured ones up
    and bytes from colsb up are zero. `stride` in bytes may be 0, negative or smaller than a row.

    Raises: `ValueError` for a palette but 1, a tile that is not configured, a colsb that is no multiple of 4, a
    start_row that is not below the rows (the instruction raises #UD), a row outside `memory`, or `into` of another
    length. A call that raises has written nothing. Manual: SDM2 TILELOADD.
    """
    cdef Py_buffer view, target
    cdef uint8_t held[TILE_BYTES]
    cdef int t = checked_tile(tile)
    cdef Py_ssize_t start = config_start_row(config.image) if start_row is None else start_row
    cdef Py_ssize_t at, step
    cdef uint32_t rows = config_rows(config.image, t)
    memset(held, 0, TILE_BYTES)
    PyObject_GetBuffer(memory, &view, PyBUF_SIMPLE)
    try:
        check_rows(config, t, start, view.len, offset, stride)
        at = offset
        step = stride if rows > 1 else 0
        if into is None:
            load_rows(held, <const uint8_t *>view.buf, at, step, start, rows, config_colsb(config.image, t))
            return PyBytes_FromStringAndSize(<const char *>held, TILE_BYTES)
        writable(into, &target)
        try:
            if target.len != TILE_BYTES:
                raise ValueError(f"into has {target.len} bytes, a tile {TILE_BYTES}")
            memcpy(held, target.buf, TILE_BYTES)
            load_rows(held, <const uint8_t *>view.buf, at, step, start, rows, config_colsb(config.image, t))
            memcpy(target.buf, held, TILE_BYTES)
        finally:
            PyBuffer_Release(&target)
        return into
    finally:
        PyBuffer_Release(&view)


cdef void load_rows(uint8_t *tile, const uint8_t *memory, Py_ssize_t at, Py_ssize_t step, uint32_t start, uint32_t rows,
                    uint32_t colsb) noexcept nogil:
    cdef uint32_t row
    memset(tile + start * TILE_ROW_BYTES, 0, (TILE_ROWS - start) * TILE_ROW_BYTES)
    for row in range(start, rows):
        put_row(tile, row, memory + at + <Py_ssize_t>row * step, colsb)


def tile_store(TileConfig config not None, tile, data, memory, stride, start_row=None, *, offset=0):
    """TILESTORED: colsb bytes of each configured row of `data`, row r to `memory` at byte `offset + r * stride`.

    `data`: the 1,024 bytes of the tile. `memory`: a writable buffer, which is returned. Rows from `start_row`
    (default: the configuration's) on are stored in ascending order: of rows that overlap, the later one wins.

    Raises: as `tile_load`, and `ValueError` for read-only memory or data of another length. A call that raises has
    written nothing. Manual: SDM2 TILESTORED.
    """
    cdef Py_buffer view, target
    cdef uint8_t held[TILE_BYTES]
    cdef int t = checked_tile(tile)
    cdef Py_ssize_t start = config_start_row(config.image) if start_row is None else start_row
    cdef Py_ssize_t at, step
    cdef uint32_t row, rows = config_rows(config.image, t), colsb = config_colsb(config.image, t)
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        if view.len != TILE_BYTES:
            raise ValueError(f"data has {view.len} bytes, a tile {TILE_BYTES}")
        memcpy(held, view.buf, TILE_BYTES)
    finally:
        PyBuffer_Release(&view)
    writable(memory, &target)
    try:
        check_rows(config, t, start, target.len, offset, stride)
        at = offset
        step = stride if rows > 1 else 0
        for row in range(<uint32_t>start, rows):
            memcpy(<uint8_t *>target.buf + at + <Py_ssize_t>row * step, held + row * TILE_ROW_BYTES, colsb)
    finally:
        PyBuffer_Release(&target)
    return memory


cdef int writable(out, Py_buffer *view) except -1:
    # A buffer that cannot be written is a wrong argument; exporters disagree on the exception.
    try:
        PyObject_GetBuffer(out, view, PyBUF_SIMPLE | PyBUF_WRITABLE)
    except (BufferError, ValueError) as error:
        raise ValueError(f"not a writable, contiguous buffer: {error}") from None
    return 0


# --- what does not fit together -----------------------------------------------------------------------------

cdef int find_stray(const uint8_t *tile, uint32_t rows, uint32_t colsb) noexcept nogil:
    # The first byte of a tile beyond its shape that is not 0, or -1.
    cdef int row
    cdef int at
    for row in range(TILE_ROWS):
        at = first_set(tile, row * TILE_ROW_BYTES + (<int>colsb if row < <int>rows else 0), (row + 1) * TILE_ROW_BYTES)
        if at >= 0:
            return at
    return -1


def lint(Area area not None):
    """What of an area's tile state does not fit together, as a list of `(code, offset, message)`.

    `offset` counts from the start of the area. Components out of use are not looked at. Codes:

    - those of `TILE_RULES`: LDTILECFG would refuse the image, so XRSTOR makes TILECFG initial (SDM1 13.5.14);
    - `TILE-PALETTE-0`: TILECFG in use with palette 0, which no processor saves;
    - `TILE-START-ROW`: start_row is below the rows of no configured tile: each TILELOADD and TILESTORED is a #UD;
    - `TILE-COLSB`: colsb is no multiple of 4: every instruction but TILEZERO that names the tile is a #UD;
    - `TILE-UNCONFIGURED`: TILEDATA in use without a configuration that XRSTOR would load;
    - `TILE-SHAPE`: a tile holds data beyond its configured shape, which only XRSTOR can have put there;
    - `TILE-ZEROS`: all tiles are in use and zero: the picture of erratum SPR4, where a VM exit during XSAVE may store
      live tile data as zeros. Tiles that were loaded with zeros look the same.

    Manual: SDM1 13.5.14, SDM2 LDTILECFG, TILELOADD.
    """
    cdef const uint8_t *base = <const uint8_t *>area.buffer.buf
    cdef uint64_t live = load_le64(base + HEADER_OFFSET)
    cdef const uint8_t *image
    cdef const uint8_t *data
    cdef Palettes palettes
    cdef Field field
    cdef uint32_t at
    cdef int t, stray
    cdef bint legal = False
    cdef uint8_t initial[TILECFG_SIZE]
    cdef list found = []
    model = area._layout.model
    load_palettes(model, &palettes)
    memset(initial, 0, TILECFG_SIZE)
    image = initial
    mask = area._layout.mask
    if Component.TILECFG in mask:
        field = find_field(area._layout, "tilecfg")
        if live & bits_of(&field.op):
            at = field.op.part[0].offset
            image = base + at
            found = [(code, where, f"TILECFG, {text}; XRSTOR makes it initial") for code, where, text
                     in broken_rules(image, &palettes, enabled_bits(model, None), at)]
            if image[0] == 0:
                found.append(("TILE-PALETTE-0", at, f"palette 0 at byte {at} with TILECFG in use: no processor saves "
                              "that, and XRSTOR makes TILECFG initial [SDM1 13.5.14]"))
            legal = image[0] != 0 and not found
            if legal:
                found += lint_shapes(image, at)
    if Component.TILEDATA in mask:
        find_field(area._layout, f"tmm{TILE_NAMES - 1}")    # all of them have their place
        field = find_field(area._layout, "tmm0")
        if live & bits_of(&field.op):
            at = field.op.part[0].offset
            data = base + at
            if not legal:
                found.append(("TILE-UNCONFIGURED", at, f"TILEDATA at byte {at} is in use, and no tile is configured: "
                              "no instruction but XSAVE and XRSTOR reaches it [SDM1 13.5.14]"))
                return found
            for t in range(TILE_NAMES):
                stray = find_stray(data + t * TILE_BYTES, config_rows(image, t), config_colsb(image, t))
                if stray >= 0:
                    where = at + t * TILE_BYTES + stray
                    found.append(("TILE-SHAPE", where, f"tile {t} is {config_rows(image, t)} rows of "
                                  f"{config_colsb(image, t)} bytes, and row {stray // TILE_ROW_BYTES} has data at its "
                                  f"byte {stray % TILE_ROW_BYTES}, byte {where} of the area [SDM2 TILELOADD]"))
            if first_set(data, 0, TILE_NAMES * TILE_BYTES) < 0:
                found.append(("TILE-ZEROS", at, f"TILEDATA at byte {at} is in use and all zero: tiles that were zero, "
                              "or live ones lost to erratum SPR4 (a VM exit during XSAVE)"))
    return found


cdef list lint_shapes(const uint8_t *image, uint32_t base):
    # A legal configuration on which instructions would fault.
    cdef uint32_t most = 0
    cdef int t
    found = []
    for t in range(TILE_NAMES):
        if config_valid(image, t):
            most = max(most, config_rows(image, t))
            if config_colsb(image, t) % 4:
                at = base + COLSB_AT + 2 * t
                found.append(("TILE-COLSB", at, f"colsb {config_colsb(image, t)} of tile {t} at byte {at} is no "
                              "multiple of 4: TILELOADD, TILESTORED and TDP* of it are #UD [SDM2 TILELOADD]"))
    if config_start_row(image) and config_start_row(image) >= most:
        found.insert(0, ("TILE-START-ROW", base + START_ROW_AT, f"start_row {config_start_row(image)} at byte "
                         f"{base + START_ROW_AT} is below the rows of no configured tile: TILELOADD and TILESTORED are "
                         "#UD [SDM2 TILELOADD]"))
    return found
