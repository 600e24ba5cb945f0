"""Several processes by Horovod; nothing else in the package knows it."""

import contextlib
import os
from collections.abc import Callable
from typing import Any

from torch import Tensor

from mdlatent.errors import ConfigError
from mdlatent.group import Loss, Several
from mdlatent.lifeline import Line
from mdlatent.models.base import LatentModel

__all__ = ["HorovodGroup"]


class HorovodGroup(Several):
    """Each gradient is handed to Horovod as soon as it is complete.

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
        server = None if by_mpi or line.launch.launcher == "horovodrun" else _rendezvous(line)
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
        """As in `Group`."""
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
        """As in `Group`."""
        self._last = last
        yield

    def finish_gradients(self) -> None:
        """As in `Group`."""
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
        """As in `Group`; the server of addresses ends too."""
        self._hvd.shutdown()
        if self._server:
            self._server.stop()


def _rendezvous(line: Line) -> Any:
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
