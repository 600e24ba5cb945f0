"""Molecules with several conformers as examples for the conformation autoencoder, and batches of them.

A batch holds several molecules with K conformers each: coordinates (K, atoms of all, 3). What depends on the graph
alone is then computed once for K conformers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from rdkit import Chem
from torch import Tensor

from mdlatent.conformers.graph import Graph, graph_of, join_graphs
from mdlatent.conformers.internal import IMPROPER, PROPER, STRAIGHT, InternalCoordinates, internal_coordinates, join
from mdlatent.conformers.internal_values import values

__all__ = ["N_ADDRESSES", "Batch", "Example", "addresses", "batch_of", "compact", "example_of", "handedness"]

N_ADDRESSES = 32
FLAT = 0.3  # sine of an improper below which a centre has no hand (120° has 0.87): radicals may be flat


@dataclass(frozen=True)
class Example:
    """A molecule and the internal coordinates that the autoencoder reads and writes."""

    name: str
    graph: Graph
    internal: InternalCoordinates  # see compact
    orientation: Tensor  # (n_dihedrals,) float32, see example_of
    address: Tensor  # (n_dihedrals,) int64, see addresses
    free: Tensor  # (n_dihedrals,) bool: a torsion about a bond that can turn, outside rings


@dataclass(frozen=True)
class Batch:
    """M examples joined; each `*_molecule` says which of them a coordinate belongs to."""

    graph: Graph
    internal: InternalCoordinates
    orientation: Tensor
    address: Tensor
    free: Tensor
    n_atoms: tuple[int, ...]  # of each example
    bond_molecule: Tensor
    angle_molecule: Tensor
    dihedral_molecule: Tensor

    @property
    def n_molecules(self) -> int:
        """M."""
        return len(self.n_atoms)


def example_of(molecule: Chem.Mol, reference_angstrom: Tensor) -> Example:
    """Example of a molecule whose conformers all have the handedness of one of them, (n_atoms, 3) Å.

    Of that one, `handedness` is kept where the graph fixes it, 0 elsewhere and where it is flat: for stereocentres what
    the graph's R and S say, for others which of two equal neighbours is listed first, for double bonds E and Z. It is
    no conformation: conformers whose equal neighbours are listed the other way round must be relabelled before.
    """
    internal = compact(internal_coordinates(molecule), molecule)
    tetrahedral = torch.tensor(
        [
            atom.GetHybridization() == Chem.HybridizationType.SP3 and (atom.GetAtomicNum() != 7 or atom.GetDegree() > 3)
            for atom in molecule.GetAtoms()
        ]
    )
    double = [
        kind == PROPER and molecule.GetBondBetweenAtoms(row[1], row[2]).GetBondType() == Chem.BondType.DOUBLE
        for kind, row in zip(internal.kinds.tolist(), internal.dihedrals.tolist(), strict=True)
    ]
    held = (internal.kinds == IMPROPER) & tetrahedral[internal.dihedrals[:, 2]]
    held |= torch.tensor(double, dtype=torch.bool).reshape(-1)
    orientation = torch.where(held, handedness(internal, reference_angstrom[None])[0], 0.0)
    name = molecule.GetProp("_Name") if molecule.HasProp("_Name") else Chem.MolToSmiles(molecule)
    return Example(name, graph_of(molecule), internal, orientation, *addresses(internal, molecule))


def handedness(internal: InternalCoordinates, coordinates_angstrom: Tensor) -> Tensor:
    """Signs (C, n_dihedrals) float32 of conformers (C, n_atoms, 3) Å, 0 where a value says little (FLAT).

    Of the sine of impropers, which tells two hands apart, and of the cosine of others, which tells cis from trans.
    """
    dihedrals = values(internal, coordinates_angstrom.double()).dihedrals
    size = torch.where(internal.kinds == IMPROPER, dihedrals.sin(), dihedrals.cos())
    return torch.where(size.abs() > FLAT, size.sign(), 0.0).float()


def addresses(internal: InternalCoordinates, molecule: Chem.Mol) -> tuple[Tensor, Tensor]:
    """A number (n_dihedrals,) int64 for the bond that a torsion turns about, 0 for none; and whether it is free to.

    Bonds that can turn are numbered from 1: outside rings first, of those the ones with most atoms on either side
    first, then the single bonds of rings. From N_ADDRESSES − 1 on they share the last number.
    """
    rank: dict[frozenset[int], tuple[bool, int, int, int]] = {}
    distance = Chem.GetDistanceMatrix(molecule)
    axes = [frozenset(row[1:3]) for row in internal.dihedrals.tolist()]
    for kind, axis in zip(internal.kinds.tolist(), axes, strict=True):
        if kind not in (PROPER, STRAIGHT):
            continue
        i, j = sorted(axis)
        bond = molecule.GetBondBetweenAtoms(i, j)
        if bond is not None and bond.GetBondType() != Chem.BondType.SINGLE:
            continue
        near_i = int((distance[i] < distance[j]).sum())
        in_ring = bond is not None and bond.IsInRing()
        rank[axis] = (in_ring, 0 if in_ring else -min(near_i, molecule.GetNumAtoms() - near_i), i, j)
    numbers = {axis: min(n, N_ADDRESSES - 1) for n, axis in enumerate(sorted(rank, key=rank.__getitem__), 1)}
    turning = torch.isin(internal.kinds, torch.tensor([PROPER, STRAIGHT]))
    address = torch.tensor([numbers.get(axis, 0) for axis in axes], dtype=torch.int64).reshape(-1) * turning
    outside = torch.tensor([axis in rank and not rank[axis][0] for axis in axes], dtype=torch.bool).reshape(-1)
    return address, outside & turning


def compact(internal: InternalCoordinates, molecule: Chem.Mol) -> InternalCoordinates:
    """The same without torsions that repeat another: kept are the tree's, all impropers, and those within a ring."""
    rings = [set(ring) for ring in Chem.GetSymmSSSR(molecule)]
    ring_bonds = {frozenset((b.GetBeginAtomIdx(), b.GetEndAtomIdx())) for b in molecule.GetBonds() if b.IsInRing()}
    keep = internal.kinds == IMPROPER
    for i, row in enumerate(internal.dihedrals.tolist()):
        in_ring = all(frozenset(pair) in ring_bonds for pair in pairwise(row))
        if in_ring and internal.kinds[i] == PROPER and any(ring.issuperset(row) for ring in rings):
            keep[i] = True
    n = len(keep)
    used = [index for level in internal.levels for index in (level.torsions, level.impropers)]
    keep = torch.cat([keep, torch.tensor([True])])  # one past the end means zero
    if used:
        keep[torch.cat(used)] = True
    new = keep.cumsum(0) - 1
    levels = tuple(
        replace(level, torsions=new[level.torsions], impropers=new[level.impropers]) for level in internal.levels
    )
    rows = keep[:n]
    return replace(internal, dihedrals=internal.dihedrals[rows], kinds=internal.kinds[rows], levels=levels)


def batch_of(examples: Sequence[Example], to_build: bool = True) -> Batch:
    """Examples joined to one batch, in order; without the levels by which structures are built if not `to_build`."""

    def owner(name: str) -> Tensor:
        counts = torch.tensor([len(getattr(e.internal, name)) for e in examples])
        return torch.repeat_interleave(torch.arange(len(examples)), counts)

    return Batch(
        graph=join_graphs([e.graph for e in examples]),
        internal=join([e.internal if to_build else replace(e.internal, levels=()) for e in examples]),
        orientation=torch.cat([e.orientation for e in examples]),
        address=torch.cat([e.address for e in examples]),
        free=torch.cat([e.free for e in examples]),
        n_atoms=tuple(e.internal.n_atoms for e in examples),
        bond_molecule=owner("bonds"),
        angle_molecule=owner("angles"),
        dihedral_molecule=owner("dihedrals"),
    )
