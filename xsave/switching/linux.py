"""How Linux decides what to save and what to reload at a switch, and how well that explains a recorded trace.

The rule is the kernel's: a task that is switched out is saved if its registers are live (TIF_NEED_FPU_LOAD clear), and
the flag is set; a task with the flag set that returns to user mode reloads, unless the CPU's registers are still its
own: it is the owner of this CPU's registers, and this is the CPU where it was saved (arch/x86/include/asm/fpu/sched.h,
arch/x86/kernel/fpu/context.h, core.c). A trace shows the saves and the reloads, and not the reloads that were skipped:
those show at the next save, at a fork, or at the exit. `agreement` walks a trace and says how often the rule says what
the kernel did.
"""

from xsave.components import Component

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from xsave.switching.workload import Workload

__all__ = ["Agreement", "Decision", "agreement"]

SKIP, RELOAD = "skip", "reload"
_XFD = 0x1C4
_TILEDATA = Component.TILEDATA.mask
# Of the disagreements this many are kept, each with its line.
_KEPT = 1000


class Decision:
    """One decision on which the rule and the kernel disagree.

    `line` of the trace; `cpu`, `tid`; `was` what the kernel did, "skip" or "reload"; `cause`: what explains it.
    """

    __slots__ = ("cause", "cpu", "line", "tid", "was")

    def __init__(self, line: int, cpu: int, tid: int, was: str, cause: str) -> None:
        self.line = line
        self.cpu = cpu
        self.tid = tid
        self.was = was
        self.cause = cause

    def __repr__(self) -> str:
        return f"<line {self.line}, CPU {self.cpu}, task {self.tid}: {self.was}, {self.cause}>"


class Agreement:
    """The rule against a recorded trace.

    `decisions`: times that a task whose state lay in memory reached user mode, the owner of the CPU's registers being
    known; `agree`: those in which the kernel did what the rule says; `skips`: reloads that were skipped, and
    `skips_predicted`, those of them that the rule skips too; `silent`: reloads with no switch since the task last
    reached user mode, after a use of the FPU by the kernel that no event shows: counted apart; `gaps`: decisions for
    which the recording lacks a switch, apart too; `saves`: at switches; `execs`: reloads of the initial state by exec;
    `xfd_checked`: reloads at which IA32_XFD of the CPU is known, and `xfd_right`: those at which it is what the task's
    area asks for; `disagreements`: the first 1,000 `Decision`s.
    """

    __slots__ = (
        "agree", "decisions", "disagreements", "execs", "gaps", "saves", "silent", "skips", "skips_predicted",
        "xfd_checked", "xfd_right",
    )  # fmt: skip

    def __init__(self) -> None:
        self.decisions = self.agree = self.silent = self.skips = self.skips_predicted = 0
        self.gaps = self.saves = self.execs = self.xfd_checked = self.xfd_right = 0
        self.disagreements: "list[Decision]" = []

    @property
    def always_reload(self) -> int:
        """Decisions on which a kernel that always reloads would agree."""
        return self.decisions - self.skips

    def __repr__(self) -> str:
        share = f" ({self.agree / self.decisions:.2%})" if self.decisions else ""
        return f"<Agreement: {self.agree:,} of {self.decisions:,} decisions{share}, {self.silent:,} silent>"


class _Cpu:
    # `owner`: the task whose registers these are, 0 nobody; None: unknown. `xfd`: IA32_XFD, None: unknown.
    __slots__ = ("died", "owner", "running", "went", "xfd")

    def __init__(self) -> None:
        self.owner: "int | None" = None
        self.running: "int | None" = None
        self.went: "int | None" = None
        self.xfd: "int | None" = None
        self.died = False


class _Task:
    # `flag`: TIF_NEED_FPU_LOAD, None: unknown. `saved`: XSTATE_BV of its last save, None: none was seen.
    __slots__ = ("cpu", "flag", "guest", "saved")

    def __init__(self) -> None:
        self.flag: "bool | None" = None
        self.cpu = -1
        self.saved: "int | None" = None
        self.guest = False


class _Walk:
    def __init__(self) -> None:
        self.made = Agreement()
        self.cpus: "dict[int, _Cpu]" = {}
        self.tasks: "dict[int, _Task]" = {}
        self.copies: "dict[int, int]" = {}  # by the address of a new task's state: what was copied into it

    def task(self, tid: int) -> _Task:
        found = self.tasks.get(tid)
        if found is None:
            found = self.tasks[tid] = _Task()
        return found

    def switch(self, cpu: _Cpu, tid: int, following: int, dead: bool) -> None:
        if cpu.running is not None and cpu.running != tid:
            self.lost(cpu)
        cpu.went, cpu.running = tid, following
        cpu.died |= dead
        self.task(tid)

    def lost(self, cpu: _Cpu) -> None:
        # The recording lacks a switch: somebody else may own the registers.
        cpu.owner = cpu.xfd = None

    def decide(self, number: int, cpu: _Cpu, tid: int, task: _Task, was: str, line: int) -> None:
        made = self.made
        if cpu.owner is None:
            made.gaps += 1
            return
        said = SKIP if cpu.owner == tid and task.cpu == number else RELOAD
        made.decisions += 1
        if was == SKIP:
            made.skips += 1
            made.skips_predicted += said == SKIP
        if said == was:
            made.agree += 1
        elif len(made.disagreements) < _KEPT:
            cause = "a task that died in between left no event" if cpu.died else "no event shows why"
            made.disagreements.append(Decision(line, number, tid, was, cause))

    def save(self, number: int, cpu: _Cpu, tid: int, xfeatures: int, line: int) -> None:
        # At a switch: the task had its registers live, though no reload was seen since its flag was set.
        task = self.task(tid)
        self.made.saves += 1
        if task.flag and cpu.owner is not None and cpu.went == tid:
            self.decide(number, cpu, tid, task, SKIP, line)
        task.flag, task.cpu, task.saved = True, number, xfeatures

    def load(self, number: int, cpu: _Cpu, tid: int, xfeatures: int, xcomp_bv: int, line: int) -> None:
        task, made = self.task(tid), self.made
        if cpu.xfd is not None:
            made.xfd_checked += 1
            made.xfd_right += cpu.xfd == (0 if xcomp_bv & _TILEDATA or task.guest else _TILEDATA)
        if xfeatures == 0 and (task.saved != 0 or not task.flag):
            made.execs += 1
        elif task.flag:
            self.decide(number, cpu, tid, task, RELOAD, line)
        elif task.flag is False:
            made.silent += 1
        task.flag = False
        self.own(number, cpu, tid, task)

    def own(self, number: int, cpu: _Cpu, tid: int, task: _Task) -> None:
        cpu.owner, task.cpu, cpu.died = tid, number, False


def agreement(workload: "Workload") -> Agreement:
    """How well the rule of Linux explains what a kernel did in a recorded trace, event by event."""
    from xsave.switching.workload import Event

    walk = _Walk()
    switch, activated, deactivated = int(Event.SCHED_SWITCH), int(Event.REGS_ACTIVATED), int(Event.REGS_DEACTIVATED)
    copied, written, kvm = int(Event.COPY_DST), int(Event.WRITE_MSR), int(Event.KVM_FPU)
    for row in _rows(workload):
        event, number, tid, other, state, load, fpu, xfeatures, xcomp_bv, line = row
        cpu = walk.cpus.get(number)
        if cpu is None:
            cpu = walk.cpus[number] = _Cpu()
        if event == switch:
            walk.switch(cpu, tid, other, state in (ord("X"), ord("Z")))
            continue
        if event == deactivated and load == 1:
            walk.save(number, cpu, tid if tid >= 0 or cpu.went is None else cpu.went, xfeatures, line)
            continue
        if cpu.running is not None and tid != cpu.running and tid >= 0 and event in (activated, copied, kvm):
            walk.lost(cpu)
            cpu.running = tid
        task = walk.task(tid)
        if fpu in walk.copies and event == activated:  # the first that is heard of a new task
            task.saved = walk.copies.pop(fpu)
            task.flag = True if task.flag is None else task.flag
        if event == activated:
            if load == 1:
                walk.load(number, cpu, tid, xfeatures, xcomp_bv, line)
            else:  # a signal, its return, a guest's registers in place of the task's: it has the registers now
                task.flag = False
                walk.own(number, cpu, tid, task)
        elif event == deactivated:  # an exit, with the registers live: it had come back to them
            if task.flag:
                walk.decide(number, cpu, tid, task, SKIP, line)
                task.flag = False
            cpu.owner = 0
        elif event == copied:
            walk.copies[fpu] = xfeatures
            if task.flag:  # fork saves the parent's registers, which it restores before, or finds live
                walk.decide(number, cpu, tid, task, SKIP, line)
                task.flag = False
                walk.own(number, cpu, tid, task)
        elif event == written and fpu == _XFD:
            cpu.xfd = xfeatures
        elif event == kvm:
            task.guest = load == 1
    return walk.made


def _rows(workload: "Workload") -> "Iterator[tuple[Any, ...]]":
    names = ("event", "cpu", "tid", "other", "state", "flag", "fpu", "xfeatures", "xcomp_bv", "line")
    return zip(*(getattr(workload, name).tolist() for name in names), strict=True)
