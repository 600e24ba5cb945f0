"""Which simulations of a study share jobs: one that takes many small ones spends its time on them, not on starting."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mdlatent import files, sources

AUTO_FROM = 101  # simulations; with fewer, a job for each costs minutes at most
AUTO_BYTES = 5e9  # of trajectories: about a minute of work, beside which seconds for the start are little
AUTO_UNKNOWN = 100  # simulations, where no size is known before they are downloaded
AUTO_KEPT = 4  # times as large or small as files say now: then a new start takes another number


def per_job(rows: Iterable[Mapping[str, Any]], wanted: int | str, kept: Path, is_start: bool) -> int:
    """How many simulations one job takes: `wanted`, or for `auto` as many as have 5 GB of trajectories together.

    Every job of a study works out its batches for itself, and files that grow meanwhile must not change them: so the
    start of the workflow (`is_start`) writes the number to the file `kept`, see `keep`, and jobs read it there. A later
    start takes another one if files have become far larger or smaller.
    """
    if wanted != "auto":
        return int(wanted)
    rows = _read_here(rows)
    if len(rows) < AUTO_FROM:
        return 1
    number = _read(kept)
    if number and not is_start:
        return number
    now = _by_size(rows)
    return number if number and now / AUTO_KEPT <= number <= now * AUTO_KEPT else now


def _by_size(rows: Sequence[Mapping[str, Any]]) -> int:
    paths = [[sources.plain_path(uri) for uri in row["trajectory"]] for row in rows]
    sizes = [sum(path.stat().st_size for path in parts if path) for parts in paths if all(parts)]
    return max(1, int(AUTO_BYTES * len(sizes) / max(1, sum(sizes)))) if sizes else AUTO_UNKNOWN


def keep(kept: Path, number: int) -> None:
    """Write down for the jobs of a study how many simulations one takes, unless it is one or stands there."""
    if number != (_read(kept) or 1):
        files.write_json(kept, {"simulations_per_job": number})


def _read(kept: Path) -> int | None:
    return int(files.read_json(kept)["simulations_per_job"]) if kept.exists() else None


def batches(rows: Iterable[Mapping[str, Any]], size: int) -> dict[str, list[str]]:
    """Names of the simulations in each batch (`train000`, `train001` … `embed000` …), in the order of the table.

    `size` is what `per_job` gives; no batch if it is 1. What is only mapped stands apart from what is trained on, so
    that a simulation added to the one does not touch the other. Simulations that are run here take no part. The jobs of
    a batch look for themselves what is done already, so it does no harm if it changes.

    >>> batches([{"name": "a", "role": "train"}, {"name": "b", "role": "embed"}, {"name": "c", "role": "train"}], 2)
    {'train000': ['a', 'c'], 'embed000': ['b']}
    """
    if size == 1:
        return {}
    rows = _read_here(rows)
    result: dict[str, list[str]] = {}
    for role in ("train", "embed"):
        names = [row["name"] for row in rows if row["role"] == role]
        for start in range(0, len(names), size):
            result[f"{role}{start // size:03d}"] = names[start : start + size]
    return result


def _read_here(rows: Iterable[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
    """The simulations that come as files."""
    return [row for row in rows if "simulate" not in row]
