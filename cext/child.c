/* See child.h. The child is forked and never returns to the interpreter; its threads are raw clones that run
   insn_occupy and nothing else. */
#define _GNU_SOURCE
#include "child.h"
#include "insn.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#define ARCH_REQ_XCOMP_PERM 0x1023
#define TILEDATA 18

#ifndef PR_SET_PTRACER
#define PR_SET_PTRACER 0x59616d61
#endif

static struct insn_post posts[CHILD_MAX_THREADS];

static void write_file(const char *path, const char *text)
{
    int file = open(path, O_WRONLY | O_CLOEXEC);

    if (file >= 0) {
        if (write(file, text, strlen(text)) < 0) {
            /* a name or a filter that cannot be set is no reason to stop */
        }
        close(file);
    }
}

static void give_up(struct child_state *state, uint32_t where, int error)
{
    state->failed_at = where;
    state->failed = error;
    _exit(1);
}

static void reset_signals(void)
{
    struct sigaction action;
    sigset_t none;

    memset(&action, 0, sizeof action);
    action.sa_handler = SIG_DFL;
    for (int signal = 1; signal < 32; signal++)
        sigaction(signal, &action, NULL);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

static void allow_core(const char *filter)
{
    struct rlimit limit;

    if (!getrlimit(RLIMIT_CORE, &limit)) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_CORE, &limit);
    }
    prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);
    write_file("/proc/self/coredump_filter", filter);
}

/* The permission cannot be given back, which is why only a child asks; it is refused while the alternate stack is
   smaller than the kernel's AT_MINSIGSTKSZ. */
static int ask_for_tiles(struct child_state *state)
{
    stack_t stack;

    memset(&stack, 0, sizeof stack);
    stack.ss_size = insn_signal_stack_size();
    stack.ss_sp = mmap(NULL, stack.ss_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (stack.ss_sp == MAP_FAILED || sigaltstack(&stack, NULL))
        give_up(state, 1, errno);
    state->permission = 1;
    if (!(insn_this_cpu()->caps & INSN_TILECFG))
        return 0;
    state->permission = syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, TILEDATA) ? -errno : 0;
    return !state->permission;
}

__attribute__((noreturn)) static void child(struct child_state *state, const struct insn_registers *registers,
                                            uint32_t threads, uint32_t flags, const char *directory, const char *filter)
{
    const size_t stack_size = 16384; /* for nothing but the signal frame of a thread without an alternate stack */
    uint32_t caps = insn_this_cpu()->caps;
    char path[64], name[24]; /* the kernel keeps 15 characters of a name */
    uint8_t *stacks;

    if (chdir(directory))
        give_up(state, 4, errno);
    allow_core(filter);
    if (ask_for_tiles(state))
        caps |= INSN_TILES;
    state->tiles = !!(caps & INSN_TILES);
    stacks = mmap(NULL, threads * stack_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (stacks == MAP_FAILED)
        give_up(state, 2, errno);
    for (uint32_t i = 0; i < threads; i++) {
        posts[i].registers = (uint64_t)(uintptr_t)&registers[i];
        posts[i].ready = (uint64_t)(uintptr_t)&state->ready;
        posts[i].order = (uint64_t)(uintptr_t)&state->order;
        posts[i].caps = caps;
        posts[i].flags = (flags & INSN_POST_SPINS) | (i ? 0 : INSN_POST_CRASHES);
    }
    state->tids[0] = (int32_t)getpid();
    prctl(PR_SET_NAME, "xsave-0", 0, 0, 0);
    for (uint32_t i = 1; i < threads; i++) {
        long tid = insn_clone_into(&posts[i], stacks + (i + 1) * stack_size);

        if (tid < 0)
            give_up(state, 3, (int)-tid);
        state->tids[i] = (int32_t)tid;
        snprintf(path, sizeof path, "/proc/self/task/%ld/comm", tid);
        snprintf(name, sizeof name, "xsave-%u", i);
        write_file(path, name);
    }
    insn_occupy(&posts[0]);
}

long child_start(struct child_state *state, const void *registers, uint32_t threads, uint32_t flags,
                 const char *directory, const char *filter, uint32_t lifetime)
{
    pid_t parent = getpid(), pid;

    (void)insn_this_cpu(); /* enumerated before the fork */
    pid = fork();
    if (pid < 0)
        return -errno;
    if (pid)
        return pid;
    reset_signals();
    prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
    if (getppid() != parent)
        _exit(1);
    prctl(PR_SET_PTRACER, -1L, 0, 0, 0); /* Yama: any process of this user may look at it */
    syscall(436 /* close_range */, 3, ~0U, 0);
    alarm(lifetime);
    child(state, registers, threads, flags, directory, filter);
}

void child_order(struct child_state *state, uint32_t order)
{
    __atomic_store_n(&state->order, order, __ATOMIC_SEQ_CST);
    syscall(SYS_futex, &state->order, 1 /* FUTEX_WAKE */, INT_MAX, NULL, NULL, 0);
}
