"""A small frame store, and the arguments of a training on it."""

import json
from pathlib import Path

import pytest
import torch

from frame_store import chain, write_store
from mdlatent import models


def pytest_collection_modifyitems(items):
    for item in items:
        if "distributed" in Path(item.fspath).parts:
            item.add_marker(pytest.mark.distributed)


@pytest.fixture(scope="session")
def index(tmp_path_factory):
    folder = tmp_path_factory.mktemp("store") / "frames"
    return write_store(folder, {"a": chain(200, 8), "b": chain(130, 8, 1)}, n_parts=2)


@pytest.fixture
def arguments(index):
    """Arguments of a training into a folder: 148 training frames, the last batch of 16 has 4."""

    def build(folder, model="conv2d-d2", **settings):
        settings = {"epochs": 3, "batch_size": 16, "checkpoint_epochs": 1, "device": "cpu"} | settings
        options = {
            "models": [{"family": family, "latent_dim": 2} for family in ("conv2d", "resnet1d", "pca_distances")],
            "train": settings,
            "split": {"gap_frames": 2},
        }
        return [
            f"--frames={index}", f"--model={model}", "--seed=0", f"--options={json.dumps(options)}",
            f"--output-dir={folder / 'out'}", f"--checkpoints={folder / 'checkpoints'}",
            f"--log-file={folder / 'train.log'}",
        ]  # fmt: skip

    return build


@pytest.fixture(scope="session")
def state():
    """The weights that a training wrote."""
    return lambda folder: models.load(folder / "out" / "model.pt")[0].state_dict()


@pytest.fixture(scope="session")
def same():
    """Whether two states agree bit for bit."""
    return lambda a, b: a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
