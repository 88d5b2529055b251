"""Every reason for which a test may be skipped, in one table; a skip for any other reason is an error.

A reason is `KIND: what is missing`. The kind lets a continuous-integration run judge the skip: `data` is wrong
where the data folder is there, `cpu` where the processor lists the instruction, `tool` where the run installs the
tool itself, `build` anywhere but in the portable build; `kernel` stands for what a kernel or a container may refuse.

Tests use the helpers, as a decorator or a statement: `@skips.needs_data()`, `skips.needs_tool("gdb")`.
"""

import functools
import importlib.util
import os
import platform
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest

from tests.paths import DATA


class Reason(str):
    """One reason; `kind` is what stands before its colon."""

    @property
    def kind(self) -> str:
        return self.partition(":")[0]


NO_DATA = Reason("data: the data folder (XSAVE_DATA) is not there")
PORTABLE = Reason("build: the portable build has no x86 code")
NOT_LINUX = Reason("kernel: not Linux")
NO_CORE = Reason("kernel: writes no core file here")
NO_PTRACE = Reason("kernel: refuses ptrace")
NO_AMX_PERMISSION = Reason("kernel: does not grant AMX tiles")
NO_KVM = Reason("kernel: /dev/kvm cannot be opened")
NO_SHADOW_STACK = Reason("kernel: grants no shadow stack")

# Flags of /proc/cpuinfo and commands that tests may ask for.
CPU_FLAGS = "xsave xsaveopt xsavec xgetbv1 xsaves avx avx2 avx512f avx512bw ospke amx_tile".split()
TOOLS = "cpuid gdb readelf eu-readelf xxd hexdump od gzip xz zstd lz4 gcc git make".split()
MODULES = ("backports.zstd", "lz4", "jsonschema")

CPU = {flag: Reason(f"cpu: no {flag}") for flag in CPU_FLAGS}
TOOL = {name: Reason(f"tool: no {name}") for name in TOOLS}
MODULE = {name: Reason(f"tool: no Python module {name}") for name in MODULES}

REASONS = frozenset(
    [
        *(value for value in list(globals().values()) if isinstance(value, Reason)),
        *CPU.values(),
        *TOOL.values(),
        *MODULE.values(),
    ]
)

Decorator = Callable[[Callable[..., object]], Callable[..., object]]


def skip(reason: Reason) -> NoReturn:
    """Skips the running test."""
    pytest.skip(reason)


class Need:
    """A condition that skips: as a statement at once, as a decorator when the test runs.

    Calling a helper inside a test skips right there; `@needs_...` must not skip the whole module while it is being
    imported, so outside a running test the helper only remembers.
    """

    def __init__(self, met: Callable[[], bool], reason: Reason) -> None:
        self.met = met
        self.reason = reason
        if "PYTEST_CURRENT_TEST" in os.environ and not met():
            skip(reason)

    def __call__(self, test: Callable[..., object]) -> Callable[..., object]:
        return pytest.mark.skipif(not self.met(), reason=str(self.reason))(test)  # type: ignore[no-any-return]


def needs_data() -> Need:
    """Needs the data folder. A single file that is missing although the folder is there is an error, not a skip."""
    return Need(DATA.is_dir, NO_DATA)


def needs_native() -> Need:
    """Needs the compiled x86 code, which the portable build leaves out."""
    return Need(has_native, PORTABLE)


def needs_cpu(flag: str) -> Need:
    """Needs the compiled x86 code and a flag of /proc/cpuinfo."""
    return needs_native() if not has_native() else Need(lambda: flag in cpu_flags(), CPU[flag])


def needs_amx() -> Need:
    """Needs a CPU with AMX tiles and a kernel that grants the permission to use them."""
    if not has_native() or "amx_tile" not in cpu_flags():
        return needs_cpu("amx_tile")
    return Need(amx_granted, NO_AMX_PERMISSION)


def needs_tool(name: str) -> Need:
    """Needs a command on PATH."""
    return Need(lambda: shutil.which(name) is not None, TOOL[name])


def needs_module(name: str) -> Need:
    """Needs an optional Python module."""
    return Need(lambda: has_module(name), MODULE[name])


def needs_linux() -> Need:
    """Needs Linux: ptrace, core files, /proc."""
    return Need(lambda: sys.platform == "linux", NOT_LINUX)


@functools.cache
def has_native() -> bool:
    """Whether the installed package has the compiled x86 code."""
    return importlib.util.find_spec("xsave._native") is not None


@functools.cache
def has_module(name: str) -> bool:
    parent, _, _ = name.rpartition(".")
    return (not parent or has_module(parent)) and importlib.util.find_spec(name) is not None


@functools.cache
def cpu_flags() -> frozenset[str]:
    """The flags that /proc/cpuinfo lists; none on another operating system or architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return frozenset()
    return frozenset(next((line.partition(":")[2].split() for line in lines if line.startswith("flags")), []))


@functools.cache
def amx_granted() -> bool:
    """Whether the kernel grants tile data; asked in a child, because the permission cannot be given back."""
    import subprocess

    if platform.machine() != "x86_64" or sys.platform != "linux":
        return False
    # arch_prctl(ARCH_REQ_XCOMP_PERM, 18)
    ask = "import ctypes, sys; sys.exit(ctypes.CDLL(None).syscall(158, 0x1023, 18) != 0)"
    return subprocess.run([sys.executable, "-c", ask], check=False).returncode == 0
