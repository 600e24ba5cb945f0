"""Measure a model on held-out time, and put all models of a study into one table.

With --model: a list of records {"stage", "model", "seed", "dim", "metric", "value", "unit"} of one model and seed;
means over frames have "low" and "high" too, their 95 % interval. With --summary: the records of many such
files as a CSV with the same columns, and below them for every model and metric the mean over seeds (column seed is
`mean`) and, from two seeds on, their sample standard deviation (`sd`).
"""

import logging
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mdlatent import files, stage
from mdlatent.errors import ConfigError, DataError

log = logging.getLogger("mdlatent")

COLUMNS = ["stage", "model", "seed", "dim", "metric", "value", "unit", "low", "high"]
MEASURED = {  # of training: metric, key in the model's config.yaml, unit
    "parameters": ("parameters", "count"),
    "frames_per_cpu_second": ("frames_per_cpu_second", "1/s"),
    "peak_memory": ("peak_memory_gb", "GB"),
}
N_RESAMPLES = 2000


def main(argv: list[str] | None = None) -> None:
    """Parse, read, write."""
    parser = stage.parser("evaluate", __doc__)
    parser.add_argument("--frames", type=Path, help="index.json of the frame store")
    parser.add_argument("--model", type=Path, help="folder of a trained model")
    parser.add_argument("--latent", type=Path, help="folder with its latent tables")
    parser.add_argument("--clusters", type=Path, help="folder with its clusters")
    parser.add_argument("--name", help="name of the model")
    parser.add_argument("--seed", type=int, help="seed of its training")
    parser.add_argument("--summary", type=Path, nargs="+", metavar="JSON", help="records of all models, for the table")
    parser.add_argument("--output", type=Path, required=True, help="records (JSON), or with --summary the table (CSV)")
    args = parser.parse_args(argv)
    stage.start_logging(args.log)
    stage.limit_threads(1)
    if args.summary:
        _summarize(args.summary, args.output)
        return
    for name in ("frames", "model", "latent", "clusters", "name", "seed"):
        if getattr(args, name) is None:
            raise ConfigError(f"--{name} is missing: expected --summary, or all of --frames … --seed")
    records = evaluate(args.frames, args.model, args.latent, args.clusters)
    files.write_json(
        args.output, [{"stage": r.pop("stage"), "model": args.name, "seed": args.seed, **r} for r in records]
    )
    for record in records:
        log.info("%s %s: %s %.6g %s", args.name, args.seed, record["metric"], record["value"], record["unit"])


def evaluate(frames: Path, model: Path, latent: Path, clusters: Path) -> list[dict[str, Any]]:
    """The records of one model and seed, without its name and seed."""
    from mdlatent import latents
    from mdlatent.frames import FrameStore

    with FrameStore(frames) as store:
        simulations = [simulation.name for simulation in store.simulations]
    dim = len(latents.coordinate_names(latent / f"{simulations[0]}.parquet"))
    result = []

    def add(stage_name: str, metric: str, value: Any, unit: str, interval: tuple[float, float] | None = None) -> None:
        if value is None or not math.isfinite(value):
            log.warning("%s is not known (%s) and left out", metric, value)
            return
        record = {"stage": stage_name, "dim": dim, "metric": metric, "value": value, "unit": unit}
        result.append(record | (dict(zip(("low", "high"), interval, strict=True)) if interval else {}))

    measured = _measured(model / "config.yaml")
    for metric, (key, unit) in MEASURED.items():
        add("train", metric, measured.get(key), unit)

    pieces = [held_out_errors(latent / f"{name}.parquet") for name in simulations]
    runs = [run for piece in pieces for run in piece]
    if runs:
        add("evaluate", "heldout_distance_rmse", *_rmse(runs))
    else:
        log.warning("no frame is held out for the test: heldout_distance_rmse is left out")

    about = files.read_json(_there(clusters / "cluster.json"))
    add("cluster", "n_states", about["n_states"], "count")
    add("cluster", "noise_fraction", *_noise(clusters / "labels.parquet", about["noise_fraction"]))
    return result


def held_out_errors(path: Path) -> list[Any]:
    """Reconstruction errors of the test frames of a latent table in nm, one array (k,) for each run without a gap."""
    import numpy as np

    from mdlatent import latents

    table = latents.columns(path, ["split", "reconstruction_rmse_nm"])
    rows = np.flatnonzero(np.asarray(table["split"].to_numpy() == "test"))
    errors = table["reconstruction_rmse_nm"].to_numpy().astype(np.float64)[rows]
    return [run for run in np.split(errors, np.flatnonzero(np.diff(rows) > 1) + 1) if len(run)]


def block_bootstrap(
    totals: Any, sizes: Any, statistic: Callable[[Any], Any], n_resamples: int = N_RESAMPLES
) -> tuple[float, float] | None:
    """95 % interval of `statistic(mean over frames)` by resampling blocks of time with replacement (percentiles).

    `totals` and `sizes` (n_blocks,): sum over the frames of a block, and their number. The seed is fixed. None for
    fewer than two blocks. Blocks must outlast the memory of the simulation for the interval to be wide enough.
    """
    import numpy as np

    totals, sizes = np.asarray(totals, np.float64), np.asarray(sizes, np.float64)
    if len(totals) < 2:
        return None
    drawn = np.random.default_rng(0).integers(len(totals), size=(n_resamples, len(totals)))
    values = statistic(totals[drawn].sum(1) / sizes[drawn].sum(1))
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)


def _rmse(runs: Sequence[Any]) -> tuple[float, str, tuple[float, float] | None]:
    """Root of the mean square error over held-out frames (and pairs, of which all frames have as many), in nm."""
    import numpy as np

    from mdlatent.states import time_blocks

    square = np.concatenate(runs) ** 2
    blocks = time_blocks([len(run) for run in runs])
    interval = block_bootstrap(np.bincount(blocks, square), np.bincount(blocks), np.sqrt)
    return float(np.sqrt(square.mean())), "nm", interval


def _noise(path: Path, value: float) -> tuple[float, str, tuple[float, float] | None]:
    """Noise fraction with its interval over time, the states taken as given."""
    import numpy as np
    import pyarrow.compute as pc

    from mdlatent import latents
    from mdlatent.states import time_blocks

    table = latents.columns(path, ["simulation", "label"])
    counted = pc.value_counts(table["simulation"].combine_chunks()).to_pylist()  # in order of appearance
    blocks = time_blocks([entry["counts"] for entry in counted])
    noise = (table["label"].to_numpy() < 0).astype(np.float64)
    return value, "1", block_bootstrap(np.bincount(blocks, noise), np.bincount(blocks), lambda mean: mean)


def _measured(path: Path) -> dict[str, Any]:
    import yaml

    return (yaml.safe_load(_there(path).read_text(encoding="utf-8")) or {}).get("measured", {})


def _there(path: Path) -> Path:
    if not path.is_file():
        raise DataError(f"{path}: there is no such file; run the stage that makes it first")
    return path


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


def _summarize(paths: Sequence[Path], output: Path) -> None:
    import pandas as pd

    rows = summarize([record for path in paths for record in files.read_json(_there(path))])
    with files.write_beside(output) as temporary:
        pd.DataFrame(rows, columns=COLUMNS).to_csv(temporary, index=False)
    log.info("%s: %d rows from %d models and seeds", output, len(rows), len(paths))


if __name__ == "__main__":
    stage.run(main)
