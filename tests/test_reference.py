"""The slow model against the numbers that the manuals and silicon give, before it judges others."""

from __future__ import annotations

import json
from collections.abc import Iterator
from random import Random

import pytest
from reference import (
    ALL,
    AREA_MIN,
    BIT63,
    COMPACTED,
    COMPONENTS,
    CPUS,
    FIELDS,
    LEGACY_SIZE,
    MXCSR_INIT,
    STANDARD,
    Cpu,
    Values,
    as_bytes,
    as_int,
    bits,
    compacted_offsets,
    components_of,
    cpu_from_cpuid,
    decode,
    encode,
    header_faults,
    initial_values,
    layout,
    non_initial,
    random_state,
    registers,
    restored_fcw,
    restored_fsw,
    same_state,
    sign_extended,
    standard_offsets,
    standard_size,
    tilecfg_is_legal,
    u64,
)

from tests import skips
from tests.paths import DATA

# --- sizes and offsets --------------------------------------------------------------------------

# CPU: standard size of XCR0, compacted size of XCR0, compacted size of XCR0 | IA32_XSS.
SIZES = {
    "Penryn": (576, None, None),
    "SandyBridge": (832, None, None),
    "KnightsLanding": (2688, None, None),
    "Goldmont": (1088, 704, 832),
    "Skylake-Client": (1088, 960, 1088),
    "Skylake-Server": (2696, 2568, 2696),
    "Icelake-Server": (2696, 2440, 2568),
    "Icelake-Client": (2696, 2440, 2576),
    "TigerLake": (2696, 2440, 2616),
    "AlderLake": (2696, 840, 1824),
    "LunarLake": (2696, 840, 1872),
    "SapphireRapids": (11008, 10752, 11776),
    "GraniteRapids": (11008, 10752, 11776),
    "DiamondRapids": (11008, 10880, 11904),
    "Intel-AMX-guest": (11008, 10688, 10688),
    "KX-7000": (2696, 840, 848),
    "Bulldozer": (960, None, None),
    "EPYC-Naples": (832, 832, 832),
    "EPYC-Rome": (896, 896, 896),
    "EPYC-Milan": (2440, 840, 880),
    "EPYC-Genoa": (2440, 2440, 2480),
    "EPYC-Turin": (2440, 2440, 2480),
    "Zen5-guest": (2432, 2432, 2472),
}


def test_every_cpu_has_its_sizes() -> None:
    assert SIZES.keys() == CPUS.keys()


@pytest.mark.parametrize("cpu", CPUS)
def test_size_table(cpu: str) -> None:
    xcr0, xss = CPUS[cpu]["xcr0"], CPUS[cpu]["xss"]
    standard, xsavec, xsaves = SIZES[cpu]
    assert standard_size(cpu, xcr0) == standard
    if xsavec is not None:
        assert compacted_offsets(cpu, xcr0)[1] == xsavec
    if xsaves is not None:
        assert compacted_offsets(cpu, xcr0 | xss)[1] == xsaves


WORKED = [
    (
        "SapphireRapids",
        0x602E7,
        {2: 576, 5: 832, 6: 896, 7: 1408, 9: 2432, 17: 2496, 18: 2560},
        10752,
    ),
    (
        "SapphireRapids",
        0x602E7 | 0xDD00,
        {8: 2432, 9: 2560, 10: 2568, 11: 2576, 12: 2592, 14: 2616, 15: 2664, 17: 3520, 18: 3584},
        11776,
    ),
    ("DiamondRapids", 0xE02E7, {18: 2560, 19: 10752}, 10880),
    ("EPYC-Genoa", 0x2E7 | 0x1800, {9: 2432, 11: 2440, 12: 2456}, 2480),
    ("Zen5-guest", 0x84, {7: 832}, 1856),
    ("Zen5-guest", 0xA0, {5: 576, 7: 640}, 1664),
    ("Zen5-guest", 0xE4, {7: 1408}, 2432),
    ("Zen5-guest", 0x24, {5: 832}, 896),
    ("SapphireRapids", 0x60000, {17: 576, 18: 640}, 8832),
    ("SapphireRapids", 0x40000, {18: 576}, 8768),
    ("SapphireRapids", 0x40080, {7: 576, 18: 1600}, 9792),
    ("Intel-AMX-guest", 0x600E7, {17: 2432, 18: 2496}, 10688),
    ("SapphireRapids", 0x602E7 | 0x900, {}, 10880),
    ("EPYC-Genoa", 0xE7 | 0x800, {}, 2448),
    ("EPYC-Genoa", 0xE7 | 0x1800, {}, 2472),
    ("AlderLake", 0x7 | 0x900, {}, 976),
    ("AlderLake", 0, {}, 576),
    ("AlderLake", 3, {}, 576),
]


@pytest.mark.parametrize(("cpu", "mask", "offsets", "size"), WORKED)
def test_worked_compacted_offsets(cpu: str, mask: int, offsets: dict[int, int], size: int) -> None:
    slots, total = compacted_offsets(cpu, mask)
    assert total == size
    for component, offset in offsets.items():
        assert slots[component] == (offset, COMPONENTS[component].size)
    assert compacted_offsets(cpu, mask | BIT63) == (slots, total)


def test_standard_offsets_differ_by_vendor() -> None:
    assert standard_offsets("Icelake-Server", 0x2E7) == {
        2: (576, 256),
        5: (1088, 64),
        6: (1152, 512),
        7: (1664, 1024),
        9: (2688, 8),
    }
    assert standard_offsets("EPYC-Turin", 0x2E7) == {
        2: (576, 256),
        5: (832, 64),
        6: (896, 512),
        7: (1408, 1024),
        9: (2432, 8),
    }
    assert standard_offsets("EPYC-Rome", 0x207)[9] == (832, 64)
    assert standard_offsets("Bulldozer", 1 << 62 | 7)[62] == (832, 128)
    assert standard_offsets("Skylake-Client", 0x1F) == {2: (576, 256), 3: (960, 64), 4: (1024, 64)}


def test_standard_size_is_a_maximum() -> None:
    assert standard_size("DiamondRapids", 0x80007) == 1088  # the highest component lies lowest
    assert standard_size("DiamondRapids", 0x802E7) == 2696
    assert standard_size("SapphireRapids", 0x200E7) == 2816
    assert standard_size("AlderLake", 0) == standard_size("AlderLake", 3) == AREA_MIN


def test_layouts_without_an_answer() -> None:
    with pytest.raises(ValueError, match="supervisor component 11"):
        standard_size("EPYC-Turin", 0x803)
    with pytest.raises(ValueError, match="no component 18"):
        compacted_offsets("EPYC-Turin", 0x40003)
    with pytest.raises(ValueError, match="no component 19"):
        standard_size("SapphireRapids", 0x80003)


@pytest.mark.parametrize("cpu", CPUS)
def test_components_do_not_overlap(cpu: str) -> None:
    table = CPUS[cpu]
    assert table["xcr0"] & table["xss"] == 0
    every = table["xcr0"] | table["xss"]
    assert set(table["components"]) == {i for i in bits(every) if i >= 2}
    for slots in (standard_offsets(cpu, table["xcr0"]), compacted_offsets(cpu, every)[0]):
        ends = 576
        for offset, size in sorted(slots.values()):
            assert offset >= ends
            ends = offset + size


def test_component_table() -> None:
    for i, row in COMPONENTS.items():
        assert len(row.initial) == (LEGACY_SIZE if i < 2 else row.size)
        assert row.supervisor == (i in (8, *range(10, 17)))
        assert row.align64 == (i in (17, 18))
        assert row.xfd == (i == 18)
    for cpu in CPUS.values():
        for i, (size, offset, align64) in cpu["components"].items():
            assert size == (64 if cpu is CPUS["EPYC-Rome"] and i == 9 else COMPONENTS[i].size)
            assert (offset is None) == COMPONENTS[i].supervisor
            assert align64 == COMPONENTS[i].align64
    for i, fields in FIELDS.items():
        for _, offset, width, _ in fields:
            assert offset + width <= len(COMPONENTS[i].initial)


# --- how far a save for one mask runs past a buffer for another ---------------------------------

OVERRUNS = [
    ("SapphireRapids", STANDARD, 0x2E7, 0x602E7, 8312),
    ("SapphireRapids", COMPACTED, 0x2E7, 0x602E7, 8312),
    ("SapphireRapids", STANDARD, 0xE7, 0x602E7, 8320),
    ("SapphireRapids", STANDARD, 0x7, 0x602E7, 10176),
    ("SapphireRapids", STANDARD, 0x3, 0x602E7, 10432),
    ("SapphireRapids", COMPACTED, 0x3E7, 0x602E7 | 0xDD00, 9208),
    ("DiamondRapids", STANDARD, 0x7, 0x80007, 256),
    ("DiamondRapids", STANDARD, 0xE7, 0x800E7, 0),
    ("DiamondRapids", COMPACTED, 0x2E7, 0xE02E7, 8440),
    ("EPYC-Milan", STANDARD, 0x7, 0x207, 1608),
]


@pytest.mark.parametrize(("cpu", "fmt", "buffer", "live", "over"), OVERRUNS)
def test_overrun(cpu: str, fmt: str, buffer: int, live: int, over: int) -> None:
    assert layout(cpu, live, fmt)[1] - layout(cpu, buffer, fmt)[1] == over


def test_overrun_from_an_mpx_sized_compacted_buffer() -> None:
    size = compacted_offsets("Skylake-Server", 0x2FF)[1]
    assert size == 2568
    assert compacted_offsets("SapphireRapids", 0x602E7)[1] - size == 8184


@pytest.mark.parametrize(
    ("fmt", "ranges"),
    [
        (STANDARD, [(2752, 2816), (2816, 11008)]),
        (COMPACTED, [(2496, 2560), (2560, 10752)]),
    ],
)
def test_overrun_ranges(fmt: str, ranges: list[tuple[int, int]]) -> None:
    slots, _ = layout("SapphireRapids", 0x602E7, fmt)
    _, end = layout("SapphireRapids", 0x2E7, fmt)
    written = [(max(o, end), o + n) for o, n in sorted(slots.values()) if o + n > end]
    assert written == ranges
    assert sum(b - a for a, b in written) == 8256


@pytest.mark.parametrize(("xfrm", "pages"), [(3, 1), (7, 1), (0xE7, 1), (0x2E7, 1), (0x602E7, 3)])
def test_sgx_frame_pages(xfrm: int, pages: int) -> None:
    assert -(-(standard_size("SapphireRapids", xfrm) + 184 + 16) // 4096) == pages


# --- the header ---------------------------------------------------------------------------------


def _header(xstate_bv: int, xcomp_bv: int, nonzero: int | None = None) -> bytes:
    area = bytearray(AREA_MIN)
    area[512:520] = xstate_bv.to_bytes(8, "little")
    area[520:528] = xcomp_bv.to_bytes(8, "little")
    if nonzero is not None:
        area[nonzero] = 1
    return bytes(area)


HEADERS = [
    (STANDARD, _header(0xE7, 0), []),
    (STANDARD, _header(0x8, 0), [("std-xstate-bv", 512)]),
    (STANDARD, _header(BIT63, 0), [("std-xstate-bv", 512)]),
    (STANDARD, _header(0, 1), [("std-xcomp-bv", 520)]),
    (STANDARD, _header(0, 0, 535), [("std-reserved", 535)]),
    (STANDARD, _header(0, 0, 536), []),
    (STANDARD, _header(0, 0, 575), []),
    (COMPACTED, _header(0x7, BIT63 | 0xE7), []),
    (COMPACTED, _header(0x7, 0x7), [("cmp-format-bit", 520)]),
    (COMPACTED, _header(0x0, BIT63 | 0x8), [("cmp-xcomp-bv", 520)]),
    (COMPACTED, _header(0x4, BIT63 | 0x3), [("cmp-xstate-bv", 512)]),
    (COMPACTED, _header(BIT63, BIT63 | 0x3), [("cmp-xstate-bv", 512)]),
    (COMPACTED, _header(0, BIT63, 528), [("cmp-reserved", 528)]),
    (COMPACTED, _header(0, BIT63, 575), [("cmp-reserved", 575)]),
    (COMPACTED, _header(0x9, BIT63 | 0x8, 530), ["cmp-xcomp-bv", "cmp-xstate-bv", "cmp-reserved"]),
]


@pytest.mark.parametrize(("fmt", "area", "faults"), HEADERS)
def test_header_faults(fmt: str, area: bytes, faults: list[object]) -> None:
    found = header_faults(area, "Zen5-guest", fmt, 0xE7)
    if faults and isinstance(faults[0], str):
        assert [rule for rule, _ in found] == faults
    else:
        assert found == faults


def test_without_compaction_every_header_is_standard() -> None:
    area = _header(0, BIT63 | 7)
    assert header_faults(area, "SandyBridge", COMPACTED, 7) == [("std-xcomp-bv", 520)]
    assert Cpu("SandyBridge").xrstor(area.ljust(832, b"\0")) == ("#GP", "std-xcomp-bv", 520)


# --- names --------------------------------------------------------------------------------------


def test_register_names() -> None:
    assert registers(0, STANDARD) == []
    x87 = ["fcw", "fsw", "ftw", "fop", "fip", "fdp"]
    st = [f"st{j}" for j in range(8)]
    assert registers(1, COMPACTED) == x87 + st
    assert registers(3, COMPACTED) == [
        *x87,
        "mxcsr",
        "mxcsr_mask",
        *st,
        *[f"xmm{n}" for n in range(16)],
    ]
    assert registers(4, COMPACTED) == [f"ymm{n}" for n in range(16)]
    assert registers(4, STANDARD)[:2] == ["mxcsr", "mxcsr_mask"]
    assert [n for n in registers(0x84, COMPACTED) if n[:3] == "zmm"] == [f"zmm{n}" for n in range(16, 32)]
    assert [n for n in registers(0xE7, COMPACTED) if n[1:3] == "mm"] == [f"zmm{n}" for n in range(32)]
    assert registers(1 << 14, COMPACTED)[0] == "uif"
    assert len(registers(1 << 15, COMPACTED)) == 5 + 3 * 32


@pytest.mark.parametrize("cpu", CPUS)
def test_every_register_has_one_name(cpu: str) -> None:
    mask = CPUS[cpu]["xcr0"] | CPUS[cpu]["xss"]
    names = registers(mask, COMPACTED)
    assert len(names) == len(set(names))
    assert {i for name in names for i in components_of(name)} == set(bits(mask))


# --- decode and encode --------------------------------------------------------------------------


def _layouts(rng: Random, cpu: str) -> Iterator[tuple[int, str]]:
    xcr0, xss = CPUS[cpu]["xcr0"], CPUS[cpu]["xss"]
    for fmt, most in ((STANDARD, xcr0), (COMPACTED, xcr0 | xss)):
        yield most, fmt
        yield most & ~2, fmt
        for _ in range(4):
            yield most & rng.getrandbits(64), fmt


@pytest.mark.parametrize("cpu", CPUS)
@pytest.mark.parametrize("sparse", [0.0, 0.5])
def test_round_trip(cpu: str, sparse: float) -> None:
    rng = Random(f"{cpu} {sparse}")
    default = CPUS[cpu]["mxcsr_mask"]
    for mask, fmt in _layouts(rng, cpu):
        values = random_state(rng, mask, fmt, sparse)
        expected = dict(values)
        if "mxcsr" in values:
            expected["mxcsr_mask"] = default
        size = layout(cpu, mask, fmt)[1]

        area = encode(values, cpu, mask, fmt)
        assert len(area) == size
        assert u64(area, 520) == (mask | BIT63 if fmt == COMPACTED else 0)
        assert decode(area, cpu, mask, fmt) == expected
        assert encode(decode(area, cpu, mask, fmt), cpu, mask, fmt, u64(area, 512)) == area

        # Only what is in use, over garbage: stale bytes do not count.
        in_use = non_initial(values) & mask
        if fmt == COMPACTED and values.get("mxcsr", MXCSR_INIT) != MXCSR_INIT:
            in_use |= 2
        stale = encode(values, cpu, mask, fmt, in_use, base=rng.randbytes(size))
        assert u64(stale, 512) == in_use
        assert decode(stale, cpu, mask, fmt) == expected
        assert header_faults(stale, cpu, STANDARD if fmt == STANDARD else COMPACTED, mask) == (
            [] if fmt == STANDARD or CPUS[cpu]["d1eax"] & 2 else [("std-xcomp-bv", 520)]
        )
        assert same_state(decode(stale, cpu, mask, fmt), values)

        # Nothing in use: the initial configuration.
        nothing = encode({}, cpu, mask, fmt, base=rng.randbytes(size))
        initial = initial_values(name for name in expected if name != "mxcsr_mask")
        assert same_state(decode(nothing, cpu, mask, fmt), initial)


def test_encode_bits_and_initial_images() -> None:
    def xstate_bv(values: Values, mask: int = 0x602E7, fmt: str = COMPACTED) -> int:
        return u64(encode(values, "SapphireRapids", mask, fmt), 512)

    assert xstate_bv({}) == 0
    assert xstate_bv({"xmm3": bytes(16)}) == 2
    assert xstate_bv({"ymm3": bytes(32)}) == 6
    assert xstate_bv({"zmm3": bytes(64)}) == 0x46
    assert xstate_bv({"zmm17": bytes(64)}) == xstate_bv({"xmm17": bytes(16)}) == 0x80
    assert xstate_bv({"mxcsr": 0x1F80}) == 0
    assert xstate_bv({"mxcsr": 0x1F81}) == 2
    assert xstate_bv({"mxcsr": 0x1F81}, fmt=STANDARD) == 0
    assert xstate_bv({"tmm0": bytes(1024), "k1": 5, "fcw": 0x37F}) == 0x40021

    area = encode({}, "SapphireRapids", 0x602E7, STANDARD)
    assert area[:2] == b"\x7f\x03"
    assert area[24:32] == b"\x80\x1f\0\0\xff\xff\0\0"
    assert not any(area[32:])
    area = encode({}, "EPYC-Turin", 0x6, STANDARD)
    assert area[:2] == b"\0\0"
    assert area[24:32] == b"\x80\x1f\0\0\xff\xff\2\0"
    area = encode({}, "SapphireRapids", 0x602E7, COMPACTED)
    assert not any(area[:520])


def test_encode_refuses() -> None:
    def refused(values: Values, mask: int, fmt: str = COMPACTED) -> None:
        with pytest.raises(ValueError, match=r"."):
            encode(values, "SapphireRapids", mask, fmt)

    refused({"pkru": 1}, 0x7)
    refused({"mxcsr": 1}, 0x4)
    refused({"zmm0": bytes(63) + b"\1"}, 0x7)
    refused({"zmm0": bytes(64), "xmm0": bytes(16)}, 0xE7)
    refused({"xmm0": bytes(15)}, 0x7)
    refused({"rax": 1}, 0x7)
    with pytest.raises(ValueError, match="subset"):
        encode({}, "SapphireRapids", 3, COMPACTED, xstate_bv=4)


def test_where_the_bytes_are() -> None:
    ramp = bytes(range(64))
    area = encode({"zmm1": ramp, "zmm17": ramp, "k1": 7, "pkru": 9}, "EPYC-Turin", 0x2E7, STANDARD)
    assert area[176:192] == ramp[:16]
    assert area[592:608] == ramp[16:32]
    assert area[896 + 32 : 896 + 64] == ramp[32:]
    assert area[1408 + 64 : 1408 + 128] == ramp
    assert area[840] == 7
    assert area[2432] == 9
    area = encode({"uif": 1, "IA32_UINTR_MISC": 0x21_0000_0003}, "SapphireRapids", 0x4003, COMPACTED)
    assert u64(area, 576 + 16) == BIT63 | 0x21_0000_0003


def test_mxcsr_comes_from_memory_in_the_standard_format_alone() -> None:
    for fmt, mxcsr, mxcsr_mask in ((STANDARD, 0x1F91, 0x1234), (COMPACTED, 0x1F80, 0x2FFFF)):
        area = bytearray(encode({}, "Zen5-guest", 0xE7, fmt))
        area[24:32] = (0x1F91 | 0x1234 << 32).to_bytes(8, "little")
        values = decode(area, "Zen5-guest", 0xE7, fmt)
        assert (values["mxcsr"], values["mxcsr_mask"]) == (mxcsr, mxcsr_mask)
        area[512] |= 2
        assert decode(area, "Zen5-guest", 0xE7, fmt)["mxcsr"] == 0x1F91


def test_same_state() -> None:
    assert same_state({}, {"fcw": 0x37F, "mxcsr": 0x1F80, "IA32_HWP_REQUEST": 0x8000FF01})
    assert same_state({"xmm1": b"a" * 16}, {"zmm1": b"a" * 16 + bytes(48), "mxcsr_mask": 1})
    assert not same_state({"xmm1": b"a" * 16}, {"zmm1": b"a" * 64})
    assert not same_state({"mxcsr": 0x1F81}, {})
    assert not same_state({"pkru": 1}, {})
    with pytest.raises(ValueError, match="no such register"):
        same_state({"xmm99": b""}, {})


def test_random_states_are_legal() -> None:
    rng = Random(1)
    for _ in range(50):
        values = random_state(rng, 0x1E02FF | 0x1FD00, sparse=rng.choice([0, 0.3, 0.9]))
        fcw, fsw = as_int(values["fcw"]), as_int(values["fsw"])
        assert restored_fcw(fcw) == fcw
        assert restored_fsw(fsw, fcw) == fsw
        assert as_int(values["mxcsr"]) < 0x10000
        assert as_int(values["fop"]) < 0x800
        cfg = as_bytes(values["tilecfg"], 64)
        assert cfg == bytes(64) or tilecfg_is_legal(cfg)
    assert random_state(Random(2), 0xE7) == random_state(Random(2), 0xE7)


# --- values of a restore ------------------------------------------------------------------------


def test_measured_fcw_and_fsw() -> None:
    fcw = {0x0000: 0x40, 0x1F80: 0x1F40, 0xFFFF: 0x1F7F, 0xE000: 0x40, 0x3F: 0x7F, 0x33F: 0x37F}
    assert {image: restored_fcw(image) for image in fcw} == fcw
    assert restored_fsw(0x8080, 0x37F) == 0
    assert restored_fsw(0x0001, 0x340) == 0x8081
    assert restored_fsw(0xFFFF, 0x37F) == 0x7F7F


def test_sign_extension() -> None:
    assert sign_extended(1 << 56, 57) == 0xFF00000000000000
    assert sign_extended(1 << 60 | 5, 57) == 5


# --- the instructions ---------------------------------------------------------------------------


def _dense(cpu: str, *, mode64: bool = True, cpl: int = 0, atomic_faults: bool | None = None) -> Cpu:
    """A CPU with no register in its initial configuration."""
    mask = CPUS[cpu]["xcr0"] | CPUS[cpu]["xss"]
    rng = Random(f"dense {cpu}")
    while True:
        values = random_state(rng, mask, pending_pointers=True)
        if non_initial(values) & mask == mask:
            return Cpu(
                cpu,
                values,
                mode64=mode64,
                xss=CPUS[cpu]["xss"],
                cpl=cpl,
                atomic_faults=atomic_faults,
            )


def _written(before: bytes, after: bytes | bytearray) -> list[tuple[int, int]]:
    """The extents in which the two differ."""
    extents: list[tuple[int, int]] = []
    for offset, (a, b) in enumerate(zip(before, after, strict=True)):
        if a != b and extents and extents[-1][1] == offset:
            extents[-1] = (extents[-1][0], offset + 1)
        elif a != b:
            extents.append((offset, offset + 1))
    return extents


def _extents_written(cpu: Cpu, instruction: str, mask: int, size: int) -> list[tuple[int, int]]:
    """What a save writes: whatever changes over one fill or over its complement."""
    touched = bytearray(size)
    for fill in (b"\x00", b"\xff"):
        area = bytearray(fill * size)
        assert getattr(cpu, instruction)(area, mask) is None
        for start, end in _written(fill * size, area):
            touched[start:end] = b"\1" * (end - start)
    return _written(bytes(size), touched)


def test_xsave_keeps_what_it_does_not_own() -> None:
    cpu = Cpu("Zen5-guest")
    area = bytearray(b"\xa5" * 3000)
    assert cpu.xsave(area, 7) is None
    assert u64(area, 512) == 0xA5A5A5A5A5A5A5A0  # nothing of 7 is in use
    assert area[520:576] == b"\xa5" * 56
    assert area[416:512] == b"\xa5" * 96
    assert area[832:] == b"\xa5" * 2168
    area = bytearray(b"\xa5" * 3000)
    assert _dense("Zen5-guest").xsave(area, ALL) is None
    assert u64(area, 512) == 0xA5A5A5A5A5A5A5E7
    area = bytearray(b"\xa5" * 576)
    assert cpu.xsave(area, 0) is None
    assert area == b"\xa5" * 576


@pytest.mark.parametrize(
    ("cpu", "extended"),
    [
        ("Zen5-guest", [(576, 704), (832, 1152)]),
        ("Intel-AMX-guest", [(576, 704), (1088, 1408)]),
    ],
)
def test_compatibility_mode_writes_half(cpu: str, extended: list[tuple[int, int]]) -> None:
    processor = _dense(cpu, mode64=False)
    wrote = _extents_written(processor, "xsave", 0xE7, 2688)
    assert wrote == [(0, 288), (512, 513), *extended]
    area = bytearray(2688)
    processor.xsave(area, 0xE7)
    assert u64(area, 512) == (0x67 if processor.intel else 0xE7)


def test_pkru_is_stored_as_four_bytes() -> None:
    cpu = _dense("EPYC-Milan")
    assert _extents_written(cpu, "xsave", 0x200, 2440) == [(513, 514), (2432, 2436)]


@pytest.mark.parametrize("cpu", ["Zen5-guest", "Intel-AMX-guest"])
def test_initial_state_is_optimised_away(cpu: str) -> None:
    for mask in (1, 0xE0):
        area = bytearray(b"\xcc" * 2688)
        assert Cpu(cpu).xsaveopt(area, mask) is None
        assert area[:512] + area[520:] == b"\xcc" * 2680
    area = bytearray(b"\xcc" * 2688)
    assert Cpu(cpu).xsaveopt(area, 0xE7) is None
    assert area[:24] + area[32:512] + area[520:] == b"\xcc" * 2672
    assert u64(area, 24) == MXCSR_INIT | CPUS[cpu]["mxcsr_mask"] << 32
    area = bytearray(b"\xcc" * 2688)
    assert Cpu(cpu).xsavec(area, 0xE7) is None
    assert u64(area, 512) == 0
    assert u64(area, 520) == BIT63 | 0xE7
    assert area[:512] + area[528:] == b"\xcc" * 2672


def test_mxcsr_alone() -> None:
    cpu = Cpu("Zen5-guest", {"mxcsr": 0x1FBF})
    area = bytearray(2432)
    cpu.xsave(area, ALL)
    assert u64(area, 512) == 0
    cpu.xsaveopt(area, 4)
    assert u64(area, 512) == 0
    assert area[24:26] == b"\xbf\x1f"
    area = bytearray(b"\xcc" * 2432)
    cpu.xsavec(area, 4)
    assert area[:512] == b"\xcc" * 512  # never because of AVX
    cpu.xsavec(area, 6)
    assert u64(area, 512) == 2
    assert area[24:26] == b"\xbf\x1f"
    assert area[160:416] == bytes(256)
    assert cpu.xgetbv(1) == 2
    assert cpu.xinuse == 0


@pytest.mark.parametrize("cpu", ["Zen5-guest", "Intel-AMX-guest"])
def test_mxcsr_matrix(cpu: str) -> None:
    """Memory holds 1F91H, the register 1FBFH."""
    for fmt in (STANDARD, COMPACTED):
        for rfbm in (0, 1, 2, 3, 4, 5, 6, 0x20, 0xE7):
            for xstate_bv in range(8):
                area = bytearray(encode({}, cpu, 0xE7, fmt, xstate_bv))
                area[24:28] = (0x1F91).to_bytes(4, "little")
                processor = Cpu(cpu, {"mxcsr": 0x1FBF})
                assert processor.xrstor(area, rfbm) is None
                if fmt == STANDARD:
                    expected = 0x1F91 if rfbm & 6 else 0x1FBF
                elif rfbm & 2:
                    expected = 0x1F91 if xstate_bv & 2 else 0x1F80
                else:
                    expected = 0x1FBF
                assert processor.registers["mxcsr"] == expected


@pytest.mark.parametrize(("cpu", "bad"), [("Zen5-guest", 0x10000), ("Intel-AMX-guest", 0x20000)])
def test_reserved_mxcsr_bits_fault_exactly_if_loaded(cpu: str, bad: int) -> None:
    for fmt in (STANDARD, COMPACTED):
        for rfbm in (0, 1, 2, 4, 6, 0xE7):
            for xstate_bv in range(8):
                area = bytearray(encode({}, cpu, 0xE7, fmt, xstate_bv))
                area[24:28] = (bad | MXCSR_INIT).to_bytes(4, "little")
                processor = _dense(cpu, atomic_faults=True)
                before = dict(processor.registers)
                loaded = rfbm & 6 if fmt == STANDARD else rfbm & xstate_bv & 2
                fault = processor.xrstor(area, rfbm)
                assert fault == (("#GP", "mxcsr-reserved", 24) if loaded else None)
                if fault:
                    assert processor.registers == before
    area = bytearray(encode({"mxcsr": 0x20000}, "Zen5-guest", 2, STANDARD))  # bit 17 is legal on AMD
    assert Cpu("Zen5-guest").xrstor(area, 2) is None


def test_intel_compacted_mxcsr_fault_is_not_atomic() -> None:
    area = encode({"xmm0": b"x" * 16, "k1": 5, "mxcsr": 1 << 20}, "Intel-AMX-guest", 0xE7, COMPACTED)
    cpu = Cpu("Intel-AMX-guest", {"zmm20": b"z" * 64, "k1": 9, "zmm0": b"y" * 64}, xinuse=0xE7)
    assert cpu.xrstor(area, ALL) == ("#GP", "mxcsr-reserved", 24)
    assert cpu.registers["zmm0"] == b"x" * 16 + bytes(48)
    assert cpu.registers["zmm20"] == bytes(64)
    assert cpu.registers["k1"] == 9
    assert cpu.registers["mxcsr"] == MXCSR_INIT
    assert cpu.xinuse == 0x22


def test_header_rules_ignore_rfbm_and_change_nothing() -> None:
    for area in (
        _header(8, 0),
        _header(0, 1),
        _header(0, 0, 528),
        _header(0, BIT63 | 8),
        _header(4, BIT63 | 3),
        _header(BIT63, BIT63 | 3),
        _header(0, BIT63, 570),
    ):
        for rfbm in (0, ALL):
            cpu = _dense("Zen5-guest")
            before = dict(cpu.registers)
            fault = cpu.xrstor(area, rfbm)
            assert fault is not None
            assert fault[0] == "#GP"
            assert cpu.registers == before
    assert _dense("Zen5-guest").xrstor(_header(0, 0, 536).ljust(2432, b"\0")) is None


def test_components_outside_xcomp_bv_are_initialised() -> None:
    cpu = _dense("SapphireRapids")
    area = encode({"k1": 1}, "SapphireRapids", 0x20, COMPACTED)
    assert cpu.xrstor(area, 0x2E7) is None
    assert same_state(
        {n: v for n, v in cpu.registers.items() if set(components_of(n)) <= {0, 1, 2, 5, 6, 7, 9}},
        {"k1": 1},
    )
    assert any(as_bytes(cpu.registers["tmm3"], 1024))


@pytest.mark.parametrize("cpu", CPUS)
@pytest.mark.parametrize("sparse", [0.0, 0.5])
def test_save_then_restore(cpu: str, sparse: float) -> None:
    rng = Random(f"instructions {cpu} {sparse}")
    table = CPUS[cpu]
    xcr0, xss = table["xcr0"], table["xss"]
    for _ in range(3):
        values = random_state(rng, xcr0 | xss, COMPACTED, sparse, pending_pointers=True)
        if xss & 1 << 14:  # XSAVES takes UINV away, and a later load of UINTR needs it gone
            values["IA32_UINTR_MISC"] = as_int(values["IA32_UINTR_MISC"]) & ~(0xFF << 32)
        source = Cpu(cpu, values, xss=xss)
        before = dict(source.registers)
        for save, restore, mask, fmt in (
            ("xsave", "xrstor", xcr0, STANDARD),
            ("xsaveopt", "xrstor", xcr0, STANDARD),
            ("xsavec", "xrstor", xcr0, COMPACTED),
            ("xsaves", "xrstors", xcr0 | xss, COMPACTED),
        ):
            size = layout(cpu, mask, fmt)[1]
            area = bytearray(rng.randbytes(size))
            area[512:576] = bytes(64)
            if table["profile"] == "amd-legacy":
                area[6:24] = bytes(18)  # left alone unless an exception is pending
            fault = getattr(source, save)(area, ALL)
            if fault is not None:
                assert fault == ("#UD", "cpuid", 0)
                continue
            state = decode(area, cpu, mask, fmt)
            assert same_state(state, {n: v for n, v in before.items() if n in state})
            target = Cpu(cpu, xss=xss)
            assert getattr(target, restore)(area, ALL) is None
            expected = {n: before[n] for n in state if n != "mxcsr_mask" and n != "IA32_LBR_DEPTH"}
            assert {n: target.registers[n] for n in expected} == expected
            assert target.xinuse & mask == source.xinuse & mask
        assert source.registers == before


def test_plain_xsave_is_encode() -> None:
    """XSAVE of a state equals encode with the value-based XINUSE, where every byte is written."""
    for cpu in CPUS:
        xcr0 = CPUS[cpu]["xcr0"]
        values = random_state(Random(cpu), xcr0, STANDARD, 0.5, pending_pointers=True)
        processor = Cpu(cpu, values)
        area = bytearray(standard_size(cpu, xcr0))
        assert processor.xsave(area) is None
        assert area == encode(values, cpu, xcr0, STANDARD, processor.xinuse & xcr0)


def test_xinuse_by_profile() -> None:
    zeros = encode({}, "Zen5-guest", 0xE7, STANDARD, 0xE7)
    cpu = Cpu("Zen5-guest", xinuse=0)
    assert cpu.xrstor(zeros) is None
    assert cpu.xinuse == 0
    zeros = encode({}, "Intel-AMX-guest", 0x600E7, STANDARD, 0x600E7)
    cpu = Cpu("Intel-AMX-guest", xinuse=0)
    assert cpu.xrstor(zeros) is None
    assert cpu.xinuse == 0x400E7  # but TILECFG, which goes by value


def test_zen_counts_lower_parts_of_wide_registers_until_a_64_bit_restore() -> None:
    zeros = encode({}, "Zen5-guest", 0xE7, STANDARD)
    for mode64, after in ((False, 0x46), (True, 0x00)):
        cpu = Cpu("Zen5-guest", {"zmm9": bytes(63) + b"\1"}, xinuse=0x46, mode64=mode64)
        assert cpu.xrstor(zeros) is None
        assert cpu.xinuse == after


def test_pointers_by_profile() -> None:
    image: Values = {"fcw": 0x37F, "fop": 0x7FF, "fip": 1 << 56, "fdp": 1 << 60}
    for cpu, expected in (
        ("Zen5-guest", (0, 0, 0)),
        ("Bulldozer", (3, 4, 5)),
        ("Intel-AMX-guest", (0x7FF, 0xFF00000000000000, 1 << 60)),
    ):
        processor = Cpu(cpu, {"fop": 3, "fip": 4, "fdp": 5})
        assert processor.xrstor(encode(image, cpu, 1, STANDARD), 1) is None
        found = tuple(processor.registers[name] for name in ("fop", "fip", "fdp"))
        assert found == expected
    pending = encode({**image, "fsw": 1, "fcw": 0x340}, "Zen5-guest", 1, STANDARD)
    processor = Cpu("Zen5-guest")
    assert processor.xrstor(pending, 1) is None
    assert processor.registers["fip"] == 0xFF00000000000000
    assert processor.registers["fdp"] == 0  # bits from 57 up are dropped


def test_xfd() -> None:
    cpu = Cpu("SapphireRapids", {"tmm0": b"t" * 1024, "k1": 1}, xfd=1 << 18)
    area = bytearray(b"\xcc" * 11008)
    assert cpu.xsave(area) is None
    assert u64(area, 512) & 0x602E7 == 0x20
    assert area[2816:] == bytes(8192)  # still written
    area = bytearray(b"\xcc" * 10752)
    assert cpu.xsavec(area) is None
    assert u64(area, 512) == 0x20
    assert u64(area, 520) == BIT63 | 0x602E7
    assert area[2560:] == b"\xcc" * 8192
    assert cpu.xsavec(bytearray(2560)) is None  # not a byte of TILEDATA
    with pytest.raises(ValueError, match="needs 11008 bytes"):
        cpu.xsave(bytearray(2816))
    area = bytearray(encode({"tmm0": bytes(1024)}, "SapphireRapids", 0x602E7, COMPACTED))
    before = dict(cpu.registers)
    assert cpu.xrstor(area) == ("#NM", "xfd", 512)
    assert cpu.xfd_err == 1 << 18
    assert cpu.registers == before
    assert cpu.xrstor(area, ALL & ~(1 << 18)) is None
    assert cpu.registers["tmm0"] == b"t" * 1024


@pytest.mark.parametrize("image", [b"\1\2\3".ljust(64, b"\0"), b"\2".ljust(64, b"\0"), b"\0\1".ljust(64, b"\0")])
def test_illegal_tilecfg_becomes_initial(image: bytes) -> None:
    for fmt in (STANDARD, COMPACTED):
        cpu = _dense("SapphireRapids")
        tiles = cpu.registers["tmm5"]
        assert cpu.xrstor(encode({"tilecfg": image}, "SapphireRapids", 0x602E7, fmt), 1 << 17) is None
        assert cpu.registers["tilecfg"] == bytes(64)
        assert cpu.registers["tmm5"] == tiles
        assert not cpu.xinuse & 1 << 17


def test_supervisor_instructions() -> None:
    cpu = _dense("SapphireRapids", cpl=3)
    assert cpu.xsaves(bytearray(20000)) == ("#GP", "cpl", 0)
    assert cpu.xrstors(bytearray(20000)) == ("#GP", "cpl", 0)
    cpu.cpl = 0
    assert cpu.xrstors(bytes(20000)) == ("#GP", "cmp-format-bit", 520)
    mask = 0x602E7 | 0xDD00
    cases: list[tuple[Values, str, int]] = [
        ({"IA32_U_CET": 0x40}, "u-cet-reserved", 0),
        ({"IA32_U_CET": 0xC00}, "u-cet-suppress-and-tracker", 0),
        ({"IA32_PL3_SSP": 2}, "ssp-alignment", 8),
        ({"IA32_PL1_SSP": 1 << 60}, "not-canonical", 8),
        ({"IA32_UINTR_MISC": 1 << 40}, "uintr-misc-reserved", 16),
        ({"IA32_UINTR_PD": 8}, "uintr-pd-alignment", 24),
        ({"IA32_UINTR_TT": 4}, "uintr-tt-reserved", 40),
        ({"IA32_LBR_CTL": 1, "IA32_LBR_DEPTH": 9}, "lbr-depth", 8),
    ]
    for values, rule, at in cases:
        cpu = Cpu("SapphireRapids", xss=0xDD00)
        area = encode(values, "SapphireRapids", mask, COMPACTED)
        component = components_of(next(iter(values)))[0]
        slot = compacted_offsets("SapphireRapids", mask)[0][component][0]
        before = dict(cpu.registers)
        assert cpu.xrstors(area) == ("#GP", rule, slot + at)
        assert cpu.registers == before
        assert cpu.xrstors(area, ALL & ~(1 << component)) is None


def test_uintr_and_pt() -> None:
    cpu = Cpu("SapphireRapids", {"IA32_UINTR_MISC": 0x21_0000_0003, "IA32_RTIT_CTL": 1}, xss=0xDD00)
    area = bytearray(11776)
    assert cpu.xsaves(area) is None
    assert cpu.registers["IA32_UINTR_MISC"] == 3
    assert cpu.registers["IA32_RTIT_CTL"] == 0
    assert cpu.xrstors(area) is None
    assert cpu.registers["IA32_UINTR_MISC"] == 0x21_0000_0003
    assert cpu.registers["IA32_RTIT_CTL"] == 1
    assert cpu.xrstors(area) == ("#GP", "pt-trace-enabled", 512)
    fault = cpu.xrstors(area, ALL & ~0x100)
    assert fault is not None
    assert fault[1] == "uintr-uinv"
    nothing = encode({}, "SapphireRapids", 0x602E7 | 0xDD00, COMPACTED)
    assert cpu.xrstors(nothing, ALL & ~0x100) is None  # initialising is no load
    assert cpu.registers["IA32_UINTR_MISC"] == 0


def test_lbr_depths() -> None:
    values: Values = {"IA32_LBR_CTL": 1, "IA32_LBR_DEPTH": 32, "IA32_LBR_3_INFO": 7}
    area = encode(values, "SapphireRapids", 0x8000, COMPACTED)
    for depth, info in ((32, 7), (8, 0)):
        cpu = Cpu("SapphireRapids", {"IA32_LBR_DEPTH": depth, "IA32_LBR_3_INFO": 5}, xss=0xDD00)
        assert cpu.xrstors(area, 0x8000) is None
        assert cpu.registers["IA32_LBR_CTL"] == 1
        assert cpu.registers["IA32_LBR_DEPTH"] == depth
        assert cpu.registers["IA32_LBR_3_INFO"] == info
    cpu = Cpu("SapphireRapids", {"IA32_LBR_DEPTH": 8}, xss=0xDD00)
    assert cpu.xrstors(encode({}, "SapphireRapids", 0x8000, COMPACTED)) is None
    assert cpu.registers["IA32_LBR_DEPTH"] == 8


def test_compatibility_mode_leaves_the_upper_registers() -> None:
    for cpu in ("Zen5-guest", "Intel-AMX-guest"):
        processor = _dense(cpu, mode64=False)
        before = dict(processor.registers)
        assert processor.xrstor(encode({}, cpu, 0xE7, COMPACTED)) is None
        for n in range(32):
            assert processor.registers[f"zmm{n}"] == (bytes(64) if n < 8 else before[f"zmm{n}"])


def test_32_bit_pointers() -> None:
    image = bytearray(encode({"fsw": 1, "fcw": 0x340}, "Zen5-guest", 1, STANDARD))
    image[8:24] = bytes(range(1, 17))
    for cpu, selectors in (("Zen5-guest", True), ("Intel-AMX-guest", False)):
        processor = Cpu(cpu)
        assert processor.xrstor(image, 1, rexw=False) is None
        area = bytearray(b"\xcc" * 576)
        assert processor.xsave(area, 1, rexw=False) is None
        assert area[8:12] == image[8:12]
        assert area[12:16] == (bytes(image[12:14]) if selectors else bytes(2)) + bytes(2)
        assert processor.xsave(area, 1) is None
        assert area[8:16] == bytes(image[8:12]) + bytes(4)


# --- against what CPUs enumerate ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "name"),
    [("cpuid_zen5.json", "Zen5-guest"), ("cpuid_intel.json", "Intel-AMX-guest")],
)
@skips.needs_data()
def test_cpuid_of_the_machines_behind_the_vectors(file: str, name: str) -> None:
    path = DATA / "vectors" / file
    leaves: dict[tuple[int, int], tuple[int, int, int, int]] = {}
    for key, words in json.loads(path.read_text()).items():
        leaf, subleaf = key.split(".")
        eax, ebx, ecx, edx = (int(word, 16) for word in words)
        leaves[int(leaf, 16), int(subleaf, 16)] = (eax, ebx, ecx, edx)
    cpu = cpu_from_cpuid(leaves)
    assert cpu == CPUS[name]
    assert standard_size(cpu, cpu["xcr0"]) == leaves[0xD, 0][2] == leaves[0xD, 0][1]
    assert compacted_offsets(cpu, cpu["xcr0"] | cpu["xss"])[1] == leaves[0xD, 1][1]
    for i in cpu["components"]:
        assert bool(leaves[0xD, i][2] & 4) == COMPONENTS[i].xfd


# Zen 5, after XRSTOR of an area with nothing but ZMM3[511:256]: writes, and XGETBV(1) after them. A value of zero is
# that of an instruction that always gives zero (PXOR, VPXOR).
LOW, ZERO = b"\7" + bytes(15), bytes(16)
ZEN_WRITES: list[tuple[list[tuple[str, bytes, bool]], int]] = [
    ([], 0x40),
    ([("xmm3", LOW, False)], 0x46),
    ([("xmm4", LOW, False)], 0x46),
    ([("ymm4", LOW + ZERO, True)], 0x46),
    ([("xmm4", ZERO, False)], 0x44),
    ([("xmm4", ZERO, True)], 0x40),
    ([("ymm4", ZERO + ZERO, True)], 0x40),
    ([("xmm3", ZERO, True)], 0),
    ([("xmm3", ZERO, False)], 0x44),
    ([("xmm3", ZERO, False), ("xmm3", ZERO, False)], 0x44),
    ([("xmm3", ZERO, False), ("xmm4", LOW, False)], 0x46),
    ([("xmm3", ZERO, False), ("xmm4", ZERO, False)], 0x44),
    ([("xmm4", LOW, False), ("xmm4", ZERO, False)], 0x44),
    ([("xmm4", LOW, False), ("upper", b"", False)], 0x02),
    ([("xmm4", LOW, False), ("xmm4", ZERO, False), ("upper", b"", False)], 0),
    ([("xmm3", LOW, False), ("xmm3", ZERO, False)], 0x44),
    ([("xmm3", LOW, False), ("upper", b"", False)], 0x02),
    ([("upper", b"", False)], 0),
]


# The same after an XRSTOR that initialised everything.
ZEN_WRITES_FROM_INIT: list[tuple[list[tuple[str, bytes, bool]], int]] = [
    ([("xmm3", LOW, False)], 0x02),
    ([("xmm3", LOW, True)], 0x02),
    ([("ymm3", LOW + ZERO, True)], 0x06),
    ([("ymm3", ZERO + ZERO, True)], 0),
    ([("zmm3", LOW + bytes(48), True)], 0x46),
    ([("zmm3", ZERO + LOW + bytes(32), True)], 0x46),
    ([("ymm3", ZERO + ZERO, True), ("xmm3", LOW, False)], 0x06),
    ([("ymm3", LOW + ZERO, True), ("xmm3", ZERO, True), ("xmm3", LOW, False)], 0x06),
    ([("zmm3", LOW + bytes(48), True), ("xmm3", ZERO, True), ("xmm4", LOW, False)], 0x46),
    ([("zmm3", LOW + bytes(48), True), ("upper", b"", False), ("xmm4", LOW, False)], 0x02),
    ([("ymm3", LOW + ZERO, True), ("xmm3", ZERO, False)], 0x04),
    ([("xmm3", ZERO, False), ("xmm3", LOW, False)], 0x02),
    ([("xmm4", ZERO, True), ("xmm3", LOW, False)], 0x02),
]


@pytest.mark.parametrize(
    ("start", "writes", "in_use"),
    [*((0x40, *each) for each in ZEN_WRITES), *((0, *each) for each in ZEN_WRITES_FROM_INIT)],
)
def test_zen_counts_widths_of_writes(start: int, writes: list[tuple[str, bytes, bool]], in_use: int) -> None:
    cpu = Cpu("Zen5-guest", xinuse=0)
    area = encode({"zmm3": bytes(32) + b"\7" + bytes(31)}, "Zen5-guest", 0xE7, STANDARD, 0x40)
    assert cpu.xrstor(area[:512] + start.to_bytes(8, "little") + area[520:]) is None
    for name, value, vex in writes:
        if name == "upper":
            cpu.vzeroupper()
        else:
            cpu.write(name, value, vex=vex)
    assert cpu.xgetbv(1) == in_use
