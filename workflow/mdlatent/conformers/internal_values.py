"""Cartesian coordinates → values of internal coordinates, and their derivatives.

Angles come from atan2 of cross and dot product, which is exact near 0 and π where the arc cosine is not. Where a value
has no derivative (a straight angle, a dihedral over one) its gradient is zero, never NaN.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from mdlatent.conformers.internal import InternalCoordinates

__all__ = ["Values", "jacobian", "values", "wrapped"]


class Values(NamedTuple):
    """Values of the internal coordinates of B conformers, in the order of their InternalCoordinates."""

    lengths_angstrom: Tensor  # (B, n_bonds)
    angles: Tensor  # (B, n_angles), radians, 0 to π
    dihedrals: Tensor  # (B, n_dihedrals), radians, −π to π, positive clockwise when seen along the axis (IUPAC)


def values(internal: InternalCoordinates, coordinates_angstrom: Tensor) -> Values:
    """Lengths, angles and dihedrals of conformers (B, n_atoms, 3) Å; same dtype and device, differentiable."""
    x = coordinates_angstrom
    bond, angle, dihedral = (x[:, index] for index in (internal.bonds, internal.angles, internal.dihedrals))
    lengths = _norm(bond[:, :, 1] - bond[:, :, 0])
    u, v = angle[:, :, 0] - angle[:, :, 1], angle[:, :, 2] - angle[:, :, 1]
    angles = _atan2(_norm(torch.linalg.cross(u, v)), (u * v).sum(-1))
    u, v, w = dihedral.diff(dim=2).unbind(2)
    m, n = torch.linalg.cross(u, v), torch.linalg.cross(v, w)
    dihedrals = _atan2(_norm(v) * (u * n).sum(-1), (m * n).sum(-1))
    return Values(lengths, angles, dihedrals)


def wrapped(angle: Tensor) -> Tensor:
    """The same angle in [−π, π]; its derivative is one."""
    return angle - (2 * torch.pi) * torch.round(angle / (2 * torch.pi))


def jacobian(internal: InternalCoordinates, coordinates_angstrom: Tensor) -> tuple[Tensor, Tensor]:
    """Derivatives (B, n_bonds + n_angles + n_dihedrals, 3 n_atoms) of all values, and what the dihedrals are worth.

    The second, (B, n_dihedrals) in 0 to 1, is the product of the sines of the dihedral's two angles: a dihedral near
    a straight angle says little, and its derivative grows as one over it. Formulas as in Wilson, Decius & Cross,
    Molecular Vibrations (1955), ch. 4. Memory grows with B × rows × atoms.
    """
    x = coordinates_angstrom
    bond, angle, dihedral = (x[:, index] for index in (internal.bonds, internal.angles, internal.dihedrals))
    unit = _unit(bond[:, :, 1] - bond[:, :, 0])
    d_bond = torch.stack([-unit, unit], 2)

    u, v = angle[:, :, 0] - angle[:, :, 1], angle[:, :, 2] - angle[:, :, 1]
    normal = _unit(torch.linalg.cross(u, v))
    first = torch.linalg.cross(u, normal) / _square(u)
    last = torch.linalg.cross(normal, v) / _square(v)
    d_angle = torch.stack([first, -first - last, last], 2)

    u, v, w = dihedral.diff(dim=2).unbind(2)
    m, n, length = torch.linalg.cross(u, v), torch.linalg.cross(v, w), _norm(v)[..., None]
    first, last = -length * m / _square(m), length * n / _square(n)
    p, q = (u * v).sum(-1, keepdim=True) / _square(v), (w * v).sum(-1, keepdim=True) / _square(v)
    d_dihedral = torch.stack([first, -(1 + p) * first + q * last, p * first - (1 + q) * last, last], 2)
    worth = (_norm(m) * _norm(n)) / (_norm(u) * _square(v)[..., 0] * _norm(w)).clamp_min(1e-12)

    parts = ((internal.bonds, d_bond), (internal.angles, d_angle), (internal.dihedrals, d_dihedral))
    return torch.cat([_spread(index, d, internal.n_atoms) for index, d in parts], 1), worth


def _spread(index: Tensor, derivative: Tensor, n_atoms: int) -> Tensor:
    """Derivatives by a row's own atoms (B, rows, k, 3) → by all atoms (B, rows, 3 n_atoms)."""
    wide = derivative.new_zeros(len(derivative), len(index), n_atoms, 3)
    where = index[None, :, :, None].expand(len(derivative), -1, -1, 3)
    return wide.scatter_add(2, where, derivative).flatten(2)


def _norm(vectors: Tensor) -> Tensor:
    """Lengths over the last dimension; the gradient of a zero vector is zero."""
    square = vectors.square().sum(-1)
    zero = square == 0
    return torch.where(zero, 0.0, torch.where(zero, 1.0, square).sqrt())


def _square(vectors: Tensor) -> Tensor:
    """Squared lengths, the last dimension kept, never zero: a divisor."""
    return vectors.square().sum(-1, keepdim=True).clamp_min(1e-12)


def _unit(vectors: Tensor) -> Tensor:
    """Vectors of length one; zero stays zero."""
    return vectors / _norm(vectors)[..., None].clamp_min(1e-12)


def _atan2(y: Tensor, x: Tensor) -> Tensor:
    """atan2 with atan2(0, 0) = 0 and a gradient of zero there."""
    nothing = (y == 0) & (x == 0)
    return torch.atan2(y, torch.where(nothing, 1.0, x))
