"""Our generator: torsions drawn from learned distributions on ETKDG's local geometry, relaxed, and chosen from.

1. A few ETKDGv3 conformers give rings and local geometry.
2. Their rotors are turned by angles drawn from the learned distributions; of several draws the one with the least
   overlap of atoms is kept.
3. All are relaxed by MMFF94s in stages, after each of which the higher ones are dropped. The geometries of every stage
   stay in the pool: an almost relaxed one is another structure of the same well, a kcal/mol up. Many short stages
   give many of them for the same work.
4. Of a molecule without stereocentres the mirror image of each joins the pool, at the same energy and no cost.
5. n distinct ones are chosen for the least expected error (selection.expected) with the likelihoods of a learned ranker
   (ranker.py). Its energies are those of MMFF94: as a rank of what MMFF94s relaxed they are a little better.

The same with `torsions="uniform"` (angles without preference) or `torsions="etkdg"` (ETKDGv3 conformers alone), and
without a ranker (the energies of wells over `temperature_kcal` in its place), are the ablations. Memory grows with the
pool times the square of the number of atoms.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from rdkit import Chem

from mdlatent.conformers import metrics, selection
from mdlatent.conformers.embedding import Deadline, ForceField, embed
from mdlatent.conformers.mmff_relax import ManyRelaxed
from mdlatent.conformers.molecules import with_conformers
from mdlatent.conformers.ranker import Ranker, features
from mdlatent.conformers.rotors import Rotor, find_rotors, turn
from mdlatent.conformers.torsion_statistics import TURNS, TorsionStatistics

__all__ = ["Options", "Pool", "build", "candidates", "choose", "has_mirror"]

JUDGE = "MMFF94"  # the field of the energies that are chosen by
AUTOMORPHISMS = 200  # looked at in a choice: more cost minutes, and then a few like structures pass for different ones


@dataclass(frozen=True)
class Options:
    """The values were chosen on validation molecules. `effort` says what sizes are measured in."""

    torsions: str = "learned"
    seeds: float = 0.5
    stages: tuple[tuple[float, int], ...] = ((8.0, 30), (5.0, 40), (3.0, 60), (2.0, 150))  # how many, BFGS steps
    mirror: bool = True
    overdraw: int = 4  # draws per candidate, of which the least overlapping is kept
    well_kcal: float = 12.0  # wells this far above the deepest are left out
    strain_kcal: float = 6.0  # and structures this far
    most: int = 400  # structures to choose from
    precision_weight: float = 2.0  # with the ranker
    temperature_kcal: float = 1.0  # without it
    precision_weight_unranked: float = 0.3
    duplicate_angstrom: float = 0.125  # the chosen are so far apart, as long as there are enough


@dataclass(frozen=True)
class Pool:
    """Structures to choose from: coordinates (B, n_atoms, 3) in Å; energies (B,) in kcal/mol, own and of their well.

    Both are those of `JUDGE`. The energy of the well is that of the same candidate after its last stage.
    """

    coordinates: np.ndarray
    own_kcal: np.ndarray
    well_kcal: np.ndarray


def effort(n: int, n_rotors: int) -> float:
    """The unit of the sizes of a pool: √(12 n), so n for the usual dozen, times (rotors + 1) / 6 within 1/3 and 4/3.

    How many wells there are to search depends on the molecule more than on how many conformers are wanted; for many
    conformers it is n / 3, so that there are enough to choose from.
    """
    return max(float(np.sqrt(12 * n) * np.clip((n_rotors + 1) / 6, 1 / 3, 4 / 3)), n / 3)


def build(
    mol: Chem.Mol, n: int, seed: int, options: Options, statistics: TorsionStatistics | None, deadline: Deadline
) -> Pool:
    """The pool for n conformers."""
    rng = np.random.default_rng([seed, 1])
    rotors = find_rotors(mol)
    sizes = [max(3, round(share * effort(n, len(rotors)))) for share, _ in options.stages]
    if options.torsions == "etkdg" or not rotors:
        now = embed(mol, sizes[0] if rotors else min(sizes[0], 2 * n), seed, deadline)
    else:
        now = embed(mol, min(sizes[0], max(2, round(options.seeds * effort(n, len(rotors))))), seed, deadline)
        drawn = draw(now, rotors, sizes[0] - len(now), len(rotors), statistics, Overlap(mol), options, rng)
        now = np.concatenate([now, drawn])
    field = ManyRelaxed(mol, ForceField(mol).properties)
    candidate = np.arange(len(now))
    well = np.full(len(now), np.inf)
    kept: list[tuple[np.ndarray, np.ndarray]] = []
    for size, (_, steps) in zip(sizes, options.stages, strict=True):
        best = selection.lowest(well[candidate], size)
        candidate = candidate[best]
        now, well[candidate] = field.relax(now[best], steps, deadline)
        kept.append((now, candidate))
    coordinates, of = np.concatenate([some for some, _ in kept]), np.concatenate([some for _, some in kept])
    own_kcal = ForceField(mol, JUDGE).energies(coordinates)
    well[of] = own_kcal  # the last of a candidate stays
    pool = Pool(coordinates, own_kcal, well[of])
    return _mirrored(pool) if options.mirror and has_mirror(mol) else pool


def has_mirror(mol: Chem.Mol) -> bool:
    """Whether the mirror image of any conformer is one of the same molecule: no stereocentre, stated or not."""
    centres = (Chem.StereoType.Atom_Tetrahedral, Chem.StereoType.Bond_Atropisomer)
    return not any(one.type in centres for one in Chem.FindPotentialStereo(Chem.Mol(mol)))


def _mirrored(pool: Pool) -> Pool:
    both = np.concatenate([pool.coordinates, pool.coordinates * np.array([-1.0, 1.0, 1.0])])
    return Pool(both, np.tile(pool.own_kcal, 2), np.tile(pool.well_kcal, 2))


def candidates(pool: Pool, n: int, options: Options) -> np.ndarray:
    """Indices of the structures that may be chosen, deepest wells first: all that are low enough, but at least n."""
    order = np.lexsort((pool.own_kcal, pool.well_kcal))
    low = pool.own_kcal.min()
    good = (pool.well_kcal[order] <= low + options.well_kcal) & (pool.own_kcal[order] <= low + options.strain_kcal)
    return np.concatenate([order[good][: options.most], order[~good][: max(0, n - int(good.sum()))]])


def choose(mol: Chem.Mol, pool: Pool, n: int, options: Options, ranker: Ranker | None = None) -> np.ndarray:
    """Indices of the n chosen structures of a pool, lowest own energy first."""
    order = candidates(pool, n, options)
    rmsd = metrics.rmsd_matrix(with_conformers(mol, pool.coordinates[order]), AUTOMORPHISMS)
    if ranker is None:
        energies, weight = pool.well_kcal[order] / options.temperature_kcal, options.precision_weight_unranked
    else:
        known = features(pool.well_kcal[order], pool.own_kcal[order], rmsd, mol.GetNumHeavyAtoms())
        energies, weight = ranker.energies(known), options.precision_weight
    chosen = order[selection.expected(rmsd, energies, n, weight, options.duplicate_angstrom)]
    return chosen[np.argsort(pool.own_kcal[chosen], kind="stable")]


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
