"""Writes an ELF core from what ptrace gives of a live process (`xsave.host.live_threads`).

The notes have the kernel's order and contents: NT_PRSTATUS first, then that thread's NT_PRFPREG and NT_X86_XSTATE as
the kernel handed them out, NT_PRPSINFO after the first thread's status, NT_X86_XSAVE_LAYOUT last. There is no memory
and no segment but the notes: it is a core of registers.
"""

import os
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from xsave.host import LiveThread
    from xsave.models import CpuModel

__all__ = ["core_bytes", "write_core"]

_PRSTATUS, _PRFPREG, _PRPSINFO, _PRXFPREG, _XSTATE, _SHSTK, _LAYOUT = 1, 2, 3, 0x46E62B7F, 0x202, 0x204, 0x205


def write_core(
    path: "str | os.PathLike[str]",
    threads: "Sequence[LiveThread]",
    *,
    model: "CpuModel",
    pid: "int | None" = None,
    command: str = "",
    signal: int = 0,
) -> None:
    """Writes `core_bytes` of the same arguments to `path`, under a temporary name that is then renamed.

    Raises: `ValueError` as `core_bytes`; `OSError`.
    """
    data = core_bytes(threads, model=model, pid=pid, command=command, signal=signal)
    temporary = f"{os.fspath(path)}.{os.getpid()}.tmp"
    try:
        with open(temporary, "wb") as file:
            file.write(data)
        os.replace(temporary, path)
    except BaseException:
        if os.path.exists(temporary):
            os.unlink(temporary)
        raise


def core_bytes(
    threads: "Sequence[LiveThread]",
    *,
    model: "CpuModel",
    pid: "int | None" = None,
    command: str = "",
    signal: int = 0,
) -> bytes:
    """An ELF core of registers: `threads`, the first one as the thread that took `signal`.

    `model` is the CPU they ran on: its standard offsets become the NT_X86_XSAVE_LAYOUT note. `pid` defaults to the
    first thread's id, `command` to its name. A process whose first thread is in 32-bit code becomes an i386 core.
    Raises: `ValueError` without threads, or with threads of both kinds.
    """
    if not threads:
        raise ValueError("a core needs at least one thread")
    small = threads[0].is_32bit
    if any(thread.is_32bit != small for thread in threads):
        raise ValueError("threads in 32-bit and in 64-bit code do not share a core: write one for each kind")
    process = threads[0].tid if pid is None else pid
    notes = bytearray()
    for number, thread in enumerate(threads):
        notes += _note("CORE", _PRSTATUS, _prstatus(thread, process, signal if number == 0 else 0))
        if number == 0:
            notes += _note("CORE", _PRPSINFO, _prpsinfo(process, command or thread.name, small))
        if thread.fpregs:
            notes += _note("CORE", _PRFPREG, thread.fpregs)
        if thread.fxregs:
            notes += _note("LINUX", _PRXFPREG, thread.fxregs)
        if thread.xstate:
            notes += _note("LINUX", _XSTATE, thread.xstate)
        if thread.ssp is not None:
            notes += _note("LINUX", _SHSTK, struct.pack("<Q", thread.ssp))
    xstate = threads[0].xstate
    if xstate:
        notes += _note("LINUX", _LAYOUT, _layout(model, int.from_bytes(xstate[464:472], "little")))
    return _headers(len(notes), small) + bytes(notes)


def _note(owner: str, kind: int, data: bytes) -> bytes:
    name = owner.encode() + b"\0"
    padded = name.ljust((len(name) + 3) // 4 * 4, b"\0")
    return struct.pack("<III", len(name), len(data), kind) + padded + data.ljust((len(data) + 3) // 4 * 4, b"\0")


def _headers(notes: int, small: bool) -> bytes:
    # e_ident, e_type ET_CORE, e_machine EM_386 or EM_X86_64, one PT_NOTE right behind
    ident = b"\x7fELF" + bytes((1 if small else 2, 1, 1)) + bytes(9)
    if small:
        header = struct.pack("<HHIIIIIHHHHHH", 4, 3, 1, 0, 52, 0, 0, 52, 32, 1, 0, 0, 0)
        return ident + header + struct.pack("<IIIIIIII", 4, 52 + 32, 0, 0, notes, 0, 0, 4)
    header = struct.pack("<HHIQQQIHHHHHH", 4, 62, 1, 0, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    return ident + header + struct.pack("<IIQQQQQQ", 4, 0, 64 + 56, 0, 0, notes, 0, 4)


def _prstatus(thread: "LiveThread", pid: int, signal: int) -> bytes:
    # struct elf_prstatus: si_signo first, cursig at 12, pr_pid, pr_reg, pr_fpvalid last
    size, pid_at, registers_at, valid_at = (144, 24, 72, 140) if thread.is_32bit else (336, 32, 112, 328)
    status = bytearray(size)
    struct.pack_into("<i", status, 0, signal)
    struct.pack_into("<h", status, 12, signal)
    struct.pack_into("<ii", status, pid_at, thread.tid, 0)
    struct.pack_into("<i", status, pid_at + 8, pid)
    room = valid_at - registers_at
    status[registers_at:valid_at] = thread.prstatus[:room].ljust(room, b"\0")
    struct.pack_into("<i", status, valid_at, bool(thread.fpregs))
    return bytes(status)


def _prpsinfo(pid: int, command: str, small: bool) -> bytes:
    size, pid_at, name_at = (124, 12, 28) if small else (136, 24, 40)
    info = bytearray(size)
    info[1:2] = b"R"
    struct.pack_into("<i", info, pid_at, pid)
    name = command.encode(errors="replace")
    info[name_at : name_at + 16] = name[:15].ljust(16, b"\0")
    info[name_at + 16 : name_at + 96] = name[:79].ljust(80, b"\0")
    return bytes(info)


def _layout(model: "CpuModel", xcr0: int) -> bytes:
    # {type, size, offset, flags} of every enabled component that does not live in the legacy region
    entries = []
    for component, row in sorted(model.components.items()):
        if component >= 2 and xcr0 >> component & 1 and row.offset is not None:
            entries.append(struct.pack("<IIII", component, row.size, row.offset, 0))
    return b"".join(entries)
