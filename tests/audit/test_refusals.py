"""Real refusals, most of them told as "Invalid argument" and nothing more: here the answer names the bit or the size,
and the next step. Each story has the facts of its report."""

import struct
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
import reference

from tests.laws.strategies import make_case, model
from xsave import COMPACTED, STANDARD, Area, Layout, audit

BIT63 = 1 << 63
KEYS = 0x55555554


@dataclass
class Told:
    """What is to be said: by which door, with which error, of which components, in which words, and what next."""

    door: str
    error: str
    mask: int
    words: tuple[str, ...]
    hint: str
    offset: "int | None" = None
    converted: "bool | None" = None  # whether a conversion makes it pass


@dataclass
class Story:
    source: str
    told: Told
    run: Callable[[], audit.Migration] = field(repr=False)


STORIES: list[Story] = []


def story(source: str, told: Told) -> Callable[[Callable[[], audit.Migration]], None]:
    def keep(run: Callable[[], audit.Migration]) -> None:
        STORIES.append(Story(source, told, run))

    return keep


def area(cpu: str, mask: int, xstate_bv: int, fmt: int = STANDARD, **values: "int | bytes") -> Area:
    """An area as a kernel makes it: MXCSR and PKRU Linux's, zeros where nothing is in use."""
    name = reference.COMPACTED if fmt == COMPACTED else reference.STANDARD
    held: "dict[str, int | bytes]" = {"mxcsr": 0x1F80, **values}
    if mask >> 9 & 1:
        held.setdefault("pkru", KEYS)
    return view(reference.encode(held, cpu, mask, name, xstate_bv), cpu, mask, fmt)


def view(data: bytes, cpu: str, mask: int, fmt: int = STANDARD) -> Area:
    return Area(data, Layout(model(cpu), mask, fmt), check=False)


@story("0vercl0k/wtf issue 18: KVM_SET_XCRS failed, a snapshot with XCR0 E7H on a host without AVX-512",
       Told("KVM_SET_XCRS", "EINVAL", 0xE0, ("XCR0 0xe7", "0xe0 (opmask ZMM_Hi256 Hi16_ZMM)", "0x207"),
            "take a host that has it, or boot the guest with a CPUID that leaves it out", converted=False))  # fmt: skip
def wtf() -> audit.Migration:
    return audit.migrate(area("EPYC-Genoa", 0xE7, 7), model("EPYC-Rome"), guest_xcr0=0xE7, by=["kvm"])


@story("rr-debugger/rr issue 2655: PTRACE_SETREGSET of an area with PKRU, on a kernel that had not enabled it",
       Told("PTRACE_SETREGSET", "EINVAL", 0x200, ("XSTATE_BV 0x207 has 0x200 (PKRU)", "works with 0x7"),
            "leave it out", 513, converted=False))  # fmt: skip
def rr() -> audit.Migration:
    return audit.migrate(area("EPYC-Rome", 0x207, 0x207), model("EPYC-Rome"), xcr0=7, by=["ptrace"])


@story("bloomberg/chef-bcpc pull request 2278: PKRU, initial, in the areas of guests that have none",
       Told("KVM_SET_XSAVE", "EINVAL", 0x200, ("0x200 (PKRU)",), "nothing is lost", 513, converted=True))  # fmt: skip
def bcpc() -> audit.Migration:
    saved = area("Skylake-Server", 0x207, 0x207, pkru=0)
    return audit.migrate(saved, model("Skylake-Server"), xcr0=7, guest_xcr0=7, by=["kvm"])


@story("Linux df1daba7d1cb: compacted areas of KVM_GET_XSAVE handed to KVM_SET_XSAVE",
       Told("KVM_SET_XSAVE", "EINVAL", 0, ("XCOMP_BV 0x8000000000000207 is not 0", "standard format"),
            "convert it to the standard format", 520, converted=True))  # fmt: skip
def compacted() -> audit.Migration:
    saved = make_case("Skylake-Server", COMPACTED, 0x207, 0x207, 5).view()
    return audit.migrate(saved, model("Skylake-Server"), guest_xcr0=7, by=["kvm"])


@story("nuta/kerla pull request 136: a save into memory that was not zeroed; XRSTOR takes #GP of byte 528",
       Told("XRSTOR", "#GP", 0, ("528",), "converting writes a header that it takes", 528, converted=True))  # fmt: skip
def kerla() -> audit.Migration:
    raw = bytearray(area("SandyBridge", 7, 7))
    raw[528:536] = b"\xa5" * 8
    return audit.migrate(view(raw, "SandyBridge", 7), model("SandyBridge"), by=["xrstor"])


@story("measured, Linux 6.18: bytes 544-575 of the header, on which XRSTOR does not fault, and KVM_SET_XSAVE does",
       Told("KVM_SET_XSAVE", "EINVAL", 0, ("header byte 575 is 0x01",), "528 to 575 of the header must be 0", 575,
            converted=True))  # fmt: skip
def tail() -> audit.Migration:
    raw = bytearray(area("EPYC-Genoa", 0xE7, 7)).ljust(4096, b"\0")
    raw[575] = 1
    return audit.migrate(view(raw, "EPYC-Genoa", 0xE7), model("EPYC-Genoa"), by=["kvm"])


@story("checkpoint-restore/criu pull request 1880: random MXCSR bits in PTRACE_SETREGSET",
       Told("PTRACE_SETREGSET", "EINVAL", 0, ("MXCSR 0x8021f80 has reserved bits 0x8000000",), "MXCSR_MASK 0x2ffff", 27,
            converted=True))  # fmt: skip
def mxcsr() -> audit.Migration:
    raw = bytearray(area("EPYC-Genoa", 0x2E7, 7))
    raw[24:28] = struct.pack("<I", 0x8021F80)
    return audit.migrate(view(raw, "EPYC-Genoa", 0x2E7), model("EPYC-Genoa"), by=["ptrace"])


@story("rust-vmm/mshv issue 295, checkpoint-restore/criu issue 1448: 4,096 bytes of an area that has tiles",
       Told("KVM_SET_XSAVE", "", 0x40000, ("ends at byte 4,096", "TILEDATA", "11,008"), "KVM_CAP_XSAVE2", 4096,
            converted=False))  # fmt: skip
def truncated() -> audit.Migration:
    whole = bytes(make_case("SapphireRapids", STANDARD, 0x602E7, 0x602E7, 6).view())
    saved = view(whole[:4096], "SapphireRapids", 0x2E7)
    return audit.migrate(saved, model("SapphireRapids"), guest_xcr0=0x602E7, by=["kvm"],
                         kept=4096)  # fmt: skip


@story("Linux 55cd57b596e8: TILECFG offered without TILEDATA",
       Told("KVM_SET_XCRS", "EINVAL", 0x60000, ("XCR0 0x202e7", "bits 17 and 18 (AMX) are set together",
                                             "of 0x60000 (TILECFG TILEDATA) it has 0x20000 (TILECFG)"),
            "no guest can have loaded this XCR0"))  # fmt: skip
def half() -> audit.Migration:
    return audit.migrate(area("SapphireRapids", 0x2E7, 7), model("SapphireRapids"), guest_xcr0=0x202E7, by=["kvm"])


@story("Linux arch/x86/kernel/fpu/xstate.c, xstate_get_guest_group_perm: a guest's tiles without the permission",
       Told("KVM_SET_XCRS", "EINVAL", 0x60000, ("XCR0 0x602e7", "0x60000 (TILECFG TILEDATA)"),
            "ARCH_REQ_XCOMP_GUEST_PERM, 18"))  # fmt: skip
def permission() -> audit.Migration:
    return audit.migrate(area("SapphireRapids", 0x2E7, 7), model("SapphireRapids"), xcr0=0x2E7, guest_xcr0=0x602E7,
                         by=["kvm"])  # fmt: skip


@story("measured, Linux 6.18 with AMX: TILEDATA in PTRACE_SETREGSET of a thread that has used no tile",
       Told("PTRACE_SETREGSET", "EINVAL", 0x40000, ("0x40000 (TILEDATA)", "has not used it yet"), "TILEZERO",
            514))  # fmt: skip
def unused() -> audit.Migration:
    saved = make_case("SapphireRapids", STANDARD, 0x602E7, 0x602E7, 8).view()
    return audit.migrate(saved, model("SapphireRapids"), guest_xfd=1 << 18, by=["ptrace"])


@story("measured: PTRACE_SETREGSET of an area that fits its mask, where the kernel's own is longer",
       Told("PTRACE_SETREGSET", "EFAULT", 0, ("2696 bytes", "no less than 11008"), "11,008 bytes", 2696,
            converted=True))  # fmt: skip
def short() -> audit.Migration:
    return audit.migrate(area("SapphireRapids", 0x2E7, 7), model("SapphireRapids"), by=["ptrace"])


@story("CRIU criu/arch/x86/cpu.c: a container moved to an older host",
       Told("criu restore", "error", 0xE0, ("unsupported bits (0xe0)", "opmask ZMM_Hi256 Hi16_ZMM"), "--cpu-cap=none",
            converted=False))  # fmt: skip
def older() -> audit.Migration:
    return audit.migrate(area("EPYC-Genoa", 0x2E7, 7), model("EPYC-Rome"), by=["criu"])


@story("CRIU criu/arch/x86/cpu.c: a container moved to another CPU with the same components",
       Told("criu restore", "error", 0, ("xsave size mismatch (2696/2440)",), "own buffers",
            converted=False))  # fmt: skip
def mismatch() -> audit.Migration:
    return audit.migrate(area("SapphireRapids", 0x2E7, 7), model("EPYC-Genoa"), by=["criu"])


@story("firecracker-microvm/firecracker pull request 5972: a snapshot without IA32_XSS, its areas with CET_U",
       Told("XRSTORS", "#GP", 0x800, ("CET_U",), "IA32_XSS must have 0x800 (CET_U)", 521))  # fmt: skip
def supervisor() -> audit.Migration:
    saved = make_case("SapphireRapids", COMPACTED, 0xAE7, 0xA07, 9).view()
    return audit.migrate(saved, model("SapphireRapids"), xss=0, by=["xrstor"])


@pytest.mark.parametrize("each", STORIES, ids=[each.run.__name__ for each in STORIES])
def test_the_answer_names_it(each: Story) -> None:
    made, told = each.run(), each.told
    door = next(door for door in made.doors if door.name == told.door)
    assert door.error == told.error
    assert not door.passes and not made.passes
    blamed = [one for one in door.objections if int(one.mask) == told.mask and told.hint in one.hint]
    assert blamed, door.objections
    first = blamed[0]
    assert [word for word in told.words if word not in first.message] == [], first.message
    assert first.offset == told.offset
    if told.converted is not None:
        assert made.conversion.passes == told.converted


@pytest.mark.parametrize("each", STORIES, ids=[each.run.__name__ for each in STORIES])
def test_without_the_culprit_nothing_is_said(each: Story) -> None:
    """What the door blames is what it is about: without it, or where it is offered, the objection is gone."""
    made = each.run()
    codes = {one.code for door in made.doors if door.name == each.told.door for one in door.objections}
    source = made.state.layout
    whole = int(source.model.xcr0_mask)
    good = area(source.model.name, whole, 7)
    again = audit.migrate(good, source.model, guest_xcr0=whole, by=[made.doors[0].way])
    said = {one.code for door in again.doors for one in door.objections}
    assert not codes & said - {"K-SIZE"}


def test_ten_at_least() -> None:
    assert len({each.source for each in STORIES}) >= 10
