"""How the learned force field is fitted to energies and slopes, and how far it is from them; torch, one thread.

The first round begins with MMFF94s, each later one with the field of the round before, and half of the geometries it
draws are those that this field has led to: few among all, they are what keeps it from making up minima.

Only differences of energy between geometries of a molecule are compared: each molecule has an offset of its own, the
best one. Geometries far above the molecule's lowest count less. Huber losses (Huber 1964, doi:10.1214/aoms/1177703732)
keep the few that no such field can describe from ruling the fit.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from rdkit import Chem
from torch import Tensor

from mdlatent.conformers.field_energy import energies
from mdlatent.conformers.field_graph import FieldGraph, field_graph, mapped, union
from mdlatent.conformers.field_net import FieldNet
from mdlatent.conformers.mmff_terms import Terms
from mdlatent.conformers.pm7 import Labels
from mdlatent.errors import DataError

__all__ = ["Errors", "Example", "Options", "errors", "example", "fit", "net_of"]

log = logging.getLogger("mdlatent")

WINDOW_KCAL = 60.0  # geometries further above the lowest are left out, …
STEEPEST_KCAL = 300.0  # … and those with a slope above, per Å, at an atom
FEWEST = 6  # geometries of a molecule
HALF_KCAL = 15.0  # so far above the lowest a geometry counts half
HUBER_KCAL, HUBER_SLOPE = 5.0, 20.0  # kcal/mol, kcal/mol/Å
LARGEST = 5.0  # norm of a gradient that a step is made with


@dataclass(frozen=True)
class Options:
    """Of the network and its training."""

    width: int = 64
    layers: int = 4
    epochs: int = 36
    later_epochs: int = 20  # of each round after the first
    molecules: int = 12  # of a step
    conformers: int = 10  # of each, drawn anew
    learning_rate: float = 2.5e-3  # highest, of one cycle
    later_rate: float = 1.5e-3
    weight_decay: float = 1e-3
    slope_weight: float = 0.05  # of the slopes' loss beside that of the energies


class Example(NamedTuple):
    """A molecule to learn from: numpy graph; float32 tensors of B geometries as in pm7.Labels; `later` (B,) says which
    are of a round after the first."""

    name: str
    graph: FieldGraph
    coordinates: Tensor
    energies: Tensor
    slopes: Tensor
    later: np.ndarray


class Errors(NamedTuple):
    """Root mean squares over the geometries of a molecule, medians over molecules; see `errors`."""

    energy_kcal: float
    slope_kcal_per_angstrom: float


def example(name: str, mol: Chem.Mol, rounds: Sequence[Labels | None]) -> Example | None:
    """What is learned from a molecule; None if fewer than FEWEST geometries are near enough to its lowest.

    `rounds` are its labels of each round, None of one that failed. Energies are above the lowest. Raises
    MoleculeError if MMFF94s has no parameters for it.
    """
    there = [one for one in rounds if one is not None]
    if not there:
        return None
    labels = Labels(*(np.concatenate(parts) for parts in zip(*there, strict=True)))
    later = np.concatenate([np.full(len(one.energies), k > 0) for k, one in enumerate(rounds) if one is not None])
    steep = np.sqrt((labels.slopes**2).sum(2)).max(1, initial=0.0)
    kept = steep < STEEPEST_KCAL
    if not kept.any():
        return None
    above = labels.energies - labels.energies[kept].min()
    kept &= above < WINDOW_KCAL
    if kept.sum() < FEWEST:
        return None
    x, kcal, slopes = (
        torch.from_numpy(some[kept].astype(np.float32)) for some in (labels.coordinates, above, labels.slopes)
    )
    return Example(name, field_graph(mol), x, kcal, slopes, later[kept])


def fit(examples: Sequence[Example], options: Options, seed: int, begun: FieldNet | None = None) -> FieldNet:
    """A trained network: AdamW (Loshchilov & Hutter 2019, arXiv:1711.05101), one cycle of the learning rate. It goes on
    from `begun`, that of the round before, which is left as it is. The same bits for the same seed. Raises DataError if
    there is no example."""
    if not examples:
        raise DataError("got no molecule with labels to learn a force field from; see what was left out, above")
    torch.manual_seed(seed)
    net, rng = FieldNet(options.width, options.layers), np.random.default_rng([seed, 3])
    epochs, rate = options.epochs, options.learning_rate
    if begun:
        net.load_state_dict(begun.state_dict())
        epochs, rate = options.later_epochs, options.later_rate
    optimizer = torch.optim.AdamW(net.parameters(), lr=rate, weight_decay=options.weight_decay)
    n_steps = epochs * -(-len(examples) // options.molecules)
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=n_steps + 1, pct_start=0.1)
    for epoch in range(epochs):
        order, total = rng.permutation(len(examples)), np.zeros(2)
        for start in range(0, len(order), options.molecules):
            some = [examples[one] for one in order[start : start + options.molecules]]
            draws = [_draw(one.later, options.conformers, rng) for one in some]
            optimizer.zero_grad()
            of_energies, of_slopes = _losses(net, some, draws)
            (of_energies + options.slope_weight * of_slopes).backward()
            norm = torch.nn.utils.clip_grad_norm_(net.parameters(), LARGEST)
            if torch.isfinite(norm):
                optimizer.step()
                total += np.array([of_energies.item(), of_slopes.item()]) * len(some)
            else:
                log.warning("no step is made with %s: its loss is not finite", ", ".join(one.name for one in some))
            cycle.step()
        log.info("epoch %d of %d: loss of energies %.2f, of slopes %.1f", epoch + 1, epochs,
                 *(total / len(examples)))  # fmt: skip
    return net


def net_of(weights: Mapping[str, np.ndarray], options: Options) -> FieldNet:
    """A network of given weights, to go on from."""
    net = FieldNet(options.width, options.layers)
    net.load_state_dict({name: torch.from_numpy(one) for name, one in weights.items()})
    return net


def errors(field: Callable[[FieldGraph], Terms], examples: Sequence[Example]) -> Errors:
    """How far a field is from the labels, by its terms of a graph of tensors.

    Of energies in kcal/mol after the best offset of each molecule, geometries far up counting less; of slopes in
    kcal/mol/Å per direction. Raises DataError if there is no example.
    """
    if not examples:
        raise DataError("got no molecule to measure on; see what was left out, above")
    rows = []
    for one in examples:
        graph = mapped(one.graph, torch.from_numpy)
        with torch.no_grad():
            terms = field(graph)
        x = one.coordinates.clone().requires_grad_()
        found = energies(x, graph, terms)
        (slopes,) = torch.autograd.grad(found.sum(), x)
        difference, weight = _differences(found.detach(), one.energies[:, None])
        square = (weight * difference**2).sum() / weight.sum()
        rows.append([float(square), float(((slopes - one.slopes) ** 2).mean())])
    return Errors(*np.median(np.sqrt(rows), axis=0).tolist())


def _losses(net: FieldNet, some: list[Example], draws: list[np.ndarray]) -> tuple[Tensor, Tensor]:
    """Huber losses of energies and of slopes of a step."""
    graph = mapped(union([one.graph for one in some]), torch.from_numpy)
    pairs = list(zip(some, draws, strict=True))
    x = torch.cat([one.coordinates[drawn] for one, drawn in pairs], 1).requires_grad_()
    true_slopes = torch.cat([one.slopes[drawn] for one, drawn in pairs], 1)
    true = torch.stack([one.energies[drawn] for one, drawn in pairs], 1)
    found = energies(x, graph, net(graph))
    (slopes,) = torch.autograd.grad(found.sum(), x, create_graph=True)
    difference, weight = _differences(found, true)
    huber = torch.nn.functional.huber_loss
    each = huber(difference, torch.zeros_like(difference), reduction="none", delta=HUBER_KCAL)
    return (weight * each).sum() / weight.sum(), huber(slopes, true_slopes, delta=HUBER_SLOPE)


def _differences(found: Tensor, true: Tensor) -> tuple[Tensor, Tensor]:
    """Errors of energies (B, M) after each molecule's best offset, and weights: `true` is above the lowest."""
    weight = 1 / (1 + (true / HALF_KCAL) ** 2)
    difference = found - true
    return difference - (weight * difference).sum(0) / weight.sum(0), weight


def _draw(later: np.ndarray, wanted: int, rng: np.random.Generator) -> np.ndarray:
    """Which geometries are looked at: `wanted` of all, or, if some are `later`, half of all and half of those."""
    those = np.flatnonzero(later)
    n_later = wanted // 2 if len(those) else 0
    drawn = rng.choice(len(later), wanted - n_later, replace=len(later) < wanted - n_later)
    return np.concatenate([drawn, rng.choice(those, n_later, replace=len(those) < n_later)]) if n_later else drawn
