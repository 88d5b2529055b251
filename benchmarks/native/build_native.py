"""Builds `bench_native` into build/benchmarks/ of the checkout, when its sources are newer, and imports it."""

import importlib.util
import sys
import sysconfig
from pathlib import Path
from types import ModuleType

HERE = Path(__file__).resolve().parent
BUILD = HERE.parent.parent / "build" / "benchmarks"


def load() -> ModuleType:
    """The module, compiled with Cython and the C compiler that built this Python's extensions."""
    target = BUILD / f"bench_native{sysconfig.get_config_var('EXT_SUFFIX')}"
    sources = [HERE / "bench_native.pyx", HERE / "copies.h", HERE / "build_native.py"]
    if not target.exists() or target.stat().st_mtime < max(path.stat().st_mtime for path in sources):
        _compile()
    spec = importlib.util.spec_from_file_location("bench_native", target)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["bench_native"] = module
    spec.loader.exec_module(module)
    return module


def _compile() -> None:
    from Cython.Build import cythonize
    from setuptools import Distribution, Extension

    BUILD.mkdir(parents=True, exist_ok=True)
    extension = Extension(
        "bench_native",
        [str(HERE / "bench_native.pyx")],
        include_dirs=[str(HERE)],
        extra_compile_args=["-O2", "-fno-builtin-memcpy"],
    )
    # Functions as Cython makes them by default: the empty call of P5 is what any Cython module has.
    directives = {"language_level": 3, "boundscheck": False, "wraparound": False}
    modules = cythonize([extension], build_dir=str(BUILD / "c"), compiler_directives=directives, quiet=True)
    command = Distribution({"name": "bench_native", "ext_modules": modules}).get_command_obj("build_ext")
    command.build_lib = str(BUILD)
    command.build_temp = str(BUILD / "temp")
    command.ensure_finalized()
    command.run()
