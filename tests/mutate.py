"""mutate.py [--seed N] [--count N] [--module NAME]: does a test notice if one operator of the compiled code is turned?

Draws single comparisons and boolean operators from the nogil functions in the generated C (`tests/mutants.py`), flips
one at a time, compiles that module without optimisation and runs its own tests, for survivors the whole suite. All of
it happens in copies of the tree. Mutants that change nothing observable stand in `tests/mutants.txt` with the argument;
those that are drawn are shown and replaced by the next of the draw. The run fails if more than one in 25 survives.

A line a mutant; the same seed draws the same mutants, and hypothesis the same examples.
"""

import argparse
import itertools
import os
import queue
import random
import re
import runpy
import shlex
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

# At the end, as for the tests: the checkout's own xsave/ must not hide an installed package.
sys.path.append(str(Path(__file__).resolve().parent.parent))

from tests.mutants import MODULES, Mutant, candidates, read_equivalents
from tests.paths import DATA, ROOT

EQUIVALENTS = ROOT / "tests" / "mutants.txt"
# What a module's own tests are: patterns in the tree, in the order in which they run. The processor's belong to all
# that it is made of.
OWN = {
    "codec": ("laws/test_codec*.py", "laws/test_area*.py", "silicon/test_codec*.py", "processor"),
    "layout": ("laws/test_layout*.py", "models", "laws/test_area*.py", "processor"),
    "processor": ("processor", "silicon/test_conformance.py", "silicon/test_processor*.py", "vectors"),
    "records": ("images", "laws/test_records*.py"),
    "tiles": ("laws/test_tile*.py", "tiles", "vectors/test_tile*.py", "processor"),
}
# The whole suite begins where most is noticed; tests/house reads sources, which no mutant changes.
FIRST = ("processor", "vectors", "laws", "images", "silicon", "models")
ALLOWED = 25                    # one in so many may survive
MEMORY = 12 << 20               # KiB of address space: a mutant may ask for ever more
LEFT_OUT = shutil.ignore_patterns(
    ".git", ".venv*", ".hypothesis", "__pycache__", "*.so", "*.egg-info", "build", "dist", "wt", "node_modules"
)
# Failing is enough: no time is spent on the smallest example.
PLUGIN = """\
from hypothesis import Phase, settings

def pytest_sessionstart():
    settings.register_profile("mutants", settings(), phases=[Phase.explicit, Phase.generate], database=None)
    settings.load_profile("mutants")
"""
GENERATE = """\
import sys
sys.path.insert(0, ".")
from Cython.Build import cythonize
import setup
cythonize(setup.modules(), build_dir="build/cython", include_path=["."], compiler_directives=setup.DIRECTIVES,
          quiet=True)
"""
FAILED = re.compile(r"^(?:FAILED|ERROR) (.+?)(?: - .*)?$", re.MULTILINE)
IN_TEST = re.compile(r'File "([^"]*/tests/[^"]+)", line \d+ in (test_\w+)')


class Run(NamedTuple):
    """What one run of pytest came to."""

    status: int
    output: str
    seconds: float
    hung: bool

    @property
    def passed(self) -> bool:
        return self.status in (0, 5) and not self.hung      # 5: no tests were there

    @property
    def by(self) -> str:
        """The test that noticed, and how."""
        how = "hang" if self.hung else f"signal {-self.status}" if self.status < 0 else ""
        failed = FAILED.search(self.output)
        if failed and not how:
            return failed[1]
        stack = IN_TEST.findall(self.output)
        where = f"{Path(stack[0][0]).name}::{stack[0][1]}" if stack else "somewhere"
        return f"{where} ({how or f'exit status {self.status}'})"


class Verdict(NamedTuple):
    mutant: Mutant
    caught: bool
    by: str
    seconds: float


def environment(tree: Path, *more: Path) -> dict[str, str]:
    dropped = ("XSAVE_INSTALLED", "PYTHONSAFEPATH", "PYTEST_ADDOPTS", "PYTHONHOME", "LD_PRELOAD")
    kept = {name: value for name, value in os.environ.items() if name not in dropped}
    path = os.pathsep.join(str(each) for each in (tree, *more))
    return {**kept, "PYTHONPATH": path, "XSAVE_DATA": str(DATA), "CI": "true"}


def generate(tree: Path, compiled: bool) -> None:
    """Makes the C files of a tree, and the modules in place without optimisation."""
    make = ["setup.py", "-q", "build_ext", "--inplace"] if compiled else ["-c", GENERATE]
    settings = {**environment(tree), "CFLAGS": "-O0"}
    done = subprocess.run([sys.executable, *make], cwd=tree, env=settings, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"mutate.py: the tree does not build\n{done.stdout[-2000:]}{done.stderr[-4000:]}")


def compile_module(tree: Path, module: str, source: Path, target: Path) -> None:
    """One C file as a module, with the flags of setup.py but no optimisation."""
    made = runpy.run_path(str(tree / "setup.py"))["extension"](MODULES[module], module, [])
    flags = [flag for flag in made.extra_compile_args if not flag.startswith("-O")]
    macros = [f"-D{name}={value}" for name, value in made.define_macros]
    compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")
    include = [f"-I{sysconfig.get_path('include')}", f"-I{tree / 'cext'}"]
    subprocess.run(
        [*compiler, *flags, *macros, "-O0", "-w", "-fPIC", "-shared", *include, source, "-o", target],
        check=True, cwd=tree, capture_output=True,
    )


def own_tests(tree: Path, module: str) -> list[str]:
    tests = tree / "tests"
    found = [path for pattern in OWN[module] for path in sorted(tests.glob(pattern))]
    return [path.relative_to(tree).as_posix() for path in dict.fromkeys(found)]


def _has_tests(path: Path) -> bool:
    return path.match("test_*.py") if path.is_file() else any(path.rglob("test_*.py"))


def _end(group: int) -> None:
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        pass


class Workshop:
    """Copies of the tree, each with an unharmed build in place; one mutant at a time lives in one of them."""

    def __init__(self, folder: Path, jobs: int) -> None:
        self.plugin = folder / "plugin"
        self.plugin.mkdir()
        (self.plugin / "unshrunk.py").write_text(PLUGIN)
        first = folder / "tree0"
        shutil.copytree(ROOT, first, ignore=LEFT_OUT)
        generate(first, compiled=True)
        self.trees: queue.SimpleQueue[Path] = queue.SimpleQueue()
        self.trees.put(first)
        for i in range(1, jobs):
            self.trees.put(shutil.copytree(first, folder / f"tree{i}"))
        self.c = {module: (first / "build/cython/cext" / f"{module}.c").read_text() for module in MODULES}
        self.sources = first
        self.limits: dict[str, float] = {}
        self.running: set[int] = set()

    def pytest(self, tree: Path, arguments: list[str], limit: float) -> Run:
        """pytest on a tree; after `limit` seconds it counts as hung."""
        command = [sys.executable, "-m", "pytest", "-q", "-m", "not slow", "-p", "unshrunk", *arguments]
        shell = f'ulimit -v {MEMORY}; ulimit -S -c 0; exec "$@"'
        began = time.monotonic()
        with tempfile.TemporaryFile("w+", errors="replace") as log:
            process = subprocess.Popen(
                ["sh", "-c", shell, "sh", *command], cwd=tree, env=environment(tree, self.plugin),
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
            )
            self.running.add(process.pid)
            hung = False
            try:
                process.wait(limit)
            except subprocess.TimeoutExpired:
                hung = True
                process.send_signal(signal.SIGABRT)     # pytest's fault handler says where
                try:
                    process.wait(10)
                except subprocess.TimeoutExpired:
                    pass
            # Whatever the tests started goes too.
            _end(process.pid)
            status = process.wait()
            self.running.discard(process.pid)
            log.seek(0)
            return Run(status, log.read(), time.monotonic() - began, hung)

    def close(self) -> None:
        """Ends what still runs."""
        for group in list(self.running):
            _end(group)

    def own(self, module: str) -> str | None:
        """The unharmed module on its own tests, for the time they take: None, or what fails."""
        tree = self.trees.get()
        try:
            run = self.pytest(tree, ["-x", *own_tests(tree, module)], 1800)
        finally:
            self.trees.put(tree)
        self.limits[module] = 60 + 3 * run.seconds
        return None if run.passed else f"{module}: {run.by} fails without a mutant\n{run.output[-4000:]}"

    def others(self) -> list[str]:
        """The whole suite without what fails in an unharmed, unoptimised build too: goals of memory and time."""
        rooms = {path.name: path for path in sorted((self.sources / "tests").iterdir()) if _has_tests(path)}
        suite = [f"tests/{name}" for name in dict.fromkeys([*FIRST, *rooms]) if name in rooms and name != "house"]
        tree = self.trees.get()
        try:
            run = self.pytest(tree, suite, 1800)
        finally:
            self.trees.put(tree)
        failing = dict.fromkeys(FAILED.findall(run.output))
        if run.hung or run.status not in (0, 1) or len(failing) > 10:
            raise SystemExit(f"mutate.py: the suite fails without a mutant: {run.by}\n{run.output[-4000:]}")
        for test in failing:
            print(f"left out, it fails without a mutant: {test}")
        self.limits["suite"] = 60 + 3 * run.seconds
        return [*suite, *(f"--deselect={test}" for test in failing)]

    def judge(self, mutant: Mutant, suite: list[str]) -> Verdict:
        """A mutant before the tests of `suite`, or its module's own if that is empty."""
        tree = self.trees.get()
        built = tree / "xsave" / (MODULES[mutant.module] + sysconfig.get_config_var("EXT_SUFFIX"))
        whole = built.with_suffix(".whole")
        began = time.monotonic()
        # A new file each time: another process may have the old one in its memory.
        built.rename(whole)
        try:
            source = tree / "build" / f"{mutant.module}.c"
            source.write_text(mutant.flipped(self.c[mutant.module]))
            compile_module(tree, mutant.module, source, built)
            tests = suite or own_tests(tree, mutant.module)
            run = self.pytest(tree, ["-x", *tests], self.limits["suite" if suite else mutant.module])
        finally:
            whole.replace(built)
            self.trees.put(tree)
        return Verdict(mutant, not run.passed, run.by, time.monotonic() - began)


def draw(found: list[Mutant], seed: int, count: int, equivalent: dict[str, str]) -> tuple[list[Mutant], list[Mutant]]:
    """(`count` mutants to be judged, equivalent ones that were drawn among them) in the order of the draw."""
    order = sorted(found, key=lambda mutant: (mutant.module, mutant.begin))
    random.Random(seed).shuffle(order)
    drawn: list[Mutant] = []
    passed: list[Mutant] = []
    for mutant in order:
        if len(drawn) == count:
            break
        (passed if mutant.key in equivalent else drawn).append(mutant)
    return drawn, passed


def show_all(modules: list[str], folder: Path) -> int:
    tree = folder / "tree"
    shutil.copytree(ROOT, tree, ignore=LEFT_OUT)
    generate(tree, compiled=False)
    for module in modules:
        found = candidates(tree, module, (tree / "build/cython/cext" / f"{module}.c").read_text())
        print(*found, sep="\n")
        kinds = Counter(mutant.operator for mutant in found)
        print(f"{module}: {len(found)}:", ", ".join(f"{count} {kind}" for kind, count in kinds.most_common()))
    return 0


def hunt(given: argparse.Namespace, modules: list[str], folder: Path) -> int:
    began = time.monotonic()
    equivalent = read_equivalents(EQUIVALENTS.read_text())
    shop = Workshop(folder, given.jobs)
    found = [mutant for module in modules for mutant in candidates(shop.sources, module, shop.c[module])]
    unknown = set(equivalent) - {mutant.key for mutant in found} if modules == list(MODULES) else set()
    if unknown:
        print("in tests/mutants.txt, but no operator of the generated C:", *sorted(unknown), sep="\n")
        return 1
    drawn, passed = draw(found, given.seed, given.count, equivalent)
    print(f"seed {given.seed}: {len(drawn)} of {len(found)} operators, {len(equivalent)} of them known as equivalent")
    for mutant in passed:
        print(f"equivalent: {mutant}\n    {equivalent[mutant.key]}", flush=True)
    pool = ThreadPoolExecutor(given.jobs)
    try:
        complaints = list(filter(None, pool.map(shop.own, sorted({mutant.module for mutant in drawn}))))
        if complaints:
            print(*complaints, sep="\n")
            return 1
        left = _round(shop, pool, drawn, [])
        survivors = _round(shop, pool, left, shop.others()) if left and not given.own else left
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        shop.close()
    for mutant in survivors:
        c = shop.c[mutant.module]
        print(f"SURVIVED: {mutant}", f"    key: {mutant.key}", sep="\n")
        print("    - " + _line(c, mutant.begin), "    + " + _line(mutant.flipped(c), mutant.begin), sep="\n")
    caught = len(drawn) - len(survivors)
    print(f"{caught} of {len(drawn)} caught, {len(survivors)} survived, {len(passed)} more are known as equivalent; "
          f"{time.monotonic() - began:.0f} s")
    return int(len(survivors) * ALLOWED > len(drawn))


def _round(shop: Workshop, pool: ThreadPoolExecutor, mutants: list[Mutant], suite: list[str]) -> list[Mutant]:
    """The mutants that a round of tests leaves, a line about each on the way."""
    left = []
    for verdict in pool.map(shop.judge, mutants, itertools.repeat(suite)):
        if not verdict.caught:
            left.append(verdict.mutant)
        what = f"caught by {verdict.by}" if verdict.caught else "SURVIVED" if suite else "passes its module's own tests"
        print(f"{verdict.mutant}\n    {what} ({verdict.seconds:.0f} s)", flush=True)
    return left


def _line(c: str, at: int) -> str:
    return c[c.rfind("\n", 0, at) + 1 : c.index("\n", at)].strip()


def main() -> int:
    parser = argparse.ArgumentParser(description="Does a test notice if one operator of the compiled code is turned?")
    parser.add_argument("--seed", type=int, default=0, help="of the draw")
    parser.add_argument("--count", type=int, default=50, help="how many mutants are judged")
    parser.add_argument("--module", action="append", choices=list(MODULES), help="these only; without it all of them")
    parser.add_argument("--jobs", type=int, default=2, help="at a time")
    parser.add_argument("--own", action="store_true", help="the modules' own tests only: survivors to think about")
    parser.add_argument("--list", action="store_true", help="shows every operator that may be drawn, and does nothing")
    given = parser.parse_args()
    # As an interrupt does: what it started ends with it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    modules = [module for module in MODULES if not given.module or module in given.module]
    with tempfile.TemporaryDirectory(prefix="xsave-mutate-") as folder:
        return (show_all if given.list else hunt)(*([modules] if given.list else [given, modules]), Path(folder))


if __name__ == "__main__":
    sys.exit(main())
