"""What an installation holds: the compiled modules with their declarations and stubs, and no source of them."""

import importlib.metadata
from pathlib import PurePosixPath

import pytest

from tests import skips
from tests.house.sources import COMPILED, PACKAGE, files

# Built on x86-64 only.
X86 = {"native", "trials"}


def installed() -> set[str]:
    found = importlib.metadata.files("xsave")
    if found is None:
        pytest.fail("xsave was not installed by pip: no list of its files")
    return {path.as_posix() for path in found}


def test_no_sources_tests_or_generated_files() -> None:
    folders = {name.partition("/")[0] for name in installed()}
    assert {name for name in folders if not name.endswith(".dist-info") and not name.startswith("..")} == {"xsave"}
    assert [name for name in installed() if PurePosixPath(name).suffix in (".pyx", ".pxi", ".c", ".h")] == []


def test_every_compiled_module_is_there() -> None:
    built = {name.split("/")[1].split(".")[0] for name in installed() if name.endswith(".so")}
    for source in COMPILED.glob("*.pyx"):
        if source.stem in X86 and not skips.has_native():
            assert f"_{source.stem}" not in built
        else:
            assert source.stem in built or f"_{source.stem}" in built


def test_everything_beside_the_python_code_is_there() -> None:
    beside = files("*.py", "*.pyi", "*.pxd", "*.json", "py.typed", under=(PACKAGE,))
    assert {path.relative_to(PACKAGE.parent).as_posix() for path in beside} - installed() == set()
