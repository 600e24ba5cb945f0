"""The data behind the figures, thinned and packed so that the page stays small. Arrays travel as base64.

Numbers that are only drawn are stored with 16 bits between their smallest and largest value: 65,536 steps, twenty
times as many as a screen has pixels.
"""

import base64
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from mdlatent import distances, stage
from mdlatent.errors import DataError
from mdlatent.frames import FrameStore
from mdlatent.report import study as studies
from mdlatent.report.study import Run, Study

MAX_AXES = 8  # latent coordinates that can be drawn; of more, those with the largest spread
MAX_MATRIX = 200  # atoms on the axis of a distance matrix
MAX_MATRIX_STATES = 12
CHUNK_BYTES = 32_000_000
SPLITS = ("train", "validation", "test", "gap", "embed")


def typed(values: np.ndarray, kind: str) -> dict[str, Any]:
    """An array as {"t": kind, "d": base64}; `kind` is one of u1 i2 u2 i4 f4 f8, little endian."""
    raw = np.ascontiguousarray(values).astype(np.dtype(kind).newbyteorder("<"))
    return {"t": kind, "d": base64.b64encode(raw.tobytes()).decode("ascii")}


def quantized(values: np.ndarray) -> dict[str, Any]:
    """An array of finite numbers with 16 bits each: value = lo + step × code; error below step / 2."""
    values = np.asarray(values, np.float64)
    low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 0.0)
    step = (high - low) / 65535 or 1.0
    return {"lo": low, "step": step, **typed(np.rint((values - low) / step), "u2")}


def thinned(n: int, most: int) -> np.ndarray:
    """At most `most` of the rows 0 … n − 1, evenly spaced: (k,) int64."""
    k = min(n, most)
    return np.arange(k, dtype=np.int64) * n // max(k, 1)


def frame_data(study: Study, rows: np.ndarray, referenced: Collection[str] = ()) -> dict[str, Any]:
    """What all runs share about the frames shown: simulation, frame number, time, part of the split.

    `referenced` names the simulations whose frames are compared with a reference structure.
    """
    run = study.runs[0]
    split = studies.latent_column(study, run, "split", rows)
    unknown = sorted(set(split) - set(SPLITS))
    if unknown:
        raise DataError(f"{run.latent}: got the split {unknown[0]!r}, expected one of {', '.join(SPLITS)}")
    edges = [simulation.stop for simulation in study.store.simulations]
    return {
        "n": len(rows),
        "total": study.store.n_frames,
        "simulations": [simulation.name for simulation in study.store.simulations],
        "simulation": typed(np.searchsorted(edges, rows, side="right"), "i4"),
        "frame": typed(studies.latent_column(study, run, "frame", rows), "i4"),
        "time_ps": typed(studies.latent_column(study, run, "time_ps", rows), "f8"),
        "split": typed(np.array([SPLITS.index(name) for name in split]), "u1"),
        "splits": list(SPLITS),
        "reference_angstrom": typed(reference_distances(study, rows, referenced), "f4") if referenced else None,
    }


def reference_distances(study: Study, rows: np.ndarray, referenced: Collection[str]) -> np.ndarray:
    """Distance to the reference structure in Å of the frames at `rows` (k,); NaN where a simulation has none."""
    result = np.full(len(rows), np.nan)
    for simulation in study.store.simulations:
        if simulation.name not in referenced:
            continue
        path = studies.demand(study.folder / "reference" / f"{simulation.name}.parquet", "compare_reference")
        values = studies.column(path, "reference_rmsd_angstrom")
        if len(values) != simulation.n_frames:
            raise DataError(
                f"{path}: got {len(values)} rows, the frame store has {simulation.n_frames} frames; "
                "run compare_reference again"
            )
        first, last = np.searchsorted(rows, [simulation.start, simulation.stop])
        result[first:last] = values[rows[first:last] - simulation.start]
    return result


def run_data(study: Study, run: Run, rows: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """Everything drawn for one run but its matrices and structures; `labels` (n_frames,) of all frames."""
    from mdlatent import latents

    first = study.store.simulations[0].name
    names = latents.coordinate_names(studies.demand(run.latent / f"{first}.parquet", "embed"))
    medoids = medoid_rows(study, run)
    both = np.union1d(rows, medoids)  # one pass over the tables for the map and the medoids
    latent = {name: studies.latent_column(study, run, name, both) for name in names}
    z = {name: values[np.searchsorted(both, rows)] for name, values in latent.items()}
    positions = {name: values[np.searchsorted(both, medoids)] for name, values in latent.items()}
    spread = sorted(names, key=lambda name: -float(z[name].std()) if len(rows) else 0.0)
    shown = sorted(spread[:MAX_AXES], key=names.index)
    return {
        "key": run.key,
        "model": run.model,
        "seed": run.seed,
        "family": run.settings.get("family", ""),
        "dim": len(names),
        "axes": shown,
        "spread": spread[: len(shown)],  # the first ones are drawn first
        "z": {name: quantized(z[name]) for name in shown},
        "error_nm": quantized(studies.latent_column(study, run, "reconstruction_rmse_nm", rows)),
        "state": typed(labels[rows], "i4"),
        "states": [
            state_data(run, state) | {"medoid": [float(f"{positions[name][state]:.6g}") for name in shown]}
            for state in range(run.n_states)
        ],
        "noise": next((rounded(row) for row in run.states if row["state"] == -1), None),
        "message": run.about.get("message"),
        "transitions": transition_counts(run),
        "kinetics": rounded_deep(run.kinetics),
        "sweep": [rounded(row) for row in run.sweep],
        "curves": curves(run),
        "weights": run.settings.get("weights", ""),
    }


def state_data(run: Run, state: int) -> dict[str, Any]:
    """A row of the table of states, and the frames that represent it."""
    row = next((row for row in run.states if row["state"] == state), None)
    if row is None:
        raise DataError(f"{run.clusters / 'summary.csv'}: state {state} of cluster.json is missing; run cluster again")
    return rounded(row) | {"representatives": run.about["states"][state]["representatives"]}


def medoid_rows(study: Study, run: Run) -> np.ndarray:
    """Rows of the store that hold the medoids of the states, (n_states,) int64. Raises DataError if one is missing."""
    rows = []
    for entry in run.about["states"]:
        pick = entry["representatives"][0]
        simulation = study.store.simulation(pick["simulation"])
        frames = study.store.frame_numbers(simulation)
        at = int(np.searchsorted(frames, pick["frame"]))
        if at == len(frames) or frames[at] != pick["frame"]:
            raise DataError(
                f"{run.clusters / 'cluster.json'}: frame {pick['frame']} of {simulation.name!r}, the medoid of state "
                f"{entry['state']}, is not in the frame store; run cluster again"
            )
        rows.append(simulation.start + at)
    return np.array(rows, np.int64)


def transition_counts(run: Run) -> list[list[int]]:
    """Steps from state (row) to state (column), summed over simulations; noise counted as the state last visited."""
    counts = np.zeros((run.n_states, run.n_states), np.int64)
    for row in run.transitions:
        if not 0 <= row["from"] < run.n_states or not 0 <= row["to"] < run.n_states:
            raise DataError(
                f"{run.clusters / 'transitions.csv'}: got a step from state {row['from']} to {row['to']}, cluster.json "
                f"has {run.n_states} states; run cluster again"
            )
        counts[int(row["from"]), int(row["to"])] += int(row["count"])
    return counts.tolist()


def curves(run: Run) -> dict[str, list[float | None]] | None:
    """Columns of the history by epoch; None for a model that was fitted in one step."""
    if len(run.history) < 2 and not any(row.get("kl_nats") is not None for row in run.history):
        return None
    names = ("epoch", "train_reconstruction", "validation_reconstruction", "kl_nats", "active_dimensions", "beta")
    return {name: [rounded_number(row.get(name)) for row in run.history] for name in names}


def rounded(row: dict[str, Any]) -> dict[str, Any]:
    """A row with its numbers at six digits."""
    return {key: rounded_number(value) for key, value in row.items()}


def rounded_number(value: Any) -> Any:
    """A float at six significant digits; anything else as it is."""
    return float(f"{value:.6g}") if isinstance(value, float) else value


def rounded_deep(value: Any) -> Any:
    """The same for nested lists and dictionaries."""
    if isinstance(value, dict):
        return {key: rounded_deep(inner) for key, inner in value.items()}
    return [rounded_deep(inner) for inner in value] if isinstance(value, list) else rounded_number(value)


def matrices(study: Study, labels: Sequence[np.ndarray]) -> dict[str, Any]:
    """Mean distance matrices of all frames and of each state of each run, for drawing, with their atoms."""
    store = study.store
    atoms = thinned(store.n_atoms, MAX_MATRIX)
    n_states = [min(run.n_states, MAX_MATRIX_STATES) for run in study.runs]
    whole, by_run = mean_distances(store, atoms, labels, n_states)
    return {
        "atoms": [store.atoms[k] for k in atoms],
        "n_atoms": store.n_atoms,
        "whole": quantized(whole),
        "runs": [[quantized(mean) for mean in means] for means in by_run],
    }


def mean_distances(
    store: FrameStore, atoms: np.ndarray, labels: Sequence[np.ndarray], n_states: Sequence[int]
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Mean pair distances in nm over all frames, (n_pairs,), and over the frames of each state, (n_states, n_pairs).

    One pass over the store in chunks, whatever the number of runs; `labels` has (n_frames,) for each run. Only the
    pairs among `atoms` (k,) are computed. Sums are in float64.
    """
    n_pairs = distances.n_pairs(len(atoms))
    whole = np.zeros(n_pairs)
    sums = [np.zeros((n, n_pairs)) for n in n_states]
    chunk = int(max(16, min(1024, CHUNK_BYTES // (4 * n_pairs), CHUNK_BYTES // (12 * store.n_atoms))))
    pieces = stage.progress(store.iterate(chunk=chunk), -(-store.n_frames // chunk), "averaging distances")
    for row, coordinates in pieces:
        packed = distances.packed(coordinates[:, atoms]).astype(np.float64)
        whole += packed.sum(0)
        for total, label in zip(sums, labels, strict=True):
            here = label[row : row + len(packed)]
            total += (here[None, :] == np.arange(len(total))[:, None]).astype(np.float64) @ packed
    means = []
    for total, label in zip(sums, labels, strict=True):
        n_frames = np.array([np.count_nonzero(label == state) for state in range(len(total))])
        means.append(total / np.maximum(n_frames, 1)[:, None])
    return whole / store.n_frames, means
