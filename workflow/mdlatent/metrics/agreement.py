"""Do two labellings of the same frames agree: adjusted Rand index and normalised mutual information.

The adjusted Rand index is 1 for the same partition and about 0 for chance (Hubert & Arabie 1985,
doi:10.1007/BF01908075); the mutual information is divided by the arithmetic mean of the two entropies. Neither depends
on the numbers that the states bear.

Noise (label −1) is left out by default: frames that either labelling calls noise do not count. With `noise` it counts
as one more label, which is stricter where the labellings disagree on what is noise.
"""

import numpy as np

NOISE = -1


def contingency(one: np.ndarray, two: np.ndarray, noise: bool = False) -> np.ndarray:
    """Number of frames with the i-th label of `one` and the j-th of `two`: (k, l) int64."""
    return contingencies(one, two, np.zeros(len(one), np.int64), noise)[0]


def contingencies(one: np.ndarray, two: np.ndarray, blocks: np.ndarray, noise: bool = False) -> np.ndarray:
    """`contingency` of each block of time, (n_blocks, k, l) int64; `blocks` (n,) numbers that of each frame."""
    n_blocks = int(blocks.max(initial=0)) + 1
    if not noise:
        keep = (one != NOISE) & (two != NOISE)
        one, two, blocks = one[keep], two[keep], blocks[keep]
    rows, i = np.unique(one, return_inverse=True)
    columns, j = np.unique(two, return_inverse=True)
    shape = (n_blocks, len(rows), len(columns))
    return np.bincount((blocks * shape[1] + i) * shape[2] + j, minlength=int(np.prod(shape))).reshape(shape)


def adjusted_rand(table: np.ndarray) -> float:
    """Adjusted Rand index of a contingency table; 1 where both have but one label, NaN without frames."""
    n = float(table.sum())
    if n < 1:
        return float("nan")
    pairs, rows, columns = (_pairs(counts) for counts in (table, table.sum(1), table.sum(0)))
    expected = rows * columns / max(_pairs(np.array([n])), 1.0)
    most = (rows + columns) / 2
    return 1.0 if most == expected else float((pairs - expected) / (most - expected))


def normalized_mutual_information(table: np.ndarray) -> float:
    """Mutual information over the mean of the entropies; 1 where both have but one label, NaN without frames."""
    n = float(table.sum())
    if n < 1:
        return float("nan")
    joint, rows, columns = table / n, table.sum(1) / n, table.sum(0) / n
    there = joint > 0
    information = (joint[there] * np.log(joint[there] / np.outer(rows, columns)[there])).sum()
    mean = (_entropy(rows) + _entropy(columns)) / 2
    return 1.0 if mean == 0 else float(information / mean)


def among_seeds(labels: list[np.ndarray], noise: bool = False) -> list[float]:
    """For each labelling its mean adjusted Rand index with the others; their mean is that over all pairs."""
    n = len(labels)
    table = np.full((n, n), np.nan)
    for i in range(n):
        for j in range(i):
            table[i, j] = table[j, i] = adjusted_rand(contingency(labels[i], labels[j], noise))
    return [float(np.mean(np.delete(row, k))) if n > 1 else float("nan") for k, row in enumerate(table)]


def dihedral_states(angles_degrees: np.ndarray, borders_degrees: list[list[float]]) -> np.ndarray:
    """Product of the states of several dihedral angles (n, k), each cut at its borders on the circle: (n,) int64.

    Borders b₁ < b₂ < … make the states b₁ to b₂, b₂ to b₃ …, and last that from the last border over ±180° to b₁.
    """
    result = np.zeros(len(angles_degrees), np.int64)
    for angles, borders in zip(angles_degrees.T, borders_degrees, strict=True):
        state = np.searchsorted(np.sort(borders), angles, side="right") - 1
        result = result * len(borders) + state % len(borders)
    return result


def dihedrals_degrees(coordinates: np.ndarray, quadruples: np.ndarray) -> np.ndarray:
    """Dihedral angles (frames, k) in degrees, −180 to 180, of atoms `quadruples` (k, 4); coordinates (frames, n, 3)."""
    a, b, c, d = (coordinates[:, quadruples[:, k]].astype(np.float64) for k in range(4))
    first, axis, last = b - a, c - b, d - c
    one, two = np.cross(first, axis), np.cross(axis, last)
    length = np.linalg.norm(axis, axis=-1)
    return np.degrees(np.arctan2(length * (first * two).sum(-1), (one * two).sum(-1)))


def _pairs(counts: np.ndarray) -> float:
    counts = counts.astype(np.float64)
    return float((counts * (counts - 1)).sum() / 2)


def _entropy(shares: np.ndarray) -> float:
    shares = shares[shares > 0]
    return float(-(shares * np.log(shares)).sum())
