"""A force field of the form of MMFF94s with values that a graph network has corrected: read from a file, without torch.

It needs what MMFF94s needs: RDKit's types for every atom. Energies and relaxation are those of mmff_kernels.py, at the
same speed, since only the values differ; the network itself takes milliseconds for each molecule, once.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from rdkit import Chem

from mdlatent import files
from mdlatent.conformers.field_graph import ATOM_FEATURES, BOND_FEATURES, field_graph
from mdlatent.conformers.field_values import values
from mdlatent.conformers.mmff_relax import SideBySide
from mdlatent.conformers.mmff_terms import Terms
from mdlatent.errors import DataError

__all__ = ["LearnedField"]

FEATURES = (*ATOM_FEATURES, *BOND_FEATURES)
PREFIX = "weights."


class LearnedField:
    """Weights of the network by name, float32, with provenance."""

    def __init__(self, weights: Mapping[str, np.ndarray], provenance: Mapping[str, Any]) -> None:
        self.weights, self.provenance = dict(weights), dict(provenance)

    @property
    def digest(self) -> str:
        """A digest of the weights: fields with the same are the same."""
        result = hashlib.sha256()
        for name in sorted(self.weights):
            result.update(name.encode() + self.weights[name].tobytes())
        return result.hexdigest()

    def terms(self, mol: Chem.Mol) -> Terms:
        """All terms of a molecule with explicit hydrogens, as float32.

        Raises MoleculeError if MMFF94s has no parameters for it.
        """
        return values(self.weights, field_graph(mol), np)

    def relaxer(self, mol: Chem.Mol) -> SideBySide:
        """Energies and relaxation of many conformers of a molecule. Raises MoleculeError as `terms`."""
        return SideBySide(self.terms(mol))

    def save(self, path: str | Path) -> None:
        """Write as .npz; the same weights give the same bytes."""
        arrays: dict[str, Any] = {PREFIX + name: self.weights[name] for name in sorted(self.weights)}
        arrays |= {"features": np.array(FEATURES), "provenance": np.array(json.dumps(self.provenance))}
        with files.write_beside(path) as temporary:
            np.savez_compressed(temporary, **arrays)

    @classmethod
    def load(cls, path: str | Path) -> LearnedField:
        """Read what `save` wrote. Raises DataError if the file is another."""
        try:
            with np.load(path, allow_pickle=False) as stored:
                features = tuple(stored["features"].tolist())
                provenance = json.loads(str(stored["provenance"]))
                weights = {name.removeprefix(PREFIX): stored[name] for name in stored.files if name.startswith(PREFIX)}
        except (OSError, KeyError, ValueError, EOFError) as error:
            raise DataError(
                f"{path}: got no learned force field ({error}); make it with mdlatent.conformers.train_field"
            ) from error
        if features != FEATURES or not weights:
            raise DataError(f"{path}: a learned force field of another version of mdlatent; make it again")
        return cls(weights, provenance)
