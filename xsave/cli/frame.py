"""`xsave layout --frame`: what a system puts around an XSAVE area, part by part, and the sizes that follow."""

from xsave.cli.console import Output
from xsave.cli.failures import usage
from xsave.cli.options import cpu, mask

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator
    from typing import Any

    from xsave.audit.frames import Frame
    from xsave.models import CpuModel

KINDS = ("linux", "windows", "sgx", "tdx")
# What --xcr0 is called there.
_REGISTER = {"linux": "XCR0", "windows": "XCR0", "sgx": "XFRM", "tdx": "XFAM"}


def run(options: "argparse.Namespace", form: str) -> int:
    """Prints the frames that the options ask for, as `form` says; returns the exit code. Raises: `CommandError`."""
    from xsave.errors import UnsupportedError

    _check(options, form)
    model = cpu(options.cpu)
    chosen = int(mask(options.xcr0)) if options.xcr0 else _everything(model, options)
    try:
        found = list(_frames(model, chosen, options))
    except (ValueError, UnsupportedError) as error:
        from xsave.report.text import mask_text

        supervisor = f" and, supervisor, {mask_text(model.xss_mask)}" if model.xss_mask else ""
        raise usage(str(error), f"{model.name} has {mask_text(model.xcr0_mask)}{supervisor}") from None
    with Output.of(options) as out:
        if form == "json":
            _json(out, options, model, chosen, found)
        else:
            _text(out, model, chosen, options.frame, found)
    return 0


def _check(options: "argparse.Namespace", form: str) -> None:
    others = {"--vs": options.vs, "--mask": options.mask, "--supervisor": options.supervisor, "--list": options.list,
              "--emit c": form == "c", "--format": options.format and options.frame != "windows"}
    for name, given in others.items():
        if given:
            hint = "its components are those of --xcr0" if name in ("--mask", "--supervisor") else ""
            raise usage(f"layout: {name} and --frame {options.frame} exclude each other", hint)


def _everything(model: "CpuModel", options: "argparse.Namespace") -> int:
    # What the kernel has set on this CPU; elsewhere all that the system would take of what the CPU has.
    if options.frame == "tdx":
        return int(model.xcr0_mask) | int(model.xss_mask)
    if options.frame == "linux":
        from xsave.audit import uabi

        if options.cpu == "host":
            from xsave.host import Host

            return int(Host.xcr0)
        return int(uabi.enabled(model, None))
    return int(model.xcr0_mask)


def _frames(model: "CpuModel", chosen: int, options: "argparse.Namespace") -> "Iterator[tuple[Frame, str]]":
    # Each frame, and what tells it from another one of its kind.
    from xsave.audit import frames
    from xsave.audit.verdict import can_disable
    from xsave.layout import COMPACTED, STANDARD
    from xsave.report.text import in_use

    if options.frame == "linux":
        later = chosen & can_disable(model)
        yield frames.linux(model, chosen), f", before its first use of {in_use(later)}" if later else ""
        if later:
            yield frames.linux(model, chosen, used=True), f", from its first use of {in_use(later)} on"
        yield frames.linux_stack(model, chosen), ""
    elif options.frame == "windows":
        form = {"standard": STANDARD, "compacted": COMPACTED}.get(options.format)
        yield frames.windows(model, chosen, form=form), ""
    elif options.frame == "sgx":
        yield frames.sgx(model, chosen), ""
    else:
        yield frames.tdx(model, chosen), ""


def _name(frame: "Frame") -> str:
    from xsave.layout import COMPACTED

    return "compacted" if frame.format == COMPACTED else "standard"


def _text(out: Output, model: "CpuModel", chosen: int, kind: str, found: "list[tuple[Frame, str]]") -> None:
    from xsave.report.text import mask_text, table, wrapped

    for line in wrapped(f"{model.name}: {_REGISTER[kind]} ", mask_text(chosen), 80):
        out.line(out.style(line, "bold"))
    for frame, which in found:
        out.line()
        out.line(out.style(f"{frame.TITLE}{which}", "bold"))
        for line in wrapped(f"{_name(frame)} format, ", mask_text(frame.mask), 80):
            out.line(line)
        rows = [[str(offset), str(size), name] for name, offset, size in frame.parts]
        rows.append(["", str(frame.total), "whole"])
        for line in table(["AT", "SIZE", "PART"], rows, {0, 1}):
            out.line(line)
        out.line(", ".join(f"{name} {value:,}" for name, value in frame.facts.items()))
        for line in wrapped("from ", frame.SOURCE, 80):
            out.line(line)


def frame_record(frame: "Frame", which: str = "") -> "dict[str, Any]":
    """A frame as a member of JSON documents; `which` tells it from another one of its kind."""
    from xsave.report import json as documents

    offset, size = frame.area
    return {
        "title": f"{frame.TITLE}{which}",
        "layout": documents.mask_record(frame.mask),
        "format": _name(frame),
        "size": frame.total,
        "area": {"offset": offset, "size": size},
        "parts": [{"name": name, "offset": at, "size": width} for name, at, width in frame.parts],
        "facts": frame.facts,
        "source": frame.SOURCE,
    }


def _json(
    out: Output, options: "argparse.Namespace", model: "CpuModel", chosen: int, found: "list[tuple[Frame, str]]"
) -> None:
    from xsave.report import json as documents

    head: "dict[str, object]" = {"schema": "xsave.frame/1"}
    if options.provenance:
        from xsave.cli.provenance import facts

        head["provenance"] = facts()
    head |= {"cpu": model.name or None, "system": options.frame, "register": _REGISTER[options.frame]}
    head["value"] = documents.mask_record(chosen)
    for piece in documents.stream(head, [("frames", (frame_record(*each) for each in found))]):
        out.write(piece)
    out.line()
