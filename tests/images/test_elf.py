"""Cores of every system, class and order through the reader: what was written comes back."""

import io
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import xsave
from tests.images.areas import area_of, entries_of, layout_of, legacy_of
from tests.writers import elf
from tests.writers.elf import Thread

ZEN4 = layout_of("EPYC-Genoa", 0x2E7)
SPR = layout_of("SapphireRapids", 0x600E7)
AVX = layout_of("Haswell", 7)


def threads_of(layout, count=3, signal=11, **more):
    made = []
    for i in range(count):
        area = area_of(layout, seed=i + 1)
        made.append(
            Thread(tid=1000 + i, signal=signal, gpr={"rip": 0x401000 + i, "rsp": 0x7FFE0000, "rax": i, "cs": 0x33},
                   xstate=area, fpregs=legacy_of(area), **more)
        )
    return made


def same(image, threads):
    assert [thread.tid for thread in image.threads] == [thread.tid for thread in threads]
    for have, want in zip(image.threads, threads, strict=True):
        assert bytes(have.area) == want.xstate[: have.area.layout.size]
        assert have.warnings == []


def test_kernel_core_with_layout_note():
    threads = threads_of(SPR)
    image = xsave.open(elf.core(elf.linux_notes(threads, layout=entries_of(SPR))))
    same(image, threads)
    assert (image.kind, image.os, image.abi, image.warnings) == ("ELF core", "Linux", "x86-64", [])
    first, second = image.threads[:2]
    assert (first.name, first.signal, first.crashed, first.pc) == ("prog", 11, True, 0x401000)
    assert not second.crashed and second.gpr["rax"] == 1 and second.gpr["cs"] == 0x33
    assert first.evidence == ("NT_X86_XSAVE_LAYOUT note", "exact")
    assert image.threads[-1].tid == 1002 and len(image.threads[1:]) == 2
    with pytest.raises(IndexError):
        image.threads[3]


@pytest.mark.parametrize(
    ("cpu", "mask", "size"),
    [("EPYC-Genoa", 0x2E7, 2440), ("EPYC-Genoa", 0xE7, 2432), ("EPYC-Rome", 0x207, 896), ("EPYC-Milan", 0x207, 2440),
     ("SapphireRapids", 0x602E7, 11008), ("Skylake-Server", 0x2FF, 2696), ("Skylake-Server", 0x207, 2696),
     ("Skylake-Client", 0x1F, 1088), ("Bulldozer", 1 << 62 | 7, 960), ("SapphireRapids", 0x200E7, 2816)],
)
def test_layout_from_mask_and_size(cpu, mask, size):
    layout = layout_of(cpu, mask)
    assert layout.size == size
    threads = threads_of(layout, 1)
    image = xsave.open(elf.core(elf.linux_notes(threads)))
    same(image, threads)
    (thread,) = image.threads
    assert dict(thread.area.layout.offsets) == dict(layout.offsets)
    assert thread.evidence == (f"XCR0 {mask:#x} and size {size}", "known")
    assert image.warnings == []


@pytest.mark.parametrize(
    ("abi", "elf_class", "machine", "names"),
    [("i386", 1, elf.EM_386, ("eip", "eax")), ("x32", 1, elf.EM_X86_64, ("rip", "rax")),
     ("i386", 2, elf.EM_386, ("eip", "eax")), ("x86-64", 2, elf.EM_X86_64, ("rip", "rax"))],
)
def test_abis(abi, elf_class, machine, names):
    area = area_of(AVX)
    gpr = {names[0]: 0x8048000, names[1]: 5}
    thread = Thread(tid=7, signal=4, gpr=gpr, xstate=area, prxfpreg=legacy_of(area) if abi == "i386" else None,
                    fpregs=bytes(108) if abi == "i386" else legacy_of(area), ssp=None if abi == "i386" else 0x7F00)
    notes = elf.linux_notes([thread], abi=abi, elf_class=elf_class)
    image = xsave.open(elf.core(notes, elf_class=elf_class, machine=machine))
    same(image, [thread])
    assert image.abi == abi
    assert {name: image.threads[0].gpr[name] for name in names} == gpr
    assert image.threads[0].pc == 0x8048000
    assert image.threads[0].ssp == thread.ssp
    assert image.threads[0].name == "prog"


def test_gcore_order_and_its_losses():
    """gdb writes MXCSR_MASK 0 and XSTATE_BV = XCR0; on an AMX host it leaves the tiles out."""
    narrow = layout_of("SapphireRapids", 0xE7)
    area = area_of(narrow, mxcsr_mask=0).ljust(SPR.size, b"\0")
    thread = Thread(tid=5, xstate=area, fpregs=legacy_of(area), gpr={"rip": 1})
    image = xsave.open(elf.core(elf.gcore_notes([thread]), notes_last=True, memory=[(0x1000, bytes(4096))]))
    (have,) = image.threads
    assert bytes(have.area) == area[: narrow.size]
    assert not have.crashed and have.signal is None and have.name == "prog"
    assert any("TILECFG TILEDATA" in warning and "lost" in warning for warning in image.warnings)


@pytest.mark.parametrize("mask", [0xE7, 0x2E7])
def test_gcore_of_a_host_that_gdb_understands(mask):
    layout = layout_of("EPYC-Genoa", mask)
    area = area_of(layout, mxcsr_mask=0)
    thread = Thread(tid=5, xstate=area, fpregs=legacy_of(area))
    image = xsave.open(elf.core(elf.gcore_notes([thread], aux={51: 3376})))
    assert image.warnings == []
    assert dict(image.threads[0].area.layout.offsets) == dict(layout.offsets)


def hazard(aux):
    """What gdb 13 writes on an AMD host: Intel's size, AMD's bytes, and nothing where Intel has no component."""
    amd, intel = layout_of("EPYC-Genoa", 0xE7), layout_of("Skylake-Server", 0xE7)
    area = bytearray(area_of(amd, mxcsr_mask=0).ljust(intel.size, b"\0"))
    area[832:1088] = bytes(256)
    thread = Thread(tid=5, xstate=bytes(area), fpregs=legacy_of(area))
    return xsave.open(elf.core(elf.gcore_notes([thread], aux=aux)))


def test_hazard_is_seen_by_the_host_s_frame_size():
    image = hazard({51: 3376})
    assert image.threads[0].evidence.confidence == "assumed"
    assert image.threads[0].area.layout.offsets[xsave.Component.HI16_ZMM] == (1408, 1024)
    assert "opmask" in image.warnings[0] and "lost" in image.warnings[0]


def test_hazard_without_auxv_warns_all_the_same():
    assert any("debugger" in warning for warning in hazard(None).warnings)


def test_gdb13_gcore_of_an_amx_host_warns():
    area = area_of(layout_of("SapphireRapids", 0xE7), mxcsr_mask=0)
    thread = Thread(tid=5, xstate=area, fpregs=legacy_of(area))
    image = xsave.open(elf.core(elf.gcore_notes([thread], aux={51: 11952})))
    assert any("TILECFG TILEDATA" in warning for warning in image.warnings)
    assert image.threads[0].evidence.confidence == "known"


def test_note_larger_than_its_mask_needs():
    """gdb 13 on Zen 2: XCR0 0x7 in 896 bytes."""
    area = area_of(AVX).ljust(896, b"\0")
    thread = Thread(tid=5, xstate=area, fpregs=legacy_of(area))
    image = xsave.open(elf.core(elf.gcore_notes([thread])))
    assert bytes(image.threads[0].area) == area[:832]
    assert image.threads[0].evidence.confidence == "known"


def test_freebsd():
    threads = threads_of(AVX)
    image = xsave.open(elf.core(elf.freebsd_notes(threads)))
    same(image, threads)
    assert (image.os, image.abi) == ("FreeBSD", "x86-64")
    assert [thread.crashed for thread in image.threads] == [True, False, False]
    assert image.threads[1].pc == 0x401001 and image.threads[1].gpr["rsp"] == 0x7FFE0000
    assert image.threads[1].gpr["rax"] == 1 and image.threads[0].name == "worker"


def test_freebsd_i386():
    area = area_of(AVX)
    thread = Thread(tid=9, signal=6, gpr={"eip": 0x8048000, "eax": 3}, xstate=area)
    image = xsave.open(elf.core(elf.freebsd_notes([thread], abi="i386"), elf_class=1, machine=elf.EM_386))
    same(image, [thread])
    assert (image.abi, image.threads[0].pc, image.threads[0].gpr["eax"]) == ("i386", 0x8048000, 3)


def test_netbsd():
    threads = threads_of(AVX, 2)
    image = xsave.open(elf.core(elf.netbsd_notes(threads)))
    assert (image.os, len(image.threads)) == ("NetBSD", 2)
    first, second = image.threads
    assert (first.tid, first.crashed, first.signal, first.name, first.pc) == (1000, True, 11, "prog", 0x401000)
    assert (second.tid, second.crashed, second.signal) == (1001, False, None)
    assert first.area.layout.mask == 3 and bytes(first.area)[160:416] == threads[0].xstate[160:416]


def test_legacy_registers_only():
    area = area_of(AVX)
    image = xsave.open(elf.core(elf.linux_notes([Thread(tid=1, fpregs=legacy_of(area))])))
    (thread,) = image.threads
    assert bytes(thread.area)[:416] == area[:416] and thread.area.xstate_bv == 3
    assert "NT_PRFPREG" in thread.evidence.rule


def fsave(top=3, depth=2):
    """An FSAVE image with `depth` registers on the stack and TOP at `top`, and what its values are."""
    tags = 0xFFFF
    values = []
    for i in range(8):
        physical = (top + i) % 8
        if i < depth:
            tags &= ~(3 << 2 * physical)
        values.append(bytes([i + 1] * 8) + struct.pack("<H", 0x3FFF + i))
    words = (0xFFFF037F, 0xFFFF0000 | top << 11, 0xFFFF0000 | tags, 0x8048123, 0x1DD0023, 0xFFFFD000, 0xFFFF002B)
    head = struct.pack("<IIIIIII", *words)
    return head + b"".join(values), values


@pytest.mark.parametrize("top", range(8))
def test_fsave_of_i386(top):
    image_bytes, values = fsave(top)
    notes = elf.linux_notes([Thread(tid=1, fpregs=image_bytes)], abi="i386")
    (thread,) = xsave.open(elf.core(notes, elf_class=1, machine=elf.EM_386)).threads
    have = xsave.decode(thread.area)
    assert [have[f"st{i}"] for i in range(8)] == values
    assert have["ftw"] == 1 << top | 1 << (top + 1) % 8
    assert (have["fcw"], have["fsw"], have["fop"]) == (0x37F, top << 11, 0x1DD)
    assert have["fip"] & 0xFFFFFFFF == 0x8048123 and have["fip"] >> 32 == 0x23
    assert have["fdp"] & 0xFFFFFFFF == 0xFFFFD000 and have["fdp"] >> 32 == 0x2B
    assert "xmm0" not in have
    assert thread.evidence == ("NT_PRFPREG: x87 only", "known")


def test_thread_without_state():
    threads = threads_of(AVX, 2)
    threads[1].xstate = threads[1].fpregs = None
    image = xsave.open(elf.core(elf.linux_notes(threads)))
    assert image.threads[1].area is None and image.threads[1].evidence.confidence == "none"
    columns = image.columns()
    assert columns["tid"].tolist() == [1000, 1001]
    assert columns["ymm3"][0].any() and not columns["ymm3"][1].any()
    assert columns["fcw"][1] == 0x37F
    assert any("initial values" in warning for warning in image.warnings)


def test_mxcsr_that_the_kernel_left_out():
    """XSTATE_BV without SSE and AVX: MXCSR is NT_PRFPREG's, and the note's may be anything."""
    area = bytearray(area_of(AVX, xstate_bv=1))
    area[24:32] = b"leaked!!"
    legacy = bytearray(legacy_of(area))
    struct.pack_into("<II", legacy, 24, 0x1FA3, 0xFFFF)
    image = xsave.open(elf.core(elf.linux_notes([Thread(tid=1, xstate=bytes(area), fpregs=bytes(legacy))])))
    assert image.threads[0].area.mxcsr == 0x1FA3
    assert image.threads[0].evidence == ("XCR0 0x7 and size 832; MXCSR from NT_PRFPREG", "known")


def test_xmm_that_differs_from_prfpreg_is_said():
    area = area_of(AVX)
    legacy = bytearray(legacy_of(area))
    legacy[160 + 16 * 3] ^= 1
    (thread,) = xsave.open(elf.core(elf.linux_notes([Thread(tid=1, xstate=area, fpregs=bytes(legacy))]))).threads
    assert thread.warnings == ["xmm3 of the area differs from NT_PRFPREG, at byte 208"]
    assert thread.evidence.confidence == "assumed"


def test_shifted_note_with_avx_cut_off():
    area = area_of(AVX)
    thread = Thread(tid=1, xstate=elf.shifted(area, entries_of(AVX)), fpregs=legacy_of(area))
    assert len(thread.xstate) == 832
    image = xsave.open(elf.core(elf.linux_notes([thread])))
    (have,) = image.threads
    assert have.area.layout.mask == 3
    assert bytes(have.area)[:416] == area[:416]
    assert any("AVX was cut off" in warning for warning in have.warnings)
    assert any("mid-2020" in warning for warning in image.warnings)
    assert "shifted" in have.evidence.rule


def test_shifted_note_is_put_right():
    """Room behind the shifted parts: everything comes back."""
    layout = layout_of("Skylake-Server", 0xFF)
    area = area_of(layout, xstate_bv=0x27)
    thread = Thread(tid=1, xstate=elf.shifted(area, entries_of(layout)), fpregs=legacy_of(area))
    (have,) = xsave.open(elf.core(elf.linux_notes([thread]))).threads
    assert bytes(have.area) == area
    assert have.warnings == []
    assert have.area.xstate_bv == 0x27


@pytest.mark.parametrize("count", [0xFFFE, 0xFFFF, 0x10001])
@pytest.mark.parametrize("elf_class", [1, 2])
def test_extended_numbering(count, elf_class):
    threads = threads_of(AVX, 1)
    machine, abi = (elf.EM_386, "i386") if elf_class == 1 else (elf.EM_X86_64, "x86-64")
    notes = elf.linux_notes(threads, abi=abi, elf_class=elf_class)
    data = elf.core(notes, phnum=count, elf_class=elf_class, machine=machine)
    image = xsave.open(data)
    assert image._elf.count == count and len(image.threads) == 1 and image.warnings == []


def test_extended_numbering_with_the_section_header_cut_off():
    data = elf.core(elf.linux_notes(threads_of(AVX, 1)), phnum=0x10001)
    image = xsave.open(data[:-64])
    assert len(image.threads) == 1
    assert any("section header 0" in warning for warning in image.warnings)


def test_cut_anywhere():
    """A core cut at any byte: every complete thread, or one clear error."""
    threads = threads_of(AVX)
    data = elf.core(elf.linux_notes(threads, layout=entries_of(AVX)))
    whole = [bytes(thread.area) for thread in xsave.open(data).threads]
    most = 0
    for length in range(len(data)):
        try:
            image = xsave.open(data[:length])
        except xsave.ImageError as error:
            assert "<bytes>" in str(error)
            assert most == 0
            continue
        areas = [thread.area for thread in image.threads]
        assert image.warnings
        done = sum(area is not None and bytes(area) == whole[i] for i, area in enumerate(areas))
        assert done >= most
        most = done
    assert most == 3


def test_cut_by_the_file_s_end_at_every_byte_through_a_pipe():
    data = elf.core(elf.linux_notes(threads_of(AVX, 2)))
    for length in range(0, len(data), 37):
        outcomes = []
        for source in (data[:length], Pipe(data[:length])):
            try:
                image = xsave.open(source)
                outcomes.append([bytes(thread.area) if thread.area else None for thread in image.threads])
            except xsave.ImageError:
                outcomes.append(None)
        assert outcomes[0] == outcomes[1]


class Pipe(io.RawIOBase):
    """A binary file that cannot seek and gives few bytes at a time."""

    def __init__(self, data, most=1000):
        self._data, self._at, self._most = data, 0, most
        self.name = "pipe"

    def readable(self):
        return True

    def seekable(self):
        return False

    def readinto(self, buffer):
        count = min(len(buffer), self._most, len(self._data) - self._at)
        buffer[:count] = self._data[self._at : self._at + count]
        self._at += count
        return count


def test_bad_layout_notes_fall_through():
    threads = threads_of(ZEN4, 1)
    cases = {
        "beyond": [(2, 256, 576), (5, 64, 832), (6, 512, 896), (7, 1024, 1 << 20)],
        "overlap": [(2, 256, 576), (5, 64, 800), (6, 512, 896), (7, 1024, 1408), (9, 8, 2432)],
        "low": [(2, 256, 100)],
        "twice": [(2, 256, 576), (2, 256, 576)],
        "huge": [(2, 0xFFFFFFFF, 0xFFFFFFFF)],
        "bit": [(64, 8, 576)],
    }
    for name, entries in cases.items():
        image = xsave.open(elf.core(elf.linux_notes(threads, layout=entries)))
        assert any("layout note" in warning for warning in image.warnings), name
        assert image.threads[0].evidence == ("XCR0 0x2e7 and size 2440", "known"), name
        assert bytes(image.threads[0].area) == threads[0].xstate
    image = xsave.open(elf.core(elf.linux_notes(threads, layout=b"\1" * 17)))
    assert any("multiple of 16" in warning for warning in image.warnings)


def test_empty_layout_note_means_legacy_state():
    layout = layout_of("Penryn", 3)
    threads = threads_of(layout, 1)
    image = xsave.open(elf.core(elf.linux_notes(threads, layout=[])))
    same(image, threads)
    assert image.threads[0].evidence == ("NT_X86_XSAVE_LAYOUT note", "exact") and image.warnings == []


def test_header_that_breaks_rules_warns_and_still_decodes():
    area = bytearray(area_of(AVX))
    struct.pack_into("<Q", area, 512, 0x7 | 1 << 17)
    threads = [Thread(tid=1, xstate=bytes(area), fpregs=legacy_of(area))]
    (thread,) = xsave.open(elf.core(elf.linux_notes(threads))).threads
    assert any("TILECFG" in warning for warning in thread.warnings) and thread.evidence.confidence == "assumed"
    assert xsave.decode(thread.area)["ymm5"][:16] == area[240:256]
    struct.pack_into("<QQ", area, 512, 7, 7)
    (thread,) = xsave.open(elf.core(elf.linux_notes([Thread(tid=1, xstate=bytes(area))]))).threads
    assert any("XCOMP_BV" in warning for warning in thread.warnings)
    assert xsave.decode(thread.area)["ymm5"][:16] == area[240:256]


def test_duplicate_notes():
    area, other = area_of(AVX), area_of(AVX, seed=9)
    thread = Thread(tid=1, xstate=area, fpregs=legacy_of(area), extra=elf.note(b"LINUX", elf.XSTATE, other))
    image = xsave.open(elf.core(elf.linux_notes([thread])))
    assert bytes(image.threads[0].area) == area
    assert any("duplicate" in warning for warning in image.warnings)


def test_sizes_that_lie():
    good = elf.linux_notes(threads_of(AVX, 1))
    for size in (0x7FFFFFFF, 0xFFFFFFFF, 0xFFFFFFFD, 5000):
        notes = good + elf.note(b"LINUX", elf.XSTATE, b"x", descsz=size)
        image = xsave.open(elf.core(notes))
        assert image.threads[0].area is not None
        assert any("sizes run past the end" in warning for warning in image.warnings)
    for size in (0x7FFFFFFF, 0xFFFFFFFF):
        image = xsave.open(elf.core(good + elf.note(b"X", 1, b"x", namesz=size)))
        assert image.threads[0].area is not None
    for size in (1 << 63, (1 << 64) - 1, 1 << 40):
        image = xsave.open(elf.core(good, notes_size=size))
        assert image.threads[0].area is not None and any("the file ends" in each for each in image.warnings)


def test_a_note_of_lost_bytes_is_stepped_over():
    """A core from which bytes were cut in the middle of a note: the walk finds the next one at any alignment."""
    threads = threads_of(AVX)
    notes = elf.linux_notes(threads)
    at = notes.index(b"prog")
    image = xsave.open(elf.core(notes[: at + 4] + notes[at + 6 :]))
    assert [bytes(thread.area) for thread in image.threads] == [thread.xstate for thread in threads]
    assert any("the walk goes on" in warning for warning in image.warnings)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d[:3] + b"G" + d[4:], "not recognised"),
        (lambda d: d[:4] + b"\3" + d[5:], "EI_CLASS at offset 0x4 is 3"),
        (lambda d: d[:5] + b"\2" + d[6:], "EI_DATA at offset 0x5 is 2, expected 1"),
        (lambda d: d[:16] + b"\2\0" + d[18:], "e_type at offset 0x10 is 2 .an executable., expected 4"),
        (lambda d: d[:18] + b"\xb7\0" + d[20:], "e_machine at offset 0x12 is 183 .AArch64."),
        (lambda d: d[:54] + b"\1\0" + d[56:], "e_phentsize at offset 0x36 is 1"),
        (lambda d: d[:40], "the ELF header at offset 0x28 is 40 bytes, expected 64"),
        (lambda d: d[:56] + b"\0\0" + d[58:], "PT_NOTE"),
        (lambda d: d[:64] + b"\1" + d[65:], "PT_NOTE"),
        (lambda d: d[:100], "PT_NOTE"),
        (lambda d: d[:130], "NT_PRSTATUS"),
        (lambda d: b"", "the content at offset 0x0 is empty"),
    ],
)
def test_errors_name_file_offset_field_found_expected(change, message, tmp_path):
    path = tmp_path / "the.core"
    path.write_bytes(change(elf.core(elf.linux_notes(threads_of(AVX, 1)))))
    with pytest.raises(xsave.ImageError, match=message) as caught:
        xsave.open(path)
    assert str(path) in str(caught.value)


def test_zero_threads():
    with pytest.raises(xsave.ImageError, match=r"NT_PRSTATUS.*expected at least one thread"):
        xsave.open(elf.core(elf.note(b"CORE", 3, bytes(136))))


def test_small_xstate_note():
    area = area_of(AVX)
    notes = elf.linux_notes([Thread(tid=1, xstate=area[:400], fpregs=legacy_of(area))])
    (thread,) = xsave.open(elf.core(notes)).threads
    assert thread.area.layout.mask == 3 and any("400 bytes" in warning for warning in thread.warnings)


def test_what_the_user_says_comes_first():
    threads = threads_of(SPR, 1)
    notes = elf.linux_notes(threads, layout=entries_of(SPR))
    image = xsave.open(elf.core(notes), cpu="SapphireRapids")
    assert image.threads[0].evidence == ("user: SapphireRapids", "exact") and image.warnings == []
    image = xsave.open(elf.core(notes), cpu=xsave.CpuModel.named("EPYC-Genoa"))
    assert image.threads[0].area.layout.offsets[xsave.Component.OPMASK] == (832, 64)
    assert image.threads[0].evidence == ("user: EPYC-Genoa", "assumed")
    text = " ".join(image.warnings)
    assert "lacks TILECFG TILEDATA" in text and "layout note says opmask: 64 bytes at 1088" in text
    assert "MXCSR_MASK 0xffff" in text
    with pytest.raises(ValueError, match="unknown CPU model"):
        xsave.open(elf.core(notes), cpu="NoSuchCpu")


@given(st.data())
@settings(max_examples=60)
def test_round_trip(data):
    """Any mix of CPUs, masks, thread counts and orders comes back byte for byte."""
    cpu, masks = data.draw(st.sampled_from([
        ("EPYC-Genoa", [7, 0xE7, 0x2E7]), ("SapphireRapids", [7, 0xE7, 0x600E7, 0x602E7]), ("EPYC-Milan", [7, 0x207]),
        ("Skylake-Server", [7, 0xE7, 0x2FF]), ("DiamondRapids", [0xE02E7]),
    ]))
    layout = layout_of(cpu, data.draw(st.sampled_from(masks)))
    count = data.draw(st.integers(1, 5))
    threads = []
    for _ in range(count):
        in_use = data.draw(st.integers(0, 1 << 20)) & layout.mask | 2
        area = area_of(layout, data.draw(st.integers(0, 1 << 20)), in_use)
        threads.append(Thread(tid=data.draw(st.integers(1, 1 << 22)), signal=6, xstate=area, fpregs=legacy_of(area)))
    note = data.draw(st.booleans())
    image = xsave.open(elf.core(elf.linux_notes(threads, layout=entries_of(layout) if note else None),
                                notes_last=data.draw(st.booleans()), memory=[(0x400000, b"m" * 100)]))
    same(image, threads)
    assert image.threads[0].evidence.confidence == ("exact" if note else "known")
