"""The entry point: picks the verb, runs it, and turns what it raises into a message and an exit code.

Only the chosen verb's module is imported.
"""

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType

# verb: what it does, one line of `xsave -h`. Each is a module of this package with parser() and run().
VERBS = {
    "decode": "registers of every thread of a core file, raw area or hex dump",
    "layout": "where a CPU puts every component; two CPUs side by side",
    "convert": "an area into the other format or another CPU's layout",
    "diff": "what differs between two areas, threads or images",
    "validate": "would XRSTOR take it on that CPU? which rule, which byte",
    "audit": "what a save does to a buffer that was sized for less",
    "run": "one instruction on an area, emulated or on this CPU",
    "conformance": "the emulated processor against this CPU's, case by case",
    "bench": "what the instructions of this CPU take; two measurements compared",
    "live": "this CPU, or every thread of another process",
    "tour": "everything on real data of this machine, in under a minute",
}

_EXAMPLES = """\
examples:
  xsave core.1234                      every thread, and the crashed one's registers
  xsave decode core --reg zmm0 -t f32  one register of every thread, as floats
  xsave layout EPYC-Genoa --vs SapphireRapids
"""


def main(argv: "Sequence[str] | None" = None) -> int:
    """Runs one command; `argv` defaults to the process's arguments. Returns the exit code (0 done, 1 the answer
    is "no", 2 usage, 3 no usable input, 4 partial, 70 internal error, 130 interrupted)."""
    if argv is None:
        return _program()
    arguments = list(argv)
    return _finish(lambda: _dispatch(arguments), debug="--debug" in arguments)


def _program() -> int:
    # The whole process is this command: at its end nobody needs the interpreter to take itself apart object by object,
    # which costs a fifth of a bare interpreter's start.
    import os

    # Of a stream that is closed there is nothing to read, and what is written to it nobody wants. The descriptors
    # are taken in order, so that no file of ours becomes the standard output.
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115
    code = main(sys.argv[1:])
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except (OSError, ValueError):
        pass
    os._exit(code)


def load(verb: str) -> "ModuleType":
    """The module of a verb."""
    module: "ModuleType" = getattr(__import__(f"xsave.cli.{verb}").cli, verb)
    return module


def _print(text: str) -> int:
    sys.stdout.write(text + "\n")
    return 0


def _finish(command: "object", debug: bool = False) -> int:
    try:
        code = command()  # type: ignore[operator]
        sys.stdout.flush()
        return int(code)
    except SystemExit as done:  # argparse after -h
        return done.code if isinstance(done.code, int) else 0
    except BrokenPipeError:
        _silence()
        return 0
    except KeyboardInterrupt:
        return 130
    except BaseException as error:
        if debug:
            import traceback

            traceback.print_exc()
        from xsave.cli.failures import explain, report

        failure = explain(error)
        report(failure)
        return failure.code


def _silence() -> None:
    # The reader of our output went away: whatever is still buffered must not raise again at exit.
    import os

    try:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)
    except (OSError, ValueError, AttributeError):
        pass


def _dispatch(arguments: "list[str]") -> int:
    if not arguments:
        _print(_help())
        return 2
    first = arguments[0]
    if first in ("-h", "--help", "help"):
        if first == "help" and len(arguments) > 1:
            return _dispatch([arguments[1], "-h"])
        return _print(_help())
    if first.startswith("--") or first == "-V":
        return _options(arguments)
    if first in VERBS:
        module = load(first)
        options = module.parser().parse_args(arguments[1:])
        return int(module.run(options))
    if _is_input(first):
        return _dispatch(["decode", *arguments])
    from xsave.cli.failures import CommandError, suggestion, usage

    if first.startswith("-"):
        raise usage(f"option {first} before a verb or file", "options come after the verb; xsave -h lists the verbs")
    hint = suggestion(first, list(VERBS), prefix="xsave ")
    if "." in first and not hint:
        raise CommandError("no such file", 3, source=first, hint="xsave -h lists the verbs")
    raise usage(f"{first!r} is neither a verb nor a file", hint or "xsave -h lists the verbs")


def _options(arguments: "list[str]") -> int:
    # What stands before any verb: the version, or a mistake.
    from xsave import __version__
    from xsave.cli.options import Parser

    parser = Parser("", "", "")
    parser.add_argument("-V", "--version", action="store_true")
    parser.parse_args(arguments)
    return _print(f"xsave {__version__}")


def _is_input(name: str) -> bool:
    import os

    return name == "-" or "/" in name or os.path.exists(name)


def _help() -> str:
    lines = ["usage: xsave VERB [INPUT ...] [options]    or: xsave FILE", ""]
    lines.append("Reads, converts, checks and compares x86 XSAVE state: cores, raw areas, hex dumps.")
    lines += ["", "verbs:"]
    lines += [f"  {verb:<10} {text}" for verb, text in VERBS.items()]
    lines += ["", *_EXAMPLES.splitlines(), "", "xsave VERB -h shows a verb's options; xsave --version the version."]
    return "\n".join(lines)
