"""The codec: areas to values and back, and areas from one layout to another.

`decode`, `encode`, `transcode`, `same_state` and their batch forms. This is the only module that moves
component bytes. It takes whatever has the buffer protocol and a `.layout`; which registers exist and where
they lie inside their component it asks `xsave.registers`, where components lie the `Layout`.

Two rules run through all of it. A component whose XSTATE_BV bit is clear is in its initial configuration,
whatever bytes are there (SDM1 13.6). MXCSR is apart: in the standard format it comes from memory whatever
XSTATE_BV says, in the compacted format it goes with SSE (SDM1 13.4.2, 13.8.1).
"""

from operator import index

cimport cython
from cpython.buffer cimport (PyBUF_C_CONTIGUOUS, PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, Py_buffer,
                             PyObject_GetBuffer)
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.mem cimport PyMem_Calloc, PyMem_Free
from cpython.object cimport PyObject
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t, uintptr_t
from libc.string cimport memcmp, memcpy, memset

from xsave.layout cimport (ALIGNMENT, COMPONENT_LIMIT, FORMAT_COMPACTED, FORMAT_STANDARD, HEADER_END,
                           HEADER_OFFSET, LEGACY_SIZE, MXCSR_INIT, MXCSR_MASK_OFFSET, MXCSR_OFFSET,
                           RESERVED_OFFSET, X87_HIGH, X87_HIGH_END, X87_LOW_END, XCOMP_OFFSET, XMM_END, XMM_OFFSET,
                           Layout, Shape)

from xsave.components import COMPONENTS, ComponentMask
from xsave.errors import FormatError, LayoutError, TruncatedError
from xsave.registers import REGISTERS, find_register, register_names

cdef extern from "bytes.h" nogil:
    void store_le16(void *p, uint16_t v)
    void store_le32(void *p, uint32_t v)
    void store_le64(void *p, uint64_t v)

cdef extern from "copy.h" nogil:
    enum:
        XS_LINE
    ctypedef struct xs_stream:
        uint8_t *at
        uint32_t begin
    ctypedef void (*xs_mover)(const xs_runs *runs, const uint8_t *from_, uint8_t *to, int legacy, uint64_t kept,
                              uint64_t xcomp_bv) noexcept nogil
    ctypedef void (*xs_streamer)(const xs_runs *runs, const uint8_t *from_, uint8_t *to, int legacy, uint64_t kept,
                                 uint64_t xcomp_bv, size_t ahead, size_t step, size_t edges,
                                 xs_stream *stream) noexcept nogil
    ctypedef struct xs_wide:
        uint64_t bit[3]
        uint32_t from_ "from" [3]
        uint32_t parts
        uint32_t width
        uint8_t *data
    ctypedef void (*xs_widener)(const xs_wide *column, const uint8_t *areas, size_t stride, const uint64_t *live,
                                size_t count, uint8_t *to, int stream) noexcept nogil
    xs_widener xs_choose_widener()
    void xs_numbers(const uint8_t *from_, size_t stride, const uint64_t *live, uint64_t need, size_t count, uint8_t *to,
                    uint32_t width, uint32_t step, uint64_t mask, int shift, uint64_t initial)
    void xs_tens(const uint8_t *from_, size_t stride, const uint64_t *live, uint64_t bit, size_t count, uint8_t *to)
    void xs_make_runs(const xs_moves *list, uint64_t live, xs_runs *runs)
    xs_mover xs_choose_mover()
    xs_streamer xs_choose_streamer()
    void xs_stream_flush(xs_stream *stream)
    void xs_fence()
    void xs_prefetch(const void *p)
    double xs_seconds()

cdef extern from "dict.h":
    int xs_dict_set(object d, PyObject *key, object value, Py_hash_t hash) except -1

__all__ = [
    "ColumnWriter", "decode", "decode_many", "encode", "encode_many", "same_state", "same_state_many", "transcode",
    "transcode_many",
]

cdef enum:
    BIT_X87 = 1
    BIT_SSE = 2
    BIT_AVX = 4
    LEGACY_BITS = 3
    PARTS = 3           # a register lies in three components at most
    PLANS = 64          # move lists that one source layout holds
    FCW_INIT = 0x37F
    GIL_MIN = 16 << 10      # a batch of fewer bytes is done before the GIL could be handed over
    FAR_MIN = 256 << 10     # bytes of a batch from which headers are fetched ahead
    STREAM_MIN = 16 << 20   # bytes in and out of a batch below which ordinary stores need no proof
    TRIAL_BYTES = 256 << 10
    TRIALS = 3              # blocks a way
    BLOCK = 32              # areas that become columns together
    BLOCK_TRIALS = 12       # blocks a way
    X87_SLOT = 10
    SPARSE_ROWS = 4         # how far ahead the source of rows with little in use is fetched
    EDGE_ROWS = 4           # how far ahead a row's half-written lines are fetched

# The ways of writing a large batch.
cdef enum:
    ORDINARY = 0
    # STREAMED = 1: non-temporal stores
    FETCHED = 2             # those, and the source fetched ahead
    WAYS = 3

cdef uint64_t FORMAT_BIT = <uint64_t>1 << 63
cdef uint64_t NO_RUNS = <uint64_t>1 << 63      # no area has this bit in use: runs yet to be made

# Chosen once by what this CPU can do.
cdef xs_mover MOVER = xs_choose_mover()
cdef xs_streamer STREAMER = xs_choose_streamer()
cdef xs_widener WIDENER = xs_choose_widener()


# --- what the tables say, as numbers ------------------------------------------------------------------------

cdef struct Initial:
    const uint8_t *image    # initial configuration of a component >= 2, NULL where it is all zero
    uint32_t width

cdef struct Extent:
    uint32_t offset         # in the component; in the area for x87 and SSE
    uint32_t width

cdef struct Significant:
    int count
    Extent item[24]

cdef Initial INITIAL[64]
cdef Significant SIGNIFICANT[64]
cdef list KEEP = []         # owns the images behind INITIAL


cdef void load_tables():
    cdef Significant *found
    cdef Initial *initial
    memset(INITIAL, 0, sizeof(INITIAL))
    memset(SIGNIFICANT, 0, sizeof(SIGNIFICANT))
    for component, row in COMPONENTS.items():
        if component >= 2 and row.init:
            image = row.init_image()
            KEEP.append(image)
            initial = &INITIAL[<int>component]
            initial.image = <const uint8_t *>PyBytes_AS_STRING(image)
            initial.width = len(image)
    # The bytes of a component that hold registers, neighbours joined: what `same_state` compares.
    spans = {}
    for row in REGISTERS.values():
        if row.narrow:
            continue
        if row.family in ("ymm", "zmm") and len(row.parts) > 1:
            part = row.parts[len(row.parts) - 1]
        else:
            part = row.parts[0]
        if row.name not in ("mxcsr", "mxcsr_mask"):
            spans.setdefault(int(part.component), set()).add((part.offset, part.width))
    for number, runs in spans.items():
        found = &SIGNIFICANT[<int>number]
        for offset, width in sorted(runs):
            if found.count and found.item[found.count - 1].offset + found.item[found.count - 1].width == offset:
                found.item[found.count - 1].width += width
            else:
                if found.count == 24:
                    raise SystemError(f"component {number} has too many separate runs of registers")
                found.item[found.count].offset = offset
                found.item[found.count].width = width
                found.count += 1


load_tables()


# --- the header ---------------------------------------------------------------------------------------------

cdef bint shape_has_mxcsr(const Shape *shape) noexcept nogil:
    # SDM1 13.8.1, 13.8.2: standard with SSE or AVX, compacted with SSE only.
    if shape.format == FORMAT_COMPACTED:
        return (shape.mask & BIT_SSE) != 0
    return (shape.mask & (BIT_SSE | BIT_AVX)) != 0


cdef int check_header(const uint8_t *area, const Shape *shape) noexcept nogil:
    # The static predicate of SDM1 13.8.1, 13.8.2 for an area of this very layout: one sum, zero if all is well.
    cdef uint64_t xcomp_bv = load_le64(area + XCOMP_OFFSET)
    cdef uint64_t rest = load_le64(area + RESERVED_OFFSET)
    cdef uint64_t outside = load_le64(area + HEADER_OFFSET) & ~shape.mask
    if shape.format == FORMAT_COMPACTED:
        xcomp_bv ^= shape.mask | FORMAT_BIT
        rest |= (load_le64(area + RESERVED_OFFSET + 8) | load_le64(area + RESERVED_OFFSET + 16)
                 | load_le64(area + RESERVED_OFFSET + 24) | load_le64(area + RESERVED_OFFSET + 32)
                 | load_le64(area + RESERVED_OFFSET + 40))
    if (xcomp_bv | rest | outside) == 0:
        return OK
    if xcomp_bv:
        return BAD_XCOMP
    return BAD_XSTATE if outside else BAD_RESERVED


cdef object raise_header(int status, const uint8_t *area, const Shape *shape, Py_ssize_t row):
    # The error that `check_header` found, with culprit, place and rule.
    cdef int i
    where = f" of area {row}" if row >= 0 else ""
    xcomp_bv = ComponentMask(load_le64(area + XCOMP_OFFSET))
    xstate_bv = ComponentMask(load_le64(area + HEADER_OFFSET))
    mask = ComponentMask(shape.mask)
    if status == BAD_XCOMP:
        if shape.format == FORMAT_COMPACTED:
            wanted = ComponentMask(shape.mask | FORMAT_BIT)
            raise FormatError(f"XCOMP_BV {xcomp_bv}{where} is not {wanted}, the compacted layout's, at "
                              f"byte {XCOMP_OFFSET} [SDM1 13.4.3]", offset=XCOMP_OFFSET, rule="H-XCOMP")
        raise FormatError(f"XCOMP_BV {xcomp_bv}{where} is not 0 in the standard format, at byte {XCOMP_OFFSET} "
                          "[SDM1 13.8.1]", offset=XCOMP_OFFSET, rule="H-XCOMP")
    if status == BAD_XSTATE:
        odd = ComponentMask(xstate_bv & ~mask)
        at = HEADER_OFFSET + ((odd & -odd).bit_length() - 1) // 8
        raise FormatError(f"XSTATE_BV {xstate_bv}{where} is not a subset of the layout's {mask}: {' '.join(odd.names)} "
                          f"at byte {at} [SDM1 13.8]", offset=at, rule="H-XSTATE")
    for i in range(RESERVED_OFFSET, HEADER_END):
        if area[i]:
            raise FormatError(f"reserved header byte {i}{where} is {area[i]:#04x}, not 0 [SDM1 13.4.2]", offset=i,
                              rule="H-RESERVED")
    raise SystemError("a header error without a culprit")


# --- area to area -------------------------------------------------------------------------------------------

@cython.final
cdef class Plan:
    # How the areas of one layout become areas of another.
    cdef Layout source
    cdef Layout target
    cdef xs_moves moves
    cdef bint source_mxcsr
    cdef bint target_mxcsr
    cdef uint64_t held          # bits that the target can hold
    cdef uint64_t xcomp_bv      # of the target


cdef Plan find_plan(Layout source, Layout target):
    cdef Plan plan
    cdef uint32_t widths[64]
    cdef int i
    for plan in source.plans:
        if plan.target is target:
            return plan
    plan = Plan.__new__(Plan)
    plan.source = source
    plan.target = target
    plan.source_mxcsr = shape_has_mxcsr(&source.shape)
    plan.target_mxcsr = shape_has_mxcsr(&target.shape)
    plan.held = target.shape.mask
    plan.xcomp_bv = target.shape.mask | FORMAT_BIT if target.shape.format == FORMAT_COMPACTED else 0
    for i in range(64):
        widths[i] = min(source.shape.width[i], target.shape.width[i])
    if list_moves(&source.shape, &target.shape, source.shape.mask & target.shape.mask, widths, &plan.moves):
        raise LayoutError(f"more than {XS_MOVES - 1} components to move")
    if len(source.plans) >= PLANS:
        del source.plans[0]
    source.plans.append(plan)
    return plan


cdef int list_moves(const Shape *source, const Shape *target, uint64_t mask, const uint32_t *widths,
                    xs_moves *moves) noexcept nogil:
    # The components >= 2 of `mask`, the first `widths` bytes of each: 0, or -1 if there are more than a list holds.
    cdef xs_move *move
    cdef int i
    moves.count = 0
    moves.bits = 0
    for i in range(2, COMPONENT_LIMIT):
        if mask >> i & 1 and widths[i]:
            if moves.count == XS_MOVES - 1:     # a run is kept for the legacy region
                return -1
            move = &moves.item[moves.count]
            move.bit = <uint64_t>1 << i
            move.from_ = source.offset[i]
            move.to = target.offset[i]
            move.length = widths[i]
            moves.bits |= move.bit
            moves.count += 1
    return 0


cdef void list_runs(const xs_moves *moves, uint64_t live, xs_runs *runs) noexcept nogil:
    # With x87 and SSE both live the used bytes of the legacy region are one run more.
    xs_make_runs(moves, live, runs)
    if live & LEGACY_BITS == LEGACY_BITS:
        runs.item[runs.count].from_ = 0
        runs.item[runs.count].to = 0
        runs.item[runs.count].length = XMM_END
        runs.count += 1


cdef void move_runs(const xs_runs *runs, const uint8_t *source, uint8_t *target) noexcept nogil:
    MOVER(runs, source, target, 0, 0, 0)


cdef void move_bytes(const uint8_t *source, uint8_t *target, uint32_t begin, uint32_t end) noexcept nogil:
    # Part of one component.
    if end > begin:
        memcpy(target + begin, source + begin, end - begin)


cdef void write_initial_bytes(int component, uint8_t *at, uint32_t begin, uint32_t end) noexcept nogil:
    # Bytes [begin, end) of a component >= 2, which lies at `at`, in its initial configuration (SDM1 13.6).
    cdef const Initial *initial = &INITIAL[component]
    if end <= begin:
        return
    memset(at + begin, 0, end - begin)
    if initial.image != NULL and begin < initial.width:
        memcpy(at + begin, initial.image + begin, min(end, initial.width) - begin)


cdef bint has_initial_bytes(int component, const uint8_t *at, uint32_t begin, uint32_t end) noexcept nogil:
    cdef const Initial *initial = &INITIAL[component]
    cdef uint32_t i = begin
    cdef uint64_t sum
    if initial.image != NULL:
        while i < end:
            if at[i] != (initial.image[i] if i < initial.width else 0):
                return False
            i += 1
        return True
    while i + 32 <= end:
        sum = load_le64(at + i) | load_le64(at + i + 8) | load_le64(at + i + 16) | load_le64(at + i + 24)
        if sum:
            return False
        i += 32
    while i < end:
        if at[i]:
            return False
        i += 1
    return True


cdef inline uint32_t area_mxcsr(const uint8_t *area, const Shape *shape, uint64_t live) noexcept nogil:
    if shape.format == FORMAT_COMPACTED:
        return load_le32(area + MXCSR_OFFSET) if live & BIT_SSE else MXCSR_INIT
    return load_le32(area + MXCSR_OFFSET) if shape_has_mxcsr(shape) else MXCSR_INIT


cdef inline uint64_t lost_bits(Plan plan, const uint8_t *area, uint64_t live) noexcept nogil:
    # What this area has in use and the target has no place for; an MXCSR that cannot be held counts as SSE.
    cdef uint64_t lost = live & ~plan.held
    if not plan.target_mxcsr and area_mxcsr(area, &plan.source.shape, live) != MXCSR_INIT:
        lost |= BIT_SSE
    return lost


cdef void move_legacy(Plan plan, const uint8_t *area, uint8_t *out, uint64_t live) noexcept nogil:
    # The legacy region and the header where x87 and SSE are not both in use: reserved and software bytes as zero.
    cdef uint64_t kept = live & plan.held
    cdef uint32_t mxcsr, mxcsr_mask
    if plan.source_mxcsr and (plan.source.shape.format == FORMAT_STANDARD or live & BIT_SSE):
        mxcsr = load_le32(area + MXCSR_OFFSET)
        mxcsr_mask = load_le32(area + MXCSR_MASK_OFFSET)
    else:
        mxcsr = MXCSR_INIT
        mxcsr_mask = plan.target.shape.mxcsr_mask
    memset(out, 0, HEADER_END)
    if kept & BIT_X87:
        memcpy(out, area, X87_LOW_END)
        memcpy(out + X87_HIGH, area + X87_HIGH, X87_HIGH_END - X87_HIGH)
    else:
        store_le16(out, FCW_INIT)
    if kept & BIT_SSE:
        memcpy(out + XMM_OFFSET, area + XMM_OFFSET, XMM_END - XMM_OFFSET)
    elif plan.target.shape.format == FORMAT_COMPACTED and plan.target_mxcsr and mxcsr != MXCSR_INIT:
        kept |= BIT_SSE     # as XSAVEC does: an MXCSR that is not initial is SSE state (SDM1 13.10)
    if not plan.target_mxcsr:
        mxcsr = MXCSR_INIT
    store_le32(out + MXCSR_OFFSET, mxcsr)
    store_le32(out + MXCSR_MASK_OFFSET, mxcsr_mask)
    store_le64(out + HEADER_OFFSET, kept)
    store_le64(out + XCOMP_OFFSET, plan.xcomp_bv)


cdef inline void move_area(Plan plan, const uint8_t *area, uint8_t *out, xs_runs *runs) noexcept nogil:
    # `runs`: those of the area before, taken over where this one has the same components in use.
    cdef uint64_t live = load_le64(area + HEADER_OFFSET)
    if live & plan.moves.bits != runs.live:
        xs_make_runs(&plan.moves, live & plan.moves.bits, runs)
    if live & plan.held & LEGACY_BITS == LEGACY_BITS:
        MOVER(runs, area, out, 1, live & plan.held, plan.xcomp_bv)
    else:
        move_legacy(plan, area, out, live)
        MOVER(runs, area, out, 0, 0, 0)


cdef inline void stream_area(Plan plan, const uint8_t *area, uint8_t *out, xs_runs *runs, size_t ahead, size_t step,
                             size_t edges, xs_stream *stream) noexcept nogil:
    cdef uint64_t live = load_le64(area + HEADER_OFFSET)
    if live & plan.moves.bits != runs.live:
        xs_make_runs(&plan.moves, live & plan.moves.bits, runs)
    if live & plan.held & LEGACY_BITS == LEGACY_BITS:
        STREAMER(runs, area, out, 1, live & plan.held, plan.xcomp_bv, ahead, step, edges, stream)
    else:
        xs_stream_flush(stream)
        move_legacy(plan, area, out, live)
        STREAMER(runs, area, out, 0, 0, 0, ahead, step, edges, stream)


cdef int check_rows(Plan plan, const uint8_t *rows, Py_ssize_t stride, Py_ssize_t count, bint drop,
                    Py_ssize_t *culprit, uint64_t *lost) noexcept nogil:
    # Every header before the first byte is written: a call that fails has changed nothing.
    cdef Py_ssize_t i
    cdef int status
    cdef const uint8_t *area = rows
    cdef bint far = count * stride > FAR_MIN
    for i in range(count):
        if far:
            xs_prefetch(area + 16 * stride + HEADER_OFFSET)
        status = check_header(area, &plan.source.shape)
        if status == OK and not drop:
            lost[0] = lost_bits(plan, area, load_le64(area + HEADER_OFFSET))
            if lost[0]:
                status = LOST
        if status != OK:
            culprit[0] = i
            return status
        area += stride
    return OK


cdef object raise_lost(Plan plan, uint64_t lost, Py_ssize_t row):
    where = f" of area {row}" if row >= 0 else ""
    raise LayoutError(f"{' '.join(ComponentMask(lost).names)} in use{where}, and the {plan.target.format} layout of "
                      f"{plan.target.model.name} with mask {plan.target.mask} has no place for it; lost='drop' leaves "
                      "it out")


cdef str RAISE = "raise"


cdef bint parse_lost(lost) except -1:
    if lost is RAISE or lost == RAISE:
        return False
    if lost == "drop":
        return True
    raise ValueError(f"lost={lost!r} is neither 'raise' nor 'drop'")


cdef void write_initial(const Shape *shape, uint8_t *out) noexcept nogil:
    # The initial configuration into every slot of zeroed memory, as plain XSAVE leaves it (SDM1 13.7).
    cdef int i
    store_le16(out, FCW_INIT)
    store_le32(out + MXCSR_OFFSET, MXCSR_INIT)
    store_le32(out + MXCSR_MASK_OFFSET, shape.mxcsr_mask)
    for i in range(2, COMPONENT_LIMIT):
        if shape.mask >> i & 1 and INITIAL[i].image != NULL:
            write_initial_bytes(i, out + shape.offset[i], 0, shape.width[i])


def transcode(buffer, Layout source not None, Layout target not None, out=None, lost="raise"):
    """The state of one area of layout `source` as an area of layout `target`.

    `buffer`: at least `source.size` bytes. `out`: a writable buffer of at least `target.size` bytes that does not
    overlap it, which is returned; None: new `bytes` of exactly `target.size`. The legacy region and the header
    of the result are always written whole (bytes 416-511 as zero); of the other components only those in use,
    so slots in their initial configuration keep what `out` held, and hold initial values in new memory.
    `lost="drop"` leaves out components in use for which the target has no place.

    Raises: `LayoutError` for such components otherwise; `FormatError` for a header that is not of `source`;
    `TruncatedError` for a short buffer; `ValueError` for a short, read-only or overlapping `out`. A call that
    raises has written nothing. Manual: SDM1 13.4, 13.8.
    """
    cdef Py_buffer view
    cdef Py_buffer into
    cdef Plan plan = find_plan(source, target)
    cdef bint drop = parse_lost(lost)
    cdef Py_ssize_t culprit = -1
    cdef uint64_t gone = 0
    cdef int status
    cdef object result
    cdef xs_runs runs
    runs.live = NO_RUNS
    PyObject_GetBuffer(buffer, &view, PyBUF_SIMPLE)
    try:
        if view.len < <Py_ssize_t>source.shape.size:
            raise TruncatedError(f"an area of {source.shape.size} bytes in a buffer of {view.len}", offset=view.len)
        status = check_rows(plan, <const uint8_t *>view.buf, 0, 1, drop, &culprit, &gone)
        if status == LOST:
            raise_lost(plan, gone, -1)
        if status != OK:
            raise_header(status, <const uint8_t *>view.buf, &source.shape, -1)
        if out is None:
            result = PyBytes_FromStringAndSize(NULL, target.shape.size)
            memset(PyBytes_AS_STRING(result), 0, target.shape.size)
            write_initial(&target.shape, <uint8_t *>PyBytes_AS_STRING(result))
            move_area(plan, <const uint8_t *>view.buf, <uint8_t *>PyBytes_AS_STRING(result), &runs)
            return result
        writable_buffer(out, &into, PyBUF_WRITABLE)
        try:
            if into.len < <Py_ssize_t>target.shape.size:
                raise ValueError(f"out has {into.len} bytes, the target layout needs {target.shape.size}")
            check_apart(&view, &into)
            move_area(plan, <const uint8_t *>view.buf, <uint8_t *>into.buf, &runs)
        finally:
            PyBuffer_Release(&into)
        return out
    finally:
        PyBuffer_Release(&view)


cdef int check_apart(const Py_buffer *a, const Py_buffer *b) except -1:
    if <uintptr_t>a.buf < <uintptr_t>b.buf + b.len and <uintptr_t>b.buf < <uintptr_t>a.buf + a.len:
        raise ValueError("out overlaps the input")
    return 0


cdef int writable_buffer(out, Py_buffer *into, int flags) except -1:
    # A buffer that cannot be written is a wrong argument; exporters disagree on the exception.
    try:
        PyObject_GetBuffer(out, into, flags)
    except (BufferError, ValueError) as error:
        raise ValueError(f"out is read-only or in pieces: {error}") from None
    return 0


cdef int rows_of(buffer, Py_buffer *view, bint writable, Py_ssize_t size, str what, Py_ssize_t *count,
                 Py_ssize_t *stride) except -1:
    # One C-contiguous (N, stride) uint8 buffer; leaves `view` held on success only.
    if writable:
        writable_buffer(buffer, view, PyBUF_C_CONTIGUOUS | PyBUF_WRITABLE)
    else:
        PyObject_GetBuffer(buffer, view, PyBUF_C_CONTIGUOUS)
    try:
        if view.ndim != 2 or view.itemsize != 1:
            raise ValueError(f"{what}: a C-contiguous (N, stride) uint8 buffer is needed, here are {view.ndim} "
                             f"dimensions of {view.itemsize}-byte items")
        count[0] = view.shape[0]
        stride[0] = view.shape[1]
        if count[0] and stride[0] < size:
            raise TruncatedError(f"{what}: rows of {stride[0]} bytes, the layout needs {size}", offset=stride[0])
    except BaseException:
        PyBuffer_Release(view)
        raise
    return 0


def transcode_many(buffers, Layout source not None, Layout target not None, out=None, lost="raise"):
    """`transcode` for N areas at once, without the GIL.

    `buffers`: one C-contiguous (N, stride) uint8 buffer, stride >= `source.size`. `out`: the same with stride >=
    `target.size`, not overlapping; None: a new (N, `target.size`) uint8 array. Returns `out`. Any N, one code
    path: rows that fit the caches are written by ordinary stores, larger batches by non-temporal ones where the
    batch itself shows that they are faster.

    Raises: as `transcode`, naming the first offending row; nothing has been written then.
    """
    cdef Py_buffer view
    cdef Py_buffer into
    cdef Plan plan = find_plan(source, target)
    cdef bint drop = parse_lost(lost)
    cdef bint fresh = out is None
    cdef Py_ssize_t count = 0, stride = 0, rows = 0, step = 0, culprit = -1, i
    cdef uint64_t gone = 0
    cdef int status
    rows_of(buffers, &view, False, source.shape.size, "buffers", &count, &stride)
    try:
        if count * stride < GIL_MIN:
            status = check_rows(plan, <const uint8_t *>view.buf, stride, count, drop, &culprit, &gone)
        else:
            with nogil:
                status = check_rows(plan, <const uint8_t *>view.buf, stride, count, drop, &culprit, &gone)
        if status == LOST:
            raise_lost(plan, gone, culprit)
        if status != OK:
            raise_header(status, <const uint8_t *>view.buf + culprit * stride, &source.shape, culprit)
        if fresh:
            import numpy

            out = numpy.zeros((count, target.shape.size), dtype=numpy.uint8)
        rows_of(out, &into, True, target.shape.size, "out", &rows, &step)
        try:
            if rows != count:
                raise ValueError(f"out has {rows} rows for {count} areas")
            check_apart(&view, &into)
            if not fresh and count * stride < GIL_MIN:
                move_rows(plan, <const uint8_t *>view.buf, stride, <uint8_t *>into.buf, step, count)
                return out
            with nogil:
                if fresh:
                    for i in range(count):
                        write_initial(&target.shape, <uint8_t *>into.buf + i * step)
                move_rows(plan, <const uint8_t *>view.buf, stride, <uint8_t *>into.buf, step, count)
        finally:
            PyBuffer_Release(&into)
        return out
    finally:
        PyBuffer_Release(&view)


cdef void move_rows(Plan plan, const uint8_t *rows, Py_ssize_t stride, uint8_t *out, Py_ssize_t step,
                    Py_ssize_t count) noexcept nogil:
    # Ordinary stores while it fits the caches. From a size on where that may change, the first blocks are moved in
    # each of the ways in turn, and the rest in the way that took the least time on this machine, now.
    cdef xs_runs runs
    cdef Py_ssize_t i = 0, block, end
    cdef double started, spent
    cdef double least[WAYS]
    cdef int way, trial
    runs.live = NO_RUNS
    if STREAMER == NULL or count * (stride + step) < STREAM_MIN:
        some_rows(plan, rows, stride, out, step, 0, count, count, ORDINARY, &runs)
        return
    for way in range(WAYS):
        least[way] = 1e9
    block = max(TRIAL_BYTES // (stride + step), 1)
    for trial in range(TRIALS * WAYS):
        way = trial % WAYS
        end = min(i + block, count)
        if end - i < block:
            break
        started = xs_seconds()
        some_rows(plan, rows, stride, out, step, i, end, count, way, &runs)
        spent = xs_seconds() - started
        least[way] = min(least[way], spent)
        i = end
    trial = ORDINARY
    for way in range(WAYS):
        if least[way] < least[trial]:
            trial = way
    some_rows(plan, rows, stride, out, step, i, count, count, trial, &runs)


cdef Py_ssize_t live_bytes(Plan plan, const uint8_t *area) noexcept nogil:
    cdef uint64_t live = load_le64(area + HEADER_OFFSET)
    cdef Py_ssize_t total = HEADER_END
    cdef int i
    for i in range(plan.moves.count):
        if live & plan.moves.item[i].bit:
            total += plan.moves.item[i].length
    return total


cdef void some_rows(Plan plan, const uint8_t *rows, Py_ssize_t stride, uint8_t *out, Py_ssize_t step, Py_ssize_t begin,
                    Py_ssize_t end, Py_ssize_t count, int way, xs_runs *runs) noexcept nogil:
    cdef xs_stream stream
    cdef Py_ssize_t i
    cdef Py_ssize_t ahead = 0
    if way == ORDINARY:
        for i in range(begin, end):
            move_area(plan, rows + i * stride, out + i * step, runs)
        return
    stream.at = NULL
    stream.begin = 0
    if way == FETCHED and begin < end:
        # The less a row moves, the sooner the next one is there.
        ahead = 1 if 2 * live_bytes(plan, rows + begin * stride) > stride else SPARSE_ROWS
    for i in range(begin, end):
        stream_area(plan, rows + i * stride, out + i * step, runs, ahead * stride if i + ahead < count else 0, step,
                    EDGE_ROWS if i + EDGE_ROWS < count else 0, &stream)
    xs_stream_flush(&stream)
    xs_fence()


# --- area to values -----------------------------------------------------------------------------------------

@cython.final
cdef class Decoder:
    # The registers of one layout, compiled: what to read where, and the values of a state that is all initial.
    cdef Op *ops
    cdef PyObject **keys
    cdef Py_hash_t *hashes
    cdef Py_ssize_t count
    cdef list names
    cdef dict template

    def __dealloc__(self):
        PyMem_Free(self.ops)
        PyMem_Free(self.keys)
        PyMem_Free(self.hashes)


cdef int compile_op(Op *op, row, Layout layout) except -1:
    # One register of the table for one layout. A part whose component the layout lacks reads as zero.
    cdef const Shape *shape = &layout.shape
    cdef Part *piece
    cdef int number
    memset(op, 0, sizeof(Op))
    op.width = row.width
    op.scalar = row.scalar
    op.mask = row.mask & ((1 << 64) - 1) if row.scalar else 0
    op.shift = row.shift
    if row.name in ("mxcsr", "mxcsr_mask"):
        if not shape_has_mxcsr(shape):
            raise LayoutError(f"{row.name} has no place in the mask {layout.mask} ({layout.format})")
        op.need = BIT_SSE if shape.format == FORMAT_COMPACTED else 0
        op.parts = 1
        op.part[0].offset = row.parts[0].offset
        op.part[0].width = row.parts[0].width
        return 0
    for part in row.parts:
        number = part.component
        if not shape.mask >> number & 1:
            continue
        piece = &op.part[op.parts]
        piece.bit = <uint64_t>1 << number
        piece.offset = part.offset + (shape.offset[number] if number >= 2 else 0)
        piece.width = part.width
        piece.at = part.at
        if number >= 2 and part.offset + part.width > shape.width[number]:
            raise LayoutError(f"{row.name} lies beyond the {shape.width[number]} bytes that {layout.model.name} gives "
                              f"to {ComponentMask(piece.bit).names[0]}")
        op.need |= piece.bit
        op.parts += 1
    if op.parts == 0:
        raise LayoutError(f"{row.name} has no place in the mask {layout.mask}")
    return 0


cdef object initial_value(row, Layout layout):
    if row.name == "mxcsr_mask":
        return int(layout.shape.mxcsr_mask)
    if row.scalar:
        return row.init
    first = row.parts[0]
    if len(row.parts) > 1 or first.component < 2:
        return bytes(row.width)
    return COMPONENTS[first.component].init_image()[first.offset:first.offset + row.width]


cdef Decoder make_decoder(Layout layout, list rows):
    cdef Decoder decoder = Decoder.__new__(Decoder)
    cdef Py_ssize_t i
    decoder.count = len(rows)
    decoder.ops = <Op *>PyMem_Calloc(max(decoder.count, 1), sizeof(Op))
    decoder.keys = <PyObject **>PyMem_Calloc(max(decoder.count, 1), sizeof(PyObject *))
    decoder.hashes = <Py_hash_t *>PyMem_Calloc(max(decoder.count, 1), sizeof(Py_hash_t))
    if decoder.ops == NULL or decoder.keys == NULL or decoder.hashes == NULL:
        raise MemoryError
    decoder.names = [row.name for row in rows]
    decoder.template = {}
    for i in range(decoder.count):
        compile_op(&decoder.ops[i], rows[i], layout)
        name = decoder.names[i]
        decoder.keys[i] = <PyObject *>name
        decoder.hashes[i] = hash(name)
        decoder.template[name] = initial_value(rows[i], layout)
    return decoder


cdef Decoder find_decoder(Layout layout, registers):
    if registers is None:
        if layout.decoder is None:
            names = register_names(layout.shape.mask, layout.shape.format == FORMAT_COMPACTED)
            rows = []
            for name in names:
                row = REGISTERS[name]
                # A component that this CPU enumerates smaller than its registers need holds the ones that fit.
                if fits(row, layout):
                    rows.append(row)
            layout.decoder = make_decoder(layout, rows)
        return layout.decoder
    if isinstance(registers, str):
        registers = (registers,)
    return make_decoder(layout, [find_register(name) for name in registers])


@cython.final
cdef class Field:
    # One register of one layout, for those who read registers one by one.
    pass


cdef Field find_field(Layout layout, name):
    # `name` in any case. Raises KeyError for an unknown register, LayoutError for one without a place.
    cdef Field field
    if layout.fields is None:
        layout.fields = {}
    field = layout.fields.get(name)
    if field is None:
        row = find_register(name)
        field = Field.__new__(Field)
        compile_op(&field.op, row, layout)
        field.name = row.name
        field.initial = initial_value(row, layout)
        layout.fields[name] = field
    return field


cdef bint fits(row, Layout layout):
    for part in row.parts:
        number = int(part.component)
        if number >= 2 and layout.shape.mask >> number & 1 and part.offset + part.width > layout.shape.width[number]:
            return False
    return True


cdef void read_bytes(const Op *op, const uint8_t *area, uint64_t live, uint8_t *out) noexcept nogil:
    # A register of several parts, those not in use as zero.
    cdef const Part *part
    cdef int i
    memset(out, 0, op.width)
    for i in range(op.parts):
        part = &op.part[i]
        if live & part.bit:
            memcpy(out + part.at, area + part.offset, part.width)


cdef inline object read_value(const Op *op, const uint8_t *area, uint64_t live):
    cdef object value
    cdef uint8_t *out
    if op.scalar:
        return read_scalar(op, area)
    if op.parts == 1 and op.part[0].width == op.width:
        return PyBytes_FromStringAndSize(<const char *>area + op.part[0].offset, op.width)
    value = PyBytes_FromStringAndSize(NULL, op.width)
    out = <uint8_t *>PyBytes_AS_STRING(value)
    if op.parts == 3 and live & op.need == op.need:
        memcpy(out, area + op.part[0].offset, 16)
        memcpy(out + 16, area + op.part[1].offset, 16)
        memcpy(out + 32, area + op.part[2].offset, 32)
    else:
        read_bytes(op, area, live, out)
    return value


cdef Layout layout_of(area):
    try:
        return area.layout
    except AttributeError:
        raise TypeError(f"an area with a layout is needed, not {type(area).__name__}; see xsave.Area") from None


def decode(area, registers=None):
    """Every register of an area as `{name: value}`: ints for scalars, `bytes` in memory order for the others.

    `area`: an `Area`, or anything with the buffer protocol and a `.layout`. `registers`: names to read instead of
    all that the layout holds (`xmm3`, `ymm3` and `zmm3` alike). Components whose XSTATE_BV bit is clear give their
    initial values; MXCSR of a standard area comes from memory.

    Raises: `LayoutError` for a register that the layout has no place for, `KeyError` for an unknown one,
    `TruncatedError` for a short buffer. Manual: SDM1 13.4, 13.5, 13.6.
    """
    cdef Layout layout = layout_of(area)
    cdef Decoder decoder = find_decoder(layout, registers)
    cdef Py_buffer view
    cdef const uint8_t *base
    cdef uint64_t live
    cdef dict values
    cdef const Op *op = decoder.ops
    cdef const Op *end = op + decoder.count
    cdef PyObject **key = decoder.keys
    cdef const Py_hash_t *hash = decoder.hashes
    PyObject_GetBuffer(area, &view, PyBUF_SIMPLE)
    try:
        if view.len < <Py_ssize_t>layout.shape.size:
            raise TruncatedError(f"an area of {layout.shape.size} bytes in a buffer of {view.len}", offset=view.len)
        base = <const uint8_t *>view.buf
        live = load_le64(base + HEADER_OFFSET)
        values = decoder.template.copy()
        while op != end:
            if op.need == 0 or live & op.need:
                xs_dict_set(values, key[0], read_value(op, base, live), hash[0])
            op += 1
            key += 1
            hash += 1
        return values
    finally:
        PyBuffer_Release(&view)


# --- values to area -----------------------------------------------------------------------------------------

cdef bint places_all(const Op *op, const uint8_t *value) noexcept nogil:
    # Whether every byte of a register that the layout has no part for is 0: nothing is dropped in silence.
    cdef uint32_t at = 0
    cdef int i
    for i in range(op.parts):
        while at < op.part[i].at:
            if value[at]:
                return False
            at += 1
        at = op.part[i].at + op.part[i].width
    while at < op.width:
        if value[at]:
            return False
        at += 1
    return True


cdef int once(set seen, row, name) except -1:
    # A register may be given once, a vector register under one of its names.
    key = row.index if row.family in ("xmm", "ymm", "zmm") else row.name
    if key in seen:
        raise ValueError(f"{name}: the register is given twice")
    seen.add(key)
    return 0


cdef int write_value(const Op *op, name, value, uint8_t *area) except -1:
    cdef Py_buffer view
    cdef const Part *part
    cdef int i
    if op.scalar:
        try:
            value = index(value)
        except TypeError:
            raise TypeError(f"{name} is a number, not {type(value).__name__}") from None
        if not 0 <= value <= <object>(op.mask >> op.shift):
            raise ValueError(f"{name} = {value:#x} does not fit {int(op.mask >> op.shift).bit_length()} bits")
        write_scalar(op, value, area)
        return 0
    PyObject_GetBuffer(value, &view, PyBUF_SIMPLE)
    try:
        if view.len != op.width:
            raise ValueError(f"{name} has {op.width} bytes, not {view.len}")
        if not places_all(op, <const uint8_t *>view.buf):
            raise LayoutError(f"{name}: a byte that is not 0 has no place in the layout, which lacks a part of the "
                              "register")
        for i in range(op.parts):
            part = &op.part[i]
            memcpy(area + part.offset, <const uint8_t *>view.buf + part.at, part.width)
    finally:
        PyBuffer_Release(&view)
    return 0


cdef inline void write_scalar(const Op *op, uint64_t value, uint8_t *area) noexcept nogil:
    # Bits outside the field keep their value: two registers can share a word (UINTR's MISC and UIF).
    cdef uint8_t *p = area + op.part[0].offset
    value = value << op.shift
    if op.width == 8:
        store_le64(p, (load_le64(p) & ~op.mask) | value)
    elif op.width == 4:
        store_le32(p, <uint32_t>value)
    elif op.width == 2:
        store_le16(p, <uint16_t>value)
    else:
        p[0] = <uint8_t>value


cdef uint64_t bits_of(const Op *op) noexcept nogil:
    # The components that a value of this register puts in use; MXCSR counts as SSE.
    cdef uint64_t bits = 0
    cdef int i
    for i in range(op.parts):
        bits |= op.part[i].bit
    return bits if bits else BIT_SSE


cdef uint64_t checked_bv(xstate_bv, Layout layout) except? 0xFFFFFFFFFFFFFFFF:
    xstate_bv = index(xstate_bv)
    if not 0 <= xstate_bv < 1 << 64 or xstate_bv & ~int(layout.shape.mask):
        raise ValueError(f"xstate_bv {xstate_bv:#x} is not a subset of the layout's mask {layout.mask}")
    return xstate_bv


cdef void start_area(const Shape *shape, uint64_t xstate_bv, uint8_t *out) noexcept nogil:
    # Zeroed memory becomes an area that is all initial but for its header's promise.
    write_initial(shape, out)
    store_le64(out + HEADER_OFFSET, xstate_bv)
    if shape.format == FORMAT_COMPACTED:
        store_le64(out + XCOMP_OFFSET, shape.mask | FORMAT_BIT)


def encode(values, Layout layout not None, xstate_bv=None):
    """An area of `layout` that holds `values`, `{name: value}` in `decode`'s names (`xmm`, `ymm`, `zmm` alike).

    A component is in use exactly if one of its registers appears in `values`; `xstate_bv` says otherwise (values
    of components that it leaves out stand in their slots and do not count). All else holds initial values,
    MXCSR_MASK the model's. Returns `bytes` of exactly `layout.size`.

    Raises: `LayoutError` for a register without a place, or a byte of one that is not 0 where the layout lacks that
    part; `KeyError` for an unknown register; `ValueError` for a value of the wrong width or a register given twice;
    `TypeError` for a value of the wrong kind. Manual: SDM1 13.4.
    """
    cdef bytes result = PyBytes_FromStringAndSize(NULL, layout.shape.size)
    cdef uint8_t *out = <uint8_t *>PyBytes_AS_STRING(result)
    cdef uint64_t used = 0
    cdef Op op
    cdef set seen = set()
    memset(out, 0, layout.shape.size)
    start_area(&layout.shape, 0, out)
    for name, value in values.items():
        row = find_register(name)
        once(seen, row, name)
        compile_op(&op, row, layout)
        write_value(&op, name, value, out)
        used |= bits_of(&op)
    # An MXCSR that only AVX brings into a standard layout has no bit of its own.
    used &= layout.shape.mask
    store_le64(out + HEADER_OFFSET, used if xstate_bv is None else checked_bv(xstate_bv, layout))
    return result


# --- columns ------------------------------------------------------------------------------------------------

cdef struct Column:
    Op op
    uint8_t *data
    uint32_t step               # bytes from row to row
    uint64_t initial            # a scalar's initial value
    const uint8_t *image        # initial bytes of the others, NULL for zero


@cython.final
cdef class Columns:
    # Where every register of a batch goes, one array a register: those of whole lines apart from the rest.
    cdef Decoder decoder
    cdef Column *item
    cdef Py_ssize_t count
    cdef xs_wide *wide
    cdef int wides
    cdef bint aligned           # every wide column begins on a line
    cdef Py_buffer *views       # held as long as the kernel runs: another thread may change `arrays` meanwhile
    cdef Py_ssize_t held

    def __cinit__(self, Decoder decoder, dict arrays, Py_ssize_t rows):
        cdef Py_ssize_t i
        cdef Py_buffer *view
        cdef const Op *op
        self.decoder = decoder
        self.aligned = True
        self.item = <Column *>PyMem_Calloc(max(decoder.count, 1), sizeof(Column))
        self.wide = <xs_wide *>PyMem_Calloc(max(decoder.count, 1), sizeof(xs_wide))
        self.views = <Py_buffer *>PyMem_Calloc(max(decoder.count, 1), sizeof(Py_buffer))
        if self.item == NULL or self.wide == NULL or self.views == NULL:
            raise MemoryError
        for i in range(decoder.count):
            op = &decoder.ops[i]
            view = &self.views[i]
            name = decoder.names[i]
            if name not in arrays:
                raise ValueError(f"out has no column {name}")
            writable_buffer(arrays[name], view, PyBUF_C_CONTIGUOUS | PyBUF_WRITABLE)
            self.held = i + 1
            step = scalar_width(op) if op.scalar else op.width
            if view.len != rows * step:
                raise ValueError(f"column {name} of out has {view.len} bytes, {rows} rows of {step} are needed")
            self.add(i, <uint8_t *>view.buf)

    cdef int add(self, Py_ssize_t i, uint8_t *data) except -1:
        cdef const Op *op = &self.decoder.ops[i]
        cdef object value = self.decoder.template[self.decoder.names[i]]
        cdef xs_wide *wide
        cdef Column *column
        cdef int k
        if is_wide(op, value):
            wide = &self.wide[self.wides]
            self.wides += 1
            wide.parts = op.parts
            wide.width = op.width
            wide.data = data
            for k in range(op.parts):
                wide.bit[k] = op.part[k].bit
                wide.from_[k] = op.part[k].offset
            if <uintptr_t>data % XS_LINE:
                self.aligned = False
            return 0
        column = &self.item[self.count]
        self.count += 1
        column.op = op[0]
        column.data = data
        if op.scalar:
            column.step = scalar_width(op)
            column.initial = value
        else:
            column.step = op.width
            if any(value):
                column.image = <const uint8_t *>PyBytes_AS_STRING(value)   # the template owns it
        return 0

    def __dealloc__(self):
        while self.held:
            self.held -= 1
            PyBuffer_Release(&self.views[self.held])
        PyMem_Free(self.views)
        PyMem_Free(self.item)
        PyMem_Free(self.wide)


cdef bint is_wide(const Op *op, value):
    # Whole lines from one place, or the three pieces of a ZMM register; zero when out of use.
    if op.scalar or op.width % XS_LINE or any(value):
        return False
    return op.parts == PARTS or (op.parts == 1 and op.part[0].width == op.width)


cdef uint32_t scalar_width(const Op *op) noexcept nogil:
    cdef uint64_t most = op.mask >> op.shift
    if most <= 0xFF:
        return 1
    if most <= 0xFFFF:
        return 2
    if most >> 32 == 0:
        return 4
    return 8


cdef void decode_block(Columns columns, const uint8_t *areas, Py_ssize_t stride, Py_ssize_t row, Py_ssize_t count,
                       int stream, const uint8_t *next) noexcept nogil:
    # Column by column over a block that fits the caches, while the lines from `next` on (NULL: none) are fetched.
    cdef uint64_t live[BLOCK]
    cdef Py_ssize_t i, k
    cdef Py_ssize_t lines = 0
    cdef Py_ssize_t total = columns.count + columns.wides
    cdef xs_wide *wide
    if next != NULL:
        lines = count * stride // XS_LINE // max(total, 1) + 1
    for i in range(count):
        live[i] = load_le64(areas + i * stride + HEADER_OFFSET)
    for k in range(columns.count):
        decode_column(&columns.item[k], areas, stride, live, row, count)
        for i in range(lines):
            xs_prefetch(next + i * XS_LINE)
        next += lines * XS_LINE
    for k in range(columns.wides):
        wide = &columns.wide[k]
        WIDENER(wide, areas, stride, live, count, wide.data + row * <Py_ssize_t>wide.width, stream)
        for i in range(lines):
            xs_prefetch(next + i * XS_LINE)
        next += lines * XS_LINE


cdef void decode_column(const Column *column, const uint8_t *areas, Py_ssize_t stride, const uint64_t *live,
                        Py_ssize_t row, Py_ssize_t count) noexcept nogil:
    cdef const Op *op = &column.op
    cdef uint8_t *out = column.data + row * <Py_ssize_t>column.step
    cdef const uint8_t *area = areas
    cdef Py_ssize_t i
    cdef bint whole = op.parts == 1 and op.part[0].width == op.width
    if op.scalar:
        xs_numbers(areas + op.part[0].offset, stride, live, op.need, count, out, op.width, column.step, op.mask,
                   op.shift, column.initial)
        return
    if whole and op.width == X87_SLOT:
        xs_tens(areas + op.part[0].offset, stride, live, op.need, count, out)
        return
    for i in range(count):
        if live[i] & op.need:
            if whole:
                memcpy(out, area + op.part[0].offset, op.width)
            else:
                read_bytes(op, area, live[i], out)
        elif column.image != NULL:
            memcpy(out, column.image, op.width)
        else:
            memset(out, 0, op.width)
        area += stride
        out += column.step


cdef void decode_rows(Columns columns, const uint8_t *rows, Py_ssize_t stride, Py_ssize_t first,
                      Py_ssize_t count) noexcept nogil:
    # Ordinary stores, or streaming ones where the first blocks of a large batch show that they are faster.
    cdef Py_ssize_t i = 0, some
    cdef double started, spent
    cdef double least[2]
    cdef int trial = 0
    cdef int stream = 0
    cdef bint far = count * stride > FAR_MIN
    cdef bint tries = (STREAMER != NULL and columns.aligned and columns.wides > 0
                       and 2 * count * stride >= STREAM_MIN)
    least[0] = least[1] = 1e9
    while i < count:
        some = min(<Py_ssize_t>BLOCK, count - i)
        if tries and trial < 2 * BLOCK_TRIALS:
            stream = trial & 1
            started = xs_seconds()
        decode_block(columns, rows + i * stride, stride, first + i, some, stream,
                     rows + (i + some) * stride if far and i + 2 * BLOCK < count else NULL)
        if tries and trial < 2 * BLOCK_TRIALS:
            spent = xs_seconds() - started
            least[stream] = min(least[stream], spent)
            trial += 1
            if trial == 2 * BLOCK_TRIALS:
                stream = least[1] < least[0]
        i += some
    if columns.wides:
        xs_fence()


cdef dict make_arrays(Decoder decoder, Py_ssize_t count):
    # One allocation for all columns, each beginning on a cache line.
    import numpy

    cdef Py_ssize_t i, at, step
    cdef Py_ssize_t total = 0
    cdef Py_buffer view
    dtypes = {1: numpy.uint8, 2: numpy.uint16, 4: numpy.uint32, 8: numpy.uint64}
    for i in range(decoder.count):
        step = scalar_width(&decoder.ops[i]) if decoder.ops[i].scalar else decoder.ops[i].width
        total += (count * step + ALIGNMENT - 1) & ~<Py_ssize_t>(ALIGNMENT - 1)
    store = numpy.empty(total + ALIGNMENT, dtype=numpy.uint8)
    PyObject_GetBuffer(store, &view, PyBUF_SIMPLE | PyBUF_WRITABLE)
    at = (-<Py_ssize_t><uintptr_t>view.buf) & (ALIGNMENT - 1)
    PyBuffer_Release(&view)
    arrays = {}
    for i in range(decoder.count):
        step = scalar_width(&decoder.ops[i]) if decoder.ops[i].scalar else decoder.ops[i].width
        piece = store[at:at + count * step]
        if decoder.ops[i].scalar:
            piece = piece.view(dtypes[step])
        else:
            piece = piece.reshape(count, step)
        arrays[decoder.names[i]] = piece
        at += (count * step + ALIGNMENT - 1) & ~<Py_ssize_t>(ALIGNMENT - 1)
    return arrays


def decode_many(buffers, Layout layout not None, registers=None, out=None):
    """Columns out of N areas of one layout, without the GIL.

    `buffers`: one C-contiguous (N, stride) uint8 buffer, stride >= `layout.size`. Returns `{name: array}` in
    `decode`'s names and order: unsigned (N,) for scalars, in the width of the register; uint8 (N, width) for the
    others: (N, 64) for `zmm0`, (N, 1024) for `tmm0`, (N, 10) for `st0`. `registers` narrows it down. `out`: a dict of
    such arrays (or C-contiguous writable buffers of their sizes) to fill, which is returned.

    Raises: as `decode`; `FormatError` naming the first row whose header is not of `layout`; `ValueError` for `out`
    without a column, or with one of another size, read-only or overlapping the input. Nothing has been written
    then. Manual: SDM1 13.4.
    """
    cdef Py_buffer view
    cdef Decoder decoder = find_decoder(layout, registers)
    cdef Columns columns
    cdef Py_ssize_t count = 0, stride = 0, i
    rows_of(buffers, &view, False, layout.shape.size, "buffers", &count, &stride)
    try:
        check_areas(layout, &view, count, stride)
        if out is None:
            out = make_arrays(decoder, count)
        columns = Columns(decoder, out, count)
        for i in range(columns.held):
            check_apart(&view, &columns.views[i])
        with nogil:
            decode_rows(columns, <const uint8_t *>view.buf, stride, 0, count)
        return out
    finally:
        PyBuffer_Release(&view)


cdef int check_areas(Layout layout, const Py_buffer *view, Py_ssize_t count, Py_ssize_t stride) except -1:
    # The headers of all rows, before anything is decoded.
    cdef const uint8_t *rows = <const uint8_t *>view.buf
    cdef Py_ssize_t i, culprit = -1
    cdef int status = OK
    cdef bint far = count * stride > FAR_MIN
    with nogil:
        for i in range(count):
            if far:
                xs_prefetch(rows + (i + 16) * stride + HEADER_OFFSET)
            status = check_header(rows + i * stride, &layout.shape)
            if status != OK:
                culprit = i
                break
    if status != OK:
        raise_header(status, rows + culprit * stride, &layout.shape, culprit)
    return 0


@cython.final
cdef class ColumnWriter:
    """`decode_many` in instalments: columns of `rows` rows that are filled block by block.

    `ColumnWriter(layout, registers, out, rows)`: `registers` and `out` as in `decode_many`, arrays of `rows` rows. They
    are held as long as the writer lives. Raises: as `decode_many`.
    """

    cdef Layout layout
    cdef Columns columns
    cdef Py_ssize_t rows

    def __cinit__(self, Layout layout not None, registers, dict out not None, Py_ssize_t rows):
        self.layout = layout
        self.rows = rows
        self.columns = Columns(find_decoder(layout, registers), out, rows)

    def fill(self, buffers, Py_ssize_t first):
        """Decodes a C-contiguous (N, stride) uint8 buffer of areas into the rows from `first` on.

        Raises: as `decode_many`, and `IndexError` for rows that the columns do not have.
        """
        cdef Py_buffer view
        cdef Py_ssize_t count = 0, stride = 0, i
        rows_of(buffers, &view, False, self.layout.shape.size, "buffers", &count, &stride)
        try:
            if first < 0 or count > self.rows - first:
                raise IndexError(f"rows {first} to {first + count} of columns of {self.rows}")
            check_areas(self.layout, &view, count, stride)
            for i in range(self.columns.held):
                check_apart(&view, &self.columns.views[i])
            with nogil:
                decode_rows(self.columns, <const uint8_t *>view.buf, stride, first, count)
        finally:
            PyBuffer_Release(&view)


cdef int check_columns(list held, Layout layout) except -1:
    # Every number fits its register and every byte has a place, before anything is written.
    cdef Op op
    cdef Py_buffer view
    cdef Py_ssize_t row_count, bad
    for row, column in held:
        if not row.scalar:
            compile_op(&op, row, layout)
            if op.parts == len(row.parts):
                continue
            PyObject_GetBuffer(column, &view, PyBUF_C_CONTIGUOUS)
            bad = 0
            row_count = len(column)
            while bad < row_count and places_all(&op, <const uint8_t *>view.buf + bad * <Py_ssize_t>op.width):
                bad += 1
            PyBuffer_Release(&view)
            if bad < row_count:
                raise LayoutError(f"column {row.name}, row {bad}: a byte that is not 0 has no place in the layout, "
                                  "which lacks a part of the register")
        if row.scalar and len(column):
            compile_op(&op, row, layout)
            i = int(column.argmax())
            if column[i] > <object>(op.mask >> op.shift):
                raise ValueError(f"column {row.name}, row {i}: {int(column[i]):#x} does not fit "
                                 f"{int(op.mask >> op.shift).bit_length()} bits")
    return 0


def encode_many(columns, Layout layout not None, xstate_bv=None, out=None):
    """Areas of `layout` out of columns, `{name: array}` as `decode_many` gives them; the inverse of it. The `tid` of an
    image's columns is passed over.

    Every row has the same components in use: those of the columns' registers, or `xstate_bv`, a number or an
    (N,) array of them. Returns a new (N, `layout.size`) uint8 array, or `out`, a writable C-contiguous (N, stride)
    uint8 buffer.

    Raises: as `encode`; `ValueError` for columns of different lengths or of another width. Manual: SDM1 13.4.
    """
    import numpy

    cdef Py_ssize_t count = -1
    cdef Py_ssize_t i, step = 0, rows = 0
    cdef Py_buffer view, into
    cdef uint64_t used = 0
    cdef Op op
    cdef int k
    cdef uint8_t *base
    cdef set seen = set()
    held = []
    for name, column in columns.items():
        if name == "tid":       # the threads' column of image.columns
            continue
        row = find_register(name)
        once(seen, row, name)
        compile_op(&op, row, layout)
        used |= bits_of(&op)
        if row.scalar:
            column = numpy.ascontiguousarray(column)
            if column.dtype.kind not in "ui" or column.ndim != 1:
                raise ValueError(f"column {name}: a one-dimensional array of integers is needed")
            if column.dtype.kind == "i" and column.size and column.min() < 0:
                raise ValueError(f"column {name} has negative values")
            column = column.astype(numpy.uint64, copy=False)
        else:
            column = numpy.ascontiguousarray(column)
            if column.dtype != numpy.uint8:
                raise ValueError(f"column {name}: an array of uint8 is needed, not of {column.dtype}")
            if column.ndim != 2 or column.shape[1] != row.width:
                raise ValueError(f"column {name}: shape {column.shape}, (N, {row.width}) is needed")
        if count >= 0 and len(column) != count:
            raise ValueError(f"column {name} has {len(column)} rows, the ones before {count}")
        count = len(column)
        held.append((row, column))
    if count < 0:
        raise ValueError("no columns")
    used &= layout.shape.mask
    marks = numpy.full(count, used, dtype=numpy.uint64)
    if xstate_bv is not None:
        if isinstance(xstate_bv, int):
            checked_bv(xstate_bv, layout)
        marks[:] = xstate_bv
        for mark in numpy.unique(marks):
            checked_bv(int(mark), layout)
    check_columns(held, layout)
    if out is None:
        out = numpy.empty((count, layout.shape.size), dtype=numpy.uint8)
    rows_of(out, &into, True, layout.shape.size, "out", &rows, &step)
    try:
        if rows != count:
            raise ValueError(f"out has {rows} rows for columns of {count}")
        for _, column in held:
            PyObject_GetBuffer(column, &view, PyBUF_C_CONTIGUOUS)
            try:
                check_apart(&view, &into)
            finally:
                PyBuffer_Release(&view)
        base = <uint8_t *>into.buf
        PyObject_GetBuffer(marks, &view, PyBUF_C_CONTIGUOUS)
        with nogil:
            for i in range(count):
                memset(base + i * step, 0, layout.shape.size)
                start_area(&layout.shape, (<const uint64_t *>view.buf)[i], base + i * step)
        PyBuffer_Release(&view)
        for row, column in held:
            compile_op(&op, row, layout)
            PyObject_GetBuffer(column, &view, PyBUF_C_CONTIGUOUS)
            with nogil:
                for i in range(count):
                    if op.scalar:
                        write_scalar(&op, load_le64(<const uint8_t *>view.buf + 8 * i), base + i * step)
                    else:
                        for k in range(op.parts):
                            memcpy(base + i * step + op.part[k].offset,
                                   <const uint8_t *>view.buf + i * <Py_ssize_t>op.width + op.part[k].at,
                                   op.part[k].width)
            PyBuffer_Release(&view)
    finally:
        PyBuffer_Release(&into)
    return out


# --- comparison ---------------------------------------------------------------------------------------------

cdef inline bint same_component(int number, const uint8_t *a, const Shape *shape_a, bint live_a, const uint8_t *b,
                                const Shape *shape_b, bint live_b) noexcept nogil:
    # Registers only: padding and reserved bytes of a component are no state.
    cdef const Significant *runs = &SIGNIFICANT[number]
    cdef Extent run
    cdef const uint8_t *left = a + (shape_a.offset[number] if number >= 2 else 0)
    cdef const uint8_t *right = b + (shape_b.offset[number] if number >= 2 else 0)
    cdef uint32_t room_a = shape_a.width[number] if number >= 2 else LEGACY_SIZE
    cdef uint32_t room_b = shape_b.width[number] if number >= 2 else LEGACY_SIZE
    cdef uint32_t room = min(room_a if live_a else room_b, room_b if live_b else room_a)
    cdef int i
    for i in range(runs.count):
        run = runs.item[i]
        if run.offset + run.width > room:   # a CPU that gives the component less than its registers need
            if run.offset >= room:
                break
            run.width = room - run.offset
        if live_a and live_b:
            if memcmp(left + run.offset, right + run.offset, run.width) != 0:
                return False
        elif not is_initial(number, (left if live_a else right), &run):
            return False
    return True


cdef inline bint is_initial(int number, const uint8_t *component, const Extent *run) noexcept nogil:
    cdef const uint8_t *image = INITIAL[number].image
    cdef uint32_t i
    cdef uint8_t expected
    for i in range(run.offset, run.offset + run.width):
        if number == 0:
            expected = (FCW_INIT >> 8 * i) & 0xFF if i < 2 else 0
        else:
            expected = image[i] if image != NULL else 0
        if component[i] != expected:
            return False
    return True


cdef bint same_areas(const uint8_t *a, const Shape *shape_a, const uint8_t *b, const Shape *shape_b) noexcept nogil:
    cdef uint64_t live_a = load_le64(a + HEADER_OFFSET) & shape_a.mask
    cdef uint64_t live_b = load_le64(b + HEADER_OFFSET) & shape_b.mask
    cdef int i
    if area_mxcsr(a, shape_a, live_a) != area_mxcsr(b, shape_b, live_b):
        return False
    for i in range(COMPONENT_LIMIT):
        if (live_a | live_b) >> i & 1:
            if not same_component(i, a, shape_a, live_a >> i & 1, b, shape_b, live_b >> i & 1):
                return False
    return True


def same_state(a, b):
    """Whether two areas, of whatever formats and layouts, hold the same architectural state.

    A component out of use equals one in use that holds its initial values, and a component that a layout lacks
    is out of use. Padding, software bytes and MXCSR_MASK are no state. `a`, `b`: buffers with a `.layout`.

    Raises: `TruncatedError` for a short buffer, `TypeError` for something without a layout. Manual: SDM1 13.6.
    """
    cdef Layout layout_a = layout_of(a)
    cdef Layout layout_b = layout_of(b)
    cdef Py_buffer left, right
    PyObject_GetBuffer(a, &left, PyBUF_SIMPLE)
    try:
        PyObject_GetBuffer(b, &right, PyBUF_SIMPLE)
        try:
            for layout, length in ((layout_a, left.len), (layout_b, right.len)):
                if length < layout.size:
                    raise TruncatedError(f"an area of {layout.size} bytes in a buffer of {length}", offset=length)
            return same_areas(<const uint8_t *>left.buf, &layout_a.shape, <const uint8_t *>right.buf, &layout_b.shape)
        finally:
            PyBuffer_Release(&right)
    finally:
        PyBuffer_Release(&left)


def same_state_many(a, Layout layout_a not None, b, Layout layout_b not None, out=None):
    """`same_state` for N pairs of rows, without the GIL.

    `a`, `b`: C-contiguous (N, stride) uint8 buffers. Returns a bool array (N,), or `out`, a writable buffer of N
    bytes. Raises: `ValueError` for different numbers of rows, `TruncatedError` for short rows.
    """
    import numpy

    cdef Py_buffer left, right, into
    cdef Py_ssize_t count = 0, stride_a = 0, other = 0, stride_b = 0, i
    rows_of(a, &left, False, layout_a.shape.size, "a", &count, &stride_a)
    try:
        rows_of(b, &right, False, layout_b.shape.size, "b", &other, &stride_b)
        try:
            if other != count:
                raise ValueError(f"{count} rows in a, {other} in b")
            if out is None:
                out = numpy.empty(count, dtype=numpy.bool_)
            PyObject_GetBuffer(out, &into, PyBUF_C_CONTIGUOUS | PyBUF_WRITABLE)
            if into.len != count:
                PyBuffer_Release(&into)
                raise ValueError(f"out has {into.len} bytes for {count} rows")
            with nogil:
                for i in range(count):
                    (<uint8_t *>into.buf)[i] = same_areas(<const uint8_t *>left.buf + i * stride_a, &layout_a.shape,
                                                          <const uint8_t *>right.buf + i * stride_b, &layout_b.shape)
            PyBuffer_Release(&into)
            return out
        finally:
            PyBuffer_Release(&right)
    finally:
        PyBuffer_Release(&left)
