"""Distributions of torsion angles by environment, learned from reference conformers.

The angle |θ| of each torsion of each rotor is counted in BINS bins of 0–180° under keys of growing environment
(rotors.py); mirror images count alike. A key's distribution is its counts, smoothed, with its coarser key's as a prior:
p_level = (counts + α p_coarser) / (n + α), from the uniform one up. Each molecule weighs the same, however many
conformers it has. For a rotor, the logarithms over all its torsions are averaged as functions of how far it is turned
from a given conformer, so the substituents' positions, chirality included, come from that conformer.

Memory and file grow with the number of distinct environments, some tens of bytes each.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mdlatent import files
from mdlatent.conformers.molecules import Molecule, positions
from mdlatent.conformers.rotors import LEVELS, Rotor, find_rotors, torsion_angles
from mdlatent.errors import DataError

__all__ = ["BINS", "TURNS", "TorsionStatistics", "learn"]

BINS = 36
TURNS = 72  # turns of a rotor that are told apart, 5° each
SMOOTHING_BINS = 1.2
PRIOR_WEIGHT = 3.0  # α, in molecules
SHARPNESS = 1.5
SHARE_UNIFORM = 0.1


class TorsionStatistics:
    """Learned distributions: `keys` (E,) uint64 sorted, `counts` (E, BINS) float32, with provenance."""

    def __init__(self, keys: np.ndarray, counts: np.ndarray, provenance: Mapping[str, Any]) -> None:
        self.keys, self.counts, self.provenance = keys, counts, dict(provenance)

    def distribution(self, keys: Sequence[int], prior_weight: float = PRIOR_WEIGHT) -> np.ndarray:
        """Probability of each bin of |θ| (BINS,) given a torsion's keys, coarse to fine."""
        result = np.full(BINS, 1 / BINS)
        for key in keys:
            found = int(np.searchsorted(self.keys, np.uint64(key)))
            if found < len(self.keys) and self.keys[found] == np.uint64(key):
                counts = self.counts[found].astype(np.float64)
                result = (counts + prior_weight * result) / (counts.sum() + prior_weight)
        return result

    def turns(
        self,
        rotor: Rotor,
        coordinates_angstrom: np.ndarray,
        sharpness: float = SHARPNESS,
        share_uniform: float = SHARE_UNIFORM,
        prior_weight: float = PRIOR_WEIGHT,
    ) -> np.ndarray:
        """Probability (B, TURNS) of turning a rotor of B conformers (B, N, 3) in Å by 0, 5, 10, … degrees."""
        angles = torsion_angles(coordinates_angstrom, rotor.torsions)  # (B, P)
        turned = angles[:, None] + (2 * np.pi / TURNS * np.arange(TURNS))[:, None]  # (B, TURNS, P)
        bins = bin_of(turned)
        logs = np.stack([np.log(self.distribution(keys, prior_weight)) for keys in rotor.keys.tolist()])  # (P, BINS)
        score = sharpness * np.take_along_axis(logs.T[None], bins, axis=1).mean(-1)
        weight = np.exp(score - score.max(1, keepdims=True))
        return (1 - share_uniform) * weight / weight.sum(1, keepdims=True) + share_uniform / TURNS

    def save(self, path: str | Path) -> None:
        """Write as a compressed .npz; the same statistics give the same bytes."""
        scaled = np.round(self.counts / np.maximum(self.counts.max(1, keepdims=True), 1e-9) * 255).astype(np.uint8)
        total = self.counts.sum(1).astype(np.float32)
        with files.write_beside(path) as temporary:
            np.savez_compressed(
                temporary, keys=self.keys, shape=scaled, total=total, provenance=np.array(json.dumps(self.provenance))
            )

    @classmethod
    def load(cls, path: str | Path) -> TorsionStatistics:
        """Read what `save` wrote. Raises DataError if the file is another."""
        try:
            with np.load(path, allow_pickle=False) as stored:
                shape = stored["shape"].astype(np.float64)
                counts = shape / shape.sum(1, keepdims=True) * stored["total"][:, None]
                provenance = json.loads(str(stored["provenance"]))
                keys = stored["keys"]
        except (OSError, KeyError, ValueError, EOFError) as error:
            raise DataError(
                f"{path}: got no torsion statistics ({error}); make them with mdlatent.conformers.train"
            ) from error
        if counts.shape[1:] != (BINS,) or provenance.get("levels") != LEVELS:
            raise DataError(f"{path}: torsion statistics of another version of mdlatent; make them again")
        return cls(keys, counts.astype(np.float32), provenance)


def bin_of(angles: np.ndarray) -> np.ndarray:
    """Bin of the magnitude of angles in radians, any sign and number of turns."""
    magnitude = np.abs((angles + np.pi) % (2 * np.pi) - np.pi)
    return np.minimum((magnitude * (BINS / np.pi)).astype(np.int64), BINS - 1)


def learn(molecules: Iterable[Molecule], provenance: Mapping[str, Any]) -> TorsionStatistics:
    """Count the torsions of all rotors of `molecules` in their conformers. Raises DataError if there is none."""
    counts: dict[int, np.ndarray] = defaultdict(lambda: np.zeros(BINS))
    names = []
    for molecule in molecules:
        coordinates = positions(molecule.mol)
        rotors = find_rotors(molecule.mol)
        names.append(molecule.name)
        own: dict[int, np.ndarray] = defaultdict(lambda: np.zeros(BINS))
        for rotor in rotors:
            bins = bin_of(torsion_angles(coordinates, rotor.torsions))  # (B, P)
            for column, keys in enumerate(rotor.keys.tolist()):
                for key in keys:
                    np.add.at(own[key], bins[:, column], 1 / len(coordinates))
        for key, some in own.items():
            counts[key] += some / np.sqrt(max(some.sum(), 1))  # many like rotors of a molecule are not independent
    if not counts:
        raise DataError(
            f"got {len(names)} molecules without a rotatable bond, expected some that have torsions to learn"
        )
    keys = np.array(sorted(counts), dtype=np.uint64)
    table = np.stack([counts[key] for key in keys.tolist()]) @ _smoothing()
    return TorsionStatistics(
        keys, table.astype(np.float32), {**provenance, "levels": LEVELS, "n_molecules": len(names), "bins": BINS}
    )


def _smoothing() -> np.ndarray:
    """(BINS, BINS) Gaussian smoothing whose rows sum to 1; what passes 0° or 180° is mirrored back, as angles are."""
    centre = np.arange(BINS)
    mirrored = np.concatenate([-1 - centre, centre, 2 * BINS - 1 - centre])
    weight = np.exp(-0.5 * ((mirrored[:, None] - centre) / SMOOTHING_BINS) ** 2)
    folded = weight.reshape(3, BINS, BINS).sum(0)
    return (folded / folded.sum(0)).T
