"""The attack, executed: a buffer sized for one XCR0, registers that have more, and a save that nobody limits.

Each act says first, by the arithmetic of `xsave.audit.buffer`, which bytes past the buffer's end change and where a
missing page faults; then it executes the save and compares. "This CPU" executes the real instruction, in a child
process; the wide XCR0 is then what this OS has set, not a guest. Elsewhere the emulated processor executes it.
"""

from xsave.audit.program import values_of
from xsave.audit.verdict import ALL, Verdict, buffer, can_disable, instruction_format, past
from xsave.components import Component, ComponentMask
from xsave.errors import HostError, UnsupportedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from xsave.models import CpuModel

    Values = dict[str, int | bytes]

__all__ = ["HERE", "Act", "acts"]

HERE = "this CPU"
# A byte that is written differs from at least one of them.
_POISON = (0x55, 0xAA)
_STAND_IN = "SapphireRapids"
_BASE = 0x100000
_PAGE = 4096
_AVX512 = ComponentMask.parse("AVX512")
_TILES = ComponentMask.parse("AMX")
_AVX = ComponentMask.parse("x87 SSE AVX")
_SSE = ComponentMask.parse("x87 SSE")


class Act:
    """One save, predicted and executed.

    `title` in words; `where`: `HERE` or the emulated model's name; `xcr0`, `xfd`, `rfbm` (EDX:EAX): masks at the save;
    `sized_for`: the mask that the buffer was sized for; `instruction`; `verdict`: the prediction (`Verdict`). What
    happened: `ranges`, the bytes past the buffer's end that changed, [(begin, end)] counted from the operand; `zeros`,
    whether they became 0; `fault`, the byte that CR2 named when the page behind the buffer was missing, or None.
    """

    __slots__ = (
        "fault", "instruction", "ranges", "rfbm", "sized_for", "title", "verdict", "where", "xcr0", "xfd", "zeros",
    )  # fmt: skip

    def __init__(self, title: str, cpu: "_Silicon | _Emulated", sized_for: int, instruction: str, rfbm: int) -> None:
        from xsave.layout import Layout

        self.title = title
        self.where = cpu.where
        self.xcr0 = ComponentMask(cpu.xcr0)
        self.xfd = ComponentMask(cpu.xfd)
        self.rfbm = rfbm
        self.sized_for = ComponentMask(sized_for)
        self.instruction = instruction
        format_ = instruction_format(cpu.model, instruction)
        size = Layout(cpu.model, sized_for, format_).size
        self.verdict: Verdict = buffer(
            cpu.model, xcr0=cpu.xcr0, xfd=cpu.xfd, instruction=instruction, rfbm=rfbm, size=size
        )
        room = Layout(cpu.model, cpu.xcr0, format_).size + _PAGE
        after = [cpu.save(instruction, bytes([poison]) * room, rfbm) for poison in _POISON]
        changed = [
            at for at in range(size, room) if any(run[at] != poison for run, poison in zip(after, _POISON, strict=True))
        ]
        self.ranges = past([(at, at + 1) for at in changed], size)
        self.zeros = bool(changed) and not any(run[at] for run in after for at in changed)
        self.fault = cpu.fault(instruction, bytes(size), rfbm)

    @property
    def bytes_over(self) -> int:
        """How many bytes past the buffer's end changed."""
        return sum(end - begin for begin, end in self.ranges)

    @property
    def agrees(self) -> bool:
        """Whether what happened is what was predicted, to the byte: bytes that hold no register may be left alone."""
        changed, said, unused = (_bytes(ranges) for ranges in (self.ranges, self.verdict.ranges, self.verdict.unused))
        return changed <= said and not said - changed - unused and self.fault == self.verdict.fault_at

    def __repr__(self) -> str:
        answer = "as predicted" if self.agrees else "NOT as predicted"
        return f"<Act {self.title!r} on {self.where}: {self.bytes_over:,} bytes past the end, {answer}>"


def _bytes(ranges: "list[tuple[int, int]]") -> "set[int]":
    return {at for begin, end in ranges for at in range(begin, end)}


def _state(mask: int) -> "Values":
    # Registers of a guest that uses everything in `mask`. PKRU stays 0, which a real save must not change.
    return values_of(mask & ~(1 << Component.PKRU))


class _Emulated:
    # The emulated processor of a model, with everything of XCR0 that is not disabled in use.
    def __init__(self, model: "CpuModel", xcr0: int, xfd: int = 0) -> None:
        self.where = model.name
        self.model = model
        self.xcr0 = xcr0
        self.xfd = xfd

    def _run(self, instruction: str, memory: "Any", rfbm: int, address: int) -> "Any":
        from xsave.processor import Processor

        cpu = Processor(self.model, xcr0=self.xcr0, ia32_xfd=self.xfd, cpl=3)
        cpu.load(_state(self.xcr0 & ~self.xfd))
        return getattr(cpu, f"try_{instruction.lower()}")(memory, rfbm, address)

    def save(self, instruction: str, memory: bytes, rfbm: int) -> bytes:
        """The memory after the save."""
        after = bytearray(memory)
        self._run(instruction, after, rfbm, 0)
        return bytes(after)

    def fault(self, instruction: str, area: bytes, rfbm: int) -> "int | None":
        """Where the save faults in memory that ends with the area."""
        from xsave.memory import Memory

        memory = Memory()
        memory.map(_BASE, bytearray(area))
        fault = self._run(instruction, memory, rfbm, _BASE)
        return None if fault is None else int(fault.offset)


class _Silicon:
    # The instruction itself. XCR0 is this OS's, and IA32_XFD as Linux has it for this process.
    def __init__(self) -> None:
        from xsave.host import Host
        from xsave.models import CpuModel

        self.where = HERE
        self.model = CpuModel.host()
        self.xcr0 = int(Host.xcr0)
        self.xfd = 0 if Host.amx_permission() else can_disable(self.model) & self.xcr0

    def _run(self, instruction: str, area: bytes, rfbm: int, edge: bool) -> "Any":
        from xsave.host import Host

        signed = rfbm - (1 << 64) if rfbm >> 63 else rfbm
        state = _state(self.xcr0 & ~self.xfd)
        return Host.execute(instruction, area, signed, state=state, edge=edge)

    def save(self, instruction: str, memory: bytes, rfbm: int) -> bytes:
        """The memory after the save."""
        return bytes(self._run(instruction, memory, rfbm, False).memory)

    def fault(self, instruction: str, area: bytes, rfbm: int) -> "int | None":
        """Where the save faults in memory that ends with the area."""
        fault = self._run(instruction, area, rfbm, True).fault
        return None if fault is None else fault.offset


def _overrun(cpu: "_Silicon | _Emulated", sized_for: int, instruction: str = "XSAVE") -> "list[Act]":
    # The save that nobody limits, then the same with the audit.
    return [
        Act("nobody looks: RFBM is all ones", cpu, sized_for, instruction, ALL),
        Act("audited: RFBM is what the buffer was sized for", cpu, sized_for, instruction, sized_for),
    ]


def _disabled(cpu: "_Silicon | _Emulated") -> "list[Act]":
    # With IA32_XFD armed: XSAVE writes what is disabled, as zeros; XSAVEC does not.
    sized_for = cpu.xcr0 & ~cpu.xfd
    return [
        Act(f"IA32_XFD armed, {instruction}", cpu, sized_for, instruction, ALL) for instruction in ("XSAVE", "XSAVEC")
    ]


def _narrow(xcr0: int, tiles: bool) -> int:
    # What the victim's buffer was sized for: all but tiles, or AVX without AVX-512, or SSE.
    if tiles:
        return xcr0 & ~int(_TILES)
    return xcr0 & int(_AVX if xcr0 & _AVX512 else _SSE)


def _here() -> "tuple[list[Act], list[Act]]":
    # In a process without permission for tiles: the overrun by AVX-512 or AVX, and what IA32_XFD does.
    cpu = _Silicon()
    return _overrun(cpu, _narrow(cpu.xcr0, False)), _disabled(cpu) if cpu.xfd else []


def _here_with_tiles() -> "list[Act]":
    from xsave.host import Host

    Host.request_amx()
    cpu = _Silicon()
    return _overrun(cpu, _narrow(cpu.xcr0, True))


def acts() -> "tuple[list[Act], list[str]]":
    """The attack on this CPU and on an emulated one that has what this one lacks: (acts, reasons for what is left out).

    On this CPU in child processes: a guest with AMX tiles where the kernel grants them (which cannot be given back),
    else with AVX-512 or AVX; and, where IA32_XFD is armed, saves of a disabled component. The emulated Sapphire Rapids
    does what this CPU did not.
    """
    from xsave.models import CpuModel

    overrun: "list[Act]" = []
    disabled: "list[Act]" = []
    reasons: "list[str]" = []
    tiles = False
    try:
        from xsave.host import Host, in_child

        overrun, disabled = in_child(_here)
        if Component.TILEDATA in Host.xcr0:
            overrun = in_child(_here_with_tiles)
            tiles = True
    except (HostError, UnsupportedError) as refused:
        reasons.append(f"{HERE}: {refused}")
    model = CpuModel.named(_STAND_IN)
    xcr0 = int(model.xcr0_mask) & ~(1 << Component.PKRU)  # as its guests often have it
    if not tiles:
        overrun += _overrun(_Emulated(model, xcr0), _narrow(xcr0, True))
    if not disabled:
        disabled = _disabled(_Emulated(model, xcr0, can_disable(model)))
    return overrun + disabled, reasons
