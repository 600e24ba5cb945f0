"""Training anew on validation frames too, of the family `coordinate`, whose default it is."""

import numpy as np
import pytest
import torch

from coordinate_models import SETTINGS, frames, prepared, rmsd_nm, trained
from frame_store import write_store
from mdlatent import models, training
from mdlatent.frames import FrameStore
from mdlatent.refit import is_wanted, refit


def refitted(store, rows, before, **changes):
    settings = SETTINGS | {"refit": "always"} | changes
    return refit(lambda: models.build("coordinate", store.n_atoms, 2), store, rows, settings, 0, before)


@pytest.mark.parametrize(
    ("refit", "epoch", "wanted"),
    [("never", 20, False), ("early", 30, True), ("early", 31, False), ("always", 40, True), ("always", 0, False)],
)
def test_refit_is_done_where_it_is_asked_for(refit, epoch, wanted):
    before = training.Trained([], "", epoch, None)
    assert is_wanted({"epochs": 40, "refit": refit}, before) == wanted


def test_refit_learns_from_validation_frames_and_from_no_other(helices, tmp_path):
    """Other test frames, the same model; other validation frames, another one."""
    rows = {"train": np.arange(150), "validation": np.arange(150, 300)}
    before = training.Trained([], "epoch 3 of 8", 3, None)
    weights = []
    for changed in (None, 350, 200):
        coordinates = helices.read(0, 400).copy()
        if changed:
            coordinates[changed:] = coordinates[changed:, ::-1]
        with FrameStore(write_store(tmp_path / str(changed), {"a": coordinates})) as other:
            weights.append(refitted(other, rows, before)[0].decoder[0].weight)
    assert torch.equal(weights[0], weights[1])
    assert not torch.allclose(weights[0], weights[2])


def test_refit_betters_what_more_frames_can_better(helices):
    rows = {"train": np.arange(60), "validation": np.arange(60, 300)}
    model = prepared(helices, 2, rows=rows["train"])
    before = trained(helices, model, train_rows=rows["train"], validation_rows=rows["validation"], epochs=20)
    after, result = refitted(helices, rows, before, epochs=20)
    held_out = frames(helices, 320, 400)
    assert rmsd_nm(after, held_out).mean() < 0.9 * rmsd_nm(model, held_out).mean()
    assert result.weights.startswith(before.weights)
    assert result.rows is before.rows


def test_refit_is_a_whole_training_of_so_many_epochs(store):
    """To the bit: its rate falls to 0 at its own last epoch, not at that of the training before."""
    before = training.Trained([], "epoch 3 of 8", 3, None)
    both = np.concatenate([np.arange(90), np.arange(100, 120)])
    after, _ = refitted(store, {"train": both[:90], "validation": both[90:]}, before)
    plain = prepared(store, 2, rows=both)
    trained(store, plain, train_rows=both, validation_rows=both[:0], epochs=3)
    assert all(torch.equal(a, b) for a, b in zip(after.parameters(), plain.parameters(), strict=True))


def test_refit_ends_at_the_epoch_that_was_best(store):
    seen = []
    before = training.Trained([], "epoch 3 of 8", 3, None)
    rows = {"train": np.arange(90), "validation": np.arange(100, 120)}
    build = lambda: models.build("coordinate", store.n_atoms, 2)  # noqa: E731
    refit(build, store, rows, SETTINGS | {"refit": "always"}, 0, before, note=seen.append)
    assert [record["epoch"] for record in seen] == [1, 2, 3]
    assert all(record["refit"] and record["frames"] == 110 for record in seen)
