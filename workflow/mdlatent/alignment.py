"""Least-squares superposition of structures: batched, in double precision, with proper rotations only.

With H = Σ aᵀ b over the atoms (rows), both centred, the rotation R that makes a R fit best on b (Kabsch 1976,
doi:10.1107/S0567739476001873) is the largest eigenvector of a symmetric 4 × 4 matrix made of H, read as a unit
quaternion (Horn 1987, doi:10.1364/JOSAA.4.000629): never a reflection. Where the best rotation is not unique (atoms on
a line, a structure against its mirror image) one of the best is given.
"""

from __future__ import annotations

import logging
import re
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from mdlatent.small_matrices import leading_eigenvector, solution

if TYPE_CHECKING:
    from mdlatent.frames import FrameStore

__all__ = ["align", "centred", "kabsch_rmsd_nm", "procrustes_mean", "rotations"]

log = logging.getLogger("mdlatent")

MAX_PASSES = 30
TOLERANCE_NM = 1e-6  # change of the mean structure from one pass over the frames to the next
CHUNK_BYTES = 50_000_000
RIDGE = 1e-7  # relative; keeps the gradient finite where the rotation is not defined (atoms on a line)


def centred(coordinates: Tensor) -> Tensor:
    """Structures (B, N, 3) moved so that the mean of their atoms is the origin."""
    return coordinates - coordinates.mean(1, keepdim=True)


def rotations(moved: Tensor, target: Tensor) -> Tensor:
    """Rotations (B, 3, 3) float64 that make `moved` (B, N, 3) fit best on `target` (B, N, 3), both centred before.

    Differentiable: with R₀ taken from the eigenvector as a constant, R = R₀ (1 + [w]) where the vector w solves
    (tr S − S) w = axial(R₀ᵀH − HᵀR₀) and S = R₀ᵀH. There w is zero, but its derivative is that of the best rotation;
    unlike that of the decomposition it stays finite when singular values coincide. Coordinates that are not finite
    give some rotation and no error.
    """
    H = torch.nan_to_num(moved.transpose(-1, -2).double() @ target.double(), 0.0, 0.0, 0.0)
    fixed = H.detach()
    to_matrix, to_rotation = _tables(str(H.device))
    quaternion = leading_eigenvector((fixed.flatten(1) @ to_matrix).view(-1, 4, 4))
    R = ((quaternion[:, :, None] * quaternion[:, None]).flatten(1) @ to_rotation).view(-1, 3, 3)
    if not H.requires_grad and not torch.jit.is_tracing():
        return R
    S = R.transpose(-1, -2) @ fixed
    identity = torch.eye(3, dtype=S.dtype, device=S.device)
    trace = S.diagonal(dim1=-2, dim2=-1).sum(-1)[..., None, None]
    turned = R.transpose(-1, -2) @ H
    A = turned - turned.transpose(-1, -2)
    axial = torch.stack([A[..., 2, 1], A[..., 0, 2], A[..., 1, 0]], -1)
    stiffness = trace * identity - S + (RIDGE * trace.abs() + 1e-30) * identity
    w = solution(stiffness, axial)
    x, y, z = w.unbind(-1)
    zero = torch.zeros_like(x)
    W = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).reshape(*w.shape[:-1], 3, 3)
    return R @ (identity + W)


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


def align(moved: Tensor, target: Tensor) -> Tensor:
    """`moved` (B, N, 3) turned and shifted so that each structure fits best on `target` ((B, N, 3) or (N, 3)).

    Same unit and dtype as `moved`; differentiable with respect to `moved`.
    """
    target = target.expand_as(moved)
    centre = target.mean(-2, keepdim=True)
    moved = moved - moved.mean(-2, keepdim=True)
    return moved @ rotations(moved, target - centre).to(moved.dtype) + centre


def kabsch_rmsd_nm(a: Tensor | np.ndarray, b: Tensor | np.ndarray) -> Tensor:
    """Root mean square distance of the atoms after superposition: (B, N, 3) on (B, N, 3) or (N, 3), nm → (B,) nm.

    Float64. All atoms weigh the same; a mirror image is not fitted.
    """
    moved, target = torch.as_tensor(a).double(), torch.as_tensor(b).double()
    return (align(moved, target) - target).square().sum(-1).mean(-1).sqrt()


def procrustes_mean(store: FrameStore, rows: np.ndarray) -> np.ndarray:
    """Mean structure (N, 3) float64 nm of the frames `rows`, each superposed on that mean; its centre is the origin.

    Generalised Procrustes analysis (Gower 1975, doi:10.1007/BF02291478): from the first frame on, all frames are
    superposed on the mean so far and averaged, until it stands still to 1e-6 nm. One pass over the frames each;
    memory does not grow with their number.
    """
    from mdlatent.feed import iterate_rows

    chunk = max(1, CHUNK_BYTES // (8 * 3 * store.n_atoms))
    first = torch.from_numpy(next(iterate_rows(store, rows[:1], 1))[0]).double()
    mean = first - first.mean(0)
    for number in range(1, MAX_PASSES + 1):
        total = torch.zeros(store.n_atoms, 3, dtype=torch.float64)
        for frames in iterate_rows(store, rows, min(chunk, 4096)):
            total += align(torch.from_numpy(frames).double(), mean).sum(0)
        new = total / len(rows)
        change_nm = float((new - mean).square().sum(1).mean().sqrt())
        mean = new
        if change_nm <= TOLERANCE_NM:
            log.info("mean structure after %d passes over the frames", number)
            break
    else:
        log.warning("the mean structure still changes by %.1e nm after %d passes", change_nm, MAX_PASSES)
    return mean.numpy()
