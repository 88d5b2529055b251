"""`xsave live`: this CPU and the calling thread's own state, or every thread of another process.

Threads of a process become a core file in memory, made of the kernel's own bytes, and go the way of every core file.
"""

from xsave.cli.console import Output
from xsave.cli.failures import NO_INPUT, CommandError, usage
from xsave.cli.inputs import Tally
from xsave.cli.options import Parser, add_common, whole_number
from xsave.cli.select import add_selection, read, selection, thread_filter

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from typing import Any

    from xsave.images import Image
    from xsave.models import CpuModel

_EXAMPLES = """
xsave live
xsave live 1234 --component avx512 -t f32
xsave live 1234 --thread 1240 --reg zmm0,rip --json
"""


def parser() -> Parser:
    """The verb's parser."""
    made = Parser("live", "This CPU's masks, layout and state; with PID, every thread of a process.", _EXAMPLES)
    made.add_argument("pid", nargs="?", metavar="PID", help="process; its threads stop no longer than the read")
    add_selection(made)
    made.add_argument("--all", action="store_true", help="every thread, every register, whole rows")
    add_common(made, formats=("json", "ndjson", "csv"))
    return made


def run(options: "argparse.Namespace") -> int:
    """Runs the verb; returns the exit code."""
    if options.pid is None:
        return _this_cpu(options)
    pid = whole_number(options.pid)
    if not pid:
        raise usage(f"live: {options.pid!r} is no process id", "pidof PROGRAM finds one")
    from xsave.cli.decode import show

    chosen, wanted = selection(options), thread_filter(options.thread)
    return show(options, iter([process_image(pid)]), chosen, wanted, Tally())


def process_image(pid: int) -> "Image":
    """Every thread of a process as an image. Raises: `HostError`, naming the missing permission."""
    from xsave.errors import HostError
    from xsave.host import live_threads

    try:
        threads = live_threads(pid)
    except HostError as error:
        text = error.strerror or str(error)
        raise CommandError(text, NO_INPUT, source=f"process {pid}", hint=_permission_hint(text, pid)) from error
    return snapshot(threads, f"process {pid}")


def snapshot(threads: "Any", source: str) -> "Image":
    """Live threads as an image of the layout that this CPU enumerates."""
    from xsave.images import open as open_any
    from xsave.images.core_writer import core_bytes
    from xsave.models import CpuModel

    model = CpuModel.host()
    try:
        core = core_bytes(threads, model=model)
    except ValueError as error:
        raise CommandError(str(error), NO_INPUT, source=source) from error
    image = open_any(core, cpu=model)
    image.kind = "live process"
    image.source = source
    return image


def _permission_hint(text: str, pid: int) -> str:
    return f"sudo xsave live {pid}" if "root" in text or "CAP_SYS_PTRACE" in text else ""


def _this_cpu(options: "argparse.Namespace") -> int:
    from xsave.host import Host
    from xsave.models import CpuModel

    if options.form in ("ndjson", "csv"):
        raise usage(f"live: --{options.form} is for a process", "xsave live PID --" + options.form)
    model = CpuModel.host()
    area = Host.capture()
    with Output.of(options) as out:
        if options.form == "json":
            _json(out, options, model, area)
        else:
            _text(out, options, model, area)
    return 0


def _text(out: Output, options: "argparse.Namespace", model: "CpuModel", area: "Any") -> None:
    from xsave.cli.layout import single
    from xsave.cli.select import in_use_names
    from xsave.host import Host
    from xsave.layout import COMPACTED, STANDARD, Layout
    from xsave.report.text import mask_text, register_lines

    chosen = selection(options)
    if chosen.all:
        xcr0 = Host.xcr0
        single(out, model, [Layout(model, xcr0, form) for form in (STANDARD, COMPACTED)])
        out.line()
        out.line(f"XCR0         {mask_text(xcr0)}")
        out.line(f"CPU offers   {mask_text(model.xcr0_mask)}; supervisor {mask_text(model.xss_mask)}")
        out.line(f"permitted    {mask_text(Host.permitted_components())}")
        out.line(f"instructions {' '.join(sorted(model.instructions))}")
        out.line()
    lane = options.lane or "u64"
    out.line(out.style(f"this thread: in use {mask_text(area.xstate_bv)}, {lane} lanes, lane 0 first", "bold"))
    full = options.all or not chosen.all
    names = None if options.all else in_use_names(area) if chosen.all else chosen.names(area)
    for line in register_lines(read(area, names), lane, None if full else out.width):
        out.line(line)


def _json(out: Output, options: "argparse.Namespace", model: "CpuModel", area: "Any") -> None:
    from xsave.cli.layout import cpu_record, layout_record
    from xsave.host import Host
    from xsave.layout import COMPACTED, STANDARD, Layout
    from xsave.report import json as documents

    chosen = selection(options)
    head: "dict[str, object]" = {"schema": "xsave.live/1"}
    if options.provenance:
        from xsave.cli.provenance import facts

        head["provenance"] = facts()
    values = read(area) if chosen.all else read(area, chosen.names(area))
    head |= {
        "cpu": cpu_record(model),
        "instructions": sorted(model.instructions),
        "xcr0": documents.mask_record(Host.xcr0),
        "permitted": documents.mask_record(Host.permitted_components()),
        "layouts": [layout_record(Layout(model, Host.xcr0, form)) for form in (STANDARD, COMPACTED)],
        "state": documents.Text(f"{{{documents.state_members(area, values, options.lane)}}}"),
        "diagnostics": [],
    }
    for piece in documents.stream(head, []):
        out.write(piece)
    out.line()
