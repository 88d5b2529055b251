"""gdb as a baseline: one process that reads the registers of a core again and again, or all of it from its start."""

import os
import shutil
import subprocess
from ast import literal_eval
from pathlib import Path

SCRIPT = Path(__file__).resolve().with_name("gdb_read.py")
COMMAND = ["gdb", "-nx", "-nh", "-batch", "-iex", "set auto-load off", "-iex", "set debuginfod enabled off"]


class CannotRead(Exception):
    """gdb is not there, or does not read these registers."""


def command(core: str) -> "list[str]":
    """Reads every register of every thread once, start to end."""
    return [*COMMAND, "-x", str(SCRIPT), "-c", core]


class Gdb:
    """A gdb that has opened `core`. `expected`: zmm17 of the first threads, which it must show."""

    def __init__(self, core: str, threads: int, expected: "list[bytes]") -> None:
        if shutil.which("gdb") is None:
            raise CannotRead("gdb is not installed")
        requests, self._requests = os.pipe()
        self._answers, answers = os.pipe()
        # gdb loads its script after the core only if the core is named first.
        self._process = subprocess.Popen(
            [*COMMAND, "-c", core, "-x", str(SCRIPT)],
            pass_fds=(requests, answers),
            env=os.environ | {"BENCH_PIPES": f"{requests} {answers}"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(requests)
        os.close(answers)
        reply = self._line()
        word, _, rest = reply.partition(" ")
        if word != "ready":
            self.close()
            raise CannotRead(f"gdb: {rest.strip() or 'ended without an answer'}")
        count, _, values = rest.partition(" ")
        shown = [b"".join(lane.to_bytes(8, "little") for lane in lanes) for lanes in literal_eval(values)]
        if int(count) != threads or shown != expected[: len(shown)]:
            self.close()
            raise CannotRead(f"gdb shows {count} threads and other values of zmm17 than the core has")

    def _line(self) -> str:
        found = b""
        while not found.endswith(b"\n"):
            part = os.read(self._answers, 4096)
            if not part:
                break
            found += part
        return found.decode()

    def read(self) -> float:
        """ns that one pass over all registers of all threads took, with gdb's register cache emptied before."""
        os.write(self._requests, b".")
        return float(self._line())

    def close(self) -> None:
        """Ends the process."""
        os.close(self._requests)
        os.close(self._answers)
        self._process.wait(timeout=60)
