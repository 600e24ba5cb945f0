"""Conformers off any well, for tests of force fields."""

import numpy as np
from rdkit import Chem

from mdlatent.conformers.embedding import Deadline, embed
from mdlatent.conformers.molecules import from_smiles


def conformers(smiles: str, n: int, noise: float = 0.05) -> tuple[Chem.Mol, np.ndarray]:
    """A molecule and n conformers of ETKDG, every atom moved by normal noise of so many Å."""
    mol = from_smiles(smiles).mol
    x = embed(mol, n, 0, Deadline(60))
    return mol, x + np.random.default_rng(0).normal(0, noise, x.shape)
