"""Lints of a VMM's configuration or snapshot: its masks, its buffer, who saves and who restores."""

from xsave.audit.lints.areas import lint_area
from xsave.audit.lints.catalogue import Finding
from xsave.audit.lints.masks import lint_unsupported, lint_xcr0, lint_xss_offer
from xsave.audit.verdict import ALL, INSTRUCTIONS, buffer, byte_of, can_disable, instruction_format, mask_of, reached
from xsave.components import ComponentMask
from xsave.errors import LayoutError
from xsave.layout import COMPACTED, HEADER, STANDARD, Format, Layout

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from xsave.area import Area
    from xsave.models import CpuModel

__all__ = ["RESTORERS", "lint_config", "lint_snapshot"]

# Formats that whoever restores takes: standard, compacted (SDM1 13.8, 13.12; Linux regset.c, kvm/x86.c).
RESTORERS = {
    "XRSTOR": (STANDARD, COMPACTED),
    "XRSTORS": (COMPACTED,),
    "KVM_SET_XSAVE": (STANDARD,),
    "PTRACE_SETREGSET": (STANDARD,),
}
_XCOMP, _FORMAT_BIT = HEADER[0] + 8, 1 << 63


def lint_config(
    model: "CpuModel",
    *,
    xcr0: "int | str",
    xss: "int | str | None" = None,
    xfd: "int | str | None" = None,
    allowed_xcr0: "int | str | None" = None,
    allowed_xss: "int | str | None" = None,
    save: str = "XSAVE",
    save_mask: "int | str | None" = None,
    size: "int | None" = None,
    restore: "str | None" = None,
    restore_mask: "int | str | None" = None,
    restore_xss: "int | str | None" = None,
    areas: "Sequence[Area]" = (),
    where: str = "configuration",
) -> "list[Finding]":
    """What is wrong with how a VMM keeps a guest's state, or with a snapshot of it.

    `xcr0`, `xss`, `xfd`: the guest's XCR0, IA32_XSS and IA32_XFD; None is a snapshot without the register.
    `allowed_xcr0`, `allowed_xss`: what the VMM offers in CPUID (default: all that `model` has). `save`: the
    instruction that saves, `save_mask` its EDX:EAX (None and all ones ask for whatever is enabled), `size` the bytes
    of its buffer. `restore`: who takes the area ("XRSTOR", "XRSTORS", "KVM_SET_XSAVE", "PTRACE_SETREGSET"),
    `restore_mask` its EDX:EAX, `restore_xss` IA32_XSS then. `areas`: the snapshot's, which are looked at too. What is
    None is not judged.

    Raises: `ValueError` for an unknown name, a size that no buffer has; `UnsupportedError` for an instruction that
    the model lacks. Manual: SDM1 13.3, 13.7-13.12.
    """
    guest, supervisor = mask_of(xcr0, "XCR0"), None if xss is None else mask_of(xss, "IA32_XSS")
    disabled = None if xfd is None else mask_of(xfd, "IA32_XFD")
    offered = int(model.xcr0_mask) if allowed_xcr0 is None else mask_of(allowed_xcr0, "allowed_xcr0")
    offered_xss = int(model.xss_mask) if allowed_xss is None else mask_of(allowed_xss, "allowed_xss")
    format_ = instruction_format(model, save)
    found = lint_xcr0(guest, "XCR0", where)
    found += _offers(model, guest, supervisor, disabled, offered, offered_xss, where)
    if allowed_xcr0 is not None:
        found += lint_xcr0(offered, "the XCR0 on offer", where)
    if allowed_xss is not None:
        found += lint_xss_offer(offered_xss, "the IA32_XSS on offer", where)
    enabled = guest | (supervisor or 0)
    live = reached(save, guest, supervisor or 0)
    asked = ALL if save_mask is None else mask_of(save_mask, "save_mask")
    theirs = enabled if allowed_xcr0 is None and allowed_xss is None else offered | offered_xss
    # A save ignores what the CPU lacks; all ones ask for what is enabled, no more.
    over = 0 if asked == ALL else asked & int(model.xcr0_mask | model.xss_mask) & ~theirs
    found += _save(live, asked, over, save, where)
    if size is not None and not guest & ~int(model.xcr0_mask) and not (supervisor or 0) & ~int(model.xss_mask):
        can = can_disable(model) & guest
        found += _buffer(model, guest, supervisor or 0, (disabled or 0) & can, save, asked, size, where)
    if restore is not None:
        found += _format(restore, save, format_, where)
    if restore_mask is not None:
        found += _restore(live & asked, mask_of(restore_mask, "restore_mask"), save, where)
    if restore_xss is not None and supervisor is not None and mask_of(restore_xss, "restore_xss") != supervisor:
        found.append(_xss_differs(supervisor, mask_of(restore_xss, "restore_xss"), where))
    for number, area in enumerate(areas):
        place = f"{where}, area {number}"
        found += lint_snapshot(area, guest, supervisor, disabled, place)
        found += lint_area(area, xcr0=guest, xss=supervisor, xfd=disabled, where=place)
    return found


def _offers(
    model: "CpuModel", xcr0: int, xss: "int | None", xfd: "int | None", offered: int, offered_xss: int, where: str
) -> "list[Finding]":
    can = can_disable(model)
    found: "list[Finding]" = []
    for register, value, cpu, vmm in (
        ("XCR0", xcr0, int(model.xcr0_mask), offered),
        ("IA32_XSS", xss or 0, int(model.xss_mask), offered_xss),
        ("IA32_XFD", xfd or 0, can, can),
    ):
        found += lint_unsupported(value, cpu, register, model.name, where)
        if not value & ~cpu:
            found += lint_unsupported(value, vmm, register, "the VMM", where)
    return found


def _save(live: int, asked: int, over: int, save: str, where: str) -> "list[Finding]":
    found = []
    left = ComponentMask(live & ~asked)
    if left:
        text = f"the save mask {ComponentMask(asked)} lacks {left}, which is enabled"
        found.append(Finding("L-SAVE-NARROW", f"{text}: {save} leaves it in the registers", None, where))
    if over:
        text = f"the save mask {ComponentMask(asked)} has {ComponentMask(over)}, which the guest does not"
        found.append(Finding("L-SAVE-OVER", f"{text}: a host without it refuses the area", None, where))
    return found


def _buffer(
    model: "CpuModel", xcr0: int, xss: int, xfd: int, save: str, asked: int, size: int, where: str
) -> "list[Finding]":
    verdict = buffer(model, xcr0=xcr0, xss=xss, xfd=xfd, instruction=save, rfbm=asked, size=size)
    if verdict.fits:
        return []
    text = f"{save} of {verdict.mask} needs {verdict.required:,} bytes, the buffer has {size:,}"
    text += f": {verdict.bytes_over:,} bytes past its end are written"
    id = "L-BUFFER-SMALL"
    if INSTRUCTIONS[save] is STANDARD and size in _compacted_sizes(model, int(verdict.mask), xss):
        id, text = "L-BUFFER-COMPACT", f"{text}; {size:,} is the size of the compacted area"
    return [Finding(id, text, verdict.first_bad, where)]


def _compacted_sizes(model: "CpuModel", mask: int, xss: int) -> "set[int]":
    # What CPUID(0DH,1).EBX may answer to one who then saves with XSAVE; without compaction that is 0.
    found = set()
    for supervisor in (0, xss):
        try:
            found.add(Layout(model, mask | supervisor, COMPACTED).size)
        except LayoutError:
            continue
    return found


def _format(restore: str, save: str, written: Format, where: str) -> "list[Finding]":
    if restore not in RESTORERS:
        raise ValueError(f"restore {restore!r} is none of {', '.join(RESTORERS)}")
    if written in RESTORERS[restore]:
        return []
    name = "compacted" if written is COMPACTED else "standard"
    answer = "#GP" if restore.startswith("XRSTOR") else "EINVAL"
    text = f"{save} writes the {name} format, which {restore} does not take: {answer}"
    return [Finding("L-FORMAT", text, _XCOMP + 7, where)]


def _restore(saved: int, asked: int, save: str, where: str) -> "list[Finding]":
    left = ComponentMask(saved & ~asked)
    if not left:
        return []
    text = f"the restore mask {ComponentMask(asked)} lacks {left}, which {save} stores"
    return [Finding("L-RESTORE-NARROW", f"{text}: the registers keep what they hold", None, where)]


def _xss_differs(save: int, restore: int, where: str) -> Finding:
    text = f"IA32_XSS is {ComponentMask(save)} when the state is saved and {ComponentMask(restore)} when it is restored"
    lacking = ComponentMask(save & ~restore)
    end = f"XRSTORS takes #GP for {lacking}" if lacking else "XRSTORS makes the rest initial"
    return Finding("L-XSS-DIFFERS", f"{text}: {end}", None, where)


def lint_snapshot(
    area: "Area", xcr0: int, xss: "int | None", xfd: "int | None", where: str, tid: "int | None" = None
) -> "list[Finding]":
    """Of an area whose snapshot may lack IA32_XSS or IA32_XFD (None), though the area needs them [SDM1 13.12]."""
    absent = [name for name, value in (("IA32_XSS", xss), ("IA32_XFD", xfd)) if value is None]
    extra = ComponentMask(int(area.xcomp_bv) & ~_FORMAT_BIT & ~(xcr0 | (xss or 0)))
    if not absent or not int(area.xcomp_bv) & _FORMAT_BIT or not extra:
        return []
    text = f"the snapshot lacks {' and '.join(absent)}, and XCOMP_BV {area.xcomp_bv} has {extra} beyond XCR0"
    odd = byte_of(_XCOMP, extra)
    return [Finding("L-SNAPSHOT-XSS", f"{text} {ComponentMask(xcr0)}: XRSTORS takes #GP", odd, where, tid)]
