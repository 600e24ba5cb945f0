"""Internal coordinates that need not agree with one another (decoded ones, in rings above all) → Cartesian coordinates.

The structure is the one that minimises, over Cartesian coordinates x and with targets q*,

    ½ Σ_bonds (l − l*)² / σ_l²  +  ½ Σ_angles (θ − θ*)² / σ_θ²  +  ½ Σ_dihedrals s² wrap(φ − φ*)² / σ_φ²

where s, the product of the sines of the dihedral's two angles, takes dihedrals over straight angles out. It is found by
a fixed number of Levenberg–Marquardt steps (Marquardt 1963, doi:10.1137/0111030) from the structure that the tree
alone gives: where all targets agree, that is the answer already and nothing moves.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from mdlatent.conformers.internal import InternalCoordinates
from mdlatent.conformers.internal_values import Values, jacobian, values, wrapped
from mdlatent.conformers.placing import place

__all__ = ["Spread", "reconcile"]


class Spread(NamedTuple):
    """How far a structure may be from its targets: σ of each kind, a number or one per coordinate (n,)."""

    lengths_angstrom: float | Tensor = 0.01
    angles: float | Tensor = 0.03
    dihedrals: float | Tensor = 0.2


FIRST_DAMPING, LEAST_DAMPING, MOST_DAMPING = 1e-3, 1e-9, 1e9  # of the diagonal; never zero, for a structure may turn


def reconcile(
    internal: InternalCoordinates,
    target: Values,
    n_steps: int = 20,
    spread: Spread | None = None,
    start_angstrom: Tensor | None = None,
) -> Tensor:
    """Conformers (B, n_atoms, 3) Å that fit the targets of one molecule in the weighted least-squares sense above.

    Begins at `start_angstrom` (B, n_atoms, 3), or else at `place`. A step that does not lower the sum is not taken and
    the next one is shorter, each conformer for itself. Works in float64 and gives the targets' dtype; differentiable
    with respect to them (steps are taken or not as a constant). Memory per conformer: coordinates × 3 n_atoms × 8
    bytes, some 0.5 MB at 50 atoms, times n_steps where gradients are wanted.
    """
    spread = spread or Spread()
    x = place(internal, target) if start_angstrom is None else start_angstrom
    dtype, x = x.dtype, x.double()
    goal = Values(*(part.double() for part in target))
    sigma = torch.cat(
        [
            torch.as_tensor(s, dtype=x.dtype, device=x.device).expand(q.shape[1])
            for s, q in zip(spread, goal, strict=True)
        ]
    )
    n_dihedrals = len(internal.dihedrals)
    damping = x.new_full((len(x), 1), FIRST_DAMPING)
    for _ in range(n_steps):
        J, worth = jacobian(internal, x)
        weight = torch.cat([worth.new_ones(len(x), len(sigma) - n_dihedrals), worth], 1) / sigma
        residual = weight * _difference(internal, x, goal)
        J = weight[..., None] * J
        normal = J.transpose(1, 2) @ J
        diagonal = normal.diagonal(dim1=1, dim2=2)
        floor = 1e-6 * diagonal.mean(1, keepdim=True)  # of an atom on which nothing depends in some direction
        A = normal + torch.diag_embed(damping * (diagonal + floor) + 1e-9 * floor)
        step = torch.cholesky_solve((J.transpose(1, 2) @ residual[..., None]), torch.linalg.cholesky(A))
        trial = x - step.view_as(x)
        new = weight.detach() * _difference(internal, trial.detach(), goal)
        better = (new.square().sum(1) < residual.square().sum(1)).detach()
        x = torch.where(better[:, None, None], trial, x)
        damping = (damping * torch.where(better, 0.2, 8.0)[:, None]).clamp(LEAST_DAMPING, MOST_DAMPING)
    return x.to(dtype)


def _difference(internal: InternalCoordinates, x: Tensor, goal: Values) -> Tensor:
    """Values of x less the targets (B, all coordinates), dihedrals the short way round."""
    now = values(internal, x)
    return torch.cat([now[0] - goal[0], now[1] - goal[1], wrapped(now[2] - goal[2])], 1)
