"""Where CPUs of different makes answer the same question differently: one row each, asked of any of them.

A row is one instruction with its circumstances and what to read off afterwards. `ask` puts it to the emulated processor
of a model, `ask_host` to this CPU; docs/conformance.md has the answers of both profiles.
"""

from xsave.errors import Fault, UnsupportedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from xsave.models import CpuModel

__all__ = ["DIFFERENCES", "Difference", "Result", "ask", "ask_host"]

_BASE = 0x10000000


class Result:
    """What an instruction did, whoever executed it. `fault`: (vector, offset) or None; `registers`, `memory` and
    `xinuse` (XGETBV(1)) afterwards."""

    __slots__ = ("fault", "memory", "registers", "xinuse")

    def __init__(
        self, fault: "tuple[str, int | None] | None", memory: bytes, registers: "dict[str, int | bytes]", xinuse: int
    ) -> None:
        self.fault = fault
        self.memory = memory
        self.registers = registers
        self.xinuse = xinuse


class Difference:
    """One row. `name` is what the command line takes, `question` the row in words; `instruction` runs with EDX:EAX =
    `mask` on the bytes `area`, after the steps `before`; `place` says where they lie (`offset` bytes after a 64-byte
    boundary, `edge`: nothing behind them, `address`: nothing there at all); `read` makes the answer."""

    __slots__ = ("area", "before", "instruction", "mask", "name", "place", "question", "read")

    def __init__(
        self,
        name: str,
        question: str,
        instruction: str,
        mask: int,
        area: "bytes | None",
        read: "Callable[[Result], str]",
        *,
        before: "tuple[tuple[Any, ...], ...]" = (),
        place: "dict[str, Any] | None" = None,
    ) -> None:
        self.name = name
        self.question = question
        self.instruction = instruction
        self.mask = mask
        self.area = area
        self.read = read
        self.before = before
        self.place = place or {}


def _image(xstate_bv: int, *fields: "tuple[int, bytes]", xcomp_bv: int = 0, size: int = 1024) -> bytes:
    image = bytearray(max(size, 576))
    image[0:2] = b"\x7f\x03"
    image[24:28] = b"\x80\x1f\0\0"
    image[512:520] = xstate_bv.to_bytes(8, "little")
    image[520:528] = xcomp_bv.to_bytes(8, "little")
    for at, data in fields:
        image[at : at + len(data)] = data
    return bytes(image[:size])


def _fault(result: Result) -> str:
    if result.fault is None:
        return "no fault"
    vector, offset = result.fault
    return vector if vector != "#PF" else f"#PF, CR2 at byte {offset}"


def _xinuse(result: Result) -> str:
    return f"XINUSE {result.xinuse & 7:#x}"


def _register(name: str) -> "Callable[[Result], str]":
    def read(result: Result) -> str:
        value = result.registers[name]
        return f"{name} {value:#x}" if isinstance(value, int) else f"{name} {value.hex()}"

    return read


def _after_fault(result: Result) -> str:
    st0 = result.registers["st0"]
    assert isinstance(st0, bytes)
    return f"{_fault(result)}, ST0 {'loaded' if any(st0) else 'as before'}"


def _selector(result: Result) -> str:
    return f"FCS {int.from_bytes(result.memory[12:14], 'little'):#x}"


_COMPACT = 1 << 63
# An unmasked invalid operation is pending: FCW with its mask clear, FSW with the flag and ES, B.
_PENDING = (0, b"\x7e\x03\x81\x80")

DIFFERENCES: "dict[str, Difference]" = {
    row.name: row
    for row in (
        Difference(
            "xinuse-initial", "XINUSE after XRSTOR loads initial values of x87, SSE and AVX", "XRSTOR", 7,
            _image(7), _xinuse,
        ),
        Difference(
            "xinuse-ldmxcsr", "XINUSE after LDMXCSR of 1F80H", "XSAVE", 0, _image(0), _xinuse,
            before=(("LDMXCSR", 0x1F80),),
        ),
        Difference(
            "xinuse-fninit", "XINUSE after FNINIT in the initial configuration", "XSAVE", 0, _image(0),
            _xinuse, before=(("FNINIT",),),
        ),
        Difference(
            "mxcsr-bit-17", "XRSTOR of an MXCSR with bit 17 set", "XRSTOR", 2,
            _image(2, (24, b"\x80\x1f\x02\0")), _fault,
        ),
        Difference(
            "x87-pointers", "FIP 1234H after XRSTOR without a pending exception", "XRSTOR", 1,
            _image(1, (8, b"\x34\x12")), _register("fip"),
        ),
        Difference(
            "fdp-width", "FDP with bit 58 alone set, after XRSTOR with an exception pending", "XRSTOR", 1,
            _image(1, _PENDING, (16, bytes(7) + b"\x04")), _register("fdp"),
        ),
        Difference(
            "selectors", "FCS 33H after the 32-bit forms of XRSTOR and XSAVE, an exception pending", "XSAVE", 1,
            _image(1, _PENDING, (12, b"\x33\0")), _selector,
            before=(("XRSTOR", 1, False),), place={"rexw": False},
        ),
        Difference(
            "compacted-extent", "compacted XRSTOR of AVX with XSTATE_BV 0, memory ends behind the header", "XRSTOR", 4,
            _image(0, xcomp_bv=_COMPACT | 7, size=576), _fault, place={"edge": True},
        ),
        Difference(
            "header-or-page", "a reserved header byte set, and memory ends behind the header", "XRSTOR", 7,
            _image(0, (530, b"\x01"), size=576), _fault, place={"edge": True},
        ),
        Difference(
            "alignment-check", "XSAVE one byte off, with EFLAGS.AC", "XSAVE", 3, _image(0), _fault,
            place={"offset": 1, "align_check": True},
        ),
        Difference(
            "probe-order", "which byte XSAVE of x87, SSE and AVX misses first where nothing is there", "XSAVE", 7, None,
            _fault, place={"address": 0x1000},
        ),
        Difference(
            "stack-misaligned", "XSAVE through SS, misaligned and not canonical", "XSAVE", 7, None, _fault,
            place={"address": (1 << 62) + 1, "segment": "ss"},
        ),
        Difference(
            "atomic-mxcsr", "compacted XRSTOR of x87 and SSE with a reserved MXCSR bit", "XRSTOR", 3,
            _image(3, (24, b"\x80\x1f\0\x80"), (32, b"\x11" * 10), xcomp_bv=_COMPACT | 3),
            _after_fault,
        ),
    )
}  # fmt: skip


def ask(row: Difference, model: "CpuModel") -> str:
    """The answer of the emulated processor of `model`, in user mode with everything that it has.

    Raises: `UnsupportedError` for a CPU that lacks the instruction.
    """
    from xsave.memory import Memory
    from xsave.processor import Processor

    place = row.place
    cpu = Processor(model, cpl=3, ac=place.get("align_check", False))
    options = {"rexw": place.get("rexw", True), "segment": place.get("segment", "ds")}
    memory = Memory()
    area = bytearray()
    address = place.get("address")
    if address is None:
        area = bytearray(row.area or b"")
        address = _BASE + 64 + place.get("offset", 0)
        room = area if place.get("edge") else area + bytearray(16384)
        memory.map(address, room)
        area = room
    for name, *operands in row.before:
        if name == "XRSTOR":
            cpu.xrstor(memory, operands[0], address, rexw=operands[1])
        elif name == "LDMXCSR":
            cpu.ldmxcsr(*operands)
        else:
            cpu.fninit()
    fault = getattr(cpu, f"try_{row.instruction.lower()}")(memory, row.mask, address, **options)
    if fault is not None and fault.vector == "#UD":
        raise UnsupportedError(str(fault))
    told = (fault.vector, fault.offset) if isinstance(fault, Fault) else None
    return row.read(Result(told, bytes(area), cpu.registers(), cpu.xgetbv(1)))


def ask_host(row: Difference) -> str:
    """The answer of this CPU. Raises: `UnsupportedError` in a portable build; `HostError`."""
    from xsave.host import Host

    options = dict(row.place)
    done = Host.execute(row.instruction, row.area, row.mask, before=row.before, **options)
    fault = None if done.fault is None else (done.fault.vector, done.fault.offset)
    return row.read(Result(fault, done.memory, done.registers, int(done.xinuse_after or 0)))
