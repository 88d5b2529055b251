"""Linux's permission for dynamically enabled components (AMX tile data), rule by rule, as a model.

A `System` is what one kernel offers on one CPU; a `Process` asks it by `arch_prctl`; a `Thread` uses tiles, gets its
state grown at the first use, pushes signal frames and returns through them, and is read and written by a debugger. The
model makes no system call, holds no register but XINUSE, and answers what the kernel would. Sizes come from
`xsave.layout` and `xsave.audit.frames`, the header rules of a debugger's write from `xsave.audit.uabi`, and which
components are dynamic from what the CPU enumerates. Each rule names its place in the kernel; which were measured and
which were only read there, docs/permission.md says.
"""

from xsave.audit import frames, uabi
from xsave.audit.verdict import ALL, can_disable
from xsave.components import COMPONENTS, Component, ComponentMask
from xsave.errors import UnsupportedError
from xsave.images.facts import MAGIC1, MAGIC2
from xsave.layout import HEADER, STANDARD, Layout
from xsave.tiles import TileConfig

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NamedTuple

    from typing_extensions import Buffer

    from xsave.models import CpuModel

    class Answer(NamedTuple):
        """What a system call answers: the error's name or None, and the value that it gives back or None."""

        error: "str | None"
        value: "int | None" = None

    class Signal(NamedTuple):
        """A signal that the kernel forces on a thread: its number, si_code, and the trap number and error code in its
        frame, which are those of the last exception that set them."""

        number: int
        si_code: int
        trapno: int
        error: int

    class Regset(NamedTuple):
        """NT_X86_XSTATE of a thread: bytes, XSTATE_BV, and the word at byte 464, the kernel's components."""

        size: int
        xstate_bv: ComponentMask
        xcr0: ComponentMask

    class LayoutEntry(NamedTuple):
        """One entry of the NT_X86_XSAVE_LAYOUT note: component, and its bytes and offset in the standard format."""

        type: int
        size: int
        offset: int
        flags: int

else:
    from collections import namedtuple

    Answer = namedtuple("Answer", "error value", defaults=(None,))
    Answer.__doc__ = "What a system call answers: the error's name or None, and the value that it gives back or None."
    Signal = namedtuple("Signal", "number si_code trapno error")
    Signal.__doc__ = "A signal that the kernel forces on a thread, with si_code and its frame's trapno and err."
    Regset = namedtuple("Regset", "size xstate_bv xcr0")
    Regset.__doc__ = "NT_X86_XSTATE of a thread: bytes, XSTATE_BV, and the word at byte 464."
    LayoutEntry = namedtuple("LayoutEntry", "type size offset flags")
    LayoutEntry.__doc__ = "One entry of the NT_X86_XSAVE_LAYOUT note."

__all__ = [
    "GET_GUEST_PERM", "GET_PERM", "GET_SUPP", "ILL_ILLOPC", "ILL_ILLOPN", "MINSIGSTKSZ",
    "REQ_GUEST_PERM", "REQ_PERM", "SIGILL", "SIGSEGV", "SI_KERNEL",
    "Answer", "LayoutEntry", "Process", "PushedFrame", "Regset", "Signal", "System", "Thread",
]  # fmt: skip

# asm/prctl.h; ARCH_GET_XCOMP_SUPP and so on.
GET_SUPP, GET_PERM, REQ_PERM, GET_GUEST_PERM, REQ_GUEST_PERM = 0x1021, 0x1022, 0x1023, 0x1024, 0x1025
# Codes of arch_prctl that belong to other facilities: segment bases, CPUID faulting, vDSO, LAM, shadow stacks.
_FOREIGN = frozenset((*range(0x1001, 0x1005), 0x1011, 0x1012, *range(0x2001, 0x2004), *range(0x4001, 0x4005),
                      *range(0x5001, 0x5006)))  # fmt: skip
SIGILL, SIGSEGV = 4, 11
ILL_ILLOPC, ILL_ILLOPN, SI_KERNEL = 1, 2, 0x80
_UD = 6
# The least alternate stack of any x86 program in bytes (asm/signal.h).
MINSIGSTKSZ = 2048
_LEGACY = int(ComponentMask.parse("x87 SSE"))
_CFG, _DATA = Component.TILECFG.mask, Component.TILEDATA.mask
_RED_ZONE = 128
_ALIGNMENT = 64
# Where a user pointer may point (four-level paging): beyond the first page, below the last page of the lower half.
_PAGE = 4096
_USER_END = (1 << 47) - _PAGE
_MASK_BYTES = 8
_XSTATE = HEADER[0]

# Instruction: whether tiles must be configured, the components whose IA32_XFD bit makes it #NM, those in use after it,
# and those initial after it (SDM1 13.14, 18; SDM2 of each).
_EFFECTS = {
    "LDTILECFG": (False, 0, _CFG, _DATA),
    "STTILECFG": (False, 0, 0, 0),
    "TILERELEASE": (False, 0, 0, _CFG | _DATA),
    "TILESTORED": (True, _DATA, 0, 0),
    **dict.fromkeys(
        ("TILEZERO", "TILELOADD", "TILELOADDT1", "TDPBSSD", "TDPBSUD", "TDPBUSD", "TDPBUUD", "TDPBF16PS", "TDPFP16PS"),
        (True, _DATA, _DATA, 0),
    ),
}


class System:
    """What a kernel offers to processes on one CPU.

    `supported`: the components of XCR0 that the kernel works with; `dynamic`: those of them that IA32_XFD can disable,
    which need permission and are there once used; `default`: the others; `components`: how many component numbers the
    kernel knows (XFEATURE_MAX); `stack`: the `SignalStack` of `xsave.audit.frames`; `model`: the CPU.
    """

    __slots__ = ("_sizes", "components", "default", "dynamic", "model", "stack", "supported")

    def __init__(
        self,
        model: "CpuModel",
        xcr0: "int | str | None" = None,
        *,
        ia32: bool = True,
        components: int = Component.APX + 1,
    ) -> None:
        """The kernel on `model` with this XCR0 (default: all that the CPU has and Linux knows).

        `ia32`: whether it was built to run 32-bit programs, whose signal frames are the larger. `components`: numbers
        from there on are EINVAL, not EOPNOTSUPP; APX is the last that Linux 6.18 knows.

        Raises: `ValueError` for an XCR0 that the CPU does not take or that Linux does not work with
        [Linux kernel/fpu/xstate.c].
        """
        self.model = model
        self.supported = uabi.enabled(model, None if xcr0 is None else int(ComponentMask.parse(xcr0)))
        self.dynamic = ComponentMask(can_disable(model) & self.supported)
        self.default = ComponentMask(self.supported & ~self.dynamic)
        self.components = components
        self.stack = frames.linux_stack(model, self.supported, ia32=ia32)
        self._sizes = {used: frames.linux(model, self.supported, used=used) for used in (False, True)}

    @property
    def minsigstksz(self) -> int:
        """AT_MINSIGSTKSZ of every process in bytes: with room for all that the kernel offers, granted or not."""
        return self.stack.minsigstksz

    @property
    def has_tiles(self) -> bool:
        """Whether tile instructions execute at all: XCR0 has both tile components [SDM1 18.3]."""
        return not (_CFG | _DATA) & ~self.supported

    def area_size(self, mask: int) -> int:
        """Bytes of a standard area of `mask`'s components [SDM1 13.4.3]."""
        return Layout(self.model, mask, STANDARD).size

    def least_stack_to_request(self, permitted: int) -> int:
        """The smallest enabled alternate stack, in bytes, that REQ_XCOMP_PERM suffers where it would bring the
        permission to `permitted`: AT_MINSIGSTKSZ less what the process would still not have
        [Linux kernel/fpu/xstate.c validate_sigaltstack]."""
        return self.minsigstksz - self.area_size(self.supported) + self.area_size(permitted)

    def least_stack_to_install(self, permitted: int) -> int:
        """The smallest alternate stack, in bytes, that sigaltstack takes with this permission. Without a dynamic
        component it is MINSIGSTKSZ. With one it is less than what the request suffers: the kernel counts the area
        alone, without the magic number and the FSAVE header [Linux kernel/signal.c sigaltstack_size_valid]."""
        bound = self.stack.sigaltstack
        if bound is None or not permitted & self.dynamic:
            return MINSIGSTKSZ
        return max(MINSIGSTKSZ, bound - self.area_size(self.supported) + self.area_size(permitted))

    def signal_frame(self, used: bool) -> frames.SignalFrame:
        """The signal frame of a thread that has (`used`) or has not yet used a dynamic component; sizes in bytes
        [Linux kernel/fpu/signal.c]."""
        return self._sizes[used]

    def accepts(self, palette: int) -> bool:
        """Whether XRSTOR configures the tiles from an image of this palette; of any other TILECFG becomes initial, with
        no fault [SDM1 13.5.14]. The rest of the image is taken for valid."""
        image = bytes([palette]).ljust(COMPONENTS[Component.TILECFG].size, b"\0")
        return palette != 0 and not TileConfig.from_bytes(image).check(self.model)

    def layout_note(self) -> "list[LayoutEntry]":
        """NT_X86_XSAVE_LAYOUT of a core file, once in a file: sizes and offsets in bytes of the kernel's components
        beyond the legacy region [Linux kernel/fpu/xstate.c]."""
        offsets = Layout(self.model, self.supported, STANDARD).offsets
        return [LayoutEntry(int(component), size, offset, 0) for component, (offset, size) in offsets.items()]

    def __repr__(self) -> str:
        return f"<System on {self.model.name}: offers {self.supported}, dynamic {self.dynamic}>"


class PushedFrame:
    """A signal frame on the stack, for a handler to change before it returns.

    `magic1`, `extended_size`, `xfeatures`, `xstate_size`: the software-reserved words at byte 464 of its area, sizes in
    bytes; `magic2`: the word behind the area; `xstate_bv`, of its header; `palette`: TILECFG's first byte.
    """

    __slots__ = ("extended_size", "magic1", "magic2", "palette", "xfeatures", "xstate_bv", "xstate_size")

    def __init__(self, frame: frames.SignalFrame, xinuse: int) -> None:
        self.magic1, self.magic2 = MAGIC1, MAGIC2
        self.xstate_size, self.extended_size = frame.xstate_size, frame.extended_size
        self.xfeatures = int(frame.mask)
        # The kernel says that the legacy registers are there, whatever XSAVE found.
        self.xstate_bv = xinuse & self.xfeatures | _LEGACY
        self.palette = 1 if self.xstate_bv & _CFG else 0

    def __repr__(self) -> str:
        room = ComponentMask(self.xfeatures)
        return f"<PushedFrame of {room}: {self.xstate_size:,} bytes, XSTATE_BV {self.xstate_bv:#x}>"


class Process:
    """A process: what it may use, what its guests may use, its threads.

    `permitted`, `guest_permitted`: the components; `threads`: those that live, the first one first; `has_vcpu`: whether
    it made a virtual CPU, which settles the guests' permission. `in_use`: XINUSE of the first thread.
    """

    __slots__ = ("guest_permitted", "has_vcpu", "permitted", "system", "threads")

    def __init__(self, system: System, in_use: int = 0) -> None:
        self.system = system
        self._reset()
        self.threads = [Thread(self, in_use)]

    def _reset(self) -> None:
        self.permitted = self.guest_permitted = self.system.default
        self.has_vcpu = False

    @property
    def main(self) -> "Thread":
        """The first thread that lives. Raises: `ValueError` where none does."""
        if not self.threads:
            raise ValueError("the process has ended: no thread of it lives")
        return self.threads[0]

    def arch_prctl(self, thread: "Thread", code: int, argument: int) -> Answer:
        """What arch_prctl answers to one thread: the mask is written to the pointer `argument` by GET_XCOMP_SUPP,
        GET_XCOMP_PERM and GET_XCOMP_GUEST_PERM, and is the answer's value; of REQ_XCOMP_PERM and REQ_XCOMP_GUEST_PERM
        the argument is a component's number. Errors are answers: EINVAL (unknown code or number), EOPNOTSUPP (no
        dynamic component of this kernel), ENOSPC (a small alternate stack), EBUSY (a virtual CPU exists), EFAULT. A
        pointer into the first page or out of the lower half of four-level paging is bad, any other is taken for good.

        Raises: `ValueError` for a thread of another process or one that has ended; `UnsupportedError` for a code of
        another facility [Linux kernel/process_64.c, kernel/fpu/xstate.c fpu_xstate_prctl].
        """
        thread.check_in(self)
        if code in _FOREIGN:
            raise UnsupportedError(f"arch_prctl code {code:#x} belongs to another facility than the permission")
        argument &= ALL
        masks = {GET_SUPP: self.system.supported, GET_PERM: self.permitted, GET_GUEST_PERM: self.guest_permitted}
        if code in masks:
            good = _PAGE <= argument <= _USER_END - _MASK_BYTES
            return Answer(None, int(masks[code])) if good else Answer("EFAULT")
        if code in (REQ_PERM, REQ_GUEST_PERM):
            return Answer(self._request(argument, guest=code == REQ_GUEST_PERM))
        return Answer("EINVAL")

    def _request(self, number: int, guest: bool) -> "str | None":
        # xstate_request_perm: the number, what is granted already, the guests' lock, the alternate stacks.
        if number >= self.system.components:
            return "EINVAL"
        wanted = 1 << number & self.system.dynamic
        if not wanted:
            return "EOPNOTSUPP"
        had = self.guest_permitted if guest else self.permitted
        if not wanted & ~had:
            return None
        if guest and self.has_vcpu:
            return "EBUSY"
        granted = ComponentMask(had | wanted)
        if guest:
            self.guest_permitted = granted
            return None
        least = self.system.least_stack_to_request(granted)
        if any(each.altstack is not None and each.altstack < least for each in self.threads):
            return "ENOSPC"
        self.permitted = granted
        return None

    def create_vcpu(self) -> None:
        """KVM_CREATE_VCPU: the first one settles what guests may use; KVM_CREATE_VM alone does not
        [Linux kernel/fpu/core.c fpu_lock_guest_permissions]."""
        self.has_vcpu = True

    def clone(self, parent: "Thread") -> "Thread":
        """A new thread made by `parent`: the process's permission is its own, an alternate stack it has none, of the
        tiles it gets the configuration [Linux kernel/fpu/core.c fpu_clone, kernel/fork.c].

        Raises: `ValueError` for a thread of another process or one that has ended.
        """
        parent.check_in(self)
        made = parent.copy_to(self)
        made.altstack = None
        self.threads.append(made)
        return made

    def fork(self, parent: "Thread") -> "Process":
        """The child of a fork (or vfork) by `parent`: one thread, with its alternate stack and both permissions.

        Raises: `ValueError` for a thread of another process or one that has ended
        [Linux kernel/fpu/core.c fpu_inherit_perms].
        """
        parent.check_in(self)
        child = Process(self.system)
        child.permitted, child.guest_permitted, child.has_vcpu = self.permitted, self.guest_permitted, self.has_vcpu
        child.threads = [parent.copy_to(child)]
        return child

    def exec(self, thread: "Thread") -> None:
        """execve by `thread`: the other threads end, both permissions and all of the thread's state are as at first.

        Raises: `ValueError` for a thread of another process or one that has ended
        [Linux kernel/fpu/core.c fpu_flush_thread, fpstate_reset].
        """
        thread.check_in(self)
        for other in [each for each in self.threads if each is not thread]:
            other.end()
        self._reset()
        thread.restart()

    def core(self, dumping: "Thread") -> "tuple[list[Regset], list[LayoutEntry]]":
        """What the notes of a core file show: NT_X86_XSTATE of each thread, `dumping` first, and the layout note.

        Raises: `ValueError` for a thread of another process or one that has ended
        [Linux kernel/fpu/regset.c, kernel/fpu/xstate.c].
        """
        dumping.check_in(self)
        order = [dumping, *(each for each in self.threads if each is not dumping)]
        return [each.getregset() for each in order], self.system.layout_note()

    def __repr__(self) -> str:
        return f"<Process: {len(self.threads)} threads, may use {self.permitted}, its guests {self.guest_permitted}>"


class Thread:
    """One thread of a `Process`.

    `xinuse`: the components in use, as XGETBV with ECX = 1 tells; `room`: the components that its state has room for;
    `altstack`: bytes of its enabled alternate signal stack, or None; `trapno`, `error`: of its last exception that set
    them, 0 before any; `process`: None once it has ended.
    """

    __slots__ = ("altstack", "error", "process", "room", "trapno", "xinuse")

    def __init__(self, process: Process, xinuse: int = 0) -> None:
        self.process: "Process | None" = process
        self.room = process.system.default
        self.xinuse = ComponentMask(xinuse & self.room)
        self.altstack: "int | None" = None
        self.trapno = self.error = 0

    @property
    def xfd(self) -> ComponentMask:
        """IA32_XFD while it runs: the dynamic components that its state has no room for."""
        return ComponentMask(self._system.dynamic & ~self.room)

    @property
    def _home(self) -> Process:
        if self.process is None:
            raise ValueError("the thread has ended")
        return self.process

    @property
    def _system(self) -> System:
        return self._home.system

    def check_in(self, process: Process) -> None:
        """Raises: `ValueError` if this is no living thread of `process`."""
        if self._home is not process:
            raise ValueError("the thread belongs to another process")

    def copy_to(self, process: Process) -> "Thread":
        """The state that a new task of `process` gets of this one: all but the dynamic components, for which it has no
        room [Linux kernel/fpu/core.c fpu_clone]."""
        made = Thread(process, self.xinuse)
        made.altstack, made.trapno, made.error = self.altstack, self.trapno, self.error
        return made

    def restart(self) -> None:
        """What execve leaves of the thread: every register initial, no room for dynamic components, no alternate stack.
        Raises: `ValueError` if it has ended [Linux kernel/fpu/core.c fpu_flush_thread]."""
        self.room = self._system.default
        self.xinuse = ComponentMask(0)
        self.altstack = None

    def end(self) -> None:
        """The thread's exit; its alternate stack no longer counts. Raises: `ValueError` if it has ended before."""
        self._home.threads.remove(self)
        self.process = None

    def fault(self, trapno: int, error: int = 0) -> None:
        """An exception that the thread's frames show from now on, such as a page fault that became a signal: `trapno`
        is its vector. A refused first use is none of them [Linux kernel/traps.c]."""
        self.trapno, self.error = trapno, error

    def sigaltstack(self, size: "int | None") -> Answer:
        """sigaltstack with a stack of `size` bytes, or None to disable it. ENOMEM: smaller than this process's
        permission asks for; nothing has changed then. Raises: `ValueError` if the thread has ended
        [Linux kernel/signal.c, arch kernel/signal.c]."""
        if size is not None and size < self._system.least_stack_to_install(self._home.permitted):
            return Answer("ENOMEM")
        self.altstack = size
        return Answer(None)

    def use(self, instruction: str) -> "Signal | None":
        """What one tile instruction on valid operands leads to: None, or the SIGILL.

        Where the system has no tiles, and where an instruction needs them configured and they are not, it is a #UD:
        ILL_ILLOPN, which sets `trapno`. Else, if IA32_XFD disables the tile data, #NM: with the process's permission
        the thread's state grows for good and the instruction goes on; without, ILL_ILLOPC, with `trapno` and `error`
        as they were.

        Raises: `ValueError` for an unknown instruction or a thread that has ended
        [SDM1 13.14, Linux kernel/traps.c handle_xfd_event, kernel/fpu/xstate.c __xfd_enable_feature].
        """
        if instruction not in _EFFECTS:
            raise ValueError(f"{instruction!r} is none of {' '.join(_EFFECTS)}")
        configured, touched, sets, clears = _EFFECTS[instruction]
        if not self._system.has_tiles or (configured and not self.xinuse & _CFG):
            self.fault(_UD)
            return Signal(SIGILL, ILL_ILLOPN, self.trapno, self.error)
        missing = touched & self.xfd
        if missing & ~self._home.permitted:
            return Signal(SIGILL, ILL_ILLOPC, self.trapno, self.error)
        self.room = ComponentMask(self.room | missing)
        self.xinuse = ComponentMask((self.xinuse | sets) & ~clears)
        return None

    def frame(self) -> PushedFrame:
        """The frame that a signal would push now: large once the thread has used tiles, whatever its registers hold.
        Raises: `ValueError` if the thread has ended [Linux kernel/fpu/signal.c]."""
        return PushedFrame(self._shape(), self.xinuse)

    def _shape(self) -> frames.SignalFrame:
        return self._system.signal_frame(bool(self.room & self._system.dynamic))

    def frame_bytes(self, pointer: int = 0, *, alternate: bool = False) -> int:
        """Bytes of stack that a signal takes below the stack pointer `pointer` (only its lower six bits matter): the
        red zone (not on an alternate stack), the area, which is aligned to 64 bytes, and the structures below it.
        Raises: `ValueError` if the thread has ended [Linux kernel/signal.c get_sigframe]."""
        shape = self._shape()
        top = pointer % _ALIGNMENT - (0 if alternate else _RED_ZONE)
        area = (top - shape.extended_size) // _ALIGNMENT * _ALIGNMENT
        return pointer % _ALIGNMENT - area + shape.area[0]

    def deliver(
        self, *, stack: "int | None" = None, pointer: int = 0, alternate: bool = False
    ) -> "PushedFrame | Signal":
        """A signal with a handler: the frame, after which every register is initial; or the SIGSEGV where the stack is
        too small, after which nothing has changed.

        `stack`: bytes of stack below `pointer` (None: enough). `alternate`: the handler asks for the alternate stack
        (SA_ONSTACK); if one is enabled, its size counts and `pointer` is its end.

        Raises: `ValueError` if the thread has ended [Linux kernel/signal.c, kernel/fpu/signal.c].
        """
        if alternate and self.altstack is not None:
            room, needed = self.altstack, self.frame_bytes(pointer, alternate=True)
        else:
            needed = self.frame_bytes(pointer)
            room = needed if stack is None else stack
        if needed > room:
            return self._killed()
        pushed = self.frame()
        self.xinuse = ComponentMask(0)
        return pushed

    def sigreturn(self, frame: PushedFrame) -> "Signal | None":
        """The return through `frame`, as the handler left it: None, or the SIGSEGV, after which nothing has changed.

        Loaded is what XSTATE_BV and the frame's xfeatures both have and the thread has room for; the rest is initial. A
        frame whose magic numbers or sizes are wrong gives the legacy registers alone. A bit of XSTATE_BV that XCR0 does
        not have is a #GP of XRSTOR. Raises: `ValueError` if the thread has ended
        [Linux kernel/fpu/signal.c check_xstate_in_sigframe, SDM1 13.8.1].
        """
        extended = (
            frame.magic1 == MAGIC1
            and frame.magic2 == MAGIC2
            and HEADER[1] <= frame.xstate_size <= self._shape().xstate_size
            and frame.xstate_size <= frame.extended_size
        )
        if not extended:
            self.xinuse = ComponentMask(_LEGACY)
            return None
        if frame.xstate_bv & ~self._system.supported:
            return self._killed()
        self._load(frame.xstate_bv & frame.xfeatures & self.room, frame.palette)
        return None

    def _load(self, xstate_bv: int, palette: int) -> None:
        self.xinuse = ComponentMask(xstate_bv if self._system.accepts(palette) else xstate_bv & ~_CFG)

    def _killed(self) -> Signal:
        return Signal(SIGSEGV, SI_KERNEL, self.trapno, self.error)

    def getregset(self) -> Regset:
        """PTRACE_GETREGSET of NT_X86_XSTATE: always an area of all that the kernel offers, in bytes; XSTATE_BV tells
        what of it counts. Raises: `ValueError` if the thread has ended [Linux kernel/fpu/regset.c]."""
        supported = self._system.supported
        return Regset(self._system.area_size(supported), self.xinuse, supported)

    def setregset(self, data: "Buffer") -> Answer:
        """PTRACE_SETREGSET of NT_X86_XSTATE with these bytes, by the rules of `xsave.audit.uabi`: EFAULT where they are
        too few, EINVAL for a header that the kernel does not take, such as one with tile data while the thread has used
        none, whatever its process may. `xinuse` is then as after the thread's resumption.

        Raises: `ValueError` if the thread has ended [Linux kernel/fpu/regset.c xstateregs_set, kernel/fpu/xstate.c].
        """
        system = self._system
        given = memoryview(data).cast("B")
        _, error = uabi.findings(given, system.model, uabi.PTRACE, int(system.supported), int(self.xfd))
        if error is None:
            offset = Layout(system.model, system.supported, STANDARD).offsets.get(Component.TILECFG)
            palette = 0 if offset is None else given[offset[0]]
            self._load(int.from_bytes(given[_XSTATE : _XSTATE + _MASK_BYTES], "little"), palette)
        return Answer(error)

    def __repr__(self) -> str:
        end = ", ended" if self.process is None else ""
        return f"<Thread: in use {self.xinuse}, room for {self.room}{end}>"
