"""What KVM gives out: KVM_GET_XSAVE and KVM_GET_XSAVE2.

The kernel copies a guest's state in the standard format with the host's offsets into a buffer of 4,096 bytes or
more; the u64 at byte 464 is the host's mask, not the guest's XCR0. Nothing in the blob names the CPU.
"""

from struct import unpack_from

from xsave.images.assemble import AREA_MIN
from xsave.images.facts import MAGIC1, Facts
from xsave.images.known import exact_size

__all__ = ["kvm_facts"]

_REGION = 4096


def kvm_facts(raw: bytes) -> "Facts | None":
    """The facts of a blob, or None for an area that is not padded as KVM's are."""
    if len(raw) < _REGION or len(raw) % 4:
        return None
    software, xcomp_bv = unpack_from("<I", raw, 464)[0], unpack_from("<Q", raw, 520)[0]
    if xcomp_bv or software == MAGIC1:
        return None
    if len(raw) == _REGION:
        return Facts("KVM_GET_XSAVE", raw, size=len(raw), exact=False)
    facts = Facts("KVM_GET_XSAVE2", raw, size=len(raw), exact=False)
    # An area that fills its buffer is an area; KVM's of a host with tiles looks the same.
    return None if not facts.xcr0 or exact_size(facts.xcr0, len(raw)) else facts


assert AREA_MIN < _REGION
