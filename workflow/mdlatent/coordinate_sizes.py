"""Sizes of the layers of `models.coordinate` from the number of atoms and the family's options alone: no torch.

All grow linearly with the atoms, but for a logarithm in the pairs of the loss.
"""

from collections.abc import Mapping
from typing import Any

__all__ = [
    "FEATURE_COMPONENTS", "LANDMARKS", "bytes_per_frame", "decoder_parameters", "encoder_parameters", "encoder_shifts",
    "largest", "loss_shifts", "n_dihedrals", "seconds_per_frame",
]  # fmt: skip

LANDMARKS = 64  # atoms of which the encoder sees all distances
FEATURE_COMPONENTS = 64
MAX_DIHEDRALS = 100

Options = Mapping[str, Any]


def encoder_shifts(n_atoms: int) -> list[int]:
    """Steps in order (4, 16, 64 …) to the partners of which the encoder sees each atom's distance, where not all are
    landmarks: at most 6 for 5,000 atoms."""
    return [4**k for k in range(1, 32) if 4**k < n_atoms] if n_atoms > LANDMARKS else []


def loss_shifts(n_atoms: int) -> list[int]:
    """Steps in order (1, 2, 4, 8 …) to the partners of which the loss compares each atom's distance: bonds and near
    neighbours to the two ends, n log₂ n pairs in all."""
    return [2**k for k in range(32) if 2**k < n_atoms]


def n_dihedrals(n_atoms: int) -> int:
    """How many dihedrals `pair_features.choose_dihedrals` gives."""
    return min(n_atoms - 3, MAX_DIHEDRALS)


def n_features(n_atoms: int, options: Options) -> int:
    """Distances, sines and cosines that the encoder sees."""
    marks = min(n_atoms, LANDMARKS)
    count = marks * (marks - 1) // 2 + sum(n_atoms - step for step in encoder_shifts(n_atoms))
    return count + (2 * n_dihedrals(n_atoms) if options["signed_features"] == "dihedrals" else 0)


def n_components(n_atoms: int, options: Options) -> int:
    """Principal components of the coordinates that structures are made of."""
    return min(options["n_components"], 3 * n_atoms - 6)


def n_inputs(n_atoms: int, options: Options) -> int:
    """Inputs of the encoder's network."""
    own = n_components(n_atoms, options) if options["signed_features"] == "aligned" else 0
    return min(FEATURE_COMPONENTS, n_features(n_atoms, options)) + own


def encoder_parameters(n_atoms: int, latent_dim: int, options: Options) -> int:
    """Of the encoder's linear map and network."""
    inputs = n_inputs(n_atoms, options)
    return (inputs + 1) * latent_dim + _network(inputs, 2 * latent_dim, options)


def decoder_parameters(n_atoms: int, latent_dim: int, options: Options) -> int:
    """Of the decoders' linear map and networks."""
    outputs = n_components(n_atoms, options)
    return (latent_dim + 1) * outputs + options["decoders"] * _network(latent_dim, outputs, options)


def bytes_per_frame(n_atoms: int, latent_dim: int, options: Options) -> int:
    """Features and their vectors, the networks, and for each decoder coordinates, pairs of the loss with theirs."""
    n_loss = 16 * n_atoms * len(loss_shifts(n_atoms)) if options["distance_weight"] else 0
    network = 4 * options["width"] * options["layers"]
    decoder = n_loss + 60 * n_atoms + 30 * n_components(n_atoms, options) + network
    numbers = 8 * n_features(n_atoms, options) + network + options["decoders"] * decoder
    return 4 * numbers * (2 if options["kinetic_weight"] or options["time_lagged"] or options["interpolate"] else 1)


def largest(n_atoms: int, latent_dim: int, options: Options) -> int:
    """Values of the largest parameter."""
    width, inputs, outputs = options["width"], n_inputs(n_atoms, options), n_components(n_atoms, options)
    found = [width * inputs, width * 2 * latent_dim, width * latent_dim, width * outputs]
    found += [latent_dim * inputs, latent_dim * outputs, width**2 if options["layers"] > 1 else 0]
    return max(found)


def seconds_per_frame(n_atoms: int, latent_dim: int, options: Options) -> float:
    """About how long a frame takes in training, in seconds of one CPU core."""
    return (4e-4 + 3e-6 * n_atoms) * (1 + 0.2 * (options["decoders"] - 1))


def _network(n_inputs: int, n_outputs: int, options: Options) -> int:
    width, layers = options["width"], options["layers"]
    return (n_inputs + 1) * width + (layers - 1) * (width + 1) * width + (width + 1) * n_outputs
