"""`xsave.__all__` is the API: complete, resolvable, and every name of it says what it is."""

import ast
import importlib
import inspect
import re

import pytest

import xsave
from tests.house.sources import module_tree

SIGNATURE = re.compile(r"\A\w[\w.]*\(.*\)(?: -> .*)?\Z")


def type_checking_names() -> set[str]:
    """What the block for type checkers imports into `xsave`."""
    tree = module_tree("xsave")
    assert tree is not None
    blocks = [node for node in tree.body if isinstance(node, ast.If)]
    froms = [node for block in blocks for node in block.body if isinstance(node, ast.ImportFrom)]
    return {alias.asname or alias.name for node in froms for alias in node.names}


def test_all_is_sorted_and_has_no_doubles() -> None:
    def kind(name: str) -> tuple[int, str]:
        return (0 if name.isupper() else 1 if name[0].isupper() else 2, name)

    assert sorted(set(xsave.__all__), key=kind) == xsave.__all__


def test_all_is_what_type_checkers_see() -> None:
    assert type_checking_names() == set(xsave.__all__)


def test_all_is_what_the_package_brings_in() -> None:
    lazy = {name for names in xsave._HOMES.values() for name in names.split()}
    assert lazy | set(xsave._ROOMS) == set(xsave.__all__)
    assert set(xsave.__all__) <= set(dir(xsave))


def test_unknown_names_raise() -> None:
    with pytest.raises(AttributeError, match="nothing_of_that_name"):
        xsave.nothing_of_that_name  # noqa: B018


def described(thing: object) -> bool:
    """Whether a docstring says more than the signature that Cython puts on top of it."""
    text = (inspect.getdoc(thing) or "").strip()
    first, _, rest = text.partition("\n")
    return bool(rest.strip() if SIGNATURE.match(first) else first)


@pytest.mark.parametrize("name", xsave.__all__)
def test_every_name_resolves_to_something_described(name: str) -> None:
    thing = getattr(xsave, name)
    if name in xsave._ROOMS:
        assert importlib.import_module(f"xsave.{name}") is thing
        assert described(thing)
        assert all(described(getattr(thing, each)) for each in thing.__all__ if callable(getattr(thing, each)))
        return
    home = next(home for home, names in xsave._HOMES.items() if name in names.split())
    assert getattr(importlib.import_module(f"xsave.{home}"), name) is thing
    if callable(thing):
        assert described(thing), f"{name} has no docstring"
    if inspect.isclass(thing):
        assert undescribed(thing) == []


def undescribed(cls: type) -> list[str]:
    """Public methods and attributes of `cls` itself with no docstring; an attribute may stand in the class's."""
    found = []
    for name, value in vars(cls).items():
        attribute = inspect.isdatadescriptor(value)
        method = callable(value) or isinstance(value, classmethod | staticmethod)
        if name.startswith("_") or not (attribute or method):
            continue
        in_class = attribute and f"`{name}`" in (cls.__doc__ or "")
        if not in_class and not described(getattr(cls, name) if method else value):
            found.append(f"{cls.__name__}.{name}")
    return found


def test_a_bare_signature_is_no_description() -> None:
    def bare() -> None:
        "decode(area, registers=None)"

    def full() -> None:
        "decode(area, registers=None)\nAll registers of an area."

    assert not described(bare)
    assert described(full)
