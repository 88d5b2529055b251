"""What a report says of a thread's state whether or not it can be read."""

from xsave.errors import FormatError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from xsave.images import Thread

__all__ = ["state_of"]


def state_of(thread: "Thread") -> "tuple[Any, str, str, list[str]]":
    """A thread's area (or None), rule and confidence of its layout, and warnings; a state that cannot be read is a
    warning, so that one thread's damage does not hide the others."""
    try:
        evidence = thread.evidence
        return thread.area, evidence.rule, evidence.confidence, list(thread.warnings)
    except FormatError as error:
        return None, "unreadable", "none", [str(error)]
