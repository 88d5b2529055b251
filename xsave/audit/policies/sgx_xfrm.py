"""`sgx-xfrm`: an enclave. XCR0 is its XFRM while it runs, and its state is saved into a frame sized for that."""

from xsave.audit import frames
from xsave.audit.policies.base import ALLOWED, GP, Answer, Live, Policy
from xsave.audit.verdict import mask_of
from xsave.components import ComponentMask

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["SgxXfrm"]

_ENCLAVE = "SDM3D 39.6, enclaves run at CPL 3"


class SgxXfrm(Policy):
    """XFRM is measured into the enclave at ECREATE; EENTER and ERESUME load it into XCR0, an exit takes it back.

    `xfrm` (default: what is offered; it must be legal for XCR0, have x87 and SSE, and lie within what CPUID leaf 12H
    offers to enclaves); `ssa_frame_size`: SSAFRAMESIZE in pages (default: the smallest that holds XSAVE's area of XFRM,
    GPRSGX and EXINFO). An asynchronous exit saves with XFRM into the frame: nobody else sizes a buffer for it.
    """

    name = "sgx-xfrm"
    KEEPER = "hardware"
    INSTRUCTION = "XSAVE"
    FACTS: "tuple[tuple[str, object], ...]" = (("xfrm", None), ("ssa_frame_size", None))
    ssa_frame_size: int
    xfrm: int

    def _take(self, facts: "dict[str, Any]") -> None:
        offered = self.model.cpuid.get((0x12, 1), (0, 0, 0, 0))
        limit = offered[2] | offered[3] << 32
        default = self.allowed_xcr0 & (limit or self.allowed_xcr0)
        xfrm = default if facts["xfrm"] is None else mask_of(facts["xfrm"], "xfrm")
        needed = frames.sgx(self.model, xfrm)
        size = needed.pages if facts["ssa_frame_size"] is None else facts["ssa_frame_size"]
        if size < needed.pages:
            raise ValueError(f"ssa_frame_size {size}: XFRM {ComponentMask(xfrm)} needs {needed.pages} pages "
                             f"[{needed.SOURCE}]")
        self.xfrm, self.first_xcr0, self.ssa_frame_size, self.live = xfrm, xfrm, size, "host"

    def write_xcr0(self, value: int, index: int) -> Answer:
        """XSETBV is privileged, and no enclave is."""
        return Answer(GP, None, "CPL", "an enclave cannot write XCR0: its CPL is 3", _ENCLAVE)

    def write_xss(self, value: int) -> Answer:
        """Nor is WRMSR for it."""
        return Answer(GP, None, "CPL", "an enclave cannot write IA32_XSS: its CPL is 3", _ENCLAVE)

    def write_xfd(self, value: int) -> Answer:
        """Nor this one."""
        return Answer(GP, None, "CPL", "an enclave cannot write IA32_XFD: its CPL is 3", _ENCLAVE)

    def entry(self, guest: Live) -> Answer:
        """EENTER and ERESUME under the OS's XCR0: #GP unless it has all of XFRM."""
        if self.xfrm & ~self.host_xcr0:
            return Answer(GP, None, "A-NOALLOW", "XFRM has bits that XCR0 lacks", "SDM3D EENTER")
        return Answer(ALLOWED, None, "", "XCR0 has all of XFRM, which is loaded into it", "SDM3D EENTER")

    def after_exit(self, guest: Live) -> Live:
        """XCR0 as it was before the enclave was entered."""
        return Live(self.host_xcr0, self.host_xss, guest.xfd)

    def at_save(self, guest: Live) -> Live:
        """The asynchronous exit's own save, with XFRM for XCR0."""
        return Live(self.xfrm, 0, guest.xfd)
