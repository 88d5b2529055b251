"""What counts as in use and as modified on AMD parts with XSaveErPtr, as a small machine beside the CPU.

Measured on family 19h model 11h (Zen 4); `docs/conformance.md` has the rule in words. Random sequences of writes and
restores run on the CPU, XGETBV(1) behind each; XSAVEOPT shows what is modified. Shares nothing with the package's
processor. As a program: `python tracking.py STEPS SEED` prints one line per disagreement.
"""

import struct
import sys
from collections import Counter
from random import Random

from xsave import _native

MXCSR_INIT = 0x1F80
ALL = (1 << 64) - 1
AREAS = 6
SLOT = 4096
COPIES, SCRATCH, PROBES = AREAS, 2 * AREAS, 2 * AREAS + 1  # slots of the arena behind the images
PROBE_SIZE, PROBE_COUNT = 1024, 64
WRITES = ["MOVUPS"] * 3 + ["VMOVUPS xmm"] * 2 + ["VMOVUPS ymm"] * 2 + ["VMOVDQU64 zmm"] * 2
WRITES += ["VMOVDQU64 xmm", "VMOVDQU64 ymm", "KMOVW"]
X87 = ("FNINIT", "FNOP", "EMMS", "FNSTCW", "FLDCW", "FLD")
UNIT = {1: 16, 2: 16, 5: 8, 6: 32, 7: 64}
COUNT = {1: 16, 2: 16, 5: 8, 6: 16, 7: 16}
ROOM = {component: UNIT[component] * COUNT[component] for component in UNIT}
EXTENDED = (2, 5, 6, 7)
OFFSET = {1: 160, **{i: _native.cpuid(0xD, i)[1] for i in EXTENDED}}
SIZE = max(OFFSET[i] + ROOM[i] for i in EXTENDED)


def split(data: bytes, unit: int) -> list[bytes]:
    return [data[i : i + unit] for i in range(0, len(data), unit)]


def x87_in_use(image: bytes) -> bool:
    """By value: FCW, FSW, the tags and all bits of ST0-7. FCW 33FH is read back as 37FH."""
    fcw, fsw, ftw = struct.unpack_from("<HHB", image)
    return (fcw | 0x40, fsw, ftw) != (0x37F, 0, 0) or any(any(image[32 + 16 * i : 42 + 16 * i]) for i in range(8))


class Tracker:
    """Contents of the vector and opmask registers, and what counts as in use and as modified."""

    def __init__(self) -> None:
        self.parts = {i: [bytes(UNIT[i])] * COUNT[i] for i in UNIT}
        self.sse = self.opmask = self.upper = False
        self.wide: dict[int, set[int]] = {2: set(), 6: set()}  # registers 0-15 whose part above counts
        self.dirty = False
        self.x87 = self.loaded_st = False
        self.mxcsr = MXCSR_INIT
        self.modified = ALL
        self.address: int | None = None  # of the last standard XRSTOR

    def xinuse(self) -> int:
        flags = {0: self.x87 or self.loaded_st, 1: self.sse, 5: self.opmask, 7: self.upper, **self.wide}
        return sum(1 << i for i, flag in flags.items() if flag)

    def xgetbv1(self) -> int:
        return self.xinuse() | (2 if self.mxcsr != MXCSR_INIT else 0)

    def write(self, name: str, register: int, value: bytes) -> None:
        if name == "KMOVW":
            self.parts[5][register] = value[:2] + bytes(6)
            self.opmask = True
            self.modified |= 1 << 5
            return
        width = {"xmm": 16, "ymm": 32, "zmm": 64}[name[-3:]] if name != "MOVUPS" else 16
        if register >= 16:
            self.parts[7][register - 16] = value[:width].ljust(64, b"\0")
            self.upper = True
            self.modified |= 1 << 7
            return
        self.parts[1][register] = value[:16]
        self.sse = True
        if name == "MOVUPS":
            self.modified |= 2
            if self.dirty:  # merged: as wide as anything is
                zmm = bool(self.wide[6])
                self.wide[2].add(register)
                if zmm:
                    self.wide[6].add(register)
            return
        whole = value[:width].ljust(64, b"\0")
        self.parts[2][register], self.parts[6][register] = whole[16:32], whole[32:]
        self.modified |= 0x46
        for component, beyond in ((2, 16), (6, 32)):
            if width > beyond:
                self.wide[component].add(register)
                self.dirty = True
            else:
                self.wide[component].discard(register)

    def zero(self, whole: bool) -> None:
        for component in (1, 2, 6) if whole else (2, 6):
            self.parts[component] = [bytes(UNIT[component])] * 16
        self.wide = {2: set(), 6: set()}
        self.dirty = False
        if whole:
            self.sse = False
        else:
            self.modified |= 2

    def x87_step(self, name: str) -> None:
        self.modified |= 1
        if name == "FLD":
            self.loaded_st = True
        elif name == "FNINIT":
            self.loaded_st = False

    def settle(self, rfbm: int) -> None:
        if rfbm & 0x46:  # one of them settles all three
            self.sse = any(map(any, self.parts[1]))
            self.wide = {i: {n for n, part in enumerate(self.parts[i]) if any(part)} for i in (2, 6)}
        if rfbm & 0x20:
            self.opmask = any(map(any, self.parts[5]))
        if rfbm & 0x80:
            self.upper = any(map(any, self.parts[7]))
        if rfbm & 1:
            self.loaded_st = False
        self.dirty = bool(self.wide[2] or self.wide[6])  # whatever the mask

    def xrstor(self, image: bytes, address: int, mask: int) -> None:
        xstate_bv, xcomp_bv = struct.unpack_from("<QQ", image, 512)
        rfbm = mask & 0xE7
        at = dict(OFFSET)
        if xcomp_bv:
            position = 576
            for i in EXTENDED:
                if xcomp_bv >> i & 1:
                    at[i] = position
                    position += ROOM[i]
        for i in UNIT:
            if rfbm >> i & 1:
                held = image[at[i] :][: ROOM[i]] if xstate_bv >> i & 1 else bytes(ROOM[i])
                self.parts[i] = split(held, UNIT[i])
        mxcsr = struct.unpack_from("<I", image, 24)[0]
        if not xcomp_bv and rfbm & 6:
            self.mxcsr = mxcsr
        elif xcomp_bv and rfbm & 2:
            self.mxcsr = mxcsr if xstate_bv & 2 else MXCSR_INIT
        self.settle(rfbm)
        self.address = None if xcomp_bv else address
        self.modified = ~rfbm

    def fxrstor(self, image: bytes) -> None:
        self.parts[1] = split(image[160:416], 16)
        self.mxcsr = struct.unpack_from("<I", image, 24)[0]
        self.settle(3)
        self.address = None  # what XRSTOR left to be remembered is over


def random_image(random: Random, standard: bool) -> bytes:
    """An image in either format, zero in many of its parts, that no restore refuses."""
    image = bytearray(SIZE)
    compacted = not standard and random.random() < 0.35
    xcomp_bv = random.choice([0xE7, random.getrandbits(8) & 0xE7]) if compacted else 0
    xstate_bv = random.choice([0xE7, random.getrandbits(8)]) & (xcomp_bv if compacted else 0xE7)
    fsw = random.choice([0, 0, 0x3800, random.getrandbits(16) & 0x7F00])
    ftw = random.choice([0, 0, random.getrandbits(8)])
    struct.pack_into("<HHB", image, 0, random.choice([0x37F, 0x37F, 0x33F, 0x27F]), fsw, ftw)
    for i in range(8):
        if random.random() < 0.25:
            image[32 + 16 * i : 42 + 16 * i] = random.randbytes(10)
    struct.pack_into("<I", image, 24, random.choice([MXCSR_INIT] * 3 + [0x9F80]))
    struct.pack_into("<QQ", image, 512, xstate_bv, xcomp_bv | 1 << 63 if compacted else 0)
    at, position = dict(OFFSET), 576
    for i in EXTENDED if compacted else ():
        if xcomp_bv >> i & 1:
            at[i] = position
            position += ROOM[i]
    for i in UNIT:
        kind = random.random()
        if i != 1 and compacted and not xcomp_bv >> i & 1:
            continue
        for n in range(COUNT[i]) if kind >= 0.3 else ():
            if random.random() < (0.08 if kind < 0.6 else 0.6):
                start = at[i] + UNIT[i] * n
                image[start : start + UNIT[i]] = random.randbytes(UNIT[i])
    return bytes(image)


def random_value(random: Random) -> bytes:
    return b"".join(bytes(n) if random.random() < 0.5 else random.randbytes(n) for n in (16, 16, 32))


class Sequence:
    """Steps for the CPU and, beside each, what the tracker is to do or to compare."""

    def __init__(self, random: Random, arena: "_native.Arena") -> None:
        self.arena = arena
        self.images = [random_image(random, i == 0) for i in range(AREAS)]
        self.steps: list[tuple[str, int, int, int | bytes, bool, bool]] = []
        self.script: list[tuple[str, tuple[object, ...], int]] = []  # what, operands, number of its last CPU step
        self.saved: set[int] = set()  # images that XSAVEOPT has written over
        self.probes = 0
        self.count = 0
        last: int | None = None
        for _ in range(random.randrange(4, 40)):
            if self.probes == PROBE_COUNT:
                break
            kind = random.random()
            self.count += 1
            if kind < 0.5:
                self.add_write(random)
            elif kind < 0.56:
                self.add("zero", (whole := bool(random.getrandbits(1)),), "VZEROALL" if whole else "VZEROUPPER")
            elif kind < 0.62:
                self.add_x87(random)
            elif kind < 0.66:
                self.add_other(random)
            elif kind < 0.7:
                if (area := random.randrange(AREAS)) not in self.saved:
                    self.add("fxrstor", (area,), "FXRSTOR", self.at(area))
                    self.probe()
            elif kind < 0.85:
                if (area := random.randrange(AREAS)) not in self.saved:
                    bits = random.getrandbits(8)
                    mask = random.choice([ALL, ALL, 0xE7, bits, bits, 1 << bits % 8])
                    rexw = random.random() < 0.7
                    self.add("xrstor", (area, mask), "XRSTOR", self.at(area), mask, rexw=rexw)
                    self.probe()
                    last = area
            elif last is not None and last not in self.saved:
                self.add_xsaveopt(last, random.choice([ALL, ALL, random.getrandbits(8)]))
            self.add("xgetbv", (), "XGETBV", 0, 1)

    def at(self, slot: int) -> int:
        return self.arena.address + SLOT * slot

    def add(
        self,
        what: str,
        operands: tuple[object, ...],
        name: str,
        at: "int | bytes" = 0,
        mask: int = 0,
        register: int = 0,
        *,
        rexw: bool = True,
    ) -> None:
        self.steps.append((name, register, mask, at, rexw, False))
        self.script.append((what, operands, len(self.steps) - 1))

    def probe(self) -> None:
        """What x87 holds; saving it changes nothing."""
        at = self.at(PROBES) + PROBE_SIZE * self.probes
        self.add("x87 holds", (at - self.arena.address,), "XSAVE", at, 1)
        self.probes += 1

    def add_write(self, random: Random) -> None:
        name = random.choice(WRITES)
        register = random.randrange(8 if name == "KMOVW" else 32 if "64" in name else 16)
        if random.random() < 0.7:
            register &= ~0xE  # the same few again and again
        value = random_value(random)
        data = value[:2] if name == "KMOVW" else value
        self.add("write", (name, register, value), name, data, 0, register)

    def add_x87(self, random: Random) -> None:
        name = random.choice(X87)
        data = bytes(64)
        if name == "FLDCW":
            data = struct.pack("<H", random.choice([0x37F, 0x33F, 0x27F, random.getrandbits(16) | 0x3F]))
        elif name == "FLD" and random.getrandbits(1):
            data = random.randbytes(10)
        self.add("x87", (name,), name, data)
        self.probe()

    def add_other(self, random: Random) -> None:
        name = random.choice(["LDMXCSR", "STMXCSR", "MOVUPS store", "XSAVE", "XSAVEC", "FXSAVE"])
        if name == "LDMXCSR":
            value = random.choice([MXCSR_INIT, random.getrandbits(16) | MXCSR_INIT])
            self.add("mxcsr", (value,), name, struct.pack("<I", value))
        elif name in ("STMXCSR", "MOVUPS store"):
            self.add("nothing", (), name, bytes(64), 0)
        else:
            self.add("nothing", (), name, self.at(SCRATCH), ALL)

    def add_xsaveopt(self, area: int, mask: int) -> None:
        # An XSAVE 64 bytes further on leaves other bytes under every component.
        at, copy = self.at(area), self.at(COPIES + area)
        self.add("nothing", (), "XSAVE", copy, ALL)
        self.add("nothing", (), "XSAVE", at + 64, ALL)
        self.add("xsaveopt", (area, mask), "XSAVEOPT", at, mask)
        self.saved.add(area)

    def disagreement(self, skipped: "Counter[int]") -> "str | None":
        """One run on the CPU beside a new tracker: None, or where they part."""
        for area, image in enumerate(self.images):
            self.arena.write(SLOT * area, image.ljust(SLOT, b"\0"))
        prime = bytearray(self.images[0])
        _, done, trap, first, _, _, results = _native.run_steps(self.steps, prime)
        if trap is not None:
            return f"step {done} faults: {trap.vector}"
        tracker = Tracker()
        tracker.xrstor(self.images[0], 0, ALL)
        tracker.address = None
        tracker.x87 = bool(prime[512] & 1) and x87_in_use(prime)
        if tracker.xgetbv1() != first:
            return f"at the start: {tracker.xgetbv1():#x}, the CPU has {first:#x}"
        for what, operands, step in self.script:
            told = self.follow(tracker, what, operands, results[step], skipped)
            if told is not None:
                return f"step {step}, {what} {operands[:2]}: {told}"
        return None

    def follow(
        self, tracker: Tracker, what: str, operands: "tuple[object, ...]", result: int, skipped: "Counter[int]"
    ) -> "str | None":
        match what, operands:
            case "write", (str(name), int(register), bytes(value)):
                tracker.write(name, register, value)
            case "zero", (bool(whole),):
                tracker.zero(whole)
            case "x87", (str(name),):
                tracker.x87_step(name)
            case "mxcsr", (int(value),):
                tracker.mxcsr = value
            case "fxrstor", (int(area),):
                tracker.fxrstor(self.images[area])
            case "xrstor", (int(area), int(mask)):
                tracker.xrstor(self.images[area], self.at(area), mask)
            case "x87 holds", (int(offset),):
                tracker.x87 = x87_in_use(self.arena.read(offset, 160))
            case "xgetbv", ():
                if result != tracker.xgetbv1():
                    return f"XGETBV(1) {tracker.xgetbv1():#x}, the CPU has {result:#x}"
            case "xsaveopt", (int(area), int(mask)):
                return self.judge_xsaveopt(tracker, area, mask, skipped)
        return None

    def judge_xsaveopt(self, tracker: Tracker, area: int, mask: int, skipped: "Counter[int]") -> "str | None":
        image = self.images[area]
        rfbm, in_use = mask & 0xE7, tracker.xinuse()
        written = rfbm & in_use
        if tracker.address == self.at(area):
            written &= tracker.modified
        state = self.arena.read(SLOT * (COPIES + area), SIZE)
        found = self.arena.read(SLOT * area, SIZE)
        under = bytearray(image + bytes(64))
        under[64 : 64 + 416] = state[:416]
        under[64 + 576 : 64 + SIZE] = state[576:]
        xstate_bv = int.from_bytes(image[512:520], "little") & ~rfbm | in_use & rfbm
        if int.from_bytes(found[512:520], "little") != xstate_bv:
            return f"XSTATE_BV {xstate_bv:#x}, the CPU wrote {found[512]:#x}"
        for i in (0, *UNIT):
            # of AVX not the first 8 bytes: the other XSAVE's XSTATE_BV lies under them
            begin, end = (32, 160) if i == 0 else (OFFSET[i] + (8 if i == 2 else 0), OFFSET[i] + ROOM[i])
            if i and b"".join(tracker.parts[i]) != state[OFFSET[i] : OFFSET[i] + ROOM[i]]:
                return f"contents of component {i}"
            now, was = found[begin:end], bytes(under[begin:end])
            if now != (state[begin:end] if written >> i & 1 else was):
                does = "not written" if written >> i & 1 else "written"
                return f"component {i} {does}, modified {tracker.modified & 0xE7:#x}"
            if in_use >> i & 1 and not written >> i & 1 and was != state[begin:end]:
                skipped[i] += 1
        return None


def run(count: int, seed: int) -> "tuple[int, list[str], int, Counter[int]]":
    """At least `count` steps in random sequences: (steps, disagreements, sequences repeated, components left out).

    The last counts what XSAVEOPT visibly did not write although in use.

    A context switch settles what is in use and ends the optimisation: a sequence that disagrees runs up to eight times
    more, and agreement needs one run.
    """
    random = Random(seed)
    arena = _native.Arena(PROBES + PROBE_SIZE * PROBE_COUNT // SLOT)
    done, repeated = 0, 0
    wrong: list[str] = []
    skipped: Counter[int] = Counter()
    while done < count:
        sequence = Sequence(random, arena)
        if not sequence.steps:
            continue
        done += sequence.count
        told = sequence.disagreement(skipped)
        if told is not None:
            repeated += 1
            if all(sequence.disagreement(Counter()) is not None for _ in range(8)):
                wrong.append(told)
    return done, wrong, repeated, skipped


if __name__ == "__main__":
    steps, differences, again, left_out = run(int(sys.argv[1]), int(sys.argv[2]))
    print(*differences, sep="\n", end="\n" if differences else "")
    print(f"{steps} steps, {len(differences)} disagreements, {again} sequences repeated, left out {dict(left_out)}")
    sys.exit(bool(differences))
