"""The network of the learned force field: from a molecule's graph to the values of all its terms.

A few rounds of messages along bonds give each atom an embedding; small networks read those of a term's atoms, in a way
that does not depend on the order in which they are listed, and correct the values of MMFF94s. The last layer of each
begins at zero, so an untrained network is MMFF94s. The idea is espaloma's (Wang et al. 2022, doi:10.1039/D2SC02739A)
and Grappa's (Seute et al. 2025, doi:10.1039/D4SC05465B).

The same lines serve numpy arrays, for use, and torch tensors, for training: `xp` is either module. Time and memory grow
with the number of terms, so with the square of the atoms, and with width² for all but pairs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from mdlatent.conformers.field_graph import FieldGraph
from mdlatent.conformers.mmff_terms import COULOMB, SCALED_1_4, Terms

__all__ = ["HEADS", "charges", "embedding", "n_layers", "values"]

# Networks that read terms: how many embeddings, whether the bond's features too, and how many numbers they give.
HEADS = {
    "bond": (2, True, 2),
    "angle": (3, False, 3),
    "linear": (2, False, 1),
    "plane": (2, False, 1),
    "torsion": (4, False, 3),
    "charge": (1, False, 2),
    "vdw": (1, False, 2),
}
N_SCALES = 4  # of charges, then of wells: atoms three bonds apart, and further
MOST_ANGSTROM, MOST_RADIANS = 0.1, 0.3  # corrections of lengths and angles at rest
MOST_CHARGE, MOST_LOG_RADIUS = 0.3, 0.2  # of an atom, e; of the van der Waals radius, each of a pair's atoms
PLANE_KCAL = 5.0  # unit of corrections of planes

Weights = Mapping[str, Any]


def values(weights: Weights, graph: FieldGraph, xp: Any) -> Terms:
    """The terms of the graph with corrected values."""
    h, known = embedding(weights, graph, xp), graph.terms
    i, j = known.bonds.T
    f = _head(weights, "bond", [h[i] + h[j], h[i] * h[j], graph.bond_features], xp)
    force = known.bond_values[:, 0] * xp.exp(xp.clip(f[:, 0], -1, 1))
    lengths = known.bond_values[:, 1] + MOST_ANGSTROM * xp.tanh(f[:, 1])
    bonds = xp.stack([force, lengths], 1)

    i, j, k = known.angles.T
    f, v = _head(weights, "angle", [h[j], h[i] + h[k], h[i] * h[k]], xp), known.angle_values
    force, rest = v[:, 0] * xp.exp(xp.clip(f[:, 0], -1.5, 1.5)), v[:, 1] + MOST_RADIANS * xp.tanh(f[:, 1])
    first, second = graph.angle_bonds.T
    coupling = 1 + f[:, 2]
    angles = xp.stack([force, rest, v[:, 2] * coupling, v[:, 3] * coupling, lengths[first], lengths[second]], 1)

    i, j, k = known.linear.T
    f = _head(weights, "linear", [h[j], h[i] + h[k]], xp)
    linear = known.linear_values * xp.exp(xp.clip(f, -2, 2))
    outer, centre = known.planes.T[:2]
    planes = known.plane_values + PLANE_KCAL * _head(weights, "plane", [h[centre], h[outer]], xp)

    i, j, k, m = known.torsions.T
    there, back = [h[i], h[j], h[k], h[m]], [h[m], h[k], h[j], h[i]]
    torsions = known.torsion_values + (_head(weights, "torsion", there, xp) + _head(weights, "torsion", back, xp))
    pairs = _pairs(weights, graph, h, xp)
    return Terms(
        known.bonds, bonds, known.angles, angles, known.linear, linear,
        known.planes, planes, known.torsions, torsions, known.pairs, pairs,
    )  # fmt: skip


def charges(weights: Weights, graph: FieldGraph, h: Any, xp: Any) -> Any:
    """Charges (n,) of the atoms in e, from their embeddings. Each gives or takes, and what that does to the sum is
    spread over the molecule by learned weights: a molecule keeps its charge."""
    f = _head(weights, "charge", [h], xp)
    change, share = MOST_CHARGE * xp.tanh(f[:, 0]), xp.exp(xp.clip(f[:, 1], -3, 3))
    excess = _sum(change, graph.molecule, graph.n_molecules) / _sum(share, graph.molecule, graph.n_molecules)
    return graph.charges + change - share * excess[graph.molecule]


def embedding(weights: Weights, graph: FieldGraph, xp: Any) -> Any:
    """What the network knows of each atom, (n, width)."""
    h = _linear(weights, "embed", graph.features) + weights["kind.weight"][graph.types]
    i, j = xp.concatenate([graph.terms.bonds, xp.flip(graph.terms.bonds, (1,))]).T
    along = xp.concatenate([graph.bond_features, graph.bond_features])
    for layer in range(n_layers(weights)):
        z = _norm(weights, f"norm.{layer}", h, xp)
        messages = _net(weights, f"message.{layer}", [z[i], z[j], along], xp)
        h = h + _net(weights, f"update.{layer}", [z, _sum(messages, i, len(h))], xp)
    return h


def n_layers(weights: Weights) -> int:
    """How many rounds of messages weights are for."""
    return sum(name.startswith("norm.") and name.endswith(".weight") for name in weights)


def _pairs(weights: Weights, graph: FieldGraph, h: Any, xp: Any) -> Any:
    """Van der Waals and charges (pairs, 3)."""
    f = _head(weights, "vdw", [h], xp)
    radius, well = xp.exp(MOST_LOG_RADIUS * xp.tanh(f[:, 0])), xp.exp(xp.clip(f[:, 1], -2, 2))
    q, scales = charges(weights, graph, h, xp), xp.exp(weights["scales"])
    i, j = graph.terms.pairs.T
    inverse, epsilon = graph.terms.pair_values[:, 0], graph.terms.pair_values[:, 1]
    of_charges = xp.where(graph.three_apart, SCALED_1_4 * scales[0], scales[1])
    of_wells = xp.where(graph.three_apart, scales[2], scales[3])
    product = COULOMB * q[i] * q[j] * of_charges
    return xp.stack([inverse * radius[i] * radius[j], epsilon * well[i] * well[j] * of_wells, product], 1)


def _head(weights: Weights, name: str, parts: list[Any], xp: Any) -> Any:
    return _net(weights, f"heads.{name}", parts, xp)


def _net(weights: Weights, name: str, parts: list[Any], xp: Any) -> Any:
    """Two layers with SiLU between them."""
    x = _linear(weights, f"{name}.0", xp.concatenate(parts, 1))
    x = 0.5 * x * (1 + xp.tanh(0.5 * x))  # x · sigmoid(x), without overflow
    return _linear(weights, f"{name}.2", x)


def _linear(weights: Weights, name: str, x: Any) -> Any:
    return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def _norm(weights: Weights, name: str, x: Any, xp: Any) -> Any:
    x = x - x.mean(1)[:, None]
    return x / xp.sqrt((x * x).mean(1)[:, None] + 1e-5) * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def _sum(parts: Any, places: Any, n: int) -> Any:
    """Sums (n, …) of the parts that have each place."""
    if isinstance(parts, np.ndarray):
        result = np.zeros((n, *parts.shape[1:]), parts.dtype)
        np.add.at(result, places, parts)
        return result
    return parts.new_zeros((n, *parts.shape[1:])).index_add(0, places, parts)
