"""TILELOADD, TILELOADDT1, TILESTORED, TILEZERO: order of checks, shapes, restart rows, strides (SDM2; measured)."""

import pytest

from tests.processor.operands import AMD, BASE, holed, processor
from tests.processor.tile_state import SOURCE, config, filled, fresh, row_bytes
from xsave import Fault, Processor
from xsave.memory import Memory

MOVES = ["tileloadd", "tileloaddt1", "tilestored"]
LOADS = MOVES[:2]
TILEDATA = 1 << 18


def attempt(cpu: Processor, insn: str, tile: int = 0) -> tuple[str, str] | None:
    """(vector, rule) of the fault, or None; no memory is there, so that at last a #PF follows."""
    if insn == "tilezero":
        got = cpu.try_tilezero(tile)
    elif insn in MOVES:
        got = getattr(cpu, "try_" + insn)(tile, Memory(), 64, BASE)
    elif insn == "tilerelease":
        got = cpu.try_tilerelease()
    else:
        got = getattr(cpu, "try_" + insn)(Memory(), BASE)
    assert got is None or (isinstance(got, Fault) and (got.vector == "#PF" or got.error_code == 0))
    return None if got is None else (got.vector, got.rule)


# --- order of checks --------------------------------------------------------------------------------------------

EVERY_ONE = [*MOVES, "tilezero", "tilerelease", "ldtilecfg", "sttilecfg"]


@pytest.mark.parametrize("insn", EVERY_ONE)
def test_mode_and_features_come_first(insn):
    for controls, rule in (({"mode": 32}, "MODE"), ({"mode": 32, "cr4_osxsave": False}, "MODE"),
                           ({"cr4_osxsave": False}, "OSXSAVE"), ({"xcr0": 0x2E7}, "TILES-OFF")):
        cpu = fresh(ia32_xfd=TILEDATA, **controls)
        cpu.load({"tilecfg": bytes(config([(16, 64)])), "tmm0": b"\x01" * 1024})
        before = cpu.registers()
        assert attempt(cpu, insn) == ("#UD", rule)
        assert cpu.registers() == before
    assert attempt(processor(AMD), insn) == ("#UD", "CPUID")


# Configuration, tile, XFD armed; then what moves and what TILEZERO take, with no memory to be found.
ORDER = [
    ([], 0, True, ("#UD", "TILE-INVALID"), ("#UD", "TILE-INVALID")),
    ([(16, 64)], 1, True, ("#UD", "TILE-INVALID"), ("#UD", "TILE-INVALID")),
    ([(16, 63)], 0, True, ("#UD", "TILE-COLSB"), ("#NM", "XFD")),
    ([(16, 64)], 0, True, ("#NM", "XFD"), ("#NM", "XFD")),
    ([(16, 63)], 0, False, ("#UD", "TILE-COLSB"), None),
    ([(16, 64)], 0, False, ("#PF", "PAGE"), None),
]


@pytest.mark.parametrize("insn", [*MOVES, "tilezero"])
@pytest.mark.parametrize(("shapes", "tile", "armed", "moves", "zero"), ORDER)
def test_order_of_the_checks_of_a_tile(insn, shapes, tile, armed, moves, zero):
    """The configuration, XFD, the restart row, memory."""
    cpu = fresh(ia32_xfd=TILEDATA if armed else 0)
    cpu.load({"tilecfg": bytes(config(shapes))})
    want = zero if insn == "tilezero" else moves
    assert attempt(cpu, insn, tile) == want
    assert int(cpu.ia32_xfd_err) == (TILEDATA if want and want[0] == "#NM" else 0)


@pytest.mark.parametrize("insn", [*MOVES, "tilezero"])
def test_nothing_configured(insn):
    for armed in (0, TILEDATA):
        assert attempt(fresh(ia32_xfd=armed), insn) == ("#UD", "TILES-UNCONFIGURED")


@pytest.mark.parametrize(("rows", "start", "refused"), [(16, 16, True), (16, 15, False), (3, 3, True), (3, 2, False),
                                                        (1, 1, True), (1, 0, False), (16, 255, True)])
def test_a_restart_row_beyond_the_tile(rows, start, refused):
    """After XFD, before memory; TILEZERO does not look at it."""
    for insn in MOVES:
        assert attempt(filled([(rows, 64)], start), insn) == (("#UD", "TILE-START") if refused else ("#PF", "PAGE"))
        cpu = fresh(ia32_xfd=TILEDATA)
        cpu.load({"tilecfg": bytes(config([(rows, 64)], start))})
        assert attempt(cpu, insn) == ("#NM", "XFD")
    assert attempt(filled([(rows, 64)], start), "tilezero") is None


def test_configuration_and_release_do_not_look_at_xfd():
    cpu = fresh(ia32_xfd=TILEDATA)
    cpu.ldtilecfg(config([(16, 64)]))
    cpu.sttilecfg(bytearray(64))
    cpu.tilerelease()
    assert (int(cpu.ia32_xfd_err), int(cpu.ia32_xfd)) == (0, TILEDATA)


@pytest.mark.parametrize("tile", [-1, 8, 100])
def test_there_are_eight_tiles(tile):
    cpu = filled()
    for run in (lambda: cpu.tilezero(tile), lambda: cpu.tileloadd(tile, bytes(1024), 64),
                lambda: cpu.tilestored(tile, bytearray(1024), 64)):
        with pytest.raises(ValueError, match="0 to 7"):
            run()


# --- moving -----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("colsb", range(4, 65, 4))
def test_every_shape(colsb):
    for rows in range(1, 17):
        cpu = filled([(1, 4)] * 2 + [(rows, colsb)])
        cpu.tileloadd(2, SOURCE, 64)
        want = b"".join(row_bytes(row, colsb).ljust(64, b"\0") if row < rows else bytes(64) for row in range(16))
        assert cpu.registers()["tmm2"] == want
        assert cpu.registers()["tmm1"] == b"\x02" * 1024
        out = bytearray(b"\xee" * 1024)
        cpu.tilestored(2, out, 64)
        assert out == b"".join(
            (row_bytes(row, colsb) if row < rows else b"").ljust(64, b"\xee") for row in range(16)
        )


@pytest.mark.parametrize("insn", LOADS)
@pytest.mark.parametrize("start", [0, 1, 5, 9])
def test_a_load_from_a_restart_row(insn, start):
    """Rows before it stay, the others are loaded or become zero; it is 0 afterwards."""
    cpu = filled([(10, 64)], start)
    getattr(cpu, insn)(0, SOURCE, 64)
    want = b"\x01" * 64 * start + SOURCE[64 * start : 640] + bytes(64 * 6)
    assert cpu.registers()["tmm0"] == want
    assert cpu.registers()["tilecfg"][1] == 0


@pytest.mark.parametrize("start", [0, 1, 5, 9])
def test_a_store_from_a_restart_row(start):
    cpu = filled([(10, 64)], start)
    out = bytearray(b"\xee" * 1024)
    cpu.tilestored(0, out, 64)
    assert out == b"\xee" * 64 * start + b"\x01" * 64 * (10 - start) + b"\xee" * 64 * 6
    assert cpu.registers()["tilecfg"][1] == 0


@pytest.mark.parametrize("insn", LOADS)
@pytest.mark.parametrize(("start", "row"), [(0, 0), (0, 1), (0, 9), (3, 3), (3, 7)])
def test_a_load_that_faults_and_is_restarted(insn, start, row):
    cpu = filled([(10, 64)], start)
    cpu.load({"tmm0": bytes(1024) if row == 0 else b"\x01" * 1024}, xinuse=1 << 17 | 0x40000)
    memory = holed(bytearray(SOURCE), (64 * row + 63, 64 * row + 64))
    got = getattr(cpu, "try_" + insn)(0, memory, 64, BASE)
    assert isinstance(got, Fault) and (got.vector, got.offset, got.error_code) == ("#PF", 64 * row + 63, 4)
    old = 0 if row == 0 else 1
    done = bytes([old]) * 64 * start + SOURCE[64 * start : 64 * row]
    assert cpu.registers()["tmm0"] == done + bytes(1024 - len(done))    # rows not reached are zero already
    assert cpu.registers()["tilecfg"][1] == row
    assert int(cpu.xinuse) & TILEDATA
    getattr(cpu, insn)(0, holed(bytearray(SOURCE), (0, 64 * row)), 64, BASE)    # rows before it are not read again
    assert cpu.registers()["tmm0"] == done + SOURCE[64 * row : 640] + bytes(384)
    assert cpu.registers()["tilecfg"][1] == 0


def test_a_load_that_faults_on_its_first_row_marks_the_tiles():
    cpu = fresh()
    cpu.ldtilecfg(config([(10, 64)]))
    assert attempt(cpu, "tileloadd") == ("#PF", "PAGE")
    assert int(cpu.xinuse) == 0x60000


@pytest.mark.parametrize("row", [0, 1, 9])
@pytest.mark.parametrize("read_only", [False, True])
def test_a_store_that_faults_and_is_restarted(row, read_only):
    cpu = filled([(10, 64)])
    buffer = bytearray(b"\xee" * 640)
    memory = holed(buffer, (64 * row + 8, 64 * row + 9))
    if read_only:
        memory.map(BASE + 64 * row + 8, b"\xee", writable=False)
    got = cpu.try_tilestored(0, memory, 64, BASE)
    assert isinstance(got, Fault) and got.vector == "#PF"
    assert (got.offset, got.error_code) == (64 * row + 8, 7 if read_only else 6)
    assert buffer == b"\x01" * 64 * row + b"\xee" * (640 - 64 * row)
    assert cpu.registers()["tilecfg"][1] == row
    cpu.tilestored(0, holed(buffer, (0, 64 * row)), 64, BASE)
    assert buffer == b"\x01" * 640
    assert cpu.registers()["tilecfg"][1] == 0


def test_zeroing():
    cpu = filled([(3, 12)] * 8, start_row=7)
    cpu.tilezero(5)
    got = cpu.registers()
    assert got["tmm5"] == bytes(1024)       # the whole tile
    assert got["tmm4"] == b"\x05" * 1024 and got["tmm6"] == b"\x07" * 1024
    assert got["tilecfg"][1] == 0
    assert int(cpu.xinuse) & TILEDATA
