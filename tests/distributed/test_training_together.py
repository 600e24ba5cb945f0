"""The command itself, as several processes: what is written, what survives a stop, and that no death leaves a hang."""

import json
import os
import re
import signal
import subprocess
import time

import numpy as np
import pandas as pd
import psutil
import pytest
import torch
import yaml

import launchers
from launchers import finish, need_horovod, rank_log, start
from mdlatent.feed import Tally

LAUNCHERS = [("torchrun", "ddp"), ("mpirun", "ddp"), ("mpirun", "horovod"), ("horovodrun", "horovod")]
WAYS = pytest.mark.parametrize(("launcher", "backend"), LAUNCHERS, ids=lambda value: value)


def need(launcher, backend):
    if backend == "horovod":
        need_horovod(mpi=launcher == "mpirun")


def wait_until(condition, process, deadline_s=120):
    end = time.monotonic() + deadline_s
    while not condition():
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < end
        time.sleep(0.02)


def has_checkpoint(folder):
    return lambda: bool(list((folder / "checkpoints").glob("[!.]*.pt")))


@WAYS
def test_each_frame_once_and_only_process_0_writes(arguments, tmp_path, launcher, backend):
    need(launcher, backend)
    finish(start(launcher, "mdlatent.train", arguments(tmp_path, backend=backend)))
    starts, epochs = zip(
        *((log[0], log[1:]) for log in (rank_log(tmp_path / "train.log", k) for k in (0, 1))), strict=True
    )
    assert [one["rank"] for one in starts] == [one["local_rank"] for one in starts] == [0, 1]
    assert {one["launcher"] for one in starts} == {launcher}
    assert {one["backend"] for one in starts} == {backend}
    assert starts[0]["pid"] != starts[1]["pid"]
    record = yaml.safe_load((tmp_path / "out" / "config.yaml").read_text())
    assert record["parallel"] == {"backend": backend, "processes": 2}
    n = record["n_frames"]["train"]
    sums = set()
    for epoch, (one, other) in enumerate(zip(*epochs, strict=True), 1):
        assert one["epoch"] == other["epoch"] == epoch
        assert one["frames"] + other["frames"] == n
        assert abs(one["frames"] - other["frames"]) <= one["batches"][1]
        sums.add((int(one["checksum"], 16) + int(other["checksum"], 16)) % 2**64)
    assert len(sums) == 1  # the same frames in each epoch, in shares drawn anew
    assert len({one["checksum"] for one in epochs[0]}) == 3
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["config.yaml", "history.csv", "model.pt"]
    names = {"out", "train.log", "train.log.rank0.jsonl", "train.log.rank1.jsonl"}
    assert {path.name for path in tmp_path.iterdir()} == names  # no checkpoint, no file of the meeting


def test_the_check_sum_tells_a_frame_twice_from_two_frames():
    def tally(*rows):
        result = Tally()
        result.add(np.array(rows))
        return result.take()

    assert tally(1, 2, 3) == tally(3, 1, 2)
    assert tally(1, 2, 3)[1] != tally(1, 2, 2)[1]
    assert tally(0, 3)[1] != tally(1, 2)[1]


@WAYS
def test_one_process_killed_ends_the_others_soon(arguments, tmp_path, launcher, backend):
    need(launcher, backend)
    process = start(launcher, "mdlatent.train", arguments(tmp_path, epochs=100_000, backend=backend))
    wait_until(has_checkpoint(tmp_path), process)
    pids = [rank_log(tmp_path / "train.log", rank)[0]["pid"] for rank in (0, 1)]
    os.kill(pids[1], signal.SIGKILL)
    killed = time.monotonic()
    finish(process, None, timeout_s=60)
    while any(alive(pid) for pid in pids):  # mpirun does not wait for them
        assert time.monotonic() - killed < 60
        time.sleep(0.1)
    assert not (tmp_path / "out" / "model.pt").exists()


def alive(pid):
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def by_hand(arguments, n=2):
    """As srun starts a step, but nobody looks after the processes."""
    step = {"SLURM_STEP_NUM_TASKS": str(n), "SLURM_JOB_ID": str(os.getpid()), "SLURM_STEP_ID": "0"}
    step |= {"SLURMD_NODENAME": "here"}
    return [
        start("python", "mdlatent.train", arguments, SLURM_PROCID=str(rank), SLURM_LOCALID=str(rank), **step)
        for rank in range(n)
    ]


@pytest.mark.parametrize("backend", ["ddp", "horovod"])
@pytest.mark.parametrize("victim", [0, 1])
def test_without_a_launcher_nobody_waits_for_the_dead(arguments, tmp_path, backend, victim):
    need("python", backend)
    processes = by_hand(arguments(tmp_path, epochs=100_000, backend=backend))
    wait_until(has_checkpoint(tmp_path), processes[0])
    processes[victim].kill()
    killed = time.monotonic()
    text = finish(processes[1 - victim], None, timeout_s=60)
    assert time.monotonic() - killed < 30
    assert f"process {victim} of 2, on here, ended before its work was done" in text
    assert processes[1 - victim].returncode == 1
    processes[victim].communicate()


def test_a_frozen_start_is_said(arguments, tmp_path):
    """One process of two never comes."""
    step = {
        "SLURM_STEP_NUM_TASKS": "2",
        "SLURM_JOB_ID": "1",
        "SLURM_STEP_ID": "0",
        "SLURM_PROCID": "1",
        "SLURM_LOCALID": "1",
    }
    code = "import sys; from mdlatent import lifeline, stage, train; lifeline.START_S = 1.0"
    code += "; stage.run(train.main, sys.argv[1:])"
    command = [*launchers.command("python"), "-c", code, *arguments(tmp_path)]
    done = subprocess.run(command, env=launchers.environment(**step), capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "process 1 of 2, started by srun" in done.stderr
    assert "did not find process 0" in done.stderr
    assert "Traceback" not in done.stderr


@WAYS
@pytest.mark.parametrize("told", [signal.SIGTERM, signal.SIGUSR1])
def test_told_to_stop_and_started_again_the_bits_are_the_same(
    arguments, tmp_path, state, same, launcher, backend, told
):
    """Process 1 alone is told; all stop after the same step."""
    need(launcher, backend)
    if told == signal.SIGUSR1 and launcher != "torchrun":
        pytest.skip("the signals differ in their number alone; one launcher suffices")
    settings = {"epochs": 25, "batch_size": 8, "checkpoint_epochs": 5, "backend": backend}
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    process = start(launcher, "mdlatent.train", arguments(broken, **settings))
    wait_until(has_checkpoint(broken), process)
    os.kill(rank_log(broken / "train.log", 1)[0]["pid"], told)
    text = finish(process, None)
    assert "told to stop" in text
    (newest,) = sorted((broken / "checkpoints").glob("*.pt"))[-1:]
    stop = re.search(r"epoch(\d+)-step(\d+)", newest.name)
    logs = [rank_log(broken / "train.log", rank) for rank in (0, 1)]
    assert all(log[-1]["batches"][1] in (int(stop[2]), 19) for log in logs)
    assert logs[0][-1]["batches"] == logs[1][-1]["batches"]
    assert logs[0][-1]["epoch"] == logs[1][-1]["epoch"]
    finish(start(launcher, "mdlatent.train", arguments(broken, **settings)))
    assert "going on from" in (broken / "train.log").read_text()
    finish(start(launcher, "mdlatent.train", arguments(whole, **settings)))
    assert same(state(whole), state(broken))
    histories = [pd.read_csv(folder / "out" / "history.csv").drop(columns="seconds") for folder in (whole, broken)]
    pd.testing.assert_frame_equal(*histories, check_exact=True)
    assert not (broken / "checkpoints").exists()


def test_running_statistics_survive_a_stop(arguments, tmp_path, state, same):
    """As above, for a model with batch norm, whose buffers only process 0 saves."""
    settings = {"model": "resnet1d-d2", "epochs": 6, "batch_size": 8, "checkpoint_epochs": 1}
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    process = start("torchrun", "mdlatent.train", arguments(broken, **settings))
    wait_until(has_checkpoint(broken), process)
    os.kill(rank_log(broken / "train.log", 1)[0]["pid"], signal.SIGTERM)
    assert "told to stop" in finish(process, None)
    finish(start("torchrun", "mdlatent.train", arguments(broken, **settings)))
    assert "going on from" in (broken / "train.log").read_text()
    finish(start("torchrun", "mdlatent.train", arguments(whole, **settings)))
    assert any("running_square" in name for name in state(whole))
    assert same(state(whole), state(broken))


def test_the_exit_code_asks_to_be_run_again(arguments, tmp_path):
    processes = by_hand(arguments(tmp_path, epochs=100_000))
    wait_until(has_checkpoint(tmp_path), processes[0])
    processes[0].terminate()
    for process in processes:
        finish(process, 75)


def test_killed_and_started_again_the_bits_are_the_same(arguments, tmp_path, state, same):
    settings = {"epochs": 25, "batch_size": 8, "checkpoint_epochs": 2}
    process = start("torchrun", "mdlatent.train", arguments(tmp_path / "broken", **settings))
    wait_until(has_checkpoint(tmp_path / "broken"), process)
    os.kill(rank_log(tmp_path / "broken" / "train.log", 0)[0]["pid"], signal.SIGKILL)
    finish(process, None, timeout_s=60)
    for folder in ("broken", "whole"):
        finish(start("torchrun", "mdlatent.train", arguments(tmp_path / folder, **settings)))
    assert "going on from" in (tmp_path / "broken" / "train.log").read_text()
    assert same(state(tmp_path / "whole"), state(tmp_path / "broken"))


def test_a_checkpoint_of_two_processes_serves_one_and_it_is_said(arguments, tmp_path, state):
    settings = {"epochs": 20, "batch_size": 8}
    process = start("torchrun", "mdlatent.train", arguments(tmp_path / "broken", **settings))
    wait_until(has_checkpoint(tmp_path / "broken"), process)
    os.kill(rank_log(tmp_path / "broken" / "train.log", 1)[0]["pid"], signal.SIGTERM)
    finish(process, None)
    for folder in ("broken", "whole"):
        finish(start("python", "mdlatent.train", arguments(tmp_path / folder, **settings)))
    log = (tmp_path / "broken" / "train.log").read_text()
    assert "going on from" in log
    assert "checkpoint is one of 2 processes, now there are 1" in log
    for name, value in state(tmp_path / "whole").items():
        torch.testing.assert_close(state(tmp_path / "broken")[name], value, rtol=0.05, atol=0.01)


def test_a_user_s_mistake_is_said_once_and_ends_all(arguments, tmp_path):
    text = finish(start("torchrun", "mdlatent.train", arguments(tmp_path, backend="single")), None)
    assert "train.backend: got `single`, but torchrun started 2 processes" in text
    assert "Traceback" not in text.split("torch/distributed")[0]


@pytest.mark.parametrize("family", ["conv2d-d2", "pca_distances-d2"])
def test_mapping_by_several_gives_the_same_table(index, arguments, tmp_path, family):
    finish(start("torchrun", "mdlatent.train", arguments(tmp_path, model=family)))
    tables = []
    for launcher, size in (("python", 1), ("torchrun", 2), ("torchrun", 3)):
        table = tmp_path / f"{launcher}{size}.parquet"
        words = [f"--frames={index}", f"--model={tmp_path / 'out/model.pt'}", "--simulation=a", f"--output={table}"]
        finish(start(launcher, "mdlatent.embed", [*words, "--device=cpu"], size))
        tables.append(pd.read_parquet(table))
    for table in tables[1:]:
        pd.testing.assert_frame_equal(table, tables[0], check_exact=True)
    assert not list(tmp_path.glob(".*"))


def test_fitted_models_are_the_same_by_several(arguments, tmp_path, state, same):
    for folder, launcher in (("one", "python"), ("two", "torchrun")):
        finish(start(launcher, "mdlatent.train", arguments(tmp_path / folder, model="pca_distances-d2")))
    assert same(state(tmp_path / "one"), state(tmp_path / "two"))
    record = [yaml.safe_load((tmp_path / folder / "out/config.yaml").read_text()) for folder in ("one", "two")]
    assert json.dumps(record[0]["measured"]["validation_distance_rmse_nm"]) == json.dumps(
        record[1]["measured"]["validation_distance_rmse_nm"]
    )
