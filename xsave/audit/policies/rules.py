"""Rules of XCR0 and XFAM as programs check them, in their order: the first that refuses names the answer.

What the processor itself checks is `xsave.Processor`'s; `WORDS` says its rules, and these, without a value.
"""

from xsave.components import COMPONENTS, Component, ComponentMask

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    # code, whether it refuses (value, what the guest may have)
    Rule = tuple[str, Callable[[int, int], bool]]

__all__ = [
    "GROUPS", "KVM", "KVM_SOURCE", "KVM_SUPPORTED", "KVM_XSS", "TDX_XCR0", "TDX_XFAM", "WORDS", "XEN", "XEN_SOURCE",
    "XEN_SUPPORTED", "first_refusal", "least_xcr0",
]  # fmt: skip

WORDS = {
    "CPL": "CPL is not 0",
    "INDEX": "ECX is not 0",
    "R-RSV": "a bit that CPUID.(0DH,0):EDX:EAX does not have",
    "R-X87": "bit 0 (x87) must be 1",
    "R-AVX": "bit 2 (AVX) needs bit 1 (SSE)",
    "R-MPX": "bits 3 and 4 (MPX) are set together",
    "R-AVX512": "bits 7:5 (AVX-512) are set together, with bit 2 (AVX)",
    "R-AMX": "bits 17 and 18 (AMX) are set together",
    "R-ACE": "bit 20 needs bits 18:17 (AMX)",
    "R-APX": "bit 19 (APX) excludes bits 4:3 (MPX)",
    "A-CETPAIR": "bits 11 and 12 (CET) are set together",
    "A-NOALLOW": "a bit that the guest may not have",
    "MSR-MASK": "a bit that CPUID does not have for this MSR",
    "MSR-MISSING": "CPUID does not have this MSR",
}
# The components that a rule of XCR0 is about.
GROUPS = {"R-X87": Component.X87.mask}
for _component, _row in COMPONENTS.items():
    for _rule in _row.requirements:
        GROUPS[_rule.code] = GROUPS.get(_rule.code, 0) | _component.mask | _rule.needs | _rule.excludes
_AVX512 = int(ComponentMask.parse("opmask ZMM_Hi256 Hi16_ZMM"))


def _bit(value: int, component: Component) -> bool:
    return bool(value >> component & 1)


def _split(one: Component, other: Component) -> "Callable[[int, int], bool]":
    return lambda value, _: _bit(value, one) != _bit(value, other)


_OUTSIDE: "Rule" = ("A-NOALLOW", lambda value, may: bool(value & ~may))
_X87: "Rule" = ("R-X87", lambda value, _: not _bit(value, Component.X87))
_AVX: "Rule" = ("R-AVX", lambda value, _: _bit(value, Component.AVX) and not _bit(value, Component.SSE))
_MPX: "Rule" = ("R-MPX", _split(Component.BNDREGS, Component.BNDCSR))
_APX: "Rule" = ("R-APX", lambda value, _: _bit(value, Component.BNDREGS) and _bit(value, Component.APX))
_WIDE: "Rule" = (
    "R-AVX512", lambda value, _: bool(value & _AVX512) and (not _bit(value, Component.AVX) or ~value & _AVX512 != 0),
)  # fmt: skip
_AMX: "Rule" = ("R-AMX", _split(Component.TILECFG, Component.TILEDATA))
_CET: "Rule" = ("A-CETPAIR", _split(Component.CET_U, Component.CET_S))

KVM_SOURCE = "Linux arch/x86/kvm/x86.c __kvm_set_xcr"
XEN_SOURCE = "Xen xen/arch/x86/xstate.c handle_xsetbv"
# What they handle at all: of XCR0, of IA32_XSS (both bits or none).
KVM_SUPPORTED = int(ComponentMask.parse("x87 SSE AVX MPX AVX512 PKRU AMX APX"))
KVM_XSS = int(ComponentMask.parse("CET_U CET_S"))
XEN_SUPPORTED = int(ComponentMask.parse("x87 SSE AVX MPX AVX512 PKRU AMX"))

KVM = (_X87, _AVX, _OUTSIDE, _MPX, _APX, _WIDE, _AMX)
XEN = (_OUTSIDE, _X87, _AVX, _WIDE, _MPX, _AMX)
# The TDX module: of XFAM, after its fixed bits; of a TD's XSETBV.
TDX_XFAM = (_WIDE, _CET, _AMX)
TDX_XCR0 = (_OUTSIDE, _X87, _AVX, _WIDE, _AMX)


def first_refusal(rules: "tuple[Rule, ...]", value: int, may: int) -> "str | None":
    """The code of the first rule that refuses `value` where the guest may have the components of `may`, or None."""
    return next((code for code, refuses in rules if refuses(value, may)), None)


def least_xcr0(components: int) -> int:
    """The least value of XCR0 that has these components, with all that they need [SDM1 13.3]."""
    value, before = components | Component.X87.mask, 0
    while value != before:
        before = value
        for component in ComponentMask(before):
            for rule in component.info.requirements:
                value |= rule.needs
    return value
