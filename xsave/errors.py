"""Every exception of the package, one root, split by whose fault it is.

`XSaveError` is the root: `FormatError` blames the bytes, `LayoutError` the question, `UnsupportedError`
this build or this project, `HostError` this machine. Misuse of the API is a plain `TypeError` or
`ValueError`.
"""

__all__ = [
    "Exit",
    "Fault",
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


class Fault(Exception):
    """An exception of the emulated processor: an outcome, not a mistake.

    `vector`: "#UD", "#NM", "#SS", "#GP", "#PF" or "#AC"; `error_code` as the processor pushes it (0 where the vector
    has none). `rule`: a short stable code of the rule that was broken; `section`: where the manual has it. `offset`:
    the culprit byte counted from the start of the memory operand (of a #PF the byte that CR2 names), or None where
    no byte is to blame.
    """

    def __init__(
        self, vector: str, message: str, *, rule: str, section: str, offset: "int | None" = None, error_code: int = 0
    ) -> None:
        super().__init__(f"{vector}: {message} [{section}]")
        self.vector = vector
        self.message = message
        self.rule = rule
        self.section = section
        self.offset = offset
        self.error_code = error_code

    def __reduce__(self) -> "tuple[object, ...]":
        return _fault, (self.vector, self.message, self.rule, self.section, self.offset, self.error_code)


def _fault(vector: str, message: str, rule: str, section: str, offset: "int | None", error_code: int) -> Fault:
    return Fault(vector, message, rule=rule, section=section, offset=offset, error_code=error_code)


class Exit(Exception):
    """A VM exit of the emulated processor in VMX non-root operation: an outcome, not a mistake.

    `reason`: the instruction that was intercepted ("XSETBV", "XSAVES", "XRSTORS", "WRMSR", "CPUID"); `number`: the
    basic exit reason of the VMCS; `qualification`: the exit qualification, 0 for all of these (SDM3C 28.2.1).
    """

    def __init__(self, reason: str, number: int, qualification: int = 0) -> None:
        super().__init__(f"VM exit {number} ({reason})")
        self.reason = reason
        self.number = number
        self.qualification = qualification

    def __reduce__(self) -> "tuple[object, ...]":
        return Exit, (self.reason, self.number, self.qualification)
