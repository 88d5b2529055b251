/* What one instruction of the XSAVE family takes, in ticks of the time-stamp counter, for x86-64 only.

   insn_time saves the caller's state, loads a standard image, times batches, and puts the caller's state back, in one
   piece of assembly: nothing but the timed instructions touches a vector, x87, opmask or tile register in between.

   A batch is `visits` visits of `count` instructions each, back to back on the same area. A visit first makes its area
   what it is to be (`reload`: loaded by XRSTOR, so that nothing is modified since; `flush`: that many bytes of both
   areas thrown out of every cache), then waits until all of that is done, reads the counter, executes, waits until the
   last instruction is done and reads again: MFENCE, LFENCE, RDTSCP, LFENCE; RDTSCP, LFENCE. After a flush the second
   read waits for the stores too (MFENCE): what fits into the store buffer would else cost nothing, and the next byte
   all of it. A batch's sample is the sum over its visits.

   There is no fault guard here: the caller has executed the same instructions on the same images before, under the one
   of insn.h. PKRU: no image may close the memory of this program itself (key 0). */
#ifndef XSAVE_TIMING_H
#define XSAVE_TIMING_H

#include "insn.h"

/* TIME_NOTHING is the loop alone. In a pair of XSAVEC and XRSTOR they have an area each, in one of XRSTOR and XSAVEOPT
   the same. */
enum insn_timed { TIME_NOTHING, TIME_XSAVE, TIME_XSAVEOPT, TIME_XSAVEC, TIME_XRSTOR, TIME_FXSAVE, TIME_FXRSTOR,
                  TIME_XSAVEC_XRSTOR, TIME_XRSTOR_XSAVEOPT, TIME_MEMCPY };

struct insn_timing {
    uint64_t caller;  /* area for the caller's state: 64-byte aligned, header zero */
    uint64_t prime;   /* standard image loaded first with the whole XCR0 */
    uint64_t first;   /* the area of the instruction; where memcpy writes */
    uint64_t second;  /* the area of a pair's XRSTOR; what memcpy reads; never 0 */
    uint64_t mask;    /* EDX:EAX */
    uint64_t samples; /* uint64_t *: ticks of each batch */
    uint64_t batches;
    uint64_t visits;
    uint64_t count;
    uint64_t flush;   /* bytes, a multiple of 64, or 0 */
    uint64_t size;    /* bytes that memcpy moves */
    uint32_t op;
    uint32_t caps;
    uint32_t reload;  /* each visit begins with XRSTOR of `first` */
    uint32_t unused;
};

void insn_time(const struct insn_timing *timing);      /* all but TIME_MEMCPY */
void insn_time_copy(const struct insn_timing *timing); /* TIME_MEMCPY: this libc's, with the state that is there */
int insn_has_rdtscp(void);
uint64_t insn_tsc(void);

#endif
