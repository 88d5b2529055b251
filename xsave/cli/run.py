"""`xsave run`: one instruction on an area, emulated, on this CPU, or on both and compared."""

from xsave.cli.console import Output
from xsave.cli.failures import DONE, NO, CommandError, usage
from xsave.cli.machine import ALL, NO_MEMORY, Machine, add_machine
from xsave.cli.options import Parser, add_common, mask, number
from xsave.cli.subjects import one_subject

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator
    from typing import Any

    from xsave.cli.outcome import Outcome

_EXAMPLES = """
xsave run XSAVEC --both
xsave run XRSTOR area.bin --cpu SapphireRapids --xcr0 'x87|SSE|AVX'
xsave run XSAVE --state area.bin --cpu EPYC-Genoa -o saved.bin
"""
# A timer's tick or a VM exit between two instructions can make components modified or in use.
_TRIES = 8
_PLACES = {"emulated": "emulated", "host": "this CPU"}


def parser() -> Parser:
    """The verb's parser."""
    made = Parser("run", "One instruction, emulated. Exit 0: done; 1: it faulted, which rule and byte.", _EXAMPLES)
    add = made.add_argument
    add("instruction", metavar="INSN", help="XSAVE[OPT|C|S] XRSTOR[S] FXSAVE XGETBV LDTILECFG ...")
    add("area", nargs="?", metavar="AREA", help="raw area, hex dump, core, or - (default: zeros)")
    add("--cpu", metavar="CPU", help="CPU: a name, CPUID text file, host (default)")
    add("--state", metavar="FILE", help="registers before: JSON, an area (default: initial)")
    add("--host", action="store_true", help="on this CPU; registers before: this thread's")
    add("--both", action="store_true", help="emulated and on this CPU; exit 1 if they differ")
    setting = [
        add("--xcr0", metavar="MASK", help="XCR0 (default: what is enabled here, or all that CPU has)"),
        add("--xss", metavar="MASK", help="IA32_XSS (default: 0)"),
        *add_machine(made),
        add("--ac", action="store_true", help="CR0.AM and EFLAGS.AC are set"),
        add("--ts", action="store_true", help="CR0.TS is set"),
    ]
    operands = [
        add("--seed", type=int, metavar="N", help="random registers before"),
        add("--thread", metavar="TID", help="thread of a core: tid, crashed, #N"),
        add("--no-rexw", action="store_true", help="the form without REX.W"),
        add("--index", metavar="N", help="ECX of XGETBV and XSETBV (default: 0)"),
        add("--value", metavar="MASK", help="EDX:EAX of XSETBV"),
        add("--tile", type=int, choices=range(8), default=0, metavar="0..7", help="tile (default: 0)"),
        add("--stride", metavar="N", help="bytes from one tile row to the next (default: 64)"),
    ]
    made.brief = [("CPU", setting), ("more", operands)]
    add_common(made, output=False)
    add("-o", dest="save", metavar="FILE", help="the area afterwards, as raw bytes")
    return made


def run(options: "argparse.Namespace") -> int:
    """Runs the verb; returns the exit code."""
    machine = _machine(options)
    real = options.host or options.both
    if real:
        from xsave.cli.silicon import prepare

        prepare(machine, options)
    data, label = _area(options, machine)
    from xsave.cli.state import initial_values

    values, origin = initial_values(options, machine)
    outcomes, differ, data = _execute(options, machine, data, values)
    shown = _Shown(options, machine, data, label, origin, outcomes, differ)
    with Output.of(options) as out:
        if options.form == "json":
            _json(out, shown)
        else:
            _text(out, shown)
    if options.save is not None:
        with Output(options.save) as file:
            file.write_bytes(outcomes[-1].memory)
    if options.both:
        return NO if differ else DONE
    return NO if outcomes[0].fault is not None else DONE


def _execute(
    options: "argparse.Namespace", machine: Machine, data: bytes, values: "Any"
) -> "tuple[list[Outcome], list[dict[str, Any]], bytes]":
    # The executions, what differs between two, and the operand.
    from xsave.cli.outcome import differences, emulated

    if not (options.host or options.both):
        return [emulated(machine, data, values)], [], data
    from xsave.cli.silicon import executed, image_of, room

    data, behind = room(machine, data)
    image = image_of(machine, values)
    if options.host:
        return [executed(machine, data, image)], [], data
    emulation = emulated(machine, data, values, image, behind)
    outcomes = [emulation, executed(machine, data, image)]
    differ = differences(machine, *outcomes)
    for _ in range(_TRIES - 1):
        if not differ:
            break
        again = executed(machine, data, image)
        found = differences(machine, emulation, again)
        if len(found) < len(differ):
            outcomes, differ = [emulation, again], found
    return outcomes, differ, data


class _Shown:
    # All that a report is made of.
    def __init__(
        self, options: "argparse.Namespace", machine: Machine, data: bytes, label: str, origin: str,
        outcomes: "list[Outcome]", differ: "list[dict[str, Any]]",
    ) -> None:  # fmt: skip
        self.options = options
        self.machine = machine
        self.data = data
        self.label = label
        self.origin = origin
        self.outcomes = outcomes
        self.differ = differ


def _machine(options: "argparse.Namespace") -> Machine:
    if options.host and options.both:
        raise usage("run: --both is --host and the emulation")
    machine = Machine(options, options.instruction)
    insn = machine.instruction
    if options.no_rexw and options.instruction.upper().endswith("64"):
        raise usage(f"run: {options.instruction} is the form with REX.W", f"{insn} --no-rexw")
    if options.value is not None:
        if insn != "XSETBV":
            raise usage("run: --value is XSETBV's", "--mask is EDX:EAX of the others")
        machine.value = int(mask(options.value))
    elif insn == "XSETBV":
        raise usage("run: XSETBV needs --value", "xsave run XSETBV --value 0xe7 --cpl 0")
    if options.index is not None:
        if insn not in ("XGETBV", "XSETBV"):
            raise usage("run: --index is ECX of XGETBV and XSETBV")
        machine.index = number(options.index)
        if not 0 <= machine.index < 1 << 32:
            raise usage(f"run: --index {options.index} does not fit ECX, which has 32 bits")
    machine.tile = options.tile
    if options.stride is not None:
        machine.stride = number(options.stride)
        if abs(machine.stride) > 1 << 16:
            raise usage(f"run: --stride {options.stride}: at most 65536 here")
    machine.processor()  # what no processor could be is a mistake before anything else
    return machine


def _area(options: "argparse.Namespace", machine: Machine) -> "tuple[bytes, str]":
    # The bytes of the memory operand, and where they came from.
    if machine.instruction in NO_MEMORY:
        if options.area is not None:
            raise usage(f"run: {machine.instruction} has no memory operand", "leave out AREA")
        return b"", ""
    if options.area is None:
        return bytes(machine.operand_size()), "zeros"
    subject = one_subject(options.area, None if machine.host else machine.model, options.thread)
    data = bytes(subject.data)
    if not data:
        raise CommandError("no byte in it", 3, source=subject.label)
    return data, subject.label + (f" thread {subject.tid}" if subject.tid is not None else "")


# --- text -----------------------------------------------------------------------------------------------------------


def _text(out: Output, shown: _Shown) -> None:
    from xsave.report.text import mask_text, printable

    machine, options = shown.machine, shown.options
    how = "emulated and on this CPU" if options.both else "on this CPU" if options.host else "emulated"
    setting = "".join(f", {name}" for name, on in (("AC", machine.ac), ("CR0.TS", machine.ts)) if on)
    out.line(
        out.style(f"{machine.name}, {how}: {machine.model.name}, CPL {machine.cpl}, {machine.mode}-bit mode{setting}",
                  "bold")
    )  # fmt: skip
    out.line(f"  XCR0    {mask_text(machine.xcr0)}")
    for name, value in (("XSS", machine.xss), ("XFD", machine.xfd)):
        if value:
            out.line(f"  {name}     {mask_text(value)}")
    if machine.instruction.startswith(("XSAVE", "XRSTOR")):
        out.line(f"  RFBM    {mask_text(machine.rfbm)} of EDX:EAX {machine.mask:#x}")
    if shown.label:
        aligned = "" if options.host or options.both else f" at {machine.address:#x}"
        out.line(f"  area    {printable(shown.label)}, {len(shown.data):,} bytes{aligned}")
    out.line(f"  state   {printable(shown.origin)}")
    for outcome in shown.outcomes if shown.differ or not options.both else shown.outcomes[:1]:
        if shown.differ:
            out.line(out.style(_PLACES[outcome.place], "bold"))
        _outcome(out, shown, outcome)
    if options.both:
        _verdict(out, shown)


def _outcome(out: Output, shown: _Shown, outcome: "Outcome") -> None:
    from xsave.cli import fault as faults
    from xsave.report.text import mask_text, register_lines

    machine = shown.machine
    if outcome.fault is not None:
        for at, line in enumerate(faults.lines(outcome.fault, machine, len(shown.data))):
            out.line(line if at else out.style(line, "red"))
    else:
        out.line(out.style("done", "green"))
    if outcome.result is not None:
        out.line(f"  EDX:EAX {mask_text(outcome.result)}")
    if machine.instruction == "XSETBV" and outcome.fault is None:
        out.line(f"  XCR0    {mask_text(machine.xcr0)} → {mask_text(outcome.xcr0)}")
    if machine.instruction not in NO_MEMORY:
        _written(out, shown, outcome)
    changed = outcome.changed
    before, after = outcome.xinuse_before, outcome.xinuse_after
    if before is None or after is None:
        out.line("  XINUSE  unknown: this CPU has no XGETBV with ECX 1")
    elif before == after:
        out.line(f"  XINUSE  {mask_text(after)}, as before")
    else:
        out.line(f"  XINUSE  {mask_text(before)} → {mask_text(after)}")
    if not changed:
        out.line("  no register changed")
        return
    out.line(f"  {len(changed)} registers changed{'' if shown.options.both else ', to'}:")
    if not shown.options.both:
        for line in register_lines({name: pair[1] for name, pair in changed.items()}, "u64", out.width - 4):
            out.line(f"    {line}")
    else:
        out.line(f"    {_ranges(list(changed))}")


def _ranges(names: "list[str]") -> str:
    # zmm0 zmm1 zmm2 k1 as zmm0-2 k1.
    from xsave.registers import REGISTERS

    found: "list[tuple[str, int | None, int | None]]" = []
    for name in names:
        row = REGISTERS[name]
        if found and row.index is not None and found[-1][0] == row.family and found[-1][2] == row.index - 1:
            found[-1] = (row.family, found[-1][1], row.index)
        else:
            found.append((row.family if row.index is not None else name, row.index, row.index))
    return " ".join(
        family if first is None else f"{family}{first}" if first == last else f"{family}{first}-{last}"
        for family, first, last in found
    )


def _written(out: Output, shown: _Shown, outcome: "Outcome") -> None:
    from xsave.cli.outcome import pieces

    runs = outcome.written
    count = sum(end - start for start, end in runs)
    if not count:
        out.line("  no byte written")
        return
    out.line(f"  {count:,} of {len(shown.data):,} bytes written:")
    named: "dict[str, list[str]]" = {}
    for name, start, end in pieces(shown.machine, outcome.memory, runs):
        named.setdefault(name or "bytes", []).append(f"{start}-{end - 1}" if end - start > 1 else f"{start}")
    for name, ranges in named.items():
        more = f" … +{len(ranges) - 8}" if len(ranges) > 8 else ""
        out.line(f"    {name:<10} {' '.join(ranges[:8])}{more}")


def _verdict(out: Output, shown: _Shown) -> None:
    one, other = shown.outcomes
    if shown.differ:
        out.line(out.style(f"{len(shown.differ)} difference{'s' if len(shown.differ) > 1 else ''}", "red"))
        for each in shown.differ:
            at = f" at byte {each['offset']}" if each["offset"] is not None else ""
            out.line(f"  {each['what']}{at}")
            out.line(f"    emulated  {_cut(each['emulated'])}")
            out.line(f"    this CPU  {_cut(each['host'])}")
        return
    if one.written:
        for line in _images(shown):
            out.line(line)
    same = [f"{len(one.memory):,} bytes of the area" if one.memory else "", f"{len(other.after)} registers", "XINUSE"]
    if one.fault is not None:
        same.insert(0, "fault")
    if one.result is not None:
        same.insert(0, "result")
    out.line(out.style(f"identical: {', '.join(each for each in same if each)}", "green"))


def _images(shown: _Shown) -> "Iterator[str]":
    # Both areas part by part, as checksums: the eye believes what it can compare.
    from zlib import crc32

    from xsave.cli.outcome import pieces
    from xsave.report.text import table

    one, other = shown.outcomes
    parts: "dict[str, list[tuple[int, int]]]" = {}
    for name, start, end in pieces(shown.machine, one.memory, [(0, len(one.memory))]):
        parts.setdefault(name or "other bytes", []).append((start, end))
    rows = []
    for name, ranges in parts.items():
        images = [b"".join(each.memory[start:end] for start, end in ranges) for each in (one, other)]
        rows.append(
            [name, str(len(images[0])), *(f"{crc32(image):08x}" if any(image) else "zeros" for image in images)]
        )
    yield from table(["PART", "BYTES", "CRC-32 EMULATED", "THIS CPU"], rows, {1}, "  ")


def _cut(value: "str | None") -> str:
    if value is None:
        return "none"
    return value if len(value) <= 64 else f"{value[:64]}… ({len(value) // 2} bytes)"


# --- JSON -----------------------------------------------------------------------------------------------------------


def _json(out: Output, shown: _Shown) -> None:
    from xsave.cli.layout import cpu_record
    from xsave.report import json as documents

    machine, options = shown.machine, shown.options
    head: "dict[str, object]" = {"schema": "xsave.run/1"}
    if options.provenance:
        from xsave.cli.provenance import facts

        head["provenance"] = facts()
    memory = machine.instruction not in NO_MEMORY
    head |= {
        "instruction": machine.instruction,
        "rexw": machine.rexw,
        "cpu": cpu_record(machine.model),
        "xcr0": documents.mask_record(machine.xcr0),
        "xss": documents.mask_record(machine.xss),
        "xfd": documents.mask_record(machine.xfd),
        "mask": f"{machine.mask & ALL:#x}",
        "rfbm": documents.mask_record(machine.rfbm),
        "cpl": machine.cpl,
        "mode": machine.mode,
        "ac": machine.ac,
        "ts": machine.ts,
        "source": shown.label if memory else None,
        "address": f"{machine.address:#x}" if memory else None,
        "size": len(shown.data),
        "state": shown.origin,
    }
    runs = [_record(shown, outcome) for outcome in shown.outcomes]
    tail: "list[tuple[str, object]]" = [("agree", not shown.differ if options.both else None)]
    for piece in documents.stream(head, [("runs", runs), ("differences", shown.differ)], tail):
        out.write(piece)
    out.line()


def _record(shown: _Shown, outcome: "Outcome") -> "dict[str, Any]":
    from xsave.cli import fault as faults
    from xsave.cli.outcome import pieces
    from xsave.report import json as documents

    machine, fault = shown.machine, outcome.fault
    text = documents.register_record
    return {
        "on": outcome.place,
        "fault": None if fault is None else faults.record(fault, faults.hint(fault, machine, len(shown.data))),
        "result": None if outcome.result is None else f"{outcome.result:#x}",
        "xcr0_after": documents.mask_record(outcome.xcr0),
        "xinuse_before": None if outcome.xinuse_before is None else documents.mask_record(outcome.xinuse_before),
        "xinuse_after": None if outcome.xinuse_after is None else documents.mask_record(outcome.xinuse_after),
        "written": [
            {"offset": start, "size": end - start, "name": name or None}
            for name, start, end in pieces(machine, outcome.memory, outcome.written)
        ],
        "registers_changed": {
            name: {"before": text(before), "after": text(after)} for name, (before, after) in outcome.changed.items()
        },
        "registers": {name: text(value) for name, value in outcome.after.items()},
        "area": outcome.memory.hex(),
    }
