"""Prints how the vectors come out: `python -m tests.vectors.tally processor|reference [all]` in the repository's root.

One line a file of vectors, then the cases that agree, are out of scope, or fall under a rule of deviations.py, summed;
with `all` every disagreement.
"""

import importlib
import sys
from collections import Counter


def main(which: str, everything: bool) -> int:
    from .cases import ALL
    from .judge import judge

    machine = importlib.import_module(f"tests.vectors.on_{which}").play
    total: Counter[tuple[str, str]] = Counter()
    wrong = 0
    for kind, name in ALL:
        verdicts = judge(kind, name, machine)
        wrong += len(verdicts.disagreements)
        total.update({(kind, rule): n for rule, n in verdicts.counts.items()})
        print(f"{kind} {name}: {verdicts}")
        if everything:
            print("\n".join(f"    {line}" for line in verdicts.disagreements))
    for (kind, rule), n in sorted(total.items()):
        print(f"{n:6} {kind} {rule}")
    print(f"{sum(total.values()) + wrong:6} in all, {wrong} disagree")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.path.insert(0, "tests")
    sys.exit(main(sys.argv[1], "all" in sys.argv[2:]))
