"""From a trajectory file to the frame store, side by side with readers alone.

Ours is the stage `featurize`: open, read one atom in ten, check, write HDF5. The peers only read: mdtraj by its file
object, which is its fastest way, and by `iterload`; MDAnalysis by its reader. Files are in the disk's cache. Made-up
chains of 5,000 atoms, 0.15 nm from one to the next, so that xtc compresses them about as well as a protein.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import MDAnalysis
import mdtraj
import numpy as np
from side_by_side import Bar, Row, interleaved, quiet

from mdlatent import featurize, synthetic
from mdlatent.trajectory import Trajectory

BENCH = "reading"
N_ATOMS, KEEP_EVERY = 5000, 10
# Frames, and the bar: the share of the frames a second of mdtraj's file object.
FORMATS: dict[str, tuple[int, float | None]] = {
    "xtc": (5000, 0.95),
    "dcd": (5000, 0.80),
    "trr": (400, None),
    "nc": (1200, None),
    "h5": (200, None),
    "pdb": (10, None),
}
SLOW = ("xtc", "pdb", "h5", "trr")
WHOLE = ("pdb",)  # mdtraj reads these in one piece only
AT_A_TIME = 256


def topology() -> mdtraj.Topology:
    """One chain of carbon atoms, in residues of ten."""
    result = mdtraj.Topology()
    chain = result.add_chain()
    for k in range(N_ATOMS):
        if k % 10 == 0:
            residue = result.add_residue("ALA", chain)
        result.add_atom(f"C{k % 10}", mdtraj.element.carbon, residue)
    return result


def readers(path: Path, atoms: mdtraj.Topology, kept: np.ndarray, n_frames: int) -> dict[str, Callable[[], object]]:
    """The systems by name."""
    whole = path.suffix[1:] in WHOLE

    def ours() -> None:
        options = {"stride": 1, "make_whole": "never"}
        out = path.with_suffix(".store")
        labels: dict[str, Any] = {"simulation": "a", "part": 0, "provenance": {}}
        featurize.featurize(Trajectory(path, atoms), kept, options, out, **labels)

    def file_object() -> None:
        with mdtraj.open(str(path)) as file:
            for start in range(0, n_frames, AT_A_TIME):
                file.read(min(AT_A_TIME, n_frames - start), atom_indices=kept)

    def iterload() -> None:
        for _ in mdtraj.iterload(str(path), top=atoms, atom_indices=kept, chunk=AT_A_TIME):
            pass

    def mdanalysis() -> None:
        reader = MDAnalysis.coordinates.core.reader(str(path))
        try:
            for step in reader:
                step.positions[kept]
        finally:
            reader.close()

    systems: dict[str, Callable[[], object]] = {"mdlatent, into the store": ours}
    if whole:
        return systems | {"mdtraj.load": lambda: mdtraj.load(str(path), atom_indices=kept)}
    systems |= {"mdtraj, file object": file_object, "mdtraj.iterload": iterload}
    return systems | ({"MDAnalysis, reader": mdanalysis} if path.suffix in (".xtc", ".dcd", ".trr") else {})


def run() -> tuple[list[Row], list[Bar]]:
    """All formats."""
    atoms, kept = topology(), np.arange(0, N_ATOMS, KEEP_EVERY)
    most = max(n for n, _ in FORMATS.values())
    frames = synthetic.random_walks(most, N_ATOMS, np.random.default_rng(0)) * np.float32(0.15 / synthetic.STEP_NM)
    rows, bars = [], []
    with tempfile.TemporaryDirectory() as folder:
        for ending, (n_frames, bar) in FORMATS.items():
            path = Path(folder) / f"frames.{ending}"
            mdtraj.Trajectory(frames[:n_frames], atoms, time=np.arange(n_frames)).save(str(path))
            with quiet():  # a reader of dcd talks to the terminal
                seconds = interleaved(readers(path, atoms, kept, n_frames), 3 if ending in SLOW else 5)
            path.unlink()
            speeds = {name: n_frames / value for name, value in seconds.items()}
            best = speeds.get("mdtraj, file object")
            rows += [
                Row(BENCH, ending, name, speed, "frames/s", speed / best if best else None)
                for name, speed in speeds.items()
            ]
            if bar is not None and best:
                share = speeds["mdlatent, into the store"] / best
                bars.append(Bar(BENCH, ending, "share of mdtraj's file object", share, bar))
    return rows, bars
