"""From a point in the latent back to a structure: pair distances → coordinates.

Distances know neither place nor hand. Coordinates come from classical multidimensional scaling (Torgerson 1952,
doi:10.1007/BF02288916), for many atoms through landmarks (de Silva & Tenenbaum 2004), and are then refined until
their own distances deviate least from the given ones (stress majorisation with relaxed steps, SMACOF: de Leeuw &
Heiser 1980). The hand is that of a reference structure: of the two mirror images the one that fits better on it is
taken. The reference has to come from the training frames (`training_reference`), never from the frame that is being
reconstructed: that would give the answer away. Where a molecule is so flexible that both images fit the reference
about as well, the hand is uncertain; distances alone cannot tell.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from mdlatent.alignment import align, kabsch_rmsd_nm

if TYPE_CHECKING:
    from mdlatent.frames import FrameStore
    from mdlatent.models.base import LatentModel

__all__ = ["align", "from_distances", "kabsch_rmsd_nm", "reconstruct", "training_reference"]

CHUNK_BYTES = 200_000_000  # of matrices (n, n) at a time
ALL_ATOMS = 300  # up to so many, the decomposition takes all atoms; beyond, landmarks
N_LANDMARKS = 200
REFINE_STEPS = 200
TOLERANCE = 1e-5  # a structure is done when a step changes its stress by less than this fraction of it
FLOOR = 1e-12  # or when the stress is below this fraction of the sum of squared distances: rounding
REFERENCE_FRAMES = 500


@torch.no_grad()
def reconstruct(model: LatentModel, z: Tensor, reference_nm: Tensor | np.ndarray) -> Tensor:
    """Latent (B, d) → coordinates (B, N, 3) float64 nm, superposed on the reference (N, 3).

    Models that decode to coordinates give them; of others the decoded distances are turned into coordinates. See the
    head of this file for what the reference may be.
    """
    reference = torch.as_tensor(reference_nm).double().cpu()
    pieces = []
    for piece in z.split(model.frames_at_once):
        coordinates = model.decode_coordinates(piece)
        if coordinates is None:
            pieces.append(from_distances(model.decode(piece).cpu(), reference))
        else:
            pieces.append(align(coordinates.cpu().double(), reference))
    return torch.cat(pieces) if pieces else torch.empty(0, *reference.shape, dtype=torch.float64)


@torch.no_grad()
def from_distances(
    distances_nm: Tensor | np.ndarray, reference_nm: Tensor | np.ndarray, refine_steps: int = REFINE_STEPS
) -> Tensor:
    """Packed pair distances (B, N(N−1)/2) in nm → coordinates (B, N, 3) float64 nm, superposed on the reference (N, 3).

    The distances need not be those of any structure; negative ones count as zero. Each frame's result does not depend
    on the frames beside it. Takes memory for about 200 MB of matrices at a time, or one frame; time grows with N²
    times the steps, at most `refine_steps` (0: none, plain scaling).
    """
    packed, reference = torch.as_tensor(distances_nm), torch.as_tensor(reference_nm).double()
    n = len(reference)
    if packed.shape[1:] != (n * (n - 1) // 2,):
        raise ValueError(f"got distances {tuple(packed.shape)}, expected (frames, {n * (n - 1) // 2}) for {n} atoms")
    i, j = torch.triu_indices(n, n, 1)
    out = torch.empty(len(packed), n, 3, dtype=torch.float64)
    chunk = max(1, CHUNK_BYTES // (8 * 4 * n * n))
    for start in range(0, len(packed), chunk):
        piece = packed[start : start + chunk].double().clamp(min=0)
        target = torch.zeros(len(piece), n, n, dtype=torch.float64)
        target[:, i, j] = piece
        target[:, j, i] = piece
        scaled = _refined(_scaled(target), target, refine_steps)
        out[start : start + chunk] = _right_hand(scaled, reference)
    return out


def training_reference(store: FrameStore, rows: np.ndarray) -> np.ndarray:
    """A structure that stands for the training frames `rows`: (N, 3) float64 nm, its centre at the origin.

    The one nearest to the mean structure, of at most 500 evenly spaced among them: a real structure, where the mean
    itself of a flexible molecule is shrunk.
    """
    from mdlatent.alignment import procrustes_mean
    from mdlatent.feed import read_rows

    some = rows[np.linspace(0, len(rows) - 1, min(len(rows), REFERENCE_FRAMES)).round().astype(np.int64)]
    mean = procrustes_mean(store, some)
    frames = read_rows(store, some).astype(np.float64)
    chosen = frames[int(kabsch_rmsd_nm(frames, mean).argmin())]
    return chosen - chosen.mean(0)


def _right_hand(coordinates: Tensor, reference: Tensor) -> Tensor:
    """Each structure or its mirror image, whichever fits better on the reference, superposed on it."""
    one, other = align(coordinates, reference), align(-coordinates, reference)
    first = (one - reference).square().sum((1, 2)) <= (other - reference).square().sum((1, 2))
    return torch.where(first[:, None, None], one, other)


def _scaled(target: Tensor) -> Tensor:
    """Classical scaling of the matrices (B, n, n): coordinates (B, n, 3).

    With landmarks k, their coordinates X and the squared distances δ² to them, any atom is at
    X⁺ᵀ (mean over the landmarks' δ² − δ²) / 2, which for the landmarks themselves gives X.
    """
    n = target.shape[-1]
    landmarks = torch.arange(n) if n <= ALL_ATOMS else torch.linspace(0, n - 1, N_LANDMARKS).round().long()
    squared = target[:, landmarks].square()  # (B, k, n)
    own = squared[:, :, landmarks]
    mean = own.mean(2)  # of each landmark to all
    gram = -0.5 * (own - mean[:, None] - mean[:, :, None] + mean.mean(1)[:, None, None])
    values, vectors = torch.linalg.eigh(gram)
    values, vectors = values[:, -3:].flip(1), vectors[:, :, -3:].flip(2)  # (B, 3), (B, k, 3)
    real = values > 1e-10 * values[:, :1].clamp(min=1e-30)  # flat molecules have less than three
    inverse_root = torch.where(real, values.clamp(min=1e-300).rsqrt(), torch.zeros_like(values))
    return 0.5 * (mean[:, :, None] - squared).transpose(1, 2) @ (vectors * inverse_root[:, None])


def _refined(coordinates: Tensor, target: Tensor, steps: int) -> Tensor:
    """Coordinates (B, n, 3) whose distances deviate less from the matrices (B, n, n): sum of squares at a minimum.

    The Guttman transform G moves every atom to the mean of the places at which the others want it; a relaxed step
    goes twice as far, X ← 2 G(X) − X, which about halves the number of steps. The last one is a plain one.
    """
    n = coordinates.shape[1]
    coordinates = coordinates.clone()
    floor = FLOOR * target.square().sum((1, 2))
    before = torch.full((len(target),), torch.inf, dtype=target.dtype)
    left = torch.arange(len(target))  # structures that are not done
    for _ in range(steps):
        X, wanted = coordinates[left], target[left] if len(left) < len(target) else target
        own = torch.cdist(X, X, compute_mode="donot_use_mm_for_euclid_dist")
        stress = (own - wanted).square().sum((1, 2))
        ratio = torch.where(own > 0, wanted / own.clamp(min=1e-12), torch.zeros_like(own))
        moved = (ratio.sum(2, keepdim=True) * X - ratio @ X) / n
        done = ((before[left] - stress).abs() <= TOLERANCE * stress) | (stress <= floor[left])
        coordinates[left] = torch.where(done[:, None, None], moved, 2 * moved - X)
        before[left] = stress
        left = left[~done]
        if not len(left):
            return coordinates
    return coordinates
