"""What systems put around an XSAVE area, in bytes: signal frames, Windows contexts, SSA frames, a TD's buffer.

Each is the area of one mask, whose size `Layout` knows, with fixed structures before or behind it; those sizes are
the systems' and stand here, with their sources. A mask in a frame need not be a value that XCR0 may have: a Linux
thread without tiles has a frame that holds TILECFG and no TILEDATA.
"""

from xsave.audit.verdict import can_disable, known_mask, mask_of
from xsave.components import Component, ComponentMask
from xsave.errors import UnsupportedError
from xsave.layout import COMPACTED, HEADER, STANDARD, Format, Layout

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import ClassVar

    from xsave.models import CpuModel

__all__ = [
    "Frame", "SignalFrame", "SignalStack", "SsaFrame", "TdxBuffer", "WindowsContext", "linux", "linux_stack",
    "sgx", "tdx", "windows",
]  # fmt: skip

# What the save instruction writes; in a Windows context the legacy region lies apart from the rest.
AREA, CHUNK = "XSAVE area", "XSTATE chunk"
_PAGE = 4096
_ALIGNMENT = 64
# struct rt_sigframe of 64-bit programs: the restorer's address, struct ucontext, siginfo (asm/sigframe.h). It ends a
# multiple of 16 bytes plus 8 below the area, so that the handler is entered with the stack that a call leaves.
_RT_SIGFRAME = (("restorer address", 8), ("ucontext", 304), ("siginfo", 128))
_RT_SIGFRAME_SIZE = sum(size for _, size in _RT_SIGFRAME)
_MAGIC2 = ("FP_XSTATE_MAGIC2", 4)
# struct sigframe_ia32, the largest frame of a kernel that runs 32-bit programs; struct fregs_state before its area.
_SIGFRAME_IA32 = 736
_FSAVE_HEADER = ("FSAVE header", 112)
_FRAME_ALIGNMENT = 16
# The x64 and the x86 CONTEXT, and CONTEXT_EX behind them (winnt.h, ntrtl.h).
_CONTEXTS = {"x64": 0x4D0, "x86": 0x2CC}
_CONTEXT_EX = 32
_GPRSGX, _EXINFO = ("GPRSGX", 184), ("EXINFO", 16)
_TDX_PAGES = 3


class Frame:
    """An XSAVE area and what a system keeps with it.

    `mask`: the components that the area has room for; `format`: its format; `parts`: [(name, offset, size)] in bytes
    from the frame's lowest byte, ascending, without gaps; `total`: bytes of them all; `area`: (offset, size) of the
    part that the save instruction writes; `facts`: {name: number} that the system derives from them; `TITLE` and
    `SOURCE`: what the frame is, and who says so.
    """

    __slots__ = ("format", "mask", "parts")
    TITLE: "ClassVar[str]" = "frame"
    SOURCE: "ClassVar[str]" = ""

    def __init__(self, mask: int, form: Format, pieces: "Iterable[tuple[str, int]]") -> None:
        self.mask = ComponentMask(mask)
        self.format = form
        self.parts: "list[tuple[str, int, int]]" = []
        at = 0
        for name, size in pieces:
            if size:
                self.parts.append((name, at, size))
                at += size

    @property
    def total(self) -> int:
        """Bytes from the first part's beginning to the last one's end."""
        _, offset, size = self.parts[-1]
        return offset + size

    @property
    def area(self) -> "tuple[int, int]":
        """Offset and size in bytes of the XSAVE area (of a Windows context: of its XSTATE chunk)."""
        return next((offset, size) for name, offset, size in self.parts if name in (AREA, CHUNK))

    @property
    def facts(self) -> "dict[str, int]":
        """What the system derives from the sizes, by the system's own names; numbers."""
        return {}

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.mask}: {self.total:,} bytes>"


class SignalFrame(Frame):
    """The frame that Linux pushes for a handler of a 64-bit program, from the stack pointer at the handler's entry.

    `xstate_size`, `extended_size` and `mask` (xfeatures) are what the words at byte 464 of the area say.
    """

    __slots__ = ()
    TITLE = "signal frame of a 64-bit thread"
    SOURCE = "Linux asm/sigframe.h, asm/sigcontext.h, kernel/fpu/signal.c"

    @property
    def xstate_size(self) -> int:
        """Bytes of the area; FP_XSTATE_MAGIC2 follows them."""
        return self.area[1]

    @property
    def extended_size(self) -> int:
        """Bytes of the area with FP_XSTATE_MAGIC2."""
        return self.area[1] + _MAGIC2[1]

    @property
    def facts(self) -> "dict[str, int]":
        """`xstate_size`, `extended_size`."""
        return {"xstate_size": self.xstate_size, "extended_size": self.extended_size}


class SignalStack(Frame):
    """What Linux tells a program to reserve for one signal: the worst case over 64-bit and 32-bit frames.

    `minsigstksz`: AT_MINSIGSTKSZ of the auxiliary vector, in bytes, the same for every process. `sigaltstack`: the
    smallest alternate stack in bytes that a process with permission for a dynamically enabled component may install,
    None where the CPU has no such component (then the bound is MINSIGSTKSZ, 2,048, whatever the frame's size).
    """

    __slots__ = ("sigaltstack",)
    TITLE = "stack to reserve for a signal"
    SOURCE = "Linux kernel/signal.c init_sigframe_size and sigaltstack_size_valid, kernel/fpu/signal.c"

    def __init__(
        self, mask: int, form: Format, pieces: "Iterable[tuple[str, int]]", sigaltstack: "int | None"
    ) -> None:
        super().__init__(mask, form, pieces)
        self.sigaltstack = sigaltstack

    @property
    def minsigstksz(self) -> int:
        """AT_MINSIGSTKSZ in bytes."""
        return self.total

    @property
    def facts(self) -> "dict[str, int]":
        """`AT_MINSIGSTKSZ`, and `sigaltstack` where the kernel has that bound."""
        bound = {} if self.sigaltstack is None else {"sigaltstack": self.sigaltstack}
        return {"AT_MINSIGSTKSZ": self.minsigstksz, **bound}


class WindowsContext(Frame):
    """A CONTEXT with CONTEXT_XSTATE: the legacy structure, CONTEXT_EX, and the XSTATE chunk.

    The chunk is an area without its legacy region (that lies in the CONTEXT), aligned to 64 bytes by address; where it
    begins in an actual context, CONTEXT_EX says. The parts leave the most room that the alignment may take.
    """

    __slots__ = ()
    TITLE = "Windows CONTEXT with CONTEXT_XSTATE"
    SOURCE = "winnt.h, ntrtl.h; ContextSize of minidumps' MINIDUMP_MISC_INFO_5"

    @property
    def facts(self) -> "dict[str, int]":
        """`ContextSize`, and `XState.Length` of CONTEXT_EX."""
        return {"ContextSize": self.total, "XState.Length": self.area[1]}


class SsaFrame(Frame):
    """A frame of an enclave's state save area, as asynchronous exits fill it: SSAFRAMESIZE is `pages`."""

    __slots__ = ()
    TITLE = "SGX SSA frame"
    SOURCE = "SDM3D ECREATE, SSA frame"

    @property
    def pages(self) -> int:
        """Pages of 4,096 bytes."""
        return self.total // _PAGE

    @property
    def facts(self) -> "dict[str, int]":
        """`SSAFRAMESIZE`, in pages."""
        return {"SSAFRAMESIZE": self.pages}


class TdxBuffer(Frame):
    """The TDX module's buffer for a TD vCPU's extended state: what XSAVES of all XFAM's components takes of it.

    `pages`: pages of 4,096 bytes that the module has; `over`: bytes by which the area is larger; `fits`: it is not.
    """

    __slots__ = ("pages",)
    TITLE = "TDX module's buffer of a TD vCPU"
    SOURCE = "TDX module 1.5, TDVPS guest extended state, helpers.c"

    def __init__(self, mask: int, form: Format, pieces: "Iterable[tuple[str, int]]", pages: int) -> None:
        super().__init__(mask, form, pieces)
        self.pages = pages

    @property
    def over(self) -> int:
        """Bytes by which the area is larger than the buffer; 0 if it fits."""
        return max(0, self.area[1] - self.pages * _PAGE)

    @property
    def fits(self) -> bool:
        """Whether the area lies within the buffer."""
        return self.over == 0

    @property
    def facts(self) -> "dict[str, int]":
        """`pages` of the buffer, and `over`."""
        return {"pages": self.pages, "over": self.over}


def xcr0_value(model: "CpuModel", value: "int | str", register: str = "XCR0") -> int:
    """`value` as a number, if XSETBV on `model` takes it. Raises: `ValueError` with the rule broken [SDM1 13.3]."""
    from xsave.processor import Processor

    number = mask_of(value, register)
    fault = Processor(model, cpl=0).try_xsetbv(0, number)
    if fault is not None:
        what = str(fault).partition("XSETBV: ")[2]
        raise ValueError(f"{register} {number:#x} is no value that {model.name} takes: {what}")
    return number


def linux(model: "CpuModel", xcr0: "int | str", *, used: bool = False) -> SignalFrame:
    """The signal frame of a 64-bit thread under Linux with this XCR0.

    `used`: whether the thread has ever used a dynamically enabled component (AMX tile data); until then its frame has
    no room for them, afterwards always. The area is in the standard format at a multiple of 64 bytes. What a handler
    on the thread's own stack leaves free above the frame, the red zone and up to 63 bytes, is not counted.

    Raises: `ValueError` for an XCR0 that the model does not take, or that Linux cannot work with (without SSE)
    [Linux kernel/fpu/signal.c, kernel/fpu/xstate.c].
    """
    mask = _kernels(model, xcr0) & (-1 if used else ~can_disable(model))
    size = Layout(model, mask, STANDARD).size
    # Down from the area, which is aligned: the frame ends 8 below a multiple of 16.
    padding = -_RT_SIGFRAME_SIZE % _FRAME_ALIGNMENT + _FRAME_ALIGNMENT // 2
    return SignalFrame(mask, STANDARD, (*_RT_SIGFRAME, ("alignment", padding), (AREA, size), _MAGIC2))


def linux_stack(model: "CpuModel", xcr0: "int | str", *, ia32: bool = True) -> SignalStack:
    """AT_MINSIGSTKSZ under Linux with this XCR0, part by part, and the bound of sigaltstack.

    Counted with every component of XCR0, also the dynamically enabled ones. `ia32`: whether the kernel was built to run
    32-bit programs, whose frames are the larger (CONFIG_IA32_EMULATION).

    Raises: `ValueError` as `linux` [Linux kernel/signal.c].
    """
    mask = _kernels(model, xcr0)
    size = Layout(model, mask, STANDARD).size
    fixed = _SIGFRAME_IA32 if ia32 else _RT_SIGFRAME_SIZE
    state = size + _MAGIC2[1] + (_FSAVE_HEADER[1] if ia32 else 0)
    least = fixed + _FRAME_ALIGNMENT - 1 + state + _ALIGNMENT - 1
    rounding = -least % _FRAME_ALIGNMENT
    pieces = (
        ("siginfo and ucontext", fixed),
        ("alignment of the frame, at most", _FRAME_ALIGNMENT - 1),
        ("FSAVE header", _FSAVE_HEADER[1] if ia32 else 0),
        (AREA, size),
        _MAGIC2,
        ("alignment of the area, at most", _ALIGNMENT - 1),
        (f"rounding to {_FRAME_ALIGNMENT}", rounding),
    )
    # The kernel takes the default state off again, adds what the process may have, and wants more than the sum.
    bound = least + rounding - state + size + 1 if mask & can_disable(model) else None
    return SignalStack(mask, STANDARD, pieces, bound)


def windows(
    model: "CpuModel", mask: "int | str", *, form: "Format | None" = None, context: str = "x64"
) -> WindowsContext:
    """What a Windows context with these components takes: ContextSize of a process whose XSTATE features are `mask`.

    `mask`: user components, and of the supervisor ones CET_U, which Windows shows to programs; x87 and SSE may be in it
    or not, their registers lie in the CONTEXT. `form`: the chunk's format; None is as Windows chooses: compacted where
    the CPU has XSAVEC. `context`: "x64" or "x86".

    Raises: `ValueError` for components that the model or a context does not have, CET_U in the standard format, or an
    unknown `context`.
    """
    if context not in _CONTEXTS:
        raise ValueError(f"context {context!r} is none of {', '.join(_CONTEXTS)}")
    shown = int(model.xcr0_mask) | int(model.xss_mask) & 1 << Component.CET_U
    number = known_mask(model, mask, shown, "a context's mask")
    if form is None:
        form = COMPACTED if "xsavec" in model.instructions else STANDARD
    chunk = Layout(model, number, form).size - HEADER[0]
    pieces = (("CONTEXT", _CONTEXTS[context]), ("CONTEXT_EX", _CONTEXT_EX),
              ("alignment, at most", _ALIGNMENT - 1), (CHUNK, chunk))
    return WindowsContext(number, form, pieces)


def sgx(model: "CpuModel", xfrm: "int | str", *, exinfo: bool = True) -> SsaFrame:
    """The smallest SSA frame for an enclave with this XFRM: the area in the standard format at its beginning, GPRSGX at
    its end, below that EXINFO if MISCSELECT[0] asks for it (`exinfo`), in whole pages.

    Raises: `ValueError` where ECREATE would #GP for XFRM: no legal value of XCR0 on the model, without x87 and SSE, or
    outside CPUID.(EAX=12H,ECX=1):EDX:ECX where the model's record has that leaf [SDM3D ECREATE].
    """
    mask = xcr0_value(model, xfrm, "XFRM")
    if mask & 3 != 3:
        raise ValueError(f"XFRM {mask:#x} lacks {ComponentMask(3 & ~mask)} [SDM3D ECREATE]")
    offered = model.cpuid.get((0x12, 1))
    if offered is not None and any(offered):
        outside = mask & ~(offered[2] | offered[3] << 32)
        if outside:
            raise ValueError(f"XFRM {mask:#x} has {ComponentMask(outside)}, which CPUID leaf 12H of {model.name} does "
                             "not offer to enclaves [SDM3D ECREATE]")
    size = Layout(model, mask, STANDARD).size
    tail = (_EXINFO, _GPRSGX) if exinfo else (_GPRSGX,)
    used = size + sum(each for _, each in tail)
    return SsaFrame(mask, STANDARD, ((AREA, size), ("unused", -used % _PAGE), *tail))


def tdx(model: "CpuModel", xfam: "int | str") -> TdxBuffer:
    """What the TDX module saves of a TD vCPU with this XFAM, XSAVES of all its components, against its buffer of three
    pages. Which values of XFAM a module accepts is not asked here.

    Raises: `ValueError` for components that the model has neither in XCR0 nor in IA32_XSS; `UnsupportedError` for a
    model without XSAVES [TDX module 1.5, SDM1 13.11].
    """
    if "xsaves" not in model.instructions:
        raise UnsupportedError(f"{model.name} has no XSAVES, with which the TDX module saves [SDM1 13.2]")
    mask = known_mask(model, xfam, int(model.xcr0_mask) | int(model.xss_mask), "XFAM")
    size = Layout(model, mask, COMPACTED).size
    return TdxBuffer(mask, COMPACTED, ((AREA, size), ("unused", max(0, _TDX_PAGES * _PAGE - size))), _TDX_PAGES)


def _kernels(model: "CpuModel", xcr0: "int | str") -> int:
    # XCR0 as Linux may have set it: without x87 and SSE it does not use XSAVE at all.
    mask = xcr0_value(model, xcr0)
    if mask & 3 != 3:
        raise ValueError(f"XCR0 {mask:#x} lacks {ComponentMask(3 & ~mask)}: Linux does not use XSAVE without "
                         "[Linux kernel/fpu/xstate.c]")
    return mask
