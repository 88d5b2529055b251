"""Inputs as areas of bytes, whatever their headers say: what `validate` judges and `run` executes on."""

import sys

from xsave.cli.failures import NO_INPUT, CommandError, explain
from xsave.cli.inputs import open_image, pick_thread, shown
from xsave.errors import FormatError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from xsave.models import CpuModel

# An area is far smaller; what follows it in a file is not looked at.
_AREA_LIMIT = 1 << 20


class Subject:
    """One area as bytes, whatever its header says: where it came from, and the CPU that the input itself points to."""

    __slots__ = ("data", "label", "model", "tid")

    def __init__(self, label: str, tid: "int | None", data: "bytes | memoryview", model: "CpuModel | None") -> None:
        self.label = label
        self.tid = tid
        self.data = data
        self.model = model


def subjects(name: str, model: "CpuModel | None", threads: "list[str] | None") -> "Iterator[Subject]":
    """The areas of an input: its bytes where it is one area or a hex dump of one, those of the threads that `threads`
    names (None: all) of a core file. Raises: `CommandError`."""
    from xsave.cli.select import thread_filter
    from xsave.images import open as open_any

    label = shown(name)
    source = sys.stdin.buffer.read(_AREA_LIMIT) if name == "-" else name
    try:
        data = _area_bytes(source)
        if data is not None:
            yield Subject(label, None, data, model or _suggested(data))
            return
        wanted = thread_filter(threads)
        for index, thread in enumerate(open_any(source, cpu=model).threads):
            if wanted(index, thread) and thread.area is not None:
                yield Subject(label, thread.tid, memoryview(thread.area), thread.area.layout.model)
    except (FormatError, OSError) as error:
        raise explain(error, source=label) from error


def one_subject(name: str, model: "CpuModel | None", thread: "str | None") -> Subject:
    """The one area that a command works on: that of a file, or of one thread of a core. Raises: `CommandError`."""
    found = list(subjects(name, model, [thread] if thread else None))
    if len(found) == 1:
        return found[0]
    if not found:
        raise CommandError(f"no thread {thread}" if thread else "no area in it", NO_INPUT, source=shown(name))
    area = pick_thread(open_image(name, model), thread)
    return next(each for each in found if each.tid == area.tid)


def _area_bytes(source: "str | bytes") -> "bytes | None":
    # The bytes of an input that is one area, or shows one in hex, whatever its header says; None for a core file.
    from xsave.images.hexdump import looks_like_text, parse_hex
    from xsave.images.source import open_source

    opened = open_source(source)
    try:
        if not opened.seekable:
            opened.retain(0, _AREA_LIMIT)
        head = opened.read(0, 4096)
        if head.startswith(b"\x7fELF"):
            return None
        data = opened.read(0, _AREA_LIMIT)
        return parse_hex(data, opened.name)[0] if looks_like_text(head) else data
    finally:
        opened.close()


def _suggested(data: bytes) -> "CpuModel | None":
    # The CPU that the area itself points to, where it is good enough to say.
    from xsave.images import open as open_any

    try:
        area = open_any(data).threads[0].area
        return None if area is None else area.layout.model
    except FormatError:
        return None
