"""Writers of every CPUID form that `xsave.cpuid` reads."""

import json
import struct

Leaves = "dict[tuple[int, int], tuple[int, int, int, int]]"
NAMES = ("eax", "ebx", "ecx", "edx")


def raw(leaves: Leaves, cpus: int = 1) -> str:
    """What `cpuid -r` prints for `cpus` CPUs; the further ones have other values."""
    lines = []
    for cpu in range(cpus):
        lines.append("CPU:" if cpus == 1 else f"CPU {cpu}:")
        for (leaf, subleaf), registers in leaves.items():
            values = " ".join(f"{name}=0x{value ^ cpu:08x}" for name, value in zip(NAMES, registers, strict=True))
            lines.append(f"   0x{leaf:08x} 0x{subleaf:02x}: {values}")
    return "\n".join([*lines, ""])


def dump(leaves: Leaves, cpus: int = 1, labels: bool = True, report: bool = False) -> str:
    """An InstLatx64/AIDA64 dump, as its reports have it amid other text; `labels` gives `[SL xx]` marks.

    `report`: in the columns of a report, without a colon.
    """
    lines = ["------[ Versions ]------", "", "Program Version : AIDA64 v6.00", ""]
    several = {leaf for leaf, subleaf in leaves if subleaf}
    for cpu in range(cpus):
        lines += [f"------[ CPUID Registers / Logical CPU #{cpu} ]------", ""]
        for (leaf, subleaf), registers in leaves.items():
            mark = f" [SL {subleaf:02X}]" if labels and leaf in several else ""
            head = f"      CPUID {leaf:08X}{'':36}" if report else f"CPUID {leaf:08X}: "
            lines.append(f"{head}{'-'.join(f'{value ^ cpu:08X}' for value in registers)}{mark}")
        lines += ["", "------[ MSR Registers ]------", "MSR 0000001B: 0000-0000-FEE0-0900 [S200]", ""]
    return "\r\n".join(lines)


def kvm_json(leaves: Leaves, strings: bool = False) -> str:
    """A VMM's snapshot: kvm_cpuid2 entries inside a state that is a string of JSON itself."""
    entries = [
        {"function": leaf, "index": subleaf, "flags": int(bool(subleaf)), **dict(zip(NAMES, registers, strict=True))}
        for (leaf, subleaf), registers in leaves.items()
    ]
    if strings:
        entries = [{key: f"{value:#x}" for key, value in entry.items()} for entry in entries]
    state = json.dumps({"Kvm": {"msrs": [{"index": 1, "data": 2}], "cpuid": entries, "xsave": {"region": [0] * 4}}})
    node = {"snapshots": {}, "snapshot_data": {"state": state}}
    return json.dumps({"snapshots": {"cpu-manager": {"snapshots": {"0": node, "1": node}}}, "snapshot_data": None})


def rows_json(leaves: Leaves, strings: bool = True) -> str:
    """Rows [leaf, subleaf, eax, ebx, ecx, edx] inside a record."""
    rows = [[*key, *registers] for key, registers in leaves.items()]
    if strings:
        rows = [[f"{leaf:08x}", f"{subleaf:02x}", *(f"{value:08x}" for value in rest)] for leaf, subleaf, *rest in rows]
    return json.dumps({"name": "a CPU", "cpuid": rows})


def map_json(leaves: Leaves) -> str:
    """An object {"leaf.subleaf": [eax, ebx, ecx, edx]} of hex strings."""
    table = {f"{leaf:x}.{subleaf:x}": [f"{value:08x}" for value in row] for (leaf, subleaf), row in leaves.items()}
    return json.dumps(table, indent=1)


def kvm_cpuid2(leaves: Leaves) -> bytes:
    """The kernel's struct kvm_cpuid2."""
    entries = [
        struct.pack("<10I", leaf, subleaf, int(bool(subleaf)), *registers, 0, 0, 0)
        for (leaf, subleaf), registers in leaves.items()
    ]
    return struct.pack("<II", len(entries), 0) + b"".join(entries)


TEXTS = {
    "cpuid -r": raw,
    "cpuid -r of two CPUs": lambda leaves: raw(leaves, 2),
    "InstLatx64": dump,
    "AIDA64 report": lambda leaves: dump(leaves, 2, report=True),
    "InstLatx64 of two CPUs": lambda leaves: dump(leaves, 2),
    "kvm JSON": kvm_json,
    "kvm JSON of strings": lambda leaves: kvm_json(leaves, True),
    "JSON rows of strings": rows_json,
    "JSON rows of integers": lambda leaves: rows_json(leaves, False),
    "JSON map": map_json,
}
