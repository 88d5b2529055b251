"""Buffers that a process sized for itself from CPUID when it started, and what a move to another CPU does to them.

The dynamic linker's trampoline for lazily bound calls saves the registers that may hold arguments on the stack of the
caller, with XSAVEC, or XSAVE where there is no XSAVEC, and a mask that was fixed when the C library was built. The size
is taken once: a process that is moved to a CPU with more or larger components of that mask, or whose components lie
further out, writes past the end of its buffer, upward, at its next such call (glibc sysdeps/x86/cpu-features.c,
sysdeps/x86_64/dl-trampoline.h).
"""

from xsave.audit.frames import xcr0_value
from xsave.audit.verdict import Verdict, buffer
from xsave.components import ComponentMask
from xsave.layout import COMPACTED, STANDARD, Layout

TYPE_CHECKING = False
if TYPE_CHECKING:
    from xsave.models import CpuModel

__all__ = ["MASKS", "Moved", "Trampoline", "moved", "trampoline"]

# Arguments are in no other registers: what the trampolines of glibc save, by what the release knows.
MASKS = {
    "plain": ComponentMask.parse("SSE AVX BNDREGS opmask ZMM_Hi256 Hi16_ZMM"),
    "apx": ComponentMask.parse("SSE AVX BNDREGS opmask ZMM_Hi256 Hi16_ZMM APX"),
}
# STATE_SAVE_OFFSET: the integer registers lie below the area.
_BELOW = 64
_ALIGNMENT = 64


class Trampoline:
    """The buffer of a dynamic linker's trampoline, as one process has it.

    `instruction`: "XSAVEC" or "XSAVE"; `mask`: EDX:EAX; `reserved`: bytes taken off the stack pointer
    (`xsave_state_size` of ld.so's diagnostics); `full`: what they are where XSAVEC is switched off
    (`xsave_state_full_size`); `offset`: of the area in the buffer; `room`: bytes for the area; `required`: bytes that
    the area takes at most on the CPU where the process started.
    """

    __slots__ = ("full", "instruction", "mask", "required", "reserved")

    def __init__(self, instruction: str, mask: ComponentMask, reserved: int, full: int, required: int) -> None:
        self.instruction = instruction
        self.mask = mask
        self.reserved = reserved
        self.full = full
        self.required = required

    @property
    def offset(self) -> int:
        """Offset of the XSAVE area in the buffer, in bytes."""
        return _BELOW

    @property
    def room(self) -> int:
        """Bytes from the area's beginning to the buffer's end."""
        return self.reserved - _BELOW

    def __repr__(self) -> str:
        return f"<Trampoline: {self.instruction} of {self.mask} into {self.reserved:,} bytes>"


class Moved:
    """What a trampoline writes on the CPU that its process was moved to.

    `start`: the `Trampoline`; `verdict`: the `Verdict` on its area; `required`: bytes from the buffer's beginning to
    behind the last one written; `over`: bytes by which that is past the buffer's end, on the stack of the caller;
    `ranges`: the bytes past the end that are written, [(begin, end)] from the buffer's beginning; `fits`: there are
    none.
    """

    __slots__ = ("start", "verdict")

    def __init__(self, start: Trampoline, verdict: Verdict) -> None:
        self.start = start
        self.verdict = verdict

    @property
    def required(self) -> int:
        """Bytes from the buffer's beginning to behind the last one written."""
        return self.start.offset + self.verdict.required

    @property
    def over(self) -> int:
        """Bytes by which the stack is overrun; 0 if the buffer holds all."""
        return self.verdict.over

    @property
    def ranges(self) -> "list[tuple[int, int]]":
        """The bytes past the end that are written, from the buffer's beginning."""
        return [(begin + self.start.offset, end + self.start.offset) for begin, end in self.verdict.ranges]

    @property
    def fits(self) -> bool:
        """Whether nothing is written past the buffer's end."""
        return self.verdict.fits

    def __repr__(self) -> str:
        answer = "fits" if self.fits else f"{self.over:,} bytes of stack overrun"
        return f"<Moved {self.start.instruction} of {self.verdict.mask} into {self.start.reserved:,} bytes: {answer}>"


def trampoline(
    model: "CpuModel", xcr0: "int | str", *, glibc: str = "plain", offered: "int | str | None" = None,
    xsavec: bool = True,
) -> Trampoline:  # fmt: skip
    """The buffer that the dynamic linker reserves in a process started on `model` with this XCR0.

    `glibc`: "plain", or "apx" for releases that know APX. `offered`: components that CPUID leaf 0DH lists; None is what
    XCR0 has, as in a guest whose system enables all that it is offered: the size for XSAVEC is counted from the leaf,
    also over what the system has not enabled; the one for XSAVE is EBX of sub-leaf 0, which follows XCR0. `xsavec`:
    whether XSAVEC is used where there is one (GLIBC_TUNABLES can switch it off).

    Raises: `ValueError` for an XCR0 or `offered` that the model does not have, an `offered` that lacks some of XCR0, or
    an unknown `glibc` [glibc cpu-features.c].
    """
    if glibc not in MASKS:
        raise ValueError(f"glibc {glibc!r} is none of {', '.join(MASKS)}")
    saved, enabled = MASKS[glibc], xcr0_value(model, xcr0)
    listed = enabled if offered is None else xcr0_value(model, offered, "CPUID's XCR0")
    if enabled & ~listed:
        raise ValueError(f"XCR0 {enabled:#x} has {ComponentMask(enabled & ~listed)}, which CPUID does not list")
    full = _rounded(Layout(model, enabled, STANDARD).size)
    if xsavec and "xsavec" in model.instructions:
        size = Layout(model, saved & enabled, COMPACTED).size
        return Trampoline("XSAVEC", saved, _rounded(Layout(model, saved & listed, COMPACTED).size), full, size)
    return Trampoline("XSAVE", saved, full, full, Layout(model, saved & enabled, STANDARD).size)


def moved(
    start: Trampoline, model: "CpuModel", xcr0: "int | str", *, in_use: "int | str | None" = None
) -> Moved:
    """What the trampoline of a process that was started elsewhere writes on `model` with this XCR0.

    `in_use`: XINUSE there, which matters to XSAVEC; None is the worst: all. Nothing is said of registers outside the
    mask (PKRU, tiles): trampolines never save them.

    Raises: `ValueError` for an XCR0 or `in_use` that the model does not have; `UnsupportedError` where it lacks the
    instruction, so that the process ends with #UD instead [SDM1 13.7, 13.10].
    """
    enabled = xcr0_value(model, xcr0)
    return Moved(start, buffer(model, xcr0=enabled, instruction=start.instruction, rfbm=int(start.mask),
                               size=start.room, in_use=in_use))


def _rounded(area: int) -> int:
    return -(-(area + _BELOW) // _ALIGNMENT) * _ALIGNMENT
