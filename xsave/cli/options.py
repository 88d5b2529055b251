"""What the verbs' parsers share: the parser class, the common options, and the words that arguments are made of."""

import argparse
import sys

from xsave.cli.failures import suggestion, usage

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

    from xsave.components import ComponentMask
    from xsave.models import CpuModel

LANE_TYPES = ("u8", "u16", "u32", "u64", "i8", "i16", "i32", "i64", "f16", "bf16", "f32", "f64")

# Text of a CPUID dump is a few hundred KiB at most.
_CPUID_TEXT_LIMIT = 16 << 20


class _Help(argparse.RawDescriptionHelpFormatter):
    # A fixed width: the default asks shutil, which loads every compressor of the standard library.
    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=26, width=79)


class Parser(argparse.ArgumentParser):
    """An `ArgumentParser` whose errors are `CommandError`s with a suggestion, and whose help fits a screen."""

    def __init__(self, verb: str, description: str, examples: str) -> None:
        lines = "\n".join(f"  {line}" for line in examples.strip().splitlines())
        super().__init__(
            prog=f"xsave {verb}",
            description=description,
            epilog=f"examples:\n{lines}",
            formatter_class=_Help,
            add_help=False,
            allow_abbrev=False,
        )
        self.verb = verb

    def error(self, message: str) -> "NoReturn":
        unknown = message.partition("unrecognized arguments: ")[2].split()
        options = [option for action in self._actions for option in action.option_strings]
        hint = suggestion(unknown[0].partition("=")[0], options) if unknown and unknown[0].startswith("-") else ""
        raise usage(f"{self.verb}: {message}", hint or f"xsave {self.verb} -h")


def add_common(parser: argparse.ArgumentParser, *, formats: "tuple[str, ...]" = ("json",), output: bool = True) -> None:
    """The options that every verb has: help, output form and file, colour, verbosity."""
    group = parser.add_argument_group("output")
    texts = {"json": "one JSON document", "ndjson": "one JSON record a line", "csv": "comma-separated values"}
    if formats:
        forms = group.add_mutually_exclusive_group()
        for form in formats:
            forms.add_argument(f"--{form}", dest="form", action="store_const", const=form, help=texts[form])
    parser.set_defaults(form="text")
    if output:
        group.add_argument("-o", dest="output", metavar="FILE", help="write to FILE (complete or not at all)")
    group.add_argument("--color", choices=("auto", "always", "never"), default="auto", help="colour (default: on a terminal)")
    group.add_argument("--ascii", action="store_true", help="no character outside ASCII")
    group.add_argument("--provenance", action="store_true", help="say when, where and by which version")
    group.add_argument("-q", dest="quiet", action="store_true", help="no warnings, no progress")
    group.add_argument("-v", dest="verbose", action="store_true", help="say more")
    group.add_argument("--debug", action="store_true", help="tracebacks of errors")
    group.add_argument("-h", "--help", action="help", help="show this help")


def worded(parse: "Callable[[str], object]", word: str) -> "object":
    """`parse(word)` with its ValueError or KeyError turned into a usage error."""
    try:
        return parse(word)
    except KeyError as error:
        raise usage(str(error.args[0]) if error.args else f"unknown {word!r}") from None
    except ValueError as error:
        raise usage(str(error)) from None


def mask(text: str) -> "ComponentMask":
    """A mask as the user writes it: `0xe7`, `231`, `1<<17`, `SSE|AVX`, `avx512`. Raises: `CommandError`."""
    from xsave.components import ComponentMask

    try:
        return ComponentMask.parse(text)
    except ValueError as error:
        raise usage(str(error)) from None


def number(text: str) -> int:
    """An integer in any base that Python writes. Raises: `CommandError`."""
    try:
        return int(text, 0)
    except ValueError:
        raise usage(f"{text!r} is not a number") from None


def cpu(text: str) -> "CpuModel":
    """A CPU: `host`, a model's name, or a file of CPUID text. Raises: `CommandError`, `FormatError`."""
    import os

    from xsave.models import CpuModel

    if text == "host":
        return CpuModel.host()
    names = list(CpuModel.names())
    known = {name.lower(): name for name in names}
    if text.lower() in known:
        return CpuModel.named(known[text.lower()])
    if os.path.exists(text):
        with open(text, "rb") as file:
            data = file.read(_CPUID_TEXT_LIMIT)
        try:
            return CpuModel.from_text(data.decode("utf-8", "replace"))
        except ValueError as error:
            from xsave.cli.failures import explain

            raise explain(error, source=text) from error
    raise usage(
        f"unknown CPU {text!r}: neither a model's name nor a file of CPUID text",
        suggestion(text, names) or "xsave layout --list names the models",
    )


def colored(choice: str) -> bool:
    """Whether to colour: `--color`, then NO_COLOR, then FORCE_COLOR, then whether stdout is a terminal."""
    import os

    if choice != "auto":
        return choice == "always"
    if os.environ.get("NO_COLOR"):
        return False
    force = os.environ.get("FORCE_COLOR")
    if force:
        return force != "0"
    try:
        return sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
    except (AttributeError, ValueError):
        return False
