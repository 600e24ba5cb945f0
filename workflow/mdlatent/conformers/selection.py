"""Choose n conformers of a pool: the lowest, the centres of K-means, or those expected to be nearest to the truth."""

from __future__ import annotations

import numpy as np

__all__ = ["expected", "k_means", "lowest"]


def lowest(energies_kcal: np.ndarray, n: int) -> np.ndarray:
    """Indices of the n lowest energies, lowest first."""
    return np.argsort(energies_kcal, kind="stable")[:n]


def k_means(coordinates_angstrom: np.ndarray, n: int, seed: int) -> np.ndarray:
    """Indices of the n conformers nearest to the centres of K-means on superposed coordinates (B, N, 3) of heavy atoms.

    As in arXiv 2302.07061, all are superposed on the first, without symmetry.
    """
    from sklearn.cluster import KMeans

    centred = coordinates_angstrom - coordinates_angstrom.mean(1, keepdims=True)
    u, _, vt = np.linalg.svd(np.einsum("bni,nj->bij", centred, centred[0]))
    u[:, :, -1] *= np.sign(np.linalg.det(u @ vt))[:, None]
    flat = np.einsum("bni,bij->bnj", centred, u @ vt).reshape(len(centred), -1)
    clusters = KMeans(n, n_init=1, random_state=seed).fit(flat)
    chosen = []
    for number in range(n):
        members = np.flatnonzero(clusters.labels_ == number)
        if len(members):
            distance = ((flat[members] - clusters.cluster_centers_[number]) ** 2).sum(1)
            chosen.append(int(members[np.argmin(distance)]))
    spare = [one for one in range(len(flat)) if one not in set(chosen)]
    return np.array(chosen + spare[: n - len(chosen)])


def expected(
    rmsd_angstrom: np.ndarray,
    energies: np.ndarray,
    n: int,
    precision_weight: float,
    duplicate_angstrom: float,
    n_true: float | None = None,
) -> np.ndarray:
    """Indices of n conformers of a pool, chosen greedily for the least expected error, if the true ones are like it.

    The true conformers, `n_true` of them (n / 2 if not given), are taken for independent draws from the pool with
    probability w ∝ exp(−E). Then Σ_i w_i min_{s chosen} d(i, s) is the expected AMR of recall, and
    c_s, the expected distance from s to the nearest of the draws, that of precision; each choice lowers
    recall + precision_weight × precision most. A conformer within `duplicate_angstrom` of a chosen one comes last.

    rmsd (B, B) in Å, energies (B,) in units of kT. Time grows with n B² and B² log B.
    """
    weight = np.exp(energies.min() - energies)
    weight /= weight.sum()
    cost = _expected_nearest(rmsd_angstrom, weight, n_true or max(1.0, n / 2)) * (precision_weight / n)
    nearest = np.full(len(weight), rmsd_angstrom.max() + 1.0)
    free = np.ones(len(weight), bool)
    apart = np.full(len(weight), np.inf)  # to the nearest chosen one
    chosen: list[int] = []
    while len(chosen) < min(n, len(weight)):
        loss = np.minimum(nearest[:, None], rmsd_angstrom).T @ weight + cost
        allowed = free & (apart > duplicate_angstrom)
        loss[~(allowed if allowed.any() else free)] = np.inf
        best = int(np.argmin(loss))
        chosen.append(best)
        free[best] = False
        nearest = np.minimum(nearest, rmsd_angstrom[best])
        apart = np.minimum(apart, rmsd_angstrom[best])
    return np.array(chosen)


def _expected_nearest(rmsd: np.ndarray, weight: np.ndarray, draws: float) -> np.ndarray:
    """Expected least distance (B,) from each to `draws` independent draws of the weighted pool."""
    order = np.argsort(rmsd, axis=1, kind="stable")
    beyond = (
        np.clip(1 - np.cumsum(weight[order], axis=1), 0, 1) ** draws
    )  # none of the draws is among the nearest so many
    before = np.concatenate([np.ones((len(rmsd), 1)), beyond[:, :-1]], axis=1)
    return np.asarray((np.take_along_axis(rmsd, order, 1) * (before - beyond)).sum(1))
