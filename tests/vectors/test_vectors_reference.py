"""The independent slow model against every instruction vector, as the compiled processor is judged."""

import pytest

from tests import skips

from .cases import ALL
from .judge import AGREED, judge
from .on_reference import play

pytestmark = skips.needs_data()


@pytest.mark.parametrize(("kind", "name"), ALL)
def test_vectors(kind, name):
    verdicts = judge(kind, name, play)
    assert not verdicts.disagreements, str(verdicts)
    assert verdicts.counts[AGREED], str(verdicts)
