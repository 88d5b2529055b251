"""`Host.execute`: real instructions against the codec, the manual's faults, and what this kind of CPU did before."""

import json
import lzma
import re
import struct
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from random import Random
from typing import Any

import pytest

from tests import skips
from tests.paths import DATA
from tests.silicon.steady import steadily
from xsave import (
    COMPACTED,
    REGISTERS,
    STANDARD,
    Area,
    Component,
    CpuModel,
    Host,
    HostError,
    Layout,
    Memory,
    Processor,
    decode,
    encode,
    transcode,
)

pytestmark = skips.needs_native()


def registers(random: Random, *, tiles: bool = False) -> dict[str, Any]:
    """Random values for every component that XCR0 enables, each with one chance in four left out."""
    layout = Host.layout()
    values: dict[str, Any] = {}
    for name, value in decode(Area(encode({}, layout), layout)).items():
        if name in ("mxcsr_mask", "fcw", "fsw", "fip", "fdp", "fop", "tilecfg") or (name[:3] == "tmm" and not tiles):
            continue
        if name == "mxcsr":
            values[name] = random.choice([0x1F80, 0x9FC0, 0x1FBF])
        elif name == "ftw":
            values[name] = random.getrandbits(8)
        elif name == "pkru":
            values[name] = random.getrandbits(32) & ~3
        elif isinstance(value, int):
            values[name] = random.getrandbits(16 if name[0] == "k" else 64)
        else:
            values[name] = random.randbytes(len(value))
    return {name: value for name, value in values.items() if random.random() < 0.75}


def whole(values: dict[str, Any]) -> dict[str, Any]:
    """All registers of a state in which `values` are loaded and the rest is initial."""
    layout = Host.layout()
    image = encode(values, layout)
    return decode(Area(image, layout))


def covered(name: str, mask: int) -> bool:
    """Whether a register lies wholly in these components; MXCSR where SSE and AVX both are."""
    parts = {1, 2} if name == "mxcsr" else {int(part.component) for part in REGISTERS[name].parts}
    return all(mask >> component & 1 for component in parts)


def same(found: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    return [name for name in wanted if name != "mxcsr_mask" and found[name] != wanted[name]]


@pytest.mark.parametrize("instruction", ["XSAVE", "XSAVEC", "XSAVEOPT"])
@steadily
def test_saves_hold_the_state(instruction: str) -> None:
    skips.needs_cpu(instruction.lower())
    random = Random(4)
    for _ in range(100):
        values = registers(random)
        mask = random.choice([-1, int(Host.xcr0), random.getrandbits(64)])
        rfbm = mask & int(Host.xcr0)
        done = Host.execute(instruction, None, mask, state=values, rexw=bool(random.getrandbits(1)))
        wanted = whole(values)
        assert done.fault is None
        assert same(done.registers, wanted) == []  # saving changes nothing
        layout = Layout(CpuModel.host(), rfbm, COMPACTED if instruction == "XSAVEC" else STANDARD)
        found = decode(Area(transcode(done.memory[: layout.size], layout, Host.layout()), Host.layout()))
        assert [name for name in same(found, wanted) if covered(name, rfbm)] == []
        assert done.xinuse_after == done.xinuse_before


@pytest.mark.parametrize("compacted", [False, True], ids=["standard", "compacted"])
def test_xrstor_loads_what_the_codec_reads(compacted: bool) -> None:
    if compacted:
        skips.needs_cpu("xsavec")
    random = Random(5)
    for _ in range(100):
        before, after = registers(random), registers(random)
        mask = random.getrandbits(64) & int(Host.xcr0) if compacted else int(Host.xcr0)
        layout = Layout(CpuModel.host(), mask, COMPACTED if compacted else STANDARD)
        image = bytes(transcode(encode(after, Host.layout()), Host.layout(), layout, lost="drop"))
        after = decode(Area(transcode(image, layout, Host.layout()), Host.layout()))
        done = Host.execute("XRSTOR", image, state=before)
        assert done.fault is None
        assert done.memory == image
        assert same(done.registers, after) == []
        kept = Host.execute("XRSTOR", image, 0, state=before)
        assert same(kept.registers, whole(before)) == []


def test_fxsave_and_fxrstor() -> None:
    random = Random(6)
    for _ in range(50):
        before, after = registers(random), registers(random)
        saved = Host.execute("FXSAVE", b"\xa5" * 512, state=after)
        assert saved.memory[416:] == b"\xa5" * 96
        assert saved.memory[160:416] == encode(whole(after), Host.layout())[160:416]
        loaded = Host.execute("FXRSTOR", saved.memory, state=before)
        wanted, found, old = whole(after), loaded.registers, whole(before)
        for name, value in found.items():
            if name.startswith(("st", "ftw", "mxcsr")) and name != "mxcsr_mask":
                assert value == wanted[name], name
            elif name.startswith(("zmm", "ymm", "xmm")) and int(name[3:]) < 16:
                assert value[:16] == wanted[name][:16] and value[16:] == old[name][16:], name
            elif name.startswith(("k", "zmm")):
                assert value == old[name], name


def test_writes_before() -> None:
    skips.needs_cpu("avx")
    value = bytes(range(1, 65))
    state = {"xmm3": b"\xee" * 16, "ymm3": b"\xee" * 32}
    for step, low, mid in (
        (("xmm3", value[:16]), value[:16], b"\xee" * 16),
        (("xmm3", value[:16], "vex"), value[:16], bytes(16)),
        (("ymm3", value[:32]), value[:16], value[16:32]),
    ):
        image = Host.execute("XSAVE", state={"ymm3": state["ymm3"]}, before=[step]).memory
        assert image[160 + 48 : 160 + 64] == low
        at = Host.layout().offsets[Component.AVX][0]
        assert image[at + 48 : at + 64] == mid
    done = Host.execute("XSAVE", before=[("LDMXCSR", 0x9FC0), ("FLDCW", 0x27F), ("st0", bytes(8) + b"\xff\x3f")])
    assert struct.unpack_from("<I", done.memory, 24)[0] == 0x9FC0
    assert done.registers["fcw"] == 0x27F
    assert done.registers["st0"] == bytes(8) + b"\xff\x3f"
    if Component.OPMASK in Host.xcr0:
        done = Host.execute("VZEROALL", before=[("k3", 0x1234), ("zmm20", value), ("zmm1", value)])
        assert done.registers["k3"] == 0x1234
        assert done.registers["zmm20"] == value
        assert done.registers["zmm1"] == bytes(64)


def test_xsaveopt_leaves_out_what_was_not_modified() -> None:
    skips.needs_cpu("xsaveopt")
    image = bytearray(encode(whole(registers(Random(7))), Host.layout()))
    struct.pack_into("<Q", image, 512, 7 & int(Host.xcr0))
    mine = {"before": [("XRSTOR",), ("xmm5", bytes(16))]}
    for _ in range(20):  # an interrupt between the two makes it write everything
        done = Host.execute("XSAVEOPT", image, **mine)
        if done.fault is None and done.memory[512:520] == image[512:520]:
            break
    assert done.memory[160 + 80 : 160 + 96] == bytes(16)
    assert same(done.registers, decode(Area(done.memory, Host.layout()))) == []


@steadily
def test_xgetbv() -> None:
    assert Host.execute("XGETBV", mask=0).value == int(Host.xcr0)
    assert Host.execute("XGETBV", mask=2).fault == ("#GP", 0, None)
    assert Host.execute("XGETBV", mask=0xFFFFFFFF).fault == ("#GP", 0, None)
    skips.needs_cpu("xgetbv1")
    done = Host.execute("XGETBV", mask=1, state={"st0": b"\1" * 10})
    assert done.value == done.xinuse_before == done.xinuse_after
    assert done.value & 1
    with pytest.raises(ValueError, match="ECX"):
        Host.execute("XGETBV")


# --- faults (SDM1 13.7-13.13), in their order -------------------------------------------------------------------

SAVES = ["XSAVE", "XSAVEOPT", "XSAVEC"]


@pytest.mark.parametrize("instruction", [*SAVES, "XRSTOR"])
def test_misaligned_is_gp(instruction: str) -> None:
    skips.needs_cpu(instruction.lower() if instruction != "XRSTOR" else "xsave")
    state = registers(Random(1))
    for offset in range(1, 64):
        done = Host.execute(instruction, offset=offset, state=state)
        assert done.fault == ("#GP", 0, None), offset
        assert not any(done.memory)
        assert same(done.registers, whole(state)) == []
    for offset in (1, 8, 15):
        assert Host.execute("FXSAVE", offset=offset).fault == ("#GP", 0, None)
    assert Host.execute("FXSAVE", offset=16).fault is None
    # alignment comes before the page
    assert Host.execute(instruction, address=4097).fault == ("#GP", 0, None)


def test_alignment_check() -> None:
    for offset in range(16):
        fault = Host.execute("FXSAVE", offset=offset, align_check=True).fault
        wanted = None if offset == 0 else "#GP" if offset % 4 == 0 else "#AC"
        assert (fault and fault.vector) == wanted, offset
    knobs = CpuModel.host().knobs
    for offset in (1, 2, 4, 6, 32, 63):
        fault = Host.execute("XSAVE", offset=offset, align_check=True).fault
        assert fault is not None
        assert fault.vector == ("#AC" if offset % 4 and knobs["ac_on_xsave"] else "#GP"), offset
    assert Host.execute("XSAVE", align_check=True).fault is None


@pytest.mark.parametrize("instruction", [*SAVES, "XRSTOR", "FXSAVE", "FXRSTOR"])
def test_addresses_that_are_not_canonical(instruction: str) -> None:
    if instruction not in ("XRSTOR", "FXSAVE", "FXRSTOR"):
        skips.needs_cpu(instruction.lower())
    for address in (1 << 62, 1 << 63):
        assert Host.execute(instruction, address=address).fault == ("#GP", 0, None)
        assert Host.execute(instruction, address=address, segment="ss").fault == ("#SS", 0, None)
    # Which of the two comes first where the operand is misaligned too is the CPU's own.
    cpu = Processor(CpuModel.host(), xcr0=int(Host.xcr0))
    mask = () if instruction[:2] == "FX" else (-1,)
    for segment in ("ds", "ss"):
        wanted = getattr(cpu, f"try_{instruction.lower()}")(Memory(), *mask, address=(1 << 62) + 1, segment=segment)
        real = Host.execute(instruction, address=(1 << 62) + 1, segment=segment).fault
        assert real is not None
        assert real.vector == wanted.vector


@pytest.mark.parametrize("instruction", [*SAVES, "XRSTOR"])
def test_every_byte_of_the_area_is_needed(instruction: str) -> None:
    if instruction != "XRSTOR":
        skips.needs_cpu(instruction.lower())
    for mask in (0, 1, 3, 7, int(Host.xcr0) & ~(1 << 18)):
        fmt = COMPACTED if instruction == "XSAVEC" else STANDARD
        size = Layout(CpuModel.host(), mask & int(Host.xcr0), fmt).size
        size = -(-size // 64) * 64
        area = bytes(size)
        assert Host.execute(instruction, area, mask, edge=True).fault is None, hex(mask)
        fault = Host.execute(instruction, area[64:], mask, edge=True).fault
        assert fault is not None and fault.vector == "#PF", hex(mask)
        assert fault.error_code == (4 if instruction == "XRSTOR" else 6)
        assert fault.offset is not None and size - 64 <= fault.offset < size


@pytest.mark.parametrize("instruction", SAVES)
def test_read_only_memory(instruction: str) -> None:
    skips.needs_cpu(instruction.lower())
    for mask in (0, -1):
        fault = Host.execute(instruction, None, mask, read_only=True).fault
        assert fault is not None and fault.vector == "#PF" and fault.error_code == 7
    assert Host.execute("XRSTOR", read_only=True).fault is None


def test_faults_are_those_of_the_emulated_processor() -> None:
    """Which byte CR2 names where several pages are missing, and what is checked first: header, page or MXCSR."""
    model = CpuModel.host()
    random = Random(8)
    outcomes: Counter[str | None] = Counter()
    for _ in range(400):
        layout = Host.layout()
        image = bytearray(encode(registers(random), layout))
        image += bytes(-len(image) % 64)
        instruction = random.choice(["XSAVE", "XRSTOR", "XRSTOR"])
        if random.random() < 0.3:
            struct.pack_into("<I", image, 24, random.choice([0xFFFF0000, 1 << 31, 0x10000]))
        if random.random() < 0.3:
            image[random.randrange(512, 576)] = random.randrange(256)
        mask = random.choice([-1, random.getrandbits(8), 7, 0]) & ~(1 << 18)
        cut = random.choice([len(image), len(image) - 64, 64, 512, 576, 832]) // 64 * 64
        area = bytes(image[:cut])
        real = Host.execute(instruction, area, mask, edge=True)
        cpu = Processor(model, xcr0=int(Host.xcr0))
        memory = Memory()
        memory.map(0x10000, bytearray(area))
        emulated = getattr(cpu, f"try_{instruction.lower()}")(memory, mask, address=0x10000)
        wanted = None if emulated is None else (emulated.vector, emulated.error_code)
        found = None if real.fault is None else (real.fault.vector, real.fault.error_code)
        assert found == wanted, (instruction, hex(mask), cut)
        if real.fault is not None and real.fault.vector == "#PF":
            assert real.fault.offset == emulated.offset
        outcomes[wanted and wanted[0]] += 1
    assert min(outcomes[key] for key in (None, "#GP", "#PF")) >= 20


@pytest.mark.parametrize("at", [528, 535, 520])
def test_headers_that_fault_change_nothing(at: int) -> None:
    before, after = registers(Random(2)), bytearray(encode(registers(Random(3)), Host.layout()))
    after[at] = 1
    done = Host.execute("XRSTOR", after, state=before)
    assert done.fault == ("#GP", 0, None)
    assert same(done.registers, whole(before)) == []


def test_bad_mxcsr_only_where_it_is_loaded() -> None:
    image = bytearray(encode({}, Host.layout()))
    struct.pack_into("<I", image, 24, 1 << 31)
    for mask in range(8):
        fault = Host.execute("XRSTOR", image, mask).fault
        assert (fault is not None) == bool(mask & 6 & int(Host.xcr0)), mask


def test_what_the_face_refuses() -> None:
    for wrong in (
        {"instruction": "XSETBV"},
        {"instruction": "XSAVE", "segment": "fs"},
        {"instruction": "XSAVE", "area": bytes(100), "edge": True},
        {"instruction": "XSAVE", "edge": True, "hole": 4096},
        {"instruction": "XSAVE", "hole": 100},
        {"instruction": "XSAVE", "area": bytes(576), "address": 64},
        {"instruction": "XSAVE", "state": bytes(100)},
        {"instruction": "XSAVE", "before": [("rip", 4)]},
        {"instruction": "XSAVE", "before": [("xmm3", bytes(15))]},
        {"instruction": "XSAVE", "before": [("k1", 1 << 16)]},
        {"instruction": "TILEZERO", "tile": 8},
    ):
        with pytest.raises(ValueError):
            Host.execute(**wrong)  # type: ignore[arg-type]
    with pytest.raises(HostError, match="step 0 before XSAVE, faults: #GP"):
        Host.execute("XSAVE", before=[("XRSTOR",)], offset=4)
    with pytest.raises(HostError, match="state to start from: #GP"):
        Host.execute("XSAVE", state=b"\xff" * Host.layout().size)


def test_this_thread_keeps_its_own_state() -> None:
    state = {"mxcsr": 0x9FC0, "fcw": 0x27F, "st3": b"\1" * 10}
    for instruction, options in (("XSAVE", {}), ("XSAVE", {"offset": 4}), ("XSAVE", {"align_check": True})):
        Host.execute(instruction, state=state, **options)  # type: ignore[arg-type]
        image = Host.capture("XSAVE")
        assert image["mxcsr"] & ~0x3F == 0x1F80
        assert image["fcw"] == 0x37F


def test_holes() -> None:
    layout = Host.layout()
    if layout.size <= 1024:
        pytest.skip(skips.CPU["avx512f"])
    done = Host.execute("XSAVE", hole=1024, state=registers(Random(9)))
    if CpuModel.host().profile != "intel":  # atomic, and byte 2047 begins no component
        assert done.fault is not None and done.fault.vector == "#PF"
        assert not any(done.memory)


# --- tiles ------------------------------------------------------------------------------------------------------


def test_tile_instructions_without_tiles_are_ud() -> None:
    if Component.TILECFG in Host.xcr0:
        pytest.skip(skips.HAS_AMX)
    for instruction in ("LDTILECFG", "STTILECFG", "TILERELEASE", "TILELOADD", "TILESTORED", "TILEZERO"):
        fault = Host.execute(instruction).fault
        assert fault == ("#UD", 0, None)
        assert (fault.signal, fault.code) == (4, 2)  # SIGILL, ILL_ILLOPN


TILES = """
import sys
from xsave import Host, HostError
config = bytearray(64)
config[0] = 1
for t in range(8):
    config[16 + 2 * t] = 64
    config[48 + t] = 16
config = bytes(config)
data = bytes(range(256)) * 4
def vector(*args, **kwargs):
    fault = Host.execute(*args, **kwargs).fault
    return fault and fault.vector
# configuration alone needs no permission
assert vector("LDTILECFG", config) is None
stored = Host.execute("STTILECFG", before=[("LDTILECFG", config)])
assert stored.memory == config, stored.memory
assert vector("LDTILECFG", b"\\3" + bytes(63)) == "#GP"
assert vector("TILEZERO") == "#UD"  # nothing is configured: before #NM
ready = {"before": [("LDTILECFG", config)]}
if "armed" in sys.argv:
    for name in ("TILEZERO", "TILELOADD", "TILESTORED"):
        fault = Host.execute(name, tile=3, **ready).fault
        assert fault == ("#NM", 0, None), (name, fault)
        assert (fault.signal, fault.code) == (4, 1), fault.code  # SIGILL, ILL_ILLOPC
    done = Host.execute("TILELOADD", tile=3, **ready)
    assert done.registers["tilecfg"] == config
    for name in ("TILERELEASE", "LDTILECFG"):
        assert vector(name, **ready) in (None, "#GP")
    try:
        Host.execute("XSAVE", state={"tmm0": data})
    except HostError as error:
        assert "#NM" in str(error)
    else:
        raise AssertionError("tiles without permission")
else:
    Host.request_amx()
    # the first use of the permission takes the armed XFD off this thread for good
    assert vector("TILEZERO", tile=0, **ready) is None
    load = Host.execute("TILELOADD", data, tile=5, stride=64, **ready)
    assert load.fault is None
    assert load.registers["tmm5"] == data
    assert load.xinuse_after & 0x60000 == 0x60000
    store = Host.execute("TILESTORED", bytes(1024), tile=2, stride=64, state={"tilecfg": config, "tmm2": data})
    assert store.memory == data
    again = Host.execute("TILELOADDT1", data, tile=1, stride=0, **ready)
    assert again.registers["tmm1"] == data[:64] * 16
    gone = Host.execute("TILERELEASE", state={"tilecfg": config, "tmm2": data})
    assert gone.registers["tmm2"] == bytes(1024)
    assert gone.registers["tilecfg"] == bytes(64)
    half = Host.execute("TILELOADD", data[:512], tile=0, stride=64, edge=True, **ready)
    assert half.fault == ("#PF", 4, 512), half.fault
    assert half.registers["tmm0"] == data[:512] + bytes(512)
    assert half.registers["tilecfg"][1] == 8  # start_row: where to resume
    full = {"tilecfg": config, "tmm2": data}
    short = Host.execute("TILESTORED", bytes(512), tile=2, stride=64, edge=True, state=full)
    assert short.fault == ("#PF", 6, 512), short.fault
    assert short.memory == data[:512]
    for address in (1 << 62,):
        assert vector("TILELOADD", address=address, tile=0, stride=0, **ready) == "#GP"
    saved = Host.execute("XSAVE", state={"tilecfg": config, "tmm7": data})
    assert saved.memory[512:520][2] & 6 == 6
    assert Host.execute("XRSTOR", saved.memory).registers["tmm7"] == data
print("done")
"""


@pytest.mark.parametrize("xfd", ["armed", "clear"])
def test_tiles(xfd: str) -> None:
    """In a child: a permission cannot be given back, and a thread that has used a tile is not armed again."""
    if xfd == "clear":
        skips.needs_amx()
    else:
        skips.needs_cpu("amx_tile")
        if Host.amx_permission():
            pytest.skip(skips.NO_AMX_PERMISSION)
    done = subprocess.run([sys.executable, "-c", TILES, xfd], capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr


# --- cases recorded on a Zen 5, for every CPU of that profile -----------------------------------------------------

REGION = 0x7000
NON_CANONICAL = 0x0000800000000000
PLAIN = re.compile(r"^(48)?0f(ae|c7|01)([0-3][7f]|[4-7][5d](?=00)|d0)(00)?$")  # [rdi] and [rbp+0], no register forms


def recorded(name: str) -> Iterator[dict[str, Any]]:
    with lzma.open(DATA / "vectors" / "zen5" / f"{name}.jsonl.xz", "rt") as lines:
        yield from map(json.loads, lines)


def loaded(path: str) -> Any:
    return json.loads(lzma.open(DATA / "vectors" / "zen5" / path).read())


def number(value: "int | str") -> int:
    return int(value, 16) if isinstance(value, str) else value


def in_names(state: dict[str, Any]) -> dict[str, Any]:
    values: dict[str, Any] = {n: number(state[n]) for n in ("fcw", "fsw", "ftw", "fop", "fip", "fdp", "mxcsr")}
    values.update((f"st{i}", bytes.fromhex(data)) for i, data in enumerate(state["st"]))
    values.update((f"zmm{i}", bytes.fromhex(data)) for i, data in enumerate(state["zmm"]))
    values.update((f"k{i}", number(data)) for i, data in enumerate(state["k"]))
    return values


def applied(state: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    out = {name: list(value) if isinstance(value, list) else value for name, value in state.items()}
    for name, value in changes.items():
        if isinstance(value, dict):
            for i, data in value.items():
                out[name][int(i)] = data
        else:
            out[name] = value
    return out


@steadily
def replayed(case: dict[str, Any], states: Any, fills: Any) -> bool | None:
    """Executes one recorded case and asserts its outcome. False: registers came into use otherwise; None: not ours."""
    name = case["op"]
    code = PLAIN.match(case["code"])
    flags = set(case.get("flags") or ())
    if code is None or case["mode"] != 64 or flags - {"AC", "RDONLY", "NONCANON"}:
        return None
    memory = bytearray(bytes.fromhex(fills[case["fill"]]))
    for offset, data in case.get("patch", ()):
        memory[offset : offset + len(data) // 2] = bytes.fromhex(data)
    at = case["off"]
    area = (bytes(memory) + b"\xcc" * REGION)[: REGION - at]
    before = applied(states[case["state"]], case.get("pre", {}))
    result = case["res"]
    options: dict[str, Any] = {"edge": True, "offset": at % 64, "read_only": "RDONLY" in flags}
    if "NONCANON" in flags:
        area, options = None, {"address": NON_CANONICAL + at}  # type: ignore[assignment]
    if name == "XGETBV":
        area, options = None, {}  # type: ignore[assignment]
    mask = number(case.get("rcx", 0)) if name == "XGETBV" else number(case["edx_eax"])
    modrm = int(code[3], 16)
    done = Host.execute(
        name,
        area,
        mask,
        state=in_names(before),
        rexw=bool(code[1]),
        segment="ss" if modrm >> 6 == 1 and name != "XGETBV" else "ds",
        align_check="AC" in flags,
        **options,
    )
    assert (done.fault and done.fault.vector) == result["vec"], case["id"]
    if done.fault is not None and done.fault.vector == "#PF":
        assert done.fault.offset == number(result["cr2"]), case["id"]
    seen = [number(value) for value in result["xinuse"]] if "xinuse" in result else None
    if seen and done.xinuse_before != seen[0] and name not in ("XRSTOR", "XRSTORS"):
        return False  # the recorder's way to load registers: what is loaded otherwise counts by use
    wanted = in_names(applied(before, result.get("regs", {})))
    assert same(done.registers, wanted) == [], case["id"]
    if area is not None:
        after = bytearray(area)
        for offset, data in result.get("mem", ()):
            after[offset : offset + len(data) // 2] = bytes.fromhex(data)
        changed = [at for at, (found, byte) in enumerate(zip(done.memory, after, strict=True)) if found != byte]
        assert changed == [], case["id"]
    if name == "XGETBV" and result["vec"] is None:
        assert done.value == number(result["rax"]) | number(result["rdx"]) << 32, case["id"]
    return True


@pytest.mark.parametrize("name", ["XSAVE", "XSAVEC", "XSAVEOPT", "XRSTOR", "XRSTORS", "XSAVES", "XGETBV"])
def test_recorded_cases_come_out_again(name: str) -> None:
    skips.needs_data()
    skips.needs_cpu("xsaveerptr")
    if int(Host.xcr0) != 0xE7:
        pytest.skip(skips.OTHER_XCR0)
    states, fills = loaded("states.json.xz"), loaded("fills.json.xz")
    outcomes = Counter(replayed(case, states, fills) for case in recorded(name))
    assert outcomes[True] > 4 * outcomes[False]
    assert outcomes[True] >= {"XSAVES": 5, "XRSTORS": 5, "XGETBV": 25}.get(name, 400)
