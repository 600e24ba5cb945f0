"""Several processes by torch's DistributedDataParallel; nothing else in the package knows torch.distributed."""

import contextlib
import os
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, nn

from mdlatent.group import Loss, Several
from mdlatent.lifeline import Line
from mdlatent.models.base import LatentModel

__all__ = ["DdpGroup"]

# For one exchange: a process that is gone is noticed much sooner (lifeline.py), one that hangs is not.
TIMEOUT_S = 1800.0


class DdpGroup(Several):
    """Gradients travel in buckets while the backward pass goes on."""

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
        """As in `Group`; `sample` goes through the model once, to lay out the buckets."""
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
        """As in `Group`."""
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


class _LossOf(nn.Module):
    """DDP watches `forward`; ours is the loss."""

    def __init__(self, model: LatentModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, coordinates: Tensor, beta: float | Tensor, noise: Tensor | None) -> dict[str, Tensor]:
        """As `LatentModel.loss`."""
        return self.model.loss(coordinates, beta, noise)
