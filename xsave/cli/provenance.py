"""What `--provenance` adds, and nothing else does: when, where and by which version a result was made."""


def facts() -> "dict[str, str]":
    """Version, time and machine."""
    import os
    import platform
    from time import gmtime, strftime

    from xsave import __version__

    return {
        "version": __version__,
        "time": strftime("%Y-%m-%dT%H:%M:%SZ", gmtime()),
        "host": platform.node(),
        "machine": f"{os.uname().sysname} {os.uname().release} {os.uname().machine}",
    }
