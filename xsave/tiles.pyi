from collections.abc import Mapping
from typing import Final

__all__ = ["TILE_RULES"]

TILE_RULES: Final[Mapping[int, tuple[str, str, str]]]
