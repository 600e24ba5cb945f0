"""Measure a model on held-out time, and put all models of a study into one table.

With --model: a list of records {"stage", "model", "seed", "dim", "metric", "value", "unit"} of one model and seed, most
with "low" and "high" too, a 95 % interval from blocks of time; and with --kinetics a file with implied timescales and
the Chapman–Kolmogorov test of its states. Structures, contacts, neighbours, VAMP-2 and the agreement with reference
states are measured on the test frames; the Markov model on all frames, for a part of them has too few transitions.

With --summary: the records of many such files as a CSV with the same columns, and below them for every model and
metric the mean over seeds (column seed is `mean`) and, from two seeds on, their sample standard deviation (`sd`).
"""

import itertools
import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mdlatent import evaluation_table, files, stage
from mdlatent.errors import ConfigError, DataError

if TYPE_CHECKING:
    import numpy as np

    from mdlatent.frames import FrameStore
    from mdlatent.held_out import HeldOut
    from mdlatent.latents import Latents
    from mdlatent.metrics.intervals import Interval

log = logging.getLogger("mdlatent")

MEASURED = {  # of training: metric, key in the model's config.yaml, unit
    "parameters": ("parameters", "count"),
    "frames_per_cpu_second": ("frames_per_cpu_second", "1/s"),
    "peak_memory": ("peak_memory_gb", "GB"),
}
ARGUMENTS = ("frames", "model", "latent", "clusters", "tica", "name", "seed", "kinetics")
CHUNK = 1024


def main(argv: list[str] | None = None) -> None:
    """Parse, read, write."""
    parser = stage.parser("evaluate", __doc__)
    parser.add_argument("--frames", type=Path, help="index.json of the frame store")
    parser.add_argument("--model", type=Path, help="folder of a trained model")
    parser.add_argument("--latent", type=Path, help="folder with its latent tables")
    parser.add_argument("--clusters", type=Path, help="folder with its clusters")
    parser.add_argument("--tica", type=Path, help="what the stage fit_tica wrote")
    parser.add_argument("--name", help="name of the model")
    parser.add_argument("--seed", type=int, help="seed of its training")
    parser.add_argument("--kinetics", type=Path, help="file for timescales and the test of the Markov model (JSON)")
    parser.add_argument("--summary", type=Path, nargs="+", metavar="JSON", help="records of all models, for the table")
    parser.add_argument("--output", type=Path, required=True, help="records (JSON), or with --summary the table (CSV)")
    stage.add_options(parser)
    args = parser.parse_args(argv)
    stage.start_logging(args.log)
    stage.limit_threads(1)
    if args.summary:
        evaluation_table.write(args.summary, args.output)
        return
    for name in ARGUMENTS:
        if getattr(args, name) is None:
            raise ConfigError(f"--{name} is missing: expected --summary, or all of --frames … --kinetics")
    options = stage.read_options(args.options, "evaluate")["evaluate"]
    found, markov = evaluate(args.frames, args.model, args.latent, args.clusters, args.tica, options)
    records = [{"stage": r.pop("stage"), "model": args.name, "seed": args.seed, **r} for r in found]
    files.write_json(args.kinetics, markov)
    files.write_json(args.output, records)
    for record in records:
        log.info("%s %s: %s %.6g %s", args.name, args.seed, record["metric"], record["value"], record["unit"])


class Records:
    """Records of one model and seed, without its name and seed."""

    def __init__(self, dim: int):
        self.dim, self.found = dim, list[dict[str, Any]]()

    def add(
        self, metric: str, value: Any, unit: str = "1", interval: "Interval | None" = None, of: str = "evaluate"
    ) -> None:
        """Add one; a value that is no number is left out and said."""
        if value is None or not math.isfinite(value):
            log.warning("%s is not known (%s) and left out", metric, value)
            return
        record = {"stage": of, "dim": self.dim, "metric": metric, "value": value, "unit": unit}
        self.found.append(record | (dict(zip(("low", "high"), interval, strict=True)) if interval else {}))


def evaluate(
    frames: Path, model: Path, latent: Path, clusters: Path, tica: Path, options: dict[str, Any]
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The records of one model and seed, without its name and seed, and its Markov model (see `markov.analyse`)."""
    from mdlatent import held_out, latents
    from mdlatent.frames import FrameStore

    with FrameStore(frames) as store:
        points = latents.read(latent, {s.name: s.n_frames for s in store.simulations})
        records = Records(points.z.shape[1])
        measured = _measured(model / "config.yaml")
        for metric, (key, unit) in MEASURED.items():
            records.add(metric, measured.get(key), unit, of="train")
        split, error_nm = held_out.read_split(latent, points.simulations)
        starts = held_out.stretches(points)
        held = held_out.HeldOut.of(split, starts)
        about = files.read_json(evaluation_table.there(clusters / "cluster.json"))
        labels = latents.columns(clusters / "labels.parquet", ["label"])["label"].to_numpy()
        if len(held.rows):
            _distance_error(records, error_nm, held)
            _decoded(records, store, model / "model.pt", points, split, held, options)
            _slow_motion(records, points, held, tica, options["lag_frames"])
            if options["reference_states"]:
                _reference(records, store, labels, held, options["reference_states"]["dihedrals"])
        else:
            log.warning("no frame is held out for the test: what is measured on such frames is left out")
        markov = _markov(records, points, labels, starts, about["n_states"], options["lag_frames"][0])
        _states(records, points, labels, about)
    return records.found, markov


def _distance_error(records: Records, error_nm: "np.ndarray", held: "HeldOut") -> None:
    """Root of the mean square error over held-out frames (and pairs, of which all frames have as many)."""
    import numpy as np

    from mdlatent.metrics.intervals import block_bootstrap

    square = error_nm[held.rows] ** 2
    interval = block_bootstrap(np.bincount(held.blocks, square), np.bincount(held.blocks), np.sqrt)
    records.add("heldout_distance_rmse", float(np.sqrt(square.mean())), "nm", interval)


def _decoded(
    records: Records,
    store: "FrameStore",
    path: Path,
    points: "Latents",
    split: "np.ndarray",
    held: "HeldOut",
    options: dict[str, Any],
) -> None:
    """Structures, contacts and neighbours of at most `max_frames` held-out frames, in one pass over them."""
    import numpy as np
    import torch

    from mdlatent import distances, embed, held_out, models
    from mdlatent.feed import read_rows
    from mdlatent.metrics import contacts, neighbourhood, structure
    from mdlatent.metrics.intervals import block_bootstrap, bootstrap_frames

    model, metadata = models.load(path)
    embed.check_atoms(store, metadata, path)
    places = held.thinned(options["max_frames"])
    rows, blocks = held.rows[places], held.blocks[places]
    if len(rows) < len(held.rows):
        log.info("%d of %d held-out frames are decoded, evenly spaced", len(rows), len(held.rows))
    reference = held_out.training_structure(store, split)
    far, compared = contacts.contact_pairs(store.n_atoms), neighbourhood.some_pairs(distances.n_pairs(store.n_atoms))
    rmsd, counts = np.empty(len(rows)), np.empty((len(rows), 3), np.int64)
    original = np.empty((len(rows), len(compared)), np.float32)
    chunk = model.frames_at_once
    for start in stage.progress(range(0, len(rows), chunk), -(-len(rows) // chunk), "decoding"):
        some = slice(start, start + chunk)
        true_nm = read_rows(store, rows[some])
        z = torch.from_numpy(points.z[rows[some]])
        with torch.no_grad():
            decoded = model.decode(z).numpy()
        true = distances.packed(true_nm)
        rmsd[some] = structure.held_out_rmsd(model, z, true_nm, reference)
        counts[some] = contacts.contact_counts(true[:, far], decoded[:, far], options["contact_cutoff_nm"])
        original[some] = true[:, compared]

    def sums(values: "np.ndarray") -> "np.ndarray":
        return np.bincount(blocks, values, minlength=int(held.blocks[-1]) + 1)

    n = sums(np.ones(len(rows)))
    records.add("heldout_rmsd", float(rmsd.mean()), "angstrom", block_bootstrap(sums(rmsd), n))
    for name, part in (("median", 0.5), ("95", 0.95)):

        def quantile(values: "np.ndarray", part: float = part) -> float:
            return float(np.quantile(values, part))

        records.add(f"heldout_rmsd_{name}", quantile(rmsd), "angstrom", bootstrap_frames(rmsd, blocks, quantile))
    true_contacts, decoded_contacts, both = counts.T
    for name, of in (("contacts_recovered", true_contacts), ("contacts_precision", decoded_contacts)):
        value = both.sum() / of.sum() if of.sum() else math.nan
        records.add(name, float(value), "1", block_bootstrap(sums(both), sums(of)))
    if not 2 * options["n_neighbours"] < len(rows):
        log.warning("%d frames are too few for %d neighbours", len(rows), options["n_neighbours"])
        return
    by_distance, by_latent = neighbourhood.ranks(original), neighbourhood.ranks(points.z[rows])
    for name, pair in (("trustworthiness", (by_latent, by_distance)), ("continuity", (by_distance, by_latent))):
        kept = neighbourhood.kept(*pair, options["n_neighbours"])
        records.add(name, float(kept.mean()), "1", block_bootstrap(sums(kept), n))


def _slow_motion(records: Records, points: "Latents", held: "HeldOut", path: Path, lags: Sequence[int]) -> None:
    """VAMP-2 of the latent and of as many TICA coordinates; further lags have theirs behind the metric's name."""
    import numpy as np

    from mdlatent.metrics import kinetics

    dim = points.z.shape[1]
    with np.load(evaluation_table.there(path)) as tica:
        if not np.array_equal(tica["rows"], held.rows):
            raise DataError(f"{path}: was made for other test frames; run the stage fit_tica again")
        slowest = {int(name.removeprefix("lag")): tica[name] for name in tica.files if name != "rows"}
    edges = np.cumsum([0] + [len(run) for run in held.runs])
    for number, lag in enumerate(lags):
        ending = "" if number == 0 else f"_lag{lag}"
        moments = kinetics.lagged_moments([points.z[run] for run in held.runs], lag)
        if moments is None:
            log.warning("no two test frames are %d frames apart without a gap: vamp2%s is left out", lag, ending)
            continue
        records.add(f"vamp2{ending}", kinetics.vamp2(moments), "1", kinetics.vamp2_interval(moments))
        if lag not in slowest or slowest[lag].shape[1] < dim:
            log.warning("there are no %d TICA coordinates at lag %d: the ratio is left out", dim, lag)
            continue
        runs = [slowest[lag][a:b, :dim] for a, b in itertools.pairwise(edges)]
        baseline = kinetics.lagged_moments(runs, lag)
        if baseline is not None:
            ratio, interval = kinetics.vamp2_ratio(moments, baseline)
            records.add(f"vamp2_ratio_to_tica{ending}", ratio, "1", interval)


def _reference(
    records: Records, store: "FrameStore", labels: "np.ndarray", held: "HeldOut", angles: list[dict[str, Any]]
) -> None:
    """Agreement of the states with known ones on held-out frames."""
    import numpy as np

    from mdlatent import reference_states
    from mdlatent.metrics import agreement
    from mdlatent.metrics.intervals import bootstrap_sums

    known = reference_states.of_frames(store, held.rows, angles)
    log.info("reference states: %s frames", ", ".join(map(str, np.bincount(known))))
    measures = {"ari_reference": agreement.adjusted_rand, "nmi_reference": agreement.normalized_mutual_information}
    for noise, ending in ((False, ""), (True, "_with_noise")):
        tables = agreement.contingencies(known, labels[held.rows], held.blocks, noise)
        for metric, measure in measures.items():
            records.add(metric + ending, measure(tables.sum(0)), "1", bootstrap_sums(tables, measure))


def _markov(
    records: Records, points: "Latents", labels: "np.ndarray", starts: "np.ndarray", n_states: int, lag: int
) -> dict[str, Any]:
    """Timescales and test of the Markov model of the states."""
    import numpy as np

    from mdlatent import held_out, states
    from mdlatent.metrics import markov

    lengths = np.diff(np.append(starts, len(labels)))
    step = held_out.time_step_ps(points, starts)
    chain = markov.Chain(
        states.last_visited(labels, starts),
        np.repeat(np.arange(len(lengths)), lengths),
        states.time_blocks(lengths),
        n_states,
    )
    found = markov.analyse(chain, lag, step)
    row = next((row for row in found["timescales"] if row["lag_frames"] == lag), None)
    if row is None:
        log.warning("fewer than two states are connected at a lag of %d frames: there is no Markov model", lag)
        return found
    interval = row["intervals"][0] if "intervals" in row else None
    records.add("implied_timescale_1", row["values"][0], "frames" if step is None else "ps", interval)
    records.add("ck_error", found["ck_error"])
    return found


def _states(records: Records, points: "Latents", labels: "np.ndarray", about: dict[str, Any]) -> None:
    """What the clustering says of itself; the noise with its interval over time, the states taken as given."""
    import numpy as np

    from mdlatent import states
    from mdlatent.metrics.intervals import block_bootstrap

    blocks = states.time_blocks(points.lengths)
    noise = block_bootstrap(np.bincount(blocks, labels < 0), np.bincount(blocks))
    if about["n_states"]:
        records.add("ari_subsamples", about["ari_subsamples"])
    records.add("n_states", about["n_states"], "count", of="cluster")
    records.add("noise_fraction", about["noise_fraction"], "1", noise, of="cluster")
    records.add("noise_fraction_by_density", about["noise_fraction_by_density"], of="cluster")


def _measured(path: Path) -> dict[str, Any]:
    import yaml

    return (yaml.safe_load(evaluation_table.there(path).read_text(encoding="utf-8")) or {}).get("measured", {})


if __name__ == "__main__":
    stage.run(main)
