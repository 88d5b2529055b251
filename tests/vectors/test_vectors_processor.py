"""The compiled processor against every instruction vector: fault, CR2, memory, registers, XINUSE, results."""

import pytest

from tests import skips

from .cases import ALL, FILES, FOLDER
from .judge import AGREED, judge
from .on_processor import play

pytestmark = skips.needs_data()


@pytest.mark.parametrize(("kind", "name"), ALL)
def test_vectors(kind, name):
    verdicts = judge(kind, name, play)
    assert not verdicts.disagreements, str(verdicts)
    assert verdicts.counts[AGREED], str(verdicts)


@pytest.mark.parametrize("kind", FILES)
def test_no_file_is_left_out(kind):
    present = {path.name.removesuffix(".jsonl.xz") for path in (FOLDER / kind).glob("*.jsonl.xz")}
    assert present == set(FILES[kind])
