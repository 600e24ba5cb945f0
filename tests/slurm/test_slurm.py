"""The study as Slurm jobs, on a real Slurm: same results as on one machine, whatever happens to it on the way.

The stories that disturb only their own study run four at a time in the background, for most of their time is waiting;
those that disturb the cluster run alone.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

import pandas
import pytest
from cluster import Cluster, run, wait_for
from sklearn.metrics import adjusted_rand_score
from slurm_study import (
    CHECKPOINTS,
    COMMENT,
    LABELS,
    LATENT,
    LOG,
    MODEL,
    RESULTS,
    VALUES,
    SlurmStudy,
    new_study,
    rank_logs,
    with_frames,
)

from conformer_study import write_mixed
from launchers import need_horovod
from mdlatent import models
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
    "training_job_is_cancelled", "out_of_memory", "two_nodes", "one_node_of_two_gpus", "horovod_over_nodes",
    "a_process_is_killed", "many_small_simulations", "simulations_in_batches", "conformers",
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
def many_small_simulations(cluster: Cluster, local: Path, folder: Path) -> None:
    """With the profile's lines on groups, their jobs go together into one, which asks for what runs at a time in it."""
    names = ["a", "b", "c"]
    baseline = next(model for model in VALUES["models"] if model["family"] == "pca_distances")
    simulations = [VALUES["simulations"][0] | {"name": name} for name in names]
    new_study(folder, local)
    Study(folder).write(VALUES | {"simulations": simulations, "models": [baseline]})
    (folder / "slurm").mkdir()
    head, groups = (ROOT / "slurm" / "config.yaml").read_text().split("# groups:", 1)
    lines = f"# groups:{groups}".replace("side_by_side: 4", "side_by_side: 2").splitlines()
    (folder / "slurm" / "config.yaml").write_text(head + "\n".join(line.removeprefix("# ") for line in lines))

    latent = [RESULTS / "latent" / "pca_distances-d2" / "seed0" / f"{name}.parquet" for name in names]
    SlurmStudy(folder, cluster).run("--", *map(str, latent))
    for rule in ("featurize", "embed"):
        (job,) = [row for row in cluster.accounts(folder) if row["Comment"] == f"rule_{rule}_{rule}"]
        assert "cpu=2," in job["AllocTRES"] and job["State"] == "COMPLETED"
    first, *others = (pandas.read_parquet(folder / path).drop(columns="simulation") for path in latent)
    assert len(first) == 1000
    for other in others:
        pandas.testing.assert_frame_equal(first, other, check_exact=True)


@story
def simulations_in_batches(cluster: Cluster, local: Path, folder: Path) -> None:
    """With `simulations_per_job` a job reads or maps several, as it does by itself for over a hundred simulations."""
    names = ["a", "b", "c"]
    baseline = next(model for model in VALUES["models"] if model["family"] == "pca_distances")
    simulations = [VALUES["simulations"][0] | {"name": name} for name in names]
    new_study(folder, local)
    Study(folder).write(VALUES | {"simulations": simulations, "models": [baseline], "simulations_per_job": 2})
    latent = RESULTS / "latent" / "pca_distances-d2" / "seed0"
    SlurmStudy(folder, cluster).run("--", *(str(latent / f"train00{batch}.json") for batch in range(2)))
    jobs = cluster.accounts(folder)
    for rule in ("read_simulations", "embed_simulations"):
        ran = [row["State"] for row in jobs if row["Comment"].startswith(f"rule_{rule}_")]
        assert ran == ["COMPLETED", "COMPLETED"], (rule, ran)
    first, *others = (
        pandas.read_parquet(folder / latent / f"{name}.parquet").drop(columns="simulation") for name in names
    )
    assert len(first) == 1000
    for other in others:
        pandas.testing.assert_frame_equal(first, other, check_exact=True)


@story
def conformers(cluster: Cluster, local: Path, folder: Path) -> None:
    """The benchmark of conformers as jobs finds what it finds without Slurm, but for the seconds."""
    section = {"references": "mine.sdf", "made_by": "generator", "generators": ["etkdg", "torsions"], "jobs": 2}
    results = RESULTS / "conformers/conformers.json"
    here = folder.with_name("conformers_here")
    for where in (folder, here):
        new_study(where, local)
        write_mixed(where / "mine.sdf")
        Study(where).write(VALUES | {"conformers": section | {"max_heavy_atoms": 30}})
    SlurmStudy(folder, cluster).run("--", str(results))
    Study(here).run("--", str(results))
    jobs = cluster.accounts(folder)
    ran = [row["Comment"].removeprefix("rule_").split("_wildcards_")[0] for row in jobs]
    assert sorted(ran) == ["benchmark_conformers", "benchmark_conformers", "choose_molecules", "collect_conformers"]
    assert {row["State"] for row in jobs} == {"COMPLETED"}
    one, other = (
        pandas.read_parquet(where / results.with_name("molecules.parquet")).drop(columns="cpu_s")
        for where in (folder, here)
    )
    assert set(one["generator"]) == {"etkdg", "torsions"}
    pandas.testing.assert_frame_equal(one, other, check_exact=True)


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


# --- stories of several processes: the results are those of two processes without Slurm ----------------------------

NODES = {"nodes": 2, "tasks": 2, "mpi": "srun", "slurm_extra": "'--gpus-per-node=1 --signal=TERM@60'"}
GPUS = {"nodes": 1, "gpu": 2, "cpus_per_task": 2}


def assert_as_the_pair(study: SlurmStudy, pair: Path) -> None:
    """The weights, the history, the latent and the labels agree bit for bit."""
    (one, _), (other, _) = (models.load(folder / MODEL) for folder in (study.folder, pair))
    assert all((one.state_dict()[name] == value).all() for name, value in other.state_dict().items())
    histories = [pandas.read_csv(folder / MODEL.with_name("history.csv")) for folder in (study.folder, pair)]
    pandas.testing.assert_frame_equal(*(table.drop(columns="seconds") for table in histories), check_exact=True)
    for path in (LATENT, LABELS):
        tables = [pandas.read_parquet(folder / path) for folder in (study.folder, pair)]
        pandas.testing.assert_frame_equal(*tables, check_exact=True)
    assert not (study.folder / CHECKPOINTS).exists()


def assert_each_frame_once(logs: list[list[dict]]) -> None:
    """In every epoch of an undisturbed training: as many frames as there are, the same in all, each in one share."""
    epochs = list(zip(*(log[1:] for log in logs), strict=True))
    assert len(epochs) == VALUES["train"]["epochs"]
    assert len({a["frames"] + b["frames"] for a, b in epochs}) == 1
    assert len({(int(a["checksum"], 16) + int(b["checksum"], 16)) % 2**64 for a, b in epochs}) == 1
    assert all(abs(a["frames"] - b["frames"]) <= a["batches"][1] for a, b in epochs)


def by_two(cluster: Cluster, local: Path, folder: Path, backend: str, **layout) -> list[dict]:
    """Train, map and cluster on a layout; returns what each process said of its place."""
    study = SlurmStudy(with_frames(folder, local), cluster, target=LABELS, **layout)
    if backend != "auto":
        study.write(VALUES | {"train": VALUES["train"] | {"backend": backend}})
        study.run(str(RESULTS / "frames/index.json"))
    study.finish()
    assert study.states() == ["COMPLETED"]
    logs = rank_logs(folder)
    assert_each_frame_once(logs)
    assert_as_the_pair(study, local.parent / "pair")
    return [log[0] for log in logs]


@story
def two_nodes(cluster: Cluster, local: Path, folder: Path) -> None:
    starts = by_two(cluster, local, folder, "auto", **NODES)
    assert [one["node"] for one in starts] == ["mdl1", "mdl2"]
    assert [(one["launcher"], one["backend"], one["local_rank"]) for one in starts] == [("srun", "ddp", 0)] * 2
    assert all(one["gpu"] is not None for one in starts)
    (job,) = [row for row in cluster.accounts(folder) if COMMENT in row["Comment"]]
    assert job["NodeList"] == "mdl[1-2]"
    assert "gres/gpu=2" in job["AllocTRES"]


@story
def one_node_of_two_gpus(cluster: Cluster, local: Path, folder: Path) -> None:
    starts = by_two(cluster, local, folder, "auto", **GPUS)
    assert len({one["node"] for one in starts}) == 1
    assert [one["gpu"] for one in starts] == ["0", "1"]
    assert [(one["launcher"], one["local_rank"]) for one in starts] == [("torchrun", 0), ("torchrun", 1)]
    (job,) = [row for row in cluster.accounts(folder) if COMMENT in row["Comment"]]
    assert "gres/gpu=2" in job["AllocTRES"]


@story
def horovod_over_nodes(cluster: Cluster, local: Path, folder: Path) -> None:
    need_horovod()
    starts = by_two(cluster, local, folder, "horovod", **NODES)
    assert [one["node"] for one in starts] == ["mdl1", "mdl2"]
    assert [(one["launcher"], one["backend"]) for one in starts] == [("srun", "horovod")] * 2


@story
def a_process_is_killed(cluster: Cluster, local: Path, folder: Path) -> None:
    """One of two, on a node of its own: the job fails within a minute, and the retry goes on from the checkpoint."""
    study = SlurmStudy(with_frames(folder, local), cluster, target=LABELS, **NODES)
    study.start()
    job = study.job_in_training()
    os.kill(rank_logs(folder)[1][0]["pid"], signal.SIGKILL)
    wait_for(lambda: job not in cluster.queue(folder, COMMENT), f"job {job} to end", 60)
    study.finish()
    assert study.states() == ["FAILED", "COMPLETED"]
    assert study.went_on()
    assert_as_the_pair(study, local.parent / "pair")


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
