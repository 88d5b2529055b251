"""The registers that an instruction begins with: from JSON, from an area, from this thread, or at random."""

import os

from xsave.cli.failures import NO_INPUT, CommandError, suggestion, usage
from xsave.errors import LayoutError
from xsave.registers import REGISTERS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from random import Random
    from typing import Any

    from xsave.cli.machine import Machine
    from xsave.models import CpuModel

    Values = dict[str, int | bytes]

_TEXT_LIMIT = 1 << 24
_TILE_ROWS, _TILE_ROW = 16, 64


def initial_values(options: "Any", machine: "Machine") -> "tuple[Values | None, str]":
    """The values that --state or --seed gives and where they come from; None: the initial configuration, or with
    --host and --both this thread's. Raises: `CommandError`."""
    if options.state is not None and options.seed is not None:
        raise usage("run: --state and --seed exclude each other")
    if options.seed is not None:
        mask = int(machine.xcr0 & ~machine.xfd)
        return random_values(machine.model, mask, options.seed), f"random, seed {options.seed}"
    if options.state is not None:
        values, origin = _stated(options.state, machine.model)
        _check(values, machine)
        return values, origin
    if options.host or options.both:
        from xsave.codec import decode
        from xsave.host import Host

        return decode(Host.capture()), "this thread's"
    return None, "initial"


def _stated(word: str, model: "CpuModel") -> "tuple[Values, str]":
    if word.lstrip().startswith("{"):
        return _from_json(word, "--state"), "JSON"
    head = b""
    if os.path.isfile(word):
        with open(word, "rb") as file:
            head = file.read(256)
    if head.lstrip().startswith(b"{"):
        with open(word, "rb") as file:
            text = file.read(_TEXT_LIMIT)
        return _from_json(text.decode("utf-8", "replace"), word), word
    return _from_area(word, model)


def _from_area(word: str, model: "CpuModel") -> "tuple[Values, str]":
    # In the layout that the area shows by itself, if it does; else in that of the processor.
    from xsave.cli.inputs import open_image, pick_thread
    from xsave.codec import decode

    if word == "-":
        raise usage("run: --state needs a file", "- is AREA's")
    try:
        thread = pick_thread(open_image(word, None), None)
        own = thread.evidence.confidence in ("exact", "known")
    except CommandError:
        own = False
    if not own:
        thread = pick_thread(open_image(word, model), None)
    area = thread.area
    if area is None:
        raise CommandError("no extended state in it", NO_INPUT, source=word)
    try:
        values = decode(area)
    except LayoutError as error:
        raise CommandError(str(error), NO_INPUT, source=word) from None
    form = "compacted" if area.layout.format else "standard"
    return values, f"{word}, {form}, layout of {area.layout.model.name or 'its own'} ({thread.evidence.rule})"


def _from_json(text: str, source: str) -> "Values":
    import json

    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CommandError(f"no JSON: {error}", NO_INPUT, source=source) from None
    for key in ("documents", "threads", "state", "registers"):
        if isinstance(document, dict) and key in document:
            document = document[key]
            if isinstance(document, list):
                document = document[0] if document else {}
    if not isinstance(document, dict):
        raise CommandError("no object of registers in it", NO_INPUT, source=source, hint='{"mxcsr": "0x1f80"}')
    return {name: _value(name, value, source) for name, value in document.items()}


def _value(name: str, value: object, source: str) -> "int | bytes":
    # As --json writes it: "0x..." or a number for scalars, hex digits in memory order for the others.
    row = REGISTERS.get(name)
    if row is None:
        raise CommandError(f"no register {name!r}", NO_INPUT, source=source, hint=suggestion(name, list(REGISTERS)))
    try:
        if isinstance(value, str):
            text = value.strip()
            found = int(text, 16) if text[:2].lower() == "0x" else bytes.fromhex(text)
        elif isinstance(value, int) and not isinstance(value, bool):
            found = value
        else:
            raise ValueError
        if isinstance(found, bytes):
            if len(found) != row.width:
                raise CommandError(f"{name} has {row.width} bytes, the value {len(found)}", NO_INPUT, source=source)
            return int.from_bytes(found, "little") if row.scalar else found
        if not 0 <= found < 1 << 8 * row.width:
            raise CommandError(f"{name} {found:#x} does not fit {row.width} bytes", NO_INPUT, source=source)
        return found if row.scalar else found.to_bytes(row.width, "little")
    except ValueError:
        hint = '"0x1f80" for numbers, hex digits in memory order for vectors'
        raise CommandError(f"{name}: {value!r} is no value", NO_INPUT, source=source, hint=hint) from None


def _check(values: "Values", machine: "Machine") -> None:
    # What no instruction could have put there.
    reserved = ~machine.model.mxcsr_mask
    mxcsr = values.get("mxcsr", 0)
    if isinstance(mxcsr, int) and mxcsr & reserved:
        raise CommandError(f"mxcsr {mxcsr:#x} has bits that {machine.model.name} reserves", NO_INPUT, source="--state")


def random_values(model: "CpuModel", mask: int, seed: int) -> "Values":
    """A state that a program could have: the registers of some components of `mask`, the same for the same seed."""
    from random import Random

    rng = Random(seed)
    chosen = sum(1 << bit for bit in range(63) if mask >> bit & 1 and rng.random() < 0.75)
    values: "Values" = {"mxcsr": 0x1F80 ^ (rng.getrandbits(16) & 0x603F)}
    for name in _widest(mask):
        row = REGISTERS[name]
        if all(chosen >> part.component & 1 for part in row.parts) and name in _names(model, mask):
            value = _random(name, rng)
            if value is not None:
                values[name] = value
    return values


def _widest(mask: int) -> "list[str]":
    from xsave.registers import register_names

    return register_names(mask, True)


def _names(model: "CpuModel", mask: int) -> "set[str]":
    held = int(model.xcr0_mask) & mask
    return {name for name, row in REGISTERS.items() if all(held >> part.component & 1 for part in row.parts)}


def _random(name: str, rng: "Random") -> "int | bytes | None":
    family = REGISTERS[name].family
    if family == "st":
        return rng.randbytes(7) + bytes((rng.getrandbits(7) | 0x80, rng.getrandbits(8), 0x3F + rng.getrandbits(1)))
    if family in ("xmm", "ymm", "zmm", "tmm"):
        return rng.randbytes(REGISTERS[name].width)
    if family in ("k", "r"):
        return rng.getrandbits(64)
    if name == "ftw":
        return rng.getrandbits(8)
    if name == "fcw":
        return 0x37F ^ (rng.getrandbits(4) << 8)
    if name == "pkru":
        return rng.getrandbits(32) & ~3  # key 0 is what everybody's memory has
    if name == "tilecfg":
        columns, rows = zip(*((4 * rng.randint(1, 16), rng.randint(1, _TILE_ROWS)) for _ in range(8)), strict=True)
        shape = b"".join(each.to_bytes(2, "little") for each in columns)
        return bytes((1,)) + bytes(15) + shape + bytes(16) + bytes(rows) + bytes(8)
    return None
