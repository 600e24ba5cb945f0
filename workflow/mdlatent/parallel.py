"""Data-parallel work by several processes: torch's DistributedDataParallel, Horovod, or none.

One interface, three backends. Each process takes its share `[rank::size]` of every global batch; a share is weighted
by its frames over the frames of the global batch, and gradients are summed, so that the result is the gradient of the
mean over the global batch whatever the shares (one may be empty). GPUs talk by NCCL, CPUs by Gloo or, under Horovod
started by mpirun, by MPI. Nothing else in the package knows torch.distributed or Horovod.

Sums are made in a fixed order (fixed buckets), so that a run resumed with as many processes gives the same bits. With
another number of processes, sums are rounded differently.
"""

import contextlib
import os
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, nn

from mdlatent.errors import ConfigError, Interrupted
from mdlatent.launch import Launch
from mdlatent.lifeline import Line
from mdlatent.models.base import LatentModel

__all__ = ["Group", "choose", "joined"]

TIMEOUT_S = (
    1800.0  # for one exchange: a process that is gone is noticed much sooner (lifeline.py), one that hangs is not
)

Loss = Callable[[Tensor, float | Tensor, Tensor | None], dict[str, Tensor]]


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
    group = _Horovod(line, device) if backend == "horovod" else _Ddp(line, device)
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


class Group:
    """The processes that work together; this class itself is the single one, which exchanges nothing."""

    backend = "single"
    rank, size = 0, 1
    scale = 1.0  # factor on every loss before its backward pass, see `_Ddp`

    @property
    def is_main(self) -> bool:
        """Whether this is process 0, the only one that writes results."""
        return self.rank == 0

    def wrap(self, model: LatentModel, sample: Tensor) -> Loss:
        """`model.loss`, made so that gradients are summed over the processes; all start from process 0's weights.

        `sample` is a batch of any one frame, in nm (`Feed.any_frame`).
        """
        return model.loss

    def adding(self, last: bool) -> contextlib.AbstractContextManager[None]:
        """Around forward and backward of one piece of a batch: gradients are exchanged in the last one."""
        return contextlib.nullcontext()

    def finish_gradients(self) -> None:
        """After the last piece: wait until the gradients are those of the global batch."""

    def sum(self, values: Tensor) -> Tensor:
        """Sum of a tensor over the processes, on the device of `values`, the same bits in each."""
        return values

    def any(self, *flags: Any) -> tuple[bool, ...]:
        """For each flag, whether it is true in any process: all decide alike."""
        return tuple(bool(flag) for flag in flags)

    def broadcast(self, value: Any) -> Any:
        """Process 0's value (dicts, lists and tuples of tensors and plain values), in every process; on the CPU."""
        return value

    def wait_for_main(self) -> None:
        """Return once process 0 has come here too, however long that takes."""

    def shut_down(self) -> None:
        """Part from the others, at the end of work that all have finished."""


class _Several(Group):
    """What both backends share: they give `_add` and `_copy` (in place) and `_copy_object`."""

    def __init__(self, line: Line, device: str) -> None:
        self.rank, self.size, self.line, self.device = line.launch.rank, line.launch.size, line, device

    def _add(self, values: Tensor) -> None:
        raise NotImplementedError

    def _copy(self, values: Tensor) -> None:
        raise NotImplementedError

    def _copy_object(self, value: Any) -> Any:
        raise NotImplementedError

    def sum(self, values: Tensor) -> Tensor:
        total = values.detach().to("cpu", copy=True).contiguous()
        self._add(total)
        return total.to(values.device)

    def any(self, *flags: Any) -> tuple[bool, ...]:
        counts = torch.tensor([float(bool(flag)) for flag in flags])
        self._add(counts)
        return tuple(bool(count) for count in counts)

    def broadcast(self, value: Any) -> Any:
        tensors: list[Tensor] = []
        plan = self._copy_object(_take_tensors(value, tensors) if self.is_main else None)
        if not self.is_main:
            tensors = [torch.empty(shape, dtype=dtype) for shape, dtype in plan["tensors"]]
        for tensor in tensors:
            self._copy(tensor)
        return _put_tensors(plan["value"], tensors)

    def wait_for_main(self) -> None:
        self.line.tell()


class _Ddp(_Several):
    """torch's DistributedDataParallel: gradients travel in buckets while the backward pass goes on."""

    backend = "ddp"

    def __init__(self, line: Line, device: str) -> None:
        import torch.distributed as dist

        super().__init__(line, device)
        if line.interface:
            os.environ.setdefault("GLOO_SOCKET_IFNAME", line.interface)
        timeout = timedelta(seconds=TIMEOUT_S)
        # CPU tensors (counts, sums, checkpoints) go by Gloo in any case.
        kind = "cpu:gloo,cuda:nccl" if device == "cuda" else "gloo"
        server = dist.TCPStore("0.0.0.0", 0, self.size, True, timeout, wait_for_workers=False) if self.is_main else None
        port = line.tell(server.port if server else None)
        store = server or dist.TCPStore(line.main_address, port, self.size, False, timeout)
        dist.init_process_group(kind, store=store, rank=self.rank, world_size=self.size, timeout=timeout)
        self._dist = dist
        self.scale = float(self.size)  # DDP divides the sum by it
        self._model: nn.parallel.DistributedDataParallel | None = None

    def wrap(self, model: LatentModel, sample: Tensor) -> Loss:
        self._model = nn.parallel.DistributedDataParallel(
            _LossOf(model), forward_sync_buffers=False, gradient_as_bucket_view=True
        )
        # Buckets are laid out anew after the first backward pass. Had training made that pass, the first step of a
        # resumed run would add in another order than the same step of a run that went through.
        was_training = model.training
        model.eval()
        (self._model(sample, 1.0, sample.new_zeros(1, model.n_noise))["loss"] * 0.0).backward()
        model.zero_grad()
        model.train(was_training)
        return self._model

    def adding(self, last: bool) -> contextlib.AbstractContextManager[None]:
        assert self._model is not None
        return contextlib.nullcontext() if last else self._model.no_sync()

    def _add(self, values: Tensor) -> None:
        self._dist.all_reduce(values)

    def _copy(self, values: Tensor) -> None:
        self._dist.broadcast(values, 0)

    def _copy_object(self, value: Any) -> Any:
        box = [value]
        self._dist.broadcast_object_list(box, 0, device=torch.device("cpu"))
        return box[0]

    def shut_down(self) -> None:
        """Nothing: to destroy the group can wait for ever (see `lifeline.leave`); it ends with the process."""


class _Horovod(_Several):
    """Horovod: each gradient is handed to it as soon as it is complete.

    Its DistributedOptimizer is not used: it averages, where exact weights ask for a sum, counts a fixed number of
    backward passes, and drops the optimizer's state when it wraps it.
    """

    backend = "horovod"

    def __init__(self, line: Line, device: str) -> None:
        super().__init__(line, device)
        # What is fused with what depends on timing, and with it, from three processes on, the order of the sums.
        os.environ.setdefault("HOROVOD_FUSION_THRESHOLD", "0")
        try:
            import horovod.torch as hvd
        except ImportError as error:
            raise ConfigError(
                f"train.backend: got `horovod`, but it cannot be imported here ({error}); `make horovod` builds and "
                "installs it, or choose `ddp`"
            ) from error
        by_mpi = line.launch.launcher == "mpirun" and hvd.mpi_built()
        server = None if by_mpi or line.launch.launcher == "horovodrun" else _horovod_rendezvous(line)
        hvd.init()
        if (hvd.rank(), hvd.size()) != (self.rank, self.size):
            raise ConfigError(
                f"Horovod: got process {hvd.rank()} of {hvd.size()}, expected {self.rank} of {self.size} as "
                f"{line.launch.launcher} says; start all by one launcher, or choose `ddp`"
            )
        self._hvd, self._server = hvd, server
        self._through_host = device == "cuda" and not hvd.nccl_built()
        self._handles: list[tuple[Tensor, int]] = []
        self._last = True

    def wrap(self, model: LatentModel, sample: Tensor) -> Loss:
        model.load_state_dict(self.broadcast(model.state_dict()))
        for number, parameter in enumerate(model.parameters()):
            if parameter.requires_grad:
                parameter.register_post_accumulate_grad_hook(self._hook(f"gradient.{number}"))
        return model.loss

    def _hook(self, name: str) -> Callable[[Tensor], None]:
        def hand_over(parameter: Tensor) -> None:
            gradient = parameter.grad
            if self._last and gradient is not None:
                values = gradient.cpu() if self._through_host else gradient
                handle = self._hvd.allreduce_async_(values, name=name, op=self._hvd.Sum)
                self._handles.append((gradient, handle))

        return hand_over

    @contextlib.contextmanager
    def adding(self, last: bool) -> Any:
        self._last = last
        yield

    def finish_gradients(self) -> None:
        for gradient, handle in self._handles:
            values = self._hvd.synchronize(handle)
            if self._through_host:
                gradient.copy_(values)
        self._handles.clear()

    def _add(self, values: Tensor) -> None:
        self._hvd.allreduce_(values, name="sum", op=self._hvd.Sum)

    def _copy(self, values: Tensor) -> None:
        if values.dim():
            self._hvd.broadcast_(values, 0, name="copy")
        else:  # it has no scalars
            values.copy_(self._hvd.broadcast(values[None], 0, name="copy")[0])

    def _copy_object(self, value: Any) -> Any:
        return self._hvd.broadcast_object(value, 0, name="object")

    def shut_down(self) -> None:
        self._hvd.shutdown()
        if self._server:
            self._server.stop()


class _LossOf(nn.Module):
    """DDP watches `forward`; ours is the loss."""

    def __init__(self, model: LatentModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, coordinates: Tensor, beta: float | Tensor, noise: Tensor | None) -> dict[str, Tensor]:
        """As `LatentModel.loss`."""
        return self.model.loss(coordinates, beta, noise)


def _horovod_rendezvous(line: Line) -> Any:
    """Give Horovod what `horovodrun` would: process 0 serves the addresses, the environment tells each its place.

    So it runs under srun and torchrun, and under an mpirun for which it was not built. Returns the server or None.
    """
    from horovod.runner.common.util.hosts import SlotInfo
    from horovod.runner.http.http_server import RendezvousServer

    size, nodes = line.launch.size, list(dict.fromkeys(line.nodes))
    local_sizes = {node: line.nodes.count(node) for node in nodes}
    slots = []
    for rank, (node, local_rank) in enumerate(zip(line.nodes, line.local_ranks, strict=True)):
        with_such = [
            name for name in nodes if local_sizes[name] > local_rank
        ]  # nodes that have a process of this number
        cross = with_such.index(node), len(with_such)
        slots.append(SlotInfo(node, rank, local_rank, cross[0], size, local_sizes[node], cross[1]))
    server = RendezvousServer() if line.launch.rank == 0 else None
    if server:
        port = server.start()
        server.init(slots)
    port = line.tell(port if server else None)
    mine = slots[line.launch.rank]
    os.environ |= {
        "HOROVOD_CONTROLLER": "gloo", "HOROVOD_CPU_OPERATIONS": "gloo", "HOROVOD_HOSTNAME": mine.hostname,
        "HOROVOD_GLOO_RENDEZVOUS_ADDR": line.main_address, "HOROVOD_GLOO_RENDEZVOUS_PORT": str(port),
        "HOROVOD_RANK": str(mine.rank), "HOROVOD_SIZE": str(mine.size),
        "HOROVOD_LOCAL_RANK": str(mine.local_rank), "HOROVOD_LOCAL_SIZE": str(mine.local_size),
        "HOROVOD_CROSS_RANK": str(mine.cross_rank), "HOROVOD_CROSS_SIZE": str(mine.cross_size),
    }  # fmt: skip
    if line.interface:
        os.environ.setdefault("HOROVOD_GLOO_IFACE", line.interface)
    return server


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


class _Place(int):
    """Stands for tensor number so-and-so."""


def _take_tensors(value: Any, tensors: list[Tensor]) -> dict[str, Any]:
    """`value` with its tensors taken out into `tensors` (contiguous, on the CPU), and their shapes and types."""

    def walk(part: Any) -> Any:
        if isinstance(part, Tensor):
            tensors.append(part.detach().cpu().contiguous())
            return _Place(len(tensors) - 1)
        if isinstance(part, dict):
            return {key: walk(one) for key, one in part.items()}
        if isinstance(part, list | tuple):
            return type(part)(walk(one) for one in part)
        return part

    plain = walk(value)
    return {"value": plain, "tensors": [(tuple(tensor.shape), tensor.dtype) for tensor in tensors]}


def _put_tensors(part: Any, tensors: list[Tensor]) -> Any:
    """The reverse of `_take_tensors`."""
    if isinstance(part, _Place):
        return tensors[part]
    if isinstance(part, dict):
        return {key: _put_tensors(one, tensors) for key, one in part.items()}
    if isinstance(part, list | tuple):
        return type(part)(_put_tensors(one, tensors) for one in part)
    return part
