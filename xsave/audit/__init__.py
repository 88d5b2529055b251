"""The audit: what a guest may put into XCR0, IA32_XSS and IA32_XFD, and what that does to a buffer.

`buffer` answers for one save instruction and one buffer: which bytes beyond its end are written. `policy` answers for
a guest: who decides what it may write.
"""

from xsave.audit.policies import POLICIES, Answer, Live, Policy, policy
from xsave.audit.verdict import Verdict, buffer

__all__ = ["POLICIES", "Answer", "Live", "Policy", "Verdict", "buffer", "policy"]
