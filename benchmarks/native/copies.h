/* The copies that the benchmarks compare with, each over `count` rows of `size` bytes. */
#ifndef BENCH_COPIES_H
#define BENCH_COPIES_H

#include <time.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

enum { COPY_MEMCPY, COPY_MOVSB, COPY_VECTOR, COPY_STREAM, COPY_STREAM_T0, COPY_KINDS };

#if defined(__x86_64__)
#include <immintrin.h>
#include <x86intrin.h>

static inline int copy_supported(int kind)
{
    return kind < COPY_VECTOR || (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw"));
}

static inline void copy_movsb(uint8_t *to, const uint8_t *from, size_t length)
{
    __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(length) : : "memory");
}

__attribute__((target("avx512f,avx512bw"))) static void copy_tail(uint8_t *to, const uint8_t *from, size_t length)
{
    __mmask64 mask = length >= 64 ? ~(__mmask64)0 : ((__mmask64)1 << length) - 1;
    _mm512_mask_storeu_epi8(to, mask, _mm512_maskz_loadu_epi8(mask, from));
}

/* Eight loads, then eight stores. */
__attribute__((target("avx512f,avx512bw"))) static void copy_vector(uint8_t *to, const uint8_t *from, size_t length)
{
    for (; length >= 512; length -= 512, to += 512, from += 512) {
        __m512i a = _mm512_loadu_si512(from), b = _mm512_loadu_si512(from + 64);
        __m512i c = _mm512_loadu_si512(from + 128), d = _mm512_loadu_si512(from + 192);
        __m512i e = _mm512_loadu_si512(from + 256), f = _mm512_loadu_si512(from + 320);
        __m512i g = _mm512_loadu_si512(from + 384), h = _mm512_loadu_si512(from + 448);
        _mm512_storeu_si512(to, a), _mm512_storeu_si512(to + 64, b);
        _mm512_storeu_si512(to + 128, c), _mm512_storeu_si512(to + 192, d);
        _mm512_storeu_si512(to + 256, e), _mm512_storeu_si512(to + 320, f);
        _mm512_storeu_si512(to + 384, g), _mm512_storeu_si512(to + 448, h);
    }
    for (; length >= 64; length -= 64, to += 64, from += 64)
        _mm512_storeu_si512(to, _mm512_loadu_si512(from));
    if (length)
        copy_tail(to, from, length);
}

/* Non-temporal, whole lines of the destination; `ahead`: PREFETCHT0 that many bytes ahead in the source, or 0. */
__attribute__((target("avx512f,avx512bw"))) static void copy_stream(uint8_t *to, const uint8_t *from, size_t length,
                                                                   size_t ahead)
{
    size_t head = -(uintptr_t)to & 63;
    if (head > length)
        head = length;
    if (head) {
        copy_tail(to, from, head);
        to += head, from += head, length -= head;
    }
    for (; length >= 256; length -= 256, to += 256, from += 256) {
        if (ahead) {
            _mm_prefetch((const char *)from + ahead, _MM_HINT_T0);
            _mm_prefetch((const char *)from + ahead + 64, _MM_HINT_T0);
            _mm_prefetch((const char *)from + ahead + 128, _MM_HINT_T0);
            _mm_prefetch((const char *)from + ahead + 192, _MM_HINT_T0);
        }
        __m512i a = _mm512_loadu_si512(from), b = _mm512_loadu_si512(from + 64);
        __m512i c = _mm512_loadu_si512(from + 128), d = _mm512_loadu_si512(from + 192);
        _mm512_stream_si512((void *)to, a), _mm512_stream_si512((void *)(to + 64), b);
        _mm512_stream_si512((void *)(to + 128), c), _mm512_stream_si512((void *)(to + 192), d);
    }
    for (; length >= 64; length -= 64, to += 64, from += 64)
        _mm512_stream_si512((void *)to, _mm512_loadu_si512(from));
    if (length)
        copy_tail(to, from, length);
}

static inline uint64_t read_xcr0(void)
{
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (uint64_t)high << 32 | low;
}

static inline int has_osxsave(void)
{
    uint32_t a = 1, b, c = 0, d;
    __asm__ volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
    return c >> 27 & 1;
}

static inline uint64_t read_tsc(void)
{
    _mm_lfence();
    return __rdtsc();
}
#else
static inline int copy_supported(int kind) { return kind == COPY_MEMCPY; }
static inline void copy_movsb(uint8_t *to, const uint8_t *from, size_t n) { memcpy(to, from, n); }
static inline void copy_vector(uint8_t *to, const uint8_t *from, size_t n) { memcpy(to, from, n); }
static inline void copy_stream(uint8_t *to, const uint8_t *from, size_t n, size_t ahead) { (void)ahead; memcpy(to, from, n); }
static inline uint64_t read_xcr0(void) { return 0; }
static inline int has_osxsave(void) { return 0; }
static inline uint64_t read_tsc(void) { return 0; }
static inline void _mm_sfence(void) {}
#endif

/* memcpy through a volatile pointer: glibc's own, whatever the compiler thinks of the size. */
static void *(*volatile glibc_memcpy)(void *, const void *, size_t) = memcpy;

static inline void copy_rows(int kind, uint8_t *to, size_t to_stride, const uint8_t *from, size_t from_stride, size_t size,
                             size_t count)
{
    void *(*copy)(void *, const void *, size_t) = glibc_memcpy;
    for (size_t i = 0; i < count; i++, to += to_stride, from += from_stride) {
        switch (kind) {
        case COPY_MEMCPY: copy(to, from, size); break;
        case COPY_MOVSB: copy_movsb(to, from, size); break;
        case COPY_VECTOR: copy_vector(to, from, size); break;
        case COPY_STREAM: copy_stream(to, from, size, 0); break;
        default: copy_stream(to, from, size, size < 16384 ? size : 4096); break;
        }
    }
    if (kind >= COPY_STREAM)
        _mm_sfence();
}

/* Reads [offset, offset + length) of a file in chunks into one buffer: open, pread until done, close. */
static inline long read_chunks(const char *path, int64_t offset, int64_t length, uint8_t *buffer, int64_t chunk)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    long total = 0;
    if (fd < 0)
        return -1;
    while (length > 0) {
        ssize_t got = pread(fd, buffer, (size_t)(length < chunk ? length : chunk), offset);
        if (got <= 0)
            break;
        total += got, offset += got, length -= got;
    }
    close(fd);
    return total;
}
/* `repeat` times: one save instruction (0 XSAVEC64, 1 XSAVEOPT64) into row i of `saves`, XRSTOR64 from row i of
 * `restores`, for all rows; ns in all. The caller's state is kept outside of the time. */
static double hardware_switches(int kind, uint8_t *saves, const uint8_t *restores, size_t stride, size_t count,
                                uint64_t mask, long repeat)
{
#if defined(__x86_64__)
    static uint8_t own[16384] __attribute__((aligned(64)));
    uint32_t low = (uint32_t)mask, high = (uint32_t)(mask >> 32);
    struct timespec begin, end;

    __asm__ volatile("xsave64 (%0)" : : "r"(own), "a"(-1), "d"(-1) : "memory");
    clock_gettime(CLOCK_MONOTONIC, &begin);
    for (long r = 0; r < repeat; r++)
        for (size_t i = 0; i < count; i++) {
            if (kind)
                __asm__ volatile("xsaveopt64 (%0)" : : "r"(saves + i * stride), "a"(low), "d"(high) : "memory");
            else
                __asm__ volatile("xsavec64 (%0)" : : "r"(saves + i * stride), "a"(low), "d"(high) : "memory");
            __asm__ volatile("xrstor64 (%0)" : : "r"(restores + i * stride), "a"(low), "d"(high) : "memory");
        }
    clock_gettime(CLOCK_MONOTONIC, &end);
    __asm__ volatile("xrstor64 (%0)" : : "r"(own), "a"(-1), "d"(-1) : "memory");
    return (double)(end.tv_sec - begin.tv_sec) * 1e9 + (double)(end.tv_nsec - begin.tv_nsec);
#else
    (void)kind, (void)saves, (void)restores, (void)stride, (void)count, (void)mask, (void)repeat;
    return 0;
#endif
}

#endif
