"""Walks record streams in hostile files: ELF notes, and signal frames in dumped memory.

It knows offsets, sizes and flags, and no names: which notes count, and what they are called, is told by its
caller as rules. Nothing here reads a file: the caller feeds chunks, and keeps one buffer for all of them, so
that the notes of a thousand threads pass through without being held.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.mem cimport PyMem_Free, PyMem_Realloc
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset

cdef extern from "<unistd.h>" nogil:
    ssize_t pread(int descriptor, void *buffer, size_t size, int64_t offset)

cdef extern from "bytes.h" nogil:
    uint32_t load_le32(const void *p)
    uint64_t load_le64(const void *p)

cdef enum:
    NAME_ROOM = 24          # bytes of a rule's name
    NAME_LOOK = 64          # a longer name matches no rule
    MAX_RULES = 31
    MAX_RECORDS = 1 << 21   # of 32 bytes: what one file may make us hold
    MAX_FIELD = 2048        # a field within the first bytes of a descriptor
    MAX_SEARCH = 1 << 24    # bytes to look through for notes behind a damaged one
    NOTE_HEADER = 12
    NO_GROUP = 0xFFFFFFFF

    # rule flags
    F_GROUP = 1             # starts a group (one thread)
    F_NUMBERED = 2          # the name goes on with a decimal number, which is the group's

    # results of one step
    S_OK = 0
    S_MORE = 1              # the chunk ends before the record does
    S_END = 2
    S_BAD = 3               # a size runs past the stream's own end

cdef enum:
    MAGIC1 = 0x46505853
    MAGIC2 = 0x46505845
    SOFTWARE = 464          # software bytes of a standard area
    AREA_MIN = 576
    FXSAVE = 512            # bytes of an FXSAVE image
    XMM = 160               # XMM0 in it, and in an area
    FRAME_MAX = 16384       # xstate_size of a plausible frame
    FRAME_STEP = 64


STARTS_GROUP = F_GROUP
NUMBERED = F_NUMBERED
CHUNK_MIN = NOTE_HEADER + NAME_LOOK + MAX_FIELD + 8   # the least that `feed` can always make progress on

cdef struct Rule:
    uint32_t type
    uint32_t field          # offset of the u32 to remember from the descriptor; NO_GROUP: none
    uint16_t length         # of the name, without NUL
    uint8_t ident
    uint8_t flags
    char name[NAME_ROOM]

cdef struct Record:
    uint64_t offset         # of the descriptor in the file
    uint32_t size
    uint32_t group
    uint32_t number         # the remembered field, or the name's number
    uint32_t ident

cdef struct Note:
    uint64_t desc
    uint64_t next
    uint32_t size
    uint32_t number
    int rule                # index, or -1


cdef int match(const Rule *rules, int count, const uint8_t *name, uint32_t length, uint32_t kind,
               uint32_t *number) noexcept nogil:
    """Index of the rule for (name, kind), or -1; `number` gets the decimal number at the end of a numbered name."""
    cdef int i
    cdef uint32_t at, value
    cdef const Rule *rule
    while length and name[length - 1] == 0:
        length -= 1
    for i in range(count):
        rule = &rules[i]
        if rule.type != kind or rule.length > length or memcmp(name, rule.name, rule.length) != 0:
            continue
        if rule.length == length:
            if rule.flags & F_NUMBERED:
                continue
            return i
        if not rule.flags & F_NUMBERED:
            continue
        value = 0
        at = rule.length
        while at < length and c'0' <= name[at] <= c'9' and value <= 0x0CCCCCCB:
            value = value * 10 + name[at] - c'0'
            at += 1
        if at == length:
            number[0] = value
            return i
    return -1


cdef int step(const uint8_t *chunk, uint64_t base, uint64_t size, uint64_t position, uint64_t end,
              const Rule *rules, int count, Note *note) noexcept nogil:
    """Reads the note at file offset `position` from a chunk of `size` bytes that lies at file offset `base`."""
    cdef uint64_t at, padded
    cdef uint32_t namesz, descsz, kind
    cdef const Rule *rule
    if position >= end:
        return S_END
    if end - position < NOTE_HEADER:
        return S_BAD
    at = position - base
    if at + NOTE_HEADER > size:
        return S_MORE
    namesz = load_le32(chunk + at)
    descsz = load_le32(chunk + at + 4)
    kind = load_le32(chunk + at + 8)
    padded = (<uint64_t>namesz + 3) & ~<uint64_t>3
    note.desc = position + NOTE_HEADER + padded
    note.size = descsz
    note.next = note.desc + ((<uint64_t>descsz + 3) & ~<uint64_t>3)
    note.number = 0
    note.rule = -1
    if note.desc + descsz > end:
        return S_BAD
    if namesz > NAME_LOOK:
        return S_OK
    if at + NOTE_HEADER + namesz > size:
        return S_MORE
    note.rule = match(rules, count, chunk + at + NOTE_HEADER, namesz, kind, &note.number)
    if note.rule >= 0:
        rule = &rules[note.rule]
        if rule.field != NO_GROUP and <uint64_t>rule.field + 4 <= descsz:
            at = note.desc - base + rule.field
            if at + 4 > size:
                return S_MORE
            note.number = load_le32(chunk + at)
    return S_OK


cdef class NoteTable:
    """The notes that rules name, in file order and grouped by thread, from chunks of a file.

    `NoteTable(rules)` takes rules as `(name, type, ident, flags, field)`: `ident` is 1 to 31; with flag
    `STARTS_GROUP` a note opens a group; `NUMBERED` names end in a decimal number, and a new number opens a
    group; `field` is the offset of a u32 of the descriptor that becomes the group's number, or -1.

    `begin(start, end, limit)` sets the bounds of a segment and the file's size; `feed(buffer, offset)` walks what
    a chunk holds and returns True while it wants the bytes at `position`. A descriptor that goes on behind the
    chunk is skipped, not read; one that the file's end cuts ends the walk (`cut_offset`).
    Where sizes run past the segment's own end, the walk looks for the next note that a rule names (`resynced`).
    """

    cdef Rule rules[MAX_RULES]
    cdef int rule_count
    cdef Record *records
    cdef uint32_t *starts
    cdef size_t count, room, group_count, group_room
    cdef uint32_t seen, loose          # idents met in the current group, and before the first
    cdef uint32_t first[MAX_RULES + 1]
    cdef uint64_t end, limit, last_desc, searched
    cdef bint searching
    cdef readonly uint64_t position
    cdef readonly uint64_t notes       # all of them, whether a rule names them or not
    cdef readonly uint64_t duplicates
    cdef readonly int64_t duplicate_offset
    cdef readonly int64_t bad_offset   # of the first note whose sizes lie, or -1
    cdef readonly int64_t cut_offset   # of the note that the file's end cuts, or -1
    cdef readonly uint64_t resynced
    cdef readonly bint full

    def __cinit__(self, rules):
        cdef Rule *rule
        cdef bytes name
        if len(rules) > MAX_RULES:
            raise ValueError(f"at most {MAX_RULES} rules, got {len(rules)}")
        for name, kind, ident, flags, field in rules:
            rule = &self.rules[self.rule_count]
            if not 0 < len(name) <= NAME_ROOM or not 0 < ident <= MAX_RULES or field > MAX_FIELD:
                raise ValueError(f"bad note rule {name!r} {kind:#x}")
            memcpy(rule.name, <char *>name, len(name))
            rule.length = len(name)
            rule.type = kind
            rule.ident = ident
            rule.flags = flags
            rule.field = NO_GROUP if field < 0 else field
            self.rule_count += 1
        memset(self.first, 0xFF, sizeof(self.first))
        self.duplicate_offset = self.bad_offset = self.cut_offset = -1

    def __dealloc__(self):
        PyMem_Free(self.records)
        PyMem_Free(self.starts)

    def begin(self, start, end, limit):
        """Sets the bounds [start, end) of the next segment of notes, as file offsets, and the file's size."""
        if not 0 <= start <= end < 1 << 62 or not 0 <= limit < 1 << 62:
            raise ValueError(f"segment [{start:#x}, {end:#x}) out of range")
        self.limit = limit
        self.position = self.last_desc = start
        self.end = end
        self.searching = False

    def shorten(self, limit):
        """Says that the file ends at `limit` after all."""
        self.limit = min(self.limit, <uint64_t>limit)

    def feed(self, buffer, offset):
        """Walks the bytes that lie at file offset `offset`, which must not be above `position`.

        Returns True while more is wanted, from `position` on; a chunk of `CHUNK_MIN` bytes, or one that ends
        where the file does, always brings the walk on. Raises: `ValueError` for a chunk beyond `position`.
        """
        cdef Py_buffer view
        cdef int status
        cdef uint64_t base = offset
        cdef Note note
        if base > self.position:
            raise ValueError(f"chunk at {offset:#x} is beyond the position {self.position:#x}")
        PyObject_GetBuffer(buffer, &view, PyBUF_SIMPLE)
        try:
            while True:
                status = S_OK
                if self.searching:
                    status = self._search(<const uint8_t *>view.buf, base, view.len)
                if status == S_OK:
                    status = step(<const uint8_t *>view.buf, base, view.len, self.position, self.end, self.rules,
                                  self.rule_count, &note)
                if status == S_BAD and not self.searching:
                    if self.bad_offset < 0:
                        self.bad_offset = self.position
                    # A writer that counted wrong leaves the next note before or after where it should be.
                    self.position = self.last_desc
                    self.searching = True
                    if self.position < base:
                        return True
                    continue
                if status != S_OK:
                    break
                if note.desc + note.size > self.limit:
                    self.cut_offset = self.position
                    return False
                self.notes += 1
                if note.rule >= 0:
                    self._add(&note)
                    if self.full:
                        return False
                self.last_desc = self.position + NOTE_HEADER
                self.position = note.next
            if status == S_MORE and base + <uint64_t>view.len >= self.limit:
                if not self.searching:
                    self.cut_offset = self.position
                return False
            return status == S_MORE
        finally:
            PyBuffer_Release(&view)

    cdef int _search(self, const uint8_t *chunk, uint64_t base, uint64_t size) noexcept:
        """Moves `position` to the next place where a rule's name and type stand, at any alignment."""
        cdef Note note
        cdef uint64_t at = self.position
        cdef int status = S_END
        with nogil:
            while at + NOTE_HEADER < self.end and self.searched < MAX_SEARCH:
                self.searched += 1
                if at - base + NOTE_HEADER + NAME_LOOK > size and at - base + NOTE_HEADER + NAME_LOOK < self.end - base:
                    status = S_MORE
                    break
                status = step(chunk, base, size, at, self.end, self.rules, self.rule_count, &note)
                if status == S_MORE:
                    break
                if status == S_OK and note.rule >= 0:
                    break
                status = S_END
                at += 1
        self.position = at
        if status == S_OK:
            self.resynced += 1
            self.searching = False
            self.last_desc = at + NOTE_HEADER
        return status

    cdef int _add(self, Note *note) except -1:
        cdef Rule *rule = &self.rules[note.rule]
        cdef uint32_t bit = <uint32_t>1 << rule.ident
        cdef Record *record
        cdef bint opens = rule.flags & F_GROUP != 0
        if rule.flags & F_NUMBERED:
            opens = self.group_count == 0 or self.records[self.starts[self.group_count - 1]].number != note.number
        if self.count >= MAX_RECORDS:
            self.full = True
            return 0
        if opens:
            self._room_for_group()
            self.starts[self.group_count] = self.count
            self.group_count += 1
            self.seen = 0
        if (self.seen if self.group_count else self.loose) & bit:
            self.duplicates += 1
            if self.duplicate_offset < 0:
                self.duplicate_offset = note.desc
            return 0
        if self.group_count:
            self.seen |= bit
        else:
            self.loose |= bit
        if self.count == self.room:
            self.records = <Record *>grown(self.records, &self.room, sizeof(Record))
        record = &self.records[self.count]
        record.offset = note.desc
        record.size = note.size
        record.number = note.number
        record.ident = rule.ident
        record.group = self.group_count - 1 if self.group_count else NO_GROUP
        if self.first[rule.ident] == NO_GROUP:
            self.first[rule.ident] = self.count
        self.count += 1
        return 0

    cdef int _room_for_group(self) except -1:
        if self.group_count == self.group_room:
            self.starts = <uint32_t *>grown(self.starts, &self.group_room, sizeof(uint32_t))
        return 0

    cdef (size_t, size_t) _span(self, size_t group):
        cdef size_t stop = self.starts[group + 1] if group + 1 < self.group_count else self.count
        return self.starts[group], stop

    @property
    def groups(self):
        """Number of groups, that is threads."""
        return self.group_count

    def number(self, index):
        """The number of a group: the field that its first note's rule names. Raises: `IndexError`."""
        if not 0 <= index < <object>self.group_count:
            raise IndexError(f"group {index} of {self.group_count}")
        return self.records[self.starts[<size_t>index]].number

    def find(self, index, ident):
        """(file offset, size) of a group's note `ident`, or None. Raises: `IndexError`."""
        cdef size_t i, start, stop
        cdef uint32_t wanted = ident
        if not 0 <= index < <object>self.group_count:
            raise IndexError(f"group {index} of {self.group_count}")
        start, stop = self._span(<size_t>index)
        for i in range(start, stop):
            if self.records[i].ident == wanted:
                return self.records[i].offset, self.records[i].size
        return None

    def find_any(self, ident):
        """(file offset, size) of the file's first note `ident`, in a group or before all of them, or None."""
        cdef uint32_t at
        if not 0 < ident <= MAX_RULES:
            raise ValueError(f"no ident {ident}")
        at = self.first[<int>ident]
        if at == NO_GROUP:
            return None
        return self.records[at].offset, self.records[at].size

    def place(self, index):
        """File offset of the descriptor that a group begins with. Raises: `IndexError`."""
        if not 0 <= index < <object>self.group_count:
            raise IndexError(f"group {index} of {self.group_count}")
        return self.records[self.starts[<size_t>index]].offset

    def usual_areas(self, window, base, index, ident, beside, size, xcr0, mask):
        """Where the areas of the groups from `index` on lie in `window`, whose first byte is at file offset `base`.

        A list of positions, one a group, that ends before the first group whose notes are not all in the window; -1
        for an area that needs a look of its own. Usual is a note `ident` of `size` bytes that `unusual_rows` would
        not name for `xcr0` and `mask`, and whose XMM0-7 are those of the FXSAVE image beside it: of the first of the
        notes `beside` that has one, if any has.
        """
        cdef Py_buffer view
        cdef uint64_t length = size, wanted = xcr0, allowed = mask, start = base
        cdef uint32_t kind = ident
        cdef size_t group, first, stop, i
        cdef const uint8_t *bytes_
        cdef const uint8_t *area
        cdef const uint8_t *legacy
        cdef const Record *record
        cdef bint whole
        cdef int images[2]
        cdef int rank, best
        cdef list found = []
        images[0], images[1] = beside
        if not 0 <= index < <object>self.group_count:
            raise IndexError(f"group {index} of {self.group_count}")
        PyObject_GetBuffer(window, &view, PyBUF_SIMPLE)
        try:
            bytes_ = <const uint8_t *>view.buf
            for group in range(<size_t>index, self.group_count):
                first, stop = self._span(group)
                area = legacy = NULL
                whole = True
                best = 2
                for i in range(first, stop):
                    record = &self.records[i]
                    if record.ident != kind and record.ident != <uint32_t>images[0] and \
                            record.ident != <uint32_t>images[1]:
                        continue
                    if record.offset < start or record.offset - start + record.size > <uint64_t>view.len:
                        whole = False
                    elif record.ident == kind:
                        area = bytes_ + (record.offset - start) if record.size == length else NULL
                    elif record.size >= FXSAVE:
                        rank = 0 if record.ident == <uint32_t>images[0] else 1
                        if rank < best:
                            best = rank
                            legacy = bytes_ + (record.offset - start)
                if not whole:
                    break
                if area == NULL or length < AREA_MIN or is_unusual(area, wanted, allowed) or \
                        (legacy != NULL and not same_xmm(area, legacy)):
                    found.append(-1)
                else:
                    found.append(area - bytes_)
            return found
        finally:
            PyBuffer_Release(&view)

    def numbers(self):
        """Every group's number as int64, as bytes."""
        cdef size_t i
        cdef bytearray out = bytearray(8 * self.group_count)
        cdef int64_t *values = <int64_t *><char *>out
        for i in range(self.group_count):
            values[i] = self.records[self.starts[i]].number
        return bytes(out)

    def gather(self, ident):
        """Where every group's note `ident` lies: (offsets, sizes) as int64 in bytes, -1 where a group has none."""
        cdef size_t i, j, start, stop
        cdef uint32_t wanted = ident
        cdef bytearray offsets = bytearray(8 * self.group_count)
        cdef bytearray sizes = bytearray(8 * self.group_count)
        cdef int64_t *where = <int64_t *><char *>offsets
        cdef int64_t *length = <int64_t *><char *>sizes
        for i in range(self.group_count):
            where[i] = length[i] = -1
            start, stop = self._span(i)
            for j in range(start, stop):
                if self.records[j].ident == wanted:
                    where[i] = self.records[j].offset
                    length[i] = self.records[j].size
                    break
        return bytes(offsets), bytes(sizes)


cdef void *grown(void *memory, size_t *room, size_t each) except NULL:
    cdef size_t more = 64 if room[0] == 0 else room[0] * 2
    cdef void *fresh = PyMem_Realloc(memory, more * each)
    if fresh == NULL:
        raise MemoryError
    room[0] = more
    return fresh


def read_rows(int descriptor, offsets, size, buffer, stride):
    """Reads `size` bytes at each of the file offsets `offsets` (int64, as bytes) into rows of `buffer`, `stride` apart.

    Returns how many rows were read whole, before the first that was not. Releases the GIL. Raises: `ValueError` where
    the buffer does not hold the rows.
    """
    cdef Py_buffer places, into
    cdef uint64_t length = size, step = stride, done = 0, count
    cdef int64_t offset
    cdef ssize_t got
    PyObject_GetBuffer(offsets, &places, PyBUF_SIMPLE)
    try:
        count = places.len // 8
        PyObject_GetBuffer(buffer, &into, PyBUF_SIMPLE | PyBUF_WRITABLE)
        try:
            if step < length or (count and (count - 1) * step + length > <uint64_t>into.len):
                raise ValueError(f"{count} rows of {size} bytes, {stride} apart, are not within {into.len} bytes")
            with nogil:
                while done < count:
                    memcpy(&offset, <const uint8_t *>places.buf + 8 * done, 8)
                    got = pread(descriptor, <uint8_t *>into.buf + done * step, length, offset)
                    if got < 0 or <uint64_t>got != length:
                        break
                    done += 1
            return done
        finally:
            PyBuffer_Release(&into)
    finally:
        PyBuffer_Release(&places)


cdef inline bint is_unusual(const uint8_t *area, uint64_t xcr0, uint64_t mask) noexcept nogil:
    # Not a standard header within `mask`, another XCR0, or neither SSE nor AVX in use.
    cdef uint64_t rest = 0, in_use = load_le64(area + 512)
    cdef int j
    for j in range(520, AREA_MIN, 8):
        rest |= load_le64(area + j)
    return rest != 0 or in_use & ~mask != 0 or not in_use & 6 or load_le64(area + SOFTWARE) != xcr0


cdef bint same_xmm(const uint8_t *area, const uint8_t *legacy) noexcept nogil:
    # XMM0-7, which every mode of the CPU has; out of use they are 0.
    cdef int j
    cdef uint64_t live = ~<uint64_t>0 if load_le64(area + 512) & 2 else 0, odd = 0
    for j in range(XMM, XMM + 128, 8):
        odd |= (load_le64(area + j) & live) ^ load_le64(legacy + j)
    return odd == 0


def unusual_rows(buffer, offset, stride, count, xcr0, mask):
    """Which of `count` areas, `stride` bytes apart from `offset` on, need a look of their own: their numbers.

    Usual is a standard header within `mask` (XSTATE_BV, nothing else), `xcr0` in the software bytes, and SSE or AVX
    in use, so that the kernel wrote MXCSR. Raises: `ValueError` where the buffer does not hold them.
    """
    cdef Py_buffer view
    cdef uint64_t start = offset, step = stride, rows = count, wanted = xcr0, allowed = mask
    cdef uint64_t i
    cdef list found = []
    PyObject_GetBuffer(buffer, &view, PyBUF_SIMPLE)
    try:
        if rows and (step < AREA_MIN or start + (rows - 1) * step + AREA_MIN > <uint64_t>view.len):
            raise ValueError(f"{count} areas of {stride} bytes from {offset} on are not within {view.len} bytes")
        for i in range(rows):
            if is_unusual(<const uint8_t *>view.buf + start + i * step, wanted, allowed):
                found.append(i)
        return found
    finally:
        PyBuffer_Release(&view)


def rows_using(buffer, offset, stride, count, mask):
    """Which of `count` areas have a component of `mask` in XSTATE_BV: their numbers. As `unusual_rows`."""
    cdef Py_buffer view
    cdef uint64_t start = offset, step = stride, rows = count, wanted = mask
    cdef uint64_t i
    cdef list found = []
    PyObject_GetBuffer(buffer, &view, PyBUF_SIMPLE)
    try:
        if rows and (step < AREA_MIN or start + (rows - 1) * step + AREA_MIN > <uint64_t>view.len):
            raise ValueError(f"{count} areas of {stride} bytes from {offset} on are not within {view.len} bytes")
        for i in range(rows):
            if load_le64(<const uint8_t *>view.buf + start + i * step + 512) & wanted:
                found.append(i)
        return found
    finally:
        PyBuffer_Release(&view)


cdef uint64_t frame_at(const uint8_t *image, uint64_t size) noexcept nogil:
    """xstate_size of the signal frame's area at `image`, or 0; `size` bytes can be read."""
    cdef uint64_t length, features
    if size < AREA_MIN + 4 or load_le32(image + SOFTWARE) != MAGIC1:
        return 0
    features = load_le64(image + SOFTWARE + 8)
    length = load_le32(image + SOFTWARE + 16)
    if length < AREA_MIN or length > FRAME_MAX or features & 3 != 3 or length + 4 > size:
        return 0
    if load_le32(image + length) != MAGIC2 or load_le64(image + 520) != 0 or load_le64(image + 512) & ~features:
        return 0
    return length


def find_frames(buffer, address=0, most=4096):
    """Linux signal frames in memory that lies at `address`: [(position, extended_size, xfeatures, xstate_size)].

    `position` is that of the XSAVE area in `buffer`; only areas that lie in it whole are reported, and at most
    `most` of them. The frame's words at byte 464 of a 64-byte aligned area and the second magic word behind
    the area must agree. Releases the GIL.
    """
    cdef Py_buffer view
    cdef const uint8_t *memory
    cdef uint64_t at, size
    cdef uint64_t found[64]
    cdef int count, i
    result = []
    PyObject_GetBuffer(buffer, &view, PyBUF_SIMPLE)
    try:
        memory = <const uint8_t *>view.buf
        size = view.len
        at = -address % FRAME_STEP
        while at < size and len(result) < most:
            count = 0
            with nogil:
                while at < size and count < 64:
                    if frame_at(memory + at, size - at):
                        found[count] = at
                        count += 1
                    at += FRAME_STEP
            for i in range(count):
                result.append((found[i], load_le32(memory + found[i] + SOFTWARE + 4),
                               load_le64(memory + found[i] + SOFTWARE + 8),
                               load_le32(memory + found[i] + SOFTWARE + 16)))
        return result[:most]
    finally:
        PyBuffer_Release(&view)
