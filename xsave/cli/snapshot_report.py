"""What `xsave audit INPUT` found, in words and as JSON."""

from xsave.cli.console import Output
from xsave.cli.findings import counted, finding_lines, finding_record
from xsave.cli.guests import OUTCOMES, WORDS, answer_record
from xsave.cli.verdicts import verdict_record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from typing import Any

    from xsave.area import Area
    from xsave.audit import Admission, Door, Finding, Migration, Moved

__all__ = ["State", "Subject", "document", "subject_lines"]

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
    """One input: `label`, `kind`, what lints found, and its states; `warnings`, what is odd about it, and `partial`,
    whether it is cut or damaged."""

    __slots__ = ("findings", "kind", "label", "partial", "states", "warnings")

    def __init__(
        self, label: str, kind: str, findings: "list[Finding]", warnings: "Sequence[str]" = (), partial: bool = False
    ) -> None:
        self.label = label
        self.kind = kind
        self.findings = findings
        self.warnings = warnings
        self.partial = partial
        self.states: "list[State]" = []


# --- in words


def subject_lines(out: Output, subject: Subject) -> "Iterator[str]":
    """The findings of an input, then what was asked of its states; those with the same answer share it."""
    from xsave.report.text import mask_text, printable

    yield f"{out.style(printable(subject.label), 'bold')}: {subject.kind}: {counted(subject.findings)}"
    yield from finding_lines(out, subject.findings)
    first = subject.states[0] if subject.states else None
    if first is not None and first.admission is not None:
        policy = first.admission.policy
        yield f"  policy {policy.name} on {policy.model.name}"
        yield from _grouped(subject, lambda state: list(_admission(out, state.admission)))
    if first is not None and first.migration is not None:
        yield f"  to {first.migration.model.name}, XCR0 {mask_text(first.migration.xcr0)}"
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
        yield f"    {register} {mask_text(value)}: {out.style(OUTCOMES[each.outcome], colour)}"
        code = f" [{each.code}]" if each.code else ""
        yield from wrapped("      ", f"by {WORDS[each.exits_to]}: {each.rule}{code}", out.width)
    if made.looked is not None and made.looked.outcome != "allowed":
        yield f"    before the save: {out.style(OUTCOMES[made.looked.outcome], 'red')}: {made.looked.rule}"
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


def document(out: Output, found: "Iterable[Subject]", diagnostics: "list[tuple[str, str]]") -> None:
    """Everything as one JSON document; `diagnostics`, (message, source), is looked at when the inputs are through."""
    from xsave.report import json as documents

    head = {"schema": "xsave.audit-image/1"}
    tail = (("diagnostics", [documents.diagnostic(text, source=label) for text, label in diagnostics]) for _ in (0,))
    for piece in documents.stream(head, [("inputs", map(_record, found))], tail):
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
    def verdict(each: "Any") -> "dict[str, Any] | None":
        if each is None:
            return None
        return {"size": each.size, **verdict_record(each)}

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
