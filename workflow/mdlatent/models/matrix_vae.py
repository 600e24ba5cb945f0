"""What variational autoencoders on distance matrices share, whatever their networks.

A frame's matrix D (n × n) is divided by a scale so that it lies in 0…1. Loss of a batch: mean over frames and pairs of
the squared error of the scaled distances, plus β × (Kullback-Leibler divergence from the unit normal in nats, summed
over dimensions, mean over frames; Kingma & Welling 2014, arXiv 1312.6114). Both are means, so the weight of β depends
neither on the batch size nor on n.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from mdlatent import distances
from mdlatent.models.base import LatentModel

if TYPE_CHECKING:
    from mdlatent.frames import FrameStore

__all__ = ["SCALE_MARGIN", "MatrixVAE"]

# The scale is this much above the largest distance seen in training: a sigmoid reaches 1 only in the limit, and
# frames seen later may be more extended.
SCALE_MARGIN = 1.25
SCALE_FRAMES = 2000  # frames, evenly spaced, among which the largest distance is looked for


class MatrixVAE(LatentModel):
    """A family gives `encoder`, matrices as `_to_input` shapes them → (B, 2 d), and `decoder`, (B, d) → the same shape
    with values in 0…1."""

    fitted = "gradient"
    encoder: nn.Sequential
    decoder: nn.Sequential
    scale_nm: Tensor

    def __init__(self, n_atoms: int, latent_dim: int) -> None:
        super().__init__(n_atoms, latent_dim)
        self.register_buffer("scale_nm", torch.ones(()))

    def _to_input(self, matrices: Tensor) -> Tensor:
        """Scaled matrices (B, n, n) as the encoder takes them."""
        return matrices

    def _to_matrices(self, output: Tensor) -> Tensor:
        """The reverse, for what the decoder gives."""
        return output

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

    def loss(self, coordinates: Tensor, beta: float | Tensor, noise: Tensor | None) -> dict[str, Tensor]:
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
        with self._rounding():
            output = self.encoder(self._to_input(matrices))
        mean, log_variance = output.float().chunk(2, dim=1)
        return mean, log_variance

    def _decode_matrices(self, z: Tensor) -> Tensor:
        """Symmetric scaled matrices (B, n, n); the diagonal means nothing."""
        with self._rounding():
            output = self.decoder(z)
        image = self._to_matrices(output).float()
        return 0.5 * (image + image.transpose(1, 2))

    def _rounding(self) -> contextlib.AbstractContextManager[None]:
        """Around the networks in training steps: `precision` (Micikevicius et al. 2018, arXiv 1710.03740)."""
        if self.training and self.precision == "bf16":
            return torch.autocast(self.scale_nm.device.type, torch.bfloat16)
        return contextlib.nullcontext()
