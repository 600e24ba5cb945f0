"""Energies of force fields of the form of MMFF94 that can be differentiated twice, for training; torch.

The formulas are those of mmff_formulas.py, of several molecules at once: a union of graphs (field_graph.py) with B
conformers of each. Memory grows with B times the number of terms.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mdlatent.conformers.field_graph import FieldGraph
from mdlatent.conformers.mmff_formulas import BEND, BUFFER, CUBIC, DELTA, GAMMA
from mdlatent.conformers.mmff_terms import Terms

__all__ = ["energies"]

TINY = 1e-12
NEARLY_ONE = 1 - 1e-6  # cosines at most: the slope of their angles is infinite at 1


def energies(x: Tensor, graph: FieldGraph, terms: Terms) -> Tensor:
    """Energies (B, n_molecules) in kcal/mol of conformers (B, n_atoms of all, 3) in Å, by `terms` of the same graph."""
    total = x.new_zeros(len(x), graph.n_molecules)
    for kind, atoms, values in (
        (_bond, terms.bonds, terms.bond_values),
        (_angle, terms.angles, terms.angle_values),
        (_linear, terms.linear, terms.linear_values),
        (_plane, terms.planes, terms.plane_values),
        (_torsion, terms.torsions, terms.torsion_values),
        (_pair, terms.pairs, terms.pair_values),
    ):
        if len(atoms):
            points = [x[:, column] for column in atoms.T]
            total = total.index_add(1, graph.molecule[atoms[:, 0]], kind(points, *values.T))
    return total


def _bond(points: list[Tensor], force: Tensor, length: Tensor) -> Tensor:
    d = _norm(points[0] - points[1]) - length
    return force * d * d * (1 + d * (CUBIC + 7 / 12 * CUBIC**2 * d))


def _angle(
    points: list[Tensor], force: Tensor, rest: Tensor, first: Tensor, second: Tensor, length_1: Tensor, length_2: Tensor
) -> Tensor:
    d1, d2, cosine = _cosine(points)
    bent = torch.acos(cosine) - rest
    return force * bent * bent * (1 + BEND * bent) + (first * (d1 - length_1) + second * (d2 - length_2)) * bent


def _linear(points: list[Tensor], force: Tensor) -> Tensor:
    return force * (1 + _cosine(points)[2])


def _plane(points: list[Tensor], force: Tensor) -> Tensor:
    outer, centre, one, two = points
    r, n = outer - centre, torch.linalg.cross(one - centre, two - centre)
    sine = ((n * r).sum(-1) / (_norm(n) * _norm(r))).clamp(-NEARLY_ONE, NEARLY_ONE)
    return force * torch.asin(sine) ** 2


def _torsion(points: list[Tensor], v1: Tensor, v2: Tensor, v3: Tensor) -> Tensor:
    i, j, k, m = points
    n1, n2 = torch.linalg.cross(i - j, k - j), torch.linalg.cross(m - k, k - j)
    c = (n1 * n2).sum(-1) / (_norm(n1) * _norm(n2))
    return 0.5 * (v1 * (1 + c) + 2 * v2 * (1 - c * c) + v3 * (1 + c * (4 * c * c - 3)))


def _pair(points: list[Tensor], inverse_radius: Tensor, well: Tensor, charge: Tensor) -> Tensor:
    d = _norm(points[0] - points[1])
    q = d * inverse_radius
    repulsion = well * ((1 + BUFFER) / (q + BUFFER)) ** 7
    return repulsion * ((1 + GAMMA) / (q**7 + GAMMA) - 2) + charge / (d + DELTA)


def _cosine(points: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Lengths of both bonds and the cosine of the angle between them."""
    a, b = points[0] - points[1], points[2] - points[1]
    d1, d2 = _norm(a), _norm(b)
    return d1, d2, ((a * b).sum(-1) / (d1 * d2)).clamp(-NEARLY_ONE, NEARLY_ONE)


def _norm(a: Tensor) -> Tensor:
    return ((a * a).sum(-1) + TINY).sqrt()
