"""A web server on this machine, and where what it serves should go."""

import pytest

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
