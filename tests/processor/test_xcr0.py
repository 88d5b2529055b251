"""XCR0: which values XSETBV takes, for every model and every mask of its bits, and what XGETBV reads (SDM1 13.3)."""

import pytest

from tests.processor.operands import submasks
from xsave import CpuModel, Exit, Fault, Processor, Vmx

SPR = CpuModel.named("SapphireRapids")
LEGAL_SPR = [0x1, 0x3, 0x7, 0xE7, 0x2E7, 0x602E7, 0x60001, 0x201]
# Rules of dependency in the manual's order: (code, whether the value breaks it).
RULES = [
    ("R-X87", lambda v: not v & 1),
    ("R-AVX", lambda v: v & 4 and not v & 2),
    ("R-MPX", lambda v: v & 0x18 not in (0, 0x18)),
    ("R-AVX512", lambda v: v & 0xE0 and v & 0xE6 != 0xE6),
    ("R-AMX", lambda v: v & 0x60000 not in (0, 0x60000)),
    ("R-APX", lambda v: v & 0x80000 and v & 0x18),
    ("R-ACE", lambda v: v & 0x100000 and v & 0x60000 != 0x60000),
]


def refusal(value: int, supported: int) -> str | None:
    """The rule on which XSETBV refuses a value at CPL 0, or None."""
    if value & ~supported:
        return "R-RSV"
    return next((code for code, broken in RULES if broken(value)), None)


def privileged(model: CpuModel, **controls: object) -> Processor:
    return Processor(model, **{"xcr0": 1, "cpl": 0, **controls})


def is_fault(result: object, vector: str, rule: str) -> bool:
    if not isinstance(result, Fault):
        return False
    return (result.vector, result.rule, result.error_code) == (vector, rule, 0)


@pytest.mark.parametrize("name", CpuModel.names())
def test_every_value_of_the_defined_bits(name):
    model = CpuModel.named(name)
    supported = int(model.xcr0_mask)
    cpu = privileged(model)
    live, verdicts = 1, set()
    for value in submasks(supported):
        want = refusal(value, supported)
        got = cpu.try_xsetbv(0, value)
        if want is None:
            assert got is None, hex(value)
            live = value
        else:
            assert is_fault(got, "#GP", want), (hex(value), want, got)
        assert cpu.xgetbv(0) == int(cpu.xcr0) == live, hex(value)
        verdicts.add(want)
    assert {None, "R-X87"} <= verdicts
    assert ("R-AVX" in verdicts) == bool(supported & 4)
    assert ("R-AVX512" in verdicts) == bool(supported & 0xE0)
    assert ("R-MPX" in verdicts) == bool(supported & 0x18)
    assert ("R-AMX" in verdicts) == bool(supported & 0x60000)


@pytest.mark.parametrize("name", CpuModel.names())
def test_every_bit_that_the_model_lacks(name):
    model = CpuModel.named(name)
    supported = int(model.xcr0_mask)
    cpu = privileged(model)
    for i in range(64):
        if supported >> i & 1:
            continue
        for value in (1 << i, 1 | 1 << i, supported | 1 << i):
            assert is_fault(cpu.try_xsetbv(0, value), "#GP", "R-RSV"), i
    assert cpu.xgetbv(0) == 1


def test_supervisor_components_are_none_of_xcr0():
    cpu = privileged(SPR)
    for i in (8, 10, 11, 12, 14, 15):
        assert int(SPR.xss_mask) >> i & 1
        assert is_fault(cpu.try_xsetbv(0, 1 | 1 << i), "#GP", "R-RSV")


def test_amx_needs_no_avx_and_pkru_needs_nothing():
    cpu = privileged(SPR)
    for value in (0x60001, 0x201, 0x60201, 0x60003):
        cpu.xsetbv(0, value)
        assert cpu.xgetbv(0) == value


def test_the_constructor_takes_what_xsetbv_takes():
    for value in submasks(0x602E7):
        if refusal(value, 0x602E7) is None:
            assert int(Processor(SPR, xcr0=value).xcr0) == value
        else:
            with pytest.raises(ValueError, match="XCR0"):
                Processor(SPR, xcr0=value)


@pytest.mark.parametrize("cpl", [1, 2, 3])
def test_only_cpl_0(cpl):
    cpu = privileged(SPR, cpl=cpl)
    for index, value in ((0, 0x602E7), (0, 0), (0, 1 << 63), (5, 1)):
        assert is_fault(cpu.try_xsetbv(index, value), "#GP", "CPL")
    assert cpu.xgetbv(0) == 1       # XGETBV at any CPL


@pytest.mark.parametrize("index", [1, 2, 0x80000000, 0xFFFFFFFF])
def test_only_register_0(index):
    cpu = privileged(SPR)
    for value in (1, 0, 0x602E7, 1 << 63):
        assert is_fault(cpu.try_xsetbv(index, value), "#GP", "INDEX")
    assert cpu.xgetbv(0) == 1


@pytest.mark.parametrize("cpl", [0, 3])
@pytest.mark.parametrize("vmx", [None, Vmx()])
def test_osxsave_comes_first(cpl, vmx):
    cpu = privileged(SPR, cpl=cpl, cr4_osxsave=False, vmx=vmx)
    assert is_fault(cpu.try_xsetbv(7, 0), "#UD", "OSXSAVE")
    assert is_fault(cpu.try_xgetbv(0), "#UD", "OSXSAVE")
    assert is_fault(cpu.try_xgetbv(9), "#UD", "OSXSAVE")


def test_ts_is_no_concern_of_xsetbv():
    cpu = privileged(SPR, cr0_ts=True)
    cpu.xsetbv(0, 7)
    assert cpu.xgetbv(0) == 7


@pytest.mark.parametrize(("index", "value"), [(0, 0x602E7), (0, 0), (0, 1 << 63), (1, 7), (0xFFFFFFFF, 0)])
def test_a_guest_exits_before_index_and_value(index, value):
    cpu = privileged(SPR, vmx=Vmx())
    got = cpu.try_xsetbv(index, value)
    assert isinstance(got, Exit)
    assert (got.reason, got.number, got.qualification) == ("XSETBV", 55, 0)
    assert cpu.xgetbv(0) == 1
    cpu.cpl = 3
    assert is_fault(cpu.try_xsetbv(index, value), "#GP", "CPL")     # the privilege level comes before the exit


def test_an_xfam_lets_a_guest_set_what_lies_inside():
    xfam = 0x2E7 | 0x1800
    cpu = privileged(SPR, vmx=Vmx(xfam=xfam))
    live = 1
    outcomes = set()
    for value in submasks(0x602FF):
        got = cpu.try_xsetbv(0, value)
        rule = refusal(value, 0x602E7)
        if rule is not None:
            assert is_fault(got, "#GP", rule), hex(value)
            outcomes.add("gp")
        elif value & ~xfam:
            assert isinstance(got, Exit) and got.number == 55, hex(value)
            outcomes.add("exit")
        else:
            assert got is None, hex(value)
            live = value
            outcomes.add("set")
        assert cpu.xgetbv(0) == live
    assert outcomes == {"gp", "exit", "set"}
    assert is_fault(cpu.try_xsetbv(1, 1), "#GP", "INDEX")


def test_what_xcr0_loses_stays_in_the_registers():
    cpu = privileged(SPR, xcr0=0xE7)
    cpu.load({"zmm0": bytes(range(64)), "zmm31": bytes([7]) * 64, "k3": 99})
    before = cpu.registers()
    cpu.xsetbv(0, 3)
    area = bytearray(11008)
    cpu.xsave(area, 2**64 - 1)
    assert area[512] == 2
    cpu.xsetbv(0, 0xE7)
    assert cpu.registers() == before
    assert int(cpu.xinuse) & 0xE6 == 0xE6


# --- XGETBV ---------------------------------------------------------------------------------------------------

HAS_XGETBV1 = [name for name in CpuModel.names() if "xgetbv1" in CpuModel.named(name).instructions]


def test_xgetbv_of_an_index_there_is_not():
    for name in ("SapphireRapids", "EPYC-Genoa", "SandyBridge"):
        cpu = Processor(CpuModel.named(name))
        for index in (2, 3, 0xFFFFFFFF):
            assert is_fault(cpu.try_xgetbv(index), "#GP", "INDEX")
            with pytest.raises(Fault, match="XGETBV"):
                cpu.xgetbv(index)


@pytest.mark.parametrize("name", CpuModel.names())
def test_xgetbv_1_is_a_feature(name):
    cpu = Processor(CpuModel.named(name))
    got = cpu.try_xgetbv(1)
    if name in HAS_XGETBV1:
        assert got == 0
    else:
        assert is_fault(got, "#GP", "INDEX")


@pytest.mark.parametrize("value", LEGAL_SPR)
def test_xgetbv_1_is_xinuse_within_xcr0(value):
    cpu = Processor(SPR, xcr0=value)
    tiles = {"tilecfg": b"\x01" + bytes(15) + b"\x40" + bytes(31) + b"\x10" + bytes(15), "tmm0": b"\x05" * 1024}
    cpu.load({"fcw": 0x27F, "zmm0": b"\x01" * 64, "k0": 1, "zmm16": b"\x02" * 64, "pkru": 4, **tiles})
    assert cpu.xgetbv(1) == value


@pytest.mark.parametrize(
    ("values", "want"),
    [({}, 0), ({"pkru": 4}, 0x200), ({"k0": 1}, 0x20), ({"zmm16": b"\x02" * 64}, 0x80), ({"k7": 1, "pkru": 1}, 0x220)],
)
def test_xgetbv_1_leaves_out_what_is_initial(values, want):
    cpu = Processor(SPR)
    cpu.load(values)
    assert cpu.xgetbv(1) == want


@pytest.mark.parametrize(("xcr0", "want"), [(0x602E7, 2), (3, 2), (1, 0)])
def test_xgetbv_1_counts_mxcsr_where_xcr0_has_sse(xcr0, want):
    cpu = Processor(SPR, xcr0=xcr0)
    cpu.load({"mxcsr": 0x1FA0})
    assert int(cpu.xinuse) & 2 == 0
    assert cpu.xgetbv(1) == want
