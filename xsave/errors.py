"""Every exception of the package, one root, split by whose fault it is.

`XSaveError` is the root: `FormatError` blames the bytes, `LayoutError` the question, `UnsupportedError`
this build or this project, `HostError` this machine. Misuse of the API is a plain `TypeError` or
`ValueError`.
"""

__all__ = [
    "FormatError",
    "HostError",
    "ImageError",
    "LayoutError",
    "TruncatedError",
    "UnsupportedError",
    "XSaveError",
]


class XSaveError(Exception):
    """Root of everything that this package raises about its inputs."""


class FormatError(XSaveError, ValueError):
    """The bytes break a rule of the format: the message names culprit, place and rule.

    `offset` is the first offending byte counted from the start of the area or file, or None;
    `rule` a short stable code (`H-XCOMP`, `H-RESERVED`, ...), or None.
    """

    def __init__(self, message: str, *, offset: "int | None" = None, rule: "str | None" = None) -> None:
        super().__init__(message)
        self.offset = offset
        self.rule = rule


class TruncatedError(FormatError):
    """The bytes end before the structure that they announce."""


class ImageError(FormatError):
    """A container (core file, dump, hex text) that cannot be read."""


class LayoutError(XSaveError, ValueError):
    """A layout question without an answer, such as the standard offset of a supervisor component."""


class UnsupportedError(XSaveError):
    """Valid, but not here: an optional dependency, a CPU feature or a format that this build lacks."""


class HostError(XSaveError, OSError):
    """This machine refused: a permission, a system call, a missing CPU feature."""
