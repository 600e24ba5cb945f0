"""List the stored frames of some simulations in an index, and check that they suffice for the split of a study."""

import json
import logging
import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from mdlatent import files, splits, stage
from mdlatent.errors import ConfigError, DataError
from mdlatent.frames import open_part

log = logging.getLogger("mdlatent")


def read_parts(simulation: dict[str, Any], n_atoms: int, folder: Path) -> list[dict[str, Any]]:
    """The index's entries of a simulation's parts, in order of time; paths are relative to `folder`.

    Raises DataError if a part holds other atoms, or if the simulation has no usable times.
    """
    parts: list[dict[str, Any]] = []
    first_frame = 0
    for part in simulation["parts"]:
        with open_part(part["file"]) as file:
            n_frames, found = file["coordinates"].shape[:2]
            n_source = int(file.attrs["n_frames_source"])
            times = file["time_ps"][:]
        if found != n_atoms:
            raise DataError(
                f"{part['file']} holds {found} atoms, atoms.json has {n_atoms}; "
                "delete it and run the featurize stage again"
            )
        if simulation.get("time_step_ps") is None:
            demand_times(times, simulation["name"], part)
        parts.append(
            {
                "file": os.path.relpath(part["file"], folder),
                "trajectory": os.path.relpath(part["trajectory"], folder),
                "n_frames": n_frames,
                "n_frames_source": n_source,
                "first_frame": first_frame,
            }
        )
        first_frame += n_source
    return parts


def demand_times(times_ps: np.ndarray, simulation: str, part: dict[str, Any]) -> None:
    """Raise DataError unless the times (k,) of a part are finite and rise."""
    advice = f"set time_step_ps (time between frames as stored, in ps) of simulation {simulation!r}"
    if not np.isfinite(times_ps).all():
        raise DataError(f"{part['trajectory']} carries no time; {advice}")
    falls = np.flatnonzero(np.diff(times_ps) <= 0)
    if len(falls):
        k = int(falls[0])
        raise DataError(
            f"{part['trajectory']}: time does not rise from stored frame {k} ({times_ps[k]} ps) to {k + 1} "
            f"({times_ps[k + 1]} ps); {advice}, or remove repeated frames"
        )


def merged_atoms(paths: list[Path]) -> dict[str, Any]:
    """The content of several atoms.json as one. Raises DataError if they chose different numbers of atoms."""
    contents = [files.read_json(path) for path in paths]
    merged = {**contents[0], "simulations": {}}
    for content in contents:
        if content["n_atoms"] != merged["n_atoms"]:
            one, other = next(iter(merged["simulations"])), next(iter(content["simulations"]))
            raise DataError(
                f"the selection matches {merged['n_atoms']} atoms in simulation {one!r}, but {content['n_atoms']} in "
                f"{other!r}; one model needs the same atoms in all: narrow featurize.selection "
                "(`name CA and resid 0 to 99`) or study them separately"
            )
        merged["simulations"] |= content["simulations"]
    return merged


def check_split(entries: list[dict[str, Any]], split: dict[str, Any]) -> None:
    """Log how many frames each part of the split has. Raises ConfigError or DataError where it is impossible."""
    roles = {entry["name"]: entry["role"] for entry in entries}
    if "train" not in roles.values():
        raise ConfigError("all simulations have the role `embed`; give at least one the role `train`")
    labels = splits.labels({entry["name"]: entry["n_frames"] for entry in entries}, split, roles)
    counts = Counter(np.concatenate([*labels.values()]).tolist())
    log.info("frames: %s", ", ".join(f"{counts[name]} {name}" for name in splits.CLASSES if counts[name]))


def build_index(
    simulations: list[dict[str, Any]], atoms: dict[str, Any], split: dict[str, Any] | None, folder: Path
) -> dict[str, Any]:
    """The index of these simulations (see `FrameStore`), after checks that their frames suffice for the split, if any.

    Raises ConfigError or DataError: simulations of one frame or too few for the split, parts with other atoms, missing
    times, no simulation to train on.
    """
    entries = []
    for simulation in simulations:
        parts = read_parts(simulation, atoms["n_atoms"], folder)
        n_frames = sum(part["n_frames"] for part in parts)
        if n_frames < 2:
            raise DataError(
                f"simulation {simulation['name']!r} has {n_frames} stored frame{'s' * (n_frames != 1)}, "
                "expected at least 2; give a longer trajectory or lower featurize.stride"
            )
        entries.append(
            {
                "name": simulation["name"],
                "role": simulation.get("role") or "train",
                "n_frames": n_frames,
                "n_frames_source": sum(part["n_frames_source"] for part in parts),
                "n_atoms_total": atoms["simulations"][simulation["name"]]["n_atoms_total"],
                "time_step_ps": simulation.get("time_step_ps"),
                "temperature_k": simulation.get("temperature_k"),
                "topology": os.path.relpath(simulation["topology"], folder),
                "parts": parts,
            }
        )
    if split is not None:
        check_split(entries, split)
    return {
        "n_atoms": atoms["n_atoms"],
        "n_frames": sum(entry["n_frames"] for entry in entries),
        "atoms": atoms["atoms"],
        "simulations": entries,
    }


def main(argv: list[str] | None = None) -> None:
    """Parse, read, write."""
    parser = stage.parser("index_frames", __doc__)
    parser.add_argument(
        "--atoms",
        type=Path,
        nargs="+",
        help="atoms.json of the select_atoms stage, one or several; default, `atoms` of the simulations",
    )
    parser.add_argument(
        "--simulations",
        required=True,
        help='JSON (`-`: on standard input): [{"name", "role", "time_step_ps", "temperature_k", "topology", "atoms", '
        '"parts": [{"file", "trajectory"}, …]}, …]',
    )
    parser.add_argument("--output", type=Path, required=True, help="index.json")
    stage.add_options(parser)
    args = parser.parse_args(argv)
    stage.start_logging(args.log)
    split = stage.read_options(args.options).get("split")
    simulations = json.loads(stage.given(args.simulations))
    atoms = merged_atoms(args.atoms or [Path(simulation["atoms"]) for simulation in simulations])
    index = build_index(simulations, atoms, split, args.output.parent)
    files.write_json(args.output, index)
    log.info("%s: %d frames of %d simulations", args.output, index["n_frames"], len(index["simulations"]))


if __name__ == "__main__":
    stage.run(main)
