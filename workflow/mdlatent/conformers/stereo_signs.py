"""The hands of stereocentres and the sides of stereo double bonds in many conformers, as signs."""

from __future__ import annotations

import numpy as np
from rdkit import Chem

__all__ = ["signs"]


def signs(mol: Chem.Mol, coordinates_angstrom: np.ndarray) -> np.ndarray:
    """±1 (0 where flat) for each stereo element that is stated, in conformers (B, n_atoms, 3): (B, elements) float64.

    Of a centre the sign of the volume of three of its neighbours, of a double bond that of the cosine of a dihedral.
    Hydrogens must be explicit.
    """
    found = []
    for element in Chem.FindPotentialStereo(Chem.Mol(mol)):
        if element.specified != Chem.StereoSpecified.Specified:
            continue
        if element.type == Chem.StereoType.Atom_Tetrahedral:
            neighbours = [atom.GetIdx() for atom in mol.GetAtomWithIdx(element.centeredOn).GetNeighbors()]
            a, b, c = (
                coordinates_angstrom[:, one] - coordinates_angstrom[:, element.centeredOn] for one in neighbours[:3]
            )
            found.append((a * np.cross(b, c)).sum(1))
        elif element.type == Chem.StereoType.Bond_Double:
            bond = mol.GetBondWithIdx(element.centeredOn)
            j, k = bond.GetBeginAtom(), bond.GetEndAtom()
            i = next(atom.GetIdx() for atom in j.GetNeighbors() if atom.GetIdx() != k.GetIdx())
            m = next(atom.GetIdx() for atom in k.GetNeighbors() if atom.GetIdx() != j.GetIdx())
            x = [coordinates_angstrom[:, one] for one in (i, j.GetIdx(), k.GetIdx(), m)]
            axis = x[2] - x[1]
            found.append((np.cross(x[0] - x[1], axis) * np.cross(x[3] - x[2], axis)).sum(1))
    return np.sign(np.stack(found, 1)) if found else np.zeros((len(coordinates_angstrom), 0))
