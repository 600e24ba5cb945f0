"""The latent of one molecule as an SVG text: conformers on two principal components, and a structure per cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from rdkit import Chem

from mdlatent.conformers.curve_figure import COLOURS, STYLE

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["draw"]

LEFT, TOP, SIDE, CELL, COLUMNS = 46, 14, 380, 150, 3
ELEMENTS = {7: "#3050f8", 8: "#e03020", 9: "#50a030", 15: "#e08000", 16: "#c0a000", 17: "#30a030", 35: "#a03030"}


def draw(table: pd.DataFrame, molecule: Chem.Mol, structures_angstrom: np.ndarray) -> str:
    """SVG of `latent_map.latent_table` and heavy atoms (n_clusters, n_heavy, 3) Å of the representatives, in order.

    Structures are seen along the axis in which they are thinnest, all on the same scale.
    """
    points = table[["pc1", "pc2"]].to_numpy()
    low, high = points.min(0), points.max(0)
    middle, span = (low + high) / 2, max(float((high - low).max()), 1e-9) * 1.1
    at = (points - middle) / span + 0.5
    explained = table.attrs["explained"]
    body = [f'<rect x="{LEFT}" y="{TOP}" width="{SIDE}" height="{SIDE}" fill="none" stroke="#bbb"/>']
    for (x, y), cluster, chosen in zip(at, table["cluster"], table["representative"], strict=True):
        look = 'r="6" stroke="black" stroke-width="1.5"' if chosen else 'r="3" fill-opacity="0.7"'
        place = f'cx="{LEFT + SIDE * x:.1f}" cy="{TOP + SIDE * (1 - y):.1f}"'
        body.append(f'<circle {place} {look} fill="{_colour(cluster)}"/>')
    names = [f"component {k + 1} ({100 * share:.0f} %)" for k, share in enumerate(explained)]
    body.append(f'<text class="x" x="{LEFT + SIDE / 2}" y="{TOP + SIDE + 20}">{names[0]}</text>')
    if len(names) > 1:
        turn = f"translate(24 {TOP + SIDE / 2}) rotate(-90)"
        body.append(f'<text class="x" transform="{turn}">{names[1]}</text>')
    flat = [_seen_from_above(x) for x in structures_angstrom]
    scale = 0.8 * CELL / max(float(np.ptp(x, axis=0).max()) for x in flat)
    counts = np.bincount(table["cluster"])
    for number, x in enumerate(flat):
        origin = np.array([LEFT + SIDE + 24 + CELL * (number % COLUMNS + 0.5), TOP + CELL * (number // COLUMNS + 0.5)])
        body += _sticks(molecule, origin + scale * x)
        label = f"{counts[number]} conformers"
        body.append(
            f'<text class="x" x="{origin[0]:.1f}" y="{origin[1] + CELL / 2 - 2:.1f}" '
            f'style="fill:{_colour(number)};font-weight:bold">{label}</text>'
        )
    rows = -(-len(flat) // COLUMNS)
    width, height = LEFT + SIDE + 40 + CELL * COLUMNS, max(TOP + SIDE + 34, TOP + CELL * rows + 10)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}">\n<style>{STYLE}</style>\n'
        '<rect width="100%" height="100%" fill="white"/>\n' + "\n".join(body) + "\n</svg>\n"
    )


def _colour(cluster: int) -> str:
    return COLOURS[cluster % len(COLOURS)]


def _seen_from_above(x: np.ndarray) -> np.ndarray:
    """Atoms (N, 3) on the plane of their first two principal axes (N, 2), turned and never mirrored."""
    centred = x - x.mean(0)
    axes = np.linalg.svd(centred, full_matrices=True)[2]
    axes[2] *= np.linalg.det(axes)  # the one looked along
    return (centred @ axes.T)[:, :2] * [1, -1]  # down is positive in SVG


def _sticks(molecule: Chem.Mol, at: np.ndarray) -> list[str]:
    """Bonds as lines, each half in the colour of its atom."""
    lines = []
    for bond in molecule.GetBonds():
        ends = (bond.GetBeginAtom(), bond.GetEndAtom())
        middle = (at[ends[0].GetIdx()] + at[ends[1].GetIdx()]) / 2
        for end in ends:
            (x, y), colour = at[end.GetIdx()], ELEMENTS.get(end.GetAtomicNum(), "#444")
            place = f'x1="{x:.1f}" y1="{y:.1f}" x2="{middle[0]:.1f}" y2="{middle[1]:.1f}"'
            lines.append(f'<line {place} stroke="{colour}" stroke-width="2.4" stroke-linecap="round"/>')
    return lines
