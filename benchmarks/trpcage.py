"""The family `coordinate` against linear methods on one trajectory, in Å and in kinetics, on held-out blocks of time.

    python benchmarks/trpcage.py trp_cage.pdb trp_cage.dcd
    python benchmarks/trpcage.py trp_cage.pdb trp_cage.dcd --choose --dims 3 --options '{"width": 256}'

For every selection of atoms, number of dimensions and seed, a model is trained with the family's defaults and the
split of the demo (five blocks of time, 1 and 3 held out, counted from 0). Printed is the mean over held-out frames of
the root-mean-square deviation of the decoded structure from the true one after superposition, in Å: median over the
seeds, all seeds in brackets, and beside it principal components of the superposed coordinates. VAMP-2 at the lag
(whitening fitted anew on the held-out pairs, the constant left out, pairs within blocks) stands beside TICA of the CA
distances (of 30 principal components of them), both fitted to the same training frames.

With --choose the test blocks are left out altogether: each training block is cut in five, parts 1 and 3 of it are held
out, which is the place to compare options. These parts lie between frames that are trained on, which flatters: what
wins there need not win on whole blocks. With --choose-block a whole training block is held out instead.
"""

import argparse
import itertools
import json
import logging
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mdlatent import config, files, frames, models, splits, training
from mdlatent.alignment import kabsch_rmsd_nm
from mdlatent.device import choose_device
from mdlatent.feed import Feed, iterate_rows, partners, read_rows
from mdlatent.frames import FrameStore
from mdlatent.models.coordinate import CoordinateVAE
from mdlatent.models.kinetics import vamp2
from mdlatent.refit import is_wanted, refit
from mdlatent.select_atoms import select
from mdlatent.train import VALIDATED
from mdlatent.trajectory import Trajectory, load_topology

SPLIT: dict[str, Any] = {
    "by": "time",
    "n_blocks": 5,
    "test_blocks": [1, 3],
    "validation_fraction": 0.15,
    "gap_frames": 10,
}
TICA_COMPONENTS = 30


def write_store(folder: Path, topology: str, trajectories: list[str], selection: str, stride: int = 1) -> Path:
    """A frame store of the selected atoms in every `stride`-th frame, one simulation per file; returns its index."""
    about = load_topology(topology)
    atoms = select(about, selection, "benchmark", topology)
    entries = []
    for number, trajectory in enumerate(trajectories):
        name = f"run{number}"
        path = folder / name / "part000.h5"
        with frames.write_part(path, simulation=name, part=0, n_atoms=len(atoms), provenance={}) as writer:
            for chunk in Trajectory(trajectory, about, topology).chunks(atoms, stride):
                k = len(chunk.coordinates)
                writer.append(chunk.coordinates, writer.n_frames + np.arange(k), np.full(k, np.nan))
            n = writer.n_frames
        part = {"file": f"{name}/{path.name}", "trajectory": trajectory, "n_frames": n, "n_frames_source": n}
        entries.append(
            {"name": name, "role": "train", "n_frames": n, "topology": topology, "parts": [part | {"first_frame": 0}]}
        )
    names = [str(about.atom(int(k))) for k in atoms]
    index = {"n_atoms": len(atoms), "n_frames": sum(e["n_frames"] for e in entries), "atoms": names}
    files.write_json(folder / "index.json", index | {"simulations": entries})
    return folder / "index.json"


def choose_rows(
    store: FrameStore,
    gap_frames: int,
    choose: bool,
    held_out: int | None = None,
    validation_fraction: float = SPLIT["validation_fraction"],
) -> dict[str, np.ndarray]:
    """Rows of each class of the split; with `choose`, of the training blocks alone, cut again; with `held_out`, of the
    training blocks alone, that one the test."""
    split = SPLIT | {"gap_frames": gap_frames, "validation_fraction": validation_fraction}
    labels = []
    for simulation in store.simulations:
        own = splits.label(simulation.name, simulation.n_frames, simulation.role, split)
        edges = np.arange(6) * len(own) // 5
        if held_out is not None:
            own = splits.label_blocks(len(own), split | {"test_blocks": [*SPLIT["test_blocks"], held_out]})
            for block in SPLIT["test_blocks"]:
                own[edges[block] : edges[block + 1]] = "embed"
        elif choose:
            for block, (start, stop) in enumerate(itertools.pairwise(edges.tolist())):
                inner = splits.label_blocks(stop - start, split)
                own[start:stop] = "embed" if block in SPLIT["test_blocks"] else inner
        labels.append(own)
    every = np.concatenate(labels)
    return {name: np.flatnonzero(every == name) for name in ("train", "validation", "test")}


def rmsd_angstrom(decoded: torch.Tensor, true: torch.Tensor) -> torch.Tensor:
    """Deviation (B,) after superposition, in Å."""
    return 10 * kabsch_rmsd_nm(decoded, true)


def batches(store: FrameStore, rows: np.ndarray) -> Iterator[torch.Tensor]:
    return (torch.from_numpy(some) for some in iterate_rows(store, rows, 256))


@torch.no_grad()
def model_error(model: CoordinateVAE, store: FrameStore, rows: np.ndarray) -> float:
    """Mean RMSD of decoded structures, Å."""
    errors = [rmsd_angstrom(model.decode_coordinates(model.encode(x)[0]), x) for x in batches(store, rows)]
    return float(torch.cat(errors).mean())


@torch.no_grad()
def linear_error(store: FrameStore, rows: dict[str, np.ndarray], dim: int) -> float:
    """The same of `dim` principal components of the superposed coordinates."""
    model = CoordinateVAE(store.n_atoms, dim, refine_steps=0)
    model.prepare(store, rows["train"])
    return model_error(model, store, rows["test"])


def train(
    store: FrameStore,
    rows: dict[str, np.ndarray],
    dim: int,
    seed: int,
    options: dict[str, Any],
    settings: dict[str, Any],
) -> tuple[CoordinateVAE, str, float]:
    """A trained model, which weights were taken, and the CPU seconds it took."""
    torch.manual_seed(seed)
    begin = time.process_time()

    def build() -> CoordinateVAE:
        model = models.build("coordinate", store.n_atoms, dim, options)
        assert isinstance(model, CoordinateVAE)
        return model

    model = build()
    model.prepare(store, rows["train"])
    lag, batch = model.lag_frames, min(settings["batch_size"], len(rows["train"]))
    feed = Feed(store, rows["train"], batch, seed, lag_frames=lag)
    validation = Feed(store, rows["validation"], max(batch, VALIDATED), shuffle=lag > 0, lag_frames=lag)
    trained = training.train(model, feed, validation, settings, seed)
    if is_wanted(settings, trained):
        again, trained = refit(build, store, rows, settings, seed, trained, lag_frames=lag)
        assert isinstance(again, CoordinateVAE)
        model = again
    return model, trained.weights, time.process_time() - begin


@torch.no_grad()
def kinetics(values: np.ndarray, store: FrameStore, rows: np.ndarray, lag_frames: int) -> float:
    """VAMP-2 of `values` (len(rows), d)."""
    later = partners(store, rows, lag_frames)
    z = torch.from_numpy(np.asarray(values, np.float64))
    return float(vamp2(z[later >= 0], z[later[later >= 0]]))


@torch.no_grad()
def latent(model: CoordinateVAE, store: FrameStore, rows: np.ndarray) -> np.ndarray:
    return torch.cat([model.encode(x)[0] for x in batches(store, rows)]).numpy()


def tica(store: FrameStore, rows: dict[str, np.ndarray], dim: int, lag_frames: int) -> float:
    """VAMP-2 of TICA of the leading principal components of all pair distances."""
    from deeptime.decomposition import TICA

    from mdlatent import distances

    train_distances = distances.packed(read_rows(store, rows["train"])).astype(np.float64)
    test_distances = distances.packed(read_rows(store, rows["test"])).astype(np.float64)
    mean = train_distances.mean(0)
    components = np.linalg.svd(train_distances - mean, full_matrices=False)[2][:TICA_COMPONENTS].T
    projected = (train_distances - mean) @ components
    later = partners(store, rows["train"], lag_frames)
    pairs = (projected[later >= 0], projected[later[later >= 0]])
    model = TICA(dim=dim, lagtime=lag_frames).fit(pairs).fetch_model()
    return kinetics(model.transform((test_distances - mean) @ components), store, rows["test"], lag_frames)


def main() -> None:
    """Parse, train, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("topology")
    parser.add_argument("trajectory", nargs="+")
    parser.add_argument("--selections", nargs="+", default=["name CA", "symbol != H"])
    parser.add_argument("--dims", nargs="+", type=int, default=[3, 5, 10])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--options", type=json.loads, default={}, help="options of the family, JSON")
    parser.add_argument("--train", type=json.loads, default={}, help="keys of the section `train`, JSON")
    parser.add_argument("--gap-frames", type=int, default=SPLIT["gap_frames"])
    parser.add_argument(
        "--validation-fraction", type=float, default=SPLIT["validation_fraction"],
        help="0: train on validation frames too, for as many epochs as are asked for",
    )  # fmt: skip
    parser.add_argument("--lag-frames", type=int, default=10, help="lag of VAMP-2; 0 leaves kinetics out")
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument("--choose", action="store_true", help="hold out parts of the training blocks instead")
    training_blocks = sorted({*range(5)} - {*SPLIT["test_blocks"]})
    instead.add_argument("--choose-block", type=int, choices=training_blocks, help="hold out this block instead")
    args = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    choose_device("cpu", 1)
    entry: dict[str, Any] = {"family": "coordinate", "options": args.options, "train": args.train}
    values = config.validate_part({"models": [entry], "train": {}})
    options, settings = values["models"][0]["options"], config.train_settings(values, values["models"][0])
    for selection in args.selections:
        with tempfile.TemporaryDirectory() as folder:
            index = write_store(Path(folder), args.topology, args.trajectory, selection)
            with FrameStore(index) as store:
                rows = choose_rows(store, args.gap_frames, args.choose, args.choose_block, args.validation_fraction)
                counts = ", ".join(f"{len(some)} {name}" for name, some in rows.items())
                print(f"{selection}: {store.n_atoms} atoms, frames: {counts}", flush=True)
                for dim in args.dims:
                    report(store, rows, dim, args.seeds, options, settings, args.lag_frames)


def report(
    store: FrameStore,
    rows: dict[str, np.ndarray],
    dim: int,
    seeds: list[int],
    options: dict[str, Any],
    settings: dict[str, Any],
    lag_frames: int,
) -> None:
    """Train all seeds, print a line."""
    errors, scores, fits, seconds, notes = [], [], [], [], []
    for seed in seeds:
        model, weights, cpu_s = train(store, rows, dim, seed, options, settings)
        errors.append(model_error(model, store, rows["test"]))
        fits.append(model_error(model, store, rows["train"]))
        seconds.append(cpu_s)
        notes.append(weights.split(":")[0])
        if lag_frames:
            scores.append(kinetics(latent(model, store, rows["test"]), store, rows["test"], lag_frames))
    text = f"  d={dim:2}: {_spread(errors)} Å, PCA {linear_error(store, rows, dim):.4f} Å, train {_spread(fits)} Å"
    if lag_frames:
        text += f"; VAMP-2 {_spread(scores)}, TICA {tica(store, rows, dim, lag_frames):.4f}"
    print(f"{text}; {statistics.median(seconds):.1f} CPU s, weights of {'; '.join(notes)}", flush=True)


def _spread(values: list[float]) -> str:
    return f"{statistics.median(values):.4f} ({' '.join(f'{value:.4f}' for value in values)})"


if __name__ == "__main__":
    main()
