"""The doors through which saved state comes back: KVM's ioctls, CRIU, ptrace, XRSTOR and XRSTORS; what each objects to.

A door takes an area's bytes, or answers with an error and nothing more ("Invalid argument"). Here each objection names
the bits or the sizes, the first byte to blame, and what to do next. What Linux checks of an area's header is
`uabi`'s, XRSTOR's rules are `xsave.area`'s, a guest's XCR0 is `policies.rules`'.
"""

from xsave.area import header_findings
from xsave.audit import uabi
from xsave.audit.policies.rules import GROUPS, KVM, KVM_SOURCE, KVM_XSS, WORDS, first_refusal
from xsave.audit.verdict import byte_of, can_disable, initial_bytes
from xsave.components import SUPERVISOR, Component, ComponentMask
from xsave.errors import LayoutError
from xsave.layout import COMPACTED, HEADER, STANDARD, Layout

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from xsave.models import CpuModel

__all__ = ["WAYS", "Door", "Objection", "State", "cut", "doors", "initial"]

WAYS = ("kvm", "criu", "xrstor", "ptrace")
# The only components for which CRIU's images have fields (images/core-x86.proto), beside what it asks other calls for.
_CRIU_KEEPS = int(ComponentMask.parse("x87 SSE AVX MPX AVX512 PKRU"))
_CRIU = "CRIU criu/arch/x86/cpu.c"
_XSTATE = HEADER[0]
_PERMISSION = "arch_prctl(ARCH_REQ_XCOMP_GUEST_PERM, 18) before the first KVM_CREATE_VCPU gives a guest tiles"


class Objection:
    """One thing that a door objects to.

    `code`: a short stable name; `message`: what is wrong, naming bits or sizes; `hint`: the next step; `mask`: the
    components to blame (0: none); `offset`: the first byte to blame, from the area's start, or None. `silent`: the door
    takes the bytes, and the state is wrong or gone afterwards.
    """

    __slots__ = ("code", "hint", "mask", "message", "offset", "silent")

    def __init__(
        self, code: str, message: str, hint: str, mask: int = 0, offset: "int | None" = None, silent: bool = False
    ) -> None:
        self.code = code
        self.message = message
        self.hint = hint
        self.mask = ComponentMask(mask)
        self.offset = offset
        self.silent = silent

    def __repr__(self) -> str:
        return f"<Objection {self.code}: {self.message}>"


class Door:
    """One call or instruction and its answer.

    `way`: one of `WAYS`; `name`: of the call; `objections`; `error`: what it answers ("EINVAL", "#GP", ...),
    or "" where it takes the state.
    """

    __slots__ = ("error", "name", "objections", "way")

    def __init__(self, way: str, name: str, objections: "list[Objection]", error: str) -> None:
        self.way = way
        self.name = name
        self.objections = objections
        self.error = error if any(not each.silent for each in objections) else ""

    @property
    def passes(self) -> bool:
        """Whether the state comes through whole."""
        return not self.objections

    def __repr__(self) -> str:
        return f"<Door {self.name}: {self.error or ('whole' if self.passes else 'taken, not whole')}>"


class State:
    """What is to come through: an area's bytes and `layout`, and the XCR0, IA32_XSS and IA32_XFD that went with it
    (`xss` and `xfd` 0 where a process is meant); `origin`, the CPU that it comes from, also where the area has been
    converted to another's layout; `kept`, the bytes that there are where a layout had to be cut to them."""

    __slots__ = ("data", "kept", "layout", "origin", "xcr0", "xfd", "xss")

    def __init__(
        self, data: "bytes | memoryview", layout: Layout, xcr0: int, xss: int, xfd: int,
        *, origin: "CpuModel | None" = None, kept: "int | None" = None,
    ) -> None:  # fmt: skip
        self.data = data
        self.layout = layout
        self.origin = layout.model if origin is None else origin
        self.kept = len(data) if kept is None else kept
        self.xcr0 = xcr0
        self.xss = xss
        self.xfd = xfd

    @property
    def xstate_bv(self) -> int:
        """XSTATE_BV of the header."""
        return int.from_bytes(self.data[_XSTATE : _XSTATE + 8], "little")


def doors(way: str, state: State, model: "CpuModel", xcr0: int, xss: int) -> "Iterator[Door]":
    """The doors of a way on a `model` whose system enables `xcr0` and `xss`, in the order in which they are met."""
    if way == "kvm":
        yield from _kvm(state, model, xcr0, xss)
    elif way == "criu":
        yield _criu(state, model, xcr0)
    elif way == "ptrace":
        yield _ptrace(state, model, xcr0)
    else:
        yield _xrstor(state, model, xcr0, xss)


# --- KVM


def _kvm(state: State, model: "CpuModel", xcr0: int, xss: int) -> "Iterator[Door]":
    offered = int(uabi.enabled(model, xcr0))
    yield Door("kvm", "KVM_SET_XCRS", _xcr0(state.xcr0, model, offered), "EINVAL")
    if state.xss:
        pair = KVM_XSS if xss & KVM_XSS == KVM_XSS else 0
        found = _msr("IA32_XSS", state.xss, pair, f"KVM does not offer on {model.name}",
                     "take a host and a kernel that offer it (CET: since Linux 6.18, both bits or none)")  # fmt: skip
        yield Door("kvm", "KVM_SET_MSRS IA32_XSS", found, "refused")
    if state.xfd:
        found = _msr("IA32_XFD", state.xfd, can_disable(model) & offered, f"{model.name} cannot disable for it",
                     "take a host that offers the component to guests, or write 0")  # fmt: skip
        yield Door("kvm", "KVM_SET_MSRS IA32_XFD", found, "refused")
    objections, _ = _kernels(state, model, uabi.KVM, offered, 0)
    objections += cut(state, state.xstate_bv, "KVM_GET_XSAVE2 gives it all: as many bytes as KVM_CAP_XSAVE2 says")
    disabled = state.xstate_bv & state.xfd & offered
    if disabled:
        text = f"XSTATE_BV has {ComponentMask(disabled)}, which IA32_XFD disables: the host's XRSTOR of it takes " \
               "#NM, or its state is dropped [Linux kvm/x86.c]"  # fmt: skip
        hint = "clear these bits of XSTATE_BV, or save the guest with IA32_XFD 0"
        objections.append(Objection("K-XFD", text, hint, disabled, byte_of(_XSTATE, disabled), silent=True))
    yield Door("kvm", uabi.KVM, [*objections, *_shifted(state, model, offered)], "EINVAL")


def _xcr0(value: int, model: "CpuModel", offered: int) -> "list[Objection]":
    # The first of KVM's conditions that fails, and which bits it is about.
    code = first_refusal(KVM, value, offered | Component.X87.mask)
    if code is None:
        return []
    if code != "A-NOALLOW":
        group = GROUPS[code]
        text = f"XCR0 {ComponentMask(value)}: {WORDS[code]}; of {ComponentMask(group)} it has " \
               f"{ComponentMask(value & group)} [{KVM_SOURCE}]"  # fmt: skip
        return [Objection(code, text, "no guest can have loaded this XCR0: the snapshot is not what it had", group)]
    outside = value & ~offered
    tiles = outside & int(model.xcr0_mask) & ComponentMask.parse("AMX")
    text = f"XCR0 {ComponentMask(value)} has {ComponentMask(outside)}, beyond what the host offers: " \
           f"{ComponentMask(offered)} [{KVM_SOURCE}]"  # fmt: skip
    hint = "no conversion helps a guest that has it enabled: take a host that has it, or boot the guest with a CPUID " \
           "that leaves it out"  # fmt: skip
    return [Objection(code, text, _PERMISSION if tiles else hint, outside)]


def _msr(register: str, value: int, offered: int, who: str, hint: str) -> "list[Objection]":
    outside = value & ~offered
    text = f"{register} {ComponentMask(value)} has {ComponentMask(outside)}, which {who}"
    return [Objection("MSR-MASK", text, hint, outside)] if outside else []


def _kernels(
    state: State, model: "CpuModel", entry: str, offered: int, absent: int
) -> "tuple[list[Objection], str | None]":
    # What the kernel's own check objects to, and its error.
    found, error = uabi.findings(state.data, model, entry, offered, absent)
    return [_of_kernel(code, offset, text, state, model, offered, absent)
            for code, offset, text, fatal in found if fatal], error  # fmt: skip


def _of_kernel(
    code: str, offset: int, text: str, state: State, model: "CpuModel", offered: int, absent: int
) -> Objection:
    mask = 0
    if code == "U-XSTATE":
        mask = state.xstate_bv & ~offered
        hint = _leave_out(state, mask)
    elif code == "U-XFD":
        mask = state.xstate_bv & absent & offered
        hint = "the thread must use it once before (TILEZERO), with the permission of ARCH_REQ_XCOMP_PERM"
    elif code == "U-XCOMP":
        hint = "convert it to the standard format"
    elif code == "U-RESERVED":
        hint = f"bytes {_XSTATE + 16} to {HEADER[1] - 1} of the header must be 0: converting writes zeros"
    elif code == "U-MXCSR":
        hint = f"clear the bits that MXCSR_MASK {model.mxcsr_mask:#x} lacks: converting does"
    else:
        hint = f"the call wants {uabi.area_size(model, offered):,} bytes: converting writes as many"
    return Objection(code, text, hint, mask, offset)


# --- ptrace


def _ptrace(state: State, model: "CpuModel", xcr0: int) -> Door:
    # A thread that has not used a component that IA32_XFD can disable has no room for it.
    offered, absent = int(uabi.enabled(model, xcr0)), can_disable(model) & state.xfd
    objections, error = _kernels(state, model, uabi.PTRACE, offered, absent)
    return Door("ptrace", uabi.PTRACE, [*objections, *_shifted(state, model, offered)], error or "")


# --- CRIU


def _criu(state: State, model: "CpuModel", xcr0: int) -> Door:
    # What `criu restore` compares by default (--cpu-cap=fpu), and what its images have no field for.
    found: "list[Objection]" = []
    if state.origin.cpuid and "xsaves" in state.origin.instructions and "xsaves" not in model.instructions:
        text = f"FPU feature required by image is not supported on host: {state.origin.name} has XSAVES and " \
               f"{model.name} has not [{_CRIU}]"  # fmt: skip
        hint = "restore where CPUID has it; --cpu-cap=none skips the check: user code cannot execute XSAVES"
        found.append(Objection("C-FEATURES", text, hint))
    outside = int(state.origin.xcr0_mask) & ~int(model.xcr0_mask) & _CRIU_KEEPS
    if outside:
        text = f"CPU xfeatures has unsupported bits ({outside:#x}): {ComponentMask(outside)}, which CPUID(0DH,0) of " \
               f"{state.origin.name or 'its CPU'} has and that of {model.name} has not [{_CRIU}]"  # fmt: skip
        hint = "restore where they are; --cpu-cap=none skips the check, and the process may take #UD"
        found.append(Objection("C-XFEATURES", text, hint, outside))
    for code, what, theirs, ours in (
        ("C-SIZE", "xsave size", state.xcr0 & int(state.origin.xcr0_mask), xcr0),
        ("C-SIZE-MAX", "xsave max size", int(state.origin.xcr0_mask), int(model.xcr0_mask)),
    ):
        before, after = uabi.area_size(state.origin, theirs), uabi.area_size(model, ours)
        if before != after:
            text = f"CPU {what} mismatch ({before}/{after}) [{_CRIU}]"
            hint = "restore where CPUID(0DH,0) says the same; --cpu-cap=none skips the check: first see what the " \
                   "process's own buffers, sized when it started, become"  # fmt: skip
            found.append(Objection(code, text, hint))
            break
    gone = state.xstate_bv & state.xcr0 & ~_CRIU_KEEPS
    if gone:
        text = f"{ComponentMask(gone)} in use: CRIU's images have no field for it, the registers come back initial " \
               "[CRIU images/core-x86.proto]"  # fmt: skip
        hint = "TILERELEASE before the dump, or dump where the process does not use it"
        found.append(Objection("C-LOST", text, hint, gone, byte_of(_XSTATE, gone), silent=True))
    return Door("criu", "criu restore", found, "error")


# --- XRSTOR, XRSTORS


def _xrstor(state: State, model: "CpuModel", xcr0: int, xss: int) -> Door:
    supervisor = bool(state.layout.format == COMPACTED and (int(state.layout.mask) | state.xss) & SUPERVISOR)
    name = "XRSTORS" if supervisor else "XRSTOR"
    if ("xsaves" if supervisor else "xsave") not in model.instructions:
        text = f"{model.name} has no {name}: #UD [SDM1 13.2]"
        return Door("xrstor", name, [Objection("UD", text, "convert it to the standard format for XRSTOR")], "#UD")
    allowed = xcr0 | (xss if supervisor else 0)
    found = []
    for code, offset, text, fatal in header_findings(
        state.data, allowed, mxcsr_mask=model.mxcsr_mask, compaction="xsavec" in model.instructions,
        supervisor=supervisor,
    ):  # fmt: skip
        if not fatal:
            continue
        mask = 0
        if code in ("H-XSTATE", "H-XCOMP"):
            field = int.from_bytes(state.data[offset // 8 * 8 : offset // 8 * 8 + 8], "little")
            mask = field & ~allowed & ~(1 << 63)
        found.append(Objection(code, text, _hint_of_header(code, state, mask, name), mask, offset))
    error = "#GP"
    disabled = state.xstate_bv & state.xfd & xcr0
    if disabled and not found:
        text = f"XSTATE_BV has {ComponentMask(disabled)}, which IA32_XFD disables: #NM [SDM1 13.14]"
        found.append(Objection("NM-XFD", text, "clear IA32_XFD first", disabled, byte_of(_XSTATE, disabled)))
        error = "#NM"
    if not found:
        found += cut(state, state.xstate_bv, "the rest of the area is needed, or other memory is loaded")
        found += _shifted(state, model, allowed)
    return Door("xrstor", name, found, error)


def _hint_of_header(code: str, state: State, mask: int, name: str) -> str:
    if mask & SUPERVISOR:
        return f"IA32_XSS must have {ComponentMask(mask & SUPERVISOR)} when {name} executes: restore it first"
    if mask:
        return _leave_out(state, mask)
    return "converting writes a header that it takes"


# --- what doors share


def _leave_out(state: State, mask: int) -> str:
    if initial(state, mask) == mask:
        return f"{ComponentMask(mask)} is initial, in fact: converting clears the bit, and nothing is lost"
    return f"take a CPU that has it, or leave it out: {ComponentMask(mask)} is then lost"


def initial(state: State, mask: int) -> int:
    """The components of `mask` whose bytes are there and are those of the initial configuration (MXCSR is none of
    SSE's, SDM1 13.6)."""
    layout, found = state.layout, 0
    for component in ComponentMask(mask & int(layout.mask)):
        if all(state.data[at : at + len(held)] == held for at, held in initial_bytes(layout, component)):
            found |= component.mask
    return found


def cut(state: State, used: int, hint: str = "") -> "Iterator[Objection]":
    """The objection, if there is one, that components of `used` need bytes that are not there."""
    layout = state.layout
    try:
        whole = layout if layout.format == COMPACTED else Layout(layout.model, used & int(layout.model.xcr0_mask) | 3,
                                                                STANDARD)  # fmt: skip
    except LayoutError:
        return
    missing, end = 0, 0
    for component in ComponentMask(used & int(whole.mask)):
        offset, size = whole.offsets.get(component, (0, 0))
        if offset + size > state.kept:
            missing |= component.mask
            end = max(end, offset + size)
    if missing:
        text = f"the area ends at byte {state.kept:,}, {ComponentMask(missing)} in use needs bytes up to {end:,}"
        yield Objection("A-CUT", text, hint, missing, state.kept, silent=True)


def _shifted(state: State, model: "CpuModel", allowed: int) -> "Iterator[Objection]":
    # Components in use that lie elsewhere in the target's standard format: loaded from the wrong bytes, without error.
    if state.layout.format == COMPACTED:
        return
    moved, places = 0, []
    for component in ComponentMask(state.xstate_bv & int(state.layout.mask) & allowed):
        here = state.layout.offsets.get(component)
        row = model.components.get(component)
        if here is None or row is None or int(component) < 2:
            continue
        there = Layout(model, component.mask, STANDARD).offsets[component]
        if here != there:
            moved |= component.mask
            places.append(f"{component.info.name} at {here[0]}, there at {there[0]}")
    if moved:
        text = f"other offsets on {model.name} ({', '.join(places)}): it would load other bytes, without an error"
        yield Objection("A-OFFSET", text, "convert it to that CPU's layout", moved,
                        _first_byte(state.layout, moved), silent=True)  # fmt: skip


def _first_byte(layout: Layout, mask: int) -> int:
    return min(layout.offsets[component][0] for component in ComponentMask(mask))
