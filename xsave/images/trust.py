"""The trust order: which layout rules an area of unknown origin, and how sure that is. The one place for it.

A reader fills in `Facts`, what the artefact says of itself, and gets a `Choice`. In order: what the user says;
a layout that the artefact carries; XCOMP_BV with bit 63; XCR0, size and vendor hint matched against all known
CPUs; else legacy and AVX only, with the rest named as undecodable.
"""

from xsave.components import COMPONENTS, SUPERVISOR, USER, Component, ComponentMask
from xsave.errors import FormatError, XSaveError
from xsave.images.facts import FORMAT_BIT, LEGACY, Choice, Facts, legacy_choice, model_of, named, profile_of
from xsave.images.image import Evidence
from xsave.layout import COMPACTED, STANDARD, Layout
from xsave.models import PROFILES, CpuModel

__all__ = ["Choice", "Facts", "choose", "legacy_choice", "model_of"]


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
    from xsave.images.matching import by_mask, by_size, undecodable

    if facts.xcomp_bv & FORMAT_BIT:
        choice = _by_xcomp(facts, warnings)
        return choice or undecodable(facts, facts.xcomp_bv & ~FORMAT_BIT, warnings)
    if facts.xcr0:
        return by_mask(facts, facts.xcr0, warnings)
    return by_size(facts, warnings)


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
    if facts.xcomp_bv & FORMAT_BIT:
        layout = Layout(model, facts.xcomp_bv & ~FORMAT_BIT, COMPACTED)
        if layout.size > facts.size:
            raise FormatError(f"{facts.what} of {facts.size:,} bytes: {model.name} needs {layout.size:,} for XCOMP_BV "
                              f"{ComponentMask(facts.xcomp_bv)}", offset=facts.size)
    else:
        wanted = facts.xcr0 or int(model.xcr0_mask)
        layout = _fitting(model, wanted, facts.size)
        lacking = wanted & ~(model.xcr0_mask | LEGACY) if facts.xcr0 else 0
        if lacking and facts.exact:
            warnings.append(f"{model.name} lacks {named(lacking)}, which XCR0 {facts.xcr0:#x} of the {facts.what} has")
        full = facts.xcr0 & ~lacking
        if facts.exact and full & ~layout.mask:
            warnings.append(f"{named(full & ~layout.mask)} of {model.name} would lie beyond the {facts.size:,} bytes "
                            f"of the {facts.what}")
        elif facts.exact and facts.xcr0 and layout.size != facts.size:
            warnings.append(f"{facts.what} has {facts.size:,} bytes, but {model.name} needs {layout.size:,} "
                            f"for XCR0 {facts.xcr0:#x}")
    for bit, size, offset, _flags in facts.entries or ():
        row = model.components.get(bit)  # type: ignore[call-overload]
        found = "lacks it" if row is None else f"has {row.size:,} bytes at {row.offset}"
        if row is None or (row.size, row.offset) != (size, offset):
            warnings.append(f"the core's layout note says {named(1 << (bit & 63))}: {size:,} bytes at {offset}, "
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
        warnings.append(f"XCR0 {facts.xcr0:#x} has {named(facts.xcr0 & ~known)}, which the layout note does not list")
    return Choice(Layout(model, mask, STANDARD), Evidence("NT_X86_XSAVE_LAYOUT note", "exact"), tuple(warnings))


def _architectural(mask: int, mxcsr_mask: int) -> CpuModel:
    # Sizes and alignment of the architecture, no standard offsets: enough for a compacted area.
    supervisor = mask & SUPERVISOR
    user = mask & ~supervisor | LEGACY
    leaves = {
        (0xD, 0): (user & 0xFFFFFFFF, 0, 0, user >> 32),
        (0xD, 1): (0b1010, 0, supervisor & 0xFFFFFFFF, supervisor >> 32),
    }
    return CpuModel.from_cpuid(leaves, profile_of(mxcsr_mask), "architectural sizes", brand="",
                               provenance="the architecture's sizes and alignment")


def _by_xcomp(facts: Facts, warnings: "list[str]") -> "Choice | None":
    mask = facts.xcomp_bv & ~FORMAT_BIT
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
