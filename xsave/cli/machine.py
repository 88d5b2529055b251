"""The emulated processor that the options describe, and one instruction executed on it."""

from xsave.cli.failures import NO_INPUT, CommandError, suggestion, usage
from xsave.cli.options import chosen_cpu, mask, number
from xsave.components import ComponentMask
from xsave.errors import Exit, Fault, LayoutError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping
    from typing import Any

    from xsave.models import CpuModel
    from xsave.processor import Processor

    Values = Mapping[str, int | bytes]

SAVES = ("XSAVE", "XSAVEOPT", "XSAVEC", "XSAVES")
RESTORES = ("XRSTOR", "XRSTORS")
LEGACY = ("FXSAVE", "FXRSTOR")
TILE_ROWS = ("TILELOADD", "TILELOADDT1", "TILESTORED")
TILES = ("LDTILECFG", "STTILECFG", *TILE_ROWS, "TILEZERO", "TILERELEASE")
CONTROL = ("XGETBV", "XSETBV")
INSTRUCTIONS = (*SAVES, *RESTORES, *LEGACY, *CONTROL, *TILES)
# Without a memory operand; and those whose operand is not an XSAVE area, by its size (tile rows: 16 of 64 bytes).
NO_MEMORY = ("XGETBV", "XSETBV", "TILEZERO", "TILERELEASE")
_SIZES = {"FXSAVE": 512, "FXRSTOR": 512, "LDTILECFG": 64, "STTILECFG": 64}
_ROWS, _ROW = 16, 64
_SUPERVISOR = ("XSAVES", "XRSTORS")

# Where an area lies unless --address says otherwise: aligned to all that any instruction asks for, canonical.
ADDRESS = 0x10000
ALL = (1 << 64) - 1


class Machine:
    """The state of the processor around its registers, and the operands of one instruction."""

    __slots__ = (
        "ac", "address", "cpl", "host", "index", "instruction", "mask", "mode", "model", "rexw", "stride", "tile", "ts",
        "value", "xcr0", "xfd", "xss",
    )  # fmt: skip

    def __init__(self, options: "argparse.Namespace", instruction: str, model: "CpuModel | None" = None) -> None:
        self.instruction, self.rexw = named(instruction)
        self.host = options.cpu == "host" or (model is None and options.cpu is None)
        self.model: "CpuModel" = model if model is not None else chosen_cpu(options.cpu)
        self.xcr0 = mask(options.xcr0) if options.xcr0 else self._enabled()
        self.xss = ComponentMask(mask(options.xss) if options.xss else 0)
        self.xfd = ComponentMask(mask(options.xfd) if options.xfd else 0)
        self.mask = ALL if options.mask is None else int(mask(options.mask))
        self.cpl: int = (0 if self.instruction in _SUPERVISOR else 3) if options.cpl is None else options.cpl
        self.mode: int = options.mode
        if getattr(options, "no_rexw", False):
            self.rexw = False
        if self.mode == 32:
            self.rexw = False  # REX prefixes exist in 64-bit mode alone
        self.address = ADDRESS if options.address is None else _bounded(options.address, "--address")
        self.ac: bool = getattr(options, "ac", False)
        self.ts: bool = getattr(options, "ts", False)
        self.index = self.value = self.tile = 0
        self.stride = _ROW

    def _enabled(self) -> ComponentMask:
        # XCR0 as it is on this CPU; elsewhere all that the model has.
        if self.host:
            from xsave.host import Host

            return Host.xcr0
        return ComponentMask(self.model.xcr0_mask)

    @property
    def name(self) -> str:
        """The instruction as an assembler writes it."""
        wide = self.instruction in (*SAVES, *RESTORES, *LEGACY) and self.rexw
        return f"{self.instruction}64" if wide else self.instruction

    @property
    def enabled(self) -> ComponentMask:
        """The components that the instruction reaches: XCR0, with IA32_XSS for XSAVES and XRSTORS."""
        return ComponentMask(self.xcr0 | (self.xss if self.instruction in _SUPERVISOR else 0))

    @property
    def rfbm(self) -> ComponentMask:
        """The requested-feature bitmap: EDX:EAX within what is enabled."""
        return ComponentMask(self.enabled & self.mask)

    def processor(self, values: "Values | None" = None) -> "Processor":
        """A processor with these registers: initial ones but for `values`. Raises: `CommandError`."""
        from xsave.processor import Processor

        try:
            made = Processor(
                self.model,
                xcr0=int(self.xcr0),
                ia32_xss=int(self.xss),
                ia32_xfd=int(self.xfd),
                cpl=self.cpl,
                mode=self.mode,
                cr0_ts=self.ts,
                ac=self.ac,
            )
        except ValueError as error:
            raise usage(f"{self.model.name}: {error}", _has(self.model)) from None
        if values is not None:
            try:
                made.load(values)
            except (KeyError, ValueError, TypeError, OverflowError) as error:
                raise CommandError(str(error.args[0]), NO_INPUT, hint="--state takes registers of that CPU") from None
        return made

    def operand_size(self) -> int:
        """Bytes of the memory operand: what the instruction can reach (0: it has none)."""
        from xsave.layout import COMPACTED, STANDARD, Layout

        if self.instruction in NO_MEMORY:
            return 0
        if self.instruction in TILE_ROWS:
            return (_ROWS - 1) * abs(self.stride) + _ROW
        if self.instruction in _SIZES:
            return _SIZES[self.instruction]
        form = COMPACTED if self.instruction in ("XSAVEC", *_SUPERVISOR) else STANDARD
        try:
            return Layout(self.model, int(self.rfbm) | 3, form).size
        except LayoutError as error:
            raise CommandError(f"{self.model.name}: {error}", hint="--mask leaves the component out") from None

    def execute(self, processor: "Processor", memory: "Any") -> "tuple[Fault | Exit | None, int | None]":
        """The instruction on a processor: what it ended with, and the value that XGETBV read."""
        insn = self.instruction
        if insn == "XGETBV":
            value = processor.try_xgetbv(self.index)
            return (value, None) if isinstance(value, Fault) else (None, value)
        if insn == "XSETBV":
            return processor.try_xsetbv(self.index, self.value), None
        method: "Any" = getattr(processor, f"try_{insn.lower()}")
        if insn == "TILERELEASE":
            return method(), None
        if insn == "TILEZERO":
            return method(self.tile), None
        if insn in TILE_ROWS:
            return method(self.tile, memory, self.stride, self.address), None
        if insn in ("LDTILECFG", "STTILECFG"):
            return method(memory, self.address), None
        if insn in LEGACY:
            return method(memory, self.address, self.rexw), None
        return method(memory, self.mask, self.address, self.rexw), None


def named(word: str) -> "tuple[str, bool]":
    """The instruction that a word names, and whether with REX.W: always, unless an option says otherwise."""
    upper = word.upper()
    if upper in INSTRUCTIONS:
        return upper, True
    if upper.endswith("64") and upper[:-2] in (*SAVES, *RESTORES, *LEGACY):
        return upper[:-2], True
    raise usage(f"no instruction {word!r}", suggestion(word, list(INSTRUCTIONS)) or f"one of {' '.join(INSTRUCTIONS)}")


def add_machine(made: "argparse.ArgumentParser") -> "list[argparse.Action]":
    """`--xfd`, `--mask`, `--cpl`, `--mode` and `--address`."""
    add = made.add_argument
    return [
        add("--xfd", metavar="MASK", help="IA32_XFD (default: 0)"),
        add("--mask", metavar="MASK", help="EDX:EAX (default: all ones)"),
        add("--cpl", type=int, choices=range(4), metavar="0..3", help="CPL (default: 3; XSAVES, XRSTORS: 0)"),
        add("--mode", type=int, choices=(64, 32), default=64, help="64-bit or compatibility mode"),
        add("--address", metavar="N", help=f"linear address of the area (default: {ADDRESS:#x})"),
    ]


def memory_of(area: bytearray, address: int) -> "Any":
    """What the processor can reach: the area at `address`, and nothing else. Raises: `CommandError`."""
    from xsave.memory import Memory

    memory = Memory()
    if area:
        try:
            memory.map(address, area)
        except ValueError as error:
            raise usage(f"--address: {error}") from None
    return memory


def _bounded(text: str, option: str) -> int:
    value = number(text)
    if not 0 <= value <= ALL:
        raise usage(f"{option} {text}: not within 64 bits")
    return value


def _has(model: "CpuModel") -> str:
    from xsave.report.text import mask_text

    supervisor = f"; IA32_XSS can be {mask_text(model.xss_mask)}" if model.xss_mask else ""
    return f"XCR0 can be {mask_text(model.xcr0_mask)}{supervisor}"
