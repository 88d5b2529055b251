"""Lints of the masks in XCR0, IA32_XSS and IA32_XFD, which CPUID sets and configurations share."""

from xsave.audit.lints.catalogue import Finding
from xsave.components import SUPERVISOR, Component, ComponentMask

__all__ = ["lint_unsupported", "lint_xcr0", "lint_xss_offer"]

_TILES = Component.TILECFG.mask | Component.TILEDATA.mask
_CET = Component.CET_U.mask | Component.CET_S.mask


def lint_xcr0(xcr0: int, what: str, where: str) -> "list[Finding]":
    """Of a value of XCR0, or of those that one may have: half of AMX, supervisor bits [SDM1 13.3]."""
    found = []
    if xcr0 & _TILES not in (0, _TILES):
        text = f"{what} {ComponentMask(xcr0)} has {ComponentMask(xcr0 & _TILES)} alone of TILECFG and TILEDATA"
        found.append(Finding("L-AMX-HALF", f"{text}: XSETBV takes #GP", None, where))
    if xcr0 & SUPERVISOR:
        text = f"{what} {ComponentMask(xcr0)} has {ComponentMask(xcr0 & SUPERVISOR)}, which IA32_XSS enables"
        found.append(Finding("L-XCR0-SUPERVISOR", f"{text}: XSETBV takes #GP", None, where))
    return found


def lint_xss_offer(xss: int, what: str, where: str) -> "list[Finding]":
    """Of the bits that a guest may set in IA32_XSS: half of CET. What it sets may be one of them: Linux sets CET_U."""
    if xss & _CET in (0, _CET):
        return []
    text = f"{what} {ComponentMask(xss)} has {ComponentMask(xss & _CET)} alone of CET_U and CET_S"
    return [Finding("L-CET-PAIR", f"{text}: KVM and TDX take both or neither", None, where)]


def lint_unsupported(value: int, allowed: int, register: str, who: str, where: str) -> "list[Finding]":
    """Of a register's value with bits that the CPU, or the VMM, does not offer [SDM1 13.3]."""
    if not value & ~allowed:
        return []
    text = f"{register} {ComponentMask(value)} has {ComponentMask(value & ~allowed)}, which {who} does not offer"
    return [Finding("L-MASK-UNSUPPORTED", f"{text}: #GP at the write, EINVAL from KVM", None, where)]
