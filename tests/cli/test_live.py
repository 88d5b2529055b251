"""`xsave live` and `xsave tour`: this CPU, a child's threads by ptrace, and the tour's own verdict."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests import skips
from tests.cli.test_decode import valid

pytestmark = [skips.needs_native(), skips.needs_linux()]
Cli = Callable[..., Any]


def test_this_cpu(cli: Cli) -> None:
    from xsave import Host

    result = cli("live")
    assert result.code == 0 and f"{int(Host.xcr0):#x}" in result.out and "this thread: in use" in result.out
    document = valid(json.loads(cli("live", "--json").out), "live")
    assert int(document["xcr0"]["mask"], 16) == Host.xcr0 and document["state"]["registers"]["mxcsr"]


def test_every_thread_of_a_process(cli: Cli, tmp_path: Path) -> None:
    from xsave.host import Child

    with Child(3, directory=tmp_path) as child:
        result = cli("live", child.pid, "--json")
        if result.code == 3 and "trace" in result.err:
            pytest.skip(skips.NO_PTRACE)
        document = valid(json.loads(result.out), "decode")
        human = cli("live", child.pid)
        expected = {tid: child.expected(index) for index, tid in enumerate(child.tids)}
    assert human.code == 0 and f"process {child.pid}: live process" in human.out
    shown = {thread["tid"]: thread["registers"] for thread in document["threads"]}
    assert set(shown) == set(expected)
    for tid, values in expected.items():
        for name, value in values.items():
            assert shown[tid][name] == (f"{value:#x}" if isinstance(value, int) else value.hex()), (tid, name)


def test_refusals_name_the_reason(cli: Cli) -> None:
    result = cli("live", os.getpid())
    assert (
        result.code == 3 and result.err.startswith(f"xsave: process {os.getpid()}: ") and "very process" in result.err
    )
    result = cli("live", 2**22 + 1)
    assert result.code == 3 and "no process" in result.err
    assert cli("live", "self").code == 2


def test_tour(cli: Cli) -> None:
    result = cli("tour")
    lines = result.out.splitlines()
    assert result.code == 0 and len(lines) <= 40 and max(map(len, lines)) <= 80
    assert (lines[-1].startswith("all ") and "zmm0" in result.out) or "ymm0" in result.out or "xmm0" in result.out
    assert "0.5 1.5 2.5" in result.out
    document = valid(json.loads(cli("tour", "--json").out), "tour")
    assert document["agreed"] and all(stage["agreed"] for stage in document["stages"])


def test_tour_without_a_core(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    from xsave.host import Child

    monkeypatch.setattr(Child, "crash", lambda self: (None, "there is no room"))
    result = cli("tour")
    assert result.code == 0 and "no core from the kernel: there is no room" in result.out and "our own" in result.out


def test_tour_notices_a_wrong_value(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    from xsave.host import Child

    right = Child.expected
    monkeypatch.setattr(Child, "expected", lambda self, thread: right(self, thread) | {"mxcsr": 0x1234})
    result = cli("tour")
    assert result.code == 1 and "mxcsr: got 0x" in result.out and "DIFFER" in result.out
