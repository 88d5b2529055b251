"""What a save writes past a buffer's end: by the manual's arithmetic, by the slow model, by the emulated processor."""

from random import Random

import pytest
import reference

import xsave
from tests.audit.masks import area, instructions, legal
from tests.laws.strategies import model
from tests.processor.operands import ALL, BASE, full_state, submasks
from tests.scale import repeats
from xsave import CpuModel, Memory, Processor, UnsupportedError, audit

ROOM = 16384
MODELS = ("SapphireRapids", "DiamondRapids", "EPYC-Genoa", "EPYC-Milan", "Skylake-Client", "Bulldozer", "SandyBridge")

# One tile of one row of four bytes: a configuration that is in use.
TILECFG = bytes([1] + 15 * [0] + [4] + 31 * [0] + [1] + 15 * [0])

# (model, XCR0, IA32_XSS, instruction, size, bytes past the end, what of them is written): the manual's sizes by hand.
ARITHMETIC = [
    ("SapphireRapids", 0x602E7, 0, "XSAVE", 2696, 8312, [(2752, 11008)]),
    ("SapphireRapids", 0x602E7, 0, "XSAVE", 4096, 6912, [(4096, 11008)]),
    ("SapphireRapids", 0x602E7, 0, "XSAVEC", 2440, 8312, [(2496, 10752)]),
    ("SapphireRapids", 0x602E7, 0, "XSAVE", 2688, 8320, [(2688, 2696), (2752, 11008)]),
    ("SapphireRapids", 0x600E7, 0, "XSAVE", 2688, 8320, [(2752, 11008)]),
    ("SapphireRapids", 0x600E7, 0, "XSAVE", 832, 10176, [(1088, 2688), (2752, 11008)]),
    ("SapphireRapids", 0x60003, 0, "XSAVE", 576, 10432, [(2752, 11008)]),
    ("SapphireRapids", 0x602E7, 0xDD00, "XSAVES", 2568, 9208, None),
    ("DiamondRapids", 0x80007, 0, "XSAVE", 832, 256, [(960, 1088)]),
    ("DiamondRapids", 0xE02E7, 0, "XSAVEC", 2440, 8440, [(2496, 10880)]),
    ("EPYC-Milan", 0x207, 0, "XSAVE", 832, 1608, [(2432, 2440)]),
    ("EPYC-Genoa", 0xE7, 0, "XSAVEC", 832, 1600, [(832, 2432)]),
]


@pytest.mark.parametrize(("name", "xcr0", "xss", "instruction", "size", "over", "ranges"), ARITHMETIC)
def test_arithmetic(name, xcr0, xss, instruction, size, over, ranges):
    verdict = audit.buffer(model(name), xcr0=xcr0, xss=xss, instruction=instruction, size=size)
    assert (verdict.over, verdict.required, verdict.fits) == (over, size + over, False)
    if ranges is not None:
        assert verdict.ranges == ranges
        assert verdict.first_bad == ranges[0][0]
        assert verdict.bytes_over == sum(end - begin for begin, end in ranges)
    enough = audit.buffer(model(name), xcr0=xcr0, xss=xss, instruction=instruction, size=size + over)
    assert (enough.fits, enough.over, enough.ranges, enough.first_bad) == (True, 0, [], None)


def test_a_disabled_component_is_written_by_xsave_alone():
    spr = model("SapphireRapids")
    facts = {"xcr0": 0x602E7, "xfd": 1 << 18, "size": 2816}
    plain = audit.buffer(spr, **facts)
    assert (plain.ranges, plain.over) == ([(2816, 11008)], 8192)
    opt = audit.buffer(spr, instruction="XSAVEOPT", **facts)
    assert (opt.fits, opt.ranges, opt.touched) == (True, [], 2816)
    compact = audit.buffer(spr, instruction="XSAVEC", **facts)
    assert (compact.fits, compact.required, compact.touched) == (True, 2560, 2560)
    assert audit.buffer(spr, instruction="XSAVES", **facts).touched == 10752


def test_bytes_that_hold_no_register():
    spr, bnd = model("SapphireRapids"), model("Skylake-Client")
    assert audit.buffer(spr, xcr0=0x2E7, size=2688).unused == [(2692, 2696)]
    assert audit.buffer(spr, xcr0=0x2E7, size=2694).unused == [(2694, 2696)]
    assert audit.buffer(bnd, xcr0=0x1F, size=832).unused == [(1040, 1088)]
    assert audit.buffer(spr, xcr0=0x600E7, size=832).unused == []


def test_rfbm_bounds_what_is_written():
    spr = model("SapphireRapids")
    for instruction, size in (("XSAVE", 2696), ("XSAVEC", 2440)):
        assert audit.buffer(spr, xcr0=0x602E7, rfbm=0x2E7, instruction=instruction, size=size).fits
    assert audit.buffer(spr, xcr0="SSE|AVX|x87", rfbm=ALL, size=832).fits


@pytest.mark.parametrize("name", [name for name in MODELS if name in reference.CPUS])
def test_every_xcr0_needs_what_the_reference_says(name):
    table = reference.CPUS[name]
    for xcr0 in submasks(table["xcr0"]):
        for instruction in instructions(name):
            verdict = audit.buffer(model(name), xcr0=xcr0, xss=table["xss"], instruction=instruction, size=1 << 20)
            assert verdict.required == area(name, instruction, xcr0, table["xss"]), (hex(xcr0), instruction)


def closed(mask: int) -> int:
    """With the components that a whole vector register needs beside its highest part."""
    if mask & 1 << reference.ZMM_HI256:
        mask |= 1 << reference.AVX
    return mask | (1 << reference.SSE if mask & 1 << reference.AVX else 0)


def draw(random: Random, name: str) -> dict[str, object]:
    """Facts of a verdict that a processor can have."""
    table = reference.CPUS[name]
    xcr0 = random.choice(legal(name))
    instruction = random.choice(instructions(name))
    disabled = sum(1 << c for c, row in model(name).components.items() if row.xfd) & xcr0
    return {
        "xcr0": xcr0,
        "xss": random.getrandbits(64) & table["xss"],
        "xfd": random.choice((0, disabled)),
        "instruction": instruction,
        "rfbm": random.choice((ALL, random.getrandbits(64), random.choice(legal(name)))),
        "in_use": random.choice((None, xcr0, closed(random.getrandbits(20) & xcr0))),
        "size": random.choice((576, 832, 1088, 2432, 2440, 2696, 2816, 10752, random.randrange(512, 12000))),
    }


def machine(name: str, facts: dict[str, object], state: dict[str, int | bytes]) -> Processor:
    cpu = Processor(model(name), xcr0=facts["xcr0"], ia32_xss=facts["xss"], ia32_xfd=facts["xfd"], cpl=0)
    used = facts["in_use"]
    mine = {}
    for register, value in state.items():
        parts = reference.components_of(register)
        if used is None or all(used >> i & 1 for i in parts):
            mine[register] = value
        elif isinstance(value, bytes) and used >> parts[0] & 1:
            # As much of a vector register as its lower parts hold.
            mine[register] = b"".join(
                value[begin:end] if used >> part & 1 else bytes(end - begin)
                for part, (begin, end) in zip(parts, ((0, 16), (16, 32), (32, 64)), strict=False)
            )
    if used is not None and not used & 2:
        mine.pop("mxcsr", None)  # MXCSR counts with SSE
    cpu.load(mine)
    return cpu


@pytest.mark.parametrize("name", [name for name in MODELS if name in reference.CPUS])
def test_the_emulated_processor_writes_what_the_verdict_says(name):
    """Two runs over complementary poison give every byte written; a third on memory that ends with the buffer."""
    random = Random(f"verdicts {name}")
    wrong = 0
    for case in range(repeats(300)):
        facts = draw(random, name)
        verdict = audit.buffer(model(name), **facts)
        state = full_state(name, reference.CPUS[name]["xcr0"] | reference.CPUS[name]["xss"], case)
        if "tilecfg" in state:
            state["tilecfg"] = TILECFG
        changed = set()
        for poison in (0x55, 0xAA):
            memory = bytearray([poison]) * ROOM
            getattr(machine(name, facts, state), str(facts["instruction"]).lower())(memory, facts["rfbm"])
            changed |= {at for at in range(facts["size"], ROOM) if memory[at] != poison}
        expected = {at for begin, end in verdict.ranges for at in range(begin, end)}
        unused = {at for begin, end in verdict.unused for at in range(begin, end)}
        assert not changed - expected, (facts, verdict)
        assert not expected - changed - unused, (facts, verdict)
        wrong += bool(expected)
        guarded = Memory()
        guarded.map(BASE, bytearray(facts["size"]))
        attempt = getattr(machine(name, facts, state), f"try_{str(facts['instruction']).lower()}")
        fault = attempt(guarded, facts["rfbm"], BASE)
        if facts["size"] >= reference.AREA_MIN:
            assert (None if fault is None else fault.offset) == verdict.fault_at, (facts, verdict, fault)
        else:
            assert fault is not None
    assert wrong > repeats(50) // 10


def test_what_contradicts_itself_is_refused_by_name():
    spr, milan = model("SapphireRapids"), model("EPYC-Milan")
    with pytest.raises(ValueError, match=r"XCR0 0xe7 has .*opmask.* EPYC-Milan"):
        audit.buffer(milan, xcr0=0xE7, size=832)
    with pytest.raises(ValueError, match="IA32_XSS 0x1"):
        audit.buffer(spr, xcr0=7, xss=1, size=832)
    with pytest.raises(ValueError, match="IA32_XFD 0x4"):
        audit.buffer(spr, xcr0=7, xfd=4, size=832)
    with pytest.raises(ValueError, match="XINUSE"):
        audit.buffer(spr, xcr0=7, in_use=1 << 40, size=832)
    for size in (0, -1, 2**64 - 1):
        with pytest.raises(ValueError, match="buffer of"):
            audit.buffer(spr, xcr0=7, size=size)
    with pytest.raises(ValueError, match="RFBM"):
        audit.buffer(spr, xcr0=7, rfbm=1 << 64, size=832)
    with pytest.raises(ValueError, match="'XRSTOR' is none of XSAVE"):
        audit.buffer(spr, xcr0=7, instruction="XRSTOR", size=832)
    with pytest.raises(UnsupportedError, match="no XSAVES"):
        audit.buffer(CpuModel.named("Penryn"), xcr0=3, instruction="XSAVES", size=832)


def test_reached_through_the_package():
    assert xsave.audit.buffer is audit.buffer
    assert "2,696 bytes: 8,312 bytes over" in repr(audit.buffer(model("SapphireRapids"), xcr0=0x602E7, size=2696))
