"""Fully convolutional residual variational autoencoder: a distance matrix as a sequence.

The matrix (n × n), scaled as in `matrix_vae`, is read as a sequence of n rows with n channels. A residual block has a
1×1 convolution on its skip path and, twice, batch norm → ReLU → convolution on its main path; both are added (He et al.
2016, arXiv 1603.05027). In the encoder a strided convolution (stride and kernel 2) behind each block halves the length,
rounded up, until it is 1; block k has round(filters · growthᵏ) filters. One last convolution over what length is left
gives mean and log-variance. The decoder spreads the latent by a transposed convolution over a length from which its
blocks, each followed by a transposed convolution with stride 2, double it to n; a 1×1 convolution and a sigmoid give
the rows.

With n = 1,200 atoms and 150 dimensions the encoder has 11 blocks: 11 × 3 convolutions, 11 strided ones, 1 last, 45 in
all. Of the published model of this kind the size is known, 111 million parameters, with 1,200 decoder filters, three
decoder blocks and 150 dimensions, but not the encoder's filters and growth: the defaults, a third of n and 1.09, are
fitted so that the whole comes to 110.8 million. The filters grow with n, and the parameters with n²: 20 atoms and 3
dimensions have 0.7 million.

Batch norm takes the statistics of the frames at hand, which are a process's share of the batch where several work
together; gradients then are those of a mean over shares that were each normalised by themselves. Running statistics
are those of the whole batch (`batch_norm`), the same bits in every process.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from mdlatent import model_memory
from mdlatent.models import batch_norm
from mdlatent.models.batch_norm import BatchNorm
from mdlatent.models.matrix_vae import MatrixVAE

__all__ = ["ResNet1dVAE"]

FULL_RATE_INPUTS = 256  # inputs of an output of a convolution up to which it learns at the full rate


class ResNet1dVAE(MatrixVAE):
    """Residual variational autoencoder with 1-D convolutions on the distance matrices of `n_atoms` ≥ 3 atoms.

    `encoder_filters` None means a third of n, at least 64; `decoder_filters` None means n, at least 128;
    `encoder_blocks` None means as many as halve the length to 1.
    """

    family = "resnet1d"

    def __init__(
        self,
        n_atoms: int,
        latent_dim: int,
        *,
        encoder_filters: int | None = None,
        encoder_growth: float = 1.09,
        encoder_blocks: int | None = None,
        encoder_kernel: int = 3,
        decoder_filters: int | None = None,
        decoder_blocks: int = 3,
        decoder_kernel: int = 3,
    ) -> None:
        super().__init__(n_atoms, latent_dim)
        self.options = {
            "encoder_filters": encoder_filters,
            "encoder_growth": encoder_growth,
            "encoder_blocks": encoder_blocks,
            "encoder_kernel": encoder_kernel,
            "decoder_filters": decoder_filters,
            "decoder_blocks": decoder_blocks,
            "decoder_kernel": decoder_kernel,
        }
        plan = model_memory.resnet1d_plan(n_atoms, self.options)
        layers: list[nn.Module] = []
        for channels, filters, length, halved in plan.encoder:
            layers.append(ResidualBlock(channels, filters, encoder_kernel))
            if halved < length:
                layers.append(Halve(filters))
        *_, (_, filters, _, length) = plan.encoder
        self.encoder = nn.Sequential(*layers, nn.Conv1d(filters, 2 * latent_dim, length), nn.Flatten())

        filters, lengths = plan.decoder_filters, plan.decoder_lengths
        layers = [nn.Unflatten(1, (latent_dim, 1)), nn.ConvTranspose1d(latent_dim, filters, lengths[0])]
        for length, doubled in itertools.pairwise(lengths):
            layers.append(ResidualBlock(filters, filters, decoder_kernel))
            if doubled > length:
                layers.append(Double(filters, doubled))
        self.decoder = nn.Sequential(
            *layers, BatchNorm(filters), nn.ReLU(inplace=True), nn.Conv1d(filters, n_atoms, 1), nn.Sigmoid()
        )

    @property
    def bytes_per_frame(self) -> int:
        """Kept for the gradient, see `model_memory`."""
        return model_memory.family("resnet1d").bytes_per_frame(self.n_atoms, self.latent_dim, self.options)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Convolutions learn more slowly the more inputs each of their outputs has, as in `conv2d`."""
        groups: dict[float, list[nn.Parameter]] = {}
        for module in self.modules():
            for name, parameter in module.named_parameters(recurse=False):
                scale = 1.0
                if name == "weight" and isinstance(module, nn.Conv1d):
                    scale = min(1.0, FULL_RATE_INPUTS / parameter[0].numel())
                elif name == "weight" and isinstance(module, nn.ConvTranspose1d):
                    scale = min(1.0, FULL_RATE_INPUTS / parameter.shape[0])
                groups.setdefault(scale, []).append(parameter)
        return [{"params": parameters, "rate_scale": scale} for scale, parameters in groups.items()]

    def settle(self, add_up: Callable[[Tensor], Tensor]) -> None:
        """Running statistics of the batch norms, from the batch just done."""
        batch_norm.settle((module for module in self.modules() if isinstance(module, BatchNorm)), add_up)


class ResidualBlock(nn.Module):
    """(B, channels, L) → (B, filters, L), see the head of this file."""

    def __init__(self, channels: int, filters: int, kernel: int) -> None:
        super().__init__()
        self.skip = nn.Conv1d(channels, filters, 1)
        self.main = nn.Sequential(
            BatchNorm(channels),
            nn.ReLU(inplace=True),
            nn.Conv1d(channels, filters, kernel, padding="same"),
            BatchNorm(filters),
            nn.ReLU(inplace=True),
            nn.Conv1d(filters, filters, kernel, padding="same"),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.skip(x) + self.main(x)


class Halve(nn.Module):
    """(B, C, L) → (B, C, ceil(L / 2)): a convolution with stride and kernel 2, a zero behind an odd length."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.convolution = nn.Conv1d(channels, channels, 2, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.convolution(nn.functional.pad(x, (0, x.shape[2] % 2)))


class Double(nn.Module):
    """(B, C, L) → (B, C, length) with length 2 L or 2 L − 1: a transposed convolution with stride and kernel 2."""

    def __init__(self, channels: int, length: int) -> None:
        super().__init__()
        self.convolution = nn.ConvTranspose1d(channels, channels, 2, stride=2)
        self.length = length

    def forward(self, x: Tensor) -> Tensor:
        return self.convolution(x)[..., : self.length]
