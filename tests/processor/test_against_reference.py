"""Every instruction of the XSAVE family against the independent slow model: memory, registers, XINUSE and fault."""

from random import Random

import pytest
import reference

from tests.scale import repeats
from xsave import CpuModel, Fault, Processor

MODELS = ("SapphireRapids", "DiamondRapids", "AlderLake", "Skylake-Client", "EPYC-Genoa", "EPYC-Rome", "Bulldozer")
CASES = max(repeats(120), 40)
SIZE = 16384


@pytest.fixture(params=MODELS)
def name(request):
    return request.param


def controls(rng: Random, table: reference.CpuTable) -> dict[str, int]:
    """A legal XCR0, any IA32_XSS and IA32_XFD, a privilege level and a mode."""
    from reference import bits

    groups = [1 << 1 | 1 << 2, 3 << 3, 7 << 5 | 6, 1 << 9, 3 << 17, 1 << 19, 1 << 62, 2]
    xcr0 = 1
    for group in groups:
        if group & ~table["xcr0"] == 0 and rng.random() < 0.8:
            xcr0 |= group
    xss = sum(1 << i for i in bits(table["xss"]) if rng.random() < 0.6)
    xfd = 1 << 18 if table["d1eax"] & 16 and rng.random() < 0.25 else 0
    mode = rng.choice((64, 64, 32))
    return {"xcr0": xcr0, "xss": xss, "xfd": xfd, "cpl": 0 if rng.random() < 0.9 else 3, "mode": mode}


def random_mask(rng: Random, whole: int) -> int:
    return rng.choice((2**64 - 1, whole, rng.getrandbits(64), whole & rng.getrandbits(64), 0))


def random_area(rng: Random, name: str, allowed: int) -> bytearray:
    """An area that a restore may take, or nearly: the header broken now and then, stale bytes where nothing counts."""
    table = reference.CPUS[name]
    compacted = bool(table["d1eax"] & 2) and rng.random() < 0.6
    mask = allowed & random_mask(rng, allowed) if compacted else allowed & table["xcr0"]
    fmt = reference.COMPACTED if compacted else reference.STANDARD
    state = reference.random_state(rng, mask, fmt, sparse=0.3)
    xstate_bv = mask & random_mask(rng, mask)
    _, size = reference.layout(name, mask, fmt)
    kept = [n for n in state if n == "mxcsr" or any(xstate_bv >> i & 1 for i in reference.components_of(n))]
    state = {n: state[n] for n in kept}
    area = bytearray(rng.randbytes(SIZE))
    area[:size] = reference.encode(state, name, mask, fmt, xstate_bv, base=bytes(area[:size]))
    if fmt == reference.STANDARD or mask & 2:
        area[24:28] = state.get("mxcsr", 0x1F80).to_bytes(4, "little")
    if rng.random() < 0.2:
        at = rng.choice((24, 26, 27, 512, 513, 519, 520, 522, 527, 528, 535, 536, 575))
        area[at] ^= 1 << rng.randrange(8)
    if rng.random() < 0.1:
        area[0:2] = rng.randbytes(2)
        area[2:32] = rng.randbytes(22) + area[24:32]
    return area


def pair(rng: Random, name: str, *, compat: bool = True) -> tuple[Processor, reference.Cpu, dict[str, int]]:
    """The processor and the slow model in the same state."""
    table = reference.CPUS[name]
    c = controls(rng, table)
    c["mode"] = c["mode"] if compat else 64
    amd = table["profile"] != "intel"
    state = reference.random_state(rng, table["xcr0"] | table["xss"], sparse=0.4, pending_pointers=amd)
    if c["mode"] == 32 or rng.random() < 0.3:
        state.pop("IA32_RTIT_CTL", None)
    slow = reference.Cpu(name, state, xcr0=c["xcr0"], xss=c["xss"], mode64=c["mode"] == 64, cpl=c["cpl"], xfd=c["xfd"])
    use = slow._in_use_by_value() if amd or c["mode"] == 64 else reference.non_initial(slow.registers)
    if not amd:  # there it is history, and zeros may be in use
        use |= reference.non_initial(slow.registers)
        use |= rng.getrandbits(64) & (table["xcr0"] | table["xss"]) & ~(1 << 17) if rng.random() < 0.4 else 0
    slow.xinuse = use
    fast = Processor(
        CpuModel.named(name), xcr0=c["xcr0"], ia32_xss=c["xss"], ia32_xfd=c["xfd"], cpl=c["cpl"], mode=c["mode"],
        modified_opt=False,
    )
    fast.load(state, xinuse=use)
    return fast, slow, c


def comparable(values: dict[str, object]) -> dict[str, object]:
    return {n: v for n, v in values.items() if n != "mxcsr_mask"}


def check(fast: Processor, slow: reference.Cpu, got: object, want: object, *areas: bytearray) -> None:
    if want is None:
        assert got is None
    else:
        assert isinstance(got, Fault)
        assert got.vector == want[0]
    assert areas[0] == areas[1]
    assert comparable(fast.registers()) == comparable(slow.registers)
    hidden = 0
    if slow.table["profile"] != "intel" and not slow.mode64:
        hidden = 6  # how the registers came to their values decides there, which the slow model does not know
    assert fast.xinuse & ~hidden == slow.xinuse & ~hidden


@pytest.mark.parametrize("insn", ["xsave", "xsaveopt", "xsavec", "xsaves"])
def test_saves(name, insn):
    rng = Random(f"{name} {insn}")
    for _ in range(CASES):
        fast, slow, _ = pair(rng, name)
        mask, rexw = random_mask(rng, slow.table["xcr0"]), rng.random() < 0.7
        one = bytearray(rng.randbytes(SIZE))
        two = bytearray(one)
        got = getattr(fast, "try_" + insn)(one, mask, rexw=rexw)
        want = getattr(slow, insn)(two, mask, rexw=rexw)
        check(fast, slow, got, want, one, two)


@pytest.mark.parametrize("insn", ["xrstor", "xrstors"])
def test_restores(name, insn):
    rng = Random(f"{name} {insn}")
    faults = loaded = 0
    for _ in range(CASES):
        fast, slow, c = pair(rng, name)
        allowed = c["xcr0"] | (c["xss"] if insn == "xrstors" else 0)
        area = random_area(rng, name, allowed)
        mask, rexw = random_mask(rng, allowed), rng.random() < 0.7
        before = bytearray(area)
        got = getattr(fast, "try_" + insn)(area, mask, rexw=rexw)
        want = getattr(slow, insn)(area, mask, rexw=rexw)
        check(fast, slow, got, want, area, before)
        faults += want is not None
        loaded += want is None
        if isinstance(got, Fault) and got.rule.startswith("H-"):
            assert got.offset is not None and 24 <= got.offset < 576
    if insn == "xrstor":
        assert faults > CASES // 30 and loaded > CASES // 4


def slow_knows_modes(name: str) -> bool:
    return reference.CPUS[name]["profile"] == "intel"


def test_sequences(name):
    """Restores and saves one after the other on the same registers: what one leaves is what the next finds."""
    rng = Random(f"{name} sequences")
    for _ in range(CASES // 3):
        fast, slow, c = pair(rng, name, compat=slow_knows_modes(name))
        for _ in range(8):
            if rng.random() < 0.5:
                area = random_area(rng, name, c["xcr0"])
                mask = random_mask(rng, c["xcr0"])
                check(fast, slow, fast.try_xrstor(area, mask), slow.xrstor(area, mask), area, bytearray(area))
            else:
                insn = rng.choice(("xsave", "xsaveopt", "xsavec"))
                mask = random_mask(rng, c["xcr0"])
                one = bytearray(rng.randbytes(SIZE))
                two = bytearray(one)
                got = getattr(fast, "try_" + insn)(one, mask)
                check(fast, slow, got, getattr(slow, insn)(two, mask), one, two)
