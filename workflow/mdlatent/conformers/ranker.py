"""A learned ranker: how likely each structure of a pool is to be near a true conformer, by energies and neighbours.

Force-field energy alone is a poor judge: references of some molecules lie in the deepest well, those of others several
kcal/mol up. A log-linear model over few features weighs the two: how far up the well is (sharply near zero, flatly
beyond), how strained the structure is, and how many others, deep ones above all, are near it; where a learned force
field has relaxed the pools, also how far up that has the well. Its weights maximise the likelihood of references under
the mixture Σ_i w_i exp(−d(i, r)² / 2 σ²), w = softmax(features · weights), with each molecule weighing the same. It
sees no elements, so it serves any molecule that has a force field.

Time and memory grow with the square of the pool.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mdlatent import files
from mdlatent.errors import DataError

__all__ = ["FEATURES", "FIELD_FEATURES", "Example", "Ranker", "features", "fit"]

CAP_KCAL = 30.0
FALLS_KCAL = (0.1, 0.5, 2.0)  # of the sharp terms in energy
WIDTHS_ANGSTROM = (0.3, 0.7)  # of the neighbourhoods
TEMPERATURES_KCAL = (1.0, 3.0)
SIGMA_ANGSTROM = 0.4
FLOOR = 1e-4  # likelihood of a reference that nothing is near, so that it does not rule the fit
FEATURES = (
    "well",
    "strain",
    "sqrt_well",
    "well_per_atom",
    *(f"well_{fall}" for fall in FALLS_KCAL),
    *(f"strain_{fall}" for fall in FALLS_KCAL),
    *(f"{kind}_{width}" for width in WIDTHS_ANGSTROM for kind in ("neighbours", "deep_neighbours")),
    *(f"distance_{temperature}" for temperature in TEMPERATURES_KCAL),
)
FIELD_FEATURES = ("field", "sqrt_field", "field_per_atom", *(f"field_{fall}" for fall in FALLS_KCAL))


@dataclass(frozen=True)
class Example:
    """A pool to learn from: features (B, F), RMSD (B, K) in Å from each structure to each reference."""

    features: np.ndarray
    rmsd_angstrom: np.ndarray


class Ranker:
    """Weights (F,) of FEATURES, or of these and FIELD_FEATURES, with provenance."""

    def __init__(self, weights: np.ndarray, provenance: Mapping[str, Any]) -> None:
        self.weights, self.provenance = weights, dict(provenance)

    @property
    def needs_field(self) -> bool:
        """Whether it was learned from pools that a learned force field had relaxed."""
        return len(self.weights) > len(FEATURES)

    def energies(self, some_features: np.ndarray) -> np.ndarray:
        """−log of the likelihood (B,) up to a constant, least 0: in place of an energy in units of kT."""
        score = some_features @ self.weights
        return np.asarray(score.max() - score)

    def save(self, path: str | Path) -> None:
        """Write as .npz; the same weights give the same bytes."""
        with files.write_beside(path) as temporary:
            np.savez_compressed(
                temporary,
                weights=self.weights,
                names=np.array(FEATURES + FIELD_FEATURES if self.needs_field else FEATURES),
                provenance=np.array(json.dumps(self.provenance)),
            )

    @classmethod
    def load(cls, path: str | Path) -> Ranker:
        """Read what `save` wrote. Raises DataError if the file is another."""
        try:
            with np.load(path, allow_pickle=False) as stored:
                weights, names = stored["weights"], tuple(stored["names"].tolist())
                provenance = json.loads(str(stored["provenance"]))
        except (OSError, KeyError, ValueError, EOFError) as error:
            raise DataError(
                f"{path}: got no ranker ({error}); make it with mdlatent.conformers.train_ranker"
            ) from error
        if names not in (FEATURES, FEATURES + FIELD_FEATURES):
            raise DataError(f"{path}: a ranker of another version of mdlatent; make it again")
        return cls(weights, provenance)


def features(
    well_kcal: np.ndarray,
    own_kcal: np.ndarray,
    rmsd_angstrom: np.ndarray,
    n_heavy: int,
    field_kcal: np.ndarray | None = None,
) -> np.ndarray:
    """Features (B, F) of a pool: energies (B,) in kcal/mol of the well and own, RMSD (B, B) in Å; `field_kcal` (B,) are
    those of a learned force field, if there is one."""
    well, strain = well_kcal - well_kcal.min(), own_kcal - well_kcal
    columns = [np.minimum(well, CAP_KCAL), np.minimum(strain, CAP_KCAL), np.sqrt(well)]
    columns.append(np.minimum(well, CAP_KCAL) / n_heavy)
    columns += [np.exp(-some / fall) for some in (well, strain) for fall in FALLS_KCAL]
    weights = [np.exp(-well / temperature) for temperature in TEMPERATURES_KCAL]
    for width in WIDTHS_ANGSTROM:
        near = np.exp(-(rmsd_angstrom**2) / (2 * width**2))
        columns += [np.log(near.sum(1)), np.log((near @ weights[-1]) + 1e-12)]
    columns += [rmsd_angstrom @ weight / weight.sum() for weight in weights]
    if field_kcal is not None:
        of_field = np.minimum(field_kcal - field_kcal.min(), CAP_KCAL)
        columns += [of_field, np.sqrt(of_field), of_field / n_heavy]
        columns += [np.exp(-of_field / fall) for fall in FALLS_KCAL]
    result = np.stack(columns, 1)
    return np.asarray(result - result.mean(0))


def fit(examples: Sequence[Example], penalty: float) -> tuple[np.ndarray, float]:
    """Weights (F,) that maximise the mean log-likelihood per molecule, and that mean.

    `penalty` / 2 times the squared weights of standardised features is taken from the sum over molecules. The problem
    starts at zero and is solved by L-BFGS. Raises DataError if there is no example.
    """
    from scipy.optimize import minimize

    if not examples:
        raise DataError("got no pool with references to learn a ranker from; give an SDF file with 3-D conformers")
    spread = np.sqrt(np.mean([one.features.var(0) for one in examples], axis=0)) + 1e-9
    scaled = [Example(one.features / spread, one.rmsd_angstrom) for one in examples]

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        value, slope = penalty / 2 * float(weights @ weights), penalty * weights
        for one in scaled:
            likelihood, its_slope = log_likelihood(weights, one)
            value, slope = value - likelihood, slope - its_slope
        return value, slope

    found = minimize(loss, np.zeros(len(spread)), jac=True, method="L-BFGS-B", options={"maxiter": 500})
    return found.x / spread, float(np.mean([log_likelihood(found.x, one)[0] for one in scaled]))


def log_likelihood(weights: np.ndarray, example: Example) -> tuple[float, np.ndarray]:
    """Mean log-likelihood of a molecule's references, and its gradient (F,)."""
    kernel = np.log(np.exp(-(example.rmsd_angstrom**2) / (2 * SIGMA_ANGSTROM**2)) + FLOOR)
    prior = example.features @ weights
    prior -= _log_sum(prior)
    both = prior[:, None] + kernel
    total = _log_sum(both)  # (K,)
    difference = np.exp(both - total).mean(1) - np.exp(prior)
    return float(total.mean()), difference @ example.features


def _log_sum(values: np.ndarray) -> np.ndarray:
    top = values.max(0)
    return np.asarray(top + np.log(np.exp(values - top).sum(0)))
