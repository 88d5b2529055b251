"""Known CPUs as candidates for an area's layout: which standard layouts of a mask exist, and whose they are.

Built from `CpuModel.names()` when the trust order first needs it, and kept.
"""

from xsave.components import USER
from xsave.errors import LayoutError
from xsave.images.facts import LEGACY
from xsave.layout import STANDARD, Layout
from xsave.models import CpuModel

__all__ = ["Group", "beyond", "exact_size", "groups", "groups_of_size"]


class Group:
    """Known CPUs whose standard layout of one mask has the same offsets.

    `model` is the one with the fewest other components, `layout` its layout; `ends`, where a component of one of
    them ends; `hints`, their MXCSR_MASK.
    """

    def __init__(self, model: CpuModel, layout: Layout) -> None:
        self.model = model
        self.layout = layout
        self.ends: "set[int]" = set()
        self.hints: "set[int]" = set()
        self.add(model, layout)

    def add(self, model: CpuModel, layout: Layout) -> None:
        if _excess(model, layout.mask) < _excess(self.model, layout.mask):
            self.model, self.layout = model, layout
        self.hints.add(layout.mxcsr_mask)
        self.ends.update(
            row.offset + row.size for row in model.components.values() if row.offset is not None and row.component > 1
        )


def _excess(model: CpuModel, mask: int) -> int:
    return (model.xcr0_mask & ~mask).bit_count()


_groups_of: "dict[int, list[Group]]" = {}


def groups(mask: int) -> "list[Group]":
    """The different standard layouts of `mask` among known CPUs."""
    if mask in _groups_of:
        return _groups_of[mask]
    found: "dict[tuple[object, ...], Group]" = {}
    for name in CpuModel.names():
        model = CpuModel.named(name)
        if mask & ~(model.xcr0_mask | LEGACY):
            continue
        try:
            layout = Layout(model, mask, STANDARD)
        except LayoutError:
            continue
        key = tuple(layout.offsets.items())
        if key in found:
            found[key].add(model, layout)
        else:
            found[key] = Group(model, layout)
    if len(_groups_of) > 64:
        _groups_of.clear()
    _groups_of[mask] = list(found.values())
    return _groups_of[mask]


def exact_size(mask: int, size: int) -> bool:
    """Whether some known CPU's standard area of `mask` has `size` bytes."""
    return any(group.layout.size == size for group in groups(mask))


def beyond(group: Group, size: int, mask: int) -> int:
    """The components that known CPUs of a layout have between the end of the mask's and `size`."""
    found = 0
    for name in CpuModel.names():
        model = CpuModel.named(name)
        rows = model.components
        if any(rows.get(c) is None or rows[c].offset != offset for c, (offset, _) in group.layout.offsets.items()):
            continue
        found |= sum(
            1 << c for c, row in rows.items()
            if c > 1 and row.offset is not None and group.layout.size <= row.offset < size and not mask >> c & 1
        )
    return found


def groups_of_size(size: int, xstate_bv: int) -> "list[Group]":
    """Layouts of `size` bytes for masks that known CPUs enable: the whole of XCR0 and every prefix of it.

    `xstate_bv` must lie within the mask. The widest mask comes first: it decodes most, and a narrower one of the same
    size differs in nothing that it has.
    """
    found: "dict[tuple[object, ...], Group]" = {}
    for name in CpuModel.names():
        model = CpuModel.named(name)
        whole = model.xcr0_mask | LEGACY
        for mask in {int(whole & (1 << bits) - 1) for bits in range(2, USER.bit_length() + 1)}:
            try:
                layout = Layout(model, mask, STANDARD)
            except LayoutError:
                continue
            if layout.size == size and not xstate_bv & ~mask:
                key = (mask, *layout.offsets.items())
                if key in found:
                    found[key].add(model, layout)
                else:
                    found[key] = Group(model, layout)
    return sorted(found.values(), key=lambda group: -group.layout.mask.bit_count())
