"""Streams that go forward only: pipes, and whatever is compressed.

Loaded only when an image comes in one.
"""

import os

from xsave.errors import ImageError, UnsupportedError
from xsave.images.source import MAGIC, Source

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

__all__ = ["StreamSource", "compressed", "descriptor_stream"]

# What one image may make us hold of a stream.
RETAIN_MAX = 1 << 28
# What it may make us pass over of a stream: zeros compress 1,000 to 1, so a small file can ask for hours of it.
SKIP_MAX = 1 << 36
_BLOCK = 1 << 16
_FAR = (1 << 62) - 1


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


def descriptor_stream(label: str, descriptor: int, shut: "Callable[[], None] | None" = None) -> StreamSource:
    """A pipe or device, by its descriptor."""
    return StreamSource(label, lambda: lambda size: os.read(descriptor, size), False, shut)


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


def compressed(source: Source) -> Source:
    """The unpacked content of a source that begins like something compressed. Raises: `UnsupportedError`."""
    head = source.read(0, MAGIC)
    magic, make = next((magic, make) for magic, make in _COMPRESSED if head.startswith(magic))
    make()  # an optional dependency that is missing is named here

    def start() -> "Callable[[int], bytes]":
        position = 0

        def pull(size: int) -> bytes:
            nonlocal position
            # Of a pipe the first bytes are held, and reading goes on behind them.
            data = source.read(position, size if source.seekable or position >= MAGIC else MAGIC - position)
            position += len(data)
            return data

        return _decompressing(pull, make, magic)

    return StreamSource(source.name, start, again=source.seekable, shut=source.close)
