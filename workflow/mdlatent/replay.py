"""Training steps on a GPU, recorded once and replayed: CUDA graphs.

A step of a small model is hundreds of kernels of a few microseconds each, and to start one takes the CPU longer than
that. Replayed, all of a step is started at once: the same kernels on the same places in memory, so the same bits.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from mdlatent.models.base import LatentModel
from mdlatent.parallel import Group

__all__ = ["Replayed", "fits"]

STARTED = 3  # steps done as they come before one is recorded: what is made on first use is then there
# Activations of a batch up to which it pays: above, kernels take longer than their start, and memory is kept twice.
ACTIVATIONS_BYTES = 2_000_000_000

Step = Callable[[Tensor, float | Tensor, Tensor, int], Tensor]


def fits(model: LatentModel, batch_size: int, device: str, group: Group) -> bool:
    """Whether steps of this training can and should be replayed."""
    small = model.bytes_per_frame * batch_size <= ACTIVATIONS_BYTES
    return device == "cuda" and group.backend == "single" and model.replayable and small


class Replayed:
    """`step(batch, beta, draw, length)`, which gives sums over the batch, for a GPU.

    Steps of `batch_size` frames are replayed, others done as they come. The step must not wait for the GPU, nor depend
    on anything but its arguments and tensors whose place stays the same.
    """

    def __init__(self, step: Step, batch_size: int) -> None:
        self._step, self._batch_size, self._done = step, batch_size, 0
        self._beta = torch.zeros((), device="cuda")
        self._graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, batch: Tensor, beta: float | Tensor, draw: Tensor, length: int) -> Tensor:
        """As `step`; what is returned is overwritten by the next call."""
        self._beta.fill_(beta)
        if length < self._batch_size or self._done < STARTED:
            self._done += length == self._batch_size
            return self._step(batch, self._beta, draw, length)
        if self._graph is None:
            self._batch, self._draw, self._graph = batch.clone(), draw.clone(), torch.cuda.CUDAGraph()
            with torch.cuda.graph(self._graph):
                self._sums = self._step(self._batch, self._beta, self._draw, length)
        self._batch.copy_(batch)
        self._draw.copy_(draw)
        self._graph.replay()
        return self._sums
