"""Regenerates xsave/data/models.py, the table of named CPUs, from the data folder's CPUID records.

    python tests/tools/make_models.py > xsave/data/models.py

A name stands for one record; where no record has a CPU, or a record lacks sub-leaves, changes are written down
here and become part of the provenance.
"""

import json
import lzma
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from tests.paths import DATA

RECORDS = DATA / "cpuid" / "cpuid-dumps.jsonl.xz"
HEADER = '''\
"""Named CPUs: what each enumerates, and where the values are from. Written by tests/tools/make_models.py.

`MODELS`: name (QEMU's where it has one) -> (brand, provenance, rows of (leaf, subleaf, eax, ebx, ecx, edx)).
`ALIASES`: other names, lower case -> name.
"""

# ruff: noqa: E501
'''

Row = tuple[int, int, int, int, int, int]
STATE = 0xD
AVX = (STATE, 2, 0x100, 0x240, 0, 0)

# name: (record, aliases)
INTEL, AMD, CENTAUR = "GenuineIntel", "AuthenticAMD", "CentaurHauls"
FROM_RECORDS: "dict[str, tuple[str, str]]" = {
    "SandyBridge": (INTEL + "00206D7_SandyBridgeE_00_CPUID", "sandybridge-ep"),
    "Haswell": (INTEL + "00306C3_Haswell_CPUID", "haswell-client"),
    "Haswell-Server": (INTEL + "00306F2_HaswellEP_00_CPUID", "haswell-ep"),
    "Broadwell": (INTEL + "00306D4_Broadwell_CPUID", ""),
    "Broadwell-Server": (INTEL + "00406F1_BroadwellE_01_CPUID", "broadwell-ep"),
    "Skylake-Client": (INTEL + "00506E3_SkyLake_01_CPUID", "skylake"),
    "KabyLake": (INTEL + "00906E9_KabyLake_01_CPUID", ""),
    "CometLake": (INTEL + "00A0655_CometLake_CPUID2", ""),
    "Skylake-Server": (INTEL + "0050654_SkylakeXeon_20_CPUID", "skylake-sp"),
    "Cascadelake-Server": (INTEL + "0050657_CascadeLakeSP_CPUID1", "cascadelake cascadelake-sp"),
    "KnightsLanding": (INTEL + "0050671_KnightsLanding_CPUID", ""),
    "Goldmont": (INTEL + "00506CA_Goldmont_01_CPUID", ""),
    "GoldmontPlus": (INTEL + "00706A8_GoldmontPlus_CPUID", "goldmont-plus"),
    "JasperLake": (INTEL + "00906C0_JasperLake_01_CPUID", "tremont"),
    "Icelake-Client": (INTEL + "00706E5_IceLakeY_CPUID", ""),
    "Icelake-Server": (INTEL + "00606A6_ICX_CPUID3", "icelake icelake-sp"),
    "TigerLake": (INTEL + "00806C1_TigerLake_CPUID9", ""),
    "RocketLake": (INTEL + "00A0671_RocketLake_01_CPUID", ""),
    "AlderLake": (INTEL + "0090672_AlderLake_03_CPUID", ""),
    "RaptorLake": (INTEL + "00B0671_RaptorLake_01_CPUID", ""),
    "MeteorLake": (INTEL + "00A06A4_MeteorLake_10_CPUID", ""),
    "LunarLake": (INTEL + "00B06D1_LunarLake_04_CPUID", ""),
    "ArrowLake": (INTEL + "00C0662_ArrowLake_08_CPUID", ""),
    "EmeraldRapids": (INTEL + "00C06F2_EmeraldRapids_01_CPUID", ""),
    "GraniteRapids": (INTEL + "00A06D1_GraniteRapids_03_CPUID", ""),
    "Bulldozer": (AMD + "0600F12_K15_Interlagos_CPUID2", "opteron-g4 opteron_g4"),
    "Piledriver": (AMD + "0600F20_K15_AbuDhabi_CPUID2", "opteron-g5 opteron_g5"),
    "Excavator": (AMD + "0660F01_K15_Carrizo_CPUID2", "carrizo"),
    "Jaguar": (AMD + "0700F01_K16_Kabini2_CPUID", "kabini"),
    "EPYC": (AMD + "0800F12_K17_Zen_CPUID", "epyc-naples zen zen1"),
    "EPYC-Rome": (AMD + "0830F10_K17_Rome_CPUID", "zen2"),
    "EPYC-Milan": (AMD + "0A00F11_K19_Milan_CPUID1", "zen3"),
    "EPYC-Genoa": (AMD + "0A10F11_K19_Genoa_01_CPUID", "zen4"),
    "EPYC-Bergamo": (AMD + "0AA0F02_K19_Bergamo_04_CPUID", ""),
    "EPYC-Turin": (AMD + "0B00F21_K20_Turin_01_CPUID", "zen5"),
    "GraniteRidge": (AMD + "0B40F40_K20_GraniteRidge_02_CPUID", ""),
    "Dhyana": ("HygonGenuine0900F02_Hygon_CPUID3", "hygon"),
    "CNS": (CENTAUR + "0040672_CNS_04_CPUID", ""),
    "YongFeng": (CENTAUR + "00607B1_KX7000_05_CPUID", "kx-7000 kx7000"),
}


def records() -> "dict[str, tuple[str, list[Row]]]":
    """The data folder's records: name -> (brand, rows)."""
    found = {}
    with lzma.open(RECORDS, "rt", encoding="utf-8") as lines:
        for line in lines:
            record = json.loads(line)
            rows = [tuple(int(value, 16) for value in row) for row in record["cpuid"]]
            found[record["name"]] = (" ".join(record["brand"].split()), rows)
    return found


def changed(rows: "list[Row]", *changes: Row) -> "list[Row]":
    table = {row[:2]: row for row in rows}
    table.update({row[:2]: row for row in changes})
    return sorted(table.values())


def derived(known: "dict[str, tuple[str, list[Row]]]") -> "dict[str, tuple[str, str, list[Row], str]]":
    """CPUs without a record that is complete: name -> (brand, provenance, rows, aliases)."""

    def record(name: str) -> "dict[tuple[int, int], Row]":
        return {row[:2]: row for row in known[FROM_RECORDS[name][0]][1]}

    ivy = INTEL + "00306E4_IvyBridgeE_CPUID"
    emr, gnr = record("EmeraldRapids"), record("GraniteRapids")
    sapphire = changed(list(emr.values()), (1, 0, 0x000806F8, *emr[1, 0][3:]))
    features, state, more = gnr[7, 1], gnr[STATE, 0], gnr[STATE, 1]
    diamond = changed(
        list(gnr.values()),
        (0, 0, max(gnr[0, 0][2], 0x29), *gnr[0, 0][3:]),
        (1, 0, 0x00400F10, *gnr[1, 0][3:]),
        (7, 1, *features[2:5], features[5] | 1 << 21),
        (STATE, 0, state[2] | 1 << 19, *state[3:]),
        (STATE, 1, more[2], more[3] + 128, *more[4:]),
        (STATE, 19, 128, 960, 0, 0),
        (0x29, 0, 0, 1, 0, 0),
    )
    penryn = [
        (0, 0, 0xD, 0x756E6547, 0x6C65746E, 0x49656E69),
        (1, 0, 0x0001067A, 0x00020800, 0x0C08E3FD, 0xBFEBFBFF),
        (7, 0, 0, 0, 0, 0),
        (STATE, 0, 3, 0x240, 0x240, 0),
        (0x80000000, 0, 0x80000008, 0, 0, 0),
        (0x80000001, 0, 0, 0, 1, 0x20100000),
        (0x80000008, 0, 0x3024, 0, 0, 0),
    ]
    return {
        "Penryn": ("", "derived: x87 and SSE alone, no sub-leaves", penryn, ""),
        "IvyBridge": (
            known[ivy][0],
            f"InstLatx64 {ivy}; derived: 0DH.1 and 0DH.2, which the dump lacks, are SandyBridge's",
            changed(known[ivy][1], record("SandyBridge")[STATE, 1], AVX),
            "ivybridge-ep",
        ),
        "SapphireRapids": (
            "",
            f"derived: InstLatx64 {FROM_RECORDS['EmeraldRapids'][0]} with signature 000806F8; "
            "both enumerate XCR0 602E7 and XSS DD00",
            sapphire,
            "",
        ),
        "DiamondRapids": (
            "",
            f"derived: InstLatx64 {FROM_RECORDS['GraniteRapids'][0]} with APX: XCR0 E02E7, 128 bytes at 960, "
            "7.1:EDX[21], leaf 29H",
            diamond,
            "",
        ),
    }


# Where the table has them: behind which other name.
ORDER_AFTER = {
    "Penryn": None,
    "IvyBridge": "SandyBridge",
    "SapphireRapids": "ArrowLake",
    "DiamondRapids": "GraniteRapids",
}


def table() -> "dict[str, tuple[str, str, list[Row], str]]":
    known = records()
    made = derived(known)
    found: dict[str, tuple[str, str, list[Row], str]] = {}
    following: dict[str | None, list[str]] = {}
    for name, before in ORDER_AFTER.items():
        following.setdefault(before, []).append(name)
    for name in (None, *FROM_RECORDS):
        if name is not None:
            source, aliases = FROM_RECORDS[name]
            brand, rows = known[source]
            found[name] = (brand, f"InstLatx64 {source}", sorted(rows), aliases)
        for other in following.get(name, []):
            found[other] = made[other]
    return found


def text() -> str:
    """The module's text."""
    lines = [HEADER, "MODELS: dict[str, tuple[str, str, tuple[tuple[int, int, int, int, int, int], ...]]] = {"]
    aliases = []
    for name, (brand, provenance, rows, others) in table().items():
        quoted = [json.dumps(value, ensure_ascii=False) for value in (name, brand, provenance)]
        lines += [f"    {quoted[0]}: (", f"        {quoted[1]},", f"        {quoted[2]},", "        ("]
        for leaf, subleaf, *registers in rows:
            values = ", ".join(f"{value:#010x}" for value in registers)
            lines.append(f"            ({leaf:#x}, {subleaf}, {values}),")
        lines += ["        ),", "    ),"]
        aliases += [(alias, name) for alias in others.split()]
    lines += ["}", "", "ALIASES: dict[str, str] = {"]
    lines += [f'    "{alias}": "{name}",' for alias, name in aliases]
    return "\n".join([*lines, "}", ""])


if __name__ == "__main__":
    sys.stdout.write(text())
