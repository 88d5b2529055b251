"""What VMMs check of an XSETBV that exited to them, in their order: the first rule that refuses names the answer."""

from xsave.components import Component, ComponentMask

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    # code, the rule in words, whether it refuses (value, what the guest may have)
    Rule = tuple[str, str, Callable[[int, int], bool]]

__all__ = ["KVM", "KVM_SOURCE", "KVM_SUPPORTED", "KVM_XSS", "XEN", "XEN_SOURCE", "XEN_SUPPORTED", "first_refusal"]

_X87, _SSE, _AVX, _APX = (1 << each for each in (Component.X87, Component.SSE, Component.AVX, Component.APX))
_BNDREGS, _BNDCSR = 1 << Component.BNDREGS, 1 << Component.BNDCSR
_TILECFG, _TILEDATA = 1 << Component.TILECFG, 1 << Component.TILEDATA
_AVX512 = int(ComponentMask.parse("opmask ZMM_Hi256 Hi16_ZMM"))

KVM_SOURCE = "Linux arch/x86/kvm/x86.c __kvm_set_xcr"
XEN_SOURCE = "Xen xen/arch/x86/xstate.c handle_xsetbv"
# What they handle at all: of XCR0, of IA32_XSS (both bits or none).
KVM_SUPPORTED = int(ComponentMask.parse("x87 SSE AVX MPX AVX512 PKRU AMX APX"))
KVM_XSS = int(ComponentMask.parse("CET_U CET_S"))
XEN_SUPPORTED = int(ComponentMask.parse("x87 SSE AVX MPX AVX512 PKRU AMX"))


def _split(value: int, one: int, other: int) -> bool:
    return bool(value & one) != bool(value & other)


KVM: "tuple[Rule, ...]" = (
    ("R-X87", "XCR0[0] must be 1", lambda value, _: not value & _X87),
    ("R-AVX", "XCR0[2] (AVX) needs XCR0[1] (SSE)", lambda value, _: bool(value & _AVX) and not value & _SSE),
    ("A-NOALLOW", "a bit that the guest's CPUID or KVM does not have", lambda value, may: bool(value & ~(may | _X87))),
    ("R-MPX", "XCR0[3] and XCR0[4] (MPX) are set together", lambda value, _: _split(value, _BNDREGS, _BNDCSR)),
    ("R-APX", "XCR0[19] (APX) excludes XCR0[4:3] (MPX)", lambda value, _: bool(value & _APX and value & _BNDREGS)),
    ("R-AVX512", "XCR0[7:5] (AVX-512) need XCR0[2] (AVX)", lambda value, _: bool(value & _AVX512) and not value & _AVX),
    ("R-AVX512", "XCR0[7:5] (AVX-512) are set together", lambda value, _: value & _AVX512 not in (0, _AVX512)),
    ("R-AMX", "XCR0[17] and XCR0[18] (AMX) are set together", lambda value, _: _split(value, _TILECFG, _TILEDATA)),
)
XEN: "tuple[Rule, ...]" = (
    ("A-NOALLOW", "a bit that the domain's CPUID policy does not have", lambda value, may: bool(value & ~may)),
    ("R-X87", "XCR0[0] must be 1", lambda value, _: not value & _X87),
    ("R-AVX", "XCR0[2] (AVX) needs XCR0[1] (SSE)", lambda value, _: bool(value & _AVX) and not value & _SSE),
    ("R-AVX512", "XCR0[7:5] (AVX-512) need XCR0[2] (AVX)", lambda value, _: bool(value & _AVX512) and not value & _AVX),
    ("R-AVX512", "XCR0[7:5] (AVX-512) are set together", lambda value, _: value & _AVX512 not in (0, _AVX512)),
    ("R-MPX", "XCR0[3] and XCR0[4] (MPX) are set together", lambda value, _: _split(value, _BNDREGS, _BNDCSR)),
    ("R-AMX", "XCR0[17] and XCR0[18] (AMX) are set together", lambda value, _: _split(value, _TILECFG, _TILEDATA)),
)


def first_refusal(rules: "tuple[Rule, ...]", value: int, may: int) -> "Rule | None":
    """The first rule that refuses `value` where the guest may have the components of `may`, or None."""
    return next((rule for rule in rules if rule[2](value, may)), None)
