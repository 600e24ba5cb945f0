"""The conformation autoencoder (arXiv 2101.01618): conformers of any molecule ↔ latent vectors of one size.

A graph network gives node embeddings H that do not depend on the conformation. Three nets ρ (lengths, angles,
dihedrals) take each internal coordinate with its atoms' embeddings; the mean of their outputs over all coordinates is
the latent z, or in the variational model its mean and log-variance. Three nets δ take z with the same embeddings and
give each coordinate back. A coordinate read backwards is the same coordinate: the first layer sees both readings.

Beside the paper's text: dihedrals are read as sine and cosine, and the first layer of δ also has the products of z and
of the atoms' embeddings, without which it has to learn which part of z speaks of which coordinate by sums alone.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from mdlatent.conformers.examples import N_ADDRESSES, Batch
from mdlatent.conformers.graph import GraphNetwork
from mdlatent.conformers.internal import LOOSE
from mdlatent.conformers.internal_values import Values, wrapped

__all__ = ["ConformationAutoencoder", "Losses", "losses"]

N_KINDS = 4
LATENT_SCALE = 10.0  # a mean over a hundred coordinates is small; this makes the latent begin near unit size
LENGTH_ANGSTROM, LENGTH_SCALE = 1.45, 0.1  # what lengths and angles are before the net has learned anything
ANGLE, ANGLE_SCALE = 2.0, 0.15
ANGLE_RANGE = (0.3, 3.1415)


class _Tuples(nn.Module):
    """Node embeddings and a coordinate's atoms → one vector per coordinate, the same for the reversed tuple."""

    def __init__(self, n_atoms: int, n_node: int, n_extra: int, width: int) -> None:
        super().__init__()
        self.parts = nn.ModuleList(nn.Linear(n_node, width, bias=False) for _ in range(n_atoms))
        self.extra = nn.Linear(n_extra, width) if n_extra else None

    def forward(self, h: Tensor, index: Tensor, extra: Tensor | None) -> Tensor:
        seen = [part(h) for part in self.parts]
        one = torch.stack([p[i] for p, i in zip(seen, index.T, strict=True)]).sum(0)
        other = torch.stack([p[i] for p, i in zip(seen, index.T.flip(0), strict=True)]).sum(0)
        if self.extra is not None and extra is not None:
            both = self.extra(extra)
            one, other = one + both, other + both
        return nn.functional.silu(one) + nn.functional.silu(other)


class _Rho(nn.Module):
    """One coordinate with its atoms' embeddings → its share of the latent: (K, n, n_in) → (K, n, n_out)."""

    def __init__(self, n_atoms: int, n_node: int, n_extra: int, n_in: int, n_out: int, width: int) -> None:
        super().__init__()
        self.tuples = _Tuples(n_atoms, n_node, n_extra, width)
        self.atoms, self.value = nn.Linear(width, width), nn.Linear(n_in, width)
        self.gate = nn.Linear(width, width)
        self.net = nn.Sequential(nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, n_out))

    def forward(self, h: Tensor, index: Tensor, extra: Tensor | None, value: Tensor) -> Tensor:
        atoms = self.tuples(h, index, extra)
        return self.net(self.atoms(atoms) + self.value(value) * (1 + self.gate(atoms)))


class _Delta(nn.Module):
    """Latent with the embeddings of a coordinate's atoms → the coordinate: (K, M, n_latent) → (K, n, n_out)."""

    def __init__(self, n_atoms: int, n_node: int, n_extra: int, n_latent: int, n_out: int, width: int) -> None:
        super().__init__()
        self.tuples = _Tuples(n_atoms, n_node, n_extra, width)
        self.atoms, self.latent = nn.Linear(width, width), nn.Linear(n_latent, width)
        self.gate = nn.Linear(width, width)
        self.net = nn.Sequential(nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, n_out))

    def forward(self, h: Tensor, index: Tensor, extra: Tensor | None, z: Tensor, molecule: Tensor) -> Tensor:
        atoms = self.tuples(h, index, extra)
        return self.net(self.atoms(atoms) + self.latent(z)[:, molecule] * (1 + self.gate(atoms)))


class ConformationAutoencoder(nn.Module):
    """Conformers of the molecules of a batch ↔ latents (K, M, latent_dim)."""

    def __init__(
        self, latent_dim: int, variational: bool = False, width: int = 96, n_node: int = 64, addressed: bool = True
    ) -> None:
        super().__init__()
        self.options = {
            "latent_dim": latent_dim,
            "variational": variational,
            "width": width,
            "n_node": n_node,
            "addressed": addressed,
        }
        self.latent_dim, self.variational, self.addressed = latent_dim, variational, addressed
        self.graph = GraphNetwork(n_node)
        self.n_code = latent_dim * (2 if variational else 1)
        extra = N_KINDS + 1 + (N_ADDRESSES if addressed else 0)
        self.rho = nn.ModuleList(
            _Rho(n_atoms, n_node, n_extra, n_in, self.n_code, width)
            for n_atoms, n_extra, n_in in ((2, 0, 1), (3, 0, 1), (4, extra, 2))
        )
        self.delta = nn.ModuleList(
            _Delta(n_atoms, n_node, n_extra, latent_dim, n_out, width)
            for n_atoms, n_extra, n_out in ((2, 0, 1), (3, 0, 1), (4, extra, 2))
        )

    def nodes(self, batch: Batch) -> Tensor:
        """Node embeddings H (atoms of all molecules, n_node)."""
        return self.graph(batch.graph)

    def _extra(self, batch: Batch) -> Tensor:
        """What a dihedral is (n_dihedrals, …): its kind, the handedness of a centre, and its address."""
        kinds = nn.functional.one_hot(batch.internal.kinds, N_KINDS).float()
        parts = [kinds, batch.orientation[:, None]]
        if self.addressed:
            parts.append(nn.functional.one_hot(batch.address, N_ADDRESSES).float())
        return torch.cat(parts, 1)

    def encode(self, batch: Batch, h: Tensor, found: Values) -> tuple[Tensor, Tensor | None]:
        """Mean of z (K, M, latent_dim) and its log-variance, which only the variational model has."""
        parts = (
            (found.lengths_angstrom[..., None] - LENGTH_ANGSTROM) / LENGTH_SCALE,
            (found.angles[..., None] - ANGLE) / ANGLE_SCALE,
            torch.stack([found.dihedrals.sin(), found.dihedrals.cos()], -1),
        )
        internal = batch.internal
        known = (internal.kinds != LOOSE).float()  # the direction of a straight angle is not read
        shape = (len(parts[0]), batch.n_molecules)
        total, count = h.new_zeros(*shape, self.n_code), h.new_zeros(batch.n_molecules)
        for rho, part, index, molecule, extra, weight in zip(
            self.rho,
            parts,
            (internal.bonds, internal.angles, internal.dihedrals),
            (batch.bond_molecule, batch.angle_molecule, batch.dihedral_molecule),
            (None, None, self._extra(batch)),
            (h.new_ones(len(internal.bonds)), h.new_ones(len(internal.angles)), known),
            strict=True,
        ):
            total = total.index_add(1, molecule, weight[:, None] * rho(h, index, extra, part))
            count = count.index_add(0, molecule, weight)
        code = LATENT_SCALE * total / count.clamp_min(1.0)[:, None]
        if not self.variational:
            return code, None
        mean, log_variance = code.chunk(2, -1)
        return mean, log_variance.clamp(-20.0, 10.0)

    def decode(self, batch: Batch, h: Tensor, z: Tensor) -> Values:
        """Values of all internal coordinates of the batch, from latents (K, M, latent_dim)."""
        internal = batch.internal
        lengths = self.delta[0](h, internal.bonds, None, z, batch.bond_molecule)[..., 0]
        angles = self.delta[1](h, internal.angles, None, z, batch.angle_molecule)[..., 0]
        pair = self.delta[2](h, internal.dihedrals, self._extra(batch), z, batch.dihedral_molecule)
        return Values(
            (LENGTH_ANGSTROM + LENGTH_SCALE * lengths).clamp_min(0.5),
            (ANGLE + ANGLE_SCALE * angles).clamp(*ANGLE_RANGE),
            torch.atan2(pair[..., 0], pair[..., 1]),
        )

    def forward(self, batch: Batch, found: Values, noise: Tensor | None = None) -> tuple[Values, Tensor]:
        """Decoded values, and the KL divergence in nats (K, M): zero without noise (K, M, latent_dim)."""
        h = self.nodes(batch)
        z, log_variance = self.encode(batch, h, found)
        kl = z.new_zeros(z.shape[:2])
        if log_variance is not None and noise is not None:
            kl = 0.5 * (z.square() + log_variance.exp() - 1 - log_variance).sum(-1)
            z = z + (0.5 * log_variance).exp() * noise
        return self.decode(batch, h, z), kl


class Losses(NamedTuple):
    """Mean squared errors over a batch: Å², radians², radians² (the short way round)."""

    lengths: Tensor
    angles: Tensor
    dihedrals: Tensor


def losses(batch: Batch, decoded: Values, found: Values) -> Losses:
    """Errors of the decoded values; dihedrals at straight angles are not counted."""
    known = batch.internal.kinds != LOOSE
    return Losses(
        (decoded.lengths_angstrom - found.lengths_angstrom).square().mean(),
        (decoded.angles - found.angles).square().mean(),
        wrapped(decoded.dihedrals - found.dihedrals)[:, known].square().sum()
        / max(1, int(known.sum()) * len(found.dihedrals)),
    )
