"""`Memory`: what the emulated processor can reach, as ranges of linear addresses over buffers of the caller's.

What no range covers is not present. A page table is not modelled: a range begins and ends at any byte, and one that
is not writable answers a write as a read-only page does.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["Memory"]

_LIMIT = 1 << 64


class Memory:
    """Ranges of linear addresses, each backed by a buffer.

    An instruction that meets a byte outside all ranges takes #PF (error code bit 0 clear), one that writes to a range
    that is not writable takes #PF with bit 0 set.
    """

    __slots__ = ("_ranges",)

    def __init__(self) -> None:
        self._ranges: "list[tuple[int, int, memoryview, bool]]" = []

    def map(self, address: int, buffer: "Buffer", writable: bool = True) -> None:
        """Makes linear addresses `address` to `address + len(buffer)` present; reads and writes go to `buffer`.

        Raises: `ValueError` for a range that leaves 64 bits or overlaps another, for an empty or non-contiguous
        buffer, or for a writable range over a read-only buffer.
        """
        view = memoryview(buffer)
        if not view.c_contiguous or view.nbytes == 0:
            raise ValueError("a range needs a contiguous buffer of at least one byte")
        view = view.cast("B")
        if writable and view.readonly:
            raise ValueError("a writable range needs a writable buffer; writable=False maps this one read-only")
        end = address + view.nbytes
        if not 0 <= address < end <= _LIMIT:
            raise ValueError(f"addresses {address:#x} to {end:#x} do not fit 64 bits")
        for begin, other, _, _ in self._ranges:
            if address < other and begin < end:
                raise ValueError(f"{address:#x}-{end:#x} overlaps the range {begin:#x}-{other:#x}")
        self._ranges.append((address, end, view, writable))
        self._ranges.sort(key=_begin)

    def unmap(self, address: int) -> None:
        """Takes away the range that begins at `address`. Raises: `ValueError` where none begins there."""
        for i, (begin, _, _, _) in enumerate(self._ranges):
            if begin == address:
                del self._ranges[i]
                return
        raise ValueError(f"no range begins at {address:#x}")

    @property
    def ranges(self) -> "tuple[tuple[int, int, memoryview, bool], ...]":
        """(begin, end, bytes, writable) of every range, ascending by address."""
        return tuple(self._ranges)

    def __repr__(self) -> str:
        parts = ", ".join(f"{b:#x}-{e:#x}{'' if w else ' read-only'}" for b, e, _, w in self._ranges)
        return f"<Memory: {parts or 'nothing present'}>"


def _begin(each: "tuple[int, int, memoryview, bool]") -> int:
    return each[0]
