"""How stable states are when frames are left out, and HDBSCAN's two parameters chosen by it.

A labelling is compared with those of random subsamples (80 % of the frames each) by the adjusted Rand index on the
frames they share, noise counted as a label of its own: whether a frame is noise should be stable too.

For `auto`, parameters are tried on a grid and that with the largest score wins:

    score = mean ARI over subsamples × fraction of frames in a state × min(1, smallest persistence / 0.15)

and 0 where there are fewer than two states. The second factor rules out that all is noise; the third, that chance
makes the states (`states.DOUBTFUL`); beyond it persistence counts no more, for it grows with `min_cluster_size` by
itself. Of equal scores the larger `min_cluster_size` wins, then the smaller `min_samples`. Where no score reaches
STABLE there is nothing to choose by, and the most cautious parameters of the grid are taken: the largest of both.

Parameters are chosen with noise as HDBSCAN has it, before frames at the outskirts are given to states.

Cost is bounded: at most MAX_FRAMES frames, evenly spaced in time, are used. Both parameters count frames, so what is
chosen among k of n frames is scaled by n / k, `min_samples` up to MAX_SAMPLES (its time and memory grow with it).
"""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mdlatent import states
from mdlatent.metrics.agreement import adjusted_rand, contingency

AUTO = "auto"
SIZES = (0.005, 0.01, 0.02, 0.05)  # of the frames
SAMPLES = (5, 10, 25)
MAX_FRAMES, MAX_SAMPLES, MIN_SIZE = 5000, 100, 5
STABLE = 0.2  # one structureless basin scores below 0.1
KEEP, N_SWEEP, N_CHOSEN = 0.8, 3, 5  # fraction of a subsample; subsamples while choosing, and of the choice
COLUMNS = [
    *("min_cluster_size", "min_samples", "n_states", "noise_fraction", "ari_subsamples", "smallest_persistence"),
    *("score", "chosen"),
]

Row = dict[str, Any]


@dataclass(frozen=True)
class Choice:
    """`options` with numbers in the place of `auto`; mean ARI over subsamples with them; what was tried (COLUMNS)."""

    options: dict[str, Any]
    ari_subsamples: float
    table: list[Row]
    n_frames: int  # on which it was tried


def choose(latent: np.ndarray, options: Mapping[str, Any]) -> Choice:
    """Parameters for a latent (n, d), see the head of this file. With both given, the table has one row.

    The same latent gives the same choice: the subsamples are seeded.
    """
    rows = thinned(len(latent))
    z, part = np.asarray(latent, np.float64)[rows], len(rows) / max(len(latent), 1)
    grid = list(dict.fromkeys(_grid(len(latent), len(rows), options)))
    table, tried = [], []
    with tempfile.TemporaryDirectory() as folder:
        for size, samples in grid:
            here = {**options, "min_cluster_size": scaled(size, part, 2), "min_samples": scaled(samples, part, 1)}
            here |= {"outskirts": "noise"}  # noise must cost something, or chance would fill the map with states
            tried.append(here)
            table.append({"min_cluster_size": size, "min_samples": samples, **judged(z, here, N_SWEEP, Path(folder))})
        best = max(range(len(grid)), key=lambda k: (table[k]["score"], grid[k][0], -grid[k][1]))
        if table[best]["score"] < STABLE:
            best = max(range(len(grid)), key=lambda k: grid[k])
        final = tried[best] | {"outskirts": options.get("outskirts", "noise")}
        agreement = judged(z, final, N_CHOSEN, Path(folder))["ari_subsamples"]
    for k, row in enumerate(table):
        row["chosen"] = k == best
    size, samples = grid[best]
    return Choice({**options, "min_cluster_size": size, "min_samples": samples}, agreement, table, len(rows))


def judged(z: np.ndarray, options: Mapping[str, Any], n_subsamples: int, folder: Path | None = None) -> Row:
    """States of z (n, d) and how stable they are: columns n_states to score. `folder` keeps trees for reuse."""
    found = states.find_states(z, options, folder)
    agreement = subsample_agreement(z, found.labels, options, n_subsamples, folder) if found.n_states else 0.0
    weakest = min(found.persistence, default=0.0)
    score = agreement * (1 - found.noise_fraction) * min(1.0, weakest / states.DOUBTFUL)
    return {
        "n_states": found.n_states,
        "noise_fraction": found.noise_fraction,
        "ari_subsamples": agreement,
        "smallest_persistence": weakest,
        "score": max(score, 0.0) if found.n_states > 1 else 0.0,
    }


def subsample_agreement(
    z: np.ndarray, labels: np.ndarray, options: Mapping[str, Any], n_subsamples: int, folder: Path | None = None
) -> float:
    """Mean adjusted Rand index of `labels` (n,) with those of seeded 80 % subsamples, on their common frames.

    `min_cluster_size` is scaled with the number of frames.
    """
    some = {**options, "min_cluster_size": scaled(options["min_cluster_size"], KEEP, 2)}
    result = []
    for seed in range(n_subsamples):
        rows = np.sort(np.random.default_rng([seed, len(z)]).permutation(len(z))[: round(KEEP * len(z))])
        found = states.find_states(z[rows], some, folder)
        result.append(adjusted_rand(contingency(labels[rows], found.labels, noise=True)))
    return float(np.mean(result))


def thinned(n: int) -> np.ndarray:
    """At most MAX_FRAMES of the rows 0 … n − 1, evenly spaced: (k,) int64."""
    k = min(n, MAX_FRAMES)
    return np.arange(k, dtype=np.int64) * n // max(k, 1)


def scaled(value: int, part: float, least: int) -> int:
    """A number of frames for another number of frames in all."""
    return max(least, round(value * part))


def _grid(n: int, n_used: int, options: Mapping[str, Any]) -> list[tuple[int, int]]:
    """Parameters to try, counted in all n frames."""
    sizes, samples = [options["min_cluster_size"]], [options["min_samples"]]
    if sizes[0] == AUTO:
        sizes = [max(MIN_SIZE, round(fraction * n)) for fraction in SIZES]
    if samples[0] == AUTO:
        samples = [min(MAX_SAMPLES, round(some * n / max(n_used, 1))) for some in SAMPLES]
    return [(size, some) for some in samples for size in sizes]
