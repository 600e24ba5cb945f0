"""The processes that work together, as the rest of the package sees them, whatever carries their messages.

Each process takes its share `[rank::size]` of every global batch; a share is weighted by its frames over the frames of
the global batch, and gradients are summed, so that the result is the gradient of the mean over the global batch
whatever the shares (one may be empty).
"""

import contextlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from mdlatent.lifeline import Line
from mdlatent.models.base import LatentModel
from mdlatent.nested_tensors import put_tensors, take_tensors

__all__ = ["Group", "Loss", "Several"]

Loss = Callable[[Tensor, float | Tensor, Tensor | None], dict[str, Tensor]]


class Group:
    """The processes that work together; this class itself is the single one, which exchanges nothing."""

    backend = "single"
    rank, size = 0, 1
    scale = 1.0  # factor on every loss before its backward pass, see ddp_group.py

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


class Several(Group):
    """What the backends of several processes share: they give `_add` and `_copy` (in place) and `_copy_object`."""

    def __init__(self, line: Line, device: str) -> None:
        self.rank, self.size, self.line, self.device = line.launch.rank, line.launch.size, line, device

    def _add(self, values: Tensor) -> None:
        raise NotImplementedError

    def _copy(self, values: Tensor) -> None:
        raise NotImplementedError

    def _copy_object(self, value: Any) -> Any:
        raise NotImplementedError

    def sum(self, values: Tensor) -> Tensor:
        """As in `Group`; added up on the CPU."""
        total = values.detach().to("cpu", copy=True).contiguous()
        self._add(total)
        return total.to(values.device)

    def any(self, *flags: Any) -> tuple[bool, ...]:
        """As in `Group`: one sum of all flags."""
        counts = torch.tensor([float(bool(flag)) for flag in flags])
        self._add(counts)
        return tuple(bool(count) for count in counts)

    def broadcast(self, value: Any) -> Any:
        """As in `Group`: first what is no tensor, then tensor by tensor."""
        tensors: list[Tensor] = []
        plan = self._copy_object(take_tensors(value, tensors) if self.is_main else None)
        if not self.is_main:
            tensors = [torch.empty(shape, dtype=dtype) for shape, dtype in plan["tensors"]]
        for tensor in tensors:
            self._copy(tensor)
        return put_tensors(plan["value"], tensors)

    def wait_for_main(self) -> None:
        """As in `Group`: by the line, on which waiting has no limit."""
        self.line.tell()
