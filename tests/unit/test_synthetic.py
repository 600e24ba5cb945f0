"""Training on made-up frames: no study needed, the same files written, sizes that cannot be are refused."""

import json

import numpy as np
import pytest
import yaml

from mdlatent import models, splits, synthetic, train
from mdlatent.errors import ConfigError, DataError
from mdlatent.frames import FrameStore

RESNET = {"family": "resnet1d", "latent_dim": 4, "options": {"encoder_filters": 8, "decoder_filters": 8}}


def arguments(folder, n_frames, n_atoms, entry, **settings):
    options = {"models": [entry], "train": {"epochs": 1, "device": "cpu"} | settings}
    return [
        f"--synthetic={n_frames}", f"--n-atoms={n_atoms}", f"--model={entry['family']}", f"--output-dir={folder}",
        f"--options={json.dumps(options)}",
    ]  # fmt: skip


@pytest.mark.parametrize("n_frames", [1, 31, 33])
def test_any_number_of_frames(tmp_path, n_frames):
    """Also numbers that are no multiple of the batch size."""
    train.main(arguments(tmp_path, n_frames, 13, RESNET, batch_size=min(8, n_frames)))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.yaml", "history.csv", "model.pt"]
    record = yaml.safe_load((tmp_path / "config.yaml").read_text())
    assert record["n_frames"]["train"] == n_frames
    assert record["measured"]["frames_per_cpu_second"] > 0
    model, _ = models.load(tmp_path / "model.pt")
    assert (model.family, model.n_atoms, model.latent_dim) == ("resnet1d", 13, 4)
    assert model.options["encoder_filters"] == 8


def test_same_seed_same_frames_and_model(tmp_path):
    for name in "ab":
        train.main(arguments(tmp_path / name, 16, 9, RESNET, batch_size=8))
    assert (tmp_path / "a/model.pt").read_bytes() == (tmp_path / "b/model.pt").read_bytes()
    with synthetic.store(5, 4, 0) as one, FrameStore(one) as store:
        first = store.read(0, store.n_frames)
    with synthetic.store(5, 4, 1) as other, FrameStore(other) as store:
        assert not np.array_equal(first, store.read(0, store.n_frames))
        labels = splits.labels(store, {**synthetic.SPLIT, "validation_fraction": 0.1, "gap_frames": 0})
    assert [set(label) for label in labels.values()] == [{"train"}, {"validation"}, {"test"}]
    assert not one.parent.exists()


def test_neighbours_are_as_far_apart_as_in_a_chain():
    walks = synthetic.random_walks(10, 50, np.random.default_rng(0))
    np.testing.assert_allclose(np.linalg.norm(np.diff(walks, axis=1), axis=2), synthetic.STEP_NM, rtol=1e-4)


@pytest.mark.parametrize(("n_frames", "n_atoms", "says"), [(0, 9, "at least 1"), (9, 2, "got 2, .* at least 3")])
def test_sizes_that_cannot_be(tmp_path, n_frames, n_atoms, says):
    with pytest.raises(ConfigError, match=says):
        train.main(arguments(tmp_path, n_frames, n_atoms, RESNET))


def test_mistakes_are_said(tmp_path, capsys):
    with pytest.raises(DataError, match=r"training has 4 frames, train\.batch_size is 32"):
        train.main(arguments(tmp_path, 4, 9, RESNET))
    with pytest.raises(ConfigError, match="split of their own"):
        synthetic.options('{"split": {}}', "conv2d")
    with pytest.raises(ConfigError, match="expected a JSON object"):
        synthetic.options("study.yaml", "conv2d")
    with pytest.raises(SystemExit):
        train.main(["--synthetic=9", "--model=conv2d", f"--output-dir={tmp_path}"])
    assert "belong together" in capsys.readouterr().err
    assert not any(tmp_path.iterdir())


def test_options_may_be_left_out():
    assert json.loads(synthetic.options("{}", "conv2d"))["models"] == [{"family": "conv2d"}]
