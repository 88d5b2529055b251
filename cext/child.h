/* A child process whose threads hold known registers until it is killed, or crashes on order. */
#ifndef XSAVE_CHILD_H
#define XSAVE_CHILD_H

#include <stdint.h>

#define CHILD_MAX_THREADS 4096

/* Shared between parent and child; zero at first. */
struct child_state {
    uint32_t ready;      /* threads whose registers are loaded */
    uint32_t order;      /* futex; 1: the first thread executes UD2 */
    int32_t failed;      /* errno of what kept the child from starting, and where */
    uint32_t failed_at;  /* 1 signal stack, 2 thread stacks, 3 clone, 4 working directory */
    int32_t permission;  /* ARCH_REQ_XCOMP_PERM(18): 0 granted, else -errno; 1 where it was not asked for */
    uint32_t tiles;      /* tiles are loaded */
    int32_t tids[CHILD_MAX_THREADS];
};

/* Starts the child. `registers` are `threads` register files (struct insn_registers), 64-byte aligned; `filter` is
   written to its coredump_filter; SIGALRM ends it after `lifetime` seconds, and it dies with the thread that started
   it. Returns the process id or -errno. */
long child_start(struct child_state *state, const void *registers, uint32_t threads, uint32_t flags,
                 const char *directory, const char *filter, uint32_t lifetime);
void child_order(struct child_state *state, uint32_t order);

#endif
