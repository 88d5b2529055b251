"""Peak memory of a command, by the kernel's VmHWM of its own process.

    python benchmarks/memory.py CORE

says how much more `xsave decode --json` and `--ndjson` need on a core than `xsave --version` does, beside the bytes of
the core's notes. `extra_peak` is the same for tests. ru_maxrss would not do: it starts from the parent's size.
"""

import os
import subprocess
import sys
from pathlib import Path

# The process reads its own high-water mark at its end: VmHWM belongs to the memory map that exec made.
_RUN = """
import sys
from xsave.cli.main import main
status = main(sys.argv[2:])
sys.stdout.flush()
with open("/proc/self/status", "rb") as file:
    peak = next(line for line in file if line.startswith(b"VmHWM:"))
with open(sys.argv[1], "wb") as file:
    file.write(peak)
sys.exit(status)
"""


def peak(arguments: "list[str]", scratch: Path, python: str = sys.executable) -> int:
    """Bytes of resident memory at the peak of `xsave ARGUMENTS...`, output thrown away. `scratch`: a folder."""
    note = scratch / f"peak-{os.getpid()}"
    environment = os.environ | {"PYTHONSAFEPATH": "1"}
    try:
        done = subprocess.run(
            [python, "-c", _RUN, str(note), *arguments],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=environment,
        )
        if done.returncode:
            raise RuntimeError(
                f"xsave {' '.join(arguments)}: exit status {done.returncode}: {done.stderr.decode()[-500:]}"
            )
        return int(note.read_text().split()[1]) * 1024
    finally:
        note.unlink(missing_ok=True)


def extra_peak(form: str, core: "str | Path", scratch: Path) -> int:
    """Bytes at the peak of `xsave decode FORM CORE` beyond those of `xsave --version`; the least of three runs each."""
    base = min(peak(["--version"], scratch) for _ in range(3))
    return min(peak(["decode", form, str(core)], scratch) for _ in range(3)) - base


def notes_size(core: "str | Path") -> int:
    """Bytes of the first note segment of a 64-bit core."""
    with open(core, "rb") as file:
        head = file.read(1 << 16)
    at = int.from_bytes(head[32:40], "little")
    for index in range(int.from_bytes(head[56:58], "little")):
        entry = head[at + 56 * index : at + 56 * index + 56]
        if int.from_bytes(entry[:4], "little") == 4:
            return int.from_bytes(entry[32:40], "little")
    raise ValueError(f"{core}: no note segment")


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        notes = notes_size(sys.argv[1])
        print(f"notes: {notes:,} bytes")
        for form, limit in (("--json", 3 * notes), ("--ndjson", 2 << 20)):
            extra = extra_peak(form, sys.argv[1], Path(folder))
            print(
                f"decode {form}: {extra:,} bytes beyond --version, allowed {limit:,}: "
                f"{'kept' if extra < limit else 'EXCEEDED'}"
            )
