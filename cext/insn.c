/* The instructions and the assembly around them; see insn.h. The guard is in guard.c. */
#include "assembly.h"
#include "insn.h"

#include <pthread.h>

/* Offsets for the assembly; checked against the structures below. */
#define RUN_CALLER 0
#define RUN_PRIME 8
#define RUN_IMAGE 16
#define RUN_RESTORE_MASK 24
#define RUN_OUT 32
#define RUN_SAVE_MASK 40
#define RUN_REGISTERS 48
#define RUN_TILECONF 56
#define RUN_XINUSE 64
#define RUN_RESTORE 72
#define RUN_SAVE 76
#define RUN_CAPS 80
#define FILE_APX 512
#define FILE_K (FILE_APX + 16 * 8)
#define FILE_TILECFG (FILE_K + 8 * 8)
#define FILE_OTHER (FILE_TILECFG + 64)
#define FILE_ZMM (FILE_OTHER + 64)
#define FILE_TMM (FILE_ZMM + 32 * 64)
#define POST_REGISTERS 0
#define POST_READY 8
#define POST_ORDER 16
#define POST_CAPS 24
#define POST_FLAGS 28

AT(insn_run, caller, RUN_CALLER);
AT(insn_run, prime, RUN_PRIME);
AT(insn_run, image, RUN_IMAGE);
AT(insn_run, restore_mask, RUN_RESTORE_MASK);
AT(insn_run, out, RUN_OUT);
AT(insn_run, save_mask, RUN_SAVE_MASK);
AT(insn_run, registers, RUN_REGISTERS);
AT(insn_run, tileconf, RUN_TILECONF);
AT(insn_run, xinuse, RUN_XINUSE);
AT(insn_run, restore, RUN_RESTORE);
AT(insn_run, save, RUN_SAVE);
AT(insn_run, caps, RUN_CAPS);
AT(insn_registers, apx, FILE_APX);
AT(insn_registers, k, FILE_K);
AT(insn_registers, tilecfg, FILE_TILECFG);
AT(insn_registers, other, FILE_OTHER);
AT(insn_registers, zmm, FILE_ZMM);
AT(insn_registers, tmm, FILE_TMM);
AT(insn_post, registers, POST_REGISTERS);
AT(insn_post, ready, POST_READY);
AT(insn_post, order, POST_ORDER);
AT(insn_post, caps, POST_CAPS);
AT(insn_post, flags, POST_FLAGS);

/* The enumerators as numbers, for the preprocessor. */
#define XSAVE64_ 1
#define XSAVEC64_ 2
#define XSAVEOPT64_ 3
#define FXSAVE64_ 4
#define XSAVES64_ 5
#define XSAVE_ 6
#define XSAVEC_ 7
#define XSAVEOPT_ 8
#define FXSAVE_ 9
#define XSAVES_ 10
#define XRSTOR64_ 1
#define FXRSTOR64_ 2
#define XRSTORS64_ 3
#define XRSTOR_ 4
#define FXRSTOR_ 5
#define XRSTORS_ 6
_Static_assert(INSN_XSAVE64 == XSAVE64_ && INSN_XSAVEC64 == XSAVEC64_ && INSN_XSAVEOPT64 == XSAVEOPT64_ &&
               INSN_FXSAVE64 == FXSAVE64_ && INSN_XSAVES64 == XSAVES64_ && INSN_XSAVE == XSAVE_ &&
               INSN_XSAVEC == XSAVEC_ && INSN_XSAVEOPT == XSAVEOPT_ && INSN_FXSAVE == FXSAVE_ &&
               INSN_XSAVES == XSAVES_ && INSN_XRSTOR64 == XRSTOR64_ && INSN_FXRSTOR64 == FXRSTOR64_ &&
               INSN_XRSTORS64 == XRSTORS64_ && INSN_XRSTOR == XRSTOR_ && INSN_FXRSTOR == FXRSTOR_ &&
               INSN_XRSTORS == XRSTORS_, "numbers of the instructions");

#define EACH(numbers, text) ".irp i," numbers "\n\t" text "\n.endr\n"
/* mov between r16+i and FILE_APX+8*i(%rbp), for assemblers without APX: REX2 (D5H; W, R4, and R3 for the upper
   eight), opcode, ModRM, a 32-bit displacement */
#define EACH_APX(opcode)                                                                                               \
    EACH(N16, ".byte 0xd5, 0x48 | ((\\i >> 3) << 2), " opcode ", 0x85 | ((\\i & 7) << 3)\n\t.long " OF(FILE_APX) "+8*\\i")

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

static struct insn_machine machine;

static void enumerate(void)
{
    uint32_t max[4], leaf[4], compacted[4];

    insn_cpuid(0, 0, max);
    if (!insn_has_xsave() || max[0] < 0xD)
        return;
    machine.xcr0 = insn_xgetbv(0);
    insn_cpuid(0xD, 0, leaf);
    insn_cpuid(0xD, 1, compacted);
    machine.features = compacted[0];
    /* EBX: the standard size of XCR0, and the compacted one of XCR0 | IA32_XSS */
    machine.area_size = leaf[1] > compacted[1] ? leaf[1] : compacted[1];
    machine.area_size = (machine.area_size + 63) / 64 * 64;
    machine.caps = compacted[0] & 4 ? INSN_XGETBV1 : 0;
    if (machine.xcr0 >> 2 & 1)
        machine.caps |= INSN_AVX;
    insn_cpuid(7, 0, leaf);
    if ((machine.xcr0 >> 5 & 7) == 7)
        machine.caps |= INSN_AVX512 | (leaf[1] >> 30 & 1 ? INSN_KMOVQ : 0);
    if (machine.xcr0 >> 9 & leaf[2] >> 4 & 1)
        machine.caps |= INSN_PKRU;
    if ((machine.xcr0 >> 17 & 3) == 3 && leaf[3] >> 24 & 1) {
        machine.caps |= INSN_TILECFG;
        insn_cpuid(0xD, 17, leaf);
        machine.tilecfg_offset = leaf[1];
    }
    if (machine.xcr0 >> 19 & 1)
        machine.caps |= INSN_APX;
}

const struct insn_machine *insn_this_cpu(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;

    pthread_once(&once, enumerate); /* CPUID is a VM exit: asked once */
    return &machine;
}

static const uint8_t blank[576] __attribute__((aligned(64)));

void insn_save(uint32_t save, uint64_t mask, void *area)
{
    uint32_t low = (uint32_t)mask, high = (uint32_t)(mask >> 32);

    switch (save) {
    case INSN_XSAVE64:
        __asm__ volatile("xsave64 (%0)" : : "r"(area), "a"(low), "d"(high) : "memory");
        break;
    case INSN_XSAVEC64:
        __asm__ volatile("xsavec64 (%0)" : : "r"(area), "a"(low), "d"(high) : "memory");
        break;
    case INSN_XSAVEOPT64:
        /* An XRSTOR with RFBM 0 loads nothing, and ends what the CPU remembers of an earlier XRSTOR from this very
           address: XSAVEOPT would leave out what was not modified since (SDM1 13.6). */
        __asm__ volatile("xrstor64 (%0)" : : "r"(blank), "a"(0), "d"(0) : "memory");
        __asm__ volatile("xsaveopt64 (%0)" : : "r"(area), "a"(low), "d"(high) : "memory");
        break;
    }
}

/* insn_transit(rdi = struct insn_run *). A guarded instruction that faults continues at the next stage (a failed
   prime load: at insn_done); the handler in guard.c finds the run in r15 and the stage by these labels.
   From the restore on nothing but the instruction under test touches memory, and nothing at all a vector, x87,
   opmask or tile register: an image may hold a PKRU that closes this very memory, so whatever is needed waits in
   general registers, and PKRU is opened before the caller's area is read.
   rbx caller, rbp registers, rsi image, r8 xinuse, r9 restore mask, r10d restore, r11d save, r12 out,
   r13 save mask, r14d caps, r15 run. */
__asm__(
    ".text\n"
    ".p2align 4\n"
    ".globl insn_transit\n.hidden insn_transit\n.type insn_transit, @function\n"
    ".globl insn_prime_begin\n.hidden insn_prime_begin\n.globl insn_prime_end\n.hidden insn_prime_end\n"
    ".globl insn_restore_begin\n.hidden insn_restore_begin\n.globl insn_restore_end\n.hidden insn_restore_end\n"
    ".globl insn_save_begin\n.hidden insn_save_begin\n.globl insn_save_end\n.hidden insn_save_end\n"
    ".globl insn_read_begin\n.hidden insn_read_begin\n.globl insn_done\n.hidden insn_done\n"
    "insn_transit:\n"
    ENTER
    "    mov %rdi, %r15\n"
    "    mov " OF(RUN_CALLER) "(%r15), %rbx\n"
    "    mov " OF(RUN_REGISTERS) "(%r15), %rbp\n"
    "    mov " OF(RUN_IMAGE) "(%r15), %rsi\n"
    "    mov " OF(RUN_RESTORE_MASK) "(%r15), %r9\n"
    "    mov " OF(RUN_RESTORE) "(%r15), %r10d\n"
    "    mov " OF(RUN_SAVE) "(%r15), %r11d\n"
    "    mov " OF(RUN_OUT) "(%r15), %r12\n"
    "    mov " OF(RUN_SAVE_MASK) "(%r15), %r13\n"
    "    mov " OF(RUN_CAPS) "(%r15), %r14d\n"
    "    mov " OF(RUN_PRIME) "(%r15), %rdi\n"
    "    xor %r8d, %r8d\n"
    "    mov $-1, %eax\n"
    "    mov $-1, %edx\n"
    "    xsave64 (%rbx)\n"
    "    test %rdi, %rdi\n"
    "    jz insn_prime_end\n"
    "insn_prime_begin:\n"
    "    xrstor64 (%rdi)\n"
    "insn_prime_end:\n"
    "    mov %r9d, %eax\n"
    "    mov %r9, %rdx\n"
    "    shr $32, %rdx\n"
    "insn_restore_begin:\n"
    "    cmp $" OF(XRSTOR64_) ", %r10d\n    jne 1f\n    xrstor64 (%rsi)\n"
    "1:  cmp $" OF(FXRSTOR64_) ", %r10d\n    jne 1f\n    fxrstor64 (%rsi)\n"
    "1:  cmp $" OF(XRSTORS64_) ", %r10d\n    jne 1f\n    xrstors64 (%rsi)\n"
    "1:  cmp $" OF(XRSTOR_) ", %r10d\n    jne 1f\n    xrstor (%rsi)\n"
    "1:  cmp $" OF(FXRSTOR_) ", %r10d\n    jne 1f\n    fxrstor (%rsi)\n"
    "1:  cmp $" OF(XRSTORS_) ", %r10d\n    jne insn_restore_end\n    xrstors (%rsi)\n"
    "insn_restore_end:\n"
    "    test $" OF(INSN_XGETBV1) ", %r14d\n"
    "    jz 1f\n"
    "    mov $1, %ecx\n"
    "    xgetbv\n"
    "    shl $32, %rdx\n"
    "    mov %eax, %r8d\n"
    "    or %rdx, %r8\n"
    "1:  mov %r13d, %eax\n"
    "    mov %r13, %rdx\n"
    "    shr $32, %rdx\n"
    "insn_save_begin:\n"
    "    cmp $" OF(XSAVE64_) ", %r11d\n    jne 1f\n    xsave64 (%r12)\n"
    "1:  cmp $" OF(XSAVEC64_) ", %r11d\n    jne 1f\n    xsavec64 (%r12)\n"
    "1:  cmp $" OF(XSAVEOPT64_) ", %r11d\n    jne 1f\n    xsaveopt64 (%r12)\n"
    "1:  cmp $" OF(FXSAVE64_) ", %r11d\n    jne 1f\n    fxsave64 (%r12)\n"
    "1:  cmp $" OF(XSAVES64_) ", %r11d\n    jne 1f\n    xsaves64 (%r12)\n"
    "1:  cmp $" OF(XSAVE_) ", %r11d\n    jne 1f\n    xsave (%r12)\n"
    "1:  cmp $" OF(XSAVEC_) ", %r11d\n    jne 1f\n    xsavec (%r12)\n"
    "1:  cmp $" OF(XSAVEOPT_) ", %r11d\n    jne 1f\n    xsaveopt (%r12)\n"
    "1:  cmp $" OF(FXSAVE_) ", %r11d\n    jne 1f\n    fxsave (%r12)\n"
    "1:  cmp $" OF(XSAVES_) ", %r11d\n    jne insn_save_end\n    xsaves (%r12)\n"
    "insn_save_end:\n"
    "    test %rbp, %rbp\n"
    "    jz insn_done\n"
    "insn_read_begin:\n"
    "    test $" OF(INSN_PKRU) ", %r14d\n"
    "    jz 1f\n"
    "    xor %ecx, %ecx\n"
    "    rdpkru\n"
    "    mov %eax, %esi\n"
    "    xor %eax, %eax\n"
    "    xor %edx, %edx\n"
    "    wrpkru\n"
    "    mov %esi, " OF(FILE_OTHER) "+4(%rbp)\n"
    "1:  fxsave64 (%rbp)\n"
    "    stmxcsr " OF(FILE_OTHER) "(%rbp)\n"
    "    test $" OF(INSN_AVX512) ", %r14d\n"
    "    jz 1f\n"
    EACH(N32, "vmovdqu64 %zmm\\i, " OF(FILE_ZMM) "+64*\\i(%rbp)")
    "    jmp 3f\n"
    "1:  test $" OF(INSN_AVX) ", %r14d\n"
    "    jz 2f\n"
    EACH(N16, "vmovdqu %ymm\\i, " OF(FILE_ZMM) "+64*\\i(%rbp)")
    "    jmp 3f\n"
    "2:\n"
    EACH(N16, "movups %xmm\\i, " OF(FILE_ZMM) "+64*\\i(%rbp)")
    "3:  test $" OF(INSN_KMOVQ) ", %r14d\n"
    "    jz 1f\n"
    EACH(N8, "kmovq %k\\i, " OF(FILE_K) "+8*\\i(%rbp)")
    "    jmp 2f\n"
    "1:  test $" OF(INSN_AVX512) ", %r14d\n"
    "    jz 2f\n"
    EACH(N8, "kmovw %k\\i, " OF(FILE_K) "+8*\\i(%rbp)")
    "2:  test $" OF(INSN_APX) ", %r14d\n"
    "    jz 1f\n"
    EACH_APX("0x89")
    "1:  test $" OF(INSN_TILECFG) ", %r14d\n"
    "    jz 1f\n"
    "    sttilecfg " OF(FILE_TILECFG) "(%rbp)\n"
    "    test $" OF(INSN_TILES) ", %r14d\n"
    "    jz 1f\n"
    /* XRSTOR of TILECFG alone makes all tiles whole and keeps their data, which LDTILECFG would zero (SDM1 13.5.14) */
    "    mov " OF(RUN_TILECONF) "(%r15), %rdi\n"
    "    mov $0x20000, %eax\n"
    "    xor %edx, %edx\n"
    "    xrstor64 (%rdi)\n"
    "    mov $64, %ecx\n"
    EACH(N8, "tilestored %tmm\\i, " OF(FILE_TMM) "+1024*\\i(%rbp,%rcx,1)")
    "1:\n"
    "insn_done:\n"
    "    test $" OF(INSN_PKRU) ", %r14d\n"
    "    jz 1f\n"
    "    xor %eax, %eax\n"
    "    xor %ecx, %ecx\n"
    "    xor %edx, %edx\n"
    "    wrpkru\n"
    "1:  mov %r8, " OF(RUN_XINUSE) "(%r15)\n"
    "    mov $-1, %eax\n"
    "    mov $-1, %edx\n"
    "    xrstor64 (%rbx)\n"
    LEAVE
    "    .size insn_transit, .-insn_transit\n");

/* insn_occupy(rdi = struct insn_post *): loads the register file by plain moves, counts itself ready, and waits
   with the registers live. FUTEX_WAIT touches rax, rcx and r11 only.
   rbp registers, r12 order, r13 ready, r14d caps, ebx flags. */
__asm__(
    ".text\n"
    ".p2align 4\n"
    ".globl insn_occupy\n.hidden insn_occupy\n.type insn_occupy, @function\n"
    "insn_occupy:\n"
    "    .cfi_startproc\n"
    "    .cfi_undefined %rip\n"
    "    endbr64\n"
    "    mov " OF(POST_REGISTERS) "(%rdi), %rbp\n"
    "    mov " OF(POST_ORDER) "(%rdi), %r12\n"
    "    mov " OF(POST_READY) "(%rdi), %r13\n"
    "    mov " OF(POST_CAPS) "(%rdi), %r14d\n"
    "    mov " OF(POST_FLAGS) "(%rdi), %ebx\n"
    "    test $" OF(INSN_TILES) ", %r14d\n"
    "    jz 1f\n"
    "    ldtilecfg " OF(FILE_TILECFG) "(%rbp)\n"
    "    mov $64, %ecx\n"
    EACH(N8, "tileloadd " OF(FILE_TMM) "+1024*\\i(%rbp,%rcx,1), %tmm\\i")
    "1:  test $" OF(INSN_AVX512) ", %r14d\n"
    "    jz 1f\n"
    EACH(N32, "vmovdqu64 " OF(FILE_ZMM) "+64*\\i(%rbp), %zmm\\i")
    "    jmp 3f\n"
    "1:  test $" OF(INSN_AVX) ", %r14d\n"
    "    jz 2f\n"
    EACH(N16, "vmovdqu " OF(FILE_ZMM) "+64*\\i(%rbp), %ymm\\i")
    "    jmp 3f\n"
    "2:\n"
    EACH(N16, "movups " OF(FILE_ZMM) "+64*\\i(%rbp), %xmm\\i")
    "3:  test $" OF(INSN_KMOVQ) ", %r14d\n"
    "    jz 1f\n"
    EACH(N8, "kmovq " OF(FILE_K) "+8*\\i(%rbp), %k\\i")
    "    jmp 2f\n"
    "1:  test $" OF(INSN_AVX512) ", %r14d\n"
    "    jz 2f\n"
    EACH(N8, "kmovw " OF(FILE_K) "+8*\\i(%rbp), %k\\i")
    "2:  test $" OF(INSN_APX) ", %r14d\n"
    "    jz 1f\n"
    EACH_APX("0x8b")
    "1:  fninit\n"
    EACH("7,6,5,4,3,2,1,0", "fldt 32+16*\\i(%rbp)")
    "    fldcw (%rbp)\n"
    "    ldmxcsr 24(%rbp)\n"
    "    test $" OF(INSN_PKRU) ", %r14d\n"
    "    jz 1f\n"
    "    mov " OF(FILE_OTHER) "+4(%rbp), %eax\n"
    "    xor %ecx, %ecx\n"
    "    xor %edx, %edx\n"
    "    wrpkru\n"
    "1:  lock incl (%r13)\n"
    "2:  mov (%r12), %edx\n"
    "    cmp $1, %edx\n"
    "    jne 3f\n"
    "    test $" OF(INSN_POST_CRASHES) ", %ebx\n"
    "    jz 3f\n"
    "    ud2\n"
    "3:  test $" OF(INSN_POST_SPINS) ", %ebx\n"
    "    jz 4f\n"
    "    pause\n"
    "    jmp 2b\n"
    "4:  mov %r12, %rdi\n"           /* futex(order, FUTEX_WAIT, the value just read, no timeout) */
    "    xor %esi, %esi\n"
    "    xor %r10d, %r10d\n"
    "    mov $202, %eax\n"
    "    syscall\n"
    "    jmp 2b\n"
    "    .cfi_endproc\n"
    "    .size insn_occupy, .-insn_occupy\n"
    /* insn_clone_into(rdi = post, rsi = stack top): a raw clone, since a child of fork in a threaded process, or one
       that is instrumented, had better not start threads through its C library. The new thread never calls any code.
       Flags: VM FS FILES SIGHAND THREAD SYSVSEM. */
    ".p2align 4\n"
    ".globl insn_clone_into\n.hidden insn_clone_into\n.type insn_clone_into, @function\n"
    "insn_clone_into:\n"
    "    .cfi_startproc\n"
    "    endbr64\n"
    "    mov %rdi, %r9\n"
    "    mov $0x50f00, %edi\n"
    "    xor %edx, %edx\n"
    "    xor %r10d, %r10d\n"
    "    xor %r8d, %r8d\n"
    "    mov $56, %eax\n"
    "    syscall\n"
    "    test %rax, %rax\n"
    "    jz 1f\n"
    "    ret\n"
    "1:  mov %r9, %rdi\n"
    "    jmp insn_occupy\n"
    "    .cfi_endproc\n"
    "    .size insn_clone_into, .-insn_clone_into\n");
