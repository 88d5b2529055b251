"""Other programs (gdb, readelf, xxd, ...) as the tests start them: one function, in a plain environment."""

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

# What a sanitized run sets for this interpreter; gdb hangs under it.
PRIVATE = ("LD_PRELOAD", "PYTHONMALLOC", "ASAN_OPTIONS", "UBSAN_OPTIONS")


def run_tool(
    command: Sequence[str | Path], *, input: bytes | None = None, timeout: float = 120, check: bool = True
) -> subprocess.CompletedProcess[bytes]:
    """Runs `command` without the sanitizers' environment, in the C locale; its output is bytes.

    Raises: `subprocess.CalledProcessError` with `check`, `subprocess.TimeoutExpired` after `timeout` seconds.
    """
    environment = {name: value for name, value in os.environ.items() if name not in PRIVATE}
    environment["LC_ALL"] = "C.UTF-8"
    return subprocess.run(command, input=input, capture_output=True, timeout=timeout, check=check, env=environment)
