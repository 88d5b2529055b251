"""Mutants: the comparisons and boolean operators of our nogil functions in the generated C, and how each is flipped.

The functions are those that the sources define `nogil`; an operator belongs to the source line that Cython's comment
before it names. What Cython adds of its own (error checks, faces for Python, utility code) is no candidate.
"""

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

# Modules by the stem of their source, and the name that is compiled into.
MODULES = {"codec": "codec", "layout": "layout", "processor": "processor", "records": "_records", "tiles": "tiles"}
FLIP = {"==": "!=", "!=": "==", "<": ">=", ">=": "<", ">": "<=", "<=": ">", "and": "or", "or": "and", "not": "truth of"}

# A definition with a body: `cdef ... name(...) ... nogil:`, over any number of lines.
DEFINITION = re.compile(r"^[ ]*cdef [^\n(=]*?(\w+)\([^:]*?\)[^():\n]*\bnogil:", re.MULTILINE)
COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)
PLACE = re.compile(r'/\* "((?:cext|xsave)/[^"]+)":(\d+)\n')
MARKED = re.compile(r"^ \* (.*?)\s+# <{10,}$", re.MULTILINE)
COMPARISON = re.compile(r"(?<= )(?:==|!=|<=|>=|<|>)(?= )")
# How `a and b` (with `!`: `a or b`) is put: the way round the second operand.
BOOLEAN = re.compile(r"if \((!?)([^{}\n]+)\) \{\s*\} else \{\s*\w+ = \2;\s*goto __pyx_L\d+_bool_binop_done;")
NOT = re.compile(r"(?<!if )\(!(?=__pyx_[vf]_)")
CYTHONS = re.compile(r"\b(?:un)?likely\(|\b__Pyx_|__pyx_L\d+_error")
MANGLED = re.compile(r"__pyx_(?:v_|(?=t_\d)|[fe]_5xsave_\d+_?[a-z]+_)|__pyx_(?=r\b)")


class Mutant(NamedTuple):
    """One operator of one function, and what the C file holds in its place afterwards."""

    module: str
    function: str
    line: str       # the source line's text
    operator: str
    nth: int        # of this operator in lines of this text, from 1
    place: str      # FILE:NUMBER of the source line
    begin: int      # in the C file
    end: int
    text: str       # instead of C[begin:end]
    c: str          # the line of C around it, in short names

    @property
    def key(self) -> str:
        """What names it, whatever the seed and wherever the line stands."""
        return f"{self.module}.{self.function} :: {self.line} :: {self.operator} {self.nth}"

    def flipped(self, c: str) -> str:
        return c[: self.begin] + self.text + c[self.end :]

    def __str__(self) -> str:
        flip = f"{self.operator} -> {FLIP[self.operator]}"
        return f"{self.module}.{self.function} {self.place}: `{self.line}` #{self.nth} {flip}  [{self.c}]"


def nogil_functions(tree: Path, module: str) -> list[str]:
    """Names of the functions that the sources of `module` define nogil, in the order of the text."""
    package = tree / "xsave" / f"{MODULES[module]}.pxd"
    parts = [tree / "cext" / f"{module}.pyx", *sorted((tree / "cext" / module).glob("*.pxi")), package]
    found = (name for part in parts if part.exists() for name in DEFINITION.findall(part.read_text()))
    return list(dict.fromkeys(found))


def bodies(c: str, module: str, names: list[str]) -> Iterator[tuple[str, int, int]]:
    """(name, begin, end) of the definition of every function of `names` in the generated C."""
    built = MODULES[module]
    mangled = re.escape(f"__pyx_f_5xsave_{len(built)}{built}_")
    head = re.compile(rf"^static [^\n;=]*?\b{mangled}({'|'.join(names)})\([^\n;]*\) \{{$", re.MULTILINE)
    for match in head.finditer(c):
        yield match[1], match.end(), c.index("\n}\n", match.end())


def operators(body: str) -> Iterator[tuple[int, int, str, str]]:
    """(begin, end, operator, text instead) of every operator in a function's C without its comments."""
    for match in COMPARISON.finditer(body):
        yield match.start(), match.end(), match[0], FLIP[match[0]]
    # `(a and b) or c` has jumps between its parts: turning one is no single operator's flip.
    if not re.search(r"__pyx_L\d+_next_(?:and|or)", body):
        for match in BOOLEAN.finditer(body):
            yield match.start(1), match.end(1), "or" if match[1] else "and", "" if match[1] else "!"
    for match in NOT.finditer(body):
        yield match.start(), match.end(), "not", "(!!"


def candidates(tree: Path, module: str, c: str) -> list[Mutant]:
    """Every mutant of `module`, whose generated C is `c`, in the order of that.

    Raises: `LookupError` for a nogil function of a .pyx or .pxi that the C file does not define.
    """
    names = nogil_functions(tree, module)
    if not names:
        return []
    spans = list(bodies(c, module, names))
    made = {name for name, _, _ in spans}
    # A function of a .pxd that nobody calls is left out of the C.
    optional = set(DEFINITION.findall("".join(p.read_text() for p in (tree / "xsave").glob(f"{MODULES[module]}.pxd"))))
    missing = [name for name in names if name not in made | optional]
    if missing:
        raise LookupError(f"{module}: nogil in the sources, but not in the generated C: {' '.join(missing)}")
    return [mutant for name, begin, end in spans for mutant in _of_function(module, name, c, begin, end)]


def _of_function(module: str, name: str, c: str, begin: int, end: int) -> Iterator[Mutant]:
    places: list[tuple[int, str, str]] = []

    def blank(match: re.Match[str]) -> str:
        where, line = PLACE.match(match[0]), MARKED.search(match[0])
        if where and line:
            places.append((match.end(), f"{where[1]}:{where[2]}", re.sub(r"\s+# .*", "", line[1]).strip()))
        return " " * len(match[0])

    body = COMMENT.sub(blank, c[begin:end])
    seen: Counter[tuple[str, str]] = Counter()
    for at, to, operator, text in sorted(operators(body)):
        line = body[body.rfind("\n", 0, at) + 1 : body.find("\n", at)].strip()
        before = [(place, source) for position, place, source in places if position <= at]
        if not before or CYTHONS.search(line):
            continue
        place, source = before[-1]
        seen[source, operator] += 1
        nth = seen[source, operator]
        yield Mutant(module, name, source, operator, nth, place, begin + at, begin + to, text, MANGLED.sub("", line))


def read_equivalents(text: str) -> dict[str, str]:
    """key -> argument, of a list in which indented lines are the argument of the key above them.

    Raises: `ValueError` for a key without an argument, an argument without a key, and a key that stands twice.
    """
    found: dict[str, str] = {}
    key = ""
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        if line[0] == " ":
            if not key:
                raise ValueError(f"line {number}: an argument without a mutant")
            found[key] = f"{found[key]} {line.strip()}".strip()
        else:
            if line in found or (key and not found[key]):
                raise ValueError(f"line {number}: {line if line in found else key} stands twice or has no argument")
            key = line.strip()
            found[key] = ""
    if key and not found[key]:
        raise ValueError(f"{key} has no argument")
    return found
