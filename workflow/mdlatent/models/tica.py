"""Time-lagged independent components of pair distances: the linear map that keeps what changes slowest.

Distances between landmark atoms (evenly spaced along the selection, at most `landmark_atoms`) are first projected on
their `n_components_before` principal components y. With X = y(t) and Y = y(t + τ) over all pairs of training frames a
lag τ apart, centred, the components w solve C_τ w = λ C₀ w, where C₀ = (XᵀX + YᵀY) / 2T and C_τ = (XᵀY + YᵀX) / 2T
(Molgedey & Schuster 1994, doi:10.1103/PhysRevLett.72.3634; Pérez-Hernández et al. 2013, doi:10.1063/1.4811489). They
have variance 1 over the pairs, or λ² with `kinetic_map`, where distances in the latent tell how different the futures
of two frames are (Noé & Clementi 2015, doi:10.1021/acs.jctc.5b00553). They are ordered by λ and signed so that the
loading of largest magnitude is positive.

A pair never spans two simulations, a gap in time, or frames that are not trained on. The way back is the linear map
from z to the superposed coordinates with the least squared error over the training frames. Frames are read in chunks;
memory grows with the landmarks' pairs and the atoms, not with the frames.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from mdlatent import distances
from mdlatent.alignment import procrustes_mean
from mdlatent.errors import ConfigError, DataError
from mdlatent.models.base import LatentModel
from mdlatent.models.pca_coordinates import superposed
from mdlatent.models.principal import principal_components

if TYPE_CHECKING:
    from mdlatent.frames import FrameStore

__all__ = ["Tica"]

log = logging.getLogger("mdlatent")

COVARIANCE_PAIRS = 4000
CHUNK_FRAMES = 1024
SINGULAR = 1e-8  # of the largest variance: directions below it are left out


class Tica(LatentModel):
    """Time-lagged independent components of the pair distances of `n_atoms` ≥ 3 atoms."""

    family = "tica"
    fitted = "direct"

    def __init__(
        self,
        n_atoms: int,
        latent_dim: int,
        lag_frames: int = 10,
        n_components_before: int = 30,
        landmark_atoms: int = 100,
        kinetic_map: bool = True,
    ) -> None:
        super().__init__(n_atoms, latent_dim)
        self.options = {
            "lag_frames": lag_frames, "n_components_before": n_components_before, "landmark_atoms": landmark_atoms,
            "kinetic_map": kinetic_map,
        }  # fmt: skip
        self.lag_frames, self.kinetic_map = lag_frames, kinetic_map
        landmarks = np.linspace(0, n_atoms - 1, min(n_atoms, landmark_atoms)).round().astype(np.int64)
        n_features = distances.n_pairs(len(landmarks))
        self.n_before = min(n_components_before, n_features)
        if latent_dim > self.n_before:
            raise ConfigError(
                f"tica: got latent_dim {latent_dim}, expected at most {self.n_before}, since it is made from "
                f"n_components_before {n_components_before} components of {n_features} distances between "
                f"{len(landmarks)} atoms; lower latent_dim, or raise n_components_before or landmark_atoms"
            )
        self.landmarks: Tensor
        self.mean_nm: Tensor
        self.components: Tensor
        self.eigenvalues: Tensor
        self.decoder_mean_nm: Tensor
        self.decoder: Tensor
        self.register_buffer("landmarks", torch.from_numpy(landmarks))
        self.register_buffer("mean_nm", torch.zeros(n_features))
        self.register_buffer("components", torch.zeros(latent_dim, n_features))
        self.register_buffer("eigenvalues", torch.zeros(latent_dim))
        self.register_buffer("decoder_mean_nm", torch.zeros(n_atoms, 3))
        self.register_buffer("decoder", torch.zeros(latent_dim, 3 * n_atoms))

    @property
    def n_parameters(self) -> int:
        """Number of fitted values: means, components and the way back."""
        fitted = (self.mean_nm, self.components, self.decoder_mean_nm, self.decoder)
        return sum(values.numel() for values in fitted)

    def fit(self, store: FrameStore, rows: np.ndarray) -> None:
        """Fit to the frames `rows` of `store`.

        Raises DataError if they have too few frames or pairs of frames, or move in fewer dimensions than asked for.
        """
        n_before = min(self.n_before, len(rows) - 1)
        starts = stretches(store, rows)
        n_pairs = int(np.maximum(np.diff([*starts, len(rows)]) - self.lag_frames, 0).sum())
        if n_pairs <= n_before or self.latent_dim > n_before:
            raise DataError(
                f"tica: got {n_pairs} pairs of training frames {self.lag_frames} frames apart, expected more than "
                f"{max(n_before, self.latent_dim)}; lower options.lag_frames or options.n_components_before, or give "
                "longer trajectories"
            )
        before = principal_components(
            lambda: (d for _, d in self._features(store, rows)), len(rows), n_before, COVARIANCE_PAIRS, self.family
        )
        mean, eigenvalues, vectors = self._lagged(store, rows, starts, before.mean, before.directions)
        log.info(
            "tica: implied timescales %s frames at a lag of %d",
            ", ".join(f"{-self.lag_frames / np.log(v):.4g}" if 0 < v < 1 else "–" for v in eigenvalues),
            self.lag_frames,
        )
        components = (vectors * eigenvalues if self.kinetic_map else vectors).T @ before.directions
        largest = np.abs(components).argmax(1)
        components *= np.sign(components[np.arange(len(components)), largest])[:, None]
        self.mean_nm.copy_(torch.from_numpy(before.mean + mean @ before.directions))
        self.components.copy_(torch.from_numpy(components))
        self.eigenvalues.copy_(torch.from_numpy(eigenvalues))
        self._fit_decoder(store, rows)

    def encode(self, coordinates: Tensor) -> tuple[Tensor, None]:
        """Coordinates (B, N, 3) in nm → components (B, d) without unit, and no variance: the map is exact."""
        features = distances.packed_torch(coordinates[:, self.landmarks])
        return (features - self.mean_nm) @ self.components.T, None

    def decode_coordinates(self, z: Tensor) -> Tensor:
        """Components (B, d) → coordinates (B, N, 3) in nm, superposed on the mean structure."""
        return self.decoder_mean_nm + (z @ self.decoder).reshape(len(z), self.n_atoms, 3)

    def _features(self, store: FrameStore, rows: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Coordinates (k, N, 3) float32 and distances between landmarks (k, p) float64 of chunks of the frames, nm."""
        from mdlatent.feed import iterate_rows

        landmarks = self.landmarks.numpy()
        for frames in iterate_rows(store, rows, CHUNK_FRAMES):
            yield frames, distances.packed(frames[:, landmarks]).astype(np.float64)

    def _lagged(
        self, store: FrameStore, rows: np.ndarray, starts: np.ndarray, origin: np.ndarray, directions: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Mean (k,) of the projections y, the largest λ (d,), and w (k, d) as columns."""
        from scipy.linalg import eigh

        lag, k = self.lag_frames, len(directions)
        begin = starts[np.searchsorted(starts, np.arange(len(rows)), side="right") - 1]  # of each row's stretch
        kept, row, n = np.empty((0, k)), 0, 0
        sums, instant, lagged = np.zeros(k), np.zeros((k, k)), np.zeros((k, k))
        for _, features in self._features(store, rows):
            kept = np.concatenate([kept, (features - origin) @ directions.T])  # from row − (frames kept before) on
            row += len(features)
            later = np.arange(row - len(features), row)
            later = later[later - lag >= begin[later]]  # both in one stretch
            X, Y = kept[later - lag - (row - len(kept))], kept[later - (row - len(kept))]
            n += len(later)
            sums += X.sum(0) + Y.sum(0)
            instant += X.T @ X + Y.T @ Y
            lagged += X.T @ Y
            kept = kept[-lag:]
        mean = sums / (2 * n)
        instant = instant / (2 * n) - np.outer(mean, mean)
        lagged = (lagged + lagged.T) / (2 * n) - np.outer(mean, mean)
        variance, vectors = eigh(instant)
        real = variance > SINGULAR * max(variance[-1], np.finfo(float).tiny)
        if np.count_nonzero(real) < self.latent_dim:
            raise DataError(
                f"tica: the training frames move in {np.count_nonzero(real)} dimensions, latent_dim is "
                f"{self.latent_dim}; lower latent_dim"
            )
        whitening = vectors[:, real] / np.sqrt(variance[real])
        eigenvalues, rotation = eigh(whitening.T @ lagged @ whitening)
        slow = slice(None, -self.latent_dim - 1, -1)  # largest first
        return mean, eigenvalues[slow].copy(), whitening @ rotation[:, slow]

    def _fit_decoder(self, store: FrameStore, rows: np.ndarray) -> None:
        """Least squares from (1, z) to the superposed coordinates."""
        mean, d, n = procrustes_mean(store, rows), self.latent_dim, self.n_atoms
        mean_nm, components = self.mean_nm.double().numpy(), self.components.double().numpy()
        own, cross = np.zeros((d + 1, d + 1)), np.zeros((d + 1, 3 * n))
        aligned = superposed(store, rows, mean)
        left = np.empty((0, 3 * n))
        for _, features in self._features(store, rows):
            Z = np.column_stack([np.ones(len(features)), (features - mean_nm) @ components.T])
            while len(left) < len(Z):
                left = np.concatenate([left, next(aligned) - mean.ravel()])
            own += Z.T @ Z
            cross += Z.T @ left[: len(Z)]
            left = left[len(Z) :]
        solution = np.linalg.lstsq(own, cross, rcond=None)[0]
        self.decoder_mean_nm.copy_(torch.from_numpy(mean + solution[0].reshape(n, 3)))
        self.decoder.copy_(torch.from_numpy(solution[1:]))


def stretches(store: FrameStore, rows: np.ndarray) -> np.ndarray:
    """Places in `rows` (ascending) at which a stretch of consecutive frames of one simulation begins, (k,) int64.

    A new one begins where rows of the store are left out, at another simulation, and after a gap in time.
    """
    from mdlatent.states import segment_starts

    begins = np.zeros(len(rows), bool)
    begins[0] = True
    begins[1:] = np.diff(rows) != 1
    for simulation in store.simulations:
        own = segment_starts(store.frame_numbers(simulation), store.times_ps(simulation)) + simulation.start
        # A gap may lie in rows left out; those begin a stretch anyway.
        places = np.searchsorted(rows, own)
        begins[places[places < len(rows)]] = True
    return np.flatnonzero(begins)
