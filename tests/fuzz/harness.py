"""harness.py TARGET --seeds FOLDER | libFuzzer's arguments: one target under libFuzzer, or its seeds as files.

A target is a module `fuzz_NAME` beside this file with `one_input(data)` and `seeds()`. The package must have been built
instrumented (`make fuzz`): on a plain build libFuzzer sees nothing of the compiled modules and finds nothing. Python
code of the package that the target imports counts as coverage too.
"""

import importlib
import sys
from pathlib import Path

# At the end: the checkout's own xsave/ must not hide the installed package.
sys.path.append(str(Path(__file__).resolve().parent.parent.parent))


def main() -> None:
    name, *options = sys.argv[1:]
    module = f"tests.fuzz.fuzz_{name}"
    if options[0] == "--seeds":
        for number, seed in enumerate(importlib.import_module(module).seeds()):
            (Path(options[1]) / f"seed-{number:03}").write_bytes(seed)
        return
    import atheris

    with atheris.instrument_imports(include=["xsave"]):
        target = importlib.import_module(module)
    atheris.Setup([sys.argv[0], *options], target.one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
