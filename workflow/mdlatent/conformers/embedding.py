"""Conformers from distance geometry, and their relaxation in a force field: RDKit, one thread, a time limit.

What comes out depends on molecule, number and seed alone; the limit only decides whether it comes out at all.
Coordinates in Å, energies in kcal/mol.
"""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np
from rdkit import Chem, rdBase
from rdkit.Chem import rdDistGeom, rdForceFieldHelpers

from mdlatent.conformers.molecules import MoleculeError, positions, with_conformers

__all__ = ["Deadline", "ForceField", "embed"]

CHUNK = 8  # conformers relaxed between two looks at the clock


class Deadline:
    """A limit on the wall time of one molecule."""

    def __init__(self, limit_s: float) -> None:
        self.limit_s, self.end = limit_s, time.monotonic() + limit_s

    @property
    def left_s(self) -> float:
        """Seconds left, possibly negative."""
        return self.end - time.monotonic()

    def check(self, doing: str) -> None:
        """Raise MoleculeError if the time is up."""
        if self.left_s <= 0:
            raise MoleculeError(
                f"not done within {self.limit_s:g} s ({doing}); give more time or ask for fewer conformers"
            )


def embed(mol: Chem.Mol, n: int, seed: int, deadline: Deadline) -> np.ndarray:
    """`n` conformers by ETKDGv3: (n, n_atoms, 3) in Å; from random coordinates where the usual start fails.

    Raises MoleculeError if it cannot be embedded or time is up.
    """
    work = Chem.Mol(mol)
    work.RemoveAllConformers()
    found = np.zeros((0, mol.GetNumAtoms(), 3))
    for attempt in range(4):
        deadline.check("embedding")
        options: Any = rdDistGeom.ETKDGv3()
        options.randomSeed = (seed * 4 + attempt) % (2**31 - 1) + 1
        options.numThreads = 1
        options.useRandomCoords = attempt > 0
        options.timeout = max(1, math.ceil(deadline.left_s))
        with rdBase.BlockLogs():
            rdDistGeom.EmbedMultipleConfs(work, n - len(found), options)
        deadline.check("embedding")
        found = np.concatenate([found, positions(work)])
        if len(found) >= n:
            return found
    raise MoleculeError(f"cannot be embedded: got {len(found)} of {n} conformers by ETKDGv3; is its stereo possible?")


class ForceField:
    """MMFF94 or MMFF94s of a molecule."""

    def __init__(self, mol: Chem.Mol, variant: str = "MMFF94s") -> None:
        self.mol = Chem.Mol(mol)
        self.mol.RemoveAllConformers()
        with rdBase.BlockLogs():
            self.properties = rdForceFieldHelpers.MMFFGetMoleculeProperties(Chem.Mol(mol), variant)  # changes its mol
        if self.properties is None:
            raise MoleculeError(f"{variant} has no parameters for an element or bond of it")

    def energies(self, coordinates_angstrom: np.ndarray) -> np.ndarray:
        """Energies (B,) in kcal/mol of conformers (B, n_atoms, 3)."""
        return self._run(coordinates_angstrom, 0, None)[1]

    def relax(
        self, coordinates_angstrom: np.ndarray, max_steps: int, deadline: Deadline | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Conformers (B, n_atoms, 3) relaxed by at most `max_steps` steps of BFGS, and their energies (B,)."""
        return self._run(coordinates_angstrom, max_steps, deadline)

    def _run(self, coordinates: np.ndarray, max_steps: int, deadline: Deadline | None) -> tuple[np.ndarray, np.ndarray]:
        if not len(coordinates):
            return coordinates.copy(), np.zeros(0)
        work = with_conformers(self.mol, coordinates[:1])
        field = rdForceFieldHelpers.MMFFGetMoleculeForceField(work, self.properties)
        field.Initialize()
        if not max_steps:
            return coordinates.copy(), np.array([field.CalcEnergy(one.ravel().tolist()) for one in coordinates])
        results, energies = [], []
        for start in range(0, len(coordinates), CHUNK):
            if deadline:
                deadline.check("relaxation")
            work = with_conformers(self.mol, coordinates[start : start + CHUNK])
            done = rdForceFieldHelpers.OptimizeMoleculeConfs(work, field, numThreads=1, maxIters=max_steps)
            results.append(positions(work))
            energies += [energy for _, energy in done]
        return np.concatenate(results), np.array(energies)
