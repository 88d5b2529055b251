"""The ELF file format, as far as cores need it: header, program headers, where notes and memory lie.

Knows no note by name. Everything is checked against the file's size; a cut file is read as far as it goes.
"""

from struct import Struct, calcsize, unpack_from

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import NamedTuple

    from xsave.images.source import Source

    class Segment(NamedTuple):
        """A program header: where its bytes lie in the file, where in memory."""

        kind: int
        offset: int
        address: int
        size: int

else:
    from collections import namedtuple

    Segment = namedtuple("Segment", "kind offset address size")

__all__ = ["EM_386", "EM_X86_64", "ElfFile", "Segment"]

EM_386, EM_X86_64 = 3, 62
_ET_CORE = 4
_PT_LOAD, _PT_NOTE = 1, 4
_PN_XNUM = 0xFFFF
_MACHINES = {2: "SPARC", 8: "MIPS", 20: "PowerPC", 21: "PowerPC64", 22: "S390", 40: "ARM", 183: "AArch64",
             243: "RISC-V"}
_TYPES = {1: "a relocatable object", 2: "an executable", 3: "a shared object or executable"}
_HEADERS = {1: Struct("<16xHHIIIIIHHHHHH"), 2: Struct("<16xHHIQQQIHHHHHH")}
_SEGMENTS = {1: "<IIIIIIII", 2: "<IIQQQQQQ"}
# What one file may make us read of headers and notes.
_SEGMENT_MAX = 1 << 22
_NOTE_SEGMENT_MAX = 256
_BLOCK = 1 << 16
FAR = (1 << 62) - 1


class ElfFile:
    """An ELF core file's header and segments.

    Attributes: `elf_class` 1 (32 bits) or 2 (64 bits), `machine` `EM_386` or `EM_X86_64`, `count` of program
    headers, `warnings`. Raises: `ImageError` for a file that is no x86 core.
    """

    def __init__(self, source: "Source") -> None:
        self.source = source
        self.warnings: "list[str]" = []
        self.cut = False
        head = source.read(0, 64)
        if head[:4] != b"\x7fELF":
            raise source.fail("the magic number", head[:4].hex() or "missing", 0, "7f454c46 (ELF)", "E-MAGIC")
        if len(head) < 16:
            raise source.fail("the ELF header", f"{len(head)} bytes", len(head), "16 bytes at least", "E-HEADER")
        self.elf_class = head[4]
        if self.elf_class not in _HEADERS:
            raise source.fail("EI_CLASS", str(self.elf_class), 4, "1 (32 bits) or 2 (64 bits)", "E-CLASS")
        if head[5] != 1:
            raise source.fail("EI_DATA", str(head[5]), 5, "1 (little-endian)", "E-DATA")
        header = _HEADERS[self.elf_class]
        if len(head) < header.size:
            raise source.fail("the ELF header", f"{len(head)} bytes", len(head), f"{header.size} bytes", "E-HEADER")
        fields = header.unpack_from(head)
        kind, self.machine, self._phoff, self._shoff = fields[0], fields[1], fields[4], fields[5]
        self._phentsize, self.count = fields[8], fields[9]
        if kind != _ET_CORE:
            raise source.fail("e_type", f"{kind} ({_TYPES.get(kind, 'unknown')})", 16, "4 (a core file)", "E-TYPE")
        if self.machine not in (EM_386, EM_X86_64):
            raise source.fail("e_machine", f"{self.machine} ({_MACHINES.get(self.machine, 'unknown')})", 18,
                              "3 (i386) or 62 (x86-64)", "E-MACHINE")
        self._entry = _SEGMENTS[self.elf_class]
        self._entry_size = calcsize(self._entry)
        if self.count and self._phentsize < self._entry_size:
            raise source.fail("e_phentsize", str(self._phentsize), 42 if self.elf_class == 1 else 54,
                              f"at least {self._entry_size}", "E-PHENTSIZE")
        if self.count == _PN_XNUM:
            self._extended_count()

    def _extended_count(self) -> None:
        # PN_XNUM: sh_info of section header 0 has the count. A cut file has lost it; its first program headers, the
        # notes among them, are still there.
        at = self._shoff + (28 if self.elf_class == 1 else 44)
        reachable = self._shoff and (self.source.seekable or self._shoff < _BLOCK)
        data = self.source.read(at, 4) if reachable else b""
        if len(data) == 4 and (count := unpack_from("<I", data)[0]):
            self.count = count
        elif not reachable and self._shoff:
            self.warnings.append("e_phnum is PN_XNUM and the section header lies at the end of a stream: "
                                 f"the first {_PN_XNUM:,} segments are looked at")
        else:
            self.warnings.append(f"e_phnum is PN_XNUM, but section header 0 at offset {self._shoff:#x} is missing: "
                                 f"the first {_PN_XNUM:,} segments are looked at")

    def segments(self) -> "Iterator[Segment]":
        """The program headers in file order, as far as the file goes."""
        count = min(self.count, _SEGMENT_MAX)
        step = self._phentsize
        batch = max(_BLOCK // step, 1) if step else 1
        for first in range(0, count, batch):
            wanted = min(batch, count - first) * step
            data = self.source.read(self._phoff + first * step, wanted)
            for at in range(0, len(data) - self._entry_size + 1, step):
                if self.elf_class == 2:
                    kind, _, offset, address, _, size, _, _ = unpack_from(self._entry, data, at)
                else:
                    kind, offset, address, _, size, _, _, _ = unpack_from(self._entry, data, at)
                yield Segment(kind, offset, address, size)
            if len(data) < wanted:
                self._cut(first + len(data) // step)
                return

    def _cut(self, have: int) -> None:
        self.cut = True
        message = f"the file ends within the program headers: {have:,} of {self.count:,} are there"
        if message not in self.warnings:
            self.warnings.append(message)

    def notes(self) -> "list[Segment]":
        """The PT_NOTE segments. Of a kernel's core the first header is one; a debugger puts them where it likes."""
        if not self.source.seekable:
            self.source.retain(self._phoff, min(self._phoff + self.count * self._phentsize, FAR))
        found = []
        for segment in self.segments():
            if segment.kind == _PT_NOTE and segment.size:
                found.append(segment)
                if len(found) == _NOTE_SEGMENT_MAX:
                    break
        return found

    def loads(self) -> "Iterator[Segment]":
        """The PT_LOAD segments whose memory is in the file."""
        for segment in self.segments():
            if segment.kind == _PT_LOAD and segment.size:
                yield segment
