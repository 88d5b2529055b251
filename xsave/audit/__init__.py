"""The audit: what a guest may put into XCR0, IA32_XSS and IA32_XFD, and what that does to a buffer.

`buffer` answers for one save instruction and one buffer: which bytes beyond its end are written.
"""

from xsave.audit.verdict import Verdict, buffer

__all__ = ["Verdict", "buffer"]
