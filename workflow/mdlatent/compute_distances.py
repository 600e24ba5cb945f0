"""Write all pair distances of one simulation (the symmetric half), for use outside this program.

Training does not need them: it computes distances faster than it could read them. Runs only where
`distances.store` is true.
"""

import json
import logging
import shutil
from pathlib import Path

import numpy as np

from mdlatent import distances, stage
from mdlatent.errors import DataError
from mdlatent.frames import FrameStore, Simulation
from mdlatent.hdf5 import create_hdf5

log = logging.getLogger("mdlatent")

FORMAT = "mdlatent-distances"
VERSION = 1
CHUNK_BYTES = 4 * 2**20


def write_distances(store: FrameStore, simulation: Simulation, output: Path) -> None:
    """Write `distances` (frames, pairs) float32 nm, `pairs` (pairs, 2) int32, `frame` int64 and `time_ps` float64.

    Raises DataError beforehand if the disk has no room for it.
    """
    n_pairs = distances.n_pairs(store.n_atoms)
    size = 4 * n_pairs * simulation.n_frames
    output.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(output.parent).free
    if size > free:
        raise DataError(
            f"{output}: the distances of {simulation.n_frames} frames need {size / 1e6:,.0f} MB, the disk has "
            f"{free / 1e6:,.0f} MB free; set distances.store to false (training does not need them), "
            "or raise featurize.stride"
        )
    rows = int(np.clip(CHUNK_BYTES // (4 * n_pairs), 1, min(1024, simulation.n_frames)))
    with create_hdf5(output) as (file, check):
        written = file.create_dataset("distances", (simulation.n_frames, n_pairs), "f4", chunks=(rows, n_pairs))
        written.attrs["unit"] = "nm"
        file["pairs"] = np.stack(distances.pairs(store.n_atoms), axis=1).astype(np.int32)
        file["frame"] = store.frame_numbers(simulation)
        file["time_ps"] = store.times_ps(simulation)
        file.attrs.update(format=FORMAT, version=VERSION, simulation=simulation.name, atoms=json.dumps(store.atoms))
        buffer = np.empty((rows, n_pairs), np.float32)
        chunks = store.iterate(simulation.start, simulation.stop, rows)
        for row, coordinates in stage.progress(chunks, -(-simulation.n_frames // rows), "chunks of distances"):
            first = row - simulation.start
            out = distances.packed(coordinates, buffer[: len(coordinates)])
            written[first : first + len(out)] = out
            check()


def main(argv: list[str] | None = None) -> None:
    """Parse, read, write."""
    parser = stage.parser("compute_distances", __doc__)
    parser.add_argument("--frames", type=Path, required=True, help="index.json of the frame store")
    parser.add_argument("--simulation", required=True, help="name of the simulation")
    parser.add_argument("--output", type=Path, required=True, help="HDF5 file to write")
    args = parser.parse_args(argv)
    stage.start_logging(args.log)
    stage.limit_threads(1)
    with FrameStore(args.frames) as store:
        simulation = store.simulation(args.simulation)
        write_distances(store, simulation, args.output)
        log.info("%s: %d frames × %d pairs", args.output, simulation.n_frames, distances.n_pairs(store.n_atoms))


if __name__ == "__main__":
    stage.run(main)
