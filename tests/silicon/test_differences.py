"""Where makes of CPUs differ: the document has what the profiles answer, and this CPU answers as its profile does."""

import json
import re

import pytest

from tests import skips
from tests.paths import ROOT
from xsave import CpuModel
from xsave.differences import DIFFERENCES, ask, ask_host

MODELS = {"intel": "SapphireRapids", "amd-zen5": "EPYC-Turin"}
DOCUMENT = ROOT / "docs" / "conformance.md"


@pytest.mark.parametrize("name", DIFFERENCES)
def test_the_document_has_what_the_profiles_answer(name):
    row = DIFFERENCES[name]
    intel, amd = (ask(row, CpuModel.named(model)) for model in MODELS.values())
    assert intel != amd
    assert f"| {row.question} | {intel} | {amd} | `{name}` |" in DOCUMENT.read_text()


def test_the_document_has_no_other_rows():
    named = re.findall(r"\| `([a-z0-9-]+)` \|$", DOCUMENT.read_text(), re.M)
    assert set(named) == set(DIFFERENCES)


@skips.needs_native()
@pytest.mark.parametrize("name", DIFFERENCES)
def test_this_cpu_answers_as_its_profile(name):
    row = DIFFERENCES[name]
    model = CpuModel.host()
    if "xsavec" not in model.instructions or "xgetbv1" not in model.instructions:
        pytest.skip(skips.CPU["xsavec"])
    wanted = ask(row, model)
    assert wanted in {ask_host(row) for _ in range(8)}  # an interrupt in between raises XINUSE[1]
    if model.profile in MODELS:
        assert wanted == ask(row, CpuModel.named(MODELS[model.profile]))


@skips.needs_native()
def test_command(capsys):
    from xsave.cli.main import main
    from xsave.report.json import schema

    for _ in range(8):  # an interrupt in between raises XINUSE[1]
        status = main(["conformance", "--differences", "--json"])
        document = json.loads(capsys.readouterr().out)
        if status == 0:
            break
    assert status == 0 and document["agreed"]
    assert [row["name"] for row in document["rows"]] == list(DIFFERENCES)
    main(["conformance", "--differences"])
    assert "compacted-extent" in capsys.readouterr().out
    skips.needs_module("jsonschema")
    import jsonschema

    jsonschema.Draft202012Validator(schema("differences")).validate(document)
