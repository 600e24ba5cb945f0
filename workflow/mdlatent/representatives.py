"""Structures that stand for a state: its medoid and the frames nearest to it, cut out of the original trajectories."""

import contextlib
import logging
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mdlatent import files, frames, stage
from mdlatent.errors import DataError
from mdlatent.original_frames import System, read_frames

log = logging.getLogger("mdlatent")

MAX_DISTANCES = 200_000_000  # that a medoid may cost, about 2 s; exact for states of up to 14,142 frames
FEWEST_REFERENCES = 200
CHUNK = 1 << 22  # distances computed at a time, 32 MiB


@dataclass(frozen=True)
class Pick:
    """A frame chosen for a state: simulation, number in its trajectory, time, latent distance to the medoid."""

    simulation: str
    frame: int
    time_ps: float
    distance: float


def medoid(points: np.ndarray, weights: np.ndarray) -> int:
    """Row of the medoid of `points` (n, d): that with the smallest sum of weighted distances to the others.

    `weights` (n,) are the probabilities of membership, so that the rim of a state counts little. Exact up to 14,142
    points; in larger states the distances to evenly spaced members are summed, as many as fit into 2e8 distances (200
    at least). Ties go to the first.
    """
    from scipy.spatial.distance import cdist

    n = len(points)
    n_references = min(n, max(MAX_DISTANCES // n, FEWEST_REFERENCES))
    chosen = np.arange(n_references) * n // n_references
    points = np.asarray(points, np.float64)
    references, weights = points[chosen], np.asarray(weights, np.float64)[chosen]
    if not weights.sum() > 0:
        weights = np.ones(n_references)
    sums = np.empty(n)
    step = max(1, CHUNK // n_references)
    for row in range(0, n, step):
        sums[row : row + step] = cdist(points[row : row + step], references) @ weights
    return int(np.argmin(sums))


def nearest(points: np.ndarray, centre: int, allowed: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the `n` points (k, d) nearest to row `centre`, itself first, and their distances.

    Only rows that are `allowed` (k,) bool count. Fewer are returned if there are no more; ties go to the first.
    """
    distances = np.linalg.norm(np.asarray(points, np.float64) - np.asarray(points[centre], np.float64), axis=1)
    distances[~allowed] = np.inf
    distances[centre] = -1.0  # before any frame with the very same latent
    rows = np.argsort(distances, kind="stable")[:n]
    rows = rows[np.isfinite(distances[rows])]
    return rows, np.maximum(distances[rows], 0.0)


def superpose(moved: np.ndarray, reference: np.ndarray, selected: np.ndarray) -> np.ndarray:
    """Coordinates (atoms, 3) rotated and moved so that `selected` fits best on `reference` (n, 3); float64, nm.

    Kabsch's rotation (1976, doi:10.1107/S0567739476001873), without mirroring.
    """
    moved = np.asarray(moved, np.float64)
    part = moved[selected]
    centre, target = part.mean(0), reference.mean(0)
    u, _, vt = np.linalg.svd((part - centre).T @ (reference - target))
    flip = np.diag([1.0, 1.0, np.sign(np.linalg.det(u @ vt))])
    return (moved - centre) @ (u @ flip @ vt) + target


class Structures:
    """Fetches the structures of picked frames and writes them as PDB files.

    `selected` gives the indices of the mapped atoms of each simulation, as in atoms.json.
    """

    def __init__(self, store: frames.FrameStore, selected: Mapping[str, Sequence[int]]):
        self._store, self._selected = store, selected
        self._systems: dict[str, System] = {}
        self._mended: dict[Path, bool] = {}

    def system(self, simulation: str) -> System:
        """Topology and mapped atoms of a simulation, read once."""
        if simulation not in self._systems:
            if simulation not in self._selected:
                raise DataError(f"atoms.json has no simulation {simulation!r}; run select_atoms again")
            path = self._store.simulation(simulation).topology
            self._systems[simulation] = System.load(path, self._selected[simulation])
        return self._systems[simulation]

    def same_atoms(self, one: str, other: str) -> bool:
        """Whether two simulations have the same atoms in the same order, so that one file can hold frames of both."""
        return one == other or self.system(one).names == self.system(other).names

    def fetch(self, picks: Sequence[Pick]) -> list[np.ndarray]:
        """Coordinates (atoms, 3) float64 nm of the picks, made whole where featurize did, fitted on the first.

        The mapped atoms of the first pick have their centre at the origin.
        """
        found: dict[int, np.ndarray] = {}
        wanted: dict[tuple[str, int], list[int]] = {}
        for k, pick in enumerate(picks):
            wanted.setdefault((pick.simulation, self._part_of(pick)), []).append(k)
        for (simulation, number), members in wanted.items():
            part, system = self._store.simulation(simulation).parts[number], self.system(simulation)
            members.sort(key=lambda k: picks[k].frame)
            local = [picks[k].frame - part.first_frame for k in members]
            for k, (coordinates, box) in zip(
                members, read_frames(part.trajectory, system.topology, local), strict=True
            ):
                if not np.isfinite(coordinates).all():
                    raise DataError(f"{part.trajectory}: frame {picks[k].frame} has coordinates that are not finite")
                found[k] = system.make_whole(coordinates, box) if self._was_mended(part.file) else coordinates
        mapped = [self.system(pick.simulation).selected for pick in picks]
        reference = found[0][mapped[0]].astype(np.float64)
        reference -= reference.mean(0)
        return [superpose(found[k], reference, mapped[k]) for k in range(len(picks))]

    def write(self, path: Path, title: str, picks: Sequence[Pick]) -> None:
        """Write the picks as the models of one PDB file, remarks saying where each comes from.

        No box is written: the structures are rotated, it would no longer fit. Raises DataError if a coordinate does not
        fit into the columns of the format.
        """
        from mdtraj.formats import PDBTrajectoryFile

        topology = self.system(picks[0].simulation).topology
        with files.write_beside(path) as temporary:
            body = temporary.with_suffix(".body.pdb")
            try:
                with PDBTrajectoryFile(str(body), "w") as pdb:
                    for number, coordinates in enumerate(self.fetch(picks), start=1):
                        try:
                            pdb.write(coordinates * 10, topology, modelIndex=number)
                        except ValueError as error:
                            raise DataError(
                                f"{path.name}: {picks[number - 1]} does not fit into a PDB file ({error})"
                            ) from error
                with open(temporary, "w", encoding="utf-8") as out, open(body, encoding="utf-8") as lines:
                    out.write("".join(f"REMARK 250 {line}\n" for line in [title, *remarks(picks)]))
                    shutil.copyfileobj(lines, out)
            finally:
                body.unlink(missing_ok=True)

    def _part_of(self, pick: Pick) -> int:
        parts = self._store.simulation(pick.simulation).parts
        ends = [part.first_frame + part.n_frames_source for part in parts]
        number = int(np.searchsorted(ends, pick.frame, side="right"))
        if pick.frame < 0 or number >= len(parts):
            raise DataError(
                f"{self._store.path}: simulation {pick.simulation!r} has no frame {pick.frame} (it has {ends[-1]}); "
                "the latent belongs to other frames, run embed again"
            )
        return number

    def _was_mended(self, stored: Path) -> bool:
        if stored not in self._mended:
            import json

            with frames.open_part(stored) as file:
                self._mended[stored] = bool(json.loads(file.attrs["provenance"]).get("made_whole"))
        return self._mended[stored]


def remarks(picks: Sequence[Pick]) -> list[str]:
    """One line per model: where it comes from."""
    lines = []
    for number, pick in enumerate(picks, start=1):
        time = f" time {pick.time_ps:.6g} ps" if np.isfinite(pick.time_ps) else ""
        role = "medoid" if number == 1 else f"latent distance {pick.distance:.4g}"
        lines.append(f"MODEL {number} simulation {pick.simulation} frame {pick.frame}{time} {role}")
    return lines


@contextlib.contextmanager
def fresh_folder(path: Path) -> Any:
    """Yield an empty folder beside `path` that takes its place if the block ends well; nothing old stays in it."""
    temporary = path.with_name(f".{path.name}.part")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        shutil.rmtree(path, ignore_errors=True)
        temporary.rename(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_all(folder: Path, structures: Structures, picks: Sequence[Sequence[Pick]], titles: Sequence[str]) -> None:
    """Write `folder/cluster_<state>.pdb` for every state; an empty folder if there is none."""
    with fresh_folder(folder) as temporary:
        for state, chosen in stage.progress(enumerate(picks), len(picks), "writing structures of states"):
            structures.write(temporary / file_name(state), titles[state], chosen)


def file_name(state: int) -> str:
    """Name of a state's file of structures."""
    return f"cluster_{state}.pdb"
