"""What one executed instruction left behind, emulated or on this CPU, and what differs between the two."""

from xsave.cli.machine import memory_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from xsave.cli.machine import Machine
    from xsave.components import ComponentMask
    from xsave.processor import Processor

    Values = dict[str, int | bytes]

# Executed twice, to see what they write.
REPEATED = ("XSAVE", "XSAVEOPT", "XSAVEC", "XSAVES", "FXSAVE", "STTILECFG", "TILESTORED")
_HEADER, _XCOMP, _HEADER_END = 512, 520, 576
# Where the registers' image lies, far from any operand.
_ELSEWHERE = 0x7000_0000_0000


class Outcome:
    """One execution. `place`: "emulated" or "host"; `fault`: a `Fault` or None; `result`: what XGETBV read; `written`:
    (start, end) of the bytes of the area that the instruction determined, whether or not they changed."""

    __slots__ = (
        "after", "before", "fault", "memory", "place", "result", "written", "xcr0", "xinuse_after", "xinuse_before",
    )  # fmt: skip

    def __init__(self, place: str) -> None:
        self.place = place
        self.fault: "Any" = None
        self.result: "int | None" = None
        self.memory = b""
        self.written: "list[tuple[int, int]]" = []
        self.before: "Values" = {}
        self.after: "Values" = {}
        self.xinuse_before: "ComponentMask | None" = None
        self.xinuse_after: "ComponentMask | None" = None
        self.xcr0: int = 0

    @property
    def changed(self) -> "dict[str, tuple[Any, Any]]":
        """Registers that changed: (before, after)."""
        before = self.before
        return {
            name: (before[name], value)
            for name, value in self.after.items()
            if name in before and before[name] != value
        }


def emulated(
    machine: "Machine", data: bytes, values: "Values | None", image: "bytes | None" = None, behind: int = 0
) -> Outcome:
    """The instruction on the emulated processor, from the registers `values`.

    With `image`, a standard area of XCR0, they come from there as on this CPU: by XRSTOR, which says what is in use,
    and XINUSE is what XGETBV shows of it. `behind`: zeros that lie behind the operand.
    """
    from xsave.components import ComponentMask

    def prepared() -> "Processor":
        made = machine.processor(values if image is None else None)
        if image is not None:
            made.xrstor(image, -1, _ELSEWHERE)
        return made

    def in_use(processor: "Processor") -> ComponentMask:
        seen = processor.try_xgetbv(1) if image is not None else processor.xinuse
        return ComponentMask(seen) if isinstance(seen, int) else processor.xinuse

    made = Outcome("emulated")
    processor = prepared()
    area = bytearray(data) + bytes(behind)
    made.before, made.xinuse_before = processor.registers(), in_use(processor)
    made.fault, made.result = machine.execute(processor, memory_of(area, machine.address))
    made.after, made.xinuse_after, made.xcr0 = processor.registers(), in_use(processor), int(processor.xcr0)
    made.memory = bytes(area[: len(data)])
    # A byte that was written with the value that it had changes where the area held something else: once more, with
    # every bit of the area inverted. No save instruction judges what is there before.
    if machine.instruction in REPEATED:
        inverted = bytes(byte ^ 0xFF for byte in data)
        other = bytearray(inverted) + bytes(behind)
        machine.execute(prepared(), memory_of(other, machine.address))
        made.written = touched((data, made.memory), (inverted, other))
    else:
        made.written = touched((data, made.memory))
    return made


def touched(*pairs: "tuple[Any, Any]") -> "list[tuple[int, int]]":
    """(start, end) of the runs of bytes that differ in any of the pairs."""
    runs: "list[tuple[int, int]]" = []
    for at in range(len(pairs[0][0])):
        if any(a[at] != b[at] for a, b in pairs):
            if runs and runs[-1][1] == at:
                runs[-1] = (runs[-1][0], at + 1)
            else:
                runs.append((at, at + 1))
    return runs


def pieces(machine: "Machine", memory: bytes, runs: "list[tuple[int, int]]") -> "list[tuple[str, int, int]]":
    """Runs of bytes cut at the borders of what an area holds, with its names: (name or "", start, end)."""
    borders = _borders(machine, memory)
    found = []
    for start, end in runs:
        at = start
        while at < end:
            name, limit = next(((name, e) for name, s, e in borders if s <= at < e), ("", 0))
            if not name:
                limit = min((s for _, s, _ in borders if s > at), default=end)
            found.append((name, at, min(end, limit)))
            at = min(end, limit)
    return found


def _borders(machine: "Machine", memory: bytes) -> "list[tuple[str, int, int]]":
    # (name, start, end) of components and header fields of the area that the instruction knows.
    from xsave.components import Component
    from xsave.errors import LayoutError
    from xsave.layout import COMPACTED, STANDARD, Layout

    insn = machine.instruction
    if "TILE" in insn:
        return []
    header = [("XSTATE_BV", _HEADER, _XCOMP), ("XCOMP_BV", _XCOMP, _XCOMP + 8), ("reserved", _XCOMP + 8, _HEADER_END)]
    mask = 3
    form = STANDARD
    if insn in ("FXSAVE", "FXRSTOR"):
        header = []
    else:
        form = COMPACTED if insn in ("XSAVEC", "XSAVES") else STANDARD
        mask = int(machine.enabled) | 3
        if form == COMPACTED:
            mask = int(machine.rfbm) | 3
    try:
        layout = Layout(machine.model, mask, form)
    except LayoutError:
        return header
    made = [
        (Component(bit).info.name, offset, offset + size)
        for bit in range(63)
        if mask >> bit & 1
        for offset, size in layout.extents(bit)
    ]
    return header + made


def differences(machine: "Machine", one: Outcome, other: Outcome) -> "list[dict[str, Any]]":
    """What differs between two executions: records of the JSON document, each with `what` and the two values."""
    from xsave.report.json import register_record

    found: "list[dict[str, Any]]" = []

    def note(what: str, a: "Any", b: "Any", offset: "int | None" = None) -> None:
        found.append({"what": what, "offset": offset, one.place: a, other.place: b})

    a, b = _fault_key(one), _fault_key(other)
    if a != b:
        note("fault", a, b)
    for name, start, end in pieces(machine, one.memory, touched((one.memory, other.memory))):
        note(f"memory{f' ({name})' if name else ''}", one.memory[start:end].hex(), other.memory[start:end].hex(), start)
    for name in one.after:
        if name in other.after and one.after[name] != other.after[name]:
            note(name, register_record(one.after[name]), register_record(other.after[name]))
    if one.result != other.result:
        a, b = (None if each is None else f"{each:#x}" for each in (one.result, other.result))
        note("result", a, b)
    x, y = one.xinuse_after, other.xinuse_after
    if x is not None and y is not None and (x ^ y) & ~_hidden(machine, one, other):
        note("XINUSE", f"{int(x):#x}", f"{int(y):#x}")
    return found


def _hidden(machine: "Machine", one: Outcome, other: Outcome) -> int:
    # Bits of XINUSE that cannot be seen: after a fault the state comes back out of the signal frame, in which the
    # kernel sets bits 0 and 1; where XINUSE is history, that restore makes another one.
    if one.fault is None and other.fault is None:
        return 0
    return 3 if machine.model.knobs.get("xinuse") == "value" else (1 << 64) - 1


def _fault_key(outcome: Outcome) -> "str | None":
    from xsave.cli.fault import title

    fault = outcome.fault
    if fault is None:
        return None
    place = f" at byte {fault.offset}" if fault.vector == "#PF" and fault.offset is not None else ""
    return f"{title(fault.vector, fault.error_code)}{place}"
