"""Work in a child process: what it returns, what it raises, and a child that is gone."""

import os

import pytest

from tests import skips
from xsave.errors import HostError
from xsave.host import in_child

pytestmark = [skips.needs_linux()]


def test_what_it_returns():
    assert in_child(os.getpid) != os.getpid()
    assert in_child(lambda: {"a": (1, b"x")}) == {"a": (1, b"x")}


def test_what_it_raises():
    def refuse() -> None:
        raise ValueError("no such thing")

    with pytest.raises(ValueError, match="no such thing"):
        in_child(refuse)


def test_a_child_that_is_gone():
    with pytest.raises(HostError, match="no answer"):
        in_child(lambda: os.kill(os.getpid(), 9))
