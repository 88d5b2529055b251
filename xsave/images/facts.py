"""What an artefact says about the layout of its areas, and what a decision about it looks like."""

from struct import unpack_from

from xsave.components import COMPONENTS, USER, Component, ComponentMask
from xsave.images.image import Evidence
from xsave.layout import STANDARD, Layout
from xsave.models import PROFILES, CpuModel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NamedTuple

    class Choice(NamedTuple):
        """The layout that rules an area, how that is known, and what was odd about it."""

        layout: Layout
        evidence: Evidence
        warnings: "tuple[str, ...]"

else:
    from collections import namedtuple

    Choice = namedtuple("Choice", "layout evidence warnings")

__all__ = ["AVX_END", "FORMAT_BIT", "LEGACY", "MAGIC1", "MAGIC2", "Choice", "Facts", "legacy_avx", "legacy_choice",
           "model_of", "named", "profile_of"]

AVX_END = 576 + COMPONENTS[Component.AVX].size
FORMAT_BIT = 1 << 63
LEGACY = 3
# asm/sigcontext.h: the first in the software-reserved bytes of a signal frame's area, the second behind the area.
MAGIC1, MAGIC2 = 0x46505853, 0x46505845


class Facts:
    """What an artefact says about the layout of its areas.

    `what` names the artefact in messages; `size` in bytes; `exact`, whether that is the area's own size (not
    padding); `xcr0`, the mask found with the area (0: none); `xcomp_bv`, `xstate_bv`, `mxcsr_mask` of the area;
    `entries` of a layout note, or None; `content`, the area's bytes; `frame_size`, AT_MINSIGSTKSZ of the process
    (0: unknown), which tells how large areas were on the host; `debugger`, written by a debugger and not by a kernel.
    """

    __slots__ = ("content", "debugger", "entries", "exact", "frame_size", "mxcsr_mask", "size", "what", "xcomp_bv",
                 "xcr0", "xstate_bv")

    def __init__(
        self,
        what: str,
        content: "bytes | bytearray",
        *,
        size: int,
        xcr0: "int | None" = None,
        exact: bool = True,
        entries: "Sequence[tuple[int, int, int, int]] | None" = None,
        frame_size: int = 0,
        debugger: bool = False,
    ) -> None:
        self.what = what
        self.content = content
        self.size = size
        self.exact = exact
        found = unpack_from("<Q", content, 464)[0] if xcr0 is None else xcr0
        self.xcr0 = found if found & 1 and not found & ~USER else 0
        self.xstate_bv, self.xcomp_bv = unpack_from("<QQ", content, 512)
        self.mxcsr_mask = unpack_from("<I", content, 28)[0]
        self.entries = entries
        self.frame_size = frame_size
        self.debugger = debugger


def profile_of(mxcsr_mask: int) -> "str | None":
    """The profile that MXCSR_MASK tells: it differs between the makers; 0 means that the writer dropped it."""
    return next((name for name, knobs in PROFILES.items() if knobs["mxcsr_mask"] == mxcsr_mask), None)


def model_of(entries: "Sequence[tuple[int, int, int, int]]", mxcsr_mask: int, name: str) -> CpuModel:
    """The CPU of a layout note. Raises: `FormatError` naming the entry."""
    return CpuModel.from_layout_note(entries, name=name, profile=profile_of(mxcsr_mask))


def legacy_avx(mxcsr_mask: int, name: str) -> CpuModel:
    """A CPU of x87, SSE and AVX, which lies right behind the header on every CPU."""
    avx = COMPONENTS[Component.AVX].size
    return model_of([(Component.AVX, avx, AVX_END - avx, 0)], mxcsr_mask, name)


def legacy_choice(rule: str, mask: int, mxcsr_mask: int = 0, confidence: str = "known") -> Choice:
    """The layout of an area without extended region: x87, SSE or both (bits 0 and 1 of `mask`)."""
    layout = Layout(legacy_avx(mxcsr_mask, "legacy state"), mask & LEGACY, STANDARD)
    return Choice(layout, Evidence(rule, confidence), ())


def named(mask: int) -> str:
    """The names of a mask's components, for messages."""
    return " ".join(ComponentMask(mask).names)
