"""The man page and the shell completion, generated from the verbs' parsers: `python -m xsave.cli.manual FOLDER` writes
`xsave.1` and `xsave.bash` there. The package ships what stands in docs/man; a test holds it to the parsers."""

import sys

from xsave.cli.main import VERBS, load

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import Action
    from collections.abc import Iterator

    from xsave.cli.options import Parser

# Words that stand for models' names in the completion: asked for when needed, so that the list is never stale.
_MODELS = "$(xsave layout --list 2>/dev/null | awk 'NR > 1 { print $1 }') host"
_CODES = (
    ("0", "done"),
    ("1", 'the answer is "no": differs, invalid, cannot be carried'),
    ("2", "a mistake in the command line"),
    ("3", "no usable input"),
    ("4", "partial: a cut file, or some inputs failed; the rest was printed"),
    ("70", "an error of this program"),
    ("130", "interrupted"),
)


def parsers() -> "dict[str, Parser]":
    """Every verb's parser."""
    return {verb: load(verb).parser() for verb in VERBS}


def man_page() -> str:
    """The page in man(7)."""
    from xsave import __version__

    lines = [f'.TH XSAVE 1 "" "xsave {__version__}" "User Commands"', ".SH NAME"]
    lines += [r"xsave \- reads, converts, checks and compares x86 XSAVE state", ".SH SYNOPSIS"]
    lines += [r".B xsave", r"\fIVERB\fR [\fIINPUT\fR ...] [\fIoptions\fR]", ".br", ".B xsave", r"\fIFILE\fR"]
    lines += [".SH VERBS"]
    made = parsers()
    for verb, parser in made.items():
        lines += [f".SS {verb}", _roff(str(parser.description))]
        for action in parser._actions:
            if action not in parser.common:
                lines += [".TP", _term(action), _roff(action.help or "")]
        lines += [".PP", "Examples:", ".PP", ".nf", *(f"    {_roff(line)}" for line in parser.examples), ".fi"]
    lines += [".SH COMMON OPTIONS"]
    for action in next(iter(made.values())).common:
        lines += [".TP", _term(action), _roff(action.help or "")]
    lines += [".SH EXIT STATUS"]
    for code, text in _CODES:
        lines += [".TP", rf"\fB{code}\fR", _roff(text)]
    lines += [".SH ENVIRONMENT", r"\fBNO_COLOR\fR, \fBFORCE_COLOR\fR: colour, where \fB\-\-color\fR does not say."]
    return "\n".join(lines) + "\n"


def _roff(text: str) -> str:
    text = text.replace("\\", r"\e").replace("-", r"\-").replace("'", r"\(aq")
    return rf"\&{text}" if text.startswith(".") else text


def _term(action: "Action") -> str:
    names = ", ".join(rf"\fB{_roff(name)}\fR" for name in action.option_strings)
    value = _value(action)
    if not names:
        return rf"\fI{value}\fR"
    return names + (rf" \fI{_roff(value)}\fR" if action.nargs != 0 else "")


def _value(action: "Action") -> str:
    if action.metavar is None and action.choices:
        return "|".join(str(choice) for choice in action.choices)
    return str(action.metavar or action.dest.upper())


def bash_completion() -> str:
    """The completion of bash: verbs, options, their values, CPUs' names, files."""
    lines = [
        "# bash completion of xsave",
        "_xsave() {",
        "    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]}",
    ]
    lines += ["    local verb=${COMP_WORDS[1]}", "    COMPREPLY=()"]
    lines += ["    if [ $COMP_CWORD = 1 ]; then"]
    lines += [
        f'        COMPREPLY=($(compgen -W \'{" ".join(VERBS)} --version --help\' -- "$word") $(compgen -f -- "$word"))'
    ]
    lines += ["        return", "    fi", "    case $verb,$before in"]
    made = parsers()
    for verb, parser in made.items():
        lines += [f"    {case}" for case in _cases(verb, parser)]
    lines += ["    esac", "    case $verb in"]
    for verb, parser in made.items():
        options = [option for action in parser._actions for option in action.option_strings]
        lines += [f"    {verb}) words='{' '.join(options)}' ;;"]
    lines += ["    *) words= ;;", "    esac", "    case $word in"]
    lines += ['    -*) COMPREPLY=($(compgen -W "$words" -- "$word")) ;;']
    lines += ['    *) COMPREPLY=($(compgen -f -- "$word")) ;;', "    esac", "}"]
    lines += ["complete -o filenames -F _xsave xsave"]
    return "\n".join(lines).replace("    local verb", "    local words verb", 1) + "\n"


def _cases(verb: str, parser: "Parser") -> "Iterator[str]":
    for action in parser._actions:
        if not action.option_strings or action.nargs == 0:
            continue
        pattern = "|".join(f"{verb},{option}" for option in action.option_strings)
        if action.choices:
            yield f"{pattern}) COMPREPLY=($(compgen -W '{' '.join(map(str, action.choices))}' -- \"$word\")); return ;;"
        elif action.metavar == "CPU":
            yield f'{pattern}) COMPREPLY=($(compgen -W "{_MODELS}" -- "$word") $(compgen -f -- "$word")); return ;;'
        elif action.metavar == "FILE":
            yield f'{pattern}) COMPREPLY=($(compgen -f -- "$word")); return ;;'
        else:
            yield f"{pattern}) return ;;"


def main(folder: str) -> None:
    """Writes both files into `folder`."""
    import os

    for name, text in (("xsave.1", man_page()), ("xsave.bash", bash_completion())):
        with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
            file.write(text)


if __name__ == "__main__":
    main(sys.argv[1])
