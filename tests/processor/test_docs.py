"""docs/processor.md: its example prints what its comments say."""

import re

from tests.paths import ROOT

PAGE = ROOT / "docs" / "processor.md"


def test_the_example(capsys):
    source = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.S)
    assert len(source) == 1
    exec(compile(source[0], str(PAGE), "exec"), {})
    expected = [line.partition("  # ")[2].strip() for line in source[0].splitlines() if "print(" in line]
    assert capsys.readouterr().out.splitlines() == expected and len(expected) == 4
