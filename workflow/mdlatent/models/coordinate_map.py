"""The map of the family `coordinate` between structures and latent points: encoder, decoders and refinement.

Encoder: what it is given does not change when a structure moves or turns: pair distances (of up to 64 atoms all, of
more a number linear in the atoms) and signed quantities, which tell a structure from its mirror image; by default the
coordinates superposed on the mean training structure. Both are reduced to their leading principal components u(x);
with those of the coordinates, c, scaled to unit variance:

    mean = A u + f(u),   log-variance = g(u) < 0,   c(z) = B z + h(z),   coordinates(z) = m + Σ_k s_k c_k(z) V_k,

V the leading components of the superposed coordinates, m their mean and s their standard deviations; f, g, h are small
networks, zero at the start (coordinate_start.py). Directions of small variance weigh little in h, which is what keeps
many atoms and few frames from being learnt by heart.

Refinement: the encoder's mean is moved towards the point from which the decoder comes nearest to the structure, by
`refine_steps` steps of Gauss-Newton (refinement.py) on the superposed error in the space of V. It is a fixed function
of the structure, part of `encode`.

Of several `decoders`, each is a network h of its own; A, B and the encoder are common, and what is decoded is the mean
of them, which errs less where they disagree. `bond_tolerance` puts distances of neighbouring atoms right (bonds.py) in
all that is decoded, and so in the refinement.

The latent that is given out is z with each dimension multiplied by the standard deviation that its principal component
of the coordinates has, in those of the first (`scales`): distances in it weigh directions by how far structures move
along them, and states are looked for where structures differ, not in noise that was blown up to unit variance.

All memory and parameters are linear in the atoms. The hand of structures is kept: superposition never reflects.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from mdlatent import coordinate_sizes as sizes
from mdlatent.alignment import align
from mdlatent.models import bonds
from mdlatent.models import pair_features as pf
from mdlatent.models.base import LatentModel
from mdlatent.models.coordinate_error import rms_of_pairs_nm
from mdlatent.models.refinement import gauss_newton, slopes

__all__ = ["CoordinateMap", "inverse_scales"]

START_LOG_VARIANCE = -5.0
DAMPING = 3e-3  # of the refinement, against the variance of the atoms
LONGEST_STEP = 1.0  # of the refinement, per dimension of z, which has about unit variance
MAP_BYTES = 400_000_000


class CoordinateMap(LatentModel):
    """Maps coordinates of `n_atoms` ≥ 3 atoms to points and back; `options` are all of the family (see the schema).

    Its constants are those of no frames: `coordinate_start.start` sets them.
    """

    def __init__(self, n_atoms: int, latent_dim: int, options: dict[str, Any]) -> None:
        super().__init__(n_atoms, latent_dim)
        self.options = options
        self.signed_features, self.refine_steps = options["signed_features"], options["refine_steps"]
        self.decoders, self.bond_tolerance = options["decoders"], options["bond_tolerance"]
        self.log_noise_variance = 2 * math.log(options["noise"]) if options["noise"] else None
        marks, self.shifts = pf.landmarks(n_atoms), sizes.encoder_shifts(n_atoms)
        n_dihedrals = sizes.n_dihedrals(n_atoms) if self.signed_features == "dihedrals" else 0
        n_features, n_inputs = sizes.n_features(n_atoms, options), sizes.n_inputs(n_atoms, options)
        k, j = sizes.n_components(n_atoms, options), min(sizes.FEATURE_COMPONENTS, n_features)
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
        if self.bond_tolerance:
            constants["bonds_nm"] = torch.zeros(n_atoms - 1)
        for name, value in constants.items():
            self.register_buffer(name, value)
        width, layers = options["width"], options["layers"]
        self.linear_encoder = nn.Linear(n_inputs, latent_dim)
        self.linear_decoder = nn.Linear(latent_dim, k)
        self.encoder = _network(n_inputs, 2 * latent_dim, width, layers)
        several = [_network(latent_dim, k, width, layers) for _ in range(self.decoders)]
        self.decoder = several[0] if self.decoders == 1 else nn.ModuleList(several)
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
    def frames_at_once(self) -> int:
        """How many frames to map in one go, so that memory stays bounded."""
        return max(1, min(256, MAP_BYTES // self.bytes_per_frame))

    def encode(self, coordinates: Tensor) -> tuple[Tensor, Tensor]:
        """Coordinates (B, N, 3) in nm → mean and log-variance of the posterior, each (B, d), times `scales`."""
        mean, log_variance = self._refined(coordinates, self.refine_steps)
        return mean * self.scales, log_variance + 2 * self.scales.log()

    def decode_coordinates(self, z: Tensor) -> Tensor:
        """Latent (B, d) → coordinates (B, N, 3) in nm, centred."""
        return self._decode(z / self.scales)

    @torch.no_grad()
    def embed(self, coordinates: Tensor) -> tuple[Tensor, Tensor]:
        """As in the base class; memory is linear in atoms: pairs are not kept if `compiled`, else a block at a time."""
        z, _ = self.encode(coordinates)
        decoded = self.decode_coordinates(z)
        if self.compiled and decoded.device.type == "cpu":
            from mdlatent import pair_error

            error = torch.from_numpy(pair_error.rms_nm(decoded.numpy(), coordinates.detach().numpy()))
        else:
            error = rms_of_pairs_nm(decoded, coordinates)
        return z, error.to(z.dtype)

    def inputs(self, coordinates: Tensor) -> Tensor:
        """What the encoder is given, u(x): (B, n_inputs)."""
        features = (self.features(coordinates) - self.feature_mean) @ self.feature_basis.T
        inputs = [features * inverse_scales(self.feature_deviations)]
        if self.signed_features == "aligned":
            inputs.insert(0, self.superposed(coordinates) @ self.basis.T * inverse_scales(self.deviations_nm))
        return torch.cat(inputs, 1)

    def features(self, coordinates: Tensor) -> Tensor:
        """Pair distances in units of the fluctuation, sines and cosines: (B, n_features)."""
        features = [pf.square_distances(coordinates, self.landmarks) / self.scale_nm]
        if self.shifts:
            features.append(pf.shifted_distances(coordinates, self.shifts) / self.scale_nm)
        if len(self.fours):
            features.append(pf.dihedral_numbers(coordinates, self.fours))
        return torch.cat(features, 1)

    def superposed(self, coordinates: Tensor) -> Tensor:
        """Coordinates superposed on the mean structure, less it: (B, 3 N) in nm."""
        return (align(coordinates, self.mean_nm) - self.mean_nm).flatten(1)

    def _encode(self, coordinates: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance without refinement."""
        inputs = self.inputs(coordinates)
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

    def _decode(self, z: Tensor) -> Tensor:
        """z (B, d), without `scales` → coordinates (B, N, 3) in nm."""
        structure = self._structure(self._scores(z))
        return bonds.keep(structure, self.bonds_nm) if self.bond_tolerance else structure

    def _structure(self, scores: Tensor) -> Tensor:
        """Components (B, k) in standard deviations → coordinates (B, N, 3) in nm; bonds as they come."""
        return torch.addmm(self.mean_nm.flatten(), scores * self.deviations_nm, self.basis).view(-1, self.n_atoms, 3)

    def _scores(self, z: Tensor) -> Tensor:
        """c(z): (B, k), in standard deviations."""
        return _mean([self._member(k, z) for k in range(self.decoders)])

    def _member(self, number: int, z: Tensor) -> Tensor:
        """The same of one decoder alone."""
        return self.linear_decoder(z) + self._networks()[number](z)

    def _slopes(self, z: Tensor) -> Tensor:
        """Derivatives of c(z): (B, k, d)."""
        return _mean([slopes(network, z) for network in self._networks()]) + self.linear_decoder.weight

    def _networks(self) -> list[nn.Sequential]:
        """The decoders' networks."""
        return [self.decoder] if isinstance(self.decoder, nn.Sequential) else [*self.decoder]


def inverse_scales(deviations: Tensor) -> Tensor:
    """Factors that bring components of these standard deviations σ to √(σ / σ₁): between whitening, which blows up
    noise, and none, which drowns the small ones. Zero where there is no variance."""
    root = (deviations * deviations[:1]).sqrt()
    return torch.where(root > 0, 1 / root.clamp_min(1e-12), torch.zeros_like(root))


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
