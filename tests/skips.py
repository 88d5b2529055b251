"""Every reason for which a test may skip, in one table; nothing else skips."""

import importlib.util
import shutil

import pytest

from tests.paths import DATA

REASONS = {
    "data": f"no data folder at {DATA} (set XSAVE_DATA)",
    "cpuid": "no cpuid tool (Debian package cpuid)",
    "native": "portable build: no native module",
    "layout": "no compiled module xsave.layout",
}


def _has(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


no_data = pytest.mark.skipif(not DATA.is_dir(), reason=REASONS["data"])
no_cpuid = pytest.mark.skipif(shutil.which("cpuid") is None, reason=REASONS["cpuid"])
no_native = pytest.mark.skipif(not _has("xsave._native"), reason=REASONS["native"])
no_layout = pytest.mark.skipif(not _has("xsave.layout"), reason=REASONS["layout"])
