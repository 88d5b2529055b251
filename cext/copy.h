/* Block moves: the one file that knows vector stores.
 *
 * A move list carries components from their places in one layout to their places in another. For one XSTATE_BV it
 * becomes runs (neighbours that are neighbours in both layouts move as one), and runs are what the movers take:
 * with 64-byte vectors where the CPU has AVX-512, with memcpy elsewhere; chosen once, at the first use. Nothing
 * here knows what the bytes mean.
 */
#ifndef XSAVE_COPY_H
#define XSAVE_COPY_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <time.h>

enum { XS_MOVES = 32, XS_LINE = 64, XS_LEGACY_USED = 416, XS_HEADER = 512, XS_HEADER_END = 576 };

typedef struct {
    uint64_t bit;    /* the component's bit in XSTATE_BV */
    uint32_t from;   /* offset in the source area */
    uint32_t to;     /* offset in the target area */
    uint32_t length; /* bytes that both have */
} xs_move;

typedef struct {
    int count;     /* components >= 2 that both layouts have, ascending by number */
    uint64_t bits; /* all their bits */
    xs_move item[XS_MOVES];
} xs_moves;

typedef struct {
    uint64_t live; /* the bits these runs are for */
    int count;
    struct {
        uint32_t from, to, length;
    } item[XS_MOVES];
} xs_runs;

static inline void xs_make_runs(const xs_moves *list, uint64_t live, xs_runs *runs)
{
    int last = -1;
    runs->live = live;
    for (int i = 0; i < list->count; i++) {
        const xs_move *m = &list->item[i];
        if (!(live & m->bit))
            continue;
        if (last >= 0 && m->from == runs->item[last].from + runs->item[last].length
            && m->to == runs->item[last].to + runs->item[last].length) {
            runs->item[last].length += m->length;
        } else {
            last++;
            runs->item[last].from = m->from;
            runs->item[last].to = m->to;
            runs->item[last].length = m->length;
        }
    }
    runs->count = last + 1;
}

/* Where a stream of stores stands: bytes that wait until their line is whole. */
typedef struct {
    uint8_t *at;    /* the next byte's address */
    uint32_t begin; /* first waiting byte in its line; those from here to `at` wait */
    uint8_t line[XS_LINE] __attribute__((aligned(64)));
} xs_stream;

/* The runs of one area. `legacy`: first the used bytes of the legacy region too, zero up to the header, and the
 * header {kept, xcomp_bv, 0...}; without it the caller has written those 576 bytes. */
typedef void (*xs_mover)(const xs_runs *runs, const uint8_t *from, uint8_t *to, int legacy, uint64_t kept, uint64_t xcomp_bv);
/* The same by non-temporal stores of whole lines. `ahead`: source bytes fetched that far before they are needed, 0:
 * none. `step`: bytes to the next row; `edges`: how many rows ahead the lines are fetched that only a part of will be
 * written, by ordinary stores that would wait for them. */
typedef void (*xs_streamer)(const xs_runs *runs, const uint8_t *from, uint8_t *to, int legacy, uint64_t kept,
                            uint64_t xcomp_bv, size_t ahead, size_t step, size_t edges, xs_stream *stream);

static inline void xs_legacy_plain(const uint8_t *from, uint8_t *to, uint64_t kept, uint64_t xcomp_bv)
{
    memcpy(to, from, XS_LEGACY_USED);
    memset(to + XS_LEGACY_USED, 0, XS_HEADER_END - XS_LEGACY_USED);
    memcpy(to + XS_HEADER, &kept, 8);
    memcpy(to + XS_HEADER + 8, &xcomp_bv, 8);
}

static inline void xs_move_plain(const xs_runs *runs, const uint8_t *from, uint8_t *to, int legacy, uint64_t kept,
                                 uint64_t xcomp_bv)
{
    if (legacy)
        xs_legacy_plain(from, to, kept, xcomp_bv);
    for (int i = 0; i < runs->count; i++)
        memcpy(to + runs->item[i].to, from + runs->item[i].from, runs->item[i].length);
}

/* A column whose rows are whole lines: ZMM registers, tiles, TILECFG. A row comes from one place, or from three of
 * 16, 16 and 32 bytes; what is not in use is zero. */
typedef struct {
    uint64_t bit[3];
    uint32_t from[3];
    uint32_t parts; /* 1 or 3 */
    uint32_t width; /* bytes a row, a multiple of 64 */
    uint8_t *data;
} xs_wide;

/* A column of numbers: the little-endian field of `width` bytes at `from` of every area, cut by `mask` and `shift`, as
 * `step` bytes; `initial` in rows that have none of `need` in use (0: always read). */
#define XS_NUMBERS(IN, OUT)                                                                                   \
    for (size_t i = 0; i < count; i++, from += stride) {                                                      \
        IN in;                                                                                                \
        memcpy(&in, from, sizeof in);                                                                         \
        OUT out = (OUT)(!need || (live[i] & need) ? (in & mask) >> shift : initial);                          \
        memcpy(to + i * sizeof out, &out, sizeof out);                                                        \
    }

static inline void xs_numbers(const uint8_t *from, size_t stride, const uint64_t *live, uint64_t need, size_t count,
                              uint8_t *to, uint32_t width, uint32_t step, uint64_t mask, int shift, uint64_t initial)
{
    switch (width << 4 | step) {
    case 0x88: XS_NUMBERS(uint64_t, uint64_t) break;
    case 0x84: XS_NUMBERS(uint64_t, uint32_t) break;
    case 0x82: XS_NUMBERS(uint64_t, uint16_t) break;
    case 0x81: XS_NUMBERS(uint64_t, uint8_t) break;
    case 0x44: XS_NUMBERS(uint32_t, uint32_t) break;
    case 0x42: XS_NUMBERS(uint32_t, uint16_t) break;
    case 0x41: XS_NUMBERS(uint32_t, uint8_t) break;
    case 0x22: XS_NUMBERS(uint16_t, uint16_t) break;
    case 0x21: XS_NUMBERS(uint16_t, uint8_t) break;
    default: XS_NUMBERS(uint8_t, uint8_t) break;
    }
}

/* A column of x87 registers: ten bytes a row, zero in rows that do not have `bit` in use. */
static inline void xs_tens(const uint8_t *from, size_t stride, const uint64_t *live, uint64_t bit, size_t count, uint8_t *to)
{
    for (size_t i = 0; i < count; i++, from += stride, to += 10) {
        uint64_t low;
        uint16_t high;
        memcpy(&low, from, 8);
        memcpy(&high, from + 8, 2);
        low = live[i] & bit ? low : 0;
        high = live[i] & bit ? high : 0;
        memcpy(to, &low, 8);
        memcpy(to + 8, &high, 2);
    }
}

/* One column's rows of a block of areas: `count` of them from `areas` on, `stride` bytes apart, `live` their XSTATE_BV. */
typedef void (*xs_widener)(const xs_wide *column, const uint8_t *areas, size_t stride, const uint64_t *live, size_t count,
                           uint8_t *to, int stream);

static inline void xs_wide_plain(const xs_wide *w, const uint8_t *areas, size_t stride, const uint64_t *live, size_t count,
                                 uint8_t *to, int stream)
{
    (void)stream;
    for (size_t i = 0; i < count; i++, areas += stride, to += w->width) {
        if (w->parts == 1) {
            if (live[i] & w->bit[0])
                memcpy(to, areas + w->from[0], w->width);
            else
                memset(to, 0, w->width);
        } else {
            memset(to, 0, XS_LINE);
            if (live[i] & w->bit[0])
                memcpy(to, areas + w->from[0], 16);
            if (live[i] & w->bit[1])
                memcpy(to + 16, areas + w->from[1], 16);
            if (live[i] & w->bit[2])
                memcpy(to + 32, areas + w->from[2], 32);
        }
    }
}

static inline double xs_seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

#if defined(__x86_64__) && !defined(XSAVE_PORTABLE)
#include <immintrin.h>

#define XS_512 __attribute__((target("avx512f,avx512bw,avx512vl")))

/* Stores on line boundaries of the target, four loads before four stores: one line at a time runs at half speed
 * where source and target collide modulo 4096. The ends are one store each that overlaps its neighbour. */
static inline XS_512 __attribute__((always_inline)) void xs_lines(uint8_t *to, const uint8_t *from, size_t length)
{
    if (length < XS_LINE) {
        __mmask64 some = ((__mmask64)1 << length) - 1;
        _mm512_mask_storeu_epi8(to, some, _mm512_maskz_loadu_epi8(some, from));
        return;
    }
    uint8_t *end = to + length;
    const uint8_t *from_end = from + length;
    size_t head = -(uintptr_t)to & (XS_LINE - 1);
    if (head) {
        _mm512_storeu_si512(to, _mm512_loadu_si512(from));
        to += head;
        from += head;
        length -= head;
    }
    while (length >= 4 * XS_LINE) {
        __m512i a = _mm512_loadu_si512(from), b = _mm512_loadu_si512(from + 64);
        __m512i c = _mm512_loadu_si512(from + 128), d = _mm512_loadu_si512(from + 192);
        _mm512_store_si512(to, a);
        _mm512_store_si512(to + 64, b);
        _mm512_store_si512(to + 128, c);
        _mm512_store_si512(to + 192, d);
        from += 4 * XS_LINE;
        to += 4 * XS_LINE;
        length -= 4 * XS_LINE;
    }
    while (length >= XS_LINE) {
        _mm512_store_si512(to, _mm512_loadu_si512(from));
        from += XS_LINE;
        to += XS_LINE;
        length -= XS_LINE;
    }
    if (length)
        _mm512_storeu_si512(end - XS_LINE, _mm512_loadu_si512(from_end - XS_LINE));
}

static XS_512 void xs_move_512(const xs_runs *runs, const uint8_t *from, uint8_t *to, int legacy, uint64_t kept,
                               uint64_t xcomp_bv)
{
    if (legacy) {
        __m512i a = _mm512_loadu_si512(from), b = _mm512_loadu_si512(from + 64);
        __m512i c = _mm512_loadu_si512(from + 128), d = _mm512_loadu_si512(from + 192);
        __m512i e = _mm512_loadu_si512(from + 256), f = _mm512_loadu_si512(from + 320);
        __m512i g = _mm512_zextsi256_si512(_mm256_loadu_si256((const __m256i *)(from + 384)));
        __m512i header = _mm512_zextsi128_si512(_mm_set_epi64x((long long)xcomp_bv, (long long)kept));
        _mm512_storeu_si512(to, a);
        _mm512_storeu_si512(to + 64, b);
        _mm512_storeu_si512(to + 128, c);
        _mm512_storeu_si512(to + 192, d);
        _mm512_storeu_si512(to + 256, e);
        _mm512_storeu_si512(to + 320, f);
        _mm512_storeu_si512(to + 384, g);
        _mm512_storeu_si512(to + 448, _mm512_setzero_si512());
        _mm512_storeu_si512(to + XS_HEADER, header);
    }
    for (int i = 0; i < runs->count; i++)
        xs_lines(to + runs->item[i].to, from + runs->item[i].from, runs->item[i].length);
}

/* Writes what waits, by ordinary stores. */
static inline void xs_stream_flush(xs_stream *stream)
{
    uint32_t end = (uintptr_t)stream->at & (XS_LINE - 1);
    if (end > stream->begin)
        memcpy(stream->at - (end - stream->begin), stream->line + stream->begin, end - stream->begin);
    stream->begin = end;
}

static inline XS_512 __attribute__((always_inline)) void xs_put(xs_stream *stream, uint8_t *to, const uint8_t *from,
                                                                size_t length, size_t ahead)
{
    if (to != stream->at) {
        xs_stream_flush(stream);
        stream->at = to;
        stream->begin = (uintptr_t)to & (XS_LINE - 1);
    }
    size_t used = (uintptr_t)to & (XS_LINE - 1);
    if (used) {
        size_t part = XS_LINE - used < length ? XS_LINE - used : length;
        __mmask64 some = part == XS_LINE ? ~(__mmask64)0 : ((__mmask64)1 << part) - 1;
        _mm512_mask_storeu_epi8(stream->line + used, some, _mm512_maskz_loadu_epi8(some, from));
        to += part;
        from += part;
        length -= part;
        stream->at = to;
        if (used + part < XS_LINE)
            return;
        if (stream->begin == 0)
            _mm512_stream_si512((void *)(to - XS_LINE), _mm512_load_si512(stream->line));
        else
            memcpy(to - XS_LINE + stream->begin, stream->line + stream->begin, XS_LINE - stream->begin);
        stream->begin = 0;
    }
    while (length >= 4 * XS_LINE) {
        if (ahead) {
            _mm_prefetch((const char *)from + ahead, _MM_HINT_T0);
            _mm_prefetch((const char *)from + ahead + 64, _MM_HINT_T0);
            _mm_prefetch((const char *)from + ahead + 128, _MM_HINT_T0);
            _mm_prefetch((const char *)from + ahead + 192, _MM_HINT_T0);
        }
        __m512i a = _mm512_loadu_si512(from), b = _mm512_loadu_si512(from + 64);
        __m512i c = _mm512_loadu_si512(from + 128), d = _mm512_loadu_si512(from + 192);
        _mm512_stream_si512((void *)to, a);
        _mm512_stream_si512((void *)(to + 64), b);
        _mm512_stream_si512((void *)(to + 128), c);
        _mm512_stream_si512((void *)(to + 192), d);
        from += 4 * XS_LINE;
        to += 4 * XS_LINE;
        length -= 4 * XS_LINE;
    }
    while (length >= XS_LINE) {
        if (ahead)
            _mm_prefetch((const char *)from + ahead, _MM_HINT_T0);
        _mm512_stream_si512((void *)to, _mm512_loadu_si512(from));
        from += XS_LINE;
        to += XS_LINE;
        length -= XS_LINE;
    }
    if (length) {
        __mmask64 some = ((__mmask64)1 << length) - 1;
        _mm512_mask_storeu_epi8(stream->line, some, _mm512_maskz_loadu_epi8(some, from));
        if (ahead)
            _mm_prefetch((const char *)from + ahead, _MM_HINT_T0);
    }
    stream->at = to + length;
}

/* Fetches, for writing, the lines in which this row's runs begin or end without filling them, `edges` rows ahead. */
static inline void xs_fetch_edges(const xs_runs *runs, uint8_t *to, size_t step, size_t edges)
{
    size_t end = XS_HEADER_END;
    for (int i = 0; i < runs->count; i++) {
        size_t begin = runs->item[i].to;
        if (begin != end) {
            if ((uintptr_t)(to + end) & (XS_LINE - 1))
                __builtin_prefetch(to + end + edges * step, 1, 3);
            if ((uintptr_t)(to + begin) & (XS_LINE - 1))
                __builtin_prefetch(to + begin + edges * step, 1, 3);
        }
        end = begin + runs->item[i].length;
    }
    if (end != step && ((uintptr_t)(to + end) & (XS_LINE - 1)))
        __builtin_prefetch(to + end + edges * step, 1, 3);
}

static XS_512 void xs_stream_512(const xs_runs *runs, const uint8_t *from, uint8_t *to, int legacy, uint64_t kept,
                                 uint64_t xcomp_bv, size_t ahead, size_t step, size_t edges, xs_stream *stream)
{
    if (edges)
        xs_fetch_edges(runs, to, step, edges);
    if (legacy) {
        uint8_t tail[XS_HEADER_END - XS_LEGACY_USED] = {0};
        memcpy(tail + XS_HEADER - XS_LEGACY_USED, &kept, 8);
        memcpy(tail + XS_HEADER + 8 - XS_LEGACY_USED, &xcomp_bv, 8);
        xs_put(stream, to, from, XS_LEGACY_USED, ahead);
        xs_put(stream, to + XS_LEGACY_USED, tail, sizeof tail, 0);
    } else {
        xs_stream_flush(stream);
    }
    for (int i = 0; i < runs->count; i++)
        xs_put(stream, to + runs->item[i].to, from + runs->item[i].from, runs->item[i].length, ahead);
}

static inline XS_512 __attribute__((always_inline)) void xs_store(uint8_t *to, __m512i line, int stream)
{
    if (stream)
        _mm512_stream_si512((void *)to, line);
    else
        _mm512_storeu_si512(to, line);
}

static XS_512 void xs_wide_512(const xs_wide *w, const uint8_t *areas, size_t stride, const uint64_t *live, size_t count,
                               uint8_t *to, int stream)
{
    uint64_t all = ~(uint64_t)0, bits = w->bit[0];
    for (size_t i = 0; i < count; i++)
        all &= live[i];
    if (w->parts == 3)
        bits |= w->bit[1] | w->bit[2];
    if (w->parts == 3 && (all & bits) == bits) { /* the usual block: in use in every row */
        const uint8_t *low = areas + w->from[0], *mid = areas + w->from[1], *high = areas + w->from[2];
        for (size_t i = 0; i < count; i++, low += stride, mid += stride, high += stride, to += XS_LINE) {
            __m256i half = _mm256_castsi128_si256(_mm_loadu_si128((const __m128i *)low));
            half = _mm256_inserti128_si256(half, _mm_loadu_si128((const __m128i *)mid), 1);
            __m512i line = _mm512_castsi256_si512(half);
            xs_store(to, _mm512_inserti64x4(line, _mm256_loadu_si256((const __m256i *)high), 1), stream);
        }
        return;
    }
    if (w->parts == 1 && w->width == XS_LINE && (all & bits)) {
        const uint8_t *line = areas + w->from[0];
        for (size_t i = 0; i < count; i++, line += stride, to += XS_LINE)
            xs_store(to, _mm512_loadu_si512(line), stream);
        return;
    }
    if (w->parts == 3) {
        for (size_t i = 0; i < count; i++, areas += stride, to += XS_LINE) {
            __m128i low = _mm_maskz_loadu_epi64(live[i] & w->bit[0] ? 3 : 0, areas + w->from[0]);
            __m128i mid = _mm_maskz_loadu_epi64(live[i] & w->bit[1] ? 3 : 0, areas + w->from[1]);
            __m256i high = _mm256_maskz_loadu_epi64(live[i] & w->bit[2] ? 15 : 0, areas + w->from[2]);
            __m256i half = _mm256_inserti128_si256(_mm256_castsi128_si256(low), mid, 1);
            xs_store(to, _mm512_inserti64x4(_mm512_castsi256_si512(half), high, 1), stream);
        }
        return;
    }
    for (size_t i = 0; i < count; i++, areas += stride, to += w->width) {
        __mmask8 some = live[i] & w->bit[0] ? 255 : 0;
        for (uint32_t at = 0; at < w->width; at += XS_LINE)
            xs_store(to + at, _mm512_maskz_loadu_epi64(some, areas + w->from[0] + at), stream);
    }
}

static inline int xs_has_avx512(void)
{
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
}

static inline xs_mover xs_choose_mover(void) { return xs_has_avx512() ? xs_move_512 : xs_move_plain; }
static inline xs_streamer xs_choose_streamer(void) { return xs_has_avx512() ? xs_stream_512 : NULL; }
static inline xs_widener xs_choose_widener(void) { return xs_has_avx512() ? xs_wide_512 : xs_wide_plain; }
static inline void xs_fence(void) { _mm_sfence(); }

#else

static inline void xs_stream_flush(xs_stream *stream) { (void)stream; }
static inline xs_mover xs_choose_mover(void) { return xs_move_plain; }
static inline xs_streamer xs_choose_streamer(void) { return NULL; }
static inline xs_widener xs_choose_widener(void) { return xs_wide_plain; }
static inline void xs_fence(void) {}

#endif

static inline void xs_prefetch(const void *p) { __builtin_prefetch(p, 0, 3); }

#endif
