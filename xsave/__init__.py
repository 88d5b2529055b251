"""xsave: the toolkit for x86 extended processor state.

The public API is `__all__`; every name is brought in at first use, so that importing the package costs
nothing and loads neither numpy nor a compiled module.
"""

__version__ = "0.1.0"

TYPE_CHECKING = False
if TYPE_CHECKING:
    from xsave import audit
    from xsave.area import Area
    from xsave.codec import (
        decode,
        decode_many,
        encode,
        encode_many,
        same_state,
        same_state_many,
        transcode,
        transcode_many,
    )
    from xsave.components import COMPONENTS, Component, ComponentMask
    from xsave.errors import (
        Exit,
        Fault,
        FormatError,
        HostError,
        ImageError,
        LayoutError,
        TruncatedError,
        UnsupportedError,
        XSaveError,
    )
    from xsave.host import Host
    from xsave.images import open
    from xsave.layout import COMPACTED, STANDARD, Layout
    from xsave.memory import Memory
    from xsave.models import CpuModel
    from xsave.processor import Processor, Vmx
    from xsave.registers import REGISTERS
    from xsave.tiles import TileConfig, tile_load, tile_store

__all__ = [
    "COMPACTED",
    "COMPONENTS",
    "REGISTERS",
    "STANDARD",
    "Area",
    "Component",
    "ComponentMask",
    "CpuModel",
    "Exit",
    "Fault",
    "FormatError",
    "Host",
    "HostError",
    "ImageError",
    "Layout",
    "LayoutError",
    "Memory",
    "Processor",
    "TileConfig",
    "TruncatedError",
    "UnsupportedError",
    "Vmx",
    "XSaveError",
    "audit",
    "decode",
    "decode_many",
    "encode",
    "encode_many",
    "open",
    "same_state",
    "same_state_many",
    "tile_load",
    "tile_store",
    "transcode",
    "transcode_many",
]

_HOMES = {
    "area": "Area",
    "codec": "decode decode_many encode encode_many same_state same_state_many transcode transcode_many",
    "components": "COMPONENTS Component ComponentMask",
    "errors": "Exit Fault FormatError HostError ImageError LayoutError TruncatedError UnsupportedError XSaveError",
    "host": "Host",
    "images": "open",
    "layout": "COMPACTED STANDARD Layout",
    "memory": "Memory",
    "models": "CpuModel",
    "processor": "Processor Vmx",
    "registers": "REGISTERS",
    "tiles": "TileConfig tile_load tile_store",
}
# Names that are modules of their own.
_ROOMS = ("audit",)


def __getattr__(name: str) -> object:
    if name in _ROOMS:
        import importlib

        return importlib.import_module(f"xsave.{name}")
    for module, names in _HOMES.items():
        if name in names.split():
            import importlib

            value: object = getattr(importlib.import_module(f"xsave.{module}"), name)
            globals()[name] = value
            return value
    raise AttributeError(f"module 'xsave' has no attribute {name!r}")


def __dir__() -> "list[str]":
    return sorted({*globals(), *__all__})
