"""The three sets of instruction vectors: every case with its processor, its memory and what came out.

A set is read once a session and instruction by instruction; nothing of a case is kept that its line does not hold.
"""

import functools
import json
import lzma
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from tests.paths import DATA

from .encoding import Form, decode
from .states import UNKNOWN, Registers, registers

FOLDER = DATA / "vectors"
FILES = {
    "bochs": "CPUID LDTILECFG STTILECFG TILE WRMSR XGETBV XRSTOR XRSTORS XSAVE XSAVEC XSAVEOPT XSAVES XSETBV".split(),
    "zen5": "XGETBV XRSTOR XRSTORS XSAVE XSAVEC XSAVEOPT XSAVES".split(),
    "intel": (
        "FXRSTOR FXSAVE LDTILECFG STTILECFG TILE XGETBV XRSTOR XRSTORS XSAVE XSAVEC XSAVEOPT XSAVES XSETBV".split()
    ),
}
ALL = [(kind, name) for kind, names in FILES.items() for name in names]

REGION_SIZE = 0x7000  # seven pages; the byte after them is in a page that is not present
FILL_SIZE = 12288
BASE = 0x10000000  # where a test puts the region: page aligned, and within reach of 32-bit code
NOT_CANONICAL = 0x0000800000000000
X87, SSE, AVX, ZMM_HI256, UINTR = 0, 1, 2, 6, 14
MXCSR_INIT = 0x1F80
SUPERVISOR = {11: ("IA32_U_CET", "IA32_PL3_SSP"), 12: ("IA32_PL0_SSP", "IA32_PL1_SSP", "IA32_PL2_SSP")}

Leaves = dict[tuple[int, int], tuple[int, int, int, int]]


class Outcome(NamedTuple):
    """What an instruction did, as far as anybody can see."""

    vector: str | None
    error_code: int
    cr2: int | None  # counted from RDI; None unless #PF
    registers: Registers
    memory: bytes  # the whole region
    xinuse: int  # as XGETBV(1) says it in 64-bit mode, under the XCR0 before the instruction
    results: dict[str, int]  # rax rdx rbx rcx; xcr0 or xss afterwards


class Case:
    """One line of a set."""

    def __init__(self, kind: str, line: dict[str, Any]) -> None:
        self.kind = kind
        self.line = line
        self.id: int = line["id"]
        self.op: str = line["op"]
        self.mode: int = line["mode"]
        self.cpl: int = line["cpl"]
        self.xcr0 = int(line["xcr0"], 16)
        self.xss = int(line["xss"], 16)
        self.value = int(line["edx_eax"], 16)
        self.rcx = int(line.get("rcx", "0"), 16)
        self.rsi = int(line.get("rsi", "0"), 16)
        self.flags = frozenset(line.get("flags", ()))
        self.suspect = frozenset(line.get("suspect", ()))
        self.intel = line.get("intel")  # None: not run there; "same"; else a list of what differed
        self.form: Form | None = decode(bytes.fromhex(line["code"]), self.mode)

    def __str__(self) -> str:
        what = f"{self.kind} {self.id} ({self.line['grp']}, {self.line['code']}"
        return what + (f", {self.line['note']})" if "note" in self.line else ")")

    @property
    def address(self) -> int:
        """The operand's linear address."""
        assert self.form is not None
        return self.pointer + self.form.displacement

    @property
    def pointer(self) -> int:
        """RDI, and RBP."""
        return int(self.line["off"]) + (NOT_CANONICAL if "NONCANON" in self.flags else BASE)

    @property
    def stride(self) -> int:
        """The tile instructions' stride, a signed number."""
        assert self.form is not None
        stride = 0 if self.form.scale is None else (self.rsi << self.form.scale) % 2**64
        return stride - (stride >> 63 << 64)

    @property
    def present(self) -> list[tuple[int, int]]:
        """The parts of the region that are mapped, as (start, end)."""
        return [(0, 0x1000), (0x2000, REGION_SIZE)] if "HOLE" in self.flags else [(0, REGION_SIZE)]

    def region(self) -> bytearray:
        """The region before the instruction."""
        operand = bytearray(fills(self.kind)[self.line["fill"]])
        for at, data in self.line["patch"]:
            operand[at : at + len(data) // 2] = bytes.fromhex(data)
        region = bytearray(b"\xcc" * REGION_SIZE)
        offset = self.line["off"]
        room = max(0, min(FILL_SIZE, REGION_SIZE - offset))
        region[offset : offset + room] = operand[:room]
        return region

    def before(self) -> Registers:
        """The registers before the instruction."""
        found = dict(states(self.kind)[self.line["state"]])
        found.update(registers(self.line.get("pre", {}), UNKNOWN[self.kind]))
        return found

    def xinuse(self, values: Registers) -> int:
        """XINUSE before, exactly.

        XGETBV(1) told it, but its bit 1 is also set by MXCSR. On the Intel CPU the set-up had made it true. The two
        that go by value leave SSE in use if an XMM register is not zero, and Zen 5 also if a wider part is in use.
        Supervisor components are not in XGETBV's answer: only bochs has them, by value.
        """
        seen: int = int(self.line["res"]["xinuse_all" if self.kind == "bochs" else "xinuse"][0], 16)
        if self.kind == "intel":
            return seen
        if values["mxcsr"] != MXCSR_INIT:
            wide = self.kind == "zen5" and seen & (1 << AVX | 1 << ZMM_HI256)
            low = any(any(bytes(values[f"zmm{n}"])[:16]) for n in range(16))  # type: ignore[arg-type]
            seen = seen & ~(1 << SSE) | (bool(wide) or low) << SSE
        if self.kind == "bochs":
            for component, names in SUPERVISOR.items():
                seen |= any(values[name] for name in names) << component
            seen |= any(v for name, v in values.items() if name == "uif" or "UINTR" in name) << UINTR
        return seen

    def expected(self) -> Outcome:
        """What the line says came out."""
        result = self.line["res"]
        after = self.before()
        after.update(registers(result.get("regs", {}), UNKNOWN[self.kind]))
        memory = self.region()
        for at, data in result.get("mem", ()):
            start = self.line["off"] + at
            memory[start : start + len(data) // 2] = bytes.fromhex(data)
        names = ("rax", "rdx", "rbx", "rcx", "xcr0", "xss")
        return Outcome(
            result["vec"],
            result.get("err", 0),
            result.get("cr2"),
            after,
            bytes(memory),
            int(result["xinuse"][1], 16),
            {name: int(result[name], 16) for name in names if name in result},
        )


@functools.cache
def states(kind: str) -> dict[str, Registers]:
    return {name: registers(each, UNKNOWN[kind]) for name, each in _json(FOLDER / kind / "states.json.xz").items()}


@functools.cache
def fills(kind: str) -> dict[str, bytes]:
    return {name: bytes.fromhex(each) for name, each in _json(FOLDER / kind / "fills.json.xz").items()}


@functools.cache
def cpuid(kind: str) -> Leaves:
    """CPUID as the guest saw it that made the set."""
    lines = json.loads((FOLDER / f"cpuid_{kind}.json").read_text())
    return {
        (int(leaf, 16), int(subleaf, 16)): (int(a, 16), int(b, 16), int(c, 16), int(d, 16))
        for (leaf, _, subleaf), (a, b, c, d) in ((key.partition("."), value) for key, value in lines.items())
    }


def cases(kind: str, name: str) -> Iterator[Case]:
    """The cases of one file."""
    for line in _lines(kind, name):
        yield Case(kind, line)


@functools.cache
def _lines(kind: str, name: str) -> list[dict[str, Any]]:
    text = lzma.decompress((FOLDER / kind / f"{name}.jsonl.xz").read_bytes())
    return [json.loads(line) for line in text.splitlines()]


def _json(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(lzma.decompress(path.read_bytes()))
    return found
