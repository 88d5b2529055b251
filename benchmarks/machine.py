"""What machine a figure was taken on: a figure without it says nothing."""

import datetime
import os
import platform
import shutil
import subprocess
import time
from pathlib import Path
from types import ModuleType


def _lines(path: str) -> "list[str]":
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []


def _cpuinfo() -> "dict[str, str]":
    found: "dict[str, str]" = {}
    for line in _lines("/proc/cpuinfo"):
        key, colon, value = line.partition(":")
        if colon:
            found.setdefault(key.strip(), value.strip())
    return found


def _caches() -> "dict[str, str]":
    found = {}
    for folder in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        level, kind, size = ((folder / name).read_text().strip() for name in ("level", "type", "size"))
        found[f"L{level} {kind}"] = size
    return found


def _tunables() -> "dict[str, int]":
    # glibc's own word on when it streams: `ld.so --list-tunables`.
    loader = next(
        (path for path in ("/lib64/ld-linux-x86-64.so.2", "/lib/ld-linux-x86-64.so.2") if os.path.exists(path)), None
    )
    if loader is None:
        return {}
    text = subprocess.run([loader, "--list-tunables"], capture_output=True, text=True).stdout
    wanted = ("x86_non_temporal_threshold", "x86_rep_movsb_threshold", "x86_shared_cache_size")
    found = {}
    for line in text.splitlines():
        name, _, rest = line.partition(":")
        if name.rpartition(".")[2] in wanted:
            found[name.rpartition(".")[2]] = int(rest.split()[0], 0)
    return found


def _tsc(native: ModuleType) -> "dict[str, float]":
    step = native.tsc_step()
    start, begin = native.tsc(), time.perf_counter()
    time.sleep(0.02)
    rate = (native.tsc() - start) / (time.perf_counter() - begin)
    return {"GHz": round(rate / 1e9, 3), "step_ns": round(step / rate * 1e9, 2)} if rate else {}


def describe(native: ModuleType) -> "dict[str, object]":
    """CPU, caches, kernel, libraries and load, as they are now."""
    import numpy

    import xsave

    info = _cpuinfo()
    gdb = shutil.which("gdb")
    version = subprocess.run([gdb, "--version"], capture_output=True, text=True).stdout.splitlines()[:1] if gdb else []
    return {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "cpu": info.get("model name", platform.processor()),
        "vendor": info.get("vendor_id", "unknown"),
        "family": int(info.get("cpu family", 0)),
        "model": int(info.get("model", 0)),
        "hypervisor": "hypervisor" in info.get("flags", ""),
        "flags": [
            flag
            for flag in info.get("flags", "").split()
            if flag.startswith(("avx512", "xsave", "amx", "xgetbv1", "erms", "fsrm"))
        ],
        "cpus": os.cpu_count(),
        "xcr0": f"{native.xcr0():#x}",
        "caches": _caches(),
        "tsc": _tsc(native),
        "memory_available": _available(),
        "huge_pages": "".join(_lines("/sys/kernel/mm/transparent_hugepage/enabled")),
        "kernel": f"{platform.system()} {platform.release()}",
        "libc": " ".join(platform.libc_ver()),
        "tunables": _tunables(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "numpy": numpy.__version__,
        "gdb": version[0] if version else None,
        "xsave": xsave.__version__,
        "load_average": os.getloadavg()[0],
    }


def _available() -> int:
    for line in _lines("/proc/meminfo"):
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return 0


def summary(machine: "dict[str, object]") -> str:
    """The machine in two lines."""
    tunables = machine["tunables"]
    threshold = tunables.get("x86_non_temporal_threshold", 0) if isinstance(tunables, dict) else 0
    caches = machine["caches"]
    sizes = (
        " ".join(f"{name.replace(' Unified', '')} {size}" for name, size in caches.items())
        if isinstance(caches, dict)
        else ""
    )
    tsc = machine["tsc"]
    steps = tsc.get("step_ns", "?") if isinstance(tsc, dict) else "?"
    return (
        f"{machine['cpu']} ({machine['vendor']}, family {machine['family']} model {machine['model']}), "
        f"{machine['cpus']} CPUs, XCR0 {machine['xcr0']}, "
        f"{sizes}, TSC steps of {steps} ns\n"
        f"{machine['kernel']}, {machine['libc']} (x86_non_temporal_threshold {threshold / 2**20:.0f} MiB), "
        f"{machine['python']}, numpy "
        f"{machine['numpy']}, {machine['gdb']}, load {machine['load_average']:.1f}, {machine['date']}"
    )
