"""Internal quantities of a structure, in numbers that grow no faster than its atoms: pair distances and dihedrals.

Which pairs and which four atoms follow from the number of atoms (and their names) alone.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
from torch import Tensor

from mdlatent.coordinate_sizes import LANDMARKS, n_dihedrals

__all__ = ["choose_dihedrals", "dihedral_numbers", "landmarks", "shifted_distances", "square_distances"]


def landmarks(n_atoms: int) -> np.ndarray:
    """Atoms of which the encoder sees all distances: all up to 64, else 64 evenly spaced, (k,) int64."""
    return np.unique(np.round(np.linspace(0, n_atoms - 1, min(n_atoms, LANDMARKS))).astype(np.int64))


def square_distances(coordinates: Tensor, atoms: Tensor) -> Tensor:
    """Distances among `atoms` (k,) in structures (B, N, 3): (B, k (k − 1) / 2), the upper triangle row by row."""
    some = coordinates.index_select(1, atoms)
    square = torch.cdist(some, some, compute_mode="donot_use_mm_for_euclid_dist")
    return square.flatten(1).index_select(1, _upper(len(atoms), str(coordinates.device)))


@cache
def _upper(n: int, device: str) -> Tensor:
    """Places of the upper triangle in a flattened n × n matrix."""
    i, j = torch.triu_indices(n, n, 1, device=device)
    return i * n + j


def shifted_distances(coordinates: Tensor, shifts: Sequence[int]) -> Tensor:
    """Distances of each atom to those `shifts` further in order: (B, Σ (N − shift)). Slices, which cost less than to
    gather and scatter pairs; the gradient at zero distance is zero."""
    planes = coordinates.transpose(1, 2).contiguous()  # (B, 3, N): sums over the last axis of three are slow
    pieces = [planes[:, :, step:] - planes[:, :, :-step] for step in shifts]
    return torch.cat(pieces, 2).square().sum(1).clamp_min(1e-12).sqrt()


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
