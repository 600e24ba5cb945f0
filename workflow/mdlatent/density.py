"""HDBSCAN on any number of frames: the engine for their number, and labels of frames left out of the fit.

What takes the time is the spanning tree of the frames by mutual reachability. With few frames it is made by `hdbscan`,
with many by `mdlatent.spanning_tree`, several times as fast; both are exact. All that follows, clusters, probabilities
and persistence, is `hdbscan`'s in both cases.

Time and memory are bounded: beyond a stated number of frames (`plan`), states are fitted on frames evenly spaced in
time, and every other frame gets what its nearest fitted frame has: label, noise or not, and probability. Both
parameters count frames, so they shrink with the part that is fitted, `min_samples` no further than LEAST_SAMPLES.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

log = logging.getLogger("mdlatent")

MANY_FRAMES = 20_000  # from here on the spanning tree is ours
FEW_DIMENSIONS = 6  # beyond, time grows with nearly the square of the frames
EXACT_FRAMES = {True: 1_000_000, False: 100_000}  # in few dimensions and in many: about 15 s in three, with 0.6 GB
NEIGHBOURS = 100_000_000  # that can be kept of all frames together, 4 bytes each
LEAST_SAMPLES = 5
BLOCK = 100_000  # frames whose nearest fitted frame is looked up at a time


@dataclass(frozen=True)
class Plan:
    """Which package makes the spanning tree, and of how many frames."""

    engine: str
    n_fitted: int


@dataclass(frozen=True)
class Fit:
    """Labels (n,), −1 noise; probabilities (n,); persistence by label; and how they were found."""

    labels: np.ndarray
    probabilities: np.ndarray
    persistence: np.ndarray
    plan: Plan


def plan(n: int, dim: int, min_samples: int) -> Plan:
    """How to cluster n frames in `dim` dimensions."""
    fitted = min(n, EXACT_FRAMES[dim <= FEW_DIMENSIONS], max(NEIGHBOURS // min_samples, MANY_FRAMES))
    return Plan("hdbscan" if fitted < MANY_FRAMES else "mdlatent", fitted)


def fit(latent: np.ndarray, options: Mapping[str, Any], trees: Path | None = None) -> Fit:
    """Cluster the latent (n, d) float64; `options` is the section `cluster`, both its numbers counted in n frames.

    In the folder `trees` spanning trees are kept and found again by the content of the latent (`hdbscan` only).
    """
    n, (size, samples) = len(latent), (options["min_cluster_size"], options["min_samples"])
    how = plan(n, latent.shape[1], samples)
    rows = np.arange(how.n_fitted, dtype=np.int64) * n // max(how.n_fitted, 1)
    if how.n_fitted < n:
        part = how.n_fitted / n
        size, samples = max(2, round(size * part)), max(min(samples, LEAST_SAMPLES), round(samples * part))
        log.info(
            "clustering %d of %d frames, evenly spaced (min_cluster_size %d, min_samples %d); others get what their "
            "nearest has", how.n_fitted, n, size, samples,
        )  # fmt: skip
    engine = _by_hdbscan if how.engine == "hdbscan" else _by_own_tree
    fitted = latent if how.n_fitted == n else latent[rows]
    labels, probabilities, persistence = engine(fitted, size, samples, options["selection_method"], trees)
    if how.n_fitted < n:
        place = nearest(fitted, latent)
        place[rows] = np.arange(len(rows))  # of identical frames each keeps its own
        labels, probabilities = labels[place], probabilities[place]
    return Fit(labels, probabilities, persistence, how)


def nearest(fitted: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Row of `fitted` (k, d) that is nearest to each of the points (n, d): (n,) int64."""
    from scipy.spatial import cKDTree

    tree = cKDTree(fitted, leafsize=32)
    return np.concatenate([tree.query(points[k : k + BLOCK])[1] for k in range(0, len(points), BLOCK)])


def _by_hdbscan(
    latent: np.ndarray, size: int, samples: int, selection: str, trees: Path | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    import warnings

    import hdbscan
    from joblib import Memory

    engine = hdbscan.HDBSCAN(
        min_cluster_size=size,
        min_samples=samples,
        cluster_selection_method=selection,
        metric="euclidean",
        approx_min_span_tree=False,
        core_dist_n_jobs=1,
        memory=Memory(trees, verbose=0),
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Persisting input arguments")  # of a slow disk, not of the result
        found = engine.fit(latent)
    return found.labels_, found.probabilities_, found.cluster_persistence_


def _by_own_tree(
    latent: np.ndarray, size: int, samples: int, selection: str, trees: Path | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    from hdbscan.hdbscan_ import _tree_to_labels

    from mdlatent import spanning_tree

    return _tree_to_labels(latent, spanning_tree.linkage(latent, samples), size, selection)[:3]
