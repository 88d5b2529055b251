"""The audit: what a guest may put into XCR0, IA32_XSS and IA32_XFD, and what that does to a buffer.

`buffer` answers for one save instruction and one buffer: which bytes beyond its end are written. `policy` answers for
a guest: who decides what it may write. `frames` knows the buffers that systems make around an area; `trampoline` one
that a process sized for itself when it started, and `moved` what becomes of that on another CPU. `prove` walks every
state of a guest and its VMM. `lint_area`, `lint_model`, `lint_config` and `lint_image` find what is dangerous or
inconsistent; `LINTS` says what they look for. `migrate` says whether saved state can be restored on another CPU, and by
which door, and makes the area that it takes; `admit`, whether a policy would let a guest have its registers, and
whether its save fits; `worst` is the guest that takes most, of all that a policy lets be.
"""

from xsave.audit import frames
from xsave.audit.doors import Door, Objection
from xsave.audit.lints import LINTS, Finding, Lint, lint_area, lint_config, lint_image, lint_model
from xsave.audit.migration import Conversion, Migration, migrate
from xsave.audit.policies import POLICIES, Answer, Live, Policy, policy
from xsave.audit.proof import Proof, prove
from xsave.audit.selfsized import Moved, Trampoline, moved, trampoline
from xsave.audit.snapshot import Admission, admit, worst
from xsave.audit.verdict import Verdict, buffer

__all__ = [
    "LINTS",
    "POLICIES",
    "Admission",
    "Answer",
    "Conversion",
    "Door",
    "Finding",
    "Lint",
    "Live",
    "Migration",
    "Moved",
    "Objection",
    "Policy",
    "Proof",
    "Trampoline",
    "Verdict",
    "admit",
    "buffer",
    "frames",
    "lint_area",
    "lint_config",
    "lint_image",
    "lint_model",
    "migrate",
    "moved",
    "policy",
    "prove",
    "trampoline",
    "worst",
]
