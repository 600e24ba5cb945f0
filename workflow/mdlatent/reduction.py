r"""The data-driven choice of atoms: keep those from which the others are best predicted.

Let the superposed coordinates, less their mean, be the columns of X (T frames × 3 n), scaled by 1/√T, so that the
covariance is C = XᵀX. The best linear prediction of all columns from those of the atoms kept so far leaves the residual
covariance C′; adding atom a, whose three columns are C′_a (3n × 3) and whose own block is C′_aa (3 × 3), lowers the
total squared error tr C′ by

    gain(a) = tr[ C′_aᵀ C′_a (C′_aa + ε I)⁻¹ ],        C″ = C′ − C′_a (C′_aa + ε I)⁻¹ C′_aᵀ.

The atom with the largest gain is taken, again and again: greedy column-subset selection in groups of three columns, a
Cholesky factorisation of C pivoted by gain. (Pivoting by the largest block instead, the usual pivoted Cholesky, takes
the atoms that move most, which predict little but themselves.) ε, a thousandth of the mean variance, stands for what
T frames cannot tell; without it everything is explained after T / 3 atoms and the rest of the choice is arbitrary.

C, of 3n × 3n, is never formed. With C′ = Xᵀ P X and Y = P X, P starting as the identity, a step costs O(T n):

    C′_aa = X_aᵀ Y_a,   C′_aᵀ C′_a = Y_aᵀ (X Xᵀ) Y_a,   Y″ = Y − Y_a (C′_aa + ε I)⁻¹ X_aᵀ Y,

and X is rotated beforehand (which leaves C as it is) so that X Xᵀ is diagonal.
Source: Farahat, Elgohary, Ghodsi, Kamel, "Greedy column subset selection for large-scale data sets", Knowl. Inf. Syst.
45 (2015) 1; the grouping of columns and ε are ours.
"""

import logging
from typing import Any

import numpy as np

from mdlatent.errors import DataError
from mdlatent.featurize import whole_chunks
from mdlatent.trajectory import Trajectory

log = logging.getLogger("mdlatent")

MAX_FRAMES = 512  # in the sample, over all simulations
MAX_NUMBERS = 20_000_000  # in the sample: 160 MB as float64
FEW_FRAMES = 100
RIDGE = 1e-3


def superpose(coordinates: np.ndarray, rounds: int = 3) -> np.ndarray:
    """Frames (T, n, 3) moved and turned onto their mean structure (Kabsch), which is refined in a few rounds."""
    x = coordinates - coordinates.mean(axis=1, keepdims=True)
    mean = x[0]
    for _ in range(rounds):
        u, _, vt = np.linalg.svd(np.einsum("tni,nj->tij", x, mean))
        u[:, :, 2] *= np.sign(np.linalg.det(u @ vt))[:, None]  # a rotation, never a reflection
        x = x @ (u @ vt)
        mean = x.mean(axis=0)
    return x


def choose_columns(coordinates: np.ndarray, n_keep: int) -> np.ndarray:
    """Positions of the `n_keep` atoms that best predict the others, ascending (n_keep,) int64.

    `coordinates` (T, n, 3) superposed, any unit. Deterministic: the first of equal gains is taken.
    """
    n_frames, n_atoms, _ = coordinates.shape
    x = coordinates.reshape(n_frames, -1).astype(np.float64)
    x = (x - x.mean(axis=0)) / np.sqrt(n_frames)
    u, s, _ = np.linalg.svd(x @ x.T)
    x = u.T @ x  # now x @ x.T = diag(s)
    y = x.copy()
    weighted = np.empty((n_frames, n_atoms, 3))
    ridge = RIDGE * (x**2).sum() / (3 * n_atoms) * np.eye(3)
    free = np.ones(n_atoms, bool)
    for _ in range(min(n_keep, n_atoms)):
        blocks = y.reshape(n_frames, n_atoms, 3)
        np.multiply(blocks, s[:, None, None], out=weighted)
        squares = np.einsum("tai,taj->aij", weighted, blocks)
        own = np.einsum("tai,taj->aij", x.reshape(blocks.shape), blocks) + ridge
        gains = np.einsum("aij,aji->a", squares, np.linalg.inv(own))
        best = int(np.argmax(np.where(free, gains, -np.inf)))
        free[best] = False
        columns = slice(3 * best, 3 * best + 3)
        y -= (y[:, columns] @ np.linalg.inv(own[best])) @ (x[:, columns].T @ y)
    return np.flatnonzero(~free)


def sample_frames(
    simulations: list[dict[str, Any]], topologies: dict[str, Any], selected: dict[str, np.ndarray], make_whole: str
) -> np.ndarray:
    """Frames of the selected atoms, evenly spaced over the first part of each simulation: (T, n, 3) float32 nm."""
    n_atoms = len(next(iter(selected.values())))
    n_frames = int(np.clip(MAX_NUMBERS // (3 * n_atoms), 2, MAX_FRAMES))
    each = max(2, n_frames // len(simulations))
    taken = []
    for simulation in simulations:
        name = simulation["name"]
        trajectory = Trajectory(simulation["first_part"], topologies[name], simulation["topology"])
        stride = max(1, -(-trajectory.count_frames() // each))
        _, chunks = whole_chunks(trajectory, selected[name], stride, make_whole)
        taken += [chunk.coordinates for chunk in chunks]
    return np.concatenate(taken) if taken else np.empty((0, n_atoms, 3), np.float32)


def informative_atoms(
    simulations: list[dict[str, Any]],
    topologies: dict[str, Any],
    selected: dict[str, np.ndarray],
    max_atoms: int,
    make_whole: str,
) -> np.ndarray:
    """Positions in the selection of the atoms to keep, chosen on a sample of the simulations' first parts.

    `simulations`: those to train on, with `name`, `topology` and `first_part`. Raises DataError below two frames.
    """
    frames = sample_frames(simulations, topologies, selected, make_whole)
    if len(frames) < 2:
        raise DataError(
            f"featurize.reduction is `informative`, which needs at least 2 frames to learn from, got {len(frames)}; "
            "set it to `even`"
        )
    if len(frames) < FEW_FRAMES:
        log.warning("informative reduction: only %d frames to learn from; `even` may be the better choice", len(frames))
    return choose_columns(superpose(frames.astype(np.float64)), max_atoms)
