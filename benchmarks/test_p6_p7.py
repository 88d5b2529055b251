"""P6, P7: core files of 1,000 threads, every one with other registers, against reading the bytes and against gdb.

gdb reads each register of each thread through its own Python API, in one process that has the core open (P6) or from
its start (P7). In P6 it does no more than fetch the values, and its register cache is emptied between two passes;
in P7 it writes what we write. Its values are compared with the core's first; where gdb is missing or shows others, its
lines say so and are not judged.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from time import perf_counter_ns

import cores
import numpy as np
import pytest
from areas import AMX, AVX512, check_values, layouts, sampled
from debugger import CannotRead, Gdb, command
from goals import at_least, at_most
from ratio import Side, TimedSide

import xsave

THREADS = 1000
CHUNK = 256 * 1024
XSAVE = Path(sys.executable).with_name("xsave")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("cores")


def check_core(path, layout, columns, areas):
    """Every column of some threads, and the dicts of all of them, against the reference model's reading of the file."""
    for row in sampled(len(areas)):
        found = {name: column[row] for name, column in columns.items() if name != "tid"}
        values = {
            name: value.tobytes() if isinstance(value, np.ndarray) else int(value) for name, value in found.items()
        }
        check_values(areas[row], layout, values)
    assert columns["tid"].tolist() == [cores.FIRST_TID + i for i in range(len(areas))]
    for thread, area in zip(xsave.open(path).threads, areas, strict=True):
        assert bytes(thread.area) == area
    check_values(areas[-1], layout, xsave.decode(thread.area))


@pytest.mark.parametrize("native_notes", [False, True], ids=["2696", "11008"])
def test_p6(judge, native, folder, native_notes):
    """All threads' registers as columns and as dicts."""
    path = folder / f"{native_notes}.core"
    offset, length = cores.write_core(path, THREADS, native=native_notes)
    name = cores.warm(path)
    areas = cores.areas_of(path)
    layout = layouts(AMX if native_notes else AVX512)[0]
    check_core(name, layout, xsave.open(name).columns(), areas)

    consume, decode = native.consume, xsave.decode

    def dicts():
        for thread in xsave.open(name).threads:
            consume(decode(thread.area))

    names = {"open": xsave.open, "dicts": dicts, "read": native.read_chunks, "path": name, "raw": os.fsencode(name)}
    names |= {
        "offset": offset,
        "length": length,
        "chunk": CHUNK,
        "buffer": bytearray(CHUNK),
        "whole": bytearray(length),
    }
    assert native.read_chunks(os.fsencode(name), offset, length, bytearray(length), length) == length
    sides = [
        Side("columns", "open(path).columns()", names),
        Side("dicts", "dicts()", names),
        Side("pread in chunks", "read(raw, offset, length, buffer, chunk)", names),
        Side("one pread", "read(raw, offset, length, whole, length)", names),
    ]
    cannot = ""
    debugger = None
    try:
        debugger = Gdb(name, THREADS, [bytes(xsave.Area(area, layout)["zmm17"]) for area in areas[:3]])
        sides.append(TimedSide("gdb", debugger.read))
    except CannotRead as error:
        cannot = str(error)
    times = judge.compare(lambda _: sides, draws=1, rounds=32)
    if debugger is not None:
        debugger.close()
    words = "11,008-byte notes, tiles in init" if native_notes else "2,696-byte notes"
    pread = times.fastest(["pread in chunks", "one pread"])
    judge.line(
        "P6",
        f"{words}: columns × pread",
        times.cost("columns", pread),
        at_most(1.0 if native_notes else 1.4),
        f"bare {pread}",
    )
    goals = {
        "columns": at_least(400) if native_notes else at_least(1000, intel=900),
        "dicts": at_least(100 if native_notes else 120),
    }
    for side, bound in goals.items():
        line = f"{words}: {side} × gdb"
        if cannot:
            judge.untold("P6", line, bound, "gdb's register reading", cannot)
        else:
            judge.line("P6", line, times.speed(side, "gdb"), bound, "gdb's register reading")


def whole(name, arguments, environment=()):
    """A command from its start to its end, output thrown away."""
    full = os.environ | dict(environment)

    def run():
        start = perf_counter_ns()
        done = subprocess.run(
            arguments, env=full, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        spent = perf_counter_ns() - start
        if done.returncode:
            raise RuntimeError(f"{arguments[0]}: exit status {done.returncode}")
        return spent

    return TimedSide(name, run)


def records(output):
    """The registers that each thread's record of NDJSON holds."""
    return [each["registers"] for each in map(json.loads, output.splitlines()) if "registers" in each]


def test_p7_thousand(judge, folder):
    """Every register of every thread, written as one JSON record a thread by both; gdb reading alone is shown too."""
    path = folder / "p7.core"
    cores.write_core(path, THREADS, seed=7)
    name = cores.warm(path)
    areas = cores.areas_of(path)
    wanted = [bytes(xsave.Area(area, layouts()[0])["zmm17"]).hex() for area in areas]
    printed = records(subprocess.run([XSAVE, "decode", "--ndjson", name], capture_output=True, check=True).stdout)
    assert len(printed) == THREADS and min(map(len, printed)) >= len(xsave.decode(xsave.Area(areas[0], layouts()[0])))
    assert ["zmm17" in each and wanted[i] in str(each["zmm17"]) for i, each in enumerate(printed)] == [True] * THREADS
    lines = {"1,000 threads, all registers": at_least(25), "1,000 threads, gdb printing nothing": None}
    out = folder / "gdb.ndjson"
    done = subprocess.run(command(name), env=os.environ | {"BENCH_PRINT": str(out)}, capture_output=True)
    if done.returncode or [each["zmm17"] for each in map(json.loads, out.read_text().splitlines())] != wanted:
        reason = f"gdb does not show these registers: {done.stderr.decode()[-200:]}"
        judge.untold("P7", "1,000 threads, all registers", at_least(25), "gdb's Python API", reason)
        return
    sides = [
        whole("xsave", [XSAVE, "decode", "--ndjson", name]),
        whole("1,000 threads, all registers", command(name), {"BENCH_PRINT": "/dev/null"}),
        whole("1,000 threads, gdb printing nothing", command(name)),
    ]
    times = judge.compare(lambda _: sides, draws=1, rounds=31)
    for line, bound in lines.items():
        judge.line("P7", line, times.speed("xsave", line), bound, "gdb's Python API, whole process")


def test_p7_one(judge, folder):
    """One thread, the default output, against an interpreter that does nothing."""
    path = folder / "one.core"
    cores.write_core(path, 1, seed=8)
    name = cores.warm(path)

    def make(_draw):
        return [
            whole("xsave", [XSAVE, "decode", name]),
            whole("version", [XSAVE, "--version"]),
            whole("python", [sys.executable, "-c", "pass"]),
        ]

    times = judge.compare(make, draws=1, rounds=63)
    judge.line("P7", "1 thread", times.cost("xsave", "python"), at_most(2.8), "python -c pass")
    judge.line("P7", "xsave --version", times.cost("version", "python"), None, "python -c pass")
