"""The compiled processor under test, through its public interface alone."""

import functools

from xsave import CpuModel, Exit, Fault, Memory, Processor

from .cases import BASE, Case, Outcome, cpuid
from .judge import visible_xinuse

XFD_TILEDATA = 1 << 18
CONTROLS = {  # a flag of the vectors -> an argument of the constructor
    "TS": {"cr0_ts": True},
    "EM": {"cr0_em": True},
    "NO_OSXSAVE": {"cr4_osxsave": False},
    "NO_OSFXSR": {"cr4_osfxsr": False},
    "NO_PKE": {"cr4_pke": False},
    "NO_CET": {"cr4_cet": False},
    "NO_UINTR": {"cr4_uintr": False},
    "AC": {"ac": True},
    "XFD": {"ia32_xfd": XFD_TILEDATA},
}


@functools.cache
def model(kind: str) -> CpuModel:
    return CpuModel.from_cpuid(cpuid(kind))


def play(case: Case) -> Outcome:
    arguments = {name: value for flag in case.flags for name, value in CONTROLS.get(flag, {}).items()}
    cpu = Processor(model(case.kind), xcr0=case.xcr0, ia32_xss=case.xss, cpl=case.cpl, mode=case.mode, **arguments)
    before = case.before()
    cpu.load(before, xinuse=case.xinuse(before))
    region = case.region()
    memory = Memory()
    for start, end in case.present:
        memory.map(BASE + start, memoryview(region)[start:end], writable="RDONLY" not in case.flags)

    results: dict[str, int] = {}
    answer = _run(cpu, case, memory, results)
    if isinstance(answer, Exit):
        raise AssertionError(f"{case}: {answer}")
    fault = answer if isinstance(answer, Fault) else None
    if case.op == "XSETBV":
        results["xcr0"] = int(cpu.xcr0)
    if case.op == "WRMSR":
        results["xss"] = int(cpu.ia32_xss)
    cpu.mode = 64
    after = cpu.registers()
    cr2 = None
    if fault is not None and fault.vector == "#PF" and fault.offset is not None:
        cr2 = fault.offset + case.address - case.pointer
    return Outcome(
        fault.vector if fault is not None else None,
        fault.error_code if fault is not None else 0,
        cr2,
        after,
        bytes(region),
        visible_xinuse(int(cpu.xinuse), after["mxcsr"], int(cpu.xcr0), int(cpu.ia32_xfd)),
        results,
    )


def _run(cpu: Processor, case: Case, memory: Memory, results: dict[str, int]) -> Fault | Exit | None:
    form = case.form
    assert form is not None
    name = form.instruction
    if name == "XGETBV":
        answer = cpu.try_xgetbv(case.rcx)
        if isinstance(answer, Fault):
            return answer
        results.update(rax=answer & 0xFFFFFFFF, rdx=answer >> 32)
        return None
    if name == "XSETBV":
        return cpu.try_xsetbv(case.rcx, case.value)
    if name == "WRMSR":
        return cpu.try_wrmsr(case.rcx, case.value)
    if name == "CPUID":
        results.update(zip(("rax", "rbx", "rcx", "rdx"), cpu.cpuid(case.value, case.rcx), strict=True))
        return None
    insn = getattr(cpu, "try_" + name.lower())
    if name == "TILERELEASE":
        return insn()
    if name == "TILEZERO":
        return insn(form.tile)
    if name in ("TILELOADD", "TILELOADDT1", "TILESTORED"):
        return insn(form.tile, memory, case.stride, address=case.address, segment=form.segment)
    if name in ("LDTILECFG", "STTILECFG"):
        return insn(memory, address=case.address, segment=form.segment)
    if name in ("FXSAVE", "FXRSTOR"):
        return insn(memory, address=case.address, rexw=form.rexw, segment=form.segment)
    return insn(memory, case.value, address=case.address, rexw=form.rexw, segment=form.segment)
