"""Random register states."""

from __future__ import annotations

from random import Random

from .components import COMPACTED, COMPONENTS, LBR, Value, Values, has
from .registers import (
    VECTOR_PIECES,
    VECTOR_SIZES,
    as_bytes,
    as_int,
    components_of,
    initial_values,
    non_initial,
    registers,
    vector_number,
)
from .values import restored_fcw, restored_fsw


def _random_value(rng: Random, name: str) -> Value:
    """A value that a restore accepts and keeps (FSW apart: it depends on FCW)."""
    address = rng.getrandbits(47)  # canonical everywhere
    if name == "mxcsr":
        return rng.getrandbits(16)  # bit 17 is legal on AMD only
    if name == "fcw":
        return restored_fcw(rng.getrandbits(16))
    if name in ("fip", "fdp"):
        return address
    if name == "tilecfg":
        if rng.random() < 0.25:
            return bytes(64)
        shapes = [rng.choice([(0, 0), (rng.randint(1, 64), rng.randint(1, 16))]) for _ in range(8)]
        colsb = b"".join(c.to_bytes(2, "little") for c, _ in shapes)
        rows = bytes(r for _, r in shapes)
        return bytes([1, rng.randint(0, 255)]) + bytes(14) + colsb + bytes(16) + rows + bytes(8)
    if name[:2] == "st":
        return rng.randbytes(10)
    if name[:3] == "tmm":
        return rng.randbytes(1024)
    if name in ("bsr0", "lwp"):
        return rng.randbytes(128)
    if name[:3] in VECTOR_SIZES:
        return rng.randbytes(VECTOR_SIZES[name[:3]])
    if name in ("bnd0", "bnd1", "bnd2", "bnd3"):
        return rng.randbytes(16)
    narrow = {"fsw": 16, "ftw": 8, "fop": 11, "pkru": 32, "uif": 1, "IA32_PM_CTL1": 1}
    if name in narrow:
        return rng.getrandbits(narrow[name])
    if name == "bndcfgu":
        return address & ~0xFFC
    if name == "IA32_PASID":
        return rng.getrandbits(20) | 1 << 31
    if name == "IA32_U_CET":
        return address & ~0xBFF | rng.getrandbits(6)
    if name in ("IA32_PL0_SSP", "IA32_PL1_SSP", "IA32_PL2_SSP", "IA32_PL3_SSP"):
        return address & ~3
    if name == "IA32_UINTR_MISC":
        return rng.getrandbits(40)
    if name == "IA32_UINTR_PD":
        return address & ~0x3F
    if name == "IA32_UINTR_TT":
        return address & ~0xE
    if name == "IA32_RTIT_CTL":
        return rng.getrandbits(14) & ~1  # TraceEn = 0
    if name == "IA32_RTIT_OUTPUT_MASK_PTRS":
        return rng.getrandbits(32) << 32 | 0x7F
    if name == "IA32_LBR_CTL":
        return rng.getrandbits(7) << 16 | rng.getrandbits(4)
    if name == "IA32_LBR_DEPTH":
        return 32
    if name == "IA32_HWP_REQUEST":
        return rng.getrandbits(32)
    if name[:4] == "IA32" and name != "IA32_UINTR_RR":
        return address & ~0x7F
    return rng.getrandbits(64)  # k0-7, r16-31, bndstatus, IA32_UINTR_RR


def random_state(
    rng: Random, mask: int, fmt: str = "any", sparse: float = 0.0, *, pending_pointers: bool = False
) -> Values:
    """Every register of the layout but MXCSR_MASK, with values that XRSTOR(S) accepts and keeps.

    fmt "any": what both formats hold. With probability `sparse` a whole component stays initial,
    and so does a register of one that does not. `pending_pointers`: FOP, FIP and FDP are 0 unless
    an exception is pending, as an AMD CPU would have them.
    """
    names = registers(mask, COMPACTED if fmt == "any" else fmt)
    names = [name for name in names if name != "mxcsr_mask"]
    initial = initial_values(names)
    asleep = {i for i in COMPONENTS if rng.random() < sparse}
    values: Values = {}
    for name in names:
        value = _random_value(rng, name)
        homes = components_of(name)
        if rng.random() < sparse or (homes and all(i in asleep for i in homes)):
            value = initial[name]
        elif vector_number(name) is not None:
            parts = bytearray(as_bytes(value, VECTOR_SIZES[name[:3]]))
            for i in homes:
                _, start, end, _ = VECTOR_PIECES[i]
                if i in asleep or not has(mask, i):
                    parts[start:end] = bytes(end - start)
            value = bytes(parts)
        values[name] = value
    if "fsw" in values:
        values["fsw"] = restored_fsw(as_int(values["fsw"]), as_int(values["fcw"]))
        if pending_pointers and not has(as_int(values["fsw"]), 7):
            values.update({"fop": 0, "fip": 0, "fdp": 0})
    if "IA32_LBR_DEPTH" in values and not has(non_initial(values), LBR):
        values["IA32_LBR_DEPTH"] = 0
    elif "IA32_LBR_DEPTH" in values:
        values["IA32_LBR_DEPTH"] = 32
    return values
