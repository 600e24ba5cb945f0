"""Energies and slopes of conformers by the semi-empirical method PM7 (Stewart 2013, doi:10.1007/s00894-012-1667-x).

Computed by MOPAC in this process, through the package mopactools (Apache 2.0), which brings its library along. Each
conformer begins from scratch, so what comes out depends on nothing but itself. One molecule of 33 atoms takes some
15 ms for each conformer on one core; the time grows with the third power of the atoms.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from rdkit import Chem

from mdlatent.conformers.embedding import Deadline
from mdlatent.conformers.field_graph import ELEMENTS
from mdlatent.conformers.molecules import MoleculeError
from mdlatent.errors import ConfigError

__all__ = ["Labels", "label", "library", "likely_charge"]


class Labels(NamedTuple):
    """Conformers (B, n_atoms, 3) in Å, energies (B,) in kcal/mol (heats of formation), slopes (B, n_atoms, 3) in
    kcal/mol/Å."""

    coordinates: np.ndarray
    energies: np.ndarray
    slopes: np.ndarray


def library() -> Any:
    """The API of mopactools. Raises ConfigError if it is not installed."""
    try:
        from mopactools import api
    except ImportError as error:
        raise ConfigError(
            f"labels of PM7 need the package mopactools, which cannot be imported ({error}); "
            "install it: pip install 'mdlatent[label]' (or pip install mopactools)"
        ) from error
    return api


def label(
    mol: Chem.Mol, coordinates_angstrom: np.ndarray, deadline: Deadline | None = None, charge: int | None = None
) -> Labels:
    """Energies and slopes of the conformers (B, n_atoms, 3) of a molecule with explicit hydrogens, in their order.

    `charge` in e is that of the graph if not given. Left out are those without a self-consistent field, and those with
    atoms in one place or nowhere. Raises MoleculeError if the molecule has an element other than field_graph.ELEMENTS
    or an odd number of electrons, or if time is up, which is looked at between two conformers; ConfigError if
    mopactools is not installed.
    """
    api = library()
    numbers = [atom.GetAtomicNum() for atom in mol.GetAtoms()]
    charge = Chem.GetFormalCharge(mol) if charge is None else charge
    table = Chem.GetPeriodicTable()
    if others := sorted({table.GetElementSymbol(one) for one in numbers if one not in ELEMENTS}):
        known = ", ".join(table.GetElementSymbol(one) for one in ELEMENTS)
        raise MoleculeError(f"got {', '.join(others)} in {Chem.MolToSmiles(mol)}, expected no element but {known}")
    if (sum(numbers) - charge) % 2:
        raise MoleculeError(f"got an odd number of electrons in {Chem.MolToSmiles(mol)}, expected no radical")
    kept, energies, slopes = [], [], []
    for index, one in enumerate(coordinates_angstrom):
        if deadline:
            deadline.check("energies of PM7")
        if not np.isfinite(one).all():
            continue
        system = api.MopacSystem()
        system.natom = system.natom_move = len(numbers)
        system.charge, system.model = charge, "PM7"
        system.atom = np.array(numbers, np.int32)
        system.coord = np.array(one, np.float64).ravel()
        found = api.from_data(system, api.MopacState())
        if found.error_msg:
            continue
        kept.append(index)
        energies.append(found.heat)
        slopes.append(np.array(found.coord_deriv).reshape(-1, 3))
    shape = (-1, len(numbers), 3)
    return Labels(coordinates_angstrom[kept], np.array(energies), np.array(slopes, np.float64).reshape(shape))


def likely_charge(mol: Chem.Mol, minimum_angstrom: np.ndarray) -> int:
    """The charge in e at which a structure (n_atoms, 3) is most nearly a minimum: that of the graph, or none.

    Where bonds were guessed from a geometry, charges of the graph can be wrong; a minimum of PM7 tells. Raises
    MoleculeError if neither gives an even number of electrons.
    """
    n_protons = sum(atom.GetAtomicNum() for atom in mol.GetAtoms())
    steepest = {}
    for charge in {Chem.GetFormalCharge(mol), 0}:
        if (n_protons - charge) % 2 == 0:
            found = label(mol, minimum_angstrom[None], charge=charge)
            steepest[charge] = np.abs(found.slopes).max(initial=0.0) if len(found.energies) else np.inf
    if not steepest:
        raise MoleculeError(f"got an odd number of electrons in {Chem.MolToSmiles(mol)} with or without its charge")
    return min(steepest, key=lambda charge: (steepest[charge], abs(charge)))
