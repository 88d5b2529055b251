"""Measuring the instructions: what the plan covers, that the thread keeps its registers, what follows from points."""

import ctypes
import json
import math
import os
import random
from collections.abc import Callable
from typing import Any

import pytest

from tests import skips
from xsave import CpuModel, Host, decode
from xsave.components import Component, ComponentMask
from xsave.errors import FormatError, HostError, UnsupportedError
from xsave.host import expected_registers
from xsave.report.json import schema
from xsave.switching import measure
from xsave.switching.calibration import ASSUMED, INSTRUCTIONS, Calibration, CostModel, Point
from xsave.switching.measure import measure_instructions, plan, states

MACHINE = {
    "cpu": "a CPU", "vendor": "a maker", "xcr0": "0x7", "kernel": "Linux", "cpus": 2, "hypervisor": True,
    "pinned": True, "load_before": 0.0, "load_after": 0.5, "tsc_step": 2, "tsc_hz": 1e9,
}  # fmt: skip


def made(points: "dict[tuple[str, int, int, bool], float]", **more: Any) -> Calibration:
    """A calibration whose every point takes exactly so many ns (of ticks of 1 ns), one instruction a batch."""
    rows = [
        Point(key, size=576, visits=1, count=1, loop=7.0, samples=[round(ns) + 7] * 3, hz=1e9)
        for key, ns in points.items()
    ]
    return Calibration(MACHINE | more, rows, seed=1, seconds=0.5, rounds=1, diagnostics=["a note"])


def additive(mask: int, in_use: int) -> float:
    """A known model: a base, and a term a component."""
    ns = 31.0
    for bit in range(63):
        if mask >> bit & 1:
            ns += (3 + 5 * bit) if in_use >> bit & 1 else 2 + bit
        elif in_use >> bit & 1:
            ns += 1
    return ns


@pytest.fixture(scope="module")
def here() -> Calibration:
    """One short measurement of this CPU."""
    skips.needs_native()
    before = os.sched_getaffinity(0)
    found = measure_instructions(seconds=0.01, seed=3)
    assert os.sched_getaffinity(0) == before, "the thread did not get its CPUs back"
    return found


# --- the real thing -----------------------------------------------------------------------------------------------


def test_every_point_of_the_plan_has_finite_positive_figures(here: Calibration) -> None:
    tiles = Component.TILEDATA in Host.supported_components()
    wanted = {(*state, cold) for state in plan(CpuModel.host(), int(Host.xcr0), tiles) for cold in (False, True)}
    have = {point.key for point in here.points}
    if not here.diagnostics:
        assert have == wanted
    for point in here.points:
        low, middle, high = point.ns
        assert 0 < middle < 1e9 and low <= middle <= high and math.isfinite(point.spread)
        assert len(point.samples) >= 3 * 3 and point.visits * point.count >= 4
        assert (point.count == 1) if point.cold else (point.visits == 1)


def test_the_machine_is_recorded(here: Calibration) -> None:
    assert here.machine["xcr0"] == f"{int(Host.xcr0):#x}" and here.machine["cpu"] == CpuModel.host().brand
    assert here.machine["tsc_step"] >= 1 and 1e8 < here.machine["tsc_hz"] < 1e11
    assert here.is_of_same_machine(here)


def test_a_batch_lasts_many_steps_of_the_counter(here: Calibration) -> None:
    # Of 200 that are aimed at; on a busy machine a batch may have looked longer than it is when that was chosen. Where
    # it is not cut short: a cold visit is slow, and 128 of them are enough.
    lasting = [
        sorted(point.samples)[len(point.samples) // 2] >= 100 * here.machine["tsc_step"]
        for point in here.points
        if point.visits < 128 and point.count < 4096
    ]
    assert sum(lasting) >= 0.8 * len(lasting)


def test_the_round_trip_of_a_measurement(here: Calibration) -> None:
    again = Calibration.from_json(here.to_json())
    assert again.to_json() == here.to_json()
    assert [point.ns for point in again.points] == [point.ns for point in here.points]


def test_the_document_has_the_form_of_its_schema(here: Calibration) -> None:
    skips.needs_module("jsonschema")
    import jsonschema

    for found in (here, made({("XSAVE", 7, 7, False): 50, ("XSAVE", 7, 7, True): 500})):
        jsonschema.Draft202012Validator(schema("bench-insn")).validate(json.loads(found.to_json()))
    names = schema("bench-insn")["$defs"]["point"]["properties"]["instruction"]["enum"]
    assert names == list(INSTRUCTIONS)


@pytest.fixture
def short_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "states", lambda xcr0, tiles=True: [(3, 3), (3, 0)])


@skips.needs_native()
def test_a_permission_is_asked_for_in_a_child(short_plan: None, monkeypatch: pytest.MonkeyPatch) -> None:
    asked_by: "list[int]" = []
    monkeypatch.setattr(Host, "supported_components", staticmethod(lambda: ComponentMask(1 << 18)))
    monkeypatch.setattr(Host, "amx_permission", staticmethod(lambda: False))
    monkeypatch.setattr(Host, "request_amx", staticmethod(lambda: asked_by.append(os.getpid())))
    found = measure_instructions(seconds=0.01)
    assert asked_by == [] and found.point("XSAVE", 3, 3) is not None
    assert Calibration.from_json(found.to_json()).points

    def refused() -> None:
        raise HostError(28, "no permission today")

    monkeypatch.setattr(Host, "request_amx", staticmethod(refused))
    assert "without tile data: no permission today" in measure_instructions(seconds=0.01).diagnostics


@skips.needs_native()
def test_measured_and_modelled_costs(here: Calibration) -> None:
    xcr0 = int(Host.xcr0)
    point = here.point("XRSTOR", xcr0, 0, cold=True)
    assert point is not None and here.cost("XRSTOR", xcr0, 0, cold=True) == point.ns[1]
    mask, in_use = 3, 1
    assert here.point("XSAVE", mask, in_use) is None
    assert 0 < here.cost("XSAVE", mask, in_use) < 1e6
    for name, stand_in in ASSUMED.items():
        with pytest.raises(UnsupportedError, match=f"user mode cannot execute it, {stand_in} could be assumed"):
            here.cost(name, xcr0, xcr0)
    with pytest.raises(UnsupportedError, match="no measured point has bit 40 in the mask and in use"):
        here.cost("XSAVE", 1 << 40, 1 << 40)
    with pytest.raises(UnsupportedError, match="no measured point has bit 63 in the mask and initial"):
        here.cost("XSAVE", 1 << 63, 0)


def lasting() -> "dict[str, int | bytes]":
    """The registers of this thread that no code of the interpreter and its libraries writes between two captures."""
    values = decode(Host.capture())
    values["mxcsr"] = int(values["mxcsr"]) & ~0x3F  # but for the flags of arithmetic
    families = ("st", "fcw", "fsw", "ftw", "mxcsr", "pkru", "tmm", "tilecfg", "bnd", "r1", "r2", "r3")
    return {name: value for name, value in values.items() if name.startswith(families)}


@pytest.mark.parametrize("name", INSTRUCTIONS)
@skips.needs_native()
def test_the_thread_keeps_its_registers(name: str) -> None:
    # Every register of the state that is loaded meanwhile has another value.
    instruction, feature, special = INSTRUCTIONS[name]
    if feature not in CpuModel.host().instructions:
        skips.needs_cpu(feature)
    state = expected_registers(2, int(Host.xcr0))
    assert state["mxcsr"] != 0x1F80 and state["fcw"] != 0x37F
    before = lasting()
    for cold in (False, True):
        Host.time_instruction(
            instruction, state=state, batches=2, count=3, cold=cold, size=600, unmodified=special == "unmodified"
        )
        after = decode(Host.capture())
        assert lasting() == before
        assert [each for each in after if each[:2] in ("zm", "ym", "xm", "k1") and after[each] == state.get(each)] == []
    assert ctypes.CDLL(None).abs(-5) == 5 and math.sqrt(2.25) == 1.5


@skips.needs_native()
def test_raw_samples() -> None:
    few = Host.time_instruction("XSAVE", batches=5, count=4)
    assert len(few) == 5 and all(isinstance(sample, int) and sample > 0 for sample in few)
    assert len(Host.time_instruction(None, batches=2, visits=3, count=1, cold=True)) == 2
    assert Host.tsc_step() >= 1 and Host.tsc() < Host.tsc()


@skips.needs_native()
def test_what_cannot_be_timed() -> None:
    with pytest.raises(ValueError, match="cannot time 'XSAVES'"):
        Host.time_instruction("XSAVES")
    with pytest.raises(ValueError, match="only XSAVEOPT looks"):
        Host.time_instruction("XSAVE", unmodified=True)
    for wrong in ({"count": 0}, {"batches": -1}, {"offsets": (1, 0)}, {"offsets": (4096, 0)}, {"size": 1 << 30}):
        with pytest.raises(ValueError):
            Host.time_instruction("memcpy", **wrong)  # type: ignore[arg-type]
    broken = bytearray(bytes(Host.capture()))
    broken[528] = 1
    with pytest.raises(HostError, match="restore of the image: #GP"):
        Host.time_instruction("XRSTOR", area=broken)
    with pytest.raises(ValueError, match="an area of more than"):
        Host.time_instruction("XRSTOR", area=bytes(1 << 20))
    for seconds in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ValueError):
            measure_instructions(seconds=seconds)


@skips.needs_native()
def test_a_state_that_closes_this_programs_memory_is_refused() -> None:
    skips.needs_cpu("ospke")
    with pytest.raises((ValueError, HostError)):
        Host.time_instruction("XSAVE", state={"pkru": 1})


# --- the plan -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("cpu", "xcr0"), [("SapphireRapids", 0x602E7), ("EPYC-Genoa", 0xE7), ("Haswell", 7)])
def test_the_plan_covers_each_instruction_and_component(cpu: str, xcr0: int) -> None:
    model = CpuModel.named(cpu)
    found = plan(model, xcr0)
    names = {name for name, _, _ in found}
    assert {"XSAVE", "XRSTOR", "FXSAVE", "FXRSTOR", "memcpy"} <= names
    for feature, name in (("xsaveopt", "XSAVEOPT"), ("xsavec", "XSAVEC")):
        assert (name in names) == (feature in model.instructions)
    assert len(set(found)) == len(found)
    for name in names - {"FXSAVE", "FXRSTOR", "memcpy", "memcpy compacted"}:
        mine = [(mask, in_use) for each, mask, in_use in found if each == name]
        assert {(xcr0, xcr0), (xcr0, 0), (3, 3), (3, 0), (7, 7)} <= set(mine)
        for component in ComponentMask(xcr0):
            alone = 1 << component
            assert {(alone, alone), (alone, 0), (xcr0, alone), (xcr0 & ~alone, xcr0)} <= set(mine)


def test_nested_masks_take_a_feature_whole() -> None:
    assert measure.nested(0x602E7) == [1, 3, 7, 0xE7, 0x2E7, 0x602E7]
    assert measure.nested(0x1F) == [1, 3, 7, 0x1F]


def test_without_permission_no_tile_is_in_use() -> None:
    assert all(not in_use >> 18 & 1 for _, in_use in states(0x602E7, tiles=False))
    assert (1 << 17, 0x602E7) in states(0x602E7)


# --- the model ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("xcr0", [7, 0xE7, 0x602E7])
def test_a_known_model_is_found_again(xcr0: int) -> None:
    model = CostModel([(mask, in_use, additive(mask, in_use)) for mask, in_use in states(xcr0)])
    assert max(model.errors) < 1e-9
    draw, refused = random.Random(5), 0
    for _ in range(200):
        mask = draw.getrandbits(20) & xcr0
        in_use = draw.getrandbits(20) & xcr0
        try:
            found = model.predict(mask, in_use)
        except UnsupportedError:  # outside of what the points say: some draws only
            refused += 1
        else:
            assert abs(found / additive(mask, in_use) - 1) < 1e-9
    assert refused < 100
    assert model.predict(xcr0, xcr0) == pytest.approx(additive(xcr0, xcr0))
    held_out = model.held_out
    assert len(held_out) > len(model.rows) / 2 and max(held_out) < 1e-9


def test_a_wrong_model_is_not() -> None:
    rows = [(mask, in_use, additive(mask, in_use) * (1 + (mask & in_use).bit_count())) for mask, in_use in states(0xE7)]
    assert max(CostModel(rows).errors) > 0.02 and max(CostModel(rows).held_out) > 0.05


def test_torn_tiles_are_a_case_of_their_own() -> None:
    def torn(mask: int, in_use: int) -> float:
        return additive(mask, in_use) + (400 if in_use >> 18 & 1 and mask >> 17 & 3 == 1 else 0)

    model = CostModel([(mask, in_use, torn(mask, in_use)) for mask, in_use in states(0x600E7)])
    assert max(model.errors) < 1e-9
    assert model.predict(0x20007, 0x600E7) == pytest.approx(torn(0x20007, 0x600E7))
    assert model.predict(7, 0x600E7) == pytest.approx(torn(7, 0x600E7))


def test_what_the_points_cannot_tell_is_refused() -> None:
    model = CostModel([(7, 7, 50.0), (7, 0, 40.0)])
    assert model.predict(7, 7) == pytest.approx(50)
    with pytest.raises(UnsupportedError, match="do not tell apart"):
        model.predict(7, 1)
    with pytest.raises(UnsupportedError, match="opmask in the mask and in use"):
        model.predict(0x27, 0x27)
    with pytest.raises(ValueError):
        CostModel([])


def test_a_sum_below_nothing_is_refused() -> None:
    model = CostModel([(0x20, 0, 100.0), (0x60, 0, 10.0), (0xA0, 0, 20.0)])
    with pytest.raises(UnsupportedError, match="too far"):
        model.predict(0xE0, 0)


def test_costs_come_from_points_first() -> None:
    found = made({("XSAVE", m, u, False): additive(m, u) for m, u in states(7)} | {("XSAVE", 3, 1, False): 1000})
    assert found.cost("XSAVE", 3, 1) == 1000
    assert found.cost("XSAVE", 7, 7) == additive(7, 7)
    with pytest.raises(UnsupportedError, match="XSAVE of 0x7 with 0x7 in use, cold, was not measured"):
        found.cost("XSAVE", 7, 7, cold=True)
    with pytest.raises(UnsupportedError):
        found.cost("XSAVEC", 7, 7)


# --- the document -------------------------------------------------------------------------------------------------

WHOLE = made(
    {("XSAVE", 7, 7, False): 50, ("XSAVE", 7, 7, True): 500, ("memcpy", 7, 7, False): 9, ("memcpy", 7, 7, True): 90}
)


def test_the_round_trip() -> None:
    again = Calibration.from_json(WHOLE.to_json())
    assert again.to_json() == WHOLE.to_json() and again.diagnostics == ("a note",)
    assert again.cost("memcpy", 7, 7, cold=True) == 90


def damage(change: Callable[[Any], object]) -> str:
    document = json.loads(WHOLE.to_json())
    change(document)
    return json.dumps(document)


DAMAGED: "list[tuple[Callable[[Any], object], str]]" = [
    (lambda d: d.pop("points"), "points is missing"),
    (lambda d: d["points"].clear(), "nothing was measured"),
    (lambda d: d["points"].pop(1), "a hole: XSAVE of 0x7 with 0x7 in use was measured hot but not cold"),
    (lambda d: d["points"].append(d["points"][0]), "is there twice"),
    (lambda d: d["points"][2]["samples"].clear(), r"points\[2\]\.samples is empty: a hole"),
    (lambda d: d["points"][2]["samples"].append(-1), r"points\[2\]\.samples\[3\]"),
    (lambda d: d["points"][2]["samples"].append(1.5), r"points\[2\]\.samples\[3\]"),
    (lambda d: d["points"][2]["samples"].append(True), r"points\[2\]\.samples\[3\]"),
    (lambda d: d["points"][0].pop("samples"), r"points\[0\]\.samples is missing"),
    (lambda d: d["points"][0].update(instruction="XSAVES"), r"points\[0\]\.instruction"),
    (lambda d: d["points"][0].update(mask=7), r"points\[0\]\.mask is 7"),
    (lambda d: d["points"][0].update(mask="0x1ffffffffffffffff"), r"points\[0\]\.mask"),
    (lambda d: d["points"][0].update(in_use="-0x1"), r"points\[0\]\.in_use"),
    (lambda d: d["points"][0].update(count=0), r"points\[0\]: size, visits or count"),
    (lambda d: d["points"][0].update(loop=1e6), "no longer than the loop"),
    (lambda d: d["points"][0].update(loop=math.nan), "NaN"),
    (lambda d: d["points"][0].update(ns=[1.0, 2.0, 3.0]), r"points\[0\]\.ns is not what its samples give"),
    (lambda d: d["points"][0].update(ns=["1", None, []]), r"points\[0\]\.ns"),
    (lambda d: d["points"].insert(0, 3), r"points\[0\] is no object"),
    (lambda d: d.pop("machine"), "machine is missing"),
    (lambda d: d["machine"].pop("tsc_hz"), "machine.tsc_hz is missing"),
    (lambda d: d["machine"].update(tsc_hz=0), "must be positive"),
    (lambda d: d["machine"].update(tsc_hz=10**400), "machine.tsc_hz is"),
    (lambda d: d["machine"].update(xcr0="seven"), "machine.xcr0"),
    (lambda d: d["machine"].update(cpus=True), "machine.cpus"),
    (lambda d: d.update(schema="xsave.decode/1"), "not xsave.bench-insn/1"),
    (lambda d: d.update(rounds="many"), "rounds is"),
]


@pytest.mark.parametrize(("change", "message"), DAMAGED)
def test_a_damaged_document_is_refused(change: Callable[[Any], object], message: str) -> None:
    with pytest.raises(FormatError, match=message):
        Calibration.from_json(damage(change))


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "3", "[" * 100000, b"\xff\xfe\x00", '{"schema": 1}'])
def test_what_is_no_document_is_refused(text: "str | bytes") -> None:
    with pytest.raises(FormatError):
        Calibration.from_json(text)


def test_every_cut_of_a_document_is_refused() -> None:
    text = WHOLE.to_json()
    for end in range(0, len(text) - 2, 7):
        with pytest.raises(FormatError):
            Calibration.from_json(text[:end])


def test_machines_are_told_apart() -> None:
    points = {("XSAVE", 7, 7, False): 50.0, ("XSAVE", 7, 7, True): 500.0}
    assert WHOLE.is_of_same_machine(made(points, load_before=3.0, kernel="Linux 7", tsc_hz=2e9))
    for other in ({"cpu": "another"}, {"xcr0": "0xe7"}, {"hypervisor": False}):
        assert not WHOLE.is_of_same_machine(made(points, **other))
