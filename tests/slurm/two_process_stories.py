"""Stories of several processes: the results are those of two processes without Slurm."""

import os
import signal
from pathlib import Path

import pandas
from cluster import Cluster, wait_for
from slurm_study import CHECKPOINTS, COMMENT, LABELS, LATENT, MODEL, RESULTS, VALUES, SlurmStudy, rank_logs, with_frames
from stories import story

from launchers import need_horovod
from mdlatent import models

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
