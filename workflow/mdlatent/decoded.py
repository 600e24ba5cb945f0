"""Structures that the model decodes from its latent: one for each state, and paths from state to state.

Writes into the output folder cluster_<i>.pdb, the structure decoded at the latent of the medoid of state i, and
path_<i>_<j>.pdb, structures decoded along a way through the latent from medoid i to medoid j, for all pairs of the
most populated states (up to five). They hold the selected atoms only and are decoded, not simulated: each file says
so, and how far each structure is from the nearest frame. Superposed on a structure of the training frames, which
also gives the hand to models that decode to distances (structures.py).
"""

import logging
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mdlatent import files, stage
from mdlatent.errors import DataError

if TYPE_CHECKING:
    from mdlatent.frames import FrameStore
    from mdlatent.latent_paths import Points
    from mdlatent.latents import Latents
    from mdlatent.models.base import LatentModel

log = logging.getLogger("mdlatent")

N_MODELS = 20  # of a path
MOST_STATES = 5  # between which paths are written


def main(argv: list[str] | None = None) -> None:
    """Parse, read, decode, write."""
    parser = stage.parser("decoded", __doc__)
    parser.add_argument("--frames", type=Path, required=True, help="index.json of the frame store")
    parser.add_argument("--model", type=Path, required=True, help="model.pt of the trained model")
    parser.add_argument("--latent", type=Path, required=True, help="folder with its latent tables")
    parser.add_argument("--clusters", type=Path, required=True, help="cluster.json of its states")
    parser.add_argument("--output-dir", type=Path, required=True, help="folder to write, replaced if it is there")
    args = parser.parse_args(argv)
    stage.start_logging(args.log)
    stage.limit_threads(1)

    from mdlatent import latents, models, splits, structures
    from mdlatent.embed import check_atoms
    from mdlatent.frames import FrameStore
    from mdlatent.latent_paths import Points
    from mdlatent.representatives import fresh_folder

    model, metadata = models.load(args.model)
    states = files.read_json(args.clusters)["states"]
    with FrameStore(args.frames) as store, fresh_folder(args.output_dir) as folder:
        check_atoms(store, metadata, args.model)
        if not states:
            log.warning("no states, so nothing to decode: %s stays empty", args.output_dir)
            return
        latent = latents.read(args.latent, {s.name: s.n_frames for s in store.simulations})
        labels = np.concatenate([*splits.labels(store, metadata["split"]).values()])
        reference = structures.training_reference(store, np.flatnonzero(labels == "train"))
        medoids = [medoid_row(latent, state["representatives"][0]) for state in states]
        first = states[0]["representatives"][0]["simulation"]
        topology = selected_topology(store, args.frames.parent / first / "atoms.json", first)
        title = f"OF {args.latent.parent.name} {args.latent.name}, NOT SIMULATED"
        points = Points(latent, medoids)
        for i, row in enumerate(medoids):
            remarks = [f"STATE {i} DECODED FROM THE LATENT {title}"]
            write(
                folder / f"cluster_{i}.pdb", model, latent.z[[row]], reference, topology, remarks, points, [row], store
            )
        pairs = list(combinations(range(min(len(medoids), MOST_STATES)), 2))
        if len(medoids) > MOST_STATES:
            log.info("%d states: paths are written between the %d most populated", len(medoids), MOST_STATES)
        for i, j in stage.progress(pairs, len(pairs), "decoding paths"):
            z = points.path(medoids[i], medoids[j], N_MODELS)
            remarks = [f"PATH FROM STATE {i} TO STATE {j} DECODED FROM THE LATENT {title}"]
            ends = [medoids[i], *[None] * (N_MODELS - 2), medoids[j]]
            write(folder / f"path_{i}_{j}.pdb", model, z, reference, topology, remarks, points, ends, store)
    log.info("%s: %d states, %d paths", args.output_dir, len(states), len(pairs))


def medoid_row(latent: "Latents", pick: dict[str, Any]) -> int:
    """Row of a representative in the latent. Raises DataError if it is not there."""
    if pick["simulation"] in latent.simulations:
        k = latent.simulations.index(pick["simulation"])
        own = np.flatnonzero(latent.frame[latent.edges[k] : latent.edges[k + 1]] == pick["frame"])
        if len(own):
            return int(latent.edges[k] + own[0])
    raise DataError(
        f"the latent has no frame {pick['frame']} of simulation {pick['simulation']!r}, the medoid of a state; "
        "run cluster again"
    )


def selected_topology(store: "FrameStore", atoms: Path, simulation: str) -> Any:
    """Topology (mdtraj) of the mapped atoms, with their names, residues and chains, in the order of the store."""
    from mdlatent.trajectory import load_topology

    chosen = files.read_json(atoms)["simulations"][simulation]
    topology = load_topology(store.simulation(simulation).topology).subset(chosen["indices"])
    if [str(atom) for atom in topology.atoms] != chosen["atoms"]:
        raise DataError(f"{atoms}: names other atoms than the topology of {simulation!r} has; run select_atoms again")
    return topology


def write(
    path: Path,
    model: "LatentModel",
    z: np.ndarray,
    reference: np.ndarray,
    topology: Any,
    remarks: Sequence[str],
    points: "Points",
    rows: Sequence[int | None],
    store: "FrameStore",
) -> None:
    """Decode the points z (k, d) and write them as the models of one PDB file.

    `rows` are the frames that the points are the latent of, or None; remarks say how far each structure is from it
    (CA or whichever atoms were selected, after superposition), and each point from the nearest of the latent.
    Raises DataError if a structure does not fit into the columns of the format.
    """
    import torch
    from mdtraj.formats import PDBTrajectoryFile

    from mdlatent import structures

    coordinates = structures.reconstruct(model, torch.from_numpy(z), reference)
    lines = list(remarks)
    for number, (row, away) in enumerate(zip(rows, points.distance(z), strict=True), start=1):
        line = f"MODEL {number} latent distance to the nearest frame {away:.4g}"
        if row is not None:
            error = float(structures.kabsch_rmsd_nm(coordinates[number - 1][None], store.read(row, row + 1))[0])
            line += f", rmsd to its frame {10 * error:.2f} A"
        lines.append(line)
    with files.write_beside(path) as temporary:
        try:
            with PDBTrajectoryFile(str(temporary), "w") as pdb:
                for number, structure in enumerate(coordinates.numpy(), start=1):
                    pdb.write(structure * 10, topology, modelIndex=number)
        except ValueError as error:
            raise DataError(f"{path.name}: a decoded structure does not fit into a PDB file ({error})") from error
        head = "".join(f"REMARK 250 {line}\n" for line in lines)
        temporary.write_text(head + temporary.read_text(encoding="utf-8"), encoding="utf-8")


if __name__ == "__main__":
    stage.run(main)
