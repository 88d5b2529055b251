"""`xsave run --host` and `--both`: the instruction on this CPU, in the state of the processor that a process has."""

from xsave.audit.verdict import can_disable
from xsave.cli.failures import NO_INPUT, CommandError, usage
from xsave.cli.machine import NO_MEMORY, Machine
from xsave.cli.outcome import REPEATED, Outcome, touched
from xsave.components import ComponentMask
from xsave.errors import HostError, UnsupportedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from typing import Any

    Values = dict[str, int | bytes]

_LINE = 64
# What lies behind an area that does not end at a page: more zeros than any instruction reaches.
_BEHIND = 1 << 15


def prepare(machine: Machine, options: "argparse.Namespace") -> None:
    """Makes the emulated processor what this process's CPU is: CPL 3, 64-bit mode, XCR0 and IA32_XFD as Linux has set
    them. Raises: `CommandError` for a setting that a process cannot have."""
    which = "--both" if options.both else "--host"
    if not machine.host:
        raise usage(f"run: {which} is this CPU, --cpu {options.cpu} another", f"leave out --cpu or {which}")
    chosen = {
        "--cpl": options.cpl not in (None, 3),
        "--mode": machine.mode != 64,
        "--ts": machine.ts,
        "--xss": bool(machine.xss),
        "--xfd": options.xfd is not None,
    }
    for name, given in chosen.items():
        if given:
            raise usage(f"run: {which} runs as a process does, {name} cannot be chosen", "leave it out, or emulate")
    from xsave.host import Host

    if machine.xcr0 != Host.xcr0:
        raise usage(f"run: XCR0 is {Host.xcr0} on this CPU, and no process can change it", "leave out --xcr0")
    if machine.instruction == "XSETBV":
        raise usage("run: at CPL 3 XSETBV is always #GP, there is nothing to execute", "--cpl 0 without " + which)
    if machine.stride < 0:
        raise usage(f"run: a negative --stride leaves the area, which {which} does not do")
    machine.cpl = 3
    # Linux keeps a component that needs its permission disabled where nobody has asked for it.
    armed = 0 if Host.amx_permission() else can_disable(machine.model)
    machine.xfd = ComponentMask(armed & Host.xcr0)


def room(machine: Machine, data: bytes) -> "tuple[bytes, int]":
    """The operand and how many zeros lie behind it, the same for both processors. Where its alignment allows, it is
    filled up to whole lines and the next page is not there."""
    if machine.instruction in NO_MEMORY:
        return b"", 0
    if machine.address % _LINE:
        return data, _BEHIND
    return data + bytes(-len(data) % _LINE), 0


def image_of(machine: Machine, values: "Values | None") -> bytes:
    """The registers as the standard area of XCR0 that both processors load: components whose values are the initial
    ones are not in use. Raises: `CommandError` where they cannot be loaded."""
    from xsave.codec import encode
    from xsave.layout import STANDARD, Layout

    held = {name: value for name, value in (values or {}).items() if name != "mxcsr_mask"}
    in_use = int(machine.processor(held).xinuse & machine.xcr0)
    if in_use & machine.xfd:
        raise CommandError(
            f"a process cannot have {ComponentMask(in_use & machine.xfd)} in use without the kernel's permission",
            NO_INPUT,
            hint="emulate, without --host and --both",
        )
    try:
        return bytes(encode(held, Layout(machine.model, int(machine.xcr0), STANDARD), xstate_bv=in_use))
    except (KeyError, ValueError) as error:
        raise CommandError(str(error.args[0]), NO_INPUT, hint="--state takes registers of this CPU") from None


def executed(machine: Machine, data: bytes, image: bytes) -> Outcome:
    """The instruction on this CPU, from the registers of `image`. Raises: `CommandError`."""
    from xsave.area import Area
    from xsave.codec import decode
    from xsave.layout import STANDARD, Layout

    made = Outcome("host")
    done = _execute(machine, data, image)
    made.fault, made.result = done.fault, done.value
    made.memory = done.memory if len(done.memory) == len(data) else data
    made.after = dict(done.registers)
    made.before = decode(Area(image, Layout(machine.model, int(machine.xcr0), STANDARD)))
    made.xinuse_before, made.xinuse_after, made.xcr0 = done.xinuse_before, done.xinuse_after, int(machine.xcr0)
    pairs = [(data, made.memory)]
    if machine.instruction in REPEATED:
        inverted = bytes(byte ^ 0xFF for byte in data)
        again = _execute(machine, inverted, image).memory
        pairs.append((inverted, again if len(again) == len(data) else inverted))
    made.written = touched(*pairs)
    return made


def _execute(machine: Machine, data: bytes, image: bytes) -> "Any":
    from xsave.host import Host

    mask = machine.index if machine.instruction == "XGETBV" else machine.mask
    place: "dict[str, Any]" = {}
    area: "bytes | None" = None
    if machine.instruction not in NO_MEMORY:
        if _canonical(machine.address):
            area = data
            offset = machine.address % _LINE
            place = {"offset": offset} if offset else {"edge": True}
        else:
            place = {"address": machine.address}
    try:
        return Host.execute(
            machine.instruction, area, mask, state=image, rexw=machine.rexw, align_check=machine.ac,
            tile=machine.tile, stride=machine.stride, **place,
        )  # fmt: skip
    except (HostError, UnsupportedError, ValueError) as error:
        raise CommandError(str(error), NO_INPUT, hint="without --host or --both it is emulated") from error


def _canonical(address: int) -> bool:
    return address < 1 << 47 or address >= (1 << 64) - (1 << 47)
