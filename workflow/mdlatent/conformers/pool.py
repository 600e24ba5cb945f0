"""Our generator: torsions drawn from learned distributions on ETKDG's local geometry, relaxed, and chosen from.

1. A few ETKDGv3 conformers give rings and local geometry.
2. Their rotors are turned by angles drawn from the learned distributions.
3. All are relaxed by MMFF94s, many side by side (mmff_relax.py), in stages; what is far above the lowest is dropped on
   the way, and what has lost its stereo. Those that end within a fraction of an Å of each other are one well.
4. Of each well, deepest first, the lowest structure can be chosen, and some of its members as they were after the
   earlier stages: an almost relaxed one is another structure of the same well, a kcal/mol up.
5. All that can be chosen are relaxed by a learned force field (learned_field.py), if there is one, whose wells are
   nearer to those of PM7, then for a few steps by MMFF94s: bonds and angles go back, and with them most of the energy,
   the shape stays.
6. Of a molecule without stereocentres the mirror image of each joins them, at the same energy and no cost.
7. n distinct ones are chosen for the least expected error (selection.expected) with the likelihoods of a learned ranker
   (ranker.py). It weighs the energies of the learned field against those of MMFF94 before step 5, which are a better
   rank than those of MMFF94s. Together they are better than either.

The same with `torsions="uniform"` (angles without preference) or `torsions="etkdg"` (ETKDGv3 conformers alone), without
a learned field, and without a ranker (the energies of wells over `temperature_kcal` in its place), are the ablations.
Memory and time grow with the square of the number of draws, which has a bound, and with the number of atoms.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from rdkit import Chem

from mdlatent.conformers import many_rmsd, selection
from mdlatent.conformers.drawing import draw
from mdlatent.conformers.embedding import Deadline, embed
from mdlatent.conformers.learned_field import LearnedField
from mdlatent.conformers.mmff_relax import SideBySide
from mdlatent.conformers.molecules import MoleculeError, heavy_indices
from mdlatent.conformers.ranker import Ranker, features
from mdlatent.conformers.rotors import find_rotors
from mdlatent.conformers.stereo_signs import signs
from mdlatent.conformers.torsion_statistics import TorsionStatistics
from mdlatent.errors import ConfigError

__all__ = ["Options", "Pool", "build", "choose", "has_mirror", "n_draws", "wells"]

JUDGE = "MMFF94"  # the field of the energies that are chosen by
ALONE = 8.0  # ETKDG conformers, in units of effort, where nothing is turned
MIRROR = np.array([-1.0, 1.0, 1.0])
AUTOMORPHISMS = 200  # looked at: more take long, and then a few like structures pass for different ones


@dataclass(frozen=True)
class Options:
    """The values were chosen on validation molecules. `effort` says what draws and seeds are measured in."""

    torsions: str = "learned"
    seeds: float = 1.5  # ETKDG conformers that draws start from
    draws: float = 40.0
    most_draws: int = 2000
    stages: tuple[int, ...] = (40, 60, 200)  # evaluations of the energy
    far_kcal: float = 20.0  # dropped after any stage but the first if this far above the lowest
    same_angstrom: float = 0.25  # members of a well: so near to its deepest, …
    same_kcal: float = 1.0  # … and no higher
    members: int = 3  # of each well whose earlier structures can be chosen too
    well_kcal: float = 12.0  # wells this far above the deepest are left out
    strain_kcal: float = 6.0  # and earlier structures this far
    mirror: bool = True
    most: int = 440  # to choose from
    field_steps: int = 100  # evaluations of the learned field, …
    back_steps: int = 12  # … and then of MMFF94s
    precision_weight: float = 1.5  # with the ranker
    temperature_kcal: float = 1.0  # without it
    precision_weight_unranked: float = 0.3
    duplicate_angstrom: float = 0.125  # the chosen are so far apart, as long as there are enough


@dataclass(frozen=True)
class Pool:
    """Structures to choose from, deepest wells first: coordinates (B, n_atoms, 3) in Å; energies (B,) in kcal/mol, own
    and of their well, both of `JUDGE` and before a learned field moves them; RMSD (B, B) of heavy atoms in Å, least
    over symmetries; energies (B,) of the learned field, if there is one, after it has moved them."""

    coordinates: np.ndarray
    own_kcal: np.ndarray
    well_kcal: np.ndarray
    rmsd_angstrom: np.ndarray
    field_kcal: np.ndarray | None = None


def effort(n: int, n_rotors: int) -> float:
    """The unit of the sizes of a pool: √(12 n), so n for the usual dozen, times (rotors + 1) / 6 within 1/3 and 4/3.

    How many wells there are to search depends on the molecule more than on how many conformers are wanted; for many
    conformers it is n / 3, so that there are enough to choose from.
    """
    return max(float(np.sqrt(12 * n) * np.clip((n_rotors + 1) / 6, 1 / 3, 4 / 3)), n / 3)


def n_draws(n: int, n_rotors: int, options: Options) -> int:
    """How many structures are relaxed for n conformers."""
    return max(2 * n, min(round(options.draws * effort(n, n_rotors)), options.most_draws))


def build(
    mol: Chem.Mol,
    n: int,
    seed: int,
    options: Options,
    statistics: TorsionStatistics | None,
    deadline: Deadline,
    field: LearnedField | None = None,
) -> Pool:
    """The pool for n conformers. Raises MoleculeError if time is up, it cannot be embedded or has no force field."""
    starts = _starts(mol, n, seed, options, statistics, deadline)
    mmff = SideBySide.mmff(mol)
    structures = _relaxed(mol, starts, n, mmff, options, deadline)
    judged = SideBySide.mmff(mol, JUDGE)
    kcal = np.array([judged.energies(some) for some in structures])  # (stages, draws)
    heavy, same = heavy_indices(mol), many_rmsd.automorphisms(mol, AUTOMORPHISMS)
    mirror = options.mirror and has_mirror(mol)
    deadline.check("comparing wells")
    ends = structures[-1][:, heavy]
    apart = many_rmsd.rmsd_matrix(ends, same)
    if mirror:
        apart = np.minimum(apart, many_rmsd.rmsd_between(ends, ends * MIRROR, same))
    stage, which, well = _candidates(kcal, wells(kcal[-1], apart, options), n, options, 1 + mirror)
    coordinates, own, deep = structures[stage, which], kcal[stage, which], kcal[-1, well]
    of_field = None
    if field:
        coordinates, of_field = _moved(mol, coordinates, field.relaxer(mol), mmff, options, deadline)
    if mirror:
        coordinates = np.concatenate([coordinates, coordinates * MIRROR])
        own, deep = np.tile(own, 2), np.tile(deep, 2)
        of_field = None if of_field is None else np.tile(of_field, 2)
    deadline.check("comparing structures")
    return Pool(coordinates, own, deep, many_rmsd.rmsd_matrix(coordinates[:, heavy], same), of_field)


def _starts(
    mol: Chem.Mol, n: int, seed: int, options: Options, statistics: TorsionStatistics | None, deadline: Deadline
) -> np.ndarray:
    """What is to be relaxed, (n_draws, n_atoms, 3) in Å: conformers of ETKDG, and these turned."""
    rotors = find_rotors(mol)
    unit, wanted = effort(n, len(rotors)), n_draws(n, len(rotors), options)
    if options.torsions == "etkdg" or not rotors:
        return embed(mol, min(wanted, round(max(ALONE * unit, 2 * n))), seed, deadline)
    first = embed(mol, min(wanted, max(2, round(options.seeds * unit))), seed, deadline)
    rng = np.random.default_rng([seed, 1])
    some = statistics if options.torsions == "learned" else None
    return np.concatenate([first, draw(first, rotors, wanted - len(first), some, rng)])


def _relaxed(
    mol: Chem.Mol, starts: np.ndarray, n: int, mmff: SideBySide, options: Options, deadline: Deadline
) -> np.ndarray:
    """Structures after each stage, (stages, B, n_atoms, 3), of those that are not dropped, at least n.

    The first of `starts` tells the stereo.
    """
    now, structures = starts, []
    for number, steps in enumerate(options.stages):
        now, kcal = mmff.relax(now, steps, deadline)
        structures.append(now)
        if number:
            near = kcal <= max(kcal.min() + options.far_kcal, np.sort(kcal)[min(n, len(kcal)) - 1])
            now, structures = now[near], [some[near] for some in structures]
    kept = (signs(mol, now) == signs(mol, starts[:1])).all(1)  # where atoms were on top of each other, hands can change
    if kept.sum() < n:
        raise MoleculeError(f"relaxation keeps the stereo of {kept.sum()} of {len(now)} structures, expected {n}")
    return np.array(structures)[:, kept]


def _moved(
    mol: Chem.Mol,
    coordinates: np.ndarray,
    field: SideBySide,
    mmff: SideBySide,
    options: Options,
    deadline: Deadline,
) -> tuple[np.ndarray, np.ndarray]:
    """Structures (B, n_atoms, 3) relaxed by the learned field, and its energies (B,) in kcal/mol.

    Those that it breaks are left as they are, and have the highest energy that is found.
    """
    moved, of_field = field.relax(coordinates, options.field_steps, deadline)
    moved, of_mmff = mmff.relax(moved, options.back_steps, deadline)
    whole = np.isfinite(of_field) & np.isfinite(of_mmff) & np.isfinite(moved).all((1, 2))
    whole &= (signs(mol, np.where(whole[:, None, None], moved, coordinates)) == signs(mol, coordinates)).all(1)
    highest = of_field[whole].max() if whole.any() else 0.0
    return np.where(whole[:, None, None], moved, coordinates), np.where(whole, of_field, highest)


def wells(kcal: np.ndarray, apart_angstrom: np.ndarray, options: Options) -> np.ndarray:
    """The deepest member of the well of each structure: (B,) indices, from energies (B,) and RMSD (B, B)."""
    result, deepest = np.empty(len(kcal), np.int64), np.empty(0, np.int64)
    for index in np.argsort(kcal, kind="stable"):
        like = deepest[kcal[deepest] > kcal[index] - options.same_kcal]
        near = apart_angstrom[index, like]
        if len(near) and near.min() < options.same_angstrom:
            result[index] = like[near.argmin()]
        else:
            result[index] = index
            deepest = np.append(deepest, index)
    return result


def _candidates(
    kcal: np.ndarray, well: np.ndarray, n: int, options: Options, images: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Stage, structure and deepest member of its well, of all that can be chosen, each in `images` images: at least n
    in all. `kcal` is (stages, B), `well` (B,)."""
    last, order, low = len(kcal) - 1, np.argsort(kcal[-1], kind="stable"), kcal[-1].min()
    found: list[tuple[int, int]] = []
    for deepest in order[well[order] == order]:
        enough = len(found) * images >= n and kcal[last, deepest] > low + options.well_kcal
        if enough or len(found) * images >= max(options.most, n):
            break
        found.append((last, deepest))
        for member in order[well[order] == deepest][: options.members]:
            found += [(stage, member) for stage in range(last) if kcal[stage, member] <= low + options.strain_kcal]
    spare = [(last, one) for one in order if (last, one) not in set(found)] if len(found) * images < n else []
    stage, which = np.array(found + spare[: -(-n // images) - len(found)]).T
    return stage, which, well[which]


def has_mirror(mol: Chem.Mol) -> bool:
    """Whether the mirror image of any conformer is one of the same molecule: no stereocentre, stated or not."""
    centres = (Chem.StereoType.Atom_Tetrahedral, Chem.StereoType.Bond_Atropisomer)
    return not any(one.type in centres for one in Chem.FindPotentialStereo(Chem.Mol(mol)))


def choose(mol: Chem.Mol, pool: Pool, n: int, options: Options, ranker: Ranker | None = None) -> np.ndarray:
    """Indices of the n chosen structures of a pool, lowest own energy first."""
    if ranker is None:
        energies, weight = pool.well_kcal / options.temperature_kcal, options.precision_weight_unranked
    else:
        if ranker.needs_field and pool.field_kcal is None:
            raise ConfigError(
                "conformers: the ranker was learned from pools with a learned force field; give that too (--field)"
            )
        of_field = pool.field_kcal if ranker.needs_field else None
        known = features(pool.well_kcal, pool.own_kcal, pool.rmsd_angstrom, mol.GetNumHeavyAtoms(), of_field)
        energies, weight = ranker.energies(known), options.precision_weight
    chosen = selection.expected(pool.rmsd_angstrom, energies, n, weight, options.duplicate_angstrom)
    return chosen[np.argsort(pool.own_kcal[chosen], kind="stable")]
