"""The guest policies: who decides about a guest's XCR0, IA32_XSS and IA32_XFD, one small class a file."""

from xsave.audit.policies.base import Answer, Live, Policy
from xsave.audit.policies.host_swap import HostSwap
from xsave.audit.policies.no_exit_audited import NoExitAudited
from xsave.audit.policies.no_exit_unaudited import NoExitUnaudited
from xsave.audit.policies.sev_es import SevEs
from xsave.audit.policies.sgx_xfrm import SgxXfrm
from xsave.audit.policies.tdx_xfam import TdxXfam
from xsave.audit.policies.vmcs_xfam import VmcsXfam
from xsave.audit.policies.vmx_exit import VmxExit
from xsave.audit.policies.xfd_passthrough import XfdPassthrough

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from xsave.models import CpuModel

__all__ = ["POLICIES", "Answer", "Live", "Policy", "policy"]

POLICIES: "dict[str, type[Policy]]" = {
    each.name: each
    for each in (VmxExit, HostSwap, NoExitAudited, NoExitUnaudited, VmcsXfam, XfdPassthrough, TdxXfam, SgxXfrm, SevEs)
}
_COMMON = ("allowed_xcr0", "allowed_xss", "host_xcr0", "host_xss")


def policy(name: str, model: "CpuModel", **facts: "Any") -> Policy:
    """The policy `name` on `model`.

    Facts of every policy, masks as numbers or by name: `allowed_xcr0`, `allowed_xss`, what the VMM offers in CPUID
    (default: all that the model has); `host_xcr0`, `host_xss`, the VMM's own (default: `allowed_xcr0`, 0). The others
    stand in the class of the policy: `xsave.audit.POLICIES[name].FACTS`, with their defaults.

    Raises: `ValueError` for an unknown policy or fact, with a suggestion, for facts that contradict each other or the
    model, and for what the platform itself would refuse, with the rule.
    """
    if name not in POLICIES:
        raise ValueError(f"no policy {name!r}{_suggestion(name, list(POLICIES))}")
    chosen = POLICIES[name]
    known = [*_COMMON, *(fact for fact, _ in chosen.FACTS)]
    for fact in facts:
        if fact not in known:
            raise ValueError(f"{name} has no fact {fact!r}{_suggestion(fact, known)}")
    return chosen(model, **facts)


def _suggestion(word: str, known: "list[str]") -> str:
    from difflib import get_close_matches

    near = get_close_matches(word, known, 1)
    return f"; did you mean {near[0]}?" if near else f": one of {', '.join(known)}"
