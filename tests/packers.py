"""What packs a file for a test: every compression that is opened transparently."""

import gzip
import lzma
import sys

from tests import skips


def zstd(data: bytes) -> bytes:
    """Packed with zstd; skips where no module for it is there."""
    skips.needs_module("compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd")
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd
    return bytes(zstd.compress(data))


def lz4(data: bytes) -> bytes:
    """Packed with lz4; skips where no module for it is there."""
    skips.needs_module("lz4")
    import lz4.frame

    return bytes(lz4.frame.compress(data))


PACKERS = {"gzip": gzip.compress, "xz": lzma.compress, "zstd": zstd, "lz4": lz4}
