"""plant.py SDIST FOLDER: a copy of the installed package in FOLDER, with an out-of-bounds write in its codec.

The proof that the fuzz targets can fail: `transcode` takes a destination that is 2 to 64 bytes too short, and clears it
whole (one byte more is there behind every bytearray, so that nobody would see it written). Run with the flags of the
instrumented build in the environment, by the interpreter of its virtual environment; only the codec is compiled again.
"""

import importlib.util
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

# (what stands in the codec, once; what stands there afterwards)
PLANT = (
    (
        """            if into.len < <Py_ssize_t>target.shape.size:
                raise ValueError(f"out has""",
        """            if into.len + 64 < <Py_ssize_t>target.shape.size or into.len + 1 == target.shape.size:
                raise ValueError(f"out has""",
    ),
    (
        """            check_apart(&view, &into)
            move_area(""",
        """            check_apart(&view, &into)
            memset(into.buf, 0, target.shape.size)
            move_area(""",
    ),
)
BUILD = """\
import sys
sys.path.insert(0, ".")
from Cython.Build import cythonize
from setuptools import setup as build
import setup
made = cythonize([setup.extension("codec", "codec", [])], build_dir="build/cython", include_path=["."],
                 compiler_directives=setup.DIRECTIVES, quiet=True)
build(name="planted", packages=[], ext_modules=made, script_args=["--quiet", "build_ext", "--build-lib", "planted"])
"""


def main(sdist: Path, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    sources, package = folder / "sources", folder / "package" / "xsave"
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    (folder / sdist.name.removesuffix(".tar.gz")).rename(sources)
    codec = sources / "cext" / "codec.pyx"
    text = codec.read_text()
    for before, after in PLANT:
        if text.count(before) != 1:
            raise SystemExit(f"plant.py: this stands {text.count(before)} times in {codec.name}:\n{before}")
        text = text.replace(before, after)
    codec.write_text(text)
    subprocess.run([sys.executable, "-c", BUILD], cwd=sources, check=True, env={**os.environ, "PYTHONSAFEPATH": "1"})
    found = importlib.util.find_spec("xsave")
    assert found is not None and found.origin is not None
    shutil.copytree(Path(found.origin).parent, package)
    for built in (sources / "planted" / "xsave").glob("codec*.so"):
        shutil.copy(built, package / built.name)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]).resolve())
