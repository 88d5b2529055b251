/* This CPU's own instructions, for x86-64 only: what no compiler emits and no library offers.

   insn_cpuid and insn_xgetbv stand alone. insn_transit takes one thread through a register state: it saves
   the caller's, loads an image, saves into another, and puts the caller's back, in one piece of assembly, so
   that nothing else touches a register in between. It runs under a guard (insn_guard_enter): a fault of one
   of its instructions is written down and the rest goes on. insn_occupy loads a register file and stays.

   Every area is as large as insn_this_cpu()->area_size, an upper bound of whatever an instruction reads or
   writes with any mask: this layer adds no offsets up. */
#ifndef XSAVE_INSN_H
#define XSAVE_INSN_H

#include <signal.h>
#include <stddef.h>
#include <stdint.h>

/* What the assembly may touch: bits of struct insn_machine.caps. */
#define INSN_AVX 0x01
#define INSN_AVX512 0x02
#define INSN_KMOVQ 0x04   /* AVX512BW: opmask registers of 64 bits; without it 16 */
#define INSN_PKRU 0x08    /* CR4.PKE: RDPKRU and WRPKRU */
#define INSN_TILECFG 0x10 /* LDTILECFG and STTILECFG, which need no permission */
#define INSN_TILES 0x20   /* TILELOADD and TILESTORED: never set by insn_this_cpu, needs the kernel's permission */
#define INSN_APX 0x40
#define INSN_XGETBV1 0x80

struct insn_machine {
    uint64_t xcr0;      /* 0 where the operating system has not enabled XSAVE */
    uint32_t area_size; /* bytes, a multiple of 64 */
    uint32_t features;  /* CPUID.0DH.1:EAX: XSAVEOPT 1, XSAVEC 2, XGETBV(1) 4, XSAVES 8, XFD 10H */
    uint32_t caps;
    uint32_t tilecfg_offset;
};

/* A register file, moved by plain loads and stores. `fx` is an FXSAVE64 image, of which x87 and MXCSR count. */
struct insn_registers {
    uint8_t fx[512];
    uint8_t apx[16][8];
    uint8_t k[8][8];
    uint8_t tilecfg[64];
    uint8_t other[64]; /* 0: MXCSR, 4: PKRU (4 bytes each) */
    uint8_t zmm[32][64];
    uint8_t tmm[8][1024];
};

enum insn_save { INSN_NO_SAVE, INSN_XSAVE64, INSN_XSAVEC64, INSN_XSAVEOPT64, INSN_FXSAVE64, INSN_XSAVES64,
                 INSN_XSAVE, INSN_XSAVEC, INSN_XSAVEOPT, INSN_FXSAVE, INSN_XSAVES };
enum insn_restore { INSN_NO_RESTORE, INSN_XRSTOR64, INSN_FXRSTOR64, INSN_XRSTORS64, INSN_XRSTOR, INSN_FXRSTOR,
                    INSN_XRSTORS };
enum insn_stage { INSN_AT_PRIME, INSN_AT_RESTORE, INSN_AT_SAVE, INSN_AT_READ, INSN_STAGES };

struct insn_trap {
    uint32_t vector; /* 0: none */
    uint32_t signal;
    int32_t code;        /* si_code */
    uint32_t error_code; /* as the kernel reports it; not for #UD and #NM */
    uint64_t address;    /* of a #PF: CR2 */
};

struct insn_run {
    uint64_t caller;    /* area for the caller's state: 64-byte aligned, header zero */
    uint64_t prime;     /* standard image loaded first with the whole XCR0, or 0 */
    uint64_t image;     /* what the restore reads */
    uint64_t restore_mask;
    uint64_t out;       /* what the save writes */
    uint64_t save_mask;
    uint64_t registers; /* struct insn_registers (64-byte aligned) read after the save, or 0 */
    uint64_t tileconf;  /* standard image whose TILECFG makes every tile whole; used with INSN_TILES */
    uint64_t xinuse;    /* out: XGETBV(1) between restore and save, with INSN_XGETBV1 */
    uint32_t restore;
    uint32_t save;
    uint32_t caps;
    uint32_t unused;
    struct insn_trap traps[INSN_STAGES];
};

/* Orders of a thread that holds registers. */
struct insn_post {
    uint64_t registers;
    uint64_t ready; /* uint32_t *: incremented once the registers are loaded */
    uint64_t order; /* uint32_t *, a futex: 1 makes the thread with INSN_POST_CRASHES execute UD2 */
    uint32_t caps;
    uint32_t flags;
};
#define INSN_POST_SPINS 1   /* never enter the kernel while waiting */
#define INSN_POST_CRASHES 2

void insn_cpuid(uint32_t leaf, uint32_t subleaf, uint32_t out[4]);
int insn_has_xsave(void);             /* CPUID.1:ECX[27], OSXSAVE: the instructions may be used */
uint64_t insn_xgetbv(uint32_t index); /* #UD without OSXSAVE, #GP for an index that the CPU lacks */
const struct insn_machine *insn_this_cpu(void);

void insn_save(uint32_t save, uint64_t mask, void *area); /* INSN_XSAVE64, INSN_XSAVEC64 or INSN_XSAVEOPT64 */
void insn_transit(struct insn_run *run);
void insn_occupy(const struct insn_post *post) __attribute__((noreturn));
long insn_clone_into(const struct insn_post *post, void *stack_top); /* a new thread in insn_occupy: tid or -errno */

/* What one thread holds between enter and leave; the handlers themselves are installed by the first thread
   that enters and reinstated by the last that leaves. */
struct insn_guard {
    void *stack;
    size_t stack_size;
    stack_t previous;
    sigset_t mask;
    int swapped;
};
int insn_guard_enter(struct insn_guard *guard); /* 0 or an errno */
void insn_guard_leave(struct insn_guard *guard);
size_t insn_signal_stack_size(void);

#endif
