"""For each lint the facts of the bug behind it, as they were reported, and the same without the bug.

A case is a function of the lint's id and source; it gives what was found in the bad subject and in the good one.
`also`: lints that the bad subject cannot do without.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass

import reference

import xsave
from tests.laws.strategies import model
from tests.writers import elf
from xsave import COMPACTED, STANDARD, Area, Layout, audit

Found = list[audit.Finding]
AVX512, AMX, PKRU, APX = 0xE7, 0x600E7, 1 << 9, 1 << 19
BIT63 = 1 << 63
KEYS = 0x55555554  # Linux's PKRU: all keys but 0 closed
# One tile of one row of four bytes.
TILECFG = bytes([1] + 15 * [0] + [4] + 31 * [0] + [1] + 15 * [0])


@dataclass
class Case:
    """`run` gives (findings of the bad subject, findings of the good one)."""

    id: str
    source: str
    also: frozenset[str]
    run: Callable[[], tuple[Found, Found]]


CASES: list[Case] = []


def case(id: str, source: str, *also: str) -> Callable[[Callable[[], tuple[Found, Found]]], None]:
    def keep(run: Callable[[], tuple[Found, Found]]) -> None:
        CASES.append(Case(id, source, frozenset(also), run))

    return keep


def image(cpu: str, mask: int, fmt: int = STANDARD, xstate_bv: int | None = None, **values: int | bytes) -> bytearray:
    """An area that no lint objects to: initial but for `values`, MXCSR and PKRU as Linux has them."""
    name = reference.COMPACTED if fmt == COMPACTED else reference.STANDARD
    held: dict[str, int | bytes] = {"mxcsr": 0x1F80} if mask & (2 if fmt == COMPACTED else 6) else {}
    if mask & PKRU:
        held["pkru"] = KEYS
    held.update(values)
    return bytearray(reference.encode(held, cpu, mask, name, xstate_bv))


def put(area: bytearray, offset: int, value: int, size: int = 8) -> bytearray:
    area[offset : offset + size] = value.to_bytes(size, "little")
    return area


def lint(data: bytearray, cpu: str, mask: int, fmt: int = STANDARD, **facts: int) -> Found:
    return audit.lint_area(Area(bytes(data), Layout(model(cpu), mask, fmt), check=False), **facts)


# -- areas -------------------------------------------------------------------------------------------------


@case("L-XSTATE-XCR0", "bloomberg/chef-bcpc pull request 2278: PKRU of a guest without it, on its way to a Broadwell")
def _() -> tuple[Found, Found]:
    data = image("Icelake-Server", 0x207)
    return lint(data, "Icelake-Server", 0x207, xcr0=7), lint(data, "Icelake-Server", 0x207, xcr0=0x207)


@case("L-XSTATE-MASK", "rr-debugger/rr issue 2655: PKRU set by CPUID, where the kernel's XCR0 is 7")
def _() -> tuple[Found, Found]:
    # On Zen 2, which has PKRU at byte 832 and an area of 832 bytes for XCR0 7, that is beyond the end.
    data = image("EPYC-Genoa", 0x2E3, xstate_bv=3 | PKRU)
    return lint(put(data[:], 512, 7 | PKRU), "EPYC-Genoa", 0x2E3), lint(data, "EPYC-Genoa", 0x2E3)


@case("L-XSTATE-XFD", "KVM, 2026: tiles saved after the guest armed IA32_XFD")
def _() -> tuple[Found, Found]:
    data = image("SapphireRapids", AMX, tilecfg=TILECFG, tmm0=b"\1".ljust(1024, b"\0"))
    armed = {"xcr0": AMX, "xfd": 1 << 18}
    saved = image("SapphireRapids", AMX, tilecfg=TILECFG)
    return lint(data, "SapphireRapids", AMX, **armed), lint(saved, "SapphireRapids", AMX, **armed)


@case("L-XSTATE-XCOMP", "getsentry/sentry-native minidump.dmp: CompactionMask 8000000000000004H, XSTATE_BV with 3")
def _() -> tuple[Found, Found]:
    data = image("AlderLake", 4, COMPACTED, ymm0=bytes(31) + b"\1", xstate_bv=4)
    return lint(put(data[:], 512, 7), "AlderLake", 4, COMPACTED), lint(data, "AlderLake", 4, COMPACTED)


@case("L-XCOMP-XCR0", "superfly/firecracker pull request 10: CET_U in XCOMP_BV, IA32_XSS 0 after the resume")
def _() -> tuple[Found, Found]:
    data = image("EPYC-Turin", 0xAE7, COMPACTED)
    facts = {"xcr0": 0x2E7, "fmt": COMPACTED}
    return lint(data, "EPYC-Turin", 0xAE7, xss=0, **facts), lint(data, "EPYC-Turin", 0xAE7, xss=0x800, **facts)


@case("L-XCOMP-FORMAT", "CVE-2017-15537: XCOMP_BV from ptrace in a standard area")
def _() -> tuple[Found, Found]:
    data = image("SandyBridge", 7)
    return lint(put(data[:], 520, 1 << 5), "SandyBridge", 7), lint(data, "SandyBridge", 7)


@case("L-XCOMP-FORMAT", "Linux, mid-2020: bit 63 of XCOMP_BV in a note of the standard format")
def _() -> tuple[Found, Found]:
    data = image("SandyBridge", 7)
    return lint(put(data[:], 520, BIT63 | 7), "SandyBridge", 7), lint(data, "SandyBridge", 7)


@case("L-HEADER-RESERVED", "nuta/kerla pull request 136: XSAVEC into memory that was not zeroed")
def _() -> tuple[Found, Found]:
    poison = bytearray(b"\xa5" * 4096)
    xsave.Processor(model("SapphireRapids"), xcr0=AVX512).xsavec(poison, AVX512)
    zeros = bytearray(4096)
    xsave.Processor(model("SapphireRapids"), xcr0=AVX512).xsavec(zeros, AVX512)
    bad = [each for each in lint(poison, "SapphireRapids", AVX512, COMPACTED) if each.id != "L-STALE-INIT"]
    return bad, lint(zeros, "SapphireRapids", AVX512, COMPACTED)


@case("L-HEADER-TAIL", "measured on Linux 6.18: KVM_SET_XSAVE refuses byte 575, XRSTOR loads")
def _() -> tuple[Found, Found]:
    data = image("EPYC-Genoa", 7)
    assert xsave.Processor(model("EPYC-Genoa"), xcr0=7).try_xrstor(bytes(put(data[:], 575, 1, 1)), 7) is None
    return lint(put(data[:], 575, 1, 1), "EPYC-Genoa", 7), lint(data, "EPYC-Genoa", 7)


@case("L-MXCSR-RESERVED", "checkpoint-restore/criu pull request 1880: random bits of MXCSR")
def _() -> tuple[Found, Found]:
    # Bit 17 is one CPU's misaligned mode and reserved on the other.
    data = put(image("Icelake-Server", 7), 24, 0x21F80, 4)
    return lint(data, "Icelake-Server", 7), lint(put(image("EPYC-Genoa", 7), 24, 0x21F80, 4), "EPYC-Genoa", 7)


@case("L-MXCSR-ZERO", "FEX-Emu/FEX pull request 5401: MXCSR 9FC0H before the signal, 0 after")
def _() -> tuple[Found, Found]:
    data = put(image("SapphireRapids", 7), 24, 0x9FC0, 4)
    return lint(put(data[:], 24, 0, 4), "SapphireRapids", 7), lint(data, "SapphireRapids", 7)


@case("L-MXCSR-ZERO", "SDM1 13.8.2: the compacted format loads MXCSR with SSE alone")
def _() -> tuple[Found, Found]:
    data = image("SapphireRapids", 7, COMPACTED, xmm0=b"\1" * 16)
    other = image("SapphireRapids", 7, COMPACTED, xstate_bv=4, ymm0=bytes(31) + b"\1")
    return (lint(put(data, 24, 0, 4), "SapphireRapids", 7, COMPACTED),
            lint(put(other, 24, 0, 4), "SapphireRapids", 7, COMPACTED))  # fmt: skip


@case("L-AREA-CUT", "checkpoint-restore/criu issue 1448, rust-vmm/mshv issue 295: 4,096 bytes of an area with tiles")
def _() -> tuple[Found, Found]:
    data = image("SapphireRapids", AMX | PKRU, tilecfg=TILECFG, tmm0=b"\1".ljust(1024, b"\0"))
    cut = xsave.open(bytes(data[:4096]), cpu="SapphireRapids")
    return audit.lint_image(cut), audit.lint_image(xsave.open(bytes(data), cpu="SapphireRapids"))


@case("L-AREA-CUT", "the same of a compacted area: XCOMP_BV has what the bytes do not")
def _() -> tuple[Found, Found]:
    data = image("SapphireRapids", AMX, COMPACTED, tilecfg=TILECFG, tmm0=b"\1".ljust(1024, b"\0"))
    cut = [each for each in lint(data[:4096], "SapphireRapids", 0x200E7, COMPACTED) if each.id != "L-XCOMP-FORMAT"]
    return cut, lint(data, "SapphireRapids", AMX, COMPACTED)


@case("L-STALE-INIT", "gem5/gem5 issue 296: registers filled in, XSTATE_BV left at 0")
def _() -> tuple[Found, Found]:
    data = image("SandyBridge", 7, xmm3=b"\x11" * 16)
    return lint(put(data[:], 512, 0), "SandyBridge", 7), lint(data, "SandyBridge", 7)


@case("L-STALE-LEAK", "Linux 9e4636545933: text of the kernel's heap in the note of a thread without vector state")
def _() -> tuple[Found, Found]:
    def core(area: bytearray) -> Found:
        thread = elf.Thread(xstate=bytes(put(area, 464, 7)), fpregs=bytes(image("SandyBridge", 7)[:512]))
        return audit.lint_image(xsave.open(elf.core(elf.linux_notes([thread]))))

    clean = image("SandyBridge", 7, xstate_bv=0)
    leak = clean[:]
    leak[160:192] = b"libpthread.so.0 /usr/lib/x86_64-"
    return core(leak), core(clean)


@case("L-TILE-LOST", "CRIU 4.2: XSTATE_BV 600E7H, and no field of the image holds tiles")
def _() -> tuple[Found, Found]:
    data = image("SapphireRapids", AVX512)
    found = [lint(put(data[:], 512, bits), "SapphireRapids", AVX512) for bits in (AMX, AVX512)]
    return found[0], found[1]


@case("L-TILE-LOST", "CRIU 4.2, read into an area with room for tiles: zeros")
def _() -> tuple[Found, Found]:
    data = image("SapphireRapids", AMX, xstate_bv=AMX)
    kept = image("SapphireRapids", AMX, tilecfg=TILECFG, tmm0=b"\1".ljust(1024, b"\0"))
    return lint(data, "SapphireRapids", AMX), lint(kept, "SapphireRapids", AMX)


@case("L-TILE-ZEROS", "erratum SPR4, and a thread after TILEZERO: TILECFG is there, TILEDATA zeros")
def _() -> tuple[Found, Found]:
    cpu = xsave.Processor(model("SapphireRapids"), xcr0=AMX)
    cpu.ldtilecfg(TILECFG)
    cpu.tilezero(0)
    found = []
    for tile in (b"", b"\1\2\3\4"):
        if tile:
            cpu.tileloadd(0, tile.ljust(64, b"\0"), 0)
        area = bytearray(11008)
        cpu.xsave(area, AMX)
        found.append(lint(area, "SapphireRapids", AMX))
    return found[0], found[1]


@case("L-TILE-CONFIG", "Bochs: rows and colsb in each other's place", "L-TILE-SHAPE")
def _() -> tuple[Found, Found]:
    tile = b"\1".ljust(1024, b"\0")
    good = bytes([1] + 15 * [0]) + struct.pack("<8H", *[64] * 8) + bytes(16) + bytes([16] * 8) + bytes(8)
    swapped = bytes([1] + 15 * [0]) + struct.pack("<8H", *[16] * 8) + bytes(16) + bytes([64] * 8) + bytes(8)
    return (lint(image("SapphireRapids", AMX, tilecfg=swapped, tmm0=tile), "SapphireRapids", AMX),
            lint(image("SapphireRapids", AMX, tilecfg=good, tmm0=tile), "SapphireRapids", AMX))  # fmt: skip


@case("L-TILE-SHAPE", "Bochs: XINUSE of tiles inverted, so that TILEDATA counts where nothing is configured")
def _() -> tuple[Found, Found]:
    tile = b"\1".ljust(1024, b"\0")
    return (lint(image("SapphireRapids", AMX, tmm0=tile), "SapphireRapids", AMX),
            lint(image("SapphireRapids", AMX, tilecfg=TILECFG, tmm0=tile), "SapphireRapids", AMX))  # fmt: skip


@case("L-PKRU-OPEN", "rr-debugger/rr pull request 2651: XSTATE_BV without PKRU")
def _() -> tuple[Found, Found]:
    data = image("Icelake-Server", 0x2E7)
    return lint(put(data[:], 512, 3), "Icelake-Server", 0x2E7)[-1:], lint(data, "Icelake-Server", 0x2E7)


@case("L-PKRU-OPEN", "the same in use")
def _() -> tuple[Found, Found]:
    return (lint(image("EPYC-Rome", 0x207, pkru=0), "EPYC-Rome", 0x207),
            lint(image("EPYC-Rome", 0x207), "EPYC-Rome", 0x207))  # fmt: skip


# -- CPUID -------------------------------------------------------------------------------------------------


def leaves(cpu: str, changes: dict[tuple[int, int, int], int]) -> dict[tuple[int, int], tuple[int, ...]]:
    """A CPU's leaves with other registers: {(leaf, subleaf, 0 to 3 for EAX to EDX): value}."""
    found = {key: list(values) for key, values in model(cpu).cpuid.items()}
    for (leaf, subleaf, register), value in changes.items():
        found[leaf, subleaf][register] = value
    return {key: tuple(values) for key, values in found.items()}


@case("L-CPUID-FEATURE", "Zen 2: PKRU in 0DH.0:EAX, 7.0:ECX[3] = 0")
def _() -> tuple[Found, Found]:
    return audit.lint_model(model("EPYC-Rome")), audit.lint_model(model("EPYC-Milan"))


@case("L-CPUID-COMPONENT", "microsoft/openvmm pull request 2691: AVX-512 in leaf 7, XCR0 without it")
def _() -> tuple[Found, Found]:
    size = reference.standard_size("SapphireRapids", 0x207)
    _, ebx, _, edx = model("SapphireRapids").cpuid[7, 0]
    changes = {(0xD, 0, 0): 0x207, (0xD, 0, 2): size, (7, 0, 3): edx & ~(0b1101 << 22)}
    bad = leaves("SapphireRapids", changes)
    hidden = leaves("SapphireRapids", {**changes, (7, 0, 1): ebx & ~(1 << 16)})
    return audit.lint_model(bad), audit.lint_model(hidden)


@case("L-CPUID-EBX", "coconut-svsm/svsm issue 1057: EBX 240H, ECX 340H, XCR0 7")
def _() -> tuple[Found, Found]:
    table = {(0xD, 0): (7, 0x240, 0x340, 0), (0xD, 1): (0xF, 0x240, 0, 0), (0xD, 2): (0x100, 0x240, 0, 0)}
    return audit.lint_model(table, xcr0=7), audit.lint_model(table, xcr0=1, xss=0)


# Leaves of the report: XCR0 600E7H; IA32_XSS of a Linux guest was CET_U.
_TDX = {
    (0xD, 0): (0x600E7, 0x2B00, 0x2B00, 0), (0xD, 1): (0x1B, 0x29D0, 0x1800, 0),
    (0xD, 2): (0x100, 0x240, 0, 0), (0xD, 5): (0x40, 0x440, 0, 0), (0xD, 6): (0x200, 0x480, 0, 0),
    (0xD, 7): (0x400, 0x680, 0, 0), (0xD, 11): (0x10, 0, 1, 0), (0xD, 12): (0x18, 0, 1, 0),
    (0xD, 17): (0x40, 0xAC0, 2, 0), (0xD, 18): (0x2000, 0xB00, 6, 0),
}  # fmt: skip


@case("L-CPUID-EBX1", "microsoft/openvmm issue 708: size 10752 != kernel_size 10704")
def _() -> tuple[Found, Found]:
    right = {**_TDX, (0xD, 1): (0x1B, 10752, 0x1800, 0)}
    return audit.lint_model(_TDX, xcr0=0x600E7, xss=0x800), audit.lint_model(right, xcr0=0x600E7, xss=0x800)


@case("L-CPUID-EBX1", "Bochs: no alignment to 64 bytes, 10,696 for 10,752")
def _() -> tuple[Found, Found]:
    bad = leaves("SapphireRapids", {(0xD, 1, 1): 10696})
    good = leaves("SapphireRapids", {(0xD, 1, 1): 10752})
    return audit.lint_model(bad, xcr0=0x602E7, xss=0), audit.lint_model(good, xcr0=0x602E7, xss=0)


@case("L-CPUID-ECX", "Bochs, Linux before 2025: the end of the highest component, APX")
def _() -> tuple[Found, Found]:
    offset, size = reference.standard_offsets("DiamondRapids", APX)[19]
    bad = leaves("DiamondRapids", {(0xD, 0, 2): offset + size})
    return audit.lint_model(bad), audit.lint_model(model("DiamondRapids"))


@case("L-AMX-HALF", "Linux 55cd57b596e8: TILECFG on offer without the permission for TILEDATA")
def _() -> tuple[Found, Found]:
    size = reference.standard_size("SapphireRapids", 0x202E7)
    bad = leaves("SapphireRapids", {(0xD, 0, 0): 0x202E7, (0xD, 0, 2): size})
    return ([each for each in audit.lint_model(bad) if each.id != "L-CPUID-COMPONENT"],
            audit.lint_model(model("SapphireRapids")))  # fmt: skip


@case("L-AMX-HALF", "SDM1 13.3: in XCR0, and not in the mask of a frame (200E7H, of a thread without tiles)")
def _() -> tuple[Found, Found]:
    frame = lint(image("SapphireRapids", 0x200E7), "SapphireRapids", 0x200E7)
    return audit.lint_config(model("SapphireRapids"), xcr0=0x200E7), frame


@case("L-CET-PAIR", "TDX module, check_xfam: bit 11 without bit 12")
def _() -> tuple[Found, Found]:
    offer = {"xcr0": AVX512, "xss": 0x800}  # Linux itself sets CET_U alone
    return (audit.lint_config(model("EPYC-Genoa"), allowed_xss=0x800, **offer),
            audit.lint_config(model("EPYC-Genoa"), allowed_xss=0x1800, **offer))  # fmt: skip


@case("L-CET-PAIR", "KVM: CET state in CPUID in pairs or not at all")
def _() -> tuple[Found, Found]:
    return (audit.lint_model(leaves("EPYC-Genoa", {(0xD, 1, 2): 0x1000})),
            audit.lint_model(leaves("EPYC-Genoa", {(0xD, 1, 2): 0})))  # fmt: skip


@case("L-XCR0-SUPERVISOR", "cloud-hypervisor/cloud-hypervisor issue 4170: 82FFH for the user part of XFAM")
def _() -> tuple[Found, Found]:
    facts = {"xcr0": AVX512, "xss": 0}
    return (audit.lint_config(model("SapphireRapids"), allowed_xcr0=0x82FF, **facts),
            audit.lint_config(model("SapphireRapids"), allowed_xcr0=0x2FF, **facts))  # fmt: skip


@case("L-MASK-UNSUPPORTED", "0vercl0k/wtf issue 18: a snapshot's XCR0 E7H on a host without AVX-512")
def _() -> tuple[Found, Found]:
    return audit.lint_config(model("Skylake-Client"), xcr0=0xE7), audit.lint_config(model("Skylake-Server"), xcr0=0xE7)


# -- configurations ------------------------------------------------------------------------------------------


def config(cpu: str = "SapphireRapids", **facts: object) -> Found:
    return audit.lint_config(model(cpu), **facts)  # type: ignore[arg-type]


@case("L-SAVE-NARROW", "glibc's trampolines save EEH: with XCR0 602E7H x87, PKRU and tiles stay")
def _() -> tuple[Found, Found]:
    return config(xcr0=0x602E7, save="XSAVEC", save_mask=0xEE), config(xcr0=0x602E7, save="XSAVEC", save_mask=2**64 - 1)


@case("L-SAVE-OVER", "bloomberg/chef-bcpc pull request 2278: the host's mask 207H, the guest's CPUID without PKRU")
def _() -> tuple[Found, Found]:
    facts = {"cpu": "Icelake-Server", "xcr0": 7, "allowed_xcr0": 7, "allowed_xss": 0}
    return config(save_mask=0x207, **facts), config(save_mask=7, **facts)


@case("L-RESTORE-NARROW", "bloomberg/chef-bcpc pull request 2278: PKRU saved and not loaded")
def _() -> tuple[Found, Found]:
    facts = {"cpu": "Icelake-Server", "xcr0": 0x207, "save_mask": 0x207}
    return config(restore_mask=7, **facts), config(restore_mask=0x207, **facts)


@case("L-BUFFER-SMALL", "rust-lang/stdarch pull request 1934: 2,560 bytes on a CPU with 2,696, 11,008 with AMX")
def _() -> tuple[Found, Found]:
    return config(xcr0=0x602E7, size=2560), config(xcr0=0x602E7, size=11008)


@case("L-BUFFER-COMPACT", "asterinas/asterinas issue 3920: CPUID(0DH,1).EBX for XSAVE, 840 for 2,696 bytes")
def _() -> tuple[Found, Found]:
    small = reference.compacted_offsets("AlderLake", 0x207)[1]
    large = reference.standard_size("AlderLake", 0x207)
    assert (small, large) == (840, 2696)
    return config("AlderLake", xcr0=0x207, size=small), config("AlderLake", xcr0=0x207, size=large)


@case("L-FORMAT", "Linux df1daba7d1cb: XSAVES in the host, the standard format for user space")
def _() -> tuple[Found, Found]:
    facts = {"xcr0": 7, "restore": "KVM_SET_XSAVE"}
    return config(save="XSAVES", xss=0, **facts), config(save="XSAVE", **facts)


@case("L-FORMAT", "SDM1 13.12: XRSTORS takes the compacted format only")
def _() -> tuple[Found, Found]:
    return config(xcr0=7, save="XSAVE", restore="XRSTORS"), config(xcr0=7, save="XSAVEC", restore="XRSTORS")


@case("L-XSS-DIFFERS", "projectacrn/acrn-hypervisor pull request 6435: the firmware's PT, then the guest's 0")
def _() -> tuple[Found, Found]:
    facts = {"cpu": "KabyLake", "xcr0": 0x1F, "save": "XSAVES", "xss": 0x100}
    return config(restore_xss=0, **facts), config(restore_xss=0x100, **facts)


@case("L-SNAPSHOT-XSS", "firecracker-microvm/firecracker pull request 5972: no IA32_XSS, an area with CET_U")
def _() -> tuple[Found, Found]:
    area = Area(bytes(image("EPYC-Turin", 0xAE7, COMPACTED)), Layout(model("EPYC-Turin"), 0xAE7, COMPACTED))
    facts = {"cpu": "EPYC-Turin", "xcr0": 0x2E7, "areas": [area]}
    return config(**facts), config(xss=0x800, xfd=0, **facts)
