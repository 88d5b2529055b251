"""The trust order: which layout rules an area of unknown origin, and how sure that is. The one place for it.

A reader fills in `Facts`, what the artefact says of itself, and gets a `Choice`. In order: what the user says;
a layout that the artefact carries; XCOMP_BV with bit 63; XCR0, size and vendor hint matched against all known
CPUs; else legacy and AVX only, with the rest named as undecodable.
"""

from struct import unpack_from

from xsave.components import COMPONENTS, Component, ComponentMask
from xsave.errors import FormatError, XSaveError
from xsave.images.image import Evidence
from xsave.images.known import LEGACY, USER, Group, beyond, groups, groups_of_size
from xsave.layout import COMPACTED, STANDARD, Layout
from xsave.models import PROFILES, CpuModel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NamedTuple

    class Choice(NamedTuple):
        """The layout that rules an area, how that is known, and what was odd about it."""

        layout: Layout
        evidence: Evidence
        warnings: "tuple[str, ...]"

else:
    from collections import namedtuple

    Choice = namedtuple("Choice", "layout evidence warnings")

__all__ = ["Choice", "Facts", "choose", "legacy_choice", "model_of"]

_AVX_END = 576 + COMPONENTS[Component.AVX].size
_FORMAT_BIT = 1 << 63
# A Linux kernel that announces AT_MINSIGSTKSZ adds this much to the size of an XSAVE area, rounded up to 16.
_FRAME_EXTRA = 936


class Facts:
    """What an artefact says about the layout of its areas.

    `what` names the artefact in messages; `size` in bytes; `exact`, whether that is the area's own size (not
    padding); `xcr0`, the mask found with the area (0: none); `xcomp_bv`, `xstate_bv`, `mxcsr_mask` of the area;
    `entries` of a layout note, or None; `content`, the area's bytes; `frame_size`, AT_MINSIGSTKSZ of the process
    (0: unknown), which tells how large areas were on the host; `debugger`, written by a debugger and not by a kernel.
    """

    __slots__ = ("content", "debugger", "entries", "exact", "frame_size", "mxcsr_mask", "size", "what", "xcomp_bv",
                 "xcr0", "xstate_bv")

    def __init__(
        self,
        what: str,
        content: "bytes | bytearray",
        *,
        size: int,
        xcr0: "int | None" = None,
        exact: bool = True,
        entries: "Sequence[tuple[int, int, int, int]] | None" = None,
        frame_size: int = 0,
        debugger: bool = False,
    ) -> None:
        self.what = what
        self.content = content
        self.size = size
        self.exact = exact
        found = unpack_from("<Q", content, 464)[0] if xcr0 is None else xcr0
        self.xcr0 = found if found & 1 and not found & ~USER else 0
        self.xstate_bv, self.xcomp_bv = unpack_from("<QQ", content, 512)
        self.mxcsr_mask = unpack_from("<I", content, 28)[0]
        self.entries = entries
        self.frame_size = frame_size
        self.debugger = debugger


# -- models that no CPU's record stands behind ------------------------------------------------------------


def _profile(mxcsr_mask: int) -> "str | None":
    # MXCSR_MASK tells the makers apart; 0 means that the writer dropped it.
    return next((name for name, knobs in PROFILES.items() if knobs["mxcsr_mask"] == mxcsr_mask), None)


def model_of(entries: "Sequence[tuple[int, int, int, int]]", mxcsr_mask: int, name: str) -> CpuModel:
    """The CPU of a layout note. Raises: `FormatError` naming the entry."""
    return CpuModel.from_layout_note(entries, name=name, profile=_profile(mxcsr_mask))


def _legacy_avx(mxcsr_mask: int, name: str) -> CpuModel:
    # AVX lies right behind the header on every CPU.
    avx = COMPONENTS[Component.AVX].size
    return model_of([(Component.AVX, avx, _AVX_END - avx, 0)], mxcsr_mask, name)


def _architectural(mask: int, mxcsr_mask: int) -> CpuModel:
    # Sizes and alignment of the architecture, no standard offsets: enough for a compacted area.
    supervisor = sum(1 << c for c, row in COMPONENTS.items() if row.supervisor and mask >> c & 1)
    user = mask & ~supervisor | LEGACY
    leaves = {
        (0xD, 0): (user & 0xFFFFFFFF, 0, 0, user >> 32),
        (0xD, 1): (0b1010, 0, supervisor & 0xFFFFFFFF, supervisor >> 32),
    }
    return CpuModel.from_cpuid(leaves, _profile(mxcsr_mask), "architectural sizes", brand="",
                               provenance="the architecture's sizes and alignment")


def legacy_choice(rule: str, mask: int, mxcsr_mask: int = 0, confidence: str = "known") -> Choice:
    """The layout of an area without extended region: x87, SSE or both (bits 0 and 1 of `mask`)."""
    layout = Layout(_legacy_avx(mxcsr_mask, "legacy state"), mask & LEGACY, STANDARD)
    return Choice(layout, Evidence(rule, confidence), ())


# -- the rules --------------------------------------------------------------------------------------------


def choose(facts: Facts, cpu: "CpuModel | None" = None) -> Choice:
    """The layout for an area of at least 576 bytes, by the trust order.

    `cpu` is what the user says. Raises: `LayoutError` where that CPU lacks a component of a compacted area.
    """
    warnings: "list[str]" = []
    if cpu is not None:
        return _by_user(facts, cpu)
    if facts.entries is not None:
        try:
            return _by_note(facts, warnings)
        except XSaveError as problem:
            warnings.append(f"layout note not usable: {problem}")
    if facts.xcomp_bv & _FORMAT_BIT:
        choice = _by_xcomp(facts, warnings)
        return choice or _undecodable(facts, facts.xcomp_bv & ~_FORMAT_BIT, warnings)
    if facts.xcr0:
        return _by_mask(facts, facts.xcr0, warnings)
    return _by_size(facts, warnings)


def _named(mask: int) -> str:
    return " ".join(ComponentMask(mask).names)


def _fitting(model: CpuModel, mask: int, size: int) -> Layout:
    # The layout of as much of `mask` as `size` has room for: the components that end beyond it go.
    mask &= model.xcr0_mask | LEGACY
    for component in ComponentMask(mask):
        row = model.components.get(component)
        if component > 1 and (row is None or row.offset is None or row.offset + row.size > size):
            mask &= ~(1 << component)
    mask &= USER
    return Layout(model, mask, STANDARD)


def _by_user(facts: Facts, model: CpuModel) -> Choice:
    warnings: "list[str]" = []
    if facts.xcomp_bv & _FORMAT_BIT:
        layout = Layout(model, facts.xcomp_bv & ~_FORMAT_BIT, COMPACTED)
        if layout.size > facts.size:
            raise FormatError(f"{facts.what} of {facts.size:,} bytes: {model.name} needs {layout.size:,} for XCOMP_BV "
                              f"{ComponentMask(facts.xcomp_bv)}", offset=facts.size)
    else:
        wanted = facts.xcr0 or int(model.xcr0_mask)
        layout = _fitting(model, wanted, facts.size)
        lacking = wanted & ~(model.xcr0_mask | LEGACY) if facts.xcr0 else 0
        if lacking and facts.exact:
            warnings.append(f"{model.name} lacks {_named(lacking)}, which XCR0 {facts.xcr0:#x} of the {facts.what} has")
        full = facts.xcr0 & ~lacking
        if facts.exact and full & ~layout.mask:
            warnings.append(f"{_named(full & ~layout.mask)} of {model.name} would lie beyond the {facts.size:,} bytes "
                            f"of the {facts.what}")
        elif facts.exact and facts.xcr0 and layout.size != facts.size:
            warnings.append(f"{facts.what} has {facts.size:,} bytes, but {model.name} needs {layout.size:,} "
                            f"for XCR0 {facts.xcr0:#x}")
    for bit, size, offset, _flags in facts.entries or ():
        row = model.components.get(bit)  # type: ignore[call-overload]
        found = "lacks it" if row is None else f"has {row.size:,} bytes at {row.offset}"
        if row is None or (row.size, row.offset) != (size, offset):
            warnings.append(f"the core's layout note says {_named(1 << (bit & 63))}: {size:,} bytes at {offset}, "
                            f"but {model.name} {found}")
    hint = facts.mxcsr_mask
    if hint in {knobs["mxcsr_mask"] for knobs in PROFILES.values()} and hint != layout.mxcsr_mask:
        warnings.append(f"MXCSR_MASK {hint:#x} of the {facts.what} is not {model.name}'s {layout.mxcsr_mask:#x}")
    confidence = "assumed" if warnings else "exact"
    return Choice(layout, Evidence(f"user: {model.name}", confidence), tuple(warnings))


def _by_note(facts: Facts, warnings: "list[str]") -> Choice:
    entries = facts.entries or ()
    for number, (bit, size, offset, _flags) in enumerate(entries):
        if offset + size > facts.size:
            raise FormatError(f"entry {number} (component {bit}) ends at byte {offset + size:,}, beyond the "
                              f"{facts.what} of {facts.size:,} bytes", rule="N-BOUNDS")
    model = model_of(entries, facts.mxcsr_mask, "the core's layout note")
    known = LEGACY | sum(1 << row.component for row in model.components.values())
    unknown = [bit for bit, *_ in entries if not known >> bit & 1]
    if unknown:
        warnings.append(f"the layout note lists components without a name here: {', '.join(map(str, unknown))}")
    mask = facts.xcr0 & known if facts.xcr0 else known
    if facts.xcr0 & ~known:
        warnings.append(f"XCR0 {facts.xcr0:#x} has {_named(facts.xcr0 & ~known)}, which the layout note does not list")
    return Choice(Layout(model, mask, STANDARD), Evidence("NT_X86_XSAVE_LAYOUT note", "exact"), tuple(warnings))


def _by_xcomp(facts: Facts, warnings: "list[str]") -> "Choice | None":
    mask = facts.xcomp_bv & ~_FORMAT_BIT
    try:
        layout = Layout(_architectural(mask, facts.mxcsr_mask), mask, COMPACTED)
    except XSaveError as problem:
        warnings.append(f"XCOMP_BV {facts.xcomp_bv:#x} not usable: {problem}")
        return None
    if layout.size > facts.size:
        warnings.append(f"XCOMP_BV {ComponentMask(facts.xcomp_bv)} needs {layout.size:,} bytes, the {facts.what} has "
                        f"{facts.size:,}")
        return None
    odd = [COMPONENTS[c].name for c in (Component.LBR, Component.LWP) if layout.mask >> c & 1]
    if odd:
        warnings.append(f"the size of {' and '.join(odd)} differs from CPU to CPU; the architectural one is assumed")
    return Choice(layout, Evidence("XCOMP_BV", "assumed" if odd else "known"), tuple(warnings))


def _hinted(some: "list[Group]", facts: Facts, rule: str) -> "tuple[list[Group], str]":
    # Narrows several groups by MXCSR_MASK, then by bytes that no component would own.
    if len(some) > 1:
        told = [group for group in some if facts.mxcsr_mask in group.hints]
        if told:
            some, rule = told, f"{rule}, MXCSR_MASK {facts.mxcsr_mask:#x}"
    if len(some) > 1:
        clean = [group for group in some if not _strays(facts, group.layout)]
        if clean and len(clean) < len(some):
            some, rule = clean, f"{rule}, content"
    return some, rule


def _strays(facts: Facts, layout: Layout) -> int:
    # Offset of the first non-zero byte of the extended region that is no component's, or 0.
    position = 576
    for offset, size in [*sorted(layout.offsets.values()), (min(facts.size, len(facts.content)), 0)]:
        gap = facts.content[position:offset]
        if any(gap):
            return position + len(gap) - len(gap.lstrip(b"\0"))
        position = max(position, offset + size)
    return 0


def _by_mask(facts: Facts, mask: int, warnings: "list[str]") -> Choice:
    rule = f"XCR0 {mask:#x} and size {facts.size}" if facts.exact else f"XCR0 {mask:#x}"
    if not mask & ~7:
        return _fixed(facts, mask, rule, warnings)
    if not facts.exact:
        mask = _narrowed(mask, facts.size)
    known = groups(mask)
    pool = [group for group in known if group.layout.size == facts.size] if facts.exact else []
    confidence = "known"
    if not pool and facts.exact:
        pool = [group for group in known if facts.size in group.ends and group.layout.size <= facts.size]
        rule = f"{rule}, which has room for more" if pool else rule
    if not pool:
        pool = [group for group in known if group.layout.size <= facts.size]
        confidence = "assumed"
        if pool and facts.exact:
            warnings.append(f"no known CPU has an area of {facts.size:,} bytes for XCR0 {mask:#x}")
    pool, rule = _hinted(pool, facts, rule)
    if not pool:
        return _undecodable(facts, mask, warnings)
    if len(pool) > 1:
        confidence = "assumed"
        warnings.append(f"known CPUs differ in the layout of {facts.what}: {', '.join(g.model.name for g in pool)}; "
                        f"the first is assumed")
    chosen = pool[0]
    if facts.debugger:
        chosen, confidence, rule = _doubt(facts, mask, chosen, known, confidence, rule, warnings)
    return Choice(chosen.layout, Evidence(rule, confidence), tuple(warnings))


def _narrowed(mask: int, size: int) -> int:
    # A padded buffer may be too small for all that a mask of the host's names: the highest components go.
    while mask & ~7 and not any(group.layout.size <= size for group in groups(mask)):
        mask &= ~(1 << mask.bit_length() - 1)
    return mask


def _fixed(facts: Facts, mask: int, rule: str, warnings: "list[str]") -> Choice:
    # Components whose place is the same on all CPUs.
    if mask >> Component.AVX & 1 and facts.size < _AVX_END:
        warnings.append(f"{facts.what} of {facts.size:,} bytes has no room for AVX, which XCR0 {mask:#x} has")
        mask &= LEGACY
    model = _legacy_avx(facts.mxcsr_mask, "any CPU")
    return Choice(Layout(model, mask, STANDARD), Evidence(rule, "known"), tuple(warnings))


def _doubt(
    facts: Facts, mask: int, chosen: Group, known: "list[Group]", confidence: str, rule: str, warnings: "list[str]"
) -> "tuple[Group, str, str]":
    # A debugger's note says XSTATE_BV = XCR0 whatever was in use, and its size may be another CPU's: gdb <= 13 writes
    # one maker's size everywhere, and no gdb writes tiles. AT_MINSIGSTKSZ tells how large areas were on the host.
    low, high = facts.frame_size - _FRAME_EXTRA - 16, facts.frame_size - _FRAME_EXTRA
    stray = _strays(facts, chosen.layout)
    others = [group for group in known if group is not chosen and group.layout.size <= facts.size]
    if facts.frame_size and not any(low < end <= high for end in chosen.ends):
        others = [group for group in others if any(low < end <= high for end in group.ends)]
        reason = f"AT_MINSIGSTKSZ {facts.frame_size} says that areas had {low + 1} to {high} bytes on this host"
    elif stray:
        others = [group for group in others if not _strays(facts, group.layout)]
        reason = f"byte {stray} is not zero, and {chosen.model.name} has no component there"
    else:
        others = []
        reason = ""
        if facts.frame_size and low >= facts.size:
            missing = {
                row.component
                for row in chosen.model.components.values()
                if row.offset is not None and row.offset >= chosen.layout.size and row.component > 1
            } or {Component.TILECFG, Component.TILEDATA}
            warnings.append(
                f"written by a debugger with {facts.size:,} bytes an area, where the host's had about {high:,} "
                f"(AT_MINSIGSTKSZ {facts.frame_size}): the state beyond is lost, on such a CPU "
                f"{_named(sum(1 << c for c in missing))}"
            )
        elif facts.size > chosen.layout.size:
            names = _named(beyond(chosen, facts.size, mask)) or "more components"
            warnings.append(
                f"written by a debugger: areas of {facts.size:,} bytes have room for {names}, but XCR0 {mask:#x} "
                "leaves that out: what it held is lost (the bytes are zero)"
            )
        elif not facts.frame_size:
            warnings.append(
                "written by a debugger, without a layout note: gdb up to 13 writes this size on hosts of another "
                "layout too, and tiles are never written; nothing in this file tells"
            )
    if reason and not others:
        warnings.append(f"the layout is doubtful: {reason}")
        return chosen, "assumed", rule
    if others:
        warnings.append(
            f"a note of {facts.size:,} bytes with XCR0 {mask:#x} looks like {chosen.model.name}'s, but {reason}: read "
            f"with the offsets of {others[0].model.name}; {_unwritten(chosen.layout, others[0].layout)}"
        )
        return others[0], "assumed", f"{rule}, corrected: offsets of {others[0].model.name}"
    return chosen, confidence, rule


def _unwritten(written: Layout, real: Layout) -> str:
    # A debugger that saved by the offsets of `written` left out what `real` has between them.
    position, parts = 576, []
    for offset, size in [*sorted(written.offsets.values()), (written.size, 0)]:
        for component, (start, length) in real.offsets.items():
            low, high = max(position, start), min(offset, start + length)
            if low < high:
                parts.append(f"{COMPONENTS[component].name} (bytes {low}-{high - 1})")
        position = max(position, offset + size)
    return f"lost, and read as zero: {', '.join(parts)}" if parts else "nothing is lost"


def _by_size(facts: Facts, warnings: "list[str]") -> Choice:
    # XCR0 unknown: masks that known CPUs enable, the whole of XCR0 and every prefix of it.
    pool = groups_of_size(facts.size, facts.xstate_bv)
    rule = f"size {facts.size} (XCR0 unknown)"
    if facts.exact and pool:
        narrowed, rule = _hinted(pool, facts, rule)
        mask = narrowed[0].layout.mask
        warnings.append(f"no XCR0 with the {facts.what}: {mask} is assumed from its size")
        return Choice(narrowed[0].layout, Evidence(rule, "assumed"), tuple(warnings))
    if facts.xstate_bv & ~LEGACY and not facts.xstate_bv & ~USER:
        used = facts.xstate_bv | LEGACY
        choice = _by_mask(facts, used, warnings)
        rule = f"XSTATE_BV {facts.xstate_bv:#x} (XCR0 unknown)"
        return Choice(choice.layout, Evidence(rule, "assumed"), choice.warnings)
    return _undecodable(facts, facts.xstate_bv, warnings)


def _undecodable(facts: Facts, mask: int, warnings: "list[str]") -> Choice:
    usable = mask & 7 | LEGACY
    if facts.size < _AVX_END:
        usable &= LEGACY
    rest = mask & ~usable & ~_FORMAT_BIT
    if rest:
        warnings.append(f"no known CPU has {_named(rest)} in an area of {facts.size:,} bytes: not decoded")
    layout = Layout(_legacy_avx(facts.mxcsr_mask, "legacy and AVX"), usable, STANDARD)
    return Choice(layout, Evidence("legacy + AVX only", "assumed"), tuple(warnings))
