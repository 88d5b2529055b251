"""Reads the truth files beside the images: other tools' registers as `{register: expected}` per thread.

Vector registers and `st` come as bytes in memory order, everything else as ints.
"""

import json
import lzma
from pathlib import Path

from tests.paths import DATA

IMAGES = DATA / "images"
TRUTH = IMAGES / "truth"
# Suffixes of truth files that hold registers of an ELF file's threads.
SUFFIXES = (
    "gdb13", "gdb16", "gdb18", "hw-xrstor", "hw-xrstor-relocated", "live-gdb13", "live-gdb16", "live",
)
_GDB_NUMBERS = {"fctrl": "fcw", "fstat": "fsw", "fop": "fop", "mxcsr": "mxcsr", "pkru": "pkru"}
_HW_NUMBERS = {name: name for name in ("fcw", "fsw", "fop", "mxcsr", "fip", "fdp")} | {"ftw_abridged": "ftw"}
_VECTORS = ("xmm", "ymm", "zmm", "tmm")


def stem(path: Path) -> str:
    return path.name.removesuffix(".xz")


def elf_files() -> list[Path]:
    return sorted(path for path in IMAGES.glob("*/*/*") if head(path) == b"\x7fELF")


def head(path: Path) -> bytes:
    if not path.is_file():
        return b""
    with lzma.open(path) if path.suffix == ".xz" else path.open("rb") as file:
        return file.read(4)


def load(name: str):
    for path in (TRUTH / f"{name}.json", TRUTH / f"{name}.json.xz"):
        if path.exists():
            with lzma.open(path) if path.suffix == ".xz" else path.open("rb") as file:
                return json.load(file)
    return None


def documents(path: Path) -> list[tuple[str, dict]]:
    """Every truth document about an ELF file as (suffix, document)."""
    found = []
    for suffix in SUFFIXES:
        document = load(f"{stem(path)}.{suffix}")
        if document is None and suffix.startswith("live"):
            document = load(f"{stem(path).removesuffix('.core').removesuffix('.gcore')}.{suffix}")
        if document is not None:
            found.append((suffix, document))
    return found


def threads(document: dict) -> list[tuple[int | None, int, dict]]:
    """(tid or None, number, registers) for each thread of a document."""
    found = []
    for number, thread in enumerate(document["threads"]):
        if "ptid" in thread:
            found.append((thread["ptid"][1] or thread["ptid"][0], number, gdb_registers(thread["regs"])))
        elif "situation" in thread:
            if not thread["situation"].startswith("in memory"):
                found.append((thread["tid"], number, live_registers(thread["regs"])))
        elif thread["hw"] is not None:
            found.append((thread.get("tid"), number, hw_registers(thread["hw"], thread.get("pkru"))))
    return found


def number_of(text) -> int | None:
    try:
        return int(str(text), 0)
    except ValueError:
        return None


def gdb_registers(regs: dict) -> dict:
    out: dict[str, int | bytes] = {}
    numbers = {name: number_of(value) for name, value in regs.items()}
    for name, value in regs.items():
        if isinstance(value, dict) and "raw" in value:
            out[name] = int(value["raw"], 16).to_bytes(10, "little")
        elif name.startswith(_VECTORS):
            if isinstance(value, str) and not value.startswith("<"):
                out[name] = bytes.fromhex(value)
        elif ((name[0] == "k" and name[1:].isdigit()) or name in _GDB_NUMBERS) and numbers[name] is not None:
            out[_GDB_NUMBERS.get(name, name)] = numbers[name]
    if numbers.get("ftag") is not None:
        out["ftw"] = sum((numbers["ftag"] >> 2 * i & 3 != 3) << i for i in range(8))
    wide = "rip" in regs
    for high, low, name in (("fiseg", "fioff", "fip"), ("foseg", "fooff", "fdp")):
        if wide and numbers.get(high) is not None and numbers.get(low) is not None:
            # gdb shows the 64-bit pointer as 16 bits of "segment" and 32 of offset.
            out[f"{name}48"] = numbers[high] << 32 | numbers[low]
    return out


def hw_registers(hw: dict, pkru: str | None) -> dict:
    out: dict[str, int | bytes] = {}
    for name, value in hw.items():
        if name in _HW_NUMBERS:
            out[_HW_NUMBERS[name]] = int(value, 16)
        elif name[0] == "k":
            out[name] = int(value, 16)
        else:
            out[name] = bytes.fromhex(value)
    if not out["fsw"] & 0x80:
        # The CPU that made these files gives x87 pointers back only with an exception pending.
        for name in ("fip", "fdp", "fop"):
            if not out[name]:
                del out[name]
    if pkru is not None:
        out["pkru"] = int.from_bytes(bytes.fromhex(pkru), "little")
    return out


def live_registers(regs: dict) -> dict:
    return {name: int(value, 16) if name[0] == "k" else bytes.fromhex(value) for name, value in regs.items()}


def gdb_gpr(regs: dict) -> dict[str, int]:
    """General registers of a gdb document's thread."""
    names = "ax bx cx dx si di bp sp ip".split()
    wanted = [*(letter + name for letter in "re" for name in names), *(f"r{i}" for i in range(8, 16)), "eflags"]
    out = {name: number_of(regs[name]) for name in wanted if name in regs}
    return {name: value for name, value in out.items() if value is not None}


def differences(values: dict, expected: dict) -> dict[str, str]:
    """Registers whose decoded value is not the expected one; what is missing counts as its initial value."""
    found = {}
    for name, want in expected.items():
        have = lookup(values, name, want)
        if have != want:
            found[name] = f"{show(have)}, expected {show(want)}"
    return found


def lookup(values: dict, name: str, want):
    if name.endswith("48"):
        value = values.get(name[:-2])
        return None if value is None else value & (1 << 48) - 1
    if name in values:
        return values[name]
    if name[:3] in ("xmm", "ymm"):
        for wider in ("xmm", "ymm", "zmm"):
            value = values.get(wider + name[3:])
            if value is not None and len(value) >= len(want):
                return value[: len(want)]
    if name[:3] in ("ymm", "zmm"):
        for narrower in ("ymm", "xmm"):
            if narrower + name[3:] in values:
                return values[narrower + name[3:]].ljust(len(want), b"\0")
    return bytes(len(want)) if isinstance(want, bytes) else None


def show(value) -> str:
    return value.hex() if isinstance(value, bytes) else "missing" if value is None else hex(value)
