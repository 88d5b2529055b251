"""How often a test repeats what it does.

A run on a further build (sanitized, portable) asks the same of the same code again, and slower: XSAVE_THIN=N makes it
repeat an N-th of what the first run does, with the same kinds of cases.
"""

import os

THIN = int(os.environ.get("XSAVE_THIN", "1"))
# Cases that hypothesis draws for a test that does not say.
EXAMPLES = min(100, 200 // THIN)


def repeats(whole: int) -> int:
    """`whole`, or its share in a thinned run."""
    return max(whole // THIN, 1)
