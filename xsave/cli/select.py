"""Which registers and threads a command is about: `--reg`, `--component`, `--thread`."""

from xsave.cli.failures import suggestion, usage
from xsave.cli.options import whole_number
from xsave.errors import LayoutError
from xsave.registers import REGISTERS, register_names

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable
    from typing import Any

    from xsave.components import ComponentMask
    from xsave.images import Thread

# General registers as images name them.
GENERAL = (
    "rip rsp rflags eflags rax rbx rcx rdx rsi rdi rbp r8 r9 r10 r11 r12 r13 r14 r15 orig_rax cs ss ds es fs gs "
    "fs_base gs_base eip esp eax ebx ecx edx esi edi ebp orig_eax"
).split()
_ALIASES = {"gpr": GENERAL, "pc": ["rip", "eip"], "flags": ["rflags", "eflags"]}


class Selection:
    """The registers asked for. `all` is true where nothing narrows them."""

    def __init__(self, words: "list[str] | None" = None, components: "ComponentMask | None" = None) -> None:
        self.components = components
        self.general: "list[str]" = []
        self.wanted: "list[str] | None" = None
        if words:
            self.wanted = []
            for word in [part for text in words for part in text.replace(",", " ").split()]:
                self._add(word)
            if not self.wanted and not self.general:
                raise usage("--reg names no register", "xsave decode FILE --all shows what there is")

    @property
    def all(self) -> bool:
        """Whether nothing was asked for in particular."""
        return self.wanted is None and self.components is None

    def _add(self, word: str) -> None:
        lower = word.lower()
        if lower in _ALIASES:
            self.general += _ALIASES[lower]
            return
        if lower in GENERAL:
            self.general.append(lower)
            return
        names = _expand(lower)
        if names:
            assert self.wanted is not None
            self.wanted += [name for name in names if name not in self.wanted]
            return
        families = {row.family for row in REGISTERS.values()}
        raise usage(f"no register {word!r}", suggestion(word, [*REGISTERS, *GENERAL, *families, *_ALIASES]))

    def names(self, area: "Any") -> "list[str]":
        """The selected registers that the area's layout holds, in the order asked for or the table's."""
        from xsave.layout import COMPACTED

        mask, compacted = int(area.layout.mask), area.format == COMPACTED
        if self.wanted is None:
            if self.components is None:
                return register_names(mask, compacted)
            return register_names(mask & self.components, compacted)
        held = set(register_names(mask, compacted))
        return [name for name in self.wanted if name in held or holds(mask, name)]

    def missing(self, areas: "Iterable[Any]") -> "list[str]":
        """Register names asked for that none of the areas holds."""
        found: "set[str]" = set()
        for area in areas:
            found.update(self.names(area))
        return [name for name in self.wanted or [] if name not in found]

    def gpr(self, thread: "Thread") -> "dict[str, int]":
        """The selected general registers of a thread."""
        if self.all:
            return dict(thread.gpr)
        return {name: thread.gpr[name] for name in self.general if name in thread.gpr}


def holds(mask: int, name: str) -> bool:
    """Whether a layout of `mask` holds the register's defining component."""
    row = REGISTERS[name]
    if row.name in ("mxcsr", "mxcsr_mask"):
        return False
    return bool(mask >> row.component & 1)


def in_use_names(area: "Any") -> "list[str]":
    """Registers of the components that are in use, and MXCSR where the format always holds it."""
    from xsave.layout import COMPACTED

    compacted = area.format == COMPACTED
    names = register_names(int(area.xstate_bv) & int(area.layout.mask), compacted)
    if "mxcsr" not in names and "mxcsr" in register_names(int(area.layout.mask), compacted):
        at = next(
            (i for i, name in enumerate(names) if name not in ("fcw", "fsw", "ftw", "fop", "fip", "fdp")), len(names)
        )
        names.insert(at, "mxcsr")
    return [name for name in names if name != "mxcsr_mask"]


def _expand(word: str) -> "list[str]":
    # A name, a family ("zmm"), a range ("zmm0-3", "zmm0-zmm3") or a pattern ("zmm*").
    folded = {name.lower(): name for name in REGISTERS}
    if word in folded:
        return [folded[word]]
    family = [name for name, row in REGISTERS.items() if row.family == word]
    if family:
        return family
    if "*" in word or "?" in word:
        from fnmatch import fnmatchcase

        return [name for low, name in folded.items() if fnmatchcase(low, word)]
    first, dash, last = word.partition("-")
    if dash and first in folded:
        row = REGISTERS[folded[first]]
        tail = last[len(row.family) :] if last.startswith(row.family) else last
        end = whole_number(tail)
        if end is not None and row.index is not None and end >= row.index:
            wanted = range(row.index, end + 1)
            names = [n for n, each in REGISTERS.items() if each.family == row.family and each.index in wanted]
            return names if len(names) == len(wanted) else []
    return []


def read(area: "Any", names: "list[str] | None" = None) -> "dict[str, int | bytes]":
    """The values of the named registers (None: all), ints and bytes as `decode` gives them. A register that lies beyond
    what the CPU gives its component is left out."""
    from xsave.codec import decode

    values: "dict[str, int | bytes]"
    if names is None:
        values = decode(area)
        return values
    try:
        values = decode(area, registers=names)
        return values
    except LayoutError:
        values = decode(area)
        return {name: values[name] for name in names if name in values}


def thread_filter(words: "list[str] | None") -> "Any":
    """A predicate over (index, thread) for `--thread`: tids, `crashed`, or `#N` for the N-th in file order."""
    if not words:
        return lambda index, thread: True
    tids: "set[int]" = set()
    indices: "set[int]" = set()
    crashed = False
    for word in [part for text in words for part in text.replace(",", " ").split()]:
        if word == "crashed":
            crashed = True
        elif word.startswith("#") and (number := whole_number(word[1:])) is not None:
            indices.add(number)
        elif (number := whole_number(word)) is not None:
            tids.add(number)
        else:
            raise usage(f"--thread {word!r}: give a tid, 'crashed', or '#N' for the N-th thread of the file")
    return lambda index, thread: thread.tid in tids or index in indices or (crashed and thread.crashed)


def add_selection(parser: "argparse.ArgumentParser", *, thread: bool = True) -> None:
    """`--reg`, `--component`, `--thread` and `-t`."""
    from xsave.cli.options import LANE_TYPES

    parser.add_argument("--reg", action="append", metavar="NAMES", help="registers: zmm0,k1 zmm0-3 zmm 'tmm*' rip gpr")
    parser.add_argument("--component", action="append", metavar="MASK", help="components: AVX avx512 amx 0xe7")
    if thread:
        parser.add_argument(
            "--thread", action="append", metavar="TID", help="threads: tid, crashed, or #N in file order"
        )
    parser.add_argument(
        "-t", dest="lane", choices=LANE_TYPES, metavar="TYPE", help="lanes: u8..u64 i8..i64 f16 bf16 f32 f64"
    )


def selection(options: "argparse.Namespace") -> Selection:
    """The selection that the options ask for. Raises: `CommandError`."""
    from xsave.cli.options import mask

    components = mask("|".join(options.component)) if options.component else None
    return Selection(options.reg, components)
