"""The core files of P6 and P7: many threads, every one with different registers, written as the kernel writes them."""

import os
import random
from pathlib import Path

import numpy as np
from areas import AMX, AVX512, fill, layouts
from writers import elf

import xsave

FIRST_TID = 4000


def write_core(path: Path, threads: int, *, native: bool = False, seed: int = 6) -> "tuple[int, int]":
    """A core of `threads` threads with 2,696-byte notes, everything in use; `native`: 11,008-byte ones whose tiles are
    in their initial configuration (zeros, as the kernel writes it). Returns offset and size of its notes."""
    layout = layouts(AMX if native else AVX512)[0]
    rows = fill(np.empty((threads, layout.size), np.uint8), layout, AVX512, seed=seed)
    # Software bytes hold XCR0; what is not in use holds initial values.
    rows[:, 464:472] = np.frombuffer(int(layout.mask).to_bytes(8, "little"), np.uint8)
    if native:
        rows[:, layout.offsets[xsave.Component.TILECFG][0] :] = 0
    rng = random.Random(seed)
    made = []
    for index, row in enumerate(rows):
        image = row.tobytes()
        registers = {
            "rip": 0x401000 + rng.randrange(4096),
            "rsp": 0x7FFF0000_0000 + 4096 * index,
            "cs": 0x33,
            "ss": 0x2B,
            "eflags": 0x202,
        }
        made.append(elf.Thread(FIRST_TID + index, 6 if index == 0 else 0, registers, image, fpregs=image[:512]))
    entries = [(int(number), size, offset) for number, (offset, size) in layout.offsets.items()]
    notes = elf.linux_notes(made, layout=entries, name=b"bench")
    blob = elf.core(notes, [(0x400000, bytes(4096))])
    path.write_bytes(blob)
    return blob.index(notes[:64]), len(notes)


def areas_of(path: Path) -> "list[bytes]":
    """The area bytes of every thread, from the file itself: a plain walk over its notes."""
    blob = path.read_bytes()
    at, end = int.from_bytes(blob[72:80], "little"), 0
    end = at + int.from_bytes(blob[96:104], "little")
    found = []
    while at < end:
        name, size, kind = (int.from_bytes(blob[at + i : at + i + 4], "little") for i in (0, 4, 8))
        start = at + 12 + -(-name // 4) * 4
        if kind == elf.XSTATE:
            found.append(blob[start : start + size])
        at = start + -(-size // 4) * 4
    return found


def warm(path: Path) -> str:
    """Reads the file once, so that every side finds it in the page cache."""
    with open(path, "rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_WILLNEED)
        while file.read(1 << 20):
            pass
    return str(path)
