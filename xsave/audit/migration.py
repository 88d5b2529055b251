"""Can this state be restored there: by KVM, by CRIU, by XRSTOR? What stands in the way, and the conversion that helps.

`migrate` asks every door with the bytes as they are, makes the area that the other CPU's system takes, and asks again
with that. What no conversion changes (an XCR0 that the host does not offer, CRIU's comparison of CPUID, a component in
use that the CPU lacks) stays an objection.
"""

from xsave.audit import uabi
from xsave.audit.doors import WAYS, Door, State, cut, doors, initial
from xsave.audit.frames import xcr0_value
from xsave.audit.policies.base import one_of
from xsave.audit.verdict import can_disable, known_mask, mask_of
from xsave.codec import transcode
from xsave.components import ComponentMask
from xsave.errors import XSaveError
from xsave.layout import COMPACTED, HEADER, MXCSR, STANDARD, Layout

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from xsave.area import Area
    from xsave.models import CpuModel

__all__ = ["Conversion", "Migration", "migrate"]


class Conversion:
    """The area that the target takes.

    `layout`: its `Layout`; `data`: its bytes, or None where there is none (`why` says what stands in the way);
    `lost`: components in use that the target lacks (with `lost="drop"` they are left out, else there is no data);
    `cleared`: components whose bit is cleared because their values are the initial ones; `changes`: what else is
    different, in words; `doors`: what the doors say of it.
    """

    __slots__ = ("changes", "cleared", "data", "doors", "layout", "lost", "why")

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.data: "bytes | None" = None
        self.lost = ComponentMask(0)
        self.cleared = ComponentMask(0)
        self.changes: "list[str]" = []
        self.why = ""
        self.doors: "list[Door]" = []

    @property
    def passes(self) -> bool:
        """Whether every door takes it, and nothing is lost."""
        return self.data is not None and not self.lost and all(door.passes for door in self.doors)

    def __repr__(self) -> str:
        answer = "no area" if self.data is None else f"{len(self.data):,} bytes"
        return f"<Conversion to {self.layout.model.name}: {answer}>"


class Migration:
    """The answer for one area and one target.

    `model`, `xcr0`, `xss`: the target CPU and what its system enables; `state`: what was asked about; `doors`: what
    each door says of the area as it is; `conversion`: the `Conversion`.
    """

    __slots__ = ("conversion", "doors", "model", "state", "xcr0", "xss")

    def __init__(
        self, state: State, model: "CpuModel", xcr0: int, xss: int, found: "list[Door]", conversion: Conversion
    ) -> None:
        self.state = state
        self.model = model
        self.xcr0 = ComponentMask(xcr0)
        self.xss = ComponentMask(xss)
        self.doors = found
        self.conversion = conversion

    @property
    def passes(self) -> bool:
        """Whether every door takes the area as it is, whole."""
        return all(door.passes for door in self.doors)

    def __repr__(self) -> str:
        answer = "passes" if self.passes else "passes converted" if self.conversion.passes else "does not pass"
        return f"<Migration to {self.model.name}: {answer}>"


def migrate(
    area: "Area",
    model: "CpuModel",
    *,
    xcr0: "int | str | None" = None,
    xss: "int | str | None" = None,
    guest_xcr0: "int | str | None" = None,
    guest_xss: "int | str" = 0,
    guest_xfd: "int | str" = 0,
    by: "Sequence[str]" = ("kvm", "criu", "xrstor"),
    lost: str = "raise",
    kept: "int | None" = None,
) -> Migration:
    """Whether the state in `area` can be restored on `model`, and what would make it so.

    `xcr0`, `xss`: what the system there enables (default: all that the model has, and 0). `guest_xcr0`, `guest_xss`,
    `guest_xfd`: the registers of the guest or process that the area is of (default: the user components of the area's
    layout, 0 and 0). `area` may be hostile (`Area(..., check=False)`). `by`: "kvm" (KVM_SET_XCRS, KVM_SET_MSRS,
    KVM_SET_XSAVE), "criu", "xrstor" (XRSTOR; XRSTORS where the area has supervisor components), "ptrace"
    (PTRACE_SETREGSET; `guest_xfd` are the components that the thread has not used yet). `lost="drop"`: the conversion
    leaves out components in use that the target lacks. `kept`: bytes that there are, where the area's layout was cut
    to them (default: the area's).

    Raises: `ValueError` for masks that a model does not have, or an unknown way [SDM1 13.8, 13.12, Linux kvm/x86.c,
    fpu/xstate.c; CRIU arch/x86/cpu.c].
    """
    for way in by or [""]:
        one_of(way, "by", WAYS)
    one_of(lost, "lost", ("raise", "drop"))
    enabled = int(model.xcr0_mask) if xcr0 is None else xcr0_value(model, xcr0)
    supervisor = 0 if xss is None else known_mask(model, xss, model.xss_mask, "IA32_XSS")
    layout = area.layout
    user = int(layout.mask) & ~int(layout.model.xss_mask)
    state = State(
        memoryview(area), layout, user | 1 if guest_xcr0 is None else mask_of(guest_xcr0, "the guest's XCR0"),
        mask_of(guest_xss, "the guest's IA32_XSS"), mask_of(guest_xfd, "the guest's IA32_XFD"), kept=kept,
    )  # fmt: skip
    found = [door for way in by for door in doors(way, state, model, enabled, supervisor)]
    conversion = _conversion(state, model, enabled, supervisor, by, lost)
    if conversion.data is not None:
        made = State(conversion.data, conversion.layout, state.xcr0, state.xss, state.xfd, origin=layout.model)
        for way in by:
            conversion.doors += doors(way, made, model, enabled, supervisor)
    return Migration(state, model, enabled, supervisor, found, conversion)


def _conversion(
    state: State, model: "CpuModel", xcr0: int, xss: int, by: "Sequence[str]", lost: str
) -> Conversion:
    source, used = state.layout, state.xstate_bv
    keeps = source.format == COMPACTED and tuple(by) == ("xrstor",) and "xsavec" in model.instructions
    form = COMPACTED if keeps else STANDARD
    enabled = xcr0 | (xss if keeps else 0)
    if {"kvm", "ptrace"} & {*by}:
        enabled = int(enabled & uabi.SUPPORTED)
    # The standard area is as wide as its reader's; a guest's has room for tiles only if it has them.
    wide = enabled if "ptrace" in by else enabled & ~(can_disable(model) & ~(state.xcr0 | used))
    made = Conversion(Layout(model, enabled & int(source.mask) | 3 if keeps else wide | 3, form))
    kept = used & enabled & int(source.mask) & int(made.layout.mask)
    made.cleared = ComponentMask(initial(state, used & ~kept))
    made.lost = ComponentMask(used & ~kept & ~made.cleared)
    if made.lost and lost == "raise":
        made.why = _why(state, model, made, xcr0, xss)
        return made
    for each in cut(state, kept):
        made.why = each.message
        return made
    data = bytearray(state.data)
    data[HEADER[0] : HEADER[0] + 8] = kept.to_bytes(8, "little")
    xcomp = int(source.mask) | 1 << 63 if source.format == COMPACTED else 0
    data[HEADER[0] + 8 : HEADER[0] + 16] = xcomp.to_bytes(8, "little")
    if any(data[HEADER[0] + 16 : HEADER[1]]):
        made.changes.append("reserved bytes of the header are 0")
        data[HEADER[0] + 16 : HEADER[1]] = bytes(HEADER[1] - HEADER[0] - 16)
    _mxcsr(data, model, made)
    try:
        image = transcode(data, source, made.layout, lost="drop")
    except XSaveError as error:
        made.why = str(error)
        return made
    made.data = bytes(image).ljust(uabi.KVM_BYTES, b"\0") if "kvm" in by and form == STANDARD else bytes(image)
    return made


def _why(state: State, model: "CpuModel", made: Conversion, xcr0: int, xss: int) -> str:
    # For each component that is lost, what it is lost to.
    gone = int(made.lost)
    absent = gone & ~int(state.layout.mask)
    supervisor = gone & ~absent & int(state.layout.model.xss_mask)
    beyond = gone & ~absent & ~(xcr0 | xss)
    unable = gone & ~absent & ~beyond & ~supervisor
    reasons = [
        f"{ComponentMask(mask)} in use, and {text}"
        for mask, text in (
            (absent, "the area has no place for it"),
            (supervisor & ~beyond, "no standard area holds supervisor state (a VMM carries it in MSRs)"),
            (beyond, f"not enabled on {model.name}"),
            (unable, "the kernel does not take it"),
        )
        if mask
    ]
    return "; ".join(reasons)


def _mxcsr(data: bytearray, model: "CpuModel", made: Conversion) -> None:
    at, end = MXCSR[0], MXCSR[0] + 4
    value = int.from_bytes(data[at:end], "little")
    clean = value & model.mxcsr_mask
    if value != clean:
        made.changes.append(f"MXCSR {value:#x} without its reserved bits: {clean:#x}")
        data[at:end] = clean.to_bytes(4, "little")
