"""Principal components of superposed coordinates: the linear baseline that decodes to structures.

z = C (x − m) with x the 3N coordinates of a frame superposed on the mean structure m (alignment.py), and the rows of C
the orthonormal eigenvectors of the covariance of x over the training frames with the largest eigenvalues;
x ≈ m + Cᵀ z ("essential dynamics", Amadei et al. 1993, doi:10.1002/prot.340170408). Latent coordinates are in nm,
ordered by variance, and signed so that the loading of largest magnitude is positive.

The mean structure is found by superposing all training frames on it again and again; frames are read in chunks, once
for each such pass. Up to 1,500 coordinates (500 atoms) the covariance is accumulated in one more pass and
diagonalised; beyond, the components are found by iteration, one pass over the frames each (principal.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from mdlatent.alignment import align, procrustes_mean
from mdlatent.errors import DataError
from mdlatent.models.base import LatentModel
from mdlatent.models.principal import principal_components

if TYPE_CHECKING:
    from mdlatent.frames import FrameStore

__all__ = ["PcaCoordinates", "superposed"]

COVARIANCE_COORDINATES = 1500
CHUNK_BYTES = 50_000_000  # float64 coordinates of a chunk


class PcaCoordinates(LatentModel):
    """Principal components of the superposed coordinates of `n_atoms` ≥ 3 atoms."""

    family = "pca_coordinates"
    fitted = "direct"

    def __init__(self, n_atoms: int, latent_dim: int) -> None:
        super().__init__(n_atoms, latent_dim)
        self.mean_nm: Tensor
        self.components: Tensor
        self.variance_nm2: Tensor
        self.total_variance_nm2: Tensor
        self.register_buffer("mean_nm", torch.zeros(n_atoms, 3))
        self.register_buffer("components", torch.zeros(latent_dim, 3 * n_atoms))
        self.register_buffer("variance_nm2", torch.zeros(latent_dim))
        self.register_buffer("total_variance_nm2", torch.zeros(()))

    @property
    def n_parameters(self) -> int:
        """Number of fitted values: mean and components."""
        return self.mean_nm.numel() + self.components.numel()

    def fit(self, store: FrameStore, rows: np.ndarray) -> None:
        """Fit to the frames `rows` of `store`. Raises DataError if they span fewer dimensions than asked for."""
        # Superposed frames have no freedom to move or turn as a whole.
        most = min(3 * self.n_atoms - 6, len(rows) - 1)
        if self.latent_dim > most:
            raise DataError(
                f"pca_coordinates: got latent_dim {self.latent_dim}, expected at most {most}, since there are "
                f"{len(rows)} training frames of {self.n_atoms} atoms, whose shapes have {3 * self.n_atoms - 6} "
                "dimensions; lower latent_dim or give more frames"
            )
        mean = procrustes_mean(store, rows)
        found = principal_components(
            lambda: superposed(store, rows, mean), len(rows), self.latent_dim, COVARIANCE_COORDINATES, self.family
        )
        self.mean_nm.copy_(torch.from_numpy(mean))
        self.components.copy_(torch.from_numpy(found.directions))
        self.variance_nm2.copy_(torch.from_numpy(found.variance))
        self.total_variance_nm2.fill_(found.total_variance)

    def encode(self, coordinates: Tensor) -> tuple[Tensor, None]:
        """Coordinates (B, N, 3) in nm → principal coordinates (B, d) in nm, and no variance: the map is exact."""
        return (align(coordinates, self.mean_nm) - self.mean_nm).flatten(1) @ self.components.T, None

    def decode_coordinates(self, z: Tensor) -> Tensor:
        """Principal coordinates (B, d) in nm → coordinates (B, N, 3) in nm, superposed on the mean structure."""
        return self.mean_nm + (z @ self.components).reshape(len(z), self.n_atoms, 3)


def superposed(store: FrameStore, rows: np.ndarray, mean: np.ndarray) -> Iterator[np.ndarray]:
    """Coordinates (≤ chunk, 3N) in nm, float64, of the frames `rows`, superposed on `mean` (N, 3)."""
    from mdlatent.feed import iterate_rows

    chunk = max(1, CHUNK_BYTES // (8 * 3 * store.n_atoms))
    target = torch.from_numpy(mean)
    for frames in iterate_rows(store, rows, min(chunk, 4096)):
        yield align(torch.from_numpy(frames).double(), target).flatten(1).numpy()
