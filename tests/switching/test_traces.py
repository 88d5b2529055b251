"""Recorded traces to columns: every value against regular expressions, and whatever a file may hold."""

import gzip
import io
import os
import random
import re
import string
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import skips
from tests.oracle import traces as oracle
from tests.packers import PACKERS
from tests.paths import DATA
from tests.scale import repeats
from tests.switching.lines import SMALL, TRACES, fpu, line, path_of, rows, switch, text_of
from xsave import FormatError
from xsave._events import EVENTS, LONGEST, REASONS, WIDTHS, EventReader, recognise
from xsave.switching import Event, read_trace, traces
from xsave.switching.workload import COLUMNS

GOOD = line("cat", 12, 0, 10**9, "kvm:kvm_fpu", "load")


def check(text, ftrace=False):
    """Reads `text` and compares all of it with the regular expressions' result; None where it is no trace."""
    expected = oracle.read(text, ftrace)
    lines = len(expected.rows) + sum(expected.skipped.values())
    garbled = expected.skipped["garbled line"]
    if not expected.rows or 2 * garbled > lines:
        with pytest.raises(FormatError):
            read_trace(text)
        return None
    found = read_trace(text)
    assert rows(found) == expected.rows
    assert found.skipped == dict(expected.skipped)
    names = {tid: name for tid, name in found.names.items() if tid}
    assert names == {tid: name[:27].encode("latin-1").decode("utf-8", "backslashreplace")
                     for tid, name in expected.names.items()}
    return found


# -- the recorded traces -----------------------------------------------------------------------------------


@skips.needs_data()
@pytest.mark.parametrize("name", TRACES)
def test_recorded_trace(name):
    text = text_of(name, 200_000)
    found = check(text)
    assert found.skipped == {}
    assert len(found) == text.count(b"\n")


@skips.needs_data()
@pytest.mark.parametrize("name", TRACES)
def test_recorded_trace_has_as_many_events_as_its_table_says(name):
    about = (DATA / "traces" / "README.md").read_text()
    table = dict(re.findall(r"`([\w-]+)\.perf-script\.txt\.xz` \| ([\d,]+) \|", about))
    found = read_trace(path_of(name))
    assert len(found) == int(table[name].replace(",", ""))
    assert found.skipped == {} and found.assumptions == []
    assert found.source == str(path_of(name))
    assert found.nbytes <= 64 * len(found)
    counts = Counter(re.findall(rb"^.*? \[\d+\] +[\d.]+: +([a-z0-9_]+:[a-z0-9_]+): ", text_of(name), re.M))
    assert found.counts() == {Event(oracle.EVENTS[event.decode()]): count for event, count in counts.items()}


@skips.needs_data()
@pytest.mark.parametrize("flags", ["d..2.", ".N..1", "....", ""])
@pytest.mark.parametrize("tgid", [False, True])
@pytest.mark.parametrize("name", TRACES)
def test_recorded_trace_as_ftrace_prints_it(name, flags, tgid):
    # Task -1 is perf's own invention.
    lines = [each for each in text_of(name, 600).splitlines(keepends=True) if b" -1 [" not in each]
    perf = read_trace(b"".join(lines))
    text = oracle.as_ftrace(b"".join(lines), flags, tgid)
    ftrace = check(text, ftrace=True)
    assert len(ftrace) == len(lines)
    assert ftrace.names == perf.names
    for column in COLUMNS:
        if column != "line":
            assert np.array_equal(ftrace.columns[column], perf.columns[column]), column
    assert np.array_equal(ftrace.line, perf.line + 6)


# -- single lines ------------------------------------------------------------------------------------------


def test_small_trace():
    found = check(SMALL)
    assert found.skipped == {
        "unknown event": 2, "impossible mask": 2, "time going backwards": 1, "lost events": 1,
    }
    assert set(found.counts()) == set(Event)
    assert found.names == {12: "cat", 13: "a b", 77: "vm", 4194304: "gone", 0: "swapper"}
    assert found.assumptions == [
        "lines that were left out do not matter (unknown event: 2, time going backwards: 1, impossible mask: 2, "
        "lost events: 1)"
    ]


@pytest.mark.parametrize(
    ("text", "values"),
    [
        (switch("a", 5, "R+", 6, "b"), {"event": 0, "tid": 5, "other": 6, "state": ord("R"), "flag": -1}),
        (switch("a", 5, "X", 0, "swapper/0", shown=(":-1", -1)), {"tid": 5, "other": 0, "state": ord("X")}),
        (fpu("dropped", 0, 0xE7, 1 << 63 | 0x200E7), {"event": 3, "flag": 0, "xfeatures": 0xE7, "state": 0}),
        (fpu("dropped", 1, 0xE7, 1 << 63 | 0x200E7), {"flag": 1, "xcomp_bv": 1 << 63 | 0x200E7, "other": -1}),
        (fpu("dropped", 1, 0x60000, 1 << 63 | 0x600E7), {"xfeatures": 0x60000, "fpu": 0xFFFF888102A00CC0}),
        (fpu("dropped", 1, 0x40000, 0), {"xfeatures": 0x40000, "xcomp_bv": 0}),
        (line("a", 5, 3, 10**9, "msr:write_msr", "c0000102, value ffffffffffffffff"),
         {"event": 12, "fpu": 0xC0000102, "xfeatures": (1 << 64) - 1, "cpu": 3, "tid": 5}),
        (line("a", 5, 65535, 10**9, "msr:read_msr", "1c4, value 40000"), {"event": 13, "cpu": 65535}),
        (line("a", 5, 0, 10**9, "kvm:kvm_fpu", "unload"), {"event": 14, "flag": 0}),
        (line("a", 5, 0, 10**9, "kvm:kvm_fpu", "load"), {"event": 14, "flag": 1, "fpu": 0}),
        (line("a", 5, 0, 10**9, "kvm:kvm_exit", "vcpu 0 reason XSETBV rip 0x1"), {"event": 16, "flag": 1}),
        (line("a", 5, 0, 10**9, "kvm:kvm_exit", "vcpu 0 reason xsetbv rip 0x1"), {"event": 16, "flag": 1}),
        (line("a", 5, 0, 10**9, "kvm:kvm_exit", "reason CPUID rip 0x1"), {"event": 16, "flag": -1}),
        (line("a", 5, 0, 10**9, "power:cpu_idle", "state=3 cpu_id=0"), {"event": 20, "fpu": 3}),
        (line("a", 2147483647, 0, 10**9, "kvm:kvm_pio"), {"tid": 2147483647, "event": 19}),
        (b"a 5 [000] 12.123456789: kvm:kvm_entry:\n", {"time": 12_123_456_789}),
        (b"a 5 [000] 9999999999.999999: kvm:kvm_entry: vcpu 0\n", {"time": 9_999_999_999_999_999_000}),
        (b"a 5 [000] 12.123456: kvm:kvm_entry: vcpu 0\r\n", {"time": 12_123_456_000}),
        (b"                 5 [000] 12.123456: kvm:kvm_entry: vcpu 0\n", {"tid": 5}),
        (b"  a-5  [001] dNh2. 12.123456: write_msr: 1c4, value 40000\n", {"event": 12, "cpu": 1, "fpu": 0x1C4}),
        (b"  a-5 (    5) [001] 12.123456: kvm_fpu: load\n", {"event": 14, "tid": 5}),
        (b"  <...>-5 (-------) [001] ..... 12.123456: x86_fpu_dropped: x86/fpu: 00000000deadbeef load: 0 "
         b"xfeatures: 3 xcomp_bv: 8000000000000007\n", {"event": 3, "fpu": 0xDEADBEEF, "flag": 0}),
    ],
)
def test_line(text, values):
    found = read_trace(text)
    assert len(found) == 1 and found.skipped == {}
    assert {name: int(found.columns[name][0]) for name in values} == values
    check(text, ftrace=b"-5" in text)


@pytest.mark.parametrize(
    "text",
    [
        b"nothing of the kind\n",
        b"a 5 [00] 12.123456: kvm:kvm_entry:\n",
        b"a 5 [65536] 12.123456: kvm:kvm_entry:\n",
        b"a 5[000] 12.123456: kvm:kvm_entry:\n",
        b"a 5 [000]12.123456: kvm:kvm_entry:\n",
        b"a 5 [000] 12.12345: kvm:kvm_entry:\n",
        b"a 5 [000] 12.1234567: kvm:kvm_entry:\n",
        b"a 5 [000] 12.1234567890: kvm:kvm_entry:\n",
        b"a 5 [000] 12345678901.123456: kvm:kvm_entry:\n",
        b"a 5 [000] 12: kvm:kvm_entry:\n",
        b"a 5 [000] 12.123456 kvm:kvm_entry:\n",
        b"a 5 [000] 12.123456: kvm:kvm_entry vcpu 0\n",
        b"a 5 [000] 12.123456:\n",
        b"a 5 [000] 12.123456: :\n",
        b"a 2147483648 [000] 12.123456: kvm:kvm_entry:\n",
        b"a x [000] 12.123456: kvm:kvm_entry:\n",
        b"a5 [000] 12.123456: kvm:kvm_entry:\n",
        fpu("dropped", 2, 3, 1 << 63),
        fpu("dropped", "", 3, 1 << 63),
        fpu("dropped", 11, 3, 1 << 63),
        fpu("dropped", 1, 1 << 64, 1 << 63),
        fpu("dropped", 1, 3, 1 << 63).replace(b"xfeatures", b"xfeature"),
        fpu("dropped", 1, 3, 1 << 63).replace(b"load", b"initialized"),
        fpu("dropped", 1, 3, 1 << 63).replace(b"0xffff888102a00cc0", b"(____ptrval____)"),
        fpu("dropped", 1, 3, 1 << 63).replace(b"\n", b"g\n"),
        line("a", 5, 0, 10**9, "msr:write_msr", "1c4 value 40000"),
        line("a", 5, 0, 10**9, "msr:write_msr", "1c4, value "),
        line("a", 5, 0, 10**9, "msr:write_msr", ""),
        line("a", 5, 0, 10**9, "kvm:kvm_fpu", "reload"),
        line("a", 5, 0, 10**9, "kvm:kvm_fpu", "loaded"),
        line("a", 5, 0, 10**9, "kvm:kvm_exit", "vcpu 0 rip 0x1"),
        line("a", 5, 0, 10**9, "power:cpu_idle", "state=x"),
        line("a", 5, 0, 10**9, "power:cpu_idle", "state=99999999999999999999"),
        switch("a", 5, "0", 6, "b"),
        switch("a", 5, "", 6, "b"),
        switch("a", -5, "S", 6, "b"),
        switch("a", 5, "S", 2147483648, "b"),
        switch("a", 5, "S", 6, "b").replace(b" next_prio=120", b""),
        switch("a", 5, "S", 6, "b").replace(b" ==>", b""),
        line("a", 5, 0, 10**9, "sched:sched_switch", "a:5 [120] S ==> b:6 [120]"),
        b"a" * (LONGEST + 1) + b"\n",
        b"\xff\x00\n",
    ],
)
def test_garbled_line(text):
    # Alone it makes the trace one of garbled lines; between two good ones it is left out.
    with pytest.raises(FormatError, match=r"line 1 is .*, expected a line of `perf script"):
        read_trace(text)
    found = read_trace(GOOD + text + GOOD)
    assert found.skipped == {"garbled line": 1}
    assert found.line.tolist() == [1, 3]


def test_a_line_may_be_as_long_as_the_limit():
    text = line("a", 5, 0, 10**9, "kvm:kvm_entry", "x")
    longest = text[:-1] + b"x" * (LONGEST + 1 - len(text)) + b"\n"
    assert len(read_trace(longest)) == 1
    assert read_trace(longest + longest[:-1] + b"x\n").skipped == {"garbled line": 1}


COMMS = [
    "a b", "a:b", "[000]", "] [", "==>", "a ==> b", "load: 1", "x -1 [000] 1.5:", "1 [000] 1.123:", "[000] 1.123456:",
    " prev_pid=1", "next_pid=1", " next_pid=1 n=2", "prev_state=S", " ==> next_comm=", "-1", "a-1", "#",
    "CPU:1 [LOST 5", "(123)", "a (1) [000]", "kvm:kvm_fpu:", "0", "é", "",
]  # fmt: skip
PIECES = st.sampled_from(
    [*string.printable[:-5], " ", " ", "[000] ", "==>", " prev_pid=1", " next_pid=2", "1.123456: ", ": ", "-1", "12 "]
)
COMM = st.lists(PIECES, max_size=15).map(lambda parts: "".join(parts)[:15].strip(" "))


def names_told(comm, other):
    """Checks the events of a task with that name: first line, switch, and FPU's line."""
    xcomp = 1 << 63 | 0x600E7
    text = fpu("regs_activated", 1, 0xA3, xcomp, comm, 31) + switch(comm, 31, "S", 32, other)
    text += fpu("regs_deactivated", 1, 0x600A3, xcomp, comm, 31) + line(other, 32, 0, 10**9, "kvm:kvm_fpu", "load")
    found = check(text)
    assert found.event.tolist() == [1, 0, 2, 14]
    assert found.tid.tolist() == [31, 31, 31, 32]
    assert found.other.tolist() == [-1, 32, -1, -1]
    assert found.state.tolist() == [0, ord("S"), 0, 0]
    assert found.xfeatures.tolist() == [0xA3, 0, 0x600A3, 0]
    # Blanks around a name cannot be told from perf's own.
    assert found.names == {31: comm.strip(" "), 32: other.strip(" ")}


@pytest.mark.parametrize("comm", COMMS)
def test_names_that_look_like_something_else(comm):
    names_told(comm, "other")
    names_told("cat", comm)
    names_told(comm, comm)


@given(COMM, COMM)
def test_any_names(comm, other):
    names_told(comm, other)


@given(COMM, COMM)
def test_any_names_in_ftrace(comm, other):
    text = f"# tracer: nop\n{comm:>16}-31      [001] d..2. 1.000000: sched_switch: prev_comm={comm} prev_pid=31 "
    text += f"prev_prio=120 prev_state=S ==> next_comm={other} next_pid=32 next_prio=120\n"
    text += f"{other:>16}-32      [001] ..... 1.000001: kvm_fpu: load\n"
    found = check(text.encode(), ftrace=True)
    assert found.tid.tolist() == [31, 32]
    assert found.names == {31: comm, 32: other}


def test_names_are_the_last_ones_and_bounded():
    text = b"".join(line(f"t{n % 7}", 1 + n % 5000, 0, 10**9, "kvm:kvm_pio") for n in range(11_000))
    assert check(text).names[1] == f"t{10000 % 7}"
    long = read_trace(line("x" * 40, 5, 0, 10**9, "kvm:kvm_pio"))
    assert long.names == {5: "x" * 27}
    assert read_trace(b"\xff\x80 5 [000] 1.000000: kvm:kvm_pio: x\n").names == {5: "\\xff\\x80"}


def test_time_is_watched_on_each_cpu_of_its_own():
    times = [(0, 5000), (1, 3000), (0, 5000), (0, 4000), (1, 4000)]
    found = check(b"".join(line("a", 5, cpu, time, "kvm:kvm_pio") for cpu, time in times))
    assert found.time.tolist() == [5000, 3000, 5000, 4000]
    assert found.skipped == {"time going backwards": 1}


@pytest.mark.parametrize(
    ("xfeatures", "xcomp_bv", "impossible"),
    [
        (1 << 63, 1 << 63, True),
        (0x400E7, 1 << 63 | 0x400E7, True),
        (0x400E7, 1 << 63 | 0x600E7, False),
        (0x400E7, 1 << 63 | 0xE7, False),
        (0xE7, 1 << 63 | 0x400E7, False),
        (1 << 62, 0, False),
    ],
)
def test_impossible_masks(xfeatures, xcomp_bv, impossible):
    found = check(GOOD + fpu("dropped", 0, xfeatures, xcomp_bv))
    assert found.skipped == ({"impossible mask": 1} if impossible else {})
    assert len(found) == 2 - impossible


# -- whole files -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", r"line 1 is the file's end, and no line before it says anything, expected a line of `perf script"),
        (b"\n\n# nothing\n", r"line 4 is the file's end, and no line"),
        (GOOD[:-1], r"without an event before it \(truncated line: 1\), expected"),
        (b"a 5 [000] 1.000000: cycles:\n" * 3, r"line 4 is the file's end, without an event .* \(unknown event: 3\)"),
        (GOOD + b"one\n" + b"two\n", r"line 2 is 'one', expected .* 2 of 3 lines are garbled"),
        (b"\x7fELF" + bytes(5000), r"line 1 is '\\x7fELF"),
        (bytes(1 << 21), r"line 1 is '\\x00"),
        (b"x" * 5000 + b"\n" + GOOD, None),
    ],
)
def test_what_is_no_trace(text, message):
    if message is None:
        assert read_trace(text).line.tolist() == [2]
        return
    with pytest.raises(FormatError, match=message) as caught:
        read_trace(text)
    assert str(caught.value).startswith("<bytes>: ")


def test_half_may_be_garbled_and_no_more():
    assert len(read_trace((GOOD + b"garbage\n") * 100)) == 100
    with pytest.raises(FormatError, match=r"line 201 is 'more', expected .* 101 of 201 lines"):
        read_trace(GOOD * 100 + b"#\n" * 100 + b"more\n" * 101)


def test_another_file_is_not_read_to_its_end():
    class Endless(io.RawIOBase):
        count = 0

        def readable(self):
            return True

        def read(self, size=-1):
            self.count += size
            assert self.count < 1 << 24
            return b"garbage\n" * (size // 8) or b"g"

    with pytest.raises(FormatError, match="line 1 is 'garbage'"):
        read_trace(Endless())


def test_missing_file(tmp_path):
    with pytest.raises(FormatError, match="No such file"):
        read_trace(tmp_path / "none")
    with pytest.raises(FormatError, match="is a directory"):
        read_trace(tmp_path)


@pytest.mark.parametrize("pack", [bytes, *PACKERS.values()], ids=["plain", *PACKERS])
def test_ways_to_a_trace(pack, tmp_path):
    whole = SMALL * 800
    expected = rows(read_trace(whole))
    packed = pack(whole)
    path = tmp_path / "a trace"
    path.write_bytes(packed)
    with path.open("rb") as file:
        for source in (path, str(path), packed, bytearray(packed), memoryview(packed), file, io.BytesIO(packed)):
            assert rows(read_trace(source)) == expected
        assert not file.closed
    code = "from xsave.switching import read_trace; print(len(read_trace('-')))"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, input=packed, capture_output=True, check=True, cwd=os.getcwd())
    assert int(done.stdout) == len(expected)


def test_a_cut_stream_is_read_as_far_as_it_goes():
    noise = b"".join(line("a", random.Random(n).randrange(1, 1 << 22), 0, n * 1000, "kvm:kvm_pio") for n in range(9000))
    packed = gzip.compress(noise)
    found = read_trace(packed[: len(packed) // 2])
    assert 1000 < len(found) < 9000
    assert found.assumptions[0].startswith("the trace is whole although its compressed stream damaged or cut")
    with pytest.raises(FormatError, match="compressed stream damaged"):
        read_trace(packed[:12])


# -- pieces ------------------------------------------------------------------------------------------------


def columns_for(rows):
    return {name: np.zeros(rows, form) for name, form in COLUMNS.items()}


@pytest.mark.parametrize("step", [LONGEST + 1, 5000, 10_000])
def test_chunks_of_any_size_read_alike(step, monkeypatch):
    rng = random.Random(step)
    pieces = [SMALL, b"z" * 9000 + b"\n", b"y" * LONGEST + b"\n", b"y" * (LONGEST + 1) + b"\n", b"\n" * 50]
    text = SMALL + b"".join(rng.choice(pieces) for _ in range(40)) + b"cut off"
    whole = check(text)
    monkeypatch.setattr(traces, "_CHUNK", step)
    monkeypatch.setattr(traces, "_ROWS", 7)
    found = read_trace(text)
    assert rows(found) == rows(whole)
    assert found.skipped == whole.skipped and found.names == whole.names


def test_reader_stops_where_columns_are_full_and_goes_on():
    reader, done, found = EventReader(False), 0, []
    small = columns_for(3)
    while done < len(SMALL):
        events, consumed = reader.feed(SMALL[done:], list(small.values()))
        assert events <= 3 and (events or consumed)
        done += consumed
        found += list(zip(*(small[name][:events].tolist() for name in oracle.COLUMNS), strict=True))
    reader = EventReader(False)
    large = columns_for(1000)
    events, consumed = reader.feed(memoryview(SMALL), list(large.values()), 100)
    assert (events, consumed) == (len(found), len(SMALL))
    assert [tuple(large[name][row].item() for name in oracle.COLUMNS) for row in range(100, 100 + events)] == found
    assert not any(column[:100].any() or column[100 + events :].any() for column in large.values())
    assert reader.line == SMALL.count(b"\n") + 1
    assert reader.lines == SMALL.count(b"\n") - 2


def test_reader_refuses_wrong_memory():
    reader = EventReader(False)
    good = list(columns_for(4).values())
    with pytest.raises(ValueError, match="11 columns"):
        reader.feed(GOOD, good[:-1])
    with pytest.raises(ValueError, match="column 1 has 6 bytes, expected 4 times 2"):
        reader.feed(GOOD, [good[0], np.zeros(3, "<u2"), *good[2:]])
    with pytest.raises(ValueError, match="row 5 of 4"):
        reader.feed(GOOD, good, 5)
    with pytest.raises(BufferError):
        reader.feed(GOOD, [*good[:-1], bytes(16)])
    with pytest.raises(ValueError, match="contiguous"):
        reader.feed(GOOD, [np.zeros((4, 2), "<u8")[:, 0], *good[1:]])
    with pytest.raises((OverflowError, ValueError)):
        reader.feed(GOOD, good, -1)
    assert reader.feed(GOOD, good, 4) == (0, 0)
    assert reader.feed(b"", good) == (0, 0)
    assert reader.feed(GOOD, good, 3) == (1, len(GOOD))


def test_recognition():
    assert recognise(SMALL)[1] == 0 < recognise(SMALL)[0]
    assert recognise(oracle.as_ftrace(GOOD * 5)) == (0, 5)
    assert recognise(b"") == recognise(b"\n[[[\n[000] 1.123456:\n\xff") == (0, 0)


def test_kernel_and_package_agree():
    assert [event.name for event in Event] == list(EVENTS)
    assert [event.value for event in Event] == list(range(len(EVENTS)))
    assert {name: np.dtype(form).itemsize for name, form in COLUMNS.items()} == WIDTHS
    assert len(set(REASONS)) == len(REASONS)
    assert sum(WIDTHS.values()) <= 64


# -- hostile text ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ftrace", [False, True])
def test_cut_at_every_byte(ftrace):
    text = oracle.as_ftrace(FLIPPED) if ftrace else SMALL
    for size in range(0, len(text), max(1, len(text) // repeats(len(text)))):
        check(text[:size], ftrace)


# Lines that perf and ftrace can both print.
FLIPPED = b"".join(each for each in SMALL.splitlines(keepends=True) if b": " in each and b" -1 [" not in each
                   and b"cycles" not in each)  # fmt: skip


@pytest.mark.parametrize("ftrace", [False, True])
def test_flipped_bytes(ftrace):
    text = oracle.as_ftrace(FLIPPED) if ftrace else SMALL
    for seed in range(repeats(1500)):
        rng = random.Random(seed)
        data = bytearray(text)
        for _ in range(rng.choice([1, 3, 20, 300])):
            at = rng.randrange(len(data))
            data[at] = rng.choice([rng.randrange(256), data[at] ^ 1 << rng.randrange(8), *b" \n[]:=-09af"])
        check(bytes(data), ftrace)


def test_garbage_of_the_right_words():
    words = re.findall(rb"\w+|\W", SMALL)
    for seed in range(repeats(300)):
        rng = random.Random(seed)
        text = b"".join(rng.choice(words) for _ in range(2000))
        try:
            read_trace(text)
        except FormatError:
            pass
