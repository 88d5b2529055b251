"""The trust order's last rules: XCR0, size and hints matched against all known CPUs, or what little is sure anyway.

Loaded only when an artefact does not say itself which layout it has.
"""

from xsave.components import COMPONENTS, USER, Component
from xsave.images.facts import AVX_END, FORMAT_BIT, LEGACY, Choice, legacy_avx, named
from xsave.images.image import Evidence
from xsave.images.known import Group, beyond, groups, groups_of_size
from xsave.layout import STANDARD, Layout

TYPE_CHECKING = False
if TYPE_CHECKING:
    from xsave.images.facts import Facts

__all__ = ["by_mask", "by_size", "undecodable"]

# A Linux kernel that announces AT_MINSIGSTKSZ adds this much to the size of an XSAVE area, rounded up to 16.
_FRAME_EXTRA = 936


def _hinted(some: "list[Group]", facts: "Facts", rule: str) -> "tuple[list[Group], str]":
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


def _strays(facts: "Facts", layout: Layout) -> int:
    # Offset of the first non-zero byte of the extended region that is no component's, or 0.
    position = 576
    for offset, size in [*sorted(layout.offsets.values()), (min(facts.size, len(facts.content)), 0)]:
        gap = facts.content[position:offset]
        if any(gap):
            return position + len(gap) - len(gap.lstrip(b"\0"))
        position = max(position, offset + size)
    return 0


def by_mask(facts: "Facts", mask: int, warnings: "list[str]") -> Choice:
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
        return undecodable(facts, mask, warnings)
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


def _fixed(facts: "Facts", mask: int, rule: str, warnings: "list[str]") -> Choice:
    # Components whose place is the same on all CPUs.
    if mask >> Component.AVX & 1 and facts.size < AVX_END:
        warnings.append(f"{facts.what} of {facts.size:,} bytes has no room for AVX, which XCR0 {mask:#x} has")
        mask &= LEGACY
    model = legacy_avx(facts.mxcsr_mask, "any CPU")
    return Choice(Layout(model, mask, STANDARD), Evidence(rule, "known"), tuple(warnings))


def _doubt(
    facts: "Facts", mask: int, chosen: Group, known: "list[Group]", confidence: str, rule: str, warnings: "list[str]"
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
                f"{named(sum(1 << c for c in missing))}"
            )
        elif facts.size > chosen.layout.size:
            names = named(beyond(chosen, facts.size, mask)) or "more components"
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


def by_size(facts: "Facts", warnings: "list[str]") -> Choice:
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
        choice = by_mask(facts, used, warnings)
        rule = f"XSTATE_BV {facts.xstate_bv:#x} (XCR0 unknown)"
        return Choice(choice.layout, Evidence(rule, "assumed"), choice.warnings)
    return undecodable(facts, facts.xstate_bv, warnings)


def undecodable(facts: "Facts", mask: int, warnings: "list[str]") -> Choice:
    usable = mask & 7 | LEGACY
    if facts.size < AVX_END:
        usable &= LEGACY
    rest = mask & ~usable & ~FORMAT_BIT
    if rest:
        warnings.append(f"no known CPU has {named(rest)} in an area of {facts.size:,} bytes: not decoded")
    layout = Layout(legacy_avx(facts.mxcsr_mask, "legacy and AVX"), usable, STANDARD)
    return Choice(layout, Evidence("legacy + AVX only", "assumed"), tuple(warnings))
