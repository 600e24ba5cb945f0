"""Optimal superposition of structures (Kabsch), by quaternions, in torch.

The rotation that brings a onto b in the least-squares sense is the largest eigenvector of a symmetric 4 × 4 matrix made
of aᵀb, read as a unit quaternion (Horn 1987, doi 10.1364/JOSAA.4.000629). It is always a rotation, never a reflection.
Where the best rotation is not unique (atoms on a line, a structure against its mirror image) one of the best is given.

Nothing here is differentiated: at the optimum the error does not change with the rotation to first order, so that its
gradient is right with the rotation held fixed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import torch
from torch import Tensor

__all__ = ["centred", "mean_structure", "rotations", "superpose"]

ROUNDS = 5  # of refining the mean structure; frames turn by less than 1e-4 rad in the last ones


def centred(coordinates: Tensor) -> Tensor:
    """Structures (B, N, 3) moved so that the mean of their atoms is the origin."""
    return coordinates - coordinates.mean(1, keepdim=True)


@torch.no_grad()
def rotations(moving: Tensor, fixed: Tensor) -> Tensor:
    """Rotations R (B, 3, 3) that minimise |moving @ R − fixed|²; both (B, N, 3) and centred."""
    s = (moving.transpose(1, 2) @ fixed).double()
    xx, xy, xz, yx, yy, yz, zx, zy, zz = s.flatten(1).unbind(1)
    rows = (
        (xx + yy + zz, yz - zy, zx - xz, xy - yx),
        (yz - zy, xx - yy - zz, xy + yx, zx + xz),
        (zx - xz, xy + yx, yy - xx - zz, yz + zy),
        (xy - yx, zx + xz, yz + zy, zz - xx - yy),
    )
    matrix = torch.stack([torch.stack(row, 1) for row in rows], 1)
    matrix = torch.nan_to_num(matrix, 0.0, 0.0, 0.0)  # coordinates that are no numbers are seen in the loss
    w, x, y, z = torch.linalg.eigh(matrix)[1][:, :, -1].unbind(1)
    turned = (
        (w * w + x * x - y * y - z * z, 2 * (x * y + w * z), 2 * (x * z - w * y)),
        (2 * (x * y - w * z), w * w - x * x + y * y - z * z, 2 * (y * z + w * x)),
        (2 * (x * z + w * y), 2 * (y * z - w * x), w * w - x * x - y * y + z * z),
    )
    return torch.stack([torch.stack(row, 1) for row in turned], 1).to(moving.dtype)


def superpose(moving: Tensor, fixed: Tensor) -> Tensor:
    """Structures `moving` (B, N, 3) moved and turned onto `fixed` (B or 1, N, 3), which is centred."""
    moving = centred(moving)
    return moving @ rotations(moving, fixed.expand(len(moving), -1, -1))


def mean_structure(chunks: Callable[[], Iterable[np.ndarray]]) -> Tensor:
    """Mean of structures superposed on it: (N, 3) float32, centred; the first structure gives the orientation.

    `chunks` gives all structures, in pieces (k, N, 3), as often as it is called: once for each round.
    """
    mean: Tensor | None = None
    for _ in range(ROUNDS):
        total, count = torch.zeros(()), 0
        for chunk in chunks():
            frames = torch.from_numpy(chunk)
            reference = centred(frames[:1])[0] if mean is None and not count else mean
            if mean is None:
                mean = reference
            assert mean is not None
            total = total + superpose(frames, mean[None]).double().sum(0)
            count += len(chunk)
        mean = (total / count).float()
        mean = mean - mean.mean(0)
    assert mean is not None
    return mean
