"""Where images come from: files, buffers, pipes, compressed streams; opened only as far as needed."""

import array
import bz2
import functools
import gzip
import io
import lzma
import os
import subprocess
import sys
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import xsave
from tests import skips
from tests.images.areas import area_of, layout_of, legacy_of
from tests.images.test_elf import Pipe
from tests.packers import PACKERS
from tests.run_tool import run_tool
from tests.writers import elf
from tests.writers.elf import Thread
from xsave.images.source import open_source

LAYOUT = layout_of("EPYC-Genoa", 0xE7)
AREAS = [area_of(LAYOUT, seed) for seed in range(4)]
THREADS = [Thread(tid=i + 1, signal=6, xstate=area, fpregs=legacy_of(area)) for i, area in enumerate(AREAS)]
MEMORY = os.urandom(1 << 18)
CORE = elf.core(elf.linux_notes(THREADS), [(0x400000, MEMORY)])




@functools.cache
def packed_core(name):
    return PACKERS[name](CORE)


def check(image):
    assert [bytes(thread.area) for thread in image.threads] == AREAS
    # Again, and backwards: what a stream has passed is held.
    assert [bytes(thread.area) for thread in reversed(list(image.threads))] == AREAS[::-1]


def test_buffers():
    for source in (CORE, bytearray(CORE), memoryview(CORE), array.array("B", CORE)):
        check(xsave.open(source))


def test_paths(tmp_path):
    path = tmp_path / "core"
    path.write_bytes(CORE)
    with xsave.open(path) as image:
        check(image)
        assert image.source == str(path)
    check(xsave.open(str(path)))
    with path.open("rb") as file:
        check(xsave.open(file))
    check(xsave.open(io.BytesIO(CORE)))


@pytest.mark.parametrize("name", PACKERS)
def test_compressed(name, tmp_path):
    packed = packed_core(name)
    check(xsave.open(packed))
    check(xsave.open(Pipe(packed)))
    path = tmp_path / "core.packed"
    path.write_bytes(packed)
    check(xsave.open(path))


@pytest.mark.parametrize("name", PACKERS)
def test_several_members_and_notes_last(name):
    data = elf.core(elf.linux_notes(THREADS), [(0x400000, MEMORY[: 1 << 18])], notes_last=True)
    pieces = [data[at : at + 100_000] for at in range(0, len(data), 100_000)]
    check(xsave.open(b"".join(map(PACKERS[name], pieces))))


@pytest.mark.parametrize("tool", ["gzip", "xz", "zstd", "lz4"])
def test_what_the_tools_write(tool, tmp_path):
    skips.needs_tool(tool)
    PACKERS[tool](b"")
    path = tmp_path / "core"
    path.write_bytes(CORE)
    check(xsave.open(run_tool([tool, "-c", path]).stdout))


@pytest.mark.parametrize("name", PACKERS)
def test_only_as_far_as_needed(name):
    """Of a core whose notes come first the memory behind them is not unpacked."""
    packed = PACKERS[name](elf.core(elf.linux_notes(THREADS), [(0x400000, os.urandom(1 << 20))]))
    pipe = Pipe(packed, most=1 << 30)
    check(xsave.open(pipe))
    assert pipe._at < len(packed) / 4


@pytest.mark.parametrize("name", PACKERS)
def test_cut_streams(name):
    """A stream that ends early: threads whose notes came through, and a warning; or one error."""
    packed = packed_core(name)
    seen = set()
    for length in [*range(0, 64, 3), *range(64, 300_000, 29_989)]:
        try:
            image = xsave.open(packed[:length])
        except xsave.XSaveError as error:
            assert "<bytes>" in str(error) or "as an area" in str(error)
            continue
        done = [bytes(thread.area) for thread in image.threads if thread.area is not None]
        assert done[: len(done) - 1] == AREAS[: len(done) - 1]
        seen.add(len(done))
    assert seen


@pytest.mark.parametrize("name", PACKERS)
@given(st.data())
@settings(max_examples=30)
def test_damaged_streams(name, data):
    packed = bytearray(packed_core(name))
    for _ in range(data.draw(st.integers(1, 3))):
        packed[data.draw(st.integers(0, min(len(packed), 30_000) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        image = xsave.open(bytes(packed))
        _ = [thread.area for thread in image.threads]
    except xsave.XSaveError:
        pass


def test_a_bomb_is_not_unpacked():
    bomb = gzip.compress(bytes(64 << 20), 1)
    with pytest.raises(xsave.XSaveError):
        xsave.open(bomb)


def test_missing_modules_are_named(monkeypatch):
    for magic, module, extra in ((b"\x28\xb5\x2f\xfd", "zstd", "zstd"), (b"\x04\x22\x4d\x18", "lz4", "lz4")):
        for name in ("compression.zstd", "backports.zstd", "lz4", "lz4.frame"):
            monkeypatch.setitem(sys.modules, name, None)
        with pytest.raises(xsave.UnsupportedError, match=rf"{module}.*pip install 'xsave\[{extra}\]'"):
            xsave.open(magic + bytes(100))


def test_pipe_and_standard_input():
    program = "import xsave; print(bytes(xsave.open('-').threads[2].area).hex())"
    for data in (CORE, gzip.compress(CORE)):
        out = subprocess.run([sys.executable, "-c", program], input=data, capture_output=True, check=True).stdout
        assert out.decode().split()[-1] == AREAS[2].hex()


def test_fifo(tmp_path):
    path = tmp_path / "fifo"
    os.mkfifo(path)

    def write():
        try:
            path.write_bytes(CORE)
        except BrokenPipeError:
            pass

    writer = threading.Thread(target=write)
    writer.start()
    with xsave.open(path) as image:
        check(image)
    writer.join()


def test_a_passed_stream_says_so():
    image = xsave.open(Pipe(CORE))
    image._source._seek(len(CORE) - 10)
    with pytest.raises(xsave.ImageError, match="a stream goes forward only"):
        image._source.read(len(CORE) // 2, 10)


def test_errors(tmp_path):
    with pytest.raises(xsave.ImageError, match="No such file"):
        xsave.open(tmp_path / "none")
    with pytest.raises(xsave.ImageError, match="directory"):
        xsave.open(tmp_path)
    with pytest.raises(TypeError, match="cannot open int"):
        xsave.open(5)
    with pytest.raises(xsave.XSaveError):
        xsave.open(bz2.compress(CORE))
    for magic in (b"MDMP", b"KDUMP   "):
        with pytest.raises(xsave.UnsupportedError, match="not read by this version"):
            xsave.open(magic + bytes(5000))


@pytest.mark.parametrize("make", [lambda d: d, lambda d: io.BytesIO(d), lambda d: Pipe(d), lambda d: gzip.compress(d)])
def test_reads(make):
    data = os.urandom(300_000)
    source = open_source(make(data))
    assert source.read(0, 10) == data[:10]
    assert source.retain(10, 200_000) == 200_000
    assert source.read(5_000, 100) == data[5_000:5_100]
    assert source.read(250_000, 10) == data[250_000:250_010]
    assert source.read(150_000, 50_000) == data[150_000:200_000]
    assert source.read(299_990, 100) == data[299_990:]
    buffer = bytearray(50)
    assert source.read_into(100, memoryview(buffer)) == 50 and buffer == data[100:150]
    assert source.read(400_000, 10) == b""
    if source.seekable or source._again:
        assert source.retain(100, 500_000) == 300_000
    assert source.size == 300_000


CRIU = [bytes.fromhex(magic) for magic in ("1943565447380555", "163131584e000000", "4059105506330957")]


@pytest.mark.parametrize("content", CRIU)
def test_a_criu_image_is_named(content):
    with pytest.raises(xsave.UnsupportedError, match="this is a CRIU image"):
        xsave.open(content + bytes(600))


@pytest.mark.parametrize("magic", [b"\x1f\x8b", b"\xfd7zXZ\0", lzma.compress(CORE)[:30]])
def test_a_stream_cut_before_its_first_byte_is_not_called_empty(magic):
    with pytest.raises(xsave.ImageError, match="damaged or cut after 0 bytes"):
        xsave.open(magic)


@pytest.mark.parametrize("size", [4, 15])
def test_a_short_elf_header_is_not_called_a_wrong_magic_number(size):
    with pytest.raises(xsave.ImageError, match=f"the ELF header at offset {size:#x} is {size} bytes, expected 16"):
        xsave.open(CORE[:size])


@pytest.mark.parametrize("at", [32, 64 + 8], ids=["e_phoff", "p_offset"])
def test_a_stream_is_not_followed_to_a_far_offset(at):
    # Zeros compress 1,000 to 1: a small file can ask for hours of unpacking.
    core = bytearray(CORE)
    core[at : at + 8] = (1 << 45).to_bytes(8, "little")
    with pytest.raises(xsave.ImageError, match=f"offset {1 << 45:#x} .* decompress it to a file first"):
        xsave.open(Pipe(bytes(core)))
