"""A workload: the events of a machine's context switches, as columns; and the file that keeps one.

Where the events come from is their maker's business (`traces` reads recorded ones); what they cost is the simulator's.
"""

import os
from enum import IntEnum

from xsave.errors import FormatError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import IO, Any
    from zipfile import ZipFile

    import numpy as np
    from numpy.typing import NDArray

__all__ = ["COLUMNS", "Event", "Workload"]


class Event(IntEnum):
    """What happened: the tracepoints of Linux that tell when extended state moves.

    From REGS_ACTIVATED to XSTATE_CHECK_FAILED they are those of `x86_fpu`; LOCAL_TIMER and RESCHEDULE are the entries
    of these interrupts; OTHER is any other event of the scheduler, the FPU or KVM.
    """

    SCHED_SWITCH = 0
    REGS_ACTIVATED = 1
    REGS_DEACTIVATED = 2
    DROPPED = 3
    COPY_SRC = 4
    COPY_DST = 5
    BEFORE_SAVE = 6
    AFTER_SAVE = 7
    BEFORE_RESTORE = 8
    AFTER_RESTORE = 9
    INIT_STATE = 10
    XSTATE_CHECK_FAILED = 11
    WRITE_MSR = 12
    READ_MSR = 13
    KVM_FPU = 14
    KVM_ENTRY = 15
    KVM_EXIT = 16
    KVM_MSR = 17
    KVM_USERSPACE_EXIT = 18
    KVM_PIO = 19
    CPU_IDLE = 20
    LOCAL_TIMER = 21
    RESCHEDULE = 22
    OTHER = 23


# The columns and their types, in the order in which the kernel `events` takes them.
COLUMNS: "dict[str, str]" = {
    "time": "<u8",
    "cpu": "<u2",
    "event": "|u1",
    "tid": "<i4",
    "other": "<i4",
    "state": "|u1",
    "flag": "|i1",
    "fpu": "<u8",
    "xfeatures": "<u8",
    "xcomp_bv": "<u8",
    "line": "<u4",
}

_ABOUT = "about"
_KIND = "xsave workload"
_VERSION = 1
# What one byte of an archive may unpack to: deflate makes at most 1,032 bytes of one.
_RATIO = 1040
_ABOUT_MAX = 1 << 28


class Workload:
    """Events of context switches as columns, one row an event, in the order of the trace.

    | column | type | what |
    |---|---|---|
    | `time` | uint64 | nanoseconds; never goes back on one CPU |
    | `cpu` | uint16 | the CPU that it happened on |
    | `event` | uint8 | an `Event` |
    | `tid` | int32 | the task that ran; of a switch the one that stops running; -1: one that has ended |
    | `other` | int32 | of a switch the task that runs next, else -1 |
    | `state` | uint8 | of a switch the first letter of the old task's state (R, S, D, X, Z, ...), else 0 |
    | `flag` | int8 | of `x86_fpu` its `load`; 1 of KVM_FPU load, 0 of unload; 1 of a KVM_EXIT by XSETBV; else -1 |
    | `fpu` | uint64 | of `x86_fpu` the state's address, of an MSR its number, of CPU_IDLE the state; else 0 |
    | `xfeatures` | uint64 | of `x86_fpu` XSTATE_BV, of an MSR its value; else 0 |
    | `xcomp_bv` | uint64 | of `x86_fpu` XCOMP_BV; else 0 |
    | `line` | uint32 | the trace's line, from 1 |

    `columns` has them all by name. `names` is the last name of each task, `skipped` how many lines were left out for
    which reason, `source` what was read, `assumptions` what was taken for granted, in words.

    Raises: `ValueError` for columns that are missing, or of other types or unequal lengths.
    """

    cpu: "NDArray[np.uint16]"
    event: "NDArray[np.uint8]"
    flag: "NDArray[np.int8]"
    fpu: "NDArray[np.uint64]"
    line: "NDArray[np.uint32]"
    other: "NDArray[np.int32]"
    state: "NDArray[np.uint8]"
    tid: "NDArray[np.int32]"
    time: "NDArray[np.uint64]"
    xcomp_bv: "NDArray[np.uint64]"
    xfeatures: "NDArray[np.uint64]"

    def __init__(
        self,
        columns: "Mapping[str, NDArray[Any]]",
        names: "Mapping[int, str] | None" = None,
        skipped: "Mapping[str, int] | None" = None,
        source: str = "",
        assumptions: "Iterable[str]" = (),
    ) -> None:
        if set(columns) != set(COLUMNS):
            raise ValueError(f"columns {', '.join(sorted(columns))}, expected {', '.join(COLUMNS)}")
        count = len(columns["time"])
        for name, form in COLUMNS.items():
            column = columns[name]
            if column.dtype.str != form or column.shape != (count,):
                raise ValueError(f"column {name} is {column.dtype.str} of shape {column.shape}, expected {form} of "
                                 f"shape {(count,)}")
        self.columns = {name: columns[name] for name in COLUMNS}
        for name, column in self.columns.items():
            setattr(self, name, column)
        self.names = dict(names or {})
        self.skipped = dict(skipped or {})
        self.source = source
        self.assumptions = list(assumptions)

    def __len__(self) -> int:
        return len(self.columns["time"])

    def __repr__(self) -> str:
        return f"<Workload {self.source}: {len(self):,} events>"

    @property
    def nbytes(self) -> int:
        """Bytes that the columns take."""
        return sum(column.nbytes for column in self.columns.values())

    def counts(self) -> "dict[Event, int]":
        """How many there are of each event that there is."""
        import numpy

        found = numpy.bincount(self.columns["event"], minlength=len(Event)).tolist()
        return {event: found[event] for event in Event if found[event]}

    @classmethod
    def load(cls, path: "str | os.PathLike[str] | IO[bytes]") -> "Workload":
        """Reads what `save` wrote, from a path or a seekable binary file.

        Raises: `FormatError` for anything else, naming the file, what was found and what was expected.
        """
        return _load(path)

    def save(self, path: "str | os.PathLike[str] | IO[bytes]") -> None:
        """Writes the `.npz` file that `load` reads: every column, and `about`, a JSON object as UTF-8 in uint8.

        `about` has `kind` ("xsave workload"), `version` (1), `source`, `names` (number as text to name), `skipped` and
        `assumptions`.
        """
        import json

        import numpy

        about = {
            "kind": _KIND,
            "version": _VERSION,
            "source": self.source,
            "names": {str(tid): name for tid, name in sorted(self.names.items())},
            "skipped": self.skipped,
            "assumptions": self.assumptions,
        }
        arrays: "dict[str, Any]" = {_ABOUT: numpy.frombuffer(json.dumps(about).encode(), numpy.uint8), **self.columns}
        if isinstance(path, (str, os.PathLike)):
            # Not by name: numpy would put .npz behind a name that does not end in it.
            with open(path, "wb") as file:
                numpy.savez_compressed(file, **arrays)
        else:
            numpy.savez_compressed(path, **arrays)


# -- reading -----------------------------------------------------------------------------------------------


def _load(path: "str | os.PathLike[str] | IO[bytes]") -> Workload:
    import struct
    import zlib
    from zipfile import BadZipFile, ZipFile

    name = os.fspath(path) if isinstance(path, (str, os.PathLike)) else str(getattr(path, "name", "<stream>"))
    try:
        with ZipFile(path) as archive:
            return _unpack(archive, name)
    except FormatError:
        raise
    except OSError as problem:
        raise FormatError(f"{name}: {problem.strerror or problem}, expected a workload's .npz") from problem
    except (BadZipFile, EOFError, RuntimeError, ValueError, struct.error, zlib.error) as problem:
        # RuntimeError: encrypted; NotImplementedError, which is one: compressed in another way.
        raise FormatError(f"{name}: {problem}, expected a workload's .npz") from problem


def _unpack(archive: "ZipFile", name: str) -> Workload:
    import numpy

    expected = {f"{each}.npy" for each in (_ABOUT, *COLUMNS)}
    found = archive.namelist()
    if sorted(found) != sorted(expected):
        wrong = sorted(expected.symmetric_difference(found)) or ["a member twice"]
        raise FormatError(f"{name}: {'lacks' if wrong[0] in expected else 'has'} {wrong[0]!r}, expected the members of "
                          "a workload")
    about = _about(_array(archive, _ABOUT, "|u1", _ABOUT_MAX, name).tobytes(), name)
    columns: "dict[str, NDArray[Any]]" = {}
    for column, form in COLUMNS.items():
        columns[column] = _array(archive, column, form, None, name)
        if len(columns[column]) != len(columns["time"]):
            raise FormatError(f"{name}: column {column} has {len(columns[column])} rows, expected "
                              f"{len(columns['time'])} as of time")
    for column, low, high in (("event", 0, len(Event) - 1), ("flag", -1, 1)):
        values = columns[column]
        outside = numpy.flatnonzero((values < low) | (values > high))
        if len(outside):
            raise FormatError(f"{name}: column {column} is {values[outside[0]]} in row {outside[0]}, expected {low} to "
                              f"{high}")
    return Workload(columns, *about)


def _array(archive: "ZipFile", column: str, form: str, most: "int | None", name: str) -> "NDArray[Any]":
    """A member's array. Nothing is allocated before its sizes agree with each other."""
    import numpy
    from numpy.lib import format as npy

    info = archive.getinfo(f"{column}.npy")
    with archive.open(info) as stream:
        if npy.read_magic(stream) != (1, 0):
            raise FormatError(f"{name}: {column} has another .npy version, expected 1.0")
        shape, _, dtype = npy.read_array_header_1_0(stream)
        start = stream.tell()
        if dtype.str != form or len(shape) != 1:
            raise FormatError(f"{name}: {column} is {dtype.str} of shape {shape}, expected {form} of one dimension")
        size = shape[0] * dtype.itemsize
        if size < 0 or start + size != info.file_size or (most is not None and size > most):
            raise FormatError(f"{name}: {column} has {info.file_size - start} bytes, expected {size} for shape {shape}")
        if size > info.compress_size * _RATIO:
            raise FormatError(f"{name}: {column} has {info.compress_size} bytes packed, expected more for {size}")
        # Read behind the array too: that is where the archive's checksum is checked.
        data = stream.read(size) + stream.read(1)
    if len(data) != size:
        raise FormatError(f"{name}: {column} has {len(data)} bytes, expected {size}")
    array: "NDArray[Any]" = numpy.frombuffer(data, dtype)
    return array


def _about(text: bytes, name: str) -> "tuple[dict[int, str], dict[str, int], str, list[str]]":
    """Names, skipped lines, source and assumptions."""
    import json

    try:
        about = json.loads(text)
    except (ValueError, RecursionError) as problem:
        raise FormatError(f"{name}: about is no JSON: {problem}") from problem
    if not isinstance(about, dict) or about.get("kind") != _KIND or about.get("version") != _VERSION:
        raise FormatError(f"{name}: about is {text[:60]!r}, expected kind {_KIND!r} and version {_VERSION}")
    names, skipped, source, assumptions = (about.get(each) for each in ("names", "skipped", "source", "assumptions"))
    if not isinstance(names, dict) or not isinstance(skipped, dict) or not isinstance(source, str) or \
            not isinstance(assumptions, list):
        raise FormatError(f"{name}: about lacks names, skipped, source or assumptions, or has others in their place")
    tasks = {int(tid): comm for tid, comm in names.items() if tid.isascii() and tid.isdigit() and len(tid) <= 10}
    if len(tasks) != len(names) or not all(isinstance(comm, str) for comm in tasks.values()):
        raise FormatError(f"{name}: names in about are not all numbers and text")
    if not all(isinstance(count, int) and count >= 0 for count in skipped.values()):
        raise FormatError(f"{name}: skipped in about are not all counts")
    if not all(isinstance(each, str) for each in assumptions):
        raise FormatError(f"{name}: assumptions in about are not all text")
    return tasks, skipped, source, assumptions
