"""The table of docs/audit.md: every policy under every save discipline, each cell by the exhaustive walk.

`python -m xsave.audit.tables docs/audit.md` writes it between its two marks (`make tables`).
"""

import sys

from xsave.audit.policies import Policy, policy
from xsave.audit.proof import SAVES, prove
from xsave.audit.verdict import INSTRUCTIONS, reached
from xsave.layout import Layout
from xsave.models import CpuModel

__all__ = ["BEGIN", "END", "markdown", "written"]

BEGIN, END = "<!-- tables: begin -->\n", "<!-- tables: end -->\n"
# The CPU has AMX; the VMM neither uses nor offers it, and its buffer is for what it offers.
_MODEL, _MASK, _XSS = "SapphireRapids", "AVX512 SSE AVX x87 PKRU", "CET_U CET_S"
_COMMON = {"allowed_xcr0": _MASK, "host_xcr0": _MASK, "allowed_xss": _XSS, "host_xss": _XSS}
_ROWS: "tuple[tuple[str, dict[str, object]], ...]" = (
    ("vmx-exit", {"live": "guest"}),
    ("vmx-exit", {"live": "host"}),
    ("host-swap", {"swap": "before"}),
    ("host-swap", {"swap": "after"}),
    ("no-exit-audited", {"audit": "mask"}),
    ("no-exit-audited", {"audit": "size"}),
    ("no-exit-unaudited", {"live": "guest"}),
    ("no-exit-unaudited", {"live": "host"}),
    ("vmcs-xfam", {}),
    ("vmcs-xfam", {"outside": "gp"}),
    ("xfd-passthrough", {"live": "host"}),
    ("tdx-xfam", {}),
    ("sgx-xfrm", {}),
    ("sev-es", {"host_save_area": "filled"}),
    ("sev-es", {"host_save_area": "stale"}),
)
_HEAD = (
    "policy", "save", "XSETBV costs", "who audits", "overrun", "guest state lost", "VMM state lost", "leaks",
    "#GP, #NM in the VMM",
)  # fmt: skip
_BY = {None: "no exit", "vmm": "exit to the VMM", "module": "exit to the TDX module"}


def _auditor(chosen: Policy) -> str:
    # Who holds the guest to a mask, by what the policy answers to values that the processor would take.
    inside, beyond = chosen.write("XCR0", 7), chosen.write("XCR0", int(chosen.model.xcr0_mask))
    if beyond.outcome == "allowed":
        return "nobody" if type(chosen).audit is Policy.audit else "the VMM, after an exit"
    if inside.exits_to is None and beyond.exits_to == "vmm":
        return "the processor within XFAM, the VMM beyond"
    return {None: "the processor", "vmm": "the VMM", "module": "the TDX module"}[beyond.exits_to]


def _rows() -> "list[list[str]]":
    model = CpuModel.named(_MODEL)
    found = []
    for name, facts in _ROWS:
        chosen = policy(name, model, **_COMMON, **facts)
        instruction = chosen.INSTRUCTION or "XSAVES"
        mask = reached(instruction, chosen.allowed_xcr0, chosen.allowed_xss)
        size = Layout(model, mask, INSTRUCTIONS[instruction]).size
        by_hardware = chosen.KEEPER != "vmm"
        for save in SAVES[:1] if by_hardware else SAVES:
            proof = prove(model, chosen, size, save=save, restore="max", buffer_mask=mask, instruction=instruction)
            written = chosen.write("XCR0", 7)
            cost = _BY[written.exits_to] if written.outcome == "allowed" else "cannot"
            label = name + "".join(f" {fact}={value}" for fact, value in facts.items())
            kinds = (("guest's", "leak-to-host"), ("VMM's", "leak-to-guest"))
            leaks = [who for who, key in kinds if key in proof.found]
            faults = [text for text, key in (("#GP", "gp"), ("#NM", "nm")) if key in proof.found]
            found.append(
                [
                    f"`{label}`",
                    "by hardware" if by_hardware else save,
                    cost,
                    _auditor(chosen),
                    "no" if proof.safe else "**yes**",
                    "yes" if "lost-guest" in proof.found else "no",
                    "yes" if "lost-host" in proof.found else "no",
                    " and ".join(leaks) or "no",
                    ", ".join(faults) or "no",
                ]
            )
    return found


def markdown() -> str:
    """The table."""
    lines = [f"| {' | '.join(row)} |" for row in (_HEAD, ["---"] * len(_HEAD), *_rows())]
    return "\n".join(lines) + "\n"


def written(text: str) -> str:
    """A document with the table between its marks. Raises: `ValueError` where there are none."""
    before, mark, rest = text.partition(BEGIN)
    _, other, after = rest.partition(END)
    if not mark or not other:
        raise ValueError("the document has no place for the table")
    return f"{before}{BEGIN}{markdown()}{END}{after}"


def main(path: str) -> None:
    """Writes the table into the document at `path`."""
    with open(path, encoding="utf-8") as file:
        text = file.read()
    with open(path, "w", encoding="utf-8") as file:
        file.write(written(text))


if __name__ == "__main__":
    main(sys.argv[1])
