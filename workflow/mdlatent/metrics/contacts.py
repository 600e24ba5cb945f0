"""Contacts between atoms that a decoded structure recovers."""

import numpy as np

MIN_SEPARATION = 3  # places in the order of the selection; nearer neighbours along a chain touch in any structure


def contact_pairs(n_atoms: int) -> np.ndarray:
    """Packed numbers of the pairs that count, (k,) int64: at least MIN_SEPARATION places apart in the selection."""
    i, j = np.triu_indices(n_atoms, 1)
    return np.flatnonzero(j - i >= MIN_SEPARATION)


def contact_counts(true_nm: np.ndarray, decoded_nm: np.ndarray, cutoff_nm: float) -> np.ndarray:
    """For each frame (k, 3) int64: true contacts, decoded contacts, and those in both.

    A contact is a distance below `cutoff_nm`; both arrays (k, pairs) are in nm.
    """
    true, decoded = true_nm < cutoff_nm, decoded_nm < cutoff_nm
    return np.stack([true.sum(1), decoded.sum(1), (true & decoded).sum(1)], axis=1)
