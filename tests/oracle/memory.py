"""What an instruction can reach: ranges of linear addresses, or one plain buffer that begins at the operand."""

from __future__ import annotations

from typing import TypeAlias


class Memory:
    """Ranges of linear addresses. What no range covers is not present; a range may be read-only."""

    def __init__(self) -> None:
        self.ranges: list[tuple[int, memoryview, bool]] = []  # (address, bytes, writable)

    def map(self, address: int, buffer: bytearray | memoryview, writable: bool = True) -> None:
        self.ranges.append((address, memoryview(buffer), writable))

    def at(self, address: int) -> tuple[int, memoryview, bool] | None:
        """The range that an address lies in."""
        for start, data, writable in self.ranges:
            if start <= address < start + len(data):
                return start, data, writable
        return None


Buffer: TypeAlias = bytes | bytearray | Memory


class Operand:
    """The memory operand of one instruction. Offsets count from its address."""

    def __init__(self, memory: Buffer, address: int) -> None:
        self.address = address
        self.plain = not isinstance(memory, Memory)
        if isinstance(memory, Memory):
            self.memory = memory
        else:
            self.memory = Memory()
            self.memory.map(address, memoryview(memory), True)

    def need(self, start: int, end: int) -> None:
        """A plain buffer that does not hold these bytes is the caller's mistake, not a page fault."""
        if self.plain:
            size = len(self.memory.ranges[0][1])
            if start < 0 or end > size:
                raise ValueError(f"the instruction needs {end} bytes from byte {min(start, 0)}, the buffer has {size}")

    def first_bad(self, offset: int, length: int, write: bool) -> int | None:
        """The first of these bytes that cannot be read, or written."""
        position, end = self.address + offset, self.address + offset + length
        while position < end:
            found = self.memory.at(position)
            if found is None or (write and not found[2]):
                return position - self.address
            position = found[0] + len(found[1])
        return None

    def is_present(self, offset: int) -> bool:
        return self.memory.at(self.address + offset) is not None

    def read(self, offset: int, length: int) -> bytes:
        """These bytes; those that are not present as 0."""
        result = bytearray()
        while len(result) < length:
            position = self.address + offset + len(result)
            found = self.memory.at(position)
            if found is None:
                result.append(0)
                continue
            start, data, _ = found
            result += data[position - start : position - start + length - len(result)]
        return bytes(result)

    def read64(self, offset: int) -> int:
        return int.from_bytes(self.read(offset, 8), "little")

    def write(self, offset: int, data: bytes) -> None:
        done = 0
        while done < len(data):
            position = self.address + offset + done
            found = self.memory.at(position)
            assert found is not None and found[2], "the instruction did not check what it writes"
            start, target, _ = found
            part = data[done : done + start + len(target) - position]
            target[position - start : position - start + len(part)] = part
            done += len(part)
