"""Find states in a latent space with HDBSCAN and say how populated, how long-lived and how connected they are.

Writes into the output folder: labels.parquet (one row per frame), summary.csv (one row per state, noise as −1),
transitions.csv (per simulation), sweep.csv (parameters that were tried, see mdlatent.stability),
representatives/cluster_<state>.pdb (medoid and nearest frames, all atoms of the original trajectory) and cluster.json
(settings, number of states, a message where none was found).
"""

import logging
import math
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mdlatent import files, stage

if TYPE_CHECKING:
    import pandas as pd

    from mdlatent.latents import Latents
    from mdlatent.representatives import Pick, Structures
    from mdlatent.stability import Choice
    from mdlatent.states import Clustering

log = logging.getLogger("mdlatent")

DEFINITIONS = {
    "state": "0 is the most populated state, before outskirts are assigned; -1 are frames between states (noise)",
    "noise_fraction_by_density": "noise as HDBSCAN has it: all that is less dense than the pass between two states",
    "outskirts": "`assign`: noise whose 10 nearest frames in states are all of one state, and not four times as far as "
    "for 95 % of its frames, belongs to it, with probability 0; `noise`: it stays noise",
    "population": "fraction of all frames",
    "population_se": "standard error from the spread between about 10 blocks of time; too small for states that live "
    "longer than a block; empty if there are fewer than two blocks",
    "mean_probability": "mean membership probability of HDBSCAN; 1 in the core of a state",
    "n_visits": "entries into the state, noise counted as the state last visited",
    "mean_lifetime_ps": "time in the state divided by exits from it, noise counted as the state last visited; empty "
    "if it is never left or the time is unknown",
    "count": "steps between stored frames that follow each other, noise counted as the state last visited (core sets); "
    "from = to are steps within a state",
    "count_direct": "steps between stored frames that follow each other and are both in a state, none of them noise",
    "medoid": "member with the smallest sum of latent distances to the members, weighted by probability",
    "ari_subsamples": "mean adjusted Rand index with the states of random 80 % of the frames, on these frames, noise "
    "counted as a label; at most 5,000 frames, evenly spaced",
    "persistence": "stability of the cluster between 0 and 1 (HDBSCAN); one structureless basin gives up to about 0.15",
}


def main(argv: list[str] | None = None) -> None:
    """Parse, read, write."""
    parser = stage.parser("cluster", __doc__)
    parser.add_argument("--frames", type=Path, required=True, help="index.json of the frame store")
    parser.add_argument("--latent", type=Path, required=True, help="folder with the latent tables of one model")
    parser.add_argument("--output-dir", type=Path, required=True, help="folder to write into")
    stage.add_options(parser)
    args = parser.parse_args(argv)
    stage.start_logging(args.log)
    stage.limit_threads(1)
    options = stage.read_options(args.options, "cluster")["cluster"]

    import time

    import pandas as pd

    from mdlatent import latents, representatives, stability, states
    from mdlatent.frames import FrameStore

    with FrameStore(args.frames) as store:
        latent = latents.read(args.latent, {s.name: s.n_frames for s in store.simulations})
        log.info("clustering %d frames of %d simulations in %d dimensions", len(latent),
                 len(latent.simulations), latent.z.shape[1])  # fmt: skip
        start = time.monotonic()
        choice = stability.choose(latent.z, options)
        log.info(
            "min_cluster_size %d, min_samples %d: agreement of subsamples %.3f (%.1f s)",
            *(choice.options[name] for name in ("min_cluster_size", "min_samples")),
            choice.ari_subsamples, time.monotonic() - start,
        )  # fmt: skip
        start = time.monotonic()
        found = states.find_states(latent.z, choice.options)
        log.info(
            "%d states, %.1f %% noise, %.1f %% by density alone (%s, %.1f s)",
            found.n_states, 100 * found.noise_fraction, 100 * found.noise_by_density,
            f"{found.plan.n_fitted} frames by {found.plan.engine}" if found.plan else "nothing to fit",
            time.monotonic() - start,
        )  # fmt: skip
        for words in filter(None, (found.message, found.caution)):
            log.warning("%s", words)
        selected = {
            name: files.read_json(args.frames.parent / name / "atoms.json")["simulations"][name]["indices"]
            for name in (latent.simulations if found.n_states else ())
        }
        structures = representatives.Structures(store, selected)
        picks = pick_frames(latent, found, structures, options["n_representatives"])
        titles = [f"STATE {state} OF {args.latent.parent.name} {args.latent.name}" for state in range(found.n_states)]
        representatives.write_all(args.output_dir / "representatives", structures, picks, titles)

    summary, transitions = tables(latent, found, picks)
    write_labels(args.output_dir / "labels.parquet", latent, found)
    sweep = pd.DataFrame(choice.table, columns=stability.COLUMNS)
    for name, table in (("summary.csv", summary), ("transitions.csv", transitions), ("sweep.csv", sweep)):
        with files.write_beside(args.output_dir / name) as temporary:
            table.to_csv(temporary, index=False)
    files.write_json(args.output_dir / "cluster.json", description(latent, found, picks, options, choice))


def pick_frames(latent: "Latents", found: "Clustering", structures: "Structures", n: int) -> "list[list[Pick]]":
    """For every state its medoid and the nearest frames in the latent, `n` in all.

    They come from whichever simulation they lie in, as long as it has the same atoms as that of the medoid.
    """
    import numpy as np

    from mdlatent.representatives import Pick, medoid, nearest

    result = []
    for state in range(found.n_states):
        rows = np.flatnonzero(found.labels == state)
        points, simulation = latent.z[rows], latent.simulation_of(rows)
        centre = medoid(points, found.probabilities[rows])
        home = latent.simulations[simulation[centre]]
        alike = [k for k in np.unique(simulation) if structures.same_atoms(home, latent.simulations[k])]
        allowed = np.isin(simulation, alike)
        if not allowed.all():
            log.info("state %d: structures are taken only from simulations with the same atoms as %s", state, home)
        chosen, distances = nearest(points, centre, allowed, n)
        result.append(
            [
                Pick(latent.simulations[simulation[k]], int(latent.frame[row]), float(latent.time_ps[row]), float(d))
                for k, row, d in zip(chosen, rows[chosen], distances, strict=True)
            ]
        )
    return result


def tables(
    latent: "Latents", found: "Clustering", picks: "Sequence[Sequence[Pick]]"
) -> "tuple[pd.DataFrame, pd.DataFrame]":
    """The tables summary.csv and transitions.csv; the columns are explained in DEFINITIONS."""
    import numpy as np
    import pandas as pd

    from mdlatent import states

    n = found.n_states
    stays, rows = states.Stays.none(n), []
    for k, name in enumerate(latent.simulations):
        piece = slice(latent.edges[k], latent.edges[k + 1])
        labels, times = found.labels[piece], latent.time_ps[piece]
        starts = states.segment_starts(latent.frame[piece], times)
        if len(starts) > 1:
            log.info("%s: %d gaps in time; nothing is counted across them", name, len(starts) - 1)
        visited = states.last_visited(labels, starts)
        stays.add(visited, starts, times)
        counts, direct = states.count_steps(visited, starts, n), states.count_steps(labels, starts, n)
        for i, j in np.argwhere((counts > 0) | (direct > 0)):
            rows.append((name, i, j, counts[i, j], direct[i, j]))
    transitions = pd.DataFrame(rows, columns=["simulation", "from", "to", "count", "count_direct"])

    column = np.where(found.labels < 0, n, found.labels)
    n_frames = np.bincount(column, minlength=n + 1)
    probability = np.bincount(column, found.probabilities, minlength=n + 1) / np.maximum(n_frames, 1)
    summary = pd.DataFrame(
        {
            "state": [*range(n), -1],
            "n_frames": n_frames,
            "population": n_frames / max(len(latent), 1),
            "population_se": states.population_error(found.labels, states.time_blocks(latent.lengths), n),
            "mean_probability": probability,
            "medoid_simulation": [chosen[0].simulation for chosen in picks] + [None],
            "medoid_frame": pd.array([chosen[0].frame for chosen in picks] + [None], dtype="Int64"),
            "medoid_time_ps": [chosen[0].time_ps for chosen in picks] + [math.nan],
            "n_visits": pd.array([*stays.visits.tolist(), None], dtype="Int64"),
            "mean_lifetime_ps": [*stays.mean_lifetime_ps(), math.nan],
            "persistence": [*found.persistence, math.nan],
        }
    )
    return summary, transitions


def write_labels(path: Path, latent: "Latents", found: "Clustering") -> None:
    """Write labels.parquet: simulation, frame, label, probability, one row per frame; the name column is compact."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema(
        [("simulation", pa.string()), ("frame", pa.int64()), ("label", pa.int32()), ("probability", pa.float32())]
    )
    with files.write_beside(path) as temporary, pq.ParquetWriter(temporary, schema) as writer:
        for k, name in enumerate(latent.simulations):
            piece = slice(latent.edges[k], latent.edges[k + 1])
            names = pa.DictionaryArray.from_arrays(np.zeros(latent.lengths[k], np.int32), [name]).cast(pa.string())
            columns = [names, latent.frame[piece], found.labels[piece], found.probabilities[piece]]
            writer.write_table(pa.table(columns, schema=schema))


def description(
    latent: "Latents",
    found: "Clustering",
    picks: "Sequence[Sequence[Pick]]",
    options: Mapping[str, Any],
    choice: "Choice",
) -> dict[str, Any]:
    """What cluster.json holds; no times of the computation, so that equal runs give equal files."""
    from mdlatent.representatives import file_name

    return {
        "n_states": found.n_states,
        "n_frames": len(latent),
        "noise_fraction": found.noise_fraction,
        "noise_fraction_by_density": found.noise_by_density,
        "ari_subsamples": choice.ari_subsamples,
        "message": found.message,
        "caution": found.caution,
        "latent_dim": int(latent.z.shape[1]),
        "simulations": latent.simulations,
        "settings": {
            "method": "HDBSCAN",
            "version": version("hdbscan"),
            "spanning_tree_by": found.plan.engine if found.plan else None,
            "n_frames_fitted": found.plan.n_fitted if found.plan else 0,
            "metric": "euclidean",
            "scaling": "none: the latent as the model gives it",
            "approx_min_span_tree": False,
            "allow_single_cluster": False,
            **choice.options,
            "chosen_here": [name for name, value in options.items() if value == "auto"],
            "n_frames_of_choice": choice.n_frames,
        },
        "states": [
            {
                "state": state,
                "n_frames": int((found.labels == state).sum()),
                "population": float((found.labels == state).mean()),
                "persistence": found.persistence[state],
                "structures": f"representatives/{file_name(state)}",
                "representatives": [
                    {
                        "simulation": pick.simulation,
                        "frame": pick.frame,
                        "time_ps": pick.time_ps if math.isfinite(pick.time_ps) else None,
                        "latent_distance": pick.distance,
                    }
                    for pick in chosen
                ],
            }
            for state, chosen in enumerate(picks)
        ],
        "definitions": DEFINITIONS,
    }


if __name__ == "__main__":
    stage.run(main)
