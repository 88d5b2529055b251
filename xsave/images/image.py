"""What an opened image offers, whatever its container: threads, their areas, how each layout is known.

A reader subclasses `Image` and answers three questions by thread index: `_header` (name, signal, general
registers), `_state` (the area, its evidence, what was odd) and, where memory was dumped, `_find_extra`.
Everything is asked for when it is looked at, so that an image of a thousand threads costs nothing to hold.
"""

from xsave.errors import ImageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from typing import Any, NamedTuple, overload

    from xsave.area import Area
    from xsave.images.columns import Bulk
    from xsave.images.source import Source

    class Evidence(NamedTuple):
        """Which rule of the trust order chose a layout, and how sure it is: `exact`, `known`, `assumed`, `none`."""

        rule: str
        confidence: str

    class Header(NamedTuple):
        """What a container says of a thread apart from its extended state."""

        name: str
        signal: "int | None"
        pc: "int | None"
        crashed: bool
        gpr: "dict[str, int]"
        ssp: "int | None"

    class State(NamedTuple):
        """A thread's area (None without FP state), its evidence, and what was odd about it."""

        area: "Area | None"
        evidence: Evidence
        warnings: "tuple[str, ...]"

else:
    from collections import namedtuple

    Evidence = namedtuple("Evidence", "rule confidence")
    Header = namedtuple("Header", "name signal pc crashed gpr ssp")
    State = namedtuple("State", "area evidence warnings")

__all__ = ["Evidence", "ExtraState", "Header", "Image", "State", "Thread", "Threads"]

NO_STATE = State(None, Evidence("no extended state in the image", "none"), ())
NO_HEADER = Header("", None, None, False, {}, None)


class ExtraState:
    """An area that an image holds beside the threads' own: a signal frame in dumped memory.

    Attributes: `kind`; `tid` of the thread whose stack holds it, or None; `address` and `file_offset` of the
    area (of the unpacked file); `area`, `evidence`, `warnings` as a thread's.
    """

    __slots__ = ("address", "area", "evidence", "file_offset", "kind", "tid", "warnings")

    def __init__(self, kind: str, tid: "int | None", address: int, file_offset: int, state: State) -> None:
        self.kind = kind
        self.tid = tid
        self.address = address
        self.file_offset = file_offset
        self.area = state.area
        self.evidence = state.evidence
        self.warnings = list(state.warnings)

    def __repr__(self) -> str:
        return f"<{self.kind} at {self.address:#x}, file offset {self.file_offset:#x}: {self.evidence.rule}>"


class Thread:
    """One thread or virtual CPU of an image; nothing of it is read before it is asked for.

    Attributes: `tid`, its number in the image. The area is read at its first use and then kept by this object;
    an image makes a new object each time a thread is indexed, so a loop over `image.threads` holds one at a time.
    """

    __slots__ = ("_header", "_image", "_index", "_state", "tid")

    def __init__(self, image: "Image", index: int, tid: int) -> None:
        self._image = image
        self._index = index
        self.tid = tid
        self._header: "Header | None" = None
        self._state: "State | None" = None

    def __repr__(self) -> str:
        return f"<thread {self.tid} of {self._image.source}>"

    def _head(self) -> Header:
        if self._header is None:
            self._header = self._image._header(self._index)
        return self._header

    def _load(self) -> State:
        if self._state is None:
            self._state = self._image._state(self._index)
        return self._state

    @property
    def name(self) -> str:
        """The thread's name, or its process's where the container keeps none for threads."""
        return self._head().name

    @property
    def signal(self) -> "int | None":
        """The signal number that the container records for the thread, or None."""
        return self._head().signal

    @property
    def pc(self) -> "int | None":
        """The instruction pointer, or None where no general registers were kept."""
        return self._head().pc

    @property
    def crashed(self) -> bool:
        """Whether this thread took the signal that ended the process."""
        return self._head().crashed

    @property
    def gpr(self) -> "dict[str, int]":
        """General registers by lower-case name (`rip`, `rax`; `eip`, `eax` on i386)."""
        return self._head().gpr

    @property
    def ssp(self) -> "int | None":
        """The user shadow-stack pointer, where the container has one."""
        return self._head().ssp

    @property
    def area(self) -> "Area | None":
        """The thread's XSAVE area under the layout that `evidence` names, or None without FP state.

        Raises: `FormatError` where the area's bytes cannot be read.
        """
        state = self._state
        if state is None:
            state = self._state = self._image._state(self._index)
        return state.area

    @property
    def evidence(self) -> Evidence:
        """Which rule chose the layout, and how sure it is."""
        return self._load().evidence

    @property
    def warnings(self) -> "list[str]":
        """What is odd about this thread's state."""
        return list(self._load().warnings)

    @property
    def extra_states(self) -> "list[ExtraState]":
        """Signal frames that lie in this thread's stack. The image's memory is searched at the first use."""
        return [each for each, owner in self._image._extra() if owner == self._index]


class Threads:
    """The threads of an image as a sequence, made when indexed."""

    __slots__ = ("_image",)

    def __init__(self, image: "Image") -> None:
        self._image = image

    def __len__(self) -> int:
        return self._image._count()

    if TYPE_CHECKING:
        @overload
        def __getitem__(self, index: int) -> Thread: ...
        @overload
        def __getitem__(self, index: slice) -> "list[Thread]": ...

    def __getitem__(self, index: "int | slice") -> "Thread | list[Thread]":
        count = self._image._count()
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(count))]
        if not -count <= index < count:
            raise IndexError(f"thread {index} of {count}")
        index %= count
        return Thread(self._image, index, self._image._tid(index))

    def __iter__(self) -> "Iterator[Thread]":
        image = self._image
        for index, tid in enumerate(image._tids()):
            yield Thread(image, index, tid)

    def __repr__(self) -> str:
        return f"<{len(self)} threads>"


class Image:
    """An opened crash image, dump or area.

    Attributes: `kind` ("ELF core", "raw area", "hex dump", ...); `source`, its name; `abi` ("x86-64", "i386",
    "x32" or ""); `os` ("Linux", "FreeBSD", "NetBSD" or ""); `warnings`, what is odd about the whole; `threads`.
    Usable as a context manager, which closes the file.
    """

    kind = "image"
    abi = ""
    os = ""

    def __init__(self, source: "Source") -> None:
        self._source = source
        self.source = source.name
        self.warnings: "list[str]" = source.warnings
        self.threads: "Sequence[Thread]" = Threads(self)  # type: ignore[assignment]
        self._found: "list[tuple[ExtraState, int | None]] | None" = None

    def __repr__(self) -> str:
        count = self._count()
        return f"<{self.kind} {self.source}: {count} thread{'s' if count != 1 else ''}>"

    def __enter__(self) -> "Image":
        return self

    def __exit__(self, *_details: object) -> None:
        self.close()

    @property
    def partial(self) -> bool:
        """Whether the file is cut or damaged, so that something may be missing. `warnings` says what."""
        return self._source.damaged

    def close(self) -> None:
        """Closes the file. Areas that were read stay valid."""
        self._source.close()

    @property
    def extra_states(self) -> "list[ExtraState]":
        """Every signal frame in the image's memory, whether or not a thread's stack holds it."""
        return [each for each, _owner in self._extra()]

    def columns(self, registers: "Sequence[str] | None" = None) -> "dict[str, Any]":
        """Registers of all threads as columns: `{"tid": int64 (N,), "mxcsr": uint32 (N,), "zmm0": uint8 (N, 64), ...}`.

        `registers` picks names; None is all that the widest layout of the image holds. A thread without extended
        state, or whose layout lacks a component, has initial values in its row, and `warnings` says so.
        Raises: `LayoutError` for a register no layout of the image holds, `ImageError` where no thread has state.
        """
        from xsave.images.columns import image_columns

        return image_columns(self, registers)

    def _extra(self) -> "list[tuple[ExtraState, int | None]]":
        if self._found is None:
            self._found = self._find_extra()
        return self._found

    def _warn(self, message: str) -> None:
        if message not in self.warnings:
            self.warnings.append(message)

    # -- what a reader answers ---------------------------------------------------------------------------

    def _count(self) -> int:
        raise NotImplementedError

    def _tid(self, index: int) -> int:
        raise NotImplementedError

    def _tids(self) -> "Iterable[int]":
        return [self._tid(index) for index in range(self._count())]

    def _header(self, index: int) -> Header:
        return NO_HEADER

    def _state(self, index: int) -> State:
        raise NotImplementedError

    def _find_extra(self) -> "list[tuple[ExtraState, int | None]]":
        return []

    def _bulk(self) -> "Bulk | None":
        return None


class SingleImage(Image):
    """An image of one area without a thread: a raw area, a hex dump, a blob of an ioctl. `size`: its bytes, which may
    be more than the area's."""

    def __init__(self, source: "Source", kind: str, state: State, size: int) -> None:
        super().__init__(source)
        self.kind = kind
        self.size = size
        # Said once, by the image.
        self._only = State(state.area, state.evidence, ())
        for warning in state.warnings:
            self._warn(warning)
        if state.area is None:
            raise ImageError(f"{source.name}: {kind} without an area")

    def _count(self) -> int:
        return 1

    def _tid(self, index: int) -> int:
        return 0

    def _state(self, index: int) -> State:
        return self._only
