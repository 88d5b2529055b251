"""Offsets and sizes in both formats, and the rules of the header (SDM1 13.4, 13.8)."""

from __future__ import annotations

from .components import (
    AREA_MIN,
    BIT63,
    COMPACTED,
    LEGACY_SIZE,
    SSE,
    STANDARD,
    X87,
    XCOMP_BV,
    XSTATE_BV,
    Slots,
    bits,
    has,
    u64,
)
from .cpus import CpuTable, cpu_table


def _row(cpu: str | CpuTable, component: int) -> tuple[int, int | None, bool]:
    rows = cpu_table(cpu)["components"]
    if component not in rows:
        raise ValueError(f"this CPU has no component {component}")
    return rows[component]


def standard_offsets(cpu: str | CpuTable, mask: int) -> Slots:
    """Offset and size of every component of `mask` from 2 up, standard format (SDM1 13.4.3)."""
    slots: Slots = {}
    for i in bits(mask):
        if i >= 2:
            size, offset, _ = _row(cpu, i)
            if offset is None:
                raise ValueError(f"supervisor component {i} has no place in the standard format")
            slots[i] = (offset, size)
    return slots


def standard_size(cpu: str | CpuTable, mask: int) -> int:
    """The furthest end, not the end of the highest-numbered component: 19 and 62 lie low."""
    slots = standard_offsets(cpu, mask)
    return max([AREA_MIN] + [offset + size for offset, size in slots.values()])


def compacted_offsets(cpu: str | CpuTable, mask: int) -> tuple[Slots, int]:
    """The same for the compacted format with XCOMP_BV[62:0] = mask, and the total size."""
    slots: Slots = {}
    position = AREA_MIN
    for i in bits(mask):
        if i >= 2:
            size, _, align64 = _row(cpu, i)
            if align64:
                while position % 64 != 0:
                    position += 1
            slots[i] = (position, size)
            position += size
    return slots, position


def layout(cpu: str | CpuTable, mask: int, fmt: str) -> tuple[Slots, int]:
    """Slots and total size. x87 and SSE get the whole legacy region as their slot."""
    if fmt == STANDARD:
        slots, size = standard_offsets(cpu, mask), standard_size(cpu, mask)
    elif fmt == COMPACTED:
        slots, size = compacted_offsets(cpu, mask)
    else:
        raise ValueError(f"no such format: {fmt!r}")
    slots.update({i: (0, LEGACY_SIZE) for i in (X87, SSE) if has(mask, i)})
    return slots, size


# --- 4. The header (SDM1 13.4.2, 13.8) ----------------------------------------------------------


def _first_nonzero(area: bytes | bytearray, start: int, end: int) -> int | None:
    for offset in range(start, end):
        if area[offset] != 0:
            return offset
    return None


def header_faults(area: bytes | bytearray, cpu: str | CpuTable, fmt: str, allowed: int) -> list[tuple[str, int]]:
    """Every rule that the header breaks, as (rule, byte offset), in the order of checking.

    `allowed` is XCR0 for XRSTOR, XCR0 | IA32_XSS for XRSTORS. RFBM plays no part: the rules hold
    even for EDX:EAX = 0 (measured). A CPU without compaction takes every header as a standard one.
    """
    if len(area) < AREA_MIN:
        raise ValueError(f"an area has at least {AREA_MIN} bytes, this one {len(area)}")
    xstate_bv, xcomp_bv = u64(area, XSTATE_BV), u64(area, XCOMP_BV)
    faults: list[tuple[str, int]] = []
    if fmt == STANDARD or not has(cpu_table(cpu)["d1eax"], 1):  # 13.8.1
        if xstate_bv & ~allowed:
            faults.append(("std-xstate-bv", XSTATE_BV))
        if xcomp_bv != 0:
            faults.append(("std-xcomp-bv", XCOMP_BV))
        # Header bytes 16-23. Bytes 24-63 are not checked in this format (measured).
        reserved = _first_nonzero(area, 528, 536)
        if reserved is not None:
            faults.append(("std-reserved", reserved))
        return faults
    if not xcomp_bv & BIT63:  # 13.8.2, 13.12
        faults.append(("cmp-format-bit", XCOMP_BV))
    if xcomp_bv & ~BIT63 & ~allowed:
        faults.append(("cmp-xcomp-bv", XCOMP_BV))
    # Bit 63 of XSTATE_BV faults though bit 63 of XCOMP_BV is set (measured on both makes).
    if xstate_bv & ~(xcomp_bv & ~BIT63):
        faults.append(("cmp-xstate-bv", XSTATE_BV))
    reserved = _first_nonzero(area, 528, 576)
    if reserved is not None:
        faults.append(("cmp-reserved", reserved))
    return faults
