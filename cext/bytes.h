/* Little-endian loads and stores at any alignment: a hostile file puts its fields where it likes, so memory
 * is read by memcpy and never through a cast pointer. Hosts are little-endian (checked at compile time). */
#ifndef XSAVE_BYTES_H
#define XSAVE_BYTES_H

#include <stdint.h>
#include <string.h>

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "xsave runs on little-endian hosts only"
#endif

static inline uint16_t load_le16(const void *p) { uint16_t v; memcpy(&v, p, 2); return v; }
static inline uint32_t load_le32(const void *p) { uint32_t v; memcpy(&v, p, 4); return v; }
static inline uint64_t load_le64(const void *p) { uint64_t v; memcpy(&v, p, 8); return v; }
static inline void store_le16(void *p, uint16_t v) { memcpy(p, &v, 2); }
static inline void store_le32(void *p, uint32_t v) { memcpy(p, &v, 4); }
static inline void store_le64(void *p, uint64_t v) { memcpy(p, &v, 8); }

/* Index of the lowest set bit of a non-zero mask. */
static inline int lowest_bit(uint64_t mask) { return __builtin_ctzll(mask); }

/* `count` bytes as twice as many hex digits, four bytes at a time. */
static inline void store_hex(uint8_t *out, const uint8_t *data, size_t count)
{
    size_t i = 0;
    for (; i + 4 <= count; i += 4) {
        uint64_t x = load_le32(data + i);
        x = (x | x << 16) & UINT64_C(0x0000FFFF0000FFFF);
        x = (x | x << 8) & UINT64_C(0x00FF00FF00FF00FF);
        x = (x >> 4 & UINT64_C(0x000F000F000F000F)) | (x & UINT64_C(0x000F000F000F000F)) << 8;
        x += UINT64_C(0x3030303030303030) + ((x + UINT64_C(0x0606060606060606)) >> 4 & UINT64_C(0x0101010101010101)) * 39;
        memcpy(out + 2 * i, &x, 8);
    }
    for (; i < count; i++) {
        out[2 * i] = (uint8_t)"0123456789abcdef"[data[i] >> 4];
        out[2 * i + 1] = (uint8_t)"0123456789abcdef"[data[i] & 15];
    }
}

#endif
