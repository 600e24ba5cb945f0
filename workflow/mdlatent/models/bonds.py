"""Distances of atoms that follow each other brought back to their means, where these hardly vary: a step of a decoder.

A chain's bonds are of two kinds, those of even and of odd number. Two of one kind share no atom, so that all of a kind
are set right at once, each by moving its two atoms along it by the same amount (SHAKE with equal masses, doi
10.1016/0021-9991(77)90098-5). Setting right one kind disturbs the other, but less and less, and some sweeps over both
do: bonds at right angles do not disturb each other. Time and memory are linear in the atoms.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

__all__ = ["bond_lengths", "keep", "keep_with_slopes"]

SWEEPS = 6
SHORTEST_NM = 1e-3  # below it the direction of a bond is not defined


def bond_lengths(frames: Iterable[np.ndarray], tolerance: float) -> np.ndarray:
    """Mean distances (N − 1,) in nm of the atoms k and k + 1 in `frames`, pieces (b, N, 3) in nm; zero where their
    standard deviation is above `tolerance` times the mean: not to be kept."""
    count, first = 0, None
    for some in frames:
        lengths = np.linalg.norm(np.diff(some.astype(np.float64), axis=1), axis=2)
        if first is None:  # variances are taken about the first frame: squares of lengths would lose digits
            first = lengths[0]
            total, squares = np.zeros_like(first), np.zeros_like(first)
        count += len(lengths)
        total += (lengths - first).sum(0)
        squares += np.square(lengths - first).sum(0)
    assert first is not None
    mean = first + total / count
    deviation = np.sqrt(np.maximum(squares / count - np.square(total / count), 0))
    return np.where((deviation <= tolerance * mean) & (mean > SHORTEST_NM), mean, 0.0)


def keep(coordinates: Tensor, lengths_nm: Tensor) -> Tensor:
    """Structures (…, N, 3) in nm with the distances of neighbours at `lengths_nm` (N − 1,), but where that is zero."""
    for first, wanted in _kinds(lengths_nm):
        bond = coordinates.index_select(-2, first + 1) - coordinates.index_select(-2, first)
        stretch, _ = _stretch(bond, wanted)
        coordinates = _moved(coordinates, first, 0.5 * stretch * bond)
    return coordinates


def keep_with_slopes(coordinates: Tensor, derivatives: Tensor, lengths_nm: Tensor) -> tuple[Tensor, Tensor]:
    """The same of structures (B, N, 3), and the derivatives (B, d, N, 3) of what comes out from those that go in."""
    for first, wanted in _kinds(lengths_nm):
        bond = coordinates.index_select(-2, first + 1) - coordinates.index_select(-2, first)
        change = derivatives.index_select(-2, first + 1) - derivatives.index_select(-2, first)
        stretch, squared = _stretch(bond, wanted)
        along = (change * bond[:, None]).sum(-1, keepdim=True) / squared[:, None]
        kept = torch.where(wanted[:, None] > 0, (1 + stretch)[:, None] * along, torch.zeros_like(along))
        coordinates = _moved(coordinates, first, 0.5 * stretch * bond)
        derivatives = _moved(derivatives, first, 0.5 * (stretch[:, None] * change - kept * bond[:, None]))
    return coordinates, derivatives


def _kinds(lengths_nm: Tensor) -> list[tuple[Tensor, Tensor]]:
    """First atoms and lengths of the bonds to set right, one kind after the other."""
    numbers = torch.arange(len(lengths_nm), device=lengths_nm.device)
    return SWEEPS * [(numbers[kind::2], lengths_nm[kind::2]) for kind in (0, 1)]


def _stretch(bond: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """By which part of itself each bond (…, m, 3) is too short, and the square of its length: both (…, m, 1)."""
    squared = bond.square().sum(-1, keepdim=True).clamp_min(SHORTEST_NM**2)
    stretch = wanted[:, None] / squared.sqrt() - 1
    return torch.where(wanted[:, None] > 0, stretch, torch.zeros_like(stretch)), squared


def _moved(values: Tensor, first: Tensor, half: Tensor) -> Tensor:
    """`values` (…, N, 3) less `half` at the first atoms of bonds, and plus `half` at the second ones."""
    return values.index_add(-2, first, -half).index_add(-2, first + 1, half)
