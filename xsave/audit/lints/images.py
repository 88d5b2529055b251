"""Lints of an opened image: those of the area of each thread, and of each signal frame in its memory."""

from xsave.audit.lints.areas import findings_of
from xsave.audit.lints.catalogue import Finding
from xsave.errors import XSaveError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from xsave.images import Image, Thread

__all__ = ["lint_image"]

# Containers whose writer puts initial values where a component is not in use: other bytes there come from elsewhere.
_FILLED = ("ELF core",)


def lint_image(image: "Image") -> "list[Finding]":
    """What is dangerous or inconsistent in the areas of an image that `xsave.open` gave: thread by thread, then frames.

    Each finding's `tid` is its thread's. XCR0 is not judged: the mask in a note or a frame need not be a legal one.
    It never raises on an area that cannot be read: that is a finding too.
    """
    found: "list[Finding]" = []
    for thread in image.threads:
        found += _thread(thread, image.kind)
    for frame in image.extra_states:
        if frame.area is not None:
            where = f"{frame.kind} at {frame.address:#x}"
            found += findings_of(frame.area, None, None, None, where, frame.tid, "L-STALE-INIT")
    return found


def _thread(thread: "Thread", kind: str) -> "list[Finding]":
    where = f"thread {thread.tid}"
    try:
        area = thread.area
    except XSaveError as problem:
        return [Finding("L-AREA-CUT", f"the area cannot be read: {problem}", None, where, thread.tid)]
    if area is None:
        return []
    return findings_of(area, None, None, None, where, thread.tid, "L-STALE-LEAK" if kind in _FILLED else "L-STALE-INIT")
