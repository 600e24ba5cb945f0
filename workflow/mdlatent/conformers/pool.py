"""Our generator: torsions drawn from learned distributions on ETKDG's local geometry, relaxed, and chosen from.

1. A few ETKDGv3 conformers give rings and local geometry.
2. Their rotors are turned by angles drawn from the learned distributions; of several draws those with the least
   overlap of atoms are kept.
3. All are relaxed a little by MMFF94s; the better ones, and all of a last round, further.
4. Later rounds start from the lowest found so far and turn a few rotors of each.
5. n are chosen for the least expected error (selection.expected).

The same with `torsions="uniform"` (angles without preference) or `torsions="etkdg"` (ETKDGv3 conformers alone) is the
ablation. Memory grows with the pool times the square of the number of atoms.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from rdkit import Chem

from mdlatent.conformers import metrics, selection
from mdlatent.conformers.embedding import Deadline, ForceField, embed
from mdlatent.conformers.molecules import with_conformers
from mdlatent.conformers.rotors import Rotor, find_rotors, turn
from mdlatent.conformers.torsion_statistics import TURNS, TorsionStatistics

__all__ = ["Options", "build", "choose"]


@dataclass(frozen=True)
class Options:
    """Sizes are per conformer asked for; the values were chosen on validation molecules."""

    torsions: str = "learned"
    seeds: float = 0.5
    candidates: float = 6.0  # relaxed a little
    kept: float = 4.0  # relaxed fully
    overdraw: int = 4  # draws per candidate, of which the least overlapping is kept
    rounds: int = 1
    first_steps: int = 30
    last_steps: int = 250
    window_kcal: float = 15.0
    temperature_kcal: float = 2.0
    precision_weight: float = 1.0
    duplicate_angstrom: float = 0.3


def build(
    mol: Chem.Mol, n: int, seed: int, options: Options, statistics: TorsionStatistics | None, deadline: Deadline
) -> tuple[np.ndarray, np.ndarray]:
    """The relaxed pool for n conformers: coordinates (B, n_atoms, 3) in Å, MMFF94s energies (B,) in kcal/mol."""
    rng = np.random.default_rng([seed, 1])
    field = ForceField(mol)
    rotors = find_rotors(mol)
    n_candidates = max(4, round(options.candidates * n))
    n_kept = max(2, round(options.kept * n))
    if options.torsions == "etkdg" or not rotors:
        n_candidates = n_candidates if rotors else min(n_candidates, 2 * n)
        pool, energies = field.relax(embed(mol, n_candidates, seed, deadline), options.first_steps, deadline)
    else:
        seeds = embed(mol, max(2, round(options.seeds * n)), seed, deadline)
        overlap = Overlap(mol)
        per_round = np.diff(np.linspace(0, n_candidates, options.rounds + 1).astype(int))
        starts, n_turned = seeds, len(rotors)
        pool, energies = field.relax(seeds, options.first_steps, deadline)
        for number, size in enumerate(per_round):
            size = size - len(seeds) if number == 0 else size
            drawn = draw(starts, rotors, size, n_turned, statistics, overlap, options, rng)
            drawn, found = field.relax(drawn, options.first_steps, deadline)
            pool, energies = np.concatenate([pool, drawn]), np.concatenate([energies, found])
            best = selection.lowest(energies, max(2, n // 2))
            starts, n_turned = pool[best], max(1, min(3, len(rotors) // 2))
    best = selection.lowest(energies, n_kept)
    return field.relax(pool[best], options.last_steps, deadline)


def choose(mol: Chem.Mol, pool: np.ndarray, energies: np.ndarray, n: int, options: Options) -> np.ndarray:
    """Indices of the n chosen conformers of a pool, lowest energy first."""
    order = selection.lowest(energies, len(energies))
    within = order[energies[order] <= energies.min() + options.window_kcal]
    within = order[: max(n, len(within))]
    rmsd = metrics.rmsd_matrix(with_conformers(mol, pool[within]))
    chosen = selection.expected(
        rmsd, energies[within], n, options.temperature_kcal, options.precision_weight, options.duplicate_angstrom
    )
    return within[np.sort(chosen)]


class Overlap:
    """How much atoms more than three bonds apart overlap."""

    def __init__(self, mol: Chem.Mol) -> None:
        table = Chem.GetPeriodicTable()
        radii = np.array([table.GetRvdw(atom.GetAtomicNum()) for atom in mol.GetAtoms()])
        self.first, self.second = np.nonzero(np.triu(Chem.GetDistanceMatrix(mol) > 3))
        self.least_squared = (0.7 * (radii[self.first] + radii[self.second])) ** 2

    def __call__(self, coordinates_angstrom: np.ndarray) -> np.ndarray:
        """Sum of relative overlaps (B,) of conformers (B, n_atoms, 3); 0 where no atoms touch."""
        apart = coordinates_angstrom[:, self.first] - coordinates_angstrom[:, self.second]
        return np.asarray(np.maximum(0, 1 - (apart**2).sum(-1) / self.least_squared).sum(1))


def draw(
    starts: np.ndarray,
    rotors: list[Rotor],
    n: int,
    n_turned: int,
    statistics: TorsionStatistics | None,
    overlap: Overlap,
    options: Options,
    rng: np.random.Generator,
) -> np.ndarray:
    """`n` conformers (n, n_atoms, 3) in Å: of each start in turn, with `n_turned` rotors turned at random."""
    if n <= 0:
        return starts[:0].copy()
    n_drawn = n * options.overdraw
    of_start = np.arange(n_drawn) // options.overdraw % len(starts)
    result = starts[of_start]
    rank = rng.random((n_drawn, len(rotors))).argsort(1)
    for number, rotor in enumerate(rotors):
        if statistics is None or options.torsions == "uniform":
            steps = rng.integers(TURNS, size=n_drawn).astype(float)
        else:
            cumulative = statistics.turns(rotor, starts).cumsum(1)[of_start]
            steps = (cumulative < rng.random((n_drawn, 1))).sum(1).astype(float)
        by = (steps + rng.uniform(-0.5, 0.5, n_drawn)) * (2 * np.pi / TURNS)
        turn(result, rotor, np.where(rank[:, number] < n_turned, by, 0.0))
    groups = overlap(result).reshape(n, options.overdraw)
    return result.reshape(n, options.overdraw, *result.shape[1:])[np.arange(n), groups.argmin(1)]
