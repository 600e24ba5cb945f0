"""States of alanine dipeptide that each family finds without being told how many, against those of φ and ψ.

    python benchmarks/ala2.py FOLDER
    python benchmarks/ala2.py FOLDER --choose --seeds 0 --options '{"kinetic_weight": 0.05}'

FOLDER holds ala2.pdb and trajectory-0.dcd … trajectory-6.dcd (doi:10.6084/m9.figshare.1026131). Trajectories 0 to 3
are trained on (the last 15 % of each for validation), 4 to 6 are held out. States are found as the workflow does, with
`cluster` as it is by default (`eom`: few, large states) or with `selection_method: leaf`, in the latent of all frames;
they are compared on the held-out ones. Two basins: ψ between −105° and 90°, or not. Three: what is not, cut at
φ = −110°, the middle of the shallow minimum between extended and polyproline structures (trajectories 0 to 3).

Printed for each seed: number of states, noise among the held-out frames, adjusted Rand index with both without noise,
and in brackets with noise counted as a label. With --choose all of it on the trajectories 0 to 3 instead.
"""

import argparse
import json
import logging
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from trpcage import batches, train, write_store

from mdlatent import config, models, reference_states, splits, stability, states
from mdlatent.device import choose_device
from mdlatent.feed import iterate_rows
from mdlatent.frames import FrameStore
from mdlatent.metrics import agreement

N_TRAJECTORIES, HELD_OUT = 7, ["run4", "run5", "run6"]
SPLIT = {
    "by": "simulation", "test_simulations": HELD_OUT, "validation_simulations": [], "validation_fraction": 0.15,
    "gap_frames": 10,
}  # fmt: skip
ANGLES = [("ACE1-C", "ALA2-N", "ALA2-CA", "ALA2-C"), ("ALA2-N", "ALA2-CA", "ALA2-C", "NME3-N")]
PSI_BORDERS, PHI_BORDER = (-105.0, 90.0), -110.0


def known_states(store: FrameStore) -> tuple[np.ndarray, np.ndarray]:
    """The two basins and the three of every frame: (n_frames,) each."""
    fours = np.array([[store.atoms.index(name) for name in names] for names in ANGLES])
    pieces = iterate_rows(store, np.arange(store.n_frames), reference_states.CHUNK)
    phi, psi = np.concatenate([agreement.dihedrals_degrees(some, fours) for some in pieces]).T
    bent = (psi > PSI_BORDERS[0]) & (psi < PSI_BORDERS[1])
    return bent.astype(int), np.where(bent, 0, np.where(phi < PHI_BORDER, 1, 2))


@torch.no_grad()
def latent(entry: dict[str, Any], settings: dict[str, Any], store: FrameStore, seed: int) -> np.ndarray:
    """The latent (n_frames, d) of all frames, of a model of the section `models` trained on the training frames."""
    labels = np.concatenate([splits.label(s.name, s.n_frames, s.role, SPLIT) for s in store.simulations])
    rows = {name: np.flatnonzero(labels == name) for name in ("train", "validation")}
    model: Any
    if entry["family"] == "coordinate":
        with torch.enable_grad():
            model = train(store, rows, entry["latent_dim"], seed, entry["options"], settings)[0].eval()
    else:
        model = models.build(entry["family"], store.n_atoms, entry["latent_dim"], entry["options"])
        model.fit(store, rows["train"])
    return torch.cat([model.encode(x)[0] for x in batches(store, np.arange(store.n_frames))]).numpy()


def report(z: np.ndarray, known: tuple[np.ndarray, np.ndarray], part: np.ndarray, method: str, title: str) -> None:
    """Find states, print a line."""
    options = {**config.validate_part({"cluster": {}})["cluster"], "selection_method": method}
    choice = stability.choose(z, options)
    found = states.find_states(z, choice.options)
    labels = found.labels[part]
    text = f"{title:20} {method:4}: {found.n_states} states, {100 * np.mean(labels < 0):.2f} % noise"
    for name, truth in zip(("two", "three"), known, strict=True):
        plain, strict = (
            agreement.adjusted_rand(agreement.contingency(truth[part], labels, noise)) for noise in (False, True)
        )
        text += f"; {name} basins {plain:.3f} ({strict:.3f})"
    size, samples = choice.options["min_cluster_size"], choice.options["min_samples"]
    print(f"{text}; min_cluster_size {size}, min_samples {samples}", flush=True)


def main() -> None:
    """Parse, train, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--families", nargs="+", default=["coordinate", "pca_coordinates", "tica"])
    parser.add_argument("--stride", type=int, default=5, help="every how many frames (of 1 ps) one is read")
    parser.add_argument("--dim", type=int, default=3)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--methods", nargs="+", default=["eom", "leaf"])
    parser.add_argument("--options", type=json.loads, default={}, help="options of the family `coordinate`, JSON")
    parser.add_argument("--train", type=json.loads, default={}, help="keys of its section `train`, JSON")
    parser.add_argument("--choose", action="store_true", help="compare on the trajectories that are trained on")
    args = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    choose_device("cpu", 1)
    trajectories = [str(args.folder / f"trajectory-{k}.dcd") for k in range(N_TRAJECTORIES)]
    with tempfile.TemporaryDirectory() as folder:
        index = write_store(Path(folder), str(args.folder / "ala2.pdb"), trajectories, "symbol != H", args.stride)
        with FrameStore(index) as store:
            known = known_states(store)
            held = np.concatenate([np.full(s.n_frames, s.name in HELD_OUT) for s in store.simulations])
            part = np.flatnonzero(~held if args.choose else held)
            print(f"{store.n_frames} frames, compared on {len(part)}: two basins {np.bincount(known[0][part])}, "
                  f"three {np.bincount(known[1][part])}", flush=True)  # fmt: skip
            for family in args.families:
                own = {"options": args.options, "train": args.train} if family == "coordinate" else {}
                values = config.validate_part({"models": [{"family": family, "latent_dim": args.dim, **own}]})
                entry = values["models"][0]
                settings = config.train_settings(values | config.validate_part({"train": {}}), entry)
                for seed in args.seeds if family == "coordinate" else args.seeds[:1]:
                    z = latent(entry, settings, store, seed)
                    for method in args.methods:
                        report(z, known, part, method, f"{family} {seed}")


if __name__ == "__main__":
    main()
