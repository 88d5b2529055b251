"""What the instructions of this CPU take: a plan of points, measured in shuffled rounds.

A point is an instruction with EDX:EAX (`mask`), the components in use, and whether its memory lies in the first cache
or in none. `measure_instructions` keeps every sample, in a `Calibration`. docs/bench.md says how it is measured and
what cannot be.
"""

import os
import platform
import random
import time

from xsave.codec import encode, transcode
from xsave.components import Component, ComponentMask
from xsave.errors import HostError
from xsave.host import Host, expected_registers, in_child
from xsave.layout import COMPACTED, HEADER, STANDARD, Layout
from xsave.models import CpuModel
from xsave.switching.calibration import INSTRUCTIONS, LEGACY, Calibration, Point, partners, quartiles

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    _Key = tuple[str, int, int, bool]

__all__ = ["measure_instructions", "nested", "plan", "states"]

# A batch lasts at least as many steps of the counter.
_STEPS = 200
_BATCHES = 3
_ROUNDS = 101


# --- the plan -----------------------------------------------------------------------------------------------------


def nested(xcr0: int) -> "list[int]":
    """x87, x87 and SSE, then one group of components that require each other after the other, up to all of XCR0."""
    masks = [1] if xcr0 & 1 else []
    done = xcr0 & 1
    for bit in range(1, 63):
        if xcr0 >> bit & 1 and not done >> bit & 1:
            group = 1 << bit
            if bit in Component.__members__.values():
                group |= sum({rule.needs for rule in Component(bit).info.requirements}) & xcr0
            done |= group
            masks.append(done)
    return masks


def _permitted(xcr0: int) -> int:
    # Components that can be in use with the kernel's permission only.
    return sum(component.mask for component in ComponentMask(xcr0) if component.info.xfd)


def states(xcr0: int, tiles: bool = True) -> "list[tuple[int, int]]":
    """(mask, in use) of the plan: each component alone; the nested masks; all of XCR0 with one component in use and
    with all but one; all but one in the mask with everything in use and with only the mask's. `tiles` False: no
    component that needs the kernel's permission is in use."""
    usable = xcr0 if tiles else xcr0 & ~_permitted(xcr0)
    singles = [1 << bit for bit in range(63) if xcr0 >> bit & 1]
    found = [(mask, in_use) for mask in (*nested(xcr0), *singles) for in_use in (mask & usable, 0)]
    for one in singles:
        found += [(xcr0, one & usable), (xcr0, usable & ~one), (xcr0 & ~one, usable), (xcr0 & ~one, usable & ~one)]
        other = partners(one.bit_length() - 1)
        if other:  # tile data live: with its configuration alone, and without either
            found += [(other & xcr0, usable), (xcr0 & ~one & ~other, usable)]
    return list(dict.fromkeys(found))


def plan(model: CpuModel, xcr0: int, tiles: bool = True) -> "list[tuple[str, int, int]]":
    """(instruction, mask, in use) of every point of the plan for a CPU, each to be measured hot and cold."""
    found = []
    for name, (_, feature, special) in INSTRUCTIONS.items():
        if feature not in model.instructions:
            continue
        if special == "legacy":
            found += [(name, LEGACY, in_use) for in_use in range(4) if not in_use & ~xcr0]
        elif special == "copy":
            found += [(name, mask, mask) for mask in dict.fromkeys(mask for mask, _ in states(xcr0, tiles))]
        else:
            found += [(name, mask, in_use) for mask, in_use in states(xcr0, tiles)]
    return found


class _Job:
    """One point to be measured, or the empty loop of one shape."""

    def __init__(self, key: "_Key", instruction: "str | None", **arguments: "Any") -> None:
        self.key = key
        self.instruction = instruction
        self.arguments = arguments
        self.shape = 1, 1
        self.samples: "list[int]" = []

    def visit(self, offsets: "tuple[int, int]", batches: int) -> "list[int]":
        visits, count = self.shape
        return Host.time_instruction(
            self.instruction, batches=batches, visits=visits, count=count, offsets=offsets, **self.arguments
        )

    def size_up(self, least: int) -> None:
        # Chooses how many instructions a batch has: powers of two, so that few shapes need an empty loop. The fastest
        # of several places counts: areas that begin at the same place in their pages are slow to copy.
        cold = self.key[3]
        tries = 4
        self.visit((0, 0), 1)
        while True:
            self.shape = (tries, 1) if cold else (1, tries)
            fastest = min(min(self.visit(places, _BATCHES)) for places in ((0, 2176), (1216, 192), (2048, 3264)))
            if tries >= (128 if cold else 4096) or fastest >= least:
                return
            tries *= 2


def _jobs(model: CpuModel, xcr0: int, tiles: bool, diagnostics: "list[str]") -> "list[_Job]":
    whole = Layout(model, xcr0, STANDARD)
    values = dict(expected_registers(1, xcr0, True, kmovq=False))
    values["mxcsr"] = 0x1F80  # its value alone would put SSE in use on some CPUs
    full = encode({name: value for name, value in values.items() if tiles or not name.startswith("tmm")}, whole)
    made = int.from_bytes(full[HEADER[0] : HEADER[0] + 8], "little")
    missing = ComponentMask(xcr0 & ~made & ~(0 if tiles else _permitted(xcr0)))
    if missing:
        diagnostics.append(f"not measured in use, for want of values: {' '.join(missing.names)}")
    images: "dict[int, bytes]" = {}
    jobs = []
    for name, mask, in_use in plan(model, xcr0, tiles):
        if in_use & ~made and name.partition(" ")[0] != "memcpy":
            continue
        if in_use not in images:
            images[in_use] = full[:HEADER[0]] + (in_use & made).to_bytes(8, "little") + full[HEADER[0] + 8 :]
        state = images[in_use]
        instruction, _, special = INSTRUCTIONS[name]
        compacted = Layout(model, mask, COMPACTED)
        packed = bytes(transcode(state, whole, compacted, lost="drop"))
        small = name in ("XSAVEC", "XSAVEC+XRSTOR", "XRSTOR compacted", "memcpy compacted")
        size = HEADER[0] if special == "legacy" else (compacted if small else Layout(model, mask, STANDARD)).size
        for cold in (False, True):
            jobs.append(
                _Job(
                    (name, mask, in_use, cold),
                    instruction,
                    mask=mask,
                    state=state,
                    area={"compacted": packed, "legacy": _legacy(whole, full, in_use)}.get(special, state),
                    other=packed,
                    cold=cold,
                    unmodified=special == "unmodified",
                    size=size,
                )
            )
    return jobs


def _legacy(whole: Layout, full: bytes, in_use: int) -> bytes:
    # What FXRSTOR reads has no XSTATE_BV: what is not in use holds its initial values.
    image = bytearray(encode({}, whole)[:HEADER[0]])
    for component in ComponentMask(in_use & LEGACY):
        for offset, size in whole.extents(component):
            image[offset : offset + size] = full[offset : offset + size]
    return bytes(image)


def _clock() -> "tuple[int, int]":
    # (ns of CLOCK_MONOTONIC_RAW, ticks) of one moment: the closest of several pairs of reads.
    best: "tuple[int, int, int] | None" = None
    for _ in range(9):
        before = time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)
        ticks = Host.tsc()
        after = time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)
        if best is None or after - before < best[0]:
            best = after - before, (before + after) // 2, ticks
    assert best is not None
    return best[1], best[2]


def measure_instructions(
    *, seconds: float = 20.0, seed: int = 0, progress: "Callable[[int, int], None] | None" = None
) -> Calibration:
    """Measures every point of the plan for this CPU, in at most about `seconds` (at least three rounds).

    Points are visited in rounds, in an order and with areas at places in their pages that `seed` draws anew for each;
    the thread stays on one CPU meanwhile and goes back to all of its own. Where the CPU has tiles and this process no
    permission for them, a child process asks for it and measures. `progress` is told the rounds done and their number.

    Raises: `UnsupportedError` in a portable build or without XSAVE, `ValueError` for a time that is none.
    """
    if not 0 < seconds < 3600:
        raise ValueError(f"{seconds} seconds to measure in")
    if Host.xcr0 and not Host.amx_permission() and Component.TILEDATA in Host.supported_components():

        def asked() -> Calibration:
            Host.request_amx()
            return _measure(seconds, seed, progress, [])

        try:
            return in_child(asked)  # type: ignore[no-any-return]
        except HostError as error:
            return _measure(seconds, seed, progress, [f"without tile data: {error.strerror or error}"])
    return _measure(seconds, seed, progress, [])


def _measure(
    seconds: float, seed: int, progress: "Callable[[int, int], None] | None", diagnostics: "list[str]"
) -> Calibration:
    model, xcr0 = CpuModel.host(), int(Host.xcr0)
    deadline = time.monotonic() + seconds
    load = _load()
    diagnostics = list(diagnostics)
    before = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
    pinned = _pin({max(before)}) if before else False
    if not pinned:
        diagnostics.append("the thread was not kept on one CPU")
    try:
        start = _clock()
        step = Host.tsc_step()
        jobs = _jobs(model, xcr0, Host.amx_permission(), diagnostics)
        rounds = _rounds(jobs, _STEPS * step, random.Random(seed), deadline, progress)
        time.sleep(max(0.0, 0.05 - (_clock()[0] - start[0]) / 1e9))
        end = _clock()
    finally:
        if pinned:
            _pin(before)
    hz = (end[1] - start[1]) / (end[0] - start[0]) * 1e9
    machine: "dict[str, Any]" = {
        "cpu": model.brand or model.name,
        "vendor": model.vendor,
        "xcr0": f"{xcr0:#x}",
        "kernel": f"{platform.system()} {platform.release()}",
        "cpus": os.cpu_count() or 1,
        "hypervisor": bool(model.cpuid[1, 0][2] >> 31 & 1),
        "pinned": pinned,
        "load_before": load,
        "load_after": _load(),
        "tsc_step": step,
        "tsc_hz": round(hz, 1),
    }
    points, short = _points(jobs, model, machine["tsc_hz"])
    if short:
        diagnostics.append(f"{len(short)} points left out, too short to tell from the loop: {short[0]}")
    return Calibration(machine, points, seed=seed, seconds=seconds, rounds=rounds, diagnostics=diagnostics)


def _rounds(
    jobs: "list[_Job]",
    least: int,
    draw: random.Random,
    deadline: float,
    progress: "Callable[[int, int], None] | None",
) -> int:
    for job in jobs:
        job.size_up(least)
    shapes = dict.fromkeys((job.key[3], job.shape) for job in jobs)
    for cold, shape in shapes:
        empty = _Job(("", 0, 0, cold), None, cold=cold)
        empty.shape = shape
        jobs.append(empty)
    order = list(jobs)
    done, total = 0, _ROUNDS
    begun = time.monotonic()
    while done < total:
        draw.shuffle(order)
        for job in order:
            offsets = 64 * draw.randrange(64), 64 * draw.randrange(64)
            job.samples += job.visit(offsets, _BATCHES)
        done += 1
        now = time.monotonic()
        total = min(_ROUNDS, max(3, done + int((deadline - now) * done / max(now - begun, 1e-9))))
        if progress is not None:
            progress(done, total)
    return done


def _points(jobs: "list[_Job]", model: CpuModel, hz: float) -> "tuple[list[Point], list[str]]":
    loops = {(job.key[3], job.shape): quartiles(job.samples)[1] for job in jobs if job.instruction is None}
    points, short = [], []
    for job in jobs:
        if job.instruction is None:
            continue
        points.append(
            Point(
                job.key,
                size=job.arguments["size"],
                visits=job.shape[0],
                count=job.shape[1],
                loop=loops[job.key[3], job.shape],
                samples=job.samples,
                hz=hz,
            )
        )
    for point in list(points):
        if point.ticks <= 0:
            short.append(f"{point.instruction} of {point.mask:#x}")
            points = [each for each in points if each.key[:3] != point.key[:3]]
    return points, short


def _pin(cpus: "set[int]") -> bool:
    try:
        os.sched_setaffinity(0, cpus)
    except OSError:
        return False
    return True


def _load() -> float:
    try:
        return float(os.getloadavg()[0])
    except OSError:
        return 0.0
