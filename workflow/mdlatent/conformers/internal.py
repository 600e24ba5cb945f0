"""Molecular graph → which internal coordinates describe it, and a spanning tree of them that builds it.

The list is over-complete and follows from the graph and the order of its atoms alone: every bond, every angle, every
torsion of every bond, in rings too, one improper per pair of neighbours at each branching atom (it holds chirality and
planarity), and what the tree needs beside them. Of these a Z-matrix uses one length, angle and dihedral per atom: the
tree runs breadth first from the middle of the molecule, so that a molecule is built in as many steps as it has bonds
from there to its edge (`placing.place`).

Two things keep it well conditioned. Of the atoms that hang on one atom, only the first has a torsion of its own; the
others are held by impropers to it. And no torsion is measured from three atoms that the graph makes straight (nitrile,
alkyne, allene, azide): the reference is then taken from the far end of the straight run.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from rdkit import Chem
from torch import Tensor

from mdlatent.errors import DataError

__all__ = [
    "IMPROPER",
    "LOOSE",
    "PROPER",
    "STRAIGHT",
    "InternalCoordinates",
    "Level",
    "internal_coordinates",
    "join",
    "straight_atoms",
]

PROPER, IMPROPER, STRAIGHT, LOOSE = range(4)  # kinds of dihedrals, see InternalCoordinates
HYPERVALENT = 5  # from so many neighbours on two of them may lie opposite, and none serves to hold the others


@dataclass(frozen=True)
class Level:
    """Atoms of a Z-matrix that are placed at once: all (n,) int64.

    Atom d = `atoms[i]` stands at distance `lengths[i]` (a row of `bonds`) from c, at the angle `angles[i]` b-c-d, and
    the dihedral a-b-c-d is the sum of the dihedrals `torsions[i]` and `impropers[i]`. One row past the end of the
    dihedrals means zero; `a` may be one past the atoms, which is a point that only sets the orientation as a whole.
    """

    atoms: Tensor
    a: Tensor
    b: Tensor
    c: Tensor
    lengths: Tensor
    angles: Tensor
    torsions: Tensor
    impropers: Tensor


@dataclass(frozen=True)
class InternalCoordinates:
    """The internal coordinates of a molecule (or of several, see `join`); indices are int64.

    `kinds` says of each dihedral what it is: PROPER, about a bond; IMPROPER, the angle about the axis b-c between two
    neighbours of c (first and last of a, b, c, d); STRAIGHT, a torsion across a straight run of atoms; LOOSE, the
    direction in which a nearly straight angle bends, which says nothing where the angle is straight.
    """

    n_atoms: int
    bonds: Tensor  # (n_bonds, 2)
    angles: Tensor  # (n_angles, 3), the middle one is the vertex
    dihedrals: Tensor  # (n_dihedrals, 4)
    kinds: Tensor  # (n_dihedrals,)
    roots: Tensor  # (n_molecules,), at the origin
    firsts: Tensor  # (≤ n_molecules,), each bound to a root, on the x axis
    first_lengths: Tensor  # like firsts, rows of bonds
    levels: tuple[Level, ...]

    def to(self, device: torch.device | str) -> InternalCoordinates:
        """The same with its tensors on `device`."""

        def moved(value):
            return value.to(device) if isinstance(value, Tensor) else value

        levels = tuple(Level(**{f.name: moved(getattr(level, f.name)) for f in fields(Level)}) for level in self.levels)
        rest = {f.name: moved(getattr(self, f.name)) for f in fields(self) if f.name != "levels"}
        return InternalCoordinates(**rest, levels=levels)


def internal_coordinates(molecule: Chem.Mol) -> InternalCoordinates:
    """Internal coordinates of `molecule`, whose explicit atoms count (all of them, or the heavy ones).

    Needs no conformer and reads none. Raises DataError if the molecule has no atoms or is not in one piece.

    An atom with five neighbours or more that is not at the edge of the molecule may give angles that are straight
    though the graph does not say so; a structure built from there is then ill conditioned.
    """
    name = molecule.GetProp("_Name") if molecule.HasProp("_Name") else ""
    n_pieces = len(Chem.GetMolFrags(molecule))
    if n_pieces != 1:
        raise DataError(
            f"molecule {name or Chem.MolToSmiles(molecule)!r} has {n_pieces} disconnected pieces where one is needed; "
            "keep one of them (rdkit.Chem.MolStandardize.rdMolStandardize.FragmentParent keeps the largest)"
        )
    return _Builder(molecule).result()


def straight_atoms(molecule: Chem.Mol) -> list[bool]:
    """True for each atom whose two bonds the graph makes straight (n_atoms): sp carbon and cationic sp nitrogen."""
    straight = []
    for atom in molecule.GetAtoms():
        orders = sorted(bond.GetBondTypeAsDouble() for bond in atom.GetBonds())
        sp = len(orders) == 2 and (orders[1] == 3.0 or orders == [2.0, 2.0])
        straight.append(sp and (atom.GetAtomicNum() == 6 or (atom.GetAtomicNum() == 7 and atom.GetFormalCharge() > 0)))
    return straight


class _Builder:
    """Collects the coordinates of one molecule; `result` gives them."""

    def __init__(self, molecule: Chem.Mol) -> None:
        self.n = molecule.GetNumAtoms()
        atomic_numbers = [atom.GetAtomicNum() for atom in molecule.GetAtoms()]
        # Heavy atoms first: the first child of an atom, which the others are held by, is then one of them.
        self.neighbours = [
            sorted((a.GetIdx() for a in atom.GetNeighbors()), key=lambda i: (atomic_numbers[i] == 1, i))
            for atom in molecule.GetAtoms()
        ]
        self.straight = straight_atoms(molecule)
        self.bonds = _Rows()
        self.angles = _Rows()
        self.dihedrals = _Rows()
        for bond in molecule.GetBonds():
            self.bonds.add(tuple(sorted((bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()))))
        for j, around in enumerate(self.neighbours):
            for i in sorted(around):
                for k in sorted(around):
                    if i < k:
                        self.angles.add((i, j, k))
        for j, k in self.bonds.rows:
            if self.straight[j] or self.straight[k]:
                continue
            for i in sorted(self.neighbours[j]):
                for last in sorted(self.neighbours[k]):
                    if len({i, j, k, last}) == 4:
                        self.dihedrals.add((i, j, k, last), PROPER)
        self.root = self._root(Chem.GetDistanceMatrix(molecule).max(1))
        self._grow()

    def _root(self, eccentricity: np.ndarray) -> int:
        """The atom in the middle, of those with neighbours that are not on one line, if there is such an atom."""

        def rank(i: int) -> tuple[bool, bool, float, int]:
            n = len(self.neighbours[i])
            return (n < 2, self.straight[i] or n >= HYPERVALENT, float(eccentricity[i]), i)

        return min(range(self.n), key=rank)

    def _grow(self) -> None:
        """Breadth-first tree: `parent`, `depth` and, in order of appearance, `children` of each atom."""
        self.parent = [-1] * self.n
        self.depth = [0] * self.n
        self.children: list[list[int]] = [[] for _ in range(self.n)]
        seen, queue = {self.root}, deque([self.root])
        while queue:
            c = queue.popleft()
            for d in self.neighbours[c]:
                if d not in seen:
                    seen.add(d)
                    queue.append(d)
                    self.parent[d], self.depth[d] = c, self.depth[c] + 1
                    self.children[c].append(d)

    def _off_axis(self, b: int, c: int) -> int:
        """An atom placed before the children of c and off the line b-c; n_atoms (the free point) if there is none."""
        if c == self.root:
            return self.n
        previous, x = c, b
        for _ in range(self.n):  # along the straight run that begins with c-b, which may close to a ring
            if not self.straight[x] or len(self.neighbours[x]) < 2:
                break
            previous, x = x, next(i for i in self.neighbours[x] if i != previous)
        candidates = [self.parent[x], *self.children[self.root][:2]] if x == self.root else [self.parent[x]]
        candidates += [self.parent[b], *self.children[self.root][:2]]  # where the whole molecule is one line
        usable = [i for i in candidates if i not in (-1, b, c, previous) and self.depth[i] <= self.depth[c]]
        return usable[0] if usable else self.n

    def _rows_of(self, c: int) -> list[tuple[int, ...]]:
        """Rows of a Level for the children of c."""
        at_root = c == self.root
        b, children = (self.children[c][0], self.children[c][1:]) if at_root else (self.parent[c], self.children[c])
        a = self._off_axis(b, c) if children else self.n
        hypervalent = len(self.neighbours[c]) >= HYPERVALENT
        around = [*children, *(i for i in self.neighbours[c] if i != b and i not in children)]  # those close a ring
        for i, first in enumerate(around):
            for second in around[i + 1 :]:
                self.dihedrals.add((first, b, c, second), IMPROPER)
        rows: list[tuple[int, ...]] = []
        for d in children:
            held = a == self.n or not hypervalent
            leader = children[0] if held else d
            torsion = improper = -1  # zero
            if a != self.n:
                kind = LOOSE if self.straight[c] else STRAIGHT if self.straight[b] else PROPER
                torsion = self.dihedrals.add((a, b, c, leader), kind)
            if d != leader:
                improper = self.dihedrals.add((leader, b, c, d), IMPROPER)
            rows.append((d, a, b, c, self.bonds.at((c, d)), self.angles.at((b, c, d)), torsion, improper))
        return rows

    def result(self) -> InternalCoordinates:
        by_depth: dict[int, list[tuple[int, ...]]] = {}
        for c in sorted(range(self.n), key=lambda i: (self.depth[i], i)):
            if len(self.neighbours[c]) >= 2 and (rows := self._rows_of(c)):
                by_depth.setdefault(self.depth[c], []).extend(rows)
        levels = []
        for _, rows in sorted(by_depth.items()):
            table = torch.tensor(rows, dtype=torch.int64).T
            table[6:] = torch.where(table[6:] < 0, len(self.dihedrals.rows), table[6:])
            levels.append(Level(*table.contiguous()))
        firsts = self.children[self.root][:1]
        return InternalCoordinates(
            n_atoms=self.n,
            bonds=self.bonds.tensor(2),
            angles=self.angles.tensor(3),
            dihedrals=self.dihedrals.tensor(4),
            kinds=torch.tensor(self.dihedrals.kinds, dtype=torch.int64),
            roots=torch.tensor([self.root]),
            firsts=torch.tensor(firsts, dtype=torch.int64),
            first_lengths=torch.tensor([self.bonds.at((self.root, i)) for i in firsts], dtype=torch.int64),
            levels=tuple(levels),
        )


class _Rows:
    """Tuples of atoms, each once; one read backwards is the same coordinate."""

    def __init__(self) -> None:
        self.rows: list[tuple[int, ...]] = []
        self.kinds: list[int] = []
        self._index: dict[tuple[int, ...], int] = {}

    def add(self, row: tuple[int, ...], kind: int = 0) -> int:
        """Index of `row`, which is added if it is new."""
        if row not in self._index:
            self._index[row] = self._index[row[::-1]] = len(self.rows)
            self.rows.append(row)
            self.kinds.append(kind)
        return self._index[row]

    def at(self, row: tuple[int, ...]) -> int:
        """Index of a row that is there."""
        return self._index[row]

    def tensor(self, width: int) -> Tensor:
        return torch.tensor(self.rows, dtype=torch.int64).reshape(-1, width)


def join(parts: Sequence[InternalCoordinates]) -> InternalCoordinates:
    """Several molecules as one list of coordinates, atoms and rows in the order of `parts`.

    Where built together (`placing.place`) they all begin at the origin. Costs as many steps as the largest alone.
    """
    offsets = np.cumsum([[0] * 4] + [[p.n_atoms, len(p.bonds), len(p.angles), len(p.dihedrals)] for p in parts], axis=0)
    n_atoms, _, _, n_dihedrals = (int(i) for i in offsets[-1])
    levels = []
    for depth in range(max((len(p.levels) for p in parts), default=0)):
        pieces = []
        for part, (atom, bond, angle, dihedral) in zip(parts, offsets.tolist(), strict=False):
            if depth >= len(part.levels):
                continue
            level = part.levels[depth]

            def shifted(index: Tensor, by: int, end: int, new_end: int) -> Tensor:
                return torch.where(index == end, new_end, index + by)

            pieces.append(
                torch.stack(
                    [
                        level.atoms + atom,
                        shifted(level.a, atom, part.n_atoms, n_atoms),
                        level.b + atom,
                        level.c + atom,
                        level.lengths + bond,
                        level.angles + angle,
                        shifted(level.torsions, dihedral, len(part.dihedrals), n_dihedrals),
                        shifted(level.impropers, dihedral, len(part.dihedrals), n_dihedrals),
                    ]
                )
            )
        levels.append(Level(*torch.cat(pieces, 1)))

    def joined(name: str, column: int) -> Tensor:
        return torch.cat([getattr(p, name) + int(o) for p, o in zip(parts, offsets[:, column], strict=False)])

    return InternalCoordinates(
        n_atoms=n_atoms,
        bonds=joined("bonds", 0),
        angles=joined("angles", 0),
        dihedrals=joined("dihedrals", 0),
        kinds=torch.cat([p.kinds for p in parts]),
        roots=joined("roots", 0),
        firsts=joined("firsts", 0),
        first_lengths=joined("first_lengths", 1),
        levels=tuple(levels),
    )
