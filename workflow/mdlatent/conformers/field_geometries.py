"""The geometries of a molecule at which a force field is taught: what a search for conformers comes across.

Torsions are drawn evenly on ETKDG's local geometry and relaxed in three stages by the field known so far: MMFF94s at
first, what was learned from it in later rounds, so that minima the field has made up are seen, and named wrong. Taken
are structures that are hardly relaxed, half relaxed ones, and minima: the lowest, and others at random.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from rdkit import Chem

from mdlatent.conformers.drawing import draw
from mdlatent.conformers.embedding import Deadline, embed
from mdlatent.conformers.mmff_relax import SideBySide
from mdlatent.conformers.molecules import MoleculeError
from mdlatent.conformers.rotors import find_rotors

__all__ = ["LATER", "Counts", "geometries"]

N_STARTS, N_EMBEDDED, N_RIGID = 200, 12, 40
STAGES = (25, 60, 200)  # evaluations of the energy
FAR_KCAL = (60.0, 25.0)  # above the lowest, after the first and the second stage
SAME_KCAL = 0.02  # minima so near in energy pass for one
MOST_WELLS = 60  # lowest ones that others are drawn from


@dataclass(frozen=True)
class Counts:
    """How many of each are taken at most."""

    rough: int = 8  # after the first stage
    halfway: int = 6  # after the second
    lowest: int = 14  # of the minima
    others: int = 8


LATER = Counts(rough=0, halfway=6, lowest=20, others=10)  # in later rounds


def geometries(mol: Chem.Mol, field: SideBySide, seed: int, counts: Counts, deadline: Deadline) -> np.ndarray:
    """Structures (B, n_atoms, 3) in Å, B at most the sum of `counts`; minima come first, lowest first.

    Raises MoleculeError if the molecule cannot be embedded, nothing stays finite or time is up.
    """
    rng = np.random.default_rng([seed, 2])
    now, stages = _starts(mol, seed, rng, deadline), []
    for steps in STAGES:
        now, kcal = field.relax(now, steps, deadline)
        finite = np.isfinite(kcal) & np.isfinite(now).all((1, 2))
        if not finite.any():
            raise MoleculeError("got no structure with a finite energy, expected some; is its stereo possible?")
        now, kcal = now[finite], kcal[finite]
        stages.append((now, kcal))
    (rough, rough_kcal), (halfway, halfway_kcal), (ends, ends_kcal) = stages
    wells: list[int] = []
    for index in np.argsort(ends_kcal, kind="stable").tolist():
        if not wells or ends_kcal[index] - ends_kcal[wells[-1]] > SAME_KCAL:
            wells.append(index)
    lowest, others = wells[: counts.lowest], wells[counts.lowest : MOST_WELLS]
    near_rough = np.flatnonzero(rough_kcal < rough_kcal.min() + FAR_KCAL[0])
    near_halfway = np.flatnonzero(halfway_kcal < halfway_kcal.min() + FAR_KCAL[1])
    return np.concatenate(
        [
            ends[lowest],
            ends[_some(np.array(others, np.int64), counts.others, rng)],
            halfway[_some(near_halfway, counts.halfway, rng)],
            rough[_some(near_rough, counts.rough, rng)],
        ]
    )


def _starts(mol: Chem.Mol, seed: int, rng: np.random.Generator, deadline: Deadline) -> np.ndarray:
    rotors = find_rotors(mol)
    first = embed(mol, N_EMBEDDED if rotors else N_RIGID, seed, deadline)
    return np.concatenate([first, draw(first, rotors, N_STARTS - len(first), None, rng)]) if rotors else first


def _some(indices: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    return rng.permutation(indices)[:n]
