"""Area <-> register state, without instructions."""

from __future__ import annotations

from collections.abc import Mapping

from .components import (
    AREA_MIN,
    AVX,
    BIT63,
    COMPACTED,
    COMPONENTS,
    MXCSR_INIT,
    SSE,
    STANDARD,
    X87,
    XCOMP_BV,
    XSTATE_BV,
    Value,
    Values,
    has,
    u64,
)
from .cpus import CpuTable, cpu_table
from .layouts import layout
from .registers import (
    VECTOR_PIECES,
    VECTOR_SIZES,
    as_int,
    component_bytes,
    component_values,
    components_of,
    registers,
    vector,
    vector_number,
)


def decode(area: bytes | bytearray, cpu: str | CpuTable, mask: int, fmt: str) -> Values:
    """Every register of the layout. XCOMP_BV is not looked at: `mask` and `fmt` rule.

    A component whose XSTATE_BV bit is clear has its initial values, whatever lies in its slot.
    """
    slots, size = layout(cpu, mask, fmt)
    if len(area) < size:
        raise ValueError(f"expected at least {size} bytes, have {len(area)}")
    xstate_bv = u64(area, XSTATE_BV)
    images: dict[int, bytes] = {}
    for i, (offset, length) in slots.items():
        images[i] = COMPONENTS[i].initial
        if has(xstate_bv, i):
            images[i] = bytes(area[offset : offset + length])

    found: Values = {}
    for i, image in images.items():
        if i not in VECTOR_PIECES:
            found.update(component_values(image, i))

    # Vector registers are put together from the pieces that the layout holds; the others are 0.
    wide = {n: bytearray(64) for n in range(32)}
    for i, (numbers, start, end, position) in VECTOR_PIECES.items():
        if i in images:
            for n in numbers:
                wide[n][start:end] = images[i][position : position + end - start]
                position += end - start
    for n in range(32):
        for prefix, width in VECTOR_SIZES.items():
            found[f"{prefix}{n}"] = bytes(wide[n][:width])

    # The standard format takes MXCSR from memory whatever XSTATE_BV says (SDM1 13.8.1); the
    # compacted one treats it as a part of SSE (13.8.2).
    if fmt == STANDARD or has(xstate_bv, SSE):
        found["mxcsr"] = int.from_bytes(area[24:28], "little")
        found["mxcsr_mask"] = int.from_bytes(area[28:32], "little")
    else:
        found["mxcsr"] = MXCSR_INIT
        found["mxcsr_mask"] = cpu_table(cpu)["mxcsr_mask"]
    return {name: found[name] for name in registers(mask, fmt)}


def named_components(values: Mapping[str, Value], mask: int, fmt: str) -> int:
    """The components of the layout that have a register in `values`. ValueError for a register
    that the layout lacks, that is named twice (xmm0 and zmm0), or of which the layout would drop
    bytes other than 0. MXCSR counts for SSE in the compacted format unless it is 1F80H."""
    found = 0
    seen: set[int] = set()
    for name, value in values.items():
        homes = components_of(name)
        if name in ("mxcsr", "mxcsr_mask"):
            if name not in registers(mask, fmt):
                raise ValueError(f"the layout holds no {name}")
            if name == "mxcsr" and fmt == COMPACTED and value != MXCSR_INIT:
                found |= 1 << SSE
        elif not any(has(mask, i) for i in homes):
            raise ValueError(f"the layout holds no {name}")
        n = vector_number(name)
        if n is not None:
            if n in seen:
                raise ValueError(f"vector register {n} is given twice")
            seen.add(n)
            for i in homes:
                _, start, end, _ = VECTOR_PIECES[i]
                if not has(mask, i) and any(vector({name: value}, n)[start:end]):
                    raise ValueError(f"the layout holds no {COMPONENTS[i].name} part of {name}")
        for i in homes:
            found |= 1 << i & mask
    return found


LEGACY_EXTENTS = {X87: [(0, 24), (32, 128)], SSE: [(160, 256)]}  # without MXCSR and MXCSR_MASK


def encode(
    values: Mapping[str, Value],
    cpu: str | CpuTable,
    mask: int,
    fmt: str,
    xstate_bv: int | None = None,
    base: bytes | None = None,
) -> bytes:
    """An area of exactly the layout's size.

    XSTATE_BV has the components named in `values`, or is `xstate_bv`; values of other components
    then do not count. The slot of a component in use is written whole. Others hold initial values
    in the standard format, as plain XSAVE would write, and zeros in the compacted format; or, with
    `base` (an area's worth of old bytes), they and all gaps stay as in `base`: stale bytes.
    """
    slots, size = layout(cpu, mask, fmt)
    named = named_components(values, mask, fmt)
    in_use = named if xstate_bv is None else xstate_bv
    if in_use & ~mask:
        raise ValueError(f"XSTATE_BV {in_use:#x} is not a subset of {mask:#x}")
    if base is not None and len(base) != size:
        raise ValueError(f"expected a base of {size} bytes, have {len(base)}")
    area = bytearray(size) if base is None else bytearray(base)

    for i, (start, length) in slots.items():
        if has(in_use, i):
            image = component_bytes(values, i)
        elif fmt == STANDARD and base is None:
            image = COMPONENTS[i].initial
        else:
            continue
        image = image.ljust(length, b"\0")  # PKRU has 64 bytes on some CPUs
        for offset, count in LEGACY_EXTENTS.get(i, [(0, length)]):
            area[start + offset : start + offset + count] = image[offset : offset + count]

    if fmt == STANDARD:
        mxcsr_too = has(mask, SSE) or has(mask, AVX)
    else:
        mxcsr_too = has(in_use, SSE)
    if mxcsr_too:
        default = cpu_table(cpu)["mxcsr_mask"]
        area[24:28] = as_int(values.get("mxcsr", MXCSR_INIT)).to_bytes(4, "little")
        area[28:32] = as_int(values.get("mxcsr_mask", default)).to_bytes(4, "little")

    area[XSTATE_BV:AREA_MIN] = bytes(64)
    area[XSTATE_BV : XSTATE_BV + 8] = in_use.to_bytes(8, "little")
    if fmt == COMPACTED:
        area[XCOMP_BV : XCOMP_BV + 8] = (mask | BIT63).to_bytes(8, "little")
    return bytes(area)
