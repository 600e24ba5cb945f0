"""The study as Slurm jobs, on a real Slurm: same results as on one machine, whatever happens to it on the way.

The stories that disturb only their own study run four at a time in the background, for most of their time is waiting;
those that disturb the cluster run alone.
"""

import contextlib
import json
import os
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

import pandas
import pytest
from cluster import Cluster, run, wait_for
from slurm_study import CHECKPOINTS, COMMENT, LOG, MODEL, RESULTS, VALUES, SlurmStudy, new_study, with_frames

from support import ROOT, missing
from workflow_study import Study

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(900)]

STORIES: dict[str, Callable] = {}


def story(function: Callable) -> Callable:
    """Have it run in the background from the first test on."""
    STORIES[function.__name__] = function
    return function


@pytest.fixture(scope="module")
def local(trpcage, tmp_path_factory) -> Path:
    """The study, undisturbed and without Slurm."""
    folder = new_study(tmp_path_factory.mktemp("slurm") / "local", trpcage[0].parent)
    Study(folder).run()
    return folder


@pytest.fixture(scope="module")
def stories(request, cluster, local):
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


def assert_undisturbed(study: SlurmStudy, local: Path) -> None:
    """The model is, byte for byte, that of the run without Slurm; nothing is left in queue or folders."""
    assert (study.folder / MODEL).read_bytes() == (local / MODEL).read_bytes()
    one, other = (pandas.read_csv(folder / MODEL.with_name("history.csv")) for folder in (study.folder, local))
    pandas.testing.assert_frame_equal(one.drop(columns="seconds"), other.drop(columns="seconds"), check_exact=True)
    assert not (study.folder / CHECKPOINTS).exists()
    assert not list((study.folder / RESULTS).rglob("*.part*.pt"))
    assert study.cluster.queue(study.folder, state="all") == [] or study.states()[-1] == "COMPLETED"


@pytest.mark.parametrize("name", [
    "whole_study", "time_limit", "snakemake_is_killed", "newest_checkpoint_is_damaged", "disk_is_full",
    "training_job_is_cancelled", "out_of_memory",
])  # fmt: skip
def test_story(name, stories):
    print(f"{name}: {stories[name].result():.0f} s")


# --- stories ---------------------------------------------------------------------------------------------------------


@story
def whole_study(cluster: Cluster, local: Path, folder: Path) -> None:
    """Every job that is not local runs through Slurm, and the results are those of the local run, state for state."""
    study = SlurmStudy(new_study(folder, local), cluster)
    counts = study.jobs(study.run())
    here = {"all", "fetch_topology", "fetch_trajectory", "index_frames", "summarize_evaluation"}
    jobs = cluster.accounts(folder)
    ran = [row["Comment"].removeprefix("rule_").split("_wildcards_")[0] for row in jobs]
    assert {rule: ran.count(rule) for rule in set(ran)} == {k: n for k, n in counts.items() if k not in here}
    assert {row["State"] for row in jobs} == {"COMPLETED"}

    assert_undisturbed(study, local)
    tables = sorted((local / RESULTS).rglob("*.parquet"))
    assert len(tables) == 4  # latent and labels of two models
    for path in tables:
        other = folder / path.relative_to(local)
        pandas.testing.assert_frame_equal(pandas.read_parquet(path), pandas.read_parquet(other), check_exact=True)
    measured = {"frames_per_cpu_second", "peak_memory"}
    one, other = (json.loads((where / RESULTS / "summary.json").read_text())["metrics"] for where in (local, folder))
    assert [row for row in one if row["metric"] not in measured] == [
        row for row in other if row["metric"] not in measured
    ]

    used = pandas.read_csv(folder / RESULTS / "slurm_efficiency.csv", dtype={"job_id": str})
    assert set(used["job_id"]) == {row["JobIDRaw"] for row in jobs}
    assert (used["memory_used_mb"] < used["memory_asked_mb"]).all()
    assert (used["elapsed_s"] <= used["limit_s"]).all()
    assert used["memory_used_mb"].max() > 200
    assert "Nothing to be done" in study.run()


@story
def training_job_is_cancelled(cluster: Cluster, local: Path, folder: Path) -> None:
    study = SlurmStudy(with_frames(folder, local), cluster)
    study.start()
    run("scancel", study.job_in_training())
    study.finish()
    assert study.states() == ["CANCELLED", "COMPLETED"]
    assert study.went_on()
    assert_undisturbed(study, local)


@story
def time_limit(cluster: Cluster, local: Path, folder: Path) -> None:
    """Slurm asks to end, gives 5 s, and then kills: training saves its state, the retry goes on from it.

    Slurm looks at time limits twice a minute, hence a longer training, with an undisturbed one of its own beside it.
    """
    study = SlurmStudy(with_frames(folder, local), cluster)
    study.write(VALUES | {"train": VALUES["train"] | {"epochs": 250}})
    study.run(str(RESULTS / "frames/index.json"))  # asks that there are frames enough for the new settings
    other = Study(with_frames(folder.with_name("time_enough"), folder))
    study.start()
    run("scontrol", "update", f"JobId={study.job_in_training()}", f"EndTime={datetime.now():%Y-%m-%dT%H:%M:%S}")
    other.run("--keep-going", str(MODEL))
    assert "told to stop" in study.finish()
    assert study.states() == ["TIMEOUT", "COMPLETED"]
    assert study.went_on()
    assert_undisturbed(study, other.folder)


@story
def out_of_memory(cluster: Cluster, local: Path, folder: Path) -> None:
    study = SlurmStudy(with_frames(folder, local), cluster)
    study.start("--set-resources", "train_model:mem_mb=400*attempt")
    study.finish()
    jobs = [row for row in cluster.accounts(folder) if COMMENT in row["Comment"]]
    assert [row["ReqMem"] for row in jobs[:2]] == ["400M", "800M"]
    assert jobs[0]["State"].split()[0] in ("OUT_OF_MEMORY", "CANCELLED", "FAILED")
    assert study.states()[-1] == "COMPLETED"
    assert_undisturbed(study, local)


@story
def snakemake_is_killed(cluster: Cluster, local: Path, folder: Path) -> None:
    """Its job goes on; a second Snakemake refuses to start the same training beside it."""
    study = SlurmStudy(with_frames(folder, local), cluster)
    study.start()
    job = study.job_in_training()
    study.kill_snakemake()
    assert "--unlock" in study.break_off()
    study.finish("--unlock")
    text = study.break_off()
    assert f"scancel {job}" in text
    assert cluster.queue(folder, COMMENT) == [job]
    run("scancel", job)
    wait_for(lambda: not cluster.queue(folder, COMMENT, state="running,completing"), f"job {job} to end", 30)
    study.finish()
    assert study.states() == ["CANCELLED", "COMPLETED"]
    assert study.went_on()
    assert_undisturbed(study, local)


@story
def newest_checkpoint_is_damaged(cluster: Cluster, local: Path, folder: Path) -> None:
    study = SlurmStudy(with_frames(folder, local), cluster)
    study.start("--retries", "0")
    run("scancel", study.job_in_training())
    study.break_off()
    older, newest = sorted((folder / CHECKPOINTS).glob("*.pt"))
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 255
    newest.write_bytes(content)
    study.finish()
    text = (folder / LOG).read_text()
    assert f"{newest.name}: damaged" in text
    assert f"going on from {CHECKPOINTS / older.name}" in text
    assert_undisturbed(study, local)


@story
def disk_is_full(cluster: Cluster, local: Path, folder: Path) -> None:
    results = folder / "results"
    results.mkdir(parents=True)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=60m", "tmpfs", results]).returncode != 0:
        missing("mounting a small file system is not allowed here")
    try:
        study = SlurmStudy(with_frames(folder, local), cluster)
        study.start("--retries", "0")
        study.job_in_training()
        with contextlib.suppress(OSError), open(results / "ballast", "wb", buffering=0) as ballast:
            while True:
                ballast.write(bytes(4096))
        text = study.break_off()
        assert "Free some space" in text
        (results / "ballast").unlink()
        study.finish()
        assert study.states() == ["FAILED", "COMPLETED"]
        assert study.went_on()
        assert_undisturbed(study, local)
    finally:
        subprocess.run(["umount", "--lazy", results], check=True)


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
    command = ["snakemake", "--profile", "slurm", "--dry-run", "--quiet"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=os.environ)
    assert result.returncode == 0, result.stderr
