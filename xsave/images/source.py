"""Bounded reads of whatever an image comes in: files, bytes, pipes, and compressed streams.

Every byte that a reader sees passes `Source.read`. A seekable source is read where asked. A stream (a pipe,
standard input, anything compressed) goes forward only and no further than asked: what must be looked at
again is held by `retain`, and a stream that has passed the wanted place is opened anew where that is possible.
"""

import os

from xsave._records import read_rows
from xsave.errors import ImageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import IO, Any

__all__ = ["Source", "open_source"]

# How compressed files begin (gzip, xz, zstd, lz4), and how much of a file tells.
_COMPRESSED = (b"\x1f\x8b", b"\xfd7zXZ\x00", b"\x28\xb5\x2f\xfd", b"\x04\x22\x4d\x18")
MAGIC = 8


class Source:
    """Bytes at offsets. `name` for messages; `size` in bytes, or None while a stream's end is unknown;
    `seekable` if reading anywhere costs nothing; `warnings`, what was found wrong with the transport; `damaged`,
    whether bytes are missing because of that.
    """

    name: str
    size: "int | None" = None
    seekable = True

    def __init__(self, name: str) -> None:
        self.name = name
        self.warnings: "list[str]" = []
        self.damaged = False

    def read(self, offset: int, size: int) -> bytes:
        """At most `size` bytes from `offset`; fewer only where the source ends."""
        raise NotImplementedError

    def read_into(self, offset: int, buffer: memoryview) -> int:
        """Fills `buffer` from `offset` and returns the count; less than its length only where the source ends."""
        data = self.read(offset, len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def read_rows(self, offsets: memoryview, size: int, buffer: memoryview, stride: int) -> int:
        """Reads `size` bytes at each of `offsets` (int64) into rows of `buffer`, `stride` bytes apart; returns how many
        rows are whole, before the first that is not."""
        for row, offset in enumerate(offsets):
            if self.read_into(offset, buffer[row * stride : row * stride + size]) < size:
                return row
        return len(offsets)

    def retain(self, start: int, end: int) -> int:
        """Makes [start, end) readable as often as wanted and returns where the source ends within it."""
        return min(end, self.size if self.size is not None else end)

    def close(self) -> None:
        """Lets go of the file."""

    def fail(self, field: str, found: str, offset: int, expected: str, rule: "str | None" = None) -> ImageError:
        """The error for a field that makes the whole image unreadable: file, offset, field, found, expected."""
        return ImageError(f"{self.name}: {field} at offset {offset:#x} is {found}, expected {expected}",
                          offset=offset, rule=rule)


class BytesSource(Source):
    """A buffer in memory."""

    def __init__(self, name: str, data: "bytes | bytearray | memoryview") -> None:
        super().__init__(name)
        self._data = memoryview(data).cast("B")
        self.size = len(self._data)

    def read(self, offset: int, size: int) -> bytes:
        return bytes(self._data[offset : offset + size]) if offset < len(self._data) else b""

    def read_into(self, offset: int, buffer: memoryview) -> int:
        piece = self._data[offset : offset + len(buffer)]
        buffer[: len(piece)] = piece
        return len(piece)


class FileSource(Source):
    """A regular file, by descriptor and position-independent reads."""

    def __init__(self, name: str, descriptor: int, size: int) -> None:
        super().__init__(name)
        self._descriptor = descriptor
        self.size = size

    def read(self, offset: int, size: int) -> bytes:
        assert self.size is not None
        size = min(size, max(self.size - offset, 0))
        parts = []
        while size:
            part = os.pread(self._descriptor, min(size, 1 << 30), offset)
            if not part:
                break
            parts.append(part)
            offset += len(part)
            size -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def read_into(self, offset: int, buffer: memoryview) -> int:
        done = 0
        while done < len(buffer):
            count = os.preadv(self._descriptor, [buffer[done:]], offset + done)
            if not count:
                break
            done += count
        return done

    def read_rows(self, offsets: memoryview, size: int, buffer: memoryview, stride: int) -> int:
        return read_rows(self._descriptor, offsets, size, buffer, stride)

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __del__(self) -> None:
        self.close()


class ObjectSource(Source):
    """A seekable binary file object of the caller's."""

    def __init__(self, name: str, file: "IO[bytes]") -> None:
        super().__init__(name)
        self._file = file
        self.size = file.seek(0, 2)

    def read(self, offset: int, size: int) -> bytes:
        self._file.seek(offset)
        assert self.size is not None
        return self._file.read(min(size, max(self.size - offset, 0)))


# -- opening -----------------------------------------------------------------------------------------------


def _unpacked(source: Source) -> Source:
    if not source.seekable:
        source.retain(0, MAGIC)
    if source.read(0, MAGIC).startswith(_COMPRESSED):
        from xsave.images.streams import compressed

        return compressed(source)
    return source


def open_source(source: "Any", name: "str | None" = None) -> Source:
    """The `Source` for a path, `-` (standard input), a binary file object or anything with a buffer.

    Raises: `ImageError` for an unreadable path, `UnsupportedError` for a compression whose module is missing,
    `TypeError` for anything else.
    """
    if isinstance(source, Source):
        return source
    if isinstance(source, (bytes, bytearray, memoryview)):
        return _unpacked(BytesSource(name or "<bytes>", source))
    if isinstance(source, (str, os.PathLike)):
        return _open_path(os.fspath(source), name)
    if hasattr(source, "read"):
        label = name or str(getattr(source, "name", "<stream>"))
        if hasattr(source, "seekable") and source.seekable():
            return _unpacked(ObjectSource(label, source))
        from xsave.images.streams import StreamSource

        return _unpacked(StreamSource(label, lambda: source.read, again=False))
    try:
        view = memoryview(source).cast("B")
    except TypeError:
        raise TypeError(f"cannot open {type(source).__name__}: a path, a binary file or a buffer is needed") from None
    return _unpacked(BytesSource(name or "<buffer>", view))


def _open_path(path: "str | bytes", name: "str | None") -> Source:
    label = name or os.fsdecode(path)
    if label == "-":
        from xsave.images.streams import descriptor_stream

        return _unpacked(descriptor_stream("<stdin>", 0))
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
        try:
            status = os.fstat(descriptor)
            kind = status.st_mode & 0o170000
            if kind == 0o040000:
                raise ImageError(f"{label}: is a directory, expected a file")
        except BaseException:
            os.close(descriptor)
            raise
    except OSError as problem:
        raise ImageError(f"{label}: {problem.strerror or problem}") from problem
    if kind == 0o100000:
        return _unpacked(FileSource(label, descriptor, status.st_size))
    from xsave.images.streams import descriptor_stream

    return _unpacked(descriptor_stream(label, descriptor, lambda: os.close(descriptor)))
