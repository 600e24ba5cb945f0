"""Molecules and their reference conformers, from SMILES or as sdf.py reads them, and what is refused.

Coordinates are in Å, all hydrogens explicit.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from rdkit import Chem, rdBase
from rdkit.Chem import rdForceFieldHelpers
from rdkit.Chem.EnumerateStereoisomers import EnumerateStereoisomers, StereoEnumerationOptions
from rdkit.Chem.Scaffolds import MurckoScaffold

from mdlatent.errors import DataError

__all__ = [
    "Molecule",
    "MoleculeError",
    "check",
    "from_smiles",
    "heavy_indices",
    "inchikey",
    "is_broken",
    "positions",
    "stereo_from_3d",
    "stereoisomers",
    "with_conformers",
]

# A cationic nitrogen or carbon with two double bonds and no anion beside it: bonds guessed wrongly from a geometry.
_OVERBONDED = Chem.MolFromSmarts("[#6,#7;+1](=[+0,+1])=[+0,+1]")
_DOUBLY = Chem.MolFromSmarts("[#7+]=*")
_SULPHURANE = Chem.MolFromSmarts("[SX4v4]")

_HANDED = (Chem.CHI_UNSPECIFIED, Chem.CHI_TETRAHEDRAL_CW, Chem.CHI_TETRAHEDRAL_CCW)


class MoleculeError(DataError):
    """A molecule that cannot be used; the message names it and says why."""


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
        return inchikey(self.mol)[:14]

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


def from_smiles(smiles: str, name: str = "") -> Molecule:
    """A molecule from SMILES, hydrogens added, without conformers. Raises MoleculeError if it cannot be used."""
    name = name or smiles
    with rdBase.BlockLogs():
        mol = Chem.MolFromSmiles(smiles)
    if mol is None or mol.GetNumAtoms() == 0:
        raise MoleculeError(f"{name}: {smiles!r} is not a SMILES that RDKit understands; check brackets and valences")
    _forget_bends(mol)
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
    isomers = list(EnumerateStereoisomers(mol, options=options))
    for isomer in isomers:
        _forget_bends(isomer)
    found = sorted({Chem.MolToSmiles(isomer) for isomer in isomers})
    if len(found) == 1:
        return [from_smiles(found[0], name)]
    return [from_smiles(one, f"{name}.{number}") for number, one in enumerate(found, 1)]


def stereo_from_3d(mol: Chem.Mol, conformer_id: int = -1) -> None:
    """Set the stereo of `mol`, R/S and E/Z alone, to that of a conformer, in place."""
    Chem.AssignStereochemistryFrom3D(mol, conformer_id, replaceExistingTags=True)
    _forget_bends(mol)


def _forget_bends(mol: Chem.Mol) -> None:
    """Take stereo from atoms that have no lasting hand, in place.

    RDKit also reads square-planar, trigonal-bipyramidal and octahedral centres off a geometry. These belong to metals,
    which no force field here knows; at sulphur or phosphorus they tell how the bonds happen to be bent, which differs
    among conformers of one molecule. So does the hand of a sulphurane, which turns over by pseudorotation.
    """
    fluxional = _sulphuranes(mol)
    bent = [atom for atom in mol.GetAtoms() if atom.GetChiralTag() not in _HANDED or atom.GetIdx() in fluxional]
    for atom in bent:
        atom.SetChiralTag(Chem.CHI_UNSPECIFIED)
        atom.ClearProp("_chiralPermutation")
    if bent:
        Chem.AssignStereochemistry(mol, cleanIt=True, force=True)


def _sulphuranes(mol: Chem.Mol) -> set[int]:
    """Sulphur atoms with four single bonds."""
    return {index for (index,) in mol.GetSubstructMatches(_SULPHURANE)}


def is_broken(mol: Chem.Mol) -> bool:
    """Whether the graph has radicals or over-bonded cations, as bonds guessed from a geometry have."""
    if any(atom.GetNumRadicalElectrons() for atom in mol.GetAtoms()) or mol.HasSubstructMatch(_OVERBONDED):
        return True
    # Iminium written for an imine: a cation that no anion balances, in a molecule of a set of neutral ones, cannot be
    # told from a true cation, except where there is more than one.
    return len(mol.GetSubstructMatches(_DOUBLY)) > 1 and Chem.GetFormalCharge(mol) > 1


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


def _undefined(mol: Chem.Mol) -> list[str]:
    """Stereo that the graph leaves open, as `atom 3 (C)` or `bond 2-3`; not of nitrogen and sulphuranes that invert."""
    found = []
    heavy = Chem.RemoveHs(mol)
    fluxional = _sulphuranes(heavy)
    for info in Chem.FindPotentialStereo(heavy):
        if info.specified != Chem.StereoSpecified.Unspecified:
            continue
        if info.type == Chem.StereoType.Atom_Tetrahedral and info.centeredOn not in fluxional:
            found.append(f"atom {info.centeredOn} ({heavy.GetAtomWithIdx(info.centeredOn).GetSymbol()})")
        elif info.type == Chem.StereoType.Bond_Double:
            bond = heavy.GetBondWithIdx(info.centeredOn)
            if not any(_n_double(atom) > 1 for atom in (bond.GetBeginAtom(), bond.GetEndAtom())):  # as in an azide
                found.append(f"bond {bond.GetBeginAtomIdx()}-{bond.GetEndAtomIdx()}")
    return found


def _n_double(atom: Chem.Atom) -> int:
    return sum(bond.GetBondType() == Chem.BondType.DOUBLE for bond in atom.GetBonds())


def inchikey(mol: Chem.Mol) -> str:
    """The InChIKey of a molecule; empty where InChI cannot be made."""
    with rdBase.BlockLogs():
        return str(Chem.MolToInchiKey(mol))
