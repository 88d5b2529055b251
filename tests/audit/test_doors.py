"""Each door's own objections, and what a conversion may not hide: facts of the kernel and of CRIU, one by one."""

from random import Random

import pytest
import reference

from tests.audit.test_refusals import area, view
from tests.laws.strategies import make_case, model
from tests.scale import repeats
from xsave import COMPACTED, STANDARD, Area, Layout, audit
from xsave.audit.doors import State, initial
from xsave.audit.policies.rules import least_xcr0
from xsave.audit.verdict import byte_of

SPR, GENOA = "SapphireRapids", "EPYC-Genoa"


def codes(made: audit.Migration, name: str) -> list[tuple[str, int]]:
    return [(each.code, int(each.mask)) for door in made.doors if door.name == name for each in door.objections]


def put(data: "bytes | Area", at: int, value: int, size: int = 8) -> bytearray:
    changed = bytearray(data)
    changed[at : at + size] = value.to_bytes(size, "little")
    return changed


def test_a_guest_without_tiles_has_4096_bytes() -> None:
    """Its buffer grows with its own CPUID, whatever the host has (Linux fpu/core.c, guest_fpu.uabi_size)."""
    saved = area(SPR, 0xE7, 0xE7)
    made = audit.migrate(saved, model(SPR), by=["kvm"], kept=4096)
    assert made.passes and made.conversion.data is not None and len(made.conversion.data) == 4096
    tiles = audit.migrate(make_case(SPR, STANDARD, 0x602E7, 0x60207, 1).view(), model(SPR), by=["kvm"])
    assert tiles.passes and tiles.conversion.data is not None and len(tiles.conversion.data) == 11008


@pytest.mark.parametrize(("given", "offered", "refused"), [
    (0x1800, 0x1800, 0), (0x800, 0x800, 0x800), (0x1800, 0x800, 0x1800), (0x100, 0x1900, 0x100),
    (0x1900, 0x1900, 0x100),
])  # fmt: skip
def test_ia32_xss_of_kvm(given: int, offered: int, refused: int) -> None:
    """CET in a pair or not at all; processor trace never (kvm_setup_xss_caps)."""
    made = audit.migrate(area(SPR, 7, 7), model(SPR), xss=offered, guest_xss=given, guest_xcr0=7, by=["kvm"])
    assert codes(made, "KVM_SET_MSRS IA32_XSS") == ([("MSR-MASK", refused)] if refused else [])


def test_ia32_xfd_of_kvm() -> None:
    none = audit.migrate(area(GENOA, 7, 7), model(GENOA), guest_xfd=1 << 18, guest_xcr0=7, by=["kvm"])
    assert codes(none, "KVM_SET_MSRS IA32_XFD") == [("MSR-MASK", 1 << 18)]
    saved = make_case(SPR, STANDARD, 0x602E7, 0x60207, 2).view()
    armed = audit.migrate(saved, model(SPR), guest_xfd=1 << 18, by=["kvm"])
    assert codes(armed, "KVM_SET_MSRS IA32_XFD") == []
    assert codes(armed, "KVM_SET_XSAVE") == [("K-XFD", 1 << 18)]
    assert [each.offset for door in armed.doors for each in door.objections] == [514]
    assert audit.migrate(saved, model(SPR), by=["kvm"]).passes


def test_xfd_of_xrstor() -> None:
    saved = make_case(SPR, STANDARD, 0x602E7, 0x60207, 2).view()
    made = audit.migrate(saved, model(SPR), guest_xfd=1 << 18, by=["xrstor"])
    assert made.doors[0].error == "#NM" and codes(made, "XRSTOR") == [("NM-XFD", 1 << 18)]
    clean = make_case(SPR, STANDARD, 0x602E7, 0x20207, 2).view()
    assert audit.migrate(clean, model(SPR), guest_xfd=1 << 18, by=["xrstor"]).passes


def test_what_criu_compares() -> None:
    """XSAVES, the components of CPUID (not of XCR0), the size for XCR0 and the one for all (cpu_validate_features)."""
    naples = audit.migrate(view(bytes(area("SandyBridge", 7, 7)), "EPYC", 7), model("Broadwell"), by=["criu"])
    assert [code for code, _ in codes(naples, "criu restore")] == ["C-FEATURES"]
    assert "EPYC has XSAVES and Broadwell has not" in naples.doors[0].objections[0].message
    narrow = audit.migrate(area(SPR, 0x602E7, 7), model(SPR), xcr0=0x600E7, by=["criu"])
    assert narrow.passes  # the same CPUID, and the area is as long with PKRU as without
    wide = audit.migrate(area(SPR, 7, 7), model("Icelake-Server"), xcr0=7, by=["criu"])
    assert [code for code, _ in codes(wide, "criu restore")] == ["C-SIZE-MAX"]
    assert "(11008/2696)" in wide.doors[0].objections[0].message


def test_criu_blames_what_the_process_had() -> None:
    """TILEDATA in XSTATE_BV of a process whose XCR0 lacks it is no tile that a dump loses."""
    saved = make_case(SPR, STANDARD, 0x602E7, 0x60207, 2).view()
    assert codes(audit.migrate(saved, model(SPR), guest_xcr0=0x2E7, xcr0=0x2E7, by=["criu"]), "criu restore") == []
    lost = audit.migrate(saved, model(SPR), by=["criu"])
    assert codes(lost, "criu restore") == [("C-LOST", 0x60000)]


def test_bytes_that_are_missing_for_xrstor() -> None:
    whole = bytes(make_case(SPR, STANDARD, 0x602E7, 0x60207, 3).view())
    made = audit.migrate(view(whole[:4096], SPR, 0x2E7), model(SPR), by=["xrstor"], kept=4096)
    assert codes(made, "XRSTOR") == [("A-CUT", 0x40000)]
    assert made.conversion.data is None


def test_mxcsr_bits_of_another_make() -> None:
    """Bit 17 is the misaligned exception mask of AMD CPUs, and reserved elsewhere."""
    saved = view(put(area(GENOA, 0xE7, 7), 24, 0x21F80, 4), GENOA, 0xE7)
    assert audit.migrate(saved, model(GENOA), by=["xrstor"]).passes
    made = audit.migrate(saved, model(SPR), by=["xrstor"])
    assert made.doors[0].error == "#GP" and codes(made, "XRSTOR") == [("H-MXCSR", 0)]
    assert made.conversion.changes == ["MXCSR 0x21f80 without its reserved bits: 0x1f80"]
    assert made.conversion.data is not None and made.conversion.data[24:28] == (0x1F80).to_bytes(4, "little")


def test_a_dirty_header_is_said() -> None:
    saved = view(put(area(SPR, 0xE7, 7), 560, 1), SPR, 0xE7)
    assert audit.migrate(saved, model(SPR), by=["kvm"]).conversion.changes == ["reserved bytes of the header are 0"]


@pytest.mark.parametrize(("fcw", "cleared"), [(0x37F, 1), (0x27F, 0)])
def test_initial_values_that_are_not_zero(fcw: int, cleared: int) -> None:
    """FCW 037FH is x87's initial value: in use with it and nothing else, x87 is lost to nobody; with another it is."""
    data = bytearray(bytes(reference.encode({"fcw": fcw, "mxcsr": 0x1F80}, SPR, 7, reference.STANDARD, 1)))
    data[2:24], data[32:160] = bytes(22), bytes(128)
    assert initial(State(bytes(data), Layout(model(SPR), 7, STANDARD), 7, 0, 0), 1) == cleared
    # An area that announces no x87 has no place for it, whatever lies there.
    announced = put(reference.encode({"fcw": fcw}, SPR, 7, reference.COMPACTED, 1), 520, 1 << 63 | 6)
    hostile = view(announced, SPR, 6, COMPACTED)
    assert int(audit.migrate(hostile, model("SandyBridge"), by=["xrstor"]).conversion.lost) == 1


def test_components_without_a_place_are_lost_not_dropped() -> None:
    """PKRU in XSTATE_BV of an area whose layout ends before it: closed keys would come back open."""
    data = bytes(make_case(SPR, STANDARD, 0x2E7, 0x2E7, 4).view())
    narrow = view(data, SPR, 0xE7)
    made = audit.migrate(narrow, model(SPR), by=["xrstor"], kept=len(data))
    assert int(made.conversion.lost) == 0x200 and made.conversion.data is None and not made.conversion.passes
    assert "the area has no place for it" in made.conversion.why
    dropped = audit.migrate(narrow, model(SPR), by=["xrstor"], kept=len(data), lost="drop").conversion
    assert dropped.data is not None and int(dropped.lost) == 0x200 and not dropped.passes


def test_reasons_of_a_loss() -> None:
    saved = make_case(SPR, COMPACTED, 0xA07, 0xA07, 9).view()
    made = audit.migrate(saved, model(SPR), xss=0x1800, guest_xss=0x1800, by=["kvm", "xrstor"])
    assert "no standard area holds supervisor state" in made.conversion.why and "not enabled" not in made.conversion.why
    assert "0x800 (CET_U)" in made.conversion.why
    tiles = make_case(SPR, STANDARD, 0x602E7, 0x60207, 2).view()
    assert "not enabled on EPYC-Genoa" in audit.migrate(tiles, model(GENOA), by=["xrstor"]).conversion.why


def test_a_conversion_is_what_the_asked_door_takes() -> None:
    saved = make_case(SPR, STANDARD, 7, 7, 5).view()
    made = audit.migrate(saved, model(SPR), xcr0=1, by=["xrstor"], lost="drop").conversion
    assert made.data is not None and made.data[512] == 1 and int(made.lost) == 6 and made.doors[0].passes
    bulldozer = make_case("Bulldozer", STANDARD, 7 | 1 << 62, 7 | 1 << 62, 5).view()
    lwp = audit.migrate(bulldozer, model("Bulldozer"), by=["kvm"], lost="drop").conversion
    assert int(lwp.lost) == 1 << 62 and [door.passes for door in lwp.doors if door.name == "KVM_SET_XSAVE"] == [True]
    assert "the kernel does not take it" in audit.migrate(bulldozer, model("Bulldozer"), by=["kvm"]).conversion.why


def test_what_is_dropped_need_not_be_there() -> None:
    whole = bytes(make_case(SPR, STANDARD, 0x602E7, 0x60007, 3).view())
    cut = view(whole[:4096], SPR, 0x2E7)
    made = audit.migrate(cut, model(GENOA), by=["xrstor"], lost="drop", kept=4096).conversion
    assert made.data is not None and int(made.lost) == 0x60000


def test_a_compacted_area_for_several_doors_becomes_a_standard_one() -> None:
    saved = make_case(GENOA, COMPACTED, 0x2E7, 0x2E7, 6).view()
    both = audit.migrate(saved, model(GENOA), by=["kvm", "xrstor"]).conversion
    assert both.layout.format == STANDARD and both.passes
    alone = audit.migrate(saved, model(GENOA), by=["xrstor"]).conversion
    assert alone.layout.format == COMPACTED and alone.passes
    older = audit.migrate(make_case(GENOA, COMPACTED, 7, 7, 6).view(), model("SandyBridge"), by=["xrstor"])
    assert older.conversion.layout.format == STANDARD and older.conversion.passes


def test_no_component_vanishes() -> None:
    """Of any bytes: what XSTATE_BV had is in the converted area, or called lost, or initial and cleared."""
    random = Random(12)
    seen = 0
    for _ in range(repeats(1500)):
        name = random.choice([SPR, GENOA, "DiamondRapids", "Bulldozer", "SandyBridge"])
        table = reference.CPUS[name]
        form = random.choice([STANDARD, COMPACTED])
        layout = Layout(model(name), table["xcr0"] & random.choice([7, random.getrandbits(64), -1]) | 3, form)
        data = bytearray(random.randbytes(layout.size))
        data[24:28] = (0x1F80).to_bytes(4, "little")
        used = random.getrandbits(64) & random.choice([7, table["xcr0"] | table["xss"]])
        data[512:520] = used.to_bytes(8, "little")
        data[520:576] = (int(layout.mask) | 1 << 63 if form == COMPACTED else 0).to_bytes(8, "little") + bytes(48)
        saved = Area(data, layout, check=False)
        by = random.sample(["kvm", "criu", "xrstor", "ptrace"], random.randrange(1, 5))
        made = audit.migrate(saved, model(random.choice([SPR, GENOA, "SandyBridge"])), by=by, lost="drop").conversion
        if made.data is not None:
            kept = int.from_bytes(made.data[512:520], "little")
            assert kept | int(made.lost) | int(made.cleared) == int(saved.xstate_bv)
            assert not kept & int(made.lost) and not kept & int(made.cleared)
            seen += 1
    assert seen > repeats(1500) // 4


def test_no_way_is_no_answer() -> None:
    with pytest.raises(ValueError, match="by='': one of 'kvm'"):
        audit.migrate(area(SPR, 7, 7), model(SPR), by=[])


@pytest.mark.parametrize(
    ("used", "least"),
    [(0, 1), (1, 1), (2, 3), (4, 7), (6, 7), (0x20, 0xE7), (0xA2, 0xE7), (0x200, 0x201), (0x8, 0x19),
     (0x40000, 0x60001), (1 << 19, 0x80001)],
)  # fmt: skip
def test_the_least_xcr0_with_what_is_in_use(used: int, least: int) -> None:
    assert least_xcr0(used) == least
    assert reference.kvm_xcr0(least, 0, 2**64 - 1, 2**64 - 1) is None


def test_the_next_step_depends_on_what_is_missing() -> None:
    """The permission is for tiles; AVX-512 that a host does not enable is no matter of permission."""
    def hint(guest: int, xcr0: int) -> str:
        made = audit.migrate(area(SPR, 7, 7), model(SPR), xcr0=xcr0, guest_xcr0=guest, by=["kvm"])
        return made.doors[0].objections[0].hint

    assert "ARCH_REQ_XCOMP_GUEST_PERM" in hint(0x602E7, 0x2E7)
    assert hint(0xE7, 7).startswith("no conversion helps")
    narrow = audit.migrate(area(SPR, 7, 7), model(GENOA), guest_xcr0=0x602E7, by=["kvm"])
    assert narrow.doors[0].objections[0].hint.startswith("no conversion helps")  # the CPU has no tiles


def test_ia32_xfd_disables_tiles_alone() -> None:
    made = audit.migrate(area(SPR, 7, 7), model(SPR), guest_xfd=4, guest_xcr0=7, by=["kvm"])
    assert codes(made, "KVM_SET_MSRS IA32_XFD") == [("MSR-MASK", 4)]


def test_tiles_in_use_have_room_whatever_xcr0_is() -> None:
    saved = make_case(SPR, STANDARD, 0x602E7, 0x60207, 2).view()
    made = audit.migrate(saved, model(SPR), guest_xcr0=0x2E7, by=["kvm"]).conversion
    assert made.passes and made.data is not None and len(made.data) == 11008


def test_what_is_not_in_use_need_not_be_there() -> None:
    whole = make_case(SPR, STANDARD, 0x2E7, 7, 3).view()
    for by in ("kvm", "xrstor"):
        made = audit.migrate(whole, model(SPR), guest_xcr0=7, by=[by], kept=1000)
        assert made.passes and made.conversion.passes
        short = make_case(SPR, STANDARD, 0x2E7, 0x47, 3).view()
        used = audit.migrate(short, model(SPR), guest_xcr0=7, by=[by], kept=1000)
        assert [each.code for door in used.doors for each in door.objections] == ["A-CUT"]


def test_each_loss_has_its_own_reason() -> None:
    """Word for word: not enabled there; no place in the area; supervisor state; what the kernel does not take."""
    def why(saved: Area, target: str, by: str, **facts: int) -> str:
        return audit.migrate(saved, model(target), by=[by], **facts).conversion.why  # type: ignore[arg-type]

    tiles = make_case(SPR, STANDARD, 0x602E7, 0x60207, 2).view()
    assert why(tiles, GENOA, "xrstor") == "0x60000 (TILECFG TILEDATA) in use, and not enabled on EPYC-Genoa"
    data = bytes(make_case(SPR, STANDARD, 0x2E7, 0x2E7, 4).view())
    assert why(view(data, SPR, 0xE7), SPR, "xrstor") == "0x200 (PKRU) in use, and the area has no place for it"
    cet = make_case(SPR, COMPACTED, 0xA07, 0xA07, 9).view()
    assert why(cet, SPR, "kvm", xss=0x1800, guest_xss=0x1800) == (
        "0x800 (CET_U) in use, and no standard area holds supervisor state (a VMM carries it in MSRs)"
    )
    assert why(cet, SPR, "kvm") == "0x800 (CET_U) in use, and not enabled on SapphireRapids"
    lwp = make_case("Bulldozer", STANDARD, 7 | 1 << 62, 7 | 1 << 62, 5).view()
    assert why(lwp, "Bulldozer", "ptrace") == "0x4000000000000000 (LWP) in use, and the kernel does not take it"


@pytest.mark.parametrize(
    ("form", "mask", "xss", "name"),
    [(STANDARD, 7, 0x1800, "XRSTOR"), (COMPACTED, 7, 0, "XRSTOR"), (COMPACTED, 7, 0x1800, "XRSTORS"),
     (COMPACTED, 0x807, 0, "XRSTORS")],
)  # fmt: skip
def test_which_instruction_restores_it(form: int, mask: int, xss: int, name: str) -> None:
    saved = make_case(SPR, form, mask, 7, 4).view()
    made = audit.migrate(saved, model(SPR), xss=0x1800, guest_xss=xss, by=["xrstor"])
    assert [door.name for door in made.doors] == [name] and made.passes


@pytest.mark.parametrize(
    ("bits", "at"), [(1, 512), (0x80, 512), (0x100, 513), (0x40200, 513), (0x60000, 514), (1 << 63, 519)]
)
def test_the_byte_of_the_lowest_bit(bits: int, at: int) -> None:
    assert byte_of(512, bits) == at


@pytest.mark.parametrize(("xcr0", "code", "group"), [
    (2, "R-X87", 1), (5, "R-AVX", 6), (0xB, "R-MPX", 0x18), (0x27, "R-AVX512", 0xE6), (0x20007, "R-AMX", 0x60000),
])  # fmt: skip
def test_a_rule_names_all_that_it_is_about(xcr0: int, code: str, group: int) -> None:
    cpu = "Skylake-Client" if code == "R-MPX" else SPR
    saved = area(cpu, 7, 7)
    assert codes(audit.migrate(saved, model(cpu), guest_xcr0=xcr0, by=["kvm"]), "KVM_SET_XCRS") == [(code, group)]
