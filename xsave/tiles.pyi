from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeVar, final, overload

from numpy.typing import ArrayLike, NDArray
from typing_extensions import Buffer

from xsave.area import Area
from xsave.models import CpuModel

__all__ = [
    "ELEMENTS",
    "TILE_RULES",
    "TileConfig",
    "lint",
    "restore",
    "save",
    "tile",
    "tile_bytes",
    "tile_load",
    "tile_store",
]

_Out = TypeVar("_Out", bound=Buffer)

TILE_RULES: Final[Mapping[int, tuple[str, str, str]]]
ELEMENTS: Final[tuple[str, ...]]

@final
class TileConfig:
    def __new__(
        cls, shapes: Mapping[int, tuple[int, int]] | None = None, *, palette: int | None = None, start_row: int = 0
    ) -> TileConfig: ...
    @staticmethod
    def from_bytes(buffer: Buffer) -> TileConfig: ...
    @property
    def palette(self) -> int: ...
    @property
    def start_row(self) -> int: ...
    @property
    def shapes(self) -> dict[int, tuple[int, int]]: ...
    def check(self, model: CpuModel | None = None, xcr0: int | None = None) -> list[tuple[str, int, str]]: ...
    def require(self, model: CpuModel | None = None, xcr0: int | None = None) -> None: ...
    def __buffer__(self, flags: int, /) -> memoryview: ...
    def __bytes__(self) -> bytes: ...
    def __len__(self) -> int: ...
    def __eq__(self, other: object, /) -> bool: ...
    def __ne__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...
    def __reduce__(self) -> tuple[Any, ...]: ...
    def __copy__(self) -> TileConfig: ...
    def __deepcopy__(self, memo: object) -> TileConfig: ...

def rebuild(image: bytes) -> TileConfig: ...
def tile(
    source: Area | Buffer, number: int, dtype: object = "uint8", config: TileConfig | None = None
) -> NDArray[Any]: ...
def tile_bytes(matrix: ArrayLike, dtype: object = None) -> bytes: ...
def restore(area: Area) -> tuple[TileConfig, tuple[bytes, ...]]: ...
def save(
    config: TileConfig | None, tiles: Mapping[int, Buffer | None] | Sequence[Buffer | None] | None, area: Area
) -> None: ...
@overload
def tile_load(
    config: TileConfig,
    tile: int,
    memory: Buffer,
    stride: int,
    start_row: int | None = None,
    *,
    offset: int = 0,
    into: None = None,
) -> bytes: ...
@overload
def tile_load(
    config: TileConfig,
    tile: int,
    memory: Buffer,
    stride: int,
    start_row: int | None = None,
    *,
    offset: int = 0,
    into: _Out,
) -> _Out: ...
def tile_store(
    config: TileConfig,
    tile: int,
    data: Buffer,
    memory: _Out,
    stride: int,
    start_row: int | None = None,
    *,
    offset: int = 0,
) -> _Out: ...
def lint(area: Area) -> list[tuple[str, int, str]]: ...
