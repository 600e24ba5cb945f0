"""Labels of many molecules, in parallel processes, kept in a folder: a run that was stopped goes on with what is there.

A file for each molecule and field, whose name says what it was made from. What comes out depends on neither the number
of processes nor their order. Molecules that fail are named and have no file, so the next run tries them again.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rdkit import Chem

from mdlatent import files, stage
from mdlatent.conformers import pm7
from mdlatent.conformers.embedding import Deadline
from mdlatent.conformers.field_geometries import Counts, geometries
from mdlatent.conformers.learned_field import LearnedField
from mdlatent.conformers.mmff_relax import SideBySide
from mdlatent.conformers.molecules import Molecule, MoleculeError, positions
from mdlatent.conformers.pm7 import Labels
from mdlatent.errors import ProcessLost

__all__ = ["Task", "keep", "label_all"]

log = logging.getLogger("mdlatent")

VERSION = 1  # of what is labelled and how: a change makes all labels anew


@dataclass(frozen=True)
class Task:
    """What is to be labelled of each molecule: so many of its references, and what `field` (None: MMFF94s) finds."""

    counts: Counts
    references: int
    field: Path | None  # of LearnedField, as `keep` has written it
    folder: Path  # of the labels
    seed: int
    limit_s: float  # wall time for a molecule


def keep(field: LearnedField, folder: Path) -> Path:
    """Write a field among its labels, under a name that tells its weights, for Task.field."""
    path = folder / f"field-{field.digest[:16]}.npz"
    if not path.exists():
        field.save(path)
    return path


def label_all(molecules: Sequence[Molecule], task: Task, processes: int = 1) -> list[Labels | None]:
    """Labels of each molecule, None of those that failed, which are named in the log.

    Raises ConfigError if mopactools is not installed, ProcessLost if a process ended before its work.
    """
    pm7.library()
    task.folder.mkdir(parents=True, exist_ok=True)
    jobs = [_job(molecule, task) for molecule in molecules]
    found: list[Labels | None] = []
    work = functools.partial(_label, task=task)
    try:
        for job, reason in stage.progress(_done(work, jobs, processes), len(jobs), "labelled"):
            if reason:
                log.warning("left out %s: %s", job.name, reason)
            found.append(None if reason else _read(job.path))
    except BrokenProcessPool as error:
        raise ProcessLost(
            f"a process that labels molecules ended before its work (memory?); what is done is kept in {task.folder}: "
            "give the same command again, with fewer --processes"
        ) from error
    return found


class _Job(NamedTuple):
    """A molecule without conformers, since RDKit rounds them where molecules go to other processes; its references
    (K, n_atoms, 3) in Å; the file of its labels; of a broken graph a minimum (n_atoms, 3) that tells the charge."""

    name: str
    mol: Chem.Mol
    references: np.ndarray
    path: Path
    minimum: np.ndarray | None


def _job(molecule: Molecule, task: Task) -> _Job:
    """What is to be done. The file's name tells the graph, the references, the field, and all else it is made from."""
    mol, references = molecule.bare, positions(molecule.mol)[: task.references]
    bonds = [(bond.GetBeginAtomIdx(), bond.GetEndAtomIdx(), str(bond.GetBondType())) for bond in mol.GetBonds()]
    atoms = [(atom.GetAtomicNum(), atom.GetFormalCharge()) for atom in mol.GetAtoms()]
    known = hashlib.sha256(references.tobytes()).hexdigest()
    made_from = [VERSION, atoms, bonds, Chem.MolToSmiles(mol), known, asdict(task.counts), task.seed]
    path = task.folder / f"{files.stamp(*made_from, task.field and task.field.name)}.npz"
    return _Job(molecule.name, mol, references, path, positions(molecule.mol)[0] if molecule.broken else None)


def _done(work: Callable[[_Job], str], jobs: Sequence[_Job], processes: int) -> Iterator[tuple[_Job, str]]:
    """Each job and what `work` said of it, in their order."""
    if processes == 1:
        yield from ((job, work(job)) for job in jobs)
        return
    executor = ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"))
    try:
        yield from zip(jobs, executor.map(work, jobs), strict=True)
    finally:
        executor.shutdown(cancel_futures=True)


def _label(job: _Job, task: Task) -> str:
    """Write the labels of a molecule, if they are not there; why it has none, or an empty text."""
    if job.path.exists():
        return ""
    mol, deadline = job.mol, Deadline(task.limit_s)
    try:
        learned = task.field and _load(task.field)
        field = learned.relaxer(mol) if learned else SideBySide.mmff(mol)
        structures = geometries(mol, field, task.seed, task.counts, deadline)
        charge = None if job.minimum is None else pm7.likely_charge(mol, job.minimum)
        labels = pm7.label(mol, np.concatenate([job.references, structures]), deadline, charge)
    except MoleculeError as error:
        return str(error)
    with files.write_beside(job.path) as temporary:
        np.savez(
            temporary,
            coordinates=labels.coordinates.astype(np.float32),  # all that learning looks at
            energies=labels.energies,
            slopes=labels.slopes.astype(np.float32),
        )
    return ""


def _read(path: Path) -> Labels:
    with np.load(path, allow_pickle=False) as stored:
        return Labels(*(stored[name] for name in Labels._fields))


@functools.lru_cache(maxsize=2)
def _load(path: Path) -> LearnedField:
    return LearnedField.load(path)
