"""The shipped man page and completion are what the parsers give; `python -m xsave.cli.manual docs/man` writes them."""

import os
from pathlib import Path

from tests import skips
from tests.paths import ROOT
from tests.run_tool import run_tool
from xsave.cli import manual
from xsave.cli.main import VERBS

MAN = ROOT / "docs" / "man"


def test_shipped_files_are_current() -> None:
    assert (MAN / "xsave.1").read_text() == manual.man_page()
    assert (MAN / "xsave.bash").read_text() == manual.bash_completion()


def test_every_option_is_in_the_page() -> None:
    page = (MAN / "xsave.1").read_text()
    for verb, parser in manual.parsers().items():
        assert f".SS {verb}\n" in page
        for action in parser._actions:
            assert all(option.replace("-", r"\-") in page for option in action.option_strings)


def complete(*words: str) -> list[str]:
    line = " ".join(words)
    script = (
        f"source '{MAN}/xsave.bash'; COMP_WORDS=({line}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); "
        'xsave() { printf "NAME\\nHaswell\\nEPYC-Genoa\\n"; }; _xsave; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    return run_tool(["bash", "-c", script]).stdout.decode().split()


def test_completion(tmp_path: Path) -> None:
    skips.needs_linux()
    before = os.getcwd()
    os.chdir(tmp_path)
    try:
        (tmp_path / "core.1").touch()
        assert set(VERBS) <= set(complete("xsave", "''"))
        assert complete("xsave", "de") == ["decode"]
        assert complete("xsave", "decode", "--th") == ["--thread"]
        assert complete("xsave", "decode", "-t", "bf") == ["bf16"]
        assert complete("xsave", "layout", "--vs", "Ha") == ["Haswell"]
        assert complete("xsave", "decode", "co") == ["core.1"]
    finally:
        os.chdir(before)
