"""`xsave audit --lint`, and what lints find in inputs: in words, as JSON, and the exit code of `--fail-on`."""

from xsave.cli.console import Output
from xsave.cli.failures import DONE, NO, usage
from xsave.cli.options import mask, number
from xsave.errors import UnsupportedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Sequence
    from typing import Any

    from xsave.audit import Finding
    from xsave.models import CpuModel

LEVELS = ("error", "warning", "note", "never")
_SUBJECTS = ("cpuid", "config")
_COLOURS = {"error": "red", "warning": "yellow", "note": "cyan"}
# Facts of a configuration that are masks; `restore` is a name.
_MASKS = ("allowed_xcr0", "allowed_xss", "restore_mask", "restore_xss")
_SHOWN = 40


def add_lints(add: "Any") -> "list[argparse.Action]":
    """The options about lints."""
    return [
        add("--lint", choices=_SUBJECTS, help="the CPUID set of --cpu; a configuration"),
        add("--fail-on", choices=LEVELS, help="exit 1 from which severity on (default: error)"),
    ]


def fails(found: "Sequence[Finding]", level: "str | None") -> bool:
    """Whether a finding is as severe as `level`, or more (None: "error")."""
    level = level or "error"
    return level != "never" and any(LEVELS.index(each.severity) <= LEVELS.index(level) for each in found)


def counted(found: "Sequence[Finding]") -> str:
    """How many of each severity, in words."""
    words = []
    for severity in LEVELS[:3]:
        count = sum(each.severity == severity for each in found)
        if count:
            words.append(f"{count} {severity}{'s' if count != 1 else ''}")
    return ", ".join(words) or "no finding"


def finding_lines(out: Output, found: "Sequence[Finding]") -> "Iterator[str]":
    """The findings, the most severe first, at most 40; threads of which the same is to be said share it."""
    from xsave.report.text import printable, wrapped

    groups: "dict[tuple[object, ...], list[Finding]]" = {}
    for each in sorted(found, key=lambda each: LEVELS.index(each.severity)):
        alone = each.where if each.tid is None or not each.where.startswith("thread ") else None
        groups.setdefault((each.id, each.message, each.offset, alone), []).append(each)
    ranked = list(groups.values())
    for same in ranked[:_SHOWN]:
        each = same[0]
        at = "" if each.offset is None else f", byte {each.offset} ({each.offset:#x})"
        head = f"{each.severity} {each.id}"
        where = each.where
        if len(same) > 1:
            more = f" and {len(same) - 5:,} more" if len(same) > 5 else ""
            where = f"threads {', '.join(str(one.tid) for one in same[:5])}{more}"
        yield f"  {out.style(head, _COLOURS[each.severity])} {printable(where)}{at}"
        section = "" if f"[{each.section}" in each.message else f" [{each.section}]"
        yield from wrapped("    ", each.message + section, out.width)
    if len(ranked) > _SHOWN:
        yield f"  ... and {len(ranked) - _SHOWN:,} more: --json has all"


def finding_record(each: "Finding") -> "dict[str, Any]":
    """A finding as JSON."""
    return {
        "id": each.id, "severity": each.severity, "where": each.where, "tid": each.tid, "offset": each.offset,
        "message": each.message, "section": each.section,
    }  # fmt: skip


def lint_it(options: "argparse.Namespace", model: "CpuModel") -> int:
    """The lints of a CPUID set or of a configuration; exit 1 as `--fail-on` says."""
    from xsave.audit import lint_config, lint_model

    try:
        if options.lint == "cpuid":
            found = _cpuid(options, model, lint_model)
        else:
            found = lint_config(model, **_configuration(options, model))
    except (ValueError, UnsupportedError) as error:
        raise usage(f"audit: {error}", "xsave audit -h") from None
    with Output.of(options) as out:
        if options.form == "json":
            from xsave.report import json as documents

            head: "dict[str, Any]" = {"schema": "xsave.audit-lint/1", "cpu": model.name, "subject": options.lint}
            head["diagnostics"] = []
            for piece in documents.stream(head, [("findings", map(finding_record, found))]):
                out.write(piece)
            out.line()
        else:
            out.line(f"{model.name}, {'CPUID' if options.lint == 'cpuid' else 'configuration'}: {counted(found)}")
            for line in finding_lines(out, found):
                out.line(line)
    return NO if fails(found, options.fail_on) else DONE


def _cpuid(options: "argparse.Namespace", model: "CpuModel", lint_model: "Any") -> "list[Finding]":
    for name in ("xfd", "rfbm", "size", "instruction"):
        if getattr(options, name) is not None:
            raise usage(f"audit: --{name} is not for --lint cpuid", "--lint config judges a configuration")
    if options.fact:
        raise usage("audit: --fact is not for --lint cpuid", "--lint config judges a configuration")
    masks = {name: int(mask(getattr(options, name))) for name in ("xcr0", "xss") if getattr(options, name) is not None}
    found: "list[Finding]" = lint_model(model, **masks)
    return found


def _configuration(options: "argparse.Namespace", model: "CpuModel") -> "dict[str, Any]":
    facts: "dict[str, Any]" = {"xcr0": int(mask(options.xcr0)) if options.xcr0 else int(model.xcr0_mask)}
    for name in ("xss", "xfd"):
        if getattr(options, name) is not None:
            facts[name] = int(mask(getattr(options, name)))
    if options.rfbm is not None:
        facts["save_mask"] = int(mask(options.rfbm))
    if options.instruction is not None:
        facts["save"] = options.instruction
    if options.size is not None:
        facts["size"] = number(options.size)
    for text in options.fact:
        name, equals, value = text.partition("=")
        name = name.replace("-", "_")
        if not equals or name not in (*_MASKS, "restore"):
            from xsave.cli.failures import suggestion

            known = suggestion(name, ["restore", *_MASKS])
            raise usage(f"audit: --fact {text}: NAME=VALUE of {', '.join(('restore', *_MASKS))}", known)
        facts[name] = value.upper() if name == "restore" else int(mask(value))
    return facts
