"""The overrun, executed: what the verdict predicts is what happens, on this CPU and emulated, and a lie is seen."""

import pickle

import pytest

from tests import skips
from xsave import CpuModel, Host, UnsupportedError
from xsave.audit import attack

TILES = 0x60000


def test_every_act_is_as_predicted():
    found, reasons = attack.acts()
    assert [act for act in found if not act.agrees] == []
    real = [act for act in found if act.where == attack.HERE]
    assert bool(reasons) == (not real or (bool(Host.xcr0 & TILES) and not skips.amx_granted()))
    # Somewhere tiles were turned on, and somewhere IA32_XFD was armed.
    tiles = [act for act in found if act.xcr0 & TILES and not act.sized_for & TILES]
    assert tiles[0].bytes_over >= 8256 - 8 and tiles[1].bytes_over == 0
    armed = [act for act in found if act.xfd]
    assert [(act.instruction, act.bytes_over, act.zeros) for act in armed] == [
        ("XSAVE", 8192, True),
        ("XSAVEC", 0, False),
    ]
    assert all(pickle.loads(pickle.dumps(act)).ranges == act.ranges for act in found)


@skips.needs_native()
def test_the_real_instruction_overruns_as_predicted():
    found, _ = attack.acts()
    unlimited, audited = [act for act in found if act.where == attack.HERE and not act.xfd][:2]
    assert unlimited.verdict.bytes_over >= unlimited.bytes_over > 0
    assert unlimited.ranges[0][0] == unlimited.verdict.first_bad
    assert unlimited.fault == unlimited.verdict.required - 1
    assert (audited.ranges, audited.fault) == ([], None)


@skips.needs_amx()
def test_tiles_for_real():
    """8,256 bytes behind a buffer of 2,688 (without PKRU), written by this CPU."""
    found, _ = attack.acts()
    act = next(act for act in found if act.where == attack.HERE and not act.xfd)
    assert act.verdict.size in (2688, 2696)
    assert act.ranges == [(2752, 11008)]


@pytest.mark.parametrize(
    ("name", "xcr0", "sized_for", "instruction", "changed"),
    [
        ("SapphireRapids", 0x600E7, 0xE7, "XSAVE", [(2752, 11008)]),
        ("SapphireRapids", 0x600E7, 0xE7, "XSAVEC", [(2432, 10688)]),
        ("EPYC-Genoa", 0xE7, 0x7, "XSAVE", [(832, 2432)]),
        ("DiamondRapids", 0x80007, 0x7, "XSAVE", [(960, 1088)]),
        ("Skylake-Client", 0x7, 0x3, "XSAVE", [(576, 832)]),
    ],
)
def test_emulated(name, xcr0, sized_for, instruction, changed):
    cpu = attack._Emulated(CpuModel.named(name), xcr0)
    act = attack.Act("unlimited", cpu, sized_for, instruction, 2**64 - 1)
    assert act.agrees and act.ranges == changed and not act.zeros
    audited = attack.Act("audited", cpu, sized_for, instruction, sized_for)
    assert audited.agrees and audited.ranges == [] and audited.fault is None


def test_a_processor_that_writes_something_else_is_seen(monkeypatch):
    """One byte more, one byte less, another place of the fault: none of them agrees."""
    genoa = CpuModel.named("EPYC-Genoa")

    class Liar(attack._Emulated):
        at, byte, fault_by = 0, None, 0

        def save(self, instruction, memory, rfbm):
            after = bytearray(super().save(instruction, memory, rfbm))
            if self.byte is not None:
                after[self.at] = self.byte if self.byte >= 0 else memory[self.at]
            return bytes(after)

        def fault(self, instruction, area, rfbm):
            found = super().fault(instruction, area, rfbm)
            return None if found is None else found + self.fault_by

    def act(**lie):
        liar = Liar(genoa, 0xE7)
        for name, value in lie.items():
            setattr(liar, name, value)
        return attack.Act("a lie", liar, 7, "XSAVE", 2**64 - 1)

    assert act().agrees
    assert not act(at=2432, byte=0).agrees
    assert not act(at=2000, byte=-1).agrees
    assert not act(fault_by=-1).agrees


def test_without_x86_code_the_emulated_part_stays(monkeypatch):
    def refuse():
        raise UnsupportedError("no code for this CPU's own instructions")

    monkeypatch.setattr(attack, "_here", refuse)
    found, reasons = attack.acts()
    assert {act.where for act in found} == {"SapphireRapids"} and len(found) == 4
    assert len(reasons) == 1 and "no code" in reasons[0]
