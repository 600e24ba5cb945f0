"""Variational autoencoder that decodes to coordinates: started from principal components, trained on superposed errors.

Encoder, decoders and refinement are in coordinate_map.py. At the start the whole is the principal component analysis
of the coordinates (coordinate_start.py); training can only add to it, and where it does not on the validation frames,
the start is kept. In training the refinement is left out, and after each epoch one step does.

Of several `decoders`, each is trained on its own error with noise of its own. With `interpolate`, a pair of frames t
and t + lag gives the training a point between their means, evenly drawn, to be decoded to the structure as far between
the two superposed ones (mixup, arXiv 1710.09412, along the trajectory). The training alone sees structures before
`bond_tolerance` puts distances of neighbouring atoms right.

Loss of a batch, with lengths divided by the root-mean-square fluctuation of the atoms: of each frame, the mean over
atoms of the squared error after superposition (alignment.py), which is the fraction of variance that is lost,
+ `distance_weight` × mean squared error of pair distances (linear in the atoms); their sum (`error`: square) or its
root (rmsd); the mean over frames, + β × Kullback-Leibler divergence (nats, summed over dimensions),
− `kinetic_weight` × VAMP-2 (kinetics.py) of mean(t) and mean(t + lag). The root is what structures are judged by; the
square leaves more of the model to the few frames that are far from all.

The VAMP-2 term is no mean over frames: it is taken over what one pass of the model sees, that is over each process's
share of a batch, and the shares' gradients are then averaged by their frames. With several processes, give a larger
batch for the same estimate.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from mdlatent import coordinate_sizes as sizes
from mdlatent.alignment import align, centred
from mdlatent.errors import ConfigError
from mdlatent.models.coordinate_error import superposed_squares
from mdlatent.models.coordinate_map import CoordinateMap
from mdlatent.models.coordinate_start import start
from mdlatent.models.kinetics import vamp2

if TYPE_CHECKING:
    from mdlatent.frames import FrameStore

__all__ = ["CoordinateVAE"]

SMALLEST_ERROR = 1e-6  # fraction of variance, added below the root, whose slope has no bound
VALIDATED_STEPS = 1  # of refinement, at most, where an epoch is judged: all would take a third of a training's time


class CoordinateVAE(CoordinateMap):
    """Autoencoder from internal quantities to coordinates of `n_atoms` ≥ 3 atoms; options as in the schema."""

    family = "coordinate"
    fitted = "gradient"
    starts_fitted = True

    def __init__(
        self,
        n_atoms: int,
        latent_dim: int,
        width: int = 256,
        layers: int = 3,
        n_components: int = 64,
        signed_features: str = "aligned",
        error: str = "square",
        distance_weight: float = 0.5,
        refine_steps: int = 5,
        kinetic_weight: float = 0.0,
        lag_frames: int = 10,
        time_lagged: bool = False,
        decoders: int = 1,
        interpolate: bool = False,
        bond_tolerance: float = 0.0,
        noise: float = 0.0,
    ) -> None:
        options = {
            "width": width, "layers": layers, "n_components": n_components, "signed_features": signed_features,
            "error": error, "distance_weight": distance_weight, "refine_steps": refine_steps,
            "kinetic_weight": kinetic_weight, "lag_frames": lag_frames, "time_lagged": time_lagged,
            "decoders": decoders, "interpolate": interpolate, "bond_tolerance": bond_tolerance, "noise": noise,
        }  # fmt: skip
        if interpolate and time_lagged:
            raise ConfigError("coordinate: got both `interpolate` and `time_lagged`, expected at most one of them")
        super().__init__(n_atoms, latent_dim, options)
        self.root, self.distance_weight = error == "rmsd", distance_weight
        self.kinetic_weight, self.time_lagged, self.interpolate = kinetic_weight, time_lagged, interpolate
        self.lag_frames = lag_frames if kinetic_weight or time_lagged or interpolate else 0

    @property
    def n_noise(self) -> int:
        """Of the posterior, for each decoder, and one for the place between two frames."""
        return self.latent_dim * self.decoders + self.interpolate

    @property
    def replayable(self) -> bool:
        """Not where the kinetic term picks the frames that have a partner."""
        return not self.kinetic_weight

    @property
    def bytes_per_frame(self) -> int:
        """Kept for the gradient, see `coordinate_sizes`."""
        return sizes.bytes_per_frame(self.n_atoms, self.latent_dim, self.options)

    def prepare(self, store: FrameStore, rows: np.ndarray) -> None:
        """Start as the principal components of the training frames."""
        start(self, store, rows)

    def loss(self, coordinates: Tensor, beta: float | Tensor, noise: Tensor | None) -> dict[str, Tensor]:
        """Loss of a batch, see the head of this file; frames without a later partner are decoded to themselves."""
        now = coordinates[:, 0] if self.lag_frames else coordinates
        mean, log_variance = self._refined(now, 0 if noise is not None else min(self.refine_steps, VALIDATED_STEPS))
        centre, target, kinetic = mean, now, mean.new_zeros(())
        if self.lag_frames:
            later = coordinates[:, 1]
            known = torch.isfinite(later[:, 0, 0])
            if self.time_lagged:
                target = torch.where(known[:, None, None], later, now)
            if self.interpolate and noise is not None:
                end = torch.where(known[:, None, None], later, now)
                share = torch.special.ndtr(noise[:, -1:])  # even between 0 and 1
                centre = torch.lerp(mean, self._encode(end)[0], share)
                target = torch.lerp(centred(now), align(end, centred(now)), share[:, :, None])
        points = [centre]
        if noise is not None:  # each decoder has its own
            draws = noise[:, : self.latent_dim * self.decoders].split(self.latent_dim, 1)
            points = [centre + torch.exp(0.5 * log_variance) * draw for draw in draws]
        if self.kinetic_weight:
            kinetic = vamp2(mean[known], self._encode(later[known])[0])
        if noise is None:
            decoded = self._decode(centre)
        else:
            decoded = self._structure(torch.cat([self._member(k, z) for k, z in enumerate(points)]))
            if self.decoders > 1:
                target = target.repeat(self.decoders, 1, 1)
        reconstruction = self._error(decoded, target).mean()
        kl_nats = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1).mean()
        return {
            "loss": reconstruction + beta * kl_nats - self.kinetic_weight * kinetic,
            "reconstruction": reconstruction,
            "kl_nats": kl_nats,
            "mean": mean.detach(),
        }

    def _error(self, decoded: Tensor, target: Tensor) -> Tensor:
        """Error of each frame (B,), in units of the fluctuation, or of its square where `error` is so."""
        error = superposed_squares(decoded, target, self.distance_weight) / self.scale_nm.square()
        return (error + SMALLEST_ERROR).sqrt() if self.root else error
