"""The codec against this CPU: its XSAVE and XSAVEC images decode to what was loaded, and transcode into each other."""

import os
import subprocess
import sys

import pytest

from tests import skips
from tests.paths import ROOT

pytestmark = skips.needs_native()
if skips.has_native():
    from tests.silicon import codec_images

COUNT = 10_000


@pytest.mark.parametrize("seed", [1, 2])
def test_ten_thousand_states(seed: int) -> None:
    """Every component that needs no permission, each mask alone and many at random."""
    skips.needs_cpu("xsave")
    assert codec_images.run(COUNT, seed, ~(1 << codec_images.TILEDATA)) == []


def test_ten_thousand_states_with_tiles() -> None:
    """In a child: permission for tiles cannot be given back."""
    skips.needs_amx()
    path = os.pathsep.join(filter(None, [*sys.path, str(ROOT), str(ROOT / "tests")]))
    env = {**os.environ, "PYTHONPATH": path, "PYTHONSAFEPATH": "1"}  # not the checkout's xsave/ for the installed one
    command = [sys.executable, "-m", "tests.silicon.codec_images", str(COUNT), "3"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "", "")
