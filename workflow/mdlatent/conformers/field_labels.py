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

import numpy as np

from mdlatent import files, stage
from mdlatent.conformers import pm7
from mdlatent.conformers.embedding import Deadline, ForceField
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
    found: list[Labels | None] = []
    work = functools.partial(_label, task=task)
    try:
        for molecule, reason in stage.progress(_done(work, molecules, processes), len(molecules), "labelled"):
            if reason:
                log.warning("left out %s: %s", molecule.name, reason)
            found.append(None if reason else _read(_path(molecule, task)))
    except BrokenProcessPool as error:
        raise ProcessLost(
            f"a process that labels molecules ended before its work (memory?); {len(found)} of {len(molecules)} are "
            f"done and kept in {task.folder}: give the same command again, with fewer --processes"
        ) from error
    return found


def _done(
    work: Callable[[Molecule], str], molecules: Sequence[Molecule], processes: int
) -> Iterator[tuple[Molecule, str]]:
    """Each molecule and what `work` said of it, in their order."""
    if processes == 1:
        yield from ((molecule, work(molecule)) for molecule in molecules)
        return
    executor = ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"))
    try:
        yield from zip(molecules, executor.map(work, molecules), strict=True)
    finally:
        executor.shutdown(cancel_futures=True)


def _label(molecule: Molecule, task: Task) -> str:
    """Write the labels of a molecule, if they are not there; why it has none, or an empty text."""
    path = _path(molecule, task)
    if path.exists():
        return ""
    mol, deadline = molecule.bare, Deadline(task.limit_s)
    try:
        learned = task.field and _load(task.field)
        field = learned.relaxer(mol) if learned else SideBySide.mmff(mol, ForceField(mol).properties)
        structures = geometries(mol, field, task.seed, task.counts, deadline)
        known = positions(molecule.mol)[: task.references]
        labels = pm7.label(mol, np.concatenate([known, structures]), deadline)
    except MoleculeError as error:
        return str(error)
    with files.write_beside(path) as temporary:
        np.savez(temporary, **labels._asdict())
    return ""


def _read(path: Path) -> Labels:
    with np.load(path, allow_pickle=False) as stored:
        return Labels(*(stored[name] for name in Labels._fields))


def _path(molecule: Molecule, task: Task) -> Path:
    """The file of a molecule: its name tells the graph, the references, the field, and all else it is made from."""
    bonds = [(b.GetBeginAtomIdx(), b.GetEndAtomIdx(), str(b.GetBondType())) for b in molecule.mol.GetBonds()]
    atoms = [(a.GetAtomicNum(), a.GetFormalCharge(), str(a.GetChiralTag())) for a in molecule.mol.GetAtoms()]
    known = positions(molecule.mol)[: task.references].astype(np.float64)
    made_from = [VERSION, atoms, bonds, hashlib.sha256(known.tobytes()).hexdigest(), asdict(task.counts), task.seed]
    return task.folder / f"{files.stamp(*made_from, task.field and task.field.name)}.npz"


@functools.lru_cache(maxsize=2)
def _load(path: Path) -> LearnedField:
    return LearnedField.load(path)
