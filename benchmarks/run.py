"""Distances and reading, side by side with mdtraj and torch in one run: `make bench` (one thread each).

Interleaved repeats on one thread, medians. Writes results/bench/bench.json, a list of
{"bench", "case", "system", "value", "unit", "ratio_to_limit"}; the limit is the bandwidth of filling memory.
"""

import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import mdtraj
import numpy as np
import torch

from mdlatent import distances, files
from mdlatent.trajectory import Trajectory

OUTPUT = Path("results/bench/bench.json")
CASES = {
    "20 atoms, 5,000 frames": (20, 5000),
    "400 atoms, 200 frames": (400, 200),
    "1,200 atoms, 50 frames": (1200, 50),
}
REPEATS = 7


def interleaved(systems: dict[str, Callable[[], object]], repeats: int = REPEATS) -> dict[str, float]:
    """Median seconds of each system, their runs taking turns so that a busy moment hits all alike."""
    times: dict[str, list[float]] = {name: [] for name in systems}
    for turn in range(repeats + 1):
        for name, run in systems.items():
            start = time.perf_counter()
            run()
            if turn:  # the first round compiles and warms up
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def bench_distances(case: str, n_atoms: int, n_frames: int) -> list[dict]:
    """GB/s of float32 distances written, from coordinates in memory."""
    random = np.random.default_rng(0)
    frames = random.random((n_frames, n_atoms, 3), np.float32) * 5
    i, j = distances.pairs(n_atoms)
    pairs = np.stack([i, j], axis=1)
    full = np.empty((n_frames, n_atoms, n_atoms), np.float32)
    packed = np.empty((n_frames, len(pairs)), np.float32)
    topology = mdtraj.Topology()
    residue = topology.add_residue("ALA", topology.add_chain())
    for _ in range(n_atoms):
        topology.add_atom("CA", mdtraj.element.carbon, residue)
    trajectory = mdtraj.Trajectory(frames, topology)
    tensor = torch.from_numpy(frames)
    written = {"memory fill (limit)": full, "mdlatent full": full, "torch.cdist full": full}
    written |= {"mdlatent packed": packed, "mdtraj packed": packed}
    seconds = interleaved(
        {
            "memory fill (limit)": lambda: full.fill(1.0),
            "mdlatent full": lambda: distances.full(frames, out=full),
            "torch.cdist full": lambda: torch.cdist(tensor, tensor),
            "mdlatent packed": lambda: distances.packed(frames, out=packed),
            "mdtraj packed": lambda: mdtraj.compute_distances(trajectory, pairs, periodic=False),
        }
    )
    speeds = {name: written[name].nbytes / 1e9 / value for name, value in seconds.items()}
    limit = speeds["memory fill (limit)"]
    return [
        {
            "bench": "distances",
            "case": case,
            "system": name,
            "value": value,
            "unit": "GB/s",
            "ratio_to_limit": value / limit,
        }
        for name, value in speeds.items()
    ]


def bench_reading() -> list[dict]:
    """Frames per second from a dcd file of 1,000 frames × 5,000 atoms in the disk cache, one atom in ten kept."""
    n_frames, n_atoms = 1000, 5000
    random = np.random.default_rng(0)
    topology = mdtraj.Topology()
    residue = topology.add_residue("ALA", topology.add_chain())
    for _ in range(n_atoms):
        topology.add_atom("CA", mdtraj.element.carbon, residue)
    kept = np.arange(0, n_atoms, 10)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "frames.dcd"
        mdtraj.Trajectory(random.random((n_frames, n_atoms, 3), np.float32), topology).save_dcd(str(path))

        def with_mdtraj() -> None:
            for _ in mdtraj.iterload(str(path), top=topology, atom_indices=kept, chunk=256):
                pass

        def with_mdlatent() -> None:
            for _ in Trajectory(path, topology).chunks(kept):
                pass

        seconds = interleaved({"mdtraj iterload": with_mdtraj, "mdlatent": with_mdlatent}, 3)
    return [
        {
            "bench": "reading",
            "case": "dcd",
            "system": name,
            "value": n_frames / value,
            "unit": "frames/s",
            "ratio_to_limit": None,
        }
        for name, value in seconds.items()
    ]


def main() -> None:
    """Run all, print a table, write bench.json."""
    torch.set_num_threads(1)
    rows = bench_reading()
    for case, (n_atoms, n_frames) in CASES.items():
        rows += bench_distances(case, n_atoms, n_frames)
    for row in rows:
        ratio = "" if row["ratio_to_limit"] is None else f"{100 * row['ratio_to_limit']:5.0f} % of the limit"
        print(f"{row['bench']:10} {row['case']:24} {row['system']:20} {row['value']:12.2f} {row['unit']:9} {ratio}")
    files.write_json(OUTPUT, rows)
    print(json.dumps({"written": str(OUTPUT)}))


if __name__ == "__main__":
    main()
