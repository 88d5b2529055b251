"""`xsave audit INPUT`: lints of any image, what a policy makes of its guests, whether it can be restored elsewhere."""

from xsave.cli.console import Output
from xsave.cli.failures import DONE, NO, NO_INPUT, PARTIAL, CommandError, report, usage
from xsave.cli.findings import counted, fails, finding_lines, finding_record
from xsave.cli.guests import WORDS, chosen_policy
from xsave.cli.inputs import Tally, expand, open_image, shown
from xsave.cli.options import cpu, mask, number
from xsave.errors import FormatError, LayoutError, UnsupportedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator
    from typing import Any

    from xsave.area import Area
    from xsave.audit import Admission, Door, Finding, Migration, Moved, Policy
    from xsave.models import CpuModel

WAYS = ("kvm", "criu", "xrstor", "ptrace")
_OUTCOMES = {"gp": "#GP into the guest", "allowed": "allowed", "killed": "killed"}


class State:
    """What was asked of one area of an input: `tid` (None: the input is the area), and the answers, or None."""

    __slots__ = ("admission", "area", "assumed", "migration", "moved", "tid", "xcr0")

    def __init__(self, tid: "int | None", area: "Area") -> None:
        self.tid = tid
        self.area = area
        self.xcr0 = 0
        self.assumed = False  # XCR0 follows from what is in use: the input does not have it
        self.admission: "Admission | None" = None
        self.migration: "Migration | None" = None
        self.moved: "Moved | None" = None


class Subject:
    """One input: `label`, `kind`, what lints found, and its states."""

    __slots__ = ("findings", "kind", "label", "states")

    def __init__(self, label: str, kind: str, findings: "list[Finding]") -> None:
        self.label = label
        self.kind = kind
        self.findings = findings
        self.states: "list[State]" = []


class Question:
    """What the command asks, its words checked before any input is opened."""

    __slots__ = ("by", "cpu", "facts", "lost", "masks", "policy", "save", "target", "threads")

    def __init__(self, options: "argparse.Namespace", host: "CpuModel") -> None:
        self.cpu = cpu(options.cpu) if options.cpu else None
        self.threads = options.thread
        names = ("xcr0", "xss", "xfd")
        self.masks = {name: int(mask(getattr(options, name))) for name in names if getattr(options, name) is not None}
        self.policy: "Policy | None" = chosen_policy(options, host) if options.policy else None
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
        for way in self.by:
            if way not in WAYS:
                raise usage(f"audit: --by {way}: one of {', '.join(WAYS)}")


def audit_inputs(options: "argparse.Namespace", host: "CpuModel") -> int:
    """Runs the question on every input; returns the exit code."""
    question, tally = Question(options, host), Tally()
    found: "list[Subject]" = []
    for item in expand(options.inputs):
        try:
            found.append(_subject(item.name, question))
        except CommandError as failure:
            if failure.code not in (NO_INPUT, PARTIAL):
                raise
            if item.found and failure.code == NO_INPUT:
                tally.passed_over += 1
                continue
            tally.bad += 1
            report(failure)
            continue
        tally.good += 1
    if not tally.good:
        if tally.passed_over:
            raise CommandError(f"no usable input among {tally.passed_over} files", NO_INPUT)
        return tally.code
    written = _write_converted(options, question, found)
    with Output(None if written else _path(options), color=_color(options), ascii_only=options.ascii) as out:
        if options.form == "json":
            _json(out, found)
        else:
            long = False
            for subject in found:
                lines = list(_lines(out, subject, question))
                for line in ([""] if long else []) + lines:
                    out.line(line)
                long = len(lines) > 1
    passes = all(_passes(subject, options, written) for subject in found)
    return tally.code or (DONE if passes else NO)


def _path(options: "argparse.Namespace") -> "str | None":
    path: "str | None" = options.output
    return None if path == "-" else path


def _color(options: "argparse.Namespace") -> bool:
    from xsave.cli.options import colored

    return colored(options.color)


def _passes(subject: Subject, options: "argparse.Namespace", written: bool) -> bool:
    if fails(subject.findings, options.fail_on):
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
    subject = Subject(shown(name), image.kind, found)
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
    except (CommandError, FormatError, LayoutError, ValueError):
        raise failure from None


def _ask(state: State, question: Question, size: "int | None", process: bool) -> None:
    from xsave.audit import Live, admit, migrate, moved, trampoline
    from xsave.audit.migration import least_xcr0

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


def _write_converted(options: "argparse.Namespace", question: Question, found: "list[Subject]") -> bool:
    # With --migrate-to, -o is the converted area; of one state, and only if there is one.
    if question.target is None or options.output is None or options.form == "json":
        return False
    states = [state for subject in found for state in subject.states]
    if len(states) != 1:
        raise usage(f"audit: -o writes one area, {len(states)} were asked for", "--thread TID chooses one")
    conversion = states[0].migration.conversion  # type: ignore[union-attr]
    if conversion.data is None:
        hint = "--lost drop leaves out what the CPU lacks" if conversion.lost else ""
        raise CommandError(f"no area to write: {conversion.why}", NO, source=found[0].label, hint=hint)
    with Output(_path(options)) as file:
        file.write_bytes(conversion.data)
    return str(options.output) != "-"


# --- in words


def _lines(out: Output, subject: Subject, question: Question) -> "Iterator[str]":
    from xsave.report.text import mask_text, printable

    yield f"{out.style(printable(subject.label), 'bold')}: {subject.kind}: {counted(subject.findings)}"
    yield from finding_lines(out, subject.findings)
    if question.policy is not None:
        yield f"  policy {question.policy.name} on {question.policy.model.name}"
        yield from _grouped(subject, lambda state: list(_admission(out, state.admission)))
    if question.target is not None:
        xcr0 = question.facts.get("xcr0", question.target.xcr0_mask)
        yield f"  to {question.target.name}, XCR0 {mask_text(xcr0)}"
        yield from _grouped(subject, lambda state: list(_migration(out, state)))


def _grouped(subject: Subject, lines_of: "Any") -> "Iterator[str]":
    # States with the same answer share it.
    from xsave.report.text import mask_text, wrapped

    groups: "dict[tuple[str, ...], list[State]]" = {}
    for state in subject.states:
        groups.setdefault(tuple(lines_of(state)), []).append(state)
    for lines, states in groups.items():
        tids = [str(state.tid) for state in states if state.tid is not None]
        if tids:
            more = f" and {len(tids) - 5:,} more" if len(tids) > 5 else ""
            yield f"  thread{'s' if len(tids) > 1 else ''} {', '.join(tids[:5])}{more}"
        if states[0].assumed:
            text = f"guest XCR0 {mask_text(states[0].xcr0)}: from what is in use, --xcr0 says otherwise"
            yield from wrapped("    ", text, 80)
        yield from lines


def _admission(out: Output, made: "Admission | None") -> "Iterator[str]":
    from xsave.report.text import mask_text, wrapped

    if made is None:
        return
    for register, value, each in made.answers:
        colour = "green" if each.outcome == "allowed" else "red"
        yield f"    {register} {mask_text(value)}: {out.style(_OUTCOMES[each.outcome], colour)}"
        code = f" [{each.code}]" if each.code else ""
        yield from wrapped("      ", f"by {WORDS[each.exits_to]}: {each.rule}{code}", out.width)
    if made.looked is not None and made.looked.outcome != "allowed":
        yield f"    before the save: {out.style(_OUTCOMES[made.looked.outcome], 'red')}: {made.looked.rule}"
    if made.worst is not None and made.verdict is not None:
        now, worst = made.verdict, made.worst
        answer = "fits" if worst.fits else f"{worst.bytes_over:,} bytes past the end of {worst.size:,} can be written"
        text = f"{worst.instruction} into {worst.size:,} bytes: {answer}"
        yield f"    {out.style(text, 'green' if worst.fits else 'red')}"
        if not worst.fits:
            yield f"      with what is in use now: {'it fits' if now.fits else f'{now.bytes_over:,} bytes'}"


def _migration(out: Output, state: State) -> "Iterator[str]":
    from xsave.report.text import wrapped

    made = state.migration
    if made is None:
        return
    for door in made.doors:
        yield f"    {door.name}: {_answer(out, door)}"
        for each in door.objections:
            at = "" if each.offset is None else f"byte {each.offset}: "
            yield from wrapped("      ", f"{at}{each.message} [{each.code}]", out.width)
            yield from wrapped("        -> ", each.hint, out.width)
    conversion = made.conversion
    if not made.passes:
        if conversion.data is None:
            yield from wrapped("    no conversion: ", conversion.why, out.width)
        else:
            kind = "compacted" if conversion.layout.format else "standard"
            yield f"    converted ({kind}, {len(conversion.data):,} bytes): " + _after(out, conversion.doors)
        for what, part in (("lost", conversion.lost), ("initial, bit cleared", conversion.cleared)):
            if part:
                yield f"      {what}: {part}"
        for text in conversion.changes:
            yield f"      {text}"
    if state.moved is not None:
        yield from wrapped("    ", _linker(state.moved, bool(state.area.layout.model.cpuid)), out.width)


def _answer(out: Output, door: "Door") -> str:
    if door.passes:
        return out.style("takes it whole", "green")
    if door.error:
        return out.style(door.error if door.error != "error" else "refuses", "red")
    return out.style("no error, but not whole", "yellow")


def _after(out: Output, doors: "list[Door]") -> str:
    left = [door.name for door in doors if not door.passes]
    if not left:
        return out.style("passes", "green")
    return out.style(f"still stopped by {', '.join(left)}", "red")


def _linker(found: "Moved", known: bool) -> str:
    start = found.start
    text = f"the dynamic linker's buffer ({start.instruction}, {start.reserved:,} bytes reserved at start): "
    if found.fits:
        text += f"holds the {found.required:,} bytes written there"
    else:
        text += f"{found.required:,} bytes written there, {found.over:,} of them over the caller's stack"
    return text if known else text + " (--cpu says whether the CPU had XSAVEC)"


# --- as JSON


def _json(out: Output, found: "list[Subject]") -> None:
    from xsave.report import json as documents

    head: "dict[str, Any]" = {"schema": "xsave.audit-image/1", "diagnostics": []}
    for piece in documents.stream(head, [("inputs", map(_record, found))]):
        out.write(piece)
    out.line()


def _record(subject: Subject) -> "dict[str, Any]":
    return {
        "source": subject.label,
        "kind": subject.kind,
        "findings": [finding_record(each) for each in subject.findings],
        "states": [_state_record(state) for state in subject.states],
    }


def _state_record(state: State) -> "dict[str, Any]":
    from xsave.report.json import mask_record

    area = state.area
    return {
        "tid": state.tid,
        "format": "compacted" if area.layout.format else "standard",
        "size": area.layout.size,
        "xstate_bv": mask_record(int(area.xstate_bv)),
        "xcr0": mask_record(state.xcr0),
        "xcr0_assumed": state.assumed,
        "policy": None if state.admission is None else _admission_record(state.admission),
        "migration": None if state.migration is None else _migration_record(state),
    }


def _admission_record(made: "Admission") -> "dict[str, Any]":
    from xsave.cli.guests import answer_record
    from xsave.report.json import mask_record

    def verdict(each: "Any") -> "dict[str, Any] | None":
        if each is None:
            return None
        return {"instruction": each.instruction, "rfbm": mask_record(each.mask), "size": each.size,
                "required": each.required, "over": each.over, "fits": each.fits}  # fmt: skip

    return {
        "name": made.policy.name,
        "host": made.policy.model.name,
        "passes": made.passes,
        "answers": [answer_record(register, value, each) for register, value, each in made.answers],
        "audit": None if made.looked is None else {"outcome": made.looked.outcome, "code": made.looked.code},
        "now": verdict(made.verdict),
        "worst": verdict(made.worst),
    }


def _migration_record(state: State) -> "dict[str, Any]":
    from xsave.report.json import mask_record

    made: "Migration" = state.migration  # type: ignore[assignment]
    conversion, linker = made.conversion, state.moved
    return {
        "cpu": made.model.name,
        "xcr0": mask_record(made.xcr0),
        "xss": mask_record(made.xss),
        "passes": made.passes,
        "doors": [_door_record(door) for door in made.doors],
        "conversion": {
            "format": "compacted" if conversion.layout.format else "standard",
            "size": None if conversion.data is None else len(conversion.data),
            "passes": conversion.passes,
            "lost": mask_record(conversion.lost),
            "cleared": mask_record(conversion.cleared),
            "changes": conversion.changes,
            "why": conversion.why,
            "doors": [_door_record(door) for door in conversion.doors],
        },
        "linker": None if linker is None else {
            "instruction": linker.start.instruction, "reserved": linker.start.reserved, "required": linker.required,
            "over": linker.over, "fits": linker.fits,
        },
    }  # fmt: skip


def _door_record(door: "Door") -> "dict[str, Any]":
    from xsave.report.json import mask_record

    return {
        "way": door.way, "name": door.name, "passes": door.passes, "error": door.error or None,
        "objections": [
            {"code": each.code, "message": each.message, "hint": each.hint, "mask": mask_record(each.mask),
             "offset": each.offset, "silent": each.silent}
            for each in door.objections
        ],
    }  # fmt: skip
