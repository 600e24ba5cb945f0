"""Variational autoencoder that decodes to coordinates: started from principal components, trained on superposed errors.

Encoder: what it is given does not change when a structure moves or turns: pair distances (of up to 64 atoms all, of
more a number linear in the atoms) and signed quantities, which tell a structure from its mirror image; by default the
coordinates superposed on the mean training structure. Both are reduced to their leading principal components u(x);
with those of the coordinates, c, scaled to unit variance:

    mean = A u + f(u),   log-variance = g(u) < 0,   c(z) = B z + h(z),   coordinates(z) = m + Σ_k s_k c_k(z) V_k,

V the leading components of the superposed coordinates, m their mean and s their standard deviations; f, g, h are small
networks. At the start f = h = 0 and A and B are such that the whole is the principal component analysis of the
coordinates; training can only add to it, and where it does not on the validation frames, the start is kept. Directions
of small variance weigh little in h, which is what keeps many atoms and few frames from being learnt by heart.

Refinement: the encoder's mean is moved towards the point from which the decoder comes nearest to the structure, by
`refine_steps` steps of Gauss-Newton (refinement.py) on the superposed error in the space of V. It is a fixed function
of the structure, part of `encode`; in training it is left out, and after each epoch one step does.

Of several `decoders`, each is a network h of its own, trained on its own error with noise of its own; A, B and the
encoder are common, and what is decoded is the mean of them, which errs less where they disagree. With `interpolate`,
a pair of frames t and t + lag gives the training a point between their means, evenly drawn, to be decoded to the
structure as far between the two superposed ones (mixup, arXiv 1710.09412, along the trajectory). `bond_tolerance`
puts distances of neighbouring atoms right (bonds.py) in all that is decoded, and so in the refinement; the training
alone sees structures before that.

The latent that is given out is z with each dimension multiplied by the standard deviation that its principal component
of the coordinates has, in those of the first (`scales`): distances in it weigh directions by how far structures move
along them, and states are looked for where structures differ, not in noise that was blown up to unit variance.

Loss of a batch, with lengths divided by the root-mean-square fluctuation of the atoms: of each frame, the mean over
atoms of the squared error after superposition (alignment.py), which is the fraction of variance that is lost,
+ `distance_weight` × mean squared error of pair distances (linear in the atoms); their sum (`error`: square) or its
root (rmsd); the mean over frames, + β × Kullback-Leibler divergence (nats, summed over dimensions),
− `kinetic_weight` × VAMP-2 (kinetics.py) of mean(t) and mean(t + lag). The root is what structures are judged by; the
square leaves more of the model to the few frames that are far from all.

The VAMP-2 term is no mean over frames: it is taken over what one pass of the model sees, that is over each process's
share of a batch, and the shares' gradients are then averaged by their frames. With several processes, give a larger
batch for the same estimate.

All memory and parameters are linear in the atoms. The hand of structures is kept: superposition never reflects.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from mdlatent import coordinate_sizes as sizes
from mdlatent.alignment import align, centred, procrustes_mean
from mdlatent.errors import ConfigError
from mdlatent.models import bonds
from mdlatent.models import pair_features as pf
from mdlatent.models.base import LatentModel
from mdlatent.models.kinetics import vamp2
from mdlatent.models.principal import principal_components
from mdlatent.models.refinement import gauss_newton, slopes

if TYPE_CHECKING:
    from mdlatent.frames import FrameStore

__all__ = ["CoordinateVAE"]

START_LOG_VARIANCE = -5.0
SMALLEST_ERROR = 1e-6  # fraction of variance, added below the root, whose slope has no bound
DAMPING = 3e-3  # of the refinement, against the variance of the atoms
VALIDATED_STEPS = 1  # of refinement, at most, where an epoch is judged: all would take a third of a training's time
LONGEST_STEP = 1.0  # of the refinement, per dimension of z, which has about unit variance
SMALLEST_SCALE = 0.01  # of a dimension in the latent that is given out; also where there is no component for it
CHUNK_BYTES = 50_000_000  # of one quantity of the frames read at once in `prepare`
EMBED_BYTES = 100_000_000
COVARIANCE_NUMBERS = 1500  # up to which principal components come from the covariance, beyond by iteration …
TOLERANCE = 1e-3  # … until their variances stand still to this part, which does for a start


class CoordinateVAE(LatentModel):
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
        super().__init__(n_atoms, latent_dim)
        self.options = {
            "width": width, "layers": layers, "n_components": n_components, "signed_features": signed_features,
            "error": error, "distance_weight": distance_weight, "refine_steps": refine_steps,
            "kinetic_weight": kinetic_weight, "lag_frames": lag_frames, "time_lagged": time_lagged,
            "decoders": decoders, "interpolate": interpolate, "bond_tolerance": bond_tolerance, "noise": noise,
        }  # fmt: skip
        if interpolate and time_lagged:
            raise ConfigError("coordinate: got both `interpolate` and `time_lagged`, expected at most one of them")
        self.root = error == "rmsd"
        self.distance_weight, self.refine_steps = distance_weight, refine_steps
        self.kinetic_weight, self.time_lagged = kinetic_weight, time_lagged
        self.decoders, self.interpolate, self.bond_tolerance = decoders, interpolate, bond_tolerance
        self.log_noise_variance = 2 * math.log(noise) if noise else None
        self.lag_frames = lag_frames if kinetic_weight or time_lagged or interpolate else 0
        self.signed_features = signed_features
        marks, self.shifts = pf.landmarks(n_atoms), sizes.encoder_shifts(n_atoms)
        n_dihedrals = sizes.n_dihedrals(n_atoms) if signed_features == "dihedrals" else 0
        n_features, n_inputs = sizes.n_features(n_atoms, self.options), sizes.n_inputs(n_atoms, self.options)
        k, j = sizes.n_components(n_atoms, self.options), min(sizes.FEATURE_COMPONENTS, n_features)
        constants = {
            "landmarks": torch.from_numpy(marks),
            "fours": torch.zeros((n_dihedrals, 4), dtype=torch.int64),
            "mean_nm": torch.zeros(n_atoms, 3),
            "basis": torch.zeros(k, 3 * n_atoms),
            "deviations_nm": torch.ones(k),
            "scales": torch.ones(latent_dim),
            "scale_nm": torch.ones(()),
            "feature_mean": torch.zeros(n_features),
            "feature_basis": torch.zeros(j, n_features),
            "feature_deviations": torch.ones(j),
        }
        if bond_tolerance:
            constants["bonds_nm"] = torch.zeros(n_atoms - 1)
        for name, value in constants.items():
            self.register_buffer(name, value)
        self.linear_encoder = nn.Linear(n_inputs, latent_dim)
        self.linear_decoder = nn.Linear(latent_dim, k)
        self.encoder = _network(n_inputs, 2 * latent_dim, width, layers)
        several = [_network(latent_dim, k, width, layers) for _ in range(decoders)]
        self.decoder = several[0] if decoders == 1 else nn.ModuleList(several)
        with torch.no_grad():
            self.linear_encoder.weight.copy_(torch.eye(latent_dim, n_inputs))
            self.linear_decoder.weight.copy_(torch.eye(k, latent_dim))
            for bias in (self.linear_encoder.bias, self.linear_decoder.bias):
                bias.zero_()
            last = self.encoder[-1]
            assert isinstance(last, nn.Linear)
            last.bias[latent_dim:] = START_LOG_VARIANCE

    if TYPE_CHECKING:
        landmarks: Tensor
        fours: Tensor
        mean_nm: Tensor
        basis: Tensor
        deviations_nm: Tensor
        scales: Tensor
        scale_nm: Tensor
        feature_mean: Tensor
        feature_basis: Tensor
        feature_deviations: Tensor
        bonds_nm: Tensor

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

    @property
    def frames_at_once(self) -> int:
        """How many frames to map in one go, so that memory stays bounded."""
        return max(1, min(256, 4 * EMBED_BYTES // self.bytes_per_frame))

    @torch.no_grad()
    def prepare(self, store: FrameStore, rows: np.ndarray) -> None:
        """Find mean, components and scales of the training frames, and start as their principal components."""
        from mdlatent.feed import iterate_rows

        def frames(numbers: int) -> Iterable[np.ndarray]:
            return iterate_rows(store, rows, max(1, min(1024, CHUNK_BYTES // (4 * numbers))))

        width = 3 * self.n_atoms
        self.mean_nm.copy_(torch.from_numpy(procrustes_mean(store, rows)))
        _, total = _set_components(
            lambda: (self._superposed(torch.from_numpy(some)) for some in frames(width)),
            len(rows), self.basis, self.deviations_nm,
        )  # fmt: skip
        self.scale_nm.fill_(max(math.sqrt(total / self.n_atoms), 1e-4))
        self.scales.fill_(SMALLEST_SCALE)
        leading = self.deviations_nm[: self.latent_dim] / self.deviations_nm[0].clamp_min(1e-12)
        self.scales[: len(leading)] = leading.clamp_min(SMALLEST_SCALE)

        self.fours.copy_(torch.from_numpy(pf.choose_dihedrals(store.atoms))[: len(self.fours)])
        n_features = 3 * self.feature_mean.numel()
        mean, _ = _set_components(
            lambda: (self._features(torch.from_numpy(some)) for some in frames(n_features)),
            len(rows), self.feature_basis, self.feature_deviations,
        )  # fmt: skip
        self.feature_mean.copy_(torch.from_numpy(mean))
        self._start_linear(frames(n_features))
        if self.bond_tolerance:
            self.bonds_nm.copy_(torch.from_numpy(bonds.bond_lengths(frames(width), self.bond_tolerance)))

    def _start_linear(self, frames: Iterable[np.ndarray]) -> None:
        """Set A: to the components of the coordinates where they are among the inputs, else to their best prediction
        (least squares) from what is."""
        n_inputs = self.linear_encoder.in_features
        weight = torch.zeros(self.latent_dim, n_inputs)
        some = min(self.latent_dim, len(self.basis))
        if self.signed_features == "aligned":
            weight[:some, :some] = torch.diag(
                1 / _inverse_scales(self.deviations_nm)[:some] / self.deviations_nm[:some]
            )
            weight = torch.nan_to_num(weight, 0.0, 0.0, 0.0)
        else:
            products = torch.zeros(n_inputs, n_inputs + some, dtype=torch.float64)
            for chunk in frames:
                coordinates = torch.from_numpy(chunk)
                inputs = self._inputs(coordinates).double()
                scores = self._superposed(coordinates) @ self.basis[:some].T / self.deviations_nm[:some].clamp_min(1e-9)
                products += inputs.T @ torch.cat([inputs, scores.double()], 1)
            square, right = products[:, :n_inputs], products[:, n_inputs:]
            square = square + 1e-6 * square.diagonal().mean() * torch.eye(n_inputs, dtype=torch.float64)
            weight[:some] = torch.linalg.solve(square, right).T.float()
        self.linear_encoder.weight.copy_(weight)

    def encode(self, coordinates: Tensor) -> tuple[Tensor, Tensor]:
        """Coordinates (B, N, 3) in nm → mean and log-variance of the posterior, each (B, d), times `scales`."""
        mean, log_variance = self._refined(coordinates, self.refine_steps)
        return mean * self.scales, log_variance + 2 * self.scales.log()

    def decode_coordinates(self, z: Tensor) -> Tensor:
        """Latent (B, d) → coordinates (B, N, 3) in nm, centred."""
        return self._decode(z / self.scales)

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

    @torch.no_grad()
    def embed(self, coordinates: Tensor) -> tuple[Tensor, Tensor]:
        """As in the base class; memory is linear in atoms: pairs are not kept if `compiled`, else a block at a time."""
        z, _ = self.encode(coordinates)
        decoded = self.decode_coordinates(z)
        if self.compiled and decoded.device.type == "cpu":
            from mdlatent import pair_error

            error = torch.from_numpy(pair_error.rms_nm(decoded.numpy(), coordinates.detach().numpy()))
        else:
            error = _rms_of_pairs_nm(decoded, coordinates)
        return z, error.to(z.dtype)

    def _error(self, decoded: Tensor, target: Tensor) -> Tensor:
        """Error of each frame (B,), in units of the fluctuation, or of its square where `error` is so."""
        moved = centred(decoded)
        onto = align(target, moved.detach())  # at the best rotation the error does not change with it to first order
        error = 3 * (moved - onto).square().flatten(1).mean(1)
        if self.distance_weight:
            shifts = sizes.loss_shifts(self.n_atoms)
            difference = pf.shifted_distances(moved, shifts) - pf.shifted_distances(onto, shifts)
            error = error + self.distance_weight * difference.square().mean(1)
        error = error / self.scale_nm.square()
        return (error + SMALLEST_ERROR).sqrt() if self.root else error

    def _encode(self, coordinates: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance without refinement."""
        inputs = self._inputs(coordinates)
        added, width = self.encoder(inputs).chunk(2, dim=1)
        if self.log_noise_variance is not None:
            return self.linear_encoder(inputs) + added, torch.full_like(added, self.log_noise_variance)
        # Never wider than the prior: without a bound, one frame far from all others can make exp overflow.
        return self.linear_encoder(inputs) + added, -torch.nn.functional.softplus(-width)

    def _refined(self, coordinates: Tensor, steps: int) -> tuple[Tensor, Tensor]:
        """Mean after so many steps of refinement, and log-variance."""
        mean, log_variance = self._encode(coordinates)
        for _ in range(steps):
            mean = mean + self._towards(coordinates, mean)
        return mean, log_variance

    def _decode(self, z: Tensor) -> Tensor:
        """z (B, d), without `scales` → coordinates (B, N, 3) in nm."""
        structure = self._structure(self._scores(z))
        return bonds.keep(structure, self.bonds_nm) if self.bond_tolerance else structure

    def _structure(self, scores: Tensor) -> Tensor:
        """Components (B, k) in standard deviations → coordinates (B, N, 3) in nm; bonds as they come."""
        return torch.addmm(self.mean_nm.flatten(), scores * self.deviations_nm, self.basis).view(-1, self.n_atoms, 3)

    def _inputs(self, coordinates: Tensor) -> Tensor:
        """What the encoder is given, u(x): (B, n_inputs)."""
        features = (self._features(coordinates) - self.feature_mean) @ self.feature_basis.T
        inputs = [features * _inverse_scales(self.feature_deviations)]
        if self.signed_features == "aligned":
            inputs.insert(0, self._superposed(coordinates) @ self.basis.T * _inverse_scales(self.deviations_nm))
        return torch.cat(inputs, 1)

    def _features(self, coordinates: Tensor) -> Tensor:
        """Pair distances in units of the fluctuation, sines and cosines: (B, n_features)."""
        features = [pf.square_distances(coordinates, self.landmarks) / self.scale_nm]
        if self.shifts:
            features.append(pf.shifted_distances(coordinates, self.shifts) / self.scale_nm)
        if len(self.fours):
            features.append(pf.dihedral_numbers(coordinates, self.fours))
        return torch.cat(features, 1)

    def _superposed(self, coordinates: Tensor) -> Tensor:
        """Coordinates superposed on the mean structure, less it: (B, 3 N) in nm."""
        return (align(coordinates, self.mean_nm) - self.mean_nm).flatten(1)

    def _scores(self, z: Tensor) -> Tensor:
        """c(z): (B, k), in standard deviations."""
        return _mean([self._member(k, z) for k in range(self.decoders)])

    def _member(self, number: int, z: Tensor) -> Tensor:
        """The same of one decoder alone."""
        return self.linear_decoder(z) + self._networks()[number](z)

    def _networks(self) -> list[nn.Sequential]:
        """The decoders' networks."""
        return [self.decoder] if isinstance(self.decoder, nn.Sequential) else [*self.decoder]

    def _towards(self, coordinates: Tensor, z: Tensor) -> Tensor:
        """One step of Gauss-Newton: what to add to z (B, d) for a smaller superposed error."""
        damping = DAMPING * self.scale_nm.square() * self.n_atoms
        if self.bond_tolerance:
            components = self._slopes(z).transpose(1, 2) * self.deviations_nm @ self.basis  # (B, d, 3 N)
            decoded, derivatives = bonds.keep_with_slopes(
                self._structure(self._scores(z)), components.unflatten(2, (self.n_atoms, 3)), self.bonds_nm
            )
            rest = (align(coordinates, decoded) - decoded).flatten(1)
            return gauss_newton(rest, derivatives.flatten(2).transpose(1, 2), damping, LONGEST_STEP)
        decoded = self._decode(z)
        moved = (align(coordinates, decoded) - self.mean_nm).flatten(1)
        rest = moved @ self.basis.T - self._scores(z) * self.deviations_nm  # (B, k)
        derivatives = self._slopes(z) * self.deviations_nm[:, None]  # (B, k, d)
        return gauss_newton(rest, derivatives, damping, LONGEST_STEP)

    def _slopes(self, z: Tensor) -> Tensor:
        """Derivatives of c(z): (B, k, d)."""
        return _mean([slopes(network, z) for network in self._networks()]) + self.linear_decoder.weight


def _set_components(
    chunks: Callable[[], Iterable[Tensor]], n_rows: int, basis: Tensor, deviations: Tensor
) -> tuple[np.ndarray, float]:
    """Fill `basis` (k, p) and `deviations` (k,) with principal components and the standard deviations along them.

    Directions that the rows do not span, or span by rounding alone, stay zero. Returns mean (p,) and total variance.
    """
    k = min(len(basis), basis.shape[1], n_rows - 1)
    found = principal_components(
        lambda: (chunk.double().numpy() for chunk in chunks()), n_rows, k, COVARIANCE_NUMBERS, "coordinate", TOLERANCE
    )
    spread = np.sqrt(found.variance)
    real = spread > 1e-6 * max(spread[:1].max(initial=0), 1e-30)
    basis.zero_()
    deviations.zero_()
    basis[:k] = torch.from_numpy(found.directions * real[:, None])
    deviations[:k] = torch.from_numpy(spread * real)
    return found.mean, found.total_variance


def _network(n_inputs: int, n_outputs: int, width: int, layers: int) -> nn.Sequential:
    """Fully connected layers with SiLU; the last one is zero."""
    parts: list[nn.Module] = []
    for number in range(layers):
        parts += [nn.Linear(width if number else n_inputs, width), nn.SiLU()]
    last = nn.Linear(width, n_outputs)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(*parts, last)


def _mean(several: list[Tensor]) -> Tensor:
    """Their mean; of a single one itself, laid out in memory as it was, for rounding hangs on that."""
    return several[0] if len(several) == 1 else torch.stack(several).mean(0)


def _inverse_scales(deviations: Tensor) -> Tensor:
    """Factors that bring components of these standard deviations σ to √(σ / σ₁): between whitening, which blows up
    noise, and none, which drowns the small ones. Zero where there is no variance."""
    root = (deviations * deviations[:1]).sqrt()
    return torch.where(root > 0, 1 / root.clamp_min(1e-12), torch.zeros_like(root))


def _rms_of_pairs_nm(decoded: Tensor, true: Tensor) -> Tensor:
    """`pair_error.rms_nm` on any device, for frames (B, N, 3): a block of atoms at a time."""
    n = true.shape[1]
    size = max(1, min(EMBED_BYTES // (16 * len(true) * n), -(-n // 8)))
    total = true.new_zeros(len(true), dtype=torch.float64)
    for start in range(0, n, size):
        stop = min(start + size, n)
        squares = (_block(decoded, start, stop) - _block(true, start, stop)).square().sum(1, dtype=torch.float64)
        total += squares[:, : stop - start].sum(1) / 2 + squares[:, stop - start :].sum(1)
    return (total / (n * (n - 1) / 2)).sqrt()


def _block(coordinates: Tensor, start: int, stop: int) -> Tensor:
    """Distances (B, stop − start, N − start) of some atoms to themselves and to all that follow."""
    return torch.cdist(coordinates[:, start:stop], coordinates[:, start:], compute_mode="donot_use_mm_for_euclid_dist")
