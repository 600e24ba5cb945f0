"""The start of a model of the family `coordinate`: the principal component analysis of the training coordinates.

Mean structure, components of the superposed coordinates and of the encoder's features and their scales are found in
the training frames; then A is set such that the whole, its networks still zero, is that analysis (coordinate_map.py).
Frames come in chunks: memory does not grow with their number.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from mdlatent.alignment import procrustes_mean
from mdlatent.models import bonds
from mdlatent.models import pair_features as pf
from mdlatent.models.coordinate_map import CoordinateMap, inverse_scales
from mdlatent.models.principal import principal_components

if TYPE_CHECKING:
    from mdlatent.frames import FrameStore

__all__ = ["set_components", "start"]

SMALLEST_SCALE = 0.01  # of a dimension in the latent that is given out; also where there is no component for it
CHUNK_BYTES = 50_000_000  # of one quantity of the frames read at once
COVARIANCE_NUMBERS = 1500  # up to which principal components come from the covariance, beyond by iteration …
TOLERANCE = 1e-3  # … until their variances stand still to this part, which does for a start


@torch.no_grad()
def start(model: CoordinateMap, store: FrameStore, rows: np.ndarray) -> None:
    """Find mean, components and scales of the training frames (`rows` of `store`), and start as their components."""
    from mdlatent.feed import iterate_rows

    def frames(numbers: int) -> Iterable[np.ndarray]:
        return iterate_rows(store, rows, max(1, min(1024, CHUNK_BYTES // (4 * numbers))))

    width = 3 * model.n_atoms
    model.mean_nm.copy_(torch.from_numpy(procrustes_mean(store, rows)))
    _, total = set_components(
        lambda: (model.superposed(torch.from_numpy(some)) for some in frames(width)),
        len(rows), model.basis, model.deviations_nm,
    )  # fmt: skip
    model.scale_nm.fill_(max(math.sqrt(total / model.n_atoms), 1e-4))
    model.scales.fill_(SMALLEST_SCALE)
    leading = model.deviations_nm[: model.latent_dim] / model.deviations_nm[0].clamp_min(1e-12)
    model.scales[: len(leading)] = leading.clamp_min(SMALLEST_SCALE)

    model.fours.copy_(torch.from_numpy(pf.choose_dihedrals(store.atoms))[: len(model.fours)])
    n_features = 3 * model.feature_mean.numel()
    mean, _ = set_components(
        lambda: (model.features(torch.from_numpy(some)) for some in frames(n_features)),
        len(rows), model.feature_basis, model.feature_deviations,
    )  # fmt: skip
    model.feature_mean.copy_(torch.from_numpy(mean))
    model.linear_encoder.weight.copy_(_linear_encoder(model, frames(n_features)))
    if model.bond_tolerance:
        model.bonds_nm.copy_(torch.from_numpy(bonds.bond_lengths(frames(width), model.bond_tolerance)))


def set_components(
    chunks: Callable[[], Iterable[Tensor]], n_rows: int, basis: Tensor, deviations: Tensor
) -> tuple[np.ndarray, float]:
    """Fill `basis` (k, p) and `deviations` (k,) with principal components and the standard deviations along them.

    Directions that the rows do not span, or span by rounding alone, stay zero. Returns mean (p,) and total variance.
    """
    k = min(len(basis), basis.shape[1], n_rows - 1)
    found = principal_components(
        lambda: (chunk.double().numpy() for chunk in chunks()), n_rows, k, COVARIANCE_NUMBERS, "coordinate", TOLERANCE
    )
    spread = np.sqrt(found.variance)
    real = spread > 1e-6 * max(spread[:1].max(initial=0), 1e-30)
    basis.zero_()
    deviations.zero_()
    basis[:k] = torch.from_numpy(found.directions * real[:, None])
    deviations[:k] = torch.from_numpy(spread * real)
    return found.mean, found.total_variance


def _linear_encoder(model: CoordinateMap, frames: Iterable[np.ndarray]) -> Tensor:
    """A (d, n_inputs): the components of the coordinates where they are among the inputs, else their best prediction
    (least squares) from what is."""
    n_inputs = model.linear_encoder.in_features
    weight = torch.zeros(model.latent_dim, n_inputs)
    some = min(model.latent_dim, len(model.basis))
    deviations = model.deviations_nm[:some]
    if model.signed_features == "aligned":
        weight[:some, :some] = torch.diag(1 / inverse_scales(model.deviations_nm)[:some] / deviations)
        return torch.nan_to_num(weight, 0.0, 0.0, 0.0)
    products = torch.zeros(n_inputs, n_inputs + some, dtype=torch.float64)
    for chunk in frames:
        coordinates = torch.from_numpy(chunk)
        inputs = model.inputs(coordinates).double()
        scores = model.superposed(coordinates) @ model.basis[:some].T / deviations.clamp_min(1e-9)
        products += inputs.T @ torch.cat([inputs, scores.double()], 1)
    square, right = products[:, :n_inputs], products[:, n_inputs:]
    square = square + 1e-6 * square.diagonal().mean() * torch.eye(n_inputs, dtype=torch.float64)
    weight[:some] = torch.linalg.solve(square, right).T.float()
    return weight
