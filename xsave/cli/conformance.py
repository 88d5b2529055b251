"""`xsave conformance`: the emulated processor against this CPU's, case by case."""

import sys

from xsave.cli.console import Output
from xsave.cli.failures import DONE, NO, CommandError, explain, usage
from xsave.cli.options import Parser, add_common, mask
from xsave.errors import HostError, UnsupportedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from typing import Any

    from xsave.conformance import Disagreement, Report

_EXAMPLES = """
xsave conformance --differences
xsave conformance --cases 10000000 --seed 7
xsave conformance --seed 7 --case 1854720 --steps 0x17
"""
_CASES = 500_000


def parser() -> Parser:
    """The verb's parser."""
    made = Parser("conformance", "Emulated instructions against this CPU's, on random cases.", _EXAMPLES)
    made.add_argument("--cases", metavar="N", default=str(_CASES), help=f"how many (default: {_CASES:,})")
    made.add_argument("--seed", metavar="S", default="0", help="where they are drawn from (default: 0)")
    made.add_argument("--case", metavar="N", help="this one alone, in words")
    made.add_argument("--steps", metavar="BITS", help="with --case: only these of its instructions")
    made.add_argument("--narrow", metavar="MASK", help="with --case: only these components in EDX:EAX")
    made.add_argument("--differences", action="store_true", help="instead: where makes of CPUs differ, and this one")
    made.add_argument("--tiles", action="store_true", help="with --case: with the kernel's permission for AMX")
    add_common(made)
    return made


def _number(text: str, option: str, limit: int = 1 << 64) -> int:
    try:
        value = int(text.replace("_", "").replace(",", ""), 0)
    except ValueError:
        value = -1
    if not 0 <= value < limit:
        raise usage(f"conformance: {option} {text}: a number from 0 to {limit - 1}", "xsave conformance -h")
    return value


def run(options: "argparse.Namespace") -> int:
    """Runs the verb; returns the exit code."""
    from xsave import conformance

    seed = _number(options.seed, "--seed")
    try:
        if options.differences:
            return _differences(options)
        if options.case is not None:
            return _one(options, seed)
        cases = _number(options.cases, "--cases", 1 << 48)
        report = conformance.run(cases, seed, _progress(options))
    except (HostError, UnsupportedError) as error:
        raise explain(error) from error
    with Output.of(options) as out:
        if options.form == "json":
            _json(out, options, report)
        else:
            _text(out, report)
    return DONE if report.agreed else NO


def _differences(options: "argparse.Namespace") -> int:
    # Every row that CPUs of different makes answer differently, and what this one says. Exit 1 if that is another
    # answer than its profile's.
    from xsave.differences import DIFFERENCES, ask, ask_host
    from xsave.models import CpuModel
    from xsave.report.text import table

    host = CpuModel.host()
    models = {"intel": CpuModel.named("SapphireRapids"), "amd-zen5": CpuModel.named("EPYC-Turin")}
    rows = []
    for row in DIFFERENCES.values():
        answers = {profile: ask(row, model) for profile, model in models.items()}
        rows.append({"name": row.name, "question": row.question, **answers, "host": ask_host(row)})
    wrong = [row["name"] for row in rows if host.profile in models and row["host"] != row[host.profile]]
    with Output.of(options) as out:
        if options.form == "json":
            from xsave.report import json as documents

            head: "dict[str, object]" = {"schema": "xsave.differences/1", "cpu": host.name, "profile": host.profile}
            head |= {"agreed": not wrong, "diagnostics": []}
            for piece in documents.stream(head, [("rows", rows)]):
                out.write(piece)
            out.line()
        else:
            head_row = ["ROW", "INTEL", "AMD-ZEN5", f"HERE ({host.profile})"]
            body = [[row["name"], row["intel"], row["amd-zen5"], row["host"]] for row in rows]
            for line in table(head_row, body):
                out.line(line)
            for name in wrong:
                out.line(out.style(f"{name}: not what the profile {host.profile} says", "red"))
    return NO if wrong else DONE


def _progress(options: "argparse.Namespace") -> "Any":
    from time import monotonic

    if getattr(options, "quiet", False) or not (sys.stderr.isatty() or getattr(options, "verbose", False)):
        return None
    last = [monotonic()]

    def show(done: int, cases: int) -> None:
        interval = 0.5 if sys.stderr.isatty() else 30.0
        if monotonic() - last[0] >= interval:
            last[0] = monotonic()
            end = "\r" if sys.stderr.isatty() else "\n"
            sys.stderr.write(f"{done:,} of {cases:,} cases{end}")
            sys.stderr.flush()

    return show


def _one(options: "argparse.Namespace", seed: int) -> int:
    from xsave import conformance

    case = _number(options.case, "--case")
    kept = _number(options.steps, "--steps", 1 << 32) if options.steps else 0xFFFFFFFF
    narrow = int(mask(options.narrow)) if options.narrow else 2**64 - 1
    if not kept & 0x3F:
        raise CommandError("--steps leaves no instruction of the case", 2)
    found = conformance.replay(seed, case, kept, narrow, options.tiles)
    with Output.of(options) as out:
        if options.form == "json":
            from xsave.report import json as documents

            head: "dict[str, object]" = {"schema": "xsave.conformance-case/1", "agreed": found is None}
            head["steps"] = found.steps if found else conformance.describe(seed, case, kept, narrow)
            head["disagreement"] = found.record() if found else None
            head["diagnostics"] = []
            for piece in documents.stream(head, []):
                out.write(piece)
            out.line()
        else:
            for line in found.steps if found else conformance.describe(seed, case, kept, narrow):
                out.line(line)
            out.line(_difference(found) if found else "both sides agree")
    return NO if found else DONE


def _difference(found: "Disagreement") -> str:
    where = f" at byte {found.at}" if found.what in ("memory", "registers") else ""
    return f"difference in {found.what}{where}: emulated {found.emulated:#x}, this CPU {found.real:#x}"


def _rows(report: "Report") -> "list[tuple[str, str, int]]":
    return sorted((rule, name, count) for (name, rule), count in report.rules.items())


def _text(out: Output, report: "Report") -> None:
    from xsave.models import CpuModel

    model = CpuModel.host()
    out.line(out.style(f"{model.name}: profile {model.profile}, seed {report.seed}", "bold"))
    for phase, seconds in report.seconds.items():
        out.line(f"  {phase}: {seconds:.1f} s")
    by_rule: "dict[str, int]" = {}
    by_name: "dict[str, list[int]]" = {}
    for rule, name, count in _rows(report):
        by_rule[rule] = by_rule.get(rule, 0) + count
        row = by_name.setdefault(name, [0, 0])
        row[bool(rule)] += count
    out.line("  last instruction of the case      without a fault      with one")
    for name, (fine, faulting) in sorted(by_name.items()):
        out.line(f"    {name:<28}{fine:>21,}{faulting:>14,}")
    out.line("  rule that faulted")
    for rule, count in sorted(by_rule.items()):
        if rule:
            out.line(f"    {rule:<28}{count:>21,}")
    for found in report.shown:
        out.line(out.style(_difference(found), "red"))
        for line in found.steps:
            out.line(f"    {line}")
        out.line(f"    {found.reproducer}")
    for reason in report.reasons:
        out.line(f"  skipped: {reason}")
    share = f" ({report.retried / report.cases:.4%})" if report.cases else ""
    verdict = "no disagreement" if not report.disagreements else f"{report.disagreements:,} disagreements"
    out.line(
        out.style(
            f"{report.cases:,} cases, {report.faulting:,} faulting, {report.retried:,} retried{share}, "
            f"{report.skipped:,} skipped: {verdict}",
            "green" if report.agreed else "red",
        )
    )


def _json(out: Output, options: "argparse.Namespace", report: "Report") -> None:
    from xsave.models import CpuModel
    from xsave.report import json as documents

    model = CpuModel.host()
    head: "dict[str, object]" = {"schema": "xsave.conformance/1"}
    if options.provenance:
        from xsave.cli.provenance import facts

        head["provenance"] = facts()
    head |= {
        "cpu": model.name,
        "profile": model.profile,
        "seed": report.seed,
        "cases": report.cases,
        "faulting": report.faulting,
        "disagreements": report.disagreements,
        "retried": report.retried,
        "skipped": report.skipped,
        "reasons": report.reasons,
        "shown": [found.record() for found in report.shown],
        "diagnostics": [],
    }
    rows = ({"instruction": name, "rule": rule or None, "cases": count} for rule, name, count in _rows(report))
    for piece in documents.stream(head, [("rules", rows)]):
        out.write(piece)
    out.line()
