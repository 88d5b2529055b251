"""The stubs and sources have the signatures of `tests/contract.txt`, by their syntax trees."""

import ast
from typing import NamedTuple

import pytest

from tests.house.sources import definitions, module_source, module_tree
from tests.paths import ROOT

Function = ast.FunctionDef | ast.AsyncFunctionDef


class Promise(NamedTuple):
    """One line: a signature (`call` is set) or attribute names of `owner`."""

    line: str
    later: bool
    owner: str
    call: str | None
    attributes: tuple[str, ...]


def promises(text: str) -> list[Promise]:
    found = []
    for line in text.splitlines():
        if not line or line.startswith("#"):
            continue
        body = line.removeprefix("later ")
        if "(" in body:
            found.append(Promise(line, body != line, body.partition("(")[0], body[body.index("(") :], ()))
        else:
            owner, _, names = body.partition(":")
            found.append(Promise(line, body != line, owner, None, tuple(names.split())))
    return found


PROMISES = promises((ROOT / "tests" / "contract.txt").read_text())


def public_homes() -> dict[str, str]:
    """Where each name of `xsave` is defined, from the package's block for type checkers."""
    tree = module_tree("xsave")
    assert tree is not None
    froms = [node for node in definitions(tree.body) if isinstance(node, ast.ImportFrom) and node.module != "xsave"]
    return {alias.name: node.module for node in froms for alias in node.names if node.module}


def split(owner: str) -> tuple[str, list[str]]:
    """The module where `owner` is defined and the path inside it: `xsave.Layout.of` is `xsave.layout`, Layout, of."""
    parts = owner.split(".")
    if len(parts) > 1 and parts[1] in public_homes():
        return public_homes()[parts[1]], parts[1:]
    for size in range(len(parts), 0, -1):
        if module_source(".".join(parts[:size])) is not None:
            return ".".join(parts[:size]), parts[size:]
    return parts[0], parts[1:]


def named(body: list[ast.stmt], name: str) -> ast.stmt | None:
    """The class, function or assignment of `name` in a body."""
    for node in definitions(body):
        if isinstance(node, ast.ClassDef | Function) and node.name == name:
            return node
        targets = node.targets if isinstance(node, ast.Assign) else []
        targets = [node.target] if isinstance(node, ast.AnnAssign) else targets
        if any(isinstance(target, ast.Name) and target.id == name for target in targets):
            return node
        if isinstance(node, ast.ImportFrom) and any((alias.asname or alias.name) == name for alias in node.names):
            return node
    return None


def find(module: str, path: list[str]) -> ast.AST | None:
    """The node of a class, function or constant, through re-exports; the module itself for an empty path."""
    node: ast.AST | None = module_tree(module)
    for depth, name in enumerate(path):
        if not isinstance(node, ast.Module | ast.ClassDef):
            return None
        node = named(node.body, name)
        if isinstance(node, ast.ImportFrom) and node.module:
            return find(node.module, path[depth:])
    return node


def constructor(node: ast.AST | None) -> ast.AST | None:
    """A class's `__new__` or `__init__`."""
    if not isinstance(node, ast.ClassDef):
        return node
    return named(node.body, "__init__") or named(node.body, "__new__")


def parameters(function: ast.Lambda | Function, drop_first: bool) -> list[str]:
    """Parameters as text without annotations: `a`, `b=None`, `*`, `c=1`, `**more`."""
    given = function.args
    positional = [*given.posonlyargs, *given.args]
    padding: list[ast.expr | None] = [None] * (len(positional) - len(given.defaults))
    pairs = list(zip(positional, [*padding, *given.defaults], strict=True))[1 if drop_first else 0 :]
    found = [_parameter(each, default) for each, default in pairs]
    if given.vararg:
        found.append(f"*{given.vararg.arg}")
    elif given.kwonlyargs:
        found.append("*")
    found += [_parameter(each, default) for each, default in zip(given.kwonlyargs, given.kw_defaults, strict=True)]
    return [*found, f"**{given.kwarg.arg}"] if given.kwarg else found


def _parameter(each: ast.arg, default: ast.expr | None) -> str:
    return each.arg if default is None else f"{each.arg}={ast.unparse(default)}"


def promised(call: str) -> tuple[list[str], bool]:
    """The parameters of a line, and whether more may follow."""
    more = call.endswith(", ...)")
    text = call.removesuffix(", ...)") + ")" if more else call
    tree = ast.parse(f"lambda {text[1:-1]}: 0", mode="eval").body
    assert isinstance(tree, ast.Lambda)
    return parameters(tree, drop_first=False), more


def is_bound(function: Function, path: list[str], node: ast.AST | None) -> bool:
    """Whether the first parameter is self or cls."""
    decorators = {each.id for each in function.decorator_list if isinstance(each, ast.Name)}
    return (len(path) > 1 or isinstance(node, ast.ClassDef)) and "staticmethod" not in decorators


def check(promise: Promise) -> str | None:
    """What is wrong with a promise; None where it is kept."""
    module, path = split(promise.owner)
    node = find(module, path)
    if node is None:
        return "is not there"
    if promise.call is None:
        missing = [name for name in promise.attributes if not has_attribute(node, name)]
        return f"lacks {' '.join(missing)}" if missing else None
    function = constructor(node)
    if not isinstance(function, Function):
        return "is no function"
    wanted, more = promised(promise.call)
    found = parameters(function, is_bound(function, path, node))
    extra = found[len(wanted) :] if more else []
    if found[: len(wanted)] != wanted or (not more and found != wanted):
        return f"is ({', '.join(found)})"
    needed = [each for each in extra if "=" not in each and not each.startswith("*")]
    return f"needs {', '.join(needed)} too" if needed else None


def has_attribute(node: ast.AST, name: str) -> bool:
    """Whether a class or module defines `name`: a member, a slot, or an attribute that `__init__` sets."""
    if isinstance(node, ast.Module):
        return named(node.body, name) is not None
    if not isinstance(node, ast.ClassDef):
        return False
    if named(node.body, name) is not None:
        return True
    slots = named(node.body, "__slots__")
    if isinstance(slots, ast.Assign) and name in ast.literal_eval(slots.value):
        return True
    stores = [each for each in ast.walk(node) if isinstance(each, ast.Attribute) and isinstance(each.ctx, ast.Store)]
    return any(each.attr == name and isinstance(each.value, ast.Name) and each.value.id == "self" for each in stores)


@pytest.mark.parametrize("promise", [each for each in PROMISES if not each.later], ids=lambda each: each.line)
def test_promise_is_kept(promise: Promise) -> None:
    assert check(promise) is None


def test_what_is_marked_later_is_not_there() -> None:
    assert [each.line for each in PROMISES if each.later and check(each) is None] == []


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("xsave.Layout.of(buffer, model, mask=None)", None),
        ("xsave.Layout.of(buffer, model, mask=0)", "is (buffer, model, mask=None)"),
        ("xsave.Layout.of(buffer, ...)", "needs model too"),
        ("xsave.Layout.of(buffer, model, ...)", None),
        ("xsave.Layout.off(buffer)", "is not there"),
        ("xsave.Layout: size colour", "lacks colour"),
        ("xsave: STANDARD", None),
    ],
)
def test_the_checker(line: str, complaint: str | None) -> None:
    assert check(promises(line)[0]) == complaint
