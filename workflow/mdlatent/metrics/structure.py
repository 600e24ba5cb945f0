"""How far decoded structures are from the true ones, in Å after superposition."""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

    from mdlatent.models.base import LatentModel

ANGSTROM_PER_NM = 10.0


def held_out_rmsd(
    model: "LatentModel", z: "Tensor", packed_nm: np.ndarray, true_nm: np.ndarray, reference_nm: np.ndarray
) -> np.ndarray:
    """Root mean squared distance (k,) in Å of decoded structures to true ones (k, n, 3), best superposed.

    `z` (k, d) are the latents of the true frames and `packed_nm` (k, pairs) the distances decoded from them: a model
    that decodes nothing else gives structures by multidimensional scaling, of the hand that lies nearer to
    `reference_nm` (n, 3), a structure of the training.
    """
    import torch

    with torch.no_grad():
        decoded = model.decode_coordinates(z)
    found = from_distances(packed_nm, reference_nm) if decoded is None else decoded.numpy()
    return rmsd(found, true_nm) * ANGSTROM_PER_NM


def from_distances(packed_nm: np.ndarray, reference_nm: np.ndarray) -> np.ndarray:
    """Structures (k, n, 3) in nm from packed distances (k, n (n − 1) / 2) by classical multidimensional scaling.

    The three leading eigenvectors of −½ J D² J (Torgerson 1952, doi:10.1007/BF02288916); time grows with n³ per frame.
    Distances do not tell a structure from its mirror image: the one nearer to the reference is taken.
    """
    n = len(reference_nm)
    i, j = np.triu_indices(n, 1)
    squared = np.zeros((len(packed_nm), n, n))
    squared[:, i, j] = squared[:, j, i] = packed_nm.astype(np.float64) ** 2
    squared -= squared.mean(1, keepdims=True)
    squared -= squared.mean(2, keepdims=True)
    values, vectors = np.linalg.eigh(-0.5 * squared)
    structures = vectors[:, :, -3:] * np.sqrt(np.maximum(values[:, -3:], 0))[:, None]
    mirrored = structures * [1, 1, -1]
    reference = np.broadcast_to(reference_nm, structures.shape)
    nearer = rmsd(mirrored, reference) < rmsd(structures, reference)
    return np.where(nearer[:, None, None], mirrored, structures)


def rmsd(one: np.ndarray, two: np.ndarray) -> np.ndarray:
    """Root mean squared distance (k,) between the structures of two arrays (k, n, 3), each pair best superposed.

    A rotation, never a mirror image (Kabsch 1976, doi:10.1107/S0567739476001873), by the singular values of the
    covariance alone.
    """
    x, y = (some - some.mean(1, keepdims=True) for some in (one.astype(np.float64), two.astype(np.float64)))
    covariance = np.einsum("kai,kaj->kij", x, y)
    values = np.linalg.svd(covariance, compute_uv=False)
    values[:, 2] *= np.sign(np.linalg.det(covariance))
    squared = (x**2).sum((1, 2)) + (y**2).sum((1, 2)) - 2 * values.sum(1)
    return np.sqrt(np.maximum(squared, 0) / one.shape[1])


def mean_structure(frames_nm: np.ndarray) -> np.ndarray:
    """Mean (n, 3) of frames (k, n, 3) superposed on the first and once more on their mean."""
    centred = frames_nm.astype(np.float64) - frames_nm.mean(1, keepdims=True, dtype=np.float64)
    reference = centred[0]
    for _ in range(2):
        u, _, vt = np.linalg.svd(np.einsum("kai,aj->kij", centred, reference))
        u[:, :, 2] *= np.sign(np.linalg.det(u @ vt))[:, None]
        reference = (centred @ (u @ vt)).mean(0)
    return reference
