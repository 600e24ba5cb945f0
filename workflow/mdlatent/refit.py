"""Train anew on training and validation frames together, for as many epochs as were best with the latter held back.

The validation frames are needed to choose the epoch and are good to learn from afterwards. No test frame is seen. It
is a whole training of so many epochs: its learning rate falls to 0 at the last of them, wherever the rate of the
training before stood then. Where the start was kept, or no epoch could be chosen, nothing is done. What is known of the
validation frames (history, errors) is of the model before; of this one, frames that it has not seen are only those of
the test. Where `refit` is `early`, a training whose best epoch was one of the last is left as it is.
"""

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from mdlatent import training
from mdlatent.checkpoint import Checkpoints
from mdlatent.feed import Feed

if TYPE_CHECKING:
    from mdlatent.frames import FrameStore
    from mdlatent.models.base import LatentModel
    from mdlatent.parallel import Group

__all__ = ["is_wanted", "refit"]

log = logging.getLogger("mdlatent")

EARLY = 0.75  # of all epochs: by then the learning rate has fallen to a seventh, and there is little left to gain


def is_wanted(settings: dict[str, Any], before: training.Trained) -> bool:
    """Whether a training with the section `train` is to be followed by another, see its key `refit`."""
    until = {"never": 0, "early": EARLY * settings["epochs"], "always": settings["epochs"]}[settings["refit"]]
    return 0 < before.epoch <= until


def refit(
    build: "Callable[[], LatentModel]",
    store: "FrameStore",
    rows: dict[str, np.ndarray],
    settings: dict[str, Any],
    seed: int,
    before: training.Trained,
    checkpoints: Checkpoints | None = None,
    stop: Any = False,
    group: "Group | None" = None,
    note: "Callable[[training.Row], None]" = lambda record: None,
    **share: Any,
) -> "tuple[LatentModel, training.Trained]":
    """The model of a training like `before`, now on `rows` of both classes, and what to say of it.

    `build` gives an untrained model, `share` holds what `Feed` is told beside (device, rank, size, lag_frames), the
    others are as in `training.train`. `checkpoints` needs a folder of its own. In the notes `refit` is true.
    """
    both = np.union1d(rows["train"], rows["validation"])
    log.info("training anew on all %d training and validation frames for %d epochs", len(both), before.epoch)
    torch.manual_seed(seed)
    model = build()
    model.prepare(store, both)
    feed = Feed(store, both, settings["batch_size"], seed, **share)
    nothing = Feed(store, both[:0], settings["batch_size"], **share)
    trained = training.train(
        model.to(share.get("device", "cpu")), feed, nothing, settings | {"epochs": before.epoch, "refit": "never"},
        seed, checkpoints, stop=stop, group=group, note=lambda record: note(record | {"refit": True}),
    )  # fmt: skip
    trained.weights = f"{before.weights}; then trained anew for {before.epoch} epochs on validation frames too"
    trained.rows, trained.epoch = before.rows, before.epoch
    return model, trained
