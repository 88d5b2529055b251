"""One real instruction on this CPU, from a given register state: with its fault caught, or many times over and timed.
Serves `xsave.host` only."""

from xsave._child import native
from xsave.components import ComponentMask
from xsave.errors import HostError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any

    from typing_extensions import Buffer

    from xsave._native import Arena, Trap
    from xsave.layout import Layout

    Operand = int | bytes
    Step = tuple[str, int, int, Operand, bool, bool]

__all__ = ["INSTRUCTIONS", "Execution", "HostFault", "execute", "time_instruction"]

_PAGE = 4096
_FAMILY = frozenset("XSAVE XSAVEOPT XSAVEC XSAVES XRSTOR XRSTORS FXSAVE FXRSTOR".split())
_TILE_MEMORY = frozenset("LDTILECFG STTILECFG TILELOADD TILELOADDT1 TILESTORED".split())
_BARE = frozenset("VZEROUPPER VZEROALL FNINIT FNOP EMMS TILERELEASE".split())
_TILE = frozenset("TILELOADD TILELOADDT1 TILESTORED TILEZERO".split())
_STORES = frozenset(("FNSTCW", "STMXCSR"))
_LOADS = {"LDMXCSR": 4, "FLDCW": 2}
INSTRUCTIONS = _FAMILY | _TILE_MEMORY | _BARE | _TILE | {"XGETBV"}


class HostFault:
    """What the CPU raised: `vector` ("#GP", "#PF", …), `error_code` (0 where the vector has none) and `offset`, the
    byte that CR2 names, counted from the operand (None unless a #PF). `signal` and `code` (si_code) are how the kernel
    told it. Equal to the tuple (vector, error_code, offset)."""

    __slots__ = ("code", "error_code", "offset", "signal", "vector")

    def __init__(self, vector: str, error_code: int, offset: "int | None", signal: int, code: int) -> None:
        self.vector = vector
        self.error_code = error_code
        self.offset = offset
        self.signal = signal
        self.code = code

    def __eq__(self, other: object) -> bool:
        mine = (self.vector, self.error_code, self.offset)
        if isinstance(other, HostFault):
            return mine == (other.vector, other.error_code, other.offset)
        return mine == other if isinstance(other, tuple) else NotImplemented

    def __hash__(self) -> int:
        return hash((self.vector, self.error_code, self.offset))

    def __repr__(self) -> str:
        where = "" if self.offset is None else f" at byte {self.offset}"
        return f"<{self.vector}({self.error_code:#x}){where}>"


class Execution:
    """What one instruction did on this CPU.

    `fault`: a `HostFault`, or None. `memory`: the operand's bytes afterwards, as many as were given. `image`: the
    whole state afterwards, a standard image of XCR0 (after a fault with XSTATE_BV as the kernel's signal return made
    it: bits 0 and 1 may be set whatever the CPU had). `xinuse_before`, `xinuse_after`: XGETBV(1) right before and right
    after, `ComponentMask` or None where this CPU has no XGETBV(1). `value`: what XGETBV read, else None.
    """

    __slots__ = ("_layout", "fault", "image", "memory", "value", "xinuse_after", "xinuse_before")

    def __init__(
        self,
        layout: "Layout",
        fault: "HostFault | None",
        memory: bytes,
        image: bytes,
        xinuse: "tuple[ComponentMask | None, ComponentMask | None]",
        value: "int | None",
    ) -> None:
        self._layout = layout
        self.fault = fault
        self.memory = memory
        self.image = image
        self.xinuse_before, self.xinuse_after = xinuse
        self.value = value

    @property
    def registers(self) -> "dict[str, int | bytes]":
        """Every register afterwards, in `decode`'s names; a component with XSTATE_BV 0 has its initial values."""
        from xsave.area import Area
        from xsave.codec import decode

        return decode(Area(self.image, self._layout))

    def __repr__(self) -> str:
        return f"<Execution: {self.fault or 'no fault'}, XINUSE {self.xinuse_after}>"


def _first(layout: "Layout", state: "Any") -> bytes:
    # The state to start from, as a standard image of XCR0.
    from xsave.codec import encode, transcode

    if state is None or hasattr(state, "keys"):
        return encode(state or {}, layout)
    if hasattr(state, "layout"):
        return bytes(transcode(state, state.layout, layout))
    image = bytes(memoryview(state))
    if len(image) < layout.size:
        raise ValueError(f"a state of {len(image)} bytes: a standard image of {layout.mask} has {layout.size}")
    return image[: layout.size]


def _default_size(layout: "Layout", instruction: str) -> int:
    if instruction in ("FXSAVE", "FXRSTOR"):
        return 512
    if instruction in _TILE_MEMORY:
        return 64 if "TILECFG" in instruction else 1024
    return layout.size


class _Place:
    """Where the operand lies."""

    def __init__(
        self,
        data: bytes,
        room: int,
        *,
        offset: int,
        edge: bool,
        hole: "int | None",
        read_only: bool,
        address: "int | None",
    ) -> None:
        self.size = len(data)
        self.arena: "Arena | None" = None
        if address is not None:
            self.address = address & (1 << 64) - 1
            return
        room = max(room, self.size)
        if edge and hole is not None:
            raise ValueError("an area at an edge, or with a hole: not both")
        if edge:
            pages = -(-(self.size + _PAGE) // _PAGE)
            self.at = pages * _PAGE - self.size
        elif hole is not None:
            if hole < 0:
                raise ValueError(f"a hole {hole} bytes from the operand")
            before = -(-hole // _PAGE)
            pages = before + 1 + -(-room // _PAGE)
            self.at = before * _PAGE - hole
        else:
            self.at = 64 + offset
            pages = -(-(self.at + room) // _PAGE)
        if self.at % 64 != offset % 64:
            raise ValueError(f"there the operand lies {self.at % 64} bytes from a 64-byte boundary, not {offset % 64}")
        missing = None if hole is None else before
        self.arena = native().Arena(pages, hole=missing, read_only=read_only)
        self.arena.write(self.at, data)
        self.address = self.arena.address + self.at

    def read(self) -> bytes:
        return b"" if self.arena is None else self.arena.read(self.at, self.size)


def _register_step(name: str, value: "int | bytes", vex: bool) -> "Step":
    from xsave.registers import REGISTERS

    row = REGISTERS.get(name)
    if row is None:
        raise ValueError(f"no instruction and no register {name!r}")
    family, number = row.family, row.index
    size = {"xmm": 16, "ymm": 32, "zmm": 64, "k": 8, "st": 10}.get(family)
    if size is None or number is None or (family == "st" and number):
        raise ValueError(f"{name}: no single load of xmm, ymm, zmm, k or st0 writes it; give it in the state")
    data = value.to_bytes(size, "little") if isinstance(value, int) else bytes(value)
    if len(data) != size:
        raise ValueError(f"a value of {len(data)} bytes for {name}, which has {size}")
    if family == "k":
        if any(data[2:]):
            raise ValueError(f"{name}: KMOVW loads 16 bits; give a wider value in the state")
        step = "KMOVW"
    elif family == "st":
        step, number = "FLD", 0
    elif family == "zmm" or number >= 16:
        step = f"VMOVDQU64 {family}"
    elif family == "ymm" or vex:
        step = f"VMOVUPS {family}"
    else:
        step = "MOVUPS"
    return step, number, 0, data, True, False


def _step(given: "Sequence[Any]", address: int) -> "Step":
    # One of the steps before: (name, operands …).
    name, *operands = given
    if not isinstance(name, str):
        raise TypeError(f"{given!r}: a step begins with a name")
    if name in _FAMILY and len(operands) <= 2:
        return name, 0, operands[0] if operands else -1, address, len(operands) < 2 or bool(operands[1]), False
    if name in _BARE and not operands:
        return name, 0, 0, 0, True, False
    if name in _STORES and not operands:
        return name, 0, 0, bytes(64), True, False
    if name in _LOADS and len(operands) == 1:
        return name, 0, 0, operands[0].to_bytes(_LOADS[name], "little"), True, False
    if name == "LDTILECFG" and len(operands) == 1:
        return name, 0, 0, bytes(operands[0]), True, False
    if name == "TILEZERO" and len(operands) == 1:
        return name, operands[0], 0, 0, True, False
    if len(operands) == 1 or (len(operands) == 2 and operands[1] == "vex"):
        return _register_step(name, operands[0], len(operands) == 2)
    raise ValueError(f"{given!r}: no step of this shape")


def _fault(trap: "Trap | None", address: int) -> "HostFault | None":
    if trap is None:
        return None
    offset = None
    if trap.address is not None:
        offset = (trap.address - address + (1 << 63)) % (1 << 64) - (1 << 63)
    return HostFault(trap.vector, trap.error_code or 0, offset, trap.signal, trap.code)


def _components(xinuse: "int | None") -> "ComponentMask | None":
    return None if xinuse is None else ComponentMask(xinuse)


def execute(
    layout: "Layout",
    instruction: str,
    area: "Buffer | None",
    mask: int,
    state: "Mapping[str, int | Buffer] | Buffer | None",
    before: "Iterable[Sequence[Any]]",
    *,
    rexw: bool,
    segment: str,
    align_check: bool,
    tile: int,
    stride: int,
    offset: int,
    edge: bool,
    hole: "int | None",
    read_only: bool,
    address: "int | None",
) -> Execution:
    """`Host.execute`, whose docstring says what everything means; `layout` is the standard one of XCR0."""
    if instruction not in INSTRUCTIONS:
        raise ValueError(f"cannot execute {instruction!r}: one of {', '.join(sorted(INSTRUCTIONS))}")
    if segment not in ("ds", "ss"):
        raise ValueError(f"segment {segment!r}: 'ds' or 'ss'")
    if segment == "ss" and instruction not in _FAMILY:
        raise ValueError(f"{instruction} through SS: only the XSAVE family and FXSAVE, FXRSTOR")
    if instruction == "XGETBV" and mask == -1:
        raise ValueError("XGETBV needs mask, which is ECX: 0 or 1 (others fault)")
    if not 0 <= tile < 8:
        raise ValueError(f"tile {tile}: 0 to 7")
    if area is not None and address is not None:
        raise ValueError("an area, or an address of your own: not both")
    room = native().area_size()
    data = bytes(_default_size(layout, instruction)) if area is None else bytes(memoryview(area))
    place = _Place(data, room, offset=offset, edge=edge, hole=hole, read_only=read_only, address=address)
    if address is not None:
        data = b""
    steps = [_step(given, place.address) for given in before]
    reads = instruction in _FAMILY or instruction in _TILE_MEMORY
    number = tile if instruction in _TILE else 0
    if instruction in _TILE:
        mask = stride
    steps.append((instruction, number, mask, place.address if reads else 0, rexw, segment == "ss"))
    image, done, trap, _, last, after, results = native().run_steps(
        steps, _first(layout, state), align_check=align_check
    )
    if trap is not None and done < len(steps) - 1:
        raise HostError(f"{steps[done][0]}, step {done} before {instruction}, faults: {trap.vector}")
    seen = _components(last), _components(after)
    value = results[-1] if instruction == "XGETBV" and trap is None else None
    return Execution(layout, _fault(trap, place.address), place.read(), image[: layout.size], seen, value)


def time_instruction(
    layout: "Layout",
    instruction: "str | None",
    mask: int,
    state: "Mapping[str, int | Buffer] | Buffer | None",
    area: "Buffer | None",
    other: "Buffer | None",
    *,
    batches: int,
    visits: int,
    count: int,
    cold: bool,
    unmodified: bool,
    size: int,
    offsets: "tuple[int, int]",
) -> "list[int]":
    """`Host.time_instruction`, whose docstring says what everything means; `layout` is the standard one of XCR0."""
    if unmodified and instruction != "XSAVEOPT":
        raise ValueError(f"{instruction}, unmodified: only XSAVEOPT looks at what was modified")
    if min(batches, visits, count) < 1 or size < 0 or min(offsets) < 0:
        raise ValueError(f"{batches} batches of {visits} visits of {count} instructions, {size} bytes at {offsets}")
    prime = _first(layout, state)
    first = prime if area is None else memoryview(area)
    if other is None:
        from xsave.area import Area
        from xsave.codec import transcode
        from xsave.layout import COMPACTED, Layout

        compacted = Layout(layout.model, int(layout.mask) & mask, COMPACTED)
        other = bytes(transcode(Area(prime, layout), layout, compacted, lost="drop"))
    samples: "list[int]" = native().time_instruction(
        instruction,
        prime,
        first,
        other,
        mask,
        batches=batches,
        visits=visits,
        count=count,
        cold=cold,
        reload=unmodified,
        size=size,
        first_at=offsets[0],
        second_at=offsets[1],
    )
    return samples
