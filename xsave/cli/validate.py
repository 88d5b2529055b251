"""`xsave validate`: would an instruction or the kernel take an area on a CPU? Which rule, which byte.

Without options the header is judged by the rules of XRSTOR (with --xss XRSTORS) alone; `--instruction` asks the
emulated processor, `--ptrace` and `--ioctl` the rules of Linux.
"""

from xsave.audit import uabi
from xsave.cli.console import Output
from xsave.cli.failures import DONE, NO, NO_INPUT, CommandError, usage
from xsave.cli.inputs import expand
from xsave.cli.machine import Machine, add_machine, memory_of
from xsave.cli.options import Parser, add_common, cpu, mask
from xsave.cli.subjects import Subject, subjects
from xsave.components import ComponentMask
from xsave.errors import LayoutError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from typing import Any

    from xsave.errors import Exit, Fault
    from xsave.models import CpuModel

    Finding = tuple[str, int | None, str, bool]

_EXAMPLES = """
xsave validate area.bin --cpu SapphireRapids
xsave validate task.bin --cpu SapphireRapids --instruction XRSTORS --xss cet
xsave validate area.bin --cpu EPYC-Genoa --ioctl KVM_SET_XSAVE
"""
_INSTRUCTIONS = ("XRSTOR", "XRSTORS", "FXRSTOR", "LDTILECFG")


class Verdict:
    """What was found in one area: `findings` as (rule, offset, message, fatal). `machine` and `fault`: the processor
    that was asked and its answer; `error`: what the kernel's call returns."""

    __slots__ = ("error", "fault", "findings", "format", "instruction", "machine", "model", "subject", "xcr0", "xss")

    def __init__(
        self,
        subject: Subject,
        model: "CpuModel",
        form: str,
        xcr0: ComponentMask,
        xss: "ComponentMask | None",
        findings: "list[Finding]",
        instruction: str = "",
    ) -> None:
        self.subject = subject
        self.model = model
        self.format = form
        self.xcr0 = xcr0
        self.xss = xss
        self.findings = findings
        self.instruction = instruction or ("XRSTOR" if xss is None else "XRSTORS")
        self.machine: "Machine | None" = None
        self.fault: "Fault | None" = None
        self.error: "str | None" = None

    @property
    def valid(self) -> bool:
        """Whether the instruction or the kernel would take it."""
        return not any(fatal for *_, fatal in self.findings)


def parser() -> Parser:
    """The verb's parser."""
    made = Parser("validate", "Would a CPU or the kernel take it? Exit 0: yes; 1: no, which rule and byte.", _EXAMPLES)
    add = made.add_argument
    add("inputs", nargs="*", metavar="INPUT", help="raw area, hex dump, core, or -")
    add("--cpu", metavar="CPU", help="CPU that restores (default: the input's own)")
    add("--xcr0", metavar="MASK", help="XCR0 (default: all that the CPU has)")
    add("--xss", metavar="MASK", help="IA32_XSS; judges by XRSTORS' rules")
    add("--thread", action="append", metavar="TID", help="threads of a core: tid, crashed, #N")
    ways = made.add_mutually_exclusive_group()
    ways.add_argument(
        "--instruction",
        type=str.upper,
        choices=_INSTRUCTIONS,
        metavar="INSN",
        help="exact: XRSTOR[S] FXRSTOR LDTILECFG",
    )
    ways.add_argument(
        "--ioctl", choices=(uabi.KVM,), metavar="NAME", help="KVM_SET_XSAVE: would Linux take it from a VMM?"
    )
    ways.add_argument("--ptrace", action="store_true", help="would PTRACE_SETREGSET (NT_X86_XSTATE) take it?")
    made.brief = [("CPU", add_machine(made))]
    add_common(made)
    return made


def run(options: "argparse.Namespace") -> int:
    """Runs the verb; returns the exit code."""
    _check(options)
    model = cpu(options.cpu) if options.cpu else None
    xcr0 = mask(options.xcr0) if options.xcr0 else None
    xss = mask(options.xss) if options.xss else None
    verdicts = []
    for item in expand(options.inputs):
        for each in subjects(item.name, model, options.thread):
            if options.instruction:
                verdicts.append(exact(each, model, options))
            elif options.ioctl or options.ptrace:
                verdicts.append(by_kernel(each, model, xcr0, options))
            else:
                verdicts.append(judge(each, model, xcr0, xss))
    if not verdicts:
        raise CommandError("no area in the input", NO_INPUT)
    with Output.of(options) as out:
        if options.form == "json":
            _json(out, options, verdicts)
        else:
            for verdict in verdicts:
                _text(out, verdict)
    return DONE if all(verdict.valid for verdict in verdicts) else NO


def _check(options: "argparse.Namespace") -> None:
    # What an option needs that it stands beside.
    kernel = options.ioctl or options.ptrace
    if kernel and options.xss:
        raise usage("validate: the kernel takes no supervisor state, --xss has no meaning there")
    if options.instruction:
        return
    for name in ("mask", "cpl", "address") + (() if kernel else ("xfd",)):
        if getattr(options, name) is not None:
            raise usage(f"validate: --{name} needs --instruction", "--instruction XRSTOR asks the emulated processor")
    if options.mode != 64:
        raise usage("validate: --mode needs --instruction", "--instruction XRSTOR asks the emulated processor")


def exact(subject: Subject, model: "CpuModel | None", options: "argparse.Namespace") -> Verdict:
    """What the emulated processor says of an area, its registers being initial."""
    machine = Machine(options, options.instruction, model or subject.model)
    data = bytearray(subject.data)
    answer, _ = machine.execute(machine.processor(), memory_of(data, machine.address))
    form = {"FXRSTOR": "legacy", "LDTILECFG": "tile configuration"}.get(machine.instruction, _format(data))
    findings: "list[Finding]" = []
    if answer is not None:
        findings += [_finding(answer), *_rest(machine, data, answer)]
    elif machine.instruction in ("XRSTOR", "XRSTORS"):
        findings += _tile_notes(machine, data, form)
    verdict = Verdict(subject, machine.model, form, machine.xcr0, machine.xss, findings, machine.instruction)
    verdict.machine, verdict.fault = machine, answer  # type: ignore[assignment]
    return verdict


def _finding(fault: "Fault | Exit", what: str = "") -> "Finding":
    from xsave.cli.fault import message

    return fault.rule, fault.offset, f"{message(fault)}{what} [{fault.section}]", not what  # type: ignore[union-attr]


def _rest(machine: Machine, data: bytearray, fault: "Fault | Exit") -> "list[Finding]":
    # An area that ends before the instruction does: what would come if memory went on behind it.
    if fault.rule != "PAGE" or len(data) >= machine.operand_size():  # type: ignore[union-attr]
        return []
    longer = data + bytes(machine.operand_size() - len(data))
    answer, _ = machine.execute(machine.processor(), memory_of(longer, machine.address))
    if answer is None:
        return [("PAGE", len(data), f"the area ends here; with zeros behind it {machine.name} does not fault", False)]
    rule, offset, text, _ = _finding(answer)
    return [(rule, offset, f"with zeros behind the area, {text}", False)]


def _tile_notes(machine: Machine, data: bytearray, form: str) -> "list[Finding]":
    # XRSTOR never faults on a configuration that LDTILECFG refuses: it loads the initial one (SDM1 13.5.14).
    from xsave.components import Component
    from xsave.layout import COMPACTED, STANDARD, Layout
    from xsave.processor import Processor

    tilecfg = Component.TILECFG
    xstate, xcomp = (int.from_bytes(data[at : at + 8], "little") for at in (512, 520))
    compacted = form == "compacted"
    if not xstate & machine.rfbm & tilecfg.mask:
        return []
    layout = Layout(
        machine.model, int(xcomp) & ~(1 << 63) if compacted else int(machine.xcr0), COMPACTED if compacted else STANDARD
    )
    offset, size = layout.offsets[tilecfg]
    image = bytes(data[offset : offset + size])
    fault = Processor(machine.model, xcr0=int(machine.xcr0)).try_ldtilecfg(image)
    if fault is None:
        return []
    rule, byte, text, _ = _finding(fault, ": TILECFG becomes initial")
    return [(rule, None if byte is None else offset + byte, text, False)]


def by_kernel(
    subject: Subject, model: "CpuModel | None", xcr0: "ComponentMask | None", options: "argparse.Namespace"
) -> Verdict:
    """What Linux says of an area that a debugger or a VMM hands to it."""
    from xsave.audit.verdict import can_disable
    from xsave.models import CpuModel

    model = model or subject.model or CpuModel.host()
    entry = options.ioctl or uabi.PTRACE
    works_with = uabi.enabled(model, xcr0)
    if options.xfd:
        absent = int(mask(options.xfd))
    else:
        absent = can_disable(model) if options.ptrace else 0
    found, error = uabi.findings(subject.data, model, entry, int(works_with), absent)
    verdict = Verdict(subject, model, _format(subject.data), works_with, None, list(found), entry)
    verdict.error = error
    return verdict


def _format(data: "bytes | bytearray | memoryview") -> str:
    if len(data) < 576:
        return "too short"
    return "compacted" if data[527] & 0x80 else "standard"


def judge(
    subject: Subject, model: "CpuModel | None", xcr0: "ComponentMask | None", xss: "ComponentMask | None"
) -> Verdict:
    """What a CPU would say of an area. `model` and `xcr0` default to the input's own CPU and all that it has."""
    from xsave.area import header_findings
    from xsave.models import CpuModel

    named = model is not None
    model = model or subject.model or CpuModel.host()
    xcr0 = ComponentMask(model.xcr0_mask) if xcr0 is None else xcr0
    allowed = xcr0 if xss is None else ComponentMask(xcr0 | xss)
    if len(subject.data) < 576:
        size = len(subject.data)
        short: "Finding" = (
            "SIZE",
            size,
            f"{size} bytes do not hold the legacy region and the header [SDM1 13.4]",
            True,
        )
        return Verdict(subject, model, "too short", xcr0, xss, [short])
    findings: "list[Finding]" = [
        (str(rule), int(offset), str(message), bool(fatal))
        for rule, offset, message, fatal in header_findings(
            subject.data,
            allowed,
            mxcsr_mask=model.mxcsr_mask,
            compaction=not named or "xsavec" in model.instructions,
            supervisor=xss is not None,
        )
    ]
    compacted = bool(subject.data[527] & 0x80)
    findings += _size_finding(subject.data, model, allowed, compacted)
    return Verdict(subject, model, "compacted" if compacted else "standard", xcr0, xss, findings)


def _size_finding(data: "bytes | memoryview", model: "CpuModel", allowed: int, compacted: bool) -> "list[Finding]":
    # The bytes that a restore would read must be there: the slots of XCOMP_BV, or the components in use.
    from xsave.layout import COMPACTED, STANDARD, Layout

    fields = [int.from_bytes(data[at : at + 8], "little") for at in (512, 520)]
    wanted = (fields[1] & ~(1 << 63) if compacted else fields[0] & ~int(model.xss_mask)) & int(allowed) | 3
    try:
        layout = Layout(model, wanted, COMPACTED if compacted else STANDARD)
    except LayoutError:
        return []
    if len(data) >= layout.size:
        return []
    text = (
        f"the area ends at byte {len(data)}, {ComponentMask(wanted)} needs {layout.size} bytes: #PF, or another's data"
    )
    return [("SIZE", len(data), text, True)]


def _text(out: Output, verdict: Verdict) -> None:
    from xsave.cli.fault import title
    from xsave.report.text import mask_text, printable

    subject, machine, fault = verdict.subject, verdict.machine, verdict.fault
    place = printable(subject.label) + (f" thread {subject.tid}" if subject.tid is not None else "")
    allowed = f"XCR0 {mask_text(verdict.xcr0)}" + (f", IA32_XSS {mask_text(verdict.xss)}" if verdict.xss else "")
    if verdict.xss is not None and not verdict.xss and machine is None:
        allowed += f", IA32_XSS {mask_text(verdict.xss)}"
    answer = out.style("valid", "green") if verdict.valid else out.style("invalid", "red")
    why = f": {title(fault.vector, fault.error_code)}" if fault is not None else ""
    why += f": {verdict.error}" if verdict.error else ""
    name = verdict.instruction if machine is None else machine.name
    out.line(f"{place}: {verdict.format}, {len(subject.data):,} bytes: {answer} for {name}{why}")
    out.line(f"  on {verdict.model.name}, {allowed}")
    if machine is not None:
        xfd = f"IA32_XFD {mask_text(machine.xfd)}, " if machine.xfd else ""
        rfbm = f"RFBM {mask_text(machine.rfbm)}, " if machine.instruction.startswith("XRSTOR") else ""
        out.line(f"  {rfbm}{xfd}CPL {machine.cpl}, {machine.mode}-bit mode")
    for rule, offset, message, fatal in verdict.findings:
        at = f"byte {offset} (0x{offset:x}) " if offset is not None else ""
        out.line(f"  {at}{rule}{'' if fatal else ' (no fault)'}: {message}")


def _json(out: Output, options: "argparse.Namespace", verdicts: "list[Verdict]") -> None:
    from xsave.report import json as documents

    head: "dict[str, object]" = {"schema": "xsave.validate/1"}
    if options.provenance:
        from xsave.cli.provenance import facts

        head["provenance"] = facts()
    head["valid"] = all(verdict.valid for verdict in verdicts)
    for piece in documents.stream(head, [("areas", map(_record, verdicts))]):
        out.write(piece)
    out.line()


def _record(verdict: Verdict) -> "dict[str, Any]":
    from xsave.cli import fault as faults
    from xsave.report import json as documents

    machine, fault = verdict.machine, verdict.fault
    made: "dict[str, Any]" = {
        "source": verdict.subject.label,
        "tid": verdict.subject.tid,
        "cpu": verdict.model.name or None,
        "instruction": verdict.instruction,
        "format": verdict.format,
        "size": len(verdict.subject.data),
        "xcr0": documents.mask_record(verdict.xcr0),
        "xss": None if verdict.xss is None else documents.mask_record(verdict.xss),
        "valid": verdict.valid,
        "findings": [
            {"rule": rule, "offset": offset, "message": message, "fatal": fatal}
            for rule, offset, message, fatal in verdict.findings
        ],
    }
    if machine is not None:
        where = "" if fault is None else faults.hint(fault, machine, len(verdict.subject.data))
        made["exact"] = {
            "mask": f"{machine.mask:#x}",
            "rfbm": documents.mask_record(machine.rfbm),
            "xfd": documents.mask_record(machine.xfd),
            "cpl": machine.cpl,
            "mode": machine.mode,
            "address": f"{machine.address:#x}",
            "fault": None if fault is None else faults.record(fault, where),
        }
    elif verdict.instruction in (uabi.PTRACE, uabi.KVM):
        made["kernel"] = {"error": verdict.error}
    return made
