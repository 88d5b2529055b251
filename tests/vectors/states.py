"""Register states of the vectors, in the names that `decode` gives to registers."""

from collections.abc import Mapping
from typing import Any

Registers = dict[str, int | bytes]

SINGLE = {  # a vector's name -> the register's
    **{name: name for name in ("fcw", "fsw", "ftw", "fop", "fip", "fdp", "mxcsr", "pkru", "uif", "tilecfg")},
    "u_cet": "IA32_U_CET",
    "pl0_ssp": "IA32_PL0_SSP",
    "pl1_ssp": "IA32_PL1_SSP",
    "pl2_ssp": "IA32_PL2_SSP",
    "pl3_ssp": "IA32_PL3_SSP",
    "ui_handler": "IA32_UINTR_HANDLER",
    "ui_stackadj": "IA32_UINTR_STACKADJUST",
    "ui_misc": "IA32_UINTR_MISC",
    "ui_pd": "IA32_UINTR_PD",
    "ui_rr": "IA32_UINTR_RR",
    "ui_tt": "IA32_UINTR_TT",
}
NUMBERED = {"st": "st", "zmm": "zmm", "k": "k", "tile": "tmm"}
BYTES = ("st", "zmm", "tile", "tilecfg")

# What a set does not know: its fields are there, and mean nothing.
UNKNOWN = {
    "bochs": frozenset[str](),
    "zen5": frozenset([*SINGLE]) - {"fcw", "fsw", "ftw", "fop", "fip", "fdp", "mxcsr"} | {"tile"},
    "intel": frozenset([*SINGLE]) - {"fcw", "fsw", "ftw", "fop", "fip", "fdp", "mxcsr", "tilecfg"},
}


def registers(fields: Mapping[str, Any], unknown: frozenset[str]) -> Registers:
    """A state of the vectors (lists), or a change of one (dicts by index), as register -> value."""
    found: Registers = {}
    for field, value in fields.items():
        if field in unknown or field == "mxcsr_mask":
            continue
        if field in SINGLE:
            found[SINGLE[field]] = _value(field, value)
            continue
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        found.update({f"{NUMBERED[field]}{i}": _value(field, each) for i, each in pairs})
    return found


def _value(field: str, value: int | str) -> int | bytes:
    if field in BYTES:
        return bytes.fromhex(str(value))
    return value if isinstance(value, int) else int(value, 16)
