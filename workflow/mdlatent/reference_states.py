"""Known states of frames from dihedral angles, to compare those that were found with (`evaluate.reference_states`)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mdlatent import files
from mdlatent.errors import ConfigError
from mdlatent.feed import iterate_rows
from mdlatent.frames import FrameStore
from mdlatent.metrics import agreement

CHUNK = 1024


def of_frames(store: FrameStore, rows: np.ndarray, angles: Sequence[dict[str, Any]]) -> np.ndarray:
    """State of each of the frames `rows` (k,) ascending: (k,) int64, see `agreement.dihedral_states`.

    `angles` are those of the configuration. Read in chunks. Raises ConfigError if an atom of an angle is not mapped.
    """
    borders = [angle["borders_degrees"] for angle in angles]
    result = []
    for simulation in store.simulations:
        own = rows[(rows >= simulation.start) & (rows < simulation.stop)]
        if not len(own):
            continue
        quadruples = mapped_quadruples(store.path.parent / simulation.name / "atoms.json", simulation.name, angles)
        for frames in iterate_rows(store, own, CHUNK):
            result.append(agreement.dihedral_states(agreement.dihedrals_degrees(frames, quadruples), borders))
    return np.concatenate([np.empty(0, np.int64), *result])


def mapped_quadruples(path: Path, simulation: str, angles: Sequence[dict[str, Any]]) -> np.ndarray:
    """Places (k, 4) among the mapped atoms of the atoms of each angle, which are numbers in the topology."""
    place = {atom: k for k, atom in enumerate(files.read_json(path)["simulations"][simulation]["indices"])}
    for angle in angles:
        for atom in angle["atoms"]:
            if atom not in place:
                raise ConfigError(
                    f"evaluate.reference_states: atom {atom} of the dihedral {angle['atoms']} is not among the "
                    f"{len(place)} mapped atoms of simulation {simulation!r}; widen featurize.selection, or choose "
                    "another angle"
                )
    return np.array([[place[atom] for atom in angle["atoms"]] for angle in angles], np.int64)
