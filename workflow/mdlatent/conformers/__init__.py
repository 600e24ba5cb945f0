"""Small molecules: internal coordinates, the conformation autoencoder, conformer generators and their benchmark."""

from mdlatent.conformers.generate import main  # `mdlatent conformers`

__all__ = ["main"]
