"""Rules that are read off the files: literals, names, paths, who stands beside whom."""

import ast
import re
from pathlib import Path

import pytest

from tests.house.sources import COMPILED, PACKAGE, files, shown
from tests.paths import ROOT

# Sizes and offsets that one CPU's layout has and another's has not: they come from a model.
LAYOUT_LITERALS = (832, 896, 1088, 1152, 1408, 1664, 2432, 2440, 2688, 2696, 2752, 2816, 10696, 10752, 11008)
# Makers and their products; models' names come on top.
MAKERS = "intel amd hygon zhaoxin centaur via genuineintel authenticamd zen xeon opteron ryzen"

NUMBER = re.compile(r"(?<![\w.])(0[xX][0-9a-fA-F_]+|\d[\d_]*)(?![\w.])")


def numbers(text: str) -> set[int]:
    return {int(match.replace("_", ""), 16 if match[:2] in ("0x", "0X") else 10) for match in NUMBER.findall(text)}


def source_files() -> list[Path]:
    found = files("*.py", "*.pyi", "*.pyx", "*.pxd", "*.pxi", "*.c", "*.h")
    return [path for path in found if PACKAGE / "data" not in path.parents]


@pytest.mark.parametrize("path", source_files(), ids=shown)
def test_no_layout_literal_outside_the_data(path: Path) -> None:
    assert sorted(numbers(path.read_text()) & set(LAYOUT_LITERALS)) == []


def test_literals_are_seen_in_any_spelling() -> None:
    assert numbers("at = 832; size=0x340, x832 = 1_088") == {832, 1088}


def makers_named(text: str) -> list[str]:
    from xsave.models import CpuModel

    names = [*MAKERS.split(), *(re.escape(name) for name in CpuModel.names())]
    return re.findall(rf"(?i)(?<![A-Za-z0-9])(?:{'|'.join(names)})(?:\d+)?(?![A-Za-z0-9])", text)


@pytest.mark.parametrize("path", files("*", under=(COMPILED,)), ids=shown)
def test_no_makers_or_cpus_name_in_compiled_code(path: Path) -> None:
    assert makers_named(path.read_text()) == []


def test_makers_are_seen() -> None:
    assert makers_named("as on Intel, Zen5 and SapphireRapids, which a viaduct is not") == [
        "Intel",
        "Zen5",
        "SapphireRapids",
    ]


def text_files() -> list[Path]:
    folders = [ROOT / name for name in ("xsave", "cext", "tests", "docs", "benchmarks", ".ci")]
    found = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    found += [path for path in ROOT.iterdir() if path.is_file() and path.name != ".git"]
    binary = {".so", ".pyc", ".xz", ".gz", ".zst", ".lz4", ".bin", ".core", ".npz"}
    return [path for path in found if path.suffix not in binary and "__pycache__" not in path.parts]


def test_no_path_of_a_developers_machine() -> None:
    pattern = re.compile(r"(?<![\w.])/(?:root|home/\w+|work|Users/\w+)/")
    wrong = [
        f"{shown(path)}:{number}: {line.strip()}"
        for path in text_files()
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1)
        if pattern.search(line) and "no machine path" not in line
    ]
    assert wrong == []


def test_readme_fits_two_screens() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) < 120


def test_no_c_file_has_the_stem_of_a_cython_module() -> None:
    # Cython would refuse to overwrite it, or worse, would not.
    stems = {path.stem for path in files("*.pyx")}
    assert [shown(path) for path in files("*.c", "*.h") if path.stem in stems] == []


@pytest.mark.parametrize("path", files("*.pyx", under=(COMPILED,)), ids=shown)
def test_compiled_modules_have_their_stubs(path: Path) -> None:
    public, private = PACKAGE / f"{path.stem}.pyi", PACKAGE / f"_{path.stem}.pyi"
    assert public.exists() != private.exists(), "a stub as a public or as a private module"
    if public.exists():
        assert (PACKAGE / f"{path.stem}.pxd").exists()
    assert not (PACKAGE / f"{path.stem}.py").exists(), "no Python twin"


def test_the_reference_model_imports_nothing_that_it_judges() -> None:
    imported = []
    for path in [ROOT / "tests" / "reference.py", *(ROOT / "tests" / "oracle").glob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported += [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                imported.append(node.module or "")
    assert imported, "the reference model is gone"
    assert [name for name in imported if name.partition(".")[0] == "xsave"] == []
