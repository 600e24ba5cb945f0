import pytest
from cluster import Cluster, why_not

from support import missing

pytest.register_assert_rewrite("stories", "disturbed_stories", "two_process_stories", "whole_stories")


@pytest.fixture(scope="session")
def cluster():
    """A real Slurm with accounting: 2 nodes × 2 fake GPUs on this machine."""
    if reason := why_not():
        missing(reason)
    cluster = Cluster()
    cluster.start()
    yield cluster
    cluster.stop()
