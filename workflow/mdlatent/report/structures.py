"""Structures of states inside the page: what all models of a PDB file share is kept once, coordinates as integers.

A PDB file of five models of 300 atoms takes 120 kB, packed 12 kB; the page unpacks it to the same coordinates. Where
all structures together would still be too large, the page shows fewer atoms or models and says so; the files beside
it are complete.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mdlatent.report.figures import typed

log = logging.getLogger("mdlatent")

BUDGET_BYTES = 3_000_000
ATOM = ("ATOM  ", "HETATM")
WATER_AND_IONS = {
    *("HOH", "WAT", "SOL", "TIP", "TIP3", "TIP4", "TIP5", "SPC", "SPCE"),
    *("NA", "CL", "NA+", "CL-", "SOD", "CLA", "POT", "K", "K+", "MG", "CAL", "CA2", "ZN"),
}
BACKBONE = {"N", "CA", "C", "O", "P", "O5'", "C5'", "C4'", "C3'", "O3'"}
LEVELS = (  # tried in this order until all fit
    "",
    "without water and ions",
    "without water, ions and hydrogen",
    "the medoid only, without water, ions and hydrogen",
    "the medoid only, its backbone",
)


@dataclass
class Pdb:
    """A PDB file of models that have the same atoms.

    `template` holds the lines of one model with the coordinates cut out (columns 31 to 54); `coordinates` (models,
    atoms, 3) int in 0.001 Å.
    """

    head: list[str] = field(default_factory=list)
    template: list[str] = field(default_factory=list)
    models: list[str] = field(default_factory=list)  # the MODEL lines
    coordinates: np.ndarray = field(default_factory=lambda: np.zeros((0, 0, 3), np.int64))
    tail: list[str] = field(default_factory=list)

    @property
    def packed_bytes(self) -> int:
        """About what its coordinates take in the page."""
        return self.coordinates.size * (8 if np.abs(self.coordinates).max(initial=0) >= 2**15 else 4) * 2 // 3


def parse(text: str) -> Pdb | None:
    """Read a PDB file of several models; None if the models differ in more than coordinates."""
    result = Pdb()
    frames: list[list[list[int]]] = []
    body: list[str] = []
    numbers: list[list[int]] = []
    place = result.head
    for line in text.splitlines():
        if line.startswith("MODEL "):
            result.models.append(line)
            body, numbers = [], []
            place = body
        elif line.startswith(ATOM):
            numbers.append([round(float(line[k : k + 8]) * 1000) for k in (30, 38, 46)])
            place.append(line[:30] + line[54:].ljust(26))
        elif line.startswith("ENDMDL"):
            place.append(line)
            if result.template and body != result.template:
                return None
            result.template = body
            frames.append(numbers)
            place = result.tail
        else:
            place.append(line)
    if not frames or not frames[0]:
        return None
    result.coordinates = np.array(frames, np.int64)
    return result


def reduced(pdb: Pdb, level: int) -> Pdb:
    """The same with fewer atoms or models; see LEVELS."""
    if level == 0:
        return pdb
    keep_lines, keep_atoms = [], []
    for line in pdb.template:
        if not line.startswith(ATOM):
            keep_lines.append(line)
            continue
        keep_atoms.append(_kept(line, level))
        if keep_atoms[-1]:
            keep_lines.append(line)
    models = slice(0, 1) if level >= 3 else slice(None)
    return Pdb(
        pdb.head,
        keep_lines,
        pdb.models[models],
        pdb.coordinates[models][:, np.array(keep_atoms)],
        [line for line in pdb.tail if not line.startswith("CONECT")],  # it names atoms that may be gone
    )


def _kept(line: str, level: int) -> bool:
    name, residue = line[12:16].strip(), line[17:21].strip()
    element = line[52:54].strip() or name.lstrip("0123456789")[:1]  # columns 77–78, coordinates cut out
    if residue in WATER_AND_IONS:
        return False
    if level >= 2 and element.upper() in ("H", "D"):
        return False
    return level < 4 or name in BACKBONE


def best_view(coordinates: np.ndarray) -> list[float]:
    """Rotation from which a structure (atoms, 3) is seen broadest and upright: quaternion x, y, z, w.

    The axis of largest extent points up, that of smallest extent to the viewer.
    """
    centred = coordinates - coordinates.mean(0)
    _, axes = np.linalg.eigh(centred.T @ centred)  # columns, smallest extent first
    rows = axes.T[[1, 2, 0]]
    rows *= np.sign(rows[np.arange(3), np.abs(rows).argmax(1)])[:, None]  # else their signs are left to chance
    rows[2] = np.cross(rows[0], rows[1])  # a rotation, not a mirror
    return [round(float(value), 4) for value in quaternion(rows)]


def quaternion(rotation: np.ndarray) -> np.ndarray:
    """Unit quaternion x, y, z, w ≥ 0 of a rotation matrix (3, 3); Bar-Itzhack 2000, doi:10.2514/2.4654."""
    r = rotation
    k = np.array(
        [
            [r[0, 0] - r[1, 1] - r[2, 2], r[0, 1] + r[1, 0], r[0, 2] + r[2, 0], r[2, 1] - r[1, 2]],
            [r[0, 1] + r[1, 0], r[1, 1] - r[0, 0] - r[2, 2], r[1, 2] + r[2, 1], r[0, 2] - r[2, 0]],
            [r[0, 2] + r[2, 0], r[1, 2] + r[2, 1], r[2, 2] - r[0, 0] - r[1, 1], r[1, 0] - r[0, 1]],
            [r[2, 1] - r[1, 2], r[0, 2] - r[2, 0], r[1, 0] - r[0, 1], r[0, 0] + r[1, 1] + r[2, 2]],
        ]
    )
    _, vectors = np.linalg.eigh(k)
    found = vectors[:, -1]
    return found if found[3] >= 0 else -found


def choose_level(structures: Sequence[Pdb], budget: int = BUDGET_BYTES) -> int:
    """The first level at which all structures together fit, or the last."""
    for level in range(len(LEVELS)):
        if sum(reduced(pdb, level).packed_bytes for pdb in structures) <= budget:
            return level
    return len(LEVELS) - 1


def packed(paths: Sequence[Path], budget: int = BUDGET_BYTES) -> dict[str, Any]:
    """Structures of the files `paths` for the page: shared templates, one entry per file (null where none fits)."""
    parsed = [parse(path.read_text(encoding="utf-8")) for path in paths]
    for path, pdb in zip(paths, parsed, strict=True):
        if pdb is None:
            log.warning("%s: its models have different atoms or none; the page only links to it", path)
    level = choose_level([pdb for pdb in parsed if pdb], budget)
    templates: dict[str, int] = {}
    entries: list[dict[str, Any] | None] = []
    left = budget
    for pdb in parsed:
        small = reduced(pdb, level) if pdb else None
        left -= small.packed_bytes if small else 0
        if not small or not small.coordinates.size or left < 0:
            entries.append(None)
            continue
        kind = "i2" if np.abs(small.coordinates).max() < 2**15 else "i4"
        entries.append(
            {
                "head": small.head,
                "models": small.models,
                "tail": small.tail,
                "template": templates.setdefault("\n".join(small.template), len(templates)),
                "xyz": typed(small.coordinates.ravel(), kind),
                "view": best_view(small.coordinates[0]),
            }
        )
    if level:
        log.info("structures in the page: %s", LEVELS[level])
    return {"templates": list(templates), "entries": entries, "reduced": LEVELS[level]}
