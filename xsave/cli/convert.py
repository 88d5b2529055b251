"""`xsave convert`: one area into the other format, or into another CPU's layout, following XSTATE_BV."""

import sys

from xsave.cli.console import Output
from xsave.cli.failures import NO_INPUT, CommandError, usage
from xsave.cli.inputs import open_image, pick_thread, shown
from xsave.cli.options import Parser, add_common, cpu, mask
from xsave.components import ComponentMask
from xsave.errors import LayoutError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator
    from typing import Any

    from xsave.layout import Layout

# Linux keeps XCR0 in the software-reserved bytes of the legacy region, in notes and signal frames of standard format.
_SOFTWARE_MASK = 464

_EXAMPLES = """
xsave convert area.bin --to compacted -o area.xsavec
xsave convert core --thread 1235 --to-cpu SapphireRapids -o area.bin
xsave convert core --to-cpu EPYC-Genoa --lost drop --hex
"""


def parser() -> Parser:
    """The verb's parser."""
    made = Parser("convert", "An area in the other format, or as another CPU lays it out.", _EXAMPLES)
    made.add_argument("input", metavar="INPUT", help="core, raw area, hex dump, or -")
    made.add_argument("--to", choices=("standard", "compacted"), help="format (default: as it is)")
    made.add_argument("--to-cpu", metavar="CPU", help="CPU (default: the input's own)")
    made.add_argument("--mask", metavar="MASK", help="components of the result (default: what CPU has of them)")
    made.add_argument("--cpu", metavar="CPU", help="CPU that wrote the input")
    made.add_argument("--thread", metavar="TID", help="tid, crashed, #N (default: the crashed or only one)")
    made.add_argument("--lost", choices=("raise", "drop"), default="raise", help="components in use that do not fit")
    made.add_argument("--hex", action="store_true", help="a hex dump (default without -o)")
    made.add_argument("--raw", action="store_true", help="raw bytes (default with -o)")
    add_common(made)
    return made


def run(options: "argparse.Namespace") -> int:
    """Runs the verb; returns the exit code."""
    if options.hex and options.raw:
        raise usage("convert: --hex and --raw exclude each other")
    model = cpu(options.cpu) if options.cpu else None
    image = open_image(options.input, model)
    thread = pick_thread(image, options.thread)
    area = thread.area
    if area is None:
        raise CommandError(f"thread {thread.tid} has no extended state", NO_INPUT, source=shown(options.input))
    target = _target(options, area)
    data, lost = _converted(options, area, target)
    with Output.of(options) as out:
        if options.form == "json":
            _json(out, options, area, target, data, lost)
        elif options.hex or (options.output is None and not options.raw):
            for line in hex_lines(data):
                out.line(line)
        else:
            out.write_bytes(data)
    if not options.quiet and options.form != "json":
        _summary(sys.stdout if options.output else sys.stderr, area, target, lost)
    return 0


def _target(options: "argparse.Namespace", area: "Any") -> "Layout":
    from xsave.layout import COMPACTED, STANDARD, Layout

    source = area.layout
    model = cpu(options.to_cpu) if options.to_cpu else source.model
    form = {"standard": STANDARD, "compacted": COMPACTED, None: source.format}[options.to]
    if options.mask:
        wanted = int(mask(options.mask))
    else:
        wanted = int(source.mask) & (int(model.xcr0_mask) | (int(model.xss_mask) if form == COMPACTED else 0))
    try:
        return Layout(model, wanted, form)
    except LayoutError as error:
        raise CommandError(f"{model.name}: {error}", 2, hint="--mask chooses the components of the result") from None


def _converted(options: "argparse.Namespace", area: "Any", target: "Layout") -> "tuple[bytearray, ComponentMask]":
    from xsave.codec import transcode

    source = area.layout
    lost = ComponentMask(int(area.xstate_bv) & ~int(target.mask))
    try:
        data = bytearray(transcode(area, source, target, lost=options.lost))
    except LayoutError as error:
        raise CommandError(
            f"cannot be carried to {target.model.name}: {error}",
            1,
            source=shown(options.input),
            hint="--lost drop leaves them out",
        ) from None
    if not source.format and not target.format and _has_software_mask(area):
        data[_SOFTWARE_MASK : _SOFTWARE_MASK + 8] = int(target.mask).to_bytes(8, "little")
    return data, lost


def _has_software_mask(area: "Any") -> bool:
    found = bytes(memoryview(area)[_SOFTWARE_MASK : _SOFTWARE_MASK + 8])
    return int.from_bytes(found, "little") == int(area.layout.mask)


def hex_lines(data: "bytes | bytearray") -> "Iterator[str]":
    """A hex dump as xxd writes it."""
    for at in range(0, len(data), 16):
        chunk = bytes(data[at : at + 16])
        pairs = " ".join(chunk[i : i + 2].hex() for i in range(0, len(chunk), 2))
        text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in chunk)
        yield f"{at:08x}: {pairs:<39}  {text}"


def _describe(layout: "Layout") -> str:
    from xsave.report.text import mask_text

    form = "compacted" if layout.format else "standard"
    return f"{layout.model.name or 'unnamed CPU'} {form}, {layout.size:,} bytes, {mask_text(layout.mask)}"


def _summary(stream: "Any", area: "Any", target: "Layout", lost: ComponentMask) -> None:
    from xsave.report.text import mask_text

    carried = ComponentMask(int(area.xstate_bv) & int(target.mask))
    lines = [f"from    {_describe(area.layout)}", f"to      {_describe(target)}", f"carried {mask_text(carried)}"]
    if lost:
        lines.append(f"lost    {mask_text(lost)}: in use, and not in the target")
    stream.write("\n".join(lines) + "\n")
    stream.flush()


def _json(
    out: Output, options: "argparse.Namespace", area: "Any", target: "Layout", data: bytearray, lost: ComponentMask
) -> None:
    from xsave.cli.layout import layout_record
    from xsave.report import json as documents

    head: "dict[str, object]" = {"schema": "xsave.convert/1", "source": shown(options.input)}
    if options.provenance:
        from xsave.cli.provenance import facts

        head["provenance"] = facts()
    head |= {
        "from": layout_record(area.layout),
        "to": layout_record(target),
        "carried": documents.mask_record(int(area.xstate_bv) & int(target.mask)),
        "lost": documents.mask_record(lost),
        "data": data.hex(),
        "diagnostics": [documents.diagnostic(f"in use and not in the target: {lost}")] if lost else [],
    }
    for piece in documents.stream(head, []):
        out.write(piece)
    out.line()
