"""How well the states of a study of alanine dipeptide tell its basin of φ > 0 from the rest, on held-out frames.

    snakemake --cores 1 --configfile workflow/studies/ala2-phi.yaml
    python benchmarks/ala2_phi.py results/ala2-phi

The basin is 0° < φ < 120°. Of each model and seed, the state of which most frames lie in it is compared with it: its
recall (share of the basin's frames that are in the state), its precision (share of the state's frames that are in the
basin), and the adjusted Rand index of these two, frames called noise being outside. The state is picked on the frames
that are not held out. Beside it the index of all states with those of φ and ψ, as in the study's evaluation.
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


def line(labels: np.ndarray, inside: np.ndarray, all_states: np.ndarray, test: np.ndarray) -> str:
    """Figures of one labelling, from arrays (n_frames,)."""
    n_states = int(labels.max(initial=-1)) + 1
    shares = [inside[(labels == state) & ~test].mean() for state in range(n_states)]
    noise = f"{n_states} states, {100 * np.mean(labels[test] < 0):.1f} % noise"
    if not n_states or max(shares) < 0.5:
        return f"{noise}; no state of this basin"
    found = labels[test] == int(np.argmax(shares))
    both = (found & inside[test]).sum()
    recall, precision = both / inside[test].sum(), both / max(found.sum(), 1)
    index = agreement.adjusted_rand(agreement.contingency(inside[test].astype(int), found.astype(int)))
    overall = agreement.adjusted_rand(agreement.contingency(all_states[test], labels[test]))
    return f"{noise}; basin: recall {recall:.3f}, precision {precision:.3f}, ARI {index:.3f}; all states {overall:.3f}"


def main() -> None:
    """Parse, read, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path, help="folder of the study's results")
    args = parser.parse_args()
    with FrameStore(args.study / "frames" / "index.json") as store:
        rows, names = np.arange(store.n_frames), [simulation.name for simulation in store.simulations]
        inside = reference_states.of_frames(store, rows, [PHI]) == 0
        all_states = reference_states.of_frames(store, rows, [PHI, PSI])
    for about in sorted((args.study / "clusters").glob("*/seed*/cluster.json")):
        run = about.parent.relative_to(args.study / "clusters")
        tables = [pd.read_parquet(args.study / "latent" / run / f"{name}.parquet", columns=["split"]) for name in names]
        test = np.concatenate([(table["split"] == "test").to_numpy() for table in tables])
        labels = pd.read_parquet(about.parent / "labels.parquet", columns=["label"])["label"].to_numpy()
        size, samples = (files.read_json(about)["settings"][key] for key in ("min_cluster_size", "min_samples"))
        text = line(labels, inside, all_states, test)
        print(f"{run}: {test.sum()} frames held out, {inside[test].sum()} in the basin; {text}; {size}/{samples}")


if __name__ == "__main__":
    main()
