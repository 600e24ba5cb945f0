"""Bonds about which a molecule turns, their torsions, and turning them.

A rotor is a single bond outside rings whose two ends each carry a heavy neighbour or are an OH or SH. Bonds at linear
atoms are left out: their torsion is undefined. Hydrogens stand for an end only where it has no heavy neighbour.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from rdkit import Chem

__all__ = ["LEVELS", "Rotor", "find_rotors", "torsion_angles", "turn"]

LEVELS = 4  # environments of a torsion, from its four elements to atoms three bonds away


@dataclass(frozen=True)
class Rotor:
    """A bond j–k; its torsions i–j–k–l for all neighbours; the atoms that move with k.

    `torsions` is (P, 4) int; `keys` (P, LEVELS) uint64, coarse to fine, describes each torsion's environment.
    """

    torsions: np.ndarray
    keys: np.ndarray
    moved: np.ndarray


def find_rotors(mol: Chem.Mol) -> list[Rotor]:
    """The rotors of a molecule with explicit hydrogens. Its graph alone counts; mirror images have the same keys."""
    invariants = _invariants(mol)
    rotors = []
    for bond in mol.GetBonds():
        if bond.GetBondType() != Chem.BondType.SINGLE or bond.IsInRing():
            continue
        j, k = bond.GetBeginAtom(), bond.GetEndAtom()
        ends = [_ends(j, k.GetIdx()), _ends(k, j.GetIdx())]
        if not all(ends):
            continue
        far = _side(mol, k.GetIdx(), j.GetIdx())
        if 2 * len(far) > mol.GetNumAtoms():  # turn the smaller side
            j, k, ends, far = k, j, ends[::-1], _side(mol, j.GetIdx(), k.GetIdx())
        torsions = [(i, j.GetIdx(), k.GetIdx(), last) for i in ends[0] for last in ends[1]]
        keys = [[_key(invariants[level][list(one)]) for level in range(LEVELS)] for one in torsions]
        rotors.append(Rotor(np.array(torsions), np.array(keys, dtype=np.uint64), np.array(far)))
    return rotors


def torsion_angles(coordinates_angstrom: np.ndarray, torsions: np.ndarray) -> np.ndarray:
    """Torsion angles in radians, −π to π (IUPAC sign): coordinates (…, N, 3), torsions (P, 4) → (…, P)."""
    i, j, k, last = (coordinates_angstrom[..., torsions[:, column], :] for column in range(4))
    axis = k - j
    axis /= np.linalg.norm(axis, axis=-1, keepdims=True)
    u = (i - j) - ((i - j) * axis).sum(-1, keepdims=True) * axis
    v = (last - k) - ((last - k) * axis).sum(-1, keepdims=True) * axis
    return np.arctan2((np.cross(axis, u) * v).sum(-1), (u * v).sum(-1))


def turn(coordinates_angstrom: np.ndarray, rotor: Rotor, by: np.ndarray) -> None:
    """Turn the moved side of B conformers (B, N, 3) in Å by the angles `by` (B,) in radians, in place."""
    j, k = rotor.torsions[0, 1:3]
    axis = coordinates_angstrom[:, k] - coordinates_angstrom[:, j]
    axis /= np.linalg.norm(axis, axis=-1, keepdims=True)
    axis = axis[:, None]
    arm = coordinates_angstrom[:, rotor.moved] - coordinates_angstrom[:, k][:, None]
    cosine, sine = np.cos(by)[:, None, None], np.sin(by)[:, None, None]
    along = (arm * axis).sum(-1, keepdims=True) * axis
    turned = cosine * arm + sine * np.cross(np.broadcast_to(axis, arm.shape), arm) + (1 - cosine) * along  # Rodrigues
    coordinates_angstrom[:, rotor.moved] = turned + coordinates_angstrom[:, k][:, None]


def _ends(atom: Chem.Atom, other: int) -> list[int]:
    """Neighbours of `atom` that name the torsions at this end; none if turning it changes nothing of interest."""
    if atom.GetHybridization() == Chem.HybridizationType.SP:
        return []
    neighbours = [one for one in atom.GetNeighbors() if one.GetIdx() != other]
    heavy = [one for one in neighbours if one.GetAtomicNum() > 1]
    if len(heavy) == 3 and all(one.GetDegree() == 1 and one.GetAtomicNum() in (9, 17, 35, 53) for one in heavy):
        return []  # CF3 and the like
    if not heavy and atom.GetAtomicNum() in (8, 16):
        heavy = neighbours
    return [one.GetIdx() for one in heavy]


def _side(mol: Chem.Mol, start: int, without: int) -> list[int]:
    """Atoms on the side of `start`, itself left out, when the bond to `without` is cut."""
    seen, todo = {start, without}, [start]
    while todo:
        for one in mol.GetAtomWithIdx(todo.pop()).GetNeighbors():
            if one.GetIdx() not in seen:
                seen.add(one.GetIdx())
                todo.append(one.GetIdx())
    return sorted(seen - {start, without})


def _invariants(mol: Chem.Mol) -> list[np.ndarray]:
    """Per level the environment of each atom as a number (n_atoms,): its type, then what 0, 1 and 2 bonds show."""
    coarse = [_hash(a.GetAtomicNum(), a.GetIsAromatic(), str(a.GetHybridization())) for a in mol.GetAtoms()]
    fine = [
        _hash(one, a.GetTotalDegree(), a.GetTotalNumHs(True), a.GetFormalCharge(), a.IsInRing())
        for one, a in zip(coarse, mol.GetAtoms(), strict=True)
    ]
    result = [coarse, fine]
    while len(result) < LEVELS:
        result.append([_grown(atom, result[-1]) for atom in mol.GetAtoms()])
    return [np.array(level, dtype=np.uint64) for level in result]


def _grown(atom: Chem.Atom, last: list[int]) -> int:
    """The environment of an atom one bond wider, as in Morgan fingerprints."""
    bonds = sorted((str(bond.GetBondType()), last[bond.GetOtherAtomIdx(atom.GetIdx())]) for bond in atom.GetBonds())
    return _hash(last[atom.GetIdx()], bonds)


def _key(four: np.ndarray) -> int:
    """The same for a torsion read from either end."""
    forward = tuple(int(one) for one in four)
    return _hash(*min(forward, forward[::-1]))


def _hash(*values: object) -> int:
    return int.from_bytes(hashlib.blake2b(repr(values).encode(), digest_size=8).digest(), "little")
