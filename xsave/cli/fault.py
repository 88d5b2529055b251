"""A fault of the emulated processor as text and as a record: vector, error code, rule, byte, manual section, hint."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from xsave.cli.machine import Machine

# Vectors that push an error code (SDM3A 6.3); what is wrong with a page is in its bits (SDM3A 4.7).
_WITH_CODE = ("#GP", "#SS", "#PF", "#AC", "#NP", "#DF")
_XSTATE, _XCOMP, _RESERVED, _HEADER_END = 512, 520, 528, 576


def title(vector: str, error_code: int) -> str:
    """`#GP(0)`, `#UD`."""
    if vector not in _WITH_CODE:
        return vector
    return f"{vector}({error_code:#x})" if error_code else f"{vector}(0)"


def place(offset: int, instruction: str) -> str:
    """What an area holds at a byte of its header or at MXCSR, or the empty string."""
    if "TILE" in instruction:
        return ""
    if 24 <= offset < 28:
        return "MXCSR"
    if instruction in ("FXSAVE", "FXRSTOR"):
        return ""
    names = ((_XSTATE, "XSTATE_BV"), (_XCOMP, "XCOMP_BV"), (_RESERVED, "reserved bytes of the header"))
    if _XSTATE <= offset < _HEADER_END:
        return next(name for start, name in reversed(names) if offset >= start)
    return ""


def byte_text(offset: int, instruction: str) -> str:
    """`529 (0x211), reserved bytes of the header`."""
    where = place(offset, instruction)
    return f"{offset} (0x{offset:x})" + (f", {where}" if where else "")


def record(fault: "Any", where: str = "") -> "dict[str, Any]":
    """A fault of a JSON document. This CPU's own faults say no rule."""
    return {
        "vector": fault.vector,
        "error_code": fault.error_code,
        "rule": getattr(fault, "rule", None),
        "offset": fault.offset,
        "message": getattr(fault, "message", None),
        "section": getattr(fault, "section", None),
        "hint": where or None,
    }


def lines(fault: "Any", machine: "Machine", size: int) -> "Iterator[str]":
    """A fault line by line, its vector and what is wrong first. This CPU's own faults say no rule."""
    if not hasattr(fault, "rule"):
        yield title(fault.vector, fault.error_code)
        if fault.offset is not None:
            yield f"  byte    {byte_text(fault.offset, machine.instruction)}"
        return
    yield f"{title(fault.vector, fault.error_code)}: {message(fault)}"
    yield f"  rule    {fault.rule}"
    if fault.offset is not None:
        yield f"  byte    {byte_text(fault.offset, machine.instruction)}"
    yield f"  manual  {fault.section}"
    text = hint(fault, machine, size)
    if text:
        yield f"  hint    {text}"


def message(fault: "Any") -> str:
    """What is wrong, without the instruction and the byte, which are told elsewhere."""
    text: str = fault.message.partition(" (byte ")[0]
    name, colon, rest = text.partition(": ")
    return rest if colon and name.isupper() else text


def hint(fault: "Any", machine: "Machine", size: int) -> str:
    """The next step, where there is one."""
    rule = getattr(fault, "rule", "")
    if rule == "PAGE":
        reach = machine.operand_size()
        text = f"the area has {size:,} bytes, {machine.name} of these components needs {reach:,}; --mask narrows them"
        return text if size < reach else ""
    if rule == "XFD":
        return "the kernel answers this #NM by enabling the component; --xfd 0 is the state after that"
    return {
        "ALIGN": f"--address says where the area lies, now at {machine.address:#x}",
        "CANONICAL": f"--address says where the area lies, now at {machine.address:#x}",
        "CPL": "--cpl 0",
        "CPUID": "--cpu names another CPU; xsave layout --list knows them",
        "TILES-OFF": f"--xcr0: it is {int(machine.xcr0):#x}, tiles need bits 17 and 18",
        "H-FORMAT": "xsave convert --to compacted makes an area of that format",
        "H-XCOMP": "--xcr0 says what is enabled; xsave convert --mask makes an area of fewer components",
        "H-XSTATE": "--xcr0 says what is enabled; xsave convert --mask makes an area of fewer components",
        "H-RESERVED": "an area must come from zeroed memory: save instructions never write these bytes",
        "H-MXCSR": f"this CPU has MXCSR_MASK {machine.model.mxcsr_mask:#x}",
        "TILES-UNCONFIGURED": "--state with a tilecfg, such as an area file that has one",
    }.get(rule, "")
