"""The independent slow model under test: the vectors judge the judge."""

import functools
from typing import Any

import reference

from .cases import BASE, Case, Outcome, cpuid
from .judge import visible_xinuse

CONTROLS: dict[str, dict[str, Any]] = {  # a flag of the vectors -> an argument of the constructor
    "TS": {"cr0_ts": True},
    "EM": {"cr0_em": True},
    "NO_OSXSAVE": {"cr4_osxsave": False},
    "NO_OSFXSR": {"cr4_osfxsr": False},
    "AC": {"ac": True},
    "XFD": {"xfd": 1 << reference.TILEDATA},
}


@functools.cache
def table(kind: str) -> reference.CpuTable:
    return reference.cpu_from_cpuid(cpuid(kind))


def play(case: Case) -> Outcome:
    arguments = {name: value for flag in case.flags for name, value in CONTROLS.get(flag, {}).items()}
    before = case.before()
    cpu = reference.Cpu(
        table(case.kind),
        before,
        xinuse=case.xinuse(before),
        xcr0=case.xcr0,
        xss=case.xss,
        cpl=case.cpl,
        linear_bits=cpuid(case.kind)[0x80000008, 0][0] >> 8 & 0xFF,
        **arguments,
    )
    cpu.mode64 = case.mode == 64
    region = case.region()
    memory = reference.Memory()
    for start, end in case.present:
        memory.map(BASE + start, memoryview(region)[start:end], "RDONLY" not in case.flags)

    results: dict[str, int] = {}
    fault = _run(cpu, case, memory, results)
    if case.op == "XSETBV":
        results["xcr0"] = cpu.xcr0
    if case.op == "WRMSR":
        results["xss"] = cpu.xss
    cpu.mode64 = True
    vector, cr2 = None, None
    if fault is not None:
        vector = fault[0]
        cr2 = fault[2] + case.address - case.pointer if vector == "#PF" else None
    return Outcome(
        vector,
        cpu.error_code if fault is not None else 0,
        cr2,
        cpu.registers,
        bytes(region),
        visible_xinuse(cpu.xinuse, cpu.registers["mxcsr"], cpu.xcr0, cpu.xfd),
        results,
    )


def _run(cpu: reference.Cpu, case: Case, memory: reference.Memory, results: dict[str, int]) -> "reference.Fault | None":
    form = case.form
    assert form is not None
    name = form.instruction
    if name == "XGETBV":
        answer = cpu.xgetbv(case.rcx)
        if not isinstance(answer, int):
            return answer
        results.update(rax=answer & 0xFFFFFFFF, rdx=answer >> 32)
        return None
    if name == "XSETBV":
        return cpu.xsetbv(case.rcx, case.value)
    if name == "WRMSR":
        return cpu.wrmsr(case.rcx, case.value)
    if name == "CPUID":
        assert case.value == 0xD, "the model has this leaf alone"
        results.update(zip(("rax", "rbx", "rcx", "rdx"), cpu.cpuid_d(case.rcx), strict=True))
        return None
    insn: Any = getattr(cpu, name.lower())
    where = {"address": case.address, "segment": form.segment}
    if name == "TILERELEASE":
        return insn()
    if name == "TILEZERO":
        return insn(form.tile)
    if name in ("TILELOADD", "TILELOADDT1", "TILESTORED"):
        return insn(form.tile, memory, case.stride, **where)
    if name in ("LDTILECFG", "STTILECFG"):
        return insn(memory, **where)
    if name in ("FXSAVE", "FXRSTOR"):
        return insn(memory, rexw=form.rexw, **where)
    return insn(memory, case.value, rexw=form.rexw, **where)
