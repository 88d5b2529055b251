from collections.abc import Sequence
from typing import Final, final

from typing_extensions import Buffer

__all__ = ["EVENTS", "LONGEST", "REASONS", "WIDTHS", "EventReader", "recognise"]

EVENTS: Final[tuple[str, ...]]
REASONS: Final[tuple[str, ...]]
WIDTHS: Final[dict[str, int]]
LONGEST: Final[int]

@final
class EventReader:
    names: dict[int, bytes]
    garbled_text: bytes
    def __new__(cls, ftrace: bool, never: int = 0, bit: int = 0, needs: int = 0) -> EventReader: ...
    @property
    def line(self) -> int: ...
    @property
    def lines(self) -> int: ...
    @property
    def garbled(self) -> int: ...
    @property
    def skipped(self) -> tuple[int, ...]: ...
    def feed(
        self, chunk: Buffer, columns: Sequence[Buffer], start: int = 0, last: bool = False
    ) -> tuple[int, int]: ...

def recognise(chunk: Buffer) -> tuple[int, int]: ...
