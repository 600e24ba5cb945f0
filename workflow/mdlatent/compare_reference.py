"""Distance of every stored frame of a simulation to its reference structure, in Å after superposition.

Writes a table: simulation, frame (number in the original trajectory), reference_rmsd_angstrom (root of the mean
squared distance of the mapped atoms after the best superposition).
"""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mdlatent import elements, files, stage
from mdlatent.errors import DataError

if TYPE_CHECKING:
    from mdlatent.frames import FrameStore

log = logging.getLogger("mdlatent")

ANGSTROM_PER_NM = 10.0


def main(argv: list[str] | None = None) -> None:
    """Parse, read, write."""
    parser = stage.parser("compare_reference", __doc__)
    parser.add_argument("--frames", type=Path, required=True, help="index.json of the frame store")
    parser.add_argument("--atoms", type=Path, required=True, help="atoms.json")
    parser.add_argument("--simulation", required=True, help="name of the simulation")
    parser.add_argument("--reference", type=Path, required=True, help="structure file")
    parser.add_argument("--output", type=Path, required=True, help="table to write (parquet)")
    args = parser.parse_args(argv)
    stage.start_logging(args.log)
    stage.limit_threads(1)

    import pandas as pd

    from mdlatent.frames import FrameStore

    chosen = files.read_json(args.atoms)
    reference = read_reference(args.reference, chosen["selection"], chosen["simulations"][args.simulation]["atoms"])
    with FrameStore(args.frames) as store:
        table = pd.DataFrame(
            {
                "simulation": args.simulation,
                "frame": store.frame_numbers(args.simulation),
                "reference_rmsd_angstrom": rmsd_to(store, args.simulation, reference) * ANGSTROM_PER_NM,
            }
        )
    with files.write_beside(args.output) as temporary:
        table.to_parquet(temporary, index=False)
    log.info("%s: mean %.2f Å over %d frames", args.output, table["reference_rmsd_angstrom"].mean(), len(table))


def read_reference(path: Path, selection: str, atoms: list[str]) -> np.ndarray:
    """Coordinates (atoms, 3) float32 nm of the mapped atoms in the first model of a structure file.

    Atoms are found by their names (`ALA2-CA`) among those that the selection matches. Raises DataError for those
    missing.
    """
    import mdtraj

    try:
        structure: Any = mdtraj.load(str(path))
    except Exception as error:  # each of mdtraj's readers has errors of its own
        raise DataError(f"{path}: cannot be read as a structure ({error}); give a pdb, cif or gro file") from error
    elements.mend(structure.top)
    places = {str(structure.top.atom(int(i))): int(i) for i in structure.top.select(selection)}
    missing = [name for name in atoms if name not in places]
    if missing:
        raise DataError(
            f"reference {path}: {len(missing)} of the {len(atoms)} mapped atoms are not in it, the first is "
            f"{missing[0]!r}; residue names and numbers must be those of the topology"
        )
    return structure.xyz[0, [places[name] for name in atoms]]


def rmsd_to(store: "FrameStore", simulation: str, reference: np.ndarray) -> np.ndarray:
    """Root mean squared distance in nm of every frame (n_frames,) to the reference (atoms, 3), superposed.

    Kabsch's rotation from the singular values of the covariance (Kabsch 1976, doi:10.1107/S0567739476001873); memory
    does not grow with the number of frames.
    """
    span = store.simulation(simulation)
    return np.concatenate([kabsch_rmsd(frames, reference) for _, frames in store.iterate(span.start, span.stop)])


def kabsch_rmsd(frames: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """RMSD (k,) float64 of frames (k, atoms, 3) to a reference (atoms, 3) after the best proper superposition."""
    x = frames.astype(np.float64) - frames.mean(1, keepdims=True, dtype=np.float64)
    y = reference.astype(np.float64) - reference.mean(0, dtype=np.float64)
    covariance = np.einsum("kai,aj->kij", x, y)
    values = np.linalg.svd(covariance, compute_uv=False)
    values[:, 2] *= np.sign(np.linalg.det(covariance))  # a rotation, never a mirror image
    squared = (x**2).sum((1, 2)) + (y**2).sum() - 2 * values.sum(1)
    return np.sqrt(np.maximum(squared, 0) / len(y))


if __name__ == "__main__":
    stage.run(main)
