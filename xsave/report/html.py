"""HTML fragments for notebooks: the memory map of an area as a small table, self-contained, no script."""

from html import escape

TYPE_CHECKING = False
if TYPE_CHECKING:
    from xsave.area import Area

__all__ = ["area_table"]


def area_table(area: "Area") -> str:
    """A table of an area's extents in memory order: offset, size, what lies there, and whether it is in use."""
    layout = area.layout
    rows: "list[tuple[int, int, str, str]]" = []
    for component in layout.mask:
        used = "in use" if area.xstate_bv >> component & 1 else "init"
        rows += [(offset, size, component.info.name, used) for offset, size in layout.extents(component)]
    header = 512  # between the legacy and the extended region (SDM1 13.4)
    rows.append((header, 64, "header", f"XSTATE_BV {area.xstate_bv}"))
    form = "compacted" if layout.format else "standard"
    title = f"{form} area, {layout.size:,} bytes, {layout.model.name or 'unnamed CPU'}"
    body = "".join(
        f"<tr{_dim(used)}><td>{offset}</td><td>{size}</td><td>{escape(name)}</td><td>{escape(used)}</td></tr>"
        for offset, size, name, used in sorted(rows)
    )
    return (
        f"<table><caption>{escape(title)}</caption><thead><tr><th>offset</th><th>bytes</th><th>component</th>"
        f"<th>state</th></tr></thead><tbody>{body}</tbody></table>"
    )


def _dim(used: str) -> str:
    return ' style="opacity:.55"' if used == "init" else ""
