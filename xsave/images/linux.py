"""Linux cores: NT_PRSTATUS, NT_PRPSINFO and NT_X86_SHSTK of x86-64, i386 and x32, kernel's and debugger's."""

from struct import calcsize, unpack_from

from xsave.images.core import PRPSINFO, PRSTATUS, SHSTK, CoreImage, Dialect
from xsave.images.elf import EM_386, ElfFile
from xsave.images.image import Header

__all__ = ["Linux"]

_X86_64 = ("r15 r14 r13 r12 rbp rbx r11 r10 r9 r8 rax rcx rdx rsi rdi orig_rax rip cs eflags rsp ss fs_base gs_base "
           "ds es fs gs").split()
_I386 = "ebx ecx edx esi edi ebp eax ds es fs gs orig_eax eip cs eflags esp ss".split()
_SEGMENTS = frozenset("cs ss ds es fs gs".split())
_CURSIG = 12
# Where `pr_fname` (16 bytes) lies in NT_PRPSINFO, by the note's size.
_FNAME = {136: 40, 124: 28, 128: 32}


class Linux(Dialect):
    """The kernel picks the notes' form by the code segment of the dying thread, so ELFCLASS64 may hold i386 notes."""

    os = "Linux"

    def __init__(self, elf: ElfFile) -> None:
        wide = elf.elf_class == 2
        if elf.machine == EM_386:
            self.abi = "i386"
        else:
            self.abi = "x86-64" if wide else "x32"
        self._registers = 112 if wide else 72
        self._names = _I386 if self.abi == "i386" else _X86_64
        # Segment registers are two bytes each; i386 leaves the other two as they were.
        whole, part = ("I", "H2x") if self.abi == "i386" else ("Q", "H6x")
        self._form = "<" + "".join([part if name in _SEGMENTS else whole for name in self._names])
        self._end = self._registers + calcsize(self._form)
        self._pc = "eip" if self.abi == "i386" else "rip"

    def header(self, core: CoreImage, index: int) -> Header:
        status = core.find(index, PRSTATUS) or b""
        signal = unpack_from("<H", status, _CURSIG)[0] if len(status) >= _CURSIG + 2 else 0
        gpr: "dict[str, int]" = {}
        if len(status) >= self._end:
            gpr = dict(zip(self._names, unpack_from(self._form, status, self._registers), strict=True))
        pc = gpr.get(self._pc)
        stack = core.find(index, SHSTK, 8)
        ssp = unpack_from("<Q", stack)[0] if stack is not None and len(stack) == 8 else None
        crashed = index == 0 and signal != 0
        return Header(self._name(core), signal or None, pc, crashed, gpr, ssp)

    def _name(self, core: CoreImage) -> str:
        if core._name is None:
            info = core.find_any(PRPSINFO) or b""
            at = _FNAME.get(len(info))
            core._name = "" if at is None else info[at : at + 16].partition(b"\0")[0].decode("utf-8", "replace")
        return core._name
