"""The project's own source files, as the house tests read them."""

import ast
from collections.abc import Iterator
from pathlib import Path

from tests.paths import ROOT

PACKAGE = ROOT / "xsave"
COMPILED = ROOT / "cext"


def files(*patterns: str, under: tuple[Path, ...] = (PACKAGE, COMPILED)) -> list[Path]:
    """All files of the package's folders that match one of `patterns`, sorted."""
    found = {path for folder in under for pattern in patterns for path in folder.rglob(pattern)}
    return sorted(path for path in found if path.is_file())


def shown(path: Path) -> str:
    """`path` as a message shows it: relative to the root of the repository."""
    return path.relative_to(ROOT).as_posix()


def module_source(module: str) -> Path | None:
    """The stub or, without one, the source of a public module (`xsave.layout`); None where there is neither."""
    stem = ROOT / Path(*module.split("."))
    for path in (stem.with_suffix(".pyi"), stem.with_suffix(".py"), stem / "__init__.py"):
        if path.exists():
            return path
    return None


def module_tree(module: str) -> ast.Module | None:
    """The syntax tree of `module_source`."""
    path = module_source(module)
    return None if path is None else ast.parse(path.read_text(), str(path))


def definitions(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements of a body, those inside `if TYPE_CHECKING:` and its kin included."""
    for statement in body:
        yield statement
        if isinstance(statement, ast.If):
            yield from definitions(statement.body)
            yield from definitions(statement.orelse)
