"""Bring a latent point nearer to the one from which a decoder comes closest to what it should give.

With c(z) the decoder, J its derivatives and r = c* − c(z) what is missing, a step of Gauss-Newton with Levenberg's
damping (doi 10.1090/qam/10666) is (JᵀJ + λ)⁻¹ Jᵀ r.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

__all__ = ["gauss_newton", "slopes"]


def gauss_newton(missing: Tensor, derivatives: Tensor, damping: Tensor, longest: float) -> Tensor:
    """Steps (B, d) for `missing` (B, k) and `derivatives` (B, k, d), each dimension at most `longest`."""
    turned = derivatives.transpose(1, 2)
    unit = torch.eye(derivatives.shape[2], dtype=missing.dtype, device=missing.device)
    step = torch.linalg.solve(turned @ derivatives + damping * unit, turned @ missing[:, :, None])[:, :, 0]
    return step.clamp(-longest, longest)


def slopes(layers: Iterable[nn.Module], z: Tensor) -> Tensor:
    """Derivatives (B, k, d) of a chain of linear layers and SiLU at z (B, d), carried forward through the layers."""
    values, result = z, torch.eye(z.shape[1], dtype=z.dtype, device=z.device)[None]  # (B, d, width)
    for layer in layers:
        if isinstance(layer, nn.Linear):
            result = result @ layer.weight.T
        else:
            gate = torch.sigmoid(values)
            result = result * (gate * (1 + values * (1 - gate)))[:, None]
        values = layer(values)
    return result.transpose(1, 2)
