"""Batch norm whose running statistics are those of whole batches, however many processes or pieces share them.

Ioffe & Szegedy 2015 (arXiv 1502.03167). In training, values are normalised with mean and variance of the frames at
hand: the share of one process, or the piece of it that fits the memory. For use afterwards, running mean and running
mean square are kept, and they are updated once a step (`settle`) from sums over all pieces and all processes, each
frame counting once. So every process holds the same buffers, bit for bit, after every step; a checkpoint needs those of
process 0 only; and what a model maps depends neither on the other frames beside it nor on how they were shared out.

With the mean square instead of the variance, the spread between batches counts too: a batch of one frame, which has no
variance where the sequence has length 1, neither fails nor spoils the statistics.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

__all__ = ["BatchNorm", "settle"]

MOMENTUM = 0.1  # weight of a new batch, once ten have been seen; before, all count alike
EPSILON = 1e-3  # a channel that hardly varies must not be blown up: by 32 at most, not by the usual 316


class BatchNorm(nn.Module):
    """Normalises each channel of (B, channels, length) over frames and positions, then scales and shifts it."""

    running_mean: Tensor
    running_square: Tensor
    n_steps: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        # float64, since the variance is the difference of two of them
        self.register_buffer("running_mean", torch.zeros(channels, dtype=torch.float64))
        self.register_buffer("running_square", torch.ones(channels, dtype=torch.float64))
        self.register_buffer("n_steps", torch.zeros((), dtype=torch.int64))
        self.pending: Tensor | None = None  # frames, their sums of means (C), of mean squares (C): since `settle`

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, L) → the same."""
        if not self.training:
            mean = self.running_mean
            scale = self.weight.double() / (self.running_square - mean.square()).clamp(min=0).add(EPSILON).sqrt()
            return torch.addcmul((self.bias - mean * scale).float()[:, None], x, scale.float()[:, None])
        # Not `batch_norm`, which refuses a single value per channel and keeps its statistics to itself.
        out, mean, inverse = torch.native_batch_norm(x, self.weight, self.bias, None, None, True, 0.0, EPSILON)
        with torch.no_grad():
            mean = mean.double()
            square = mean.square() + (inverse.double() ** -2 - EPSILON).clamp(min=0)
            added = torch.cat([mean.new_ones(1), mean, square]) * len(x)
            self.pending = added if self.pending is None else self.pending + added
        return out


@torch.no_grad()
def settle(norms: Iterable[BatchNorm], add_up: Callable[[Tensor], Tensor]) -> None:
    """Update running statistics with those of the batch just done; `add_up` sums a tensor over the processes.

    A process that had no frame of the batch takes part with zeros.
    """
    norms = list(norms)
    nothing = [norm.running_mean.new_zeros(1 + 2 * len(norm.running_mean)) for norm in norms]
    sums = [zeros if norm.pending is None else norm.pending for norm, zeros in zip(norms, nothing, strict=True)]
    for norm, total in zip(norms, add_up(torch.cat(sums)).split([len(one) for one in sums]), strict=True):
        norm.pending = None
        seen = total[0] > 0  # left as a tensor: to ask for it would wait for the GPU
        mean, square = (total[1:] / total[0].clamp(min=1)).chunk(2)
        norm.n_steps += seen
        weight = (1 / norm.n_steps.double().clamp(min=1)).clamp(min=MOMENTUM) * seen
        norm.running_mean.lerp_(mean, weight)
        norm.running_square.lerp_(square, weight)
