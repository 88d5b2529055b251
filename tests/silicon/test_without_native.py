"""A build without the compiled x86 code: the host's module can be imported, and says what is missing."""

import subprocess
import sys

PROGRAM = """
import os, sys
sys.modules["xsave._native"] = None  # what `import` finds where there is none
import xsave
from xsave.host import Child, Host, expected_registers, live_threads
from xsave.errors import UnsupportedError

assert len(expected_registers(1, 0xE7)) == 4 + 8 + 32 + 8
for attempt in (
    lambda: Host.xcr0,
    Host.capture,
    Host.amx_permission,
    lambda: Host.read_back(bytes(576)),
    lambda: live_threads(os.getppid()),
    lambda: Child(1, directory="."),
):
    try:
        attempt()
    except UnsupportedError as error:
        assert "xsave._native is not in this build" in str(error), error
    else:
        raise AssertionError("nothing raised")
"""


def test_every_door_names_the_missing_module() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
