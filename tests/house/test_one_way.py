"""Imports point one way: the rooms of the house in their order, and who may call at a private kernel's door."""

import ast
import re
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.house.sources import COMPILED, PACKAGE, files, shown

# A module may import what stands before it, and its own room (a folder, or a private kernel's Python side).
ORDER = (
    *("errors", "components", "registers", "data", "enumeration", "cpuid", "models", "layout", "codec", "area"),
    *("tiles", "memory", "processor", "_child", "_execution", "host", "images", "audit", "pool"),
    *("switching", "report", "fleet"),
    *("conformance", "differences", "doctor", "plugins", "cli"),
)
RANK = {room: rank for rank, room in enumerate(ORDER)}

# Private kernels: the rooms that may import them. `records` and `events` import `errors` only.
KERNELS = {
    "_records": {"images"},
    "_native": {"_child", "_execution", "host", "models", "_trials"},
    "_explorer": {"audit"},
    "_events": {"switching"},
    "_simulator": {"switching"},
    "_trials": {"conformance"},
}
ERRORS_ONLY = {"_records", "_events"}
PUBLIC_COMPILED = {"layout", "codec", "area", "tiles", "processor"}


class Import(NamedTuple):
    file: Path
    line: int
    room: str
    target: str
    function: str


def room_of(path: Path) -> str:
    """The room of a file: its module, its folder, or `_NAME` for a private kernel's source."""
    if COMPILED in path.parents:  # the parts of NAME.pyx lie in the folder NAME
        name = Path(path.relative_to(COMPILED).parts[0]).stem
        return name if name in PUBLIC_COMPILED else f"_{name}"
    first, *rest = path.relative_to(PACKAGE).parts
    return first if rest else path.stem


def targets(text: str, lines_only: bool) -> list[tuple[int, str, str]]:
    """(line, imported room of xsave, enclosing function) of every import, from Python or from Cython source."""
    return cython_targets(text) if lines_only else python_targets(ast.parse(text))


def python_targets(tree: ast.Module) -> list[tuple[int, str, str]]:
    found = []

    def visit(node: ast.AST, function: str) -> None:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            function = node.name
        elif isinstance(node, ast.Import):
            found.extend((node.lineno, alias.name, function) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: a relative import"
            module = node.module or ""
            names = [f"xsave.{alias.name}" for alias in node.names] if module == "xsave" else [module]
            found.extend((node.lineno, name, function) for name in names)
        for child in ast.iter_child_nodes(node):
            visit(child, function)

    visit(tree, "")
    return [(line, name.split(".")[1], function) for line, name, function in found if name.startswith("xsave.")]


LINE = re.compile(r"^\s*(?:from\s+(\S+)\s+c?import\s+(.+)|c?import\s+(.+))")
DEF = re.compile(r"^(\s*)(?:c?p?def|async def)\s+.*?(\w+)\s*\(")


def cython_targets(text: str) -> list[tuple[int, str, str]]:
    found, function = [], ""
    for number, line in enumerate(text.splitlines(), 1):
        if match := DEF.match(line):
            function = match[2]
        match = LINE.match(line)
        if not match:
            continue
        module, names, modules = match.groups()
        listed = [name.strip().split(" ")[0].strip("()") for name in (names or modules).split(",")]
        full = [f"xsave.{name}" for name in listed] if module == "xsave" else [module] if module else listed
        found += [(number, name.split(".")[1], function) for name in full if name.startswith("xsave.")]
    return found


def imports() -> list[Import]:
    found = []
    for path in files("*.py", "*.pyi", "*.pyx", "*.pxd", "*.pxi"):
        if path.name in ("__init__.py", "__main__.py") and path.parent == PACKAGE:
            continue
        cython = path.suffix in (".pyx", ".pxd", ".pxi")
        rows = targets(path.read_text(), cython)
        found += [Import(path, line, room_of(path), target, function) for line, target, function in rows]
    return found


def verdict(each: Import) -> str | None:
    """Why an import is against the rules; None where it is not."""
    room, target = each.room, each.target
    if target in ("__version__", room):
        return None
    if target in KERNELS:
        return None if room in KERNELS[target] else f"{target} serves {' and '.join(sorted(KERNELS[target]))} only"
    if target not in RANK:
        return f"{target} is not in the list of rooms"
    if room in ERRORS_ONLY:
        return None if target == "errors" else f"{room} imports errors only"
    if room in KERNELS:
        below = min(RANK[each] for each in KERNELS[room] if each in RANK)
        return None if RANK[target] < below else f"{target} is not below the rooms that {room} serves"
    if room not in RANK:
        return f"{room} is not in the list of rooms"
    if target == "report" and each.function == "_repr_html_":
        return None
    return None if RANK[target] < RANK[room] else f"{target} comes after {room}"


def test_every_import_points_one_way() -> None:
    wrong = [(each, verdict(each)) for each in imports()]
    assert [f"{shown(each.file)}:{each.line}: {why}" for each, why in wrong if why] == []


def test_the_reader_sees_imports() -> None:
    found = {(each.room, each.target) for each in imports()}
    assert ("registers", "components") in found
    assert ("layout", "errors") in found


@pytest.mark.parametrize(
    ("text", "room"),
    [
        ("from xsave.area import Area", "area"),
        ("from xsave cimport area", "area"),
        ("    import xsave.report.text", "report"),
        ("cimport xsave.codec as codec", "codec"),
        ("from xsave.layout cimport Layout, Shape", "layout"),
    ],
)
def test_cython_lines_are_read(text: str, room: str) -> None:
    assert [name for _, name, _ in cython_targets(text)] == [room]


@pytest.mark.parametrize(
    ("room", "target", "function", "allowed"),
    [
        ("codec", "layout", "", True),
        ("layout", "codec", "", False),
        ("images", "_records", "", True),
        ("cli", "_records", "", False),
        ("_records", "errors", "", True),
        ("_records", "layout", "", False),
        ("_trials", "_native", "", True),
        ("_trials", "processor", "", True),
        ("_trials", "cli", "", False),
        ("area", "report", "_repr_html_", True),
        ("area", "report", "__repr__", False),
        ("area", "novelty", "", False),
    ],
)
def test_rules(room: str, target: str, function: str, allowed: bool) -> None:
    assert (verdict(Import(PACKAGE, 1, room, target, function)) is None) == allowed
