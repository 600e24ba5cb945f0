"""Put the parts of a benchmark of generators together.

Writes molecules.parquet (a row per molecule, generator and seed), summary.csv (the columns of evaluation/summary.csv,
with mean and standard deviation over seeds), left_out.csv (name, reason) and conformers.json, from which the report is
made. Nothing in them but the seconds depends on over how many jobs the molecules were spread.
"""

import argparse
import csv
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mdlatent import evaluation_table, files, stage
from mdlatent.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger("mdlatent")


def main(argv: list[str] | None = None) -> None:
    """Parse the command line, read, write."""
    parser: argparse.ArgumentParser = stage.parser("conformers.collect", __doc__)
    parser.add_argument("parts", nargs="+", type=Path, help="parquet files of conformers.benchmark --output")
    parser.add_argument("--references", type=Path, required=True, help="references.json of conformers.references")
    parser.add_argument("--output-dir", type=Path, required=True, help="folder for the tables")
    stage.add_options(parser)
    args = parser.parse_args(argv)
    stage.start_logging(args.log)
    stage.limit_threads(1)
    settings = stage.read_options(args.options, "conformers")["conformers"]
    about = files.read_json(args.references)
    table = together(args.parts, settings["generators"])
    found = describe(table, settings, about)
    with files.write_beside(args.output_dir / "molecules.parquet") as path:
        table.to_parquet(path)
    evaluation_table.write_records(found["records"], args.output_dir / "summary.csv")
    with (
        files.write_beside(args.output_dir / "left_out.csv") as path,
        open(path, "w", encoding="utf-8", newline="") as handle,
    ):
        writer = csv.DictWriter(handle, ["name", "reason"])
        writer.writeheader()
        writer.writerows(about["left_out"])
    files.write_json(args.output_dir / "conformers.json", found)
    log.info("%s: %d molecules, %d failures", args.output_dir, about["molecules"], len(found["failures"]))


def together(parts: Sequence[Path], generators: Sequence[str]) -> "pd.DataFrame":
    """All rows, ordered by molecule, generator and seed. Raises DataError if a part is missing or all are empty."""
    import pandas as pd

    tables = [pd.read_parquet(evaluation_table.there(path)) for path in parts]
    tables = [table for table in tables if len(table)]
    if not tables:
        raise DataError("conformers: got no molecule in any part; expected at least one, look at references.json")
    table = pd.concat(tables, ignore_index=True)
    place = table["generator"].map(list(generators).index)
    order = table.assign(place=place).sort_values(["molecule", "place", "seed"], kind="stable").index
    return table.loc[order].reset_index(drop=True)


def describe(table: "pd.DataFrame", settings: dict[str, Any], about: dict[str, Any]) -> dict[str, Any]:
    """Everything the report shows of the benchmark; `about` is references.json."""
    from mdlatent.conformers import findings

    generators = settings["generators"]
    return {
        "about": about | {"with_precision": findings.has_precision(table)},
        "generators": generators,
        "seeds": sorted(int(seed) for seed in table["seed"].unique()),
        "made_by": settings["made_by"],
        "part": settings["part"],
        "limit_s": settings["limit_s"],
        "records": findings.records(table, generators),
        "differences": findings.differences(table, generators),
        "curves": findings.curves(table, generators),
        "groups": findings.groups(table, generators),
        "failures": findings.failures(table),
    }


if __name__ == "__main__":
    stage.run(main)
