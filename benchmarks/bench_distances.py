"""Distances of all pairs, side by side with mdtraj, MDAnalysis, scipy and torch; periodic too; and how right they are.

Speed is gigabytes of float32 written a second, from coordinates in memory into a buffer that is used again where the
system takes one. The bars compare times: ours for whole matrices with mdtraj's for one half of them.
"""

from typing import Any

import mdtraj
import numpy as np
import torch
from MDAnalysis.lib import distances as mda
from scipy.spatial import distance as scipy_distance
from side_by_side import LIMIT, Bar, Row, fill, interleaved

from mdlatent import distances

BENCH = "distances"
SIZES = {20: 5000, 58: 2000, 400: 200, 1200: 50, 1208: 50}  # atoms: frames; the last is no multiple of 16
BARS_MDTRAJ = {20: 2.5, 58: 5, 400: 7, 1200: 7, 1208: 7}
BAR_BANDWIDTH, BAR_PERIODIC, BAR_ACCURACY = 0.7, 12, 3e-7
IN_CACHE = 2**19  # bytes that stay in the cache: what the arithmetic takes without the memory
LARGE = 400  # atoms from which on bandwidth counts
EDGE_NM = 6.0
CELLS = {
    "rectangular": np.diag([EDGE_NM, EDGE_NM, EDGE_NM]),
    "triclinic": EDGE_NM * np.array([[1, 0, 0], [0, 1, 0], [0.5, 0.5, np.sqrt(0.5)]]),  # rhombic dodecahedron
}
FEWER = 4  # the slow peers get a fourth of the frames


def trajectory(frames: np.ndarray, cell: np.ndarray | None = None) -> mdtraj.Trajectory:
    """Carbon atoms at `frames` (k, n, 3) nm, in a box."""
    topology = mdtraj.Topology()
    residue = topology.add_residue("ALA", topology.add_chain())
    for _ in range(frames.shape[1]):
        topology.add_atom("CA", mdtraj.element.carbon, residue)
    result = mdtraj.Trajectory(frames, topology)
    if cell is not None:
        result.unitcell_vectors = np.repeat(cell[None], len(frames), axis=0).astype(np.float32)
    return result


def points(n_frames: int, n_atoms: int) -> np.ndarray:
    """Coordinates all over a box, (n_frames, n_atoms, 3) float32 nm."""
    return np.random.default_rng(n_atoms).random((n_frames, n_atoms, 3), np.float32) * EDGE_NM


def free(n_atoms: int, n_frames: int) -> tuple[list[Row], list[Bar]]:
    """Without a box."""
    frames = points(n_frames, n_atoms)
    pairs = np.stack(distances.pairs(n_atoms), axis=1)
    full = np.empty((n_frames, n_atoms, n_atoms), np.float32)
    half = np.empty((n_frames, len(pairs)), np.float32)
    theirs, tensor = trajectory(frames), torch.from_numpy(frames)
    some = frames[::FEWER]
    square = np.empty((n_atoms, n_atoms))
    flat = np.empty(len(pairs))

    def mdanalysis_full() -> None:
        for frame in some:
            mda.distance_array(frame, frame, result=square, backend="serial")

    def mdanalysis_packed() -> None:
        for frame in some:
            mda.self_distance_array(frame, result=flat, backend="serial")

    def scipy_full() -> None:
        for frame in some:
            scipy_distance.squareform(scipy_distance.pdist(frame))

    few, repeats = points(IN_CACHE // 64**2 // 4, 64), full.nbytes // IN_CACHE
    kept = np.empty((len(few), 64, 64), np.float32)

    def in_cache() -> None:
        for _ in range(repeats):
            distances.full(few, out=kept)

    systems: dict[str, tuple[Any, float]] = {
        LIMIT: (lambda: fill(full), full.nbytes),
        "mdlatent, 64 atoms, into the cache": (in_cache, repeats * kept.nbytes),
        "mdlatent, full": (lambda: distances.full(frames, out=full), full.nbytes),
        "torch.cdist, full": (lambda: torch.cdist(tensor, tensor), full.nbytes),
        "MDAnalysis, full": (mdanalysis_full, full.nbytes * len(some) / n_frames),
        "scipy pdist + squareform, full": (scipy_full, full.nbytes * len(some) / n_frames),
        "mdlatent, packed": (lambda: distances.packed(frames, out=half), half.nbytes),
        "mdtraj, packed": (lambda: mdtraj.compute_distances(theirs, pairs, periodic=False), half.nbytes),
        "MDAnalysis, packed": (mdanalysis_packed, half.nbytes * len(some) / n_frames),
    }
    seconds = interleaved({name: run for name, (run, _) in systems.items()})
    case = f"{n_atoms:,} atoms"
    rows = _rows(case, systems, seconds)
    ratio = seconds["mdtraj, packed"] / seconds["mdlatent, full"]
    bars = [Bar(BENCH, case, "times as fast as mdtraj (full, theirs packed)", ratio, BARS_MDTRAJ[n_atoms])]
    if n_atoms >= LARGE:
        share = seconds[LIMIT] / seconds["mdlatent, full"]
        bars.append(Bar(BENCH, case, "share of the bandwidth, full", share, BAR_BANDWIDTH))
    return rows, bars


def periodic(n_atoms: int, n_frames: int, cell: str) -> tuple[list[Row], list[Bar]]:
    """To the nearest images."""
    box = CELLS[cell]
    frames = points(n_frames, n_atoms)
    boxes = np.repeat(box[None], n_frames, axis=0)
    pairs = np.stack(distances.pairs(n_atoms), axis=1)
    full = np.empty((n_frames, n_atoms, n_atoms), np.float32)
    half = np.empty((n_frames, len(pairs)), np.float32)
    few = max(1, n_frames // 16)  # for mdtraj takes seconds
    theirs = trajectory(frames[:few], box)
    dimensions = np.concatenate([theirs.unitcell_lengths[0], theirs.unitcell_angles[0]]).astype(np.float32)
    square = np.empty((n_atoms, n_atoms))

    def mdanalysis_full() -> None:
        for frame in frames[:few]:
            mda.distance_array(frame, frame, box=dimensions, result=square, backend="serial")

    part = few / n_frames
    systems: dict[str, tuple[Any, float]] = {
        LIMIT: (lambda: fill(full), full.nbytes),
        "mdlatent, full": (lambda: distances.full(frames, out=full, boxes=boxes), full.nbytes),
        "MDAnalysis, full": (mdanalysis_full, full.nbytes * part),
        "mdlatent, packed": (lambda: distances.packed(frames, out=half, boxes=boxes), half.nbytes),
        "mdtraj, packed": (lambda: mdtraj.compute_distances(theirs, pairs, periodic=True), half.nbytes * part),
    }
    seconds = interleaved({name: run for name, (run, _) in systems.items()}, 3)
    case = f"{n_atoms:,} atoms, {cell}"
    ratio = seconds["mdtraj, packed"] / part / seconds["mdlatent, full"]
    bars = []
    if n_atoms >= LARGE:
        bars.append(Bar(BENCH, case, "times as fast as mdtraj (full, theirs packed)", ratio, BAR_PERIODIC))
    return _rows(case, systems, seconds), bars


def accuracy(n_atoms: int = 301, offset_nm: float = 50.0) -> tuple[list[Row], list[Bar]]:
    """Against double precision, 50 nm from the origin; the diagonal; symmetry."""
    x = offset_nm + points(10, n_atoms)
    wide = x.astype(np.float64)
    exact = np.sqrt(((wide[:, :, None] - wide[:, None]) ** 2).sum(-1))
    off = ~np.eye(n_atoms, dtype=bool)
    i, j = distances.pairs(n_atoms)
    tensor = torch.from_numpy(x)
    found = {
        "mdlatent, full": distances.full(x),
        "torch.cdist, full": torch.cdist(tensor, tensor).numpy(),
        "MDAnalysis, full": np.stack([mda.distance_array(frame, frame, backend="serial") for frame in x]),
    }
    case, rows = f"{offset_nm:g} nm from the origin", []
    for system, d in found.items():
        error = float((np.abs(d - exact)[:, off] / exact[:, off]).max())
        rows += [
            Row(BENCH, case, system, error, "largest relative error"),
            Row(BENCH, case, system, float(np.abs(d[:, ~off]).max()), "nm, largest on the diagonal"),
            Row(BENCH, case, system, float(np.abs(d - d.transpose(0, 2, 1)).max()), "nm, largest asymmetry"),
        ]
    theirs = mdtraj.compute_distances(trajectory(x), np.stack([i, j], axis=1), periodic=False)
    for system, d in {"mdlatent, packed": distances.packed(x), "mdtraj, packed": theirs}.items():
        error = float((np.abs(d - exact[:, i, j]) / exact[:, i, j]).max())
        rows.append(Row(BENCH, case, system, error, "largest relative error"))
    ours = [row.value for row in rows if row.system == "mdlatent, full"]
    names = ("largest relative error", "largest on the diagonal, nm", "largest asymmetry, nm")
    bars = [
        Bar(BENCH, case, name, value, least, at_most=True)
        for name, value, least in zip(names, ours, (BAR_ACCURACY, 0.0, 0.0), strict=True)
    ]
    return rows, bars


def run() -> tuple[list[Row], list[Bar]]:
    """All of them."""
    rows, bars = accuracy()
    for n_atoms, n_frames in SIZES.items():
        for found in (free(n_atoms, n_frames), *(periodic(n_atoms, n_frames, cell) for cell in CELLS)):
            rows, bars = rows + found[0], bars + found[1]
    return rows, bars


def _rows(case: str, systems: dict[str, tuple[Any, float]], seconds: dict[str, float]) -> list[Row]:
    speeds = {name: written / 1e9 / seconds[name] for name, (_, written) in systems.items()}
    return [Row(BENCH, case, name, speed, "GB/s", speed / speeds[LIMIT]) for name, speed in speeds.items()]
