"""The figures of build/bench.json as Markdown: `python benchmarks/table.py` prints them, `--write` puts them into
docs/benchmarks.md, between its two marks."""

import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))

from machine import summary  # noqa: E402

BEGIN, END = "<!-- figures: written by benchmarks/table.py -->", "<!-- end of figures -->"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}"


def table(document: "dict[str, object]") -> str:
    """The machine, and a row for every line."""
    rows = ["| goal | line | figure | quartiles | × | asked | verdict |", "|---|---|---|---|---|---|---|"]
    for goal, whole in document["goals"].items():  # type: ignore[attr-defined]
        for name, line in whole["lines"].items():
            if line["figure"] is None:
                figure = spread = "–"
            else:
                figure, spread = _number(line["figure"]), "–".join(map(_number, line["quartiles"]))
            word = {True: "reached", False: "**missed**", None: line["reason"] or "shown"}[line["reached"]]
            cells = (goal, name, figure, spread, line["baseline"], line["goal"] or "", word)
            rows.append(f"| {' | '.join(cells)} |")
    return "\n".join([summary(document["machine"]).replace("\n", "; ") + ".", "", *rows])  # type: ignore[arg-type]


def main(arguments: "list[str]") -> int:
    """Prints or writes the table."""
    text = table(json.loads((ROOT / "build" / "bench.json").read_text()))
    if "--write" not in arguments:
        print(text)
        return 0
    page = ROOT / "docs" / "benchmarks.md"
    before, _, rest = page.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    page.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
