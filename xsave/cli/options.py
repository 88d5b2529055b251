"""What the verbs' parsers share: the parser class, the common options, and the words that arguments are made of."""

import argparse
import sys

from xsave.cli.failures import suggestion, usage

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from xsave.components import ComponentMask
    from xsave.models import CpuModel

# Messages are English like everything else here; looking for catalogues costs a tenth of a bare interpreter's start.
argparse._ = str  # type: ignore[attr-defined]
argparse.ngettext = lambda one, many, count: one if count == 1 else many  # type: ignore[attr-defined]

LANE_TYPES = ("u8", "u16", "u32", "u64", "i8", "i16", "i32", "i64", "f16", "bf16", "f32", "f64")

# Text of a CPUID dump is a few hundred KiB at most.
_CPUID_TEXT_LIMIT = 16 << 20


class _NoFormatter:
    # argparse makes a formatter for every argument, only to check its metavar; the real one compiles two patterns and
    # asks shutil for the terminal's width, which loads every compressor of the standard library.
    def _format_args(self, action: argparse.Action, default: object) -> str:
        return ""


class Parser(argparse.ArgumentParser):
    """An `ArgumentParser` whose errors are `CommandError`s with a suggestion, and whose help fits a screen."""

    def __init__(self, verb: str, description: str, examples: str) -> None:
        super().__init__(prog=f"xsave {verb}".strip(), description=description, add_help=False, allow_abbrev=False)
        self.verb = verb
        self.examples = examples.strip().splitlines()
        self.common: "list[argparse.Action]" = []
        self.brief: "list[tuple[str, list[argparse.Action]]]" = []

    def error(self, message: str) -> "NoReturn":
        unknown = message.partition("unrecognized arguments: ")[2].split()
        options = [option for action in self._actions for option in action.option_strings]
        hint = suggestion(unknown[0].partition("=")[0], options) if unknown and unknown[0].startswith("-") else ""
        place = f"{self.verb}: " if self.verb else ""
        raise usage(f"{place}{message}", hint or f"{self.prog} -h")

    def _get_formatter(self) -> "argparse.HelpFormatter":
        return _NoFormatter()  # type: ignore[return-value]

    def format_usage(self) -> str:
        """The first line of the help."""
        return self.format_help().partition("\n")[0] + "\n"

    def format_help(self) -> str:
        """The help on one screen: a line an option, those of `brief` and those that every verb has in rows, three
        examples."""
        positional = " ".join(_word(action) for action in self._actions if not action.option_strings)
        lines = [f"usage: {self.prog} {positional + ' ' if positional else ''}[options]", str(self.description), ""]
        groups = [*self.brief, ("common", self.common)]
        short = [action for _, actions in groups for action in actions]
        for action in self._actions:
            if action not in short:
                name = ", ".join(action.option_strings) or (action.metavar or action.dest)
                value = f" {_value(action)}" if action.option_strings and action.nargs != 0 else ""
                lines.append(f"  {name}{value}".ljust(22) + f" {action.help}")
        for label, actions in groups:
            line = f"  {label}:"
            for action in actions:
                word = action.option_strings[0] + (f" {_value(action)}" if action.nargs != 0 else "")
                if len(line) + 1 + len(word) > 79:
                    lines.append(line)
                    line = " " * (len(label) + 3)
                line += f" {word}"
            lines.append(line)
        return "\n".join([*lines, "", "examples:", *(f"  {each}" for each in self.examples)]) + "\n"


def _value(action: argparse.Action) -> str:
    if action.metavar is not None:
        return str(action.metavar)
    return "|".join(str(choice) for choice in action.choices) if action.choices else action.dest.upper()


def _word(action: argparse.Action) -> str:
    name = str(action.metavar or action.dest)
    return {"*": f"[{name} ...]", "+": f"{name} ...", "?": f"[{name}]"}.get(str(action.nargs), name)


def add_common(parser: Parser, *, formats: "tuple[str, ...]" = ("json",), output: bool = True) -> None:
    """The options that every verb has: form and file of the output, colour, verbosity, help."""
    texts = {"json": "one JSON document", "ndjson": "one JSON record a line", "csv": "comma-separated values"}
    if formats:
        forms = parser.add_mutually_exclusive_group()
        for form in formats:
            forms.add_argument(f"--{form}", dest="form", action="store_const", const=form, help=texts[form])
    parser.set_defaults(form="text")
    add = parser.add_argument
    if output:
        add("-o", dest="output", metavar="FILE", help="write to FILE: complete, or not at all")
    parser.common = [
        add("-h", "--help", action="help", help="show this help"),
        add("--color", choices=("auto", "always", "never"), default="auto", help="colour; auto: on a terminal"),
        add("--ascii", action="store_true", help="no character outside ASCII"),
        add("--provenance", action="store_true", help="say when, where and by which version"),
        add("-q", dest="quiet", action="store_true", help="no warnings, no progress"),
        add("-v", dest="verbose", action="store_true", help="say more"),
        add("--debug", action="store_true", help="tracebacks of errors"),
    ]


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


def whole_number(text: str) -> "int | None":
    """The number that `text` is in ASCII digits, or None; as large as any identifier of a system may be."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 20 else None


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


def chosen_cpu(text: "str | None", option: str = "--cpu") -> "CpuModel":
    """The CPU that `option` names, or this one. Raises: `CommandError`, with a hint where this one cannot be asked."""
    from xsave.cli.failures import NO_INPUT, CommandError
    from xsave.errors import HostError, UnsupportedError

    try:
        return cpu(text or "host")
    except (UnsupportedError, HostError) as error:
        hint = f"{option} NAME chooses another CPU; xsave layout --list names them"
        raise CommandError(str(error), NO_INPUT, hint=hint) from error


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
