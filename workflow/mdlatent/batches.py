"""Which simulations of a study share jobs: one that takes many small ones spends its time on them, not on starting."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mdlatent import files, sources

AUTO_FROM = 101  # simulations; with fewer, a job for each costs minutes at most
AUTO_BYTES = 5e9  # of trajectories: about a minute of work, beside which seconds for the start are little
AUTO_UNKNOWN = 100  # simulations, where no size is known before they are downloaded


def per_job(rows: Iterable[Mapping[str, Any]], wanted: int | str, kept: Path) -> int:
    """How many simulations one job takes: `wanted`, or for `auto` as many as have 5 GB of trajectories together.

    What `keep` wrote to `kept` comes before sizes: files that grow must not change the batches, which every job of
    the study works out for itself.
    """
    if wanted != "auto":
        return int(wanted)
    rows = _read_here(rows)
    if len(rows) < AUTO_FROM:
        return 1
    if kept.exists():
        return int(files.read_json(kept)["simulations_per_job"])
    paths = [[sources.plain_path(uri) for uri in row["trajectory"]] for row in rows]
    sizes = [sum(path.stat().st_size for path in parts if path) for parts in paths if all(parts)]
    return max(1, int(AUTO_BYTES * len(sizes) / max(1, sum(sizes)))) if sizes else AUTO_UNKNOWN


def keep(rows: Iterable[Mapping[str, Any]], wanted: int | str, kept: Path) -> None:
    """Write down what `per_job` finds by the sizes of files, for the jobs and the next start of the study."""
    if wanted == "auto" and len(_read_here(rows)) >= AUTO_FROM and not kept.exists():
        files.write_json(kept, {"simulations_per_job": per_job(rows, wanted, kept)})


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
    result: dict[str, list[str]] = {}
    for role in ("train", "embed"):
        names = [row["name"] for row in _read_here(rows) if row["role"] == role]
        for start in range(0, len(names), size):
            result[f"{role}{start // size:03d}"] = names[start : start + size]
    return result


def _read_here(rows: Iterable[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
    """The simulations that come as files."""
    return [row for row in rows if "simulate" not in row]
