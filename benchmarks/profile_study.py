"""Where the time of a finished study went, rule by rule: `python benchmarks/profile_study.py results/trpcage`.

From the files that Snakemake writes beside each job (`benchmark:`). Seconds of the clock add up to more than the study
took where jobs ran side by side; CPU seconds are sampled, so those of a job of a second or two are too few. Adds to
results/bench/profile.json, from which `make performance` takes them.
"""

import argparse
from pathlib import Path
from typing import Any

import pandas
from side_by_side import Row, plain, say

from mdlatent import files

OUTPUT = Path("results/bench/profile.json")


def read(study: Path) -> pandas.DataFrame:
    """One line for each job of a study: rule, job, and what Snakemake measured. Raises FileNotFoundError."""
    folder = study / "benchmarks"
    tables = sorted(folder.rglob("*.tsv"))
    if not tables:
        raise FileNotFoundError(f"{folder}: there are no benchmarks of jobs; run the study first")
    found = []
    for path in tables:
        rule, *job = path.relative_to(folder).with_suffix("").parts
        table = pandas.read_csv(path, sep="\t", na_values="-").iloc[[0]]
        found.append(table.assign(rule=rule, job="/".join(job)))
    return pandas.concat(found, ignore_index=True)


def rows(case: str, table: pandas.DataFrame) -> list[Row]:
    """Jobs, seconds, CPU seconds and largest memory of each rule, the longest first, and of all."""
    result = []
    groups: list[tuple[Any, pandas.DataFrame]] = list(table.groupby("rule"))
    groups.sort(key=lambda group: -group[1]["s"].sum())
    for rule, jobs in [*groups, ("all", table)]:
        result += [
            Row("profile", case, str(rule), float(len(jobs)), "jobs"),
            Row("profile", case, str(rule), float(jobs["s"].sum()), "s"),
            Row("profile", case, str(rule), float(jobs["cpu_time"].sum()), "CPU s"),
            Row("profile", case, str(rule), float(jobs["max_rss"].max()) * 2**20 / 1e9, "GB at most"),
            Row("profile", case, str(rule), float(jobs["s"].sum() / table["s"].sum()), "share of all seconds"),
        ]
    return result


def main() -> None:
    """Read, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path, nargs="+", help="folders of finished studies")
    args = parser.parse_args()
    for study in args.study:
        try:
            found = rows(study.name, read(study))
        except FileNotFoundError as error:
            parser.exit(2, f"error: {error}\n")
        say(found, [])
        new = plain(found)
        old = files.read_json(OUTPUT) if OUTPUT.exists() else []
        files.write_json(OUTPUT, [row for row in old if row["case"] != study.name] + new)


if __name__ == "__main__":
    main()
