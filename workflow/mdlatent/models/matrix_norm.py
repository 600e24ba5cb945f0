"""Layer norm over channels and matrix, with one weight and bias for each element."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["MatrixNorm", "split_norm"]

BY_ONE_BLOCK = 2**15  # elements of a frame that one block of a GPU's threads goes through fast enough


class MatrixNorm(nn.LayerNorm):
    """Norm of (B, C, H, W) over all but frames.

    Weights are kept as (H, W, C), the order in memory of channels innermost, which is that of the convolutions on a
    CPU: there nothing is copied, and what stands between two convolutions stays in that order. On a GPU convolutions
    are faster with channels outermost, and so are norms then.
    """

    def __init__(self, channels: int, side: int) -> None:
        super().__init__((side, side, channels))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → the same."""
        if not x.is_cuda:
            return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        weight, bias = (one.permute(2, 0, 1).contiguous() for one in (self.weight, self.bias))
        if weight.numel() <= BY_ONE_BLOCK:
            return nn.functional.layer_norm(x, weight.shape, weight, bias, self.eps)
        with torch.autocast("cuda", enabled=False):
            return split_norm(x.float(), weight, bias, self.eps)


def split_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """As `layer_norm` of (B, C, H, W) over (C, H, W), by sums that many blocks of a GPU's threads share.

    `layer_norm` gives each frame to one block: with 32 large frames most of the GPU is idle.
    """
    result: Tensor = _SplitNorm.apply(x, weight, bias, eps)
    return result


class _SplitNorm(torch.autograd.Function):
    """Keeps what `layer_norm` keeps: x, and two numbers for each frame."""

    @staticmethod
    def forward(context: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        variance, mean = torch.var_mean(x, dim=(1, 2, 3), keepdim=True, correction=0)
        scale = torch.rsqrt(variance + eps)
        context.save_for_backward(x, mean, scale, weight)
        return torch.addcmul(bias, (x - mean).mul_(scale), weight)

    @staticmethod
    def backward(context: Any, *slopes: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        x, mean, scale, weight = context.saved_tensors
        (slope,) = slopes
        normal = (x - mean).mul_(scale)
        of_weight, of_bias = (slope * normal).sum(0), slope.sum(0)
        weighted = slope * weight
        along = (weighted * normal).mean((1, 2, 3), keepdim=True)
        of_x = weighted.sub_(weighted.mean((1, 2, 3), keepdim=True)).sub_(normal.mul_(along)).mul_(scale)
        return of_x, of_weight, of_bias, None
