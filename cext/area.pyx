"""`Area`: a checked view on a buffer and its layout, with its registers.

An area owns nothing: it holds the caller's buffer and reads in place. Which bytes make a register is the
codec's business; this module gives them names, lanes and a header check.
"""

cimport cython
from cpython.buffer cimport (PyBUF_SIMPLE, PyBuffer_FillInfo, PyBuffer_Release, Py_buffer,
                             PyObject_GetBuffer)
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from cpython.object cimport PyObject
from libc.string cimport memcmp, memcpy

from xsave.codec cimport OK, Field, check_header, find_field, raise_header, read_bytes, read_scalar
from xsave.layout cimport (HEADER_END, HEADER_OFFSET, MXCSR_OFFSET, RESERVED_CHECKED, RESERVED_OFFSET, XCOMP_OFFSET,
                           Layout)

from struct import calcsize, unpack

from xsave.components import ComponentMask
from xsave.errors import LayoutError, TruncatedError
from xsave.registers import LANES

cdef extern from "Python.h":
    PyObject *PyDict_GetItemWithError(object d, object key) except? NULL
    const char *PyUnicode_AsUTF8AndSize(object text, Py_ssize_t *size) except NULL
    str PyUnicode_DecodeASCII(const char *text, Py_ssize_t size, const char *errors)

cdef extern from "bytes.h" nogil:
    uint32_t load_le32(const void *p)
    uint64_t load_le64(const void *p)
    void store_hex(uint8_t *out, const uint8_t *data, size_t count)

__all__ = ["Area", "RegisterFile", "RegisterView", "extended_to_float", "header_findings",
           "hex_members"]

cdef enum:
    X87_SLOT = 10
    FAMILY_SIZE = 32            # no register family has more
    MEMBER_ROOM = 27            # of a JSON member: quotes, marks, and a number of 64 bits

cdef tuple FAMILIES = ("xmm", "ymm", "zmm", "k", "st", "tmm", "bnd", "r")

cdef enum:
    # Places in FAMILIES.
    XMM = 0
    YMM = 1
    ZMM = 2
    K = 3
    ST = 4
    TMM = 5
    BND = 6
    R = 7


def extended_to_float(raw):
    """The 80-bit x87 value in ten bytes as the nearest Python float (inf where it is out of range; SDM1 8.2).

    Unnormals and pseudo-values convert as the number that their fields spell. Raises: `ValueError` unless ten
    bytes are given.
    """
    data = bytes(raw)
    if len(data) != X87_SLOT:
        raise ValueError(f"an x87 register has {X87_SLOT} bytes, not {len(data)}")
    significand = int.from_bytes(data[:8], "little")
    word = int.from_bytes(data[8:], "little")
    sign = -1.0 if word >> 15 else 1.0
    exponent = word & 0x7FFF
    if exponent == 0x7FFF:
        return sign * (float("inf") if significand << 1 & 0xFFFFFFFFFFFFFFFF == 0 else float("nan"))
    shift = max(exponent, 1) - 16383 - 63
    try:
        return sign * (float(significand << shift) if shift >= 0 else significand / (1 << -shift))
    except OverflowError:
        return sign * (float("inf") if shift >= 0 else 0.0)


def hex_members(dict values not None):
    """Registers as the text of a JSON object, by name: an int as "0x..." and bytes in hex, in the order of `values`.

    Raises: `OverflowError` for an int that is not of 64 bits, `TypeError` for what is neither int nor bytes, and
    `ValueError` for a name that JSON would have to escape.
    """
    cdef Py_ssize_t room = 2, length, i
    cdef const char *digits = b"0123456789abcdef"
    cdef const char *text
    cdef uint8_t *out
    cdef uint8_t *at
    cdef uint64_t number
    cdef int shift
    for name, value in values.items():
        room += MEMBER_ROOM + len(<str?>name)
        if isinstance(value, bytes):
            room += 2 * len(<bytes>value)
    out = at = <uint8_t *>PyMem_Malloc(room)
    if out == NULL:
        raise MemoryError
    try:
        at[0] = c"{"
        at += 1
        for name, value in values.items():
            text = PyUnicode_AsUTF8AndSize(name, &length)
            if length != len(<str>name):
                raise ValueError(f"{name!r} is no register's name")
            at[0] = c'"'
            at += 1
            for i in range(length):
                if text[i] < 32 or text[i] == c'"' or text[i] == 92 or text[i] == 127:
                    raise ValueError(f"{name!r} is no register's name")
                at[i] = text[i]
            at += length
            memcpy(at, b'": "', 4)
            at += 4
            if isinstance(value, bytes):
                store_hex(at, <const uint8_t *>PyBytes_AS_STRING(value), len(<bytes>value))
                at += 2 * len(<bytes>value)
            elif isinstance(value, int):
                number = value
                at[0] = c"0"
                at[1] = c"x"
                at += 2
                shift = 60
                while shift and not number >> shift:
                    shift -= 4
                while shift >= 0:
                    at[0] = digits[number >> shift & 15]
                    at += 1
                    shift -= 4
            else:
                raise TypeError(f"{name}: an int or bytes is a register's value, not {type(value).__name__}")
            memcpy(at, b'", ', 3)
            at += 3
        if at > out + 1:
            at -= 2
        at[0] = c"}"
        at += 1
        return PyUnicode_DecodeASCII(<const char *>out, at - out, NULL)
    finally:
        PyMem_Free(out)


@cython.final
@cython.no_gc   # it refers to an Area or to bytes: no cycle can begin here
@cython.freelist(16)
cdef class RegisterView:
    """One register's bytes, in memory order, with the buffer protocol.

    A register that lies in one piece and is in use is a view of the area's memory. ZMM0-15 and YMM0-15 lie in
    up to three components and are assembled into a copy; a register out of use is a copy of its initial value.
    """

    cdef object owner           # keeps the bytes alive: the Area, or the bytes of an initial value
    cdef const uint8_t *data
    cdef Py_ssize_t width
    cdef bint readonly
    cdef readonly str name
    cdef uint8_t store[64]

    def __getbuffer__(self, Py_buffer *buffer, int flags):
        PyBuffer_FillInfo(buffer, self, <void *>self.data, self.width, self.readonly, flags)

    def __len__(self):
        return self.width

    def __bytes__(self):
        return PyBytes_FromStringAndSize(<const char *>self.data, self.width)

    def view(self, lanes):
        """The register as a typed `memoryview`: u8-u64, i8-i64, f16 f32 f64 (numpy's f2 f4 f8 too).

        Zero copy. bfloat16 has no memoryview format: `lanes` gives its values. Raises: `ValueError` for an
        unknown lane type or one that does not divide the register.
        """
        code = lane_code(lanes)
        if code == "bf16":
            raise ValueError("a memoryview cannot hold bf16: use lanes('bf16')")
        if self.width % calcsize(code):
            raise ValueError(f"{self.width} bytes of {self.name} are no whole number of {lanes} lanes")
        try:
            return memoryview(self).cast(code)
        except ValueError:      # f16 before Python 3.12
            raise ValueError(f"a memoryview of this Python cannot hold {lanes}: use lanes({lanes!r})") from None

    def lanes(self, lanes):
        """The register's values as a tuple of Python numbers, lowest lane first; also for `bf16`.

        Raises: `ValueError` as `view`.
        """
        code = lane_code(lanes)
        if code == "e" and self.width % 2 == 0:
            return unpack(f"<{self.width // 2}e", self)
        if code != "bf16":
            return tuple(self.view(lanes))
        if self.width % 2:
            raise ValueError(f"{self.width} bytes of {self.name} are no whole number of bf16 lanes")
        wide = memoryview(bytearray(2 * self.width))
        wide[2::4] = memoryview(self)[0::2]
        wide[3::4] = memoryview(self)[1::2]
        return tuple(wide.cast("f"))

    def __float__(self):
        """An x87 register's value; see `extended_to_float`. Raises: `TypeError` for any other register."""
        if self.width != X87_SLOT:
            raise TypeError(f"{self.name} is no x87 register: use view() or lanes()")
        return extended_to_float(self)

    def __int__(self):
        """The register as one little-endian number."""
        return int.from_bytes(bytes(self), "little")

    def hex(self):
        """The bytes in memory order as a hex string."""
        return bytes(self).hex()

    def __eq__(self, other):
        try:
            return bytes(self) == bytes(memoryview(other).cast("B"))
        except TypeError:
            return NotImplemented

    __hash__ = None

    def __reduce__(self):
        return bytes, (bytes(self),)

    def __repr__(self):
        return f"<{self.name} {bytes(self).hex()}>"


cdef str lane_code(lanes):
    try:
        return LANES[lanes]
    except KeyError:
        raise ValueError(f"unknown lane type {lanes!r}: one of {' '.join(LANES)}") from None


@cython.final
@cython.no_gc   # as RegisterView
@cython.freelist(16)
cdef class RegisterFile:
    """The numbered registers of one family of an area: `area.zmm[17]`, `area.k[1]`, `area.st[0]`."""

    cdef Area area
    cdef list fields            # by number, None where not looked up yet
    cdef Py_ssize_t which

    @property
    def family(self):
        """The name that the registers share, `zmm` of `zmm17`."""
        return FAMILIES[self.which]

    def __getitem__(self, index):
        """Register `index` of the family, as `area[name]` gives it. Raises: `IndexError`, `LayoutError`."""
        cdef Py_ssize_t number = index
        cdef object field
        if 0 <= number < FAMILY_SIZE:
            field = self.fields[number]
            if field is None:
                field = self.fields[number] = find_numbered(self.area._layout, self.family, number)
            return read_register(self.area, <Field>field)
        raise IndexError(f"no register {self.family}{index}")

    def __iter__(self):
        """The family's registers that the layout has a place for, ascending."""
        for number in range(FAMILY_SIZE):
            try:
                register = self[number]
            except (IndexError, LayoutError):
                continue
            yield register

    def __len__(self):
        """How many registers of the family the layout has a place for."""
        return sum(1 for _ in self)

    def __repr__(self):
        return f"<{self.family} registers of {self.area!r}>"


cdef Field find_numbered(Layout layout, str family, Py_ssize_t number):
    try:
        return find_field(layout, f"{family}{number}")
    except KeyError:
        raise IndexError(f"no register {family}{number}") from None


cdef RegisterFile make_file(Area area, Py_ssize_t which):
    cdef RegisterFile found = RegisterFile.__new__(RegisterFile)
    if area._layout.families is None:
        area._layout.families = [[None] * FAMILY_SIZE for _ in FAMILIES]
    found.area = area
    found.fields = <list>area._layout.families[which]
    found.which = which
    return found


cdef inline object read_register(Area area, Field field):
    cdef RegisterView register
    cdef const uint8_t *base = <const uint8_t *>area.buffer.buf
    cdef uint64_t live = load_le64(base + HEADER_OFFSET)
    cdef bint used = field.op.need == 0 or (live & field.op.need) != 0
    if field.op.scalar:
        if used:
            return read_scalar(&field.op, base)
        return field.initial
    register = RegisterView.__new__(RegisterView)
    register.name = field.name
    register.width = field.op.width
    register.readonly = True
    if not used:
        register.owner = field.initial
        register.data = <const uint8_t *>PyBytes_AS_STRING(field.initial)
    elif field.op.parts == 1 and field.op.part[0].width == field.op.width:
        register.owner = area
        register.data = base + field.op.part[0].offset
        register.readonly = area.buffer.readonly
    else:
        register.data = register.store
        read_bytes(&field.op, base, live, register.store)
    return register


cdef inline object quick_register(Area area, int which, str name):
    # `which` is the property's place in the layout's row of quick fields.
    cdef Field field
    if area._layout.quick[which] == NULL:
        field = find_field(area._layout, name)
        area._layout.quick[which] = <void *>field
    return read_register(area, <Field>area._layout.quick[which])


@cython.final
@cython.no_gc   # a buffer's owner that refers to its Area would be a cycle, and nobody's
@cython.freelist(16)
cdef class Area:
    """An XSAVE area: a buffer and the layout that rules it.

    `buffer`: anything with the buffer protocol, of at least `layout.size` bytes; it is viewed, not copied, and
    read-only in gives read-only out. `check=False` leaves the header unchecked (the size never is): for areas
    that are to be diagnosed.

    `area["zmm17"]`, `area.zmm[17]`: a `RegisterView`; `area["mxcsr"]`, `area.pkru`, `area.k[1]`: an int. Registers of
    components out of use (XSTATE_BV bit clear) have their initial values. `bytes(area)`, `memoryview(area)` and
    `len(area)` are those of the layout's bytes. `a == b`: same layout and same bytes; `a.same_state(b)`: same
    architectural state whatever the format.

    Raises: `TruncatedError` for a short buffer; `FormatError` (culprit, byte, rule) for a header that is not of
    this layout. Manual: SDM1 13.4.
    """

    def __cinit__(self, buffer, Layout layout not None, bint check=True):
        cdef int status
        PyObject_GetBuffer(buffer, &self.buffer, PyBUF_SIMPLE)
        self._layout = layout
        if self.buffer.len < <Py_ssize_t>layout.shape.size:
            raise TruncatedError(f"the {layout.format} area of {layout.mask} needs {layout.shape.size} bytes, here are "
                                 f"{self.buffer.len}", offset=self.buffer.len)
        if check:
            status = check_header(<const uint8_t *>self.buffer.buf, &layout.shape)
            if status != OK:
                raise_header(status, <const uint8_t *>self.buffer.buf, &layout.shape, -1)

    def __dealloc__(self):
        PyBuffer_Release(&self.buffer)

    def __getbuffer__(self, Py_buffer *buffer, int flags):
        PyBuffer_FillInfo(buffer, self, self.buffer.buf, self._layout.shape.size, self.buffer.readonly, flags)

    def __len__(self):
        return self._layout.shape.size

    @property
    def layout(self):
        """The `Layout` that rules the area."""
        return self._layout

    @property
    def format(self):
        """`STANDARD` or `COMPACTED`."""
        return self._layout.format

    @property
    def xstate_bv(self):
        """XSTATE_BV, the components in use, as a `ComponentMask` (SDM1 13.4.2)."""
        return ComponentMask(load_le64(<const uint8_t *>self.buffer.buf + HEADER_OFFSET))

    @property
    def xcomp_bv(self):
        """XCOMP_BV: 0, or bit 63 and the components that have a slot (SDM1 13.4.2)."""
        return ComponentMask(load_le64(<const uint8_t *>self.buffer.buf + XCOMP_OFFSET))

    @property
    def readonly(self):
        """Whether the buffer under the area is read-only."""
        return bool(self.buffer.readonly)

    def __getitem__(self, name):
        """The register called `name`, in any case: an int for scalars, a `RegisterView` for the others.

        Raises: `KeyError` with a suggestion; `LayoutError` where the layout has no place for it.
        """
        return named_register(self, name)

    @property
    def xmm(self):
        """XMM0-15, 16 bytes each."""
        return make_file(self, XMM)

    @property
    def ymm(self):
        """YMM0-15, 32 bytes each, assembled from SSE and AVX."""
        return make_file(self, YMM)

    @property
    def zmm(self):
        """ZMM0-31, 64 bytes each; 0-15 assembled from SSE, AVX and ZMM_Hi256, 16-31 views of Hi16_ZMM."""
        return make_file(self, ZMM)

    @property
    def k(self):
        """Opmask registers k0-k7 as 64-bit ints."""
        return make_file(self, K)

    @property
    def st(self):
        """ST(0)-ST(7), ten bytes each, stack order; `float()` gives the value."""
        return make_file(self, ST)

    @property
    def tmm(self):
        """Tiles TMM0-7, 1,024 bytes each: 16 rows of 64, whatever the configured shape."""
        return make_file(self, TMM)

    @property
    def bnd(self):
        """BND0-3, 16 bytes each: lower bound, upper bound."""
        return make_file(self, BND)

    @property
    def r(self):
        """APX general registers R16-R31 as 64-bit ints."""
        return make_file(self, R)

    @property
    def fcw(self):
        """x87 control word (SDM1 8.1.5)."""
        return quick_register(self, 0, "fcw")

    @property
    def fsw(self):
        """x87 status word (SDM1 8.1.3)."""
        return quick_register(self, 1, "fsw")

    @property
    def ftw(self):
        """Abridged x87 tag word: bit j set where physical register j is not empty (SDM1 10.5.1.1)."""
        return quick_register(self, 2, "ftw")

    @property
    def fop(self):
        """x87 last opcode, 11 bits (SDM1 8.1.9)."""
        return quick_register(self, 3, "fop")

    @property
    def fip(self):
        """x87 instruction pointer, 64-bit form (SDM1 8.1.8)."""
        return quick_register(self, 4, "fip")

    @property
    def fdp(self):
        """x87 data pointer, 64-bit form (SDM1 8.1.8)."""
        return quick_register(self, 5, "fdp")

    @property
    def mxcsr(self):
        """MXCSR; in the standard format from memory whatever XSTATE_BV says (SDM1 13.8.1)."""
        return quick_register(self, 6, "mxcsr")

    @property
    def mxcsr_mask(self):
        """MXCSR_MASK, the legal bits of MXCSR on the CPU that wrote the area (SDM1 11.6.6)."""
        return quick_register(self, 7, "mxcsr_mask")

    @property
    def pkru(self):
        """PKRU (SDM1 13.5.7)."""
        return quick_register(self, 8, "pkru")

    @property
    def bndcfgu(self):
        """BNDCFGU (SDM1 13.5.4)."""
        return quick_register(self, 9, "bndcfgu")

    @property
    def bndstatus(self):
        """BNDSTATUS (SDM1 13.5.4)."""
        return quick_register(self, 10, "bndstatus")

    @property
    def uif(self):
        """UIF, the user-interrupt flag, 0 or 1 (SDM1 13.5.11)."""
        return quick_register(self, 11, "uif")

    @property
    def tilecfg(self):
        """The 64-byte image of LDTILECFG and STTILECFG (SDM2)."""
        return quick_register(self, 12, "tilecfg")

    @property
    def x87_tag_word(self):
        """The full 16-bit x87 tag word, rebuilt from the abridged one and the registers (SDM1 10.5.1.1).

        Two bits a physical register: 0 valid, 1 zero, 2 special, 3 empty.
        """
        ftw, top = self["ftw"], self["fsw"] >> 11 & 7
        word = 0
        for physical in range(8):
            tag = 3
            if ftw >> physical & 1:
                raw = bytes(self.st[physical - top & 7])
                exponent = int.from_bytes(raw[8:], "little") & 0x7FFF
                significand = int.from_bytes(raw[:8], "little")
                if exponent == 0 and significand == 0:
                    tag = 1
                elif exponent in (0, 0x7FFF) or not significand >> 63:
                    tag = 2
                else:
                    tag = 0
            word |= tag << 2 * physical
        return word

    def x87_pointers(self, rexw=True):
        """FIP, FDP and FOP as the 64-bit form (`fip fdp fop`) or the 32-bit form (`fip fcs fdp fds fop`) reads them.

        The area does not say which form wrote it (XSAVE64 or XSAVE); SDM1 13.5.1. Returns `{name: int}`.
        """
        fip, fdp, fop = self["fip"], self["fdp"], self["fop"]
        if rexw:
            return {"fip": fip, "fdp": fdp, "fop": fop}
        return {"fip": fip & 0xFFFFFFFF, "fcs": fip >> 32 & 0xFFFF, "fdp": fdp & 0xFFFFFFFF, "fds": fdp >> 32 & 0xFFFF,
                "fop": fop}

    def same_state(self, other):
        """Whether `other` holds the same architectural state; see `xsave.same_state`."""
        from xsave.codec import same_state

        return same_state(self, other)

    def __eq__(self, other):
        cdef Area that
        if not isinstance(other, Area):
            return NotImplemented
        that = other
        return (self._layout == that._layout
                and memcmp(self.buffer.buf, that.buffer.buf, self._layout.shape.size) == 0)

    def __ne__(self, other):
        return not self == other

    __hash__ = None

    def __reduce__(self):
        return rebuild, (bytes(self), self._layout, bool(self.buffer.readonly))

    def __copy__(self):
        return rebuild(bytes(self), self._layout, bool(self.buffer.readonly))

    def __deepcopy__(self, memo):
        return self.__copy__()

    def __repr__(self):
        return f"<Area {self._layout.format}, {self._layout.shape.size} bytes, XSTATE_BV {self.xstate_bv}>"

    def _repr_html_(self):
        from xsave.report.html import area_table

        return area_table(self)


cdef inline object named_register(Area area, name):
    cdef PyObject *field
    if area._layout.fields is not None:
        field = PyDict_GetItemWithError(area._layout.fields, name)
        if field != NULL:
            return read_register(area, <Field>field)
    if not isinstance(name, str):
        raise TypeError(f"registers have names, {name!r} is no str")
    return read_register(area, find_field(area._layout, name))


def rebuild(data, layout, readonly):
    # Unpickling: the header was checked once, or deliberately not.
    return Area(data if readonly else bytearray(data), layout, False)


def header_findings(buffer, allowed, *, mxcsr_mask=0xFFFF, compaction=True, supervisor=False, rfbm=None):
    """What XRSTOR (or, with `supervisor`, XRSTORS) would object to in the area that `buffer` begins with.

    `allowed`: XCR0 (for XRSTORS XCR0 | IA32_XSS); `mxcsr_mask`: legal MXCSR bits of the CPU; `compaction`: whether
    it has XSAVEC's format; `rfbm`: the requested components, default all (it decides only whether MXCSR is
    loaded). Returns `[(rule, offset, message, fatal), ...]` in the order of the manual's checks; `fatal` False
    marks what no CPU faults on but no writer produces. An empty list: it would load.

    Raises: `TruncatedError` for fewer than 576 bytes. Manual: SDM1 13.8.1, 13.8.2, 13.12.
    """
    cdef Py_buffer view
    cdef const uint8_t *area
    cdef bytes header
    PyObject_GetBuffer(buffer, &view, PyBUF_SIMPLE)
    try:
        if view.len < HEADER_END:
            raise TruncatedError(f"an area needs {HEADER_END} bytes at least, here are {view.len} [SDM1 13.4]",
                                 offset=view.len)
        area = <const uint8_t *>view.buf
        xstate_bv = ComponentMask(load_le64(area + HEADER_OFFSET))
        xcomp_bv = ComponentMask(load_le64(area + XCOMP_OFFSET))
        mxcsr = load_le32(area + MXCSR_OFFSET)
        header = area[HEADER_OFFSET:HEADER_END]
    finally:
        PyBuffer_Release(&view)
    allowed = ComponentMask(allowed)
    wanted = allowed if rfbm is None else allowed & rfbm
    compacted = bool(xcomp_bv >> 63) and compaction
    slots = ComponentMask(xcomp_bv & ~(1 << 63))
    enabled = f"{'XCR0 | IA32_XSS' if supervisor else 'XCR0'} {allowed}"
    found = []
    if compacted:
        odd = ComponentMask(slots & ~allowed)
        if odd:
            found.append(("H-XCOMP", bit_byte(XCOMP_OFFSET, odd), f"XCOMP_BV {xcomp_bv} has {' '.join(odd.names)}, "
                          f"which {enabled} does not enable [SDM1 13.8.2]", True))
        odd = ComponentMask(xstate_bv & ~slots)
        if odd:
            found.append(("H-XSTATE", bit_byte(HEADER_OFFSET, odd), f"XSTATE_BV {xstate_bv} ({' '.join(odd.names)}) is "
                          f"not a subset of XCOMP_BV {xcomp_bv} [SDM1 13.8.2]", True))
    else:
        odd = ComponentMask(xstate_bv & ~allowed)
        if supervisor:
            found.append(("H-XCOMP", XCOMP_OFFSET + 7, f"XCOMP_BV {xcomp_bv} without bit 63: XRSTORS takes the "
                          "compacted format only [SDM1 13.12]", True))
        if odd:
            found.append(("H-XSTATE", bit_byte(HEADER_OFFSET, odd), f"XSTATE_BV {xstate_bv} has {' '.join(odd.names)}, "
                          f"which {enabled} does not enable [SDM1 13.8.1]", True))
        if xcomp_bv and not supervisor:
            at = next(i for i in range(XCOMP_OFFSET, RESERVED_OFFSET) if header[i - HEADER_OFFSET])
            found.append(("H-XCOMP", at, f"XCOMP_BV {xcomp_bv} is not 0 in the standard format [SDM1 13.8.1]", True))
    checked = HEADER_END if compacted or supervisor else RESERVED_OFFSET + RESERVED_CHECKED
    at = next((i for i in range(RESERVED_OFFSET, HEADER_END) if header[i - HEADER_OFFSET]), HEADER_END)
    if at < HEADER_END:
        rule = "[SDM1 13.8]" if at < checked else "(no fault in the standard format) [SDM1 13.4.2]"
        found.append(("H-RESERVED", at, f"reserved header byte {at} is {header[at - HEADER_OFFSET]:#04x}, not 0 {rule}",
                      at < checked))
    loads = wanted & 2 and xstate_bv & 2 if compacted else wanted & 6
    odd = mxcsr & ~mxcsr_mask
    if loads and odd:
        found.append(("H-MXCSR", MXCSR_OFFSET, f"MXCSR {mxcsr:#x} has reserved bits {odd:#x} (MXCSR_MASK "
                      f"{mxcsr_mask:#x}) [SDM1 13.8]", True))
    return found


cdef object bit_byte(int field, odd):
    # The byte of a 64-bit field that holds the lowest of the odd bits.
    return field + ((odd & -odd).bit_length() - 1) // 8
