"""Principal components of one molecule's internal coordinates: the linear baseline beside the autoencoder.

Lengths, angles, and the sine and cosine of the dihedrals; one fit per molecule, unlike the autoencoder, which is one
for all molecules.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mdlatent.conformers.internal import InternalCoordinates
from mdlatent.conformers.internal_values import Values, values

__all__ = ["pca_reconstruct"]


def pca_reconstruct(
    internal: InternalCoordinates, fitted_angstrom: Tensor, tested_angstrom: Tensor, n_components: int
) -> Values:
    """Values of conformers (T, n_atoms, 3) Å after projection on components fitted on others (F, n_atoms, 3) Å.

    There are at most F − 1 components; where more are asked for these are all.
    """
    fitted, tested = (_features(values(internal, x.double())) for x in (fitted_angstrom, tested_angstrom))
    mean = fitted.mean(0)
    components = torch.linalg.svd(fitted - mean, full_matrices=False)[2][: min(n_components, len(fitted) - 1)]
    features = mean + (tested - mean) @ components.T @ components
    n = [len(internal.bonds), len(internal.angles), len(internal.dihedrals), len(internal.dihedrals)]
    lengths, angles, sine, cosine = features.split(n, 1)
    return Values(lengths, angles, torch.atan2(sine, cosine))


def _features(found: Values) -> Tensor:
    return torch.cat([found.lengths_angstrom, found.angles, found.dihedrals.sin(), found.dihedrals.cos()], 1)
