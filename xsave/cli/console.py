"""Where output goes: stdout, or a file that appears only when complete; its width, colour and characters; progress."""

import os
import sys

from xsave.cli.options import colored, whole_number

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable
    from types import TracebackType
    from typing import IO

_STYLES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "cyan": "36"}

# What --ascii puts in place of the few characters outside ASCII that reports use.
_ASCII = {
    ord(sign): text
    for sign, text in {
        "…": "..", "×": "x", "–": "-", "→": "->", "≠": "!=", "≤": "<=", "·": "-", "∞": "inf", "↔": "<->",
    }.items()
}


class Output:
    """One command's output: `write` text lines, or `write_bytes`. A context manager: with `-o FILE` everything
    goes to a temporary name beside FILE, renamed at the end and removed if the command failed."""

    def __init__(self, path: "str | None" = None, *, color: bool = False, ascii_only: bool = False) -> None:
        self.path = path
        self.color = color and path is None
        self.ascii_only = ascii_only or (path is None and not _encodes_everything())
        self.width = _width() if path is None else 80
        self._temporary = ""
        self._file: "IO[bytes] | None" = None
        self._discarded = False

    @classmethod
    def of(cls, options: "argparse.Namespace") -> "Output":
        """The output that the common options ask for."""
        path = getattr(options, "output", None)
        return cls(None if path == "-" else path, color=colored(options.color), ascii_only=options.ascii)

    def __enter__(self) -> "Output":
        if self.path is not None:
            self._open(self.path)
        return self

    def __exit__(
        self, kind: "type[BaseException] | None", error: "BaseException | None", trace: "TracebackType | None"
    ) -> None:
        if self._file is None:
            return
        try:
            self._file.close()
            if self._temporary and kind is None and not self._discarded and self.path is not None:
                os.replace(self._temporary, self.path)
                self._temporary = ""
        finally:
            self._file = None
            if self._temporary:
                os.unlink(self._temporary)
                self._temporary = ""

    def _open(self, path: str) -> None:
        if os.path.exists(path) and not os.path.isfile(path):  # a device or pipe: nothing to rename over
            self._file = open(path, "wb")  # noqa: SIM115
            return
        folder, base = os.path.split(os.path.realpath(path))
        temporary = os.path.join(folder, f".{base[:200]}.{os.getpid()}.partial")
        try:
            handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        except OSError as error:
            error.filename = path
            raise
        self._temporary = temporary
        try:
            # Registers hold keys: a file that others may not read stays one.
            os.fchmod(handle, os.stat(path).st_mode & 0o777)
        except OSError:
            pass
        self.path = os.path.join(folder, base)
        self._file = os.fdopen(handle, "wb")

    def discard(self) -> None:
        """Leaves the file of `-o` as it was: what has been written goes nowhere."""
        self._discarded = True

    def write(self, text: str) -> None:
        """Writes `text` as it is."""
        if self.ascii_only:
            text = text.translate(_ASCII).encode("ascii", "backslashreplace").decode("ascii")
        if self._file is not None:
            self._file.write(text.encode("utf-8", "backslashreplace"))
        else:
            sys.stdout.write(text)

    def line(self, text: str = "") -> None:
        """Writes one line."""
        self.write(text.rstrip() + "\n")

    def write_bytes(self, data: "bytes | bytearray | memoryview") -> None:
        """Writes raw bytes."""
        if self._file is not None:
            self._file.write(data)
        else:
            sys.stdout.flush()
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()

    def style(self, text: str, style: str) -> str:
        """`text` in colour, if colour is on."""
        return f"\x1b[{_STYLES[style]}m{text}\x1b[0m" if self.color and text else text


class Progress:
    """A line on stderr, rewritten: only on a terminal, only after 0.5 s, never with `-q`; with `-v` and no
    terminal a plain line every 30 s. `shows`: whether there is anybody to tell."""

    def __init__(self, options: "argparse.Namespace", what: str) -> None:
        from time import monotonic

        self._now: "Callable[[], float]" = monotonic
        self._what = what
        self._tty = not options.quiet and _isatty(sys.stderr)
        self._plain = not self._tty and options.verbose and not options.quiet
        self.shows = bool(self._tty or self._plain)
        self._next = monotonic() + (0.5 if self._tty else 30.0)
        self._shown = False

    def step(self, text: str) -> None:
        """Says how far the work is."""
        if not (self._tty or self._plain) or self._now() < self._next:
            return
        self._next = self._now() + (0.1 if self._tty else 30.0)
        if self._tty:
            sys.stderr.write(f"\r\x1b[K{self._what}: {text}"[:100])
            self._shown = True
        else:
            sys.stderr.write(f"{self._what}: {text}\n")
        sys.stderr.flush()

    def done(self) -> None:
        """Removes the line."""
        if self._shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()


def warn(options: "argparse.Namespace", message: str, source: str = "") -> None:
    """A warning on stderr, unless `-q`."""
    if not options.quiet:
        sys.stdout.flush()
        from xsave.report.text import printable

        sys.stderr.write(printable(f"xsave: {source}{': ' if source else ''}warning: {message}") + "\n")


def _isatty(stream: object) -> bool:
    try:
        return bool(stream.isatty())  # type: ignore[attr-defined]
    except (AttributeError, ValueError):
        return False


def _width() -> int:
    # 80 columns unless the terminal is wider.
    text = os.environ.get("COLUMNS", "")
    columns = whole_number(text)
    if columns:
        return max(80, min(columns, 1000))
    try:
        return max(80, os.get_terminal_size(sys.stdout.fileno()).columns)
    except (OSError, ValueError, AttributeError):
        return 80


def _encodes_everything() -> bool:
    encoding = (getattr(sys.stdout, "encoding", None) or "utf-8").lower().replace("-", "").replace("_", "")
    return encoding.startswith("utf") or encoding == "cp65001"
