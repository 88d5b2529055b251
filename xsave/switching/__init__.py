"""The context switch: recorded or synthetic workloads, what a kernel saves and restores in them, and what that costs.

A `Workload` is a list of events as columns (`workload`), read from a trace (`traces`). Policies say what a kernel does
at each; measurements of this CPU are `measure`'s. Nothing here prints or draws.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from xsave.switching.traces import read_trace
    from xsave.switching.workload import Event, Workload

__all__ = ["Event", "Workload", "read_trace"]

_HOMES = {"Event": "workload", "Workload": "workload", "read_trace": "traces"}


def __getattr__(name: str) -> object:
    if name in _HOMES:
        import importlib

        value: object = getattr(importlib.import_module(f"xsave.switching.{_HOMES[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'xsave.switching' has no attribute {name!r}")
