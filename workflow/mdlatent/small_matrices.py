"""Eigenvectors and solutions of very many very small matrices, on a GPU by products alone.

LAPACK's counterparts on a GPU report mistakes to the CPU, which waits for them at every call; and a step that waits
cannot be replayed (replay.py). Here nothing can go wrong but a matrix without the property that is asked for, and then
the numbers mean nothing.
"""

import torch
from torch import Tensor

__all__ = ["leading_eigenvector", "solution"]

SQUARINGS = 25  # the 3e7th power: eigenvalues that differ by 1e-6 of the largest are told apart
AT_ONCE = 5  # squarings before the numbers are scaled back, far from what float64 holds


def leading_eigenvector(matrices: Tensor) -> Tensor:
    """Of symmetric matrices (B, n, n) float64, unit eigenvectors (B, n) of their largest eigenvalues.

    Where that is not unique, one of its eigenvectors. On a GPU by repeated squaring of the matrix, shifted so that no
    eigenvalue is negative: what is left is the projector on them, and its largest column is one.
    """
    if not matrices.is_cuda:
        return torch.linalg.eigh(matrices)[1][:, :, -1]
    size = matrices.square().sum((1, 2), keepdim=True).sqrt()
    unit = torch.diag_embed(torch.ones_like(matrices[:, 0]))
    power = matrices + torch.where(size > 0, size, 1.0) * unit
    for number in range(SQUARINGS):
        if number % AT_ONCE == 0:
            power = power / power.amax((1, 2), keepdim=True)  # of such a matrix the largest is on the diagonal
        power = power @ power
    power = power / power.amax((1, 2), keepdim=True)
    largest = power.diagonal(dim1=1, dim2=2).argmax(1)
    column = power.gather(2, largest[:, None, None].expand(-1, power.shape[1], 1))[..., 0]
    return column / column.square().sum(1, keepdim=True).sqrt()


def solution(matrices: Tensor, right: Tensor) -> Tensor:
    """x (B, 3) of A x = b for A (B, 3, 3), of which no gradient is taken, and b (B, 3); on a GPU by cofactors."""
    if not matrices.is_cuda:
        return torch.linalg.solve(matrices, right[..., None])[..., 0]
    a, b, c = matrices.unbind(-2)
    cofactors = torch.stack([torch.linalg.cross(b, c), torch.linalg.cross(c, a), torch.linalg.cross(a, b)], -1)
    determinant = (a * cofactors[..., 0]).sum(-1)
    return (cofactors @ right[..., None])[..., 0] / determinant[..., None]
