"""Principal components of the pair distances: the linear baseline.

z = C (d − m) with m the mean of the pair distances d over the training frames and the rows of C the orthonormal
eigenvectors of their covariance with the largest eigenvalues; d ≈ m + Cᵀ z. Latent coordinates are in nm, ordered by
variance, and signed so that the loading of largest magnitude is positive.

Frames are read in chunks; no matrix of all of them is made. Up to 4,000 pairs the covariance is accumulated in one
pass and diagonalised; beyond (it grows with n⁴: 2.1 TB for 1,200 atoms) the components are found by iteration,
one pass over the frames each, until the variances stand still. All sums are in float64.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from mdlatent import distances
from mdlatent.errors import DataError
from mdlatent.models.base import LatentModel
from mdlatent.models.principal import principal_components

if TYPE_CHECKING:
    from mdlatent.frames import FrameStore

__all__ = ["PcaDistances"]

COVARIANCE_PAIRS = 4000
CHUNK_BYTES = 100_000_000  # float64 distances of a chunk


class PcaDistances(LatentModel):
    """Principal components of the pair distances of `n_atoms` ≥ 3 atoms."""

    family = "pca_distances"
    fitted = "direct"

    def __init__(self, n_atoms: int, latent_dim: int) -> None:
        super().__init__(n_atoms, latent_dim)
        self.mean_nm: Tensor
        self.components: Tensor
        self.variance_nm2: Tensor
        self.total_variance_nm2: Tensor
        self.register_buffer("mean_nm", torch.zeros(self.n_pairs))
        self.register_buffer("components", torch.zeros(latent_dim, self.n_pairs))
        self.register_buffer("variance_nm2", torch.zeros(latent_dim))
        self.register_buffer("total_variance_nm2", torch.zeros(()))

    @property
    def n_parameters(self) -> int:
        """Number of fitted values: mean and components."""
        return self.mean_nm.numel() + self.components.numel()

    def fit(self, store: FrameStore, rows: np.ndarray) -> None:
        """Fit to the frames `rows` of `store`. Raises DataError if they span fewer dimensions than asked for."""
        most = min(self.n_pairs, len(rows) - 1)
        if self.latent_dim > most:
            raise DataError(
                f"pca_distances: got latent_dim {self.latent_dim}, expected at most {most}, since there are "
                f"{len(rows)} training frames of {self.n_pairs} pair distances; lower latent_dim or give more frames"
            )
        found = principal_components(
            lambda: _distances(store, rows), len(rows), self.latent_dim, COVARIANCE_PAIRS, self.family
        )
        self.mean_nm.copy_(torch.from_numpy(found.mean))
        self.components.copy_(torch.from_numpy(found.directions))
        self.variance_nm2.copy_(torch.from_numpy(found.variance))
        self.total_variance_nm2.fill_(found.total_variance)

    def encode(self, coordinates: Tensor) -> tuple[Tensor, None]:
        """Coordinates (B, N, 3) in nm → principal coordinates (B, d) in nm, and no variance: the map is exact."""
        return (distances.packed_torch(coordinates) - self.mean_nm) @ self.components.T, None

    def decode(self, z: Tensor) -> Tensor:
        """Principal coordinates (B, d) in nm → pair distances (B, N(N−1)/2) in nm."""
        return torch.addmm(self.mean_nm, z, self.components)


def _distances(store: FrameStore, rows: np.ndarray) -> Iterator[np.ndarray]:
    """Pair distances (≤ chunk, p) in nm, float64, of the frames `rows`."""
    from mdlatent.feed import iterate_rows

    chunk = max(1, CHUNK_BYTES // (8 * distances.n_pairs(store.n_atoms)))
    for frames in iterate_rows(store, rows, min(chunk, 1024)):
        yield distances.packed(frames).astype(np.float64)
