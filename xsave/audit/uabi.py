"""What Linux takes from a debugger (PTRACE_SETREGSET of NT_X86_XSTATE) and from a VMM (KVM_SET_XSAVE).

Both go through the kernel's own check of the header, which is stricter than XRSTOR's, before any instruction sees the
area: user components alone, the standard format, every reserved byte 0 (arch/x86/kernel/fpu/xstate.c).
"""

from xsave.audit.policies.rules import KVM_SUPPORTED
from xsave.audit.verdict import byte_of
from xsave.components import ComponentMask
from xsave.errors import LayoutError
from xsave.layout import HEADER, MXCSR, STANDARD, Layout

TYPE_CHECKING = False
if TYPE_CHECKING:
    from xsave.models import CpuModel

    Finding = tuple[str, int, str, bool]

PTRACE, KVM = "PTRACE_SETREGSET", "KVM_SET_XSAVE"
# User components that Linux handles; what it enables of them is its XCR0.
SUPPORTED = ComponentMask(KVM_SUPPORTED)
# struct kvm_xsave begins with so many bytes; KVM_CAP_XSAVE2 tells where it is more.
KVM_BYTES = 4096
_WORD = 8
# Components with which the kernel looks at MXCSR.
_CHECKED = ComponentMask.parse("x87 SSE AVX")
_MXCSR, _XSTATE, _HEADER_END = MXCSR[0], HEADER[0], HEADER[1]
_XCOMP, _RESERVED = _XSTATE + 8, _XSTATE + 16
_SECTION = {PTRACE: "Linux regset.c", KVM: "Linux kvm/x86.c"}
_HEADER = "Linux xstate.c"


def enabled(model: "CpuModel", xcr0: "int | None") -> ComponentMask:
    """The components that the kernel works with: what Linux handles of `xcr0`, default all of the CPU's."""
    return ComponentMask((int(model.xcr0_mask) if xcr0 is None else xcr0) & SUPPORTED)


def findings(
    data: "bytes | memoryview", model: "CpuModel", entry: str, xcr0: int, xfd: int
) -> "tuple[list[Finding], str | None]":
    """What the kernel objects to in `data`, as (rule, byte, message, fatal), and the error that it returns (the first
    of its checks that fails), or None. `xcr0`: the components that the kernel works with; `xfd`: those that the thread
    or the virtual CPU has no room for."""
    found: "list[Finding]" = []
    error = None
    size = area_size(model, xcr0)
    if entry == PTRACE and size is not None:
        if len(data) % _WORD:
            text = f"{len(data)} bytes are not a multiple of {_WORD}: EINVAL [{_SECTION[entry]}]"
            found.append(("P-SIZE", len(data), text, True))
            error = error or "EINVAL"
        if len(data) < size:
            text = f"{len(data)} bytes, the kernel takes no less than {size}: EFAULT [{_SECTION[entry]}]"
            found.append(("P-SIZE", len(data), text, True))
            error = error or "EFAULT"
        elif len(data) > size:
            found.append(("P-SIZE", size, f"what lies beyond byte {size} is not taken [{_SECTION[entry]}]", False))
    if entry == KVM:
        reads = max(KVM_BYTES, size or 0)
        if len(data) < reads:
            text = f"{len(data)} bytes; the ioctl reads {reads}, so the rest must be readable [{_SECTION[entry]}]"
            found.append(("K-SIZE", len(data), text, False))
    if len(data) < _HEADER_END:
        if not any(fatal for *_, fatal in found):
            text = f"{len(data)} bytes do not hold the legacy region and the header [{_SECTION[entry]}]"
            found.append(("SIZE", len(data), text, True))
        return found, error or "EFAULT"
    header = _header(data, model, entry, xcr0, xfd)
    found += header
    if header:
        error = error or "EINVAL"
    return found, error


def _header(data: "bytes | memoryview", model: "CpuModel", entry: str, xcr0: int, xfd: int) -> "list[Finding]":
    found: "list[Finding]" = []
    xstate, xcomp = (int.from_bytes(data[at : at + 8], "little") for at in (_XSTATE, _XCOMP))
    extra = xstate & ~xcr0
    absent = xstate & xcr0 & xfd
    if extra:
        text = f"XSTATE_BV {xstate:#x} has {ComponentMask(extra)}, the kernel works with {ComponentMask(xcr0)}"
        found.append(("U-XSTATE", byte_of(_XSTATE, extra), f"{text}: EINVAL [{_HEADER}]", True))
    if absent:
        who = "the thread has not used it yet" if entry == PTRACE else "the virtual CPU has no room for it"
        text = f"XSTATE_BV {xstate:#x} has {ComponentMask(absent)}, and {who}: EINVAL [{_HEADER}]"
        found.append(("U-XFD", byte_of(_XSTATE, absent), text, True))
    if xcomp:
        text = f"XCOMP_BV {xcomp:#x} is not 0: the kernel takes the standard format alone: EINVAL [{_HEADER}]"
        found.append(("U-XCOMP", byte_of(_XCOMP, xcomp), text, True))
    for at in range(_RESERVED, _HEADER_END):
        if data[at]:
            text = f"reserved header byte {at} is {data[at]:#04x}, not 0: EINVAL [{_HEADER}]"
            found.append(("U-RESERVED", at, text, True))
            break
    mxcsr = int.from_bytes(data[_MXCSR : _MXCSR + 4], "little")
    reserved = mxcsr & ~model.mxcsr_mask
    if reserved and xstate & _CHECKED:
        text = f"MXCSR {mxcsr:#x} has reserved bits {reserved:#x}, and XSTATE_BV has x87, SSE or AVX"
        found.append(("U-MXCSR", byte_of(_MXCSR, reserved), f"{text}: EINVAL [{_HEADER}]", True))
    return found


def area_size(model: "CpuModel", xcr0: int) -> "int | None":
    """Bytes of the standard area of these components, or None where the model does not say."""
    try:
        return Layout(model, xcr0 | 3, STANDARD).size
    except LayoutError:
        return None
