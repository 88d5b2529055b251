"""Areas with known contents for the tests of the command line, made by the package's own writer."""

from random import Random

from xsave import STANDARD, Area, CpuModel, Layout, encode

PI = bytes.fromhex("35c26821a2da0fc90040")
MINUS_TWO = bytes.fromhex("000000000000008000c0")


def values(mask: int = 0xE7, seed: int = 1) -> "dict[str, int | bytes]":
    """A value for every register of the components of `mask` that a user sees."""
    rng = Random(seed)
    made: "dict[str, int | bytes]" = {"mxcsr": 0x1FA0, "fcw": 0x37F, "fsw": 0, "ftw": 0xFF, "st0": PI, "st1": MINUS_TWO}
    for index in range(2, 8):
        made[f"st{index}"] = rng.randbytes(7) + b"\x80\x00\x40"
    name, width = ("zmm", 64) if mask >> 6 & 1 else ("ymm", 32) if mask >> 2 & 1 else ("xmm", 16)
    for index in range(16):
        made[f"{name}{index}"] = rng.randbytes(64)[:width]
    if mask >> 7 & 1:
        made |= {f"zmm{index}": rng.randbytes(64) for index in range(16, 32)}
    if mask >> 5 & 1:
        made |= {f"k{index}": rng.getrandbits(64) for index in range(8)}
    if mask >> 9 & 1:
        made["pkru"] = 0x55555554
    if mask >> 17 & 1:
        config = bytearray(64)
        config[0] = 1
        for index in range(8):
            config[16 + 2 * index] = 64
            config[48 + index] = 16
        made["tilecfg"] = bytes(config)
    if mask >> 18 & 1:
        made |= {f"tmm{index}": rng.randbytes(1024) for index in range(8)}
    return made


def area(cpu: str, mask: int = 0xE7, form: int = STANDARD, seed: int = 1, software: bool = True) -> Area:
    """An area with everything of `mask` in use; `software` puts Linux's mask at byte 464 of a standard one."""
    layout = Layout(CpuModel.named(cpu), mask, form)
    data = bytearray(encode(values(mask, seed), layout))
    if software and not form:
        data[464:472] = mask.to_bytes(8, "little")
    return Area(data, layout)
