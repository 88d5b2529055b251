"""Lints of an opened image: those of the area of each thread, and of each signal frame in its memory."""

from xsave.audit.lints.areas import findings_of
from xsave.audit.lints.catalogue import Finding
from xsave.audit.lints.configs import lint_snapshot
from xsave.errors import XSaveError
from xsave.images.image import SingleImage

TYPE_CHECKING = False
if TYPE_CHECKING:
    from xsave.images import Image, Thread

__all__ = ["lint_image"]

# Containers whose writer puts initial values where a component is not in use: other bytes there come from elsewhere.
_FILLED = ("ELF core",)


def lint_image(
    image: "Image", *, xcr0: "int | None" = None, xss: "int | None" = None, xfd: "int | None" = None
) -> "list[Finding]":
    """What is dangerous or inconsistent in the areas of an image that `xsave.open` gave: thread by thread, then frames.

    `xcr0`, `xss`, `xfd`: XCR0, IA32_XSS and IA32_XFD of the guest that the image is of, where they are known; what
    needs them is else not judged: the mask in a note or a frame need not be a legal XCR0. Each finding's `tid` is its
    thread's. It never raises on an area that cannot be read: that is a finding too.
    """
    found: "list[Finding]" = []
    for thread in image.threads:
        found += _thread(thread, image.kind, isinstance(image, SingleImage), xcr0, xss, xfd)
    for frame in image.extra_states:
        if frame.area is not None:
            where = f"{frame.kind} at {frame.address:#x}"
            found += findings_of(frame.area, None, None, None, where, frame.tid, "L-STALE-INIT")
    return found


def _thread(
    thread: "Thread", kind: str, single: bool, xcr0: "int | None", xss: "int | None", xfd: "int | None"
) -> "list[Finding]":
    where = "area" if single else f"thread {thread.tid}"
    try:
        area = thread.area
    except XSaveError as problem:
        return [Finding("L-AREA-CUT", f"the area cannot be read: {problem}", None, where, thread.tid)]
    if area is None:
        return []
    stale = "L-STALE-LEAK" if kind in _FILLED else "L-STALE-INIT"
    found = findings_of(area, xcr0, xss, xfd, where, thread.tid, stale)
    return found if xcr0 is None else lint_snapshot(area, xcr0, xss, xfd, where, thread.tid) + found
