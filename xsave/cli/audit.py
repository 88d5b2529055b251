"""`xsave audit`: what a guest may write, what a save does to a buffer, by arithmetic, exhaustively and for real; and
what is wrong with an image, and whether its state can be restored elsewhere.
"""

from xsave.cli.console import Output
from xsave.cli.failures import DONE, NO, usage
from xsave.cli.findings import add_lints
from xsave.cli.options import Parser, add_common, chosen_cpu, mask, number
from xsave.cli.verdicts import ranges_record, verdict_lines, verdict_record
from xsave.errors import UnsupportedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator
    from typing import Any

    from xsave.audit import Verdict
    from xsave.audit.attack import Act
    from xsave.models import CpuModel

_EXAMPLES = """
xsave audit --cpu SapphireRapids --xcr0 0x602e7 --size 4096
xsave audit --prove --policy host-swap --fact swap=after --buffer 4096
xsave audit vcpu.kvm_xsave --migrate-to EPYC-Genoa -o converted.bin
"""


def parser() -> Parser:
    """The verb's parser."""
    made = Parser("audit", "A guest's XCR0, a buffer, an image. Exit 1: the answer is no.", _EXAMPLES)
    add = made.add_argument
    add("inputs", nargs="*", metavar="INPUT", help="image: lints, --policy, --migrate-to")
    one = made.add_mutually_exclusive_group().add_argument
    one("--demo", action="store_true", help="the overrun, executed: on this CPU and emulated")
    one("--prove", action="store_true", help="every state under --policy, with --buffer bytes")
    one("--list", action="store_true", help="the policies and their facts, and the lints")
    lints = add_lints(add)
    add("--policy", metavar="NAME", help="who decides what a guest may write")
    policy = [
        add("--fact", action="append", default=[], metavar="NAME=VALUE", help="of the policy"),
        add("--write", action="append", default=[], metavar="XCR0|XSS|XFD=MASK", help="what does the policy answer?"),
        add("--buffer", metavar="N", help="--prove: bytes of the buffer"),
        add("--save", choices=("rfbm-all", "rfbm-host", "rfbm-buffer"), help="--prove: RFBM (default: rfbm-all)"),
        add("--restore", choices=("buffer", "max"), help="--prove: mask of the restore (default: buffer)"),
        add("--buffer-mask", metavar="MASK", help="--prove: what the buffer was sized for"),
        add("--script", metavar="FILE", help="--prove: the counterexample as a program"),
    ]
    save = [
        add("--cpu", metavar="CPU", help="a name, a file of CPUID text, host (default)"),
        add("--xcr0", metavar="MASK", help="XCR0 at the save (default: all that CPU has)"),
        add("--xss", metavar="MASK", help="IA32_XSS at the save (default: 0)"),
        add("--xfd", metavar="MASK", help="IA32_XFD at the save (default: 0)"),
        add("--instruction", metavar="INSN", type=str.upper, help="XSAVE[OPT|C|S] (default: every one CPU has)"),
        add("--rfbm", metavar="MASK", help="EDX:EAX (default: all ones)"),
        add("--in-use", metavar="MASK", help="XINUSE (default: the worst, everything)"),
        add("--size", metavar="N", help="bytes of the buffer: what does a save do to it?"),
    ]
    image = [
        add("--host", metavar="CPU", help="INPUT: CPU of the VMM for --policy (default: this one)"),
        add("--thread", action="append", metavar="TID", help="INPUT: threads of a core: tid, crashed, #N"),
        add("--migrate-to", metavar="CPU", help="INPUT: can it be restored there? -o: the converted area"),
        add("--to-xcr0", metavar="MASK", help="XCR0 of the system there (default: all that CPU has)"),
        add("--to-xss", metavar="MASK", help="IA32_XSS of the system there (default: 0)"),
        add("--by", metavar="WAY,WAY", help="kvm, criu, xrstor, ptrace (default: by the kind of INPUT)"),
        add("--lost", choices=("raise", "drop"), help="components in use that CPU lacks (default: raise)"),
    ]
    made.brief = [("policy", policy), ("save", save), ("image", image), ("lints", lints)]
    add_common(made)
    return made


# What each question takes; any other option of the verb would be an answer to something else.
_TAKES = {
    "--demo": (),
    "--list": (),
    "--prove": ("cpu", "policy", "fact", "buffer", "save", "restore", "buffer_mask", "script", "instruction"),
    "--policy": ("cpu", "policy", "fact", "write", "size", "instruction", "save"),
    "--lint": ("cpu", "lint", "xcr0", "xss", "xfd", "instruction", "rfbm", "size", "fact", "fail_on"),
    "INPUT": (
        "inputs", "cpu", "host", "thread", "policy", "fact", "xcr0", "xss", "xfd", "save", "instruction", "size",
        "migrate_to", "to_xcr0", "to_xss", "by", "lost", "fail_on",
    ),
    "--size": ("cpu", "xcr0", "xss", "xfd", "instruction", "rfbm", "in_use", "size"),
}
_ALL = {name for names in _TAKES.values() for name in names}


def _question(options: "argparse.Namespace") -> str:
    # Which it is. Raises: `CommandError` for an option that belongs to another.
    asked = {
        "--demo": options.demo, "--list": options.list, "--prove": options.prove, "--lint": options.lint,
        "INPUT": options.inputs or None, "--policy": options.policy,
    }  # fmt: skip
    question = next((name for name, given in asked.items() if given not in (None, False)), "--size")
    for name in sorted(_ALL - {*_TAKES[question]}):
        if getattr(options, name) not in (None, []):
            word = "INPUT" if name == "inputs" else f"--{name.replace('_', '-')}"
            raise usage(f"audit: {word} is not for {question}", "xsave audit -h")
    return question


def run(options: "argparse.Namespace") -> int:
    """Runs the verb; returns the exit code."""
    question = _question(options)
    if question == "--demo":
        return _demo(options)
    if question == "--list":
        from xsave.cli.guests import show_list

        return show_list(options)
    if question == "INPUT":
        from xsave.cli.snapshots import audit_inputs

        return audit_inputs(options)
    model = chosen_cpu(options.cpu)
    if question == "--lint":
        from xsave.cli.findings import lint_it

        return lint_it(options, model)
    if question != "--size":
        from xsave.cli.guests import answer, prove_it

        return prove_it(options, model) if question == "--prove" else answer(options, model)
    if options.size is None:
        raise usage("audit: --size is the question", "xsave audit --xcr0 0xe7 --size 1024, or xsave audit --demo")
    verdicts = _verdicts(options, model)
    with Output.of(options) as out:
        if options.form == "json":
            _json(out, options, model, verdicts)
        else:
            for number_, verdict in enumerate(verdicts):
                if number_:
                    out.line()
                for line in verdict_lines(out, model, verdict):
                    out.line(line)
    return DONE if all(verdict.fits for verdict in verdicts) else NO


def _verdicts(options: "argparse.Namespace", model: "CpuModel") -> "list[Verdict]":
    from xsave.audit.verdict import INSTRUCTIONS, buffer

    facts: "dict[str, Any]" = {"xcr0": mask(options.xcr0) if options.xcr0 else model.xcr0_mask}
    for name in ("xss", "xfd", "rfbm"):
        if getattr(options, name) is not None:
            facts[name] = mask(getattr(options, name))
    if options.in_use is not None:
        facts["in_use"] = mask(options.in_use)
    names = [each for each in INSTRUCTIONS if each.lower() in model.instructions]
    try:
        return [
            buffer(model, instruction=name, size=number(options.size), **facts)
            for name in ([options.instruction] if options.instruction else names)
        ]
    except (ValueError, UnsupportedError) as error:
        raise usage(f"audit: {error}", "xsave audit -h") from None


def _json(out: Output, options: "argparse.Namespace", model: "CpuModel", verdicts: "list[Verdict]") -> None:
    from xsave.report import json as documents

    head: "dict[str, Any]" = {
        "schema": "xsave.audit/1",
        "cpu": model.name,
        "size": number(options.size),
        "fits": all(verdict.fits for verdict in verdicts),
        "diagnostics": [],
    }
    for piece in documents.stream(head, [("verdicts", [verdict_record(verdict) for verdict in verdicts])]):
        out.write(piece)
    out.line()


# --- the attack -----------------------------------------------------------------------------------------------------


def _demo(options: "argparse.Namespace") -> int:
    from xsave.audit.attack import acts

    found, reasons = acts()
    agreed = all(act.agrees for act in found)
    with Output.of(options) as out:
        if options.form == "json":
            _demo_json(out, found, reasons, agreed)
        else:
            for line in demo_lines(out, found):
                out.line(line)
            for reason in reasons:
                out.line(f"left out: {reason}")
            answer = "every byte and every fault as predicted" if agreed else "NOT as predicted"
            out.line(out.style(answer, "bold" if agreed else "red"))
    return DONE if agreed else NO


def demo_lines(out: Output, found: "list[Act]") -> "Iterator[str]":
    """The acts in words, a heading where the CPU or its XCR0 changes."""
    from xsave.audit.attack import HERE
    from xsave.report.text import mask_text

    last: "tuple[object, ...]" = ()
    for act in found:
        if (act.where, act.xcr0, act.xfd) != last:
            last = act.where, act.xcr0, act.xfd
            title = "This CPU, the real instruction" if act.where == HERE else f"{act.where}, emulated"
            yield out.style(title, "bold")
            whose = ", set by this OS, not by a guest" if act.where == HERE else ""
            yield f"  XCR0 {mask_text(act.xcr0)}{whose}"
            if act.xfd:
                yield f"  IA32_XFD {mask_text(act.xfd)}"
        verdict = act.verdict
        yield f"  {act.title}"
        yield f"    {act.instruction} into {verdict.size:,} bytes, sized for {act.sized_for:#x}"
        runs = ", ".join(f"{begin}-{end - 1}" for begin, end in act.ranges)
        what = f"{act.bytes_over:,} bytes past the end changed{' to 0' if act.zeros else ''}: {runs}"
        yield f"    {out.style(what, 'red') if act.ranges else 'no byte past the end changed'}"
        yield f"    {_page_end(act)}"
        answer = "as predicted" if act.agrees else f"NOT as predicted: {verdict!r}, #PF at {verdict.fault_at}"
        yield f"    {out.style(answer, 'green' if act.agrees else 'red')}"


def _page_end(act: "Act") -> str:
    if act.fault is None:
        return "with the buffer at the end of its page: no fault"
    return f"with the buffer at the end of its page: #PF at byte {act.fault}"


def _demo_json(out: Output, found: "list[Act]", reasons: "list[str]", agreed: bool) -> None:
    from xsave.report import json as documents

    records = [
        {
            "title": act.title,
            "where": act.where,
            "instruction": act.instruction,
            "xcr0": documents.mask_record(act.xcr0),
            "xfd": documents.mask_record(act.xfd),
            "rfbm": f"{act.rfbm:#x}",
            "sized_for": documents.mask_record(act.sized_for),
            "size": act.verdict.size,
            "predicted": ranges_record(act.verdict.ranges),
            "unused": ranges_record(act.verdict.unused),
            "changed": ranges_record(act.ranges),
            "bytes": act.bytes_over,
            "zeros": act.zeros,
            "fault_predicted": act.verdict.fault_at,
            "fault": act.fault,
            "agrees": act.agrees,
        }
        for act in found
    ]
    head: "dict[str, Any]" = {"schema": "xsave.audit-demo/1", "agreed": agreed}
    tail = [("diagnostics", [documents.diagnostic(reason, "note") for reason in reasons])]
    for piece in documents.stream(head, [("acts", records)], tail):
        out.write(piece)
    out.line()
