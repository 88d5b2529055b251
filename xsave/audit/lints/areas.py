"""Lints of one area, of whatever origin: its header, MXCSR, what is in use and what is not.

Rules that another module states are asked for there: XRSTOR's of the header of `xsave.area`, those of tile state of
`xsave.tiles`. What an area's own mask or a frame's has is no matter here: it need not be a legal XCR0.
"""

from xsave.area import header_findings
from xsave.audit.lints.catalogue import Finding
from xsave.audit.verdict import byte_of, initial_bytes
from xsave.components import Component, ComponentMask
from xsave.errors import LayoutError
from xsave.layout import COMPACTED, HEADER, MXCSR, STANDARD, Layout
from xsave.tiles import TILE_RULES, lint

TYPE_CHECKING = False
if TYPE_CHECKING:
    from xsave.area import Area

__all__ = ["lint_area"]

_MXCSR, _XSTATE, _XCOMP = MXCSR[0], HEADER[0], HEADER[0] + 8
_FORMAT_BIT = 1 << 63
_SSE, _SSE_AVX = Component.SSE.mask, Component.SSE.mask | Component.AVX.mask
_TILES = (Component.TILECFG, Component.TILEDATA)
_TILE_BITS = Component.TILECFG.mask | Component.TILEDATA.mask
# LDTILECFG's rules by their codes, and one more that has the same consequence: XRSTOR makes TILECFG initial.
_CONFIG_CODES = frozenset([*(code for code, _, _ in TILE_RULES.values()), "TILE-PALETTE-0"])


def lint_area(
    area: "Area",
    *,
    xcr0: "int | None" = None,
    xss: "int | None" = None,
    xfd: "int | None" = None,
    where: str = "area",
) -> "list[Finding]":
    """What is dangerous or inconsistent in one area, hostile contents included (`Area(..., check=False)`).

    `xcr0`, `xss`, `xfd`: XCR0, IA32_XSS and IA32_XFD where it is to be restored, None where unknown: what would need
    them is then not judged. `where` names the area in the findings. Offsets count from the area's start. It never
    raises on contents. Manual: SDM1 13.4-13.8, 13.12, 13.14.
    """
    return findings_of(area, xcr0, xss, xfd, where, None, "L-STALE-INIT")


def findings_of(
    area: "Area",
    xcr0: "int | None",
    xss: "int | None",
    xfd: "int | None",
    where: str,
    tid: "int | None",
    stale: str,
) -> "list[Finding]":
    """`lint_area` for a thread; `stale`: the lint for foreign bytes of initial components, as their writer has it."""
    data = memoryview(area)
    xstate = int(area.xstate_bv)
    found = _header(area, data, xstate, xcr0, xss)
    if xfd and xstate & xfd:
        odd = ComponentMask(xstate & xfd)
        text = f"XSTATE_BV {ComponentMask(xstate)} has {_names(odd)}, which IA32_XFD disables: XRSTOR takes #NM"
        found.append(("L-XSTATE-XFD", text, byte_of(_XSTATE, odd)))
    lost = _tiles_lost(area, data, xstate)
    found += lost + _places(area, data, xstate, bool(lost)) + _mxcsr_zero(area, data, xstate)
    found += _stale(area, data, xstate, stale) + ([] if lost else _tiles(area)) + _pkru(area, data, xstate)
    return [Finding(id, message, offset, where, tid) for id, message, offset in found]


def _header(
    area: "Area", data: memoryview, xstate: int, xcr0: "int | None", xss: "int | None"
) -> "list[tuple[str, str, int | None]]":
    layout = area.layout
    compacted = layout.format == COMPACTED
    xcomp = int(area.xcomp_bv)
    wanted = layout.mask | _FORMAT_BIT if compacted else 0
    found: "list[tuple[str, str, int | None]]" = []
    if xcomp != wanted:
        kind = "compacted" if compacted else "standard"
        text = f"XCOMP_BV {ComponentMask(xcomp)} in a {kind} area of {layout.mask}, expected {wanted:#x}"
        found.append(("L-XCOMP-FORMAT", text, byte_of(_XCOMP, xcomp ^ wanted)))
    renamed = {"H-MXCSR": "L-MXCSR-RESERVED"}
    # Without IA32_XSS its bits are not judged, without XCR0 none; nor are those of an area in the other format.
    allowed = _FORMAT_BIT - 1
    if xcr0 is not None:
        allowed = xcr0 | (int(layout.model.xss_mask) if xss is None else xss) if compacted else xcr0
    if compacted and xcomp & _FORMAT_BIT:
        renamed.update({"H-XCOMP": "L-XCOMP-XCR0", "H-XSTATE": "L-XSTATE-XCOMP"})
    elif not compacted and not xcomp & _FORMAT_BIT and xcr0 is not None:
        renamed["H-XSTATE"] = "L-XSTATE-XCR0"
    for rule, offset, message, fatal in header_findings(area, allowed, mxcsr_mask=layout.mxcsr_mask):
        if rule == "H-RESERVED":
            found.append(("L-HEADER-RESERVED" if fatal else "L-HEADER-TAIL", message, offset))
        elif rule in renamed:
            found.append((renamed[rule], message, offset))
    return found


def _tiles_lost(area: "Area", data: memoryview, xstate: int) -> "list[tuple[str, str, int | None]]":
    # TILECFG in use is never 0: no processor saves it so. With TILEDATA absent or 0 too, nothing was kept.
    layout = area.layout
    if xstate & _TILE_BITS != _TILE_BITS:
        return []
    places = [layout.offsets[component] for component in _TILES if component in layout.mask]
    if any(any(data[offset : offset + size]) for offset, size in places):
        return []
    kept = "has zeros for" if places else "has no place for"
    text = f"XSTATE_BV {ComponentMask(xstate)} has TILECFG and TILEDATA, and the area of {len(data):,} bytes"
    return [("L-TILE-LOST", f"{text} {kept} them", byte_of(_XSTATE, _TILE_BITS))]


def _places(area: "Area", data: memoryview, xstate: int, tiles_lost: bool) -> "list[tuple[str, str, int | None]]":
    # Components in use without a place in the area: beyond its end, or nowhere.
    layout, xcomp = area.layout, int(area.xcomp_bv)
    missing = xstate & ~layout.mask & ~(_TILE_BITS if tiles_lost else 0)
    if layout.format == COMPACTED and xcomp & _FORMAT_BIT:
        missing &= xcomp & ~_FORMAT_BIT  # what XCOMP_BV lacks has been said
    found: "list[tuple[str, str, int | None]]" = []
    cut = 0
    for component in ComponentMask(missing):
        end = _end(layout, component, xcomp)
        if end is not None and end > layout.size:
            cut |= component.mask
            text = f"the area ends at byte {layout.size:,}, and {component.info.name}, which XSTATE_BV "
            found.append(("L-AREA-CUT", f"{text}{ComponentMask(xstate)} has, at byte {end:,}", layout.size))
    odd = ComponentMask(missing & ~cut)
    if odd:
        text = f"XSTATE_BV {ComponentMask(xstate)} has {_names(odd)}, for which the layout {layout.mask} has no place"
        found.append(("L-XSTATE-MASK", text, byte_of(_XSTATE, odd)))
    return found


def _end(layout: Layout, component: Component, xcomp: int) -> "int | None":
    # Where a component that the layout lacks would end on that CPU, or None.
    mask = layout.mask | component.mask if layout.format == STANDARD else xcomp & ~_FORMAT_BIT
    try:
        offset, size = Layout(layout.model, mask, layout.format).offsets[component]
    except (LayoutError, KeyError):
        return None
    return offset + size


def _mxcsr_zero(area: "Area", data: memoryview, xstate: int) -> "list[tuple[str, str, int | None]]":
    # Only where XRSTOR loads it: in the standard format whatever XSTATE_BV says (SDM1 13.8.1).
    layout = area.layout
    loaded = layout.mask & xstate & _SSE if layout.format == COMPACTED else layout.mask & _SSE_AVX
    if not loaded or area.mxcsr:
        return []
    return [("L-MXCSR-ZERO", f"MXCSR at byte {_MXCSR} is 0: no SIMD floating-point exception is masked", _MXCSR)]


def _stale(area: "Area", data: memoryview, xstate: int, id: str) -> "list[tuple[str, str, int | None]]":
    names, first = [], None
    for component in ComponentMask(area.layout.mask & ~xstate):
        at = _foreign(area.layout, data, component)
        if at is not None:
            names.append(component.info.name)
            first = at if first is None else min(first, at)
    if first is None:
        return []
    text = f"{' '.join(names)} not in XSTATE_BV {ComponentMask(xstate)}, and bytes there are neither initial nor 0"
    return [(id, f"{text}, the first at byte {first}", first)]


def _foreign(layout: Layout, data: memoryview, component: Component) -> "int | None":
    # The first byte that is neither the initial one nor 0, of what a fresh buffer holds. MXCSR has rules of its own.
    for offset, expected in initial_bytes(layout, component):
        held = data[offset : offset + len(expected)]
        if held != expected:
            at = next((offset + i for i, byte in enumerate(expected) if held[i] not in (0, byte)), None)
            if at is not None:
                return at
    return None


def _tiles(area: "Area") -> "list[tuple[str, str, int | None]]":
    found: "list[tuple[str, str, int | None]]" = []
    for code, offset, message in lint(area):
        if code == "TILE-ZEROS":
            found.append(("L-TILE-ZEROS", message, offset))
        else:
            found.append(("L-TILE-CONFIG" if code in _CONFIG_CODES else "L-TILE-SHAPE", f"{code}: {message}", offset))
    return found


def _pkru(area: "Area", data: memoryview, xstate: int) -> "list[tuple[str, str, int | None]]":
    if Component.PKRU not in area.layout.mask:
        return []
    ((offset, _),) = area.layout.extents(Component.PKRU)
    if not xstate & Component.PKRU.mask:
        text = f"PKRU not in XSTATE_BV {ComponentMask(xstate)}: 0, every key gives all access"
        return [("L-PKRU-OPEN", text, byte_of(_XSTATE, Component.PKRU.mask))]
    if any(data[offset : offset + 4]):
        return []
    return [("L-PKRU-OPEN", f"PKRU at byte {offset} is 0: every key gives all access", offset)]


def _names(odd: ComponentMask) -> str:
    return " ".join(odd.names)
