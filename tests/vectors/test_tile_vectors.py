"""Tile instructions as recorded on silicon and in another emulator, against `xsave.tiles`."""

import json
import lzma
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import skips
from tests.paths import DATA
from xsave import CpuModel, TileConfig, tile_load, tile_store

REGION = 0x7000  # bytes of present memory, CCH where a case lays nothing over
BUFFER = 12288  # bytes from the operand on that a case names

Case = dict[str, Any]
Sets = pytest.mark.parametrize("kind", ["intel", "bochs"])
pytestmark = skips.needs_data()


def read(path: Path) -> Any:
    with lzma.open(path, "rt") as text:
        return json.loads(text.read())


def cases(kind: str, name: str) -> Iterator[Case]:
    """The cases of a file that ran in an unchanged environment."""
    with lzma.open(DATA / "vectors" / kind / f"{name}.jsonl.xz", "rt") as lines:
        for line in lines:
            case = json.loads(line)
            if not case.get("flags"):
                yield case


def region(case: Case, fills: dict[str, bytes]) -> bytearray:
    """All present memory before the instruction; the operand is at `off`."""
    memory = bytearray(fills[case["fill"]])
    for offset, data in case["patch"]:
        memory[offset : offset + len(data)] = data
    out = bytearray(b"\xcc" * REGION)
    out[case["off"] : case["off"] + BUFFER] = memory[:BUFFER]
    return out[:REGION]


def prepared(kind: str, name: str) -> Iterator[tuple[Case, bytearray]]:
    fills = {key: bytes.fromhex(data) for key, data in read(DATA / "vectors" / kind / "fills.json.xz").items()}
    for case in cases(kind, name):
        case["patch"] = [(offset, bytes.fromhex(data)) for offset, data in case["patch"]]
        yield case, region(case, fills)


@Sets
def test_ldtilecfg(kind: str) -> None:
    """Whatever got as far as the image: #GP exactly if a rule is broken."""
    model = CpuModel.named("SapphireRapids")
    outcomes: Counter[str | None] = Counter()
    for case, memory in prepared(kind, "LDTILECFG"):
        vector = case["res"]["vec"]
        if vector in (None, "#GP"):
            config = TileConfig.from_bytes(memory[case["off"] : case["off"] + 64])
            found = config.check(model, int(case["xcr0"], 16))
            assert bool(found) == (vector == "#GP"), (case["id"], case["grp"], found)
            outcomes[vector] += 1
    assert min(outcomes[None], outcomes["#GP"]) > 200


# Groups whose cases differ in configuration, tile, rows, stride and alignment; the others are about encodings, XCR0,
# addresses and pages, which a plain buffer does not have.
GROUPS = ("each", "random", "startrow", "odd", "colsb_not4", "sib", "pf_row", "odd_pf")
PLAIN = re.compile(r"c4e2(?:79|7a|7b)4b([0-3][4c])([0-9a-f][0-9a-f])")


def operand(case: Case) -> tuple[int, int] | None:
    """Tile and stride of `tmm, [rdi + rsi * scale]` or `tmm, [rdi]` from the bytes; None for other operands."""
    code = PLAIN.fullmatch(case["code"])
    if code is None:
        return None
    modrm, sib = (int(part, 16) for part in code.groups())
    if sib & 7 != 7 or sib >> 3 & 7 not in (4, 6):
        return None
    stride = int(case.get("rsi") or "0", 16) << (sib >> 6) if sib >> 3 & 7 == 6 else 0
    return modrm >> 3 & 7, (stride + (1 << 63)) % (1 << 64) - (1 << 63)


@Sets
def test_tile_loads_and_stores(kind: str) -> None:
    """The same bytes in tile and memory, and a ValueError for every #UD."""
    states = read(DATA / "vectors" / kind / "states.json.xz")
    outcomes: Counter[tuple[str, str | None]] = Counter()
    for case, memory in prepared(kind, "TILE"):
        vector = case["res"]["vec"]
        place = operand(case)
        if case["grp"] not in [f"tile/{group}" for group in GROUPS] or vector not in (None, "#UD") or place is None:
            continue
        number, stride = place
        state = states[case["state"]]
        config = TileConfig.from_bytes(bytes.fromhex(state["tilecfg"]))
        tiles = [bytes.fromhex(data) for data in state["tile"]]
        what = (case["id"], case["grp"], case["op"])
        before = bytes(memory)
        into = bytearray(tiles[number])
        if vector == "#UD":
            with pytest.raises(ValueError, match="#UD"):
                tile_load(config, number, memory, stride, offset=case["off"], into=into)
            with pytest.raises(ValueError, match="#UD"):
                tile_store(config, number, into, memory, stride, offset=case["off"])
            assert bytes(into) == tiles[number] and bytes(memory) == before
        elif case["op"] == "TILESTORED":
            expected = bytearray(before)
            for offset, data in case["res"].get("mem", ()):
                expected[case["off"] + offset : case["off"] + offset + len(data) // 2] = bytes.fromhex(data)
            assert tile_store(config, number, into, memory, stride, offset=case["off"]) == expected, what
        else:
            changed = case["res"].get("regs", {}).get("tile", {}).get(str(number), state["tile"][number])
            found = tile_load(config, number, memory, stride, offset=case["off"], into=into)
            assert found == bytes.fromhex(changed), what
        outcomes[case["op"], vector] += 1
    assert len(outcomes) == 6 and min(outcomes.values()) >= 15 and sum(outcomes.values()) > 350, outcomes
