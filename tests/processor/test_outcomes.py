"""Outcomes as values: `try_` forms return what the others raise; faults and exits pickle and say what went wrong."""

import copy
import pickle

import pytest
from reference import COMPACTED

from tests.processor.operands import BASE, INTEL, image, processor
from xsave import Exit, Fault, Processor, Vmx
from xsave.memory import Memory

CALLS = {
    **{insn: (Memory(), 1, BASE) for insn in ("xsave", "xsaveopt", "xsavec", "xsaves", "xrstor", "xrstors")},
    **{insn: (Memory(), BASE) for insn in ("fxsave", "fxrstor", "ldtilecfg", "sttilecfg")},
    **{insn: (0, Memory(), 64, BASE) for insn in ("tileloadd", "tileloaddt1", "tilestored")},
    "tilezero": (0,), "tilerelease": (), "xgetbv": (7,), "xsetbv": (0, 0), "wrmsr": (0xDA0, 1),
}


def test_every_try_form_returns_what_the_other_raises():
    assert {name[4:] for name in dir(Processor) if name.startswith("try_")} == set(CALLS)
    for insn, arguments in CALLS.items():
        cpu = processor(INTEL, mode=32 if insn == "tilerelease" else 64)
        returned = getattr(cpu, "try_" + insn)(*arguments)
        with pytest.raises(Fault) as caught:
            getattr(cpu, insn)(*arguments)
        assert isinstance(returned, Fault), insn
        assert str(returned) == str(caught.value)
        assert vars(returned) == vars(caught.value)
        assert returned.section.startswith("SD") and returned.rule and insn[:7].upper() in returned.message


def test_faults_and_exits_pickle():
    fault = processor(INTEL).try_xrstor(image(INTEL, 0x100, COMPACTED, 0), 1)
    exit_ = processor(INTEL, cpl=0, vmx=Vmx()).try_xsetbv(0, 1)
    assert isinstance(fault, Fault) and isinstance(exit_, Exit)
    for each in (fault, exit_):
        for other in (pickle.loads(pickle.dumps(each)), copy.copy(each), copy.deepcopy(each)):
            assert type(other) is type(each)
            assert (str(other), vars(other)) == (str(each), vars(each))
    vmx = pickle.loads(pickle.dumps(Vmx(False, 0x800, 7)))
    assert (vmx.xsaves, vmx.xss_exiting, vmx.xfam) == (False, 0x800, 7)
