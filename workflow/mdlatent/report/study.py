"""What the stages of a study wrote, read for the report. Every file that is missing is named with what makes it."""

import contextlib
import csv
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mdlatent import files
from mdlatent.errors import DataError
from mdlatent.frames import FrameStore

Row = dict[str, Any]


@dataclass(frozen=True)
class Run:
    """One model with one seed: its files, and the small ones of them already read."""

    model: str
    seed: int
    settings: Row  # models/…/config.yaml
    history: list[Row]  # one per epoch
    about: Row  # cluster.json
    states: list[Row]  # clusters/…/summary.csv, noise as state −1 at the end
    transitions: list[Row]
    sweep: list[Row]  # parameters of HDBSCAN that were tried
    kinetics: Row  # timescales and test of the Markov model
    latent: Path  # folder with one table per simulation
    clusters: Path

    @property
    def key(self) -> str:
        """Unique among the runs of a study."""
        return f"{self.model}/seed{self.seed}"

    @property
    def n_states(self) -> int:
        """Number of states, noise not counted."""
        return int(self.about["n_states"])

    def structures(self, state: int) -> Path:
        """The PDB file of a state."""
        return self.clusters / self.about["states"][state]["structures"]


@dataclass(frozen=True)
class Study:
    """A study's folder, its frames, and its runs."""

    folder: Path
    store: FrameStore
    index: Row
    runs: list[Run]
    records: list[Row]  # of all runs, as evaluate wrote them
    sources: list[Row]  # one per fetched or simulated file, with `simulation`
    benchmarks: list[Row]  # one per job, with `rule` and `job`
    slurm: list[Row]  # one per Slurm job of earlier runs; empty where there were none
    conformers: Row | None  # what the benchmark of generators found, if the study has one


@contextlib.contextmanager
def read(folder: Path, wanted: Sequence[tuple[str, int]], with_conformers: bool = False) -> Iterator[Study]:
    """Yield the study in `folder` with the runs `wanted`, (model, seed) each.

    `with_conformers`: the benchmark of generators too. Raises DataError if a file is missing.
    """
    index = folder / "frames" / "index.json"
    with FrameStore(index) as store:
        runs = [read_run(folder, model, seed) for model, seed in wanted]
        records = [
            record
            for model, seed in wanted
            for record in files.read_json(demand(folder / "evaluation" / model / f"seed{seed}.json", "evaluate"))
        ]
        for model in dict.fromkeys(model for model, _ in wanted):
            if sum(name == model for name, _ in wanted) > 1:
                records += files.read_json(demand(folder / "evaluation" / model / "seeds.json", "compare_seeds"))
        slurm = read_slurm(folder / "slurm_efficiency.csv")
        measured = (read_sources(folder, with_conformers), read_benchmarks(folder), slurm)
        conformers = read_conformers(folder) if with_conformers else None
        yield Study(folder, store, files.read_json(index), runs, records, *measured, conformers)


def read_conformers(folder: Path) -> Row:
    """What the benchmark of generators of conformers found."""
    found: Row = files.read_json(demand(folder / "conformers" / "conformers.json", "conformers.collect"))
    return found


def read_run(folder: Path, model: str, seed: int) -> Run:
    """The small files of one run."""
    import yaml

    models = folder / "models" / model / f"seed{seed}"
    clusters = folder / "clusters" / model / f"seed{seed}"
    run = Run(
        model,
        seed,
        yaml.safe_load(demand(models / "config.yaml", "train").read_text(encoding="utf-8")),
        read_table(demand(models / "history.csv", "train")),
        files.read_json(demand(clusters / "cluster.json", "cluster")),
        read_table(demand(clusters / "summary.csv", "cluster"), text=("medoid_simulation",)),
        read_table(demand(clusters / "transitions.csv", "cluster"), text=("simulation",)),
        read_table(demand(clusters / "sweep.csv", "cluster"), text=("chosen",)),
        files.read_json(demand(folder / "evaluation" / model / f"seed{seed}.kinetics.json", "evaluate")),
        folder / "latent" / model / f"seed{seed}",
        clusters,
    )
    for state in range(run.n_states):
        demand(run.structures(state), "cluster")
    return run


def demand(path: Path, stage: str) -> Path:
    """`path`, if there is such a file; else DataError naming the stage that makes it."""
    if not path.is_file():
        raise DataError(f"{path}: the report needs this file, but it is missing; run the stage `{stage}` first")
    return path


def read_table(path: Path, text: Sequence[str] = (), separator: str = ",") -> list[Row]:
    """Rows of a CSV file; cells are numbers (float, int where whole), None where empty, except in columns of `text`."""
    with open(path, encoding="utf-8", newline="") as handle:
        try:
            return [
                {key: cell or None if key in text else number(cell) for key, cell in row.items()}
                for row in csv.DictReader(handle, delimiter=separator)
            ]
        except (ValueError, TypeError, AttributeError) as error:
            raise DataError(f"{path}: is not the table it should be ({error}); run the stage that makes it") from error


def number(cell: str) -> float | int | None:
    """The number in a cell of a table; None for an empty one, `-` and what is not finite."""
    if cell.strip().lower() in ("", "-", "na", "nan"):
        return None
    value = float(cell)
    if not math.isfinite(value):
        return None
    return int(value) if value.is_integer() and abs(value) < 2**53 and "." not in cell else value


def read_sources(folder: Path, with_conformers: bool = False) -> list[Row]:
    """Where each trajectory and topology file came from, sorted by simulation, topology first; then the molecules."""
    found = []
    for path in sorted(folder.glob("trajectories/*/*.source.json")):
        # Files of a simulation run here have its settings under the same key.
        found.append(files.read_json(path) | {"simulation": path.parent.name})
    found.sort(key=lambda e: (e["simulation"], not str(e.get("file", "")).startswith("topology")))
    molecules = sorted(folder.glob("conformers/*.source.json")) if with_conformers else []
    return found + [files.read_json(path) | {"simulation": "conformers"} for path in molecules]


def read_benchmarks(folder: Path) -> list[Row]:
    """What Snakemake measured of each job; an empty list if the stages were run without it."""
    root = folder / "benchmarks"
    found = []
    for path in sorted(root.rglob("*.tsv")):
        name = path.relative_to(root)
        rule = name.parts[0].removesuffix(".tsv")
        job = "" if len(name.parts) == 1 else name.name.removesuffix(".tsv")
        for row in read_table(path, text=("h:m:s",), separator="\t"):
            found.append({"rule": rule, "job": job, **row})
    return found


def read_slurm(path: Path) -> list[Row]:
    """What each Slurm job asked for and used (see mdlatent.slurm)."""
    return read_table(path, text=("run", "rule", "wildcards", "state", "nodes")) if path.is_file() else []


def column(path: Path, name: str) -> np.ndarray:
    """One column of a parquet table as an array (of str for text)."""
    from mdlatent import latents

    return np.asarray(latents.columns(path, [name])[name].to_numpy())


def latent_column(study: Study, run: Run, name: str, rows: np.ndarray) -> np.ndarray:
    """A column of the latent tables of a run at `rows` (k,) of the store, ascending.

    Raises DataError if a table has another length than the simulation.
    """
    pieces = []
    for simulation in study.store.simulations:
        path = demand(run.latent / f"{simulation.name}.parquet", "embed")
        values = column(path, name)
        if len(values) != simulation.n_frames:
            raise DataError(
                f"{path}: got {len(values)} rows, the frame store has {simulation.n_frames} frames; run embed again"
            )
        first, last = np.searchsorted(rows, [simulation.start, simulation.stop])
        pieces.append(values[rows[first:last] - simulation.start])
    return np.concatenate(pieces)


def labels(study: Study, run: Run) -> np.ndarray:
    """State of every frame of the store, (n_frames,) int32, −1 is noise. Raises DataError if there are too few."""
    path = demand(run.clusters / "labels.parquet", "cluster")
    found = column(path, "label").astype(np.int32)
    if len(found) != study.store.n_frames:
        raise DataError(f"{path}: got {len(found)} rows, the frame store has {study.store.n_frames}; run cluster again")
    return found
