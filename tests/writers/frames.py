"""Writes Linux signal frames: an XSAVE area with the kernel's software bytes, and the FSAVE header of 32-bit frames."""

import struct

MAGIC1, MAGIC2 = 0x46505853, 0x46505845


def frame(area: bytes, xfeatures: int, *, fsave: bytes | None = None, magic2: int = MAGIC2) -> tuple[bytes, int]:
    """A frame's bytes and the area's position in them; with `fsave` (108 bytes) a 32-bit one."""
    out = bytearray(area)
    extended = len(area) + 4 + (112 if fsave is not None else 0)
    struct.pack_into("<IIQI", out, 464, MAGIC1, extended, xfeatures, len(area))
    out[484:512] = bytes(28)
    struct.pack_into("<Q", out, 512, struct.unpack_from("<Q", area, 512)[0] | 3)
    body = bytes(out) + struct.pack("<I", magic2)
    if fsave is None:
        return body, 0
    header = fsave.ljust(108, b"\0") + struct.pack("<HH", 0, 0)
    return header + body, 112
