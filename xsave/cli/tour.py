"""`xsave tour`: everything on real data of this machine. Exit 0 only if every value agreed.

A stage is a function of the tour so far: it yields the lines to print, counts what it compared, and leaves what later
stages need. New work adds a stage to `STAGES`.
"""

import os

from xsave.cli.console import Output
from xsave.cli.failures import DONE, NO
from xsave.cli.options import Parser, add_common

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator, Mapping
    from typing import Any

    from xsave.images import Image

    Values = Mapping[str, int | bytes]

_EXAMPLES = """
xsave tour
xsave tour --json
xsave tour -v
"""
_THREADS = 4
_CASES = 20_000


def parser() -> Parser:
    """The verb's parser."""
    made = Parser("tour", "What this package does, shown on this machine's own registers.", _EXAMPLES)
    add_common(made)
    return made


class Tour:
    """What stages share: the count of compared values, the folder for files, and what earlier stages left."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.compared = 0
        self.wrong: "list[str]" = []
        self.own: "Any" = None
        self.image: "Image | None" = None
        self.expected: "dict[int, Values]" = {}

    def compare(self, label: str, got: "Values", expected: "Values") -> int:
        """Compares every expected register; returns how many were compared."""
        for name, value in expected.items():
            found = got.get(name)
            if found != value:
                self.wrong.append(f"{label} {name}: got {_shown(found)}, expected {_shown(value)}")
        self.compared += len(expected)
        return len(expected)

    def check(self, label: str, agreed: bool) -> None:
        """Counts one comparison of whole states."""
        self.compared += 1
        if not agreed:
            self.wrong.append(label)


def _shown(value: "int | bytes | None") -> str:
    if value is None:
        return "nothing"
    text = f"{value:#x}" if isinstance(value, int) else value.hex()
    return text if len(text) <= 40 else f"{text[:40]}…"


def run(options: "argparse.Namespace") -> int:
    """Runs the verb; returns the exit code."""
    from tempfile import TemporaryDirectory
    from time import perf_counter

    records = []
    with Output.of(options) as out, TemporaryDirectory(prefix="xsave-tour-") as folder:
        tour = Tour(folder)
        started = perf_counter()
        for name, stage in STAGES:
            before, wrong, at = tour.compared, len(tour.wrong), perf_counter()
            lines = []
            for line in stage(tour):
                lines.append(line)
                if options.form == "text":
                    out.line(f"  {line}" if len(lines) > 1 else out.style(line, "bold"))
            seconds = perf_counter() - at
            agreed = len(tour.wrong) == wrong
            if options.form == "text" and tour.compared > before:
                verdict = out.style("agree", "green") if agreed else out.style("DIFFER", "red")
                out.line(f"  {tour.compared - before:,} values {verdict}, {seconds * 1000:.1f} ms")
            records.append(
                {
                    "name": name,
                    "seconds": round(seconds, 6),
                    "agreed": agreed,
                    "compared": tour.compared - before,
                    "lines": lines,
                }
            )
        for text in tour.wrong[:5] if options.form == "text" else []:
            out.line(out.style(f"  wrong: {text}", "red"))
        total = perf_counter() - started
        if options.form == "json":
            _json(out, tour, records)
        else:
            answer = (
                f"all {tour.compared:,} values agree"
                if not tour.wrong
                else f"{len(tour.wrong):,} of {tour.compared:,} values differ"
            )
            out.line(out.style(f"{answer}, {total:.2f} s", "bold"))
    return NO if tour.wrong else DONE


def _json(out: Output, tour: Tour, records: "list[dict[str, Any]]") -> None:
    from xsave.report import json as documents

    head = {"schema": "xsave.tour/1", "agreed": not tour.wrong, "compared": tour.compared}
    tail = [("diagnostics", [documents.diagnostic(text, "error") for text in tour.wrong])]
    for piece in documents.stream(head, [("stages", records)], tail):
        out.write(piece)
    out.line()


# --- stages ---------------------------------------------------------------------------------------------------------


def this_cpu(tour: Tour) -> "Iterator[str]":
    """What the CPU and the kernel offer."""
    from xsave.host import Host
    from xsave.models import CpuModel
    from xsave.report.text import mask_text

    model = CpuModel.host()
    yield f"This CPU: {model.name} ({model.profile})"
    sizes = f"{Host.layout().size:,} bytes standard, {Host.layout('XSAVEC').size:,} compacted"
    yield f"XCR0 {mask_text(Host.xcr0)}, {sizes}"


def own_state(tour: Tour) -> "Iterator[str]":
    """This thread's state by XSAVE and XSAVEC, decoded, against the CPU's own reading of the same bytes."""
    from xsave.codec import decode
    from xsave.host import Host
    from xsave.models import CpuModel
    from xsave.report.text import mask_text

    tour.own = Host.capture("XSAVE")
    yield f"This thread's own state: XSAVE wrote {mask_text(tour.own.xstate_bv)}"
    forms = ["XSAVE"] + (["XSAVEC"] if "xsavec" in CpuModel.host().instructions else [])
    for instruction in forms:
        area = Host.capture(instruction)
        silicon = Host.read_back(area)
        mine = decode(area)
        count = tour.compare(instruction, mine, {name: silicon[name] for name in mine if name in silicon})
        yield f"{instruction} image: {count} registers decoded as XRSTOR loads them"


def kernel_core(tour: Tour) -> "Iterator[str]":
    """A core of a child whose threads hold known constants: the kernel's, or one from the kernel's own bytes."""
    from xsave.host import Child
    from xsave.images import open as open_any

    yield f"A child of {_THREADS} threads loads known constants into every register, then dies"
    with Child(_THREADS, directory=tour.folder) as child:
        expected: "dict[int, Values]" = {tid: child.expected(index) for index, tid in enumerate(child.tids)}
        tiles = "AMX tiles too" if child.tiles else "no AMX here" if child.permission == 1 else "AMX refused"
        path, reason = child.crash()
    if path is not None:
        yield f"the kernel wrote a core of {os.stat(path).st_size:,} bytes ({tiles})"
    else:
        yield f"no core from the kernel: {reason}"
        path, expected = _own_core(tour)
        yield f"so a second child was stopped by ptrace, and this core, our own, holds the kernel's bytes ({tiles})"
    tour.expected = expected
    tour.image = open_any(path)


def _own_core(tour: Tour) -> "tuple[str, dict[int, Values]]":
    from signal import SIGILL

    from xsave.host import Child, live_threads
    from xsave.images.core_writer import write_core
    from xsave.models import CpuModel

    path = os.path.join(tour.folder, "own.core")
    with Child(_THREADS, directory=tour.folder) as child:
        expected: "dict[int, Values]" = {tid: child.expected(index) for index, tid in enumerate(child.tids)}
        write_core(path, live_threads(child.pid), model=CpuModel.host(), signal=int(SIGILL))
    return path, expected


def decoded_core(tour: Tour) -> "Iterator[str]":
    """Every thread of the core against the constants."""
    from xsave.codec import decode
    from xsave.report.text import in_use, row_text

    assert tour.image is not None
    threads = {thread.tid: thread for thread in tour.image.threads}
    first = next(iter(threads.values()))
    yield f"{tour.image.kind}: {len(threads)} threads, layout by {first.evidence.rule} ({first.evidence.confidence})"
    for number, (tid, expected) in enumerate(tour.expected.items()):
        thread = threads.get(tid)
        if thread is None or thread.area is None:
            tour.compare(f"thread {number}", {}, expected)
            continue
        count = tour.compare(f"thread {number}", decode(thread.area), expected)
        mark = "crashed" if thread.crashed else "waiting"
        yield f"thread {number} ({mark}): {in_use(thread.area.xstate_bv)}, {count} registers"
    first_tid = next(iter(tour.expected))
    area = threads[first_tid].area if first_tid in threads else None
    if area is not None:
        name = next(name for name in ("zmm0", "ymm0", "xmm0") if name in tour.expected[first_tid])
        yield f"{name} of thread 0 as floats: {row_text(bytes(area[name]), 'f32', 44)}"


def converted(tour: Tour) -> "Iterator[str]":
    """One area around: standard, compacted, another CPU's layout, and back."""
    from time import perf_counter

    from xsave.area import Area
    from xsave.codec import decode, same_state, transcode
    from xsave.layout import COMPACTED, STANDARD, Layout
    from xsave.registers import REGISTERS
    from xsave.report.text import mask_text

    assert tour.image is not None
    source = next(thread.area for thread in tour.image.threads if thread.area is not None)
    other = _another_cpu(source.layout)
    path = [
        ("standard", source.layout),
        ("compacted", Layout(source.layout.model, source.layout.mask, COMPACTED)),
        (f"{other.name} standard", Layout(other, source.layout.mask & other.xcr0_mask, STANDARD)),
        (f"{other.name} compacted", Layout(other, source.layout.mask & other.xcr0_mask, COMPACTED)),
        ("back", source.layout),
    ]
    yield f"One thread's area around, {mask_text(source.xstate_bv)} in use"
    area, started = source, perf_counter()
    for _, target in path[1:]:
        area = Area(transcode(area, area.layout, target, lost="drop"), target)
    elapsed = (perf_counter() - started) * 1e6 / (len(path) - 1)
    yield " → ".join(f"{name} {layout.size:,}" for name, layout in path[:2]) + " →"
    yield " → ".join(f"{name} {layout.size:,}" for name, layout in path[2:])
    dropped = int(source.xstate_bv) & ~int(other.xcr0_mask)
    expected = {
        name: value
        for name, value in decode(source).items()
        if name != "mxcsr_mask" and not dropped >> REGISTERS[name].component & 1
    }
    tour.compare("after the round trip", decode(area), expected)
    if dropped:
        yield f"{other.name} cannot hold {mask_text(dropped)}: dropped, as asked"
    else:
        tour.check("same state after the round trip", bool(same_state(area, source)))
    yield f"{elapsed:.1f} µs a conversion"


def _another_cpu(layout: "Any") -> "Any":
    # A CPU that holds the same components elsewhere, if there is one.
    from xsave.layout import STANDARD, Layout
    from xsave.models import CpuModel

    models = [
        CpuModel.named(name)
        for name in ("SapphireRapids", "EPYC-Genoa", "Skylake-Server", "Icelake-Server", "EPYC-Milan")
    ]
    for model in models:
        if not layout.mask & ~model.xcr0_mask and Layout(model, layout.mask, STANDARD).offsets != layout.offsets:
            return model
    return next((model for model in models if not layout.mask & ~model.xcr0_mask), models[0])


def conformance(tour: Tour) -> "Iterator[str]":
    """Emulated instructions against the CPU's own, and one that faults, explained."""
    from xsave.conformance import processor, run
    from xsave.host import Host

    report = run(_CASES)
    yield f"{report.cases:,} random cases emulated and executed, {report.faulting:,} of them faulting"
    for found in report.shown[:3]:
        yield f"differs: {found.reproducer}"
    for reason in report.reasons:
        yield f"left out: {reason}"
    tour.compared += report.cases
    tour.wrong += [f"{found.what}: {found.reproducer}" for found in report.shown]
    area = bytearray(bytes(Host.capture("XSAVE")))
    area[530] = 1
    fault = processor().try_xrstor(area, -1)
    if fault is not None:
        yield f"this thread's area with byte 530 set: {fault.vector} by rule {fault.rule}, byte {fault.offset},"
        yield f"{fault.message.partition(': ')[2]} [{fault.section}]"
    tour.check("the bad XRSTOR faults on both sides", fault is not None and _refused(area))


def _refused(area: bytearray) -> bool:
    from xsave.errors import HostError
    from xsave.host import Host

    try:
        Host.read_back(area)
    except HostError:
        return True
    return False


def overrun(tour: Tour) -> "Iterator[str]":
    """A save into a buffer that was sized for less: which bytes past its end change, predicted and executed."""
    from xsave.audit.attack import acts

    found, reasons = acts()
    yield "A save into a buffer that was sized for fewer components"
    for act in found:
        tour.check(f"{act.title} on {act.where}", act.agrees)
        if act.ranges:
            yield f"{act.where}: {act.instruction} of {act.xcr0:#x} into {act.verdict.size:,} bytes:"
            yield f"  {act.bytes_over:,} past the end changed; #PF at byte {act.fault} if there is no page"
    for reason in reasons:
        yield f"left out: {reason}"


STAGES: "tuple[tuple[str, Callable[[Tour], Iterator[str]]], ...]" = (
    ("this CPU", this_cpu),
    ("own state", own_state),
    ("kernel core", kernel_core),
    ("decoded core", decoded_core),
    ("converted", converted),
    ("conformance", conformance),
    ("overrun", overrun),
)
