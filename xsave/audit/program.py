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
_MXCSR = 0x1FA0  # as at reset, with one exception flag


def values_of(mask: int) -> "dict[str, int | bytes]":
    """Registers, with values, that take every component of `mask` out of its initial configuration."""
    found: "dict[str, int | bytes]" = {}
    for component in ComponentMask(mask):
        name, row = next(item for item in REGISTERS.items() if item[1].parts[-1].component == component)
        if row.scalar:
            found[name] = _MXCSR if name == "mxcsr" else row.init ^ 1
            continue
        # A wider register takes the place of the one that is its lower part.
        for other in [each for each in found if _start(each) == _start(name)]:
            del found[other]
        ones = {part.at for part in row.parts if mask >> part.component & 1}
        found[name] = bytes(1 if i in ones else 0 for i in range(row.width))
    return found


def _start(name: str) -> "tuple[Component, int]":
    part = REGISTERS[name].parts[0]
    return part.component, part.offset


def program(
    policy: "Policy", instruction: str, size: int, rfbm: int, component: Component, events: "list[tuple[str, Live]]"
) -> str:
    """The text of the program: it ends with an AssertionError if nothing past the buffer changes."""
    lines = [
        "import xsave",
        "",
        f"model = {_made(policy.model)}",
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
            lines.append(f"cpu.load({values_of(1 << component)!r})  # the guest uses {component.info.name}")
        elif event == "init":
            lines.append("cpu.load({})")
    masks = policy.at_save(events[-1][1])
    if masks != events[-1][1]:
        lines.append(f"cpu.xsetbv(0, {masks.xcr0:#x})  # whose masks rule the save")
        if "xsaves" in policy.model.instructions:
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
