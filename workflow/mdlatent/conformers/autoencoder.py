"""The conformation autoencoder (arXiv 2101.01618): conformers of any molecule ↔ latent vectors of one size.

A graph network gives node embeddings H that do not depend on the conformation. Three nets ρ (lengths, angles,
dihedrals) take each internal coordinate with its atoms' embeddings; the mean of their outputs over all coordinates is
the latent z, or in the variational model its mean and log-variance. Three nets δ take z with the same embeddings and
give each coordinate back. A coordinate read backwards is the same coordinate: the first layer sees both readings.

Two forms. `published` is that, with dihedrals read and given as sine and cosine. `linked` learns the same map in far
fewer steps: H also gives each coordinate a mean that no conformation enters, coordinates are read and given as what
they differ from it, and the matrices of coordinate_nets.py begin by passing the first torsions (`examples.addresses`)
through z as they are. Its z is the sum, which is the mean times a number that the graph knows.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from mdlatent.conformers.coordinate_nets import Delta, LinkedDelta, LinkedRho, Rho, Tuples
from mdlatent.conformers.examples import N_ADDRESSES, Batch
from mdlatent.conformers.graph import GraphNetwork
from mdlatent.conformers.internal import LOOSE
from mdlatent.conformers.internal_values import Values, wrapped
from mdlatent.errors import ConfigError

__all__ = ["FORMS", "ConformationAutoencoder", "Known", "Losses", "losses"]

FORMS = ("published", "linked")
N_KINDS = 4
LATENT_SCALE = 10.0  # a mean over a hundred coordinates is small; this makes the latent begin near unit size
LENGTH_ANGSTROM, ANGLE = 1.45, 2.0  # what lengths and angles are before the net has learned anything
LENGTH_SCALE, ANGLE_SCALE = 0.1, 0.15  # how far they are from it
LINKED_LENGTH_SCALE, LINKED_ANGLE_SCALE = 0.02, 0.05  # from the mean that the graph gives
ANGLE_RANGE = (0.3, 3.1415)
ROWS = ((2, 0, 1), (3, 0, 1), (4, N_KINDS + 1, 2))  # atoms, what is known besides, values: of each kind of coordinate


class Known(NamedTuple):
    """What the graph alone says."""

    read: tuple[Tensor, ...]  # (n, width) of each kind of coordinate, for ρ
    given: tuple[Tensor, ...]  # the same for δ
    mean: Values  # (1, n) each
    slots: Tensor | None  # (n_dihedrals, latent_dim), linked form only


class ConformationAutoencoder(nn.Module):
    """Conformers of the molecules of a batch ↔ latents (K, M, latent_dim)."""

    def __init__(
        self,
        latent_dim: int,
        variational: bool = False,
        form: str = "linked",
        width: int = 96,
        n_node: int = 64,
        hidden: int = 32,
    ) -> None:
        super().__init__()
        if form not in FORMS:
            raise ConfigError(f"conformation autoencoder: got form {form!r}, expected one of: {', '.join(FORMS)}")
        self.options = {
            "latent_dim": latent_dim,
            "variational": variational,
            "form": form,
            "width": width,
            "n_node": n_node,
            "hidden": hidden,
        }
        self.latent_dim, self.variational, self.linked = latent_dim, variational, form == "linked"
        self.graph = GraphNetwork(n_node)
        self.n_code = latent_dim * (2 if variational else 1)
        more = N_ADDRESSES if self.linked else 0

        def tuples() -> nn.ModuleList:
            return nn.ModuleList(Tuples(n, n_node, extra + more * (n == 4), width) for n, extra, _ in ROWS)

        self.read, self.given = tuples(), tuples()
        if self.linked:
            self.mean = nn.ModuleList(nn.Linear(width, n) for _, _, n in ROWS)
            self.rho = nn.ModuleList(
                LinkedRho(n + (n_atoms == 4), self.n_code, width, hidden) for n_atoms, _, n in ROWS
            )
            self.delta = nn.ModuleList(LinkedDelta(latent_dim, 1, width, hidden) for _ in ROWS)
            self.scales = (LINKED_LENGTH_SCALE, LINKED_ANGLE_SCALE)
        else:
            self.rho = nn.ModuleList(Rho(n, self.n_code, width) for _, _, n in ROWS)
            self.delta = nn.ModuleList(Delta(latent_dim, n, width) for _, _, n in ROWS)
            self.scales = (LENGTH_SCALE, ANGLE_SCALE)

    def known(self, batch: Batch) -> Known:
        """What decoder and encoder use of the graph; the same for all conformers."""
        h, internal = self.graph(batch.graph), batch.internal
        indices = (internal.bonds, internal.angles, internal.dihedrals)
        kinds = nn.functional.one_hot(internal.kinds, N_KINDS).float()
        extra = torch.cat([kinds, batch.orientation[:, None]], 1)
        if self.linked:
            extra = torch.cat([extra, nn.functional.one_hot(batch.address, N_ADDRESSES).float()], 1)
        extras = (None, None, extra)
        read, given = (
            tuple(net(h, index, more) for net, index, more in zip(nets, indices, extras, strict=True))
            for nets in (self.read, self.given)
        )
        if not self.linked:
            lengths, angles, dihedrals = (h.new_zeros(1, len(index)) for index in indices)
            return Known(read, given, Values(lengths + LENGTH_ANGSTROM, angles + ANGLE, dihedrals), None)
        lengths, angles, pair = (net(atoms) for net, atoms in zip(self.mean, given, strict=True))
        mean = Values(
            LENGTH_ANGSTROM + LENGTH_SCALE * lengths[None, :, 0],
            ANGLE + ANGLE_SCALE * angles[None, :, 0],
            torch.atan2(pair[None, :, 0], pair[None, :, 1]),
        )
        slots = nn.functional.one_hot(batch.address, max(N_ADDRESSES, self.latent_dim + 1))[:, 1 : self.latent_dim + 1]
        return Known(read, given, mean, slots.float())

    def encode(self, batch: Batch, known: Known, found: Values) -> tuple[Tensor, Tensor | None]:
        """Mean of z (K, M, latent_dim) and its log-variance, which only the variational model has."""
        turn = found.dihedrals - known.mean.dihedrals
        dihedral = [turn.sin(), turn.cos()]
        if self.linked:
            dihedral = [wrapped(turn), turn.sin(), turn.cos() - 1]
        parts = (
            (found.lengths_angstrom - known.mean.lengths_angstrom)[..., None] / self.scales[0],
            (found.angles - known.mean.angles)[..., None] / self.scales[1],
            torch.stack(dihedral, -1),
        )
        internal = batch.internal
        weights = (
            turn.new_ones(len(internal.bonds)),
            turn.new_ones(len(internal.angles)),
            (internal.kinds != LOOSE).float(),  # the direction of a straight angle is not read
        )
        slots = known.slots
        if slots is not None and self.variational:
            slots = nn.functional.pad(slots, (0, self.latent_dim))
        total = turn.new_zeros(len(turn), batch.n_molecules, self.n_code)
        count = turn.new_zeros(batch.n_molecules)
        for rho, atoms, part, molecule, slot, weight in zip(
            self.rho, known.read, parts, _molecules(batch), (None, None, slots), weights, strict=True
        ):
            total = total.index_add(1, molecule, weight[:, None] * rho(atoms, part, slot))
            count = count.index_add(0, molecule, weight)
        code = total if self.linked else LATENT_SCALE * total / count.clamp_min(1.0)[:, None]
        if not self.variational:
            return code, None
        mean, log_variance = code.chunk(2, -1)
        return mean, (log_variance - (4.0 if self.linked else 0.0)).clamp(-20.0, 10.0)

    def decode(self, batch: Batch, known: Known, z: Tensor) -> Values:
        """Values of all internal coordinates of the batch, from latents (K, M, latent_dim)."""
        lengths, angles, dihedrals = (
            delta(atoms, z, molecule, slot)
            for delta, atoms, molecule, slot in zip(
                self.delta, known.given, _molecules(batch), (None, None, known.slots), strict=True
            )
        )
        if self.linked:
            turned = wrapped(known.mean.dihedrals + dihedrals[..., 0])
        else:
            turned = torch.atan2(dihedrals[..., 0], dihedrals[..., 1])
        return Values(
            (known.mean.lengths_angstrom + self.scales[0] * lengths[..., 0]).clamp_min(0.5),
            (known.mean.angles + self.scales[1] * angles[..., 0]).clamp(*ANGLE_RANGE),
            turned,
        )

    def forward(self, batch: Batch, found: Values, noise: Tensor | None = None) -> tuple[Values, Tensor]:
        """Decoded values, and the KL divergence in nats (K, M): zero without noise (K, M, latent_dim)."""
        known = self.known(batch)
        z, log_variance = self.encode(batch, known, found)
        kl = z.new_zeros(z.shape[:2])
        if log_variance is not None and noise is not None:
            kl = 0.5 * (z.square() + log_variance.exp() - 1 - log_variance).sum(-1)
            z = z + (0.5 * log_variance).exp() * noise
        return self.decode(batch, known, z), kl


def _molecules(batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """Which molecule each bond, angle and dihedral belongs to."""
    return batch.bond_molecule, batch.angle_molecule, batch.dihedral_molecule


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
