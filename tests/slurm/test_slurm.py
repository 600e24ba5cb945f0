"""The study as Slurm jobs, on a real Slurm: same results as on one machine, whatever happens to it on the way.

The stories that disturb only their own study run four at a time in the background, for most of their time is waiting;
those that disturb the cluster run alone.
"""

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import disturbed_stories
import pandas
import pytest
import two_process_stories
import whole_stories
from cluster import Cluster, wait_for
from sklearn.metrics import adjusted_rand_score
from slurm_study import COMMENT, LABELS, MODEL, SlurmStudy, new_study, with_frames
from stories import STORIES, assert_undisturbed

from support import ROOT
from workflow_study import Study

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(900)]

# The long ones first.
NAMES = [
    name
    for module in (whole_stories, disturbed_stories, two_process_stories)
    for name, function in STORIES.items()
    if function.__module__ == module.__name__
]


@pytest.fixture(scope="module")
def local(trpcage, tmp_path_factory) -> Path:
    """The study, undisturbed and without Slurm."""
    folder = new_study(tmp_path_factory.mktemp("slurm") / "local", trpcage[0].parent)
    Study(folder).run()
    return folder


@pytest.fixture(scope="module")
def pair(local) -> Path:
    """The same trained and mapped by two processes, undisturbed and without Slurm."""
    folder = with_frames(local.parent / "pair", local)
    Study(folder).run("--set-resources", "train_model:processes=2", "embed:processes=2", "--", str(LABELS))
    return folder


@pytest.fixture(scope="module")
def stories(request, cluster, local, pair):
    """What has been asked of this run of pytest, as futures."""
    wanted = [item.callspec.params["name"] for item in request.session.items if hasattr(item, "callspec")
              and item.originalname == "test_story"]  # fmt: skip
    with ThreadPoolExecutor(4) as pool:
        yield {name: pool.submit(told, name, cluster, local) for name in wanted}


def told(name: str, cluster: Cluster, local: Path) -> float:
    start = time.monotonic()
    STORIES[name](cluster, local, local.parent / name)
    return time.monotonic() - start


@pytest.fixture
def training(cluster, local, request) -> SlurmStudy:
    return SlurmStudy(with_frames(local.parent / request.node.name, local), cluster)


@pytest.mark.parametrize("name", NAMES)
def test_story(name, stories):
    print(f"{name}: {stories[name].result():.0f} s")


def test_two_processes_agree_with_one(local, pair):
    """Sums are rounded differently, and 40 epochs carry that on; errors and states are the same for all purposes."""
    one, two = (pandas.read_csv(folder / MODEL.with_name("history.csv")) for folder in (local, pair))
    assert abs(one["train_loss"] / two["train_loss"] - 1).iloc[0] < 1e-4
    assert abs(one["validation_loss"].min() / two["validation_loss"].min() - 1) < 0.02
    labels = [pandas.read_parquet(folder / LABELS)["label"] for folder in (local, pair)]
    assert adjusted_rand_score(*labels) > 0.9


# --- alone ---------------------------------------------------------------------------------------------------------


def test_a_node_dies_and_comes_back(cluster, training, local):
    training.start()
    job = training.job_in_training()
    node = subprocess.run(["squeue", "-h", "-j", job, "-o", "%N"], capture_output=True, text=True).stdout.strip()
    cluster.kill_node(node)
    training.finish()
    jobs = [row for row in cluster.accounts(training.folder) if COMMENT in row["Comment"]]
    assert [row["State"] for row in jobs] == ["NODE_FAIL", "COMPLETED"]
    assert jobs[1]["NodeList"] != node
    assert training.went_on()
    assert_undisturbed(training, local)
    cluster.start_node(node)
    wait_for(lambda: node in cluster.idle_nodes(), f"{node} to be back", 60)


def test_the_controller_is_away_for_30_seconds(cluster, training, local):
    training.start()
    training.job_in_training()
    cluster.stop_controller()
    time.sleep(30)
    cluster.start_controller()
    training.finish()
    assert training.states() == ["COMPLETED"]
    assert_undisturbed(training, local)


def test_the_profile_is_found_in_the_top_folder(cluster):
    command = [sys.executable, "-m", "snakemake", "--profile", "slurm", "--dry-run", "--quiet"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
