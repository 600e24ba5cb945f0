"""What unit tests share: a web server and where what it serves should go; frames for `coordinate`."""

import pytest

from coordinate_models import breathing_helices, turning_chain
from mdlatent.frames import FrameStore
from server import Server


@pytest.fixture
def server():
    with Server() as running:
        yield running


@pytest.fixture
def place(tmp_path):
    """Output path and fetch options with a cache of its own and no patience."""
    return tmp_path / "out" / "topology.pdb", {
        "attempts": 3, "timeout_s": 5.0, "backoff_s": 0.01, "cache": str(tmp_path / "cache"),
    }  # fmt: skip


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    with FrameStore(turning_chain(tmp_path_factory.mktemp("store"))) as opened:
        yield opened


@pytest.fixture(scope="module")
def helices(tmp_path_factory):
    with FrameStore(breathing_helices(tmp_path_factory.mktemp("helices"))) as opened:
        yield opened
