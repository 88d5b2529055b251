/* The timing loops of timing.h. */
#include "timing.h"
#include "assembly.h"

#include <string.h>

#define TMG_CALLER 0
#define TMG_PRIME 8
#define TMG_FIRST 16
#define TMG_SECOND 24
#define TMG_MASK 32
#define TMG_SAMPLES 40
#define TMG_BATCHES 48
#define TMG_VISITS 56
#define TMG_COUNT 64
#define TMG_FLUSH 72
#define TMG_OP 88
#define TMG_CAPS 92
#define TMG_RELOAD 96
AT(insn_timing, caller, TMG_CALLER);
AT(insn_timing, prime, TMG_PRIME);
AT(insn_timing, first, TMG_FIRST);
AT(insn_timing, second, TMG_SECOND);
AT(insn_timing, mask, TMG_MASK);
AT(insn_timing, samples, TMG_SAMPLES);
AT(insn_timing, batches, TMG_BATCHES);
AT(insn_timing, visits, TMG_VISITS);
AT(insn_timing, count, TMG_COUNT);
AT(insn_timing, flush, TMG_FLUSH);
AT(insn_timing, op, TMG_OP);
AT(insn_timing, caps, TMG_CAPS);
AT(insn_timing, reload, TMG_RELOAD);
_Static_assert(TIME_NOTHING == 0 && TIME_XSAVE == 1 && TIME_XSAVEOPT == 2 && TIME_XSAVEC == 3 && TIME_XRSTOR == 4 && TIME_FXSAVE == 5 &&
               TIME_FXRSTOR == 6 && TIME_XSAVEC_XRSTOR == 7 && TIME_XRSTOR_XSAVEOPT == 8,
               "numbers of the timed instructions");

#define MASK_TO_EDX_EAX \
    "    mov %r12d, %eax\n" \
    "    mov %r12, %rdx\n" \
    "    shr $32, %rdx\n"

/* One kind of visit: counter, `count` times the text, counter. The loops begin on a line of their own, so that none is
   luckier than another. The mask is put in place for the empty loop too. */
#define VISIT(number, text)                \
    "    cmp $" number ", %r8d\n"          \
    "    jne 4f\n"                         \
    "    rdtscp\n"                         \
    "    lfence\n"                         \
    "    shl $32, %rdx\n"                  \
    "    mov %eax, %r10d\n"                \
    "    or %rdx, %r10\n"                  \
    MASK_TO_EDX_EAX                        \
    "    jmp 3f\n"                         \
    "    .p2align 6\n"                     \
    "3:  " text                            \
    "    dec %r9\n"                        \
    "    jnz 3b\n"                         \
    "    jmp 5f\n"                         \
    "4:\n"

/* insn_time(rdi = struct insn_timing *).
   rbx caller, rbp first, rsi second, r12 mask, r13 sample, r14 batches left, r15 timing, r8d op, r9 instructions left,
   r10 counter before, r11 sum, rdi visits left. */
__asm__(
    ".text\n"
    ".p2align 6\n"
    ".globl insn_time\n.hidden insn_time\n.type insn_time, @function\n"
    "insn_time:\n"
    ENTER
    "    mov %rdi, %r15\n"
    "    mov " OF(TMG_CALLER) "(%r15), %rbx\n"
    "    mov " OF(TMG_FIRST) "(%r15), %rbp\n"
    "    mov " OF(TMG_SECOND) "(%r15), %rsi\n"
    "    mov " OF(TMG_MASK) "(%r15), %r12\n"
    "    mov " OF(TMG_SAMPLES) "(%r15), %r13\n"
    "    mov " OF(TMG_BATCHES) "(%r15), %r14\n"
    "    mov " OF(TMG_OP) "(%r15), %r8d\n"
    "    mov $-1, %eax\n"
    "    mov $-1, %edx\n"
    "    xsave64 (%rbx)\n"
    "    mov " OF(TMG_PRIME) "(%r15), %rcx\n"
    "    xrstor64 (%rcx)\n"
    "0:  xor %r11d, %r11d\n"
    "    mov " OF(TMG_VISITS) "(%r15), %rdi\n"
    "1:  mov " OF(TMG_COUNT) "(%r15), %r9\n"
    MASK_TO_EDX_EAX
    "    cmpl $0, " OF(TMG_RELOAD) "(%r15)\n"
    "    je 2f\n"
    "    xrstor64 (%rbp)\n"
    "2:  mov " OF(TMG_FLUSH) "(%r15), %rcx\n"
    "    test %rcx, %rcx\n"
    "    jz 4f\n"
    "3:  clflush -64(%rbp,%rcx)\n"
    "    clflush -64(%rsi,%rcx)\n"
    "    sub $64, %rcx\n"
    "    jnz 3b\n"
    "4:  mfence\n"
    "    lfence\n"
    VISIT("1", "xsave64 (%rbp)\n")
    VISIT("2", "xsaveopt64 (%rbp)\n")
    VISIT("3", "xsavec64 (%rbp)\n")
    VISIT("4", "xrstor64 (%rbp)\n")
    VISIT("5", "fxsave64 (%rbp)\n")
    VISIT("6", "fxrstor64 (%rbp)\n")
    VISIT("7", "xsavec64 (%rbp)\n    xrstor64 (%rsi)\n")
    VISIT("8", "xrstor64 (%rbp)\n    xsaveopt64 (%rbp)\n")
    VISIT("0", "\n")
    "5:  cmpq $0, " OF(TMG_FLUSH) "(%r15)\n"
    "    je 6f\n"
    "    mfence\n"
    "6:  rdtscp\n"
    "    lfence\n"
    "    shl $32, %rdx\n"
    "    mov %eax, %eax\n"
    "    or %rdx, %rax\n"
    "    sub %r10, %rax\n"
    "    add %rax, %r11\n"
    "    dec %rdi\n"
    "    jnz 1b\n"
    "    mov %r11, (%r13)\n"
    "    add $8, %r13\n"
    "    dec %r14\n"
    "    jnz 0b\n"
    "    testl $" OF(INSN_PKRU) ", " OF(TMG_CAPS) "(%r15)\n"
    "    jz 1f\n"
    "    xor %eax, %eax\n"
    "    xor %ecx, %ecx\n"
    "    xor %edx, %edx\n"
    "    wrpkru\n"
    "1:  mov $-1, %eax\n"
    "    mov $-1, %edx\n"
    "    xrstor64 (%rbx)\n"
    LEAVE
    "    .size insn_time, .-insn_time\n");

uint64_t insn_tsc(void)
{
    uint32_t low, high;

    __asm__ volatile("lfence\n\trdtsc\n\tlfence" : "=a"(low), "=d"(high) : : "memory");
    return (uint64_t)high << 32 | low;
}

static inline uint64_t tsc_after(void)
{
    uint32_t low, high, cpu;

    __asm__ volatile("rdtscp\n\tlfence" : "=a"(low), "=d"(high), "=c"(cpu) : : "memory");
    return (uint64_t)high << 32 | low;
}

int insn_has_rdtscp(void)
{
    uint32_t leaf[4];

    insn_cpuid(0x80000000, 0, leaf);
    if (leaf[0] < 0x80000001)
        return 0;
    insn_cpuid(0x80000001, 0, leaf);
    return leaf[3] >> 27 & 1;
}

/* Through a pointer that the compiler cannot see through: the library's function, called. */
static void *(*volatile copy)(void *, const void *, size_t) = memcpy;

void insn_time_copy(const struct insn_timing *timing)
{
    uint64_t *samples = (uint64_t *)timing->samples;
    char *to = (char *)timing->first;
    char *from = (char *)timing->second;
    void *(*move)(void *, const void *, size_t) = copy;

    for (uint64_t batch = 0; batch < timing->batches; batch++) {
        uint64_t sum = 0;
        for (uint64_t visit = 0; visit < timing->visits; visit++) {
            uint64_t start;
            for (uint64_t at = 0; at < timing->flush; at += 64)
                __asm__ volatile("clflush (%0)\n\tclflush (%1)" : : "r"(to + at), "r"(from + at) : "memory");
            __asm__ volatile("mfence\n\tlfence" : : : "memory");
            start = tsc_after();
            for (uint64_t i = 0; i < timing->count; i++)
                move(to, from, timing->size);
            if (timing->flush)
                __asm__ volatile("mfence" : : : "memory");
            sum += tsc_after() - start;
        }
        samples[batch] = sum;
    }
}
