"""Generators of conformers behind one function: molecule, number, seed → conformers.

| name | what it does |
|---|---|
| `etkdg` | RDKit's ETKDGv3 as it comes |
| `etkdg_mmff` | the same, relaxed by MMFF94s |
| `etkdg_cluster` | 20 n of ETKDGv3, relaxed, n by K-means on superposed coordinates (arXiv 2302.07061) |
| `etkdg_lowest` | the same 20 n, the n of lowest energy |
| `torsions` | ours: learned torsions, relaxed by MMFF94s, then by a learned force field; a learned ranker (pool.py) |
| `torsions_unranked` | the same without the ranker: energy in its place |
| `torsions_mmff` | without ranker and learned force field: learned torsions alone |
| `torsions_uniform` | nothing learned: angles drawn uniformly |
| `etkdg_pool` | nothing learned, no torsions drawn: as many ETKDGv3 conformers, relaxed and chosen alike |
| `vae` | the conformation autoencoder (autoencoder.py, arXiv 2101.01618): z ~ N(0, 1) decoded, nothing relaxed |

One thread; the same molecule, number and seed give the same conformers, bit by bit.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rdkit import Chem

from mdlatent.conformers import pool, selection
from mdlatent.conformers.embedding import Deadline, ForceField, embed
from mdlatent.conformers.learned_field import LearnedField
from mdlatent.conformers.molecules import MoleculeError, heavy_indices, positions, with_conformers
from mdlatent.conformers.ranker import Ranker
from mdlatent.conformers.torsion_statistics import TorsionStatistics
from mdlatent.errors import ConfigError, MdlatentError

if TYPE_CHECKING:
    from mdlatent.conformers.autoencoder import ConformationAutoencoder

__all__ = ["GENERATORS", "LIMIT_S", "generate", "shipped_field", "shipped_ranker", "shipped_statistics"]

LIMIT_S = 60.0  # of wall time, for a molecule
STEPS = 500
OVERSAMPLING = 20


@dataclass(frozen=True)
class Task:
    """What a generator is told."""

    mol: Chem.Mol
    n: int
    seed: int
    deadline: Deadline
    statistics: TorsionStatistics | None
    options: pool.Options
    ranker: Ranker | None
    field: LearnedField | None
    autoencoder: Path | None


def generate(
    generator: str,
    mol: Chem.Mol,
    n: int,
    seed: int = 0,
    limit_s: float = LIMIT_S,
    statistics: TorsionStatistics | None = None,
    options: pool.Options | None = None,
    ranker: Ranker | None = None,
    field: LearnedField | None = None,
    autoencoder: Path | None = None,
) -> Chem.Mol:
    """A copy of `mol` (explicit hydrogens; conformers of it are not looked at) with `n` conformers in Å.

    `statistics`, `field` (learned_field.py) and `ranker` are those of `torsions`, by default the ones that come with
    the package; `options` the sizes of the pool; `autoencoder` the file of trained weights that `vae` needs. Where a
    molecule has fewer than n distinct conformers, some are alike.
    Raises ConfigError for a generator that does not exist or lacks its weights, MoleculeError if the molecule cannot be
    embedded, has no force field, or is not done within `limit_s` seconds.
    """
    if generator not in GENERATORS:
        raise ConfigError(f"conformers: got generator {generator!r}, expected one of: {', '.join(GENERATORS)}")
    if n < 1:
        raise ConfigError(f"conformers: got n = {n}, expected at least 1")
    work = Chem.Mol(mol)
    work.RemoveAllConformers()
    try:
        task = Task(work, n, seed, Deadline(limit_s), statistics, options or pool.Options(), ranker, field, autoencoder)
        made = GENERATORS[generator](task)
    except (RuntimeError, ValueError) as error:
        if isinstance(error, MdlatentError):
            raise
        raise MoleculeError(f"{generator}: RDKit failed: {error}") from error  # an invariant of its own was violated
    return with_conformers(work, made)


def etkdg(task: Task) -> np.ndarray:
    """ETKDGv3: (n, n_atoms, 3) in Å."""
    return embed(task.mol, task.n, task.seed, task.deadline)


def etkdg_mmff(task: Task) -> np.ndarray:
    """ETKDGv3 relaxed by MMFF94s."""
    return ForceField(task.mol).relax(etkdg(task), STEPS, task.deadline)[0]


def etkdg_cluster(task: Task) -> np.ndarray:
    """20 n relaxed conformers, n by K-means of heavy atoms."""
    many, _ = _many(task)
    heavy = heavy_indices(task.mol)
    return many[selection.k_means(many[:, heavy], task.n, task.seed)]


def etkdg_lowest(task: Task) -> np.ndarray:
    """20 n relaxed conformers, the n of lowest energy."""
    many, energies = _many(task)
    return many[selection.lowest(energies, task.n)]


def from_pool(torsions: str, with_field: bool, ranked: bool, task: Task) -> np.ndarray:
    """Our pool and choice with torsions learned, uniform, or as ETKDGv3 makes them, and with or without the learned
    force field and the ranker."""
    options = replace(task.options, torsions=torsions)
    statistics = (task.statistics or shipped_statistics()) if torsions == "learned" else None
    field = (task.field or shipped_field()) if with_field else None
    made = pool.build(task.mol, task.n, task.seed, options, statistics, task.deadline, field)
    ranker = (task.ranker or shipped_ranker()) if ranked else None
    return made.coordinates[pool.choose(task.mol, made, task.n, options, ranker)]


def vae(task: Task) -> np.ndarray:
    """The variational conformation autoencoder; one ETKDGv3 conformer says how equal neighbours are listed."""
    from mdlatent.conformers.decoded_conformers import Codec

    if task.autoencoder is None:
        raise ConfigError(
            "conformers: generator 'vae' needs trained weights; give --autoencoder model.pt, the file that "
            "`python -m mdlatent.conformers.fit_autoencoder --variational` writes"
        )
    handed = with_conformers(task.mol, embed(task.mol, 1, task.seed, task.deadline))
    made = Codec(_autoencoder(task.autoencoder), handed).generate(task.n, task.seed)
    task.deadline.check("decoding")
    return positions(made)


@functools.cache
def _autoencoder(path: Path) -> ConformationAutoencoder:
    from mdlatent.conformers.autoencoder_file import load

    return load(path)[0]


def _many(task: Task) -> tuple[np.ndarray, np.ndarray]:
    made = embed(task.mol, OVERSAMPLING * task.n, task.seed, task.deadline)
    return ForceField(task.mol).relax(made, STEPS, task.deadline)


@functools.cache
def shipped_statistics() -> TorsionStatistics:
    """The torsion statistics that come with the package; their provenance is in them."""
    return TorsionStatistics.load(Path(__file__).with_name("torsions.npz"))


@functools.cache
def shipped_field() -> LearnedField:
    """The learned force field that comes with the package; its provenance is in it."""
    return LearnedField.load(Path(__file__).with_name("field.npz"))


@functools.cache
def shipped_ranker() -> Ranker:
    """The ranker that comes with the package; its provenance is in it."""
    return Ranker.load(Path(__file__).with_name("ranker.npz"))


GENERATORS: dict[str, Callable[[Task], np.ndarray]] = {
    "etkdg": etkdg,
    "etkdg_mmff": etkdg_mmff,
    "etkdg_cluster": etkdg_cluster,
    "etkdg_lowest": etkdg_lowest,
    "torsions": functools.partial(from_pool, "learned", True, True),
    "torsions_unranked": functools.partial(from_pool, "learned", True, False),
    "torsions_mmff": functools.partial(from_pool, "learned", False, False),
    "torsions_uniform": functools.partial(from_pool, "uniform", False, False),
    "etkdg_pool": functools.partial(from_pool, "etkdg", False, False),
    "vae": vae,
}
