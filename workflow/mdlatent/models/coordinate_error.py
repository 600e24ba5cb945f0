"""How far decoded structures are from the true ones: what `coordinate` is trained on, and what its embeddings state."""

from __future__ import annotations

import torch
from torch import Tensor

from mdlatent import coordinate_sizes as sizes
from mdlatent.alignment import align, centred
from mdlatent.models.pair_features import shifted_distances

__all__ = ["rms_of_pairs_nm", "superposed_squares"]

BLOCK_BYTES = 100_000_000  # of the distances of a block of atoms


def superposed_squares(decoded: Tensor, target: Tensor, distance_weight: float) -> Tensor:
    """Squared errors (B,) in nm² of structures (B, N, 3) in nm, with the gradient of `decoded`.

    The mean over atoms of the squared error after superposition, + `distance_weight` × the mean squared error of the
    pair distances of `coordinate_sizes.loss_shifts`. Memory grows with N log₂ N.
    """
    moved = centred(decoded)
    onto = align(target, moved.detach())  # at the best rotation the error does not change with it to first order
    error = 3 * (moved - onto).square().flatten(1).mean(1)
    if distance_weight:
        shifts = sizes.loss_shifts(decoded.shape[1])
        difference = shifted_distances(moved, shifts) - shifted_distances(onto, shifts)
        error = error + distance_weight * difference.square().mean(1)
    return error


def rms_of_pairs_nm(decoded: Tensor, true: Tensor) -> Tensor:
    """`pair_error.rms_nm` on any device, for frames (B, N, 3) in nm: (B,) float64 nm, a block of atoms at a time."""
    n = true.shape[1]
    size = max(1, min(BLOCK_BYTES // (16 * len(true) * n), -(-n // 8)))
    total = true.new_zeros(len(true), dtype=torch.float64)
    for start in range(0, n, size):
        stop = min(start + size, n)
        squares = (_block(decoded, start, stop) - _block(true, start, stop)).square().sum(1, dtype=torch.float64)
        total += squares[:, : stop - start].sum(1) / 2 + squares[:, stop - start :].sum(1)
    return (total / (n * (n - 1) / 2)).sqrt()


def _block(coordinates: Tensor, start: int, stop: int) -> Tensor:
    """Distances (B, stop − start, N − start) of some atoms to themselves and to all that follow."""
    return torch.cdist(coordinates[:, start:stop], coordinates[:, start:], compute_mode="donot_use_mm_for_euclid_dist")
