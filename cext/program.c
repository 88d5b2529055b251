/* The assembly of program.h. */
#define _GNU_SOURCE
#include "program.h"
#include "assembly.h"

#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

#define PRG_CALLER 0
#define PRG_PRIME 8
#define PRG_STEP 16
#define PRG_LAST 24
#define PRG_AFTER 32
#define PRG_XINUSE_PRIME 40
#define PRG_XINUSE_LAST 48
#define PRG_XINUSE_AFTER 56
#define PRG_CAPS 64
#define PRG_ALIGN_CHECK 68
#define STEP_SIZE 32
AT(insn_program, caller, PRG_CALLER);
AT(insn_program, prime, PRG_PRIME);
AT(insn_program, step, PRG_STEP);
AT(insn_program, last, PRG_LAST);
AT(insn_program, after, PRG_AFTER);
AT(insn_program, xinuse_prime, PRG_XINUSE_PRIME);
AT(insn_program, xinuse_last, PRG_XINUSE_LAST);
AT(insn_program, xinuse_after, PRG_XINUSE_AFTER);
AT(insn_program, caps, PRG_CAPS);
AT(insn_program, align_check, PRG_ALIGN_CHECK);
AT(insn_step, reg, 4);
AT(insn_step, mask, 8);
AT(insn_step, at, 16);
AT(insn_step, result, 24);
_Static_assert(sizeof(struct insn_step) == STEP_SIZE, "size of a step");
_Static_assert(STEP_STACK == 16 && STEP_LDTILECFG == 32 && STEP_XGETBV == 44 && STEP_SSE == 45 && STEP_COUNT == 58,
               "the table below has the steps in this order");

/* One slot of 16 bytes: an instruction and the way on. A slot is what a table entry or a register number chooses. */
#define SLOT(text) ".p2align 4\n    " text "\n    jmp insn_steps_next\n    int3\n"
/* A step whose register chooses among slots. */
#define SLOTS(name, numbers, text) ".p2align 4\n" name ":\n.irp i," numbers "\n    .p2align 4\n    " text "\n    jmp insn_steps_next\n    int3\n.endr\n"
#define FAMILY(base)                                                                                                  \
    SLOT("xsave64 (" base ")") SLOT("xsaveopt64 (" base ")") SLOT("xsavec64 (" base ")") SLOT("xsaves64 (" base ")")  \
    SLOT("xrstor64 (" base ")") SLOT("xrstors64 (" base ")") SLOT("fxsave64 (" base ")") SLOT("fxrstor64 (" base ")") \
    SLOT("xsave (" base ")") SLOT("xsaveopt (" base ")") SLOT("xsavec (" base ")") SLOT("xsaves (" base ")")          \
    SLOT("xrstor (" base ")") SLOT("xrstors (" base ")") SLOT("fxsave (" base ")") SLOT("fxrstor (" base ")")
/* VEX.128 0F38: pp (0 none, 1 66, 2 F3, 3 F2), opcode, ModRM and what follows; for assemblers without AMX. */
#define VEX38(pp, opcode, rest) ".byte 0xc4, 0xe2, 0x78 + " pp ", " opcode ", " rest
#define REGISTER(name) ".p2align 4\n    lea " name "(%rip), %r9\n    jmp insn_steps_register\n"
#define KEEP(field) "    test $" OF(INSN_XGETBV1) ", %r14d\n    jz 9f\n    mov $1, %ecx\n    xgetbv\n"                 \
    "    mov %eax, " OF(field) "(%r15)\n    mov %edx, " OF(field) "+4(%r15)\n9:\n"

/* To r9 without a guess: what is executed by mistake can count as a use of registers, and is not taken back. */
#define JUMP "    call 2f\n1:  pause\n    lfence\n    jmp 1b\n2:  mov %r9, (%rsp)\n    ret\n    int3\n"

/* rbx caller, r12 step, r13 last step, r14d caps, r15 program, rsi and rbp operand, rax rcx rdx r8-r10 free. */
__asm__(
    ".text\n"
    ".p2align 6\n"
    ".globl insn_program\n.hidden insn_program\n.type insn_program, @function\n"
    ".globl insn_program_prime\n.hidden insn_program_prime\n.globl insn_steps_begin\n.hidden insn_steps_begin\n"
    ".globl insn_steps_end\n.hidden insn_steps_end\n.globl insn_program_stop\n.hidden insn_program_stop\n"
    "insn_program:\n"
    ENTER
    "    mov %rdi, %r15\n"
    "    mov " OF(PRG_CALLER) "(%r15), %rbx\n"
    "    mov " OF(PRG_STEP) "(%r15), %r12\n"
    "    mov " OF(PRG_LAST) "(%r15), %r13\n"
    "    mov " OF(PRG_CAPS) "(%r15), %r14d\n"
    "    mov " OF(PRG_PRIME) "(%r15), %rsi\n"
    "    mov $-1, %eax\n"
    "    mov $-1, %edx\n"
    "    xsave64 (%rbx)\n"
    "    test %rsi, %rsi\n"
    "    jz 1f\n"
    "insn_program_prime:\n"
    "    xrstor64 (%rsi)\n"
    "1:\n" KEEP(PRG_XINUSE_PRIME)
    "    cmpl $0, " OF(PRG_ALIGN_CHECK) "(%r15)\n"
    "    je 1f\n"
    "    pushfq\n"
    "    orl $0x40000, (%rsp)\n"
    "    popfq\n"
    "1:  jmp insn_steps_check\n"
    ".p2align 4\n"
    "insn_steps_begin:\n"
    "insn_steps_next:\n"
    "    add $" OF(STEP_SIZE) ", %r12\n"
    "insn_steps_check:\n"
    "    cmp %r13, %r12\n"
    "    ja insn_steps_end\n"
    "    jb 1f\n"
    KEEP(PRG_XINUSE_LAST)
    "1:  mov (%r12), %ecx\n"
    "    mov 8(%r12), %eax\n"
    "    mov 12(%r12), %edx\n"
    "    mov 16(%r12), %rsi\n"
    "    mov %rsi, %rbp\n"
    "    shl $4, %ecx\n"
    "    lea insn_steps_table(%rip), %r9\n"
    "    add %rcx, %r9\n"
    JUMP
    ".p2align 4\n"
    "insn_steps_register:\n"
    "    mov 4(%r12), %ecx\n"
    "    shl $4, %ecx\n"
    "    add %rcx, %r9\n"
    "    mov 8(%r12), %rcx\n"
    JUMP
    ".p2align 4\n"
    "insn_steps_table:\n"
    FAMILY("%rsi")
    FAMILY("%rbp")
    SLOT(VEX38("0", "0x49", "0x06"))   /* ldtilecfg (rsi) */
    SLOT(VEX38("1", "0x49", "0x06"))   /* sttilecfg (rsi) */
    SLOT(VEX38("0", "0x49", "0xc0"))   /* tilerelease */
    SLOT("ldmxcsr (%rsi)") SLOT("stmxcsr (%rsi)") SLOT("vzeroupper") SLOT("vzeroall") SLOT("fninit") SLOT("fnop")
    SLOT("emms") SLOT("fnstcw (%rsi)") SLOT("fldcw (%rsi)")
    ".p2align 4\n    jmp insn_steps_xgetbv\n"
    REGISTER("insn_steps_sse") REGISTER("insn_steps_vex128") REGISTER("insn_steps_vex256")
    REGISTER("insn_steps_evex512") REGISTER("insn_steps_evex128") REGISTER("insn_steps_evex256")
    REGISTER("insn_steps_kmov") REGISTER("insn_steps_read") REGISTER("insn_steps_fld")
    REGISTER("insn_steps_tileload") REGISTER("insn_steps_tileloadt1") REGISTER("insn_steps_tilestore")
    REGISTER("insn_steps_tilezero")
    ".p2align 4\n"
    "insn_steps_xgetbv:\n"
    "    mov %eax, %ecx\n"
    "    xgetbv\n"
    "    mov %eax, 24(%r12)\n"
    "    mov %edx, 28(%r12)\n"
    "    jmp insn_steps_next\n"
    SLOTS("insn_steps_sse", N16, "movups (%rsi), %xmm\\i")
    SLOTS("insn_steps_vex128", N16, "vmovups (%rsi), %xmm\\i")
    SLOTS("insn_steps_vex256", N16, "vmovups (%rsi), %ymm\\i")
    SLOTS("insn_steps_evex512", N32, "vmovdqu64 (%rsi), %zmm\\i")
    SLOTS("insn_steps_evex128", N32, "{evex} vmovdqu64 (%rsi), %xmm\\i")
    SLOTS("insn_steps_evex256", N32, "{evex} vmovdqu64 (%rsi), %ymm\\i")
    SLOTS("insn_steps_kmov", N8, "kmovw (%rsi), %k\\i")
    SLOTS("insn_steps_read", N16, "movups %xmm\\i, (%rsi)")
    SLOTS("insn_steps_fld", "0", "fldt (%rsi)")
    SLOTS("insn_steps_tileload", N8, VEX38("3", "0x4b", "0x04 | (\\i << 3), 0x0e"))
    SLOTS("insn_steps_tileloadt1", N8, VEX38("1", "0x4b", "0x04 | (\\i << 3), 0x0e"))
    SLOTS("insn_steps_tilestore", N8, VEX38("2", "0x4b", "0x04 | (\\i << 3), 0x0e"))
    SLOTS("insn_steps_tilezero", N8, VEX38("3", "0x49", "0xc0 | (\\i << 3)"))
    ".p2align 4\n"
    "insn_steps_end:\n"
    "insn_program_stop:\n"
    "    mov %r12, " OF(PRG_STEP) "(%r15)\n"
    "    cmpl $0, " OF(PRG_ALIGN_CHECK) "(%r15)\n"
    "    je 1f\n"
    "    pushfq\n"
    "    andl $~0x40000, (%rsp)\n"
    "    popfq\n"
    "1:\n" KEEP(PRG_XINUSE_AFTER)
    "    mov " OF(PRG_AFTER) "(%r15), %rsi\n"
    "    mov $-1, %eax\n"
    "    mov $-1, %edx\n"
    "    test %rsi, %rsi\n"
    "    jz 1f\n"
    "    xsave64 (%rsi)\n"
    "1:  xrstor64 (%rbx)\n"
    LEAVE
    "    .size insn_program, .-insn_program\n");

enum { PAGE = 4096 };

int insn_arena_make(struct insn_arena *arena, size_t pages, size_t hole, int read_only)
{
    int access = read_only ? PROT_READ : PROT_READ | PROT_WRITE;
    uint8_t *around = MAP_FAILED;
    int error = 0;
    int file = memfd_create("xsave", MFD_CLOEXEC);

    arena->alias = MAP_FAILED;
    arena->pages = pages;
    if (file < 0)
        return errno;
    if (ftruncate(file, (off_t)(pages * PAGE)))
        error = errno;
    else if ((around = mmap(NULL, (pages + 2) * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)) == MAP_FAILED)
        error = errno;
    else if ((arena->alias = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0)) == MAP_FAILED)
        error = errno;
    else if (mmap(around + PAGE, pages * PAGE, access, MAP_SHARED | MAP_FIXED | MAP_POPULATE, file, 0) == MAP_FAILED)
        error = errno;
    else if (hole < pages && mprotect(around + (hole + 1) * PAGE, PAGE, PROT_NONE))
        error = errno;
    close(file);
    arena->view = around == MAP_FAILED ? NULL : around + PAGE;
    if (error)
        insn_arena_free(arena);
    return error;
}

void insn_arena_free(struct insn_arena *arena)
{
    if (arena->view)
        munmap(arena->view - PAGE, (arena->pages + 2) * PAGE);
    if (arena->alias && arena->alias != MAP_FAILED)
        munmap(arena->alias, arena->pages * PAGE);
    arena->view = NULL;
    arena->alias = NULL;
}
