"""Principal components of the pair distances: the linear baseline.

z = C (d − m) with m the mean of the pair distances d over the training frames and the rows of C the orthonormal
eigenvectors of their covariance with the largest eigenvalues; d ≈ m + Cᵀ z. Latent coordinates are in nm, ordered by
variance, and signed so that the loading of largest magnitude is positive.

Frames are read in chunks; no matrix of all of them is made. Up to 4,000 pairs the covariance is accumulated in one
pass and diagonalised; beyond (it grows with n⁴: 2.1 TB for 1,200 atoms) the components are found by iteration,
one pass over the frames each, until the variances stand still. All sums are in float64.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from mdlatent import distances
from mdlatent.errors import DataError
from mdlatent.models.base import LatentModel

if TYPE_CHECKING:
    from mdlatent.frames import FrameStore

__all__ = ["PcaDistances"]

log = logging.getLogger("mdlatent")

COVARIANCE_PAIRS = 4000
CHUNK_BYTES = 100_000_000  # float64 distances of a chunk
BASIS_BYTES = 400_000_000  # of the iteration's basis, but at least three blocks
OVERSAMPLING = 5
TOLERANCE = 1e-9  # relative change of the variances; the directions are right to about its root
MAX_PASSES = 50


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
        by_covariance = self.n_pairs <= COVARIANCE_PAIRS
        mean, variance, components, total = (_by_covariance if by_covariance else _by_iteration)(
            store, rows, self.latent_dim
        )
        largest = np.abs(components).argmax(1)
        components *= np.sign(components[np.arange(len(components)), largest])[:, None]
        for buffer, values in (
            (self.mean_nm, mean),
            (self.components, components),
            (self.variance_nm2, variance),
            (self.total_variance_nm2, np.float64(total)),
        ):
            buffer.copy_(torch.as_tensor(values))

    def encode(self, coordinates: Tensor) -> tuple[Tensor, None]:
        """Coordinates (B, N, 3) in nm → principal coordinates (B, d) in nm, and no variance: the map is exact."""
        return (distances.packed_torch(coordinates) - self.mean_nm) @ self.components.T, None

    def decode(self, z: Tensor) -> Tensor:
        """Principal coordinates (B, d) in nm → pair distances (B, N(N−1)/2) in nm."""
        return torch.addmm(self.mean_nm, z, self.components)


Fit = tuple[np.ndarray, np.ndarray, np.ndarray, float]  # mean (p,), variance (d,), components (d, p), total variance


def _by_covariance(store: FrameStore, rows: np.ndarray, dim: int) -> Fit:
    """One pass: sums of d − s and of its products, where s, the first frame, keeps them small."""
    from scipy.linalg import eigh

    shift: np.ndarray | None = None
    for chunk in _distances(store, rows):
        if shift is None:
            p = chunk.shape[1]
            shift, sums, products = chunk[0].copy(), np.zeros(p), np.zeros((p, p))
        chunk -= shift
        sums += chunk.sum(0)
        products += chunk.T @ chunk
    assert shift is not None
    sums /= len(rows)
    products -= len(rows) * np.outer(sums, sums)
    products /= len(rows) - 1
    total = float(np.trace(products))
    variance, vectors = eigh(products, subset_by_index=(len(sums) - dim, len(sums) - 1), overwrite_a=True)
    return shift + sums, np.maximum(variance[::-1], 0), vectors.T[::-1].copy(), total


def _by_iteration(store: FrameStore, rows: np.ndarray, dim: int) -> Fit:
    """Block Krylov iteration (Musco & Musco 2015, arXiv 1504.05477) with restarts, for any number of pairs.

    With X the centred distances (T, p): one pass over the frames multiplies a block Q (p, k) by XᵀX, which gives the
    next block. All blocks so far form the basis V, in which the best components are the eigenvectors of H = VᵀXᵀXV.
    Where V would take too much memory, it is replaced by its best half.
    """
    mean = sum(chunk.sum(0) for chunk in _distances(store, rows)) / len(rows)
    p = len(mean)
    k = min(dim + OVERSAMPLING, p)
    most = min(p, max(3 * k, BASIS_BYTES // (8 * p)))  # columns of V
    block = np.linalg.qr(np.random.default_rng(0).standard_normal((p, k)))[0]
    basis, m, H = np.empty((p, most), order="F"), 0, np.empty((0, 0))  # the first m columns are in use
    before = np.zeros(dim)
    for number in range(1, MAX_PASSES + 1):
        image, total = np.zeros((p, k)), 0.0
        for chunk in _distances(store, rows):
            chunk -= mean
            image += chunk.T @ (chunk @ block)
            total += float(np.einsum("ij,ij->", chunk, chunk))
        across, within = basis[:, :m].T @ image, block.T @ image
        H = np.block([[H, across], [across.T, (within + within.T) / 2]])
        basis[:, m : m + k] = block
        m += k
        values, vectors = (part[..., ::-1] for part in np.linalg.eigh(H))  # largest first
        largest, components = values[:dim], (basis[:, :m] @ vectors[:, :dim]).T.copy()
        floor = max(1e-6 * largest[0], np.finfo(float).tiny)  # below it, directions mean nothing
        change = float((np.abs(largest - before) / np.maximum(largest, floor)).max())
        log.info("pca_distances: pass %d over the frames, variances changed by %.1e", number, change)
        if change <= TOLERANCE:
            break
        before = largest
        if m + k > most:
            keep = max(k, most // 2)
            basis[:, :keep] = basis[:, :m] @ vectors[:, :keep]
            m, H = keep, np.diag(values[:keep])
        for _ in range(2):  # once leaves rounding errors of the parts taken out
            image = np.linalg.qr(image - basis[:, :m] @ (basis[:, :m].T @ image))[0]
        block = image
    else:
        log.warning("pca_distances: variances still change by %.1e after %d passes", change, MAX_PASSES)
    freedom = len(rows) - 1
    return mean, np.maximum(largest, 0) / freedom, components, total / freedom


def _distances(store: FrameStore, rows: np.ndarray) -> Iterator[np.ndarray]:
    """Pair distances (≤ chunk, p) in nm, float64, of the frames `rows`."""
    from mdlatent.feed import iterate_rows

    chunk = max(1, CHUNK_BYTES // (8 * distances.n_pairs(store.n_atoms)))
    for frames in iterate_rows(store, rows, min(chunk, 1024)):
        yield distances.packed(frames).astype(np.float64)
