"""The measured tables of XINUSE and of the modified optimisation, line by line.

A line says what ran between an XRSTOR and what was looked at, in words; `STEPS` has those words that a processor under
test can be asked for. What is seen of a component is whether XSAVEOPT wrote it (`written`), and XSTATE_BV or XINUSE.
"""

import re
from collections.abc import Callable
from typing import Any, NamedTuple

from .cases import FOLDER

AREA, ELSEWHERE = 0, 0x10000
ALL = (1 << 64) - 1
X = bytes(range(1, 17))
Y = bytes(range(1, 33))
Z = bytes(range(1, 65))

# The words of a line -> what to do, as (method, arguments); registers get new values where the words say "changed",
# and those of the test's state where they write what was there.
Step = tuple[str, tuple[Any, ...]]
WRITES: dict[str, list[Step]] = {
    "nothing changed": [],
    "nothing": [],
    "store to zmm20 by vmovdqa64 zmm20,zmm20": [("write", ("zmm20", "same"))],
    "vmovdqa64 zmm20,zmm20": [("write", ("zmm20", "same"))],
    "vpxord zmm20": [("write", ("zmm20", bytes(64)))],
    "xmm3 changed (SSE movdqa xmm3,xmm4)": [("write", ("xmm3", X))],
    "xmm3 written with itself (movaps xmm3,xmm3)": [("write", ("xmm3", "same"))],
    "movaps xmm3,xmm3": [("write", ("xmm3", "same"))],
    "pxor xmm3,xmm3": [("write", ("xmm3", bytes(16)))],
    "xmm3 changed (VEX vmovdqa xmm3,xmm4)": [("write", ("xmm3", X, True))],
    "vpxor xmm3 (VEX.128)": [("write", ("xmm3", bytes(16), True))],
    "ymm3 upper changed (vmovdqa ymm3,ymm4)": [("write", ("ymm3", Y))],
    "vmovdqa ymm3,ymm4": [("write", ("ymm3", bytes(32)))],
    "zmm3 changed (vmovdqa64 zmm3,zmm4)": [("write", ("zmm3", Z))],
    "vmovdqa64 zmm3,zmm4": [("write", ("zmm3", bytes(64)))],
    "ymm3 then vzeroupper": [("write", ("ymm3", bytes(32))), ("vzeroupper", ())],
    "zmm3 then vzeroupper": [("write", ("zmm3", bytes(64))), ("vzeroupper", ())],
    "zmm3 then vzeroall": [("write", ("zmm3", bytes(64))), ("vzeroall", ())],
    "zmm20 then vzeroall": [("write", ("zmm20", bytes(64))), ("vzeroall", ())],
    "k1 changed": [("write", ("k1", 5))],
    "kmovq k1,k2": [("write", ("k1", 0))],
    "kxorq k1,k1,k1": [("write", ("k1", 0))],
    "all eight k zeroed by kxorq": [("write", (f"k{i}", 0)) for i in range(8)],
    "ldmxcsr 1FA0": [("ldmxcsr", (0x1FA0,))],
    "ldmxcsr 1F80": [("ldmxcsr", (0x1F80,))],
    "ldmxcsr 1F80 (same value)": [("ldmxcsr", (0x1F80,))],
    "ldmxcsr 1FA0, ldmxcsr 1F80": [("ldmxcsr", (0x1FA0,)), ("ldmxcsr", (0x1F80,))],
    "fninit": [("fninit", ())],
    "vzeroupper": [("vzeroupper", ())],
    "vzeroall": [("vzeroall", ())],
    "tilezero tmm0": [("tilezero", (0,))],
    "tileloadd tmm3": [("tileloadd", (3,))],
    "tilestored tmm3 (read)": [("tilestored", (3,))],
    "ldtilecfg, same configuration": [("ldtilecfg", ())],
    "ldtilecfg": [("ldtilecfg", ())],
    "ldtilecfg, tilezero": [("ldtilecfg", ()), ("tilezero", (0,))],
    "ldtilecfg, tileloadd": [("ldtilecfg", ()), ("tileloadd", (3,))],
    "ldtilecfg, tilestored": [("ldtilecfg", ()), ("tilestored", (3,))],
    "ldtilecfg, tileloadd, ldtilecfg": [("ldtilecfg", ()), ("tileloadd", (3,)), ("ldtilecfg", ())],
    "sttilecfg (read)": [("sttilecfg", ())],
    "sttilecfg": [("sttilecfg", ())],
    "tilerelease": [("tilerelease", ())],
    "fxsave64": [("fxsave", ())],
    "fxsave64 elsewhere": [("fxsave", ())],
    "XSAVE to B in between": [("xsave", ())],
    "XSAVEC to B in between": [("xsavec", ())],
    "XRSTOR of B in between (rfbm 0)": [("xrstor", (0,))],
    "XRSTOR of B in between (rfbm 1)": [("xrstor", (1,))],
    "XSAVEOPT twice, nothing between": [("xsaveopt", ())],
    "XSAVEOPT twice, change between: zmm20": [("xsaveopt", ()), ("write", ("zmm20", Z))],
    "XSTATE_BV in memory cleared in between": [("clear", ())],
}
# Lines about the XRSTOR or the XSAVEOPT themselves.
OPTIONS: dict[str, dict[str, Any]] = {
    "XSAVEOPT to another address": {"to": ELSEWHERE},
    "RFBM of XSAVEOPT = E6H": {"save": 0xE6},
    "RFBM of XSAVEOPT = E7H": {"save": 0xE7},
    "RFBM of XSAVEOPT = 600E6H": {"save": 0x600E6},
    "RFBM of XRSTOR = E6H, XSAVEOPT E7H": {"restore": 0xE6},
    "RFBM of XRSTOR = E6H, XSAVEOPT 600E7H": {"restore": 0xE6},
    "RFBM of XRSTOR = E7H, XSAVEOPT 600E7H": {"restore": 0xE7},
    "XRSTOR was compacted": {"compacted": True},
    "XRSTOR bv=0 (all init)": {"xstate_bv": 0},
    "no-REX XSAVEOPT after XRSTOR64": {"rexw": False},
}
# Reads, other x87 and MMX instructions, system calls, TDPBSSD: a processor under test has no name for them.
NO_QUESTION = re.compile(
    r"read|stmxcsr|fnstcw|fnstsw|fnop|fld1|fldcw|emms|movq mm1|movdqu \[mem|vmovdqu64 \[mem|kmovq rax|tdpbssd|getpid"
)


class Line(NamedTuple):
    words: str
    start: str  # "all": everything in use and restored; "init": everything initialised
    steps: list[Step]
    options: dict[str, Any]
    written: dict[int, bool]  # component -> written by XSAVEOPT
    result: int  # XSTATE_BV, or XINUSE


def modified(kind: str) -> tuple[list[Line], list[str]]:
    """The lines of a table of the modified optimisation, and those that no question here can ask."""
    return _read(f"xsaveopt_modified.{kind}.txt", _modified_line)


def in_use() -> tuple[list[Line], list[str]]:
    """The same for the table of XINUSE."""
    return _read("xinuse.intel.txt", _in_use_line)


def _read(name: str, parse: Callable[[str], Line | None]) -> tuple[list[Line], list[str]]:
    lines, left_out = [], []
    for text in (FOLDER / name).read_text().splitlines():
        if text.startswith("#"):
            continue
        line = parse(text)
        if line is None:
            left_out.append(text)
        else:
            lines.append(line)
    return lines, left_out


def _modified_line(text: str) -> Line | None:
    words, _, rest = text.partition("written:")
    words = words.strip()
    if words not in WRITES and words not in OPTIONS:
        return None
    written = {int(i): percent != "0" for i, percent in re.findall(r"\bc(\d+)= *(\d+)%", rest)}
    result = int(rest.rpartition("=")[2], 16)
    return Line(words, "all", WRITES.get(words, []), OPTIONS.get(words, {}), written, result)


def _in_use_line(text: str) -> Line | None:
    words, _, rest = text.partition("XINUSE")
    for long, short in (("all restored (XSTATE_BV=600E7), ", "all; "), ("all initialised, ", "init; ")):
        words = words.replace(long, short)
    start, _, words = words.partition(";")
    words = words.strip()
    if words not in WRITES:
        return None
    return Line(words, start, WRITES[words], {}, {}, int(rest.rpartition("->")[2], 16))
