"""`xsave audit INPUT`: lints of any image, what a policy makes of its guests, whether it can be restored elsewhere."""

from itertools import chain

from xsave.cli.console import Output, warn
from xsave.cli.failures import DONE, NO, NO_INPUT, PARTIAL, CommandError, report, usage
from xsave.cli.findings import fails
from xsave.cli.guests import chosen_policy
from xsave.cli.inputs import Tally, expand, open_image, shown
from xsave.cli.options import chosen_cpu, colored, cpu, mask, number
from xsave.cli.snapshot_report import State, Subject, document, subject_lines
from xsave.errors import FormatError, HostError, LayoutError, UnsupportedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator
    from typing import Any

    from xsave.area import Area
    from xsave.audit import Policy
    from xsave.models import CpuModel


class Question:
    """What the command asks, its words checked before any input is opened."""

    __slots__ = ("by", "cpu", "facts", "lost", "masks", "policy", "save", "target", "threads")

    def __init__(self, options: "argparse.Namespace") -> None:
        self.cpu = cpu(options.cpu) if options.cpu else None
        self.threads = options.thread
        names = ("xcr0", "xss", "xfd")
        self.masks = {name: int(mask(getattr(options, name))) for name in names if getattr(options, name) is not None}
        self.policy: "Policy | None" = None
        if options.policy:
            self.policy = chosen_policy(options, chosen_cpu(options.host, "--host"))
        elif options.host:
            raise usage("audit: --host needs --policy", "xsave audit --list names the policies")
        self.save: "dict[str, Any]" = {}
        for name in ("save", "instruction"):
            if getattr(options, name) is not None:
                self.save[name] = getattr(options, name)
        if options.size is not None:
            self.save["size"] = number(options.size)
        if self.save and self.policy is None:
            raise usage("audit: --save, --instruction and --size of an input need --policy", "xsave audit --list")
        self.target = cpu(options.migrate_to) if options.migrate_to else None
        self.by = [each.strip() for each in options.by.split(",")] if options.by else []
        self.lost = options.lost
        enabled = {"xcr0": options.to_xcr0, "xss": options.to_xss}
        self.facts = {name: int(mask(text)) for name, text in enabled.items() if text is not None}
        for name in ("by", "lost", "to_xcr0", "to_xss"):
            if getattr(options, name) is not None and self.target is None:
                text = f"audit: --{name.replace('_', '-')} needs --migrate-to"
                raise usage(text, "xsave audit INPUT --migrate-to CPU")
        from xsave.audit.doors import WAYS

        for way in self.by:
            if way not in WAYS:
                raise usage(f"audit: --by {way}: one of {', '.join(WAYS)}")


def audit_inputs(options: "argparse.Namespace") -> int:
    """Runs the question on every input, one after the other; returns the exit code."""
    run = _Run(options, Question(options))
    subjects = run.subjects()
    first = next(subjects, None)
    if first is None:
        if run.tally.passed_over:
            hint = "-v says what is wrong with each"
            raise CommandError(f"no usable input among {run.tally.passed_over} files", NO_INPUT, hint=hint)
        return run.tally.code
    found: "Iterator[Subject]" = chain([first], subjects)
    if run.converts:
        kept = list(found)
        _write_converted(options, kept)
        found = iter(kept)
    path = None if run.converts or options.output == "-" else options.output
    with Output(path, color=colored(options.color), ascii_only=options.ascii) as out:
        if options.form == "json":
            document(out, run.judged(found), run.diagnostics)
        else:
            long = False
            for subject in run.judged(found):
                lines = list(subject_lines(out, subject))
                for line in ([""] if long else []) + lines:
                    out.line(line)
                long = len(lines) > 1
    return run.tally.code or (DONE if run.passes else NO)


class _Run:
    """One command: how its inputs fared, and whether all that was asked of them was answered with yes."""

    def __init__(self, options: "argparse.Namespace", question: Question) -> None:
        self.options = options
        self.question = question
        self.tally = Tally()
        self.passes = True
        self.diagnostics: "list[tuple[str, str]]" = []  # message, source
        # With --migrate-to, -o is the converted area, and the report goes to standard output.
        self.converts = question.target is not None and options.output is not None

    def subjects(self) -> "Iterator[Subject]":
        """The inputs with their answers. One that fails is reported at once and counted; the rest goes on."""
        for item in expand(self.options.inputs):
            try:
                subject = _subject(item.name, self.question)
            except CommandError as failure:
                if failure.code not in (NO_INPUT, PARTIAL):
                    raise
                if item.found and failure.code == NO_INPUT:
                    self.tally.passed_over += 1
                    if self.options.verbose:
                        report(failure)
                    continue
                self.tally.bad += 1
                report(failure)
                continue
            self.tally.good += 1
            self.tally.partial |= subject.partial
            for message in subject.warnings:
                self.diagnostics.append((message, subject.label))
                if subject.partial or self.options.verbose:  # else the lints have said it
                    warn(self.options, message, subject.label)
            yield subject

    def judged(self, subjects: "Iterator[Subject]") -> "Iterator[Subject]":
        """The same, each counted for the exit code."""
        for subject in subjects:
            self.passes &= _passes(subject, self.options.fail_on, self.converts)
            yield subject


def _passes(subject: Subject, level: "str | None", written: bool) -> bool:
    if fails(subject.findings, level):
        return False
    for state in subject.states:
        if state.admission is not None and not state.admission.passes:
            return False
        if state.migration is not None:
            whole = state.migration.conversion.passes if written else state.migration.passes
            if not whole or (state.moved is not None and not state.moved.fits):
                return False
    return True


# --- from an input to its answers


def _subject(name: str, question: Question) -> Subject:
    from xsave.audit import lint_area, lint_image
    from xsave.cli.select import thread_filter

    try:
        image = open_image(name, question.cpu)
    except CommandError as failure:
        area, size = _hostile(name, question.cpu, failure)
        subject = Subject(shown(name), "area", lint_area(area, **question.masks))  # type: ignore[arg-type]
        subject.states.append(State(None, area))
        _ask(subject.states[0], question, size, process=False)
        return subject
    wanted = thread_filter(question.threads)
    threads = [thread for index, thread in enumerate(image.threads) if wanted(index, thread)]
    if not threads and len(image.threads):
        raise CommandError(f"no thread {', '.join(question.threads)}", NO, source=shown(name))
    tids = {thread.tid for thread in threads}
    found = [each for each in lint_image(image, **question.masks) if not question.threads or each.tid in tids]
    subject = Subject(shown(name), image.kind, found, list(image.warnings), image.partial)
    process = image.kind == "ELF core" and image.os == "Linux"
    for thread in threads:
        try:
            area_ = thread.area
        except FormatError:
            continue  # a finding already
        if area_ is not None and (question.policy is not None or question.target is not None):
            subject.states.append(State(thread.tid if len(image.threads) > 1 or thread.tid else None, area_))
            _ask(subject.states[-1], question, getattr(image, "size", None), process)
    return subject


def _hostile(name: str, model: "CpuModel | None", failure: CommandError) -> "tuple[Area, int]":
    # Bytes that are no area any reader takes: looked at as one of that CPU, whatever the header says.
    from xsave.area import Area
    from xsave.cli.subjects import subjects
    from xsave.layout import Layout
    from xsave.models import CpuModel

    if name == "-" or failure.code != NO_INPUT:
        raise failure
    try:
        found = list(subjects(name, model, None))
        if len(found) != 1 or found[0].tid is not None:
            raise failure
        data = bytes(found[0].data)
        chosen = model or found[0].model or CpuModel.host()
        return Area(data, Layout.of(data, chosen), check=False), len(data)
    except (CommandError, FormatError, HostError, LayoutError, UnsupportedError, ValueError):
        raise failure from None


def _ask(state: State, question: Question, size: "int | None", process: bool) -> None:
    from xsave.audit import Live, admit, migrate, moved, trampoline
    from xsave.audit.policies.rules import least_xcr0

    area, masks = state.area, question.masks
    layout = area.layout
    user = int(layout.mask) & ~int(layout.model.xss_mask)
    state.assumed = "xcr0" not in masks and not process
    xcr0 = masks.get("xcr0", least_xcr0(int(area.xstate_bv) & user) if state.assumed else user | 1)
    state.xcr0 = xcr0
    try:
        if question.policy is not None:
            guest = Live(xcr0, masks.get("xss", 0), masks.get("xfd", 0))
            state.admission = admit(question.policy, guest, int(area.xstate_bv), **question.save)
        if question.target is not None:
            ways = question.by or (["criu", "xrstor", "ptrace"] if process else ["kvm", "xrstor"])
            guest_facts = {f"guest_{name}": value for name, value in {**masks, "xcr0": xcr0}.items()}
            state.migration = migrate(area, question.target, by=ways, lost=question.lost or "raise", kept=size,
                                      **question.facts, **guest_facts)  # fmt: skip
    except (ValueError, UnsupportedError) as error:
        raise usage(f"audit: {error}", "xsave audit -h") from None
    if question.target is not None and process:
        enabled = question.facts.get("xcr0", int(question.target.xcr0_mask))
        try:
            state.moved = moved(trampoline(layout.model, xcr0), question.target, enabled)
        except (ValueError, UnsupportedError, LayoutError):
            state.moved = None  # an XCR0 that no process had, or a CPU without the instruction: #UD, said by the doors


def _write_converted(options: "argparse.Namespace", found: "list[Subject]") -> None:
    # One state's, and only if there is an area that the target takes.
    states = [state for subject in found for state in subject.states]
    if len(states) != 1:
        raise usage(f"audit: -o writes one area, {len(states)} were asked for", "--thread TID chooses one")
    conversion = states[0].migration.conversion  # type: ignore[union-attr]
    if conversion.data is None:
        hint = "--lost drop leaves out what the CPU lacks" if conversion.lost and options.lost != "drop" else ""
        raise CommandError(f"no area to write: {conversion.why}", NO, source=found[0].label, hint=hint)
    if options.output == "-":
        raise usage("audit: -o - would mix the area and the report", "-o FILE, or xsave convert")
    with Output(options.output) as file:
        file.write_bytes(conversion.data)
