"""run.py [--seconds N] [--jobs N] [--corpus FOLDER] [TARGET...]: the fuzz targets on an instrumented build.

Each target runs in a process of its own, `--jobs` of them at a time. A line a target says what it did; the run fails
if a target found something, if libFuzzer saw no counters of the compiled modules, or if it never got further than the
seeds: then it was not fuzzing. `--find TARGET --package FOLDER` turns it round, for the package with a planted error
that `plant.py` made: the target must fail.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).resolve().parent
MODULE = re.compile(r"INFO: Loaded (\d+) modules\s+\((\d+) inline 8-bit counters\)")
STATE = re.compile(r"^#(\d+)\s+(INITED|DONE|NEW|REDUCE|pulse|RELOAD)\s+cov: (\d+) ft: (\d+) corp: (\d+)", re.MULTILINE)


def environment(package: Path | None = None) -> dict[str, str]:
    import atheris

    preload = Path(atheris.path()) / "asan_with_fuzzer.so"
    more = {
        "LD_PRELOAD": str(preload),
        "PYTHONMALLOC": "malloc",
        "ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1",
    }
    if package is not None:
        more["PYTHONPATH"] = str(package)
    return {**os.environ, **more}


class Outcome:
    """What one target did, from its log."""

    def __init__(self, name: str, log: str, status: int, seconds: float) -> None:
        self.name = name
        self.log = log
        self.seconds = seconds
        self.crashed = status != 0
        self.counters = sum(int(count) for _, count in MODULE.findall(log))
        states = STATE.findall(log)
        self.seeds = next((int(coverage) for _, kind, coverage, _, _ in states if kind == "INITED"), 0)
        runs, _, coverage, _, corpus = states[-1] if states else ("0", "", "0", "0", "0")
        self.runs, self.coverage, self.corpus = int(runs), int(coverage), int(corpus)

    def complaint(self) -> str | None:
        if self.crashed:
            return "found something"
        if not self.counters:
            return "no counters of compiled modules: the build is not instrumented"
        if self.coverage <= self.seeds:
            return "no coverage beyond the seeds'"
        return None

    def __str__(self) -> str:
        return (
            f"{self.name}: {self.runs} runs in {self.seconds:.0f} s, {self.counters} counters, coverage {self.seeds} "
            f"of the seeds, {self.coverage} at the end, corpus {self.corpus}"
        )


def run(name: str, seconds: int, corpus: Path | None = None, package: Path | None = None) -> Outcome:
    settings = environment(package)
    target = [sys.executable, HERE / "harness.py", name]
    with tempfile.TemporaryDirectory() as scratch:
        folders = [Path(scratch) / "found", Path(scratch) / "seeds"]
        if corpus is not None:
            folders[0] = corpus / name
        for folder in folders:
            folder.mkdir(parents=True, exist_ok=True)
        subprocess.run([*target, "--seeds", folders[1]], env=settings, check=True)
        options = [f"-max_total_time={seconds}", "-timeout=20", "-rss_limit_mb=3072", f"-artifact_prefix={scratch}/"]
        began = time.monotonic()
        done = subprocess.run(
            [*target, *options, *folders],
            env=settings, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=seconds + 300, check=False,
        )
        log = done.stdout.decode(errors="replace")
        for kept in sorted(Path(scratch).glob("*-*")):
            log += f"\n{kept.name}: {kept.read_bytes().hex()}\n"
        return Outcome(name, log, done.returncode, time.monotonic() - began)


def main() -> int:
    parser = argparse.ArgumentParser(description="The fuzz targets on an instrumented build.")
    parser.add_argument("targets", nargs="*", help="all of them without any")
    parser.add_argument("--seconds", type=int, default=30, help="for each target")
    parser.add_argument("--jobs", type=int, default=2, help="at a time")
    parser.add_argument("--corpus", type=Path, help="keeps what was found between runs")
    parser.add_argument("--find", metavar="TARGET", help="this target must find an error that was planted")
    parser.add_argument("--package", type=Path, help="the folder of the package to fuzz instead of the installed one")
    given = parser.parse_args()
    if given.find:
        outcome = run(given.find, given.seconds, package=given.package)
        found = outcome.crashed and "ERROR: AddressSanitizer" in outcome.log
        print(outcome)
        print(f"the planted error was {'found' if found else 'NOT found'} after {outcome.seconds:.0f} s")
        told = [line for line in outcome.log.splitlines() if "AddressSanitizer" in line or "WRITE of" in line]
        print(*told or outcome.log[-3000:].splitlines(), sep="\n")
        return 0 if found else 1
    names = given.targets or sorted(path.stem.removeprefix("fuzz_") for path in HERE.glob("fuzz_*.py"))
    status = 0
    with ThreadPoolExecutor(given.jobs) as pool:
        for outcome in pool.map(lambda name: run(name, given.seconds, given.corpus), names):
            print(outcome)
            complaint = outcome.complaint()
            if complaint:
                print(f"{outcome.name}: {complaint}", outcome.log[-6000:], sep="\n")
                status = 1
    return status


if __name__ == "__main__":
    sys.exit(main())
