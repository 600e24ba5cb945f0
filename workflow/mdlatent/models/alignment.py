"""Optimal superposition of structures (Kabsch), by quaternions, in torch.

The rotation that brings a onto b in the least-squares sense is the largest eigenvector of a symmetric 4 × 4 matrix made
of aᵀb, read as a unit quaternion (Horn 1987, doi 10.1364/JOSAA.4.000629). It is always a rotation, never a reflection.
Where the best rotation is not unique (atoms on a line, a structure against its mirror image) one of the best is given.

Nothing here is differentiated: at the optimum the error does not change with the rotation to first order, so that its
gradient is right with the rotation held fixed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import cache

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
    products = (moving.transpose(1, 2) @ fixed).double().flatten(1)
    products = torch.nan_to_num(products, 0.0, 0.0, 0.0)  # coordinates that are no numbers are seen in the loss
    to_matrix, to_rotation = _tables(str(moving.device))
    quaternion = torch.linalg.eigh((products @ to_matrix).view(-1, 4, 4))[1][:, :, -1]
    squares = (quaternion[:, :, None] * quaternion[:, None]).flatten(1)
    return (squares @ to_rotation).view(-1, 3, 3).to(moving.dtype)


@cache
def _tables(device: str) -> tuple[Tensor, Tensor]:
    """Linear maps: aᵀb (9) → Horn's matrix (16); products of the quaternion's components (16) → rotation (9).

    With w, x, y, z the components 0 to 3, and a rotation that acts on rows from the right.
    """
    horn = (
        ("xx+yy+zz", "yz-zy", "zx-xz", "xy-yx"),
        ("yz-zy", "xx-yy-zz", "xy+yx", "zx+xz"),
        ("zx-xz", "xy+yx", "yy-xx-zz", "yz+zy"),
        ("xy-yx", "zx+xz", "yz+zy", "zz-xx-yy"),
    )
    rotation = (
        ("ww+xx-yy-zz", "xy+wz+xy+wz", "xz-wy+xz-wy"),
        ("xy-wz+xy-wz", "ww-xx+yy-zz", "yz+wx+yz+wx"),
        ("xz+wy+xz+wy", "yz-wx+yz-wx", "ww-xx-yy+zz"),
    )

    def table(entries: tuple[tuple[str, ...], ...], letters: str) -> Tensor:
        result = torch.zeros(len(letters) ** 2, sum(map(len, entries)), dtype=torch.float64)
        for column, text in enumerate(entry for row in entries for entry in row):
            for sign, a, b in re.findall(r"([+-]?)(\w)(\w)", text):
                result[letters.index(a) * len(letters) + letters.index(b), column] += -1.0 if sign == "-" else 1.0
        return result.to(device)

    return table(horn, "xyz"), table(rotation, "wxyz")


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
