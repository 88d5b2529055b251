"""Fuzz target: text of kernel traces, and what every event that comes out of it must be."""

from collections.abc import Iterator

import numpy as np

import xsave
import xsave._events
import xsave.switching.traces
from tests.oracle.traces import as_ftrace
from tests.switching.lines import SMALL
from xsave.switching import Event, read_trace


def one_input(data: bytes) -> None:
    try:
        found = read_trace(data)
    except xsave.XSaveError:
        return
    assert len(found) + sum(found.skipped.values()) <= data.count(b"\n") + 1 or data[:1] in b"\x1f\xfd\x28\x04"
    assert int(found.event.max()) < len(Event)
    assert np.isin(found.flag, (-1, 0, 1)).all()
    assert (np.diff(found.line.astype(np.int64)) > 0).all()
    for cpu in np.unique(found.cpu):
        times = found.time[found.cpu == cpu]
        assert (times[1:] >= times[:-1]).all()
    switches = found.event == Event.SCHED_SWITCH
    assert (found.other[~switches] == -1).all() and (found.other[switches] >= 0).all()


def seeds() -> Iterator[bytes]:
    """A line of every kind, as perf script prints it and as ftrace does."""
    yield SMALL
    lines = [line for line in SMALL.splitlines(keepends=True) if line.startswith(b" ")]
    yield as_ftrace(b"".join(line for line in lines if b" -1 [" not in line and b"cycles" not in line))
    yield from SMALL.splitlines(keepends=True)
