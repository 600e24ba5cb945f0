"""Map the frames of one simulation, or of all in an index, into a model's latent space.

Writes a table with one row per frame: simulation, frame (number in the original trajectory), time_ps, split,
z0 … z{d-1} (posterior mean) and reconstruction_rmse_nm (over the pair distances of the frame).

Without --simulation, all of the index are mapped: --output is then a list of them (JSON), and their tables stand beside
it. A table that is there already, made of the same frames by the same model and code, is left alone.

Started as several processes (docs/parallel.md), each maps a part of the frames; the table is the same, bit for bit.
"""

import argparse
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mdlatent import files, launch, lifeline, stage
from mdlatent.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

    from mdlatent.frames import FrameStore, Simulation
    from mdlatent.models.base import LatentModel
    from mdlatent.parallel import Group

log = logging.getLogger("mdlatent")

MADE_FROM = b"mdlatent.made_from"


def main(argv: list[str] | None = None) -> None:
    """Parse the command line, map, write the table."""
    parser = stage.parser("embed", __doc__)
    parser.add_argument("--frames", type=Path, required=True, help="index.json of the frame store")
    parser.add_argument("--model", type=Path, required=True, help="model.pt of a trained model")
    parser.add_argument("--simulation", help="name of the simulation; default, all of the index")
    parser.add_argument("--output", type=Path, required=True, help="table to write (parquet), or list of tables (JSON)")
    parser.add_argument("--code", default="", help="digest of the program: what another one made is made again")
    parser.add_argument(
        "--device", choices=("auto", "cpu", "cuda"), default="auto", help="`auto`: a GPU if there is one"
    )
    parser.add_argument("--threads", type=int, default=1, help="CPU threads per process")
    parser.add_argument(
        "--backend",
        choices=("auto", "single", "ddp", "horovod"),
        default="auto",
        help="how several processes exchange what they have; as `train.backend`",
    )
    args = parser.parse_args(argv)
    me = launch.find()
    stage.start_logging(args.log, me.rank)
    stage.limit_threads(args.threads)
    with lifeline.together(me, args.output) as line:
        _embed(args, line)


def _embed(args: argparse.Namespace, line: lifeline.Line) -> None:
    from mdlatent import models, parallel
    from mdlatent.device import choose_device
    from mdlatent.frames import FrameStore

    device = choose_device(args.device, args.threads)
    model, metadata = models.load(args.model)
    model.compiled = True
    with parallel.joined(args.backend, line, device) as group, FrameStore(args.frames) as store:
        check_atoms(store, metadata, args.model)
        wanted = store.simulations if args.simulation is None else [store.simulation(args.simulation)]
        place = args.output.parent if args.simulation is None else None
        stamps = stamps_of(wanted, files.digest(args.model), args.code) if place else {}
        # Every process finds the same: the first table is written after all have met over it.
        todo = [s for s in wanted if not (place and is_made(table_path(place, s.name), stamps[s.name]))]
        for simulation in todo:
            table = embed(store, model.to(device), simulation.name, metadata["split"], device, group)
            if group.is_main:
                path = table_path(place, simulation.name) if place else args.output
                write_table(path, table, stamps.get(simulation.name))
        if group.is_main and place:
            files.write_json(args.output, [simulation.name for simulation in wanted])
            log.info("%s: %d of %d simulations mapped anew", args.output, len(todo), len(wanted))


def table_path(folder: Path, simulation: str) -> Path:
    """Where the table of a simulation lies among those of the same model."""
    return folder / f"{simulation}.parquet"


def stamps_of(simulations: "list[Simulation]", model_digest: str, code: str) -> dict[str, str | None]:
    """For each simulation a digest of what its table is made from; None if its parts do not say what they are."""
    from mdlatent.frames import made_from

    result: dict[str, str | None] = {}
    for simulation in simulations:
        parts = [made_from(part.file) for part in simulation.parts]
        known = None not in parts
        others = (model_digest, code, simulation.role, simulation.time_step_ps)
        result[simulation.name] = files.stamp(*others, parts) if known else None
    return result


def is_made(path: Path, made_from: str | None) -> bool:
    """Whether the table at `path` was made from what `made_from` stands for."""
    import pyarrow
    import pyarrow.parquet as pq

    if made_from is None or not path.exists():
        return False
    try:
        return (pq.read_schema(path).metadata or {}).get(MADE_FROM) == made_from.encode()
    except pyarrow.ArrowInvalid:
        return False  # damaged: it is made again


def write_table(path: Path, table: "pd.DataFrame", made_from: str | None = None) -> None:
    """Write a latent table, with what it was made from among the file's metadata."""
    import pyarrow
    import pyarrow.parquet as pq

    content = pyarrow.Table.from_pandas(table, preserve_index=False)
    if made_from is not None:
        content = content.replace_schema_metadata({**content.schema.metadata, MADE_FROM: made_from.encode()})
    with files.write_beside(path) as temporary:
        pq.write_table(content, temporary)
    log.info("%s: %d frames, mean error %.4f nm", path, len(table), table["reconstruction_rmse_nm"].mean())


def embed(
    store: "FrameStore",
    model: "LatentModel",
    simulation: str,
    split: dict[str, Any],
    device: str = "cpu",
    group: "Group | None" = None,
) -> "pd.DataFrame":
    """The latent table of one simulation, see the head of this file.

    Raises DataError if the simulation is not in the store or its frames do not map to numbers.
    """
    import numpy as np
    import pandas as pd
    import torch

    from mdlatent import splits
    from mdlatent.parallel import Group

    group, chosen = group or Group(), store.simulation(simulation)
    mapped = torch.zeros((chosen.n_frames, model.latent_dim + 1))  # latent and error; what others map stays 0
    chunk = model.frames_at_once
    n_chunks = -(-chosen.n_frames // chunk)
    # Whole chunks in a row: each is then mapped as one process alone would map it.
    start, stop = (min(rank * n_chunks // group.size * chunk, chosen.n_frames) for rank in (group.rank, group.rank + 1))
    pieces = store.iterate(chosen.start + start, chosen.start + stop, chunk)
    for row, frames in stage.progress(pieces, -(-(stop - start) // chunk), f"embedding {simulation}"):
        place = slice(row - chosen.start, row - chosen.start + len(frames))
        latent, error = model.embed(torch.from_numpy(frames).to(device))
        mapped[place] = torch.cat([latent, error[:, None]], 1).cpu()
    group.wait_for_main()
    table = group.sum(mapped).numpy()
    z, error_nm = table[:, :-1], table[:, -1]
    bad = np.flatnonzero(~np.isfinite(error_nm) | ~np.isfinite(z).all(1))
    if len(bad):
        raise DataError(
            f"simulation {simulation!r}: {len(bad)} frames map to NaN or infinity, the first is stored frame {bad[0]}; "
            "check its coordinates, and the training of the model"
        )
    return pd.DataFrame(
        {
            "simulation": chosen.name,
            "frame": store.frame_numbers(chosen),
            "time_ps": store.times_ps(chosen),
            "split": splits.label(chosen.name, chosen.n_frames, chosen.role, split),
            **{f"z{k}": z[:, k] for k in range(model.latent_dim)},
            "reconstruction_rmse_nm": error_nm,
        }
    )


def check_atoms(store: "FrameStore", metadata: dict[str, Any], path: Path) -> None:
    """Raise DataError unless the store holds the atoms that the model was trained on, in the same order."""
    wanted, got = metadata["atoms"], store.atoms
    advice = "map the frames with a model trained on these atoms, or train it again"
    if len(got) != len(wanted):
        raise DataError(f"{path}: was trained on {len(wanted)} atoms, the frame store holds {len(got)}; {advice}")
    differing = [k for k, (a, b) in enumerate(zip(wanted, got, strict=True)) if a != b]
    if differing:
        k = differing[0]
        raise DataError(
            f"{path}: was trained on other atoms than the frame store holds: {len(differing)} differ, the first is "
            f"atom {k}, expected {wanted[k]!r}, got {got[k]!r}; {advice}"
        )


if __name__ == "__main__":
    stage.run(main)
