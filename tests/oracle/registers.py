"""Registers, their names, and the bytes of a component that hold them (SDM1 13.5)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from .components import (
    APX,
    AVX,
    BIT63,
    BNDCSR,
    BNDREGS,
    CET_S,
    CET_U,
    COMPONENT_OF,
    COMPONENTS,
    FIELDS,
    HDC,
    HI16_ZMM,
    HWP,
    LBR,
    LWP,
    MXCSR_INIT,
    OPMASK,
    PASID,
    PKRU,
    PT,
    SCALEDATA,
    SSE,
    STANDARD,
    TILECFG,
    TILEDATA,
    UINTR,
    X87,
    ZMM_HI256,
    Value,
    Values,
    has,
)


def registers(mask: int, fmt: str) -> list[str]:
    """The registers that a layout of this mask and format holds, in the order of decode."""

    def of(component: int) -> list[str]:
        return [name for name, *_ in FIELDS[component]] if has(mask, component) else []

    names = of(X87)[:6]
    # MXCSR belongs to SSE; the standard format also keeps it for AVX (SDM1 13.5.2, 13.7).
    if has(mask, SSE) or (fmt == STANDARD and has(mask, AVX)):
        names += ["mxcsr", "mxcsr_mask"]
    names += of(X87)[6:]
    for component, prefix in ((ZMM_HI256, "zmm"), (AVX, "ymm"), (SSE, "xmm")):
        if has(mask, component):
            names += [f"{prefix}{n}" for n in range(16)]
            break
    if has(mask, HI16_ZMM):
        names += [f"zmm{n}" for n in range(16, 32)]
    names += of(OPMASK) + of(PKRU) + of(BNDREGS) + of(BNDCSR)
    names += of(TILECFG) + of(TILEDATA) + of(APX)
    names += of(PASID) + of(CET_U) + of(CET_S) + of(HDC)
    if has(mask, UINTR):
        names += ["uif", *of(UINTR)]
    names += of(PT) + of(LBR) + of(HWP) + of(SCALEDATA) + of(LWP)
    return names


VECTOR_SIZES = {"zmm": 64, "ymm": 32, "xmm": 16}


def vector_number(name: str) -> int | None:
    """17 for xmm17, ymm17 and zmm17; None if the name is not a vector register's."""
    if name[:3] in VECTOR_SIZES and name[3:] in [str(n) for n in range(32)]:
        return int(name[3:])
    return None


def vector(values: Mapping[str, Value], n: int) -> bytes:
    """Vector register n in all its 64 bytes, under whichever name it is there; missing parts are 0."""
    for prefix, size in VECTOR_SIZES.items():
        if f"{prefix}{n}" in values:
            return as_bytes(values[f"{prefix}{n}"], size).ljust(64, b"\0")
    return bytes(64)


# Which bytes of the 64 each vector component keeps, for which registers, and where its first one
# lies in the component (SSE: in the legacy region). SDM1 13.5.2, 13.5.3, 13.5.5.
VECTOR_PIECES: dict[int, tuple[range, int, int, int]] = {
    SSE: (range(16), 0, 16, 160),
    AVX: (range(16), 16, 32, 0),
    ZMM_HI256: (range(16), 32, 64, 0),
    HI16_ZMM: (range(16, 32), 0, 64, 0),
}


def components_of(name: str) -> list[int]:
    """The components that a register lies in; MXCSR lies in none (it follows its own rules)."""
    if name in ("mxcsr", "mxcsr_mask"):
        return []
    n = vector_number(name)
    if n is None:
        if name not in COMPONENT_OF:
            raise ValueError(f"no such register: {name}")
        return [COMPONENT_OF[name]]
    if n >= 16:
        return [HI16_ZMM]
    return {"xmm": [SSE], "ymm": [SSE, AVX], "zmm": [SSE, AVX, ZMM_HI256]}[name[:3]]


def as_bytes(value: Value, size: int) -> bytes:
    if not isinstance(value, bytes) or len(value) != size:
        raise ValueError(f"expected {size} bytes, have {value!r}")
    return value


def as_int(value: Value) -> int:
    if not isinstance(value, int):
        raise TypeError(f"expected an integer, have {value!r}")
    return value


def component_bytes(values: Mapping[str, Value], component: int) -> bytes:
    """The image of one component; registers that `values` lacks have their initial values."""
    image = bytearray(COMPONENTS[component].initial)
    if component in VECTOR_PIECES:
        numbers, start, end, position = VECTOR_PIECES[component]
        for n in numbers:
            image[position : position + end - start] = vector(values, n)[start:end]
            position += end - start
        return bytes(image)
    for name, offset, width, integer in FIELDS[component]:
        if name == "IA32_UINTR_MISC":
            misc, uif = as_int(values.get(name, 0)), as_int(values.get("uif", 0))
            if misc >> 63 or uif >> 1:
                raise ValueError("UIF is bit 63 of the field, a register of its own, and one bit")
            image[offset : offset + 8] = (misc | uif << 63).to_bytes(8, "little")
        elif name in values and integer:
            image[offset : offset + width] = as_int(values[name]).to_bytes(width, "little")
        elif name in values:
            image[offset : offset + width] = as_bytes(values[name], width)
    return bytes(image)


def component_values(image: bytes | bytearray, component: int) -> Values:
    """The inverse, for every component but those of the vector registers."""
    values: Values = {}
    for name, offset, width, integer in FIELDS[component]:
        raw = bytes(image[offset : offset + width])
        values[name] = int.from_bytes(raw, "little") if integer else raw
    if component == UINTR:
        misc = as_int(values["IA32_UINTR_MISC"])
        values["uif"] = misc >> 63
        values["IA32_UINTR_MISC"] = misc & ~BIT63
    return values


def non_initial(values: Mapping[str, Value]) -> int:
    """The components whose registers differ from the initial configuration (SDM1 13.6).

    MXCSR is no part of that of SSE, IA32_LBR_DEPTH none of that of LBR.
    """
    found = 0
    for i, row in COMPONENTS.items():
        image = bytearray(component_bytes(values, i))
        if i == LBR:
            image[8:16] = bytes(8)
        if image != row.initial:
            found |= 1 << i
    return found


def same_state(values_a: Mapping[str, Value], values_b: Mapping[str, Value]) -> bool:
    """The same architectural state? A register that one side lacks has its initial value there,
    and a vector register is the same under its wide and its narrow name. MXCSR_MASK is no state."""
    for name in (*values_a, *values_b):
        components_of(name)  # ValueError for a name that is none
    if values_a.get("mxcsr", MXCSR_INIT) != values_b.get("mxcsr", MXCSR_INIT):
        return False
    return all(component_bytes(values_a, i) == component_bytes(values_b, i) for i in COMPONENTS)


def initial_values(names: Iterable[str]) -> Values:
    """These registers in the initial configuration."""
    initial: Values = {"mxcsr": MXCSR_INIT}
    for i in FIELDS:
        initial.update(component_values(COMPONENTS[i].initial, i))
    for prefix, size in VECTOR_SIZES.items():
        initial.update({f"{prefix}{n}": bytes(size) for n in range(32)})
    return {name: initial[name] for name in names}
