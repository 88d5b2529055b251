"""Kept screens and the examples of docs/cli.md against what the commands print now.

`python tests/cli/screens.py` writes them anew: look at the difference before committing it.
"""

import pytest

from tests import skips
from tests.cli import screens
from xsave.cli.main import VERBS

pytestmark = [skips.needs_native()]


@pytest.mark.parametrize("name", screens.COMMANDS)
def test_screen(name: str) -> None:
    with screens.sample_folder():
        assert screens.output(screens.COMMANDS[name]) == (screens.SCREENS / f"{name}.txt").read_text()


def test_examples_of_the_document() -> None:
    text = screens.DOCS.read_text()
    lines = text.splitlines()
    with screens.sample_folder():
        for start, end, commands in screens.examples(text):
            assert lines[start:end] == screens.rendered(commands)
    assert all(f"\n## {verb}" in text for verb in VERBS)


def test_no_screen_is_left_over() -> None:
    assert {path.stem for path in screens.SCREENS.iterdir()} == set(screens.COMMANDS)
