"""TILECFG images and tile state: each rule alone, against a second reading of the manual; rows in and out of memory."""

import copy
import pickle
from collections.abc import Callable
from random import Random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.laws.strategies import each_format, formats, model, seeds
from xsave import (
    COMPACTED,
    STANDARD,
    Area,
    CpuModel,
    FormatError,
    Layout,
    LayoutError,
    TileConfig,
    TruncatedError,
    encode,
    tile_load,
    tile_store,
    transcode,
)
from xsave.tiles import TILE_RULES, lint, restore, save, tile

AMX = ("SapphireRapids", "DiamondRapids")
XCR0 = 0x600E7
TILECFG, TILEDATA = 1 << 17, 1 << 18
LAYOUTS = [Layout(model("SapphireRapids"), XCR0, fmt) for fmt in (STANDARD, COMPACTED)]
CODES = [code for code, _, _ in TILE_RULES.values()]

shapes = st.dictionaries(st.integers(0, 7), st.tuples(st.integers(1, 16), st.integers(1, 64)))
configs = st.builds(TileConfig, shapes, start_row=st.integers(0, 255))


def image(*changes: tuple[int, int], palette: int = 1) -> bytes:
    """A legal image (tiles 0-3 configured; palettes but 1 have the rest 0) with some bytes changed."""
    out = bytearray(64)
    out[0] = palette
    if palette == 1:
        for t, (rows, colsb) in enumerate([(16, 64), (1, 1), (8, 4), (3, 63)]):
            out[16 + 2 * t], out[48 + t] = colsb, rows
    for at, value in changes:
        out[at] = value
    return bytes(out)


def judged(raw: bytes, highest: int, xcr0: int) -> list[str]:
    """The rules that an image breaks, read from the page of LDTILECFG once more."""
    palette = raw[0]
    supported = {0: True, 1: xcr0 >> 17 & 3 == 3, 2: xcr0 >> 17 & 3 == 3 and xcr0 >> 20 & 1 == 1}.get(palette, False)
    broken = {"T-PALETTE": palette > highest, "T-XCR0": not supported}
    columns = [int.from_bytes(raw[16 + 2 * t : 18 + 2 * t], "little") for t in range(8)]
    rows = list(raw[48:56])
    if palette == 1:
        broken["T-RESERVED"] = raw[2:16] != bytes(14)
        broken["T-COLSB"] = max(columns) > 64
        broken["T-COLSB-REST"] = raw[32:48] != bytes(16)
        broken["T-ROWS"] = max(rows) > 16
        broken["T-ROWS-REST"] = raw[56:] != bytes(8)
        broken["T-HALF"] = any((r == 0) != (c == 0) for r, c in zip(rows, columns, strict=True))
    if palette == 2:
        broken["T-ACE-REST"] = raw[1:] != bytes(63)
    return [code for code in CODES if broken.get(code)]


# --- configurations -----------------------------------------------------------------------------------------


def images_breaking_one() -> list[tuple[str, int, bytes, int]]:
    """(rule, culprit, image, XCR0): every rule, at every byte that can break it alone."""
    found = [("T-XCR0", 0, image(palette=1), 0x20000), ("T-XCR0", 0, image(palette=1), 0x40000)]
    found += [("T-XCR0", 0, image(palette=2), XCR0), ("T-XCR0", 0, image(palette=2), 0x100000)]
    found += [("T-RESERVED", at, image((at, 1 << at % 8)), XCR0) for at in range(2, 16)]
    found += [("T-COLSB-REST", at, image((at, 1 << at % 8)), XCR0) for at in range(32, 48)]
    found += [("T-ROWS-REST", at, image((at, 1 << at % 8)), XCR0) for at in range(56, 64)]
    found += [("T-ACE-REST", at, image((at, 1 << at % 8), palette=2), XCR0 | 1 << 20) for at in range(1, 64)]
    for t in range(8):
        low, high, rows = 16 + 2 * t, 17 + 2 * t, 48 + t
        found += [("T-COLSB", low, image((low, 65), (rows, 1)), XCR0)]
        found += [("T-COLSB", low, image((low, 0), (high, 1), (rows, 1)), XCR0)]
        found += [("T-ROWS", rows, image((low, 4), (rows, value)), XCR0) for value in (17, 255)]
        found += [("T-HALF", rows, image((low, 4), (rows, 0)), XCR0), ("T-HALF", low, image((low, 0), (rows, 1)), XCR0)]
    found.append(("T-HALF", 48, bytes([1]) + bytes(15) + b"\x04\0" * 8 + bytes(32), XCR0))
    found.append(("T-HALF", 16, bytes([1]) + bytes(47) + b"\x04" * 8 + bytes(8), XCR0))
    return found


ALONE = images_breaking_one()


def test_every_rule_has_an_image_that_breaks_only_it() -> None:
    # T-PALETTE alone needs a CPU that has fewer palettes than XCR0 enables: below.
    assert {rule for rule, *_ in ALONE} == set(CODES) - {"T-PALETTE"}
    for rule, culprit, raw, xcr0 in ALONE:
        found = TileConfig.from_bytes(raw).check(xcr0=xcr0)
        assert [(code, at) for code, at, _ in found] == [(rule, culprit)], raw.hex()
        assert judged(raw, 2, xcr0) == [rule]
        assert f"byte {culprit}" in found[0][2] and "[" in found[0][2]


def test_palettes_of_the_cpu() -> None:
    leaves = dict(model("SapphireRapids").cpuid)
    assert leaves[0x1D, 0][0] == 1
    sapphire = CpuModel.from_cpuid(leaves)
    ace = TileConfig(palette=2)
    # XCR0[20] that only XSETBV of another CPU would take, so that this rule alone is broken.
    assert [row[:2] for row in ace.check(sapphire, xcr0=XCR0 | 1 << 20)] == [("T-PALETTE", 0)]
    assert [row[0] for row in ace.check(sapphire)] == ["T-PALETTE", "T-XCR0"]
    assert [row[0] for row in TileConfig.from_bytes(image(palette=3)).check()] == ["T-PALETTE", "T-XCR0"]
    leaves[0x1D, 0] = (5, 0, 0, 0)
    many = CpuModel.from_cpuid(leaves)
    assert [row[0] for row in TileConfig.from_bytes(image(palette=5)).check(many, (1 << 63) - 1)] == ["T-XCR0"]
    assert [row[0] for row in TileConfig.from_bytes(image(palette=6)).check(many, XCR0)] == ["T-PALETTE", "T-XCR0"]


def test_a_smaller_palette_counts() -> None:
    leaves = dict(model("SapphireRapids").cpuid)
    # 6 names, 8 rows of 32 bytes.
    leaves[0x1D, 1] = (0, 6 << 16 | 32, 8, 0)
    small = CpuModel.from_cpuid(leaves)
    assert TileConfig({5: (8, 32)}).check(small) == []
    assert [row[:2] for row in TileConfig({5: (8, 33)}).check(small)] == [("T-COLSB", 26)]
    assert [row[:2] for row in TileConfig({5: (9, 32)}).check(small)] == [("T-ROWS", 53)]
    assert [row[:2] for row in TileConfig({6: (8, 32)}).check(small)] == [("T-COLSB-REST", 28), ("T-ROWS-REST", 54)]
    layout = Layout(small, XCR0, STANDARD)
    for t, shape in [(5, (8, 32)), (5, (8, 36)), (5, (9, 32)), (6, (8, 32))]:
        config = TileConfig({t: shape})
        kept = restore(Area(encode({"tilecfg": config}, layout), layout))[0]
        assert kept == (TileConfig() if config.check(small) else config)


@pytest.mark.parametrize(
    "ebx_ecx", [(9 << 16 | 64, 16), (8 << 16 | 65, 16), (8 << 16 | 64, 17), (64, 16), (8 << 16, 16), (8 << 16 | 64, 0)]
)
def test_impossible_palettes_are_the_architectures(ebx_ecx: tuple[int, int]) -> None:
    leaves = dict(model("SapphireRapids").cpuid)
    leaves[0x1D, 1] = (0, *ebx_ecx, 0)
    odd = CpuModel.from_cpuid(leaves)
    assert TileConfig({7: (16, 64)}).check(odd) == []
    assert [row[:2] for row in TileConfig.from_bytes(image((16, 65))).check(odd)] == [("T-COLSB", 16)]


@pytest.mark.parametrize("leaf", [None, (0, 0, 0, 0)])
def test_amx_without_leaf_1d_has_palette_1(leaf: tuple[int, int, int, int] | None) -> None:
    leaves = {key: value for key, value in model("SapphireRapids").cpuid.items() if key[0] != 0x1D}
    if leaf:
        leaves[0x1D, 0] = leaf
    bare = CpuModel.from_cpuid(leaves)
    assert TileConfig({0: (16, 64)}).check(bare) == []
    assert [row[0] for row in TileConfig(palette=2).check(bare)] == ["T-PALETTE", "T-XCR0"]
    assert TileConfig(palette=2).check(ace_model()) == []


def ace_model() -> CpuModel:
    """A CPU with palette 2: no named model has it."""
    slots = {2: (256, 576), 17: (64, 1024), 18: (8192, 2048), 20: (128, 16384)}
    leaves = {(0xD, 0): (0x160007, 0, 0, 0), (0xD, 1): (0xF, 0, 0, 0), (1, 0): (0, 0, 1 << 26, 0)}
    leaves |= {(0xD, number): (size, offset, 2, 0) for number, (size, offset) in slots.items()}
    return CpuModel.from_cpuid(leaves)


@each_format
def test_palette_2_in_an_area(fmt: int) -> None:
    layout = Layout(ace_model(), 0x160007, fmt)
    config = TileConfig(palette=2)
    buffer = bytearray(encode({}, layout))
    area = Area(buffer, layout)
    save(config, {7: b"\1" * 1024}, area)
    assert restore(area)[0] == config and lint(area) == []
    assert tile(area, 7).shape == (16, 64) and tile(area, 7).all()
    for raw in [raw for rule, _, raw, _ in ALONE if rule == "T-ACE-REST"]:
        area = Area(encode({"tilecfg": raw}, layout), layout)
        assert restore(area)[0] == TileConfig()
        assert [code for code, _, _ in lint(area)] == ["T-ACE-REST"]
    one = TileConfig({0: (2, 8)})
    assert restore(Area(encode({"tilecfg": one}, layout), layout))[0] == one


def test_a_cpu_without_amx_takes_palette_0_alone() -> None:
    genoa = model("EPYC-Genoa")
    assert TileConfig().check(genoa) == []
    assert [row[0] for row in TileConfig({0: (1, 4)}).check(genoa)] == ["T-PALETTE", "T-XCR0"]


@given(st.one_of(st.binary(min_size=64, max_size=64), st.builds(lambda c, at, v: image((at, v), palette=c),
       st.sampled_from((1, 1, 1, 2, 0)), st.integers(0, 63), st.integers(0, 255))), st.integers(0, 2**64 - 1))
@example(bytes([0]) + b"\xff" * 63, 0)
def test_any_image_is_judged_as_the_manual_has_it(raw: bytes, xcr0: int) -> None:
    for mask in (xcr0, xcr0 | 3 << 17, xcr0 | 0xB << 17):
        config = TileConfig.from_bytes(raw)
        assert [code for code, _, _ in config.check(xcr0=mask)] == judged(raw, 2, mask)
        assert [code for code, _, _ in config.check(model("SapphireRapids"), mask)] == judged(raw, 1, mask)
    # And so does XRSTOR, which asks for all rules at once.
    layout = LAYOUTS[xcr0 % 2]
    kept = raw[0] != 0 and not judged(raw, 1, XCR0)
    assert restore(Area(encode({"tilecfg": raw}, layout), layout))[0] == (config if kept else TileConfig())
    assert bytes(config) == raw and TileConfig.from_bytes(memoryview(config)) == config
    assert config.palette == raw[0]
    repr(config)
    for t, shape in config.shapes.items():
        assert shape == (16, 64) if raw[0] == 2 else shape == (raw[48 + t], raw[16 + 2 * t] + 256 * raw[17 + 2 * t])
        assert all(shape)
    assert config.start_row == (raw[1] if raw[0] == 1 else 0)


@given(st.binary(max_size=200))
def test_hostile_bytes_raise_format_errors_only(raw: bytes) -> None:
    try:
        config = TileConfig.from_bytes(raw)
    except TruncatedError as error:
        assert len(raw) < 64 and error.offset == len(raw)
    except FormatError as error:
        assert len(raw) > 64 and error.offset == 64
    else:
        for name in (*AMX, "EPYC-Genoa"):
            try:
                config.require(model(name))
            except FormatError as error:
                assert (error.rule, error.offset, str(error)) == config.check(model(name))[0]
            else:
                assert config.check(model(name)) == []


@given(shapes, st.integers(0, 255))
def test_a_built_configuration_is_legal_and_keeps_its_shapes(given: dict[int, tuple[int, int]], row: int) -> None:
    config = TileConfig(given, start_row=row)
    assert config.shapes == given and list(config.shapes) == sorted(given)
    assert (config.palette, config.start_row, config.check()) == (1, row, [])
    assert TileConfig(config.shapes, start_row=row) == config
    assert len(config) == 64


def test_configurations_are_values() -> None:
    one, same, other = TileConfig({1: (4, 8)}), TileConfig({1: (4, 8)}), TileConfig({1: (4, 8)}, start_row=1)
    assert one == same and hash(one) == hash(same) and (one != same) is False
    assert one != other and one != bytes(one)
    assert pickle.loads(pickle.dumps(one)) == one and copy.copy(one) is one and copy.deepcopy(one) is one
    assert repr(other) == "<TileConfig palette 1, tmm1 4x8, start_row 1>"
    assert bytes(TileConfig()) == bytes(64) and TileConfig({}) != TileConfig()
    assert memoryview(one).readonly
    one.__init__({2: (1, 4)})  # type: ignore[call-arg]
    assert one == same


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: TileConfig({8: (1, 4)}), "tile 8"),
        (lambda: TileConfig({-1: (1, 4)}), "tile -1"),
        (lambda: TileConfig({0: (17, 4)}), "rows 17"),
        (lambda: TileConfig({0: (1, 65)}), "colsb 65"),
        (lambda: TileConfig({0: (0, 4)}), "rows 0 and colsb 4"),
        (lambda: TileConfig({0: (256, 4)}), "no place"),
        (lambda: TileConfig({0: (1, 1 << 16)}), "no place"),
        (lambda: TileConfig({0: (1, 4)}, palette=2), "neither shapes"),
        (lambda: TileConfig(palette=0, start_row=1), "neither shapes"),
        (lambda: TileConfig({}, start_row=256), "start_row 256"),
        (lambda: TileConfig(palette=3), "palette 3"),
    ],
)
def test_what_cannot_be_built(build: Callable[[], TileConfig], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        build()


# --- tile state of an area ----------------------------------------------------------------------------------


def empty(name: str, fmt: int, mask: int = XCR0) -> bytearray:
    return bytearray(encode({}, Layout(model(name), mask, fmt)))


@given(shapes, st.integers(0, 255), seeds, st.sampled_from(AMX), st.sampled_from(AMX), formats, formats)
def test_save_transcode_restore_is_the_identity(
    given: dict[int, tuple[int, int]], row: int, seed: int, first: str, second: str, one: int, two: int
) -> None:
    source, target = Layout(model(first), XCR0, one), Layout(model(second), XCR0, two)
    config = TileConfig(given, start_row=row)
    data = [Random(seed + t).randbytes(1024) for t in range(8)]
    buffer = empty(first, one)
    area = Area(buffer, source)
    save(config, data, area)
    assert area.xstate_bv == TILECFG | TILEDATA
    moved = Area(transcode(area, source, target), target)
    assert restore(moved) == (config, tuple(data))
    assert bytes(moved["tilecfg"]) == bytes(config) and bytes(moved["tmm3"]) == data[3]
    back = bytearray(transcode(moved, target, source))
    assert restore(Area(back, source)) == (config, tuple(data))


@each_format
def test_bits_of_xstate_bv(fmt: int) -> None:
    layout = Layout(model("SapphireRapids"), XCR0, fmt)
    buffer = bytearray(encode({"xmm1": b"x" * 16}, layout))
    area = Area(buffer, layout)
    config = TileConfig({2: (3, 8)})
    save(config, {2: b"t" * 1024}, area)
    assert area.xstate_bv == TILECFG | TILEDATA | 2
    assert restore(area)[1] == tuple(b"t" * 1024 if t == 2 else bytes(1024) for t in range(8))
    save(config, None, area)
    assert area.xstate_bv == TILECFG | 2
    assert restore(area) == (config, (bytes(1024),) * 8)
    save(None, [None, bytearray(b"u" * 1024)], area)
    assert area.xstate_bv == TILEDATA | 2
    assert restore(area)[0] == TileConfig() and restore(area)[1][1] == b"u" * 1024
    save(TileConfig(), None, area)
    assert area.xstate_bv == 2 and bytes(area["xmm1"]) == b"x" * 16
    assert restore(area) == (TileConfig(), (bytes(1024),) * 8)


def test_a_layout_with_tilecfg_alone() -> None:
    # As a signal frame has it for a thread that has used no tile.
    layout = Layout(model("SapphireRapids"), 0x200E7, STANDARD)
    buffer = bytearray(encode({}, layout))
    area = Area(buffer, layout)
    before = bytes(buffer)
    with pytest.raises(LayoutError, match="tmm0"):
        save(TileConfig({0: (1, 4)}), {0: bytes(1024)}, area)
    assert bytes(buffer) == before
    save(TileConfig({0: (1, 4)}), None, area)
    assert area.xstate_bv == TILECFG and restore(area) == (TileConfig({0: (1, 4)}), (bytes(1024),) * 8)
    assert lint(area) == []
    bare = Layout(model("SapphireRapids"), 7, STANDARD)
    area = Area(bytearray(encode({}, bare)), bare)
    save(None, None, area)
    assert lint(area) == []
    with pytest.raises(LayoutError, match="tilecfg"):
        restore(area)
    with pytest.raises(LayoutError, match="tilecfg"):
        save(TileConfig({0: (1, 4)}), None, area)


def test_a_refused_save_has_written_nothing() -> None:
    layout = Layout(model("SapphireRapids"), XCR0, COMPACTED)
    buffer = bytearray(encode({"tmm5": b"old!" * 256}, layout))
    before = bytes(buffer)
    area = Area(buffer, layout)
    good = TileConfig({0: (1, 4)})
    for config, tiles, error in [
        (TileConfig.from_bytes(image((2, 1))), None, FormatError),
        (TileConfig(palette=2), None, FormatError),
        (good, {8: bytes(1024)}, ValueError),
        (good, {0: bytes(1024), 1: bytes(1023)}, ValueError),
        (good, [bytes(1024)] * 9, ValueError),
        (good, {0: "text"}, TypeError),
    ]:
        with pytest.raises(error):
            save(config, tiles, area)  # type: ignore[arg-type]
        assert bytes(buffer) == before
    with pytest.raises(ValueError, match="read-only"):
        save(good, None, Area(before, layout))


@each_format
def test_xrstor_makes_an_illegal_tilecfg_initial(fmt: int) -> None:
    layout = Layout(model("SapphireRapids"), XCR0, fmt)
    for raw in [image(), image((1, 255)), *(raw for _, _, raw, _ in ALONE)]:
        broken = judged(raw, 1, XCR0)
        area = Area(encode({"tilecfg": raw}, layout), layout)
        assert restore(area)[0] == (TileConfig() if broken else TileConfig.from_bytes(raw)), raw.hex()
        found = lint(area)
        assert [code for code, _, _ in found if code.startswith("T-")] == broken
        assert all("XRSTOR makes it initial" in words for code, _, words in found if code.startswith("T-"))


# --- rows to and from memory --------------------------------------------------------------------------------


def loaded(config: TileConfig, t: int, memory: bytes, offset: int, stride: int, start: int, old: bytes) -> bytes:
    """TILELOADD, a byte at a time."""
    rows, colsb = config.shapes[t]
    out = []
    for r in range(16):
        for b in range(64):
            if r < start:
                out.append(old[64 * r + b])
            else:
                out.append(memory[offset + r * stride + b] if r < rows and b < colsb else 0)
    return bytes(out)


@st.composite
def walks(draw: st.DrawFn) -> tuple[TileConfig, int, int, int, int, int]:
    """A configured tile with a stride of every kind, and the smallest buffer that holds its rows with some room."""
    rows, colsb = draw(st.integers(1, 16)), 4 * draw(st.integers(1, 16))
    t, start = draw(st.integers(0, 7)), draw(st.integers(0, rows - 1))
    stride = draw(st.one_of(st.sampled_from((0, 64, -64, colsb, 1, -1)), st.integers(-200, 200)))
    ends = [r * stride for r in (start, rows - 1)]
    room = draw(st.integers(0, 3))
    return TileConfig({t: (rows, colsb)}), t, stride, start, room - min(ends), max(ends) + colsb - min(ends) + 2 * room


@given(walks(), seeds, st.booleans())
def test_tile_load(walk: tuple[TileConfig, int, int, int, int, int], seed: int, into: bool) -> None:
    config, t, stride, start, offset, size = walk
    rng = Random(seed)
    memory, old = rng.randbytes(size), rng.randbytes(1024)
    if into:
        tile = bytearray(old)
        assert tile_load(config, t, memory, stride, start, offset=offset, into=tile) is tile
        assert tile == loaded(config, t, memory, offset, stride, start, old)
    else:
        assert tile_load(config, t, memory, stride, start, offset=offset) == loaded(
            config, t, memory, offset, stride, start, bytes(1024)
        )


@given(walks(), seeds)
def test_tile_store(walk: tuple[TileConfig, int, int, int, int, int], seed: int) -> None:
    config, t, stride, start, offset, size = walk
    rng = Random(seed)
    memory, data = bytearray(rng.randbytes(size)), rng.randbytes(1024)
    expected = bytearray(memory)
    rows, colsb = config.shapes[t]
    for r in range(start, rows):
        expected[offset + r * stride : offset + r * stride + colsb] = data[64 * r : 64 * r + colsb]
    assert tile_store(config, t, data, memory, stride, start, offset=offset) is memory
    assert memory == expected


def test_start_row_is_the_configurations_by_default() -> None:
    config = TileConfig({0: (3, 4)}, start_row=2)
    memory = bytes(range(1, 13))
    assert tile_load(config, 0, memory, 4) == bytes(128) + memory[8:] + bytes(1024 - 132)
    assert tile_load(config, 0, memory, 4, 0)[:4] == memory[:4]
    assert tile_store(config, 0, b"\xee" * 1024, bytearray(12), 4) == bytes(8) + b"\xee" * 4


def test_one_buffer_for_both_sides() -> None:
    config = TileConfig({0: (2, 4)})
    tile = bytearray(range(256)) * 4
    expected = loaded(config, 0, bytes(tile), 8, 32, 0, bytes(1024))
    assert tile_load(config, 0, tile, 32, offset=8, into=tile) == expected
    tile = bytearray(range(256)) * 4
    expected = bytes([0, 1, 2, 3, *range(68, 128), *range(64, 68)])
    assert tile_store(config, 0, tile, tile, 64, offset=64)[64:132] == expected


def test_whole_tiles() -> None:
    config = TileConfig(dict.fromkeys(range(8), (16, 64)))
    memory = Random(7).randbytes(1024)
    assert tile_load(config, 7, memory, 64) == memory
    assert tile_store(config, 7, memory, bytearray(1024), 64) == memory


@pytest.mark.parametrize(
    ("config", "tile", "stride", "start", "offset", "words"),
    [
        (TileConfig(), 0, 64, None, 0, "not configured"),
        (TileConfig({1: (1, 4)}), 0, 64, None, 0, "not configured"),
        (TileConfig(palette=2), 0, 0, None, 0, "palette 2 has no loads"),
        (TileConfig({0: (1, 6)}), 0, 64, None, 0, "multiple of 4"),
        (TileConfig({0: (2, 4)}, start_row=2), 0, 64, None, 0, "start_row 2 is not below the 2 rows"),
        (TileConfig({0: (2, 4)}), 0, 64, -1, 0, "start_row -1"),
        (TileConfig({0: (2, 4)}), 8, 64, None, 0, "tile 8"),
        (TileConfig({0: (2, 4)}), 0, 93, None, 0, "row 1 of tile 0 is bytes 93 to 97 of a buffer of 96"),
        (TileConfig({0: (2, 4)}), 0, -4, None, 3, "row 1 of tile 0 is bytes -1 to 3"),
        (TileConfig({0: (2, 4)}), 0, 0, None, -1, "bytes -1"),
        (TileConfig({0: (2, 4)}), 0, 1 << 70, None, 0, "row 1"),
        (TileConfig.from_bytes(image((48, 17))), 0, 1, None, 0, "larger than a tile"),
        (TileConfig.from_bytes(image((16, 68))), 0, 1, None, 0, "larger than a tile"),
    ],
)
def test_what_cannot_be_loaded_or_stored(
    config: TileConfig, tile: int, stride: int, start: int | None, offset: int, words: str
) -> None:
    memory, into = bytearray(b"m" * 96), bytearray(b"i" * 1024)
    with pytest.raises(ValueError, match=words):
        tile_load(config, tile, memory, stride, start, offset=offset, into=into)
    with pytest.raises(ValueError, match=words):
        tile_store(config, tile, bytes(1024), memory, stride, start, offset=offset)
    assert bytes(memory) == b"m" * 96 and bytes(into) == b"i" * 1024


def test_buffers_of_other_sizes() -> None:
    config = TileConfig({0: (1, 4)})
    with pytest.raises(ValueError, match="1023"):
        tile_load(config, 0, bytes(4), 0, into=bytearray(1023))
    with pytest.raises(ValueError, match="writable"):
        tile_load(config, 0, bytes(4), 0, into=bytes(1024))
    with pytest.raises(ValueError, match="1025"):
        tile_store(config, 0, bytes(1025), bytearray(4), 0)
    with pytest.raises(ValueError, match="writable"):
        tile_store(config, 0, bytes(1024), bytes(4), 0)
    # One row needs no stride.
    assert tile_load(config, 0, b"abcd", 1 << 70)[:4] == b"abcd"


# --- lints --------------------------------------------------------------------------------------------------


def linted(fmt: int, config: TileConfig | bytes | None, tiles: dict[int, bytes] | None) -> list[tuple[str, int]]:
    """Codes, and offsets counted from TILECFG's slot."""
    layout = Layout(model("SapphireRapids"), XCR0, fmt)
    values: dict[str, bytes] = {} if config is None else {"tilecfg": bytes(config)}
    values |= {f"tmm{t}": data for t, data in (tiles or {}).items()}
    found = lint(Area(encode(values, layout), layout))
    start, size = layout.offsets[17]  # type: ignore[index]
    assert layout.offsets[18][0] == start + size  # type: ignore[index]
    assert all(words for _, _, words in found)
    return [(code, at - start) for code, at, _ in found]


def filled(rows: int, colsb: int) -> bytes:
    return b"".join(b"\x11" * colsb + bytes(64 - colsb) if r < rows else bytes(64) for r in range(16))


@each_format
def test_lints(fmt: int) -> None:
    config = TileConfig({0: (2, 4), 7: (16, 64)})
    one = filled(2, 4)
    assert linted(fmt, None, None) == []
    assert linted(fmt, config, None) == []
    assert linted(fmt, config, {0: one, 7: b"\xff" * 1024}) == []
    assert linted(fmt, config, {0: one[:4] + b"\1" + one[5:]}) == [("TILE-SHAPE", 64 + 4)]
    assert linted(fmt, config, {0: one[:128] + b"\1" + one[129:]}) == [("TILE-SHAPE", 64 + 128)]
    assert linted(fmt, config, {0: one, 3: bytes(1023) + b"\1"}) == [("TILE-SHAPE", 64 + 3 * 1024 + 1023)]
    assert linted(fmt, config, {0: one, 1: b"\1" + bytes(1023)}) == [("TILE-SHAPE", 64 + 1024)]
    assert linted(fmt, config, {0: bytes(1024)}) == [("TILE-ZEROS", 64)]
    assert linted(fmt, None, {0: one}) == [("TILE-UNCONFIGURED", 64)]
    assert linted(fmt, bytes(64), None) == [("TILE-PALETTE-0", 0)]
    assert linted(fmt, image((5, 1)), {0: one}) == [("T-RESERVED", 5), ("TILE-UNCONFIGURED", 64)]
    assert linted(fmt, image((48, 17), (60, 1)), None) == [("T-ROWS", 48), ("T-ROWS-REST", 60)]
    assert linted(fmt, TileConfig(palette=2), None) == [("T-PALETTE", 0), ("T-XCR0", 0)]
    assert linted(fmt, TileConfig({0: (2, 4), 7: (16, 64)}, start_row=15), None) == []
    assert linted(fmt, TileConfig({0: (2, 4), 7: (16, 64)}, start_row=16), None) == [("TILE-START-ROW", 1)]
    assert linted(fmt, TileConfig({}, start_row=1), None) == [("TILE-START-ROW", 1)]
    assert linted(fmt, TileConfig({2: (1, 6)}), None) == [("TILE-COLSB", 20)]


def test_lint_takes_hostile_areas() -> None:
    layout = Layout(model("SapphireRapids"), XCR0, STANDARD)
    for seed in range(20):
        area = Area(Random(seed).randbytes(layout.size), layout, check=False)
        lint(area)
        restore(area)
