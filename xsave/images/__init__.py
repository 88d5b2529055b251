"""Crash images: give `open` a file, get every thread's extended state.

A container is recognised by its content, never by its name. One module here per container: it says where areas
lie and which layout rules them, and decodes no register.
"""

from xsave.errors import ImageError, UnsupportedError
from xsave.images.image import Evidence, ExtraState, Image, Thread
from xsave.images.source import open_source

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from xsave.images.source import Source
    from xsave.models import CpuModel

__all__ = ["Evidence", "ExtraState", "Image", "Thread", "open"]


def open(source: "Any", cpu: "CpuModel | str | None" = None) -> Image:
    """Opens a crash image, a dump of an area, or text that shows one.

    `source`: a path, `-` for standard input, a binary file object or anything with the buffer protocol;
    compressed with gzip, xz, zstd or lz4 or not. `cpu`: the `CpuModel`, or the name of a known one, whose
    layout rules, whatever the image says.

    Raises: `ImageError` for what is no image or cannot be read, naming file, offset, field, what was found and
    what was expected; `UnsupportedError` for a compression whose module is missing, or a container of a later
    version; `LayoutError` where `cpu` lacks what an area holds; `ValueError` for an unknown CPU's name.
    """
    if isinstance(cpu, str):
        from xsave.models import CpuModel

        cpu = CpuModel.named(cpu)
    opened = open_source(source)
    try:
        return _recognise(opened, cpu)
    except BaseException:
        opened.close()
        raise


# Containers that are known by name but not read yet, so that the error can say what the file is.
_OTHERS = (
    (b"MDMP", "a minidump"),
    (b"PAGEDU64", "a Windows kernel dump"),
    (b"PAGEDUMP", "a Windows kernel dump"),
    (b"KDUMP   ", "a compressed kdump"),
    (b"makedumpfile", "a flattened kdump"),
    (b"QEVM", "a QEMU migration stream"),
    (b"MZ", "a Windows program"),
    # CRIU begins images with two magic numbers, except the inventory of old versions.
    (b"\x19\x43\x56\x54", "a CRIU image"),
    (b"\x40\x59\x10\x55", "a CRIU image"),
    (b"\x16\x31\x31\x58", "a CRIU image"),
)


def _recognise(source: "Source", cpu: "CpuModel | None") -> Image:
    if not source.seekable:
        source.retain(0, 1 << 12)
    head = source.read(0, 1 << 12)
    if not head and source.damaged:
        raise ImageError(f"{source.name}: {source.warnings[-1]}", offset=0, rule="I-DAMAGED")
    if not head:
        raise source.fail("the content", "empty", 0, "a core file, an XSAVE area or a hex dump of one", "I-EMPTY")
    if head.startswith(b"\x7fELF"):
        from xsave.images.core import open_core

        return open_core(source, cpu)
    for magic, what in _OTHERS:
        if head.startswith(magic):
            raise UnsupportedError(f"{source.name}: this is {what}: not read by this version")
    from xsave.images.hexdump import looks_like_text, open_text

    if looks_like_text(head):
        return open_text(source, cpu)
    from xsave.images.raw import open_raw, plausible

    image = open_raw(source, head, cpu)
    if image is None:
        found = f"{head[:8].hex(' ')}{'...' if len(head) > 8 else ''}"
        why = plausible(head) or "too large for one"
        raise ImageError(f"{source.name}: not recognised: begins with {found}, expected ELF, an XSAVE area or a "
                         f"hex dump of one (as an area: {why})", offset=0, rule="I-UNKNOWN")
    return image
