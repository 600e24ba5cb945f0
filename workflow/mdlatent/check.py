"""What can be known to be wrong before the first job: checked when the workflow starts, or by `mdlatent check`.

Configuration and table are already validated when this runs; here files are opened. Downloads cannot be looked at
before they are fetched: their own jobs verify them.
"""

import argparse
import logging
import os
import shutil
import time
from pathlib import Path
from typing import Any

from mdlatent import config as configuration
from mdlatent import sources, stage
from mdlatent.errors import ConfigError, DataError, MdlatentError

log = logging.getLogger("mdlatent")

BUDGET_S = 1.0  # with a table of thousands the rest is left to the jobs that read the files
LEAST_FREE_BYTES = 50e6
SDF_START_BYTES = 1_000_000


def before_first_job(config: dict[str, Any]) -> None:
    """Check the results folder and the local input files of a resolved configuration.

    Opening files stops after 1 s; those not looked at are verified by their own jobs.
    Raises ConfigError or DataError with every mistake found.
    """
    check_results_folder(Path(config["results"]) / config["study"])
    check_simulated(config)
    check_local_files(config)
    check_conformers(config)


def check_results_folder(folder: Path) -> None:
    """Raise ConfigError if the folder cannot be written or its disk is as good as full."""
    existing = folder.absolute()
    while not existing.exists():
        existing = existing.parent
    if not existing.is_dir():
        raise ConfigError(
            f"results: {str(existing)!r} is a file, expected a folder; move it away or set another folder"
        )
    if not os.access(existing, os.W_OK | os.X_OK):
        raise ConfigError(f"results: the folder {str(existing)!r} cannot be written; set `results` to one that can")
    free = shutil.disk_usage(existing).free
    if free < LEAST_FREE_BYTES:
        raise ConfigError(
            f"results: {free / 1e6:.0f} MB are free at {str(existing)!r}, a study needs at least "
            f"{LEAST_FREE_BYTES / 1e6:.0f} MB; free some space or set `results` to a folder on another disk"
        )


def check_simulated(config: dict[str, Any]) -> None:
    """Raise ConfigError if a peptide that is to be simulated cannot be built, or not with these settings."""
    sequences = [row["simulate"] for row in config["simulations"] if "simulate" in row]
    if sequences:
        from mdlatent import dynamics, peptide

        for sequence in dict.fromkeys(sequences):
            dynamics.check(peptide.parse(sequence), config["simulate"])


def check_local_files(config: dict[str, Any]) -> None:
    """Open local topologies and trajectories: same atoms, a selection that finds atoms, the same number everywhere.

    Raises DataError with every mistake found.
    """
    rows = [(row, sources.plain_path(row["topology"])) for row in config["simulations"] if "topology" in row]
    if not any(topology for _, topology in rows):
        return
    import mdtraj  # noqa: F401  (half a second that is no part of the budget)

    from mdlatent import select_atoms, trajectory_check
    from mdlatent.trajectory import load_topology

    deadline = time.monotonic() + BUDGET_S
    selection = config["featurize"]["selection"]
    mistakes: list[str] = []
    selected: dict[str, Any] = {}
    known: dict[Path, Any] = {}
    for row, topology in rows:
        if time.monotonic() > deadline:
            break
        if topology is None:
            continue
        try:
            if topology not in known:
                atoms = load_topology(topology)
                known[topology] = atoms, select_atoms.select(atoms, selection, row["name"], topology)
            atoms, selected[row["name"]] = known[topology]
            for uri in row["trajectory"]:
                if (trajectory := sources.plain_path(uri)) and time.monotonic() < deadline:
                    trajectory_check.check_pair(topology, trajectory, atoms=atoms)
        except MdlatentError as error:
            mistakes.append(f"simulation {row['name']!r}: {error}")
    if selected and not mistakes:
        select_atoms.demand_same(selected)
    if mistakes:
        raise DataError("\n".join(dict.fromkeys(mistakes)))


def check_conformers(config: dict[str, Any]) -> None:
    """Raise DataError if a local file of reference conformers has no end of a record in its first megabyte."""
    path = sources.plain_path(config["conformers"]["references"]) if config["conformers"] else None
    if path is None:
        return
    with open(path, "rb") as handle:
        if b"M  END" not in handle.read(SDF_START_BYTES):
            raise DataError(
                f"conformers.references: {path} is no SDF file (no line `M  END` in its first megabyte); give one with "
                "hydrogens and 3-D coordinates"
            )


def main(argv: list[str] | None = None) -> None:
    """Check a study's configuration and input files."""
    parser: argparse.ArgumentParser = stage.parser("check", __doc__)
    parser.add_argument("config", type=Path, nargs="?", default=Path("config.yaml"), help="default: config.yaml")
    parser.add_argument("--print", choices=["study-dir"], help="print this one value instead of checking")
    args = parser.parse_args(argv)
    stage.start_logging(args.log)
    config = configuration.load(args.config)
    if args.print == "study-dir":
        print(Path(config["results"]) / config["study"])
        return
    before_first_job(config)
    models = ", ".join(model["name"] for model in config["models"])
    log.info(
        "%s: study %s, %d simulations, models %s", args.config, config["study"], len(config["simulations"]), models
    )


if __name__ == "__main__":
    stage.run(main)
