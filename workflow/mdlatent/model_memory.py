"""How many parameters a model has and how much memory its training takes, by formulas: no torch, no time.

The workflow asks before a job is submitted; `tests/unit/test_describe.py` holds the formulas to the real modules and to
what a training was measured to take.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

__all__ = ["STEP_BYTES", "Family", "family", "resnet1d_plan", "training_bytes"]

STEP_BYTES = {"cpu": 1_000_000_000, "cuda": 16_000_000_000}  # memory for the activations of one pass

Options = Mapping[str, Any]


class Family(NamedTuple):
    """The formulas of one family; each takes number of atoms, latent dimension and the family's options."""

    encoder_parameters: Callable[[int, int, Options], int]
    decoder_parameters: Callable[[int, int, Options], int]
    bytes_per_frame: Callable[[int, int, Options], int]  # kept for the gradient of one frame


def family(name: str) -> Family:
    """The formulas of a family; those of conv2d, the largest, for one that has none here."""
    return _FAMILIES.get(name, _FAMILIES["conv2d"])


# conv2d


def _conv2d_sides(n_atoms: int) -> tuple[int, int, int]:
    half = (n_atoms + 1) // 2
    return n_atoms, half, (half + 1) // 2


def _conv2d_encoder(n_atoms: int, latent_dim: int, options: Options) -> int:
    n, half, quarter = _conv2d_sides(n_atoms)
    norms = 2 * (8 * n**2 + 16 * half**2 + 32 * quarter**2)
    convolutions = 8 * (9 + 1) + 16 * (8 * 9 + 1) + 32 * (16 * 9 + 1)
    return convolutions + norms + 2 * latent_dim * (32 * quarter**2 + 1)


def _conv2d_decoder(n_atoms: int, latent_dim: int, options: Options) -> int:
    n, half, quarter = _conv2d_sides(n_atoms)
    norms = 2 * (8 * n**2 + 16 * half**2 + 32 * quarter**2)
    convolutions = 16 * (32 * 9) + 16 + 8 * (16 * 9) + 8 + 8 * 9 + 1
    return convolutions + norms + 32 * quarter**2 * (latent_dim + 1)


def _conv2d_frame(n_atoms: int, latent_dim: int, options: Options) -> int:
    """56 values per matrix element in the layers, and some in the matrices themselves."""
    return 4 * 66 * n_atoms**2


# resnet1d


class Resnet1dPlan(NamedTuple):
    """Sizes of the layers of `models.resnet1d`."""

    encoder: list[tuple[int, int, int, int]]  # of each block: channels, filters, length, length behind it
    decoder_filters: int
    decoder_lengths: list[int]  # before each block, and the last one, n


def resnet1d_plan(n_atoms: int, options: Options) -> Resnet1dPlan:
    """Sizes of the layers for `n_atoms` and the family's options, where None means what follows from n."""
    start = options["encoder_filters"] or max(64, n_atoms // 3)
    encoder, channels, length = [], n_atoms, n_atoms
    for block in range(options["encoder_blocks"] or (n_atoms - 1).bit_length()):
        filters = max(1, round(start * options["encoder_growth"] ** block))
        encoder.append((channels, filters, length, (length + 1) // 2))
        channels, length = filters, (length + 1) // 2
    lengths = [n_atoms]
    for _ in range(options["decoder_blocks"]):
        lengths.insert(0, (lengths[0] + 1) // 2)
    return Resnet1dPlan(encoder, options["decoder_filters"] or max(128, n_atoms), lengths)


def _block(channels: int, filters: int, kernel: int) -> int:
    norms = 2 * (channels + filters)
    return norms + (channels + 1) * filters + (kernel * channels + 1) * filters + (kernel * filters + 1) * filters


def _resnet1d_encoder(n_atoms: int, latent_dim: int, options: Options) -> int:
    count = 0
    for channels, filters, length, halved in (plan := resnet1d_plan(n_atoms, options)).encoder:
        count += _block(channels, filters, options["encoder_kernel"])
        count += (2 * filters + 1) * filters if halved < length else 0
    *_, (_, filters, _, length) = plan.encoder
    return count + (filters * length + 1) * 2 * latent_dim


def _resnet1d_decoder(n_atoms: int, latent_dim: int, options: Options) -> int:
    _, filters, lengths = resnet1d_plan(n_atoms, options)
    count = (latent_dim * lengths[0] + 1) * filters
    for length, doubled in zip(lengths, lengths[1:], strict=False):
        count += _block(filters, filters, options["decoder_kernel"])
        count += (2 * filters + 1) * filters if doubled > length else 0
    return count + 2 * filters + (filters + 1) * n_atoms


def _resnet1d_frame(n_atoms: int, latent_dim: int, options: Options) -> int:
    """Of each block its input, both norms, the first convolution and the sum; and some matrices."""
    plan = resnet1d_plan(n_atoms, options)
    values = sum(length * (2 * channels + 3 * filters) for channels, filters, length, _ in plan.encoder)
    values += sum(5 * plan.decoder_filters * length for length in plan.decoder_lengths[:-1])
    values += 2 * plan.decoder_filters * n_atoms + 5 * n_atoms**2
    return 4 * values


_FAMILIES = {
    "conv2d": Family(_conv2d_encoder, _conv2d_decoder, _conv2d_frame),
    "resnet1d": Family(_resnet1d_encoder, _resnet1d_decoder, _resnet1d_frame),
}
