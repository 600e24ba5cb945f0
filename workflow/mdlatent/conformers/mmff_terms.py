"""The terms of MMFF94 and MMFF94s of a molecule as arrays, with RDKit's parameters (Halgren 1996 and 1999;
Tosco, Stiefl & Landrum 2014, doi:10.1186/s13321-014-0037-3).

RDKit knows atom types and parameters; here they are only written down, so that the energies of many conformers can be
computed side by side (mmff_kernels.py). Å, kcal/mol, radians, elementary charges.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from rdkit import Chem

__all__ = ["Terms", "terms"]

MDYNE = 143.9325  # kcal/mol in 1 mdyne Å
COULOMB = 332.0716  # kcal/mol Å
SCALED_1_4 = 0.75  # electrostatics of atoms three bonds apart
LINEAR_TYPES = {4, 42, 53, 61}  # of central atoms: C≡, N≡, =N=, ≡N⁺–


class Terms(NamedTuple):
    """Atoms (k, 2 to 4) int64 and parameters (k, …) float32 of each kind of term."""

    bonds: np.ndarray
    bond_values: np.ndarray  # force constant, length
    angles: np.ndarray
    angle_values: np.ndarray  # force constant, angle; of the coupling with both bonds: constants, their lengths
    linear: np.ndarray
    linear_values: np.ndarray  # force constant
    planes: np.ndarray  # outer atom, centre, the two others
    plane_values: np.ndarray  # force constant
    torsions: np.ndarray
    torsion_values: np.ndarray  # V1, V2, V3
    pairs: np.ndarray
    pair_values: np.ndarray  # 1 / R*, ε, q_i q_j


def terms(mol: Chem.Mol, properties: Any, every_torsion: bool = False) -> Terms:
    """All terms that are not zero. `properties` are RDKit's, which tell MMFF94 from MMFF94s. With `every_torsion` also
    torsions that MMFF has no values for, as zeros, for those who have values of their own."""
    found: dict[str, list[tuple[tuple[int, ...], tuple[float, ...]]]] = {
        name: [] for name in ("bonds", "angles", "linear", "planes", "torsions", "pairs")
    }
    for bond in mol.GetBonds():
        i, j = bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()
        if known := properties.GetMMFFBondStretchParams(mol, i, j):
            found["bonds"].append(((i, j), (MDYNE * known[1] / 2, known[2])))
    for atom in mol.GetAtoms():
        _around(mol, properties, atom, found)
    for bond in mol.GetBonds():
        _torsions(mol, properties, bond, every_torsion, found["torsions"])
    apart = Chem.GetDistanceMatrix(mol)
    charges = [properties.GetMMFFPartialCharge(index) for index in range(mol.GetNumAtoms())]
    for i, j in zip(*np.nonzero(np.triu(apart > 2)), strict=True):
        known = properties.GetMMFFVdWParams(int(i), int(j))
        charge = COULOMB * charges[i] * charges[j] * (SCALED_1_4 if apart[i, j] == 3 else 1.0)
        found["pairs"].append(((int(i), int(j)), (1 / known[2], known[3], charge)))
    widths = {"bonds": (2, 2), "angles": (3, 6), "linear": (3, 1), "planes": (4, 1),
              "torsions": (4, 3), "pairs": (2, 3)}  # fmt: skip
    arrays: list[np.ndarray] = []
    for name, (n_atoms, n_values) in widths.items():
        arrays += [np.array([atoms for atoms, _ in found[name]], np.int64).reshape(-1, n_atoms)]
        arrays += [np.array([values for _, values in found[name]], np.float32).reshape(-1, n_values)]
    return Terms(*arrays)


def _around(mol: Chem.Mol, properties: Any, centre: Chem.Atom, found: dict[str, list[Any]]) -> None:
    """Angles, stretch-bends and planes around an atom."""
    j, neighbours = centre.GetIdx(), [atom.GetIdx() for atom in centre.GetNeighbors()]
    is_linear = properties.GetMMFFAtomType(j) in LINEAR_TYPES
    for place, i in enumerate(neighbours):
        for k in neighbours[place + 1 :]:
            known = properties.GetMMFFAngleBendParams(mol, i, j, k)
            if not known:
                continue
            if is_linear:
                found["linear"].append(((i, j, k), (MDYNE * known[1],)))
                continue
            both = properties.GetMMFFStretchBendParams(mol, i, j, k) or (0, 0.0, 0.0)
            lengths = [properties.GetMMFFBondStretchParams(mol, j, other)[2] for other in (i, k)]
            values = (MDYNE * known[1] / 2, math.radians(known[2]), MDYNE * both[1], MDYNE * both[2], *lengths)
            found["angles"].append(((i, j, k), values))
    if len(neighbours) == 3:
        for outer in range(3):
            a, b, c = neighbours[outer], *(neighbours[:outer] + neighbours[outer + 1 :])
            if known := properties.GetMMFFOopBendParams(mol, a, j, b, c):
                found["planes"].append(((a, j, b, c), (MDYNE * known / 2,)))


def _torsions(mol: Chem.Mol, properties: Any, bond: Chem.Bond, every: bool, found: list[Any]) -> None:
    """Torsions about a bond between atoms that are flat or tetrahedral."""
    ends = bond.GetBeginAtom(), bond.GetEndAtom()
    bent = (Chem.HybridizationType.SP2, Chem.HybridizationType.SP3)
    if any(atom.GetHybridization() not in bent for atom in ends):
        return
    j, k = (atom.GetIdx() for atom in ends)
    for i in (atom.GetIdx() for atom in ends[0].GetNeighbors()):
        for m in (atom.GetIdx() for atom in ends[1].GetNeighbors()):
            if i in (k, m) or m == j:
                continue
            known = properties.GetMMFFTorsionParams(mol, i, j, k, m)
            values = tuple(known[1:]) if known else (0.0, 0.0, 0.0)
            if every or any(values):
                found.append(((i, j, k, m), values))
