"""`xsave validate`: would XRSTOR (or XRSTORS) take an area's header on a CPU? Which rule, which byte."""

import sys

from xsave.cli.console import Output
from xsave.cli.failures import DONE, NO, NO_INPUT, CommandError, explain
from xsave.cli.inputs import Input, expand, shown
from xsave.cli.options import Parser, add_common, cpu, mask
from xsave.cli.select import thread_filter
from xsave.components import ComponentMask
from xsave.errors import FormatError, LayoutError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator
    from typing import Any

    from xsave.models import CpuModel

_EXAMPLES = """
xsave validate area.bin --cpu SapphireRapids
xsave validate area.bin --cpu EPYC-Genoa --xcr0 'x87|SSE|AVX'
xsave validate task.bin --cpu SapphireRapids --xss cet
"""


# An area is far smaller; what follows it in a file is not looked at.
_LIMIT = 1 << 20


class Subject:
    """One area to judge: its bytes, where they came from, and the CPU that the input itself points to."""

    __slots__ = ("data", "label", "model", "tid")

    def __init__(self, label: str, tid: "int | None", data: "bytes | memoryview", model: "CpuModel | None") -> None:
        self.label = label
        self.tid = tid
        self.data = data
        self.model = model


class Verdict:
    """What was found in one area: `findings` as (rule, offset, message, fatal)."""

    __slots__ = ("findings", "format", "model", "subject", "xcr0", "xss")

    def __init__(
        self,
        subject: Subject,
        model: "CpuModel",
        form: str,
        xcr0: ComponentMask,
        xss: "ComponentMask | None",
        findings: "list[tuple[str, int, str, bool]]",
    ) -> None:
        self.subject = subject
        self.model = model
        self.format = form
        self.xcr0 = xcr0
        self.xss = xss
        self.findings = findings

    @property
    def valid(self) -> bool:
        """Whether the instruction would take it."""
        return not any(fatal for *_, fatal in self.findings)


def parser() -> Parser:
    """The verb's parser."""
    made = Parser("validate", "Would XRSTOR take the header? Exit 0: yes; 1: no, and which rule and byte.", _EXAMPLES)
    made.add_argument("inputs", nargs="*", metavar="INPUT", help="raw area, hex dump, core, or -")
    made.add_argument("--cpu", metavar="CPU", help="CPU that restores (default: the input's own)")
    made.add_argument("--xcr0", metavar="MASK", help="XCR0 (default: all that the CPU has)")
    made.add_argument("--xss", metavar="MASK", help="IA32_XSS; judges by XRSTORS' rules")
    made.add_argument("--thread", action="append", metavar="TID", help="threads of a core: tid, crashed, #N")
    add_common(made)
    return made


def run(options: "argparse.Namespace") -> int:
    """Runs the verb; returns the exit code."""
    model = cpu(options.cpu) if options.cpu else None
    xcr0 = mask(options.xcr0) if options.xcr0 else None
    xss = mask(options.xss) if options.xss else None
    verdicts = [
        judge(each, model, xcr0, xss) for item in expand(options.inputs) for each in _subjects(item, model, options)
    ]
    if not verdicts:
        raise CommandError("no area in the input", NO_INPUT)
    with Output.of(options) as out:
        if options.form == "json":
            _json(out, options, verdicts)
        else:
            for verdict in verdicts:
                _text(out, verdict)
    return DONE if all(verdict.valid for verdict in verdicts) else NO


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
        short = ("SIZE", size, f"{size} bytes do not hold the legacy region and the header [SDM1 13.4]", True)
        return Verdict(subject, model, "too short", xcr0, xss, [short])
    knob = model.knobs.get("mxcsr_mask", 0xFFFF)
    findings = [
        (str(rule), int(offset), str(message), bool(fatal))
        for rule, offset, message, fatal in header_findings(
            subject.data,
            allowed,
            mxcsr_mask=knob if isinstance(knob, int) else 0xFFFF,
            compaction=not named or "xsavec" in model.instructions,
            supervisor=xss is not None,
        )
    ]
    compacted = bool(subject.data[527] & 0x80)
    findings += _size_finding(subject.data, model, allowed, compacted)
    return Verdict(subject, model, "compacted" if compacted else "standard", xcr0, xss, findings)


def _size_finding(
    data: "bytes | memoryview", model: "CpuModel", allowed: int, compacted: bool
) -> "list[tuple[str, int, str, bool]]":
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


def _subjects(item: Input, model: "CpuModel | None", options: "argparse.Namespace") -> "Iterator[Subject]":
    from xsave.images import open as open_any

    name = shown(item.name)
    source = sys.stdin.buffer.read(_LIMIT) if item.name == "-" else item.name
    try:
        data = _area_bytes(source)
        if data is not None:
            yield Subject(name, None, data, model or _suggested(data))
            return
        wanted = thread_filter(options.thread)
        for index, thread in enumerate(open_any(source, cpu=model).threads):
            if wanted(index, thread) and thread.area is not None:
                yield Subject(name, thread.tid, memoryview(thread.area), thread.area.layout.model)
    except (FormatError, OSError) as error:
        raise explain(error, source=name) from error


def _area_bytes(source: "str | bytes") -> "bytes | None":
    # The bytes of an input that is one area, or shows one in hex, whatever its header says; None for a core file.
    from xsave.images.hexdump import looks_like_text, parse_hex
    from xsave.images.source import open_source

    opened = open_source(source)
    try:
        if not opened.seekable:
            opened.retain(0, _LIMIT)
        head = opened.read(0, 4096)
        if head.startswith(b"\x7fELF"):
            return None
        data = opened.read(0, _LIMIT)
        return parse_hex(data, opened.name)[0] if looks_like_text(head) else data
    finally:
        opened.close()


def _suggested(data: bytes) -> "CpuModel | None":
    # The CPU that the area itself points to, where it is good enough to say.
    from xsave.images import open as open_any

    try:
        area = open_any(data).threads[0].area
        return None if area is None else area.layout.model
    except FormatError:
        return None


def _instruction(verdict: Verdict) -> str:
    return "XRSTOR" if verdict.xss is None else "XRSTORS"


def _text(out: Output, verdict: Verdict) -> None:
    from xsave.report.text import mask_text, printable

    subject = verdict.subject
    place = printable(subject.label) + (f" thread {subject.tid}" if subject.tid is not None else "")
    allowed = f"XCR0 {mask_text(verdict.xcr0)}" + (
        "" if verdict.xss is None else f", IA32_XSS {mask_text(verdict.xss)}"
    )
    answer = out.style("valid", "green") if verdict.valid else out.style("invalid", "red")
    out.line(f"{place}: {verdict.format}, {len(subject.data):,} bytes: {answer} for {_instruction(verdict)}")
    out.line(f"  on {verdict.model.name}, {allowed}")
    for rule, offset, message, fatal in verdict.findings:
        out.line(f"  byte {offset} (0x{offset:x}) {rule}{'' if fatal else ' (no fault)'}: {message}")


def _json(out: Output, options: "argparse.Namespace", verdicts: "list[Verdict]") -> None:
    from xsave.report import json as documents

    def record(verdict: Verdict) -> "dict[str, Any]":
        return {
            "source": verdict.subject.label,
            "tid": verdict.subject.tid,
            "cpu": verdict.model.name or None,
            "instruction": _instruction(verdict),
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

    head: "dict[str, object]" = {"schema": "xsave.validate/1"}
    if options.provenance:
        from xsave.cli.provenance import facts

        head["provenance"] = facts()
    head["valid"] = all(verdict.valid for verdict in verdicts)
    for piece in documents.stream(head, [("areas", map(record, verdicts))]):
        out.write(piece)
    out.line()
