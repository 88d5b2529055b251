"""What importing the package costs, and what it must not bring in."""

import subprocess
import sys

FORBIDDEN = ("numpy", "dataclasses", "typing", "inspect", "json", "argparse")
BUDGET = 40

PROBE = "import sys; before = set(sys.modules); import xsave; print(*sorted(set(sys.modules) - before))"


def new_modules(statement: str = "import xsave") -> list[str]:
    """The modules that `statement` adds in a fresh interpreter."""
    script = PROBE.replace("import xsave;", f"{statement};")
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()


def test_import_loads_none_of_the_heavy_modules() -> None:
    loaded = new_modules()
    assert [name for name in loaded if name.partition(".")[0] in FORBIDDEN] == []


def test_import_stays_within_the_budget_of_new_modules() -> None:
    loaded = new_modules()
    assert len(loaded) <= BUDGET, loaded
    assert "xsave" in loaded
