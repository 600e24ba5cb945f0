"""Internal quantities of a structure, in numbers that grow no faster than its atoms: pair distances and dihedrals.

Which pairs and which four atoms follow from the number of atoms (and their names) alone.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

__all__ = ["choose_dihedrals", "dihedral_numbers", "encoder_pairs", "loss_pairs", "n_dihedrals", "pair_distances"]

LANDMARKS = 100
PARTNERS = 4  # further pairs of each atom where not all are landmarks
LOSS_ALL = 64  # atoms up to which the loss takes every pair
LOSS_PARTNERS = 16
MAX_DIHEDRALS = 100


def encoder_pairs(n_atoms: int) -> np.ndarray:
    """Pairs of atoms (p, 2) int64, i < j: all up to 100 atoms; else all among 100 evenly spaced ones, and for each atom
    its next neighbour and three others at random. At most 4,950 + 4 n of them."""
    landmarks = np.unique(np.round(np.linspace(0, n_atoms - 1, min(n_atoms, LANDMARKS))).astype(np.int64))
    first, second = np.triu_indices(len(landmarks), 1)
    found = np.stack([landmarks[first], landmarks[second]], 1)
    if n_atoms > LANDMARKS:
        found = np.concatenate([found, _sparse_pairs(n_atoms, PARTNERS)])
    return np.unique(found, axis=0)


def loss_pairs(n_atoms: int) -> np.ndarray:
    """Pairs of atoms (p, 2) int64, i < j: all up to 64 atoms; else about 16 for each, half of them near in order."""
    if n_atoms <= LOSS_ALL:
        return np.stack(np.triu_indices(n_atoms, 1), 1)
    return np.unique(_sparse_pairs(n_atoms, LOSS_PARTNERS, near=LOSS_PARTNERS // 2), axis=0)


def _sparse_pairs(n_atoms: int, partners: int, near: int = 1) -> np.ndarray:
    """Of each atom, its `near` next ones in order and random others: (≤ n · partners, 2), i < j."""
    atoms = np.arange(n_atoms)[:, None]
    steps = np.random.default_rng(0).integers(1, n_atoms, size=(n_atoms, partners))
    steps[:, :near] = np.arange(1, near + 1)
    pairs = np.stack(np.broadcast_arrays(atoms, (atoms + steps) % n_atoms), -1).reshape(-1, 2)
    return np.sort(pairs, axis=1)


def pair_distances(coordinates: Tensor, pairs: Tensor) -> Tensor:
    """Distances (B, p) of `pairs` (p, 2) in structures (B, N, 3), in their unit; the gradient at zero is zero."""
    squared = (coordinates[:, pairs[:, 0]] - coordinates[:, pairs[:, 1]]).square().sum(-1)
    return squared.clamp_min(1e-12).sqrt()


def n_dihedrals(n_atoms: int) -> int:
    """How many dihedrals `choose_dihedrals` gives."""
    return min(n_atoms - 3, MAX_DIHEDRALS)


def choose_dihedrals(atoms: Sequence[str]) -> np.ndarray:
    """Four atoms for each signed quantity: (n_dihedrals, 4) int64.

    `atoms` are names such as `ALA7-CA`, in order. φ and ψ of the backbone come first, where N, CA and C of neighbouring
    residues are there; the rest are four atoms in a row, as for CA atoms alone. More than 100 are thinned evenly.
    """
    places: dict[tuple[int, str], int] = {}
    residue, last = -1, None
    for k, atom in enumerate(atoms):
        match = re.fullmatch(r"(.*)-([^-]+)", atom)
        label, name = (match[1], match[2]) if match else (atom, "")
        residue += label != last
        last = label
        places.setdefault((residue, name), k)
    torsions = [((-1, "C"), (0, "N"), (0, "CA"), (0, "C")), ((0, "N"), (0, "CA"), (0, "C"), (1, "N"))]
    backbone: list[list[int]] = []
    for number in range(residue + 1):
        for four in torsions:
            wanted = [places.get((number + step, name)) for step, name in four]
            if None not in wanted:
                backbone.append([k for k in wanted if k is not None])
    rows = [list(range(k, k + 4)) for k in range(len(atoms) - 3)]
    n = n_dihedrals(len(atoms))
    backbone = _thinned(backbone, n)
    return np.array(backbone + _thinned(rows, n - len(backbone)), np.int64).reshape(n, 4)


def _thinned(values: list[list[int]], n: int) -> list[list[int]]:
    if n < 1 or not values:
        return []
    return [values[k] for k in np.unique(np.round(np.linspace(0, len(values) - 1, min(n, len(values)))).astype(int))]


def dihedral_numbers(coordinates: Tensor, fours: Tensor) -> Tensor:
    """Sines and cosines (B, 2 q) of the dihedral angles of `fours` (q, 4); zero where three atoms lie on a line.

    The mirror image of a structure has the opposite sines.
    """
    a, b, c, d = (coordinates[:, fours[:, k]] for k in range(4))
    first, middle, last = b - a, c - b, d - c
    n1, n2 = torch.linalg.cross(first, middle), torch.linalg.cross(middle, last)
    length = middle.square().sum(-1).clamp_min(1e-12).sqrt()
    sine = length * (first * n2).sum(-1)
    cosine = (n1 * n2).sum(-1)
    size = (sine.square() + cosine.square()).clamp_min(1e-12).sqrt()
    return torch.cat([sine / size, cosine / size], 1)
