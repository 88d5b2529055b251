"""Linux's AMX permission: the model against what a machine with AMX answered, and against the kernel of this one.

The tables called RECORDED are the answers of Linux 6.18 on an Intel CPU with XCR0 600E7H, by the section of the
recording. What is asked by system calls alone is a script over a door; the model and this kernel have one each, and
each script runs on the model of the recorded machine, on the model of this host, and in a forked child on this host.
"""

import ctypes
import errno
import functools
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import pytest

from tests import skips
from tests.paths import ROOT
from tests.silicon.kernel_doors import Tracee
from xsave import CpuModel
from xsave.errors import UnsupportedError
from xsave.host import Host, in_child
from xsave.switching.permission import (
    GET_GUEST_PERM,
    GET_PERM,
    GET_SUPP,
    ILL_ILLOPC,
    ILL_ILLOPN,
    REQ_GUEST_PERM,
    REQ_PERM,
    SI_KERNEL,
    SIGILL,
    SIGSEGV,
    Answer,
    LayoutEntry,
    Process,
    PushedFrame,
    Regset,
    Signal,
    System,
    Thread,
)

XCR0, DEFAULT = 0x600E7, 0x200E7
TILEDATA = 18
TILES = 0x60000
# XINUSE of the recorded threads without their tiles.
BASE = 0xA2
SMALL, LARGE = 2816, 11008
HERE = "a good pointer"
Script = Callable[["Door"], list[Any]]


@functools.cache
def recorded() -> System:
    return System(CpuModel.named("SapphireRapids"), XCR0)


def fresh(*, permitted: bool = False, uses: tuple[str, ...] = (), in_use: int = BASE) -> Thread:
    """The main thread of a new process on the recorded machine."""
    process = Process(recorded(), in_use)
    if permitted:
        assert process.arch_prctl(process.main, REQ_PERM, TILEDATA) == (None, None)
    for each in uses:
        assert process.main.use(each) is None
    return process.main


def live() -> Thread:
    """A thread with tiles in use."""
    return fresh(permitted=True, uses=("LDTILECFG", "TILELOADD"))


def home(thread: Thread) -> Process:
    assert thread.process is not None
    return thread.process


def pushed(thread: Thread, **more: Any) -> PushedFrame:
    frame = thread.deliver(**more)
    assert isinstance(frame, PushedFrame)
    return frame


# --- what system calls ask -------------------------------------------------------------------------------------------


class Door(Protocol):
    """Where a script asks: the model, or a kernel in a child process."""

    def prctl(self, code: int, argument: "int | str") -> tuple[str | None, int | None]: ...
    def altstack(self, size: int | None) -> str | None: ...
    def vcpu(self) -> None: ...
    def fork(self, script: Script) -> list[Any]: ...
    def thread(self, script: Script) -> list[Any]: ...
    def beside(self, inner: Script, outer: Script) -> list[Any]: ...
    def exec(self, codes: list[int]) -> list[Any]: ...


class Modelled:
    """The door to the model."""

    def __init__(self, thread: Thread) -> None:
        self.of = thread

    def prctl(self, code: int, argument: "int | str") -> tuple[str | None, int | None]:
        return tuple(home(self.of).arch_prctl(self.of, code, 1 << 20 if isinstance(argument, str) else argument))

    def altstack(self, size: int | None) -> str | None:
        return self.of.sigaltstack(size).error

    def vcpu(self) -> None:
        home(self.of).create_vcpu()

    def fork(self, script: Script) -> list[Any]:
        return script(Modelled(home(self.of).fork(self.of).main))

    def thread(self, script: Script) -> list[Any]:
        return self.beside(script, lambda door: [])

    def beside(self, inner: Script, outer: Script) -> list[Any]:
        other = home(self.of).clone(self.of)
        made = [*inner(Modelled(other)), *outer(self)]
        other.end()
        return made

    def exec(self, codes: list[int]) -> list[Any]:
        home(self.of).exec(self.of)
        return [self.prctl(code, HERE) for code in codes]


class _Stack(ctypes.Structure):
    _fields_ = (("pointer", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


_ARCH_PRCTL = 158
_SS_DISABLE = 2
_CREATE_VM, _CREATE_VCPU = 0xAE01, 0xAE41
_EXEC = """
import ctypes, sys
libc = ctypes.CDLL(None)
for code in sys.argv[1:]:
    mask = ctypes.c_uint64()
    assert libc.syscall(158, int(code), ctypes.byref(mask)) == 0
    print(mask.value)
"""


class Kernel:
    """The door to the kernel of this machine, for a child process: what it grants cannot be given back."""

    def __init__(self) -> None:
        self.libc = ctypes.CDLL(None, use_errno=True)
        self.memory = ctypes.create_string_buffer(1 << 17)

    def _error(self, result: int) -> str | None:
        # EOPNOTSUPP has two names.
        number = ctypes.get_errno()
        return ("EOPNOTSUPP" if number == errno.EOPNOTSUPP else errno.errorcode[number]) if result else None

    def prctl(self, code: int, argument: "int | str") -> tuple[str | None, int | None]:
        mask = ctypes.c_uint64()
        value = ctypes.addressof(mask) if isinstance(argument, str) else argument
        error = self._error(self.libc.syscall(ctypes.c_long(_ARCH_PRCTL), ctypes.c_long(code), ctypes.c_ulong(value)))
        return error, mask.value if isinstance(argument, str) and error is None else None

    def altstack(self, size: int | None) -> str | None:
        stack = _Stack(ctypes.addressof(self.memory), 0 if size is not None else _SS_DISABLE, size or 0)
        return self._error(self.libc.sigaltstack(ctypes.byref(stack), None))

    def vcpu(self) -> None:
        import fcntl

        kvm = os.open("/dev/kvm", os.O_RDWR | os.O_CLOEXEC)
        fcntl.ioctl(fcntl.ioctl(kvm, _CREATE_VM, 0), _CREATE_VCPU, 0)

    def fork(self, script: Script) -> list[Any]:
        return list(in_child(lambda: script(Kernel())))

    def thread(self, script: Script) -> list[Any]:
        return self.beside(script, lambda door: [])

    def beside(self, inner: Script, outer: Script) -> list[Any]:
        made: list[Any] = []
        asked, go = threading.Event(), threading.Event()

        def work() -> None:
            made.extend(inner(Kernel()))
            asked.set()
            go.wait(30)

        def running() -> int:
            return len(os.listdir("/proc/self/task"))

        before = running()
        other = threading.Thread(target=work)
        other.start()
        assert asked.wait(30)
        made.extend(outer(self))
        go.set()
        other.join()
        end = time.monotonic() + 10
        while running() > before and time.monotonic() < end:  # Python has let go of it before the kernel has
            time.sleep(0.001)
        return made

    def exec(self, codes: list[int]) -> list[Any]:
        # posix_spawn or vfork, then exec: this process's own permission stays.
        found = subprocess.run([sys.executable, "-c", _EXEC, *map(str, codes)], capture_output=True, check=True)
        return [(None, int(word)) for word in found.stdout.split()]


REFUSED = [*range(18), *range(19, 71), 255, 1 << 18, (1 << 32) + 18, -1]


def arguments(door: Door) -> list[Any]:
    """Section 1."""
    made: list[Any] = [door.altstack(None)]  # what the interpreter may have installed
    made += [door.prctl(code, HERE) for code in (GET_SUPP, GET_PERM, GET_GUEST_PERM)]
    made += [door.prctl(code, bad) for code in (GET_SUPP, GET_PERM, GET_GUEST_PERM) for bad in (0, -8)]
    for code in (REQ_PERM, REQ_GUEST_PERM):
        made += [door.prctl(code, number) for number in (*REFUSED, TILEDATA, TILEDATA)]
    made += [door.prctl(code, HERE) for code in (GET_PERM, GET_GUEST_PERM)]
    made.append(door.prctl(REQ_PERM, 17))
    return made + [door.prctl(code, 18) for code in (0x1020, 0x1026, 0x1027)]


def stacks(door: Door, least: int, bound: int) -> list[Any]:
    """Section 5: `least` is the smallest stack that the request suffers, `bound` that sigaltstack takes after it."""

    def request_with(size: int) -> Script:
        return lambda own: [own.altstack(size), own.prctl(REQ_PERM, TILEDATA)[0]]

    def after_request(size: int) -> Script:
        return lambda own: [own.prctl(REQ_PERM, TILEDATA)[0], own.altstack(size)]

    def disabled(own: Door) -> list[Any]:
        return [own.altstack(4096), own.altstack(None), own.prctl(REQ_PERM, TILEDATA)[0]]

    def others(own: Door) -> list[Any]:
        made = own.beside(lambda other: [other.altstack(4096)], lambda main: [main.prctl(REQ_PERM, TILEDATA)[0]])
        return [*made, own.prctl(REQ_PERM, TILEDATA)[0]]

    made: list[Any] = [door.altstack(None)]
    for size in (2047, 2048):
        made += door.fork(lambda own, size=size: [own.altstack(size)])  # type: ignore[misc]
    for size in (least, least - 1, 2048):
        made += door.fork(request_with(size))
    for size in (bound, bound - 1):
        made += door.fork(after_request(size))
    return made + door.fork(disabled) + door.fork(others)


def guests_and_stacks(door: Door) -> list[Any]:
    """Section 10: the guest request does not look at alternate stacks."""
    return [door.altstack(4096), door.prctl(REQ_GUEST_PERM, TILEDATA)[0], door.prctl(REQ_PERM, TILEDATA)[0]]


def inheritance(door: Door) -> list[Any]:
    """Section 6, and the inheritance of section 10."""
    both = [GET_PERM, GET_GUEST_PERM]

    def get(own: Door) -> list[Any]:
        return [own.prctl(code, HERE) for code in both]

    made = [door.altstack(None), *get(door), *door.thread(lambda own: [own.prctl(REQ_PERM, TILEDATA)[0]]), *get(door)]
    made += [*door.thread(get), *door.fork(get), door.prctl(REQ_GUEST_PERM, TILEDATA)[0], *door.fork(get)]
    return made + door.fork(lambda own: own.exec(both)) + get(door)


def virtual_cpus(door: Door) -> list[Any]:
    """Section 10: the first virtual CPU settles it."""

    def late(own: Door) -> list[Any]:
        made = [own.altstack(None), own.prctl(REQ_GUEST_PERM, 17)[0]]
        own.vcpu()
        made += [own.prctl(REQ_GUEST_PERM, 18)[0], own.prctl(GET_GUEST_PERM, HERE), own.prctl(REQ_PERM, 18)[0]]
        return made

    def early(own: Door) -> list[Any]:
        made: list[Any] = [own.prctl(REQ_GUEST_PERM, 18)[0]]
        own.vcpu()
        made += [own.prctl(REQ_GUEST_PERM, 18)[0], own.prctl(GET_PERM, HERE), own.prctl(GET_GUEST_PERM, HERE)]
        return made

    return door.fork(late) + door.fork(early)


_REQUESTS = (
    [("EOPNOTSUPP", None)] * 19 + [("EINVAL", None)] * 51 + [("EINVAL", None)] * 4 + [(None, None)] * 2
)  # 0-17 and 19, 20-70, the last four of REFUSED, 18 twice
RECORDED_ARGUMENTS = [
    None,
    *[(None, XCR0), (None, DEFAULT), (None, DEFAULT)],
    *[("EFAULT", None)] * 6,
    *_REQUESTS,
    *_REQUESTS,
    *[(None, XCR0)] * 2,
    ("EOPNOTSUPP", None),
    *[("EINVAL", None)] * 3,
]
RECORDED_STACKS = [
    None, "ENOMEM", None,
    None, None, None, "ENOSPC", None, "ENOSPC",
    None, None, None, "ENOMEM",
    None, None, None,
    None, "ENOSPC", None,
]  # fmt: skip
RECORDED_INHERITANCE = [
    None, (None, DEFAULT), (None, DEFAULT), None, (None, XCR0), (None, DEFAULT),
    (None, XCR0), (None, DEFAULT), (None, XCR0), (None, DEFAULT), None, (None, XCR0), (None, XCR0),
    (None, DEFAULT), (None, DEFAULT), (None, XCR0), (None, XCR0),
]  # fmt: skip
RECORDED_GUESTS_AND_STACKS = [None, None, "ENOSPC"]
RECORDED_VIRTUAL_CPUS = [
    None, "EOPNOTSUPP", "EBUSY", (None, DEFAULT), None,
    None, None, (None, DEFAULT), (None, XCR0),
]  # fmt: skip

# name: the script for a system, and the recorded answers.
SCRIPTS: "dict[str, tuple[Callable[[System], Script], list[Any]]]" = {
    "arguments": (lambda system: arguments, RECORDED_ARGUMENTS),
    "stacks": (
        lambda system: functools.partial(
            stacks,
            least=system.minsigstksz,
            bound=system.least_stack_to_install(int(system.supported)),
        ),
        RECORDED_STACKS,
    ),
    "inheritance": (lambda system: inheritance, RECORDED_INHERITANCE),
    "guests and stacks": (lambda system: guests_and_stacks, RECORDED_GUESTS_AND_STACKS),
    "virtual CPUs": (lambda system: virtual_cpus, RECORDED_VIRTUAL_CPUS),
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_system_calls_as_recorded(name: str) -> None:
    script, answers = SCRIPTS[name]
    assert script(recorded())(Modelled(fresh())) == answers


AT_MINSIGSTKSZ = 51


def out_of_range() -> int | None:
    """The first component number that is EINVAL for this kernel. No number below grants anything: 18 is not asked."""
    kernel = Kernel()
    if kernel.prctl(GET_SUPP, HERE)[0] == "EINVAL":
        return None
    return next(n for n in range(64) if n != TILEDATA and kernel.prctl(REQ_PERM, n)[0] == "EINVAL")


@functools.cache
def this_system() -> System:
    """The model of this machine, from its own CPUID and XCR0. What no CPU tells is asked: whether 32-bit programs run,
    by AT_MINSIGSTKSZ; how many components the kernel knows, by the first number that it finds out of range."""
    words = memoryview(Path("/proc/self/auxv").read_bytes()).cast("Q")
    told = dict(zip(words[::2], words[1::2], strict=True)).get(AT_MINSIGSTKSZ)
    if told is None:
        pytest.skip(skips.NO_MINSIGSTKSZ)
    components = in_child(out_of_range)
    if components is None:
        pytest.skip(skips.NO_XCOMP)
    systems = [System(CpuModel.host(), int(Host.xcr0), ia32=ia32, components=components) for ia32 in (True, False)]
    assert told in [each.minsigstksz for each in systems]
    return next(each for each in systems if each.minsigstksz == told)


@skips.needs_native()
@skips.needs_cpu("xsave")
@pytest.mark.parametrize("name", SCRIPTS)
def test_system_calls_of_this_kernel(name: str) -> None:
    skips.needs_linux()
    if name == "virtual CPUs" and not can_make_vcpu():
        pytest.skip(skips.NO_KVM)
    if "stacks" in name:
        skips.needs_plain_build()  # a sanitizer gives every thread an alternate stack, and ends the process without it
    system = this_system()
    script = SCRIPTS[name][0](system)
    assert in_child(lambda: script(Kernel())) == script(Modelled(Process(system).main))


@skips.needs_native()
@skips.needs_cpu("xsave")
def test_a_debugger_on_this_kernel() -> None:
    skips.needs_linux()
    system = this_system()
    thread = Process(system).main
    tracee = Tracee()
    try:
        given = tracee.get()
        size, _, xcr0 = thread.getregset()
        assert (len(given), int.from_bytes(given[464:472], "little")) == (size, xcr0)
        for bit in range(64):
            data = given[:512] + (1 << bit).to_bytes(8, "little") + given[520:]
            for length in (size, size - 8):
                assert tracee.set(data[:length]) == thread.setregset(data[:length]).error
    finally:
        tracee.close()


def can_make_vcpu() -> bool:
    def attempt() -> bool:
        try:
            Kernel().vcpu()
        except OSError:
            return False
        return True

    return bool(in_child(attempt))


def test_a_host_without_amx_offers_nothing() -> None:
    """The same questions on a CPU without tiles: nothing can be asked for, and every tile instruction is a #UD."""
    system = System(CpuModel.named("EPYC-Genoa"), 0xE7, components=19)
    assert (system.supported, system.dynamic, system.has_tiles, system.minsigstksz) == (0xE7, 0, False, 3376)
    thread = Process(system).main
    asked = [home(thread).arch_prctl(thread, code, n).error for code in (REQ_PERM, REQ_GUEST_PERM) for n in (18, 19)]
    assert asked == ["EOPNOTSUPP", "EINVAL"] * 2
    assert system.least_stack_to_install(0xE7) == 2048
    assert thread.use("LDTILECFG") == thread.use("TILERELEASE") == (SIGILL, ILL_ILLOPN, 6, 0)
    assert thread.getregset() == (2432, 0, 0xE7)
    with pytest.raises(ValueError, match="lacks"):
        System(CpuModel.named("EPYC-Genoa"), 1)


def test_what_the_model_refuses() -> None:
    thread = fresh()
    for code in (0x1001, 0x1004, 0x1012, 0x2003, 0x4004, 0x5005):  # segment bases, CPUID, vDSO, LAM, shadow stacks
        with pytest.raises(UnsupportedError, match=f"{code:#x}"):
            home(thread).arch_prctl(thread, code, 0)
    with pytest.raises(ValueError, match="TILEADD"):
        thread.use("TILEADD")
    with pytest.raises(ValueError, match="another process"):
        home(thread).arch_prctl(fresh(), GET_SUPP, 0)
    process = home(thread)
    other = process.clone(thread)
    other.end()
    assert other.process is None and process.threads == [thread]
    for call in (other.end, other.frame, other.getregset, lambda: other.use("TILEZERO"), lambda: process.fork(other)):
        with pytest.raises(ValueError, match="ended"):
            call()
    thread.end()
    with pytest.raises(ValueError, match="no thread"):
        process.main  # noqa: B018
    assert "1 threads" in repr(fresh().process) and "600e7" in repr(recorded()) and "ended" in repr(other)
    assert "2,816 bytes" in repr(fresh().frame())


def test_the_example_of_the_docs(capsys: pytest.CaptureFixture[str]) -> None:
    page = ROOT / "docs" / "permission.md"
    (source,) = re.findall(r"```python\n(.*?)```", page.read_text(), re.S)
    exec(compile(source, str(page), "exec"), {})
    expected = [line.partition("  # ")[2].strip() for line in source.splitlines() if "print(" in line]
    assert capsys.readouterr().out.splitlines() == expected and len(expected) == 6


# --- tiles and signals -----------------------------------------------------------------------------------------------

# Section 2: the instruction and what stands before it; XINUSE after, or the signal, XSTATE_BV of its frame.
_OPCODE = Signal(SIGILL, ILL_ILLOPC, 0, 0)
_LOADED = ("LDTILECFG",)
RECORDED_WITHOUT = [
    ((), "LDTILECFG", None, 0x200A2),
    (_LOADED, "STTILECFG", None, 0x200A2),
    ((), "TILERELEASE", None, 0xA2),
    *[(_LOADED, each, _OPCODE, 0x200A3) for each in ("TILEZERO", "TILELOADD", "TILESTORED", "TDPBSSD", "TDPBF16PS")],
    ((), "TILEZERO", Signal(SIGILL, ILL_ILLOPN, 6, 0), 0xA3),
]


@pytest.mark.parametrize(("before", "instruction", "signal", "shows"), RECORDED_WITHOUT)
def test_tiles_without_permission(
    before: tuple[str, ...], instruction: str, signal: Signal | None, shows: int
) -> None:
    thread = fresh(uses=before)
    assert thread.use(instruction) == signal
    frame = thread.frame()
    if signal is None:
        assert thread.xinuse == shows
    else:
        assert (frame.xstate_bv, frame.xfeatures, frame.xstate_size) == (shows, DEFAULT, SMALL)
    assert home(thread).permitted == DEFAULT and thread.xfd == 1 << TILEDATA


def test_a_refused_first_use_leaves_the_trap_number() -> None:
    thread = fresh(uses=_LOADED)
    thread.fault(14, 6)
    assert thread.use("TILEZERO") == (SIGILL, ILL_ILLOPC, 14, 6)
    thread.use("TILERELEASE")
    assert thread.use("TILEZERO") == (SIGILL, ILL_ILLOPN, 6, 0)
    thread.use("LDTILECFG")
    assert thread.use("TILEZERO") == (SIGILL, ILL_ILLOPC, 6, 0)


def test_unconfigured_tiles_come_before_the_permission() -> None:
    """Section 3."""
    thread = fresh(permitted=True)
    assert thread.use("TILEZERO") == (SIGILL, ILL_ILLOPN, 6, 0)
    assert (thread.frame().xstate_size, thread.frame().xfeatures, thread.xfd) == (SMALL, DEFAULT, 1 << TILEDATA)


@pytest.mark.parametrize("instruction", ["TILEZERO", "TILELOADD", "TILESTORED", "TDPBSSD"])
def test_first_use_is_for_good(instruction: str) -> None:
    thread = fresh(permitted=True, uses=_LOADED)
    assert thread.xfd == 1 << TILEDATA and thread.room == DEFAULT
    assert thread.use(instruction) is None
    assert thread.xfd == 0 and thread.room == XCR0
    assert thread.xinuse == (0x200A2 if instruction == "TILESTORED" else 0x600A2)
    thread.use("TILERELEASE")
    assert thread.xinuse == 0xA2 and thread.xfd == 0 and thread.frame().xstate_size == LARGE
    home(thread).exec(thread)
    assert thread.xfd == 1 << TILEDATA and thread.room == DEFAULT and thread.frame().xstate_size == SMALL


def test_a_new_configuration_clears_the_tiles() -> None:
    thread = live()
    thread.use("LDTILECFG")
    assert thread.xinuse == 0x200A2 and thread.xfd == 0


def test_the_guests_permission_is_not_the_hosts() -> None:
    """Section 10: SIGILL with guest permission alone."""
    thread = fresh(uses=_LOADED)
    assert home(thread).arch_prctl(thread, REQ_GUEST_PERM, TILEDATA) == Answer(None)
    assert thread.use("TILELOADD") == (SIGILL, ILL_ILLOPC, 0, 0)


# --- frames ----------------------------------------------------------------------------------------------------------

# Section 4: (permission, what was used): xstate_size, xfeatures, XSTATE_BV, bytes of stack with the red zone.
RECORDED_FRAMES = [
    (False, (), SMALL, DEFAULT, 0xA3, 3408),
    (False, _LOADED, SMALL, DEFAULT, 0x200A3, 3408),
    (True, (), SMALL, DEFAULT, 0xA3, 3408),
    (True, _LOADED, SMALL, DEFAULT, 0x200A3, 3408),
    (True, (*_LOADED, "TILEZERO"), LARGE, XCR0, 0x600A3, 11600),
    (True, (*_LOADED, "TILELOADD"), LARGE, XCR0, 0x600A3, 11600),
    (True, (*_LOADED, "TILELOADD", "TILEZERO"), LARGE, XCR0, 0x600A3, 11600),
    (True, (*_LOADED, "TILELOADD", "TILERELEASE"), LARGE, XCR0, 0xA3, 11600),
]


@pytest.mark.parametrize(("permitted", "uses", "size", "mask", "xstate_bv", "stack"), RECORDED_FRAMES)
def test_frames(
    permitted: bool, uses: tuple[str, ...], size: int, mask: int, xstate_bv: int, stack: int
) -> None:
    thread = fresh(permitted=permitted, uses=uses)
    before = thread.xinuse
    # The recorded program's stack pointer was 8 above a multiple of 64 there (56, where 48 bytes more are recorded).
    assert thread.frame_bytes(8) == stack and thread.frame_bytes(0x7FFF_FFFF_E038) == stack + 48
    # fpregs of the ucontext, which lies behind the restorer's address.
    assert recorded().signal_frame(size == LARGE).area[0] - 8 == 448
    frame = pushed(thread)
    assert (frame.magic1, frame.magic2) == (0x46505853, 0x46505845)
    assert (frame.xstate_size, frame.extended_size, frame.xfeatures) == (size, size + 4, mask)
    assert frame.xstate_bv == xstate_bv
    assert thread.xinuse == 0  # in the handler
    assert thread.sigreturn(frame) is None
    assert thread.xinuse == before | 1


def test_a_handler_with_tiles_of_its_own() -> None:
    """Section 4: what was interrupted is kept."""
    thread = live()
    frame = pushed(thread)
    assert thread.use("TILEZERO") == (SIGILL, ILL_ILLOPN, 6, 0)
    assert thread.use("LDTILECFG") is thread.use("TILEZERO") is None
    assert thread.sigreturn(frame) is None and thread.xinuse == 0x600A3


def _clear_bit(frame: PushedFrame) -> None:
    frame.xstate_bv &= ~(1 << TILEDATA)


def _clear_feature(frame: PushedFrame) -> None:
    frame.xfeatures &= ~(1 << TILEDATA)


def _palette(frame: PushedFrame) -> None:
    frame.palette = 2


def _magic2(frame: PushedFrame) -> None:
    frame.magic2 = 0


# Section 4: what a handler changes in the frame, and XINUSE after sigreturn.
RECORDED_RETURNS = [
    (_clear_bit, 0x200A3),
    (_clear_feature, 0x200A3),
    (_palette, 0x400A3),
    (_magic2, 0xA3),  # of the vector registers only SSE came from the frame; the C library's own use is in the rest
]


@pytest.mark.parametrize(("change", "xinuse"), RECORDED_RETURNS)
def test_returns(change: Callable[[PushedFrame], None], xinuse: int) -> None:
    thread = live()
    frame = pushed(thread)
    change(frame)
    assert thread.sigreturn(frame) is None
    assert thread.xinuse | BASE == xinuse and thread.xinuse & TILES == xinuse & TILES
    assert thread.xinuse == (3 if change is _magic2 else xinuse)
    assert thread.xfd == 0 and thread.frame().xstate_size == LARGE


@pytest.mark.parametrize(
    ("name", "value"), [("magic1", 0), ("xstate_size", 0), ("xstate_size", LARGE + 8), ("extended_size", 100)]
)
def test_a_frame_without_its_marks_gives_the_legacy_registers(name: str, value: int) -> None:
    thread = live()
    frame = pushed(thread)
    setattr(frame, name, value)
    assert thread.sigreturn(frame) is None and thread.xinuse == 3


def test_a_frame_larger_than_the_threads_state_gives_the_legacy_registers() -> None:
    frame = pushed(live())
    thread = fresh(permitted=True)
    assert thread.sigreturn(frame) is None and thread.xinuse == 3


def test_tile_data_in_a_small_frame_is_ignored() -> None:
    """Section 4: never used; the handler sets XSTATE_BV[18]."""
    thread = fresh(permitted=True)
    frame = pushed(thread)
    frame.xstate_bv |= 1 << TILEDATA
    assert thread.sigreturn(frame) is None and thread.xinuse == 0xA3
    assert thread.frame().xstate_size == SMALL and thread.frame().xstate_bv == 0xA3
    frame.xfeatures |= 1 << TILEDATA  # and a mask beyond the thread's state is cut to it
    assert thread.sigreturn(frame) is None and thread.xinuse == 0xA3


def test_an_unknown_component_kills() -> None:
    """Section 4c: XSTATE_BV[8]."""
    thread = live()
    frame = pushed(thread)
    frame.xstate_bv |= 1 << 8
    assert thread.sigreturn(frame) == (SIGSEGV, SI_KERNEL, 0, 0) and thread.xinuse == 0


def test_first_use_in_a_handler() -> None:
    """Section 4d: the frame to return through is a small one, and has no tiles."""
    thread = fresh(permitted=True)
    frame = pushed(thread)
    assert thread.use("LDTILECFG") is thread.use("TILEZERO") is None
    assert frame.xstate_size == SMALL
    assert thread.sigreturn(frame) is None and thread.xinuse == 0xA3
    following = thread.frame()
    assert (following.xstate_size, following.xfeatures, following.xstate_bv) == (LARGE, XCR0, 0xA3)


def test_a_stack_that_is_too_small() -> None:
    """Section 5: 8 KiB of stack, before and after the first use; and an alternate stack."""
    thread = fresh(permitted=True, uses=_LOADED)
    assert isinstance(thread.deliver(stack=8192), PushedFrame)
    thread.use("LDTILECFG")
    thread.use("TILELOADD")
    assert thread.deliver(stack=8192) == (SIGSEGV, SI_KERNEL, 0, 0)
    assert thread.xinuse == 0x60000  # nothing has changed
    exact = thread.frame_bytes()
    assert isinstance(thread.deliver(stack=8192, alternate=True), Signal)  # none is enabled
    assert isinstance(thread.deliver(stack=exact - 1), Signal) and isinstance(thread.deliver(stack=exact), PushedFrame)
    assert thread.sigaltstack(1 << 16).error is None
    assert pushed(thread, stack=0, alternate=True).xstate_size == LARGE
    assert thread.frame_bytes(alternate=True) == exact - 128


def test_the_bounds_of_alternate_stacks() -> None:
    """Section 4 and 5: the numbers, from sizes."""
    system = recorded()
    assert system.minsigstksz == system.least_stack_to_request(XCR0) == 11952
    assert system.least_stack_to_install(DEFAULT) == 2048
    assert system.least_stack_to_install(XCR0) == 11837
    # A stack of the least size that sigaltstack takes holds any frame, though the request would refuse it.
    thread = live()
    assert max(thread.frame_bytes(at, alternate=True) for at in range(64)) <= 11837
    for used in (False, True):
        thread = live() if used else fresh(permitted=True)
        assert [thread.sigaltstack(size).error for size in (11836, 11837)] == ["ENOMEM", None]
        assert thread.altstack == 11837 and thread.sigaltstack(2048).error == "ENOMEM" and thread.altstack == 11837


# --- other tasks -----------------------------------------------------------------------------------------------------


def test_new_threads_and_forked_children() -> None:
    """Section 6: TILECFG is copied, TILEDATA is not."""
    parent = live()
    process = home(parent)
    for child in (process.clone(parent), process.fork(parent).main):
        assert child.xinuse == 0x200A2 and child.xfd == 1 << TILEDATA
        assert (child.frame().xstate_size, child.frame().xstate_bv) == (SMALL, 0x200A3)
        assert child.use("TILESTORED") is None
        assert child.xinuse == 0x200A2 and child.frame().xstate_size == LARGE
        assert parent.xinuse == 0x600A2 and parent.xfd == 0
    assert len(process.threads) == 2


def test_alternate_stacks_of_new_tasks() -> None:
    parent = fresh()
    parent.sigaltstack(4096)
    process = home(parent)
    assert process.clone(parent).altstack is None
    child = process.fork(parent)
    assert child.main.altstack == 4096
    child.exec(child.main)
    assert child.main.altstack is None


def test_exec_of_a_child_leaves_the_parent() -> None:
    """Section 6: vfork and exec."""
    parent = live()
    process = home(parent)
    process.arch_prctl(parent, REQ_GUEST_PERM, TILEDATA)
    process.create_vcpu()
    child = process.fork(parent)
    other = child.clone(child.main)
    assert child.has_vcpu and child.permitted == child.guest_permitted == XCR0
    child.exec(other)
    assert child.threads == [other] and child.permitted == child.guest_permitted == DEFAULT
    assert not child.has_vcpu and other.xinuse & TILES == 0
    assert process.permitted == process.guest_permitted == XCR0 and parent.xinuse == 0x600A2 and process.has_vcpu


# --- debuggers and cores ---------------------------------------------------------------------------------------------

_CONFIG_AT = 2752


def area(xstate_bv: int, size: int = LARGE, *puts: tuple[int, int], palette: int = 1) -> bytes:
    data = bytearray(1 << 14)
    data[24:28] = (0x1F80).to_bytes(4, "little")
    data[512:520] = xstate_bv.to_bytes(8, "little")
    data[_CONFIG_AT] = palette
    for at, value in puts:
        data[at] = value
    return bytes(data[:size])


_USES: dict[str, tuple[bool, tuple[str, ...]]] = {
    "no permission": (False, ()),
    "permission, never used": (True, ()),
    "tiles live": (True, (*_LOADED, "TILELOADD")),
    "used, then TILERELEASE": (True, (*_LOADED, "TILELOADD", "TILERELEASE")),
}
# Section 7: GETREGSET's XSTATE_BV; SETREGSET with bits 17 and 18, with 17, with 18, with neither, with both again.
RECORDED_REGSETS = {
    "no permission": (0xA2, ["EINVAL", None, "EINVAL", None, "EINVAL"]),
    "permission, never used": (0xA2, ["EINVAL", None, "EINVAL", None, "EINVAL"]),
    "tiles live": (0x600A2, [None] * 5),
    "used, then TILERELEASE": (0xA2, [None] * 5),
}
# Length 2,688, 2,752, 10,944, 11,008 and 11,016 with both bits.
_LENGTHS = (2688, 2752, 10944, LARGE, 11016)


@pytest.mark.parametrize("name", RECORDED_REGSETS)
def test_a_debuggers_reads_and_writes(name: str) -> None:
    permitted, uses = _USES[name]
    thread = fresh(permitted=permitted, uses=uses)
    shows, answers = RECORDED_REGSETS[name]
    base = thread.getregset()
    assert base == (LARGE, shows, XCR0)
    assert thread.setregset(area(shows | TILES)).error == answers[0]
    assert thread.getregset() == (LARGE, (shows | TILES) if answers[0] is None else shows, XCR0)
    shows &= ~TILES
    rest = [thread.setregset(area(shows | bits)).error for bits in (0x20000, 0x40000, 0, TILES)]
    assert rest == answers[1:]
    refused = [thread.setregset(area(shows | TILES, size)).error for size in _LENGTHS]
    assert refused == ["EFAULT"] * 3 + [answers[0]] * 2
    for data in (area(shows | 1 << 9), area(shows, LARGE, (527, 0x80)), area(shows, LARGE, (528, 1))):
        assert thread.setregset(data) == ("EINVAL", None)
    # The tracee resumes with what was written last.
    assert thread.xinuse == (0x600A2 if answers[0] is None else 0xA2)


def test_a_debuggers_palette() -> None:
    thread = live()
    assert thread.setregset(area(0x600A2, palette=2)).error is None and thread.xinuse == 0x400A2
    assert thread.setregset(area(0x600A2, palette=0)).error is None and thread.xinuse == 0x400A2


# Section 9.
RECORDED_LAYOUT = [
    LayoutEntry(2, 256, 576, 0), LayoutEntry(5, 64, 1088, 0), LayoutEntry(6, 512, 1152, 0),
    LayoutEntry(7, 1024, 1664, 0), LayoutEntry(17, 64, 2752, 0), LayoutEntry(18, 8192, 2816, 0),
]  # fmt: skip
RECORDED_CORES = [
    (False, [(), _LOADED], [0xA2, 0xA2, 0x200A2]),
    (True, [(), _LOADED], [0xA2, 0xA2, 0x200A2]),
    (True, [_LOADED, (), (*_LOADED, "TILELOADD")], [0xA2, 0x200A2, 0xA2, 0x600A2]),
]


@pytest.mark.parametrize(("permitted", "threads", "shown"), RECORDED_CORES)
def test_notes_of_a_core(permitted: bool, threads: list[tuple[str, ...]], shown: list[int]) -> None:
    main = fresh(permitted=permitted)
    process = home(main)
    for uses in threads:
        other = process.clone(main)
        assert [other.use(each) for each in uses] == [None] * len(uses)
    notes, layout = process.core(main)
    assert notes == [Regset(LARGE, each, XCR0) for each in shown]  # type: ignore[arg-type]
    assert layout == RECORDED_LAYOUT and len(layout) * 16 == 96
    assert process.core(process.threads[-1])[0][0].xstate_bv == shown[-1]
