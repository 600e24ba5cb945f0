"""Rounds of learning a force field, each kept in the folder of labels: a run that was stopped goes on from there."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from mdlatent import files
from mdlatent.conformers import fit_field
from mdlatent.conformers.field_net import FieldNet
from mdlatent.conformers.fit_field import Example, Options
from mdlatent.conformers.learned_field import LearnedField
from mdlatent.conformers.molecules import Molecule
from mdlatent.conformers.pm7 import Labels

__all__ = ["again", "examples", "fitted"]

log = logging.getLogger("mdlatent")


def examples(molecules: Sequence[Molecule], rounds: Sequence[Sequence[Labels | None]]) -> list[Example]:
    """What is learned from each molecule, from its labels of all rounds together; those with too few are left out."""
    found = (fit_field.example(one.name, one.bare, some) for one, *some in zip(molecules, *rounds, strict=True))
    return [one for one in found if one is not None]


def fitted(some: Sequence[Example], options: Options, seed: int, begun: FieldNet | None, folder: Path) -> FieldNet:
    """What `fit_field.fit` gives, kept in `folder` under a name that tells all it was made from."""
    known = hashlib.sha256()
    for one in some:
        for values in (one.coordinates, one.energies, one.slopes):
            known.update(values.numpy().tobytes())
        known.update(one.later.tobytes() + one.name.encode())
    before = LearnedField(begun.weights(), {}).digest if begun else ""
    path = folder / f"round-{files.stamp(known.hexdigest(), asdict(options), seed, before)}.npz"
    if path.exists():
        log.info("goes on from %s, which is there", path)
        return fit_field.net_of(LearnedField.load(path).weights, options)
    net = fit_field.fit(some, options, seed, begun)
    LearnedField(net.weights(), {}).save(path)
    return net


def again(
    molecules: Sequence[Molecule],
    rounds: Sequence[Sequence[Labels | None]],
    options: Options,
    seed: int,
    folder: Path,
) -> FieldNet:
    """The same rounds with labels that are there: for a part of the molecules that the whole was learned from.

    Later rounds then look at geometries that the field of the whole has led to.
    """
    net = None
    for number in range(1, len(rounds) + 1):
        net = fitted(examples(molecules, rounds[:number]), options, seed, net, folder)
    assert net is not None
    return net
