"""Every reason for which a test may be skipped, in one table; a skip for any other reason is an error.

A reason is `KIND: what is missing`. The kind lets a continuous-integration run judge the skip: `data` is wrong
where the data folder is there, `cpu` where the processor lists the instruction, `tool` where the run installs the
tool itself, `build` anywhere but in the portable build; `kernel` stands for what a kernel or a container may refuse.

Tests use the helpers as marks (`@skips.needs_data()`, `pytestmark = skips.needs_native()`) or as statements
(`skips.needs_tool("gdb")`); what only running shows (no core file, no ptrace) they say by `pytest.skip(skips.NO_CORE)`.
"""

import functools
import importlib.util
import os
import platform
import shutil
import sys
from pathlib import Path

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
OTHER_XCR0 = Reason("cpu: XCR0 is not that of the recorded cases")
HAS_AMX = Reason("cpu: has AMX")
NO_AMX_PERMISSION = Reason("kernel: does not grant AMX tiles")
NO_KVM = Reason("kernel: /dev/kvm cannot be opened")
NO_SHADOW_STACK = Reason("kernel: grants no shadow stack")
NO_DIAGNOSTICS = Reason("kernel: no dynamic linker with --list-diagnostics here")
NO_MINSIGSTKSZ = Reason("kernel: gives no AT_MINSIGSTKSZ")
NO_XCOMP = Reason("kernel: knows no permission for components")

NO_PEAK = Reason("kernel: no VmHWM in /proc/self/status")
SANITIZED = Reason("build: sanitizers are loaded, which need memory of their own")

# Flags of /proc/cpuinfo and commands that tests may ask for.
CPU_FLAGS = "xsave xsaveopt xsavec xgetbv1 xsaves avx avx2 avx512f avx512bw ospke amx_tile xsaveerptr".split()
TOOLS = "cpuid gdb readelf eu-readelf xxd hexdump od gzip xz zstd lz4 gcc git make".split()
MODULES = ("backports.zstd", "lz4", "jsonschema", "ml_dtypes")

CPU = {flag: Reason(f"cpu: no {flag}") for flag in CPU_FLAGS}
TOOL = {name: Reason(f"tool: no {name}") for name in TOOLS}
MODULE = {name: Reason(f"tool: no Python module {name}") for name in MODULES}

REASONS = frozenset(
    [
        *(value for value in globals().values() if isinstance(value, Reason)),
        *CPU.values(),
        *TOOL.values(),
        *MODULE.values(),
    ]
)


def _need(met: bool, reason: Reason) -> pytest.MarkDecorator:
    # Inside a running test or fixture the call itself skips; elsewhere the mark does when its test runs.
    if not met and "PYTEST_CURRENT_TEST" in os.environ:
        pytest.skip(reason)
    return pytest.mark.skipif(not met, reason=str(reason))


def needs_data() -> pytest.MarkDecorator:
    """Needs the data folder. A single file that is missing although the folder is there is an error, not a skip."""
    return _need(DATA.is_dir(), NO_DATA)


def needs_linux() -> pytest.MarkDecorator:
    """Needs Linux: ptrace, core files, /proc."""
    return _need(sys.platform == "linux", NOT_LINUX)


def needs_native() -> pytest.MarkDecorator:
    """Needs the compiled x86 code, which the portable build leaves out."""
    return _need(has_native(), PORTABLE)


def needs_cpu(flag: str) -> pytest.MarkDecorator:
    """Needs the compiled x86 code and a flag of /proc/cpuinfo."""
    return _need(flag in cpu_flags(), CPU[flag]) if has_native() else needs_native()


def needs_amx() -> pytest.MarkDecorator:
    """Needs a CPU with AMX tiles and a kernel that grants the permission to use them."""
    if not has_native() or "amx_tile" not in cpu_flags():
        return needs_cpu("amx_tile")
    return _need(amx_granted(), NO_AMX_PERMISSION)


def needs_peak_memory() -> pytest.MarkDecorator:
    """Needs the kernel's count of a process's peak memory."""
    return _need(has_peak(), NO_PEAK)


def needs_plain_build() -> pytest.MarkDecorator:
    """Needs a process without sanitizers."""
    return _need("san.so" not in os.environ.get("LD_PRELOAD", ""), SANITIZED)


def needs_tool(name: str) -> pytest.MarkDecorator:
    """Needs a command on PATH."""
    return _need(shutil.which(name) is not None, TOOL[name])


def needs_module(name: str) -> pytest.MarkDecorator:
    """Needs an optional Python module."""
    return _need(has_module(name), MODULE[name])


@functools.cache
def has_native() -> bool:
    """Whether the installed package has the compiled x86 code."""
    return importlib.util.find_spec("xsave._native") is not None


@functools.cache
def has_peak() -> bool:
    """Whether /proc/self/status has the high-water mark of resident memory."""
    try:
        return "VmHWM:" in Path("/proc/self/status").read_text()
    except OSError:
        return False


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
