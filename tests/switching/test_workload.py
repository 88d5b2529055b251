"""Workloads and their file: what goes in comes out, and a damaged file is said to be one."""

import io
import json
import pickle
import random
import subprocess
import sys
import zipfile

import numpy as np
import pytest

from tests import skips
from tests.scale import repeats
from tests.switching.lines import SMALL, rows, text_of
from xsave import FormatError
from xsave.switching import Event, Workload, read_trace
from xsave.switching.workload import COLUMNS

MEMBERS = ("about", *COLUMNS)


def columns_for(count):
    return {name: np.zeros(count, form) for name, form in COLUMNS.items()}


def saved(workload):
    file = io.BytesIO()
    workload.save(file)
    return file.getvalue()


def loaded(data):
    return Workload.load(io.BytesIO(data))


def same(a, b):
    assert rows(a) == rows(b)
    for name in COLUMNS:
        assert a.columns[name].dtype == b.columns[name].dtype == np.dtype(COLUMNS[name])
    assert (a.names, a.skipped, a.source, a.assumptions) == (b.names, b.skipped, b.source, b.assumptions)


def rewritten(**members):
    """A good file with members replaced by an array or by bytes, or left out (None)."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(saved(read_trace(SMALL)))) as good, zipfile.ZipFile(out, "w") as archive:
        for name in dict.fromkeys([*MEMBERS, *members]):
            data = members.get(name, good.read(f"{name}.npy") if name in MEMBERS else None)
            if isinstance(data, np.ndarray):
                file = io.BytesIO()
                np.save(file, data)
                data = file.getvalue()
            if data is not None:
                archive.writestr(f"{name}.npy", data)
    return out.getvalue()


def about(**changes):
    """The member `about` with some of its values changed, or left out (...)."""
    with np.load(io.BytesIO(saved(read_trace(SMALL)))) as archive:
        value = json.loads(archive["about"].tobytes())
    value |= changes
    text = json.dumps({name: each for name, each in value.items() if each is not ...})
    return np.frombuffer(text.encode(), np.uint8)


# -- the workload ------------------------------------------------------------------------------------------


def test_columns_are_attributes():
    workload = read_trace(SMALL)
    for name in COLUMNS:
        assert getattr(workload, name) is workload.columns[name]
    assert len(workload) == len(workload.time) == sum(workload.counts().values())
    assert workload.nbytes == sum(np.dtype(form).itemsize for form in COLUMNS.values()) * len(workload)
    assert workload.nbytes <= 64 * len(workload)
    assert repr(workload) == f"<Workload <bytes>: {len(workload)} events>"
    with pytest.raises(AttributeError, match="nonsense"):
        _ = workload.nonsense
    same(pickle.loads(pickle.dumps(workload)), workload)


def test_a_workload_of_ones_own():
    columns = columns_for(3)
    columns["event"][:] = Event.KVM_FPU
    workload = Workload(columns, {1: "init"}, source="synthetic", assumptions=["nothing else runs"])
    assert workload.counts() == {Event.KVM_FPU: 3}
    assert workload.skipped == {}
    same(loaded(saved(workload)), workload)
    empty = Workload(columns_for(0))
    assert len(empty) == 0 and empty.counts() == {}
    same(loaded(saved(empty)), empty)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"time": np.zeros(4, "<u8")}, "column cpu is <u2 of shape .3,., expected <u2 of shape .4,."),
        ({"cpu": np.zeros(3, "<u4")}, "column cpu is <u4"),
        ({"flag": np.zeros(3, "u1")}, "column flag is .u1"),
        ({"line": np.zeros((3, 1), "<u4")}, "column line is <u4 of shape .3, 1."),
        ({"extra": np.zeros(3)}, "columns .*extra"),
    ],
)
def test_wrong_columns(change, message):
    with pytest.raises(ValueError, match=message):
        Workload(columns_for(3) | change)
    missing = columns_for(3)
    del missing["state"]
    with pytest.raises(ValueError, match="columns"):
        Workload(missing)


def test_numpy_comes_with_the_first_trace_only():
    code = "import sys, xsave.switching.traces, xsave.switching.workload; print('numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


# -- the file ----------------------------------------------------------------------------------------------


def test_round_trip(tmp_path):
    workload = read_trace(SMALL)
    workload.names[77] = "\u00e9\ud83d"  # half of a surrogate pair, as a name may hold
    same(loaded(saved(workload)), workload)
    for path in (tmp_path / "no suffix", str(tmp_path / "a.npz")):
        workload.save(path)
        same(Workload.load(path), workload)
        with open(path, "rb") as file:
            same(Workload.load(file), workload)
    with np.load(tmp_path / "a.npz", allow_pickle=False) as archive:
        assert sorted(archive.files) == sorted(MEMBERS)
        assert np.array_equal(archive["time"], workload.time)
    assert saved(workload) == saved(workload)


@skips.needs_data()
def test_round_trip_of_a_recorded_trace():
    workload = read_trace(text_of("kvm"))
    same(loaded(saved(workload)), workload)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "expected a workload's .npz"),
        (SMALL, "expected a workload's .npz"),
        (rewritten(time=None), "lacks 'time.npy', expected the members"),
        (rewritten(extra=np.zeros(3)), "has 'extra.npy', expected the members"),
        (rewritten(cpu=np.zeros(3, "<u2")), "column cpu has 3 rows, expected .* as of time"),
        (rewritten(cpu=np.zeros(3, ">u2")), "cpu is >u2 of shape .3,., expected <u2 of one dimension"),
        (rewritten(tid=np.zeros(3, "<i8")), "tid is <i8"),
        (rewritten(tid=np.zeros((3, 1), "<i4")), "tid is <i4 of shape .3, 1."),
        (rewritten(tid=np.zeros((), "<i4")), "tid is <i4 of shape .., expected"),
        (rewritten(tid=np.array([None, {}])), "tid is .O of shape .2,."),
        (rewritten(tid=b"garbage"), "expected a workload's .npz"),
        (rewritten(tid=b"\x93NUMPY\x03\x00\x00\x00\x00\x00"), "tid has another .npy version, expected 1.0"),
        (rewritten(about=np.zeros(3, "u1")), "about is no JSON"),
        (rewritten(about=np.frombuffer(b"[" * 200_000, "u1")), "about is no JSON"),
        (rewritten(about=np.frombuffer(b"\xff\xfe", "u1")), "about is no JSON"),
        (rewritten(about=np.frombuffer(b"[]", "u1")), "about is .*, expected kind"),
        (rewritten(about=about(kind="other")), "expected kind 'xsave workload' and version 1"),
        (rewritten(about=about(version=2)), "expected kind 'xsave workload' and version 1"),
        (rewritten(about=about(names=...)), "about lacks names, skipped, source or assumptions"),
        (rewritten(about=about(source=3)), "about lacks names, skipped, source or assumptions"),
        (rewritten(about=about(names={"x": "y"})), "names in about"),
        (rewritten(about=about(names={"12345678901": "y"})), "names in about"),
        (rewritten(about=about(names={"1": 2})), "names in about"),
        (rewritten(about=about(skipped={"garbled line": -1})), "skipped in about"),
        (rewritten(about=about(skipped={"garbled line": "1"})), "skipped in about"),
        (rewritten(about=about(assumptions=[1])), "assumptions in about"),
    ],
)  # fmt: skip
def test_damaged_file(data, message):
    with pytest.raises(FormatError, match=message) as caught:
        loaded(data)
    assert str(caught.value).startswith("<stream>: ")


@pytest.mark.parametrize(("column", "value"), [("event", len(Event)), ("event", 255), ("flag", 2), ("flag", -2)])
def test_values_out_of_range(column, value):
    workload = read_trace(SMALL)
    workload.columns[column][3] = value
    with pytest.raises(FormatError, match=f"column {column} is {value} in row 3, expected"):
        loaded(saved(workload))


def test_missing_file(tmp_path):
    with pytest.raises(FormatError, match="none: No such file"):
        Workload.load(tmp_path / "none")


def test_a_size_that_lies_allocates_nothing():
    # A header of a thousand billion rows over a few bytes, and a file of that size that deflate could not make.
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<u8", "fortran_order": False, "shape": (10**12,)})
    with pytest.raises(FormatError, match="time has 16 bytes, expected 8000000000000"):
        loaded(rewritten(time=header.getvalue() + bytes(16)))
    small = io.BytesIO()
    np.lib.format.write_array_header_1_0(small, {"descr": "<u8", "fortran_order": False, "shape": (500_000_000,)})
    data = bytearray(rewritten(time=small.getvalue()))
    # The size in the archive's directory, whose entry of 46 bytes has it at 24.
    at = data.index(b"time.npy", data.index(b"PK\x01\x02")) - 46 + 24
    data[at : at + 4] = (len(small.getvalue()) + 4_000_000_000).to_bytes(4, "little")
    with pytest.raises(FormatError, match=r"time has .* bytes packed, expected more for 4000000000"):
        loaded(bytes(data))


def test_damage_at_random():
    good = read_trace(SMALL)
    data = saved(good)
    outcomes = set()
    for seed in range(repeats(600)):
        rng = random.Random(seed)
        damaged = bytearray(data)
        if seed % 3 == 0:
            del damaged[rng.randrange(len(data)) :]
        else:
            for _ in range(rng.choice([1, 4, 40])):
                damaged[rng.randrange(len(data))] = rng.randrange(256)
        try:
            found = loaded(bytes(damaged))
        except FormatError:
            outcomes.add("refused")
        else:
            # Only what no checksum covers (dates, flags) can be damaged without notice.
            same(found, good)
            outcomes.add("whole")
    assert "refused" in outcomes
