"""How well generated conformers meet references: symmetric RMSD of heavy atoms, coverage and mean minimum.

With K references R and generated conformers G, and d the symmetric RMSD: recall asks of each reference how near the
nearest generated one is, precision of each generated one how near the nearest reference is. COV is the share below a
threshold, AMR the mean of those minima (Ganea et al., NeurIPS 2021, eq. 5). A molecule for which nothing was generated
has COV 0; its AMR is undefined (NaN), so means of AMR say over how many molecules they are.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from rdkit import Chem
from rdkit.Chem import rdMolAlign

__all__ = [
    "THRESHOLDS_ANGSTROM",
    "bootstrap_difference",
    "bootstrap_interval",
    "coverage",
    "distinct",
    "rmsd_between",
    "rmsd_matrix",
]

THRESHOLDS_ANGSTROM = (0.5, 0.75, 1.25)
DRAWN_AT_ONCE = 1_000_000
MAX_MATCHES = 20_000  # automorphisms of the heavy atoms looked at; RDKit warns where there are more


def rmsd_matrix(mol: Chem.Mol, max_matches: int = MAX_MATCHES) -> np.ndarray:
    """Symmetric RMSD of heavy atoms between all conformers: (C, C) in Å, float64.

    The least over all automorphisms, with terminal atoms of conjugated groups (carboxylate, nitro, …) alike.
    Time grows with C² and the number of automorphisms.
    """
    heavy = Chem.RemoveAllHs(mol)
    n = heavy.GetNumConformers()
    result = np.zeros((n, n))
    if n > 1:
        packed = rdMolAlign.GetAllConformerBestRMS(
            heavy, numThreads=1, maxMatches=max_matches, symmetrizeConjugatedTerminalGroups=True
        )
        result[np.tril_indices(n, -1)] = packed
        result += result.T
    return result


def rmsd_between(generated: Chem.Mol, references: Chem.Mol) -> np.ndarray:
    """Symmetric RMSD of heavy atoms: (n_generated, n_references) in Å; both have the same atoms in the same order."""
    both = Chem.Mol(generated)
    for conformer in references.GetConformers():
        both.AddConformer(conformer, assignId=True)
    n = generated.GetNumConformers()
    return rmsd_matrix(both)[:n, n:]


def distinct(rmsd_angstrom: np.ndarray, threshold_angstrom: float) -> list[int]:
    """Indices of conformers kept when each within `threshold_angstrom` of an earlier kept one is left out."""
    kept: list[int] = []
    for index in range(len(rmsd_angstrom)):
        if not kept or rmsd_angstrom[index, kept].min() > threshold_angstrom:
            kept.append(index)
    return kept


def coverage(rmsd_angstrom: np.ndarray) -> dict[str, float]:
    """Coverage (%) and mean minimum RMSD (Å), recall and precision, of a matrix (n_generated, n_references)."""
    failed = rmsd_angstrom.shape[0] == 0
    result: dict[str, float] = {}
    for name, axis in (("recall", 0), ("precision", 1)):
        nearest = np.full(1, np.nan) if failed else rmsd_angstrom.min(axis)
        result[f"amr_{name}_angstrom"] = float(nearest.mean())
        for threshold in THRESHOLDS_ANGSTROM:
            result[f"cov_{name}_{threshold}_percent"] = 0.0 if failed else float(100 * (nearest < threshold).mean())
    return result


def bootstrap_difference(
    ours: np.ndarray, theirs: np.ndarray, n_samples: int = 10_000, seed: int = 0
) -> Mapping[str, float]:
    """Mean difference ours − theirs over the same molecules, its 95 % interval, and the ratio of means with its own.

    Molecules are drawn with replacement, always both values of one; those where either is NaN are left out, counted.
    """
    both = np.isfinite(ours) & np.isfinite(theirs)
    a, b = ours[both], theirs[both]
    if len(a) < 2:
        return {"n": len(a), "difference": float(np.mean(a - b)) if len(a) else float("nan")}
    drawn = _bootstrap_means(np.stack([a - b, a, b]), n_samples, seed)
    difference = np.percentile(drawn[0], [2.5, 97.5])
    ratio = np.percentile(drawn[1] / drawn[2], [2.5, 97.5])
    return {
        "n": len(a),
        "difference": float((a - b).mean()),
        "difference_low": float(difference[0]),
        "difference_high": float(difference[1]),
        "ratio": float(a.mean() / b.mean()),
        "ratio_low": float(ratio[0]),
        "ratio_high": float(ratio[1]),
    }


def bootstrap_interval(values: np.ndarray, n_samples: int = 10_000, seed: int = 0) -> tuple[float, float] | None:
    """95 % interval of the mean of `values` (n_molecules,) without NaN, from drawing molecules; None for one."""
    values = values[np.isfinite(values)]
    if len(values) < 2:
        return None
    low, high = np.percentile(_bootstrap_means(values[None], n_samples, seed), [2.5, 97.5])
    return float(low), float(high)


def _bootstrap_means(values: np.ndarray, n_samples: int, seed: int) -> np.ndarray:
    """Means of `values` (k, n) over n draws with replacement, the same for all rows: (k, n_samples).

    Drawn in pieces, so that memory does not grow with n_samples × n.
    """
    rng, n = np.random.default_rng(seed), values.shape[1]
    piece = max(1, DRAWN_AT_ONCE // n)
    sizes = [min(piece, n_samples - start) for start in range(0, n_samples, piece)]
    return np.concatenate([values[:, rng.integers(n, size=(size, n))].mean(2) for size in sizes], axis=1)
