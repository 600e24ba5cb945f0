"""Conformers with rotors turned at random: by angles from learned distributions, or evenly."""

from __future__ import annotations

import numpy as np

from mdlatent.conformers.rotors import Rotor, turn
from mdlatent.conformers.torsion_statistics import TURNS, TorsionStatistics

__all__ = ["draw"]


def draw(
    starts: np.ndarray, rotors: list[Rotor], n: int, statistics: TorsionStatistics | None, rng: np.random.Generator
) -> np.ndarray:
    """`n` conformers (n, n_atoms, 3) in Å: of each start in turn, with all rotors turned; evenly without statistics."""
    if n <= 0:
        return starts[:0].copy()
    of_start = np.arange(n) % len(starts)
    result = starts[of_start]
    for rotor in rotors:
        if statistics is None:
            steps = rng.integers(TURNS, size=n).astype(float)
        else:
            cumulative = statistics.turns(rotor, starts).cumsum(1)[of_start]
            steps = (cumulative < rng.random((n, 1))).sum(1).astype(float)
        turn(result, rotor, (steps + rng.uniform(-0.5, 0.5, n)) * (2 * np.pi / TURNS))
    return result
