"""Put the figures of the last `make bench` into docs/performance.md: `make performance`.

Between the lines `<!-- figures: NAME -->` and `<!-- end -->` of the page stands what this program makes of
results/bench/*.json; the rest of the page is written by hand. A table without figures is left as it is.
"""

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "workflow"), str(ROOT / "benchmarks")]

from side_by_side import figures  # noqa: E402
from training import table  # noqa: E402

from mdlatent import files  # noqa: E402

PAGE, RESULTS = ROOT / "docs" / "performance.md", ROOT / "results" / "bench"
Rows = list[dict[str, Any]]


def lines(header: list[str], body: list[list[str]]) -> str:
    """A table."""
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [header, ["---"] * len(header), *body])


def pivot(rows: Rows, title: str, share: bool = False) -> str:
    """Systems down, cases across; with `share`, that of the limit in brackets."""
    cases = list(dict.fromkeys(row["case"] for row in rows))
    found = {(row["system"], row["case"]): row for row in rows}

    def cell(system: str, case: str) -> str:
        row = found.get((system, case))
        if row is None:
            return ""
        ratio = row["ratio_to_limit"]
        return figures(row["value"]) + (f" ({100 * ratio:.0f} %)" if share and ratio is not None else "")

    systems = list(dict.fromkeys(row["system"] for row in rows))
    return lines([title, *cases], [[system, *(cell(system, case) for case in cases)] for system in systems])


def of(rows: Rows, bench: str, *units: str) -> Rows:
    """The rows of one bench, in some units."""
    return [row for row in rows if row["bench"] == bench and (not units or row["unit"] in units)]


def by_unit(rows: Rows) -> str:
    """Cases and systems down, units across."""
    units = list(dict.fromkeys(row["unit"] for row in rows))
    keys = list(dict.fromkeys((row["case"], row["system"]) for row in rows))
    found = {(row["case"], row["system"], row["unit"]): figures(row["value"]) for row in rows}
    return lines(["", "", *units], [[*key, *(found.get((*key, unit), "") for unit in units)] for key in keys])


def bars(found: Rows) -> str:
    """What must be reached, and what was."""
    return lines(
        ["", "case", "", "measured", "bar", ""],
        [
            [
                bar["bench"],
                bar["case"],
                bar["what"],
                figures(bar["value"]),
                ("≤ " if bar["at_most"] else "≥ ") + figures(bar["least"]),
                "met" if bar["met"] else "**missed**",
            ]
            for bar in found
        ],
    )


def machine(about: dict[str, Any]) -> str:
    """One sentence."""
    versions = ", ".join(f"{name} {number}" for name, number in about["versions"].items())
    load = f"load {about['load_at_start']} at the start and {about['load_at_end']} at the end"
    return f"{about['cpu']}, {about['cpus']} CPUs, one used; {load}. {versions}."


def sections() -> dict[str, Callable[[], str]]:
    """How each part of the page is made."""

    def read(name: str) -> Any:
        return files.read_json(RESULTS / name)

    def speeds(periodic: bool) -> Rows:
        rows = of(read("bench.json"), "distances", "GB/s")
        return [row for row in rows if ("," in row["case"].split(" atoms")[1]) == periodic]

    def accuracy() -> Rows:
        rows = of(read("bench.json"), "distances")
        return [row | {"case": row["unit"]} for row in rows if row["unit"] != "GB/s"]

    return {
        "bars": lambda: bars(read("bars.json")),
        "machine": lambda: machine(read("about.json")),
        "distances": lambda: pivot(speeds(False), "GB/s", share=True),
        "periodic": lambda: pivot(speeds(True), "GB/s", share=True),
        "accuracy": lambda: pivot(accuracy(), "at 50 nm from the origin"),
        "reading": lambda: pivot(of(read("bench.json"), "reading"), "frames/s", share=True),
        "feed": lambda: pivot(of(read("bench.json"), "feed"), "frames/s", share=True),
        "clustering": lambda: by_unit(of(read("bench.json"), "clustering")),
        "conformers": lambda: by_unit(of(read("bench.json"), "conformers")),
        "training": lambda: "\n".join(table(read("training.json")["rows"], read("training.json")["whole_training"])),
        "profile": lambda: by_unit(read("profile.json")),
        "large": lambda: by_unit(read("large.json")),
    }


def page(text: str) -> str:
    """The page with new figures where there are any."""
    make = sections()

    def section(match: re.Match[str]) -> str:
        try:
            return f"{match[1]}\n{make[match[2]]()}\n{match[4]}"
        except FileNotFoundError as error:
            print(f"{match[2]}: left as it is, for there is no {error.filename}")
            return match[0]

    return re.sub(r"(<!-- figures: (\w+) -->)(.*?)(<!-- end -->)", section, text, flags=re.DOTALL)


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
