/* Block moves: the one file that knows vector stores. A move list carries the components of one layout to the
 * places of another; `xs_move_row` runs it for one area. 64-byte vectors with AVX-512F, 32-byte ones with AVX,
 * memcpy elsewhere; chosen once, at the first use.
 */
#ifndef XSAVE_COPY_H
#define XSAVE_COPY_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum { XS_MOVES = 32, XS_LINE = 64 };

typedef struct {
    uint64_t bit;    /* the component's bit in XSTATE_BV */
    uint32_t from;   /* offset in the source area */
    uint32_t to;     /* offset in the target area */
    uint32_t length; /* bytes that both have */
} xs_move;

typedef struct {
    int count;       /* moves of components >= 2, ascending by number */
    uint64_t bits;   /* all their bits */
    xs_move item[XS_MOVES];
} xs_moves;

/* Moves every component of `live` from one area to the other. `stream`: with non-temporal stores where the
 * target is 64-byte aligned; the caller fences at the end of the batch. */
typedef void (*xs_row_fn)(const xs_moves *list, uint64_t live, const uint8_t *from, uint8_t *to);
typedef void (*xs_block_fn)(uint8_t *to, const uint8_t *from, size_t length);

static inline void xs_row_plain(const xs_moves *list, uint64_t live, const uint8_t *from, uint8_t *to)
{
    for (int i = 0; i < list->count; i++)
        if (live & list->item[i].bit)
            memcpy(to + list->item[i].to, from + list->item[i].from, list->item[i].length);
}

static inline void xs_block_plain(uint8_t *to, const uint8_t *from, size_t length) { memcpy(to, from, length); }

#if defined(__x86_64__) && !defined(XSAVE_PORTABLE)
#include <immintrin.h>

#define XS_AVX512 __attribute__((target("avx512f,avx512bw,avx512vl"), always_inline))
#define XS_AVX512_FN __attribute__((target("avx512f,avx512bw,avx512vl")))

/* Four loads, then four stores: one line at a time runs at half speed where source and target collide modulo
 * 4096. The tail is a masked line. */
static inline XS_AVX512 void xs_lines512(uint8_t *to, const uint8_t *from, size_t length)
{
    while (length >= 4 * XS_LINE) {
        __m512i a = _mm512_loadu_si512(from), b = _mm512_loadu_si512(from + 64);
        __m512i c = _mm512_loadu_si512(from + 128), d = _mm512_loadu_si512(from + 192);
        _mm512_storeu_si512(to, a);
        _mm512_storeu_si512(to + 64, b);
        _mm512_storeu_si512(to + 128, c);
        _mm512_storeu_si512(to + 192, d);
        from += 4 * XS_LINE;
        to += 4 * XS_LINE;
        length -= 4 * XS_LINE;
    }
    while (length >= XS_LINE) {
        _mm512_storeu_si512(to, _mm512_loadu_si512(from));
        from += XS_LINE;
        to += XS_LINE;
        length -= XS_LINE;
    }
    if (length) {
        __mmask64 tail = ((__mmask64)1 << length) - 1;
        _mm512_mask_storeu_epi8(to, tail, _mm512_maskz_loadu_epi8(tail, from));
    }
}

static inline XS_AVX512 void xs_stream512(uint8_t *to, const uint8_t *from, size_t length)
{
    while (length >= 4 * XS_LINE) {
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
        _mm512_stream_si512((void *)to, _mm512_loadu_si512(from));
        from += XS_LINE;
        to += XS_LINE;
        length -= XS_LINE;
    }
    if (length)
        xs_lines512(to, from, length);
}

/* Neighbours that are neighbours in both layouts go as one run. */
#define XS_RUN_MOVES(MOVE)                                                                        \
    do {                                                                                          \
        uint32_t from_at = 0, to_at = 0, length = 0;                                              \
        for (int i = 0; i < list->count; i++) {                                                   \
            const xs_move *m = &list->item[i];                                                    \
            if (!(live & m->bit))                                                                 \
                continue;                                                                         \
            if (m->from == from_at + length && m->to == to_at + length) {                         \
                length += m->length;                                                              \
                continue;                                                                         \
            }                                                                                     \
            if (length)                                                                           \
                MOVE(to + to_at, from + from_at, length);                                         \
            from_at = m->from;                                                                    \
            to_at = m->to;                                                                        \
            length = m->length;                                                                   \
        }                                                                                         \
        if (length)                                                                               \
            MOVE(to + to_at, from + from_at, length);                                             \
    } while (0)

static XS_AVX512_FN void xs_row_512(const xs_moves *list, uint64_t live, const uint8_t *from, uint8_t *to)
{
    XS_RUN_MOVES(xs_lines512);
}

static XS_AVX512_FN void xs_stream_512(const xs_moves *list, uint64_t live, const uint8_t *from, uint8_t *to)
{
    XS_RUN_MOVES(xs_stream512);
}

static XS_AVX512_FN void xs_block_512(uint8_t *to, const uint8_t *from, size_t length)
{
    xs_lines512(to, from, length);
}

static inline int xs_has_avx512(void)
{
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
}

static inline xs_row_fn xs_choose_row(int stream)
{
    if (xs_has_avx512())
        return stream ? xs_stream_512 : xs_row_512;
    return xs_row_plain;
}

static inline xs_block_fn xs_choose_block(void) { return xs_has_avx512() ? xs_block_512 : xs_block_plain; }
static inline void xs_fence(void) { _mm_sfence(); }
static inline void xs_prefetch(const void *p) { _mm_prefetch((const char *)p, _MM_HINT_T0); }
static inline void xs_prefetch_write(void *p) { __builtin_prefetch(p, 1, 3); }

#else

static inline int xs_has_avx512(void) { return 0; }
static inline xs_row_fn xs_choose_row(int stream) { (void)stream; return xs_row_plain; }
static inline xs_block_fn xs_choose_block(void) { return xs_block_plain; }
static inline void xs_fence(void) {}
static inline void xs_prefetch(const void *p) { __builtin_prefetch(p, 0, 3); }
static inline void xs_prefetch_write(void *p) { __builtin_prefetch(p, 1, 3); }

#endif
#endif
