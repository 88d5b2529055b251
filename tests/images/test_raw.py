"""Raw areas and blobs of KVM: the trust order where nothing but the area itself speaks."""

import struct

import pytest

import xsave
from tests.images.areas import area_of, layout_of, legacy_of
from tests.writers import frames
from xsave import COMPACTED, Area, Component, CpuModel, Layout, decode, encode, transcode


def only(data, **more):
    image = xsave.open(data, **more)
    (thread,) = image.threads
    assert thread.tid == 0 and thread.gpr == {} and thread.pc is None and not thread.crashed
    return image, thread


@pytest.mark.parametrize(
    ("cpu", "mask"),
    [("EPYC-Genoa", 0x2E7), ("SapphireRapids", 0x602E7), ("Haswell", 7), ("EPYC-Rome", 0x207), ("Penryn", 3)],
)
def test_standard_area(cpu, mask):
    layout = layout_of(cpu, mask)
    area = area_of(layout)
    image, thread = only(area)
    assert image.kind == "raw area" and bytes(thread.area) == area and thread.evidence.confidence == "known"
    assert image.warnings == []


def test_compacted_area():
    """XCOMP_BV is enough: sizes and alignment are the architecture's."""
    masks = {"SapphireRapids": 0x602E7, "GraniteRapids": 0x1A07, "EPYC-Turin": 0x18E7, "DiamondRapids": 0x80007}
    for cpu, mask in masks.items():
        model = CpuModel.named(cpu)
        layout = Layout(model, mask, COMPACTED)
        area = encode({"fcw": 0x37F, "mxcsr": 0x1FA0, "ymm3": bytes(range(32))}, layout)
        image, thread = only(area)
        assert thread.evidence == ("XCOMP_BV", "known") and image.warnings == []
        assert dict(thread.area.layout.offsets) == dict(layout.offsets) and thread.area.layout.format == COMPACTED
        assert decode(thread.area) == decode(Area(area, layout))


def test_compacted_area_that_is_too_short():
    layout = Layout(CpuModel.named("SapphireRapids"), 0x602E7, COMPACTED)
    image, thread = only(encode({"ymm3": bytes(range(32))}, layout)[:2000])
    assert thread.evidence == ("legacy + AVX only", "assumed") and any("XCOMP_BV" in each for each in image.warnings)


def test_mask_unknown():
    """Hardware leaves byte 464 alone: the size says which mask, and evidence says assumed."""
    for cpu, mask in (("EPYC-Genoa", 0x2E7), ("SapphireRapids", 0x600E7), ("Haswell", 7), ("Skylake-Client", 0x1F)):
        layout = layout_of(cpu, mask)
        area = bytearray(area_of(layout))
        area[464:472] = bytes(8)
        image, thread = only(bytes(area))
        assert thread.evidence.confidence == "assumed" and "size" in thread.evidence.rule
        name = "ymm9" if mask < 0x20 else "zmm9"
        assert decode(thread.area)[name] == decode(Area(bytes(area), layout))[name]
        assert any("assumed from its size" in warning for warning in image.warnings)


def test_padded_area_needs_a_vendor_s_hint():
    """A kernel page: the size says nothing, MXCSR_MASK tells the makers apart."""
    for cpu in ("EPYC-Genoa", "Skylake-Server"):
        layout = layout_of(cpu, 0xE7)
        image, thread = only(area_of(layout).ljust(4096, b"\0"))
        assert image.kind == "KVM_GET_XSAVE"
        assert dict(thread.area.layout.offsets) == dict(layout.offsets)
        assert thread.evidence == (f"XCR0 0xe7, MXCSR_MASK {layout.mxcsr_mask:#x}", "assumed")
    blind = area_of(layout_of("EPYC-Genoa", 0xE7), mxcsr_mask=0).ljust(4096, b"\0")
    image, thread = only(blind)
    assert thread.evidence.rule.endswith("content") and thread.area.layout.offsets[Component.OPMASK] == (832, 64)


def test_content_tells_where_nothing_else_does():
    both = bytearray(area_of(layout_of("EPYC-Genoa", 0xE7), mxcsr_mask=0, xstate_bv=7).ljust(4096, b"\0"))
    image, thread = only(bytes(both))
    assert thread.evidence.confidence == "assumed" and any("differ" in warning for warning in image.warnings)


def test_kvm_mask_is_the_host_s():
    """XCR0 0x600e7 of the host in 4,096 bytes: no room for tile data, and none is claimed."""
    layout = layout_of("SapphireRapids", 0x200E7)
    area = bytearray(area_of(layout, xstate_bv=0xE7).ljust(4096, b"\0"))
    struct.pack_into("<Q", area, 464, 0x600E7)
    for cpu, confidence in (("SapphireRapids", "exact"), (None, "assumed")):
        image, thread = only(bytes(area), cpu=cpu)
        assert thread.area.layout.mask == 0x200E7 and thread.evidence.confidence == confidence and image.warnings == []
        assert decode(thread.area)["zmm30"] == decode(Area(bytes(area[: layout.size]), layout))["zmm30"]


def test_unknown_components_are_named_not_guessed():
    area = bytearray(area_of(layout_of("Haswell", 7)).ljust(1500, b"\0"))
    struct.pack_into("<Q", area, 464, 0x7 | 1 << 20 | 1 << 62)
    image, thread = only(bytes(area))
    assert thread.evidence == ("legacy + AVX only", "assumed")
    assert any("SCALEDATA LWP" in warning and "not decoded" in warning for warning in image.warnings)


def test_user_s_cpu():
    layout = layout_of("EPYC-Genoa", 0xE7)
    area = bytearray(area_of(layout))
    area[464:472] = bytes(8)
    _, thread = only(bytes(area), cpu="EPYC-Genoa")
    assert thread.evidence == ("user: EPYC-Genoa", "exact") and thread.area.layout.mask == 0xE7
    with pytest.raises(xsave.LayoutError, match="TILECFG"):
        other = Layout(CpuModel.named("SapphireRapids"), 0x60007, COMPACTED)
        only(encode({"ymm1": bytes(32)}, other), cpu="EPYC-Genoa")


def test_user_s_cpu_opens_what_is_implausible():
    area = bytearray(area_of(layout_of("Haswell", 7)))
    area[530] = 1
    with pytest.raises(xsave.ImageError, match="reserved bytes 528-575"):
        xsave.open(bytes(area))
    image, thread = only(bytes(area), cpu="Haswell")
    assert any("528" in warning for warning in image.warnings)
    assert decode(thread.area)["ymm3"] == decode(Area(bytes(area), layout_of("Haswell", 7), check=False))["ymm3"]


def test_fxsave_image():
    area = area_of(layout_of("Haswell", 7))
    image, thread = only(legacy_of(area))
    assert image.kind == "FXSAVE image" and thread.area.layout.mask == 3
    assert bytes(thread.area)[:416] == area[:416]


def test_signal_frame_alone():
    layout = layout_of("EPYC-Genoa", 0xE7)
    body, _ = frames.frame(area_of(layout), 0xE7)
    _, thread = only(body)
    assert thread.area.layout.mask == 0xE7 and thread.area.layout.size == layout.size


def test_signal_frame_with_stack_behind_it():
    """Its own words say where the area ends, whatever else was copied along."""
    layout = layout_of("SandyBridge", 7)
    body, _ = frames.frame(area_of(layout), 7)
    _, thread = only(body + bytes(2432 - len(body)))
    assert thread.area.layout.mask == 7 and thread.area.layout.size == layout.size


def test_transcoded_area_is_the_same_state():
    standard = layout_of("SapphireRapids", 0x600E7)
    compacted = Layout(standard.model, 0x600E7, COMPACTED)
    area = area_of(standard)
    _, a = only(area)
    _, b = only(transcode(area, standard, compacted))
    assert xsave.same_state(a.area, b.area)


@pytest.mark.parametrize("size", [1, 100, 511])
def test_too_short(size):
    with pytest.raises(xsave.ImageError, match="not recognised"):
        xsave.open(b"\xff" * size)


def test_too_long():
    with pytest.raises(xsave.ImageError, match="not recognised"):
        xsave.open(area_of(layout_of("Haswell", 7)).ljust(1 << 20, b"\0"))


def test_what_is_odd_is_said_once():
    image = xsave.open(bytes(layout_of("EPYC-Genoa", 0x2E7).size))
    said = [*image.warnings, *image.threads[0].warnings]
    assert any("XCR0" in text for text in said) and len(said) == len(set(said))
