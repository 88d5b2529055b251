from collections.abc import Iterable, Mapping
from typing import Any, Literal, Protocol, TypeVar, final, overload

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Buffer

from xsave.layout import Layout

__all__ = [
    "ColumnWriter",
    "decode",
    "decode_many",
    "encode",
    "encode_many",
    "same_state",
    "same_state_many",
    "transcode",
    "transcode_many",
]

class HasLayout(Buffer, Protocol):
    @property
    def layout(self) -> Layout: ...

_Memory = Buffer | NDArray[Any]
_Out = TypeVar("_Out", bound=_Memory)

def decode(area: HasLayout, registers: Iterable[str] | None = None) -> dict[str, int | bytes]: ...
def encode(values: Mapping[str, int | Buffer], layout: Layout, xstate_bv: int | None = None) -> bytes: ...
@overload
def transcode(
    buffer: _Memory, source: Layout, target: Layout, out: None = None, lost: Literal["raise", "drop"] = "raise"
) -> bytes: ...
@overload
def transcode(
    buffer: _Memory, source: Layout, target: Layout, out: _Out, lost: Literal["raise", "drop"] = "raise"
) -> _Out: ...
def same_state(a: HasLayout, b: HasLayout) -> bool: ...
def decode_many(
    buffers: _Memory,
    layout: Layout,
    registers: Iterable[str] | None = None,
    out: dict[str, NDArray[np.unsignedinteger]] | None = None,
) -> dict[str, NDArray[np.unsignedinteger]]: ...
@final
class ColumnWriter:
    def __new__(
        cls, layout: Layout, registers: Iterable[str] | None, out: dict[str, NDArray[Any]], rows: int
    ) -> ColumnWriter: ...
    def fill(self, buffers: _Memory, first: int) -> None: ...

def encode_many(
    columns: Mapping[str, NDArray[Any]],
    layout: Layout,
    xstate_bv: int | NDArray[np.uint64] | None = None,
    out: NDArray[np.uint8] | None = None,
) -> NDArray[np.uint8]: ...
@overload
def transcode_many(
    buffers: _Memory, source: Layout, target: Layout, out: None = None, lost: Literal["raise", "drop"] = "raise"
) -> NDArray[np.uint8]: ...
@overload
def transcode_many(
    buffers: _Memory, source: Layout, target: Layout, out: _Out, lost: Literal["raise", "drop"] = "raise"
) -> _Out: ...
def same_state_many(
    a: _Memory, layout_a: Layout, b: _Memory, layout_b: Layout, out: NDArray[np.bool_] | None = None
) -> NDArray[np.bool_]: ...
