"""How this process was started: alone (`python`) or as one of several (torchrun, srun, mpirun, horovodrun).

Everything is read from the environment that the launcher leaves; no launcher is asked, nothing heavy is imported.
"""

import hashlib
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass

from mdlatent.errors import ConfigError

__all__ = ["Launch", "find"]


@dataclass(frozen=True)
class Launch:
    """The place of this process among those started together."""

    launcher: str  # python, torchrun, horovodrun, mpirun, srun
    rank: int  # 0 … size − 1
    size: int
    local_rank: int  # number among the processes of this node
    node: str  # name of the node, as the cluster calls it
    identity: str  # the same for all processes of one start, another one for every start


# Launcher, variables of rank, size and rank on the node, variables that tell one start from another. The first whose
# variables are all there counts: what is started inside a Slurm step by torchrun or mpirun also sees Slurm's. Slurm's
# are those of the step: a batch script sees a number of tasks too, but is itself one process.
_KNOWN = (
    ("torchrun", ("RANK", "WORLD_SIZE", "LOCAL_RANK"),
     ("TORCHELASTIC_RUN_ID", "MASTER_PORT", "TORCHELASTIC_RESTART_COUNT")),
    ("horovodrun", ("HOROVOD_RANK", "HOROVOD_SIZE", "HOROVOD_LOCAL_RANK"), ("HOROVOD_GLOO_RENDEZVOUS_PORT",)),
    ("mpirun", ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK"), ("PMIX_NAMESPACE",)),
    ("mpirun", ("PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID"), ("PMI_FD", "PMI_PORT")),
    ("srun", ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID"),
     ("SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_RESTART_COUNT")),
)  # fmt: skip


def find(environment: Mapping[str, str] = os.environ) -> Launch:
    """The place of this process. Raises ConfigError if a launcher's variables make no sense.

    >>> find({"RANK": "1", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "SLURM_JOB_ID": "7"}).launcher
    'torchrun'
    """
    node = environment.get("SLURMD_NODENAME") or socket.gethostname()
    for launcher, names, once in _KNOWN:
        if not all(name in environment for name in names):
            continue
        try:
            rank, size, local_rank = (int(environment[name]) for name in names)
        except ValueError:
            rank, size, local_rank = -1, 0, -1
        if not (0 <= rank < size and 0 <= local_rank < size):
            got = ", ".join(f"{name}={environment[name]}" for name in names)
            raise ConfigError(f"got {got}, expected numbers with rank < size; start it by {launcher}, or unset them")
        if size == 1:
            break
        text = "\n".join([launcher, str(size)] + [environment.get(name, "") for name in once])
        return Launch(launcher, rank, size, local_rank, node, hashlib.sha256(text.encode()).hexdigest()[:12])
    return Launch("python", 0, 1, 0, node, "")
