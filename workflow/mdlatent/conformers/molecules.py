"""Molecules and their reference conformers, from SDF and SMILES, and what is refused.

Consecutive SDF records are conformers of one molecule if they have the same title, or none but the same InChIKey.
Whatever cannot be used is named with its reason, and the others go on. Coordinates are in Å, all hydrogens explicit.
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

import numpy as np
from rdkit import Chem, rdBase
from rdkit.Chem import rdForceFieldHelpers
from rdkit.Chem.EnumerateStereoisomers import EnumerateStereoisomers, StereoEnumerationOptions
from rdkit.Chem.Scaffolds import MurckoScaffold

from mdlatent.conformers import metrics
from mdlatent.errors import DataError

__all__ = [
    "Molecule",
    "MoleculeError",
    "Refused",
    "check",
    "from_smiles",
    "heavy_indices",
    "is_broken",
    "positions",
    "read_files",
    "read_sdf",
    "stereoisomers",
    "with_conformers",
    "with_unique_names",
    "write_sdf",
]

log = logging.getLogger("mdlatent")

DUPLICATE_ANGSTROM = 0.125
# A cationic nitrogen or carbon with two double bonds and no anion beside it: bonds guessed wrongly from a geometry.
_OVERBONDED = Chem.MolFromSmarts("[#6,#7;+1](=[+0,+1])=[+0,+1]")
_DOUBLY = Chem.MolFromSmarts("[#7+]=*")


class MoleculeError(DataError):
    """A molecule that cannot be used; the message names it and says why."""


@dataclass(frozen=True)
class Refused:
    """A molecule or record that was left out, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class Molecule:
    """A molecule with explicit hydrogens; its conformers, in Å, are the references (none if it came from SMILES)."""

    name: str
    mol: Chem.Mol
    broken: bool = False
    n_duplicates: int = 0

    @property
    def key(self) -> str:
        """Skeleton of the InChIKey (first 14 characters): the same for stereoisomers and isotopes."""
        return _inchikey(self.mol)[:14]

    @property
    def scaffold(self) -> str:
        """SMILES of the Murcko scaffold without stereo; of a molecule without rings, its own skeleton's key."""
        with rdBase.BlockLogs():
            found = MurckoScaffold.MurckoScaffoldSmiles(mol=Chem.RemoveHs(self.mol), includeChirality=False)
        return found or f"acyclic {self.key}"

    @property
    def bare(self) -> Chem.Mol:
        """The molecule without conformers: all that a generator is told."""
        result = Chem.Mol(self.mol)
        result.RemoveAllConformers()
        return result


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


def from_smiles(smiles: str, name: str = "") -> Molecule:
    """A molecule from SMILES, hydrogens added, without conformers. Raises MoleculeError if it cannot be used."""
    name = name or smiles
    with rdBase.BlockLogs():
        mol = Chem.MolFromSmiles(smiles)
    if mol is None or mol.GetNumAtoms() == 0:
        raise MoleculeError(f"{name}: {smiles!r} is not a SMILES that RDKit understands; check brackets and valences")
    result = Molecule(name, Chem.AddHs(mol), is_broken(mol))
    check(result, with_reference=False)
    return result


def check(molecule: Molecule, max_heavy_atoms: int | None = None, with_reference: bool = True) -> None:
    """Raise MoleculeError, naming the molecule, if no generator or no measure here could treat it."""
    name, mol = molecule.name, molecule.mol
    if (pieces := len(Chem.GetMolFrags(mol))) > 1:
        raise MoleculeError(f"{name}: disconnected, got {pieces} pieces, expected one; remove salts and solvents")
    n_heavy = mol.GetNumHeavyAtoms()
    if max_heavy_atoms is not None and n_heavy > max_heavy_atoms:
        raise MoleculeError(f"{name}: too large, got {n_heavy} heavy atoms, expected at most {max_heavy_atoms}")
    if n_heavy < 3:
        raise MoleculeError(
            f"{name}: got {n_heavy} heavy atoms, expected at least 3: it has no conformers to tell apart"
        )
    with rdBase.BlockLogs():
        known = rdForceFieldHelpers.MMFFHasAllMoleculeParams(Chem.Mol(mol))  # it changes aromaticity in place
    if not known:
        elements = ", ".join(sorted({atom.GetSymbol() for atom in mol.GetAtoms()}))
        raise MoleculeError(f"{name}: MMFF94 has no parameters for an element or bond of it (it has {elements})")
    if with_reference and not any(conformer.Is3D() for conformer in mol.GetConformers()):
        raise MoleculeError(f"{name}: no 3-D reference, its coordinates are flat; give 3-D coordinates")
    if undefined := _undefined(mol):
        raise MoleculeError(
            f"{name}: undefined stereo at {', '.join(undefined)}; write it out, or ask for all stereoisomers "
            "(`stereoisomers`, on the command line --enumerate-stereo)"
        )


def stereoisomers(smiles: str, name: str = "", at_most: int = 32) -> list[Molecule]:
    """All stereoisomers that a SMILES leaves open, as `<name>.1`, `<name>.2` …, at most so many."""
    name = name or smiles
    with rdBase.BlockLogs():
        mol = Chem.MolFromSmiles(smiles)
    if mol is None:
        raise MoleculeError(f"{name}: {smiles!r} is not a SMILES that RDKit understands; check brackets and valences")
    options = StereoEnumerationOptions(unique=True, maxIsomers=at_most, onlyUnassigned=True)
    found = sorted({Chem.MolToSmiles(isomer) for isomer in EnumerateStereoisomers(mol, options=options)})
    if len(found) == 1:
        return [from_smiles(found[0], name)]
    return [from_smiles(one, f"{name}.{number}") for number, one in enumerate(found, 1)]


def is_broken(mol: Chem.Mol) -> bool:
    """Whether the graph has radicals or over-bonded cations, as bonds guessed from a geometry have."""
    if any(atom.GetNumRadicalElectrons() for atom in mol.GetAtoms()) or mol.HasSubstructMatch(_OVERBONDED):
        return True
    # Iminium written for an imine: a cation that no anion balances, in a molecule of a set of neutral ones, cannot be
    # told from a true cation, except where there is more than one.
    return len(mol.GetSubstructMatches(_DOUBLY)) > 1 and Chem.GetFormalCharge(mol) > 1


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
        yield title or _inchikey(mol) or f"record {number}", mol


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


def with_conformers(mol: Chem.Mol, coordinates_angstrom: Iterable[np.ndarray]) -> Chem.Mol:
    """A copy of `mol` with exactly these conformers, each (n_atoms, 3) in Å, numbered from 0."""
    result = Chem.Mol(mol)
    result.RemoveAllConformers()
    for positions in coordinates_angstrom:
        conformer = Chem.Conformer(mol.GetNumAtoms())
        conformer.Set3D(True)
        conformer.SetPositions(np.ascontiguousarray(positions, dtype=np.float64))
        result.AddConformer(conformer, assignId=True)
    return result


def heavy_indices(mol: Chem.Mol) -> list[int]:
    """Indices of the atoms that are no hydrogens, ascending."""
    return [atom.GetIdx() for atom in mol.GetAtoms() if atom.GetAtomicNum() > 1]


def positions(mol: Chem.Mol) -> np.ndarray:
    """Coordinates of all conformers: (n_conformers, n_atoms, 3) in Å."""
    if not mol.GetNumConformers():
        return np.zeros((0, mol.GetNumAtoms(), 3))
    return np.stack([conformer.GetPositions() for conformer in mol.GetConformers()])


def _with_hydrogens(record: Chem.Mol) -> Chem.Mol:
    if any(atom.GetTotalNumHs() for atom in record.GetAtoms()):
        record = Chem.AddHs(record, addCoords=True)
    if record.GetNumConformers() and record.GetConformer().Is3D():
        Chem.AssignStereochemistryFrom3D(record)
    return record


def _undefined(mol: Chem.Mol) -> list[str]:
    """Stereo that the graph leaves open, as `atom 3 (C)` or `bond 2-3`; nitrogen that inverts does not count."""
    found = []
    heavy = Chem.RemoveHs(mol)
    for info in Chem.FindPotentialStereo(heavy):
        if info.specified != Chem.StereoSpecified.Unspecified:
            continue
        if info.type == Chem.StereoType.Atom_Tetrahedral:
            found.append(f"atom {info.centeredOn} ({heavy.GetAtomWithIdx(info.centeredOn).GetSymbol()})")
        elif info.type == Chem.StereoType.Bond_Double:
            bond = heavy.GetBondWithIdx(info.centeredOn)
            if not any(_n_double(atom) > 1 for atom in (bond.GetBeginAtom(), bond.GetEndAtom())):  # as in an azide
                found.append(f"bond {bond.GetBeginAtomIdx()}-{bond.GetEndAtomIdx()}")
    return found


def _n_double(atom: Chem.Atom) -> int:
    return sum(bond.GetBondType() == Chem.BondType.DOUBLE for bond in atom.GetBonds())


def _inchikey(mol: Chem.Mol) -> str:
    with rdBase.BlockLogs():
        return str(Chem.MolToInchiKey(mol))


def _open(path: Path) -> BinaryIO:
    return cast(BinaryIO, gzip.open(path, "rb") if path.suffix == ".gz" else open(path, "rb"))
