"""List the stored frames of a study in one index, and check that they suffice for its split and its models."""

import json
import logging
import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from mdlatent import config, files, splits, stage
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


def demand_training_frames(n_train: int, options: dict[str, Any]) -> None:
    """Raise DataError if a model that is trained step by step has fewer training frames than one batch."""
    for model in options["models"]:
        if model["family"].startswith("pca"):
            continue  # fitted in one step
        batch = config.train_settings(options, model)["batch_size"]
        if n_train < batch:
            raise DataError(
                f"training has {n_train} frames, train.batch_size is {batch} (model family {model['family']}): "
                f"set it to at most {n_train}, or give longer trajectories, a lower featurize.stride or "
                "split.gap_frames, or fewer split.test_blocks"
            )


def build_index(simulations: list[dict[str, Any]], atoms: dict[str, Any], options: dict[str, Any], folder: Path) -> Any:
    """The index of a study (see `FrameStore`), after checks that its frames suffice for the options.

    Raises ConfigError or DataError: simulations of one frame or too few for the split, too few to train, parts with
    other atoms, missing times, no simulation to train on.
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
    roles = {entry["name"]: entry["role"] for entry in entries}
    if "train" not in roles.values():
        raise ConfigError("all simulations have the role `embed`; give at least one the role `train`")
    labels = splits.labels({entry["name"]: entry["n_frames"] for entry in entries}, options["split"], roles)
    counts = Counter(np.concatenate([*labels.values()]).tolist())
    log.info("frames: %s", ", ".join(f"{counts[name]} {name}" for name in splits.CLASSES if counts[name]))
    demand_training_frames(counts["train"], options)
    return {
        "n_atoms": atoms["n_atoms"],
        "n_frames": sum(entry["n_frames"] for entry in entries),
        "atoms": atoms["atoms"],
        "simulations": entries,
    }


def main(argv: list[str] | None = None) -> None:
    """Parse, read, write."""
    parser = stage.parser("index_frames", __doc__)
    parser.add_argument("--atoms", type=Path, required=True, help="atoms.json of the select_atoms stage")
    parser.add_argument(
        "--simulations",
        required=True,
        help='JSON: [{"name", "role", "time_step_ps", "temperature_k", "topology", '
        '"parts": [{"file", "trajectory"}, …]}, …]',
    )
    parser.add_argument("--output", type=Path, required=True, help="index.json")
    stage.add_options(parser)
    args = parser.parse_args(argv)
    stage.start_logging(args.log)
    options = stage.read_options(args.options, "split", "train", "models")
    index = build_index(json.loads(args.simulations), files.read_json(args.atoms), options, args.output.parent)
    files.write_json(args.output, index)
    log.info("%s: %d frames of %d simulations", args.output, index["n_frames"], len(index["simulations"]))


if __name__ == "__main__":
    stage.run(main)
