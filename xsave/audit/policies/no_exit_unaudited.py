"""`no-exit-unaudited`: the guest sets XCR0 and IA32_XSS without an exit, and nobody looks: the attack."""

from xsave.audit.policies.base import Policy

__all__ = ["NoExitUnaudited"]


class NoExitUnaudited(Policy):
    """Hardware without the exit at XSETBV, and a VMM written for the one that has it.

    `live`: whose XCR0 and IA32_XSS are loaded when the VMM saves.
    """

    name = "no-exit-unaudited"
    FACTS: "tuple[tuple[str, object], ...]" = (("live", "guest"),)
