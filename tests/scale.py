"""How often a test repeats what it does: as it says, or a tenth of that where a sanitizer checks every step."""

import os

SANITIZED = "XSAVE_SANITIZED" in os.environ


def repeats(whole: int) -> int:
    """`whole`, or a tenth of it in a sanitized run."""
    return max(whole // 10, 1) if SANITIZED else whole
