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

#endif
