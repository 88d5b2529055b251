"""Writes trace lines as perf script does, and reads traces as columns to compare."""

import functools
import lzma

from tests.oracle import traces as oracle
from tests.paths import DATA
from tests.scale import repeats

TRACES = (
    *("amx-fork", "amx-kvm", "amx-mix", "amx-pair", "amx-release", "amx-signal", "amx-sleep", "amx-thread"),
    *("amx-torch", "kvm", "mix", "pingpong", "pingpong-avx512"),
)


def path_of(name):
    return DATA / "traces" / f"{name}.perf-script.txt.xz"


@functools.cache
def text_of(name, most=None):
    """A recorded trace, or its first `most` lines."""
    text = lzma.decompress(path_of(name).read_bytes())
    return text if most is None else b"".join(text.splitlines(keepends=True)[: repeats(most)])


def line(comm, tid, cpu, time, event, fields=""):
    """A line of `perf script -F comm,tid,cpu,time,event,trace`."""
    seconds, nanoseconds = divmod(time, 10**9)
    return f"{comm:>16} {tid:5} [{cpu:03}] {seconds:5}.{nanoseconds // 1000:06}: {event:>36}: {fields}\n".encode()


def switch(comm, tid, state, other, next_comm, cpu=0, time=10**9, shown=None):
    """A sched_switch; `shown` is the task that perf names before it, if that is another."""
    fields = f"prev_comm={comm} prev_pid={tid} prev_prio=120 prev_state={state} ==> "
    fields += f"next_comm={next_comm} next_pid={other} next_prio=120"
    return line(*(shown or (comm, tid)), cpu, time, "sched:sched_switch", fields)


def fpu(event, load, xfeatures, xcomp_bv, comm="cat", tid=12, cpu=0, time=10**9, state=0xFFFF888102A00CC0):
    """An event of x86_fpu."""
    fields = f"x86/fpu: {state:#x} load: {load} xfeatures: {xfeatures:x} xcomp_bv: {xcomp_bv:x}"
    return line(comm, tid, cpu, time, f"x86_fpu:x86_fpu_{event}", fields)


def rows(workload):
    """A workload's rows as the oracle has them."""
    return list(zip(*(workload.columns[name].tolist() for name in oracle.COLUMNS), strict=True))


XCOMP = 0x80000000000600E7
# A line of every kind, and everything that is left out but a garbled line.
SMALL = b"".join(
    [
        switch("cat", 12, "R+", 13, "a b", time=1_000_000_000),
        *(fpu(event, n & 1, 0x600E7, XCOMP, time=1_000_001_000 + n * 1000) for n, event in enumerate(
            "regs_activated regs_deactivated dropped copy_src copy_dst before_save after_save before_restore "
            "after_restore init_state xstate_check_failed".split())),
        line("cat", 12, 0, 1_000_020_000, "msr:write_msr", "1c4, value 40000"),
        line("cat", 12, 0, 1_000_021_000, "msr:read_msr", "da0, value 8000000000001800 #GP"),
        line("vm", 77, 1, 1_000_022_000, "kvm:kvm_fpu", "load"),
        line("vm", 77, 1, 1_000_023_000, "kvm:kvm_entry", "vcpu 0, rip 0xfff0"),
        line("vm", 77, 1, 1_000_024_000, "kvm:kvm_exit", "vcpu 0 reason XSETBV rip 0x10 info1 0x0 info2 0x0"),
        line("vm", 77, 1, 1_000_025_000, "kvm:kvm_exit", "reason xsetbv rip 0x10"),
        line("vm", 77, 1, 1_000_026_000, "kvm:kvm_exit", "vcpu 1 reason XSETBVS rip 0x10"),
        line("vm", 77, 1, 1_000_027_000, "kvm:kvm_msr", "msr_write 1c4 = 0x40000"),
        line("vm", 77, 1, 1_000_028_000, "kvm:kvm_userspace_exit", "reason KVM_EXIT_IO (2)"),
        line("vm", 77, 1, 1_000_029_000, "kvm:kvm_pio", "pio_write at 0x11 size 1 count 1 val 0x0 "),
        line("vm", 77, 1, 1_000_030_000, "kvm:kvm_fpu", "unload"),
        line("vm", 77, 1, 1_000_031_000, "kvm:kvm_mmio", "mmio read len 4"),
        line("swapper", 0, 1, 1_000_032_000, "power:cpu_idle", "state=4294967295 cpu_id=1"),
        line("swapper", 0, 1, 1_000_033_000, "irq_vectors:local_timer_entry", "vector=236"),
        line("swapper", 0, 1, 1_000_034_000, "irq_vectors:reschedule_entry", "vector=253"),
        line("swapper", 0, 1, 1_000_035_000, "sched:sched_waking", "comm=cat pid=12 prio=120 target_cpu=000"),
        line("swapper", 0, 1, 1_000_036_000, "syscalls:sys_enter_read", "fd: 3"),
        line("swapper", 0, 1, 1_000_037_000, "cycles", ""),
        switch("gone", 4194304, "X", 0, "swapper/1", cpu=1, time=1_000_038_000, shown=(":-1", -1)),
        fpu("regs_deactivated", 1, 3, XCOMP, ":-1", -1, cpu=1, time=1_000_039_000),
        fpu("regs_deactivated", 1, 1 << 63 | 3, XCOMP, time=1_000_040_000),
        fpu("regs_deactivated", 1, 0x400E7, XCOMP & ~(1 << 17), time=1_000_041_000),
        switch("late", 9, "S", 12, "cat", cpu=0, time=999_000_000),
        b"CPU:1 [LOST 77 EVENTS]\n",
        b"# a remark\n",
        b"\n",
    ]
)
