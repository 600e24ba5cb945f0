"""Heavy atoms of molecules with several conformers, for the autoencoder, and what is held out of them.

Molecules are split by scaffold; of each training molecule with enough conformers one is held out to watch and one to
test. What the autoencoder can do is thus measured twice: on conformers it has not seen of molecules that it has, and
on molecules of other scaffolds.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from rdkit import Chem
from torch import Tensor

from mdlatent.conformers.examples import Example, example_of, handedness
from mdlatent.conformers.metrics import rmsd_matrix
from mdlatent.conformers.molecules import Molecule, heavy_indices, positions, with_conformers

__all__ = ["Conformers", "Sets", "heavy_atoms", "prepare", "same_hand", "symmetric_rmsd_angstrom", "with_hydrogens"]

log = logging.getLogger("mdlatent")

FEWEST = 5  # conformers of a training molecule from which on two are held out


@dataclass(frozen=True)
class Conformers:
    """A molecule and some of its conformers (C, n_atoms, 3) Å."""

    example: Example
    coordinates_angstrom: Tensor
    molecule: Chem.Mol  # the same atoms, no conformers
    broken: bool = False  # its graph, see molecules.is_broken


@dataclass(frozen=True)
class Sets:
    """What to train on, and what is held out: of the training molecules (`seen`), and whole molecules (`unseen`)."""

    train: list[Conformers]
    seen_validation: list[Conformers]
    seen_test: list[Conformers]
    unseen_validation: list[Conformers]
    unseen_test: list[Conformers]


def prepare(parts: Mapping[str, Sequence[Molecule]], seed: int = 0) -> Sets:
    """Sets of the parts {train, validation, test} that `scaffolds.split` gives; `seed` draws what is held out."""
    generator = np.random.default_rng(seed)
    train, seen_validation, seen_test = [], [], []
    for molecule in parts["train"]:
        found = heavy_atoms(molecule)
        x = found.coordinates_angstrom
        if len(x) >= FEWEST:
            x = x[torch.from_numpy(generator.permutation(len(x)))]
            seen_test.append(_with(found, x[:1]))
            seen_validation.append(_with(found, x[1:2]))
            x = x[2:]
        train.append(_with(found, x))
    unseen = [[heavy_atoms(molecule) for molecule in parts.get(name, ())] for name in ("validation", "test")]
    return Sets(train, seen_validation, seen_test, *unseen)


def heavy_atoms(molecule: Molecule) -> Conformers:
    """Heavy atoms of a molecule and all its conformers that have the handedness of the first.

    The others list equal neighbours of some centre the other way round; they are left out.
    """
    heavy = Chem.RemoveAllHs(molecule.mol)
    x = torch.from_numpy(positions(heavy))
    heavy.RemoveAllConformers()
    heavy.SetProp("_Name", molecule.name)
    example = example_of(heavy, x[0])
    return Conformers(example, x[same_hand(example, x)], heavy, molecule.broken)


def same_hand(example: Example, coordinates_angstrom: Tensor) -> Tensor:
    """Whether conformers (C, n_atoms, 3) Å have the example's handedness at all centres and double bonds: (C,) bool."""
    sign = handedness(example.internal, coordinates_angstrom)
    return (sign * example.orientation >= 0).all(1)


def symmetric_rmsd_angstrom(molecule: Chem.Mol, a_angstrom: Tensor, b_angstrom: Tensor) -> np.ndarray:
    """RMSD (C,) in Å between conformers a and b (C, n_atoms, 3) of heavy atoms, least over the graph's symmetries."""
    pairs = (
        with_conformers(molecule, [a.numpy(), b.numpy()])
        for a, b in zip(a_angstrom.double(), b_angstrom.double(), strict=True)
    )
    return np.array([rmsd_matrix(pair)[0, 1] for pair in pairs])


def with_hydrogens(molecule: Chem.Mol, coordinates_angstrom: Tensor) -> np.ndarray:
    """Heavy atoms (C, n_heavy, 3) Å of a `molecule` with explicit hydrogens → all its atoms (C, n_atoms, 3) Å.

    Hydrogens stand where RDKit puts them by the geometry around the atom that bears them.
    """
    heavy = heavy_indices(molecule)
    bare = with_conformers(Chem.RemoveAllHs(molecule), coordinates_angstrom.double().numpy())
    full = Chem.AddHs(bare, addCoords=True)
    order = np.zeros(molecule.GetNumAtoms(), dtype=int)
    for number, index in enumerate(heavy):
        order[index] = number
        here, there = (
            sorted(a.GetIdx() for a in atom.GetNeighbors() if a.GetAtomicNum() == 1)
            for atom in (molecule.GetAtomWithIdx(index), full.GetAtomWithIdx(number))
        )
        order[here] = there
    return positions(full)[:, order]


def _with(found: Conformers, coordinates_angstrom: Tensor) -> Conformers:
    return Conformers(found.example, coordinates_angstrom, found.molecule, found.broken)
