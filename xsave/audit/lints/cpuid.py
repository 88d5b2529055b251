"""Lints of one CPU's enumeration: whether the leaves of a CPUID set agree with each other and with XCR0."""

from collections.abc import Mapping

from xsave.audit.lints.catalogue import Finding
from xsave.audit.lints.masks import lint_unsupported, lint_xcr0, lint_xss_offer
from xsave.audit.verdict import mask_of
from xsave.components import COMPONENTS, ComponentMask
from xsave.enumeration import REGISTERS, STATE
from xsave.errors import LayoutError
from xsave.layout import COMPACTED, STANDARD, Format, Layout
from xsave.models import CpuModel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from xsave.components import ComponentInfo

__all__ = ["lint_model"]

_EBX, _ECX = REGISTERS.index("ebx"), REGISTERS.index("ecx")


def lint_model(
    model: "CpuModel | Mapping[tuple[int, int], Sequence[int]]",
    *,
    xcr0: "int | str | None" = None,
    xss: "int | str | None" = None,
    where: str = "CPUID",
) -> "list[Finding]":
    """What does not fit together in a CPUID set: a `CpuModel`, or its leaves {(leaf, subleaf): (eax, ebx, ecx, edx)}.

    `xcr0`, `xss`: XCR0 and IA32_XSS when CPUID was executed; where they are unknown the sizes that depend on them
    (0DH.0:EBX, 0DH.1:EBX) are not judged. A leaf that the set lacks proves nothing: hypervisors hide leaves.

    Raises: as `CpuModel.from_cpuid` for leaves that no CPU has; `ValueError` for a mask's unknown name. Manual: SDM1
    13.2.
    """
    if isinstance(model, Mapping):
        model = CpuModel.from_cpuid(model)
    live = None if xcr0 is None else mask_of(xcr0, "XCR0")
    supervisor = None if xss is None else mask_of(xss, "IA32_XSS")
    found = lint_xcr0(int(model.xcr0_mask), "CPUID(0DH,0).EDX:EAX", where)
    found += lint_xss_offer(int(model.xss_mask), "CPUID(0DH,1).EDX:ECX", where)
    for component, row in COMPONENTS.items():
        found += _feature(model, row, component in model.components, where)
    if live is not None:
        found += lint_unsupported(live, int(model.xcr0_mask), "XCR0", model.name, where)
        found += lint_xcr0(live, "XCR0", where)
    if supervisor is not None:
        found += lint_unsupported(supervisor, int(model.xss_mask), "IA32_XSS", model.name, where)
    return found + _sizes(model, live, supervisor, where)


def _feature(model: CpuModel, row: "ComponentInfo", enumerated: bool, where: str) -> "list[Finding]":
    bits = " or ".join(f"{leaf:X}H.{subleaf}:{register.upper()}[{bit}]" for leaf, subleaf, register, bit
                       in row.features)  # fmt: skip
    exposed = any(model.feature(*feature) for feature in row.features)
    known = all((leaf, subleaf) in model.cpuid for leaf, subleaf, _, _ in row.features)
    if enumerated and known and not exposed:
        text = f"component {int(row.component)} ({row.name}) is enumerated, and CPUID {bits} is 0"
        return [Finding("L-CPUID-FEATURE", text, None, where)]
    # Supervisor components: software can save the state itself, and CPUs do have the feature alone.
    if exposed and not enumerated and not row.supervisor:
        text = f"CPUID {bits} is 1, and component {int(row.component)} ({row.name}) is not enumerated"
        return [Finding("L-CPUID-COMPONENT", f"{text}: XCR0 cannot enable it, #UD at its use", None, where)]
    return []


def _sizes(model: CpuModel, xcr0: "int | None", xss: "int | None", where: str) -> "list[Finding]":
    found: "list[Finding]" = []
    leaf, more = model.cpuid.get((STATE, 0)), model.cpuid.get((STATE, 1))
    if leaf is not None:
        found += _size(model, "L-CPUID-ECX", "CPUID(0DH,0).ECX", leaf[_ECX], int(model.xcr0_mask), STANDARD, where)
        if xcr0 is not None:
            found += _size(model, "L-CPUID-EBX", "CPUID(0DH,0).EBX", leaf[_EBX], xcr0, STANDARD, where)
    if more is not None and xcr0 is not None:
        if "xsaves" in model.instructions:
            if xss is not None:
                found += _size(model, "L-CPUID-EBX1", "CPUID(0DH,1).EBX", more[_EBX], xcr0 | xss, COMPACTED, where)
        elif "xsavec" in model.instructions:
            found += _size(model, "L-CPUID-EBX1", "CPUID(0DH,1).EBX", more[_EBX], xcr0, COMPACTED, where)
        elif more[_EBX]:
            text = f"CPUID(0DH,1).EBX is {more[_EBX]:,} without XSAVEC and XSAVES, expected 0"
            found.append(Finding("L-CPUID-EBX1", text, None, where))
    return found


def _size(
    model: CpuModel, id: str, register: str, value: int, mask: int, format_: Format, where: str
) -> "list[Finding]":
    try:
        size = Layout(model, mask, format_).size
    except LayoutError:  # a component that the CPU lacks, which has been said, or whose sub-leaf is hidden
        return []
    if value == size:
        return []
    wrong = f"too small by {size - value:,}" if value < size else f"too large by {value - size:,}"
    text = f"{register} is {value:,}, and {ComponentMask(mask)} takes {size:,} bytes: {wrong}"
    return [Finding(id, text, None, where)]
