/* The fault guard of insn_transit.

   Linux sends #GP as SIGSEGV with SI_KERNEL and #PF as SIGSEGV with an address, #AC and #SS as SIGBUS, #UD as
   SIGILL with ILL_ILLOPN; a refused first use of an XFD component (#NM) as SIGILL with ILL_ILLOPC, whose frame
   holds the trap number of some earlier exception. The handler writes the fault down and moves RIP to the next
   stage: the kernel then puts the extended state of the faulting moment back, so that the save that follows a
   failed restore sees what the restore left (with XSTATE_BV bits 0 and 1 set by the kernel).

   Faults anywhere else go to the handler that was there before. */
#define _GNU_SOURCE
#include "insn.h"
#include "program.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <ucontext.h>

#ifndef AT_MINSIGSTKSZ
#define AT_MINSIGSTKSZ 51
#endif

#define LABEL(name) extern const char name[] __attribute__((visibility("hidden")))
LABEL(insn_prime_begin);
LABEL(insn_prime_end);
LABEL(insn_restore_begin);
LABEL(insn_restore_end);
LABEL(insn_save_begin);
LABEL(insn_save_end);
LABEL(insn_read_begin);
LABEL(insn_done);
LABEL(insn_program_prime);
LABEL(insn_steps_begin);
LABEL(insn_steps_end);
LABEL(insn_program_stop);

static const struct {
    const char *begin, *end, *next;
} stages[INSN_STAGES] = {
    [INSN_AT_PRIME] = {insn_prime_begin, insn_prime_end, insn_done},
    [INSN_AT_RESTORE] = {insn_restore_begin, insn_restore_end, insn_restore_end},
    [INSN_AT_SAVE] = {insn_save_begin, insn_save_end, insn_save_end},
    [INSN_AT_READ] = {insn_read_begin, insn_done, insn_done},
};

static const int signals[] = {SIGSEGV, SIGBUS, SIGILL};
#define SIGNALS ((int)(sizeof signals / sizeof *signals))

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int entered;
static struct sigaction previous[SIGNALS];

static void pass_on(int signal, siginfo_t *info, void *context)
{
    const struct sigaction *old = NULL;
    struct sigaction plain;

    for (int i = 0; i < SIGNALS; i++)
        if (signals[i] == signal)
            old = &previous[i];
    if (old && old->sa_flags & SA_SIGINFO)
        old->sa_sigaction(signal, info, context);
    else if (old && old->sa_handler != SIG_DFL && old->sa_handler != SIG_IGN)
        old->sa_handler(signal);
    else { /* the instruction runs again and meets the default action */
        memset(&plain, 0, sizeof plain);
        plain.sa_handler = SIG_DFL;
        sigaction(signal, &plain, NULL);
    }
}

__attribute__((no_sanitize("address", "undefined"))) static void write_down(struct insn_trap *trap, int signal,
                                                                            const siginfo_t *info,
                                                                            const greg_t *registers)
{
    trap->signal = (uint32_t)signal;
    trap->code = info->si_code;
    if (signal == SIGILL) {
        trap->vector = info->si_code == ILL_ILLOPC ? 7 : 6;
        return;
    }
    trap->vector = (uint32_t)registers[REG_TRAPNO];
    trap->error_code = (uint32_t)registers[REG_ERR];
    if (trap->vector == 14)
        trap->address = (uint64_t)registers[REG_CR2];
}

__attribute__((no_sanitize("address", "undefined"))) static void on_fault(int signal, siginfo_t *info, void *context)
{
    greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
    const char *rip = (const char *)registers[REG_RIP];

    for (int stage = 0; stage < INSN_STAGES; stage++) {
        if (rip < stages[stage].begin || rip >= stages[stage].end)
            continue;
        write_down(&((struct insn_run *)registers[REG_R15])->traps[stage], signal, info, registers);
        registers[REG_RIP] = (greg_t)stages[stage].next;
        return;
    }
    if ((rip >= insn_steps_begin && rip < insn_steps_end) || rip == insn_program_prime) {
        write_down(&((struct insn_program *)registers[REG_R15])->trap, signal, info, registers);
        registers[REG_RIP] = (greg_t)insn_program_stop;
        return;
    }
    pass_on(signal, info, context);
}

size_t insn_signal_stack_size(void)
{
    return ((size_t)getauxval(AT_MINSIGSTKSZ) + 65536 + 4095) / 4096 * 4096;
}

static int install(void)
{
    struct sigaction action;

    memset(&action, 0, sizeof action);
    action.sa_sigaction = on_fault;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
    sigemptyset(&action.sa_mask);
    for (int i = 0; i < SIGNALS; i++)
        if (sigaction(signals[i], &action, &previous[i])) {
            int error = errno;
            while (i--)
                sigaction(signals[i], &previous[i], NULL);
            return error;
        }
    return 0;
}

static void release(struct insn_guard *guard)
{
    pthread_sigmask(SIG_SETMASK, &guard->mask, NULL);
    if (guard->swapped && sigaltstack(&guard->previous, NULL)) {
        /* the previous stack has become too small (permission for a large component came in between): none, then */
        guard->previous.ss_flags = SS_DISABLE;
        sigaltstack(&guard->previous, NULL);
    }
    munmap(guard->stack, guard->stack_size);
}

int insn_guard_enter(struct insn_guard *guard)
{
    stack_t own;
    sigset_t open;
    int error;

    memset(guard, 0, sizeof *guard);
    guard->stack_size = insn_signal_stack_size();
    guard->stack = mmap(NULL, guard->stack_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (guard->stack == MAP_FAILED)
        return errno;
    memset(&own, 0, sizeof own);
    own.ss_sp = guard->stack;
    own.ss_size = guard->stack_size;
    guard->swapped = !sigaltstack(&own, &guard->previous); /* refused while this thread runs on its alternate stack */
    sigemptyset(&open);
    for (int i = 0; i < SIGNALS; i++)
        sigaddset(&open, signals[i]);
    pthread_sigmask(SIG_UNBLOCK, &open, &guard->mask); /* the signal of a fault kills where it is blocked */
    pthread_mutex_lock(&lock);
    error = entered ? 0 : install();
    entered += !error;
    pthread_mutex_unlock(&lock);
    if (error)
        release(guard);
    return error;
}

void insn_guard_leave(struct insn_guard *guard)
{
    pthread_mutex_lock(&lock);
    if (!--entered)
        for (int i = 0; i < SIGNALS; i++)
            sigaction(signals[i], &previous[i], NULL);
    pthread_mutex_unlock(&lock);
    release(guard);
}
