"""The child that holds known registers: its core by the kernel, its threads by ptrace, cores written from ptrace."""

import ctypes
import os
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import skips

pytestmark = skips.needs_native()
if skips.has_native():
    from tests.silicon import states
    from xsave import host
    from xsave.errors import HostError

Values = dict[str, int | bytes]


def registers_of(image: bytes) -> Values:
    """Registers of a standard XSAVE image with the offsets that this CPU enumerates, initial values put in."""
    machine = states.Machine()
    at = {component: offset for component, (offset, _) in machine.standard.items()}
    used = int.from_bytes(image[512:520], "little")

    def piece(component: int, offset: int, size: int) -> bytes:
        return image[at[component] + offset :][:size] if used >> component & 1 else bytes(size)

    fcw, fsw, ftw = struct.unpack_from("<HHB", image)
    values: Values = {"fcw": fcw, "fsw": fsw, "ftw": ftw, "mxcsr": struct.unpack_from("<I", image, 24)[0]}
    values |= {f"st{i}": image[32 + 16 * i :][:10] for i in range(8)}
    for i in range(16):
        value = image[160 + 16 * i :][:16]
        name = "xmm"
        if 2 in at:
            name, value = "ymm", value + piece(2, 16 * i, 16)
        if 6 in at:
            name, value = "zmm", value + piece(6, 32 * i, 32)
        values[f"{name}{i}"] = value
    if 7 in at:
        values |= {f"zmm{16 + i}": piece(7, 64 * i, 64) for i in range(16)}
        values |= {f"k{i}": int.from_bytes(piece(5, 8 * i, 8), "little") for i in range(8)}
    if 9 in at:
        values["pkru"] = int.from_bytes(piece(9, 0, 4), "little")
    if 18 in at:
        values["tilecfg"] = piece(17, 0, 64)
        values |= {f"tmm{i}": piece(18, 1024 * i, 1024) for i in range(8)}
    if 19 in at:
        values |= {f"r{16 + i}": int.from_bytes(piece(19, 8 * i, 8), "little") for i in range(16)}
    return values


def differences(image: bytes, expected: Values) -> list[str]:
    found = registers_of(image)
    return [name for name, value in expected.items() if found.get(name) != value]


def notes_of(path: Path) -> list[tuple[str, int, bytes]]:
    """The notes of an ELF64 core: owner, type, bytes."""
    data = path.read_bytes()
    assert data[:5] == b"\x7fELF\x02"
    start, size, number = struct.unpack_from("<Q", data, 32)[0], *struct.unpack_from("<HH", data, 54)
    notes = []
    for header in range(number):
        kind, _, offset, _, _, length = struct.unpack_from("<IIQQQQ", data, start + size * header)
        position, end = offset, offset + length
        while kind == 4 and position < end:
            name_size, desc_size, note = struct.unpack_from("<III", data, position)
            position += 12
            owner = data[position : position + name_size].rstrip(b"\0").decode()
            position += (name_size + 3) // 4 * 4
            notes.append((owner, note, data[position : position + desc_size]))
            position += (desc_size + 3) // 4 * 4
    return notes


def by_thread(path: Path, note: int) -> dict[int, bytes]:
    """The note of every thread, by thread id."""
    found, tid = {}, 0
    for _, kind, data in notes_of(path):
        if kind == 1:
            tid = struct.unpack_from("<i", data, 32)[0]
        elif kind == note:
            found[tid] = data
    return found


@pytest.fixture(params=[False, True], ids=["waiting", "spinning"])
def child(request: pytest.FixtureRequest, tmp_path: Path) -> "Iterator[host.Child]":
    with host.Child(4, directory=tmp_path, spin=request.param) as running:
        yield running


def test_the_constants_differ_everywhere() -> None:
    lanes = [
        value[j : j + 4]
        for thread in range(4)
        for name, value in host.expected_registers(thread, 0xE7).items()
        if isinstance(value, bytes) and len(value) == 64 and name != "zmm0"
        for j in range(0, 64, 4)
    ]
    assert len(set(lanes)) == len(lanes) == 4 * 31 * 16


def test_formula_of_the_constants() -> None:
    expected = host.expected_registers(2, 0x600E7, True)
    lane = (2 << 16 | 2 << 13 | 17 << 8 | 5) * 0x9E3779B1 % 2**32
    assert expected["zmm17"][20:24] == lane.to_bytes(4, "little")
    assert struct.unpack_from("<4f", expected["zmm0"]) == (2000.5, 2001.5, 2002.5, 2003.5)
    assert (expected["fcw"], expected["mxcsr"]) == (0xB7F, 0x1F80 | 2 << 13 | 11)
    config = expected["tilecfg"]
    assert (config[0], config[48 + 3], config[16 + 6]) == (1, 11, 52)
    assert expected["tmm3"][52:64] == bytes(12)
    assert expected["tmm3"][64 * 11 :] == bytes(64 * 5)
    lane = (2 << 16 | 4 << 13 | 3 << 8 | 10 * 16 + 12) * 0x9E3779B1 % 2**32
    assert expected["tmm3"][64 * 10 + 48 :][:4] == lane.to_bytes(4, "little")


def test_ptrace_gives_every_thread_its_constants(child: "host.Child") -> None:
    for _ in range(3):
        threads = host.live_threads(child.pid)
        assert [thread.tid for thread in threads] == child.tids
        assert [thread.name for thread in threads] == [f"xsave-{i}" for i in range(4)]
        for number, thread in enumerate(threads):
            assert differences(thread.xstate, child.expected(number)) == []
            assert len(thread.prstatus) == 216 and not thread.is_32bit
            assert thread.fpregs[160:416] == thread.xstate[160:416]
    assert Path(f"/proc/{child.pid}/status").read_text().split("TracerPid:")[1].split()[0] == "0"


def test_the_kernels_core_has_the_constants(child: "host.Child") -> None:
    core, reason = child.crash()
    if core is None:
        print(reason)
        pytest.skip(skips.NO_CORE)
    images = by_thread(Path(core), 0x202)
    assert sorted(images) == sorted(child.tids)
    for number, tid in enumerate(child.tids):
        assert differences(images[tid], child.expected(number)) == []
    status = notes_of(Path(core))[0]
    assert status[:2] == ("CORE", 1) and struct.unpack_from("<i", status[2])[0] == signal.SIGILL


@skips.needs_amx()
def test_tiles_are_in_use(child: "host.Child") -> None:
    assert child.tiles and child.permission == 0
    assert "tmm7" in child.expected(0)
    assert not host.Host.amx_permission()  # the child alone asked
    for thread in host.live_threads(child.pid):
        assert int.from_bytes(thread.xstate[512:520], "little") >> 17 & 3 == 3


def test_why_there_is_no_core(tmp_path: Path) -> None:
    from xsave import _child

    path, reason = _child.find_core(str(tmp_path), 1, time.time(), dumped=False)
    assert path is None and reason
    with pytest.raises(HostError, match="working directory"):
        host.Child(1, directory=tmp_path / "missing")


def test_the_written_core_holds_ptraces_bytes(child: "host.Child", tmp_path: Path) -> None:
    from xsave.images.core_writer import write_core
    from xsave.models import CpuModel

    threads = host.live_threads(child.pid)
    write_core(tmp_path / "written", threads, model=CpuModel.host(), signal=4)
    notes = notes_of(tmp_path / "written")
    assert [kind for _, kind, _ in notes[:4]] == [1, 3, 2, 0x202]
    assert {len(data) for _, kind, data in notes if kind == 1} == {336}
    assert by_thread(tmp_path / "written", 0x202) == {thread.tid: thread.xstate for thread in threads}
    assert by_thread(tmp_path / "written", 2) == {thread.tid: thread.fpregs for thread in threads}
    owner, kind, entries = notes[-1]
    assert (owner, kind) == ("LINUX", 0x205)
    machine = states.Machine()
    found = {c: (offset, size) for c, size, offset, _ in struct.iter_unpack("<IIII", entries)}
    assert found == machine.standard
    # rip is where ptrace says it is
    assert notes[0][2][112:328] == threads[0].prstatus
    core, _ = child.crash()
    if core is not None:  # and the kernel's own core ends in the same note
        assert [data for _, kind, data in notes_of(Path(core)) if kind == 0x205] in ([entries], [])
    with pytest.raises(ValueError, match="at least one thread"):
        write_core(tmp_path / "none", [], model=CpuModel.host())
    assert not list(tmp_path.glob("*.tmp"))


def wait_for(text: str, program: "subprocess.Popen[str]") -> None:
    assert program.stdout is not None
    assert program.stdout.readline().strip() == text


@pytest.fixture
def python() -> Iterator[object]:
    """Starts Python programs that say "up" once they are where the test wants them."""
    running: list[subprocess.Popen[str]] = []

    def start(code: str) -> "subprocess.Popen[str]":
        program = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        running.append(program)
        wait_for("up", program)
        return program

    yield start
    for program in running:
        program.kill()
        program.wait()


def test_a_process_that_keeps_starting_threads(python) -> None:  # type: ignore[no-untyped-def]
    program = python(
        "import threading, time\n"
        "def work(): time.sleep(0.002)\n"
        "print('up', flush=True)\n"
        "while True: threading.Thread(target=work).start()\n"
    )
    for _ in range(10):
        threads = host.live_threads(program.pid)
        assert threads[0].tid == program.pid
        assert len({thread.tid for thread in threads}) == len(threads)
    assert program.poll() is None


def test_a_main_thread_that_has_ended(python) -> None:  # type: ignore[no-untyped-def]
    program = python(
        "import ctypes, threading, time\n"
        "def work():\n    time.sleep(0.2); print('up', flush=True); time.sleep(60)\n"
        "threading.Thread(target=work).start()\n"
        "ctypes.CDLL(None).syscall(60, 0)\n"
    )
    threads = host.live_threads(program.pid)
    assert len(threads) == 1 and threads[0].tid != program.pid


def test_a_stopped_process_stays_stopped(python) -> None:  # type: ignore[no-untyped-def]
    program = python("import time; print('up', flush=True); time.sleep(60)")
    os.kill(program.pid, signal.SIGSTOP)
    stat = Path(f"/proc/{program.pid}/stat")
    while stat.read_text().rpartition(") ")[2][0] != "T":
        time.sleep(0.01)
    assert len(host.live_threads(program.pid)) == 1
    time.sleep(0.05)
    assert stat.read_text().rpartition(") ")[2][0] == "T"


def test_who_may_not_be_traced(python) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(HostError, match=r"this very process.*Host\.capture"):
        host.live_threads(os.getpid())
    for pid in (0, -1, 2**22 + 1):
        with pytest.raises(HostError, match=f"no process {pid}"):
            host.live_threads(pid)
    program = python("import time; print('up', flush=True); time.sleep(60)")
    libc = ctypes.CDLL(None)
    tracer = os.fork()
    if tracer == 0:
        libc.ptrace(0x4206, program.pid, None, None)
        signal.pause()
    try:
        status = Path(f"/proc/{program.pid}/status")
        while f"TracerPid:\t{tracer}" not in status.read_text():
            time.sleep(0.01)
        with pytest.raises(HostError, match=f"process {tracer} traces it already"):
            host.live_threads(program.pid)
    finally:
        os.kill(tracer, signal.SIGKILL)
        os.waitpid(tracer, 0)
    host.live_threads(program.pid)


def test_another_users_process(python) -> None:  # type: ignore[no-untyped-def]
    if os.geteuid() != 0:
        with pytest.raises(HostError, match=r"may not trace thread 1 of process 1: .*CAP_SYS_PTRACE"):
            host.live_threads(1)
        return
    program = python("import time; print('up', flush=True); time.sleep(60)")
    read, write = os.pipe()
    other = os.fork()
    if other == 0:  # become somebody else, and report
        os.setuid(65534)
        try:
            message = repr(host.live_threads(program.pid))
        except HostError as error:
            message = str(error)
        os.write(write, message.encode())
        os._exit(0)
    os.close(write)
    message = os.read(read, 4096).decode()
    os.close(read)
    os.waitpid(other, 0)
    assert "may not trace" in message and "CAP_SYS_PTRACE" in message and "uid 0" in message, message


def test_capture_of_the_host() -> None:
    for instruction in ("XSAVE", "XSAVEC", "XSAVEOPT"):
        skips.needs_cpu(instruction.lower())
        area = host.Host.capture(instruction)
        assert area.xcomp_bv == (host.Host.xcr0 | 1 << 63 if instruction == "XSAVEC" else 0)
        assert not area.xstate_bv & ~host.Host.xcr0
    assert host.Host.capture("XSAVE", 3).layout.mask == 3
    assert host.Host.capture(mask="x87|SSE")["fcw"] == 0x37F
    with pytest.raises(HostError, match="not enabled here"):
        host.Host.capture(mask=1 << 61)


def test_read_back_names_registers() -> None:
    machine = states.Machine()
    image = bytearray(machine.size)
    struct.pack_into("<H", image, 0, 0x37F)
    struct.pack_into("<IQ", image, 24, 0x1FA0, 0)
    image[160:176] = bytes(range(16))
    image[512] = 3
    found = host.Host.read_back(image)
    name = next(name for name in ("zmm0", "ymm0", "xmm0") if name in found)
    assert found[name] == bytes(range(16)).ljust(len(found[name]), b"\0")
    assert (found["mxcsr"], found["fcw"]) == (0x1FA0, 0x37F)
    image[520] = 1
    with pytest.raises(HostError, match="#GP"):
        host.Host.read_back(image)


def test_permission_queries() -> None:
    assert host.Host.xcr0 == states.Machine().xcr0
    assert not host.Host.permitted_components() & ~host.Host.supported_components()
    if not host.Host.supported_components() >> 18 & 1:
        assert not host.Host.amx_permission()
        with pytest.raises(Exception, match="no AMX tiles here"):
            host.Host.request_amx()
