"""Fit the linear map that keeps most of the slow motion, to compare latent spaces with.

TICA on the principal components of the pair distances, fitted to pairs of training frames a lag apart, never across
gaps or simulations. Writes a file (npz) with `rows`, the test frames as rows of the frame store, and for each lag
`lag<frames>`, their slowest coordinates (k, dimensions) float32, the slowest first: a map of d dimensions is compared
with the first d of them.
"""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mdlatent import files, stage

if TYPE_CHECKING:
    import numpy as np

    from mdlatent.frames import FrameStore

log = logging.getLogger("mdlatent")

N_COMPONENTS = 30  # principal components of the distances, more where a model has more dimensions
CHUNK = 1024


def main(argv: list[str] | None = None) -> None:
    """Parse, read, write."""
    parser = stage.parser("fit_tica", __doc__)
    parser.add_argument("--frames", type=Path, required=True, help="index.json of the frame store")
    parser.add_argument("--dim", type=int, required=True, help="most dimensions to compare with")
    parser.add_argument("--output", type=Path, required=True, help="file to write (npz)")
    stage.add_options(parser)
    args = parser.parse_args(argv)
    stage.start_logging(args.log)
    stage.limit_threads(1)
    options = stage.read_options(args.options, "split", "evaluate")

    import numpy as np

    from mdlatent.frames import FrameStore

    with FrameStore(args.frames) as store:
        arrays = fit(store, options["split"], options["evaluate"]["lag_frames"], args.dim)
    with files.write_beside(args.output) as temporary:
        np.savez(temporary, allow_pickle=False, **arrays)
    log.info("%s: %s", args.output, ", ".join(f"{name} {values.shape}" for name, values in arrays.items()))


def fit(store: "FrameStore", split: dict[str, Any], lags: list[int], dim: int) -> "dict[str, np.ndarray]":
    """What the file holds, see the head of this file. A lag for which there are no training pairs is left out."""
    import numpy as np

    from mdlatent import held_out, splits
    from mdlatent.metrics import kinetics

    labels = np.concatenate([*splits.labels(store, split).values()])
    starts = held_out.stretches_of_store(store)
    training = kinetics.split_runs(np.flatnonzero(labels == "train"), starts)
    test = np.flatnonzero(labels == "test")
    components = principal_components(store, np.flatnonzero(labels == "train"), max(N_COMPONENTS, dim))
    seen = [project(store, run, components) for run in training]
    judged = project(store, test, components)
    arrays = {"rows": test}
    for lag in lags:
        moments = kinetics.lagged_moments(seen, lag)
        if moments is None:
            log.warning("no two training frames are %d frames apart without a gap: the lag is left out", lag)
            continue
        arrays[f"lag{lag}"] = (judged @ kinetics.tica(moments, dim)).astype(np.float32)
    return arrays


def principal_components(store: "FrameStore", rows: "np.ndarray", n: int) -> Any:
    """A fitted map onto at most n principal components of the pair distances of the frames `rows`."""
    from mdlatent import models

    n_pairs = store.n_atoms * (store.n_atoms - 1) // 2
    found = models.build("pca_distances", store.n_atoms, max(1, min(n, n_pairs, len(rows) - 1)))
    found.fit(store, rows)
    return found


def project(store: "FrameStore", rows: "np.ndarray", components: Any) -> "np.ndarray":
    """Principal components (k, n) float64 of the frames `rows` (k,) in their order, read in chunks."""
    import numpy as np
    import torch

    from mdlatent.feed import iterate_rows

    chunk = max(1, min(CHUNK, components.frames_at_once))
    pieces = [components.encode(torch.from_numpy(frames))[0].numpy() for frames in iterate_rows(store, rows, chunk)]
    return np.concatenate([np.empty((0, components.latent_dim)), *pieces])


if __name__ == "__main__":
    stage.run(main)
