"""`xsave diff`: the architectural difference between two areas, threads or images; stale bytes do not count."""

from xsave.cli.console import Output
from xsave.cli.failures import DONE, NO, CommandError, usage
from xsave.cli.inputs import open_image, shown
from xsave.cli.options import Parser, add_common, cpu
from xsave.cli.select import Selection, add_selection, read, selection, thread_filter
from xsave.components import COMPONENTS
from xsave.registers import REGISTERS

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator
    from typing import Any

    from xsave.images import Image, Thread

    Values = dict[str, int | bytes]

_EXAMPLES = """
xsave diff before.core after.core --component avx512 -t f64
xsave diff core --thread 1234 --thread 1235
xsave diff area.bin area.xsavec --cpu EPYC-Genoa
"""


def parser() -> Parser:
    """The verb's parser."""
    made = Parser("diff", "What differs between areas, threads or images. Exit 0: nothing; 1: something.", _EXAMPLES)
    made.add_argument("inputs", nargs="+", metavar="INPUT", help="two inputs, or one and two --thread")
    add_selection(made)
    made.add_argument("--cpu", metavar="CPU", help="CPU that wrote the inputs")
    made.add_argument("--vs-cpu", metavar="CPU", help="CPU that wrote the second input")
    add_common(made)
    return made


class Difference:
    """One register that differs; None stands for a side that does not hold it."""

    __slots__ = ("a", "b", "name", "thread")

    def __init__(self, thread: str, name: str, a: "int | bytes | None", b: "int | bytes | None") -> None:
        self.thread = thread
        self.name = name
        self.a = a
        self.b = b


def run(options: "argparse.Namespace") -> int:
    """Runs the verb; returns the exit code."""
    chosen = selection(options)
    pairs, notes = _pairs(options)
    found: "list[Difference]" = []
    compared = 0
    for label, a, b in pairs:
        if a is None or b is None:
            found.append(Difference(label, "thread", 1 if a else None, 1 if b else None))
            continue
        compared += 1
        found += compare(label, a, b, chosen)
    if not compared and not found:
        raise CommandError("nothing to compare: no thread on either side", NO)
    with Output.of(options) as out:
        if options.form == "json":
            _json(out, options, found, compared, notes)
        else:
            _text(out, options, found, compared, notes)
    return NO if found else DONE


def _pairs(options: "argparse.Namespace") -> "tuple[list[tuple[str, Thread | None, Thread | None]], list[str]]":
    first = cpu(options.cpu) if options.cpu else None
    second = cpu(options.vs_cpu) if options.vs_cpu else first
    names = options.inputs
    if len(names) == 1:
        words = [part for text in options.thread or [] for part in text.replace(",", " ").split()]
        if len(words) != 2:
            raise usage("diff: one input needs two --thread", "xsave diff A B, or xsave diff A --thread T1 --thread T2")
        image = open_image(names[0], first)
        a, b = (_only(image, word) for word in words)
        return [(f"{a.tid} ↔ {b.tid}", a, b)], []
    if len(names) != 2:
        raise usage(f"diff: {len(names)} inputs, expected two")
    if names == ["-", "-"]:
        raise usage("diff: standard input can be one side only")
    images = [open_image(names[0], first), open_image(names[1], second)]
    wanted = thread_filter(options.thread)
    sides = [[t for i, t in enumerate(image.threads) if wanted(i, t)] for image in images]
    return _matched(images, sides)


def _only(image: "Image", word: str) -> "Thread":
    wanted = thread_filter([word])
    for index, thread in enumerate(image.threads):
        if wanted(index, thread):
            return thread
    raise CommandError(f"no thread {word}", source=shown(str(image.source)), hint="xsave decode FILE lists the threads")


def _matched(
    images: "list[Image]", sides: "list[list[Thread]]"
) -> "tuple[list[tuple[str, Thread | None, Thread | None]], list[str]]":
    # Threads of two images belong together by tid; single states (and images without a common tid) by position.
    a, b = sides
    tids = [{thread.tid for thread in side} for side in sides]
    if len(a) == len(b) == 1 or not tids[0] & tids[1]:
        pairs: "list[tuple[str, Thread | None, Thread | None]]" = []
        for index in range(max(len(a), len(b))):
            x = a[index] if index < len(a) else None
            y = b[index] if index < len(b) else None
            labels = [str(thread.tid) if thread else "none" for thread in (x, y)]
            pairs.append((labels[0] if labels[0] == labels[1] else " ↔ ".join(labels), x, y))
        matched = "by position" if len(pairs) > 1 else ""
        return pairs, [f"no thread id in common: threads are matched {matched}"] if matched else []
    others = {thread.tid: thread for thread in b}
    joined: "list[tuple[str, Thread | None, Thread | None]]" = [(str(t.tid), t, others.pop(t.tid, None)) for t in a]
    joined += [(str(t.tid), None, t) for t in others.values()]
    return joined, []


def compare(label: str, a: "Thread", b: "Thread", chosen: Selection) -> "Iterator[Difference]":
    """The registers in which two threads differ: general registers where both have them, then extended state."""
    if a.gpr and b.gpr:
        x, y = chosen.gpr(a), chosen.gpr(b)
        for name in [*x, *(each for each in y if each not in x)]:
            if x.get(name) != y.get(name):
                yield Difference(label, name, x.get(name), y.get(name))
    if a.area is None or b.area is None:
        if a.area is not b.area:
            yield Difference(label, "state", None if a.area is None else 1, None if b.area is None else 1)
        return
    yield from compare_areas(label, a.area, b.area, chosen)


def compare_areas(label: str, a: "Any", b: "Any", chosen: Selection) -> "Iterator[Difference]":
    """The registers in which two areas differ, a component that one lacks counting as in its initial configuration."""
    if chosen.all and a.layout == b.layout and _same(a, b):
        return
    left, right = _wide(read(a, chosen.names(a))), _wide(read(b, chosen.names(b)))
    for name in [*left, *(each for each in right if each not in left)]:
        x, y = left.get(name), right.get(name)
        x = initial(name) if x is None else x
        y = initial(name) if y is None else y
        if x != y and name != "mxcsr_mask":
            yield Difference(label, name, x, y)


def _same(a: "Any", b: "Any") -> bool:
    from xsave.codec import same_state

    return bool(same_state(a, b))


def _wide(values: "Values") -> "Values":
    # Vector registers under their widest name, so that an AVX area compares with an AVX-512 one.
    wide: "Values" = {}
    for name, value in values.items():
        row = REGISTERS[name]
        if row.family in ("xmm", "ymm") and isinstance(value, bytes):
            wide[f"zmm{row.index}"] = value.ljust(64, b"\0")
        else:
            wide[name] = value
    return wide


def initial(name: str) -> "int | bytes":
    """A register's value in the initial configuration (SDM1 13.6)."""
    row = REGISTERS[name]
    if row.scalar:
        return row.init
    if len(row.parts) > 1 or row.family in ("st", "xmm", "ymm", "zmm"):
        return bytes(row.width)
    part = row.parts[0]
    return COMPONENTS[part.component].init_image()[part.offset : part.offset + part.width].ljust(row.width, b"\0")


def _shrunk(name: str, values: "tuple[int | bytes | None, ...]") -> str:
    # zmm0 whose upper parts are zero on both sides is shown as what it is.
    row = REGISTERS.get(name)
    if row is None or row.family != "zmm" or row.index is None or row.index > 15:
        return name
    used = max((len(value.rstrip(b"\0")) for value in values if isinstance(value, bytes)), default=0)
    return f"{'xmm' if used <= 16 else 'ymm' if used <= 32 else 'zmm'}{row.index}"


def _text(
    out: Output, options: "argparse.Namespace", found: "list[Difference]", compared: int, notes: "list[str]"
) -> None:
    for note in notes:
        out.line(f"note: {note}")
    if not found:
        out.line(f"same state ({compared} thread{'' if compared == 1 else 's'} compared)")
        return
    label = None
    for each in found:
        if each.thread != label:
            label = each.thread
            out.line(out.style(f"thread {label}", "bold"))
        name, sides = _sides(each, options.lane or "u64")
        out.line(f"  {name:<10} A {sides[0]}")
        out.line(f"  {'':<10} B {sides[1]}")
    threads, of = len({each.thread for each in found}), max(compared, 1)
    what = "difference" if len(found) == 1 else "differences"
    out.line(f"{len(found)} {what} in {threads} of {max(of, threads)} thread{'' if max(of, threads) == 1 else 's'}")


def _sides(each: Difference, lane: str) -> "tuple[str, list[str]]":
    from xsave.report.text import row_text
    from xsave.report.values import x87_text

    name = _shrunk(each.name, (each.a, each.b))
    width = REGISTERS[name].width if name in REGISTERS else 0
    texts = []
    for value in (each.a, each.b):
        if value is None:
            texts.append("none")
        elif isinstance(value, int):
            texts.append("present" if each.name in ("thread", "state") else f"{value:#x}")
        elif name.startswith("st"):
            texts.append(f"{x87_text(value)} 0x{value[::-1].hex()}")
        elif name.startswith("tmm"):
            texts.append(_tile_rows(each, value, lane))
        else:
            texts.append(row_text(value[:width], lane))
    return name, texts


def _tile_rows(each: Difference, value: bytes, lane: str) -> str:
    # Of a tile the rows that differ: 1,024 bytes in a line help nobody.
    from xsave.report.text import row_text

    assert isinstance(each.a, bytes) and isinstance(each.b, bytes)
    rows = [at for at in range(0, 1024, 64) if each.a[at : at + 64] != each.b[at : at + 64]]
    first = f"row {rows[0] // 64}: {row_text(value[rows[0] : rows[0] + 64], lane)}"
    return first + (f" … +{len(rows) - 1} rows" if len(rows) > 1 else "")


def _json(
    out: Output, options: "argparse.Namespace", found: "list[Difference]", compared: int, notes: "list[str]"
) -> None:
    from xsave.report import json as documents

    def side(value: "int | bytes | None") -> "str | bool | None":
        return None if value is None else documents.register_record(value)

    head: "dict[str, object]" = {"schema": "xsave.diff/1", "inputs": [shown(name) for name in options.inputs]}
    if options.provenance:
        from xsave.cli.provenance import facts

        head["provenance"] = facts()
    head |= {"same": not found, "threads_compared": compared}
    records = []
    for each in found:
        kind = each.name if each.name in ("thread", "state") else "register"
        record: "dict[str, Any]" = {"kind": kind, "thread": each.thread}
        if kind == "register":
            record |= {"register": each.name, "a": side(each.a), "b": side(each.b)}
        else:
            record |= {"a": each.a is not None, "b": each.b is not None}
        records.append(record)
    tail = [("diagnostics", [documents.diagnostic(note, "note") for note in notes])]
    for piece in documents.stream(head, [("differences", records)], tail):
        out.write(piece)
    out.line()
