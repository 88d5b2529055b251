/* This CPU's own instructions, for x86-64 only: what no compiler emits and no library offers.

   cpuid and xgetbv stand alone and cannot fault where insn_has_xsave() says yes. */
#ifndef XSAVE_INSN_H
#define XSAVE_INSN_H

#include <stddef.h>
#include <stdint.h>

void insn_cpuid(uint32_t leaf, uint32_t subleaf, uint32_t out[4]);
int insn_has_xsave(void);               /* CPUID.1:ECX[27], OSXSAVE: the instructions may be used */
uint64_t insn_xgetbv(uint32_t index);   /* #UD without OSXSAVE, #GP for an index that the CPU lacks */

#endif
