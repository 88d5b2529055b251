"""How a command ends badly: exit codes, and the one exception that carries a code, a file and a hint.

Everything that the package raises is turned into a line `xsave: FILE: what is wrong` and an exit code here;
verbs raise and never print an error themselves, except for inputs that they skip (`report`).
"""

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

DONE: "Final" = 0
NO: "Final" = 1  # the answer is "no": differs, invalid, cannot be carried
USAGE: "Final" = 2
NO_INPUT: "Final" = 3
PARTIAL: "Final" = 4
INTERNAL: "Final" = 70
INTERRUPTED: "Final" = 130


class CommandError(Exception):
    """A command that ends with `code`; `source` is the input to blame, `hint` the next step."""

    def __init__(self, message: str, code: int = USAGE, *, source: str = "", hint: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.source = source
        self.hint = hint


def usage(message: str, hint: str = "") -> CommandError:
    """A mistake in the command line itself (exit 2)."""
    return CommandError(message, USAGE, hint=hint)


def suggestion(word: str, known: "list[str]", prefix: str = "") -> str:
    """`did you mean ...?` for the known word closest to `word`, or nothing."""
    from difflib import get_close_matches

    close = get_close_matches(word.lower(), [each.lower() for each in known], n=1, cutoff=0.55)
    if not close:
        return ""
    return f"did you mean {prefix}{next(each for each in known if each.lower() == close[0])}?"


def explain(error: BaseException, source: str = "") -> CommandError:
    """Any exception as a `CommandError`: whose fault it is decides the exit code."""
    from xsave.errors import FormatError, HostError, LayoutError, UnsupportedError, XSaveError

    source = source or getattr(error, "source", "") or getattr(error, "_xsave_source", "")
    if isinstance(error, CommandError):
        error.source = error.source or source
        return error
    message = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    for name in (source, "<stdin>", "<stream>", "<bytes>"):
        if name and message.startswith(f"{name}: "):
            message = message[len(name) + 2 :]
    if isinstance(error.__cause__, OSError) and not isinstance(error, OSError):
        error = error.__cause__  # a reader's words around what the system said
    if isinstance(error, FormatError):
        if error.offset is not None and not _says_where(message, error.offset):
            message += f" (at offset {error.offset:#x})"
        return CommandError(message, NO_INPUT, source=source, hint=getattr(error, "hint", ""))
    if isinstance(error, LayoutError):
        return CommandError(message, NO, source=source, hint=getattr(error, "hint", ""))
    if isinstance(error, FileNotFoundError):
        return CommandError("no such file", NO_INPUT, source=source or _named(error), hint=_neighbour(_named(error)))
    if isinstance(error, OSError) and not isinstance(error, XSaveError):
        return CommandError(error.strerror or message, NO_INPUT, source=source or _named(error), hint=_os_hint(error))
    if isinstance(error, UnsupportedError | HostError):
        return CommandError(message, NO_INPUT, source=source, hint=getattr(error, "hint", ""))
    if isinstance(error, XSaveError):
        return CommandError(message, NO_INPUT, source=source)
    return CommandError(
        f"internal error: {type(error).__name__}: {message}",
        INTERNAL,
        source=source,
        hint="run again with --debug for the traceback, and report it with the input if you can",
    )


def report(error: CommandError) -> None:
    """Prints the error and its hint on stderr."""
    from xsave.report.text import printable

    place = f"{error.source}: " if error.source else ""
    text = printable(f"xsave: {place}{error}") + "\n"
    if error.hint:
        text += printable(f"hint: {error.hint}") + "\n"
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        pass
    try:
        sys.stderr.write(text)
        sys.stderr.flush()
    except (OSError, ValueError):
        pass


def _says_where(message: str, offset: int) -> bool:
    return f"offset {offset:#x}" in message or f"byte {offset}" in message or f"offset {offset}" in message


def _named(error: OSError) -> str:
    name = error.filename
    return name if isinstance(name, str) else name.decode(errors="replace") if isinstance(name, bytes) else ""


def _os_hint(error: OSError) -> str:
    if isinstance(error, PermissionError):
        return "the file belongs to another user: run as its owner, or copy it with sudo"
    return ""


def _neighbour(name: str) -> str:
    # A file of the same folder whose name is close; the folder is only listed, never walked.
    import os
    from itertools import islice

    folder, base = os.path.split(name)
    try:
        with os.scandir(folder or ".") as entries:
            names = [entry.name for entry in islice(entries, 2000)]
    except OSError:
        return f"there is no folder {folder}" if folder else ""
    found = suggestion(base, names, prefix=f"{folder}/" if folder else "")
    return found or "give a core file, a raw area, a hex dump, or - for standard input"
