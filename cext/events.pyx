"""Text of recorded kernel traces to columns: what `perf script` prints, and ftrace's own text.

It knows how the kernel prints its events, and no state component: which masks are impossible is told by its caller.
Nothing here reads a file: the caller feeds chunks, and gives the memory that the columns are written to.

The name of a task may hold anything but NUL: blanks, colons, brackets, "==>", even what looks like fields. It is 15
bytes at most, though, and what follows it is longer: the first place where all of that stands is the right one.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, Py_buffer, PyBuffer_Release, PyObject_GetBuffer
from cpython.mem cimport PyMem_Calloc, PyMem_Free
from libc.stdint cimport int32_t, int8_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memchr, memcmp, memcpy, memset

cdef extern from "bytes.h" nogil:
    void store_le16(void *p, uint16_t v)
    void store_le32(void *p, uint32_t v)
    void store_le64(void *p, uint64_t v)

__all__ = ["EVENTS", "LONGEST", "REASONS", "WIDTHS", "EventReader", "recognise"]

cdef enum:
    LINE_MAX = 4096             # bytes; a longer line is garbled
    CPUS = 1 << 16
    COMM_LOOK = 64              # how far a name may go within the fields of an event
    NAME_ROOM = 27              # bytes kept of a task's name
    NAMES = 512                 # names that one pass may find before they are taken out
    SLOTS = 4096                # tasks whose last name is remembered, to tell it once
    SLOT_SHIFT = 20
    NO_NAME = 255
    TASKS_LIMIT = 1 << 22       # the kernel's own limit of process numbers
    SHOWN = 100                 # bytes shown of a garbled line
    COLUMNS = 11

cdef enum Kind:
    SCHED_SWITCH, REGS_ACTIVATED, REGS_DEACTIVATED, DROPPED, COPY_SRC, COPY_DST, BEFORE_SAVE, AFTER_SAVE,
    BEFORE_RESTORE, AFTER_RESTORE, INIT_STATE, XSTATE_CHECK_FAILED, WRITE_MSR, READ_MSR, KVM_FPU, KVM_ENTRY,
    KVM_EXIT, KVM_MSR, KVM_USERSPACE_EXIT, KVM_PIO, CPU_IDLE, LOCAL_TIMER, RESCHEDULE, OTHER, KINDS

# Results of a line: an event, or why there is none; the reasons are those of REASONS, in this order.
cdef enum Status:
    S_GARBLED, S_UNKNOWN, S_BACKWARDS, S_IMPOSSIBLE, S_TRUNCATED, S_LOST, S_REASONS, S_EVENT, S_NOTHING

# How an event's fields are printed.
cdef enum Fields:
    F_NONE, F_SWITCH, F_FPU, F_MSR, F_KVM_FPU, F_KVM_EXIT, F_IDLE

REASONS = (
    "garbled line", "unknown event", "time going backwards", "impossible mask", "truncated line", "lost events",
)
EVENTS = (
    "SCHED_SWITCH", "REGS_ACTIVATED", "REGS_DEACTIVATED", "DROPPED", "COPY_SRC", "COPY_DST", "BEFORE_SAVE",
    "AFTER_SAVE", "BEFORE_RESTORE", "AFTER_RESTORE", "INIT_STATE", "XSTATE_CHECK_FAILED", "WRITE_MSR", "READ_MSR",
    "KVM_FPU", "KVM_ENTRY", "KVM_EXIT", "KVM_MSR", "KVM_USERSPACE_EXIT", "KVM_PIO", "CPU_IDLE", "LOCAL_TIMER",
    "RESCHEDULE", "OTHER",
)
# Bytes of one row of each column, in the order in which `EventReader.feed` takes them.
WIDTHS = {
    "time": 8, "cpu": 2, "event": 1, "tid": 4, "other": 4, "state": 1, "flag": 1, "fpu": 8, "xfeatures": 8,
    "xcomp_bv": 8, "line": 4,
}
LONGEST = LINE_MAX

cdef struct Form:
    const char *name            # system:event
    uint8_t length
    uint8_t system              # bytes of it before the event's own name
    uint8_t kind
    uint8_t fields

cdef struct Cursor:
    const uint8_t *at
    const uint8_t *end

cdef struct Text:
    const uint8_t *start
    size_t length

cdef struct Row:
    uint64_t time
    uint64_t fpu
    uint64_t xfeatures
    uint64_t xcomp_bv
    int32_t tid
    int32_t other
    uint16_t cpu
    uint8_t event
    uint8_t state
    int8_t flag
    Text comm
    Text next_comm

cdef struct Name:
    int32_t tid
    uint8_t length
    uint8_t text[NAME_ROOM]

cdef struct Out:
    uint8_t *column[COLUMNS]
    size_t count
    size_t room

cdef struct Reading:
    bint ftrace
    bint dropping               # inside a line that is too long
    uint64_t never              # bits that xfeatures never has
    uint64_t bit                # a bit of xfeatures and xcomp_bv that, there, comes with `needs`
    uint64_t needs
    uint64_t line               # the number of the next line
    uint64_t lines              # that say something
    uint64_t skipped[S_REASONS]
    uint64_t garbled            # number of the first garbled line, or 0
    Text garbled_text           # in the chunk of this pass
    uint64_t *last              # time of the last event of each CPU
    Name *slots
    Name *names
    int name_count

cdef Form FORMS[KINDS]


cdef void form(Kind kind, const char *name, int length, int system, Fields fields) noexcept:
    FORMS[<int>kind].name = name
    FORMS[<int>kind].length = length
    FORMS[<int>kind].system = system
    FORMS[<int>kind].kind = kind
    FORMS[<int>kind].fields = fields


cdef void make_forms() noexcept:
    form(SCHED_SWITCH, b"sched:sched_switch", 18, 6, F_SWITCH)
    form(REGS_ACTIVATED, b"x86_fpu:x86_fpu_regs_activated", 30, 8, F_FPU)
    form(REGS_DEACTIVATED, b"x86_fpu:x86_fpu_regs_deactivated", 32, 8, F_FPU)
    form(DROPPED, b"x86_fpu:x86_fpu_dropped", 23, 8, F_FPU)
    form(COPY_SRC, b"x86_fpu:x86_fpu_copy_src", 24, 8, F_FPU)
    form(COPY_DST, b"x86_fpu:x86_fpu_copy_dst", 24, 8, F_FPU)
    form(BEFORE_SAVE, b"x86_fpu:x86_fpu_before_save", 27, 8, F_FPU)
    form(AFTER_SAVE, b"x86_fpu:x86_fpu_after_save", 26, 8, F_FPU)
    form(BEFORE_RESTORE, b"x86_fpu:x86_fpu_before_restore", 30, 8, F_FPU)
    form(AFTER_RESTORE, b"x86_fpu:x86_fpu_after_restore", 29, 8, F_FPU)
    form(INIT_STATE, b"x86_fpu:x86_fpu_init_state", 26, 8, F_FPU)
    form(XSTATE_CHECK_FAILED, b"x86_fpu:x86_fpu_xstate_check_failed", 35, 8, F_FPU)
    form(WRITE_MSR, b"msr:write_msr", 13, 4, F_MSR)
    form(READ_MSR, b"msr:read_msr", 12, 4, F_MSR)
    form(KVM_FPU, b"kvm:kvm_fpu", 11, 4, F_KVM_FPU)
    form(KVM_ENTRY, b"kvm:kvm_entry", 13, 4, F_NONE)
    form(KVM_EXIT, b"kvm:kvm_exit", 12, 4, F_KVM_EXIT)
    form(KVM_MSR, b"kvm:kvm_msr", 11, 4, F_NONE)
    form(KVM_USERSPACE_EXIT, b"kvm:kvm_userspace_exit", 22, 4, F_NONE)
    form(KVM_PIO, b"kvm:kvm_pio", 11, 4, F_NONE)
    form(CPU_IDLE, b"power:cpu_idle", 14, 6, F_IDLE)
    form(LOCAL_TIMER, b"irq_vectors:local_timer_entry", 29, 12, F_NONE)
    form(RESCHEDULE, b"irq_vectors:reschedule_entry", 28, 12, F_NONE)


make_forms()


cdef inline bint is_digit(uint8_t c) noexcept nogil:
    return c'0' <= c <= c'9'


cdef inline bint is_letter(uint8_t c) noexcept nogil:
    return c'a' <= (c | 32) <= c'z'


cdef inline uint8_t before(const uint8_t *at) noexcept nogil:
    return (at - 1)[0]


cdef inline bint skip(Cursor *c, const char *text, int length) noexcept nogil:
    """Passes over `text`, if that is what stands there."""
    if c.end - c.at < length or memcmp(c.at, text, length) != 0:
        return False
    c.at += length
    return True


cdef inline void skip_blanks(Cursor *c) noexcept nogil:
    while c.at < c.end and c.at[0] == c' ':
        c.at += 1


cdef inline bint ended(const Cursor *c) noexcept nogil:
    return c.at == c.end or c.at[0] == c' '


cdef inline int decimal(Cursor *c, uint64_t *value) noexcept nogil:
    """Reads a number of at most 19 digits; returns how many there were, 0 for none or more."""
    cdef const uint8_t *start = c.at
    cdef uint64_t sum = 0
    while c.at < c.end and is_digit(c.at[0]) and c.at - start < 20:
        sum = sum * 10 + (c.at[0] - c'0')
        c.at += 1
    value[0] = sum
    return <int>(c.at - start) if c.at - start < 20 else 0


cdef inline bint task_number(Cursor *c, int32_t *value) noexcept nogil:
    cdef uint64_t number
    if not decimal(c, &number) or number > 0x7FFFFFFF:
        return False
    value[0] = <int32_t>number
    return True


cdef inline bint hexadecimal(Cursor *c, uint64_t *value) noexcept nogil:
    """Reads a number of 1 to 16 hexadecimal digits, with `0x` before it or without."""
    cdef const uint8_t *start
    cdef uint64_t sum = 0
    cdef uint8_t digit
    skip(c, b"0x", 2)
    start = c.at
    while c.at < c.end:
        digit = c.at[0]
        if is_digit(digit):
            digit -= c'0'
        elif c'a' <= (digit | 32) <= c'f':
            digit = (digit | 32) - c'a' + 10
        else:
            break
        if c.at - start >= 16:
            return False
        sum = sum << 4 | digit
        c.at += 1
    value[0] = sum
    return c.at != start


# -- the head of a line: who, where, when, what ------------------------------------------------------------


cdef bint timestamp(Cursor *c, uint64_t *value) noexcept nogil:
    """Reads `seconds.fraction: `, the fraction in micro- or in nanoseconds."""
    cdef uint64_t seconds, fraction
    cdef int digits = decimal(c, &seconds)
    if not 0 < digits <= 10 or not skip(c, b".", 1):
        return False
    digits = decimal(c, &fraction)
    if digits == 6:
        fraction *= 1000
    elif digits != 9:
        return False
    value[0] = seconds * 1000000000 + fraction
    return skip(c, b": ", 2)


cdef bint task_before(const uint8_t *start, const uint8_t *at, bint ftrace, Row *row) noexcept nogil:
    """Reads what stands in [start, at): `comm tid`, or `comm-tid` with or without `(tgid)`."""
    cdef Cursor number
    cdef const uint8_t *end
    while at > start and before(at) == c' ':
        at -= 1
    if ftrace and at > start and before(at) == c')':
        at -= 1
        while at > start and (is_digit(before(at)) or before(at) == c'-' or before(at) == c' '):
            at -= 1
        if at == start or before(at) != c'(':
            return False
        at -= 1
        while at > start and before(at) == c' ':
            at -= 1
    end = at
    while at > start and is_digit(before(at)):
        at -= 1
    number.at, number.end = at, end
    if not task_number(&number, &row.tid):
        return False
    if ftrace:
        if at == start or before(at) != c'-':
            return False
        at -= 1
    else:
        if at > start and before(at) == c'-':
            row.tid = -row.tid
            at -= 1
        if at > start and before(at) != c' ':
            return False
        while at > start and before(at) == c' ':
            at -= 1
    while start < at and start[0] == c' ':
        start += 1
    row.comm.start, row.comm.length = start, at - start
    return True


cdef bint head(Cursor *c, bint ftrace, Row *row, Text *name) noexcept nogil:
    """Reads a line up to the event's name, which it leaves in `name`; what follows the colon stays."""
    cdef const uint8_t *start = c.at
    cdef const uint8_t *flags
    cdef uint64_t number
    cdef int digits
    while True:
        c.at = <const uint8_t *>memchr(c.at, c'[', c.end - c.at) if c.at < c.end else NULL
        if c.at == NULL:
            return False
        name.start = c.at
        c.at += 1
        if name.start == start or before(name.start) != c' ':
            continue
        digits = decimal(c, &number)
        if digits >= 3 and number < CPUS and skip(c, b"] ", 2):
            row.cpu = <uint16_t>number
            skip_blanks(c)
            flags = c.at
            if timestamp(c, &row.time) and task_before(start, name.start, ftrace, row):
                break
            if ftrace:
                # Flags of the context: interrupts off, need of rescheduling, depth of preemption.
                c.at = flags
                while c.at < c.end and c.at[0] != c' ' and c.at - flags <= 8:
                    c.at += 1
                skip_blanks(c)
                if timestamp(c, &row.time) and task_before(start, name.start, ftrace, row):
                    break
        c.at = name.start + 1
    skip_blanks(c)
    name.start = c.at
    while c.at < c.end and c.at[0] != c' ':
        c.at += 1
    # Of `name:` at least one letter, and the colon.
    if c.at - name.start < 2 or before(c.at) != c':':
        return False
    name.length = c.at - name.start - 1
    skip_blanks(c)
    return True


cdef const Form *form_of(const Text *name, bint ftrace) noexcept nogil:
    """The form of the event of that name, or NULL."""
    cdef int i, system
    for i in range(KINDS - 1):
        system = FORMS[i].system if ftrace else 0
        if <size_t>(FORMS[i].length - system) == name.length and \
                memcmp(FORMS[i].name + system, name.start, name.length) == 0:
            return &FORMS[i]
    return NULL


cdef bint akin(const Text *name, bint ftrace) noexcept nogil:
    """Whether an event without a form of its own is one of the scheduler's, the FPU's or KVM's."""
    cdef Cursor c
    cdef const uint8_t *colon
    c.at, c.end = name.start, name.start + name.length
    if not ftrace:
        colon = <const uint8_t *>memchr(c.at, c':', name.length)
        if colon == NULL:
            return False
        c.at = colon + 1
    return skip(&c, b"sched_", 6) or skip(&c, b"x86_fpu_", 8) or skip(&c, b"kvm_", 4)


# -- the fields of an event --------------------------------------------------------------------------------


cdef bint switched(Cursor *c, Row *row) noexcept nogil:
    """`prev_comm=C prev_pid=N prev_prio=N prev_state=S ==> next_comm=C next_pid=N next_prio=N`."""
    cdef const uint8_t *start
    cdef const uint8_t *at
    cdef uint64_t number
    if not skip(c, b"prev_comm=", 10):
        return False
    start = at = c.at
    while True:
        if at == c.end or at - start > COMM_LOOK:
            return False
        c.at = at
        if at[0] == c' ' and skip(c, b" prev_pid=", 10) and task_number(c, &row.tid) and skip(c, b" prev_prio=", 11):
            skip(c, b"-", 1)
            if decimal(c, &number) and skip(c, b" prev_state=", 12) and c.at < c.end and is_letter(c.at[0]):
                row.state = c.at[0]
                while c.at < c.end and c.at[0] != c' ':
                    c.at += 1
                if skip(c, b" ==> next_comm=", 15):
                    break
        at += 1
    row.comm.start, row.comm.length = start, at - start
    # Behind the other name come two numbers: the last place that looks like their beginning is it.
    start = c.at
    at = c.end
    while at > start:
        at -= 1
        if at[0] != c' ':
            continue
        c.at = at
        if skip(c, b" next_pid=", 10):
            row.next_comm.start, row.next_comm.length = start, at - start
            if not task_number(c, &row.other) or not skip(c, b" next_prio=", 11):
                return False
            skip(c, b"-", 1)
            return decimal(c, &number) != 0 and ended(c)
    return False


cdef bint registers(Cursor *c, Row *row) noexcept nogil:
    """`x86/fpu: P load: N xfeatures: X xcomp_bv: X`."""
    if not skip(c, b"x86/fpu: ", 9) or not hexadecimal(c, &row.fpu) or not skip(c, b" load: ", 7):
        return False
    if c.at == c.end or not c'0' <= c.at[0] <= c'1':
        return False
    row.flag = c.at[0] - c'0'
    c.at += 1
    return skip(c, b" xfeatures: ", 12) and hexadecimal(c, &row.xfeatures) and skip(c, b" xcomp_bv: ", 11) and \
        hexadecimal(c, &row.xcomp_bv) and ended(c)


cdef bint fields_of(Cursor *c, uint8_t fields, Row *row) noexcept nogil:
    cdef uint64_t number
    if fields == F_FPU:
        return registers(c, row)
    if fields == F_SWITCH:
        return switched(c, row)
    if fields == F_MSR:
        return hexadecimal(c, &row.fpu) and skip(c, b", value ", 8) and hexadecimal(c, &row.xfeatures) and ended(c)
    if fields == F_KVM_FPU:
        row.flag = 0 if skip(c, b"un", 2) else 1
        return skip(c, b"load", 4) and ended(c)
    if fields == F_IDLE:
        return skip(c, b"state=", 6) and decimal(c, &row.fpu) and ended(c)
    if fields == F_KVM_EXIT:
        if skip(c, b"vcpu ", 5) and (not decimal(c, &number) or not skip(c, b" ", 1)):
            return False
        if not skip(c, b"reason ", 7) or ended(c):
            return False
        # Capital letters or small ones, as the vendor's half of KVM has it.
        if (skip(c, b"XSETBV", 6) or skip(c, b"xsetbv", 6)) and ended(c):
            row.flag = 1
    return True


cdef Status event_of(Cursor *c, const Reading *reading, Row *row) noexcept nogil:
    """Reads a line without its end."""
    cdef Text name
    cdef const Form *form
    row.fpu = row.xfeatures = row.xcomp_bv = 0
    row.other = row.flag = -1
    row.state = 0
    row.next_comm.length = 0
    if not head(c, reading.ftrace, row, &name):
        return S_GARBLED
    form = form_of(&name, reading.ftrace)
    if form == NULL:
        row.event = OTHER
        if not akin(&name, reading.ftrace):
            return S_UNKNOWN
    else:
        row.event = form.kind
        if not fields_of(c, form.fields, row):
            return S_GARBLED
        if form.fields == F_FPU:
            if row.xfeatures & reading.never:
                return S_IMPOSSIBLE
            if row.xfeatures & row.xcomp_bv & reading.bit and not row.xcomp_bv & reading.needs:
                return S_IMPOSSIBLE
    if row.time < reading.last[row.cpu]:
        return S_BACKWARDS
    return S_EVENT


# -- many lines --------------------------------------------------------------------------------------------


cdef void name_task(Reading *reading, int32_t tid, const Text *comm) noexcept nogil:
    """Keeps a task's name, unless it is the one that was kept last. There is room for one more."""
    cdef Name *slot
    cdef uint8_t length = <uint8_t>(comm.length if comm.length < NAME_ROOM else NAME_ROOM)
    if tid <= 0:
        return
    slot = &reading.slots[<uint32_t>(<uint32_t>tid * <uint32_t>2654435761) >> SLOT_SHIFT]
    if slot.tid == tid and slot.length == length and memcmp(slot.text, comm.start, length) == 0:
        return
    slot.tid = tid
    slot.length = length
    memcpy(slot.text, comm.start, length)
    reading.names[reading.name_count] = slot[0]
    reading.name_count += 1


cdef void put(Out *out, const Row *row, uint64_t line) noexcept nogil:
    cdef size_t i = out.count
    store_le64(out.column[0] + 8 * i, row.time)
    store_le16(out.column[1] + 2 * i, row.cpu)
    out.column[2][i] = row.event
    store_le32(out.column[3] + 4 * i, <uint32_t>row.tid)
    store_le32(out.column[4] + 4 * i, <uint32_t>row.other)
    out.column[5][i] = row.state
    out.column[6][i] = <uint8_t>row.flag
    store_le64(out.column[7] + 8 * i, row.fpu)
    store_le64(out.column[8] + 8 * i, row.xfeatures)
    store_le64(out.column[9] + 8 * i, row.xcomp_bv)
    store_le32(out.column[10] + 4 * i, <uint32_t>line)
    out.count += 1


cdef Status line_of(const uint8_t *line, size_t length, const Reading *reading, Row *row) noexcept nogil:
    cdef Cursor c
    while length and (line[length - 1] == c'\r' or line[length - 1] == c' '):
        length -= 1
    if length == 0 or line[0] == c'#':
        return S_NOTHING
    c.at, c.end = line, line + length
    if skip(&c, b"CPU:", 4):
        while c.at < c.end and is_digit(c.at[0]):
            c.at += 1
        if skip(&c, b" [LOST ", 7):
            return S_LOST
        c.at = line
    return event_of(&c, reading, row)


cdef size_t read_lines(const uint8_t *chunk, size_t size, bint last, Reading *reading, Out *out) noexcept nogil:
    """Reads whole lines until columns or names are full; returns how many bytes. What follows the last line's end is
    left, or counted as truncated where the text ends with it (`last`)."""
    cdef const uint8_t *at = chunk
    cdef const uint8_t *end = chunk + size
    cdef const uint8_t *stop
    cdef Row row
    cdef Status status
    while at < end and out.count < out.room and reading.name_count + 2 <= NAMES:
        stop = <const uint8_t *>memchr(at, c'\n', end - at)
        if stop == NULL:
            if not reading.dropping:
                if end - at <= LINE_MAX:
                    if not last:
                        break
                    reading.skipped[<int>S_TRUNCATED] += 1
                    reading.lines += 1
                    return size
                status = S_GARBLED
                reading.dropping = True
            else:
                return size
            stop = end
        elif reading.dropping:
            reading.dropping = False
            at = stop + 1
            continue
        elif stop - at > LINE_MAX:
            status = S_GARBLED
        else:
            status = line_of(at, stop - at, reading, &row)
        if status == S_EVENT:
            reading.last[row.cpu] = row.time
            put(out, &row, reading.line)
            if row.tid > 0:
                name_task(reading, row.tid, &row.comm)
            if row.other > 0:
                name_task(reading, row.other, &row.next_comm)
        elif status != S_NOTHING:
            reading.skipped[<int>status] += 1
            if status == S_GARBLED and not reading.garbled:
                reading.garbled = reading.line
                reading.garbled_text.start, reading.garbled_text.length = at, stop - at
        reading.lines += status != S_NOTHING
        reading.line += 1
        at = stop if stop == end else stop + 1
    return at - chunk


cdef class EventReader:
    """Events of a trace's text, chunk by chunk.

    `ftrace`: the text is ftrace's, else that of `perf script -F comm,tid,cpu,time,event,trace`. An event of the
    FPU is impossible whose xfeatures have a bit of `never`, or whose xfeatures and xcomp_bv have `bit` while xcomp_bv
    lacks `needs`.

    `line` is the number of the next line, `lines` how many said anything (blank ones and comments do not), `skipped`
    how many of them were left out, by REASONS; `garbled` the number of the first garbled one, or 0, and
    `garbled_text` how it begins. `names` has the last name of each task, as bytes.
    """

    cdef Reading reading
    cdef readonly dict names
    cdef readonly bytes garbled_text

    def __cinit__(self, bint ftrace, never=0, bit=0, needs=0):
        cdef int i
        self.reading.ftrace = ftrace
        self.reading.never, self.reading.bit, self.reading.needs = never, bit, needs
        self.reading.line = 1
        self.reading.last = <uint64_t *>PyMem_Calloc(CPUS, sizeof(uint64_t))
        self.reading.slots = <Name *>PyMem_Calloc(SLOTS, sizeof(Name))
        self.reading.names = <Name *>PyMem_Calloc(NAMES, sizeof(Name))
        if self.reading.last == NULL or self.reading.slots == NULL or self.reading.names == NULL:
            raise MemoryError
        for i in range(SLOTS):
            self.reading.slots[i].length = NO_NAME
        self.names = {}
        self.garbled_text = b""

    def __dealloc__(self):
        PyMem_Free(self.reading.last)
        PyMem_Free(self.reading.slots)
        PyMem_Free(self.reading.names)

    @property
    def line(self):
        return self.reading.line

    @property
    def lines(self):
        return self.reading.lines

    @property
    def garbled(self):
        return self.reading.garbled

    @property
    def skipped(self):
        return tuple([self.reading.skipped[<int>i] for i in range(<int>S_REASONS)])

    def feed(self, chunk, columns, start=0, last=False):
        """Reads the lines of `chunk` into `columns`, from row `start` on; returns (events, bytes consumed).

        `columns`: writable buffers in the order of WIDTHS. It stops before a line that has no end yet (unless it is
        the text's `last` chunk), and where a column is full. Releases the GIL. Raises: `ValueError` for columns of
        unequal length.
        """
        cdef Py_buffer text
        cdef Py_buffer views[COLUMNS]
        cdef int held = 0
        cdef size_t first = start, done = 0, more, shown
        cdef bint final = last
        cdef Out out
        out.room = 0
        if len(columns) != COLUMNS:
            raise ValueError(f"{COLUMNS} columns are needed, got {len(columns)}")
        PyObject_GetBuffer(chunk, &text, PyBUF_SIMPLE)
        try:
            for width, column in zip(WIDTHS.values(), columns, strict=True):
                PyObject_GetBuffer(column, &views[held], PyBUF_SIMPLE | PyBUF_WRITABLE)
                held += 1
                if held == 1:
                    out.room = views[0].len // 8
                if <size_t>views[held - 1].len != out.room * <size_t>width:
                    raise ValueError(f"column {held - 1} has {views[held - 1].len} bytes, expected {out.room} times "
                                     f"{width}")
                out.column[held - 1] = <uint8_t *>views[held - 1].buf
            if first > out.room:
                raise ValueError(f"row {start} of {out.room}")
            out.count = first
            while True:
                with nogil:
                    more = read_lines(<const uint8_t *>text.buf + done, text.len - done, final, &self.reading, &out)
                done += more
                if self.reading.garbled_text.start != NULL:
                    shown = min(self.reading.garbled_text.length, <size_t>SHOWN)
                    self.garbled_text = self.reading.garbled_text.start[:shown]
                    self.reading.garbled_text.start = NULL
                if self.reading.name_count == 0:
                    break
                self._take_names()
            return out.count - first, done
        finally:
            while held:
                held -= 1
                PyBuffer_Release(&views[held])
            PyBuffer_Release(&text)

    cdef int _take_names(self) except -1:
        cdef int i
        cdef Name *name
        for i in range(self.reading.name_count):
            name = &self.reading.names[i]
            if len(self.names) < TASKS_LIMIT or name.tid in self.names:
                self.names[name.tid] = <bytes>name.text[:name.length]
        self.reading.name_count = 0
        return 0


def recognise(chunk):
    """How many lines of `chunk` begin as those of perf script do, and how many as those of ftrace: (perf, ftrace)."""
    cdef Py_buffer text
    cdef size_t found[2]
    cdef const uint8_t *at
    cdef const uint8_t *end
    cdef const uint8_t *stop
    cdef Cursor c
    cdef Row row
    cdef Text name
    cdef int ftrace
    memset(found, 0, sizeof(found))
    PyObject_GetBuffer(chunk, &text, PyBUF_SIMPLE)
    try:
        with nogil:
            at = <const uint8_t *>text.buf
            end = at + text.len
            while at < end:
                stop = <const uint8_t *>memchr(at, c'\n', end - at)
                if stop == NULL:
                    break
                if stop - at <= LINE_MAX and at[0] != c'#':
                    for ftrace in range(2):
                        c.at, c.end = at, stop
                        if head(&c, ftrace, &row, &name):
                            # Only perf puts the system before the event's name.
                            found[ftrace] += (memchr(name.start, c':', name.length) == NULL) == ftrace
                at = stop + 1
        return found[0], found[1]
    finally:
        PyBuffer_Release(&text)
