"""Latents → conformers of one molecule with all its hydrogens, and back: generation, interpolation."""

from __future__ import annotations

import torch
from rdkit import Chem
from torch import Tensor

from mdlatent.conformers.autoencoder import ConformationAutoencoder
from mdlatent.conformers.conformations import Conformers, heavy_atoms, same_hand, with_hydrogens
from mdlatent.conformers.examples import batch_of
from mdlatent.conformers.internal_values import values
from mdlatent.conformers.molecules import Molecule, with_conformers
from mdlatent.conformers.reconcile import reconcile
from mdlatent.errors import DataError

__all__ = ["Codec"]

CHUNK = 64  # conformers decoded at once; memory of the reconciliation grows with it


class Codec:
    """An autoencoder, and one molecule (explicit hydrogens, at least one conformer, which gives its handedness)."""

    def __init__(self, model: ConformationAutoencoder, mol: Chem.Mol) -> None:
        self.model, self.mol = model, mol
        name = mol.GetProp("_Name") if mol.HasProp("_Name") else Chem.MolToSmiles(Chem.RemoveHs(mol))
        self.reference: Conformers = heavy_atoms(Molecule(name, mol))
        self.batch = batch_of([self.reference.example])
        with torch.no_grad():
            self.known = model.eval().known(self.batch)

    def encode(self, coordinates_angstrom: Tensor) -> Tensor:
        """Latents (C, latent_dim), of the VAE their means, of heavy atoms (C, n_heavy, 3) Å in the molecule's order.

        Raises DataError if one of them lists equal neighbours of a centre in another order than the first conformer.
        """
        if not same_hand(self.reference.example, coordinates_angstrom.double()).all():
            raise DataError(
                f"{self.reference.example.name}: a conformer has another handedness at a centre than the first; give "
                "conformers whose atoms are listed the same way round"
            )
        found = values(self.batch.internal, coordinates_angstrom.float())
        with torch.no_grad():
            return self.model.encode(self.batch, self.known, found)[0][:, 0]

    def decode(self, z: Tensor) -> Chem.Mol:
        """The molecule with one conformer for each of the latents (C, latent_dim), all hydrogens included."""
        made = []
        with torch.no_grad():
            for part in z.split(CHUNK):
                decoded = self.model.decode(self.batch, self.known, part[:, None])
                made.append(reconcile(self.batch.internal, decoded))
        return with_conformers(self.mol, with_hydrogens(self.mol, torch.cat(made)))

    def generate(self, n: int, seed: int) -> Chem.Mol:
        """The molecule with `n` conformers decoded from z ~ N(0, 1). Raises DataError for a model that is no VAE."""
        if not self.model.variational:
            raise DataError("conformers can be drawn from the variational autoencoder alone; train with --variational")
        draw = torch.Generator().manual_seed(seed)
        return self.decode(torch.randn(n, self.model.latent_dim, generator=draw))

    def between(self, one: Tensor, other: Tensor, n_steps: int) -> Chem.Mol:
        """The molecule with `n_steps` conformers on the straight line in the latent from one, (n_heavy, 3) Å, to other.

        First and last are the reconstructions of the two.
        """
        start, end = self.encode(torch.stack([one, other]))
        share = torch.linspace(0, 1, n_steps)[:, None]
        return self.decode(start * (1 - share) + end * share)
