"""The mutation run finds our operators and no others, flips one, names it by its source line, draws by its seed."""

import re
from pathlib import Path

import pytest

from tests.mutants import FLIP, MODULES, Mutant, candidates, nogil_functions, read_equivalents
from tests.mutate import EQUIVALENTS, OWN, draw, own_tests
from tests.paths import ROOT

SOURCE = """\
cdef extern from "bytes.h" nogil:
    uint32_t load_le32(const void *p)


cdef int between(const uint8_t *area, int low,
                 int high) noexcept nogil:
    if low < area[0] and not area[1]:   # strictly
        return area[2] != 0
    return 0


cdef object told(int low):
    with nogil:
        return low < 3
"""
PREFIX = "__pyx_f_5xsave_6layout_"
# As Cython writes it: a comment before each statement, `and` as a jump around its second operand.
C = f"""\
static int {PREFIX}between(uint8_t const *, int, int); /*proto*/
static CYTHON_INLINE int __Pyx_utility(int a, int b) {{
  return a < b;
}}
static int {PREFIX}between(uint8_t const *__pyx_v_area, int __pyx_v_low, int __pyx_v_high) {{
  int __pyx_t_1;

  /* "cext/layout.pyx":7
 *                  int high) noexcept nogil:
 *     if low < area[0] and not area[1]:   # strictly             # <<<<<<<<<<<<<<
 *         return area[2] != 0
*/
  __pyx_t_2 = (__pyx_v_low < (__pyx_v_area[0]));

  if (__pyx_t_2) {{

  }} else {{

    __pyx_t_1 = __pyx_t_2;

    goto __pyx_L4_bool_binop_done;
  }}
  __pyx_t_2 = (!((__pyx_v_area[1]) != 0));
  __pyx_t_1 = __pyx_t_2;
  __pyx_L4_bool_binop_done:;
  if (__pyx_t_1) {{

    /* "cext/layout.pyx":8
 *     if low < area[0] and not area[1]:   # strictly
 *         return area[2] != 0             # <<<<<<<<<<<<<<
 *     return 0
*/
    __pyx_r = ((__pyx_v_area[2]) != 0);
    if (unlikely(__pyx_r == -1)) __PYX_ERR(0, 8, __pyx_L1_error)
    goto __pyx_L0;
  }}
  __pyx_L0:;
  return __pyx_r;
}}
static PyObject *{PREFIX}told(int __pyx_v_low) {{

  /* "cext/layout.pyx":14
 *     with nogil:
 *         return low < 3             # <<<<<<<<<<<<<<
*/
  return __pyx_v_low < 3;
}}
"""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "cext").mkdir()
    (tmp_path / "xsave").mkdir()
    (tmp_path / "cext" / "layout.pyx").write_text(SOURCE)
    return tmp_path


def test_our_operators_and_no_others(tree):
    assert nogil_functions(tree, "layout") == ["between"]
    found = candidates(tree, "layout", C)
    line = "if low < area[0] and not area[1]:"
    assert [(mutant.line, mutant.operator, mutant.nth) for mutant in found] == [
        (line, "<", 1), (line, "and", 1), (line, "!=", 1), ("return area[2] != 0", "!=", 1),
    ]
    assert [mutant.place for mutant in found] == ["cext/layout.pyx:7"] * 3 + ["cext/layout.pyx:8"]
    assert found[0].key == "layout.between :: if low < area[0] and not area[1]: :: < 1"
    assert found[0].c == "t_2 = (low < (area[0]));"


def test_one_operator_is_flipped(tree):
    turned = []
    for mutant in candidates(tree, "layout", C):
        changed = mutant.flipped(C)
        before, after = next((a, b) for a, b in zip(C.splitlines(), changed.splitlines(), strict=True) if a != b)
        assert changed.replace(after, before, 1) == C
        turned.append(after.strip())
    assert turned == [
        "__pyx_t_2 = (__pyx_v_low >= (__pyx_v_area[0]));",
        "if (!__pyx_t_2) {",
        "__pyx_t_2 = (!((__pyx_v_area[1]) == 0));",
        "__pyx_r = ((__pyx_v_area[2]) == 0);",
    ]


def test_or_and_not(tree):
    c = C.replace("if (__pyx_t_2) {", "if (!__pyx_t_2) {").replace("(!((__pyx_v_area[1]) != 0))", "(!__pyx_v_high)")
    found = {mutant.operator: mutant.flipped(c) for mutant in candidates(tree, "layout", c)}
    assert list(found) == ["<", "or", "not", "!="]
    assert "  if (__pyx_t_2) {\n" in found["or"]
    assert "(!!__pyx_v_high)" in found["not"]


def test_jumps_between_the_parts_of_a_condition_stay(tree):
    c = C.replace("goto __pyx_L0;", "goto __pyx_L5_next_or;")
    assert "and" not in {mutant.operator for mutant in candidates(tree, "layout", c)}


def test_every_flip_has_a_way_back():
    assert {FLIP[FLIP[operator]] for operator in FLIP if operator != "not"} == FLIP.keys() - {"not"}


def test_a_function_that_the_c_lacks_is_no_silence(tree):
    with pytest.raises(LookupError, match="between"):
        candidates(tree, "layout", C.replace("between", "within"))


@pytest.mark.parametrize("module", MODULES)
def test_every_nogil_function_of_the_sources(module):
    parts = [ROOT / "cext" / f"{module}.pyx", *(ROOT / "cext" / module).glob("*.pxi")]
    parts.append(ROOT / "xsave" / f"{MODULES[module]}.pxd")
    heads = [
        line
        for part in parts if part.exists()
        for line in part.read_text().splitlines()
        if re.search(r"\bnogil:$", line) and not re.search("extern|with", line)
    ]
    assert len(nogil_functions(ROOT, module)) == len(heads) > 0


@pytest.mark.parametrize("module", OWN)
def test_every_module_has_tests_of_its_own(module):
    assert own_tests(ROOT, module)


def made(count: int) -> list[Mutant]:
    return [Mutant("layout", "f", f"line {i}", "<", 1, "cext/layout.pyx:1", i, i + 1, ">=", "") for i in range(count)]


def test_the_seed_draws():
    whole = made(40)
    first, _ = draw(whole, 1, 10, {})
    assert first == draw(whole[::-1], 1, 10, {})[0] != draw(whole, 2, 10, {})[0]
    assert len(set(first)) == 10


def test_an_equivalent_mutant_is_replaced_by_the_next_of_the_draw():
    whole = made(40)
    order, _ = draw(whole, 1, 12, {})
    drawn, passed = draw(whole, 1, 10, {order[0].key: "because", order[3].key: "because"})
    assert passed == [order[0], order[3]]
    assert drawn == [mutant for mutant in order if mutant not in passed]


@pytest.mark.parametrize("text", ["  an argument\n", "a.b :: c :: < 1\n", "a :: c :: < 1\n  no\na :: c :: < 1\n  no\n"])
def test_a_list_that_is_no_list(text):
    with pytest.raises(ValueError):
        read_equivalents(text)


def test_the_listed_mutants_stand_in_the_sources():
    """Whether the operator is there the mutation run itself sees, which has the C."""
    for key in read_equivalents(EQUIVALENTS.read_text()):
        name, line, operator = key.split(" :: ")
        module, function = name.split(".")
        assert function in nogil_functions(ROOT, module), key
        parts = [ROOT / "cext" / f"{module}.pyx", *(ROOT / "cext" / module).glob("*.pxi")]
        parts += (ROOT / "xsave").glob(f"{MODULES[module]}.pxd")
        assert any(each.strip().startswith(line) for part in parts for each in part.read_text().splitlines()), key
        assert operator.split()[0] in FLIP, key
