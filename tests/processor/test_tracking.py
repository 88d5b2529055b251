"""XINUSE and XMODIFIED of the intel profile: which mark each instruction sets and clears (SDM1 13.6; measured).

Two sets of marks, `lo` for registers 0-7 and everything that is not split, `hi` for registers 8-15 of SSE, AVX and
ZMM_Hi256. In 64-bit mode XINUSE is both, in compatibility mode `lo` without Hi16_ZMM: that is how they are told apart.
"""

import pytest
from reference import COMPACTED, STANDARD

from tests.processor.operands import ALL, INTEL, TILES, image, processor
from xsave import Processor

SPLIT = 0x46
WIDTHS = {"xmm": 16, "ymm": 32, "zmm": 64}
CONFIG = b"\x01" + bytes(15) + b"\x40" + bytes(31) + b"\x10" + bytes(15)


def perform(cpu: Processor, words: str, fill: int = 0x5A) -> None:
    """Instructions in words: a register's name writes it (`v.xmm0` with VEX), a method's name calls it."""
    for word in words.split():
        name = word.removeprefix("v.")
        family, values = name.rstrip("0123456789"), {"fcw": 0x27F, "pkru": fill, "k": fill, "mxcsr": 0x1F80}
        if family in WIDTHS:
            cpu.write(name, bytes([fill]) * WIDTHS[family], vex=word != name)
        elif family == "st":
            cpu.write(name, bytes([fill]) * 10)
        elif family in values:
            cpu.write(name, values[family])
        elif word == "fxsave":
            cpu.fxsave(bytearray(512))
        elif word == "fxrstor":
            cpu.fxrstor(bytes(image(INTEL, 3, STANDARD, 3)[:512]))
        elif word == "ldtilecfg":
            cpu.ldtilecfg(CONFIG)
        elif word == "sttilecfg":
            cpu.sttilecfg(bytearray(64))
        elif word in ("tileloadd", "tilestored"):
            getattr(cpu, word)(0, bytearray(1024), 64)
        elif word == "tilezero":
            cpu.tilezero(0)
        elif word == "xgetbv":
            cpu.xgetbv(1)
        elif word in ("xsave", "xsaveopt", "xsavec"):
            getattr(cpu, word)(bytearray(16384), ALL, 0x8000)
        else:
            getattr(cpu, word)()


def marks(cpu: Processor) -> tuple[int, int]:
    """(lo without Hi16_ZMM, hi). Uses the processor up: what is left of lo is cleared to see hi."""
    whole = int(cpu.xinuse)
    cpu.mode = 32
    low = int(cpu.xinuse)
    cpu.vzeroall()
    cpu.mode = 64
    high = int(cpu.xinuse) & SPLIT
    assert low | high == whole & ~0x80
    return low, high


FROM_INIT = [
    ("xmm0", 2, 0), ("xmm7", 2, 0), ("xmm8", 0, 2), ("xmm15", 0, 2), ("v.xmm0", 2, 0), ("v.xmm8", 0, 2), ("ymm0", 6, 0),
    ("ymm8", 0, 6), ("zmm7", 0x46, 0), ("zmm15", 0, 0x46), ("xmm8 ymm0", 6, 2), ("zmm0 ymm15", 0x46, 6),
    ("k0", 0x20, 0), ("ymm0 v.xmm0", 6, 0), ("st0", 1, 0), ("fcw", 1, 0), ("fninit", 1, 0), ("mxcsr", 2, 2),
    ("pkru", 0x200, 0), ("fxrstor", 3, 2), ("fxsave", 0, 0), ("vzeroupper", 0, 0), ("vzeroall", 0, 0),
    ("zmm0 vzeroupper", 2, 0),
    ("zmm8 vzeroupper", 0, 2), ("zmm0 zmm8 vzeroupper", 2, 2), ("zmm0 zmm8 k1 vzeroall", 0x20, 0), ("st0 fninit", 1, 0),
    ("mxcsr vzeroupper", 2, 2), ("xsave xsaveopt xsavec xgetbv", 0, 0), ("xmm3 xsavec", 2, 0),
    ("ldtilecfg", 0x20000, 0), ("ldtilecfg tilezero", 0x60000, 0), ("ldtilecfg tileloadd", 0x60000, 0),
    ("ldtilecfg tilestored sttilecfg", 0x20000, 0), ("ldtilecfg tilezero ldtilecfg", 0x20000, 0),
    ("ldtilecfg tilezero tilerelease", 0, 0),
]


@pytest.mark.parametrize("fill", [0x5A, 0])
@pytest.mark.parametrize(("words", "low", "high"), FROM_INIT)
def test_marks_of_instructions(words, low, high, fill):
    """The value plays no part."""
    cpu = processor(INTEL)
    perform(cpu, words, fill)
    assert marks(cpu) == (low, high)


@pytest.mark.parametrize("fill", [0x5A, 0])
def test_registers_16_to_31(fill):
    cpu = processor(INTEL)
    perform(cpu, "zmm16", fill)
    assert int(cpu.xinuse) == 0x80
    cpu.vzeroupper()
    cpu.vzeroall()
    assert int(cpu.xinuse) == 0x80
    cpu.mode = 32
    assert int(cpu.xinuse) == 0
    cpu.vzeroall()
    cpu.mode = 64
    assert int(cpu.xinuse) == 0x80


COMPATIBILITY = [   # before, in compatibility mode, then lo and hi
    ("", "mxcsr", 2, 0), ("", "fxrstor", 3, 0), ("", "zmm0", 0x46, 0), ("zmm8", "ymm1", 6, 0x46),
    ("zmm8 zmm0", "vzeroupper", 2, 0x46), ("zmm8 zmm0", "vzeroall", 0, 0x46), ("mxcsr", "vzeroall", 0, 2),
]


@pytest.mark.parametrize(("before", "words", "low", "high"), COMPATIBILITY)
def test_compatibility_mode_touches_lo_alone(before, words, low, high):
    cpu = processor(INTEL)
    perform(cpu, before)
    cpu.mode = 32
    perform(cpu, words)
    assert int(cpu.xinuse) == low
    cpu.mode = 64
    assert marks(cpu) == (low, high)


def zero_image(xstate_bv: int, fmt: str = STANDARD) -> bytearray:
    """Initial data, marked as held."""
    area = bytearray(16384)
    area[0:2], area[24:28] = b"\x7f\x03", b"\x80\x1f\0\0"
    area[512:520] = xstate_bv.to_bytes(8, "little")
    if fmt == COMPACTED:
        area[520:528] = (TILES | 1 << 63).to_bytes(8, "little")
    return area


@pytest.mark.parametrize("fmt", [STANDARD, COMPACTED])
@pytest.mark.parametrize(("before", "xstate_bv", "rfbm", "low", "high"), [
    ("", 7, ALL, 7, 0),                     # explicit initial data counts, but 8-15 are seen to be zero
    ("", 3, ALL, 3, 2),                     # only where 2 or 6 were loaded does anyone look
    ("", 0x43, ALL, 0x43, 0), ("", 4, 4, 4, 0), ("", 2, 2, 2, 2), ("", 0xE7, ALL, 0x67, 0),
    ("xmm8", 4, 4, 4, 6),                   # XMM8 is not zero
    ("zmm8 zmm0", 0, ALL, 0, 0), ("zmm8 zmm0", 0, 4, 0x42, 0x42), ("zmm8 zmm0", 7, 4, 0x46, 0x46),
    ("k1 st0", 0, 1, 0x20, 0), ("k1 st0", 0, 0, 0x21, 0), ("", 0x200, ALL, 0x200, 0),
    ("", 1 << 18, ALL, 1 << 18, 0),         # zeros in tiles are in use
    ("", 1 << 17, ALL, 0, 0),               # TILECFG goes by its value
    ("ldtilecfg tilezero", 1 << 17, 1 << 17, 1 << 18, 0), ("ldtilecfg tilezero", 0, 1 << 18, 1 << 17, 0),
])
def test_marks_of_xrstor(fmt, before, xstate_bv, rfbm, low, high):
    cpu = processor(INTEL)
    perform(cpu, before)
    cpu.xrstor(zero_image(xstate_bv, fmt), rfbm)
    assert marks(cpu) == (low, high)


def test_zeros_written_to_8_to_15_are_seen_to_be_zero():
    cpu = processor(INTEL)
    perform(cpu, "zmm8 zmm15", fill=0)
    cpu.xrstor(zero_image(4), 4)
    assert marks(cpu) == (4, 0)
    cpu = processor(INTEL)
    perform(cpu, "zmm8 zmm15", fill=0)
    cpu.xrstor(zero_image(2), 2)
    assert marks(cpu) == (2, SPLIT)


def test_xrstor_in_compatibility_mode_touches_lo_alone():
    cpu = processor(INTEL)
    perform(cpu, "zmm8 zmm16 zmm0", fill=0)
    cpu.mode = 32
    cpu.xrstor(zero_image(4), ALL)
    assert int(cpu.xinuse) == 4
    cpu.mode = 64
    assert int(cpu.xinuse) == 0xC6
    assert marks(cpu) == (4, SPLIT)


def test_a_standard_xrstor_that_loads_mxcsr_marks_nothing():
    cpu = processor(INTEL)
    area = zero_image(0)
    area[24:28] = b"\xa0\x1f\0\0"
    cpu.xrstor(area, 6)
    assert cpu.registers()["mxcsr"] == 0x1FA0
    assert int(cpu.xinuse) == 0


# --- XMODIFIED --------------------------------------------------------------------------------------------------

def upper_zero(xstate_bv: int) -> bytearray:
    """Random data, but registers 8-15 zero."""
    area = image(INTEL, TILES, STANDARD, xstate_bv)
    area[288:416], area[704:832], area[1408:1664] = bytes(128), bytes(128), bytes(256)
    return area


@pytest.mark.parametrize(("loaded", "words", "modified"), [
    (0xE7, "", 0), (0xE7, "xmm0", 2), (0xE7, "xmm8", 2), (0xE7, "v.xmm0", 0x46), (0xE7, "v.xmm8", 0x46),
    (7, "v.xmm0", 6), (3, "v.xmm0", 2), (0xE7, "ymm3", 0x46), (7, "ymm3", 6), (3, "ymm9", 6), (3, "zmm9", 0x46),
    (0xE7, "zmm16", 0x80), (0, "zmm31", 0x80), (0xE7, "k1", 0x20), (0xE7, "st3", 1), (0xE7, "fcw", 1), (0, "fninit", 1),
    (0xE7, "mxcsr", 2), (0xE7, "pkru", 0x200), (0xE7, "vzeroupper", 0), (0xE7, "vzeroall", 0), (0xE7, "fxrstor", 3),
    (0xE7, "fxsave xsave xsaveopt xsavec xgetbv", 0), (0xE7, "vzeroupper v.xmm0", 2), (TILES, "sttilecfg", 0),
])
def test_modified_marks_of_instructions(loaded, words, modified):
    cpu = processor(INTEL)
    assert int(cpu.xmodified) & TILES == TILES
    cpu.xrstor(image(INTEL, TILES, STANDARD, loaded), ALL)
    perform(cpu, words)
    assert int(cpu.xmodified) & TILES == modified


@pytest.mark.parametrize(("words", "modified"), [("v.xmm8", 2), ("v.xmm0", 0x46), ("ymm8", 6), ("ymm0", 0x46)])
def test_vex_marks_what_was_in_use_on_its_side(words, modified):
    cpu = processor(INTEL)
    cpu.xrstor(upper_zero(0xE7), ALL)
    perform(cpu, words)
    assert int(cpu.xmodified) & TILES == modified


@pytest.mark.parametrize("words", ["tilezero", "tileloadd", "tilestored", "sttilecfg"])
def test_modified_marks_of_tile_instructions(words):
    area = image(INTEL, TILES, STANDARD, TILES)
    area[2752:2816] = CONFIG
    cpu = processor(INTEL)
    cpu.xrstor(area, ALL)
    perform(cpu, words)
    assert int(cpu.xmodified) & TILES == (1 << 18 if words in ("tilezero", "tileloadd") else 0)


def test_modified_marks_and_compatibility_mode():
    cpu = processor(INTEL)
    cpu.xrstor(image(INTEL, TILES, STANDARD, 0xE7), ALL)
    perform(cpu, "zmm8")
    assert int(cpu.xmodified) & TILES == 0x46
    cpu.mode = 32
    assert int(cpu.xmodified) & TILES == 0      # lo alone
    perform(cpu, "vzeroupper")
    assert int(cpu.xmodified) & TILES == 0x44
    perform(cpu, "vzeroall")
    assert int(cpu.xmodified) & TILES == 0x46
    cpu.xrstor(image(INTEL, TILES, STANDARD, 0xE7), ALL)
    assert int(cpu.xmodified) & TILES & ~0x80 == 0
    cpu.mode = 64
    assert int(cpu.xmodified) & TILES == 0xC6   # it did not reach registers 8-31
