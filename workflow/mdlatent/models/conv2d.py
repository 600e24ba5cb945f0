"""Variational autoencoder with 2-D convolutions on distance matrices.

A frame's matrix D (n × n) is one image with one channel, divided by a scale so that it lies in 0…1. The encoder
halves it twice by strided convolutions and ends in one dense layer that gives mean and log-variance; the decoder
mirrors it with transposed convolutions and a sigmoid. Every convolution but the last is followed by SELU and a layer
norm with one weight per channel and matrix element, so that parameters and memory grow with n²: for n = 1068 and 50
dimensions 408,355,237 parameters, 99.98 % of them in the dense layers and these norms.

Loss of a batch: mean over frames and pairs of the squared error of the scaled distances, plus
β × (Kullback-Leibler divergence from the unit normal in nats, summed over dimensions, mean over frames). Both are
means, so the weight of β depends neither on the batch size nor on n.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from mdlatent import distances
from mdlatent.models.base import LatentModel

if TYPE_CHECKING:
    from mdlatent.frames import FrameStore

__all__ = ["Conv2dVAE"]

# The scale is this much above the largest distance seen in training: a sigmoid reaches 1 only in the limit, and
# frames seen later may be more extended.
SCALE_MARGIN = 1.25
FULL_RATE_INPUTS = 1024  # inputs of the encoder's dense layer up to which it learns at the full rate
SCALE_FRAMES = 2000  # frames, evenly spaced, among which the largest distance is looked for


class ChannelsLast(nn.Module):
    """Same values, channels innermost in memory: the two convolutions it precedes run up to 4 × faster on a CPU."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → the same."""
        return x.contiguous(memory_format=torch.channels_last)


class Conv2dVAE(LatentModel):
    """Convolutional variational autoencoder on the distance matrices of `n_atoms` ≥ 3 atoms."""

    family = "conv2d"
    fitted = "gradient"

    def __init__(self, n_atoms: int, latent_dim: int) -> None:
        super().__init__(n_atoms, latent_dim)
        n, half = n_atoms, (n_atoms + 1) // 2
        quarter = (half + 1) // 2
        self.encoder = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1),
            nn.SELU(inplace=True),
            nn.LayerNorm((8, n, n)),
            ChannelsLast(),
            nn.Conv2d(8, 16, 3, stride=2, padding=1),  # n → ceil(n / 2)
            nn.SELU(inplace=True),
            nn.LayerNorm((16, half, half)),
            nn.Conv2d(16, 32, 3, stride=2, padding=1),  # → ceil(n / 4)
            nn.SELU(inplace=True),
            nn.LayerNorm((32, quarter, quarter)),
            nn.Flatten(),
            nn.Linear(32 * quarter**2, 2 * latent_dim),
        )
        # A transposed convolution gives 2·in − 1 + output_padding: one more where the size to reach is even.
        self.decoder = nn.Sequential(
            nn.Linear(latent_dim, 32 * quarter**2),
            nn.SELU(inplace=True),
            nn.Unflatten(1, (32, quarter, quarter)),
            nn.LayerNorm((32, quarter, quarter)),
            nn.ConvTranspose2d(32, 16, 3, stride=2, padding=1, output_padding=1 - half % 2),
            nn.SELU(inplace=True),
            nn.LayerNorm((16, half, half)),
            nn.ConvTranspose2d(16, 8, 3, stride=2, padding=1, output_padding=1 - n % 2),
            nn.SELU(inplace=True),
            nn.LayerNorm((8, n, n)),
            ChannelsLast(),
            nn.ConvTranspose2d(8, 1, 3, padding=1),
            nn.Sigmoid(),
        )
        self.scale_nm: Tensor
        self.register_buffer("scale_nm", torch.ones(()))

    @property
    def bytes_per_frame(self) -> int:
        """Kept for the gradient: 56 values per matrix element in the layers, and some in the matrices themselves."""
        return 4 * 66 * self.n_atoms**2

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

    def prepare(self, store: FrameStore, rows: np.ndarray) -> None:
        """Find the scale from the training frames."""
        from mdlatent.feed import iterate_rows

        some = rows[:: -(-len(rows) // SCALE_FRAMES)]
        largest_nm = max(float(distances.packed(frames).max()) for frames in iterate_rows(store, some, chunk=64))
        self.scale_nm.fill_(SCALE_MARGIN * largest_nm)

    def encode(self, coordinates: Tensor) -> tuple[Tensor, Tensor]:
        """Coordinates (B, N, 3) in nm → mean and log-variance of the posterior, each (B, d)."""
        return self._encode_matrices(self._matrices(coordinates))

    def decode(self, z: Tensor) -> Tensor:
        """Latent (B, d) → pair distances (B, N(N−1)/2) in nm."""
        i, j = torch.triu_indices(self.n_atoms, self.n_atoms, 1, device=z.device)
        return self._decode_matrices(z)[:, i, j] * self.scale_nm

    def loss(self, coordinates: Tensor, beta: float, noise: Tensor | None) -> dict[str, Tensor]:
        """Loss of a batch, see the head of this file."""
        matrices = self._matrices(coordinates)  # (B, n, n)
        mean, log_variance = self._encode_matrices(matrices)
        z = mean if noise is None else mean + torch.exp(0.5 * log_variance) * noise
        error = self._decode_matrices(z) - matrices
        # Pairs stand twice in the matrix and the diagonal counts as zero: this is the mean over the pairs.
        error.diagonal(dim1=1, dim2=2).zero_()
        reconstruction = error.square().sum() / (len(matrices) * 2 * self.n_pairs)
        kl_nats = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1).mean()
        return {
            "loss": reconstruction + beta * kl_nats,
            "reconstruction": reconstruction,
            "kl_nats": kl_nats,
            "mean": mean.detach(),
        }

    def _matrices(self, coordinates: Tensor) -> Tensor:
        """Scaled distance matrices (B, n, n)."""
        return distances.full_torch(coordinates) / self.scale_nm

    def _encode_matrices(self, matrices: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_variance = self.encoder(matrices[:, None]).chunk(2, dim=1)
        return mean, log_variance

    def _decode_matrices(self, z: Tensor) -> Tensor:
        """Symmetric scaled matrices (B, n, n); the diagonal means nothing."""
        image = self.decoder(z)[:, 0]
        return 0.5 * (image + image.transpose(1, 2))
