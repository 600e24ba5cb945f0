"""Conformers with rotors turned at random: from learned distributions or evenly, atoms apart."""

from __future__ import annotations

import numpy as np
from rdkit import Chem

from mdlatent.compiling import njit
from mdlatent.conformers.rotors import Rotor, turn
from mdlatent.conformers.torsion_statistics import TURNS, TorsionStatistics

__all__ = ["Overlap", "draw"]


class Overlap:
    """How much atoms more than three bonds apart overlap."""

    def __init__(self, mol: Chem.Mol) -> None:
        table = Chem.GetPeriodicTable()
        radii = np.array([table.GetRvdw(atom.GetAtomicNum()) for atom in mol.GetAtoms()])
        self.first, self.second = np.nonzero(np.triu(Chem.GetDistanceMatrix(mol) > 3))
        self.least_squared = (0.7 * (radii[self.first] + radii[self.second])) ** 2

    def __call__(self, coordinates_angstrom: np.ndarray) -> np.ndarray:
        """Sum of relative overlaps (B,) of conformers (B, n_atoms, 3); 0 where no atoms touch."""
        result = np.empty(len(coordinates_angstrom))
        _sums(coordinates_angstrom, self.first, self.second, self.least_squared, result)
        return result


@njit(cache=True)
def _sums(coordinates, first, second, least, result):
    for b in range(len(coordinates)):
        total = 0.0
        for p in range(len(first)):
            square = 0.0
            for c in range(3):
                square += (coordinates[b, first[p], c] - coordinates[b, second[p], c]) ** 2
            total += max(0.0, 1 - square / least[p])
        result[b] = total


def draw(
    starts: np.ndarray,
    rotors: list[Rotor],
    n: int,
    n_turned: int,
    statistics: TorsionStatistics | None,
    overlap: Overlap,
    overdraw: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """`n` conformers (n, n_atoms, 3) in Å: of each start in turn, with `n_turned` rotors turned at random.

    Of `overdraw` draws each the one that overlaps least. Without `statistics`, angles are even.
    """
    if n <= 0:
        return starts[:0].copy()
    n_drawn = n * overdraw
    of_start = np.arange(n_drawn) // overdraw % len(starts)
    result = starts[of_start]
    rank = rng.random((n_drawn, len(rotors))).argsort(1)
    for number, rotor in enumerate(rotors):
        if statistics is None:
            steps = rng.integers(TURNS, size=n_drawn).astype(float)
        else:
            cumulative = statistics.turns(rotor, starts).cumsum(1)[of_start]
            steps = (cumulative < rng.random((n_drawn, 1))).sum(1).astype(float)
        by = (steps + rng.uniform(-0.5, 0.5, n_drawn)) * (2 * np.pi / TURNS)
        turn(result, rotor, np.where(rank[:, number] < n_turned, by, 0.0))
    groups = overlap(result).reshape(n, overdraw)
    return result.reshape(n, overdraw, *result.shape[1:])[np.arange(n), groups.argmin(1)]
