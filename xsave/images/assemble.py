"""From raw bytes of a container to an `Area`: repairs, and what they do to the evidence.

Nothing here decodes a register. It puts right what a writer is known to do wrong (the shifted notes of
mid-2020 kernels, an MXCSR that the kernel left out), and builds areas where only legacy register sets exist.
"""

from struct import pack_into, unpack_from

from xsave.area import Area
from xsave.components import Component, ComponentMask
from xsave.errors import FormatError
from xsave.images.facts import Choice, legacy_choice
from xsave.images.image import Evidence, State

__all__ = ["AREA_MIN", "assemble", "from_fsave", "from_legacy", "fxsave_x87", "is_shifted", "unshift"]

AREA_MIN = 576
_LEGACY = 512
_XMM, _XMM_END = 160, 416
_SOFTWARE, _SOFTWARE_END = 464, 512
_FORMAT_BIT = 1 << 63
_SSE_AVX = Component.SSE.mask | Component.AVX.mask


def assemble(
    raw: "bytes | bytearray", choice: Choice, legacy: "bytes | None" = None, warnings: "tuple[str, ...]" = (),
    source: str = "NT_PRFPREG",
) -> State:
    """The state of an area's bytes under a chosen layout.

    `legacy` is the FXSAVE image that the container holds beside it, named `source`: MXCSR comes from there where
    XSTATE_BV has neither SSE nor AVX (the kernel did not write it then), and its XMM registers must agree.
    """
    layout, evidence, found = choice
    odd = [*found, *warnings]
    xstate_bv, xcomp_bv = unpack_from("<QQ", raw, 512)
    check = True
    image = bytes(raw[: layout.size])
    if layout.format == 0 and legacy is not None:
        if not xstate_bv & _SSE_AVX:
            patched = bytearray(image)
            patched[24:28] = legacy[24:28]
            image = bytes(patched)
            evidence = Evidence(f"{evidence.rule}; MXCSR from {source}", evidence.confidence)
        expected = raw[_XMM:_XMM_END] if xstate_bv & Component.SSE.mask else bytes(_XMM_END - _XMM)
        if not xstate_bv & _FORMAT_BIT and expected[:128] != legacy[_XMM : _XMM + 128]:
            at = next(i for i in range(128) if expected[i] != legacy[_XMM + i])
            odd.append(f"xmm{at // 16} of the area differs from {source}, at byte {_XMM + at}")
            evidence = Evidence(evidence.rule, "assumed")
    extra = xstate_bv & ~layout.mask
    if extra:
        odd.append(f"XSTATE_BV {ComponentMask(xstate_bv)} has {' '.join(ComponentMask(extra).names)}, which the layout "
                   f"{layout.mask} lacks: left out")
        evidence, check = Evidence(evidence.rule, "assumed"), False
    if layout.format == 0 and xcomp_bv:
        odd.append(f"XCOMP_BV {ComponentMask(xcomp_bv)} in a standard area, expected 0 [SDM1 13.4.2]")
        evidence, check = Evidence(evidence.rule, "assumed"), False
    if check:
        try:
            return State(Area(image, layout), evidence, tuple(odd))
        except FormatError as problem:
            odd.append(str(problem))
            evidence = Evidence(evidence.rule, "assumed")
    return State(Area(image, layout, check=False), evidence, tuple(odd))


def from_legacy(fxsave: bytes, source: str, warnings: "tuple[str, ...]" = ()) -> State:
    """The state of a 512-byte FXSAVE image alone: x87 and SSE."""
    image = bytearray(fxsave[:_SOFTWARE].ljust(AREA_MIN, b"\0"))
    pack_into("<Q", image, 512, 3)
    choice = legacy_choice(f"{source}: x87 and SSE only", 3, unpack_from("<I", image, 28)[0])
    return State(Area(bytes(image), choice.layout), choice.evidence, warnings)


def from_fsave(fsave: bytes, source: str, warnings: "tuple[str, ...]" = ()) -> State:
    """The state of a 108-byte FSAVE image alone: x87."""
    image = bytearray(AREA_MIN)
    image[:_XMM] = fxsave_x87(fsave)
    pack_into("<Q", image, 512, 1)
    choice = legacy_choice(f"{source}: x87 only", 1)
    return State(Area(bytes(image), choice.layout), choice.evidence, warnings)


def fxsave_x87(fsave: bytes) -> bytes:
    """The first 160 bytes of an FXSAVE image with the x87 state of an FSAVE image (SDM1 8.1.10, 10.5.1).

    FSAVE tags physical registers with two bits, FXSAVE with one (not empty); both keep ST in stack order.
    """
    control, status, tags = (unpack_from("<H", fsave, offset)[0] for offset in (0, 4, 8))
    pointer, selector, operand, data_selector = unpack_from("<IIII", fsave, 12)
    abridged = sum((tags >> 2 * i & 3 != 3) << i for i in range(8))
    out = bytearray(_XMM)
    opcode = selector >> 16 & 0x7FF
    pack_into("<HHBBHIHHIHH", out, 0, control, status, abridged, 0, opcode, pointer, selector & 0xFFFF, 0, operand,
              data_selector & 0xFFFF, 0)
    for i in range(8):
        out[32 + 16 * i : 42 + 16 * i] = fsave[28 + 10 * i : 38 + 10 * i]
    return bytes(out)


# -- the shifted notes of mid-2020 kernels ----------------------------------------------------------------

# Written one after the other from where the extended region begins: XMM, software bytes, header, components.
_SHIFTED_SOFTWARE = AREA_MIN + _XMM_END - _XMM
_SHIFTED_HEADER = _SHIFTED_SOFTWARE + _SOFTWARE_END - _SOFTWARE
_SHIFTED_REST = _SHIFTED_HEADER + AREA_MIN - _LEGACY


def is_shifted(raw: "bytes | bytearray") -> bool:
    """Whether a note is one of those that kernels of mid-2020 wrote with XMM at component 2's offset."""
    if raw[_SOFTWARE : _SOFTWARE + 8] != bytes(8):
        return False
    xstate_bv, xcomp_bv = unpack_from("<QQ", raw, 512)
    if xstate_bv or not xcomp_bv & _FORMAT_BIT or len(raw) < _SHIFTED_SOFTWARE:
        return False
    if len(raw) < _SHIFTED_HEADER + 8:
        return True
    xcr0 = unpack_from("<Q", raw, _SHIFTED_SOFTWARE)[0]
    true_bv = unpack_from("<Q", raw, _SHIFTED_HEADER)[0]
    return bool(xcr0 == xcomp_bv & ~_FORMAT_BIT and not true_bv & ~xcr0)


def unshift(raw: "bytes | bytearray", offsets: "dict[int, tuple[int, int]]") -> "tuple[bytes, int, int]":
    """The note put right: (its bytes, its XCR0, the mask of components that the shift pushed out of it).

    `offsets` are those of the standard layout for the note's XCR0.
    """
    image = bytearray(len(raw))
    image[:_XMM] = raw[:_XMM]
    image[_XMM:_XMM_END] = raw[AREA_MIN:_SHIFTED_SOFTWARE]
    if len(raw) < _SHIFTED_REST:
        xcr0 = unpack_from("<Q", raw, 520)[0] & ~_FORMAT_BIT
        pack_into("<Q", image, _SOFTWARE, xcr0)
        pack_into("<Q", image, 512, 3)
        return bytes(image), xcr0, xcr0 & ~3
    image[_SOFTWARE:AREA_MIN] = raw[_SHIFTED_SOFTWARE:_SHIFTED_REST]
    xcr0, xstate_bv = unpack_from("<Q", image, _SOFTWARE)[0], unpack_from("<Q", image, 512)[0]
    lost, position = 0, _SHIFTED_REST
    for component, (offset, size) in sorted(offsets.items(), key=lambda item: item[1]):
        if not xstate_bv >> component & 1:
            continue
        position = max(position, offset)
        if position + size > len(raw):
            lost |= 1 << component
            continue
        image[offset : offset + size] = raw[position : position + size]
        position += size
    pack_into("<Q", image, 512, xstate_bv & ~lost)
    return bytes(image), xcr0, lost
