"""Z-matrix → Cartesian coordinates: all atoms of one level of the tree at once.

Each atom is placed by its bond length, its angle and its dihedral to atoms that stand already (the "natural extension
reference frame": Parsons et al., J. Comput. Chem. 26, 1063 (2005), doi:10.1002/jcc.20237).
"""

from __future__ import annotations

import torch
from torch import Tensor

from mdlatent.conformers.internal import InternalCoordinates
from mdlatent.conformers.internal_values import Values

__all__ = ["place"]


def place(internal: InternalCoordinates, values: Values) -> Tensor:
    """Conformers (B, n_atoms, 3) Å with the lengths, angles and dihedrals of the tree; the other values are not read.

    Differentiable with respect to the values. Each molecule's root stands at the origin, the first atom bound to it on
    the x axis, a second one in the xy plane. Rings close if the values are those of a real conformer; where they need
    not be, see `reconcile`.
    """
    lengths, angles, dihedrals = values
    dihedrals = torch.cat([dihedrals, dihedrals.new_zeros(len(dihedrals), 1)], 1)
    x = lengths.new_zeros(len(lengths), internal.n_atoms + 1, 3)
    free = lengths.new_tensor([[0.0, 1.0, 0.0]])  # orients the molecule as a whole
    x = x.index_copy(1, internal.roots.new_tensor([internal.n_atoms]), free.expand(len(x), 1, 3))
    first = lengths[:, internal.first_lengths]
    x = x.index_copy(1, internal.firsts, torch.nn.functional.pad(first[..., None], (0, 2)))
    for level in internal.levels:
        a, b, c = x[:, level.a], x[:, level.b], x[:, level.c]
        axis = torch.nn.functional.normalize(c - b, dim=-1, eps=1e-12)
        side = _perpendicular(b - a, axis)
        length, angle = lengths[:, level.lengths], angles[:, level.angles]
        dihedral = dihedrals[:, level.torsions] + dihedrals[:, level.impropers]
        local = torch.stack([-angle.cos(), angle.sin() * dihedral.cos(), angle.sin() * dihedral.sin()], -1)
        frame = torch.stack([axis, torch.linalg.cross(side, axis), side], -1)
        x = x.index_copy(1, level.atoms, c + length[..., None] * (frame @ local[..., None])[..., 0])
    return x[:, : internal.n_atoms]


def _perpendicular(vector: Tensor, axis: Tensor) -> Tensor:
    """Unit vectors along vector × axis; any one perpendicular to the axis where these are parallel."""
    normal = torch.linalg.cross(vector, axis)
    parallel = normal.square().sum(-1, keepdim=True) < 1e-24
    smallest = torch.nn.functional.one_hot(axis.detach().abs().argmin(-1), 3).to(axis.dtype)
    normal = torch.where(parallel, torch.linalg.cross(smallest, axis), normal)
    return torch.nn.functional.normalize(normal, dim=-1, eps=1e-12)
