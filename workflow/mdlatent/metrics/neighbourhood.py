"""Does a map keep neighbours: trustworthiness and continuity (Venna & Kaski 2001, doi:10.1007/3-540-44668-0_68).

Trustworthiness is lowered by frames that are near in the map but not in the original space, by how far down they stand
in the order of original distances; continuity is the same with the two spaces exchanged. Both are 1 for a perfect map;
a random one gives about 0.5. The original space is that of the pair distances, so no superposition is needed.

Cost: n × n ranks are held for n frames (2,000 frames: 32 MB each), and at most MAX_PAIRS distances per frame.
"""

import numpy as np

MAX_PAIRS = 5000


def ranks(points: np.ndarray) -> np.ndarray:
    """Rank of frame j among the neighbours of frame i (n, n) int32: 0 is i itself, 1 its nearest neighbour.

    `points` (n, features) float; ties are broken by the order of the frames.
    """
    points = points.astype(np.float64) - points.mean(0, dtype=np.float64)
    squares = np.einsum("ij,ij->i", points, points)
    distances = squares[:, None] + squares - 2 * points @ points.T
    np.fill_diagonal(distances, -np.inf)
    order = np.argsort(distances, axis=1, kind="stable")
    result = np.empty(order.shape, np.int32)
    np.put_along_axis(result, order, np.arange(len(order), dtype=np.int32)[None], axis=1)
    return result


def kept(neighbours: np.ndarray, judged: np.ndarray, k: int) -> np.ndarray:
    """Share of each frame (n,) in the measure, whose mean over frames is trustworthiness or continuity.

    `neighbours` and `judged` are ranks (n, n): of the k nearest by the first, those beyond k by the second cost
    (rank − k). With the map's ranks first it is trustworthiness, with the original's first, continuity.
    Raises ValueError unless 0 < k < n / 2, where the measure is defined.
    """
    n = len(neighbours)
    if not 0 < k < n / 2:
        raise ValueError(f"got k = {k} neighbours, expected 1 to {(n - 1) // 2} for {n} frames")
    near = (neighbours > 0) & (neighbours <= k)
    cost = np.where(near, np.maximum(judged - k, 0), 0).sum(1, dtype=np.int64)
    return 1 - cost * (2 / (k * (2 * n - 3 * k - 1)))


def some_pairs(n_pairs: int) -> np.ndarray:
    """Packed numbers of at most MAX_PAIRS pairs of atoms, evenly spaced: (≤ MAX_PAIRS,) int64."""
    k = min(n_pairs, MAX_PAIRS)
    return np.arange(k, dtype=np.int64) * n_pairs // k
