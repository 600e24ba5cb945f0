"""How many parameters a model has and how much memory its training takes, by formulas: no torch, no time.

The workflow asks before a job is submitted; `tests/unit/test_describe.py` holds the formulas to the real modules and to
what a training was measured to take.
"""

import itertools
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from mdlatent import coordinate_sizes
from mdlatent.model_names import DIRECT

__all__ = [
    "STEP_BYTES", "Family", "Sizes", "direct_bytes", "family", "frame_seconds", "frames_in_one_pass", "resnet1d_plan",
    "sizes", "step_bytes", "training_bytes",
]  # fmt: skip

STEP_BYTES = {"cpu": 1_000_000_000, "cuda": 16_000_000_000}  # memory for the activations of one pass

FRAMES_BYTES = 1_000_000_000  # coordinates kept in memory, `feed.BUDGET_BYTES`
# Python, torch, numba and HDF5, as resident memory; without numba; the kernels' own buffers.
LIBRARIES_BYTES, WITHOUT_NUMBA_BYTES, KERNEL_BYTES = 475_000_000, 350_000_000, 40_000_000
# Values per parameter: weight, gradient, two moments of AdamW, and the best weights so far.
VALUES_PER_PARAMETER = 5
# What is kept for the gradient, and with it what the backward pass needs at a time and what the allocator leaves idle.
KEPT_AND_PASSING = 1.6
STEP_SECONDS_PER_PARAMETER = 5e-9  # optimizer and norm of the gradient: they read and write all of it

Options = Mapping[str, Any]


class Family(NamedTuple):
    """The formulas of one family; each takes number of atoms, latent dimension and the family's options."""

    encoder_parameters: Callable[[int, int, Options], int]
    decoder_parameters: Callable[[int, int, Options], int]
    bytes_per_frame: Callable[[int, int, Options], int]  # kept for the gradient of one frame
    largest: Callable[[int, int, Options], int]  # values of the largest parameter
    seconds_per_frame: Callable[[int, int, Options], float]  # of training, on one CPU core: a rough figure
    libraries_bytes: int = LIBRARIES_BYTES


class Sizes(NamedTuple):
    """What the memory of a training follows from."""

    parameters: int
    largest: int
    bytes_per_frame: int
    libraries_bytes: int


def family(name: str) -> Family:
    """The formulas of a family that is trained step by step."""
    return _FAMILIES[name]


def sizes(name: str, n_atoms: int, latent_dim: int, options: Options) -> Sizes:
    """Sizes of a model of the family `name`, by its formulas."""
    formulas, arguments = family(name), (n_atoms, latent_dim, options)
    parameters = formulas.encoder_parameters(*arguments) + formulas.decoder_parameters(*arguments)
    return Sizes(
        parameters, formulas.largest(*arguments), formulas.bytes_per_frame(*arguments), formulas.libraries_bytes
    )


def frames_in_one_pass(bytes_per_frame: int, batch_size: int, device: str = "cpu") -> int:
    """Frames whose activations are in memory at a time: a batch that does not fit is cut into equal pieces."""
    n_pieces = max(1, math.ceil(batch_size * bytes_per_frame / STEP_BYTES[device]))
    return math.ceil(batch_size / n_pieces)


def step_bytes(of: Sizes, n_atoms: int, batch_size: int, n_frames: int = 0) -> int:
    """Peak of the resident memory of a training on a CPU, `n_frames` of which are kept as coordinates."""
    at_once = frames_in_one_pass(of.bytes_per_frame, batch_size)
    added_up = of.largest if at_once < batch_size else 0  # a piece's gradient beside the sum of those before it
    total = of.libraries_bytes + KERNEL_BYTES + min(FRAMES_BYTES, 12 * n_atoms * n_frames)
    total += 4 * (VALUES_PER_PARAMETER * of.parameters + added_up)
    return round(total + KEPT_AND_PASSING * at_once * of.bytes_per_frame)


def direct_bytes(name: str, n_atoms: int, latent_dim: int, options: Options, n_frames: int = 0) -> int:
    """The same for a family that is fitted in one step (DIRECT), all by principal components (`models.principal`): a
    covariance up to some number of columns, else a basis of 400 MB or three blocks; and frames in pieces."""
    n_pairs, landmarks = n_atoms * (n_atoms - 1) // 2, min(n_atoms, options.get("landmark_atoms", n_atoms))
    columns, most, dim = {
        "pca_distances": (n_pairs, 4000, latent_dim),
        "pca_coordinates": (3 * n_atoms, 1500, latent_dim),
        "tica": (landmarks * (landmarks - 1) // 2, 4000, options.get("n_components_before", latent_dim)),
    }[name]
    iteration = max(400_000_000, 3 * 8 * (dim + 5) * columns) + 4 * 8 * (dim + 5) * columns
    work = 3 * 8 * columns**2 if columns <= most else iteration
    frames = min(FRAMES_BYTES, 12 * n_atoms * n_frames)
    return LIBRARIES_BYTES + KERNEL_BYTES + work + frames + 300_000_000 + 4 * n_pairs * (latent_dim + 1)


def training_bytes(
    name: str, n_atoms: int, latent_dim: int, options: Options, batch_size: int, n_frames: int = 0
) -> int:
    """Peak of the resident memory of training a model of the family `name` on a CPU."""
    if name in DIRECT:
        return direct_bytes(name, n_atoms, latent_dim, options, n_frames)
    return step_bytes(sizes(name, n_atoms, latent_dim, options), n_atoms, batch_size, n_frames)


def frame_seconds(name: str, n_atoms: int, latent_dim: int, options: Options, batch_size: int) -> float:
    """About how long a frame takes in training, in seconds of one CPU core: its own work and its share of a step's."""
    if name in DIRECT:  # a few passes over the frames
        return 1e-4 + 1e-6 * n_atoms**2
    per_step = STEP_SECONDS_PER_PARAMETER * sizes(name, n_atoms, latent_dim, options).parameters
    return family(name).seconds_per_frame(n_atoms, latent_dim, options) + per_step / batch_size


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


def _conv2d_largest(n_atoms: int, latent_dim: int, options: Options) -> int:
    n, half, quarter = _conv2d_sides(n_atoms)
    return max(8 * n**2, 16 * half**2, 32 * quarter**2 * max(2 * latent_dim, 1), 16 * 32 * 9)


def _conv2d_seconds(n_atoms: int, latent_dim: int, options: Options) -> float:
    return 5e-4 + 1e-6 * n_atoms**2


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
    for length, doubled in itertools.pairwise(lengths):
        count += _block(filters, filters, options["decoder_kernel"])
        count += (2 * filters + 1) * filters if doubled > length else 0
    return count + 2 * filters + (filters + 1) * n_atoms


def _resnet1d_frame(n_atoms: int, latent_dim: int, options: Options) -> int:
    """Of each block its input, both norms, the first convolution and the sum; and some matrices."""
    plan = resnet1d_plan(n_atoms, options)
    values = sum(length * (2 * channels + 3 * filters) for channels, filters, length, _ in plan.encoder)
    values += sum(5 * plan.decoder_filters * length for length in plan.decoder_lengths[:-1])
    values += 2 * plan.decoder_filters * n_atoms + 2 * n_atoms**2
    return 4 * values


def _resnet1d_largest(n_atoms: int, latent_dim: int, options: Options) -> int:
    plan = resnet1d_plan(n_atoms, options)
    kernel = options["encoder_kernel"]
    found = [max(kernel, 2) * filters**2 for _, filters, _, _ in plan.encoder]
    found += [kernel * channels * filters for channels, filters, _, _ in plan.encoder]
    *_, (_, filters, _, length) = plan.encoder
    found += [2 * latent_dim * filters * length, latent_dim * plan.decoder_filters * plan.decoder_lengths[0]]
    found += [max(options["decoder_kernel"], 2) * plan.decoder_filters**2, plan.decoder_filters * n_atoms]
    return max(found)


def _resnet1d_seconds(n_atoms: int, latent_dim: int, options: Options) -> float:
    """Three passes of two operations for each weight and position, 40 per ns, and what every frame costs."""
    plan = resnet1d_plan(n_atoms, options)
    work = 0
    for channels, filters, length, _ in plan.encoder:
        work += length * (_block(channels, filters, options["encoder_kernel"]) + filters**2)
    for length in plan.decoder_lengths[:-1]:
        work += length * (_block(plan.decoder_filters, plan.decoder_filters, options["decoder_kernel"]))
        work += length * 2 * plan.decoder_filters**2
    return 2e-3 + 6 * (work + n_atoms**2 * plan.decoder_filters) / 4e10


_FAMILIES = {
    "coordinate": Family(
        coordinate_sizes.encoder_parameters,
        coordinate_sizes.decoder_parameters,
        coordinate_sizes.bytes_per_frame,
        coordinate_sizes.largest,
        coordinate_sizes.seconds_per_frame,
        WITHOUT_NUMBA_BYTES,
    ),
    "conv2d": Family(_conv2d_encoder, _conv2d_decoder, _conv2d_frame, _conv2d_largest, _conv2d_seconds),
    "resnet1d": Family(_resnet1d_encoder, _resnet1d_decoder, _resnet1d_frame, _resnet1d_largest, _resnet1d_seconds),
}
