"""Split molecules into training, validation and test by scaffold, so that no test molecule has a near copy."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from mdlatent.conformers.molecules import Molecule
from mdlatent.conformers.split_options import FRACTIONS
from mdlatent.errors import DataError

__all__ = ["apart", "check_overlap", "fold", "split"]

PARTS = ("train", "validation", "test")


def split(
    molecules: Sequence[Molecule], fractions: Sequence[float] = FRACTIONS, seed: int = 0
) -> dict[str, list[Molecule]]:
    """Molecules as {train, validation, test}: all of one Murcko scaffold, or one InChIKey skeleton, in one part.

    Groups are drawn in random order by `seed` and given to the part that lacks most; each part keeps the order of the
    file. Raises DataError if a part with a fraction above zero stays empty.
    """
    groups = _groups(molecules)
    names = sorted(groups)
    order = np.random.default_rng(seed).permutation(len(names))
    wanted = np.array(fractions) / np.sum(fractions) * len(molecules)
    parts: list[list[int]] = [[] for _ in PARTS]
    for name in (names[one] for one in order):
        lack = wanted - [len(part) for part in parts]
        parts[int(np.argmax(lack))] += groups[name]
    result = {name: [molecules[one] for one in sorted(part)] for name, part in zip(PARTS, parts, strict=True)}
    for name, fraction in zip(PARTS, fractions, strict=True):
        if fraction > 0 and not result[name]:
            raise DataError(f"got {len(molecules)} molecules of {len(names)} scaffolds, too few for a {name} part")
    check_overlap(result["train"] + result["validation"], result["test"])
    check_overlap(result["train"], result["validation"])
    return result


def fold(
    molecules: Sequence[Molecule], number: int, n_folds: int, seed: int = 0
) -> tuple[list[Molecule], list[Molecule]]:
    """What stays, and what is left out in fold `number` of 1 … `n_folds`: all of one Murcko scaffold, or one InChIKey
    skeleton, in one fold, scaffolds drawn by `seed`. The order is kept."""
    groups = _groups(molecules)
    names = sorted(groups)
    order = np.random.default_rng(seed).permutation(len(names)).tolist()
    out = {index for place, name in enumerate(order) if place % n_folds == number - 1 for index in groups[names[name]]}
    stays = [molecule for index, molecule in enumerate(molecules) if index not in out]
    return stays, [molecules[index] for index in sorted(out)]


def apart(molecules: Sequence[Molecule], known: Sequence[Molecule], held_out: Sequence[Molecule]) -> list[Molecule]:
    """Those of `molecules` that may train beside `known`, in their order: none whose Murcko scaffold or InChIKey
    skeleton is one of `held_out`, nor one that is in `known` or came before."""
    scaffolds = {molecule.scaffold for molecule in held_out}
    keys = {molecule.key for molecule in (*known, *held_out)}
    result = []
    for molecule in molecules:
        if molecule.key not in keys and molecule.scaffold not in scaffolds:
            keys.add(molecule.key)
            result.append(molecule)
    return result


def _groups(molecules: Sequence[Molecule]) -> dict[str, list[int]]:
    """Indices by scaffold; a skeleton goes with the scaffold that it had first."""
    groups: dict[str, list[int]] = defaultdict(list)
    scaffold_of_key: dict[str, str] = {}
    for index, molecule in enumerate(molecules):
        groups[scaffold_of_key.setdefault(molecule.key, molecule.scaffold)].append(index)
    return groups


def check_overlap(train: Sequence[Molecule], test: Sequence[Molecule]) -> None:
    """Raise DataError, naming one, if a molecule of `test` has the InChIKey skeleton of one of `train`."""
    known = {molecule.key: molecule.name for molecule in train}
    for molecule in test:
        if molecule.key in known:
            raise DataError(
                f"test molecule {molecule.name} is training molecule {known[molecule.key]} (InChIKey {molecule.key}…); "
                "remove it from one of them"
            )
