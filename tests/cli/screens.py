"""Commands whose output is kept: the screens under tests/data/screens and the examples in docs/cli.md.

Run as a program it writes both anew; the tests only compare. Nothing in the output depends on the machine.
"""

import contextlib
import io
import os
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.append(str(Path(__file__).resolve().parent.parent.parent))

from tests.cli.areas import area
from tests.paths import ROOT
from xsave import CpuModel
from xsave.cli.main import main
from xsave.host import LiveThread
from xsave.images.core_writer import write_core

SCREENS = ROOT / "tests" / "data" / "screens"
DOCS = ROOT / "docs" / "cli.md"

COMMANDS = {
    "first-screen": "xsave sample.core",
    "one-register": "xsave decode sample.core --reg zmm0,k1,rip --thread crashed -t f32",
    "tiles": "xsave decode amx.bin --component amx",
    "layout": "xsave layout SapphireRapids --supervisor",
    "layout-frame": "xsave layout SapphireRapids --frame linux --xcr0 0x600e7",
    "layout-vs": "xsave layout EPYC-Genoa --vs SapphireRapids",
    "diff": "xsave diff area.bin changed.bin",
    "validate": "xsave validate broken.bin --cpu SapphireRapids",
    "validate-exact": "xsave validate broken.bin --cpu SapphireRapids --xcr0 0x2e7 --instruction XRSTOR",
    "validate-ptrace": "xsave validate broken.bin --cpu SapphireRapids --ptrace",
    "audit-input": "xsave audit broken.bin --cpu SapphireRapids --migrate-to EPYC-Rome --by kvm,ptrace",
    "audit-policy": "xsave audit amx.bin --host EPYC-Genoa --policy vmx-exit",
    "run-fault": "xsave run XRSTOR broken.bin --cpu SapphireRapids --xcr0 0x2e7",
    "run-save": "xsave run XSAVEC --cpu EPYC-Genoa --state area.bin --mask 'SSE|avx|pkru'",
    "run-restore": "xsave run XRSTOR area.bin --cpu Icelake-Client --mask 'x87|SSE|opmask'",
    "help": "xsave -h",
    "help-decode": "xsave decode -h",
}
_VARIABLES = ("COLUMNS", "NO_COLOR", "FORCE_COLOR")


def make_samples(folder: Path) -> None:
    """The files that the commands name."""
    import struct

    model = CpuModel.named("SapphireRapids")
    threads = []
    for index, mask in enumerate((0xE7, 0x2E7, 0x2E7)):
        state = bytearray(area("SapphireRapids", mask, seed=index))
        whole = bytearray(area("SapphireRapids", 0x2E7, seed=index))
        whole[: len(state)] = state
        whole[464:472] = (0x2E7).to_bytes(8, "little")
        whole[160:176] = struct.pack("<4f", 0.1, 1.5, -2.0, float("inf"))
        registers = bytearray(216)
        struct.pack_into("<Q", registers, 16 * 8, 0x401136 + index)
        threads.append(
            LiveThread(1234 + index, "sample", bytes(registers), bytes(whole[:512]), bytes(whole), b"", None)
        )
    write_core(folder / "sample.core", threads, model=model, signal=11)
    data = bytearray(area("SapphireRapids", 0x2E7))
    (folder / "area.bin").write_bytes(data)
    (folder / "amx.bin").write_bytes(bytes(area("SapphireRapids", 0x602E7)))
    (folder / "vcpu.kvm_xsave").write_bytes(bytes(area("SapphireRapids", 0xE7)).ljust(4096, b"\0"))
    data[160 + 16 * 3] ^= 1
    (folder / "changed.bin").write_bytes(data)
    data[529] = 7
    (folder / "broken.bin").write_bytes(data)


@contextlib.contextmanager
def sample_folder() -> Iterator[Path]:
    """A folder with the samples, as the working directory, in a plain environment."""
    before, saved = os.getcwd(), {name: os.environ.pop(name) for name in _VARIABLES if name in os.environ}
    with TemporaryDirectory() as name:
        make_samples(Path(name))
        os.chdir(name)
        try:
            yield Path(name)
        finally:
            os.chdir(before)
            os.environ.update(saved)


def output(line: str) -> str:
    """What a command line prints, errors included, and its exit code where it is not 0."""
    words = shlex.split(line)
    assert words[0] == "xsave"
    both = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    with contextlib.redirect_stdout(both), contextlib.redirect_stderr(both):
        code = main(words[1:])
    both.flush()
    text = both.buffer.getvalue().decode()  # type: ignore[attr-defined]
    return text + (f"(exit {code})\n" if code else "")


def examples(text: str) -> "list[tuple[int, int, list[str]]]":
    """The checked examples of a document: (first line, line after the last, commands) of each ```console block."""
    found = []
    lines = text.splitlines()
    for at, line in enumerate(lines):
        if line == "```console":
            end = lines.index("```", at)
            found.append((at + 1, end, [each[2:] for each in lines[at + 1 : end] if each.startswith("$ ")]))
    return found


def rendered(commands: "list[str]") -> "list[str]":
    """The lines of an example: each command with what it prints."""
    blocks = ["\n".join([f"$ {command}", *output(command).splitlines()]) for command in commands]
    return "\n\n".join(blocks).splitlines()


def write() -> None:
    """Writes screens and examples anew."""
    with sample_folder():
        SCREENS.mkdir(parents=True, exist_ok=True)
        for name, command in COMMANDS.items():
            (SCREENS / f"{name}.txt").write_text(output(command))
        lines = DOCS.read_text().splitlines()
        for start, end, commands in reversed(examples("\n".join(lines))):
            lines[start:end] = rendered(commands)
        DOCS.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    write()
