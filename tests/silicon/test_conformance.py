"""The emulated processor against this CPU: random cases on both sides, and what a wrong profile looks like."""

import json

import pytest

from tests import skips
from xsave import CpuModel, Host, Processor

pytestmark = skips.needs_native()

CASES = 600_000


@pytest.fixture(scope="module")
def report():
    from xsave import conformance

    return conformance.run(CASES, seed=20260)


def test_every_case_agrees(report):
    assert [f"{each.what}: {each.reproducer}" for each in report.shown] == []
    assert report.disagreements == 0
    assert report.cases + report.skipped == CASES


def test_nothing_is_left_out_without_a_reason(report):
    if report.skipped:
        pytest.skip(skips.NO_AMX_PERMISSION)
    assert report.reasons == []


def test_noise_is_rare(report):
    assert report.retried < report.cases / 100


def test_every_kind_of_case_is_drawn(report):
    """A tenth and more of the cases fault, by every rule that user mode can break; every instruction both ways."""
    assert report.faulting > report.cases / 10
    rules = {rule for _, rule in report.rules}
    wanted = {"", "ALIGN", "CANONICAL", "PAGE", "WRITE", "H-XCOMP", "H-XSTATE", "H-RESERVED", "H-MXCSR", "INDEX"}
    assert wanted <= rules
    have = Host.layout().model.instructions
    names = ["XSAVE", "XRSTOR", "FXSAVE", "FXRSTOR"]
    names += ["XSAVEC"] * ("xsavec" in have) + ["XSAVEOPT"] * ("xsaveopt" in have)
    for name in names:
        for form in (name, name + "64"):
            assert report.rules[form, ""] > 100
            assert sum(count for (each, rule), count in report.rules.items() if each == form and rule) > 100


def other_profile():
    """This CPU's record with the behaviour of another make."""
    model = CpuModel.host()
    return CpuModel.from_cpuid(dict(model.cpuid), profile="amd-zen5" if model.profile == "intel" else "intel")


def test_a_wrong_profile_is_found_and_cut_down():
    from xsave._trials import Trials

    armed = 1 << 18 if Host.xcr0 >> 18 & 1 else 0
    trials = Trials(Processor(other_profile(), xcr0=int(Host.xcr0), ia32_xfd=armed), 1)
    found = []
    first = 0
    while len(found) < 10:
        done, case, difference = trials.run(first, 100_000)
        assert case is not None, "a wrong profile went unnoticed"
        assert difference[0]
        found.append(case)
        first += done
    assert any(trials.replay(case) is not None for case in found)


def test_cases_follow_from_seed_and_number():
    from xsave import conformance
    from xsave._trials import Trials

    one, two = Trials(conformance.processor(), 5), Trials(conformance.processor(), 5)
    two.run(0, 500)
    for number in (0, 1, 77, 123456789):
        words = one.describe(number)
        assert words == two.describe(number)
        assert len(words) > 1
    assert one.describe(3) != Trials(conformance.processor(), 6).describe(3)


def test_command(capsys):
    from xsave.cli.main import main
    from xsave.report.json import schema

    assert main(["conformance", "--cases", "5000", "--seed", "9", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["cases"] + document["skipped"] == 5000
    assert document["disagreements"] == 0
    assert sum(row["cases"] for row in document["rules"]) == document["cases"]
    assert sum(row["cases"] for row in document["rules"] if row["rule"]) == document["faulting"]
    assert main(["conformance", "--seed", "9", "--case", "17", "--json"]) == 0
    case = json.loads(capsys.readouterr().out)
    assert case["agreed"] and len(case["steps"]) > 1
    assert main(["conformance", "--cases", "300"]) == 0
    assert "300 cases" in capsys.readouterr().out
    skips.needs_module("jsonschema")
    import jsonschema

    jsonschema.Draft202012Validator(schema("conformance")).validate(document)
    jsonschema.Draft202012Validator(schema("conformance-case")).validate(case)


BAD = [["--cases", "x"], ["--cases", "-1"], ["--seed", "1e99"], ["--case", "1", "--steps", "0x40"]]


@pytest.mark.parametrize("arguments", BAD)
def test_bad_arguments(arguments, capsys):
    from xsave.cli.main import main

    assert main(["conformance", *arguments]) == 2
    assert capsys.readouterr().err.startswith("xsave: ")
