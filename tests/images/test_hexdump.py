"""Hex dumps in every form: the bytes come back, or the line that cannot be is named."""

import random
import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import xsave
from tests import skips
from tests.images.areas import area_of, layout_of
from tests.run_tool import run_tool
from tests.writers import hexdumps
from xsave import ImageError
from xsave.images.hexdump import area_bytes, parse_hex

AREA = area_of(layout_of("EPYC-Genoa", 0x2E7))
UNITS = {"gdb x/xh": 2, "gdb x/xw": 4, "gdb x/xg": 8}


@pytest.mark.parametrize("form", hexdumps.FORMS)
@pytest.mark.parametrize("xstate_bv", [None, 3])
def test_area_through_every_form(form, xstate_bv):
    area = area_of(layout_of("EPYC-Genoa", 0x2E7), xstate_bv=xstate_bv)
    image = xsave.open(hexdumps.FORMS[form](area).encode())
    assert image.kind.startswith("hex dump") and image.warnings == []
    assert bytes(image.threads[0].area) == area
    assert image.threads[0].evidence == ("XCR0 0x2e7 and size 2440", "known")


@given(st.data())
@settings(max_examples=200)
def test_any_bytes_through_any_form(data):
    form = data.draw(st.sampled_from(sorted(hexdumps.FORMS)))
    seed, count = data.draw(st.integers(0, 1 << 32)), data.draw(st.integers(2, 200))
    rng = random.Random(seed)
    # Two lines that differ show in which base the addresses are.
    raw = rng.randbytes(32) + b"".join(rng.choice([bytes(16), rng.randbytes(16)]) for _ in range(count))
    unit = UNITS.get(form, 1)
    raw += rng.randbytes(data.draw(st.integers(0, 15)) // unit * unit)
    assert parse_hex(hexdumps.FORMS[form](raw))[0] == raw


TOOL_FORMS = [
    *("xxd|xxd -g1|xxd -c 24 -g 8|xxd -u|xxd -p|xxd -a".split("|")),
    *("hexdump -C|hexdump|hexdump -x|hexdump -v|hexdump -b|hexdump -o".split("|")),
    *("od|od -x|od -b|od -v|od -t x1|od -A x -t x1z|od -A d -t x2|od -A n -t x1 -v|od -t x4".split("|")),
    *("od -t x8 -w32|od -A x -t o2".split("|")),
]


@pytest.mark.parametrize("command", TOOL_FORMS)
@pytest.mark.parametrize("xstate_bv", [None, 3])
def test_what_the_tools_print(command, xstate_bv, tmp_path):
    skips.needs_tool(command.split()[0])
    area = area_of(layout_of("SapphireRapids", 0xE7), xstate_bv=xstate_bv)
    path = tmp_path / "area"
    path.write_bytes(area)
    text = run_tool([*command.split(), path]).stdout
    assert parse_hex(text)[0] == area


def test_what_gdb_prints(tmp_path):
    skips.needs_tool("gdb")
    skips.needs_tool("gcc")
    source, program = tmp_path / "a.c", tmp_path / "a"
    source.write_text("unsigned char state[] = {" + ",".join(map(str, AREA)) + "};\nint main(void) { return 0; }\n")
    run_tool(["gcc", "-o", program, source])
    for command, unit in (("b", 1), ("h", 2), ("w", 4), ("g", 8)):
        text = run_tool(["gdb", "-nx", "-batch", "-ex", f"x/{len(AREA) // unit}x{command} &state", program]).stdout
        assert parse_hex(text) == (AREA, "gdb x/")


@pytest.mark.parametrize("form", ["xxd", "hexdump -C", "hexdump", "od", "gdb x/xb", "lldb"])
def test_a_missing_line_is_named(form):
    lines = hexdumps.FORMS[form](AREA).splitlines()
    del lines[7]
    with pytest.raises(xsave.ImageError, match=r"line 8 of the hex dump is at address 0x[0-9a-f]+, expected address"):
        parse_hex("\n".join(lines))
    lines = hexdumps.FORMS[form](AREA).splitlines()
    lines[5], lines[6] = lines[6], lines[5]
    with pytest.raises(xsave.ImageError, match=r"line \d of the hex dump"):
        parse_hex("\n".join(lines))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("00000000: 0011 22zz\n", "line 1"),
        ("0x1000: 0x11 0x2\n", "line 1 .* 0x and 2, 4, 8 or 16 digits"),
        ("00000000  00 11 22\n*\n", "hex dump"),
        ("0011223\n", "pairs of hex digits"),
        ("00 11 22 xx\n", "line 1"),
        ("00 11\n*\n", "no line has an address"),
        ("00 11\n*\n22 33\n", "no line has an address"),
        ("00000000: 0011\n*\nfffffffff0: 0011\n", "at most"),
        ("hello, the state is abad1dea\n", "line 1"),
        ("   \n", "no line with digits"),
    ],
)
def test_errors_name_the_line(text, message):
    with pytest.raises(xsave.ImageError, match=message) as caught:
        parse_hex(text, "pasted")
    assert "pasted" in str(caught.value)


def test_text_that_is_no_area():
    with pytest.raises(xsave.ImageError, match="no XSAVE area"):
        xsave.open(hexdumps.xxd(b"\xff" * 600).encode())


def test_prompts_and_blank_lines_between():
    text = "(gdb) x/2440xb state\n\n" + hexdumps.gdb(AREA) + "(gdb) quit\n"
    assert parse_hex(text)[0] == AREA


def test_area_bytes(tmp_path):
    path = tmp_path / "dump.txt"
    path.write_text(hexdumps.hexdump_canonical(AREA))
    assert area_bytes(path, 1 << 20) == AREA
    assert area_bytes(AREA, 600) == AREA[:600]
    assert area_bytes(b"hello 00 xx", 600) is None
    assert area_bytes(tmp_path / "none", 600) is None


def test_core_in_a_hex_dump():
    from tests.images.areas import legacy_of
    from tests.writers import elf

    data = elf.core(elf.linux_notes([elf.Thread(tid=3, xstate=AREA, fpregs=legacy_of(AREA))]))
    image = xsave.open(hexdumps.hexdump_canonical(data).encode())
    assert image.kind == "ELF core" and bytes(image.threads[0].area) == AREA


ALPHABET = st.sampled_from([*list("0123456789abcdefx: \n*|<>.-"), "0x", "\n00000010: ", "\n0000020 ", "\r\n"])


@given(st.lists(ALPHABET, max_size=200).map("".join))
@settings(max_examples=500)
def test_any_text(text):
    try:
        data, form = parse_hex(text)
    except xsave.ImageError:
        return
    assert isinstance(data, bytes) and re.match(r"[a-z]", form)


@pytest.mark.parametrize(
    "line",
    [
        b"00" + b" " * 40_000 + b"x",
        b"0000000 00 00" + b" " * 40_000 + b"x\n0000002 00 00",
        b"00000000 00 " + b" >><" * 30_000 + b"00\n00000002 00",
    ],
    ids=["colon", "blanks", "brackets"],
)
def test_long_lines_take_linear_time(line):
    started = time.process_time()
    with pytest.raises(ImageError):
        parse_hex(line)
    assert time.process_time() - started < 2


@pytest.mark.parametrize("end", ["\n", "\r", "\f"])
def test_many_lines_are_refused_before_they_are_held(end):
    with pytest.raises(ImageError, match="more than 524,288 lines"):
        parse_hex(f"00{end}" * 524_289)


def test_characters_beside_the_bytes_are_left_out():
    lines = ["0000000 61 7c 20 3e  >a| ><", "0000004 3c 3e 20 7c  ><> |<", "0000010"]
    assert parse_hex("\n".join(lines).replace("0000010", "0000008"))[0] == b"a| ><> |"
