"""Builds the compiled modules: `cext/NAME.pyx` as `xsave.NAME` (public) or `xsave._NAME` (private kernels).

`XSAVE_PORTABLE=1` compiles all x86-only code out; any machine that is not x86-64 gets that build anyway.
"""

import os
import platform
import sys
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

PUBLIC = ("layout", "codec", "area", "tiles", "processor")
PRIVATE = ("records", "explorer", "events")
# Nothing in these is called often: made small, for a command's memory counts every byte of code that is loaded.
SMALL = ("layout", "records")
X86_ONLY = {"native": ["cext/insn.c", "cext/guard.c", "cext/child.c", "cext/program.c", "cext/timing.c"], "trials": []}

DIRECTIVES = {
    "language_level": 3,
    "boundscheck": False,
    "wraparound": False,
    "cdivision": True,
    "initializedcheck": False,
    "embedsignature": True,
    "embedsignature.format": "python",
    "binding": False,
}


def portable() -> bool:
    return os.environ.get("XSAVE_PORTABLE", "0") not in ("", "0") or platform.machine() not in ("x86_64", "AMD64")


def extension(module: str, stem: str, sources: "list[str]") -> Extension:
    macros = [("XSAVE_PORTABLE", "1")] if portable() else []
    # Ours would come behind, and win over, what the checked builds ask for.
    checked = "-O" in os.environ.get("CFLAGS", "")
    optimised = [] if checked else ["-Os" if stem in SMALL else "-O2", "-fno-asynchronous-unwind-tables"]
    # One segment less to pad to whole pages, where the linker is one that knows.
    linked = ["-Wl,-z,noseparate-code"] if sys.platform == "linux" and not checked else []
    return Extension(
        f"xsave.{module}",
        [f"cext/{stem}.pyx", *sources],
        include_dirs=["cext"],
        define_macros=macros,
        extra_compile_args=[*optimised, "-std=gnu11", "-fno-strict-aliasing", "-Wall", "-Wno-unused-function"],
        extra_link_args=linked,
        depends=[str(path) for path in [*Path("cext").glob("*.h"), *Path("xsave").glob("*.pxd")]],
    )


def modules() -> "list[Extension]":
    found = [extension(name, name, []) for name in PUBLIC] + [extension(f"_{name}", name, []) for name in PRIVATE]
    if not portable():
        found += [extension(f"_{name}", name, sources) for name, sources in X86_ONLY.items()]
    return [each for each in found if Path(each.sources[0]).exists()]


def declarations_changed() -> bool:
    """Whether a .pxd is newer than some generated C file: cythonize does not see those in another folder."""
    generated = [path.stat().st_mtime for path in Path("build/cython").rglob("*.c")]
    return bool(generated) and max(path.stat().st_mtime for path in Path("xsave").glob("*.pxd")) > min(generated)


if __name__ == "__main__":
    setup(
        ext_modules=cythonize(
            modules(),
            build_dir="build/cython",
            include_path=["."],
            compiler_directives=DIRECTIVES,
            force=declarations_changed(),
            quiet="-q" in sys.argv,
        )
    )
