"""Read one trajectory part into the frame store: selected atoms, whole molecules, float32 in nm.

The file is read in chunks, so memory does not grow with its length. Nothing is left at the output path unless
everything was read and is finite.
"""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mdlatent import __version__, files, periodic, sources, stage
from mdlatent.errors import DataError
from mdlatent.frames import write_part
from mdlatent.trajectory import Chunk, Trajectory, load_topology

log = logging.getLogger("mdlatent")


def whole_chunks(
    trajectory: Trajectory, atoms: np.ndarray, stride: int, make_whole: str
) -> tuple[bool, Iterator[Chunk]]:
    """Whether molecules are mended, and chunks with the selected atoms (k, n, 3) only, mended if so.

    `make_whole`: `auto` mends where the first frame has a real box, `always` demands one, `never` does not mend.
    Raises DataError for NaN or infinite coordinates (naming frame and atom), or if `always` finds no box.
    """
    mend = False
    if make_whole != "never":
        box = trajectory.first_box()
        mend = box is not None and bool(periodic.is_real(box))
        if make_whole == "always" and not mend:
            got = "no box" if box is None else f"box vectors {np.round(box, 4).tolist()} nm"
            raise DataError(
                f"{trajectory.path}: featurize.make_whole is `always`, but its first frame has {got}; "
                "set it to `auto`, or give a trajectory with its periodic box"
            )
    if not mend:
        return False, _plain(trajectory, atoms, stride)
    forest = periodic.spanning_forest(trajectory.topology.n_atoms, periodic.links(trajectory.topology), atoms)
    return True, _mended(trajectory, forest, stride)


def _plain(trajectory: Trajectory, atoms: np.ndarray, stride: int) -> Iterator[Chunk]:
    for chunk in trajectory.chunks(atoms, stride):
        _demand_finite(chunk, atoms, trajectory)
        yield chunk


def _mended(trajectory: Trajectory, forest: periodic.Forest, stride: int) -> Iterator[Chunk]:
    for chunk in trajectory.chunks(forest.read, stride):
        _demand_finite(chunk, forest.read, trajectory)
        boxes = np.zeros((len(chunk.frames), 3, 3)) if chunk.boxes is None else chunk.boxes
        chunk.coordinates = periodic.make_whole(chunk.coordinates, boxes, forest)
        yield chunk


def _demand_finite(chunk: Chunk, atoms: np.ndarray, trajectory: Trajectory) -> None:
    finite = np.isfinite(chunk.coordinates)
    if finite.all():
        return
    row, column, axis = np.argwhere(~finite)[0]
    value = chunk.coordinates[row, column, axis]
    raise DataError(
        f"{trajectory.path}: frame {chunk.frames[row]}, atom {atoms[column]} "
        f"({trajectory.topology.atom(int(atoms[column]))}): coordinate {'xyz'[axis]} is {value}; "
        "the simulation blew up or the file is damaged: cut the trajectory before this frame"
    )


def featurize(
    trajectory: Trajectory, selected: np.ndarray, options: dict[str, Any], output: Path, **labels: Any
) -> tuple[int, int, bool]:
    """Write one part of the store; returns (frames written, frames in the file, whether molecules were mended).

    `labels`: `simulation`, `part` and `provenance` of `frames.write_part`. Raises DataError if the file has no frame.
    """
    provenance = labels.pop("provenance")
    mended, chunks = whole_chunks(trajectory, selected, options["stride"], options["make_whole"])
    provenance = {**provenance, "stride": options["stride"], "made_whole": mended, "mdlatent": __version__}
    with write_part(output, n_atoms=len(selected), provenance=provenance, **labels) as writer:
        for chunk in chunks:
            writer.append(chunk.coordinates, chunk.frames, chunk.times_ps)
        writer.n_frames_source = trajectory.n_frames
        if writer.n_frames == 0:
            raise DataError(f"{trajectory.path}: has no frames; give a trajectory with at least two")
    return writer.n_frames, trajectory.n_frames, mended


def read_part(
    trajectory: Path,
    topology: tuple[Path, Any],
    chosen: dict[str, Any],
    options: dict[str, Any],
    output: Path,
    labels: dict[str, Any],
    **provenance: Any,
) -> None:
    """Write one part of the store from its files, and log it.

    `topology`: file and mdtraj topology; `chosen`: atoms.json; `labels`: `simulation` and `part`. What else is given
    goes into the part's provenance. Raises DataError as `featurize`, or if the atoms were chosen for another topology.
    """
    path, atoms = topology
    entry = chosen["simulations"][labels["simulation"]]
    if atoms.n_atoms != entry["n_atoms_total"]:
        raise DataError(
            f"{path} has {atoms.n_atoms} atoms, but atoms.json was made for {entry['n_atoms_total']}; "
            "run the select_atoms stage again"
        )
    source = sources.record_path(trajectory)
    provenance |= {
        "source": trajectory.name,
        "sha256": files.read_json(source).get("sha256") if source.exists() else None,
        "selection": chosen["selection"],
    }
    indices = np.array(entry["indices"], np.int64)
    n_frames, n_source, mended = featurize(
        Trajectory(trajectory, atoms, path), indices, options, output, **labels, provenance=provenance
    )
    log.info(
        "%s: %d of %d frames, %d atoms%s",
        output, n_frames, n_source, len(indices), ", molecules made whole" if mended else "",
    )  # fmt: skip


def part_number(text: str) -> int:
    """The number in `0` or `part000`."""
    return int(text.removeprefix("part"))


def main(argv: list[str] | None = None) -> None:
    """Parse, read, write."""
    parser = stage.parser("featurize", __doc__)
    parser.add_argument("--simulation", required=True, help="name of the simulation")
    parser.add_argument("--part", type=part_number, default=0, help="trajectory part, `0` or `part000`")
    parser.add_argument("--topology", type=Path, required=True)
    parser.add_argument("--trajectory", type=Path, required=True)
    parser.add_argument("--atoms", type=Path, required=True, help="atoms.json of the select_atoms stage")
    parser.add_argument("--output", type=Path, required=True, help="part of the frame store (HDF5)")
    stage.add_options(parser)
    args = parser.parse_args(argv)
    stage.start_logging(args.log)
    stage.limit_threads(1)
    options = stage.read_options(args.options, "featurize")["featurize"]

    chosen = files.read_json(args.atoms)
    if args.simulation not in chosen["simulations"]:
        names = ", ".join(chosen["simulations"])
        raise DataError(
            f"{args.atoms}: got simulation {args.simulation!r}, expected one of {names}; run select_atoms again"
        )
    topology = args.topology, load_topology(args.topology)
    labels = {"simulation": args.simulation, "part": args.part}
    read_part(args.trajectory, topology, chosen, options, args.output, labels)


if __name__ == "__main__":
    stage.run(main)
