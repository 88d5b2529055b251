from typing import Final

from typing_extensions import Buffer

__all__ = ["EVENTS", "FACTS", "PROPERTIES", "walk"]

EVENTS: Final[tuple[str, ...]]
PROPERTIES: Final[tuple[str, ...]]
FACTS: Final[dict[str, int]]

def walk(
    facts: Buffer, nx: int, ns: int, nf: int, traits: int, first: tuple[int, int, int]
) -> tuple[int, dict[str, list[tuple[int, int, int, int]]]]: ...
