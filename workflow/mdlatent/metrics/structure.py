"""How far decoded structures are from the true ones, in Å after superposition."""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

    from mdlatent.models.base import LatentModel

ANGSTROM_PER_NM = 10.0


def held_out_rmsd(model: "LatentModel", z: "Tensor", true_nm: np.ndarray, reference_nm: np.ndarray) -> np.ndarray:
    """Root mean squared distance (k,) in Å of decoded structures to true ones (k, n, 3), best superposed.

    `z` (k, d) are the latents of the true frames; `reference_nm` (n, 3), a structure of the training, gives the hand
    where a model decodes to distances only (structures.py).
    """
    from mdlatent import structures

    decoded = structures.reconstruct(model, z, reference_nm)
    return structures.kabsch_rmsd_nm(decoded, true_nm).numpy() * ANGSTROM_PER_NM
