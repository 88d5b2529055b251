"""P8: many areas to columns, every register of the layout, against one copy of their bytes and against numpy alone.

np.copyto and numpy's strided assignments write into warm memory of their own. `decode_many` makes its columns anew in
each call as long as it takes no `out`: its pages are then part of its time.
"""

import inspect
import random

import numpy as np
import pytest
from areas import AVX512, check_values, draw_offset, fill, layouts, sampled, stride_of
from goals import at_least
from ratio import Side

import xsave

SCALARS = {
    "fcw": "<u2",
    "fsw": "<u2",
    "ftw": "u1",
    "fop": "<u2",
    "fip": "<u8",
    "fdp": "<u8",
    "mxcsr": "<u4",
    "mxcsr_mask": "<u4",
}
SCALAR_AT = {"fcw": 0, "fsw": 2, "ftw": 4, "fop": 6, "fip": 8, "fdp": 16, "mxcsr": 24, "mxcsr_mask": 28}


def strided_moves(layout):
    """(register, offset in the register, offset in the area, width): the layout as a numpy user would write it down."""
    at = {int(number): offset for number, (offset, _size) in layout.offsets.items()}
    moves = [(name, 0, SCALAR_AT[name], np.dtype(form).itemsize) for name, form in SCALARS.items()]
    moves += [(f"st{i}", 0, 32 + 16 * i, 10) for i in range(8)]
    for i in range(16):
        moves += [
            (f"zmm{i}", 0, 160 + 16 * i, 16),
            (f"zmm{i}", 16, at[2] + 16 * i, 16),
            (f"zmm{i}", 32, at[6] + 32 * i, 32),
        ]
        moves.append((f"zmm{16 + i}", 0, at[7] + 64 * i, 64))
    moves += [(f"k{i}", 0, at[5] + 8 * i, 8) for i in range(8)]
    moves.append(("pkru", 0, at[9], 4))
    return moves


def strided(rows, columns, moves):
    """Columns by numpy's own strided copies, everything taken to be in use."""
    for name, inside, offset, width in moves:
        columns[name][:, inside : inside + width] = rows[:, offset : offset + width]
    return columns


def takes_out():
    """Whether decode_many can write into memory that is there."""
    try:
        return "out" in inspect.signature(xsave.decode_many).parameters
    except (TypeError, ValueError):
        return "out" in (xsave.decode_many.__doc__ or "").split("\n")[0]


@pytest.mark.parametrize("count", [50_000, 100_000], ids=["50k", "100k"])
def test_p8(judge, memory, count):
    """All registers of every area."""
    layout = layouts()[0]
    stride = stride_of(layout.size, True)
    rng = random.Random(count)
    rows = fill(memory.place("source", count, stride), layout, AVX512, seed=8)
    columns = xsave.decode_many(rows, layout)
    for row in sampled(count):
        values = {name: value[row].tobytes() if value.ndim == 2 else int(value[row]) for name, value in columns.items()}
        check_values(rows[row].tobytes(), layout, values)
    moves = strided_moves(layout)
    own = {
        name: np.zeros((count, column.itemsize if column.ndim == 1 else column.shape[1]), np.uint8)
        for name, column in columns.items()
    }
    strided(rows, own, moves)
    for name, column in columns.items():
        assert np.array_equal(column.view(np.uint8).reshape(count, -1), own[name]), name
    reuse = takes_out()

    def make(_draw):
        flat = memory.place("copy", count, stride, draw_offset(rng, True)).reshape(-1)
        names = {
            "decode": xsave.decode_many,
            "strided": strided,
            "copyto": np.copyto,
            "rows": rows,
            "layout": layout,
            "own": own,
        }
        names |= {"moves": moves, "flat": flat, "source": rows.reshape(-1), "columns": columns}
        return [
            Side("xsave", "decode(rows, layout, out=columns)" if reuse else "decode(rows, layout)", names),
            Side("np.copyto", "copyto(flat, source)", names),
            Side("numpy strided", "strided(rows, own, moves)", names),
        ]

    if not reuse:
        columns = None
    times = judge.compare(make, draws=2, rounds=32)
    note = "columns in place" if reuse else "decode_many takes no out: columns are new memory in every call"
    size = f"{count // 1000}k"
    bound = at_least(1.3) if count == 50_000 else at_least(1.0, intel=0.95)
    judge.line("P8", f"{size} × np.copyto", times.speed("xsave", "np.copyto"), bound, "np.copyto", note=note)
    judge.line(
        "P8",
        f"{size} × numpy strided",
        times.speed("xsave", "numpy strided"),
        at_least(4),
        "numpy strided, in place",
        note=note,
    )
