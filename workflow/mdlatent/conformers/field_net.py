"""The weights of the learned force field for training, as a torch module (what is computed is in field_values.py)."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from mdlatent.conformers.field_graph import ATOM_FEATURES, BOND_FEATURES, N_TYPES, FieldGraph
from mdlatent.conformers.field_values import HEADS, N_SCALES, values
from mdlatent.conformers.mmff_terms import Terms

__all__ = ["FieldNet"]


class FieldNet(nn.Module):
    """Graph network whose parameters are named as `field_values` reads them; `layers` rounds of messages."""

    def __init__(self, width: int = 64, layers: int = 4) -> None:
        super().__init__()
        n_bond = len(BOND_FEATURES)
        self.embed = nn.Linear(len(ATOM_FEATURES), width)
        self.kind = nn.Embedding(N_TYPES, width)
        self.norm = nn.ModuleList(nn.LayerNorm(width) for _ in range(layers))
        self.message = nn.ModuleList(_net(2 * width + n_bond, width, width) for _ in range(layers))
        self.update = nn.ModuleList(_net(2 * width, width, width) for _ in range(layers))
        self.heads = nn.ModuleDict(
            {
                name: _net(n_embeddings * width + with_bond * n_bond, width, n_values)
                for name, (n_embeddings, with_bond, n_values) in HEADS.items()
            }
        )
        for head in self.heads.values():
            nn.init.zeros_(head[2].weight)  # type: ignore[index]
            nn.init.zeros_(head[2].bias)  # type: ignore[index]
        self.scales = nn.Parameter(torch.zeros(N_SCALES))

    def forward(self, graph: FieldGraph) -> Terms:
        """Terms of a graph of tensors, differentiable with respect to the parameters."""
        return values(dict(self.named_parameters()), graph, torch)

    def weights(self) -> dict[str, np.ndarray]:
        """All parameters by name, float32, as `LearnedField` takes them."""
        return {name: one.detach().numpy().astype(np.float32) for name, one in self.named_parameters()}


def _net(n_in: int, width: int, n_out: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(n_in, width), nn.SiLU(), nn.Linear(width, n_out))
