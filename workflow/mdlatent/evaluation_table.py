"""The table of all models of a study: records as they are, and mean and spread over seeds."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mdlatent import files
from mdlatent.errors import DataError

log = logging.getLogger("mdlatent")

COLUMNS = ["stage", "model", "seed", "dim", "metric", "value", "unit", "low", "high"]


def summarize(records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """All records as they are, then mean and sample standard deviation over seeds for every model and metric."""
    import statistics

    groups: dict[tuple[Any, ...], list[float]] = {}
    for record in records:
        key = tuple(record[name] for name in ("stage", "model", "dim", "metric", "unit"))
        groups.setdefault(key, []).append(record["value"])
    result = [dict(record) for record in records]
    for (stage_name, model, dim, metric, unit), values in groups.items():
        row = {"stage": stage_name, "model": model, "dim": dim, "metric": metric, "unit": unit}
        result.append({**row, "seed": "mean", "value": statistics.fmean(values)})
        if len(values) > 1:
            result.append({**row, "seed": "sd", "value": statistics.stdev(values)})
    return result


def write(paths: Sequence[Path], output: Path) -> None:
    """Write the table of the records in the files `paths` as CSV. Raises DataError if one is missing."""
    n_rows = write_records([record for path in paths for record in files.read_json(there(path))], output)
    log.info("%s: %d rows from %d models and seeds", output, n_rows, len(paths))


def write_records(records: Sequence[dict[str, Any]], output: Path) -> int:
    """Write the table of `records` as CSV; its number of rows."""
    import pandas as pd

    rows = summarize(records)
    with files.write_beside(output) as temporary:
        pd.DataFrame(rows, columns=COLUMNS).to_csv(temporary, index=False)
    return len(rows)


def there(path: Path) -> Path:
    """`path`, if there is such a file. Raises DataError if not."""
    if not path.is_file():
        raise DataError(f"{path}: there is no such file; run the stage that makes it first")
    return path
