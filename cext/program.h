/* A program of single instructions on one thread's registers, for x86-64 only.

   insn_program saves the caller's state, loads a standard image, executes the steps one after the other, writes the
   whole state that they left with XSAVE64, and puts the caller's state back, in one piece of assembly: nothing else
   touches a vector, x87, opmask or tile register in between. It runs under the guard of insn.h; a step that faults is
   written down and ends the program. What the fault left is then in `after`, as the kernel's signal return brought it
   back: XSTATE_BV bits 0 and 1 set, and on some CPUs XINUSE settled by contents.

   PKRU: no image may close the memory of the program itself (key 0). */
#ifndef XSAVE_PROGRAM_H
#define XSAVE_PROGRAM_H

#include "insn.h"

/* The steps. Those of the first group have a memory operand at `at` and EDX:EAX = `mask`; STEP_STACK added, it is
   addressed through SS. */
enum insn_op {
    STEP_XSAVE64, STEP_XSAVEOPT64, STEP_XSAVEC64, STEP_XSAVES64, STEP_XRSTOR64, STEP_XRSTORS64, STEP_FXSAVE64, STEP_FXRSTOR64,
    STEP_XSAVE, STEP_XSAVEOPT, STEP_XSAVEC, STEP_XSAVES, STEP_XRSTOR, STEP_XRSTORS, STEP_FXSAVE, STEP_FXRSTOR,
    STEP_STACK,                    /* 16 to 31: the same */
    STEP_LDTILECFG = 32, STEP_STTILECFG, STEP_TILERELEASE,
    STEP_LDMXCSR, STEP_STMXCSR, STEP_VZEROUPPER, STEP_VZEROALL, STEP_FNINIT, STEP_FNOP, STEP_EMMS, STEP_FNSTCW, STEP_FLDCW,
    STEP_XGETBV,                   /* ECX = mask; `result` */
    STEP_WITH_REGISTER,            /* from here on `reg` counts */
    STEP_SSE = STEP_WITH_REGISTER, /* movups xmm0-15 */
    STEP_VEX128, STEP_VEX256,      /* vmovups xmm, ymm 0-15 */
    STEP_EVEX512,                  /* vmovdqu64 zmm0-31 */
    STEP_EVEX128, STEP_EVEX256,    /* xmm, ymm 0-31 */
    STEP_KMOV,                     /* kmovw k0-7 */
    STEP_READ_SSE,                 /* movups to memory */
    STEP_FLD,                      /* fldt */
    STEP_TILELOADD, STEP_TILELOADDT1, STEP_TILESTORED, /* stride = mask */
    STEP_TILEZERO,
    STEP_COUNT
};

struct insn_step {
    uint32_t op;
    uint32_t reg;
    uint64_t mask;
    uint64_t at;
    uint64_t result;
};

struct insn_program {
    uint64_t caller; /* area for the caller's state: 64-byte aligned, header zero */
    uint64_t prime;  /* standard image loaded first with the whole XCR0, or 0 */
    uint64_t step;   /* struct insn_step *: the first; afterwards the one that faulted, or the end */
    uint64_t last;   /* struct insn_step *: the last */
    uint64_t after;  /* standard area of the whole XCR0 for the state at the end, or 0 */
    uint64_t xinuse_prime;
    uint64_t xinuse_last; /* XGETBV(1) before the last step */
    uint64_t xinuse_after;
    uint32_t caps;
    uint32_t align_check; /* EFLAGS.AC is set during the steps */
    struct insn_trap trap;
};

void insn_program(struct insn_program *program);

/* Memory with edges: `pages` pages between two that are not there, once as the instructions see it and once, at
   `alias`, all of it to be written. Of the view, page `hole` is not there either (pages: none). */
struct insn_arena {
    uint8_t *view;
    uint8_t *alias;
    size_t pages;
};
int insn_arena_make(struct insn_arena *arena, size_t pages, size_t hole, int read_only); /* 0 or an errno */
void insn_arena_free(struct insn_arena *arena);

#endif
