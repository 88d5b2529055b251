"""`make bench`: every goal measured here, a line each, and build/bench.json. Further arguments go to pytest."""

import os
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent


def main(arguments: "list[str]") -> int:
    """Runs the benchmarks on the installed package; a missed goal alone is no failure (see --strict-goals)."""
    import pytest

    os.environ.setdefault("PYTHONSAFEPATH", "1")
    build = ROOT / "build"
    build.mkdir(exist_ok=True)
    chosen = [] if any(os.path.exists(each.partition("::")[0]) for each in arguments) else [str(HERE)]
    return pytest.main(
        [
            *(
                "-c",
                str(ROOT / "pyproject.toml"),
                "--rootdir",
                str(ROOT),
                "-q",
                "--no-header",
                "-p",
                "no:cacheprovider",
            ),
            *("--benchmark-quiet", f"--benchmark-json={build / 'benchmark.json'}", f"--goals={build / 'bench.json'}"),
            *arguments,
            *chosen,
        ]
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
