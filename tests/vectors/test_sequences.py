"""The measured tables of XINUSE and the modified optimisation, replayed on the processor and on the slow model."""

from random import Random

import pytest
import reference

import xsave
from tests import skips

from . import on_processor, on_reference
from .sequences import ALL, AREA, ELSEWHERE, NO_QUESTION, Line, in_use, modified

pytestmark = skips.needs_data()

SIZE = 12288
XCR0 = {"zen5": 0xE7, "intel": 0x600E7}
MARK = 0xA5


class Lane:
    """One processor with two areas and scratch memory, and the few calls that lines are made of."""

    def __init__(self, which: str, kind: str) -> None:
        self.slow = which == "reference"
        self.kind = kind
        self.table = on_reference.table(kind)
        self.xcr0 = XCR0[kind]
        if self.slow:
            self.cpu = reference.Cpu(self.table, xinuse=0, cpl=3, modified_opt=True)
        else:
            self.cpu = xsave.Processor(on_processor.model(kind), xcr0=self.xcr0)
        rng = Random(kind)
        self.state = reference.random_state(rng, self.xcr0, reference.STANDARD, pending_pointers=kind == "zen5")
        if kind == "intel":
            self.state["tilecfg"] = bytes([1, 0, *bytes(14), *[64, 0] * 8, *bytes(16), *[16] * 8, *bytes(8)])

    def area(self, *, compacted: bool = False, xstate_bv: int | None = None) -> bytearray:
        fmt = reference.COMPACTED if compacted else reference.STANDARD
        in_use = self.xcr0 if xstate_bv is None else xstate_bv
        return bytearray(reference.encode(self.state, self.table, self.xcr0, fmt, in_use).ljust(SIZE, b"\0"))

    def call(self, name: str, *arguments: object, **options: object) -> None:
        if self.slow:
            assert getattr(self.cpu, name)(*arguments, **options) is None
        else:
            getattr(self.cpu, name)(*arguments, **options)

    def step(self, area: bytearray, name: str, arguments: tuple[object, ...]) -> None:
        other = bytearray(SIZE)
        if name == "write":
            register, value, *vex = arguments
            if value == "same":
                size = {"xmm": 16, "zmm": 64}[register[:3]]
                value = reference.vector(dict(self.registers()), int(register[3:]))[:size]
            self.cpu.write(register, value, vex=bool(vex))
        elif name == "clear":
            area[512:520] = bytes(8)
        elif name in ("xsave", "xsavec", "xsaveopt"):
            to = area if name == "xsaveopt" else other
            self.call(name, to, ALL, address=AREA if name == "xsaveopt" else ELSEWHERE)
        elif name == "xrstor":
            self.call(name, self.area(), *arguments, address=ELSEWHERE)
        elif name == "fxsave":
            self.call(name, other, address=ELSEWHERE)
        elif name in ("ldtilecfg", "sttilecfg"):
            image = bytearray(self.state["tilecfg"])
            self.call(name, image, address=ELSEWHERE)
        elif name in ("tileloadd", "tilestored"):
            self.call(name, *arguments, other, 64, address=ELSEWHERE)
        else:
            self.call(name, *arguments)

    def registers(self) -> dict[str, int | bytes]:
        return self.cpu.registers if self.slow else self.cpu.registers()

    def xgetbv1(self) -> int:
        return self.cpu.xgetbv(1)


def play_modified(lane: Lane, line: Line) -> tuple[dict[int, bool], int]:
    """Which components XSAVEOPT wrote, and the XSTATE_BV that it left."""
    options = line.options
    # Everything is in use before, so that what the XRSTOR does not ask for is in use too.
    lane.call("xrstor", lane.area(), ALL, address=ELSEWHERE)
    restored = lane.area(compacted=options.get("compacted", False), xstate_bv=options.get("xstate_bv"))
    lane.call("xrstor", restored, options.get("restore", ALL), address=AREA)
    area = bytearray(SIZE)
    if lane.kind == "intel":  # there the area went on holding its header; on Zen 5 it was filled anew
        area[512:520] = restored[512:520]
    for name, arguments in line.steps:
        lane.step(area, name, arguments)
    probe = bytearray([MARK]) * SIZE
    probe[512:576] = area[512:576]
    lane.call(
        "xsaveopt", probe, options.get("save", ALL), address=options.get("to", AREA), rexw=options.get("rexw", True)
    )
    slots, _ = reference.layout(lane.table, lane.xcr0, reference.STANDARD)
    written = {}
    for i in line.written:
        extents = reference.LEGACY_EXTENTS.get(i, [(0, slots[i][1])])
        written[i] = any(probe[slots[i][0] + o + n] != MARK for o, length in extents for n in range(length))
    return written, int.from_bytes(probe[512:520], "little")


@pytest.mark.parametrize("which", ["processor", "reference"])
@pytest.mark.parametrize("kind", ["zen5", "intel"])
def test_modified_optimisation(kind, which):
    lines, left_out = modified(kind)
    assert len(lines) >= 20 and all(NO_QUESTION.search(line) for line in left_out)
    for line in lines:
        written, xstate_bv = play_modified(Lane(which, kind), line)
        assert written == line.written, line.words
        assert xstate_bv == line.result, line.words


@pytest.mark.parametrize("which", ["processor", "reference"])
def test_in_use(which):
    lines, left_out = in_use()
    assert len(lines) >= 30 and all(NO_QUESTION.search(line) for line in left_out)
    for line in lines:
        lane = Lane(which, "intel")
        lane.state["mxcsr"] = 0x1F80
        area = lane.area(xstate_bv=None if line.start == "all" else 0)
        lane.call("xrstor", area, ALL, address=AREA)
        assert lane.xgetbv1() == (lane.xcr0 if line.start == "all" else 0)
        for name, arguments in line.steps:
            lane.step(area, name, arguments)
        seen = lane.cpu.xinuse if lane.slow else int(lane.cpu.xinuse)
        assert seen & lane.xcr0 == line.result, f"{line.start}; {line.words}"
