"""Data-parallel work by several processes: torch's DistributedDataParallel, Horovod, or none.

One interface (group.py), three backends. GPUs talk by NCCL, CPUs by Gloo or, under Horovod started by mpirun, by MPI.

Sums are made in a fixed order (fixed buckets), so that a run resumed with as many processes gives the same bits. With
another number of processes, sums are rounded differently.
"""

import contextlib
from collections.abc import Iterator

import torch

from mdlatent.ddp_group import DdpGroup
from mdlatent.errors import ConfigError, Interrupted
from mdlatent.group import Group, Loss
from mdlatent.horovod_group import HorovodGroup
from mdlatent.launch import Launch
from mdlatent.lifeline import Line

__all__ = ["Group", "Loss", "choose", "gpu_index", "joined"]


def choose(wanted: str, launch: Launch) -> str:
    """The backend for what `train.backend` says: single, ddp or horovod.

    Raises ConfigError for `single` in several processes, which would all do the same.
    """
    if launch.size == 1:
        return "single"
    if wanted == "single":
        raise ConfigError(
            f"train.backend: got `single`, but {launch.launcher} started {launch.size} processes; choose `ddp` or "
            "`horovod`, or start one process"
        )
    return "ddp" if wanted == "auto" else wanted


@contextlib.contextmanager
def joined(wanted: str, line: Line, device: str) -> "Iterator[Group]":
    """A group with the other processes for the time of the block; they part once all have finished, or all stopped.

    `device` is cpu or cuda, where each process then has a GPU of its own.

    Raises ConfigError if Horovod is wanted and not installed, or if there are fewer GPUs than processes.
    """
    backend = choose(wanted, line.launch)
    if backend == "single":
        yield Group()
        return
    if device == "cuda":
        torch.cuda.set_device(gpu_index(line.launch.local_rank, torch.cuda.device_count()))
    group = HorovodGroup(line, device) if backend == "horovod" else DdpGroup(line, device)
    if device == "cuda":
        _refuse_shared_gpus(group, line)
    try:
        yield group
    except Interrupted:
        group.shut_down()
        raise
    group.shut_down()


def gpu_index(local_rank: int, n_visible: int) -> int:
    """Which of the GPUs that this process sees is its own: where each is shown just one, that one.

    >>> gpu_index(1, 4), gpu_index(1, 1)
    (1, 0)
    """
    if n_visible > 1 and local_rank >= n_visible:
        raise ConfigError(
            f"got process {local_rank + 1} on this node and {n_visible} GPUs, expected a GPU per process; start as "
            "many processes per node as it has GPUs, or set train.device to `cpu`"
        )
    return local_rank if n_visible > 1 else 0


def _refuse_shared_gpus(group: Group, line: Line) -> None:
    """Raise ConfigError if two processes work on one GPU: it would be slow, and NCCL refuses it less clearly."""
    uuid = str(torch.cuda.get_device_properties(torch.cuda.current_device()).uuid)
    number = int(uuid.replace("-", "").removeprefix("GPU")[:12], 16)
    mine = torch.zeros(group.size, dtype=torch.float64)
    mine[group.rank] = number
    owners = [(node, int(one)) for node, one in zip(line.nodes, group.sum(mine), strict=True)]
    if len(set(owners)) < len(owners):
        raise ConfigError(
            f"got {group.size} processes on {len(set(owners))} GPUs, expected a GPU per process; ask for as many GPUs "
            "as processes, or set train.device to `cpu`"
        )
