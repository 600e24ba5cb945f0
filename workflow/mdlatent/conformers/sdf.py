"""Molecules with their reference conformers in SDF files: read, with what is left out and why, and written.

Consecutive records are conformers of one molecule if they have the same title, or none but the same InChIKey.
Whatever cannot be used is named with its reason, and the others go on.
"""

from __future__ import annotations

import gzip
import itertools
import logging
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, cast

from rdkit import Chem, rdBase

from mdlatent.conformers import metrics
from mdlatent.conformers.molecules import (
    Molecule,
    MoleculeError,
    check,
    inchikey,
    is_broken,
    stereo_from_3d,
    with_conformers,
)

__all__ = ["Refused", "read_files", "read_sdf", "with_unique_names", "write_sdf"]

log = logging.getLogger("mdlatent")

DUPLICATE_ANGSTROM = 0.125


@dataclass(frozen=True)
class Refused:
    """A molecule or record that was left out, and why."""

    name: str
    reason: str


def read_sdf(
    path: str | Path, max_heavy_atoms: int | None = None, duplicate_angstrom: float = DUPLICATE_ANGSTROM
) -> tuple[list[Molecule], list[Refused]]:
    """The molecules of an SDF file (also .gz), each with its conformers, and what was left out and why.

    A conformer within `duplicate_angstrom` (symmetric RMSD of heavy atoms) of an earlier one of its molecule is left
    out (0: all stay); so is one whose graph or stereo differs from the molecule's first, which is named.
    Raises MoleculeError if the file cannot be read or holds no usable molecule.
    """
    molecules: list[Molecule] = []
    refused: list[Refused] = []
    try:
        with _open(Path(path)) as handle, rdBase.BlockLogs():
            for title, records in itertools.groupby(_records(handle, refused), key=lambda record: record[0]):
                try:
                    molecule = _gather(title, [mol for _, mol in records], duplicate_angstrom, refused)
                    check(molecule, max_heavy_atoms)
                except MoleculeError as error:
                    refused.append(Refused(title, str(error).removeprefix(f"{title}: ")))
                else:
                    molecules.append(molecule)
    except (OSError, EOFError) as error:
        raise MoleculeError(f"{path}: cannot be read ({error}); give an SDF file, plain or .gz") from error
    if not molecules:
        reasons = "; ".join(f"{one.name}: {one.reason}" for one in refused[:3])
        raise MoleculeError(f"{path}: got no usable molecule; {reasons or 'the file has no record'}")
    return molecules, refused


def read_files(paths: Iterable[str | Path]) -> list[Molecule]:
    """The molecules of several SDF files; what is left out is said in the log. Raises MoleculeError as `read_sdf`.

    Of molecules with the same name (whose records do not follow one another) the second becomes `name (2)`.
    """
    result: list[Molecule] = []
    for path in paths:
        found, refused = read_sdf(path)
        for bad in refused:
            log.warning("%s: left out %s: %s", path, bad.name, bad.reason)
        log.info(
            "%s: %d molecules, %d with broken graphs; %d conformers, %d duplicates left out",
            path, len(found), sum(one.broken for one in found), sum(one.mol.GetNumConformers() for one in found),
            sum(one.n_duplicates for one in found),
        )  # fmt: skip
        result += found
    return with_unique_names(result)


def with_unique_names(molecules: Iterable[Molecule]) -> list[Molecule]:
    """The same molecules; the second of a name is called `name (2)`."""
    times: Counter[str] = Counter()
    result = []
    for one in molecules:
        times[one.name] += 1
        result.append(one if times[one.name] == 1 else replace(one, name=f"{one.name} ({times[one.name]})"))
    return result


def write_sdf(molecules: Iterable[Molecule], path: str | Path) -> None:
    """Write all conformers of the molecules, a record each, under the molecules' names; `read_sdf` reads them back."""
    with Chem.SDWriter(str(path)) as writer:
        for one in molecules:
            named = Chem.Mol(one.mol)
            named.SetProp("_Name", one.name)
            for conformer in named.GetConformers():
                writer.write(named, confId=conformer.GetId())


def _records(handle: BinaryIO, refused: list[Refused]) -> Iterator[tuple[str, Chem.Mol]]:
    """Title and molecule of each record that can be parsed; the others are named."""
    supplier = Chem.ForwardSDMolSupplier(handle, removeHs=False)
    number = 0
    while not supplier.atEnd():
        try:
            mol = next(supplier)
        except StopIteration:
            return
        number += 1
        if mol is None or mol.GetNumAtoms() == 0:
            refused.append(
                Refused(f"record {number}", "cannot be parsed: broken block, or valences that RDKit refuses")
            )
            continue
        title = mol.GetProp("_Name").strip() if mol.HasProp("_Name") else ""
        yield title or inchikey(mol) or f"record {number}", mol


def _gather(title: str, records: list[Chem.Mol], duplicate_angstrom: float, refused: list[Refused]) -> Molecule:
    """One molecule of the conformers `records`, duplicates left out."""
    first = _with_hydrogens(records[0])
    graph, elements = Chem.MolToSmiles(first), [atom.GetAtomicNum() for atom in first.GetAtoms()]
    for number, record in enumerate(records[1:], 2):
        other = _with_hydrogens(record)
        same_order = [atom.GetAtomicNum() for atom in other.GetAtoms()] == elements
        if not same_order or Chem.MolToSmiles(other) != graph:
            refused.append(
                Refused(title, f"conformer {number}: another graph, stereo or order of atoms than the first")
            )
            continue
        first.AddConformer(other.GetConformer(), assignId=True)
    total = first.GetNumConformers()
    if duplicate_angstrom > 0 and total > 1:
        keep = metrics.distinct(metrics.rmsd_matrix(first), duplicate_angstrom)
        first = with_conformers(first, [first.GetConformer(int(one)).GetPositions() for one in keep])
    first.SetProp("_Name", title)
    return Molecule(title, first, is_broken(first), total - first.GetNumConformers())


def _with_hydrogens(record: Chem.Mol) -> Chem.Mol:
    if any(atom.GetTotalNumHs() for atom in record.GetAtoms()):
        record = Chem.AddHs(record, addCoords=True)
    if record.GetNumConformers() and record.GetConformer().Is3D():
        stereo_from_3d(record)
    return record


def _open(path: Path) -> BinaryIO:
    return cast(BinaryIO, gzip.open(path, "rb") if path.suffix == ".gz" else open(path, "rb"))
