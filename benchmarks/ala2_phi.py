"""How well the states of a study of alanine dipeptide tell its basin of φ > 0 from the rest, on held-out frames.

    snakemake --cores 1 --configfile workflow/studies/ala2-phi.yaml
    python benchmarks/ala2_phi.py results/ala2-phi

The basin (C7ax and left-handed helix) is 0° < φ < 120°, −105° < ψ < 90°. Of each model and seed, the state of which
the largest share lies at φ > 0 is compared with it: its recall (share of the basin's frames that are in the state), its
precision (share of the state's frames at 0° < φ < 120°), and the adjusted Rand index of state and basin, frames called
noise being outside. The state is picked on the frames that are not held out. Last, the recall of all frames at
0° < φ < 120°: about a fifth of them have other ψ.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from mdlatent import files, reference_states
from mdlatent.frames import FrameStore
from mdlatent.metrics import agreement

PHI, PSI = ({"atoms": atoms, "borders_degrees": borders} for atoms, borders in (
    ([4, 6, 8, 10], [0, 120]), ([6, 8, 10, 16], [-105, 90]),
))  # fmt: skip


def line(labels: np.ndarray, basin: np.ndarray, inside: np.ndarray, test: np.ndarray) -> str:
    """Figures of one labelling, from arrays (n_frames,)."""
    n_states = int(labels.max(initial=-1)) + 1
    shares = [inside[(labels == state) & ~test].mean() for state in range(n_states)]
    noise = f"{n_states} states, {100 * np.mean(labels[test] < 0):.1f} % noise"
    if not n_states or max(shares) < 0.5:
        return f"{noise}; no state of this basin"
    found = labels[test] == int(np.argmax(shares))
    recall, wide = (found[some[test]].mean() for some in (basin, inside))
    precision = inside[test][found].mean() if found.any() else 0.0
    index = agreement.adjusted_rand(agreement.contingency(basin[test].astype(int), found.astype(int)))
    return f"{noise}; recall {recall:.3f}, precision {precision:.3f}, ARI {index:.3f}; at any ψ recall {wide:.3f}"


def main() -> None:
    """Parse, read, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path, help="folder of the study's results")
    args = parser.parse_args()
    with FrameStore(args.study / "frames" / "index.json") as store:
        rows, names = np.arange(store.n_frames), [simulation.name for simulation in store.simulations]
        inside = reference_states.of_frames(store, rows, [PHI]) == 0
        basin = reference_states.of_frames(store, rows, [PHI, PSI]) == 0
    for about in sorted((args.study / "clusters").glob("*/seed*/cluster.json")):
        run = about.parent.relative_to(args.study / "clusters")
        tables = [pd.read_parquet(args.study / "latent" / run / f"{name}.parquet", columns=["split"]) for name in names]
        test = np.concatenate([(table["split"] == "test").to_numpy() for table in tables])
        labels = pd.read_parquet(about.parent / "labels.parquet", columns=["label"])["label"].to_numpy()
        size, samples = (files.read_json(about)["settings"][key] for key in ("min_cluster_size", "min_samples"))
        text = line(labels, basin, inside, test)
        print(f"{run}: {test.sum()} frames held out, {basin[test].sum()} in the basin; {text}; {size}/{samples}")


if __name__ == "__main__":
    main()
