"""The figures of a run as bars, in one SVG file: speeds only, on a logarithmic scale in each group."""

import math
from typing import Any
from xml.sax.saxutils import escape

from side_by_side import figures

SPEEDS = ("GB/s", "frames/s", "points/s", "frames per CPU s", "CPU s")
ROW, GAP, LEFT, WIDTH, RIGHT = 16, 26, 250, 420, 120
OURS, OTHERS, LIMIT = "#1f6fb2", "#a9a9a9", "#d9a441"


def draw(rows: list[dict[str, Any]]) -> str:
    """SVG text for the rows of bench.json."""
    groups: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for row in rows:
        if row["unit"] in SPEEDS and row["value"] > 0:
            groups.setdefault((row["bench"], row["case"], row["unit"]), []).append(row)
    lines, y = [], 10
    for (bench, case, unit), members in groups.items():
        y += GAP
        better = "less is better" if unit == "CPU s" else "more is better"
        lines.append(f'<text x="4" y="{y - 6}" class="title">{escape(f"{bench}: {case} ({unit}, {better})")}</text>')
        low = min(row["value"] for row in members) / 3
        span = math.log(max(row["value"] for row in members) / low)
        for row in members:
            length = WIDTH * math.log(row["value"] / low) / span
            colour = (
                LIMIT
                if "limit" in row["system"]
                else OURS
                if row["system"].startswith(("mdlatent", "coord"))
                else OTHERS
            )
            lines += [
                f'<text x="{LEFT - 6}" y="{y + 11}" class="name">{escape(row["system"])}</text>',
                f'<rect x="{LEFT}" y="{y}" width="{length:.1f}" height="{ROW - 4}" fill="{colour}"/>',
                f'<text x="{LEFT + length + 5:.1f}" y="{y + 11}">{figures(row["value"])}</text>',
            ]
            y += ROW
    style = "text{font:11px sans-serif}.name{text-anchor:end}.title{font-weight:bold}"
    size = f'width="{LEFT + WIDTH + RIGHT}" height="{y + 10}"'
    body = "\n".join(lines)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size}>\n<style>{style}</style>\n'
        f'<rect width="100%" height="100%" fill="white"/>\n{body}\n</svg>\n'
    )
