"""Bounded reads of whatever an image comes in: files, bytes, pipes, and compressed streams.

Every byte that a reader sees passes `Source.read`. A seekable source is read where asked. A stream (a pipe,
standard input, anything compressed) goes forward only and no further than asked: what must be looked at
again is held by `retain`, and a stream that has passed the wanted place is opened anew where that is possible.
"""

import os

from xsave._records import read_rows
from xsave.errors import ImageError, UnsupportedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import IO, Any

__all__ = ["Source", "open_source"]

# What one image may make us hold of a stream.
RETAIN_MAX = 1 << 28
# What it may make us pass over of a stream: zeros compress 1,000 to 1, so a small file can ask for hours of it.
SKIP_MAX = 1 << 36
_BLOCK = 1 << 16
_MAGIC = 8
_FAR = (1 << 62) - 1


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


class StreamSource(Source):
    """A stream that goes forward only; `start` opens it, and `again` says that it can be opened more than once."""

    seekable = False

    def __init__(
        self, name: str, start: "Callable[[], Callable[[int], bytes]]", again: bool,
        shut: "Callable[[], None] | None" = None,
    ) -> None:
        self._shut = shut
        super().__init__(name)
        self._start = start
        self._again = again
        self._pull = start()
        self._position = 0
        self._held: "list[tuple[int, bytearray]]" = []

    def close(self) -> None:
        if self._shut is not None:
            self._shut()
            self._shut = None

    def __del__(self) -> None:
        self.close()

    def _next(self, size: int) -> bytes:
        try:
            data = self._pull(size)
        except Exception as problem:
            if not isinstance(problem, _damage()):
                raise
            # What came before the damage is good: a cut download still has its notes.
            self.damaged = True
            self.warnings.append(f"compressed stream damaged or cut after {self._position} bytes: {problem}")
            data = b""
        if not data and size:
            self.size = self._position
            self._pull = lambda _size: b""
        self._position += len(data)
        return data

    def _seek(self, offset: int) -> bool:
        if offset < self._position:
            if not self._again:
                raise ImageError(f"{self.name}: offset {offset:#x} is wanted again, but a stream goes forward only: "
                                 "save it to a file first", offset=offset, rule="I-STREAM")
            self._pull = self._start()
            self._position = 0
        if offset - self._position > SKIP_MAX:
            raise ImageError(f"{self.name}: offset {offset:#x} is wanted, {offset - self._position:,} bytes further on "
                             "in a stream: decompress it to a file first", offset=offset, rule="I-LIMIT")
        while self._position < offset:
            if not self._next(min(_BLOCK, offset - self._position)):
                return False
        return True

    def read(self, offset: int, size: int) -> bytes:
        if not size:
            return b""
        for start, data in self._held:
            at = offset - start
            if at >= 0 and at + min(size, (self.size if self.size is not None else _FAR) - offset) <= len(data):
                return bytes(data[at : at + size])
        parts = bytearray()
        for start, data in self._held:
            if start <= offset < start + len(data) == self._position:
                parts += data[offset - start : offset - start + size]
        if not parts and not self._seek(offset):
            return b""
        while len(parts) < size and (fresh := self._next(min(_BLOCK, size - len(parts)))):
            parts += fresh
        return bytes(parts)

    def retain(self, start: int, end: int) -> int:
        for first, held in self._held:
            if first <= start and end <= first + len(held):
                return end
        data = bytearray()
        # Bytes that are held already may be where a stream that cannot go back has passed.
        for first, held in self._held:
            if first <= start < first + len(held) and first + len(held) == self._position:
                data += held[start - first :]
        if not data and not self._seek(start):
            return min(self._position, start)
        while start + len(data) < end:
            piece = self._next(min(_BLOCK, end - start - len(data)))
            if not piece:
                break
            data += piece
            if sum(len(held) for _, held in self._held) + len(data) > RETAIN_MAX:
                raise ImageError(f"{self.name}: more than {RETAIN_MAX} bytes of a stream would have to be held; "
                                 "decompress it to a file first", offset=start, rule="I-LIMIT")
        self._held.append((start, data))
        return start + len(data)


def _damage() -> "tuple[type[Exception], ...]":
    # What decompressors raise; their modules are there if they can have raised it.
    import sys

    errors: "list[type[Exception]]" = [EOFError, ValueError, OSError, RuntimeError]

    for module, name in (("lzma", "LZMAError"), ("zlib", "error"), ("compression.zstd", "ZstdError"),
                         ("backports.zstd", "ZstdError")):
        if module in sys.modules:
            errors.append(getattr(sys.modules[module], name))
    return tuple(errors)


# -- decompression -----------------------------------------------------------------------------------------


class _Zlib:
    # zlib's decompressor in the manner of the other ones: it keeps its own unread input.

    def __init__(self) -> None:
        import zlib

        self._inner = zlib.decompressobj(31)
        self.unused_data = b""
        self.eof = False
        self.needs_input = True

    def decompress(self, data: bytes, max_length: int) -> bytes:
        out = self._inner.decompress(self._inner.unconsumed_tail + data, max_length)
        self.eof = self._inner.eof
        self.unused_data = self._inner.unused_data
        self.needs_input = not self._inner.unconsumed_tail and not self.eof and len(out) < max_length
        return out


def _gzip() -> "Any":
    return _Zlib()


def _xz() -> "Any":
    import lzma

    return lzma.LZMADecompressor(format=lzma.FORMAT_XZ, memlimit=256 << 20)


def _zstd() -> "Any":
    import importlib
    import sys

    try:
        module: "Any" = importlib.import_module(
            "compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd"
        )
    except ImportError:
        raise UnsupportedError("zstd input needs backports.zstd: pip install 'xsave[zstd]'") from None
    return module.ZstdDecompressor()


def _lz4() -> "Any":
    try:
        from lz4.frame import LZ4FrameDecompressor  # type: ignore[import-not-found,unused-ignore]
    except ImportError:
        raise UnsupportedError("lz4 input needs lz4: pip install 'xsave[lz4]'") from None
    return LZ4FrameDecompressor()


_COMPRESSED = ((b"\x1f\x8b", _gzip), (b"\xfd7zXZ\x00", _xz), (b"\x28\xb5\x2f\xfd", _zstd), (b"\x04\x22\x4d\x18", _lz4))


def _decompressing(pull: "Callable[[int], bytes]", make: "Callable[[], Any]", magic: bytes) -> "Callable[[int], bytes]":
    # Several members or frames may follow one another; padding behind the last one is not data.
    decoder = make()
    pending = b""

    def read(size: int) -> bytes:
        nonlocal decoder, pending
        while True:
            if decoder.eof:
                rest = decoder.unused_data or pending
                while len(rest) < len(magic) and (more := pull(_BLOCK)):
                    rest += more
                if not rest.startswith(magic):
                    return b""
                decoder, pending = make(), rest
            if not pending and decoder.needs_input:
                pending = pull(_BLOCK)
                if not pending:
                    raise EOFError("the compressed data end early")
            data: bytes = decoder.decompress(pending, size)
            pending = b""
            if data:
                return data

    return read


# -- opening -----------------------------------------------------------------------------------------------


def _from_descriptor(descriptor: int) -> "Callable[[int], bytes]":
    return lambda size: os.read(descriptor, size)


def _compressed(name: str, source: Source, make: "Callable[[], Any]", magic: bytes) -> Source:
    make()  # an optional dependency that is missing is named here

    def start() -> "Callable[[int], bytes]":
        position = 0

        def pull(size: int) -> bytes:
            nonlocal position
            # Of a pipe the first bytes are held, and reading goes on behind them.
            data = source.read(position, size if source.seekable or position >= _MAGIC else _MAGIC - position)
            position += len(data)
            return data

        return _decompressing(pull, make, magic)

    return StreamSource(name, start, again=source.seekable, shut=source.close)


def _unpacked(source: Source) -> Source:
    if not source.seekable:
        source.retain(0, _MAGIC)
    head = source.read(0, _MAGIC)
    for magic, make in _COMPRESSED:
        if head.startswith(magic):
            return _compressed(source.name, source, make, magic)
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
        return _unpacked(StreamSource(label, lambda: source.read, again=False))
    try:
        view = memoryview(source).cast("B")
    except TypeError:
        raise TypeError(f"cannot open {type(source).__name__}: a path, a binary file or a buffer is needed") from None
    return _unpacked(BytesSource(name or "<buffer>", view))


def _open_path(path: "str | bytes", name: "str | None") -> Source:
    label = name or os.fsdecode(path)
    if label == "-":
        return _unpacked(StreamSource("<stdin>", lambda: _from_descriptor(0), again=False))
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
    return _unpacked(StreamSource(label, lambda: _from_descriptor(descriptor), False, lambda: os.close(descriptor)))
