"""Fit the linear map that keeps most of the slow motion, to compare latent spaces with.

The family `tica`, fitted to pairs of training frames a lag apart, never across gaps or simulations. Writes a file
(npz) with `rows`, the test frames as rows of the frame store, and for each lag `lag<frames>`, their slowest coordinates
(k, dimensions) float32, the slowest first: a map of d dimensions is compared with the first d of them.
"""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mdlatent import files, stage
from mdlatent.errors import DataError

if TYPE_CHECKING:
    import numpy as np

    from mdlatent.frames import FrameStore
    from mdlatent.models.base import LatentModel

log = logging.getLogger("mdlatent")

N_COMPONENTS = 30  # principal components of the distances, more where a model has more dimensions
CHUNK = 256


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

    from mdlatent import distances, models, splits

    labels = np.concatenate([*splits.labels(store, split).values()])
    training, test = (np.flatnonzero(labels == name) for name in ("train", "test"))
    dim = min(dim, distances.n_pairs(store.n_atoms))
    arrays = {"rows": test}
    for lag in lags:
        options = {"lag_frames": lag, "n_components_before": max(N_COMPONENTS, dim), "kinetic_map": False}
        model = models.build("tica", store.n_atoms, dim, options)
        try:
            model.fit(store, training)
        except DataError as error:
            log.warning("lag of %d frames left out: %s", lag, error)
            continue
        arrays[f"lag{lag}"] = project(store, test, model)
    return arrays


def project(store: "FrameStore", rows: "np.ndarray", model: "LatentModel") -> "np.ndarray":
    """Latent (k, d) float32 of the frames `rows` (k,) in their order, read in chunks."""
    import numpy as np
    import torch

    from mdlatent.feed import iterate_rows

    pieces = [model.encode(torch.from_numpy(frames))[0].numpy() for frames in iterate_rows(store, rows, CHUNK)]
    return np.concatenate([np.empty((0, model.latent_dim), np.float32), *pieces])


if __name__ == "__main__":
    stage.run(main)
