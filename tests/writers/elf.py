"""Writes ELF cores as kernels and debuggers do, from nothing but `formats.md`'s numbers; no import from xsave."""

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

PRSTATUS, FPREGSET, PRPSINFO, AUXV, SIGINFO, FILE = 1, 2, 3, 6, 0x53494749, 0x46494C45
PRXFPREG, TLS, XSTATE, SHSTK, LAYOUT = 0x46E62B7F, 0x200, 0x202, 0x204, 0x205
EM_386, EM_X86_64 = 3, 62
PN_XNUM = 0xFFFF

X86_64 = ("r15 r14 r13 r12 rbp rbx r11 r10 r9 r8 rax rcx rdx rsi rdi orig_rax rip cs eflags rsp ss fs_base gs_base "
          "ds es fs gs").split()
I386 = "ebx ecx edx esi edi ebp eax ds es fs gs orig_eax eip cs eflags esp ss".split()


def note(name: bytes, kind: int, desc: bytes, *, namesz: int | None = None, descsz: int | None = None) -> bytes:
    """One note record; `namesz` and `descsz` lie when given."""
    full = name + b"\0"
    header = struct.pack("<III", len(full) if namesz is None else namesz, len(desc) if descsz is None else descsz, kind)
    return header + full + b"\0" * (-len(full) % 4) + desc + b"\0" * (-len(desc) % 4)


@dataclass
class Thread:
    """One thread of a core to be written."""

    tid: int = 1000
    signal: int = 0
    gpr: dict[str, int] = field(default_factory=dict)
    xstate: bytes | None = None
    fpregs: bytes | None = None
    prxfpreg: bytes | None = None
    ssp: int | None = None
    extra: bytes = b""

    def prstatus(self, abi: str, elf_class: int) -> bytes:
        wide = elf_class == 2
        size = {("x86-64", True): 336, ("i386", False): 144, ("x32", False): 296, ("i386", True): 336}[abi, wide]
        out = bytearray(size)
        struct.pack_into("<i", out, 0, self.signal)
        struct.pack_into("<H", out, 12, self.signal)
        struct.pack_into("<I", out, 32 if wide else 24, self.tid)
        names, form = (I386, "I") if abi == "i386" else (X86_64, "Q")
        values = [self.gpr.get(name, 0) for name in names]
        struct.pack_into(f"<{len(names)}{form}", out, 112 if wide else 72, *values)
        return bytes(out)


def layout_note(entries: Iterable[tuple[int, int, int]]) -> bytes:
    return b"".join(struct.pack("<IIII", kind, size, offset, 0) for kind, size, offset in entries)


def prpsinfo(name: bytes, wide: bool) -> bytes:
    out = bytearray(136 if wide else 124)
    at = 40 if wide else 28
    out[at : at + 16] = name[:15].ljust(16, b"\0")
    return bytes(out)


def auxv(values: dict[int, int], wide: bool) -> bytes:
    form = "<QQ" if wide else "<II"
    return b"".join(struct.pack(form, *pair) for pair in values.items()) + struct.pack(form, 0, 0)


def thread_notes(thread: Thread, abi: str, elf_class: int, process: bytes = b"", after: bytes = b"") -> bytes:
    parts = [note(b"CORE", PRSTATUS, thread.prstatus(abi, elf_class)), process]
    if thread.fpregs is not None:
        parts.append(note(b"CORE", FPREGSET, thread.fpregs))
    if thread.prxfpreg is not None:
        parts.append(note(b"LINUX", PRXFPREG, thread.prxfpreg))
    if thread.xstate is not None:
        parts.append(note(b"LINUX", XSTATE, thread.xstate))
    if thread.ssp is not None:
        parts.append(note(b"LINUX", SHSTK, struct.pack("<Q", thread.ssp)))
    return b"".join([*parts, thread.extra, after])


def linux_notes(
    threads: Sequence[Thread],
    *,
    abi: str = "x86-64",
    elf_class: int | None = None,
    layout: Iterable[tuple[int, int, int]] | bytes | None = None,
    name: bytes = b"prog",
    aux: dict[int, int] | None = None,
) -> bytes:
    """Notes in the kernel's order: process-wide ones behind the first PRSTATUS, the layout note last."""
    elf_class = elf_class or (2 if abi == "x86-64" else 1)
    wide = elf_class == 2
    process = note(b"CORE", PRPSINFO, prpsinfo(name, wide)) + note(b"CORE", SIGINFO, bytes(128))
    if aux is not None:
        process += note(b"CORE", AUXV, auxv(aux, wide))
    process += note(b"CORE", FILE, b"\0" * 33)
    parts = [thread_notes(thread, abi, elf_class, process if i == 0 else b"") for i, thread in enumerate(threads)]
    if layout is not None:
        parts.append(note(b"LINUX", LAYOUT, layout if isinstance(layout, bytes) else layout_note(layout)))
    return b"".join(parts)


def gcore_notes(threads: Sequence[Thread], *, abi: str = "x86-64", aux: dict[int, int] | None = None) -> bytes:
    """Notes in gdb's order: PRPSINFO first, AUXV, FILE and the target description last."""
    elf_class = 2 if abi == "x86-64" else 1
    parts = [note(b"CORE", PRPSINFO, prpsinfo(b"prog", elf_class == 2))]
    parts += [thread_notes(thread, abi, elf_class, after=note(b"CORE", SIGINFO, bytes(128))) for thread in threads]
    if aux is not None:
        parts.append(note(b"CORE", AUXV, auxv(aux, elf_class == 2)))
    parts += [note(b"CORE", FILE, b"\0" * 31), note(b"GDB", 0xFF000000, b"<target/>")]
    return b"".join(parts)


def freebsd_notes(threads: Sequence[Thread], *, abi: str = "x86-64", name: bytes = b"prog") -> bytes:
    wide = abi == "x86-64"
    info = bytearray(120 if wide else 112)
    info[(at := 16 if wide else 8) : at + len(name)] = name
    parts = [note(b"FreeBSD", 3, bytes(info))]
    for thread in threads:
        status = bytearray(224 if wide else 104)
        struct.pack_into("<i", status, 36 if wide else 20, thread.signal)
        struct.pack_into("<i", status, 40 if wide else 24, thread.tid)
        if wide:
            struct.pack_into("<Q", status, 48 + 136, thread.gpr.get("rip", 0))
            struct.pack_into("<Q", status, 48 + 160, thread.gpr.get("rsp", 0))
            struct.pack_into("<Q", status, 48 + 112, thread.gpr.get("rax", 0))
        else:
            struct.pack_into("<I", status, 28 + 4 * 13, thread.gpr.get("eip", 0))
            struct.pack_into("<I", status, 28 + 4 * 10, thread.gpr.get("eax", 0))
        parts.append(note(b"FreeBSD", 1, bytes(status)))
        if thread.fpregs is not None:
            parts.append(note(b"FreeBSD", 2, thread.fpregs))
        parts.append(note(b"FreeBSD", 7, b"worker".ljust(24, b"\0")))
        if thread.xstate is not None:
            parts.append(note(b"FreeBSD", 0x202, thread.xstate))
    return b"".join(parts)


def netbsd_notes(threads: Sequence[Thread], *, abi: str = "x86-64", name: bytes = b"prog") -> bytes:
    info = bytearray(160)
    struct.pack_into("<I", info, 8, threads[0].signal)
    info[124 : 124 + len(name)] = name
    struct.pack_into("<I", info, 156, threads[0].tid)
    parts = [note(b"NetBSD-CORE", 1, bytes(info)), note(b"NetBSD-CORE", 2, bytes(64))]
    for thread in threads:
        owner = b"NetBSD-CORE@%d" % thread.tid
        regs = bytearray(208 if abi == "x86-64" else 64)
        if abi == "x86-64":
            struct.pack_into("<Q", regs, 8 * 21, thread.gpr.get("rip", 0))
        else:
            struct.pack_into("<I", regs, 4 * 8, thread.gpr.get("eip", 0))
        parts.append(note(owner, 0x21, bytes(regs)))
        if thread.fpregs is not None:
            parts.append(note(owner, 0x23, thread.fpregs))
    return b"".join(parts)


def core(
    notes: bytes,
    memory: Sequence[tuple[int, bytes]] = (),
    *,
    elf_class: int = 2,
    machine: int = EM_X86_64,
    notes_last: bool = False,
    phnum: int | None = None,
    notes_size: int | None = None,
    kind: int = 4,
) -> bytes:
    """A core file: `memory` is (address, bytes) a segment; `phnum` PN_XNUM adds segments up to that count."""
    wide = elf_class == 2
    ehdr, phdr = (64, 56) if wide else (52, 32)
    extra = 0 if phnum is None else phnum - 1 - len(memory)
    count = 1 + len(memory) + extra
    start = ehdr + phdr * count
    blob = b"".join(data for _, data in memory)
    gap = -(start + (0 if notes_last else len(notes))) % 4096 if memory else 0
    if notes_last:
        memory_at, notes_at = start + gap, start + gap + len(blob)
    else:
        notes_at, memory_at = start, start + len(notes) + gap

    def program_header(kind: int, offset: int, address: int, filesz: int, memsz: int) -> bytes:
        if wide:
            return struct.pack("<IIQQQQQQ", kind, 4, offset, address, 0, filesz, memsz, 0)
        return struct.pack("<IIIIIIII", kind, offset, address, 0, filesz, memsz, 4, 0)

    table = [program_header(4, notes_at, 0, len(notes) if notes_size is None else notes_size, 0)]
    at = memory_at
    for address, data in memory:
        table.append(program_header(1, at, address, len(data), len(data)))
        at += len(data)
    table += [program_header(1, 0, 0x1000 * i, 0, 4096) for i in range(extra)]
    body = b"".join(table)
    body += b"\0" * gap + blob + notes if notes_last else notes + b"\0" * gap + blob
    many = count >= PN_XNUM
    shoff = ehdr + len(body) if many else 0
    ident = b"\x7fELF" + bytes((elf_class, 1, 1)) + bytes(9)
    header = struct.pack(
        "<HHIQQQIHHHHHH" if wide else "<HHIIIIIHHHHHH",
        kind, machine, 1, 0, ehdr, shoff, 0, ehdr, phdr, PN_XNUM if many else count, many * (64 if wide else 40),
        int(many), 0,
    )
    if many:
        section = bytearray(64 if wide else 40)
        struct.pack_into("<I", section, 44 if wide else 28, count)
        body += bytes(section)
    return ident + header + body


def shifted(image: bytes, offsets: Sequence[tuple[int, int, int]] = ()) -> bytes:
    """A standard area as kernels of mid-2020 wrote it: XMM at component 2's offset, everything behind it moved.

    `offsets` are the (component, size, offset) >= 2 of its layout; the note is cut at the area's own size.
    """
    xcr0, xstate_bv = struct.unpack_from("<Q", image, 464)[0], struct.unpack_from("<Q", image, 512)[0]
    out = bytearray(image[:160]) + bytes(512 - 160)
    out += struct.pack("<QQ", 0, 1 << 63 | xcr0) + bytes(48)
    out += image[160:416] + image[464:512] + image[512:576]
    for component, size, offset in sorted(offsets, key=lambda each: each[2]):
        if xstate_bv >> component & 1:
            out += bytes(max(offset - len(out), 0)) + image[offset : offset + size]
    return bytes(out[: len(image)].ljust(len(image), b"\0"))
