"""How much of the slow motion a latent keeps: the VAMP-2 score, differentiable.

With x of the frames and y of those one lag later, centred, and C₀₀, C₁₁, C₀₁ their covariances, the score is

    ‖C₀₀^(−1/2) C₀₁ C₁₁^(−1/2)‖² = tr(C₀₀⁻¹ C₀₁ C₁₁⁻¹ C₀₁ᵀ),

the sum of the squared singular values of the best linear model of the dynamics, here without the constant function (Wu
& Noé 2020, doi 10.1007/s00332-019-09567-y; as a loss: Mardt et al. 2018, doi 10.1038/s41467-017-02388-1). It is at most
the number of dimensions.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["vamp2"]

RIDGE = 1e-3  # of the mean variance, added to C₀₀ and C₁₁: few frames leave some direction without any


def vamp2(now: Tensor, later: Tensor) -> Tensor:
    """VAMP-2 score of the pairs `now`, `later`, (B, d) each, as a scalar; 0 for fewer than d + 2 pairs."""
    n, d = now.shape
    if n < d + 2:
        return 0.0 * (now.sum() + later.sum())
    x, y = (values - values.mean(0) for values in (now, later))
    unit = torch.eye(d, dtype=now.dtype, device=now.device)
    c00, c11 = (v.T @ v / n for v in (x, y))
    c00, c11 = (c + (RIDGE * c.diagonal().mean() + 1e-12) * unit for c in (c00, c11))
    c01 = x.T @ y / n
    return torch.trace(torch.linalg.solve(c00, c01) @ torch.linalg.solve(c11, c01.T))
