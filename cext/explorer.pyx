"""Walks all states of a guest and its VMM, breadth first, for one state component.

It knows no names and no masks: `xsave.audit.proof` compiles, for every value of the guest's three registers, which of
the component's facts hold, as bits. A state is one number; the walk ends when no state is new, so that the first way
to each property is a shortest one.

A state: the phase; the guest's registers (x of XCR0, s of IA32_XSS, f of IA32_XFD); f as the VMM last knew it; what
the component's registers hold (initial, the guest's data, the VMM's); what the guest's buffer holds of it; whether the
guest counts on its data.
"""

from cpython.buffer cimport PyBUF_SIMPLE, Py_buffer, PyBuffer_Release, PyObject_GetBuffer
from cpython.mem cimport PyMem_Calloc, PyMem_Free
from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memset

cdef extern from "bytes.h" nogil:
    uint16_t load_le16(const void *p)

__all__ = ["EVENTS", "FACTS", "PROPERTIES", "walk"]

cdef enum Phase:
    GUEST, EXITED, SAVED, HOST, READY, PHASES

cdef enum Holder:
    INITIAL, GUESTS, HOSTS

cdef enum Buffer:
    # the slot is not announced; announced and initial; in use with the guest's data; with the VMM's
    ABSENT, EMPTY, KEPT, FOREIGN, BUFFERS

cdef enum:
    STATES_LIMIT = 1 << 26      # of nine bytes each

# Facts of the component under one value of the guest's registers.
cdef enum Fact:
    F_GUEST = 1         # the guest can reach it
    F_ARMED = 2         # its bit of IA32_XFD is 1
    F_AUDIT = 4         # the VMM's audit lets the guest through
    F_ENTRY = 8         # VM entry succeeds
    F_SAVE = 16         # the save has it in its mask
    F_SAVE_XFD = 32     # it is disabled when the VMM saves
    F_OVER = 64         # its place ends past the buffer
    F_LOAD = 128        # enabled when the guest's state is restored
    F_LOAD_MASK = 256   # and in the restore's mask
    F_LOAD_XFD = 512    # but disabled then
    F_OWN = 1024        # enabled when the VMM restores its own state

# What holds for the whole walk.
cdef enum Trait:
    T_HOST = 1          # the VMM uses the component
    T_ALWAYS = 2        # the save writes it also where it is initial (XSAVE)
    T_COMPACTED = 4     # the buffer's header says which slots there are
    T_CLEARED = 8       # an exit saves the guest's registers into the buffer and leaves them initial (TDX, SGX)
    T_STOWED = 16       # an exit stows them where nobody reaches, an entry brings them back (SEV-ES)
    T_REREAD = 32       # the VMM knows IA32_XFD after each exit

cdef enum Event:
    E_XCR0, E_XSS, E_XFD, E_USE, E_INIT, E_EXIT, E_AGAIN, E_SAVE, E_OWN, E_RESTORE, E_ENTRY

cdef enum Property:
    P_OVERRUN, P_LOST_GUEST, P_LOST_HOST, P_LEAK_TO_HOST, P_LEAK_TO_GUEST, P_GP, P_NM, PROPERTY_COUNT

EVENTS = ("XCR0", "XSS", "XFD", "use", "init", "exit", "again", "save", "own", "restore", "entry")
PROPERTIES = ("overrun", "lost-guest", "lost-host", "leak-to-host", "leak-to-guest", "gp", "nm")
FACTS = {"guest": F_GUEST, "armed": F_ARMED, "audit": F_AUDIT, "entry": F_ENTRY, "save": F_SAVE,
         "save-xfd": F_SAVE_XFD, "over": F_OVER, "load": F_LOAD, "load-mask": F_LOAD_MASK, "load-xfd": F_LOAD_XFD,
         "own": F_OWN, "t-host": T_HOST, "t-always": T_ALWAYS, "t-compacted": T_COMPACTED, "t-cleared": T_CLEARED,
         "t-reread": T_REREAD, "t-stowed": T_STOWED}

cdef struct State:
    int phase, x, s, f, known, held, buffer, counts


cdef struct Walk:
    const uint8_t *facts        # 16 bits each, [x][s][f]
    int nx, ns, nf, traits
    int32_t *parent             # of a state: the one it was first reached from; -1: not reached, -2: the first
    uint8_t *event
    uint32_t *queue
    uint32_t head, tail
    int32_t at[PROPERTY_COUNT]  # where a property was first seen: the state before
    uint8_t by[PROPERTY_COUNT]  # and the event that shows it


cdef inline uint32_t pack(const Walk *w, const State *s) noexcept nogil:
    cdef uint32_t n = s.phase
    n = n * w.nx + s.x
    n = n * w.ns + s.s
    n = n * w.nf + s.f
    n = n * w.nf + s.known
    n = n * 3 + s.held
    n = n * BUFFERS + s.buffer
    return n * 2 + s.counts


cdef inline State unpack(const Walk *w, uint32_t n) noexcept nogil:
    cdef State s
    s.counts = n % 2
    n //= 2
    s.buffer = n % BUFFERS
    n //= BUFFERS
    s.held = n % 3
    n //= 3
    s.known = n % w.nf
    n //= w.nf
    s.f = n % w.nf
    n //= w.nf
    s.s = n % w.ns
    n //= w.ns
    s.x = n % w.nx
    s.phase = n // w.nx
    return s


cdef inline int facts_of(const Walk *w, const State *s, int f) noexcept nogil:
    return load_le16(w.facts + 2 * ((s.x * w.ns + s.s) * w.nf + f))


cdef inline void reach(Walk *w, uint32_t before, const State *after, int event) noexcept nogil:
    cdef uint32_t n = pack(w, after)
    if w.parent[n] == -1:
        w.parent[n] = before
        w.event[n] = event
        w.queue[w.tail] = n
        w.tail += 1


cdef inline void show(Walk *w, uint32_t before, int property, int event) noexcept nogil:
    if w.at[property] < 0:
        w.at[property] = before
        w.by[property] = event


cdef void guest_steps(Walk *w, uint32_t n, State s) noexcept nogil:
    cdef State t
    cdef int facts = facts_of(w, &s, s.f), i
    for i in range(w.nx):
        t = s
        t.x = i
        reach(w, n, &t, E_XCR0)
    for i in range(w.ns):
        t = s
        t.s = i
        reach(w, n, &t, E_XSS)
    for i in range(w.nf):
        t = s
        t.f = i
        if i and not s.known and not w.traits & T_REREAD:
            t.known = i         # the first value that is not 0 still exits
        if facts_of(w, &t, i) & F_ARMED:
            t.counts = 0        # whether a component that is in use survives being disabled is left open
        reach(w, n, &t, E_XFD)
    if facts & F_GUEST and not facts & F_ARMED:
        t = s
        t.held, t.counts = GUESTS, 1
        reach(w, n, &t, E_USE)
        t.held, t.counts = INITIAL, 0
        reach(w, n, &t, E_INIT)
    t = s
    t.phase = EXITED
    if w.traits & T_REREAD:
        t.known = s.f
    if w.traits & T_CLEARED:
        save_step(w, n, &t, facts_of(w, &t, t.f), E_EXIT)
        return
    if w.traits & T_STOWED:
        t.held = INITIAL
    if facts & F_AUDIT:         # a guest that fails does not run on
        reach(w, n, &t, E_EXIT)


cdef void save_step(Walk *w, uint32_t n, State *t, int facts, int event) noexcept nogil:
    # What a save leaves in the buffer, and what it writes past its end.
    cdef bint used = t.held != INITIAL and not facts & F_SAVE_XFD
    if facts & F_SAVE:
        if facts & F_OVER and (used or w.traits & T_ALWAYS):
            show(w, n, P_OVERRUN, event)
        if used:
            t.buffer = KEPT if t.held == GUESTS else FOREIGN
        else:
            t.buffer = EMPTY
    elif w.traits & T_COMPACTED:
        t.buffer = ABSENT       # XSAVE and XSAVEOPT leave the bits outside their mask as they were
    if w.traits & T_CLEARED and facts & F_SAVE:
        t.held = INITIAL
    t.phase = SAVED
    reach(w, n, t, event)


cdef void enter(Walk *w, uint32_t n, State *t, int event) noexcept nogil:
    # VM entry: what the guest then finds in the registers.
    if not facts_of(w, t, t.f) & F_ENTRY:
        return
    t.phase = GUEST
    if not w.traits & T_REREAD:
        t.f = t.known
    if w.traits & T_STOWED:
        t.held = GUESTS if t.counts else INITIAL
    if t.counts and t.held != GUESTS:
        show(w, n, P_LOST_GUEST, event)
        t.counts = 0
    if t.held == HOSTS:
        show(w, n, P_LEAK_TO_GUEST, event)
    reach(w, n, t, event)


cdef void vmm_steps(Walk *w, uint32_t n, State s) noexcept nogil:
    cdef State t = s
    cdef int facts = facts_of(w, &s, s.f), load
    if s.phase == EXITED:
        enter(w, n, &t, E_AGAIN)
        t = s
        save_step(w, n, &t, facts, E_SAVE)
    elif s.phase == SAVED:
        if w.traits & T_HOST:
            if not facts & F_OWN:
                show(w, n, P_GP, E_OWN)
                show(w, n, P_LOST_HOST, E_OWN)
                return
            t.held = HOSTS
        elif t.held == GUESTS:
            show(w, n, P_LEAK_TO_HOST, E_OWN)
        t.phase = HOST
        reach(w, n, &t, E_OWN)
    elif s.phase == HOST:
        load = facts_of(w, &s, s.known)
        if not load & F_LOAD and (s.buffer >= KEPT or (w.traits & T_COMPACTED and s.buffer == EMPTY)):
            show(w, n, P_GP, E_RESTORE)
            return
        if load & F_LOAD_MASK:
            if s.buffer >= KEPT and load & F_LOAD_XFD:
                show(w, n, P_NM, E_RESTORE)
                return
            t.held = GUESTS if s.buffer == KEPT else HOSTS if s.buffer == FOREIGN else INITIAL
        t.phase = READY
        reach(w, n, &t, E_RESTORE)
    else:
        enter(w, n, &t, E_ENTRY)


cdef void explore(Walk *w) noexcept nogil:
    cdef uint32_t n
    cdef State s
    while w.head < w.tail:
        n = w.queue[w.head]
        w.head += 1
        s = unpack(w, n)
        if s.phase == GUEST:
            guest_steps(w, n, s)
        else:
            vmm_steps(w, n, s)


def walk(facts, nx, ns, nf, traits, first):
    """All states from the first on: (how many, {property: path}).

    `facts`: 16-bit little-endian numbers, nx * ns * nf of them, made of `FACTS`; `traits` likewise, one number;
    `first`: the guest's (x, s, f) at the beginning. A path is a list of (event, x, s, f): the events of `EVENTS` by
    number, and the guest's registers after each; the last shows the property. Shortest first.

    Raises: `ValueError` for a table of another size, more than 2^26 states, a first value outside.
    """
    cdef Walk w
    cdef Py_buffer view
    cdef State s
    cdef uint64_t total = PHASES
    cdef int i
    x, y, f = first
    if not (0 < nx < 1 << 16 and 0 < ns < 1 << 16 and 0 < nf < 256 and 0 <= x < nx and 0 <= y < ns and 0 <= f < nf):
        raise ValueError(f"{nx} by {ns} by {nf} values, from {first}")
    total = total * <uint64_t>nx * <uint64_t>ns * <uint64_t>nf * <uint64_t>nf * 3 * BUFFERS * 2
    if total > STATES_LIMIT:
        raise ValueError(f"{total:,} states are more than this walk holds")
    PyObject_GetBuffer(facts, &view, PyBUF_SIMPLE)
    memset(&w, 0, sizeof(Walk))
    try:
        if view.len != 2 * nx * ns * nf:
            raise ValueError(f"a table of {view.len} bytes for {nx} by {ns} by {nf} values")
        w.facts = <const uint8_t *>view.buf
        w.nx, w.ns, w.nf, w.traits = nx, ns, nf, traits
        w.parent = <int32_t *>PyMem_Calloc(total, sizeof(int32_t))
        w.event = <uint8_t *>PyMem_Calloc(total, 1)
        w.queue = <uint32_t *>PyMem_Calloc(total, sizeof(uint32_t))
        if w.parent == NULL or w.event == NULL or w.queue == NULL:
            raise MemoryError
        memset(w.parent, 0xFF, total * sizeof(int32_t))
        for i in range(<int>PROPERTY_COUNT):
            w.at[i] = -1
        memset(&s, 0, sizeof(State))
        s.phase, s.x, s.s, s.f, s.known = GUEST, x, y, f, f
        w.queue[0] = pack(&w, &s)
        w.parent[w.queue[0]] = -2
        w.tail = 1
        with nogil:
            explore(&w)
        found = {}
        for i in range(<int>PROPERTY_COUNT):
            if w.at[i] >= 0:
                found[PROPERTIES[i]] = path_to(&w, w.at[i], w.by[i])
        return w.tail, found
    finally:
        PyMem_Free(w.parent)
        PyMem_Free(w.event)
        PyMem_Free(w.queue)
        PyBuffer_Release(&view)


cdef list path_to(const Walk *w, int32_t last, int event):
    # From the first state to the one before the property, then the event that shows it.
    cdef State s = unpack(w, last)
    found = [(event, s.x, s.s, s.f)]
    while w.parent[last] >= 0:
        s = unpack(w, last)
        found.append((w.event[last], s.x, s.s, s.f))
        last = w.parent[last]
    found.reverse()
    return found
