"""Random register states as standard images, and what each save instruction must make of them on this CPU.

Written from the manual (SDM1 13.4-13.8), with offsets from CPUID; shares nothing with the package's layouts and codec.
As a program it asks for AMX, which a process cannot give back, and judges states with tiles:
`python states.py COUNT SEED` prints one line per difference.
"""

import struct
import sys
from random import Random

from xsave import _native

X87, SSE, AVX, PKRU, TILECFG, TILEDATA = 0, 1, 2, 9, 17, 18
SAVES = ("XSAVE", "XSAVEC", "XSAVEOPT", "FXSAVE")
FILLER = 0xA5


class Machine:
    """Offsets, sizes and alignment of the enabled components, by CPUID."""

    def __init__(self) -> None:
        self.xcr0 = _native.xgetbv(0)
        self.size = _native.area_size()
        self.components = [i for i in range(2, 63) if self.xcr0 >> i & 1]
        leaves = {i: _native.cpuid(0xD, i) for i in self.components}
        self.standard = {i: (leaf[1], leaf[0]) for i, leaf in leaves.items()}
        self.aligned = {i: bool(leaf[2] & 2) for i, leaf in leaves.items()}

    def compacted(self, mask: int) -> dict[int, tuple[int, int]]:
        """Offset and size of each component in the compacted format of `mask` (SDM1 13.4.3)."""
        slots, position = {}, 576
        for i in self.components:
            if mask >> i & 1:
                if self.aligned[i]:
                    position = (position + 63) // 64 * 64
                slots[i] = (position, self.standard[i][1])
                position += self.standard[i][1]
        return slots


def _component(random: Random, number: int, size: int) -> bytes:
    if number == PKRU:  # key 0 stays open, or nothing could be read any more
        return struct.pack("<I", random.getrandbits(32) & ~3 | 4).ljust(size, b"\0")
    if number == TILECFG:
        config = bytearray(64)
        config[0] = 1
        config[1] = random.randrange(16)
        for tile in range(8):
            rows, colsb = random.choice([(0, 0), (random.randrange(1, 17), 4 * random.randrange(1, 17))])
            struct.pack_into("<H", config, 16 + 2 * tile, colsb)
            config[48 + tile] = rows
        return bytes(config)
    return random.randbytes(size - 1) + b"\x01" if random.random() < 0.9 else bytes(size)


def random_image(random: Random, machine: Machine, allowed: int) -> bytes:
    """A standard image with a random XSTATE_BV within `allowed` and random data, also where XSTATE_BV has 0."""
    image = bytearray(random.randbytes(machine.size))
    image[416:464] = image[464:512] = bytes(48)
    struct.pack_into("<I", image, 24, random.getrandbits(16))
    struct.pack_into("<QQ", image, 512, random.getrandbits(64) & allowed & machine.xcr0, 0)
    image[528:576] = bytes(48)
    for i in machine.components:
        offset, size = machine.standard[i]
        image[offset : offset + size] = _component(random, i, size)
    return bytes(image)


def expected_x87(image: bytes) -> bytes:
    """FCW, FSW, FTW and ST0-7 (bytes 0-4 and 32-159, pointers left out) after a restore of `image` (SDM1 13.5.1)."""
    fcw, fsw = struct.unpack_from("<HH", image)
    fcw = fcw & 0x1F3F | 0x40
    summary = bool(fsw & ~fcw & 0x3F)
    fsw = fsw & 0x7F7F | summary << 7 | summary << 15
    stack = b"".join(image[32 + 16 * i : 42 + 16 * i] + bytes(6) for i in range(8))
    return struct.pack("<HHBB", fcw, fsw, image[4], 0) + stack


INITIAL_X87 = struct.pack("<HHBB", 0x37F, 0, 0, 0) + bytes(128)


def judge(
    machine: Machine, save: str, mask: int, image: bytes, out: bytes, xinuse: int
) -> tuple[list[str], list[str]]:
    """What is wrong with `out`, which held FILLER bytes and a zero header before `save` with `mask`.

    The first list breaks the architecture. The second does not: a CPU may call a component in use that holds initial
    values. None does so by itself after XRSTOR, but a context switch in between may make it (and sets bit 1 at will).
    """
    wrong: list[str] = []
    odd: list[str] = []
    restored = int.from_bytes(image[512:520], "little")
    rfbm = mask & machine.xcr0 if save != "FXSAVE" else 3
    written, xcomp = struct.unpack_from("<QQ", out, 512) if save != "FXSAVE" else (restored, 0)
    every = save in ("XSAVE", "FXSAVE")  # writes initial values, the others leave the bytes alone

    def check(what: str, condition: bool, into: list[str] = wrong) -> None:
        if not condition:
            into.append(f"{save} mask {mask:#x} XSTATE_BV {restored:#x} -> {written:#x}: {what}")

    def check_component(name: str, i: int, found: bytes, loaded: bytes, initial: bytes) -> None:
        expected = loaded if restored >> i & 1 else initial
        if every or written >> i & 1:
            check(name, found == expected)
        else:
            check(f"{name} written although not in use", set(found) == {FILLER})
            check(f"{name} lost", expected == initial)

    if save != "FXSAVE":
        check("XSTATE_BV outside RFBM", not written & ~rfbm)
        check("XCOMP_BV", xcomp == (rfbm | 1 << 63 if save == "XSAVEC" else 0))
        check("reserved header bytes", not any(out[528:576]))
        check("a component came into use", not written & ~(restored | 2), odd)
        check("XGETBV(1) disagrees with XSTATE_BV", not (written ^ (xinuse & rfbm)) & ~2, odd)
    mxcsr = struct.unpack_from("<I", image, 24)[0]
    if rfbm >> X87 & 1:
        check_component("x87", X87, out[:6] + out[32:160], expected_x87(image), INITIAL_X87)
    if rfbm >> SSE & 1:
        check_component("XMM", SSE, out[160:416], image[160:416], bytes(256))
    if save == "XSAVEC":
        check("MXCSR left out although not initial", not rfbm & 2 or written & 2 != 0 or mxcsr == 0x1F80)
    if written & 2 if save == "XSAVEC" else rfbm & (1 << SSE | 1 << AVX):
        check("MXCSR", struct.unpack_from("<I", out, 24)[0] == mxcsr)
    else:
        check("MXCSR written", set(out[24:32]) == {FILLER})
    check("software-available bytes", set(out[416:512]) == {FILLER})
    slots = machine.compacted(rfbm) if save == "XSAVEC" else machine.standard
    for i in machine.components:
        if rfbm >> i & 1:
            source, size = machine.standard[i]
            size = 4 if i == PKRU else size  # hardware may leave the upper half alone
            start = slots[i][0]
            check_component(f"component {i}", i, out[start : start + size], image[source : source + size], bytes(size))
    return wrong, odd


def run(count: int, seed: int, allowed: int) -> list[str]:
    """Takes `count` random states through this CPU with each save instruction it has; all that was wrong.

    What a context switch may explain counts if it happens again in each of five repetitions.
    """
    machine, random = Machine(), Random(seed)
    features = _native.cpuid(0xD, 1)[0]
    wrong: list[str] = []
    for save in SAVES:
        if (save == "XSAVEOPT" and not features & 1) or (save == "XSAVEC" and not features & 2):
            continue
        for _ in range(0, count, 50):
            mask = random.choice([-1, machine.xcr0, random.getrandbits(64)]) & (1 << 64) - 1
            images = [random_image(random, machine, allowed) for _ in range(50)]
            suspects = []
            for image, (bad, odd) in zip(images, judged(machine, save, mask, images), strict=True):
                wrong += bad
                if odd and not bad:
                    suspects.append(image)
            for image in suspects:
                verdicts = judged(machine, save, mask, [image] * 5)
                if all(bad or odd for bad, odd in verdicts):
                    wrong += [line for bad, odd in verdicts[:1] for line in bad + odd]
    return wrong


def judged(machine: Machine, save: str, mask: int, images: list[bytes]) -> list[tuple[list[str], list[str]]]:
    """The verdict on every image, loaded and saved in one batch."""
    rows = len(images)
    blank = bytearray([FILLER]) * machine.size
    if save != "FXSAVE":
        blank[512:576] = bytes(64)
    outs, xinuse = bytearray(blank * rows), bytearray(8 * rows)
    traps = _native.roundtrip_many(b"".join(images), outs, rows, save=save, save_mask=mask, xinuse=xinuse)
    if traps:
        return [([f"{save}: {trap}" for trap in traps], [])] + [([], [])] * (rows - 1)
    verdicts = []
    for row, image in enumerate(images):
        out = bytes(outs[row * machine.size : (row + 1) * machine.size])
        used = int.from_bytes(xinuse[8 * row : 8 * row + 8], "little")
        if not _native.abilities()["xgetbv1"]:
            used = int.from_bytes(out[512:520], "little")
        verdicts.append(judge(machine, save, mask, image, out, used))
    return verdicts


if __name__ == "__main__":
    _native.arch_prctl(0x1023, TILEDATA)
    differences = run(int(sys.argv[1]), int(sys.argv[2]), -1)
    print(*differences, sep="\n")
    sys.exit(bool(differences))
