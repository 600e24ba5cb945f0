"""What every latent model offers to the stages that train, embed and evaluate."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from mdlatent import distances
from mdlatent.errors import ConfigError

if TYPE_CHECKING:
    from mdlatent.frames import FrameStore


MAP_BYTES = 500_000_000


class LatentModel(nn.Module):
    """A map from the coordinates of N atoms (nm) to a point in d dimensions, and back to pair distances (nm).

    A family sets `family` and `fitted` ("gradient": trained step by step with `loss`; "direct": computed by `fit`)
    and implements `encode` and `decode`, or `encode` and `decode_coordinates`. Its options are keyword arguments after
    `latent_dim`, described in `$defs` of the schema of configurations.

    Distances are packed: the upper triangle of the matrix, row by row.
    """

    family: ClassVar[str]
    fitted: ClassVar[str]
    starts_fitted: ClassVar[bool] = False  # whether it is a usable model once prepared: kept if training is no better
    compiled: bool = False  # whether `embed` may load compiled kernels: faster for many frames, but 0.1 GB
    precision: str = "float32"  # of products in training steps, or bf16, where the family can do with so few digits
    lag_frames: int = 0  # above 0, `loss` is given frames with those so many frames later

    def __init__(self, n_atoms: int, latent_dim: int) -> None:
        super().__init__()
        if n_atoms < 3:
            raise ConfigError(f"{self.family}: got {n_atoms} atoms, expected at least 3; widen `featurize.selection`")
        if latent_dim < 1:
            raise ConfigError(f"{self.family}: got latent_dim {latent_dim}, expected at least 1")
        self.n_atoms, self.latent_dim = n_atoms, latent_dim
        self.options: dict[str, Any] = {}  # further keyword arguments of the family, kept with a saved model

    @property
    def n_pairs(self) -> int:
        """Number of pair distances."""
        return self.n_atoms * (self.n_atoms - 1) // 2

    @property
    def n_parameters(self) -> int:
        """Number of values that were trained or fitted."""
        return sum(parameter.numel() for parameter in self.parameters())

    @property
    def n_noise(self) -> int:
        """How many normal numbers `loss` takes for each frame: by default those of the posterior, latent_dim."""
        return self.latent_dim

    @property
    def bytes_per_frame(self) -> int:
        """About how much memory one frame takes in a training step, in bytes."""
        return 64 * self.n_atoms**2

    @property
    def replayable(self) -> bool:
        """Whether a training step never waits for the GPU, so that it can be replayed (replay.py)."""
        return True

    @property
    def frames_at_once(self) -> int:
        """How many frames to map in one go, so that memory stays bounded."""
        return max(1, min(256, MAP_BYTES // self.bytes_per_frame))

    def parts(self) -> dict[str, nn.Module]:
        """Encoder and decoder, where the family has them as modules of these names."""
        return {name: part for name, part in self.named_children() if name in ("encoder", "decoder")}

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Parameters for the optimizer, each group with `rate_scale`, a factor on the learning rate."""
        return [{"params": list(self.parameters()), "rate_scale": 1.0}]

    def prepare(self, store: FrameStore, rows: np.ndarray) -> None:
        """Set what must be known of the training frames (`rows` of `store`) before the first step."""

    def fit(self, store: FrameStore, rows: np.ndarray) -> None:
        """Fit a "direct" model to the training frames (`rows` of `store`), read in chunks."""
        raise NotImplementedError

    def encode(self, coordinates: Tensor) -> tuple[Tensor, Tensor | None]:
        """Coordinates (B, N, 3) in nm → latent mean (B, d), log-variance (B, d) or None if the map is exact."""
        raise NotImplementedError

    def decode(self, z: Tensor) -> Tensor:
        """Latent (B, d) → pair distances (B, N(N−1)/2) in nm."""
        coordinates = self.decode_coordinates(z)
        if coordinates is None:
            raise NotImplementedError
        return distances.packed_torch(coordinates)

    def decode_coordinates(self, z: Tensor) -> Tensor | None:
        """Latent (B, d) → coordinates (B, N, 3) in nm, in any position and orientation but of the right hand.

        None for families that decode to distances only: `structures` makes coordinates of those.
        """
        return None

    def loss(self, coordinates: Tensor, beta: float | Tensor, noise: Tensor | None) -> dict[str, Tensor]:
        """Loss of a batch (B, N, 3) in nm: `loss`, `reconstruction`, `kl_nats` (scalars, means over the frames) and
        `mean` (B, d), detached. `noise` (B, n_noise) is standard normal; None takes the posterior's mean.

        Where `lag_frames` is above 0, the batch is (B, 2, N, 3): each frame and the one so much later, NaN if there is
        none (`feed.Feed`)."""
        raise NotImplementedError

    def settle(self, add_up: Callable[[Tensor], Tensor]) -> None:
        """After a step: update what is known of whole batches, such as running statistics (buffers).

        `add_up` sums a tensor over the processes that train together; all call it alike, so that all end with the same
        buffers. Forward passes in training mode may only collect what this sums.
        """

    @torch.no_grad()
    def embed(self, coordinates: Tensor) -> tuple[Tensor, Tensor]:
        """Coordinates (B, N, 3) in nm → latent mean (B, d) and error of reconstruction (B,): the root of the mean over
        the pairs of the squared error of the distances, in nm."""
        z, _ = self.encode(coordinates)
        error = self.decode(z) - distances.packed_torch(coordinates)
        return z, error.square().mean(1).sqrt()
