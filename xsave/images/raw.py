"""Raw areas: a file, or the bytes of a hex dump, that are one XSAVE area and nothing else.

Also the blobs of KVM_GET_XSAVE and KVM_GET_XSAVE2, which are standard areas in a padded buffer.
"""

from struct import unpack_from

from xsave.components import COMPONENTS
from xsave.images.assemble import AREA_MIN, assemble, from_legacy
from xsave.images.facts import MAGIC1
from xsave.images.image import SingleImage
from xsave.images.kvm import kvm_facts
from xsave.images.trust import Facts, choose

TYPE_CHECKING = False
if TYPE_CHECKING:
    from xsave.images.source import Source
    from xsave.models import CpuModel

__all__ = ["open_raw", "plausible"]

_FXSAVE = 512
_AREA_MAX = 1 << 16
_FORMAT_BIT = 1 << 63
_KNOWN = _FORMAT_BIT | sum(1 << component for component in COMPONENTS)
_MXCSR_BITS = 0x2FFFF
_MXCSR_MASKS = (0, 0xFFBF, 0xFFFF, 0x2FFFF)


def plausible(raw: "bytes | bytearray") -> "str | None":
    """Why bytes are no XSAVE area or FXSAVE image, or None if they may be one.

    The fields that hardware never writes otherwise must be right; stale bytes elsewhere are none of our business.
    """
    if len(raw) < _FXSAVE:
        return f"{len(raw)} bytes, fewer than the {_FXSAVE} of an FXSAVE image"
    mxcsr, mask = unpack_from("<II", raw, 24)
    control = unpack_from("<H", raw, 0)[0]
    if mxcsr & ~_MXCSR_BITS or mask not in _MXCSR_MASKS:
        return f"MXCSR {mxcsr:#x} with MXCSR_MASK {mask:#x} at byte 24"
    if control & 0xE080:
        return f"FCW {control:#x} at byte 0 has reserved bits"
    if len(raw) < AREA_MIN:
        return None
    xstate_bv, xcomp_bv = unpack_from("<QQ", raw, _FXSAVE)
    if any(raw[_FXSAVE + 16 : AREA_MIN]):
        return "reserved bytes 528-575 of the header are not zero"
    if xcomp_bv & ~_KNOWN or xstate_bv & ~_KNOWN or xstate_bv >> 63:
        return f"XSTATE_BV {xstate_bv:#x}, XCOMP_BV {xcomp_bv:#x} at byte 512"
    if xcomp_bv and not xcomp_bv & _FORMAT_BIT:
        return f"XCOMP_BV {xcomp_bv:#x} at byte 520 without bit 63"
    if xcomp_bv and xstate_bv & ~(xcomp_bv | 3):
        return f"XSTATE_BV {xstate_bv:#x} is not within XCOMP_BV {xcomp_bv:#x}"
    return None


def open_raw(source: "Source", head: bytes, cpu: "CpuModel | None", kind: str = "raw area") -> "SingleImage | None":
    """The image of a source that is one area, or None if it cannot be one.

    With `cpu` given, or `kind` other than a guess from content, the header need not be plausible: the user says so.
    """
    size = source.size
    if not source.seekable:
        size = source.retain(0, _AREA_MAX + 1)
    if size is None or size > _AREA_MAX:
        return None
    raw = source.read(0, size)
    problem = plausible(raw)
    told = cpu is not None and len(raw) >= AREA_MIN
    if problem is not None and not told:
        return None
    warnings = (problem,) if problem is not None else ()
    if len(raw) < AREA_MIN:
        kind = "FXSAVE image" if kind == "raw area" else kind
        return SingleImage(source, kind, from_legacy(raw, "FXSAVE image"), len(raw))
    facts = kvm_facts(raw)
    if facts is not None:
        kind = f"{facts.what} ({kind})" if kind != "raw area" else facts.what
    else:
        facts = _facts(raw)
    return SingleImage(source, kind, assemble(raw, choose(facts, cpu), warnings=warnings), len(raw))


def _facts(raw: bytes) -> Facts:
    magic, _, features, size = unpack_from("<IIQI", raw, 464)
    if magic == MAGIC1 and AREA_MIN <= size <= len(raw):
        return Facts("signal frame", raw[:size], size=size, xcr0=features)
    return Facts("area", raw, size=len(raw))
