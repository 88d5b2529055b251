"""This machine: its CPU's own instructions on this thread, the kernel's permission for AMX, live processes.

Everybody but `xsave.models` and the conformance trials reaches silicon through here. The constants that the child of
`xsave tour` holds are described in `xsave._child`.
"""

import _thread
import errno
import os
import time

from xsave._child import Child, expected_registers, native, registers_in
from xsave._execution import Execution, HostFault, execute, time_instruction
from xsave.components import Component, ComponentMask
from xsave.errors import HostError, UnsupportedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from typing import Any, NoReturn

    from typing_extensions import Buffer

    from xsave.area import Area
    from xsave.layout import Layout

__all__ = [
    "Child", "Execution", "Host", "HostFault", "LiveThread", "expected_registers", "in_child", "live_threads",
]  # fmt: skip

_GET_SUPPORTED, _GET_PERMITTED, _REQUEST = 0x1021, 0x1022, 0x1023
_SEIZE, _INTERRUPT, _DETACH = 0x4206, 0x4207, 17
_EVENT_STOP = 128
_WALL = 0x40000000
_PRSTATUS, _PRFPREG, _PRXFPREG, _XSTATE, _SHSTK = 1, 2, 0x46E62B7F, 0x202, 0x204


class _XCR0:
    # `Host.xcr0` without an instance: XGETBV at each access, which costs no VM exit
    def __get__(self, instance: object, owner: object = None) -> ComponentMask:
        return ComponentMask(native().xgetbv(0))


class Host:
    """This CPU and what the kernel lets this process do with it. Nothing here needs privilege.

    `Host.xcr0` is the mask of enabled user components [SDM1 13.3].
    """

    xcr0 = _XCR0()

    @staticmethod
    def layout(instruction: str = "XSAVE", mask: "int | str | None" = None) -> "Layout":
        """The layout of what `instruction` saves here: `mask` (default: XCR0), standard, or compacted for XSAVEC.

        Raises: `HostError` for components that XCR0 does not enable, `ValueError` for an unknown mask.
        """
        from xsave.layout import COMPACTED, STANDARD, Layout
        from xsave.models import CpuModel

        xcr0 = Host.xcr0
        wanted = xcr0 if mask is None else ComponentMask.parse(mask)
        if wanted & ~xcr0:
            raise HostError(f"{ComponentMask(wanted & ~xcr0)} is not enabled here: XCR0 is {xcr0} [SDM1 13.3]")
        return Layout(CpuModel.host(), int(wanted), COMPACTED if instruction == "XSAVEC" else STANDARD)

    @staticmethod
    def capture(instruction: str = "XSAVE", mask: "int | str | None" = None) -> "Area":
        """The calling thread's own extended state, saved with XSAVE, XSAVEOPT or XSAVEC into a fresh `Area`.

        Bytes that the instruction leaves alone (a component in its initial configuration, with XSAVEOPT and XSAVEC)
        are 0. What the interpreter did last is in the vector registers. Raises: `UnsupportedError` for an instruction
        that this CPU lacks, `HostError`, `ValueError` [SDM1 13.7-13.10].
        """
        from xsave.area import Area

        layout = Host.layout(instruction, mask)
        buffer = bytearray(layout.size)
        native().capture(instruction, int(layout.mask), buffer)
        return Area(buffer, layout)

    @staticmethod
    def read_back(image: "Buffer", mask: int = -1) -> "dict[str, int | bytes]":
        """The registers after XRSTOR64 of `image` with EDX:EAX = `mask`, read by plain moves, in `decode`'s names.

        The image is standard or compacted; what `mask` leaves out is initial. Tiles are there where this process has
        permission. Raises: `HostError` naming the fault, if the CPU refuses the image.
        """
        file = native().xrstor_reads(image, mask)
        return registers_in(file, Host.xcr0, Host.amx_permission())

    @staticmethod
    def execute(
        instruction: str,
        area: "Buffer | None" = None,
        mask: int = -1,
        *,
        state: "Mapping[str, int | Buffer] | Buffer | None" = None,
        before: "Iterable[Sequence[Any]]" = (),
        rexw: bool = True,
        segment: str = "ds",
        align_check: bool = False,
        tile: int = 0,
        stride: int = 64,
        offset: int = 0,
        edge: bool = False,
        hole: "int | None" = None,
        read_only: bool = False,
        address: "int | None" = None,
    ) -> Execution:
        """Executes one real instruction on this CPU, its fault caught, and says what it did; this thread keeps its own
        state. XSAVE XSAVEOPT XSAVEC XSAVES XRSTOR XRSTORS FXSAVE FXRSTOR XGETBV VZEROUPPER VZEROALL FNINIT FNOP EMMS
        LDTILECFG STTILECFG TILELOADD TILELOADDT1 TILESTORED TILEZERO TILERELEASE; one that this CPU lacks is a #UD.

        `area`: the bytes at the operand, copied into memory of its own (default: zeros, as many as the instruction may
        reach); beyond them lie zeros. `mask`: EDX:EAX, or ECX of XGETBV. `tile`, `stride`: of the tile instructions.
        `state`: the registers before, a dict in `decode`'s names, an `Area` or a standard image of XCR0 (default:
        initial values), loaded with XRSTOR. `before`: instructions between that and the one in question, each a tuple:
        ("XRSTOR", mask, rexw) and its like on the same area, ("VZEROUPPER",) and its like, ("LDMXCSR", value),
        ("FLDCW", value), ("FNSTCW",), ("LDTILECFG", 64 bytes), ("TILEZERO", tile), or a register and its value as one
        instruction writes it: ("xmm3", value) by legacy SSE, with "vex" behind it by VEX, ymm and zmm by VEX and EVEX,
        ("k1", value) by KMOVW, ("st0", value) by FLD.

        The place: `offset` bytes after a 64-byte boundary; `edge`: the area ends where a page is missing; `hole`: the
        page that begins so many bytes after the operand is missing; `read_only`; `segment` "ss"; or `address`, a
        linear address of the caller's choice and nobody's memory (not canonical, not mapped), without `area`.
        `align_check`: with EFLAGS.AC.

        Tiles as data need the process's permission (`request_amx`, in a child if it is to end); without it the
        instructions that need it are #NM. Raises: `HostError` where an instruction before it faults or the state cannot
        be loaded, `UnsupportedError` without XSAVE or in a portable build, `ValueError` [SDM1 13.7-13.13, SDM2].
        """
        return execute(
            Host.layout(),
            instruction,
            area,
            mask,
            state,
            before,
            rexw=rexw,
            segment=segment,
            align_check=align_check,
            tile=tile,
            stride=stride,
            offset=offset,
            edge=edge,
            hole=hole,
            read_only=read_only,
            address=address,
        )

    @staticmethod
    def time_instruction(
        instruction: "str | None",
        mask: int = -1,
        *,
        state: "Mapping[str, int | Buffer] | Buffer | None" = None,
        area: "Buffer | None" = None,
        other: "Buffer | None" = None,
        batches: int = 31,
        visits: int = 1,
        count: int = 256,
        cold: bool = False,
        unmodified: bool = False,
        size: int = 0,
        offsets: "tuple[int, int]" = (0, 0),
    ) -> "list[int]":
        """Ticks of the time-stamp counter that real instructions take: one raw sample a batch, in the order measured;
        this thread keeps its own state.

        `instruction`: XSAVE XSAVEOPT XSAVEC XRSTOR FXSAVE FXRSTOR; "XSAVEC+XRSTOR", a save to one area and a restore
        from another; "XRSTOR+XSAVEOPT", both on one area, nothing modified in between; "memcpy" of `size` bytes; None,
        the loop alone, whose time is in every sample. A sample is the sum over `visits` visits of `count` instructions
        back to back, each visit between two serialised reads of the counter. `cold`: every visit begins with CLFLUSH
        of both areas and MFENCE, and ends with another, which waits for the stores; only with `count` 1 are all
        instructions cold.

        `mask`: EDX:EAX. `state`: the registers, as in `execute`. `area`: what lies at the operand before (default: the
        state as a standard image; compacted for an XRSTOR of that format), `other`: what the pair's XRSTOR reads
        (default: the state compacted). `unmodified`: XSAVEOPT right after XRSTOR of the same area, in every visit;
        else it finds everything in use modified. `offsets`: where in a page the two areas begin, multiples of 64.

        Raises: `UnsupportedError` for an instruction that this CPU lacks and in a portable build, `HostError` where
        the state or an area cannot be loaded, `ValueError` [SDM1 13.7-13.10, SDM2 RDTSCP].
        """
        return time_instruction(
            Host.layout(),
            instruction,
            mask,
            state,
            area,
            other,
            batches=batches,
            visits=visits,
            count=count,
            cold=cold,
            unmodified=unmodified,
            size=size,
            offsets=offsets,
        )

    @staticmethod
    def tsc() -> int:
        """The time-stamp counter of this CPU. Raises: `UnsupportedError` in a portable build."""
        return int(native().tsc())

    @staticmethod
    def tsc_step() -> int:
        """The smallest difference, in ticks, of two reads of the time-stamp counter that differ: what the counter
        advances by, or what a read takes, whichever is more. Raises: `UnsupportedError` in a portable build."""
        return int(native().tsc_step())

    @staticmethod
    def supported_components() -> ComponentMask:
        """User components that the kernel offers to processes (ARCH_GET_XCOMP_SUPP); XCR0 where it cannot say."""
        return Host._ask(_GET_SUPPORTED)

    @staticmethod
    def permitted_components() -> ComponentMask:
        """User components that this process may use now (ARCH_GET_XCOMP_PERM); XCR0 where the kernel cannot say."""
        return Host._ask(_GET_PERMITTED)

    @staticmethod
    def _ask(code: int) -> ComponentMask:
        try:
            return ComponentMask(native().arch_prctl(code))
        except HostError as error:
            if error.errno != errno.EINVAL:  # Linux before 5.16, which knows no dynamic components
                raise
            return Host.xcr0

    @staticmethod
    def amx_permission() -> bool:
        """Whether this process may use AMX tiles. The permission is per process, inherited by fork, reset by exec."""
        return Component.TILEDATA in Host.xcr0 and Component.TILEDATA in Host.permitted_components()

    @staticmethod
    def request_amx() -> None:
        """Asks the kernel for the use of AMX tiles, for the whole process and for good: it cannot be given back.

        Raises: `UnsupportedError` where the CPU or the kernel has no tiles, `HostError` where the kernel refuses.
        """
        if Component.TILEDATA not in Host.supported_components():
            raise UnsupportedError(f"no AMX tiles here: XCR0 is {Host.xcr0}, and the kernel offers no TILEDATA")
        try:
            native().arch_prctl(_REQUEST, int(Component.TILEDATA))
        except HostError as error:
            if error.errno != errno.ENOSPC:
                raise
            raise HostError(
                errno.ENOSPC,
                "permission for AMX refused: a thread of this process has an alternate signal stack smaller than "
                "AT_MINSIGSTKSZ; give it a larger one, or disable it",
            ) from None


def in_child(work: "Callable[[], Any]") -> "Any":
    """What `work()` returns in a child process made by fork: for what cannot be undone, such as a permission, and for
    what must not happen to this one. The child runs `work` and ends; what it returns, or the exception that it raises,
    comes back pickled.

    Raises: what `work` raises; `HostError` if the child ends without an answer.
    """
    import pickle

    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.close(reader)
            answer: "tuple[bool, Any]"
            try:
                answer = True, work()
            except Exception as error:
                answer = False, error
            with os.fdopen(writer, "wb") as stream:
                pickle.dump(answer, stream)
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as stream:
        data = stream.read()
    _, status = os.waitpid(child, 0)
    if not data:
        raise HostError(errno.ECHILD, f"the child process ended with status {status:#x} and no answer")
    done, value = pickle.loads(data)  # from our own child
    if not done:
        raise value
    return value


class LiveThread:
    """What the kernel's ptrace says about one stopped thread; bytes as the kernel has them.

    `prstatus`: user_regs_struct (216 bytes; 68 of a thread in 32-bit code); `fpregs`: NT_PRFPREG; `xstate`:
    NT_X86_XSTATE, standard format with XCR0 at byte 464, empty where the kernel has none; `fxregs`: NT_PRXFPREG of a
    32-bit thread, else empty; `ssp`: the shadow stack pointer, or None without a shadow stack.
    """

    __slots__ = ("fpregs", "fxregs", "name", "prstatus", "ssp", "tid", "xstate")

    def __init__(
        self, tid: int, name: str, prstatus: bytes, fpregs: bytes, xstate: bytes, fxregs: bytes, ssp: "int | None"
    ) -> None:
        self.tid = tid
        self.name = name
        self.prstatus = prstatus
        self.fpregs = fpregs
        self.xstate = xstate
        self.fxregs = fxregs
        self.ssp = ssp

    @property
    def is_32bit(self) -> bool:
        """Whether the thread was stopped in 32-bit code: the kernel then gives the i386 view of its registers."""
        return len(self.prstatus) < 216

    def __repr__(self) -> str:
        return f"<LiveThread {self.tid} {self.name!r}: {len(self.xstate)} bytes of extended state>"


def live_threads(pid: int, *, seconds: float = 5.0) -> "list[LiveThread]":
    """Every thread of process `pid`, the main one first; all stopped together, no longer than the read.

    Uses PTRACE_SEIZE and PTRACE_INTERRUPT, which send no signal; a stopped process stays stopped. Raises: `HostError`
    naming the missing permission, or a thread that does not stop within `seconds`; `UnsupportedError`.
    """
    native()
    if pid <= 0:
        raise HostError(errno.ESRCH, f"no process {pid}")
    # In a thread of its own: when a tracing thread ends the kernel lets go of all it has seized, also of a thread
    # that never stopped (asleep in the kernel, say) and cannot be detached.
    done = _thread.allocate_lock()
    done.acquire()
    result: "list[LiveThread]" = []
    failure: "list[BaseException]" = []

    def work() -> None:
        try:
            result.extend(_snapshot(pid, time.monotonic() + seconds))
        except BaseException as error:
            failure.append(error)
        finally:
            done.release()

    _thread.start_new_thread(work, ())
    done.acquire()
    if failure:
        raise failure[0]
    return result


def _snapshot(pid: int, deadline: float) -> "list[LiveThread]":
    stopped: "dict[int, int]" = {}
    try:
        _stop_all(pid, stopped, deadline)
        threads = [_read(tid) for tid in sorted(stopped, key=lambda tid: (tid != pid, tid))]
    finally:
        detach = native().ptrace
        for tid, pending in stopped.items():
            try:
                detach(_DETACH, tid, 0, pending)
            except OSError:
                pass  # killed meanwhile
    for thread in threads:  # nobody needs to stand still for this
        thread.name = _name(pid, thread.tid)
    return threads


def _tids(pid: int) -> "list[int]":
    try:
        return [int(name) for name in os.listdir(f"/proc/{pid}/task")]
    except FileNotFoundError:
        raise HostError(errno.ESRCH, f"no process {pid}") from None
    except ProcessLookupError:
        return []


def _stop_all(pid: int, stopped: "dict[int, int]", deadline: float) -> None:
    # A thread that still runs may start another: scan until a scan finds nothing new. `stopped` maps a thread to the
    # signal that it was about to take, which the detach hands on.
    gone: "set[int]" = set()
    while True:
        fresh = [tid for tid in _tids(pid) if tid not in stopped and tid not in gone]
        if not fresh:
            break
        seized = []
        for tid in fresh:
            try:
                native().ptrace(_SEIZE, tid)
                native().ptrace(_INTERRUPT, tid)
                seized.append(tid)
            except ProcessLookupError:
                gone.add(tid)
            except PermissionError as error:
                if _stat(pid, tid) not in ("Z", "X", ""):
                    _refused(pid, tid, error)
                gone.add(tid)  # a zombie: a main thread that ended before the others
        for tid in seized:
            signal = _await_stop(pid, tid, deadline)
            if signal is None:
                gone.add(tid)
            else:
                stopped[tid] = signal
    if not stopped:
        raise HostError(errno.ESRCH, f"process {pid} has ended: no thread of it is left to read")


def _await_stop(pid: int, tid: int, deadline: float) -> "int | None":
    while True:
        try:
            found, status = os.waitpid(tid, _WALL | os.WNOHANG)
        except ChildProcessError:
            return None
        if found:
            if not os.WIFSTOPPED(status):
                return None
            return 0 if status >> 16 == _EVENT_STOP else os.WSTOPSIG(status)
        if time.monotonic() > deadline:
            raise HostError(errno.ETIMEDOUT, f"thread {tid} of process {pid} does not stop (state {_stat(pid, tid)})")
        time.sleep(0.0002)


def _name(pid: int, tid: int) -> str:
    try:
        with open(f"/proc/{pid}/task/{tid}/comm", "rb") as file:
            return file.read(64).rstrip(b"\n").decode(errors="backslashreplace")
    except OSError:
        return ""


def _read(tid: int) -> LiveThread:
    prstatus = _regset(tid, _PRSTATUS, 512)
    small = len(prstatus) < 216
    ssp = b"" if small else _regset(tid, _SHSTK, 8)
    return LiveThread(
        tid,
        "",
        prstatus,
        _regset(tid, _PRFPREG, 512),
        _regset(tid, _XSTATE, 1 << 16),
        _regset(tid, _PRXFPREG, 512) if small else b"",
        int.from_bytes(ssp, "little") if ssp else None,
    )


def _regset(tid: int, note: int, size: int) -> bytes:
    try:
        data: bytes = native().ptrace_regset(tid, note, size)
    except ProcessLookupError:
        raise HostError(errno.ESRCH, f"thread {tid} was killed while it was read") from None
    except OSError as error:
        if note == _PRSTATUS or error.errno not in (errno.EINVAL, errno.ENODEV, errno.EIO, errno.EOPNOTSUPP):
            raise HostError(error.errno, f"PTRACE_GETREGSET({note:#x}) of thread {tid}: {error.strerror}") from None
        return b""
    return data


def _stat(pid: int, tid: int) -> str:
    try:
        with open(f"/proc/{pid}/task/{tid}/stat", "rb") as file:
            return file.read(4096).rpartition(b") ")[2][:1].decode()
    except OSError:
        return ""


def _fields(path: str, names: "Iterable[str]") -> "dict[str, list[str]]":
    fields = {}
    try:
        with open(path, errors="replace") as file:
            for line in file:
                key, _, value = line.partition(":")
                if key in names:
                    fields[key] = value.split()
    except OSError:
        pass
    return fields


def _refused(pid: int, tid: int, error: OSError) -> "NoReturn":
    status = _fields(f"/proc/{pid}/status", ("TracerPid", "Uid", "Kthread"))
    own = int((_fields("/proc/self/status", ("CapEff",)).get("CapEff") or ["0"])[0], 16) >> 19 & 1
    try:
        with open("/proc/sys/kernel/yama/ptrace_scope") as file:
            scope = int(file.read())
    except (OSError, ValueError):
        scope = 0
    uid = int((status.get("Uid") or ["-1"])[0])
    tracer = (status.get("TracerPid") or ["0"])[0]
    if pid == os.getpid():
        why = "it is this very process; its own thread's state comes from Host.capture()"
    elif tracer != "0":
        why = f"process {tracer} traces it already: end that debugger first"
    elif status.get("Kthread") == ["1"]:
        why = "it is a kernel thread, which has no user registers"
    elif scope == 3:
        why = "/proc/sys/kernel/yama/ptrace_scope is 3: nobody may trace until the next boot"
    elif own:
        why = "this process has CAP_SYS_PTRACE, so a security module, a container or another user namespace forbids it"
    elif scope == 2:
        why = "/proc/sys/kernel/yama/ptrace_scope is 2: CAP_SYS_PTRACE is needed; run as root"
    elif uid != os.geteuid():
        why = f"it belongs to uid {uid}, this process to uid {os.geteuid()}: CAP_SYS_PTRACE is needed; run as root"
    elif scope == 1:
        why = (
            "/proc/sys/kernel/yama/ptrace_scope is 1: only a parent may trace without CAP_SYS_PTRACE; run as root, "
            "or let the process call prctl(PR_SET_PTRACER)"
        )
    else:
        why = "it is not dumpable (a set-uid program, or prctl(PR_SET_DUMPABLE, 0)): CAP_SYS_PTRACE is needed"
    raise HostError(errno.EPERM, f"may not trace thread {tid} of process {pid}: {why}") from error
