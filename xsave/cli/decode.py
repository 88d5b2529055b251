"""`xsave decode`: every thread's registers out of any input."""

from xsave.cli.console import Output, Progress, warn
from xsave.cli.failures import NO, NO_INPUT, CommandError
from xsave.cli.inputs import Tally, images
from xsave.cli.options import Parser, add_common, cpu
from xsave.cli.select import Selection, add_selection, in_use_names, read, selection, thread_filter
from xsave.report.states import state_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator
    from typing import Any

    from xsave.images import Image, Thread

_EXAMPLES = """
xsave core.1234
xsave decode core.1234 --reg zmm0-3,rip --thread 1235 -t f32
gdb -batch -ex 'x/512xg &area' prog | xsave decode - --cpu EPYC-Genoa
"""


def parser() -> Parser:
    """The verb's parser."""
    made = Parser("decode", "Registers of every thread of core files, raw areas, KVM blobs and hex dumps.", _EXAMPLES)
    made.add_argument("inputs", nargs="*", metavar="INPUT", help="file, folder, glob, or - for standard input")
    add_selection(made)
    made.add_argument("--all", action="store_true", help="every thread, every register, whole rows")
    made.add_argument("--cpu", metavar="CPU", help="CPU whose layout rules: name, CPUID text file, host")
    add_common(made, formats=("json", "ndjson", "csv"))
    return made


def run(options: "argparse.Namespace") -> int:
    """Runs the verb; returns the exit code."""
    chosen = selection(options)
    wanted = thread_filter(options.thread)
    model = cpu(options.cpu) if options.cpu else None
    tally = Tally()
    several = len(options.inputs) > 1 or any(_plural(word) for word in options.inputs)
    return show(options, images(options, model, tally), chosen, wanted, tally, several)


def show(
    options: "argparse.Namespace",
    opened: "Iterator[Image]",
    chosen: Selection,
    wanted: "Callable[[int, Thread], bool]",
    tally: Tally,
    several: bool = False,
) -> int:
    """Prints opened images in the form that the options ask for; returns the exit code. `several`: a JSON document of
    documents, whatever their number turns out to be."""
    printers = {"text": _text, "json": _json, "ndjson": _ndjson, "csv": _csv}
    with Output.of(options) as out:
        state = _Run(options, out, chosen, wanted, tally, several)
        printers[options.form](state, opened)
        if tally.code == 0 and not state.matched:
            raise _nothing(options, chosen, state)
        if tally.code == NO_INPUT:
            out.discard()
    return tally.code


def _nothing(options: "argparse.Namespace", chosen: Selection, state: "_Run") -> CommandError:
    if options.thread and not state.threads:
        return CommandError(
            f"no thread {', '.join(options.thread)}", NO, source=state.source, hint="--all lists the threads"
        )
    what = ", ".join(chosen.wanted or []) or "register of those components"
    return CommandError(
        f"no thread's layout holds {what}", NO, source=state.source, hint="xsave decode FILE --all shows what there is"
    )


class _Run:
    # What all output forms share: options, output, selection, and what was met on the way.
    def __init__(
        self,
        options: "argparse.Namespace",
        out: Output,
        chosen: Selection,
        wanted: "Callable[[int, Thread], bool]",
        tally: Tally,
        several: bool,
    ) -> None:
        self.options = options
        self.out = out
        self.chosen = chosen
        self.wanted = wanted
        self.tally = tally
        self.several = several
        self.matched = False
        self.threads = 0
        self.source = ""

    def select(self, image: "Image") -> "Iterator[Thread]":
        """The image's threads that were asked for, in file order."""
        self.source = str(image.source)
        progress = Progress(self.options, self.source)
        for index, thread in enumerate(image.threads):
            if progress.shows:
                progress.step(f"thread {index + 1:,} of {len(image.threads):,}")
            if self.wanted(index, thread):
                self.threads += 1
                yield thread
        progress.done()

    def registers(self, area: "Any") -> "dict[str, int | bytes]":
        """The selected registers of an area: all of them where nothing narrows them."""
        if area is None:
            return {}
        if self.chosen.all:
            self.matched = True
            return read(area)
        names = self.chosen.names(area)
        if names:
            self.matched = True
        return read(area, names) if names else {}

    def gpr(self, thread: "Thread") -> "dict[str, int]":
        """The selected general registers."""
        values = self.chosen.gpr(thread)
        if values or self.chosen.all:
            self.matched = True
        return values

    def finish(self, image: "Image") -> None:
        """Notes whether the image was only partly readable."""
        if image.partial:
            self.tally.partial = True


# --- text -----------------------------------------------------------------------------------------------------------


def _text(state: _Run, opened: "Iterator[Image]") -> None:
    for count, image in enumerate(opened):
        if count:
            state.out.line()
        narrowed = not state.chosen.all or state.options.thread or state.options.all
        if narrowed:
            _narrowed(state, image)
        else:
            _first_screen(state, image)
        for message in image.warnings:
            warn(state.options, message, str(image.source))
        state.finish(image)


def _first_screen(state: _Run, image: "Image") -> None:
    from xsave.report import screen
    from xsave.report.text import register_lines

    out = state.out
    state.source = str(image.source)
    state.matched = True
    for line in screen.heading(image, image.threads):
        out.line(out.style(line, "bold"))
    thread = next((each for _, each in screen.ordered(image.threads)), None)
    if thread is None:
        return
    for line in screen.layout_lines(thread, out.width):
        out.line(line)
    out.line()
    for line in screen.thread_lines(image, image.threads, out.width):
        out.line(line)
    area, _, _, warnings = state_of(thread)
    for warning in warnings:
        warn(state.options, f"thread {thread.tid}: {warning}", state.source)
    if area is None:
        return
    lane = state.options.lane or "u64"
    values = read(area, in_use_names(area))
    out.line()
    out.line(out.style(f"thread {thread.tid}: registers in use, {lane} lanes, lane 0 first", "bold"))
    lines = list(register_lines(values, lane, None if state.options.lane else out.width))
    for line in lines:
        out.line(line)
    if any(" … +" in line for line in lines):
        out.line(out.style("(… +N: lanes that did not fit; -t, --reg or --all show whole registers)", "dim"))


def _narrowed(state: _Run, image: "Image") -> None:
    from xsave.report import screen
    from xsave.report.text import register_lines

    out, options = state.out, state.options
    lane = options.lane or "u64"
    threads = list(state.select(image)) if options.thread else image.threads
    state.threads = state.threads or len(threads)
    state.source = str(image.source)
    for line in screen.heading(image, image.threads):
        out.line(out.style(line, "bold"))
    if options.all or options.thread:
        if threads:
            for line in screen.layout_lines(threads[0], out.width):
                out.line(line)
        for line in screen.thread_lines(image, threads, out.width, None):
            out.line(line)
    for _, thread in screen.ordered(threads):
        area, _, _, warnings = state_of(thread)
        gpr, values = state.gpr(thread), state.registers(area)
        if not gpr and not values:
            continue
        out.line()
        out.line(
            out.style(
                f"thread {thread.tid}{' (crashed)' if thread.crashed else ''}, {lane} lanes, lane 0 first", "bold"
            )
        )
        for line in _gpr_lines(gpr):
            out.line(line)
        for line in register_lines(values, lane, None, _tilecfg(area, values)):
            out.line(line)
        for extra in thread.extra_states:
            values = state.registers(extra.area)
            if values:
                for line in screen.extra_lines(thread.tid, extra, out.width):
                    out.line(line)
                for line in register_lines(values, lane, None, _tilecfg(extra.area, values)):
                    out.line("  " + line)
        for warning in warnings:
            warn(options, f"thread {thread.tid}: {warning}", state.source)


def _gpr_lines(gpr: "dict[str, int]") -> "Iterator[str]":
    cells = [f"{name:<8} {value:#018x}" for name, value in gpr.items()]
    for at in range(0, len(cells), 2):
        yield "    ".join(cells[at : at + 2])


def _tilecfg(area: "Any", values: "dict[str, int | bytes]") -> "bytes | None":
    # The shape of tiles is in another component than their data.
    from xsave.cli.select import holds

    if not any(name.startswith("tmm") for name in values) or not holds(int(area.layout.mask), "tilecfg"):
        return None
    value = read(area, ["tilecfg"])["tilecfg"]
    return value if isinstance(value, bytes) else None


# --- machine-readable -----------------------------------------------------------------------------------------------


def thread_text(state: _Run, thread: "Thread") -> str:
    """A thread of the JSON document, as the members of its object."""
    from xsave.report import json as documents

    def members(area: "Any") -> "str | None":
        return None if area is None else documents.state_members(area, state.registers(area), state.options.lane)

    extra = []
    for each in thread.extra_states:
        record = {
            "kind": each.kind,
            "address": None if each.address is None else f"{each.address:#x}",
            "file_offset": each.file_offset,
            "evidence": {"rule": each.evidence.rule, "confidence": each.evidence.confidence},
        }
        rest = members(each.area) or '"registers": {}'
        extra.append(documents.Text(f"{documents.dumps(record)[:-1]}, {rest}}}"))
    seen = state_of(thread)
    return documents.thread_members(thread, seen, members(seen[0]), state.gpr(thread), extra)


def _thread(state: _Run, thread: "Thread") -> str:
    from xsave.report.json import Text

    return Text(f"{{{thread_text(state, thread)}}}")


def _json(state: _Run, opened: "Iterator[Image]") -> None:
    from xsave.report import json as documents

    several = state.several
    if several:
        state.out.write('{\n"schema": "xsave.decode-list/1",\n"documents": [')
    count = 0
    for count, image in enumerate(opened, 1):
        if count > 1:
            state.out.write(",")
        if several:
            state.out.write("\n")
        head = {"schema": "xsave.decode/1", **_provenance(state), **documents.image_record(image)}
        tail = (("diagnostics", [documents.diagnostic(text) for text in image.warnings]) for _ in (0,))
        for piece in documents.stream(
            head, [("threads", (_thread(state, each) for each in state.select(image)))], tail
        ):
            state.out.write(piece)
        state.finish(image)
    if several:
        state.out.write("\n]\n}")
    if count or several:
        state.out.write("\n")


def _plural(word: str) -> bool:
    import os

    return os.path.isdir(word) or (any(mark in word for mark in "*?[") and not os.path.exists(word))


def _provenance(state: _Run) -> "dict[str, object]":
    if not state.options.provenance:
        return {}
    from xsave.cli.provenance import facts

    return {"provenance": facts()}


def _ndjson(state: _Run, opened: "Iterator[Image]") -> None:
    from xsave.report import json as documents

    def line(record: str, members: "dict[str, Any]") -> None:
        state.out.write(documents.dumps({"schema": "xsave.decode.record/1", "record": record, **members}) + "\n")

    for image in opened:
        source = str(image.source)
        line("image", {**_provenance(state), **documents.image_record(image)})
        start = documents.dumps({"schema": "xsave.decode.record/1", "record": "thread", "source": source})[:-1]
        for thread in state.select(image):
            state.out.write(f"{start}, {thread_text(state, thread)}}}\n")
        for text in image.warnings:
            line("diagnostic", documents.diagnostic(text, source=source))
        state.finish(image)


def _csv(state: _Run, opened: "Iterator[Image]") -> None:
    from xsave.report.json import register_record
    from xsave.report.text import row_text

    state.out.write("source,tid,state,register,value\r\n")
    for image in opened:
        for thread in state.select(image):
            found = [
                ("gpr", dict[str, "int | bytes"](state.gpr(thread))),
                ("thread", state.registers(state_of(thread)[0])),
            ]
            found += [(each.kind, state.registers(each.area)) for each in thread.extra_states]
            for kind, values in found:
                for name, value in values.items():
                    wide = isinstance(value, bytes) and state.options.lane
                    text = row_text(value, state.options.lane, runs=False) if wide else register_record(value)  # type: ignore[arg-type]
                    cells = (str(image.source), str(thread.tid), kind, name, text)
                    state.out.write(",".join(_cell(cell) for cell in cells) + "\r\n")
        for message in image.warnings:
            warn(state.options, message, str(image.source))
        state.finish(image)


def _cell(text: str) -> str:
    return '"' + text.replace('"', '""') + '"' if any(mark in text for mark in ',"\r\n') else text
