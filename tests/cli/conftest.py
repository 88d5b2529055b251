"""The `cli` fixture: one command run in this process, with its exit code and what it printed."""

import io
import sys
from collections.abc import Callable
from typing import NamedTuple

import pytest

from xsave.cli.main import main


class Result(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


class _Stdin(io.TextIOWrapper):
    def isatty(self) -> bool:
        return False


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """`cli(*words, stdin=b"")` runs `xsave WORDS`."""
    for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)

    def run(*words: object, stdin: bytes = b"") -> Result:
        monkeypatch.setattr(sys, "stdin", _Stdin(io.BytesIO(stdin)))
        capsys.readouterr()
        code = main([str(word) for word in words])
        out, err = capsys.readouterr()
        return Result(code, out, err)

    return run
