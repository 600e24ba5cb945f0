"""HDBSCAN on any number of frames: the engine for their number and dimension, and labels of frames left out of the fit.

What takes the time is the spanning tree of the frames by mutual reachability. Two packages make it, both exactly:
`fast_hdbscan` (single precision, compiled code) three times as fast where dimensions are few and frames are many,
`hdbscan` else. All that follows, clusters, probabilities and persistence, is `hdbscan`'s for both.

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

FEW_DIMENSIONS = 4  # up to here fast_hdbscan is the faster one (with six, hdbscan by more than twice)
MANY_FRAMES = 100_000  # from here on: with fewer, loading it takes longer than it saves
EXACT_FRAMES = 1_000_000  # about a minute in three dimensions, and 1 GB
EXACT_FRAMES_HDBSCAN = 100_000  # in many dimensions time grows with the square
NEIGHBOURS = 50_000_000  # that can be kept of all frames together, 8 bytes each
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
    if dim <= FEW_DIMENSIONS and n >= MANY_FRAMES:
        return Plan("fast_hdbscan", min(n, EXACT_FRAMES, NEIGHBOURS // (min_samples + 1)))
    return Plan("hdbscan", min(n, EXACT_FRAMES_HDBSCAN))


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
    engine = _by_fast_hdbscan if how.engine == "fast_hdbscan" else _by_hdbscan
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


def _by_fast_hdbscan(
    latent: np.ndarray, size: int, samples: int, selection: str, trees: Path | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    from fast_hdbscan.cluster_trees import mst_to_linkage_tree
    from fast_hdbscan.hdbscan import compute_minimum_spanning_tree
    from hdbscan.hdbscan_ import _tree_to_labels
    from scipy.spatial import cKDTree

    order = cKDTree(latent, leafsize=32).indices  # neighbours side by side in memory: a third faster at a million
    edges = compute_minimum_spanning_tree(latent[order], min_samples=samples, reproducible=True)[0]
    edges[:, :2] = order[edges[:, :2].astype(np.int64)]
    edges = edges[np.lexsort((edges[:, 1], edges[:, 0], edges[:, 2]))]
    return _tree_to_labels(latent, mst_to_linkage_tree(edges), size, selection)[:3]
