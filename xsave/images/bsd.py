"""FreeBSD and NetBSD cores: their thread notes. NetBSD keeps no XSTATE, only the legacy registers."""

from struct import unpack_from

from xsave.images.core import BSD_INFO, BSD_STATUS, BSD_THREAD, NET_INFO, NET_REGS, CoreImage, Dialect
from xsave.images.elf import EM_386, ElfFile
from xsave.images.image import Header

__all__ = ["FreeBSD", "NetBSD"]

_FREE_64 = "r15 r14 r13 r12 r11 r10 r9 r8 rdi rsi rbp rbx rdx rcx rax".split()
_FREE_32 = "fs es ds edi esi ebp isp ebx edx ecx eax trapno err eip cs eflags esp ss gs".split()
_NET_64 = ("rdi rsi rdx rcx r8 r9 r10 r11 r12 r13 r14 r15 rbp rbx rax gs fs es ds trapno err rip cs eflags rsp "
           "ss").split()
_NET_32 = "eax ecx edx ebx esp ebp esi edi eip eflags cs ss ds es fs gs".split()
_INTERNAL = frozenset(("trapno", "err", "isp"))


def _text(data: bytes) -> str:
    return data.partition(b"\0")[0].decode("utf-8", "replace")


class FreeBSD(Dialect):
    """`NT_PRSTATUS` of FreeBSD: its first thread is the one that died; each has a name of its own."""

    os = "FreeBSD"
    fpregs = "NT_FPREGSET"

    def __init__(self, elf: ElfFile) -> None:
        self._wide = elf.elf_class == 2
        self.abi = "i386" if elf.machine == EM_386 else "x86-64"

    def header(self, core: CoreImage, index: int) -> Header:
        status = core.find(index, BSD_STATUS) or b""
        gpr: "dict[str, int]" = {}
        signal = 0
        if self._wide and len(status) >= 224:
            signal = unpack_from("<i", status, 36)[0]
            gpr = dict(zip(_FREE_64, unpack_from("<15Q", status, 48), strict=True))
            gpr["fs"], gpr["gs"] = unpack_from("<HH", status, 48 + 124)
            gpr["es"], gpr["ds"] = unpack_from("<HH", status, 48 + 132)
            gpr.update(zip(("rip", "cs", "eflags", "rsp", "ss"), unpack_from("<5Q", status, 48 + 136), strict=True))
        elif not self._wide and len(status) >= 104:
            signal = unpack_from("<i", status, 20)[0]
            values = zip(_FREE_32, unpack_from("<19I", status, 28), strict=True)
            gpr = {name: value for name, value in values if name not in _INTERNAL}
        pc = gpr.get("rip", gpr.get("eip"))
        return Header(self._name(core, index), signal if signal > 0 else None, pc, index == 0 and signal > 0, gpr, None)

    def _name(self, core: CoreImage, index: int) -> str:
        thread = core.find(index, BSD_THREAD, 20)
        if thread:
            return _text(thread)
        info = core.find_any(BSD_INFO) or b""
        at = 16 if self._wide else 8
        return _text(info[at : at + 17])


class NetBSD(Dialect):
    """`NetBSD-CORE` says which LWP died of which signal, `NetBSD-CORE@LWP` has registers."""

    os = "NetBSD"
    fpregs = "PT_GETFPREGS note"

    def __init__(self, elf: ElfFile) -> None:
        self.abi = "i386" if elf.machine == EM_386 else "x86-64"

    def header(self, core: CoreImage, index: int) -> Header:
        info = core.find_any(NET_INFO) or b""
        signal, name, culprit = 0, "", 0
        if len(info) >= 160:
            signal, culprit = unpack_from("<I", info, 8)[0], unpack_from("<I", info, 156)[0]
            name = _text(info[124:156])
        names, form = (_NET_32, "I") if self.abi == "i386" else (_NET_64, "Q")
        regs = core.find(index, NET_REGS) or b""
        gpr: "dict[str, int]" = {}
        if len(regs) >= len(names) * (4 if form == "I" else 8):
            values = zip(names, unpack_from(f"<{len(names)}{form}", regs), strict=True)
            gpr = {each: value for each, value in values if each not in _INTERNAL}
        crashed = bool(signal) and culprit == core._tid(index)
        pc = gpr.get("rip", gpr.get("eip"))
        return Header(name, (signal if crashed else None) or None, pc, crashed, gpr, None)
