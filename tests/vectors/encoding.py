"""The bytes of a vector's instruction: which instruction they are, and what they say about its operand.

A processor under test is asked for instructions by name, so bytes that are about encodings (LOCK, 66, F2, F3, 67, a
REX before VEX, VEX fields other than the plain ones, register forms, a missing SIB byte) have no question for it:
`decode` gives None for them.
"""

from typing import NamedTuple

PLAIN = {
    "0fa2": "CPUID",
    "0f30": "WRMSR",
    "0f01d0": "XGETBV",
    "0f01d1": "XSETBV",
    "c4e27849c0": "TILERELEASE",
}
LEGACY = {  # (second opcode byte, ModRM.reg), with a memory operand and without any prefix but REX.W
    (0xAE, 0): "FXSAVE",
    (0xAE, 1): "FXRSTOR",
    (0xAE, 4): "XSAVE",
    (0xAE, 5): "XRSTOR",
    (0xAE, 6): "XSAVEOPT",
    (0xC7, 3): "XRSTORS",
    (0xC7, 4): "XSAVEC",
    (0xC7, 5): "XSAVES",
}
TILE_CONFIGURATION = {0x78: "LDTILECFG", 0x79: "STTILECFG"}  # by the third byte of VEX: W0, vvvv 1111b, L0, pp
TILE_MEMORY = {0x7B: "TILELOADD", 0x79: "TILELOADDT1", 0x7A: "TILESTORED"}
TILEZERO_VEX = 0x7B
RBP, RSI, RDI = 5, 6, 7


class Form(NamedTuple):
    """One instruction in the form that it has no doubts about."""

    instruction: str
    rexw: bool = False
    segment: str = "ds"  # "ss" where the base is RBP
    displacement: int = 0  # added to RDI (or to RBP, which equals it)
    scale: int | None = None  # of RSI, the stride register; None: no index, stride 0
    tile: int = 0


def decode(code: bytes, mode: int) -> Form | None:
    """The form that these bytes are, or None: a question about encodings."""
    if code.hex() in PLAIN:
        return Form(PLAIN[code.hex()])
    rexw = mode == 64 and code[0] == 0x48
    body = code[1:] if rexw else code
    if body[0] == 0x0F and body[1] in (0xAE, 0xC7):
        return _legacy(body, rexw)
    if code[:2] == b"\xc4\xe2" and code[3] in (0x49, 0x4B):
        return _tile(code[2], code[3], code[4:])
    return None


def _legacy(body: bytes, rexw: bool) -> Form | None:
    operand = _address(body[2:])
    if operand is None:
        return None
    segment, displacement = operand
    return Form(LEGACY[body[1], body[2] >> 3 & 7], rexw, segment, displacement)


def _tile(vex: int, opcode: int, rest: bytes) -> Form | None:
    reg = rest[0] >> 3 & 7
    if opcode == 0x49 and vex == TILEZERO_VEX and rest[0] >> 6 == 3 and rest[0] & 7 == 0:
        return Form("TILEZERO", tile=reg)
    if opcode == 0x49:
        operand = _address(rest)
        if operand is None or reg != 0 or vex not in TILE_CONFIGURATION:
            return None
        return Form(TILE_CONFIGURATION[vex], False, *operand)
    if vex not in TILE_MEMORY or rest[0] >> 6 == 3 or rest[0] & 7 != 4:  # 4: a SIB byte follows
        return None
    scale, index, base = rest[1] >> 6, rest[1] >> 3 & 7, rest[1] & 7
    operand = _address(bytes([rest[0] & 0xF8 | base]) + rest[2:])
    if operand is None or index not in (4, RSI):
        return None
    return Form(TILE_MEMORY[vex], False, *operand, None if index == 4 else scale, reg)


def _address(rest: bytes) -> tuple[str, int] | None:
    """Segment and displacement of [RDI], [RDI+disp8] and [RBP+disp8]; None for all else."""
    mod, base = rest[0] >> 6, rest[0] & 7
    if (mod, base) == (0, RDI) and len(rest) == 1:
        return "ds", 0
    if mod == 1 and base in (RBP, RDI) and len(rest) == 2:
        return "ss" if base == RBP else "ds", rest[1] - (rest[1] >> 7 << 8)
    return None
