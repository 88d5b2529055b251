"""Verdicts on one save and one buffer, as `xsave audit` shows them: in words and as JSON."""

from xsave.cli.console import Output

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from xsave.audit import Verdict
    from xsave.models import CpuModel

__all__ = ["ranges_record", "verdict_lines", "verdict_record"]


def verdict_lines(out: Output, model: "CpuModel", verdict: "Verdict") -> "Iterator[str]":
    """A verdict on one buffer, in words."""
    from xsave.report.text import mask_text

    head = f"{verdict.instruction} on {model.name}: {verdict.required:,} bytes"
    answer = "fits" if verdict.fits else f"{verdict.over:,} bytes past the end of {verdict.size:,}"
    yield f"{out.style(head, 'bold')}, {out.style(answer, 'green' if verdict.fits else 'red')}"
    yield f"  RFBM {mask_text(verdict.mask)}, {verdict.format} format"
    if verdict.written != verdict.mask:
        yield f"  written {mask_text(verdict.written)}"
    if verdict.ranges:
        runs = ", ".join(f"{begin}-{end - 1}" for begin, end in verdict.ranges)
        yield f"  written past the end: {verdict.bytes_over:,} bytes, {runs}"
        yield f"  first bad byte: {verdict.first_bad}"
    if verdict.fault_at is not None:
        yield f"  with no page behind the buffer: #PF at byte {verdict.fault_at}"


def verdict_record(verdict: "Verdict") -> "dict[str, Any]":
    """A verdict as JSON."""
    from xsave.report.json import mask_record

    return {
        "instruction": verdict.instruction,
        "format": str(verdict.format),
        "rfbm": mask_record(verdict.mask),
        "written": mask_record(verdict.written),
        "fits": verdict.fits,
        "required": verdict.required,
        "over": verdict.over,
        "ranges": ranges_record(verdict.ranges),
        "first_bad": verdict.first_bad,
        "fault_at": verdict.fault_at,
    }


def ranges_record(ranges: "list[tuple[int, int]]") -> "list[dict[str, int]]":
    """Ranges of bytes as JSON."""
    return [{"offset": begin, "size": end - begin} for begin, end in ranges]
