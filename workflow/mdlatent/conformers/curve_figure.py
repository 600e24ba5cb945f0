"""Draw learning curves of the conformation autoencoder, several in one figure.

RMSD of held-out conformers by epoch, of seen molecules and of others; curves are given as NAME=curve.csv.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from mdlatent import files, stage
from mdlatent.errors import ConfigError

__all__ = ["COLOURS", "draw"]

COLOURS = ("#1f6fb2", "#c8553d", "#4c9f70", "#8a5fb0", "#d9a441", "#5b6770", "#b5838d", "#2a9d8f")
LEFT, TOP, WIDTH, HEIGHT, RIGHT, BOTTOM = 56, 14, 460, 240, 190, 44
STYLE = "text{font:11px sans-serif}.x{text-anchor:middle}.y{text-anchor:end}"
WATCHED = (("seen_rmsd_angstrom", "seen molecules", ""), ("unseen_rmsd_angstrom", "other scaffolds", "5 4"))


def draw(curves: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """SVG of several learning curves, rows as those of `train_autoencoder.train`, each under its name."""
    lines = {
        (name, label, dash): [(float(row["epoch"]), float(row[key])) for row in rows if row.get(key) not in (None, "")]
        for name, rows in curves.items()
        for key, label, dash in WATCHED
    }
    points = [point for line in lines.values() for point in line] or [(1.0, 1.0)]
    last = max(x for x, _ in points)
    top = math.ceil(2 * max(y for _, y in points)) / 2
    body = []
    for tick in range(5):
        x, y = LEFT + WIDTH * tick / 4, TOP + HEIGHT * (1 - tick / 4)
        body += [
            f'<line x1="{LEFT}" y1="{y:.1f}" x2="{LEFT + WIDTH}" y2="{y:.1f}" stroke="#ddd"/>',
            f'<text class="y" x="{LEFT - 6}" y="{y + 4:.1f}">{top * tick / 4:.2f}</text>',
            f'<text class="x" x="{x:.1f}" y="{TOP + HEIGHT + 16}">{last * tick / 4:.0f}</text>',
        ]
    names = list(curves)
    for number, ((name, label, dash), line) in enumerate(lines.items()):
        colour = COLOURS[names.index(name) % len(COLOURS)]
        path = " ".join(f"{LEFT + WIDTH * x / last:.1f},{TOP + HEIGHT * (1 - y / top):.1f}" for x, y in line)
        look = f'fill="none" stroke="{colour}" stroke-width="1.6" stroke-dasharray="{dash}"'
        y = TOP + 14 * number + 8
        body += [
            f'<polyline points="{path}" {look}/>',
            f'<line x1="{LEFT + WIDTH + 12}" y1="{y - 4}" x2="{LEFT + WIDTH + 34}" y2="{y - 4}" {look}/>',
            f'<text x="{LEFT + WIDTH + 40}" y="{y}">{escape(f"{name}, {label}")}</text>',
        ]
    body += [
        f'<text class="x" x="{LEFT + WIDTH / 2}" y="{TOP + HEIGHT + 36}">epoch</text>',
        f'<text class="x" transform="translate(14 {TOP + HEIGHT / 2}) rotate(-90)">RMSD, held-out conformers, Å</text>',
    ]
    height = max(TOP + HEIGHT + BOTTOM, TOP + 14 * len(lines) + BOTTOM)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{LEFT + WIDTH + RIGHT}" height="{height}">\n'
        f'<style>{STYLE}</style>\n<rect width="100%" height="100%" fill="white"/>\n' + "\n".join(body) + "\n</svg>\n"
    )


def main(argv: list[str] | None = None) -> None:
    """Parse the command line, read, draw, write."""
    parser = stage.parser("conformers.curve_figure", __doc__)
    parser.add_argument("curves", nargs="+", help="NAME=curve.csv, the latter of mdlatent.conformers.fit_autoencoder")
    parser.add_argument("--output", type=Path, required=True, help="SVG file")
    args = parser.parse_args(argv)
    curves = {}
    for given in args.curves:
        name, equals, path = given.partition("=")
        if not equals:
            raise ConfigError(f"curves: got {given!r}, expected NAME=curve.csv")
        with Path(path).open(newline="") as file:
            curves[name] = list(csv.DictReader(file))
    files.write_text(args.output, draw(curves))


if __name__ == "__main__":
    stage.run(main)
