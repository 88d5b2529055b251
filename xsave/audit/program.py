"""A way to an overrun as a program: the guest's steps and the save, on the emulated processor, into a buffer whose
surroundings are known."""

from xsave.components import Component, ComponentMask
from xsave.registers import REGISTERS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from xsave.audit.policies import Live, Policy
    from xsave.models import CpuModel

__all__ = ["program", "values_of"]

_POISON = 0x55


def values_of(component: Component) -> "dict[str, int | bytes]":
    """Registers, with values, that take a component out of its initial configuration; {} where none does."""
    for name, row in REGISTERS.items():
        if row.parts[-1].component != component or name == "mxcsr_mask":
            continue
        if row.scalar:
            return {name: row.init ^ 1 if name != "mxcsr" else 0x1FA0}
        return {name: bytes(1 if i == row.parts[-1].at else 0 for i in range(row.width))}
    return {}


def program(
    model: "CpuModel", policy: "Policy", instruction: str, size: int, rfbm: int, component: Component,
    events: "list[tuple[str, Live]]",
) -> str:  # fmt: skip
    """The text of the program: it ends with an AssertionError if nothing past the buffer changes."""
    lines = [
        "import xsave",
        "",
        f"model = {_made(model)}",
        f"cpu = xsave.Processor(model, xcr0={policy.first_xcr0:#x}, cpl=0)",
        f"size = {size}",
        f"memory = bytearray([{_POISON:#x}]) * (size + 65536)",
    ]
    for event, live in events:
        if event == "XCR0":
            lines.append(f"cpu.xsetbv(0, {live.xcr0:#x})  # the guest: {ComponentMask(live.xcr0)}")
        elif event == "XSS":
            lines.append(f"cpu.wrmsr(0xda0, {live.xss:#x})  # the guest: {ComponentMask(live.xss)}")
        elif event == "XFD":
            lines.append(f"cpu.wrmsr(0x1c4, {live.xfd:#x})  # the guest: {ComponentMask(live.xfd)}")
        elif event == "use":
            lines.append(f"cpu.load({values_of(component)!r})  # the guest uses {component.info.name}")
        elif event == "init":
            lines.append("cpu.load({})")
    masks = policy.at_save(events[-1][1])
    if masks != events[-1][1]:
        lines.append(f"cpu.xsetbv(0, {masks.xcr0:#x})  # whose masks rule the save")
        if "xsaves" in model.instructions:
            lines.append(f"cpu.wrmsr(0xda0, {masks.xss:#x})")
    lines += [
        f"cpu.{instruction.lower()}(memory, {rfbm:#x})",
        f"changed = [at for at in range(size, len(memory)) if memory[at] != {_POISON:#x}]",
        'print(f"{len(changed):,} bytes past the end changed, the first at byte {changed[0] if changed else None}")',
        "assert changed",
    ]
    return "\n".join(lines) + "\n"


def _made(model: "CpuModel") -> str:
    from xsave.models import CpuModel

    if model.name in CpuModel.names() and CpuModel.named(model.name) == model:
        return f"xsave.CpuModel.named({model.name!r})"
    return f"xsave.CpuModel.from_cpuid({dict(model.cpuid)!r}, profile={model.profile!r})"
