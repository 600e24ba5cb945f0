"""A cheap variant of the demo study, run as Slurm jobs; trainings that can be watched and disturbed."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import yaml
from cluster import Cluster, wait_for

from support import ROOT
from workflow_study import Study

VALUES = {
    "study": "small",
    "simulations": [
        {"name": "trpcage", "topology": "trp_cage.pdb", "trajectory": ["trp_cage.dcd"], "time_step_ps": 100.0}
    ],
    "featurize": {"selection": "name CA", "stride": 5},
    "split": {"n_blocks": 5, "test_blocks": [1, 3], "gap_frames": 2},
    "models": [{"family": "conv2d", "latent_dim": 2}, {"family": "pca_distances", "latent_dim": 2}],
    "train": {"epochs": 40, "batch_size": 32, "threads": 1, "checkpoint_epochs": 1},
    "cluster": {"min_cluster_size": 30},
}
RESULTS = Path("results/small")
MODEL = RESULTS / "models/conv2d-d2/seed0/model.pt"
LATENT = RESULTS / "latent/conv2d-d2/seed0/trpcage.parquet"
LABELS = RESULTS / "clusters/conv2d-d2/seed0/labels.parquet"
CHECKPOINTS = RESULTS / "checkpoints/conv2d-d2/seed0"
LOG = RESULTS / "logs/train_model/conv2d-d2.seed0.log"
COMMENT = "rule_train_model_wildcards_conv2d"


class SlurmStudy(Study):
    """A study in a folder of its own with the link to the profile that the top folder has.

    With a `layout`, resources of several processes, the profile is a copy in which training and mapping have it.
    """

    def __init__(self, folder: Path, cluster: Cluster, target: Path = MODEL, **layout: int | str):
        super().__init__(folder)
        self.cluster, self.target = cluster, target
        if layout:
            profile = yaml.safe_load((ROOT / "slurm" / "config.yaml").read_text())
            for rule in ("train_model", "embed"):
                profile["set-resources"].setdefault(rule, {}).update(layout)
            (folder / "slurm").mkdir(exist_ok=True)
            (folder / "slurm" / "config.yaml").write_text(yaml.safe_dump(profile))
        elif not (folder / "slurm").exists():
            (folder / "slurm").symlink_to(ROOT / "slurm")

    def command(self, *args: str) -> list[str]:
        """As a user types it, but that the status is asked for sooner than on a cluster that others share.

        After every look that finds no job done, the plugin waits 10 s longer: 3, 13, 23 … s suit those of a disturbed
        training; the short jobs of a whole study, one after another, are done after 10 s.
        """
        seconds = "3" if str(self.target) in args else "10"
        command = [sys.executable, "-m", "snakemake", "--profile", "slurm", "--snakefile", str(ROOT / "Snakefile")]
        command += ["--configfile", str(self.config), "--slurm-init-seconds-before-status-checks", seconds]
        return command + list(args)

    def snakemake(self, *args: str, timeout: int = 500, **environment: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            self.command(*args),
            cwd=self.folder, env={**os.environ, **environment}, capture_output=True, text=True, timeout=timeout,
        )  # fmt: skip

    # --- one training, the frames being there already --------------------------------------------------------------

    def start(self, *args: str) -> None:
        """Start to train one model (or what the target is)."""
        with open(self.folder / "out.txt", "wb") as out:
            self.process = subprocess.Popen(
                self.command(str(self.target), *args),
                cwd=self.folder, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True,
            )  # fmt: skip

    def finish(self, *args: str) -> str:
        """Wait for what was started, or run now; expect success. Returns what was printed."""
        return self._end(*args, good=True)

    def break_off(self, *args: str) -> str:
        """Wait for what was started, or run now; expect an error, and no traceback."""
        text = self._end(*args, good=False)
        assert "Traceback" not in text, text[-5000:]
        return text

    def _end(self, *args: str, good: bool) -> str:
        if args or not hasattr(self, "process"):
            self.start(*args)
        try:
            code = self.process.wait(timeout=600)
        except subprocess.TimeoutExpired:
            self.kill_snakemake()
            raise
        text = (self.folder / "out.txt").read_text()
        del self.process
        assert (code == 0) == good, text[-5000:]
        return text

    def kill_snakemake(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        del self.process

    def job_in_training(self, epoch: int = 5) -> str:
        """Wait until the training has done some epochs; the number of its job."""
        wait_for(lambda: self.epoch() >= epoch, f"epoch {epoch} of {self.folder}", 120)
        (job,) = self.cluster.queue(self.folder, COMMENT)
        return job

    def epoch(self) -> int:
        """Epoch of the newest checkpoint, 0 if there is none."""
        names = [path.name for path in (self.folder / CHECKPOINTS).glob("*.pt")]
        return max((int(found[1]) for name in names if (found := re.search(r"epoch(\d+)", name))), default=0)

    def states(self) -> list[str]:
        """How each job that trained ended, in accounting's words, in order."""
        rows = [row for row in self.cluster.accounts(self.folder) if COMMENT in row["Comment"]]
        return [row["State"].split()[0] for row in rows]

    def went_on(self) -> bool:
        """Whether the last training went on from a checkpoint."""
        return "going on from" in (self.folder / LOG).read_text()


def rank_logs(folder: Path) -> list[list[dict]]:
    """What each of two processes noted, see `train.rank_log`."""
    logs = [folder / LOG.with_name(f"{LOG.name}.rank{rank}.jsonl") for rank in (0, 1)]
    return [[json.loads(line) for line in log.read_text().splitlines()] for log in logs]


def new_study(folder: Path, source: Path) -> Path:
    """A folder with the trajectory of `source` and the configuration, nothing done yet."""
    folder.mkdir()
    for name in ("trp_cage.pdb", "trp_cage.dcd"):
        (folder / name).symlink_to(source / name)
    Study(folder).write(VALUES | {})
    return folder


def with_frames(folder: Path, done: Path) -> Path:
    """A copy of the finished study `done` up to its frames, `folder` being empty or not there."""
    later = ("models", "latent", "clusters", "evaluation", "checkpoints", "report.html", "summary.json", "train_model")
    shutil.copytree(done, folder, symlinks=True, dirs_exist_ok=True, ignore=shutil.ignore_patterns(*later))
    return folder
