"""From the words on the command line to opened images: files, globs, folders, standard input; failures kept apart."""

import os
import sys

from xsave.cli.failures import NO, NO_INPUT, PARTIAL, CommandError, explain, report
from xsave.errors import LayoutError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from xsave.images import Image, Thread
    from xsave.models import CpuModel

_FOLDER_LIMIT = 100_000


class Input:
    """One input: its name as typed or found, and whether it came out of a folder (then a file of another kind is
    passed over instead of being an error)."""

    __slots__ = ("found", "name")

    def __init__(self, name: str, found: bool = False) -> None:
        self.name = name
        self.found = found


class Tally:
    """How the inputs of a command fared; `code` is the exit code that follows."""

    def __init__(self) -> None:
        self.good = 0
        self.bad = 0
        self.partial = False
        self.passed_over = 0

    @property
    def code(self) -> int:
        if self.bad:
            return PARTIAL if self.good else NO_INPUT
        return PARTIAL if self.partial else 0


def expand(words: "list[str]") -> "Iterator[Input]":
    """The inputs that `words` name: files, `-`, globs, folders (walked, sorted). No word: standard input."""
    if not words:
        if _stdin_is_terminal():
            raise CommandError("no input", 2, hint="give a file, or - and paste a hex dump")
        words = ["-"]
    for word in words:
        if "://" in word and not os.path.exists(word):
            raise CommandError(
                "URLs are not supported by this build", NO_INPUT, source=word, hint="download the file first"
            )
        if os.path.isdir(word):
            yield from _walk(word)
        elif any(mark in word for mark in "*?[") and not os.path.exists(word):
            yield from _glob(word)
        else:
            yield Input(word)


def _glob(pattern: str) -> "Iterator[Input]":
    from glob import glob

    names = sorted(glob(pattern, recursive=True))
    if not names:
        raise CommandError("nothing matches", NO_INPUT, source=pattern)
    for name in names:
        if os.path.isfile(name):
            yield Input(name, found=True)


def _walk(folder: str) -> "Iterator[Input]":
    count = 0
    for root, folders, files in os.walk(folder):
        folders.sort()
        for name in sorted(files):
            count += 1
            if count > _FOLDER_LIMIT:
                raise CommandError(f"more than {_FOLDER_LIMIT:,} files", NO_INPUT, source=folder)
            path = os.path.join(root, name)
            if os.path.isfile(path):  # a pipe would be waited for
                yield Input(path, found=True)


def open_image(name: str, cpu: "CpuModel | None") -> "Image":
    """The image called `name`, `-` being standard input. Raises: `CommandError`."""
    from xsave.images import open as open_any

    try:
        if name == "-":
            return open_any(sys.stdin.buffer, cpu=cpu)
        return open_any(name, cpu=cpu)
    except LayoutError as error:
        hint = "leave out --cpu: the input says which layout it has" if cpu is not None else ""
        raise CommandError(str(error), NO_INPUT, source=shown(name), hint=hint) from error
    except Exception as error:
        raise blamed(error, name) from error


def blamed(error: Exception, name: str) -> Exception:
    """The error with its input's name; what is nobody's but this program's stays as it is."""
    failure = explain(error, source=shown(name))
    return error if failure.code == 70 else failure


def shown(name: str) -> str:
    """An input's name as messages show it."""
    return "standard input" if name == "-" else name


def images(options: "argparse.Namespace", cpu: "CpuModel | None", tally: Tally) -> "Iterator[Image]":
    """Opens every input in turn. One that fails is reported at once and counted in `tally`; the rest goes on."""
    for each in expand(options.inputs):
        try:
            image = open_image(each.name, cpu)
        except CommandError as failure:
            if each.found and failure.code == NO_INPUT:
                tally.passed_over += 1
                if options.verbose:
                    report(failure)
                continue
            tally.bad += 1
            report(failure)
            continue
        tally.good += 1
        yield image
    if tally.passed_over and not tally.good:
        raise CommandError(
            f"no usable input among {tally.passed_over} files", NO_INPUT, hint="-v says what is wrong with each"
        )


def _stdin_is_terminal() -> bool:
    try:
        return sys.stdin is None or sys.stdin.isatty()
    except (AttributeError, ValueError):
        return True


def pick_thread(image: "Image", word: "str | None") -> "Thread":
    """The one thread that a command works on: the one `word` names, else the only one, else the crashed one.
    Raises: `CommandError`."""
    from xsave.cli.select import thread_filter

    threads = image.threads
    source = str(image.source)
    if not len(threads):
        raise CommandError("no thread in it", NO_INPUT, source=source)
    if word is not None:
        wanted = thread_filter([word])
        found = [thread for index, thread in enumerate(threads) if wanted(index, thread)]
        if not found:
            raise CommandError(f"no thread {word}", NO, source=source, hint="xsave decode FILE lists the threads")
        return found[0]
    if len(threads) == 1:
        return threads[0]
    crashed = [thread for thread in threads if thread.crashed]
    if crashed:
        return crashed[0]
    tids = ", ".join(str(threads[index].tid) for index in range(min(len(threads), 5)))
    raise CommandError(f"{len(threads)} threads ({tids}, ...)", source=source, hint="choose one with --thread TID")
