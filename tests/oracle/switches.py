"""What Linux did at each switch of a perf-script trace, and what its rule says: straight from the text, a line a step.

A task's registers live in memory once it was saved. When it reaches user mode again they are reloaded, unless the CPU
still has them: nobody else's were activated there since, and it is the CPU where the task was saved. The trace shows
reloads; a skipped one shows at the next save, or at a fork, of a task that was not seen to reload.
"""

import re
from collections.abc import Iterable

LINE = re.compile(r"^\s*.*?\s+(?P<tid>-?\d+) \[(?P<cpu>\d+)\]\s+\d+\.\d+:\s+(?:\w+:)?(?P<event>\w+): (?P<rest>.*)$")
FPU = re.compile(r"x86/fpu: (\S+) load: (\d) xfeatures: ([0-9a-f]+) xcomp_bv: ([0-9a-f]+)")
SWITCH = re.compile(r"prev_comm=.* prev_pid=(\d+) prev_prio=\S+ prev_state=\S+ ==> next_comm=.* next_pid=(\d+) ")
SHOWN = ("x86_fpu_regs_activated", "x86_fpu_copy_dst", "kvm_fpu")  # of the task that runs


def decisions(lines: Iterable[str]) -> dict[str, int]:
    """Counts: saves, decisions, agree, skips, skips_predicted, silent, gaps, execs, xfd_checked, xfd_right."""
    count = dict.fromkeys(
        ("saves", "decisions", "agree", "skips", "skips_predicted", "silent", "gaps", "execs", "xfd_checked",
         "xfd_right"), 0)  # fmt: skip
    owner: dict[int, int] = {}  # CPU -> whose registers it has; 0: nobody's; absent: not known
    xfd: dict[int, int] = {}
    running: dict[int, int] = {}
    left: dict[int, int] = {}  # CPU -> who was switched out last
    in_memory: dict[int, bool] = {}  # task -> whether its registers were saved and not reloaded; absent: not known
    where: dict[int, int] = {}  # task -> the CPU where it was saved, or had its registers
    header: dict[int, int] = {}  # task -> XSTATE_BV in memory
    newborn: dict[str, int] = {}  # address of a new task's state -> XSTATE_BV
    guests: set[int] = set()

    def judge(cpu: int, tid: int, skipped: bool) -> None:
        if cpu not in owner:
            count["gaps"] += 1
            return
        rule_skips = owner[cpu] == tid and where.get(tid) == cpu
        count["decisions"] += 1
        count["agree"] += skipped == rule_skips
        count["skips"] += skipped
        count["skips_predicted"] += skipped and rule_skips

    def unseen(cpu: int) -> None:
        owner.pop(cpu, None)
        xfd.pop(cpu, None)

    for line in lines:
        match = LINE.match(line)
        assert match is not None, line
        tid, cpu, event, rest = int(match["tid"]), int(match["cpu"]), match["event"], match["rest"]
        if event == "sched_switch":
            parts = SWITCH.match(rest)
            assert parts is not None, line
            if cpu in running and running[cpu] != int(parts[1]):
                unseen(cpu)
            left[cpu], running[cpu] = int(parts[1]), int(parts[2])
        elif event == "write_msr":
            number, value = rest.split(", value ")
            if number == "1c4":
                xfd[cpu] = int(value, 16)
        elif event.startswith("x86_fpu_") or event == "kvm_fpu":
            state = FPU.match(rest)
            load = rest.startswith("load") if state is None else state[2] == "1"
            if event == "x86_fpu_regs_deactivated" and load:
                assert state is not None
                who = left[cpu] if tid < 0 and cpu in left else tid
                count["saves"] += 1
                if in_memory.get(who) and cpu in owner and left.get(cpu) == who:
                    judge(cpu, who, True)
                in_memory[who], where[who], header[who] = True, cpu, int(state[3], 16)
                continue
            if event in SHOWN and tid >= 0 and cpu in running and running[cpu] != tid:
                unseen(cpu)
                running[cpu] = tid
            if event == "kvm_fpu":
                (guests.add if load else guests.discard)(tid)
            elif event == "x86_fpu_regs_activated":
                assert state is not None
                if state[1] in newborn:
                    header[tid] = newborn.pop(state[1])
                    in_memory.setdefault(tid, True)
                if load:
                    if cpu in xfd:
                        small = not int(state[4], 16) >> 18 & 1 and tid not in guests
                        count["xfd_checked"] += 1
                        count["xfd_right"] += xfd[cpu] == (0x40000 if small else 0)
                    known = in_memory.get(tid)
                    if int(state[3], 16) == 0 and (header.get(tid) != 0 or not known):
                        count["execs"] += 1
                    elif known:
                        judge(cpu, tid, False)
                    elif known is False:
                        count["silent"] += 1
                in_memory[tid] = False
                owner[cpu], where[tid] = tid, cpu
            elif event == "x86_fpu_regs_deactivated":  # an exit, with the registers live: it had come back to them
                if in_memory.get(tid):
                    judge(cpu, tid, True)
                    in_memory[tid] = False
                owner[cpu] = 0
            elif event == "x86_fpu_copy_dst":
                assert state is not None
                newborn[state[1]] = int(state[3], 16)
                if in_memory.get(tid):
                    judge(cpu, tid, True)
                    in_memory[tid] = False
                    owner[cpu], where[tid] = tid, cpu
    return count
