"""Compare the states that the seeds of one model find.

Writes records as the stage `evaluate` does: for each seed `ari_seeds`, the mean adjusted Rand index of its labels with
those of each other seed over all frames, noise counted as a label; and `ari_seeds_without_noise`, over the frames that
both call a state. The mean over seeds is that over all pairs of seeds.
"""

import logging
import math
from pathlib import Path

from mdlatent import files, stage
from mdlatent.errors import ConfigError, DataError

log = logging.getLogger("mdlatent")


def main(argv: list[str] | None = None) -> None:
    """Parse, read, write."""
    parser = stage.parser("compare_seeds", __doc__)
    parser.add_argument("--name", required=True, help="name of the model")
    parser.add_argument("--clusters", type=Path, nargs="+", required=True, help="folders seed<k> with its clusters")
    parser.add_argument("--output", type=Path, required=True, help="records (JSON)")
    args = parser.parse_args(argv)
    stage.start_logging(args.log)
    stage.limit_threads(1)

    from mdlatent import latents
    from mdlatent.metrics import agreement

    seeds = [seed_of(folder) for folder in args.clusters]
    labels = [latents.columns(folder / "labels.parquet", ["label"])["label"].to_numpy() for folder in args.clusters]
    if len({len(some) for some in labels}) > 1:
        raise DataError(
            f"{args.clusters[0].parent}: the seeds have labels of {sorted({len(some) for some in labels})} frames, "
            "expected the same number; run cluster again"
        )
    about = [files.read_json(folder / "cluster.json") for folder in args.clusters]
    records = []
    for metric, noise in (("ari_seeds", True), ("ari_seeds_without_noise", False)):
        for seed, entry, value in zip(seeds, about, agreement.among_seeds(labels, noise), strict=True):
            if math.isfinite(value):
                record = {"stage": "evaluate", "model": args.name, "seed": seed, "dim": entry["latent_dim"]}
                records.append({**record, "metric": metric, "value": value, "unit": "1"})
    files.write_json(args.output, records)
    log.info("%s: %d seeds", args.output, len(seeds))


def seed_of(folder: Path) -> int:
    """The seed in the name of a folder seed<k>. Raises ConfigError for another name."""
    number = folder.name.removeprefix("seed")
    if not number.isdigit():
        raise ConfigError(f"--clusters: got {folder}, expected folders with names such as seed0")
    return int(number)


if __name__ == "__main__":
    stage.run(main)
