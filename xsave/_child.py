"""The child process of `xsave tour` and of the tests: threads that hold known registers. Serves `xsave.host` only.

The constants are a formula, so that whoever reads the registers back can compute them. Register number `index` of
family `family` in thread `thread` consists of 32-bit lanes, in memory order,

    lane(j) = ((thread << 16 | family << 13 | index << 8 | j) * 0x9E3779B1) mod 2**32

so no lane of any register of any thread equals another. Families: 1 st, 2 vector registers, 3 k, 4 tmm, 5 r16-r31,
6 pkru. On top of that:

- vector register 0 holds sixteen f32: 1000 * thread + j + 0.5 in lane j;
- st(i) is a normal number: bit 63 of the significand set; sign and exponent
  (i & 1) << 15 | 0x3FF0 + 2 * i + thread % 8;
- fcw = 0x37F | (thread & 3) << 10 and mxcsr = 0x1F80 | (thread & 3) << 13 | (5 * thread + 1 & 0x3F): rounding modes
  and sticky flags differ, every exception stays masked; fsw = 0, ftw = 0xFF;
- pkru keeps key 0 open: its low two bits are 0;
- without AVX512BW opmask registers have 16 bits;
- tile n has 16 - (n + thread) % 8 rows of 64 - 4 * ((3 * n + thread) % 8) bytes: lanes are those of whole rows of 64
  bytes, and bytes outside the shape are 0; tilecfg is palette 1 with these shapes.
"""

import mmap
import os
import signal
import struct
import time

from xsave.errors import HostError, UnsupportedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType
    from typing import Self

__all__ = ["Child", "expected_registers", "native", "registers_in"]

_ST, _VECTOR, _K, _TMM, _R, _PKRU = 1, 2, 3, 4, 5, 6
_AVX, _OPMASK, _ZMM_HI256, _HI16_ZMM, _PKRU_BIT, _TILECFG, _TILEDATA, _APX = 2, 5, 6, 7, 9, 17, 18, 19
_FAILURES = {1: "its signal stack", 2: "stacks for its threads", 3: "a thread", 4: "its working directory"}


def native() -> "ModuleType":
    """The compiled module `xsave._native`. Raises: `UnsupportedError` in a portable build, which has none."""
    try:
        from xsave import _native
    except ImportError as error:
        raise UnsupportedError(
            f"xsave._native is not in this build (x86-64 Linux only, not with XSAVE_PORTABLE=1): {error}"
        ) from None
    return _native


def _lanes(thread: int, family: int, index: int, size: int) -> bytes:
    base = thread << 16 | family << 13 | index << 8
    lanes = [(base | j) * 0x9E3779B1 & 0xFFFFFFFF for j in range((size + 3) // 4)]
    return struct.pack(f"<{len(lanes)}I", *lanes)[:size]


def _st(thread: int, index: int) -> bytes:
    significand = int.from_bytes(_lanes(thread, _ST, index, 8), "little") | 1 << 63
    return struct.pack("<QH", significand, (index & 1) << 15 | 0x3FF0 + 2 * index + thread % 8)


def _vector(thread: int, index: int) -> bytes:
    if index == 0:
        return struct.pack("<16f", *(1000 * thread + j + 0.5 for j in range(16)))
    return _lanes(thread, _VECTOR, index, 64)


def _shape(thread: int, index: int) -> "tuple[int, int]":
    return 16 - (index + thread) % 8, 64 - 4 * ((3 * index + thread) % 8)


def _tilecfg(thread: int) -> bytes:
    shapes = [_shape(thread, index) for index in range(8)]
    config = bytearray(64)
    config[0] = 1
    struct.pack_into("<8H", config, 16, *(colsb for _, colsb in shapes))
    config[48:56] = bytes(rows for rows, _ in shapes)
    return bytes(config)


def _tile(thread: int, index: int) -> bytes:
    rows, colsb = _shape(thread, index)
    whole = _lanes(thread, _TMM, index, 64 * rows)
    data = b"".join(whole[64 * row : 64 * row + colsb].ljust(64, b"\0") for row in range(rows))
    return data.ljust(1024, b"\0")


def expected_registers(thread: int, xcr0: int, amx: bool = False, *, kmovq: bool = True) -> "dict[str, int | bytes]":
    """What thread number `thread` of a `Child` holds, in the names of `xsave.decode`.

    `xcr0` decides which registers there are, `amx` whether the kernel let the child use tiles, `kmovq` whether the
    CPU has AVX512BW. FIP, FDP and FOP are left out: they are the loader's own.
    """
    values: "dict[str, int | bytes]" = {
        "fcw": 0x37F | (thread & 3) << 10,
        "fsw": 0,
        "ftw": 0xFF,
        "mxcsr": 0x1F80 | (thread & 3) << 13 | 5 * thread + 1 & 0x3F,
    }
    values |= {f"st{i}": _st(thread, i) for i in range(8)}
    name, width = "xmm", 16
    if xcr0 >> _ZMM_HI256 & 1:
        name, width = "zmm", 64
    elif xcr0 >> _AVX & 1:
        name, width = "ymm", 32
    values |= {f"{name}{i}": _vector(thread, i)[:width] for i in range(16)}
    if xcr0 >> _HI16_ZMM & 1:
        values |= {f"zmm{i}": _vector(thread, i) for i in range(16, 32)}
    if xcr0 >> _OPMASK & 1:
        size = 8 if kmovq else 2
        values |= {f"k{i}": int.from_bytes(_lanes(thread, _K, i, size), "little") for i in range(8)}
    if xcr0 >> _PKRU_BIT & 1:
        values["pkru"] = int.from_bytes(_lanes(thread, _PKRU, 0, 4), "little") & ~3
    if amx and xcr0 >> _TILEDATA & 1:
        values["tilecfg"] = _tilecfg(thread)
        values |= {f"tmm{i}": _tile(thread, i) for i in range(8)}
    if xcr0 >> _APX & 1:
        values |= {f"r{16 + i}": int.from_bytes(_lanes(thread, _R, i, 8), "little") for i in range(16)}
    return values


def _register_file(thread: int) -> bytes:
    """One register file of `_native`, with every register that there could be: the assembly takes what it can."""
    layout = native().REGISTER_FILE
    file = bytearray(native().REGISTER_FILE_SIZE)
    everything = 1 << _AVX | 7 << _OPMASK | 1 << _PKRU_BIT | 3 << _TILECFG | 1 << _APX
    values = expected_registers(thread, everything, True)
    struct.pack_into("<H", file, 0, values["fcw"])
    struct.pack_into("<I", file, 24, values["mxcsr"])
    for name, value in values.items():
        family = name.rstrip("0123456789")
        index = int(name[len(family) :] or 0) - (16 if family == "r" else 0)
        if family == "st":
            offset, size, step = 32, 10, 16
        elif family in layout:
            offset, size, _ = layout[family]
            step = size
        else:
            continue
        data = value.to_bytes(size, "little") if isinstance(value, int) else value
        file[offset + step * index : offset + step * index + size] = data
    return bytes(file)


def registers_in(file: bytes, xcr0: int, amx: bool = False) -> "dict[str, int | bytes]":
    """The registers of a register file of `_native` (see `_native.xrstor_reads`), in the names of `xsave.decode`.

    `xcr0` and `amx` as in `expected_registers`; FXSAVE's control words, pointers and st0-7 come from its x87 part.
    """
    layout = native().REGISTER_FILE

    def piece(family: str, index: int = 0, width: "int | None" = None) -> bytes:
        offset, size, _ = layout[family]
        return file[offset + size * index :][: width or size]

    fcw, fsw, ftw, fop, fip, fdp = struct.unpack_from("<HHBxHQQ", file)
    values: "dict[str, int | bytes]" = {
        "fcw": fcw, "fsw": fsw, "ftw": ftw, "fop": fop, "fip": fip, "fdp": fdp,
        "mxcsr": int.from_bytes(piece("mxcsr"), "little"),
    }  # fmt: skip
    values |= {f"st{i}": file[32 + 16 * i : 42 + 16 * i] for i in range(8)}
    for name in expected_registers(0, xcr0, amx):
        family = name.rstrip("0123456789")
        if family in ("zmm", "ymm", "xmm"):
            values[name] = piece("zmm", int(name[3:]), {"zmm": 64, "ymm": 32, "xmm": 16}[family])
        elif family in ("k", "r"):
            index = int(name[1:]) - (16 if family == "r" else 0)
            values[name] = int.from_bytes(piece(family, index), "little")
        elif family == "pkru":
            values[name] = int.from_bytes(piece(family), "little")
        elif family in ("tilecfg", "tmm"):
            values[name] = piece(family, int(name[len(family) :] or 0))
    if xcr0 >> _TILECFG & 1:
        values["tilecfg"] = piece("tilecfg")
    return values


class Child:
    """A running child whose `threads` threads hold `expected(i)`; a context manager that ends it.

    It never returns to the interpreter, asks for AMX on its own, has `directory` as its working directory (cores land
    there), and dies with the thread that started it or after `lifetime` seconds. `spin` keeps its threads on the CPU,
    otherwise they wait in the kernel; `memory` lets its core contain memory. Raises: `HostError`, `UnsupportedError`.
    """

    def __init__(
        self,
        threads: int = 3,
        *,
        directory: "str | os.PathLike[str]",
        spin: bool = False,
        memory: bool = False,
        lifetime: int = 120,
    ) -> None:
        self._native = native()
        self.directory = os.fspath(directory)
        self.xcr0: int = self._native.xgetbv(0)
        self._kmovq = bool(self._native.abilities()["kmovq"])
        self._state = mmap.mmap(-1, self._native.CHILD_STATE_SIZE)
        files = mmap.mmap(-1, threads * self._native.REGISTER_FILE_SIZE)
        for thread in range(threads):
            files.write(_register_file(thread))
        self._started = time.time()
        self.status: "int | None" = None
        self.pid: int = self._native.child_start(
            self._state,
            files,
            spin=spin,
            directory=os.fsencode(self.directory),
            coredump_filter=b"0x33" if memory else b"0x0",
            lifetime=lifetime,
        )
        try:
            self._await_threads(threads, 20.0)
        except BaseException:
            self.close()
            raise
        finally:
            files.close()

    def _await_threads(self, threads: int, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while True:
            ready, failed, where, permission, tiles, tids = self._native.child_status(self._state)
            if ready >= threads:
                break
            if failed or self._reap(0.0) or time.monotonic() > deadline:
                what = _FAILURES.get(where, f"{ready} of {threads} threads ready, wait status {self.status}")
                why = os.strerror(failed) if failed else "no error"
                raise HostError(failed, f"the child did not get {what}: {why}")
            time.sleep(0.0005)
        self.tids: "list[int]" = tids
        self.tiles: bool = tiles
        # 0 granted, a negative errno refused, 1 this CPU or kernel has no tiles
        self.permission: int = permission

    def expected(self, thread: int) -> "dict[str, int | bytes]":
        """The constants of thread `thread` (0 is the one that crashes)."""
        return expected_registers(thread, self.xcr0, self.tiles, kmovq=self._kmovq)

    def _reap(self, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while self.status is None:
            try:
                pid, status = os.waitpid(self.pid, os.WNOHANG)
            except ChildProcessError:  # reaped by someone who waits for every child
                pid, status = self.pid, 0
            if pid:
                self.status = status
            elif time.monotonic() >= deadline:
                return False
            else:
                time.sleep(0.001)
        return True

    def crash(self, seconds: float = 60.0) -> "tuple[str | None, str]":
        """Has the first thread execute UD2; the path of the core that the kernel wrote, or None and the reason."""
        self._native.child_crash(self._state)
        if not self._reap(seconds):
            return None, f"the child did not end within {seconds:g} s"
        status = self.status or 0
        if not os.WIFSIGNALED(status) or os.WTERMSIG(status) != signal.SIGILL:
            return None, f"the child ended with wait status {status:#x} instead of SIGILL"
        return find_core(self.directory, self.pid, self._started, dumped=os.WCOREDUMP(status))

    def close(self) -> None:
        """Kills and reaps the child."""
        if self.status is None:
            os.kill(self.pid, signal.SIGKILL)
            self._reap(10.0)

    def __enter__(self) -> "Self":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _setting(name: str) -> str:
    try:
        with open(f"/proc/sys/kernel/{name}", errors="replace") as file:
            return file.read().rstrip("\n")
    except OSError:
        return ""


def find_core(directory: str, pid: int, since: float, *, dumped: bool) -> "tuple[str | None, str]":
    """The core of process `pid`, which had `directory` as its working directory, or None and why there is none."""
    import glob
    import re

    pattern = _setting("core_pattern")
    if pattern.startswith("|"):
        return None, f"/proc/sys/kernel/core_pattern pipes cores to {pattern[1:].split(' ')[0]}"
    if not dumped:
        import resource

        hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
        if hard == 0:
            return None, "the hard limit of RLIMIT_CORE is 0"
        return None, f"the kernel wrote none (core_pattern {pattern!r}, hard limit {hard}; no room, no write access?)"
    # %p and the like become wildcards, %% a percent sign; what stands between is taken literally
    parts = re.split(r"(%.)", pattern)
    wild = "".join("%" if p == "%%" else "*" if p[:1] == "%" else glob.escape(p) for p in parts)
    found = []
    for path in glob.glob(os.path.join(glob.escape(directory), wild + "*")):
        with open(path, "rb") as file:
            is_core = file.read(17)[:4] == b"\x7fELF"
        if is_core and os.stat(path).st_mtime >= since - 2 and ("%p" not in pattern or str(pid) in path):
            found.append((os.stat(path).st_mtime, path))
    if not found:
        return None, f"the kernel says that it wrote one, but there is no {os.path.join(directory, pattern)}"
    return max(found)[1], ""
