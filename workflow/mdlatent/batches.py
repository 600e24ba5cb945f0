"""Which simulations of a study share jobs: one that takes many small ones spends its time on them, not on starting."""

from collections.abc import Iterable, Mapping
from typing import Any

AUTO_FROM = 101  # simulations; with fewer, a job for each costs minutes at most
AUTO_SIZE = 100


def batches(rows: Iterable[Mapping[str, Any]], per_job: int | str) -> dict[str, list[str]]:
    """Names of the simulations in each batch (`train000`, `train001` … `embed000` …), in the order of the table.

    `per_job` is `simulations_per_job` of the configuration; no batch if it is 1. What is only mapped stands apart from
    what is trained on, so that a simulation added to the one does not touch the other. Simulations that are run here
    take no part. The jobs of a batch look for themselves what is done already, so it does no harm if it changes.

    >>> batches([{"name": "a", "role": "train"}, {"name": "b", "role": "embed"}, {"name": "c", "role": "train"}], 2)
    {'train000': ['a', 'c'], 'embed000': ['b']}
    """
    rows = [row for row in rows if "simulate" not in row]
    size = int(per_job) if per_job != "auto" else AUTO_SIZE if len(rows) >= AUTO_FROM else 1
    if size == 1:
        return {}
    result: dict[str, list[str]] = {}
    for role in ("train", "embed"):
        names = [row["name"] for row in rows if row["role"] == role]
        for start in range(0, len(names), size):
            result[f"{role}{start // size:03d}"] = names[start : start + size]
    return result
