#include "insn.h"

void insn_cpuid(uint32_t leaf, uint32_t subleaf, uint32_t out[4])
{
    __asm__ volatile("cpuid" : "=a"(out[0]), "=b"(out[1]), "=c"(out[2]), "=d"(out[3]) : "a"(leaf), "c"(subleaf));
}

int insn_has_xsave(void)
{
    uint32_t leaf[4];

    insn_cpuid(1, 0, leaf);
    return leaf[2] >> 27 & 1;
}

uint64_t insn_xgetbv(uint32_t index)
{
    uint32_t low, high;

    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(index));
    return (uint64_t)high << 32 | low;
}
