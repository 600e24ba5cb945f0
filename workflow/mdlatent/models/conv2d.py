"""Variational autoencoder with 2-D convolutions on distance matrices.

A frame's matrix (n × n) is one image with one channel; scale and loss are those of `matrix_vae`. The encoder halves it
twice by strided convolutions and ends in one dense layer that gives mean and log-variance; the decoder mirrors it with
transposed convolutions and a sigmoid. Every convolution but the last is followed by SELU and a layer norm with one
weight per channel and matrix element, so that parameters and memory grow with n²: for n = 1068 and 50 dimensions
408,355,237 parameters, 99.98 % of them in the dense layers and these norms.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from mdlatent import model_memory
from mdlatent.models.matrix_norm import MatrixNorm
from mdlatent.models.matrix_vae import MatrixVAE

__all__ = ["Conv2dVAE"]

FULL_RATE_INPUTS = 1024  # inputs of the encoder's dense layer up to which it learns at the full rate


class MemoryOrder(nn.Module):
    """Same values, channels innermost in memory on a CPU, where convolutions then run up to 4 × faster.

    On a GPU channels are outermost, where they run up to 1.4 × faster in float32.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → the same."""
        return x.contiguous(memory_format=torch.contiguous_format if x.is_cuda else torch.channels_last)


class Conv2dVAE(MatrixVAE):
    """Convolutional variational autoencoder on the distance matrices of `n_atoms` ≥ 3 atoms."""

    family = "conv2d"

    def __init__(self, n_atoms: int, latent_dim: int) -> None:
        super().__init__(n_atoms, latent_dim)
        n, half = n_atoms, (n_atoms + 1) // 2
        quarter = (half + 1) // 2
        self.encoder = nn.Sequential(
            MemoryOrder(),
            nn.Conv2d(1, 8, 3, padding=1),
            nn.SELU(inplace=True),
            MatrixNorm(8, n),
            nn.Conv2d(8, 16, 3, stride=2, padding=1),  # n → ceil(n / 2)
            nn.SELU(inplace=True),
            MatrixNorm(16, half),
            nn.Conv2d(16, 32, 3, stride=2, padding=1),  # → ceil(n / 4)
            nn.SELU(inplace=True),
            MatrixNorm(32, quarter),
            nn.Flatten(),
            nn.Linear(32 * quarter**2, 2 * latent_dim),
        )
        # A transposed convolution gives 2·in − 1 + output_padding: one more where the size to reach is even.
        self.decoder = nn.Sequential(
            nn.Linear(latent_dim, 32 * quarter**2),
            nn.SELU(inplace=True),
            nn.Unflatten(1, (32, quarter, quarter)),
            MemoryOrder(),
            MatrixNorm(32, quarter),
            nn.ConvTranspose2d(32, 16, 3, stride=2, padding=1, output_padding=1 - half % 2),
            nn.SELU(inplace=True),
            MatrixNorm(16, half),
            nn.ConvTranspose2d(16, 8, 3, stride=2, padding=1, output_padding=1 - n % 2),
            nn.SELU(inplace=True),
            MatrixNorm(8, n),
            nn.ConvTranspose2d(8, 1, 3, padding=1),
            nn.Sigmoid(),
        )

    @property
    def bytes_per_frame(self) -> int:
        """Kept for the gradient, see `model_memory`."""
        return model_memory.family("conv2d").bytes_per_frame(self.n_atoms, self.latent_dim, self.options)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """The dense layer of the encoder learns more slowly the more inputs it has.

        Adam changes every weight by about the learning rate, so the sum over its 2 n² inputs, of size 1 after the
        norm, changes by 2 n² times that, and the training of a large matrix would explode (see Yang et al. 2022,
        arXiv 2203.03466: rates of hidden layers go with 1 / inputs).
        """
        last = self.encoder[-1]
        assert isinstance(last, nn.Linear)
        dense = last.weight
        others = [parameter for parameter in self.parameters() if parameter is not dense]
        scale = min(1.0, FULL_RATE_INPUTS / dense.shape[1])
        return [{"params": others, "rate_scale": 1.0}, {"params": [dense], "rate_scale": scale}]

    def _to_input(self, matrices: Tensor) -> Tensor:
        return matrices[:, None]

    def _to_matrices(self, output: Tensor) -> Tensor:
        return output[:, 0]
