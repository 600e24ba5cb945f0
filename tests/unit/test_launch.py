"""How a process was started, and how several meet; what works over several processes is in tests/distributed."""

import json
import socket
import threading

import pytest
import torch

from mdlatent import lifeline, nested_tensors, parallel
from mdlatent.errors import ConfigError, DataError, ProcessLost
from mdlatent.launch import Launch, find

SLURM = {
    "SLURM_JOB_ID": "7",
    "SLURM_STEP_ID": "0",
    "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_PROCID": "3",
    "SLURM_LOCALID": "1",
}
TORCHRUN = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "TORCHELASTIC_RUN_ID": "a", "MASTER_PORT": "1"}
OPENMPI = {"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_LOCAL_RANK": "1"}
HOROVODRUN = {"HOROVOD_RANK": "0", "HOROVOD_SIZE": "3", "HOROVOD_LOCAL_RANK": "0"}


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    """What is tested here in threads is done by processes of their own, which end at once (`lifeline.leave`)."""
    monkeypatch.setattr(lifeline, "_met", False)


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, ("python", 0, 1, 0)),
        (SLURM, ("srun", 3, 4, 1)),
        (TORCHRUN, ("torchrun", 1, 2, 0)),
        (OPENMPI, ("mpirun", 1, 2, 1)),
        (HOROVODRUN, ("horovodrun", 0, 3, 0)),
        (SLURM | TORCHRUN, ("torchrun", 1, 2, 0)),  # torchrun on each node of a step
        (SLURM | OPENMPI, ("mpirun", 1, 2, 1)),
        ({"SLURM_JOB_ID": "7", "SLURM_NTASKS": "4", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}, ("python", 0, 1, 0)),
        (SLURM | {"SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}, ("python", 0, 1, 0)),
    ],
    ids=[
        "alone",
        "srun",
        "torchrun",
        "mpirun",
        "horovodrun",
        "torchrun in srun",
        "mpirun in srun",
        "batch",
        "one task",
    ],
)
def test_the_launcher_is_recognised(environment, expected):
    found = find(environment)
    assert (found.launcher, found.rank, found.size, found.local_rank) == expected


def test_processes_of_one_start_and_no_other_share_an_identity():
    other_rank = {"SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURMD_NODENAME": "n2"}
    assert find(SLURM).identity == find(SLURM | other_rank).identity
    assert find(SLURM).identity != find(SLURM | {"SLURM_STEP_ID": "1"}).identity
    assert find(SLURM).identity != find(SLURM | {"SLURM_RESTART_COUNT": "1"}).identity


def test_nonsense_from_a_launcher_is_refused():
    with pytest.raises(ConfigError, match=r"got SLURM_PROCID=4, .* expected numbers with rank < size"):
        find(SLURM | {"SLURM_PROCID": "4"})


@pytest.mark.parametrize(
    ("wanted", "size", "backend"),
    [("auto", 1, "single"), ("horovod", 1, "single"), ("auto", 2, "ddp"), ("ddp", 2, "ddp"), ("horovod", 2, "horovod")],
)
def test_the_backend(wanted, size, backend):
    assert parallel.choose(wanted, launch(0, size)) == backend


def test_single_with_several_processes_is_refused():
    with pytest.raises(ConfigError, match="got `single`, but srun started 2 processes; choose `ddp`"):
        parallel.choose("single", launch(0, 2))


def test_a_gpu_of_its_own():
    assert [parallel.gpu_index(k, 4) for k in range(4)] == [0, 1, 2, 3]
    assert parallel.gpu_index(3, 1) == 0  # each is shown one
    with pytest.raises(ConfigError, match="got process 3 on this node and 2 GPUs"):
        parallel.gpu_index(2, 2)


def test_tensors_are_taken_out_of_a_state_and_put_back():
    state = {"a": [torch.ones(2), (3, None)], "b": {5: torch.tensor(2.0), "t": "text"}}
    tensors = []
    plan = nested_tensors.take_tensors(state, tensors)
    assert plan["tensors"] == [((2,), torch.float32), ((), torch.float32)]
    back = nested_tensors.put_tensors(plan["value"], [tensor + 1 for tensor in tensors])
    assert back["a"][0].tolist() == [2, 2]
    assert back["a"][1] == (3, None)
    assert back["b"] == {5: torch.tensor(3.0), "t": "text"}


# The meeting, with threads for processes


def launch(rank, size=2):
    return Launch("srun", rank, size, rank, f"node{rank}", "abc")


def meet(folder, size, work):
    """Run `work(line)` as each of `size` processes; returns what each returned or raised."""
    results = [None] * size

    def run(rank):
        try:
            with lifeline.together(launch(rank, size), folder / "run") as line:
                results[rank] = work(line)
        except Exception as error:
            results[rank] = error

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    return results


def test_all_meet_and_know_one_another(tmp_path):
    def work(line):
        return line.nodes, line.local_ranks, line.interface, line.tell({"port": 5} if line.launch.rank == 0 else None)

    for nodes, local_ranks, interface, told in meet(tmp_path, 4, work):
        assert nodes == [f"node{k}" for k in range(4)]
        assert local_ranks == [0, 1, 2, 3]
        assert interface == "lo"
        assert told == {"port": 5}
    assert not list(tmp_path.iterdir())


def test_strangers_and_the_file_of_a_killed_start_do_no_harm(tmp_path):
    stale = tmp_path / ".run.meeting-abc.json"
    with socket.create_server(("", 0)) as dead:
        port = dead.getsockname()[1]
    stale.write_text(json.dumps({"token": "0" * 32, "port": port, "host": "nowhere.invalid", "addresses": []}))
    found = threading.Event()

    def stranger():
        while not found.is_set():
            try:
                offer = json.loads(stale.read_text())
                if offer["port"] != port:
                    with socket.create_connection(("127.0.0.1", offer["port"])) as connection:
                        connection.sendall(b'{"token": "wrong", "rank": 1}\n')
                    found.set()
            except (OSError, ValueError):
                pass

    thread = threading.Thread(target=stranger, daemon=True)
    thread.start()

    assert meet(tmp_path, 2, lambda line: line.launch.rank) == [0, 1]
    found.set()
    thread.join(5)


def test_who_does_not_come_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(lifeline, "START_S", 0.5)
    with pytest.raises(ProcessLost, match=r"of 3 processes started by srun, \[1, 2\] did not come"):
        lifeline.together(launch(0, 3), tmp_path / "run").__enter__()
    with pytest.raises(ProcessLost, match="process 1 of 3, started by srun on node1, did not find process 0"):
        lifeline.together(launch(1, 3), tmp_path / "run").__enter__()
    assert not list(tmp_path.iterdir())


def test_an_error_in_one_reaches_the_others(tmp_path, monkeypatch):
    """Whoever meets the consequence of a death says the death, not the consequence."""
    monkeypatch.setattr(lifeline, "_end_in_any_case", lambda: None)

    def work(line):
        if line.launch.rank == 1:
            raise DataError("mine")
        if line.launch.rank == 0:
            line.wait_for_loss(10)
        raise RuntimeError("connection closed by peer")

    first, second = meet(tmp_path, 2, work)
    assert isinstance(second, DataError)
    assert isinstance(first, ProcessLost)
    assert "process 1 of 2, on node1, ended before its work was done" in str(first)
