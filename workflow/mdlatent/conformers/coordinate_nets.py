"""The nets ρ (coordinate → its share of the latent) and δ (latent → coordinate) of the conformation autoencoder.

Two forms, each with the embeddings of the coordinate's atoms. Published: feed-forward nets. Linked: besides a smaller
feed-forward net, which begins at zero, a matrix that depends on the atoms alone is applied to the coordinate, or to the
latent: what a principal component is for one molecule, as a function of the graph.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["Delta", "LinkedDelta", "LinkedRho", "Rho", "Tuples"]

# A step of Adam changes all weights by about its rate, and with them the sum over a hundred coordinates; these keep
# what one step does to the latent and to a coordinate small.
RHO_SCALE, DELTA_SCALE = 0.02, 0.1
PASSED = 0.5  # element of the latent per radian of the torsion that it begins with: a uniform one has then a σ of 0.9


class Tuples(nn.Module):
    """Node embeddings and a coordinate's atoms → one vector per coordinate, the same for the reversed tuple."""

    def __init__(self, n_atoms: int, n_node: int, n_extra: int, width: int) -> None:
        super().__init__()
        self.parts = nn.ModuleList(nn.Linear(n_node, width, bias=False) for _ in range(n_atoms))
        self.extra = nn.Linear(n_extra, width) if n_extra else None

    def forward(self, h: Tensor, index: Tensor, extra: Tensor | None) -> Tensor:
        """Vectors (n, width) of coordinates `index` (n, n_atoms)."""
        seen = [part(h) for part in self.parts]
        one = torch.stack([p[i] for p, i in zip(seen, index.T, strict=True)]).sum(0)
        other = torch.stack([p[i] for p, i in zip(seen, index.T.flip(0), strict=True)]).sum(0)
        if self.extra is not None and extra is not None:
            both = self.extra(extra)
            one, other = one + both, other + both
        return nn.functional.silu(one) + nn.functional.silu(other)


class Rho(nn.Module):
    """As published, the first layer with products of value and atoms: (K, n, n_in) → (K, n, n_out)."""

    def __init__(self, n_in: int, n_out: int, width: int) -> None:
        super().__init__()
        self.atoms, self.value = nn.Linear(width, width), nn.Linear(n_in, width)
        self.gate = nn.Linear(width, width)
        self.net = nn.Sequential(nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, n_out))

    def forward(self, atoms: Tensor, value: Tensor, slot: Tensor | None) -> Tensor:
        """Shares of the latent; `slot` is not read."""
        return self.net(self.atoms(atoms) + self.value(value) * (1 + self.gate(atoms)))


class Delta(nn.Module):
    """As published, the first layer with products of latent and atoms: (K, M, n_latent) → (K, n, n_out)."""

    def __init__(self, n_latent: int, n_out: int, width: int) -> None:
        super().__init__()
        self.atoms, self.latent = nn.Linear(width, width), nn.Linear(n_latent, width)
        self.gate = nn.Linear(width, width)
        self.net = nn.Sequential(nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, n_out))

    def forward(self, atoms: Tensor, z: Tensor, molecule: Tensor, slot: Tensor | None) -> Tensor:
        """Coordinates; `molecule` (n,) says whose they are, `slot` is not read."""
        return self.net(self.atoms(atoms) + self.latent(z)[:, molecule] * (1 + self.gate(atoms)))


class LinkedRho(nn.Module):
    """matrix(atoms) · value + net(atoms, value): (K, n, n_in) → (K, n, n_out).

    The first of the values of a coordinate with a slot begins as that element of the latent, times PASSED; all else
    begins at zero.
    """

    def __init__(self, n_in: int, n_out: int, width: int, hidden: int) -> None:
        super().__init__()
        self.shape = (n_out, n_in)
        self.matrix = _zero(nn.Linear(width, n_out * n_in))
        self.atoms, self.value = nn.Linear(width, hidden), nn.Linear(n_in, hidden, bias=False)
        self.gate = nn.Linear(width, hidden)
        self.out = _zero(nn.Linear(hidden, n_out, bias=False))

    def forward(self, atoms: Tensor, value: Tensor, slot: Tensor | None) -> Tensor:
        """Shares of the latent; `slot` (n, n_out) is one where a coordinate has that element to begin with."""
        matrix = RHO_SCALE * self.matrix(atoms).unflatten(-1, self.shape)  # (n, n_out, n_in)
        if slot is not None:
            matrix = torch.cat([matrix[..., :1] + PASSED * slot[..., None], matrix[..., 1:]], -1)
        linear = torch.einsum("noi,kni->kno", matrix, value)
        hidden = nn.functional.silu(self.atoms(atoms) + self.value(value) * (1 + self.gate(atoms)))
        return linear + RHO_SCALE * self.out(hidden)


class LinkedDelta(nn.Module):
    """matrix(atoms) · z + net(atoms, z): (K, M, n_latent) → (K, n, n_out); the net begins at zero."""

    def __init__(self, n_latent: int, n_out: int, width: int, hidden: int) -> None:
        super().__init__()
        self.shape = (n_out, n_latent)
        self.matrix = _zero(nn.Linear(width, n_out * n_latent))
        self.atoms, self.latent = nn.Linear(width, hidden), nn.Linear(n_latent, hidden, bias=False)
        self.gate = nn.Linear(width, hidden)
        self.out = _zero(nn.Linear(hidden, n_out, bias=False))

    def forward(self, atoms: Tensor, z: Tensor, molecule: Tensor, slot: Tensor | None) -> Tensor:
        """Coordinates less their mean; `molecule` (n,) says whose they are, `slot` is as that of LinkedRho."""
        matrix = DELTA_SCALE * self.matrix(atoms).unflatten(-1, self.shape)  # (n, n_out, n_latent)
        if slot is not None:
            matrix = matrix + slot[:, None] / PASSED
        linear = torch.einsum("nol,knl->kno", matrix, z[:, molecule])
        hidden = nn.functional.silu(self.atoms(atoms) + self.latent(z)[:, molecule] * (1 + self.gate(atoms)))
        return linear + DELTA_SCALE * self.out(hidden)


def _zero(layer: nn.Linear) -> nn.Linear:
    """The layer, giving zero to begin with."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer
