"""ELF cores of all systems: the walk over their notes, the threads they make, and each thread's state.

What differs between systems (which notes start a thread, where its registers lie) is a `Dialect`, in
`xsave.images.linux` and `xsave.images.bsd`.
"""

from struct import iter_unpack, unpack, unpack_from

from xsave._records import CHUNK_MIN, NUMBERED, STARTS_GROUP, NoteTable
from xsave.area import Area
from xsave.errors import LayoutError
from xsave.images.assemble import AREA_MIN, assemble, from_fsave, from_legacy, is_shifted, unshift
from xsave.images.elf import FAR, ElfFile
from xsave.images.image import NO_STATE, Header, Image, State
from xsave.images.trust import Choice, Facts, choose
from xsave.layout import STANDARD, Layout

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from xsave.images.columns import Bulk
    from xsave.images.elf import Segment
    from xsave.images.image import ExtraState
    from xsave.images.source import Source
    from xsave.models import CpuModel

__all__ = ["AUXV", "FPREGS", "LAYOUT", "PRXFPREG", "SHSTK", "XSTATE", "CoreImage", "Dialect", "open_core"]

# What notes mean; 1 to 31, told to the kernel that walks them.
(PRSTATUS, FPREGS, PRPSINFO, AUXV, PRXFPREG, XSTATE, SHSTK, LAYOUT, VMCOREINFO, QEMU, DEBUGGER, BSD_STATUS, BSD_INFO,
 BSD_THREAD, NET_INFO, NET_REGS) = range(1, 17)

# An area of more bytes exists nowhere; a note that says so is read this far.
_AREA_MAX = 1 << 16
_CHUNK = 1 << 16
_FXSAVE, _FSAVE = 512, 108
# Read ahead: this much, and more where notes are so large that few of them would be in it.
_AHEAD, _AHEAD_MAX = 1 << 15, 1 << 17
_AUXV_MAX = 1 << 14
_AT_MINSIGSTKSZ = 51


def _rules(elf_class: int) -> "list[tuple[bytes, int, int, int, int]]":
    wide = elf_class == 2
    return [
        (b"CORE", 1, PRSTATUS, STARTS_GROUP, 32 if wide else 24),
        (b"CORE", 2, FPREGS, 0, -1),
        (b"CORE", 3, PRPSINFO, 0, -1),
        (b"CORE", 6, AUXV, 0, -1),
        (b"LINUX", 0x46E62B7F, PRXFPREG, 0, -1),
        (b"LINUX", 0x202, XSTATE, 0, -1),
        (b"LINUX", 0x204, SHSTK, 0, -1),
        (b"LINUX", 0x205, LAYOUT, 0, -1),
        (b"VMCOREINFO", 0, VMCOREINFO, 0, -1),
        (b"GDB", 0xFF000000, DEBUGGER, 0, -1),
        (b"FreeBSD", 1, BSD_STATUS, STARTS_GROUP, 40 if wide else 24),
        (b"FreeBSD", 2, FPREGS, 0, -1),
        (b"FreeBSD", 3, BSD_INFO, 0, -1),
        (b"FreeBSD", 7, BSD_THREAD, 0, -1),
        (b"FreeBSD", 0x202, XSTATE, 0, -1),
        (b"NetBSD-CORE", 1, NET_INFO, 0, -1),
        (b"NetBSD-CORE@", 0x21, NET_REGS, NUMBERED, -1),
        (b"NetBSD-CORE@", 0x23, FPREGS, NUMBERED, -1),
    ]


class Dialect:
    """How one system's cores say what a thread was doing.

    `os`, `abi`; `fpregs`, the name of the note with the legacy registers, for messages.
    """

    os = ""
    abi = ""
    fpregs = "NT_PRFPREG"

    def header(self, core: "CoreImage", index: int) -> Header:
        """Name, signal and general registers of a thread."""
        raise NotImplementedError


class CoreImage(Image):
    """An ELF core file, opened: its note table, and threads that are read when looked at."""

    kind = "ELF core"

    def __init__(self, source: "Source", elf: ElfFile, table: NoteTable, cpu: "CpuModel | None") -> None:
        super().__init__(source)
        self._elf = elf
        self._table = table
        self._cpu = cpu
        self._choices: "dict[tuple[int, int, int], Choice]" = {}
        self._entries: "list[tuple[int, int, int, int]] | None" = None
        self._debugger = False
        self._frame_size = 0
        self._name: "str | None" = None
        self._ahead, self._ahead_at = b"", 0
        # States read ahead, of the threads from `_states_at` on; None for one that needs a look of its own.
        self._states: "Sequence[State | None]" = ()
        self._states_at = 0
        # Whether a thread's notes are too far apart to be read in one go.
        self._scattered = not source.seekable
        self.dialect = Dialect()

    # -- set up --------------------------------------------------------------------------------------------

    def _start(self, dialect: Dialect) -> None:
        table = self._table
        self.dialect = dialect
        self.os, self.abi = dialect.os, dialect.abi
        for warning in self._elf.warnings:
            self._warn(warning)
        if table.find_any(VMCOREINFO):
            self.kind = "kernel vmcore"
            self._warn("a kernel's memory image: its processes' extended state lies in kernel memory, not in notes")
        self._note_oddities()
        self._read_layout_note()
        self._read_auxv()
        # A debugger's core names itself, or begins with the process and not with a thread.
        first, info = table.find(0, PRSTATUS), table.find_any(PRPSINFO)
        self._debugger = bool(table.find_any(DEBUGGER)) or bool(first and info and info[0] < first[0])
        for index in range(table.groups):
            note = table.find(index, XSTATE)
            if note is not None:
                # The layout of the whole core; what is wrong with it is known as soon as it is open.
                raw = self.note(note, _AREA_MAX)
                if len(raw) >= AREA_MIN:
                    for warning in self._choice(raw, note[1]).warnings:
                        self._warn(warning)
                    if is_shifted(raw):
                        self._warn("notes shifted by a kernel of mid-2020 (XMM at the place of AVX): put right")
                break

    @property
    def partial(self) -> bool:
        """Whether the file is cut or damaged, so that threads may be missing or lack their state."""
        table = self._table
        return super().partial or self._elf.cut or table.full or table.cut_offset >= 0 or table.bad_offset >= 0

    def _note_oddities(self) -> None:
        table = self._table
        if table.duplicates:
            plural = "s" if table.duplicates > 1 else ""
            self._warn(f"{table.duplicates} duplicate note{plural} of a thread, the first at offset "
                       f"{table.duplicate_offset:#x}: the first of each counts")
        if table.bad_offset >= 0:
            found = "nothing behind it is"
            if table.resynced:
                found = f"the walk goes on behind it, at {table.resynced} place{'s' if table.resynced > 1 else ''}"
            self._warn(f"note at offset {table.bad_offset:#x}: its sizes run past the end of its segment; {found}")
        if table.cut_offset >= 0:
            self._warn(f"the file ends within the note at offset {table.cut_offset:#x}: threads before it are complete")
        if table.full:
            self._warn(f"more notes than {table.notes:,}: the rest is not looked at")

    def _read_layout_note(self) -> None:
        note = self._table.find_any(LAYOUT)
        if note is None:
            return
        data = self.note(note, 64 * 16 + 1)
        if len(data) % 16 or len(data) > 64 * 16:
            self._warn(f"NT_X86_XSAVE_LAYOUT at offset {note[0]:#x} has {note[1]:,} bytes, expected a multiple of 16, "
                       "at most 1,024: not used")
            return
        self._entries = list(iter_unpack("<IIII", data))

    def _read_auxv(self) -> None:
        note = self._table.find_any(AUXV)
        if note is None:
            return
        width = "<QQ" if self._elf.elf_class == 2 else "<II"
        data = self.note(note, _AUXV_MAX)
        step = 16 if self._elf.elf_class == 2 else 8
        for kind, value in iter_unpack(width, data[: len(data) // step * step]):
            if kind == _AT_MINSIGSTKSZ and value < _AREA_MAX:
                self._frame_size = value

    # -- reading -------------------------------------------------------------------------------------------

    def note(self, place: "tuple[int, int]", most: int) -> bytes:
        """The first `most` bytes of the descriptor at (offset, size)."""
        offset, size = place
        if size > most:
            size = most
        at = offset - self._ahead_at
        if at >= 0 and at + size <= len(self._ahead):
            return self._ahead[at : at + size]
        # Who goes from thread to thread reads forward: a window then serves several of them.
        if at < 0 or at > len(self._ahead) + _AHEAD or size > _AHEAD or not self._source.seekable:
            self._ahead_at, self._ahead = offset, self._source.read(offset, size)
            return self._ahead
        self._ahead_at, self._ahead = offset, self._source.read(offset, _AHEAD)
        return self._ahead[:size]

    def find(self, index: int, ident: int, most: int = _FXSAVE) -> "bytes | None":
        """The first `most` bytes of a thread's note, or None."""
        place = self._table.find(index, ident)
        return None if place is None else self.note(place, most)

    def find_any(self, ident: int, most: int = _FXSAVE) -> "bytes | None":
        """The first `most` bytes of the file's first such note, or None."""
        place = self._table.find_any(ident)
        return None if place is None else self.note(place, most)

    def _count(self) -> int:
        return self._table.groups

    def _tid(self, index: int) -> int:
        return self._table.number(index)

    def _tids(self) -> "Iterable[int]":
        return unpack(f"{self._table.groups}q", self._table.numbers())

    def _header(self, index: int) -> Header:
        return self.dialect.header(self, index)

    # -- state ---------------------------------------------------------------------------------------------

    def _choice(self, raw: bytes, size: int) -> Choice:
        xcr0, xcomp_bv = unpack_from("<Q", raw, 464)[0], unpack_from("<Q", raw, 520)[0]
        key = (size, xcr0, xcomp_bv)
        choice = self._choices.get(key)
        if choice is None:
            if len(self._choices) >= 64:
                self._choices.clear()
            what = "XSTATE note"
            if is_shifted(raw):
                choice = self._shifted_choice(raw, size, what)
            else:
                facts = Facts(what, raw, size=size, entries=self._entries, frame_size=self._frame_size,
                              debugger=self._debugger)
                choice = choose(facts, self._cpu)
                if facts.xcomp_bv >> 63:
                    warning = f"XCOMP_BV {facts.xcomp_bv:#x} in a core's note: the kernel writes the standard format"
                    choice = Choice(choice.layout, choice.evidence, (*choice.warnings, warning))
            self._choices[key] = choice
        return choice

    def _shifted_choice(self, raw: bytes, size: int, what: str) -> Choice:
        _, xcr0, _ = unshift(raw, {})
        plain = bytearray(raw)
        plain[464:AREA_MIN] = bytes(AREA_MIN - 464)
        return choose(Facts(what, plain, size=size, xcr0=xcr0, entries=self._entries), self._cpu)

    def _state(self, index: int) -> State:
        at = index - self._states_at
        if at == len(self._states):
            self._states, self._states_at, at = self._look_ahead(index), index, 0
        if 0 <= at < len(self._states):
            state = self._states[at]
            return self._read_state(index) if state is None else state
        self._states, self._states_at = (), index + 1
        return self._read_state(index)

    def _look_ahead(self, index: int) -> "Sequence[State | None]":
        """The states of the threads from `index` on as far as one window goes: of those that are usual, which is to
        have that thread's size, XCR0 and layout, seen before, and nothing odd."""
        table = self._table
        place = table.find(index, XSTATE)
        if place is None or self._scattered or not AREA_MIN <= place[1] <= _AREA_MAX:
            return (None,)
        start, (offset, size) = table.place(index), place
        for fresh in (False, True):
            if fresh:
                self._ahead, self._states = b"", ()
                wanted = min(max(_AHEAD, 12 * size), _AHEAD_MAX)
                self._ahead_at, self._ahead = start, self._source.read(start, wanted)
            at = offset - self._ahead_at
            if start < self._ahead_at or not 0 <= at <= len(self._ahead) - size:
                continue
            xcr0 = unpack_from("<Q", self._ahead, at + 464)[0]
            choice = self._choices.get((size, xcr0, 0))
            if choice is None or choice.layout.format != STANDARD or choice.layout.size > size:
                return (None,)
            places = table.usual_areas(self._ahead, self._ahead_at, index, XSTATE, (PRXFPREG, FPREGS), size, xcr0,
                                       choice.layout.mask)
            if places:
                layout, evidence, warnings = self._without_said(choice)
                window, length, new = self._ahead, layout.size, tuple.__new__
                return [
                    None if at < 0 else new(State, (Area(window[at : at + length], layout), evidence, warnings))
                    for at in places
                ]
        self._scattered = True
        return (None,)

    def _without_said(self, choice: Choice) -> Choice:
        # What holds for every thread is said once, by the image.
        own = tuple(each for each in choice.warnings if each not in self.warnings)
        return Choice(choice.layout, choice.evidence, own)

    def _read_state(self, index: int) -> State:
        place = self._table.find(index, XSTATE)
        legacy, name = self._legacy(index)
        warnings: "list[str]" = []
        if place is not None:
            raw = self.note(place, _AREA_MAX)
            if len(raw) >= AREA_MIN:
                return self._from_note(raw, place, legacy, name)
            warnings.append(f"XSTATE note at offset {place[0]:#x} has {len(raw)} bytes, expected at least {AREA_MIN}")
        if legacy is not None:
            return from_legacy(legacy, name, tuple(warnings))
        fsave = self.find(index, FPREGS)
        if fsave is not None and len(fsave) >= _FSAVE:
            return from_fsave(fsave, self.dialect.fpregs, tuple(warnings))
        return State(NO_STATE.area, NO_STATE.evidence, tuple(warnings)) if warnings else NO_STATE

    def _legacy(self, index: int) -> "tuple[bytes | None, str]":
        # The FXSAVE image beside the XSTATE note, and its note's name.
        for ident, name in ((PRXFPREG, "NT_PRXFPREG"), (FPREGS, self.dialect.fpregs)):
            data = self.find(index, ident)
            if data is not None and len(data) == _FXSAVE:
                return data, name
        return None, ""

    def _from_note(self, raw: bytes, place: "tuple[int, int]", legacy: "bytes | None", name: str) -> State:
        choice = self._without_said(self._choice(raw, place[1]))
        if not is_shifted(raw):
            return assemble(raw, choice, legacy, source=name)
        layout = choice.layout
        fixed, _, lost = unshift(raw, {int(c): place for c, place in layout.offsets.items()})
        odd: "tuple[str, ...]" = ()
        if lost:
            layout = Layout(layout.model, layout.mask & ~lost, STANDARD)
            names = " ".join(type(layout.mask)(lost).names)
            odd = (f"shifted note: {names} {'were' if lost.bit_count() > 1 else 'was'} cut off and is lost",)
        evidence = type(choice.evidence)(f"{choice.evidence.rule}; shifted note put right", "known")
        return assemble(fixed, Choice(layout, evidence, choice.warnings), legacy, odd, source=name)

    def _bulk(self) -> "Bulk | None":
        from xsave.images.columns import Bulk

        # The columns are those of the widest layout: the largest note's.
        places = self._table.gather(XSTATE)
        sizes = memoryview(places[1]).cast("q")
        size = max((size for size in sizes if AREA_MIN <= size <= _AREA_MAX), default=0)
        if not size:
            return None
        raw = self.note((memoryview(places[0]).cast("q")[sizes.tolist().index(size)], size), _AREA_MAX)
        if len(raw) < size or is_shifted(raw):
            return None
        layout = self._choice(raw, size).layout
        if layout.format != STANDARD:
            return None
        xcr0 = unpack_from("<Q", raw, 464)[0]
        return Bulk(layout, self._table.numbers(), places, size, xcr0)

    # -- signal frames -------------------------------------------------------------------------------------

    def _find_extra(self) -> "list[tuple[ExtraState, int | None]]":
        from xsave.images.sigframe import find_extra_states

        return find_extra_states(self)

    def frame_choice(self, raw: bytes, xfeatures: int, size: int) -> Choice:
        """The layout of a signal frame's area: that of the threads' notes, for the frame's own mask and size."""
        for choice in list(self._choices.values())[:1]:
            layout = choice.layout
            if layout.format == STANDARD:
                try:
                    own = Layout(layout.model, xfeatures, STANDARD)
                except LayoutError:
                    break
                if own.size == size:
                    return Choice(own, choice.evidence, ())
        facts = Facts("signal frame", raw, size=size, xcr0=xfeatures)
        return choose(facts, self._cpu)


def _walk(source: "Source", elf: ElfFile, segments: "list[Segment]") -> NoteTable:
    table = NoteTable(_rules(elf.elf_class))
    buffer = bytearray(_CHUNK)
    view = memoryview(buffer)
    for segment in segments:
        end = min(segment.offset + segment.size, FAR)
        if segment.offset >= end:
            continue
        limit = source.retain(segment.offset, end) if source.size is None else source.size
        if source.size is not None:
            limit = min(source.size, FAR)
        if segment.offset >= limit:
            elf.cut = True
            elf.warnings.append(f"the file ends at {limit:,} bytes, before its notes at offset {segment.offset:#x}")
            continue
        table.begin(segment.offset, end, limit)
        while True:
            at = table.position
            wanted = min(_CHUNK, max(end - at, 0), max(limit - at, 0))
            count = source.read_into(at, view[:wanted]) if wanted else 0
            if count < wanted:
                # Shorter than it was: a file that is being written, or a damaged stream.
                limit = at + count
                table.shorten(limit)
            if not table.feed(view[:count], at):
                break
        if table.full:
            break
    return table


def open_core(source: "Source", cpu: "CpuModel | None") -> CoreImage:
    """The image of an ELF core. Raises: `ImageError` where there is no thread in it."""
    elf = ElfFile(source)
    segments = elf.notes()
    if not segments:
        cut = f" ({elf.warnings[-1]})" if elf.warnings else ""
        raise source.fail("PT_NOTE", f"not among {elf.count:,} program headers{cut}", 0, "a segment of notes", "E-NOTE")
    table = _walk(source, elf, segments)
    if not table.groups:
        why = f"; {elf.warnings[-1]}" if elf.warnings else ""
        where = table.cut_offset if table.cut_offset >= 0 else segments[0].offset
        found = "cut by the end of the file" if table.cut_offset >= 0 else f"{table.notes} notes without one"
        raise source.fail("NT_PRSTATUS", found + why, where, "at least one thread", "E-THREADS")
    image = CoreImage(source, elf, table, cpu)
    if table.find(0, BSD_STATUS):
        from xsave.images.bsd import FreeBSD

        image._start(FreeBSD(elf))
    elif table.find_any(NET_REGS) and not table.find(0, PRSTATUS):
        from xsave.images.bsd import NetBSD

        image._start(NetBSD(elf))
    else:
        from xsave.images.linux import Linux

        image._start(Linux(elf))
    return image


assert CHUNK_MIN <= _CHUNK
