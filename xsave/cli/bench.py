"""`xsave bench`: what the instructions of this CPU take, and two such measurements compared."""

from xsave.cli.console import Output, Progress, warn
from xsave.cli.failures import DONE, NO, explain, suggestion, usage
from xsave.cli.options import Parser, add_common

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator
    from typing import Any

    from xsave.switching.calibration import Calibration, Point

_EXAMPLES = """
xsave bench insn
xsave bench insn --seconds 40 --json -o today.json
xsave bench compare yesterday.json today.json
"""
_SECONDS = 20.0
_MOST_SECONDS = 55.0
# A calibration is about two megabytes.
_LIMIT = 64 << 20
_WHAT = ("insn", "compare")


def parser() -> Parser:
    """The verb's parser."""
    made = Parser("bench", "What the real instructions of this CPU take, in ns.", _EXAMPLES)
    made.add_argument("what", metavar="insn|compare", help="measure; or two JSON files, point by point")
    made.add_argument("inputs", nargs="*", metavar="FILE", help="compare: two files that insn --json wrote")
    made.add_argument("--seconds", metavar="N", help=f"insn: measure at most so long (default {_SECONDS:g}, up to 55)")
    made.add_argument("--seed", metavar="S", help="insn: what order and places are drawn from (default 0)")
    made.add_argument("--any-machine", action="store_true", help="compare: also measurements of different CPUs")
    made.add_argument("--within", metavar="PERCENT", help="compare: so much is noise in any case (default 0)")
    add_common(made)
    return made


def _number(text: str, option: str, least: float, most: float) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not least <= value <= most:
        raise usage(f"bench: {option} {text}: a number from {least:g} to {most:g}", "xsave bench -h")
    return value


def run(options: "argparse.Namespace") -> int:
    """Runs the verb; returns the exit code."""
    if options.what not in _WHAT:
        raise usage(f"bench: {options.what!r}: insn or compare", suggestion(options.what, list(_WHAT), "xsave bench "))
    if options.what == "insn":
        return _insn(options)
    return _compare(options)


def _unused(options: "argparse.Namespace", names: "tuple[str, ...]") -> None:
    for name in names:
        if getattr(options, name):
            raise usage(f"bench {options.what}: no --{name.replace('_', '-')} here", "xsave bench -h")


# --- insn ---------------------------------------------------------------------------------------------------------


def _insn(options: "argparse.Namespace") -> int:
    from xsave.errors import HostError, UnsupportedError
    from xsave.switching.measure import measure_instructions

    _unused(options, ("any_machine", "within"))
    if options.inputs:
        raise usage("bench insn: takes no file", "xsave bench insn -o FILE writes one")
    seconds = _number(options.seconds, "--seconds", 0.01, _MOST_SECONDS) if options.seconds else _SECONDS
    seed = options.seed or "0"
    if not seed.isascii() or not seed.isdigit() or len(seed) > 18:
        raise usage(f"bench: --seed {seed}: a whole number", "xsave bench -h")
    progress = Progress(options, "measuring")
    try:
        found = measure_instructions(
            seconds=seconds,
            seed=int(seed),
            progress=lambda done, total: progress.step(f"round {done} of {total}"),
        )
    except (HostError, UnsupportedError) as error:
        raise explain(error) from error
    finally:
        progress.done()
    with Output.of(options) as out:
        if options.form == "json":
            _write_json(out, options, found)
        else:
            for line in _lines(out, found, options.verbose):
                out.line(line)
    for text in found.diagnostics:
        if options.form != "json":
            warn(options, text)
    return DONE


def _write_json(out: Output, options: "argparse.Namespace", found: "Calibration") -> None:
    from xsave.report import json as documents

    record = found.record()
    points = record.pop("points")
    if options.provenance:
        from xsave.cli.provenance import facts

        record["provenance"] = facts()
    for piece in documents.stream(record, [("points", points)]):
        out.write(piece)
    out.line()


def _lines(out: Output, found: "Calibration", everything: bool) -> "Iterator[str]":
    from xsave.report.text import in_use, table, wrapped

    machine = found.machine
    kind = "in a virtual machine" if machine["hypervisor"] else "on the machine itself"
    yield out.style(f"{machine['cpu']} {kind}, XCR0 {machine['xcr0']}, {machine['kernel']}", "bold")
    facts = (
        f"TSC {machine['tsc_hz'] / 1e9:.4f} GHz, read in steps of {machine['tsc_step']} ticks; load "
        f"{machine['load_before']:.2f}, afterwards {machine['load_after']:.2f}; {len(found.points)} points, "
        f"{found.rounds} rounds, seed {found.seed}"
    )
    yield from wrapped("  ", facts, out.width)
    shown = [point for point in found.points if not point.cold and (everything or _headline(point, found))]
    rows = []
    for point in shown:
        other = found.point(point.instruction, point.mask, point.in_use, cold=True)
        hot = [f"{point.ns[1]:.1f}", f"{point.ticks:.0f}", _share(point.spread)]
        cold = ["", ""] if other is None else [f"{other.ns[1]:.0f}", _share(other.spread)]
        rows.append([point.instruction, f"{point.mask:#x}", f"{point.in_use:#x}", *hot, *cold])
    head = ["INSTRUCTION", "MASK", "IN USE", "HOT ns", "TICKS", "±", "COLD ns", "±"]
    yield from table(head, rows, {3, 4, 5, 6, 7})
    yield ""
    for mask in dict.fromkeys(int(mask) for point in shown for mask in (point.mask, point.in_use) if mask):
        yield f"  {f'{mask:#x}':<9} {in_use(mask)}"
    yield from _models(found)
    if not everything:
        yield f"  {len(rows)} of {len(found.points) // 2} states; -v shows all, --json every sample"


def _share(value: float) -> str:
    return f"{value:.1%}" if value < 0.9995 else f"{min(value, 99.99):.0%}"


def _headline(point: "Point", found: "Calibration") -> bool:
    # The nested masks, all or nothing of them in use: the others are there for the model.
    from xsave.switching.measure import nested

    if point.instruction.startswith("FX"):
        return point.in_use in (0, point.mask)
    masks = nested(int(found.machine["xcr0"], 16))
    return int(point.mask) in masks and int(point.in_use) in (0, int(point.mask))


def _models(found: "Calibration") -> "Iterator[str]":
    from statistics import median

    names = dict.fromkeys(point.instruction for point in found.points if not point.instruction.startswith("memcpy"))
    for cold in (False, True):
        errors = [error for name in names for error in found.model(name, cold).held_out]
        if errors:
            figures = f"median error {median(errors):.1%}, worst {max(errors):.0%}"
            yield f"  model, {'cold' if cold else 'hot'}, each point from the others: {figures}"


# --- compare ------------------------------------------------------------------------------------------------------


def _compare(options: "argparse.Namespace") -> int:
    _unused(options, ("seconds", "seed"))
    if len(options.inputs) != 2:
        raise usage(f"bench compare: two files, not {len(options.inputs)}", "xsave bench compare A.json B.json")
    within = _number(options.within, "--within", 0, 1000) / 100 if options.within else 0.0
    one, other = (_load(path) for path in options.inputs)
    same = one.is_of_same_machine(other)
    if not same and not options.any_machine:
        kinds = " and ".join(_machine(each) for each in (one, other))
        raise usage(f"bench compare: different machines: {kinds}", "--any-machine compares them anyway")
    rows: "list[dict[str, Any]]" = []
    only: "list[dict[str, Any]]" = []
    for point in one.points:
        twin = other.point(*point.key)
        if twin is None:
            only.append({**_named(point), "in": 1})
        else:
            steps = _step(one, point) + _step(other, twin)
            rows.append(_compared(point, twin, within, steps))
    only += [{**_named(point), "in": 2} for point in other.points if one.point(*point.key) is None]
    differ = sum(not row["noise"] for row in rows) + len(only)
    with Output.of(options) as out:
        if options.form == "json":
            _compare_json(out, options, same, differ, rows, only)
        else:
            _compare_text(out, rows, only, differ)
    return NO if differ else DONE


def _machine(found: "Calibration") -> str:
    machine = found.machine
    return f"{machine['cpu']} (XCR0 {machine['xcr0']}{', virtual' if machine['hypervisor'] else ''})"


def _load(path: str) -> "Calibration":
    import sys

    from xsave.errors import FormatError
    from xsave.switching.calibration import Calibration

    try:
        if path == "-":
            data = sys.stdin.buffer.read(_LIMIT + 1)
        else:
            with open(path, "rb") as file:
                data = file.read(_LIMIT + 1)
        if len(data) > _LIMIT:
            raise FormatError(f"more than {_LIMIT >> 20} MiB: no measurement")
        return Calibration.from_json(data)
    except (OSError, FormatError) as error:
        raise explain(error, source=path) from error


def _named(point: "Point") -> "dict[str, Any]":
    return {
        "instruction": point.instruction,
        "mask": f"{int(point.mask):#x}",
        "in_use": f"{int(point.in_use):#x}",
        "cold": point.cold,
    }


def _step(found: "Calibration", point: "Point") -> float:
    # What one step of the counter, which a batch may be off by, is of one instruction, in ns.
    step: float = found.machine["tsc_step"] / point.hz * 1e9
    return step / (point.visits * point.count)


def _compared(a: "Point", b: "Point", within: float, steps: float) -> "dict[str, Any]":
    ratio = b.ns[1] / a.ns[1]
    overlap = a.ns[0] <= b.ns[2] + steps and b.ns[0] <= a.ns[2] + steps
    noise = overlap or abs(ratio - 1) <= within
    return {**_named(a), "ns": [round(a.ns[1], 3), round(b.ns[1], 3)], "ratio": round(ratio, 4), "noise": noise}


def _compare_json(
    out: Output,
    options: "argparse.Namespace",
    same: bool,
    differ: int,
    rows: "list[dict[str, Any]]",
    only: "list[dict[str, Any]]",
) -> None:
    from xsave.report import json as documents

    head: "dict[str, object]" = {"schema": "xsave.bench-compare/1"}
    if options.provenance:
        from xsave.cli.provenance import facts

        head["provenance"] = facts()
    head |= {"same_machine": same, "differ": differ, "only": only, "diagnostics": []}
    for piece in documents.stream(head, [("points", rows)]):
        out.write(piece)
    out.line()


def _compare_text(out: Output, rows: "list[dict[str, Any]]", only: "list[dict[str, Any]]", differ: int) -> None:
    from xsave.report.text import table

    cells = []
    for row in rows:
        figures = [f"{row['ns'][0]:.1f}", f"{row['ns'][1]:.1f}", f"{row['ratio']:.3f}"]
        where, verdict = "cold" if row["cold"] else "hot", "noise" if row["noise"] else "differs"
        cells.append([row["instruction"], row["mask"], row["in_use"], where, *figures, verdict])
    for line in table(["INSTRUCTION", "MASK", "IN USE", "", "FIRST", "SECOND", "RATIO", ""], cells, {4, 5, 6}):
        out.line(out.style(line, "red") if line.endswith("differs") else line)
    for each in only:
        where = "cold" if each["cold"] else "hot"
        out.line(f"only in file {each['in']}: {each['instruction']} {each['mask']}, in use {each['in_use']}, {where}")
    summary = "nothing beyond noise" if not differ else f"{differ} beyond noise"
    out.line(out.style(f"{len(rows)} points: {summary}", "red" if differ else "green"))
