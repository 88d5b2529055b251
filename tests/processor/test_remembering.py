"""What XSAVEOPT and XSAVES must find again before they leave anything out, one condition at a time (SDM1 13.6)."""

import pytest

from xsave import COMPACTED, STANDARD, CpuModel, Layout, Processor

BASE = 0x40000
ALL = 2**64 - 1
FORMAT = 1 << 63


def processor(**options):
    model = CpuModel.named("SapphireRapids")
    cpu = Processor(model, cpl=0, ia32_xss=int(model.xss_mask), **options)
    cpu.load({"zmm3": b"\x33" * 64, "k1": 5, "zmm20": b"\x20" * 64})
    return cpu


def written(cpu, insn, mask=0xE7, address=BASE):
    """The components >= 2 that the instruction stored into an area of another byte."""
    area = bytearray(b"\xa5" * 16384)
    getattr(cpu, insn)(area, mask, address)
    fmt = COMPACTED if insn == "xsaves" else STANDARD
    layout = {i: at for i, (at, _) in Layout(cpu.model, mask, fmt).offsets.items() if i in (2, 5)}
    return {i for i, at in layout.items() if mask >> i & 1 and area[at : at + 64] != b"\xa5" * 64}


def restored(cpu, insn):
    """The processor after a restore from BASE of what `insn` saved there."""
    area = bytearray(16384)
    getattr(cpu, insn)(area, 0xE7, 0x9000)
    getattr(cpu, "xrstors" if insn == "xsaves" else "xrstor")(area, 0xE7, BASE)
    return area


@pytest.mark.parametrize("insn", ["xsaveopt", "xsaves"])
def test_left_out_where_everything_is_as_remembered(insn):
    cpu = processor()
    restored(cpu, insn)
    assert written(cpu, insn) == set()


@pytest.mark.parametrize("insn", ["xsaveopt", "xsaves"])
def test_another_privilege_level(insn):
    cpu = processor()
    area = bytearray(16384)
    if insn == "xsaveopt":
        restored(cpu, insn)
        cpu.cpl = 3
    else:  # XSAVES needs CPL 0: the restore was made elsewhere
        cpu.xsavec(area, 0xE7, 0x9000)
        cpu.cpl = 3
        cpu.xrstor(area, 0xE7, BASE)
        cpu.cpl = 0
    assert written(cpu, insn) == {2, 5}


@pytest.mark.parametrize("insn", ["xsaveopt", "xsaves"])
def test_another_address(insn):
    cpu = processor()
    restored(cpu, insn)
    assert written(cpu, insn, address=BASE + 64) == {2, 5}


def test_another_format():
    cpu = processor()
    area = bytearray(16384)
    cpu.xsavec(area, 0xE7, 0x9000)
    cpu.xrstor(area, 0xE7, BASE)
    assert cpu.xrstor_info == (0, False, BASE, 0xE7 | FORMAT)
    assert written(cpu, "xsaveopt") == {2, 5}


def test_another_set_of_slots():
    cpu = processor()
    restored(cpu, "xsaves")
    assert written(cpu, "xsaves", 0x27) == {2, 5}


def test_a_narrower_mask_of_the_standard_format_is_no_matter():
    cpu = processor()
    restored(cpu, "xsaveopt")
    assert written(cpu, "xsaveopt", 0x27) == set()


def test_without_a_restore_nothing_is_remembered():
    cpu = processor()
    assert cpu.xrstor_info is None
    assert written(cpu, "xsaveopt", address=0) == {2, 5}


AMD = CpuModel.named("EPYC-Turin")


@pytest.mark.parametrize("first, second", [(20, 16), (31, 20), (16, 31), (17, 16)])
def test_by_value_one_of_the_upper_registers_keeps_them_all_in_use(first, second):
    cpu = Processor(AMD)
    cpu.load({f"zmm{first}": b"\1" * 64})
    cpu.write(f"zmm{second}", bytes(64))
    assert cpu.xinuse == 0x80
    cpu.write(f"zmm{first}", bytes(64))
    assert cpu.xinuse == 0
    cpu.write(f"zmm{second}", b"\2" * 64)
    assert cpu.xinuse == 0x80


@pytest.mark.parametrize("first, second", [(7, 0), (0, 7), (1, 2)])
def test_by_value_one_opmask_register_keeps_them_all_in_use(first, second):
    cpu = Processor(AMD)
    cpu.load({f"k{first}": 5})
    cpu.write(f"k{second}", 0)
    assert cpu.xinuse == 0x20
    cpu.write(f"k{first}", 0)
    assert cpu.xinuse == 0
    cpu.write(f"k{second}", 3)
    assert cpu.xinuse == 0x20


def test_a_tile_stored_into_what_cannot_be_written():
    cpu = processor()
    config = bytearray(64)
    config[0], config[16], config[48] = 1, 64, 16
    cpu.ldtilecfg(config)
    cpu.tilezero(0)
    room = bytearray(b"\xff" * 1024)
    with pytest.raises(ValueError, match="read-only"):
        cpu.tilestored(0, bytes(room), 64)
    cpu.tilestored(0, room, 64)
    assert not any(room)
