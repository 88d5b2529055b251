"""Trace text by regular expressions, a line at a time: perf script's, and ftrace's made of it.

A row is a dictionary of the columns. What is left out has a reason instead. Written from the formats that the kernel
prints (TP_printk of the events) and from perf's, not from any parser of them.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import NamedTuple

EVENTS = {
    "sched:sched_switch": 0,
    "x86_fpu:x86_fpu_regs_activated": 1,
    "x86_fpu:x86_fpu_regs_deactivated": 2,
    "x86_fpu:x86_fpu_dropped": 3,
    "x86_fpu:x86_fpu_copy_src": 4,
    "x86_fpu:x86_fpu_copy_dst": 5,
    "x86_fpu:x86_fpu_before_save": 6,
    "x86_fpu:x86_fpu_after_save": 7,
    "x86_fpu:x86_fpu_before_restore": 8,
    "x86_fpu:x86_fpu_after_restore": 9,
    "x86_fpu:x86_fpu_init_state": 10,
    "x86_fpu:x86_fpu_xstate_check_failed": 11,
    "msr:write_msr": 12,
    "msr:read_msr": 13,
    "kvm:kvm_fpu": 14,
    "kvm:kvm_entry": 15,
    "kvm:kvm_exit": 16,
    "kvm:kvm_msr": 17,
    "kvm:kvm_userspace_exit": 18,
    "kvm:kvm_pio": 19,
    "power:cpu_idle": 20,
    "irq_vectors:local_timer_entry": 21,
    "irq_vectors:reschedule_entry": 22,
}
OTHER = 23
SYSTEM = {name.partition(":")[2]: name.partition(":")[0] for name in EVENTS}

COLUMNS = ("time", "cpu", "event", "tid", "other", "state", "flag", "fpu", "xfeatures", "xcomp_bv", "line")

# A name is 15 bytes at most in what the kernel prints; perf may know a longer one.
WHEN = r"\[(\d{3,5})\] +FLAGS(\d{1,10})\.(\d{6}|\d{9}): "
PERF = re.compile(r" *(.*?) *(?:(?<= )|^)(-?\d{1,10}) +" + WHEN.replace("FLAGS", ""))
FTRACE = re.compile(r" *(.*?)-(\d{1,10}) +(?:\([ \d-]+\) +)?" + WHEN.replace("FLAGS", "(?:[^ ]{1,8} +)?"))
WHAT = re.compile(r" *([^ ]+):(?: +(.*))?")
SWITCH = re.compile(
    r"prev_comm=(.*?) prev_pid=(\d+) prev_prio=-?\d+ prev_state=([A-Za-z])[^ ]* ==> next_comm=(.*) next_pid=(\d+) "
    r"next_prio=-?\d+(?: .*)?"
)
HEX = "(?:0x)?([0-9A-Fa-f]{1,16})"
FPU = re.compile(rf"x86/fpu: {HEX} load: ([01]) xfeatures: {HEX} xcomp_bv: {HEX}(?: .*)?")
MSR = re.compile(rf"{HEX}, value {HEX}(?: .*)?")
KVM_FPU = re.compile(r"(un)?load(?: .*)?")
KVM_EXIT = re.compile(r"(?:vcpu \d+ )?reason ([^ ]+)(?: .*)?")
IDLE = re.compile(r"state=(\d{1,19})(?: .*)?")

TILECFG, TILEDATA, COMPACTED = 1 << 17, 1 << 18, 1 << 63


class Read(NamedTuple):
    """All of a trace: rows of the columns, names of tasks, and the lines that were left out by reason."""

    rows: list[tuple[int, ...]]
    names: dict[int, str]
    skipped: Counter[str]


def fields(event: str, text: str, row: dict[str, int], names: list[tuple[int, str]]) -> bool:
    """Whether `text` is what `event` prints; its values go to `row`, and the names of a switch to `names`."""
    if event == "sched_switch":
        if not (match := SWITCH.fullmatch(text)):
            return False
        row |= {"tid": int(match[2]), "state": ord(match[3]), "other": int(match[5])}
        names[:] = [(int(match[2]), match[1]), (int(match[5]), match[4])]
    elif event.startswith("x86_fpu_"):
        if not (match := FPU.fullmatch(text)):
            return False
        row |= {"fpu": int(match[1], 16), "flag": int(match[2])}
        row |= {"xfeatures": int(match[3], 16), "xcomp_bv": int(match[4], 16)}
    elif event in ("write_msr", "read_msr"):
        if not (match := MSR.fullmatch(text)):
            return False
        row |= {"fpu": int(match[1], 16), "xfeatures": int(match[2], 16)}
    elif event == "kvm_fpu":
        if not (match := KVM_FPU.fullmatch(text)):
            return False
        row["flag"] = 0 if match[1] else 1
    elif event == "kvm_exit":
        if not (match := KVM_EXIT.fullmatch(text)):
            return False
        row["flag"] = 1 if match[1] in ("XSETBV", "xsetbv") else -1
    elif event == "cpu_idle":
        if not (match := IDLE.fullmatch(text)):
            return False
        row["fpu"] = int(match[1])
    return True


def split(text: str, ftrace: bool) -> tuple[str, ...]:
    """(comm, tid, cpu, seconds, fraction, event, fields): the first place that looks like all of it counts; or ()."""
    head = (FTRACE if ftrace else PERF).match(text)
    what = WHAT.fullmatch(text, head.end()) if head else None
    return (*head.groups(), what[1], what[2] or "") if what else ()


def line_of(text: str, ftrace: bool) -> tuple[str, dict[str, int], list[tuple[int, str]]]:
    """(reason or "", row, names that the line tells)."""
    parts = split(text.rstrip(" \r"), ftrace)
    if not parts:
        return "garbled line", {}, []
    comm, tid, cpu, seconds, fraction, event, rest = parts
    if int(cpu) >= 1 << 16 or int(tid) >= 1 << 31:
        return "garbled line", {}, []
    if ftrace:
        short, full = event, f"{SYSTEM.get(event, '')}:{event}"
    else:
        short, full = event.partition(":")[2], event
    row = dict.fromkeys(COLUMNS, 0)
    row |= {"time": int(seconds) * 10**9 + int(fraction.ljust(9, "0")), "cpu": int(cpu), "tid": int(tid)}
    row |= {"other": -1, "flag": -1, "event": EVENTS.get(full, OTHER)}
    names = [(row["tid"], comm)]
    if full not in EVENTS:
        known = re.match("sched_|x86_fpu_|kvm_", short)
        return ("" if known else "unknown event"), row, names
    if not fields(short, rest, row, names):
        return "garbled line", row, names
    if short.startswith("x86_fpu_"):
        if row["xfeatures"] & COMPACTED:
            return "impossible mask", row, names
        if row["xfeatures"] & TILEDATA and row["xcomp_bv"] & TILEDATA and not row["xcomp_bv"] & TILECFG:
            return "impossible mask", row, names
    return "", row, names


def read(text: bytes, ftrace: bool = False) -> Read:
    """Every line of a trace."""
    rows, names, skipped = [], {}, Counter()
    last: dict[int, int] = {}
    *lines, rest = text.decode("latin-1").split("\n")
    for number, line in enumerate(lines, 1):
        if line.startswith("#") or not line.rstrip(" \r"):
            continue
        if re.match(r"CPU:\d* \[LOST ", line.rstrip(" \r")):
            skipped["lost events"] += 1
            continue
        reason, row, told = line_of(line, ftrace) if len(line) <= 4096 else ("garbled line", {}, [])
        if not reason and row["time"] < last.get(row["cpu"], 0):
            reason = "time going backwards"
        if reason:
            skipped[reason] += 1
            continue
        last[row["cpu"]] = row["time"]
        row["line"] = number
        rows.append(tuple(row[each] for each in COLUMNS))
        names |= {tid: comm for tid, comm in told if tid > 0}
    if rest:
        skipped["truncated line"] += 1
    return Read(rows, names, skipped)


def as_ftrace(text: bytes, flags: str = "d..2.", tgid: bool = False) -> bytes:
    """The lines of perf script as ftrace prints the same events, its own header before them.

    ftrace has no task -1: its lines have the number that the switch says, or any.
    """
    out = ["# tracer: nop", "#", "# entries-in-buffer/entries-written: 1/1   #P:2", "#"]
    out += ["#           TASK-PID     CPU#  |||||  TIMESTAMP  FUNCTION"]
    out += ["#              | |         |   |||||     |         |"]
    for line in text.decode("latin-1").splitlines():
        comm, tid, cpu, seconds, fraction, event, rest = split(line, False)
        if event.startswith("x86_fpu:"):
            rest = rest.replace("x86/fpu: 0x", "x86/fpu: ")
        group = f"({tid:>7}) " if tgid else ""
        event = event.partition(":")[2]
        when = f"[{cpu}] {flags}{' ' * bool(flags)}{seconds:>5}.{fraction}"
        out.append(f"{comm:>16}-{tid:<7} {group}{when}: {event}: {rest}")
    return "\n".join([*out, ""]).encode("latin-1")
