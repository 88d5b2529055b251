"""`xsave layout`: offsets and sizes of every component for a CPU and a mask, two CPUs side by side, the known CPUs."""

from xsave.cli import frame
from xsave.cli.console import Output
from xsave.cli.failures import CommandError, usage
from xsave.cli.options import Parser, add_common, cpu, mask
from xsave.components import ComponentMask
from xsave.errors import LayoutError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator
    from typing import Any

    from xsave.layout import Layout
    from xsave.models import CpuModel

_EXAMPLES = """
xsave layout EPYC-Genoa --vs SapphireRapids
xsave layout host --supervisor --emit c -o xsave_layout.h
xsave layout SapphireRapids --frame linux --xcr0 'x87|SSE|avx|amx'
"""


def parser() -> Parser:
    """The verb's parser."""
    made = Parser("layout", "Where a CPU puts every state component, in both formats.", _EXAMPLES)
    made.add_argument(
        "cpu", nargs="?", default="host", metavar="CPU", help="a name, a file of CPUID text, host (default)"
    )
    made.add_argument("--vs", metavar="CPU", help="a second CPU, side by side")
    made.add_argument("--mask", metavar="MASK", help="0xe7, avx512, SSE|AVX (default: all of XCR0)")
    made.add_argument("--format", choices=("standard", "compacted"), help="one format only")
    made.add_argument("--supervisor", action="store_true", help="with the components of IA32_XSS")
    made.add_argument("--list", action="store_true", help="the CPUs that are known by name")
    made.add_argument("--emit", choices=("c", "json"), help="a C header, or JSON")
    made.add_argument("--frame", choices=frame.KINDS, help="the system's frame around an area")
    made.add_argument("--xcr0", metavar="MASK", help="with --frame: XCR0, XFRM or XFAM (default: all)")
    add_common(made)
    return made


def run(options: "argparse.Namespace") -> int:
    """Runs the verb; returns the exit code."""
    if options.emit and options.form == "json" and options.emit != "json":
        raise usage("layout: --json and --emit c exclude each other")
    form = options.emit or options.form
    if options.frame:
        return frame.run(options, form)
    if options.xcr0:
        raise usage("layout: --xcr0 belongs to --frame", "--mask MASK")
    with Output.of(options) as out:
        if options.list:
            _list(out, form)
            return 0
        models = [cpu(options.cpu)] + ([cpu(options.vs)] if options.vs else [])
        formats = [options.format] if options.format else ["standard", "compacted"]
        layouts = [
            (model, name, made) for model in models for name in formats if (made := _layout(options, model, name))
        ]
        if not layouts:
            raise usage("layout: the standard format holds no supervisor component", "--format compacted")
        if form == "json":
            _json(out, options, [each[2] for each in layouts])
        elif form == "c":
            for _, _, layout in layouts:
                for line in _c_header(layout, len(models) > 1):
                    out.line(line)
        elif len(models) == 2:
            for number, name in enumerate(formats):
                pair = [layout for _, each, layout in layouts if each == name]
                if number:
                    out.line()
                if len(pair) == 2:
                    _side_by_side(out, pair[0], pair[1])
        else:
            single(out, models[0], [each[2] for each in layouts])
    return 0


def _layout(options: "argparse.Namespace", model: "CpuModel", name: str) -> "Layout | None":
    from xsave.layout import COMPACTED, STANDARD, Layout

    compacted = name == "compacted"
    wanted = (
        int(mask(options.mask))
        if options.mask
        else int(model.xcr0_mask) | (int(model.xss_mask) if options.supervisor else 0)
    )
    if not compacted and options.format is None:  # beside the compacted one: the user components alone
        wanted &= ~int(model.xss_mask)
        if not wanted:
            return None
    try:
        return Layout(model, wanted, COMPACTED if compacted else STANDARD)
    except LayoutError as error:
        raise CommandError(f"{model.name}: {error}", 2, hint=f"{model.name} has {_has(model)}") from None


def _has(model: "CpuModel") -> str:
    from xsave.report.text import mask_text

    supervisor = f" and, supervisor, {mask_text(model.xss_mask)}" if model.xss_mask else ""
    return f"{mask_text(model.xcr0_mask)}{supervisor}"


def _format_name(layout: "Layout") -> str:
    from xsave.layout import COMPACTED

    return "compacted" if layout.format == COMPACTED else "standard"


def _extent(layout: "Layout", component: int) -> "tuple[str, str]":
    # Offset and size of a component as text; x87 and SSE lie in several pieces of the legacy region.
    extents = layout.extents(component)
    return "+".join(str(offset) for offset, _ in extents), "+".join(str(size) for _, size in extents)


def single(out: Output, model: "CpuModel", layouts: "list[Layout]") -> None:
    """The table of one CPU: a column a layout."""
    from xsave.report.text import mask_text, table

    out.line(out.style(f"{model.name}: {model.vendor or 'unknown vendor'}, profile {model.profile}", "bold"))
    for layout in layouts:
        out.line(f"{_format_name(layout):<9} {layout.size:>7,} bytes, {mask_text(layout.mask)}")
    out.line()
    rows = []
    union = ComponentMask(0)
    for layout in layouts:
        union = ComponentMask(union | layout.mask)
    for component in union:
        row = model.components[component]
        cells = [str(int(component)), component.info.name, str(row.size)]
        cells += [_extent(layout, component)[0] if component in layout.mask else "-" for layout in layouts]
        flags = (("align64", row.align64), ("supervisor", row.supervisor), ("XFD", row.xfd))
        rows.append([*cells, " ".join(name for name, on in flags if on)])
    header = ["BIT", "COMPONENT", "SIZE", *(f"{_format_name(layout).upper()} AT" for layout in layouts), "FLAGS"]
    for line in table(header, rows, {0, 2, *range(3, 3 + len(layouts))}):
        out.line(line)


def _side_by_side(out: Output, a: "Layout", b: "Layout") -> None:
    from xsave.report.text import mask_text, table

    out.line(out.style(f"{_format_name(a)} format", "bold"))
    rows = []
    for component in ComponentMask(a.mask | b.mask):
        cells = [str(int(component)), component.info.name]
        sides = [_extent(layout, component) if component in layout.mask else ("-", "-") for layout in (a, b)]
        note = "" if sides[0] == sides[1] else "only one" if ("-", "-") in sides else "≠"
        rows.append([*cells, *sides[0], *sides[1], note])
    same = a.size == b.size
    rows.append(["", "whole area", "", f"{a.size}", "", f"{b.size}", "" if same else "≠"])
    names = [a.model.name, b.model.name]
    header = ["BIT", "COMPONENT", "A AT", "A SIZE", "B AT", "B SIZE", ""]
    for line in table(header, rows, {0, 2, 3, 4, 5}):
        out.line(line)
    out.line(f"A: {names[0]}, {mask_text(a.mask)}")
    out.line(f"B: {names[1]}, {mask_text(b.mask)}")


def _list(out: Output, form: str) -> None:
    from xsave.models import CpuModel
    from xsave.report.text import table

    models = [CpuModel.named(name) for name in CpuModel.names()]
    if form == "json":
        from xsave.report import json as documents

        for piece in documents.stream({"schema": "xsave.cpus/1"}, [("cpus", map(cpu_record, models))]):
            out.write(piece)
        out.line()
        return
    rows = [
        [
            model.name,
            model.vendor,
            f"{int(model.xcr0_mask):#x}",
            f"{int(model.xss_mask):#x}",
            str(size) if (size := _whole(model)) else "-",
        ]
        for model in models
    ]
    for line in table(["NAME", "VENDOR", "XCR0", "IA32_XSS", "BYTES"], rows, {2, 3, 4}):
        out.line(line)


def _whole(model: "CpuModel") -> "int | None":
    from xsave.layout import STANDARD, Layout

    try:
        return Layout(model, model.xcr0_mask, STANDARD).size
    except LayoutError:
        return None


def cpu_record(model: "CpuModel") -> "dict[str, Any]":
    """A CPU as a member of JSON documents."""
    from xsave.report import json as documents

    return {
        "name": model.name,
        "vendor": model.vendor or None,
        "profile": model.profile,
        "provenance": model.provenance,
        "xcr0": documents.mask_record(model.xcr0_mask),
        "xss": documents.mask_record(model.xss_mask),
        "size": _whole(model),
    }


def layout_record(layout: "Layout") -> "dict[str, Any]":
    """A layout as a member of JSON documents."""
    from xsave.report import json as documents

    rows = []
    for component in layout.mask:
        row = layout.model.components[component]
        rows.append(
            {
                "number": int(component),
                "name": component.info.name,
                "offset": layout.extents(component)[0][0],
                "size": row.size,
                "extents": [{"offset": offset, "size": size} for offset, size in layout.extents(component)],
                "align64": row.align64,
                "supervisor": row.supervisor,
                "xfd": row.xfd,
            }
        )
    return {
        "cpu": layout.model.name or None,
        "provenance": layout.model.provenance,
        "format": _format_name(layout),
        "layout": documents.mask_record(layout.mask),
        "size": layout.size,
        "components": rows,
    }


def _json(out: Output, options: "argparse.Namespace", layouts: "list[Layout]") -> None:
    from xsave.report import json as documents

    head: "dict[str, object]" = {"schema": "xsave.layout/1"}
    if options.provenance:
        from xsave.cli.provenance import facts

        head["provenance"] = facts()
    for piece in documents.stream(head, [("layouts", map(layout_record, layouts))]):
        out.write(piece)
    out.line()


def _c_header(layout: "Layout", several: bool) -> "Iterator[str]":
    def word(text: str) -> str:
        return "".join(c if c.isalnum() else "_" for c in text).upper()

    prefix = f"XSAVE_{word(layout.model.name) + '_' if several else ''}{word(_format_name(layout))}"
    yield f"/* {_comment(layout.model.name)}: {_format_name(layout)} format, mask {layout.mask} */"
    yield f"#define {prefix}_MASK {int(layout.mask):#x}ull"
    yield f"#define {prefix}_SIZE {layout.size}u"
    for component in layout.mask:
        extents = layout.extents(component)
        for index, (offset, size) in enumerate(extents):
            part = f"_{index}" if len(extents) > 1 else ""
            yield f"#define {prefix}_{word(component.info.name)}{part}_OFFSET {offset}u"
            yield f"#define {prefix}_{word(component.info.name)}{part}_SIZE {size}u"


def _comment(text: str) -> str:
    return text.replace("*/", "* /")
