"""JSON documents: the shapes of what `--json` and `--ndjson` print.

Sizes and offsets are numbers; masks and scalar registers "0x..." strings; vector, tile and raw x87 registers hex
strings without 0x, bytes in memory order; NaN and infinities objects. The schemas lie in `schemas/`, one a document,
named as the document's `schema` key.
"""

from xsave.area import hex_members

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from typing import Any

    from xsave.images import Image, Thread

__all__ = [
    "Text",
    "diagnostic",
    "dumps",
    "image_record",
    "lane_values",
    "mask_record",
    "register_record",
    "schema",
    "state_members",
    "stream",
    "thread_members",
]


class Text(str):
    """A piece of JSON that is written out already: `dumps` puts it as it is."""

    __slots__ = ()


def quoted(text: str) -> str:
    """`text` as a JSON string in ASCII."""
    if text.isascii() and text.isprintable() and '"' not in text and "\\" not in text:
        return f'"{text}"'
    try:
        from _json import encode_basestring_ascii
    except ImportError:  # an interpreter without the accelerator
        from json.encoder import encode_basestring_ascii
    return encode_basestring_ascii(text)


def dumps(value: "Any") -> str:
    """`value` (dicts with str keys, lists, tuples, str, int, float, bool, None) on one line, as `json.dumps` writes it.

    Written out here because importing `json`, with its decoder and its patterns, costs a one-thread decode more time
    and memory than the document does. Raises: `ValueError` for a bare NaN or infinity, which JSON does not have;
    `TypeError`.
    """
    if value is None:
        return "null"
    if type(value) is str:
        return quoted(value)
    if type(value) is int:
        return int.__repr__(value)
    if not value and type(value) is list:
        return "[]"
    pieces: "list[str]" = []
    _write(value, pieces.append)
    return "".join(pieces)


def _write(value: "Any", put: "Callable[[str], None]") -> None:
    if isinstance(value, str):
        put(value if isinstance(value, Text) else quoted(value))
    elif value is None or value is True or value is False:
        put({None: "null", True: "true", False: "false"}[value])
    elif isinstance(value, int):
        put(int.__repr__(value))
    elif isinstance(value, float):
        if value - value != 0.0:
            raise ValueError(f"{value} has no place in JSON")
        put(float.__repr__(value))
    elif isinstance(value, dict):
        mark = "{"
        for key, item in value.items():
            put(f"{mark}{quoted(key)}: ")
            _write(item, put)
            mark = ", "
        put("}" if value else "{}")
    elif isinstance(value, list | tuple):
        mark = "["
        for item in value:
            put(mark)
            _write(item, put)
            mark = ", "
        put("]" if value else "[]")
    else:
        raise TypeError(f"{type(value).__name__} has no place in JSON")


def stream(
    head: "Mapping[str, object]",
    lists: "Iterable[tuple[str, Iterable[object]]]",
    tail: "Iterable[tuple[str, object]]" = (),
) -> "Iterator[str]":
    """One document in pieces, so that memory does not grow with its lists: the members of `head`, then each list item
    by item, then `tail`, which is only looked at when the lists are through."""
    lines = [f"  {dumps(key)}: {dumps(value)}" for key, value in head.items()]
    yield "{\n" + ",\n".join(lines)
    for key, items in lists:
        yield f",\n  {dumps(key)}: ["
        first = True
        for item in items:
            yield ("\n    " if first else ",\n    ") + dumps(item)
            first = False
        yield "]" if first else "\n  ]"
    for key, value in tail:
        yield f",\n  {dumps(key)}: {dumps(value)}"
    yield "\n}"


def mask_record(mask: int) -> "dict[str, Any]":
    """A mask with the names of its components."""
    from xsave.components import ComponentMask

    return {"mask": f"{int(mask):#x}", "names": list(ComponentMask(mask).names)}


def register_record(value: "int | bytes | memoryview") -> str:
    """One register: an int in hex, bytes as hex in memory order."""
    return f"{value:#x}" if isinstance(value, int) else value.hex()


def lane_values(name: str, data: "bytes", lane: str) -> "list[Any]":
    """The lanes of a register, NaN and infinities as objects; an x87 register is one value."""
    from xsave.report.values import lane_bits, lanes, x87_float

    if len(data) == 10 and name.startswith("st"):
        return [_number(x87_float(data), int.from_bytes(data, "little"), 80)]
    size = 8 * len(data) // max(len(lanes(data, lane)), 1)
    return [_number(value, bits, size) for value, bits in zip(lanes(data, lane), lane_bits(data, lane), strict=True)]


def _number(value: "int | float", bits: int, width: int) -> object:
    if isinstance(value, int):
        return value
    from xsave.report.values import special

    name = special(value)
    return {"special": name, "bits": f"{bits:#0{2 + width // 4}x}"} if name else value


def diagnostic(message: str, severity: str = "warning", source: str = "") -> "dict[str, str]":
    """A diagnostic of the document."""
    record = {"severity": severity, "message": message}
    if source:
        record["source"] = source
    return record


def image_record(image: "Image") -> "dict[str, Any]":
    """What an image is, without its threads."""
    return {"source": image.source, "kind": image.kind, "abi": image.abi or None, "os": image.os or None}


# Masks that are written for every thread.
_KEPT = 256
_NO_STATE = '"registers": {}'
_masks: "dict[int, str]" = {}
# A layout and its members, as those of the area before are mostly those of the next.
_last: "list[Any]" = [None, ""]


def _mask_text(mask: int) -> str:
    text = _masks.get(mask)
    if text is None:
        if len(_masks) >= _KEPT:
            _masks.clear()
        text = _masks[mask] = dumps(mask_record(mask))
    return text


def state_members(area: "Any", values: "dict[str, Any]", lane: "str | None" = None) -> str:
    """An area as the members of an object: format, masks, size, CPU and registers."""
    layout = area.layout
    if layout is not _last[0]:
        _last[:] = layout, (
            f'"format": "{layout.format}", "size": {layout.size}, "cpu": {dumps(layout.model.name or None)}, '
            f'"layout": {_mask_text(layout.mask)}'
        )
    members = (
        f'{_last[1]}, "xstate_bv": {_mask_text(area.xstate_bv)}, "xcomp_bv": "{int(area.xcomp_bv):#x}", '
        f'"registers": {hex_members(values)}'
    )
    if lane is None:
        return members
    wide = {name: lane_values(name, value, lane) for name, value in values.items() if isinstance(value, bytes)}
    return f'{members}, "lanes": {dumps({"type": lane, "registers": wide})}'


def thread_members(
    thread: "Thread", seen: "tuple[Any, str, str, list[str]]", state: "str | None", gpr: "dict[str, Any]",
    extra: "Iterable[object]" = (),
) -> str:
    """One thread as the members of an object: identity, general registers, and `state`, from `state_members`
    (`registers` empty and the others absent where the thread has no floating-point state). `seen`: its `state_of`."""
    _, rule, confidence, warnings = seen
    place = "null" if thread.pc is None else f'"{thread.pc:#x}"'
    return (
        f'"tid": {thread.tid}, "name": {dumps(thread.name or None)}, "signal": {dumps(thread.signal)}, '
        f'"pc": {place}, "crashed": {"true" if thread.crashed else "false"}, '
        f'"evidence": {{"rule": {quoted(rule)}, "confidence": {quoted(confidence)}}}, "gpr": {hex_members(gpr)}, '
        f'{state or _NO_STATE}, "extra_states": {dumps(list(extra))}, '
        f'"diagnostics": {dumps([diagnostic(text) for text in warnings])}'
    )


def schema(name: str) -> "dict[str, Any]":
    """The JSON Schema of a document, such as `decode`. Raises: `ValueError` for an unknown name."""
    from importlib.resources import files
    from json import loads

    if not name.replace("-", "").isalnum():
        raise ValueError(f"no schema {name!r}")
    path = files("xsave.report").joinpath("schemas", f"{name}.json")
    if not path.is_file():
        raise ValueError(f"no schema {name!r}")
    loaded: "dict[str, Any]" = loads(path.read_text("utf-8"))
    return loaded
