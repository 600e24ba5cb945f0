"""Train (or fit) one model with one seed on the training frames of a study.

Writes model.pt, history.csv and config.yaml into the output folder. Reconstruction errors in the history are mean
squared errors of distances: of scaled ones (without unit) for conv2d and resnet1d; for coordinate,
the fraction of variance lost, or its root (models/coordinate.py); in nm² for baselines.

Stopped by SIGTERM or SIGUSR1, it saves a checkpoint and exits with code 75; the same command then goes on from there.

With `--synthetic FRAMES --n-atoms N` it trains on made-up frames, to try sizes and speed without a study.

Started as several processes (torchrun, srun, mpirun, horovodrun), they train one model together; see docs/parallel.md.
"""

import argparse
import contextlib
import hashlib
import json
import logging
import os
import platform
import resource
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mdlatent import __version__, config, files, launch, lifeline, stage
from mdlatent.errors import DataError
from mdlatent.model_names import find_model, model_name

if TYPE_CHECKING:
    import numpy as np

    from mdlatent.feed import Feed
    from mdlatent.frames import FrameStore
    from mdlatent.models.base import LatentModel
    from mdlatent.parallel import Group
    from mdlatent.training import Row

log = logging.getLogger("mdlatent")

VALIDATED = 256  # validation frames at once, at least: each pass has overhead
# Settings that decide how a training runs, not what comes out of it.
WITHOUT_EFFECT = ("threads", "device", "checkpoint_epochs", "backend")


def main(argv: list[str] | None = None) -> None:
    """Parse the command line, train, write the results."""
    parser = stage.parser("train", __doc__)
    frames = parser.add_mutually_exclusive_group(required=True)
    frames.add_argument("--frames", type=Path, help="index.json of the frame store")
    frames.add_argument("--synthetic", type=int, metavar="FRAMES", help="train on so many made-up frames instead")
    parser.add_argument("--n-atoms", type=int, help="atoms of the made-up frames")
    parser.add_argument("--model", required=True, help="name of the model in the section `models`, or its family")
    parser.add_argument("--seed", type=int, default=0, help="random seed")
    parser.add_argument("--output-dir", type=Path, required=True, help="folder for model.pt, history.csv, config.yaml")
    parser.add_argument(
        "--checkpoints", type=Path, help="folder for checkpoints, kept until it is done (default, in the output folder)"
    )
    parser.add_argument(
        "--scratch",
        default="",
        help="folder on this node's own disk, to which frames that do not fit in memory are copied; empty: none",
    )
    stage.add_options(parser)
    args = parser.parse_args(argv)
    if (args.synthetic is None) != (args.n_atoms is None):
        parser.error("--synthetic and --n-atoms belong together")
    args.checkpoints = args.checkpoints or args.output_dir / "checkpoints"
    me = launch.find()
    stage.start_logging(args.log, me.rank)
    with lifeline.together(me, args.checkpoints) as line, contextlib.ExitStack() as made_up:
        if args.synthetic is not None:
            from mdlatent import synthetic

            args.options = synthetic.options(args.options, args.model)
            args.frames = made_up.enter_context(synthetic.store(args.synthetic, args.n_atoms, args.seed))
        _train(args, line)


def _train(args: argparse.Namespace, line: lifeline.Line) -> None:
    values = stage.read_options(args.options, "models", "train", "split")
    entry = find_model(values["models"], args.model)
    settings = config.train_settings(values, entry)
    stage.limit_threads(settings["threads"])

    import numpy as np

    from mdlatent import parallel, splits
    from mdlatent.device import choose_device
    from mdlatent.frames import FrameStore
    from mdlatent.staging import staged

    device = choose_device(settings["device"], settings["threads"])
    joined = parallel.joined(settings["backend"], line, device)
    with joined as group, FrameStore(args.frames) as store, staged(store, args.scratch, line.launch):
        labels = np.concatenate([*splits.labels(store, values["split"]).values()])
        rows = {name: np.flatnonzero(labels == name) for name in ("train", "validation")}
        demand_batch(len(rows["train"]), entry["family"], settings["batch_size"])
        data = data_hash(store, rows) if group.is_main else ""
        log.info(
            "%s: %d training and %d validation frames of %d atoms, on %s%s",
            args.model, len(rows["train"]), len(rows["validation"]), store.n_atoms, device,
            f", {group.size} processes ({group.backend})" if group.size > 1 else "",
        )  # fmt: skip
        group.wait_for_main()  # however long it reads
        start = time.monotonic()
        with rank_log(args.log, line, group, device) as note:
            model, notes = run(
                store, rows, entry, settings, args.seed, device, args.output_dir, args.checkpoints, data, group, note
            )
        if not group.is_main:
            return
        notes["measured"] |= {"peak_memory_gb": peak_memory_gb(device), "seconds": round(time.monotonic() - start, 2)}
        metadata = {
            "model": model_name(entry),
            "seed": args.seed,
            "atoms": store.atoms,
            "n_atoms": store.n_atoms,
            "split": values["split"],
            "train": settings,
            "data_sha256": data,
            "mdlatent": __version__,
        }
    record = {
        "model": metadata["model"],
        "family": model.family,
        "latent_dim": model.latent_dim,
        "n_atoms": model.n_atoms,
        "options": model.options,
        "seed": args.seed,
        "n_frames": {name: len(some) for name, some in rows.items()},
        "train": settings,
        "parallel": {"backend": group.backend, "processes": group.size},
        "split": values["split"],
        "data_sha256": data,
        **notes,
        "versions": versions(device),
    }
    import yaml

    from mdlatent import models
    from mdlatent.checkpoint import Checkpoints

    files.write_text(args.output_dir / "config.yaml", yaml.safe_dump(record, sort_keys=False))
    models.save(args.output_dir / "model.pt", model, metadata)
    for folder in (args.checkpoints / "refit", args.checkpoints):
        Checkpoints(folder, notes["key"]).clear()
    log.info("%s: %s", args.output_dir / "model.pt", notes["weights"])


def run(
    store: "FrameStore",
    rows: "dict[str, np.ndarray]",
    entry: dict[str, Any],
    settings: dict[str, Any],
    seed: int,
    device: str,
    output_dir: Path,
    checkpoints: Path,
    data: str,
    group: "Group | None" = None,
    note: "Callable[[Row], None]" = lambda record: None,
) -> "tuple[LatentModel, dict[str, Any]]":
    """Build and train or fit the model; write history.csv as it goes. Returns the model and notes for config.yaml."""
    import torch

    from mdlatent import models, training
    from mdlatent.checkpoint import Checkpoints, key_of
    from mdlatent.feed import Feed
    from mdlatent.parallel import Group
    from mdlatent.refit import is_wanted, refit

    def build() -> "LatentModel":
        model = models.build(entry["family"], store.n_atoms, entry["latent_dim"], entry["options"])
        model.precision = settings["precision"]
        return model

    group = group or Group()
    share: dict[str, Any] = {"device": device, "rank": group.rank, "size": group.size}
    torch.manual_seed(seed)
    model = build()
    log.info("%s: %s parameters", model_name(entry), f"{model.n_parameters:,}")
    batch_size = settings["batch_size"]
    share["lag_frames"] = model.lag_frames
    feed = Feed(store, rows["train"], batch_size, seed, **share)
    # Kinetics of a batch of neighbours in time would show nothing slow.
    validation = Feed(store, rows["validation"], max(batch_size, VALIDATED), shuffle=model.lag_frames > 0, **share)
    history = output_dir / "history.csv"
    made_of = entry["family"], entry["latent_dim"], entry["options"], _effective(settings), seed, data
    key = key_of(*made_of, __version__, models.VERSION)
    if model.fitted == "direct":
        start, cpu = time.monotonic(), time.process_time()
        if group.is_main:
            model.fit(store, rows["train"])
        cpu_s = time.process_time() - cpu
        group.wait_for_main()
        model.load_state_dict(group.broadcast(model.state_dict()))
        model.to(device).eval()
        row = {
            "epoch": 0,
            "train_reconstruction": mean_square_error(model, feed, group),
            "validation_reconstruction": mean_square_error(model, validation, group) if len(validation) else None,
            "active_dimensions": model.latent_dim,
            "seconds": time.monotonic() - start,
        }
        row |= {f"{name}_loss": row[f"{name}_reconstruction"] for name in ("train", "validation")}
        if group.is_main:
            write_history(history, [row])
        weights, speed = "fitted in one step", len(feed) / max(cpu_s, 1e-9)
    else:
        stop = training.StopSignal()
        model.prepare(store, rows["train"])
        trained = training.train(
            model.to(device),
            feed,
            validation,
            settings,
            seed,
            Checkpoints(checkpoints, key),
            lambda so_far: write_history(history, so_far),
            stop,
            group,
            note,
        )
    error = mean_square_error(model, validation, group) ** 0.5 if len(validation) else None
    if model.fitted != "direct":
        if is_wanted(settings, trained):
            del feed, validation, model  # they may hold all frames, and it many parameters
            again = Checkpoints(checkpoints / "refit", key)
            model, trained = refit(build, store, rows, settings, seed, trained, again, stop, group, note, **share)
        weights, speed = trained.weights, trained.frames_per_cpu_second or 0.0
    measured = {
        "parameters": model.n_parameters,
        "frames_per_cpu_second": round(speed, 2),
        "validation_distance_rmse_nm": None if error is None else round(error, 5),
    }
    return model, {"weights": weights, "key": key, "measured": measured}


def demand_batch(n_train: int, family: str, batch_size: int) -> None:
    """Raise DataError if a model that is trained step by step has fewer training frames than one batch.

    One that starts as a fitted model takes any number: what few frames cannot better stays as it is.
    """
    from mdlatent import models

    kind = models.family_class(family)
    if kind.fitted == "gradient" and not kind.starts_fitted and n_train < batch_size:
        raise DataError(
            f"training has {n_train} frames, train.batch_size is {batch_size}: set it to at most {n_train}, or give "
            "longer trajectories, a lower featurize.stride or split.gap_frames, or fewer split.test_blocks"
        )


def mean_square_error(model: "LatentModel", feed: "Feed", group: "Group") -> float:
    """Mean over frames and pairs of the squared error of the distances of posterior means, in nm²."""
    import torch

    total = 0.0
    for batch in feed.batches():
        batch = batch[:, 0] if model.lag_frames else batch
        for piece in batch.split(model.frames_at_once) if len(batch) else ():
            total += float(model.embed(piece)[1].double().square().sum())
    return float(group.sum(torch.tensor(total, dtype=torch.float64))) / len(feed)


@contextlib.contextmanager
def rank_log(path: Path | None, line: lifeline.Line, group: "Group", device: str) -> "Iterator[Callable[[Row], None]]":
    """What each of several processes worked on, as JSON lines in `<log>.rank<k>.jsonl`, appended to at each start.

    The first line of a start says where the process ran; then one line per epoch, or part of one: its number, the
    batches [from, to), how many frames this process had of them, and their check sum (`feed.Tally`).
    """
    if path is None or group.size == 1:
        yield lambda record: None
        return
    gpus = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    me = line.launch
    mine = gpus[me.local_rank if len(gpus) > 1 else 0] if me.local_rank < max(len(gpus), 1) and gpus else None
    start = {
        "rank": group.rank, "size": group.size, "local_rank": me.local_rank, "node": me.node, "launcher": me.launcher,
        "backend": group.backend, "device": device, "gpu": mine, "gpus": gpus, "pid": os.getpid(),
        "time": round(time.time(), 1),
    }  # fmt: skip
    with open(path.with_name(f"{path.name}.rank{group.rank}.jsonl"), "a", encoding="utf-8", buffering=1) as handle:

        def note(record: "Row") -> None:
            handle.write(json.dumps(record) + "\n")

        note(start)
        yield note


def data_hash(store: "FrameStore", rows: "dict[str, np.ndarray]") -> str:
    """SHA-256 of atoms, coordinates and split of the frames that decide a training."""
    import numpy as np

    from mdlatent.feed import READ_ROWS, iterate_rows

    result = hashlib.sha256("\n".join(store.atoms).encode())
    for name, some in rows.items():
        result.update(f"\n{name} {len(some)}\n".encode())
        for frames in iterate_rows(store, some, READ_ROWS):
            if not np.isfinite(frames).all():
                raise DataError(f"{store.path}: {name} frames hold NaN or infinite coordinates; run featurize again")
            result.update(frames.tobytes())
    return result.hexdigest()


def write_history(path: Path, rows: "list[Row]") -> None:
    """Write the history as CSV; what a model does not have stays empty."""
    from mdlatent.training import COLUMNS

    lines = [",".join(COLUMNS)]
    lines += [",".join("" if (value := row.get(name)) is None else f"{value:.9g}" for name in COLUMNS) for row in rows]
    files.write_text(path, "\n".join(lines) + "\n")


def peak_memory_gb(device: str) -> float:
    """Largest resident memory of this process so far in 1e9 bytes; on a GPU, what torch allocated there."""
    if device == "cuda":
        import torch

        return round(torch.cuda.max_memory_allocated() / 1e9, 3)
    # Not ru_maxrss where it can be helped: on Linux it begins with what the process was started from.
    with contextlib.suppress(OSError, StopIteration):
        with open("/proc/self/status", encoding="ascii") as handle:
            peak_kib = next(int(line.split()[1]) for line in handle if line.startswith("VmHWM:"))
        return round(peak_kib * 1024 / 1e9, 3)
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9, 3)


def versions(device: str) -> dict[str, str]:
    """Versions of what decides the numbers."""
    import numpy as np
    import torch

    result = {
        "mdlatent": __version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),  # a class of its own, which YAML refuses
        "numpy": np.__version__,
    }
    return result | ({"gpu": torch.cuda.get_device_name()} if device == "cuda" else {})


def _effective(settings: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if name not in WITHOUT_EFFECT}


if __name__ == "__main__":
    stage.run(main)
