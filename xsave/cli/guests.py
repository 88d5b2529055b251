"""`xsave audit --policy`, `--prove`, `--list`: who decides about a guest's writes, and every state that follows."""

from xsave.cli.console import Output
from xsave.cli.failures import DONE, NO, usage
from xsave.cli.options import mask, number
from xsave.cli.verdicts import verdict_lines, verdict_record
from xsave.errors import UnsupportedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator
    from typing import Any

    from xsave.audit import Answer, Live, Policy, Proof, Verdict
    from xsave.models import CpuModel

_MASKS = ("allowed_xcr0", "allowed_xss", "host_xcr0", "host_xss", "xfam", "xfrm")
OUTCOMES = {"gp": "#GP into the guest", "allowed": "allowed", "killed": "killed"}
WORDS = {None: "the processor, no exit", "vmm": "the VMM, after an exit", "module": "the TDX module"}
_PROPERTIES = {
    "lost-guest": "the guest's state can be lost",
    "lost-host": "the VMM's state can be lost",
    "leak-to-host": "the guest's state can stay in the registers while the VMM runs",
    "leak-to-guest": "the VMM's state can stay in the registers while the guest runs",
    "gp": "the VMM can take #GP",
    "nm": "the VMM can take #NM",
}


def chosen_policy(options: "argparse.Namespace", model: "CpuModel") -> "Policy":
    """The policy that `--policy` and its `--fact`s name, on `model`. Raises: `CommandError`."""
    from xsave.audit import policy

    if options.policy is None:
        raise usage("audit: --prove needs --policy", "xsave audit --list names them")
    facts: "dict[str, Any]" = {}
    for text in options.fact:
        name, equals, value = text.partition("=")
        if not equals:
            raise usage(f"audit: --fact {text}: NAME=VALUE", "xsave audit --list names the facts")
        name = name.replace("-", "_")
        if name in _MASKS:
            facts[name] = int(mask(value))
        elif name == "ssa_frame_size":
            facts[name] = number(value)
        else:
            facts[name] = {"true": True, "false": False}.get(value.lower(), value)
    try:
        return policy(options.policy, model, **facts)
    except (ValueError, UnsupportedError) as error:
        raise usage(f"audit: {error}", "xsave audit --list names policies and facts") from None


def answer(options: "argparse.Namespace", model: "CpuModel") -> int:
    """What a policy answers to writes, and the worst that its guests can do to a buffer; exit 1 for a refusal, an
    overrun."""
    chosen = chosen_policy(options, model)
    if not options.write and options.size is None:
        text = "audit: --policy needs --write, --size or --prove"
        raise usage(text, "xsave audit --policy vmx-exit --write XCR0=0xe7")
    found = _worst(options, chosen)
    answers: "list[tuple[str, int, Answer]]" = []
    for text in options.write:
        register, _, value = text.partition("=")
        try:
            answers.append((register, int(mask(value)), chosen.write(register, int(mask(value)))))
        except ValueError as error:
            raise usage(f"audit: --write {text}: {error}", "--write XCR0=0xe7") from None
    with Output.of(options) as out:
        if options.form == "json":
            _answers_json(out, model, chosen, answers, found)
        else:
            from xsave.report.text import mask_text

            for register, value, each in answers:
                verdict = OUTCOMES[each.outcome]
                colour = "green" if each.outcome == "allowed" else "red"
                out.line(f"{register} {mask_text(value)}: {out.style(verdict, colour)}")
                code = f" [{each.code}]" if each.code else ""
                out.line(f"  by {WORDS[each.exits_to]}: {each.rule}{code}")
                out.line(f"  {each.source}")
            if found is not None:
                guest, worst = found
                out.line(f"worst guest: XCR0 {mask_text(guest.xcr0)}, IA32_XSS {mask_text(guest.xss)}")
                for line in verdict_lines(out, model, worst):
                    out.line(line)
    fits = found is None or found[1].fits
    return DONE if fits and all(each.outcome == "allowed" for _, _, each in answers) else NO


def _worst(options: "argparse.Namespace", chosen: "Policy") -> "tuple[Live, Verdict] | None":
    from xsave.audit import worst

    more = {name: getattr(options, name) for name in ("instruction", "save") if getattr(options, name) is not None}
    if options.size is None:
        if more:
            raise usage(f"audit: --{next(iter(more))} needs --size", "--size N asks for the worst of its guests")
        return None
    try:
        return worst(chosen, size=number(options.size), **more)
    except (ValueError, UnsupportedError) as error:
        raise usage(f"audit: {error}", "xsave audit -h") from None


def _answers_json(
    out: Output, model: "CpuModel", chosen: "Policy", answers: "list[tuple[str, int, Answer]]",
    found: "tuple[Live, Verdict] | None",
) -> None:  # fmt: skip
    from xsave.report import json as documents

    head: "dict[str, Any]" = {"schema": "xsave.audit-policy/1", "cpu": model.name, "policy": chosen.name}
    head["worst"] = None
    if found is not None:
        guest, verdict = found
        head["worst"] = {"xcr0": documents.mask_record(guest.xcr0), "xss": documents.mask_record(guest.xss),
                         "size": verdict.size, **verdict_record(verdict)}  # fmt: skip
    head["diagnostics"] = []
    records = [answer_record(register, value, each) for register, value, each in answers]
    for piece in documents.stream(head, [("answers", records)]):
        out.write(piece)
    out.line()


def answer_record(register: str, value: int, each: "Answer") -> "dict[str, Any]":
    """An answer to a write as JSON."""
    from xsave.report.json import mask_record

    return {
        "register": register, "value": mask_record(value), "outcome": each.outcome, "exits_to": each.exits_to,
        "code": each.code, "rule": each.rule, "source": each.source,
    }  # fmt: skip


def prove_it(options: "argparse.Namespace", model: "CpuModel") -> int:
    """Walks every state; exit 1 with a counterexample."""
    from xsave.audit import prove

    chosen = chosen_policy(options, model)
    if options.buffer is None:
        raise usage("audit: --prove needs --buffer, the size of the buffer", "--buffer 4096")
    size = number(options.buffer)
    more: "dict[str, Any]" = {}
    for name in ("save", "restore", "instruction"):
        if getattr(options, name) is not None:
            more[name] = getattr(options, name)
    if options.buffer_mask is not None:
        more["buffer_mask"] = int(mask(options.buffer_mask))
    try:
        proof = prove(model, chosen, size, **more)
    except (ValueError, UnsupportedError) as error:
        raise usage(f"audit: {error}", "xsave audit -h") from None
    if options.script is not None:
        if proof.safe:
            raise usage("audit: --script: there is no counterexample, it is safe")
        with Output(options.script) as file:
            file.write(proof.script)
    with Output.of(options) as out:
        if options.form == "json":
            _proof_json(out, model, chosen, size, proof)
        else:
            for line in _proof_lines(out, size, proof):
                out.line(line)
    return DONE if proof.safe else NO


def _proof_lines(out: Output, size: int, proof: "Proof") -> "Iterator[str]":
    from xsave.report.text import wrapped

    if proof.safe:
        yield f"{out.style('SAFE', 'green')}: {proof.states:,} states, none writes past {size:,} bytes"
    else:
        yield f"{out.style('OVERRUN', 'red')} of {size:,} bytes, of {proof.states:,} states; a shortest way:"
        for count, step in enumerate(proof.counterexample, 1):
            yield from wrapped(f"  {count}. ", step, 80)
    for property_, words in _PROPERTIES.items():
        if property_ in proof.found:
            yield f"{words}:"
            for count, step in enumerate(proof.found[property_].steps, 1):
                yield from wrapped(f"  {count}. ", step, 80)


def _proof_json(out: Output, model: "CpuModel", chosen: "Policy", size: int, proof: "Proof") -> None:
    from xsave.report import json as documents

    head: "dict[str, Any]" = {
        "schema": "xsave.audit-proof/1", "cpu": model.name, "policy": chosen.name, "size": size,
        "safe": proof.safe, "states": proof.states, "script": proof.script, "diagnostics": [],
    }  # fmt: skip
    records = [
        {"property": property_, "instruction": each.instruction, "component": each.component.info.name,
         "steps": each.steps}
        for property_, each in proof.found.items()
    ]
    for piece in documents.stream(head, [("found", records)]):
        out.write(piece)
    out.line()


def show_list(options: "argparse.Namespace") -> int:
    """The policies with their facts, and the lints."""
    from xsave.audit import LINTS, POLICIES
    from xsave.report.text import table, wrapped

    policies: "list[dict[str, Any]]" = [
        {"name": name, "title": (each.__doc__ or "").partition("\n")[0], "facts": [fact for fact, _ in each.FACTS]}
        for name, each in POLICIES.items()
    ]
    with Output.of(options) as out:
        if options.form == "json":
            from xsave.report import json as documents

            lints = [
                {"id": row.id, "severity": row.severity, "title": row.title, "section": row.section, "bug": row.bug}
                for row in LINTS.values()
            ]
            head: "dict[str, Any]" = {"schema": "xsave.audit-list/1", "diagnostics": []}
            for piece in documents.stream(head, [("policies", policies), ("lints", lints)]):
                out.write(piece)
            out.line()
            return DONE
        for line in table(["POLICY", "FACTS OF ITS OWN"], [[p["name"], " ".join(p["facts"]) or "-"] for p in policies]):
            out.line(line)
        out.line("every policy: allowed_xcr0, allowed_xss, host_xcr0, host_xss")
        for row in LINTS.values():
            out.line()
            out.line(f"{row.id} ({row.severity}) [{row.section}]")
            for text in (row.title, row.bug):
                for line in wrapped("  ", text, 80):
                    out.line(line)
    return DONE
