"""Which fault an XRSTOR takes that deserves several: every combination (SDM1 13.8; priorities measured)."""

from itertools import combinations

import pytest
import reference
from reference import COMPACTED, STANDARD

from tests.processor.operands import ALL, AMD, BASE, INTEL, TILES, full_state, holed, image, processor
from xsave import Fault

# In order: what is wrong, and the fault it is worth (vector, rule).
ORDER = {
    INTEL: [
        ("no XCOMP_BV", ("#PF", "PAGE")), ("XCOMP_BV", ("#GP", "H-XCOMP")), ("no last byte", ("#PF", "PAGE")),
        ("header", ("#GP", "H-RESERVED")), ("XFD", ("#NM", "XFD")), ("MXCSR", ("#GP", "H-MXCSR")),
        ("no page inside", ("#PF", "PAGE")),
    ],
    AMD: [
        ("header", ("#GP", "H-RESERVED")), ("no last byte", ("#PF", "PAGE")), ("MXCSR", ("#GP", "H-MXCSR")),
    ],
}
CASES = [
    (name, fmt, wrong)
    for name, order in ORDER.items()
    for fmt in (STANDARD, COMPACTED)
    for count in range(1, len(order) + 1)
    for wrong in combinations([word for word, _ in order], count)
    if fmt == COMPACTED or "XCOMP_BV" not in wrong
]


@pytest.mark.parametrize(("name", "fmt", "wrong"), CASES)
def test_the_first_in_the_order_wins(name, fmt, wrong):
    mask = TILES if name == INTEL else 0x2E7
    area = image(name, mask, fmt, mask)
    last = reference.layout(name, mask, fmt)[1] - 1
    holes = {"no XCOMP_BV": 520, "no last byte": last, "no page inside": 700}
    if "header" in wrong:
        area[528] = 0x10
    if "MXCSR" in wrong:
        area[27] = 0x40
    if "XCOMP_BV" in wrong:
        area[521] |= 1
    cpu = processor(name, ia32_xfd=1 << 18 if "XFD" in wrong else 0)
    cpu.load(full_state(name, mask, 5))
    before = cpu.registers()
    got = cpu.try_xrstor(holed(area, *[holes[each] for each in wrong if each in holes]), ALL, BASE)
    assert isinstance(got, Fault)
    first = next(word for word, _ in ORDER[name] if word in wrong)
    assert (got.vector, got.rule) == dict(ORDER[name])[first]
    places = {**holes, "XCOMP_BV": 521, "header": 528, "MXCSR": 27, "XFD": got.offset}
    assert got.offset == places[first]
    if first != "no page inside" and not (first == "MXCSR" and fmt == COMPACTED and name == INTEL):
        assert cpu.registers() == before


@pytest.mark.parametrize("name", [INTEL, AMD])
@pytest.mark.parametrize("at", range(512, 576))
@pytest.mark.parametrize("mask", [0, 7, ALL])
def test_every_byte_of_the_header(name, at, mask):
    """Whatever the mask is. Standard: bytes 520-535 count, not 536-575; compacted: all."""
    enabled = TILES if name == INTEL else 0x2E7
    cpu = processor(name)
    for fmt in (STANDARD, COMPACTED):
        sound = image(name, 0xE7 if fmt == COMPACTED else enabled, fmt, 0)
        for bit in range(8):
            area = bytearray(sound)
            area[at] ^= 1 << bit
            xstate, xcomp = (int.from_bytes(area[i : i + 8], "little") for i in (512, 520))
            if xcomp >> 63:
                slots = xcomp & ~(1 << 63)
                bad = bool(slots & ~enabled or xstate & ~slots or any(area[528:576]))
            else:
                bad = bool(xstate & ~enabled or any(area[520:536]))
            got = cpu.try_xrstor(area, mask)
            assert (got is not None) == bad, (fmt, at, bit)
            if got is not None:
                assert isinstance(got, Fault) and got.vector == "#GP" and got.rule.startswith("H-")
                assert 512 <= got.offset < 576
