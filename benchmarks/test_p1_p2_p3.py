"""P1, P2, P3: batches of areas from one format to the other, against copies of the same areas.

One public function, `xsave.transcode_many`, with all its checks on, serves every batch size. A copy moves the source
area's bytes (2,696 standard, 2,440 compacted) and takes two buffers as we do. Sapphire Rapids' layout is used on every
host: on AMD the two formats coincide, and converting would be copying.
"""

import random

import numpy as np
import pytest
from areas import (
    AMX,
    AVX512,
    CPU,
    POISON,
    RANDOM,
    SPARSE,
    check_conversion,
    draw_offset,
    fill,
    layouts,
    moved,
    stride_of,
)
from goals import at_least
from ratio import Side

import xsave
from xsave.layout import Layout

WAYS = ["standard→compacted", "compacted→standard"]
ROWS = ["aligned rows", "packed rows"]
BIG = 100_000
CALL = "transcode(source, A, B, out)"
COPY = "copy(source, kind, size, out)"
EMPTY = "empty(source, A, B, out)"


class Case:
    """A batch, and the sides that convert or copy it: each has a destination of its own."""

    def __init__(self, native, memory, way, rows, count, in_use, mask=AVX512, kinds=("memcpy",)):
        standard, compacted = layouts(mask)
        self.native, self.memory, self.count = native, memory, count
        self.a, self.b = (standard, compacted) if way == WAYS[0] else (compacted, standard)
        self.packed = rows == ROWS[1]
        self.kinds = kinds
        self.rng = random.Random(f"{way} {rows} {count} {in_use}")
        self.source = memory.place("source", count, stride_of(self.a.size, self.packed))
        fill(self.source, self.a, in_use, seed=count)
        self.note = f"{moved(self.source, self.a):,} bytes an area really move"

    def out(self, key, size, offset):
        return self.memory.place(key, self.count, stride_of(size, self.packed), offset)

    def make(self, _draw):
        """The sides at one drawn (destination - source) mod 4096; the conversion is checked before it is timed."""
        offset = draw_offset(self.rng, self.packed)
        out = self.out("xsave", self.b.size, offset)
        out[:] = POISON
        assert xsave.transcode_many(self.source, self.a, self.b, out) is out
        check_conversion(self.source, self.a, out, self.b)
        names = {"transcode": xsave.transcode_many, "copy": self.native.copy_rows, "empty": self.native.empty_rows}
        names |= {"source": self.source, "A": self.a, "B": self.b, "out": out}
        return [Side("xsave", CALL, names, empty=EMPTY), *(self.copy(kind, names, offset) for kind in self.kinds)]

    def copy(self, kind, names, offset):
        out = self.out(kind, self.a.size, offset)
        source = self.source
        if kind == "np.copyto":
            flat = {"source": one(source, self.a.size)[0], "out": one(out, self.a.size)[0], "copyto": np.copyto}
            return Side(kind, "copyto(out, source)", names | flat, empty=EMPTY)
        word, _, whole = kind.partition(", ")
        if whole:
            source, out = one(source, self.a.size), one(out, self.a.size)
        size = source.shape[1] if whole else self.a.size
        number = {"memcpy": 0, "rep movsb": 1, "vector": 2, "non-temporal": 3, "non-temporal + PREFETCHT0": 4}[word]
        return Side(kind, COPY, names | {"source": source, "out": out, "kind": number, "size": size}, empty=EMPTY)


def one(rows, size):
    """As many bytes as the areas have, in one piece: what a copy without rows moves."""
    return rows.reshape(1, -1)[:, : len(rows) * size]


def copies(native):
    """Every copy that this CPU can run: area by area and in one call."""
    words = ["memcpy", "rep movsb"]
    if native.supported(native.VECTOR):
        words += ["vector", "non-temporal", "non-temporal + PREFETCHT0"]
    return [*words, *(f"{word}, one call" for word in words if word not in ("rep movsb", "vector"))]


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("way", WAYS)
def test_p1_dense(judge, native, memory, way, rows):
    """64 areas in L2, everything in use."""
    case = Case(native, memory, way, rows, 64, AVX512)
    times = judge.compare(case.make, draws=16, rounds=96)
    bound = at_least(1.15 if way == WAYS[0] else 1.05)
    judge.line(
        "P1",
        f"{way}, {rows}",
        times.speed("xsave", "memcpy"),
        bound,
        f"memcpy of {case.a.size}",
        untold=judge.needs_avx512,
        note=case.note,
    )


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("way", WAYS)
def test_p1_random(judge, native, memory, way, rows):
    """64 areas in L2, every bit of XSTATE_BV drawn."""
    case = Case(native, memory, way, rows, 64, RANDOM)
    times = judge.compare(case.make, draws=16, rounds=96)
    bound = at_least(1.0 if way == WAYS[0] else 0.95)
    judge.line(
        "P1",
        f"random XSTATE_BV, {way}, {rows}",
        times.speed("xsave", "memcpy"),
        bound,
        f"memcpy of {case.a.size}",
        untold=judge.needs_avx512,
        note=case.note,
    )


@pytest.mark.parametrize("in_use", [AMX, AVX512], ids=["all", "tiles-init"])
@pytest.mark.parametrize("way", WAYS)
def test_p1_amx(judge, native, memory, way, in_use):
    """16 areas with tiles: all in use, or the tiles in their initial configuration and only the rest moved."""
    case = Case(native, memory, way, ROWS[0], 16, in_use, mask=AMX)
    times = judge.compare(case.make, draws=8, rounds=64)
    what, bound = ("all in use", at_least(0.95)) if in_use == AMX else ("tiles in init", at_least(3.5))
    judge.line(
        "P1",
        f"16 AMX areas, {what}, {way}",
        times.speed("xsave", "memcpy"),
        bound,
        f"memcpy of {case.a.size}",
        untold=judge.needs_amx,
        note=case.note,
    )


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("way", WAYS)
def test_p2_1k(judge, native, memory, way, rows):
    """1,000 areas, between the caches."""
    case = Case(native, memory, way, rows, 1000, AVX512)
    times = judge.compare(case.make, draws=8, rounds=48)
    judge.line(
        "P2",
        f"1k, {way}, {rows}",
        times.speed("xsave", "memcpy"),
        at_least(1.0),
        "memcpy",
        untold=judge.needs_avx512,
        note=case.note,
    )


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("way", WAYS)
def test_p2_50k(judge, native, memory, way, rows):
    """50,000 areas against one np.copyto of all of them."""
    case = Case(native, memory, way, rows, 50_000, AVX512, kinds=("np.copyto", "memcpy"))
    times = judge.compare(case.make, draws=2, rounds=32)
    judge.line(
        "P2",
        f"50k, {way}, {rows}",
        times.speed("xsave", "np.copyto"),
        at_least(1.3),
        "np.copyto",
        untold=judge.needs_avx512,
        note=case.note,
    )


def room(judge, native):
    """Why a batch of 100,000 areas cannot be timed here, or nothing."""
    need = (len(copies(native)) + 3) * BIG * 2752
    free = judge.available
    return f"{need >> 20} MiB of memory are needed, {free >> 20} are free" if free < need * 1.2 else ""


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("way", WAYS)
def test_p2_100k(judge, native, memory, way, rows):
    """100,000 areas against memcpy an area and the fastest of all copies of the run."""
    kinds = copies(native)
    lines = {"memcpy": at_least(1.3), "the fastest copy": at_least(0.8 if rows == ROWS[1] else 0.9)}
    small = room(judge, native)
    if small:
        for baseline, bound in lines.items():
            judge.untold("P2", f"100k, {way}, {rows}, × {baseline}", bound, baseline, small)
        return
    case = Case(native, memory, way, rows, BIG, AVX512, kinds=kinds)
    times = judge.compare(case.make, draws=2, rounds=32)
    judge_big(judge, "P2", f"100k, {way}, {rows}", times, case, lines)


def judge_big(judge, goal, name, times, case, lines):
    """The two lines of a batch beyond the caches, the fastest copy by its name."""
    best = times.fastest(case.kinds)
    untold = judge.needs_avx512 if goal == "P2" else ""
    note = ", ".join(f"{kind} {times[kind] / BIG:.0f}" for kind in case.kinds)
    for baseline, bound in lines.items():
        base = "memcpy" if baseline == "memcpy" else best
        words = baseline if base == baseline else f"{baseline} ({base})"
        judge.line(
            goal,
            f"{name}, × {baseline}",
            times.speed("xsave", base),
            bound,
            words,
            untold=untold,
            note=f"{case.note}; ns an area: xsave {times['xsave'] / BIG:.0f}, {note}",
        )


@pytest.mark.parametrize("way", WAYS)
def test_p3_one(judge, native, memory, way):
    """One sparse area a call, another one each time; the same public function."""
    case = Case(native, memory, way, ROWS[0], 64, SPARSE)

    def make(_draw):
        offset = draw_offset(case.rng, False)
        ours, theirs = case.out("xsave", case.b.size, offset), case.out("memcpy", case.a.size, offset)
        ours[:] = POISON
        rows = [(case.source[i : i + 1], ours[i : i + 1], theirs[i : i + 1]) for i in range(64)]
        for source, out, _ in rows:
            xsave.transcode_many(source, case.a, case.b, out)
        check_conversion(case.source, case.a, ours, case.b)
        names = {
            "transcode": xsave.transcode_many,
            "copy": native.copy_rows,
            "empty": native.empty_rows,
            "A": case.a,
            "B": case.b,
        }
        names |= {"size": case.a.size}
        empty = "empty(item[0], A, B, item[1])"
        return [
            Side("xsave", "transcode(item[0], A, B, item[1])", names, empty=empty, items=rows),
            Side("memcpy", "copy(item[0], 0, size, item[2])", names, empty=empty, items=rows),
            Side("whole call", "transcode(item[0], A, B, item[1])", names, items=rows),
            Side("whole copy", "copy(item[0], 0, size, item[2])", names, items=rows),
        ]

    times = judge.compare(make, draws=8, rounds=64)
    judge.line(
        "P3", f"n = 1, {way}", times.speed("xsave", "memcpy"), at_least(1.5), "memcpy of the full area", note=case.note
    )
    judge.line(
        "P3",
        f"n = 1, {way}, Python's call counted",
        times.speed("whole call", "whole copy"),
        None,
        "memcpy in such a call",
    )


@pytest.mark.parametrize("way", WAYS)
def test_p3_1k(judge, native, memory, way):
    """1,000 sparse areas."""
    case = Case(native, memory, way, ROWS[0], 1000, SPARSE)
    times = judge.compare(case.make, draws=8, rounds=48)
    judge.line(
        "P3", f"1k, {way}", times.speed("xsave", "memcpy"), at_least(2), "memcpy of the full area", note=case.note
    )


@pytest.mark.parametrize("way", WAYS)
def test_p3_100k(judge, native, memory, way):
    """100,000 sparse areas."""
    kinds = copies(native)
    lines = {"memcpy": at_least(2), "the fastest copy": at_least(1.5)}
    small = room(judge, native)
    if small:
        for baseline, bound in lines.items():
            judge.untold("P3", f"100k, {way}, × {baseline}", bound, baseline, small)
        return
    case = Case(native, memory, way, ROWS[0], BIG, SPARSE, kinds=kinds)
    times = judge.compare(case.make, draws=2, rounds=32)
    judge_big(judge, "P3", f"100k, {way}", times, case, lines)


def test_p1_between_cpus(judge, native, memory):
    """Shown, not judged: standard areas of an Intel CPU to standard areas of an AMD one, and the bytes that move."""
    genoa = Layout(xsave.CpuModel.named("EPYC-Genoa"), AVX512, xsave.STANDARD)
    case = Case(native, memory, WAYS[0], ROWS[0], 64, AVX512)

    def make(_draw):
        out = case.out("xsave", genoa.size, draw_offset(case.rng, False))
        names = {"transcode": xsave.transcode_many, "copy": native.copy_rows, "empty": native.empty_rows}
        names |= {"source": case.source, "A": case.a, "B": genoa, "out": out}
        return [Side("xsave", CALL, names, empty=EMPTY), case.copy("memcpy", names, draw_offset(case.rng, False))]

    times = judge.compare(make, draws=8, rounds=64)
    judge.line(
        "P1",
        f"standard of {CPU}→standard of EPYC-Genoa",
        times.speed("xsave", "memcpy"),
        None,
        f"memcpy of {case.a.size}",
    )
