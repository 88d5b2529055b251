"""What stands between a guest and XCR0: the conditions of KVM, Xen and the TDX module, spelled out.

Each function says which rule refuses first, as the source names it in its own order, or None.
"""

from __future__ import annotations

from .components import has

# struct of bits by number, as the sources write them
KVM_HANDLES = 0xE02FF  # 0-7, 9, 17, 18, 19 of the host's XCR0
XEN_HANDLES = 0x3 | 0x4 | 0x18 | 0xE0 | 0x200 | 0x60000
TDX_FIXED0 = 0x6DBE7
TDX_FIXED1 = 0x3
TDX_USER = 0x602FF
TDX_SUPERVISOR = 0x1FD00


def kvm_xcr0(value: int, index: int, guest_cpuid: int, host_xcr0: int) -> str | None:
    """__kvm_set_xcr: nine conditions."""
    supported = guest_cpuid & host_xcr0 & KVM_HANDLES
    if index != 0:
        return "index"
    if not has(value, 0):
        return "x87"
    if has(value, 2) and not has(value, 1):
        return "avx"
    if value & ~(supported | 1):
        return "unsupported"
    if has(value, 3) != has(value, 4):
        return "mpx"
    if has(value, 3) and has(value, 19):
        return "apx"
    if value & 0xE0:
        if not has(value, 2):
            return "avx512 without avx"
        if value & 0xE0 != 0xE0:
            return "avx512 split"
    if value & 0x60000 not in (0, 0x60000):
        return "amx"
    return None


def kvm_xss(value: int, guest_cpuid: int, has_xsaves: bool) -> str | None:
    """WRMSR IA32_XSS: CET, both halves offered or none."""
    if not has_xsaves:
        return "missing"
    supported = 0x1800 if guest_cpuid & 0x1800 == 0x1800 else 0
    return "unsupported" if value & ~supported else None


def xen_xcr0(value: int, index: int, policy: int) -> str | None:
    """handle_xsetbv: what the domain may have, then valid_xcr0."""
    if index != 0:
        return "index"
    if value & ~(policy & XEN_HANDLES):
        return "unsupported"
    if not has(value, 0):
        return "x87"
    if has(value, 2) and not has(value, 1):
        return "avx"
    if value & 0xE0 and (not has(value, 2) or value & 0xE0 != 0xE0):
        return "avx512"
    if has(value, 3) != has(value, 4):
        return "mpx"
    if has(value, 17) != has(value, 18):
        return "amx"
    return None


def tdx_xfam(xfam: int, supported: int) -> str | None:
    """check_xfam, at the creation of a TD."""
    if xfam & ~(TDX_FIXED0 & supported):
        return "fixed0"
    if xfam & TDX_FIXED1 != TDX_FIXED1:
        return "fixed1"
    if has(xfam, 5) and not has(xfam, 2):
        return "avx512 without avx"
    if has(xfam, 5) != has(xfam, 6) or has(xfam, 5) != has(xfam, 7):
        return "avx512 split"
    if has(xfam, 11) != has(xfam, 12):
        return "cet"
    if has(xfam, 17) != has(xfam, 18):
        return "amx"
    return None


def tdx_xcr0(value: int, index: int, xfam: int, supported: int) -> str | None:
    """XSETBV of a TD."""
    if index != 0:
        return "index"
    if value & ~(supported & xfam):
        return "outside xfam"
    if not has(value, 0):
        return "x87"
    if has(value, 2) and not has(value, 1):
        return "avx"
    if has(value, 5) and not has(value, 2):
        return "avx512 without avx"
    if has(value, 5) != has(value, 6) or has(value, 5) != has(value, 7):
        return "avx512 split"
    if has(value, 17) != has(value, 18):
        return "amx"
    return None
