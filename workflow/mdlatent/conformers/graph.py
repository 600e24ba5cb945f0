"""Molecular graph → features of atoms and bonds → node embeddings that do not depend on the conformation.

The network is a graph transformer: each atom attends to the atoms bound to it, with the bond's features added to keys
and values (Shi et al. 2021, doi:10.24963/ijcai.2021/214). Molecules of any size are worked on together in one flat list
of atoms; no padding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from rdkit import Chem
from torch import Tensor, nn

__all__ = ["N_ATOM_FEATURES", "N_BOND_FEATURES", "Graph", "GraphNetwork", "graph_of", "join_graphs"]

ELEMENTS = (1, 5, 6, 7, 8, 9, 14, 15, 16, 17, 35, 53)  # any other shares one more place
HYBRIDIZATIONS = (Chem.HybridizationType.SP, Chem.HybridizationType.SP2, Chem.HybridizationType.SP3)
BOND_TYPES = (Chem.BondType.SINGLE, Chem.BondType.DOUBLE, Chem.BondType.TRIPLE, Chem.BondType.AROMATIC)
TWINS = 4  # equivalent atoms are told apart by their order, up to this many
N_ATOM_FEATURES = len(ELEMENTS) + 1 + 3 + 5 + 5 + 4 + 1 + 6 + TWINS
N_BOND_FEATURES = len(BOND_TYPES) + 1 + 1 + 1 + 2


@dataclass(frozen=True)
class Graph:
    """One or several molecules; each bond is two edges."""

    atoms: Tensor  # (n_atoms, N_ATOM_FEATURES) float32
    edges: Tensor  # (2, n_edges) int64: from, to
    bonds: Tensor  # (n_edges, N_BOND_FEATURES) float32


def graph_of(molecule: Chem.Mol) -> Graph:
    """Features of a sanitised molecule's explicit atoms; hydrogens that are not explicit are counted.

    Atoms that the graph cannot tell apart get a number each, in the order they are listed in: without it a network
    would have to give equal torsions to, say, both halves of a chair.
    """
    ring_info = molecule.GetRingInfo()
    classes = list(Chem.CanonicalRankAtoms(molecule, breakTies=False, includeChirality=False))
    seen: dict[int, int] = {}
    rows = []
    for atom, group in zip(molecule.GetAtoms(), classes, strict=True):
        twin = seen[group] = seen.get(group, -1) + 1
        rows.append(
            [
                *_one_hot(atom.GetAtomicNum(), ELEMENTS, rest=True),
                *_one_hot(max(-1, min(1, atom.GetFormalCharge())), (-1, 0, 1)),
                *_one_hot(min(4, atom.GetDegree()), range(5)),
                *_one_hot(min(4, atom.GetTotalNumHs()), range(5)),
                *_one_hot(atom.GetHybridization(), HYBRIDIZATIONS, rest=True),
                float(atom.GetIsAromatic()),
                *(float(ring_info.IsAtomInRingOfSize(atom.GetIdx(), size)) for size in range(3, 8)),
                float(atom.IsInRing()),
                *_one_hot(min(TWINS - 1, twin), range(TWINS)),
            ]
        )
    edges, bonds = [], []
    for bond in molecule.GetBonds():
        i, j = bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()
        stereo = bond.GetStereo()
        features = [
            *_one_hot(bond.GetBondType(), BOND_TYPES, rest=True),
            float(bond.GetIsConjugated()),
            float(bond.IsInRing()),
            float(stereo in (Chem.BondStereo.STEREOE, Chem.BondStereo.STEREOTRANS)),
            float(stereo in (Chem.BondStereo.STEREOZ, Chem.BondStereo.STEREOCIS)),
        ]
        edges += [(i, j), (j, i)]
        bonds += [features, features]
    return Graph(
        torch.tensor(rows).reshape(-1, N_ATOM_FEATURES),
        torch.tensor(edges, dtype=torch.int64).reshape(-1, 2).T.contiguous(),
        torch.tensor(bonds).reshape(-1, N_BOND_FEATURES),
    )


def join_graphs(graphs: Sequence[Graph]) -> Graph:
    """Several molecules as one graph, atoms in order."""
    starts = torch.tensor([0, *(len(g.atoms) for g in graphs)]).cumsum(0).tolist()
    edges = [graph.edges + start for graph, start in zip(graphs, starts, strict=False)]
    return Graph(torch.cat([g.atoms for g in graphs]), torch.cat(edges, 1), torch.cat([g.bonds for g in graphs]))


def _one_hot(value: object, among: Sequence | range, rest: bool = False) -> list[float]:
    found = [float(value == candidate) for candidate in among]
    return [*found, float(not any(found))] if rest else found


class GraphNetwork(nn.Module):
    """Graph → node embeddings (n_atoms, width)."""

    def __init__(self, width: int = 64, n_layers: int = 4, n_heads: int = 4) -> None:
        super().__init__()
        self.embed = nn.Linear(N_ATOM_FEATURES, width)
        self.layers = nn.ModuleList(_Attention(width, n_heads) for _ in range(n_layers))
        self.norm = nn.LayerNorm(width)

    def forward(self, graph: Graph) -> Tensor:
        """Embeddings of all atoms of `graph`."""
        h = self.embed(graph.atoms)
        for layer in self.layers:
            h = layer(h, graph)
        return self.norm(h)


class _Attention(nn.Module):
    """One layer: attention over bound atoms, then a feed-forward net, each added to what came in."""

    def __init__(self, width: int, n_heads: int) -> None:
        super().__init__()
        self.shape = (n_heads, width // n_heads)
        self.norm, self.norm_after = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.key_value = nn.Linear(width, width), nn.Linear(width, 2 * width)
        self.bond = nn.Linear(N_BOND_FEATURES, 2 * width)
        self.out = nn.Linear(width, width)
        self.feed_forward = nn.Sequential(nn.Linear(width, 2 * width), nn.SiLU(), nn.Linear(2 * width, width))

    def forward(self, h: Tensor, graph: Graph) -> Tensor:
        source, to = graph.edges
        normed = self.norm(h)
        both = self.key_value(normed)[source] + self.bond(graph.bonds)
        key, value = (part.unflatten(-1, self.shape) for part in both.chunk(2, -1))
        query = self.query(normed)[to].unflatten(-1, self.shape)
        score = (query * key).sum(-1) / self.shape[1] ** 0.5  # (n_edges, n_heads)
        weight = (score - score.detach().amax(0)).clamp_min(-50.0).exp()
        total = weight.new_zeros(len(h), self.shape[0]).index_add(0, to, weight)
        message = h.new_zeros(len(h), *self.shape).index_add(0, to, weight[..., None] * value)
        message = message / total[..., None].clamp_min(1e-30)  # an atom without bonds hears nothing
        h = h + self.out(message.flatten(1))
        return h + self.feed_forward(self.norm_after(h))
