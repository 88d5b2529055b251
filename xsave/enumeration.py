"""What a CPUID record enumerates: checked leaves, masks of components, one row per component.

The rules of one place for every source of a `CpuModel`: which record has XSAVE at all, which values no CPU can
have, and what stands in for a sub-leaf that is not there.
"""

from collections.abc import Mapping

from xsave.components import COMPONENTS, Component, ComponentMask
from xsave.errors import FormatError, UnsupportedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import NoReturn

    from xsave.components import ComponentInfo

    Registers = tuple[int, int, int, int]
    Leaves = dict[tuple[int, int], Registers]

__all__ = [
    "REGISTERS",
    "STATE",
    "ComponentRow",
    "ComponentRows",
    "brand_of",
    "check_extent",
    "check_overlaps",
    "checked_record",
    "enumerated_row",
    "instructions_of",
    "masks",
    "vendor_of",
    "walk",
]

REGISTERS = ("eax", "ebx", "ecx", "edx")
STATE = 0xD  # the leaf that enumerates state components
_EXTENDED = 576  # the legacy region and the header lie below
_SIZE_LIMIT = 1 << 16
_OFFSET_LIMIT = 1 << 20
_INSTRUCTIONS = ("xsaveopt", "xsavec", "xgetbv1", "xsaves", "xfd")  # bits of 0DH.1:EAX
_LEGACY = {Component.X87: 0, Component.SSE: 160}  # offsets in the legacy region
_NOTHING = (0, 0, 0, 0)


class ComponentRow:
    """What a CPU enumerates about one state component.

    `component`; `size` in bytes; `offset` in the standard format, from the start of the area (None for a
    supervisor component, and where the CPU's record does not say); `align64`, its slot in the compacted
    format is 64-byte aligned; `supervisor`, enabled in IA32_XSS and not in XCR0; `xfd`, IA32_XFD can disable it.
    """

    __slots__ = ("align64", "component", "offset", "size", "supervisor", "xfd")

    component: Component
    size: int
    offset: "int | None"
    align64: bool
    supervisor: bool
    xfd: bool

    def __init__(
        self, component: Component, size: int, offset: "int | None", align64: bool, supervisor: bool, xfd: bool
    ) -> None:
        put = object.__setattr__
        put(self, "component", component)
        put(self, "size", size)
        put(self, "offset", offset)
        put(self, "align64", align64)
        put(self, "supervisor", supervisor)
        put(self, "xfd", xfd)

    def _key(self) -> "tuple[Component, int, int | None, bool, bool, bool]":
        """The constructor's arguments."""
        return self.component, self.size, self.offset, self.align64, self.supervisor, self.xfd

    def __setattr__(self, name: str, value: object) -> "NoReturn":
        raise AttributeError(f"a row of a CpuModel is read-only: {name}")

    def __delattr__(self, name: str) -> "NoReturn":
        raise AttributeError(f"a row of a CpuModel is read-only: {name}")

    def __reduce__(self) -> "tuple[type, tuple[object, ...]]":
        return ComponentRow, self._key()

    def __eq__(self, other: object) -> bool:
        return self._key() == other._key() if isinstance(other, ComponentRow) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._key())

    def __repr__(self) -> str:
        place = "" if self.offset is None else f" at {self.offset}"
        kinds = (("supervisor", self.supervisor), ("align64", self.align64), ("xfd", self.xfd))
        flags = "".join(f", {name}" for name, on in kinds if on)
        return f"<{self.component.info.name}: {self.size} bytes{place}{flags}>"


if TYPE_CHECKING:
    _Rows = Mapping[Component, ComponentRow]
else:
    _Rows = Mapping


class ComponentRows(_Rows):
    """Rows by component, ascending; also indexed by number or by any name that the table of components knows."""

    __slots__ = ("_rows",)

    def __init__(self, rows: "Sequence[ComponentRow]") -> None:
        self._rows = {row.component: row for row in sorted(rows, key=lambda row: row.component)}

    def __getitem__(self, key: "Component | int | str") -> ComponentRow:
        if isinstance(key, str):
            name = key.lower()
            for row in self._rows.values():
                info = row.component.info
                if name in (info.name.lower(), row.component.name.lower()) or name in info.aliases:
                    return row
            raise KeyError(key)
        return self._rows[key]  # type: ignore[index]  # an int hashes and compares as its Component

    def __iter__(self) -> "Iterator[Component]":
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def __repr__(self) -> str:
        return f"{{{', '.join(map(repr, self._rows.values()))}}}"


def checked_record(leaves: "Mapping[tuple[int, int], Sequence[int]]") -> "Leaves":
    """`leaves` as a dict of four-tuples.

    Raises: `FormatError` for a value that is not four 32-bit registers, `UnsupportedError` for a record without
    XSAVE: 1:ECX[26] = 0, or nothing in leaf 0DH.
    """
    record: Leaves = {}
    for (leaf, subleaf), values in leaves.items():
        if len(values) != 4 or not all(0 <= value < 1 << 32 for value in (leaf, subleaf, *values)):
            place = f"CPUID leaf {leaf:#x} sub-leaf {subleaf:#x}"
            raise FormatError(f"{place}: found {values!r:.80}, expected four 32-bit registers")
        record[leaf, subleaf] = (values[0], values[1], values[2], values[3])
    if (1, 0) in record and not record[1, 0][2] >> 26 & 1:
        raise UnsupportedError("this CPU has no XSAVE: CPUID leaf 1 ECX bit 26 is 0")
    highest = record.get((0, 0), (STATE, 0, 0, 0))[0]
    if highest < STATE or not any(record.get((STATE, 0), _NOTHING)):
        found = f"the highest leaf is {highest:X}H" if highest < STATE else "leaf 0DH sub-leaf 0 is missing or zero"
        raise UnsupportedError(f"this CPUID record enumerates no XSAVE state: {found}")
    return record


def masks(record: "Leaves") -> "tuple[int, int]":
    """The settable bits of XCR0 and of IA32_XSS (the latter 0 without XSAVES).

    Raises: `FormatError` where a bit is in both, x87 is missing, or bit 63 is set.
    """
    state, more = record[STATE, 0], record.get((STATE, 1), _NOTHING)
    user = state[0] | state[3] << 32
    supervisor = more[2] | more[3] << 32 if more[0] >> 3 & 1 else 0
    if not user & 1:
        raise FormatError(f"CPUID leaf 0DH sub-leaf 0 EAX: found {state[0]:#x}, expected bit 0 (x87) set [SDM1 13.3]")
    if (user | supervisor) >> 63:
        place = f"CPUID leaf 0DH sub-leaf {0 if user >> 63 else 1} EDX"
        raise FormatError(f"{place}: found bit 31 set, expected 0: 63 is no component [SDM1 13.1]")
    if user & supervisor:
        both = ComponentMask(user & supervisor)
        raise FormatError(f"CPUID leaf 0DH sub-leaf 1 ECX, EDX: found {both}, expected no bit that sub-leaf 0 has too")
    return user, supervisor


def instructions_of(record: "Leaves") -> "set[str]":
    """Which of the XSAVE instructions and features a record enumerates."""
    bits = record.get((STATE, 1), _NOTHING)[0]
    return {"xsave"} | {name for bit, name in enumerate(_INSTRUCTIONS) if bits >> bit & 1}


def enumerated_row(component: Component, registers: "Registers | None", supervisor: bool) -> ComponentRow:
    """The row that sub-leaf `component` of leaf 0DH enumerates.

    A missing or all-zero sub-leaf, and x87 and SSE, which have none: size, alignment and XFD support of the
    architecture, no standard offset beyond the legacy region.

    Raises: `FormatError` for a size or offset that no CPU has.
    """
    info = COMPONENTS[component]
    if component in _LEGACY or registers is None or not any(registers):
        return ComponentRow(component, info.size, _LEGACY.get(component), info.align64, supervisor, info.xfd)
    size, offset, flags, _ = registers
    place = f"CPUID leaf 0DH sub-leaf {int(component)} ({info.name})"
    check_extent(place, ("EAX", "EBX"), info, size, None if supervisor else offset)
    return ComponentRow(component, size, None if supervisor else offset, bool(flags & 2), supervisor, bool(flags & 4))


def check_extent(place: str, names: "tuple[str, str]", info: "ComponentInfo", size: int, offset: "int | None") -> None:
    """Raises `FormatError` unless size and standard offset of a component are possible.

    A size below the architectural one would cut registers off; a larger one is padding (Zen 2's PKRU).
    """
    if not info.size <= size <= _SIZE_LIMIT:
        expected = f"{info.size:#x} to {_SIZE_LIMIT:#x}"
        raise FormatError(f"{place} {names[0]}: found a size of {size:#x}, expected {expected}")
    if offset is not None and not _EXTENDED <= offset <= _OFFSET_LIMIT:
        expected = f"{_EXTENDED:#x} to {_OFFSET_LIMIT:#x}"
        raise FormatError(f"{place} {names[1]}: found an offset of {offset:#x}, expected {expected}")


def check_overlaps(rows: "Sequence[ComponentRow]", user: int) -> None:
    """Raises `FormatError` where components of one CPU exclude each other or overlap in the standard format."""
    for each in ComponentMask(user):
        for rule in each.info.requirements:
            if rule.excludes & user:
                others = " ".join(ComponentMask(rule.excludes & user).names)
                raise FormatError(
                    f"CPUID leaf 0DH sub-leaf 0 EAX: found {each.info.name} and {others}, expected one of them: "
                    "they share bytes of the standard format"
                )
    placed = [
        (row.offset, row.size, row.component)
        for row in rows
        if row.offset is not None and row.component not in _LEGACY
    ]
    placed.sort(key=lambda place: place[0])
    for number in range(1, len(placed)):
        (start, size, component), (following, _, other) = placed[number - 1], placed[number]
        if start + size > following:
            raise FormatError(
                f"CPUID leaf 0DH sub-leaf {int(other)} ({other.info.name}) EBX: found an offset of "
                f"{following:#x}, inside {component.info.name} at {start:#x} to {start + size:#x}; expected no overlap"
            )


def vendor_of(record: "Mapping[tuple[int, int], Registers]") -> str:
    """CPUID's vendor string, such as `GenuineIntel`; "" without leaf 0."""
    _, b, c, d = record.get((0, 0), _NOTHING)
    return _text((b, d, c))


def brand_of(record: "Mapping[tuple[int, int], Registers]") -> str:
    """The brand string of leaves 8000_0002H to 8000_0004H; "" where the record lacks them."""
    return _text([register for leaf in range(0x80000002, 0x80000005) for register in record.get((leaf, 0), _NOTHING)])


def _text(registers: "Sequence[int]") -> str:
    data = b"".join(register.to_bytes(4, "little") for register in registers).partition(b"\0")[0]
    return " ".join("".join(chr(byte) if 32 <= byte < 127 else "?" for byte in data).split())


# Leaves that are asked for, and what bounds their sub-leaves: a fixed last one, or EAX of sub-leaf 0 below a cap.
_LEAVES = {1: 0, 6: 0, 7: -8, 0x12: 2, 0x14: -4, 0x19: 0, 0x1C: 0, 0x1D: -4, 0x1E: -4, 0x24: -4, 0x29: -4}
_EXTENDED_LEAVES = (*range(0x80000001, 0x80000005), 0x80000008, 0x8000001F)


def walk(cpuid: "Callable[[int, int], Registers]") -> "Leaves":
    """The record that a CPUID function gives: leaves that concern extended state, within the highest announced.

    Each question is a VM exit in a guest, so sub-leaves of bits that are not enumerated are not asked for.
    """
    record: Leaves = {(0, 0): cpuid(0, 0)}
    for leaf, last in _LEAVES.items():
        if leaf > record[0, 0][0]:
            break
        record[leaf, 0] = cpuid(leaf, 0)
        for subleaf in range(1, (last if last >= 0 else min(record[leaf, 0][0], -last)) + 1):
            record[leaf, subleaf] = cpuid(leaf, subleaf)
    if record[0, 0][0] >= STATE:
        state, more = cpuid(STATE, 0), cpuid(STATE, 1)
        record[STATE, 0], record[STATE, 1] = state, more
        enumerated = state[0] | state[3] << 32 | more[2] | more[3] << 32
        for bit in range(2, 63):
            if enumerated >> bit & 1:
                record[STATE, bit] = cpuid(STATE, bit)
    record[0x80000000, 0] = cpuid(0x80000000, 0)
    for leaf in _EXTENDED_LEAVES:
        if leaf <= record[0x80000000, 0][0]:
            record[leaf, 0] = cpuid(leaf, 0)
    return record
