"""judge.py FOLDER: the last lines of a run, and its exit status, from what its stages left in FOLDER.

`stages` has a line for each: name, seconds, limit in seconds, exit status. `NAME.json` is the summary of a stage that
ran tests (`tests/conftest.py`). A stage that failed makes the run fail, and so does a skip that this machine does not
excuse: of data that is there, of an instruction that /proc/cpuinfo lists, of a tool (the run installs them all), or of
what a build lacks outside of the portable one and the one under sanitizers.
"""

import json
import os
import sys
from collections import Counter
from pathlib import Path


def cpu_flags() -> set[str]:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((set(line.partition(":")[2].split()) for line in lines if line.startswith("flags")), set())


def complaint(reason: str, stage: str) -> str | None:
    """Why a skip for `reason` may not happen in `stage` on this machine; None where it may."""
    kind, _, what = reason.partition(": ")
    if kind == "data":
        return "the data folder is there" if Path(os.environ["XSAVE_DATA"]).is_dir() else None
    if kind == "cpu":
        return "/proc/cpuinfo lists it" if what.split()[-1] in cpu_flags() else None
    if kind == "build":
        wanted = "sanitize" if what.startswith("sanitizers") else "portable"
        return None if stage == wanted else f"this is not the {wanted} build"
    if kind == "kernel":
        return None
    return "the run installs it" if kind == "tool" else "an unknown kind of reason"


def main(folder: Path) -> int:
    stages = [line.split("\t") for line in (folder / "stages").read_text().splitlines()]
    failed_stages = [name for name, _, _, status in stages if status != "0"]
    results: dict[str, set[str]] = {}
    lines, complaints = [], []
    for name, *_ in stages:
        file = folder / f"{name}.json"
        if not file.exists():
            continue
        summary = json.loads(file.read_text())
        counts = Counter(summary["outcomes"].values())
        lines.append(f"{name}: {counts['passed']} passed, {counts['failed']} failed, {counts['skipped']} skipped")
        for reason, count in sorted(summary["skips"].items()):
            lines.append(f"  {count} skipped: {reason}")
            why = complaint(reason, name)
            if why is not None:
                complaints.append(f"{name}: {count} skipped for '{reason}', but {why}")
        for test, outcome in summary["outcomes"].items():
            results.setdefault(test, set()).add(outcome)

    # A test counts once: failed if it failed anywhere, skipped only if nothing ran it.
    failed = sum("failed" in outcomes for outcomes in results.values())
    passed = sum("passed" in outcomes and "failed" not in outcomes for outcomes in results.values())
    bare = [name for name in failed_stages if not (folder / f"{name}.json").exists()]
    print("\n=== result")
    for name, seconds, limit, status in stages:
        late = f", over its {limit} s" if float(seconds) > float(limit) else ""
        print(f"{name}: {seconds} s{late}{', FAILED' if status != '0' else ''}")
    print(f"all stages: {sum(float(seconds) for _, seconds, _, _ in stages):.0f} s")
    print(*lines, *(f"not excused: {each}" for each in complaints), sep="\n")
    if bare:
        print(f"failed without a test (counted as one each): {' '.join(bare)}")
    skipped = len(results) - failed - passed
    print(f"{passed} passed, {failed + len(bare) + len(complaints)} failed, {skipped} skipped")
    return 1 if failed_stages or complaints or not passed else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
