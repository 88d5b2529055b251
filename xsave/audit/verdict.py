"""What one save instruction does to one buffer: the bytes that it writes, and those of them beyond the end.

The size of what XSAVE writes follows from XCR0 (XSAVES: and IA32_XSS) and EDX:EAX at the moment it executes, never from
the buffer (SDM1 13.7-13.11). Where components lie is `Layout`'s business; which of them are written is this module's.
"""

from xsave.components import Component, ComponentMask
from xsave.errors import UnsupportedError
from xsave.layout import COMPACTED, HEADER, MXCSR, STANDARD, Format, Layout

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from xsave.models import CpuModel

__all__ = [
    "ALL", "INSTRUCTIONS", "Verdict", "buffer", "byte_of", "can_disable", "check_size", "initial_bytes",
    "instruction_format", "known_mask", "mask_of", "past", "reached",
]  # fmt: skip

INSTRUCTIONS = {"XSAVE": STANDARD, "XSAVEOPT": STANDARD, "XSAVEC": COMPACTED, "XSAVES": COMPACTED}
ALL = (1 << 64) - 1
# What no linear address space of any x86 CPU holds: bytes of 57-bit addresses.
_SIZE_LIMIT = 1 << 57
# Bytes of the header that are written: XSTATE_BV; in the compacted format XCOMP_BV too.
_WRITTEN_HEADER = {STANDARD: 8, COMPACTED: 16}


class Verdict:
    """What one save instruction does to one buffer.

    `instruction`, `format`, `mask` (the RFBM: EDX:EAX within XCR0, for XSAVES XCR0 | IA32_XSS), `written` (components
    of it whose bytes are written), `size` (bytes of the buffer). `required`: bytes from the operand to behind the last
    one written, at least legacy region and header; `over`: how far that is past the buffer's end; `fits`: `over` is 0;
    `ranges`: the bytes past the end that are written, [(begin, end)] counted from the operand, ascending, apart from
    each other (a component's bytes are all counted, also the few that hold no register and that CPUs leave alone);
    `unused`: those few; `first_bad`: the first of `ranges`, or None. `touched`: bytes from the operand that must be
    writable; what is not written of them is a page fault where its page is missing, and left alone elsewhere (SDM1
    13.13).
    """

    __slots__ = ("format", "instruction", "mask", "over", "ranges", "required", "size", "touched", "unused", "written")

    def __init__(self, instruction: str, layout: Layout, written: int, size: int, touched: int) -> None:
        self.instruction = instruction
        self.format: Format = layout.format
        self.mask = layout.mask
        self.written = ComponentMask(written)
        self.size = size
        self.touched = touched
        self.required = layout.end_of(written)
        self.over = max(0, self.required - size)
        self.ranges = past(_extents(layout, written), size)
        self.unused = past(_unused(layout, written), size)

    @property
    def fits(self) -> bool:
        """Whether nothing is written or required past the buffer's end."""
        return self.over == 0

    @property
    def first_bad(self) -> "int | None":
        """The first byte past the buffer's end that is written, counted from the operand, or None."""
        return self.ranges[0][0] if self.ranges else None

    @property
    def bytes_over(self) -> int:
        """How many bytes past the buffer's end are written."""
        return sum(end - begin for begin, end in self.ranges)

    @property
    def fault_at(self) -> "int | None":
        """The byte that CR2 names if no byte past the end is mapped, counted from the operand: the last that the
        instruction touches, for which it looks before it writes anything (measured); None where none is past the end.
        For buffers that hold legacy region and header."""
        return self.touched - 1 if self.touched > self.size else None

    def __repr__(self) -> str:
        answer = "fits" if self.fits else f"{self.over:,} bytes over, {self.bytes_over:,} written past the end"
        return f"<Verdict {self.instruction} of {self.mask} into {self.size:,} bytes: {answer}>"


def past(extents: "Iterable[tuple[int, int]]", size: int) -> "list[tuple[int, int]]":
    """What of [(begin, end)] lies past `size`, ascending, joined where they touch."""
    found: "list[tuple[int, int]]" = []
    for begin, end in sorted(extents):
        if end <= size or begin == end:
            continue
        if found and begin <= found[-1][1]:
            found[-1] = (found[-1][0], max(end, found[-1][1]))
        else:
            found.append((max(begin, size), end))
    return found


def buffer(
    model: "CpuModel",
    *,
    xcr0: "int | str",
    xss: "int | str" = 0,
    xfd: "int | str" = 0,
    instruction: str = "XSAVE",
    rfbm: "int | str" = 2**64 - 1,
    size: int,
    in_use: "int | str | None" = None,
) -> Verdict:
    """What `instruction` does to a buffer of `size` bytes on a `model` whose registers hold these values.

    `xcr0`, `xss`, `xfd`: XCR0, IA32_XSS and IA32_XFD when it executes; `rfbm`: EDX:EAX; masks as numbers or by name.
    `instruction`: "XSAVE", "XSAVEOPT", "XSAVEC" or "XSAVES". `in_use`: XINUSE, the components not in their initial
    configuration; None is the worst that the owner of the registers can make of them: all. (MXCSR counts with SSE.)
    Nothing is taken off for the modified optimisation, which saves less, never more.

    XSAVE writes every component of RFBM, zeros for one that IA32_XFD disables or that is initial; the others write what
    is in use and not disabled. Whether a value is one that XSETBV accepts is the policies' question, not this one's.

    Raises: `ValueError` for a mask that the model does not have, an unknown instruction, a size that no buffer has;
    `UnsupportedError` for an instruction that the model lacks [SDM1 13.4-13.11, 13.14].
    """
    format_ = instruction_format(model, instruction)
    enabled = known_mask(model, xcr0, model.xcr0_mask, "XCR0")
    supervisor = known_mask(model, xss, model.xss_mask, "IA32_XSS")
    disabled = known_mask(model, xfd, can_disable(model), "IA32_XFD")
    check_size(size)
    mask = reached(instruction, enabled, supervisor) & mask_of(rfbm, "RFBM")
    used = mask if in_use is None else known_mask(model, in_use, model.xcr0_mask | model.xss_mask, "XINUSE")
    written = mask if instruction == "XSAVE" else mask & used & ~disabled
    layout = Layout(model, mask, format_)
    # Of a disabled component only the place may count where it begins (measured).
    shortened = instruction in ("XSAVEOPT", "XSAVEC") and model.knobs["xfd_extent"] == "before_disabled"
    return Verdict(instruction, layout, written, size, layout.end_of(mask, disabled if shortened else 0))


def reached(instruction: str, xcr0: int, xss: int) -> int:
    """The components that an instruction of the family reaches under these masks, before EDX:EAX."""
    return xcr0 | xss if instruction in ("XSAVES", "XRSTORS") else xcr0


def check_size(size: int) -> None:
    """Raises: `ValueError` for a size that no buffer has."""
    if not 0 < size <= _SIZE_LIMIT:
        raise ValueError(f"a buffer of {size:,} bytes: no address space holds one (1 to {_SIZE_LIMIT:,})")


def instruction_format(model: "CpuModel", instruction: str) -> Format:
    """The format that a save instruction writes. Raises: `ValueError`; `UnsupportedError` where `model` lacks it."""
    if instruction not in INSTRUCTIONS:
        raise ValueError(f"instruction {instruction!r} is none of {', '.join(INSTRUCTIONS)}")
    if instruction.lower() not in model.instructions:
        raise UnsupportedError(f"{model.name} has no {instruction} [SDM1 13.2]")
    return INSTRUCTIONS[instruction]


def can_disable(model: "CpuModel") -> int:
    """The components that IA32_XFD can disable on `model`: those that a thread of Linux has only once it used them."""
    return sum(1 << component for component, row in model.components.items() if row.xfd)


def byte_of(field: int, bits: int) -> int:
    """The byte that holds the lowest of `bits`, of a field of an area that begins at byte `field`."""
    return field + ((bits & -bits).bit_length() - 1) // 8


def initial_bytes(layout: Layout, component: Component) -> "Iterator[tuple[int, bytes]]":
    """(offset, bytes) of a component's extents in its initial configuration; MXCSR has rules of its own [SDM1 13.6]."""
    image, done = component.info.init_image(), 0
    for offset, size in layout.extents(component):
        if offset != MXCSR[0] or component != Component.SSE:
            yield offset, image[done : done + size].ljust(size, b"\0")
            done += size


def mask_of(value: "int | str", what: str) -> int:
    """A mask given as a number or by name. Raises: `ValueError`."""
    if isinstance(value, int) and not 0 <= value <= ALL:
        raise ValueError(f"{what} {value:#x} does not fit 64 bits")
    return int(ComponentMask.parse(value))


def known_mask(model: "CpuModel", value: "int | str", allowed: int, what: str) -> int:
    """The same within `allowed`. Raises: `ValueError`, naming the bits beyond it."""
    number = mask_of(value, what)
    if number & ~allowed:
        raise ValueError(f"{what} {number:#x} has {ComponentMask(number & ~allowed)}, which {model.name} does not have "
                         f"there: its bits are {ComponentMask(allowed)}")
    return number


def _extents(layout: Layout, written: int) -> "list[tuple[int, int]]":
    # Written bytes as [(begin, end)]; the header's share first.
    found = [(HEADER[0], HEADER[0] + _WRITTEN_HEADER[layout.format])]
    if layout.format is STANDARD and layout.mask & (1 << Component.SSE | 1 << Component.AVX):
        found.append(MXCSR)  # whatever is in use
    for component in ComponentMask(written):
        found += [(offset, offset + width) for offset, width in layout.extents(component)]
    return found


def _unused(layout: Layout, written: int) -> "list[tuple[int, int]]":
    # Bytes of components behind 2 in which no register lies.
    from xsave.registers import REGISTERS

    found = []
    for component in ComponentMask(written):
        place = layout.offsets.get(component)
        if place is None:
            continue
        begin, end = place[0], place[0] + place[1]
        held = sorted({(part.offset, part.offset + part.width) for row in REGISTERS.values() for part in row.parts
                       if part.component == component})
        for start, stop in held:
            if place[0] + start > begin:
                found.append((begin, place[0] + start))
            begin = max(begin, place[0] + stop)
        if held and begin < end:
            found.append((begin, end))
    return found
