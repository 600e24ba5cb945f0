"""Stories of one training that something happens to: it goes on, and ends as if nothing had."""

import contextlib
import subprocess
from datetime import datetime, timedelta
from pathlib import Path

from cluster import Cluster, run, wait_for
from slurm_study import CHECKPOINTS, COMMENT, LOG, MODEL, RESULTS, VALUES, SlurmStudy, with_frames
from stories import assert_undisturbed, story

from support import missing
from workflow_study import Study


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
    job, soon = study.job_in_training(), datetime.now() + timedelta(seconds=2)  # Slurm takes no time in the past
    run("scontrol", "update", f"JobId={job}", f"EndTime={soon:%Y-%m-%dT%H:%M:%S}")
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
