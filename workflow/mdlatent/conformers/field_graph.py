"""A molecule as the learned force field sees it: features of atoms and bonds, and all terms with MMFF94s's values.

Features know nothing of coordinates, nor of the order in which a file lists atoms. Terminal atoms on one centre that
MMFF94 gives one type (the oxygens of carboxylates, nitro groups, sulfones) have the mean of their features, so that
they are alike however their double bond is drawn.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from rdkit import Chem

from mdlatent.conformers import mmff_terms
from mdlatent.conformers.embedding import ForceField
from mdlatent.conformers.mmff_terms import Terms

__all__ = ["ATOM_FEATURES", "BOND_FEATURES", "ELEMENTS", "N_TYPES", "FieldGraph", "field_graph", "mapped", "union"]

ELEMENTS = (1, 6, 7, 8, 9, 14, 15, 16, 17, 35, 53)
HYBRIDS = {"sp": Chem.HybridizationType.SP, "sp2": Chem.HybridizationType.SP2, "sp3": Chem.HybridizationType.SP3}
DEGREES, HYDROGENS = (1, 2, 3, 4), (0, 1, 2, 3)
ATOM_RINGS, BOND_RINGS, ORDERS = (3, 4, 5, 6, 7), (3, 4, 5, 6), (1.0, 1.5, 2.0, 3.0)
N_TYPES = 100  # MMFF94's types of atoms have numbers below
ATOM_FEATURES = (
    *(f"element_{number}" for number in ELEMENTS),
    *(f"degree_{degree}" for degree in DEGREES),
    *HYBRIDS,
    *("aromatic", "in_ring"),
    *(f"in_ring_{size}" for size in ATOM_RINGS),
    *("cation", "anion"),
    *(f"hydrogens_{number}" for number in HYDROGENS),
    "mmff_charge",
)
BOND_FEATURES = (
    *(f"order_{order}" for order in ORDERS),
    *("conjugated", "in_ring", "aromatic"),
    *(f"in_ring_{size}" for size in BOND_RINGS),
)


class FieldGraph(NamedTuple):
    """One molecule or several, as numpy arrays, or as torch tensors for training (see `mapped`)."""

    features: Any  # (n, ATOM_FEATURES) float32
    types: Any  # (n,) int64, MMFF94's
    charges: Any  # (n,) float32, MMFF94's, e
    molecule: Any  # (n,) int64: which of the molecules an atom belongs to, ascending from 0
    bond_features: Any  # (bonds, BOND_FEATURES) float32, as terms.bonds
    angle_bonds: Any  # (angles, 2) int64: rows of terms.bonds that an angle couples with
    three_apart: Any  # (pairs,) bool: atoms three bonds apart
    terms: Terms  # with MMFF94s's values, and every torsion

    @property
    def n_molecules(self) -> int:
        """How many molecules there are."""
        return int(self.molecule[-1]) + 1


def field_graph(mol: Chem.Mol) -> FieldGraph:
    """The graph of a molecule with explicit hydrogens. Raises MoleculeError if MMFF94s has no parameters for it."""
    properties = ForceField(mol, "MMFF94s").properties
    terms = mmff_terms.terms(mol, properties, every_torsion=True)
    n_atoms = mol.GetNumAtoms()
    types = np.array([properties.GetMMFFAtomType(index) for index in range(n_atoms)], np.int64)
    charges = np.array([properties.GetMMFFPartialCharge(index) for index in range(n_atoms)], np.float32)
    features = np.array([[*_atom(atom, mol.GetRingInfo()), charges[atom.GetIdx()]] for atom in mol.GetAtoms()])
    bonds = np.array([_bond(mol.GetBondBetweenAtoms(*pair)) for pair in terms.bonds.tolist()])
    for alike in _alike(mol, types):
        features[alike] = features[alike].mean(0)
        rows = np.flatnonzero(np.isin(terms.bonds, alike).any(1))
        bonds[rows] = bonds[rows].mean(0)
    row_of = {frozenset(pair): row for row, pair in enumerate(terms.bonds.tolist())}
    coupled = [[row_of[frozenset((i, j))], row_of[frozenset((j, k))]] for i, j, k in terms.angles.tolist()]
    apart = Chem.GetDistanceMatrix(mol)[terms.pairs[:, 0], terms.pairs[:, 1]]
    return FieldGraph(
        features.astype(np.float32),
        types,
        charges,
        np.zeros(n_atoms, np.int64),
        bonds.astype(np.float32).reshape(-1, len(BOND_FEATURES)),
        np.array(coupled, np.int64).reshape(-1, 2),
        apart == 3,
        terms,
    )


def union(graphs: Sequence[FieldGraph]) -> FieldGraph:
    """One graph of several, as numpy arrays: atoms, bonds and molecules are numbered on."""
    first = {
        "atom": np.cumsum([0, *(len(graph.types) for graph in graphs)]),
        "molecule": np.cumsum([0, *(graph.n_molecules for graph in graphs)]),
        "angle_bonds": np.cumsum([0, *(len(graph.terms.bonds) for graph in graphs)]),
    }

    def joined(parts: list[np.ndarray], numbered: str = "") -> np.ndarray:
        if numbered in first:
            parts = [part + start for part, start in zip(parts, first[numbered], strict=False)]
        return np.concatenate(parts)

    terms = (
        joined([getattr(graph.terms, name) for graph in graphs], "" if name.endswith("values") else "atom")
        for name in Terms._fields
    )
    own: dict[str, Any] = {
        name: joined([getattr(graph, name) for graph in graphs], name) for name in FieldGraph._fields[:-1]
    }
    return FieldGraph(**own, terms=Terms(*terms))


def mapped(graph: FieldGraph, change: Callable[[np.ndarray], Any]) -> FieldGraph:
    """The same graph with each array changed, as by `torch.from_numpy`."""
    own: dict[str, Any] = {name: change(getattr(graph, name)) for name in FieldGraph._fields[:-1]}
    return FieldGraph(**own, terms=Terms(*map(change, graph.terms)))


def _atom(atom: Chem.Atom, rings: Any) -> list[float]:
    hydrogens, charge = atom.GetTotalNumHs(includeNeighbors=True), atom.GetFormalCharge()
    return [
        *(atom.GetAtomicNum() == number for number in ELEMENTS),
        *(atom.GetDegree() == degree for degree in DEGREES),
        *(atom.GetHybridization() == hybrid for hybrid in HYBRIDS.values()),
        *(atom.GetIsAromatic(), atom.IsInRing()),
        *(rings.IsAtomInRingOfSize(atom.GetIdx(), size) for size in ATOM_RINGS),
        *(charge == 1, charge == -1),
        *(hydrogens == number for number in HYDROGENS),
    ]


def _bond(bond: Chem.Bond) -> list[float]:
    return [
        *(bond.GetBondTypeAsDouble() == order for order in ORDERS),
        *(bond.GetIsConjugated(), bond.IsInRing(), bond.GetIsAromatic()),
        *(bond.IsInRingSize(size) for size in BOND_RINGS),
    ]


def _alike(mol: Chem.Mol, types: np.ndarray) -> list[list[int]]:
    """Terminal atoms on one centre that have one type, two or more."""
    groups: dict[tuple[int, int], list[int]] = defaultdict(list)
    for atom in mol.GetAtoms():
        if atom.GetDegree() == 1:
            groups[atom.GetNeighbors()[0].GetIdx(), int(types[atom.GetIdx()])].append(atom.GetIdx())
    return [group for group in groups.values() if len(group) > 1]
